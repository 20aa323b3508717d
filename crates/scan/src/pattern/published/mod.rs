//! The scans of papers, by the name `system/pattern`: one table row each.
//!
//! A row is a composition of built-in names, and that string is its definition: nothing here walks a geometry. A name may
//! hold a `#` for a number (`localmamba/w#`), and its composition a `{word}` for an argument. What the authors' released
//! code does otherwise is a second composition, chosen by `compat=released`.

mod audio;
mod images;
mod points;
mod systems;
mod videos;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, LazyLock};

pub use systems::System;

use super::registry::Accepts;
use super::{Args, Entry, Kind, Param, Pattern, Real, Rule, Value};
use crate::{Error, Geometry, Merge, Plan, Result};

/// The kinds of geometry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `49`.
    Sequence,
    /// `7x9`.
    Grid,
    /// `4x7x9`.
    Volume,
    /// Points in space.
    Points,
    /// A graph.
    Graph,
}

impl Shape {
    /// The kind of `geometry`.
    pub fn of(geometry: &Geometry) -> Shape {
        match geometry {
            Geometry::Sequence { .. } => Shape::Sequence,
            Geometry::Grid2 { .. } => Shape::Grid,
            Geometry::Grid3 { .. } => Shape::Volume,
            Geometry::Points(_) => Shape::Points,
            Geometry::Graph(_) => Shape::Graph,
        }
    }

    fn needed(self) -> &'static str {
        match self {
            Shape::Sequence => "a sequence (such as 49)",
            Shape::Grid => "rows x columns (such as 7x9)",
            Shape::Volume => "frames x rows x columns (such as 4x7x9)",
            Shape::Points => "points",
            Shape::Graph => "a graph",
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Shape::Sequence => "sequence",
            Shape::Grid => "grid",
            Shape::Volume => "volume",
            Shape::Points => "points",
            Shape::Graph => "graph",
        })
    }
}

/// Which directions share their parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Parameters {
    /// One set for all directions.
    Shared,
    /// All but A (Vim v1).
    SharedButA,
    /// A set for each direction.
    Own,
}

impl fmt::Display for Parameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Parameters::Shared => "shared",
            Parameters::SharedButA => "shared but A",
            Parameters::Own => "own",
        })
    }
}

/// Which layer walks which directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Schedule {
    /// Every layer walks all of them.
    Together,
    /// Layer i walks direction i mod K alone.
    PerLayer,
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Schedule::Together => "together",
            Schedule::PerLayer => "per layer",
        })
    }
}

/// A scan of a paper.
#[derive(Debug)]
pub struct Published {
    name: &'static str,
    aliases: &'static [&'static str],
    shapes: &'static [Shape],
    directions: &'static str,
    definition: Definition,
    /// Another composition over one kind of geometry.
    over: Option<(Shape, &'static str)>,
    released: Option<&'static str>,
    /// Keys of a model's config that follow the released code, where the deviation is not of the order.
    deviation: &'static str,
    choices: &'static [Choice],
    merge: Merge,
    parameters: Parameters,
    schedule: Schedule,
    note: &'static str,
}

/// What a row stands for.
#[derive(Debug, Clone, Copy)]
enum Definition {
    Composition(&'static str),
    /// No order without the features that are named here.
    Features(&'static str),
}

/// An argument of a published scan: `{name}` in the composition.
#[derive(Debug)]
enum Choice {
    /// One of `words`, the first if it is left out; each stands for the text in its place in `means`.
    Word { name: &'static str, words: &'static [&'static str], means: &'static [&'static str] },
    /// A number of at least `least`; `default` if it is left out.
    Number { name: &'static str, least: i64, default: i64 },
    /// A number above zero; `default` if it is left out.
    Real { name: &'static str, default: f64 },
    /// LocalMamba's words for directions (`h v_flip w2 w7_flip`), `default` if they are left out; each stands for what its
    /// name stands for.
    Directions { default: &'static str },
}

/// `class_token=…`, the first of `words` if it is left out.
const fn class_token(words: &'static [&'static str]) -> Choice {
    Choice::Word { name: "class_token", words, means: words }
}

const SEED: Choice = Choice::Number { name: "seed", least: 0, default: 0 };

const ANY: &[Shape] = &[Shape::Sequence, Shape::Grid, Shape::Volume, Shape::Points, Shape::Graph];

/// A row of the table; what is not said further is one direction for all layers.
const fn scan(
    name: &'static str,
    shapes: &'static [Shape],
    directions: &'static str,
    composition: &'static str,
) -> Published {
    Published {
        name,
        aliases: &[],
        shapes,
        directions,
        definition: Definition::Composition(composition),
        over: None,
        released: None,
        deviation: "",
        choices: &[],
        merge: Merge::Alone,
        parameters: Parameters::Shared,
        schedule: Schedule::Together,
        note: "",
    }
}

/// A row without an order: what it needs besides.
const fn features(name: &'static str, shapes: &'static [Shape], needed: &'static str) -> Published {
    Published { definition: Definition::Features(needed), ..scan(name, shapes, "-", "") }
}

impl Published {
    const fn also(self, aliases: &'static [&'static str]) -> Published {
        Published { aliases, ..self }
    }

    const fn merged(self, merge: Merge, parameters: Parameters) -> Published {
        Published { merge, parameters, ..self }
    }

    const fn per_layer(self) -> Published {
        Published { schedule: Schedule::PerLayer, parameters: Parameters::Own, ..self }
    }

    const fn choices(self, choices: &'static [Choice]) -> Published {
        Published { choices, ..self }
    }

    /// What it is over geometries of one kind, where that differs.
    const fn over(self, shape: Shape, composition: &'static str) -> Published {
        Published { over: Some((shape, composition)), ..self }
    }

    /// What the authors' released code does otherwise.
    const fn deviating(self, composition: &'static str) -> Published {
        Published { released: Some(composition), ..self }
    }

    /// What the released code does otherwise that is no matter of the order: the keys of a model's config that follow it.
    const fn deviating_by(self, keys: &'static str) -> Published {
        Published { deviation: keys, ..self }
    }

    const fn noted(self, note: &'static str) -> Published {
        Published { note, ..self }
    }

    /// Its name, `system/pattern`; a `#` in it stands for a number.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Other names of the same scan.
    pub fn aliases(&self) -> &'static [&'static str] {
        self.aliases
    }

    /// The system that walks it.
    pub fn system(&self) -> &'static System {
        systems::of(self.name)
    }

    /// The geometries that it knows.
    pub fn shapes(&self) -> &'static [Shape] {
        self.shapes
    }

    /// The geometries that it knows, in words.
    pub fn geometry(&self) -> String {
        if self.shapes.len() == ANY.len() {
            return "any".to_string();
        }
        self.shapes.iter().map(Shape::to_string).collect::<Vec<_>>().join(", ")
    }

    /// The number of directions (K), in words where it depends on the arguments.
    pub fn directions(&self) -> &'static str {
        self.directions
    }

    /// Its definition by built-in names, with a `{word}` for each argument; None if it has no order without features.
    pub fn composition(&self) -> Option<&'static str> {
        match self.definition {
            Definition::Composition(text) => Some(text),
            Definition::Features(_) => None,
        }
    }

    /// The kind of geometry over which it is another composition, and that composition.
    pub fn composition_over(&self) -> Option<(Shape, &'static str)> {
        self.over
    }

    /// A name that resolves: 2 for a `#`.
    pub fn example(&self) -> String {
        example(self.name)
    }

    /// What it needs besides a geometry, if it has no order without.
    pub fn needs(&self) -> Option<&'static str> {
        match self.definition {
            Definition::Composition(_) => None,
            Definition::Features(needed) => Some(needed),
        }
    }

    /// The composition that reproduces the authors' released code (`compat=released`), where that deviates.
    pub fn released(&self) -> Option<&'static str> {
        self.released
    }

    /// The keys of a model's config that follow the authors' released code where it deviates in more than the order; empty
    /// if it does not.
    pub fn deviation(&self) -> &'static str {
        self.deviation
    }

    /// How the directions become one.
    pub fn merge(&self) -> Merge {
        self.merge
    }

    /// Which directions share their parameters.
    pub fn parameters(&self) -> Parameters {
        self.parameters
    }

    /// Which layer walks which directions.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// What else there is to know: what the mixer does besides, and quirks of the released code.
    pub fn note(&self) -> &'static str {
        self.note
    }

    /// Its name and parameters with their defaults; a family of numbered names as `localmamba/w2, w7 …`.
    pub fn usage(&'static self) -> String {
        self.entry(None).usage().replacen(self.name, &in_words(self.name), 1)
    }

    fn entry(&'static self, number: Option<u32>) -> Entry {
        let name = number.map_or(self.name.to_string(), |n| self.name.replacen('#', &n.to_string(), 1));
        let make = move |args: &Args| {
            let text = match self.released {
                Some(released) if args.text("compat")? == "released" => Some(released),
                _ => self.composition(),
            };
            let text = text.ok_or_else(|| Error::Plan(self.missing_features()))?;
            let made = |text: &str| self.filled(text, args, number)?.parse::<Pattern>();
            let over = self.over.map(|(shape, text)| Ok::<_, Error>((shape, made(text)?))).transpose()?;
            Ok(Arc::new(Fitted { scan: self, pattern: made(text)?, over }) as Arc<dyn Rule>)
        };
        let about = if self.note.is_empty() { self.system().title() } else { self.note };
        let mut entry = Entry::curve(&name, about, make).params(self.params()).on(&self.geometry());
        entry = entry.directed(self.directions);
        entry.kind = Kind::Published;
        entry
    }

    fn params(&self) -> Vec<Param> {
        let mut params: Vec<Param> = self
            .choices
            .iter()
            .map(|choice| match *choice {
                Choice::Word { name, words, .. } => {
                    let first = words.first().copied().unwrap_or_default();
                    Param::word(name, words).or(Value::Text(first.into()))
                }
                Choice::Number { name, least, default: n } => {
                    Param { accepts: Accepts::Int(least), ..Param::count(name) }.or(Value::Int(n))
                }
                Choice::Real { name, default } => {
                    Param::positive(name).or(Real::new(default).map_or(Value::Int(1), Value::Real))
                }
                Choice::Directions { default } => Param::text("directions").or(Value::Text(default.into())),
            })
            .collect();
        if self.released.is_some() {
            params.push(Param::word("compat", &["paper", "released"]).or(Value::Text("paper".into())));
        }
        params
    }

    /// A composition with the arguments in their places.
    fn filled(&self, text: &str, args: &Args, number: Option<u32>) -> Result<String> {
        let mut text = text.to_string();
        if let Some(n) = number {
            text = text.replace("{#}", &n.to_string());
        }
        for choice in self.choices {
            let (name, value) = match *choice {
                Choice::Word { name, words, means } => {
                    let word = args.text(name)?;
                    let at = words.iter().position(|known| *known == word);
                    (name, at.and_then(|i| means.get(i)).copied().unwrap_or_default().to_string())
                }
                Choice::Number { name, .. } => (name, args.int(name)?.to_string()),
                Choice::Real { name, .. } => {
                    (name, Real::new(args.real(name)?).map_or(String::new(), |number| number.to_string()))
                }
                Choice::Directions { .. } => {
                    ("directions", self.searched(args.text("directions")?)?.join(", "))
                }
            };
            text = text.replace(&format!("{{{name}}}"), &value);
        }
        Ok(text)
    }

    /// The scans that LocalMamba's words for directions stand for.
    fn searched(&self, words: &str) -> Result<Vec<String>> {
        let scan = |word: &str| {
            let name = format!("localmamba/{word}");
            let known = lookup(&name).is_some_and(|(scan, _)| scan.directions == "1");
            known.then_some(name).ok_or_else(|| {
                let expected = "expected words such as h, h_flip, v, v_flip, w2 or w7_flip";
                Error::Plan(format!("`directions` of `{}` has `{word}`, {expected}", self.name))
            })
        };
        let scans: Vec<String> = words.split_whitespace().map(scan).collect::<Result<_>>()?;
        if scans.is_empty() {
            return Err(Error::Plan(format!("`directions` of `{}` names none", self.name)));
        }
        Ok(scans)
    }

    fn missing_features(&self) -> String {
        let needed = self.needs().unwrap_or_default();
        format!("`{}` is no order of a geometry alone: it needs {needed}", self.name)
    }
}

/// A published scan with its arguments.
struct Fitted {
    scan: &'static Published,
    pattern: Pattern,
    over: Option<(Shape, Pattern)>,
}

impl Rule for Fitted {
    fn plan(&self, geometry: &Geometry) -> Result<Plan> {
        if !self.scan.shapes.contains(&Shape::of(geometry)) {
            let needed: Vec<&str> = self.scan.shapes.iter().map(|shape| shape.needed()).collect();
            let help = "`ophidian scan list` says which scans know which geometry";
            return Err(geometry.unfit(self.scan.name, &needed.join(" or "), help));
        }
        match &self.over {
            Some((shape, pattern)) if Shape::of(geometry) == *shape => pattern.plan(geometry),
            _ => self.pattern.plan(geometry),
        }
    }
}

static TABLE: LazyLock<Vec<&'static Published>> = LazyLock::new(|| {
    [images::TABLE, videos::TABLE, points::TABLE, audio::TABLE].into_iter().flatten().collect()
});

/// Every name and alias, as [`key`] spells it; numbers of a name with a `#` are left out.
static NAMES: LazyLock<HashMap<String, &'static Published>> = LazyLock::new(|| {
    let names = |scan: &'static Published| [scan.name].into_iter().chain(scan.aliases.iter().copied());
    TABLE.iter().flat_map(|&scan| names(scan).map(move |name| (key(name), scan))).collect()
});

/// Case and the choice between hyphen and underscore do not tell names apart.
fn key(name: &str) -> String {
    name.to_ascii_lowercase().replace('_', "-")
}

/// Every published scan, system by system.
pub fn published() -> &'static [&'static Published] {
    &TABLE
}

/// The scan named so: `localmamba/w#` for `localmamba/w7`, and by any alias.
pub fn published_named(name: &str) -> Option<&'static Published> {
    lookup(name).map(|found| found.0)
}

/// The scan named so, and the number in the place of its `#`.
fn lookup(name: &str) -> Option<(&'static Published, Option<u32>)> {
    let name = key(name);
    if let Some(&scan) = NAMES.get(&name) {
        return (!scan.name.contains('#')).then_some((scan, None));
    }
    // A run of digits after the slash may be a number.
    let mut at = name.find('/')?;
    while let Some(digit) = name[at..].find(|c: char| c.is_ascii_digit()) {
        let start = at + digit;
        let length = name[start..].bytes().take_while(u8::is_ascii_digit).count();
        at = start + length;
        let number =
            name[start..at].parse::<u32>().ok().filter(|n| *n > 0 && !name[start..].starts_with('0'));
        let family = NAMES.get(&format!("{}#{}", &name[..start], &name[at..]));
        if let (Some(&scan), Some(number)) = (family, number) {
            return Some((scan, Some(number)));
        }
    }
    None
}

/// The entry of the scan named so.
pub(super) fn find(name: &str) -> Option<Entry> {
    lookup(name).map(|(scan, number)| scan.entry(number))
}

/// Why the published scan named so does not take `compat`, and what does instead.
pub(super) fn without_compat(name: &str) -> Option<String> {
    let (scan, _) = lookup(name)?;
    Some(match scan.deviation {
        "" => "the released code walks it as its paper does, so there is no `compat`".to_string(),
        keys => format!("the released code deviates in the model, not in the order: set {keys}"),
    })
}

/// What stands after the slash of a name.
pub(super) fn pattern_of(name: &str) -> &str {
    name.split_once('/').map_or(name, |(_, pattern)| pattern)
}

/// The names of a system's scans, as people read them.
pub(super) fn names_of(system: &str) -> impl Iterator<Item = String> {
    TABLE.iter().filter(move |scan| scan.system().name() == system).map(|scan| in_words(scan.name))
}

/// A name that resolves: 2 for a `#`.
pub(super) fn example(name: &str) -> String {
    name.replace('#', "2")
}

/// A name as people read it: `localmamba/w2, w7 …` for `localmamba/w#`.
fn in_words(name: &str) -> String {
    let more = |at| format!("{}, {} …", example(name), pattern_of(name).replace('#', at));
    if name.contains('#') { more("7") } else { name.to_owned() }
}

/// Every name and alias that resolves, for suggestions.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().flat_map(|scan| [scan.name].into_iter().chain(scan.aliases.iter().copied()))
}

impl Pattern {
    /// The published scan that this pattern is, if it is one and nothing else.
    pub fn published(&self) -> Option<&'static Published> {
        match &*self.0 {
            super::Node::Rule { call, .. } if call.kind == Kind::Published => published_named(&call.name),
            _ => None,
        }
    }

    /// Direction `k` of this pattern alone: `… | direction(k)`.
    ///
    /// # Errors
    /// The pattern is nested too deeply for one modifier more.
    pub fn direction(&self, k: usize) -> Result<Pattern> {
        format!("{self} | direction({k})").parse()
    }

    /// Each direction over `geometry` as a pattern of its own: an item of a list, where that has one direction, else
    /// `… | direction(k)`.
    ///
    /// # Errors
    /// As [`Pattern::plan`] and [`Pattern::direction`].
    pub fn directions(&self, geometry: &Geometry) -> Result<Vec<Pattern>> {
        if let super::Node::List(items) = &*self.0 {
            let each = items.iter().map(|item| item.directions(geometry)).collect::<Result<Vec<_>>>()?;
            return Ok(each.concat());
        }
        match self.plan(geometry)?.directions() {
            1 => Ok(vec![self.clone()]),
            count => (0..count).map(|k| self.direction(k)).collect(),
        }
    }

    /// The pattern of each layer, over and over: a published scan whose schedule is [`Schedule::PerLayer`] gives one
    /// pattern for each direction (`zigma/zigzag8` eight), any other pattern itself alone.
    ///
    /// # Errors
    /// As [`Pattern::direction`].
    pub fn layers(&self) -> Result<Vec<Pattern>> {
        let count = self.published().filter(|scan| scan.schedule == Schedule::PerLayer);
        match count.and_then(|scan| scan.directions.parse::<usize>().ok()) {
            Some(count) => (0..count).map(|k| self.direction(k)).collect(),
            None => Ok(vec![self.clone()]),
        }
    }
}
