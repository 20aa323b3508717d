//! The names that a pattern string may use, and what each takes.

use std::fmt;
use std::sync::{Arc, LazyLock, PoisonError, RwLock};

use super::{Modifier, Rule, curves, graphs, modifiers, parse, points, published, select};
use crate::{Error, Result};

/// What a name stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Walks a geometry: stands first, or in a list.
    Curve,
    /// Changes a walk: follows `|`, or stands before `of`.
    Modifier,
    /// A modifier that makes several directions of each and is a usual scan by itself (over `row`).
    Set,
    /// A scan of a paper, by its name `system/pattern`: stands where a curve stands.
    Published,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Kind::Curve => "curve",
            Kind::Modifier => "modifier",
            Kind::Set => "set",
            Kind::Published => "published",
        })
    }
}

/// The value of an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Int(i64),
    /// A number with a decimal point, as `0.02`.
    Real(Real),
    /// `true` or `false`.
    Flag(bool),
    /// Text in quotes, or one of a few words without.
    Text(String),
}

/// A finite number, compared bit by bit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Real(u64);

impl Real {
    /// `number`, if it is finite.
    pub fn new(number: f64) -> Option<Real> {
        number.is_finite().then_some(Real(number.to_bits()))
    }

    /// The number.
    pub fn get(self) -> f64 {
        f64::from_bits(self.0)
    }
}

impl fmt::Display for Real {
    /// Never with an exponent, and always with a point, so that it reads back as the same value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = self.get();
        if number.fract() == 0.0 { write!(f, "{number:.1}") } else { write!(f, "{number}") }
    }
}

/// An argument that a name takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Param {
    pub(super) name: &'static str,
    pub(super) accepts: Accepts,
    pub(super) default: Fallback,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Accepts {
    /// An integer of at least 1.
    Size,
    /// An integer of at least the value given.
    Int(i64),
    /// A number above zero, with a decimal point or without.
    Positive,
    Flag,
    Text,
    Word(&'static [&'static str]),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fallback {
    None,
    /// The value of the parameter before.
    Previous,
    Value(Value),
}

impl Param {
    /// A required size: a whole number of at least 1.
    pub fn size(name: &'static str) -> Param {
        Param { name, accepts: Accepts::Size, default: Fallback::None }
    }

    /// A required whole number, negative ones included.
    pub fn int(name: &'static str) -> Param {
        Param { name, accepts: Accepts::Int(i64::MIN), default: Fallback::None }
    }

    /// A required whole number of at least 0.
    pub fn count(name: &'static str) -> Param {
        Param { name, accepts: Accepts::Int(0), default: Fallback::None }
    }

    /// A required number above zero, such as 0.02.
    pub fn positive(name: &'static str) -> Param {
        Param { name, accepts: Accepts::Positive, default: Fallback::None }
    }

    /// A whole number of at least 0 that makes a random choice repeatable; 0 if left out.
    pub fn seed() -> Param {
        Param { name: "seed", accepts: Accepts::Int(0), default: Fallback::Value(Value::Int(0)) }
    }

    /// A switch; always written with its name, as in `reset=true`.
    pub fn flag(name: &'static str, default: bool) -> Param {
        Param { name, accepts: Accepts::Flag, default: Fallback::Value(Value::Flag(default)) }
    }

    /// Required text in quotes.
    pub fn text(name: &'static str) -> Param {
        Param { name, accepts: Accepts::Text, default: Fallback::None }
    }

    /// A required choice among `words`.
    pub fn word(name: &'static str, words: &'static [&'static str]) -> Param {
        Param { name, accepts: Accepts::Word(words), default: Fallback::None }
    }

    /// The same, but it takes the value of the parameter before it if it is left out.
    pub fn or_previous(mut self) -> Param {
        self.default = Fallback::Previous;
        self
    }

    /// True if it is written with its name.
    fn named(&self) -> bool {
        let optional_word = matches!((&self.accepts, &self.default), (Accepts::Word(_), Fallback::Value(_)));
        self.accepts == Accepts::Flag || self.name == "seed" || optional_word
    }

    /// The same, but it is `value` if it is left out.
    pub fn or(mut self, value: Value) -> Param {
        self.default = Fallback::Value(value);
        self
    }

    /// What it accepts, in words.
    pub(super) fn expected(&self) -> String {
        match &self.accepts {
            Accepts::Size => "a whole number of at least 1".into(),
            Accepts::Int(i64::MIN) => "a whole number".into(),
            Accepts::Int(least) => format!("a whole number of at least {least}"),
            Accepts::Positive => "a number above zero".into(),
            Accepts::Flag => "true or false".into(),
            Accepts::Text => "text in quotes".into(),
            Accepts::Word(words) => format!("one of {}", words.join(", ")),
        }
    }

    pub(super) fn admits(&self, value: &Value) -> bool {
        match (&self.accepts, value) {
            (Accepts::Size, Value::Int(n)) => *n >= 1 && usize::try_from(*n).is_ok(),
            (Accepts::Int(least), Value::Int(n)) => n >= least,
            (Accepts::Positive, Value::Int(n)) => *n > 0,
            (Accepts::Positive, Value::Real(x)) => x.get() > 0.0,
            (Accepts::Flag, Value::Flag(_)) | (Accepts::Text, Value::Text(_)) => true,
            (Accepts::Word(words), Value::Text(word)) => words.contains(&word.as_str()),
            _ => false,
        }
    }

    fn default_after(&self, values: &[Value]) -> Option<Value> {
        match &self.default {
            Fallback::None => None,
            Fallback::Previous => values.last().cloned(),
            Fallback::Value(value) => Some(value.clone()),
        }
    }

    fn show(&self, value: &Value) -> String {
        match (value, &self.accepts) {
            (Value::Int(n), _) => n.to_string(),
            (Value::Real(x), _) => x.to_string(),
            (Value::Flag(flag), _) => flag.to_string(),
            (Value::Text(word), Accepts::Word(_)) => word.clone(),
            (Value::Text(text), _) => format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"")),
        }
    }
}

/// The arguments of a name, checked against its parameters and completed with their defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Args {
    params: Arc<[Param]>,
    values: Vec<Value>,
}

impl Args {
    /// Completes `given` (one place per parameter); a required parameter that is missing is returned.
    pub(super) fn complete(
        params: Arc<[Param]>,
        given: Vec<Option<Value>>,
    ) -> std::result::Result<Args, Param> {
        let mut values = Vec::with_capacity(params.len());
        for (param, value) in params.iter().zip(given) {
            let value = value.or_else(|| param.default_after(&values)).ok_or_else(|| param.clone())?;
            values.push(value);
        }
        Ok(Args { params, values })
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.params.iter().position(|param| param.name == name).and_then(|i| self.values.get(i))
    }

    fn mistaken(name: &str, what: &str) -> Error {
        Error::Plan(format!("the pattern declares no {what} named `{name}`"))
    }

    /// The whole number `name`.
    ///
    /// # Errors
    /// The entry declares no such parameter.
    pub fn int(&self, name: &str) -> Result<i64> {
        match self.get(name) {
            Some(Value::Int(n)) => Ok(*n),
            _ => Err(Self::mistaken(name, "number")),
        }
    }

    /// The size `name`.
    ///
    /// # Errors
    /// As [`Args::int`].
    pub fn size(&self, name: &str) -> Result<usize> {
        usize::try_from(self.int(name)?).map_err(|_| Self::mistaken(name, "size"))
    }

    /// The number `name`, whole or not.
    ///
    /// # Errors
    /// As [`Args::int`].
    pub fn real(&self, name: &str) -> Result<f64> {
        match self.get(name) {
            Some(Value::Int(n)) => Ok(*n as f64),
            Some(Value::Real(x)) => Ok(x.get()),
            _ => Err(Self::mistaken(name, "number")),
        }
    }

    /// The switch `name`.
    ///
    /// # Errors
    /// As [`Args::int`].
    pub fn flag(&self, name: &str) -> Result<bool> {
        match self.get(name) {
            Some(Value::Flag(flag)) => Ok(*flag),
            _ => Err(Self::mistaken(name, "switch")),
        }
    }

    /// The text or word `name`.
    ///
    /// # Errors
    /// As [`Args::int`].
    pub fn text(&self, name: &str) -> Result<&str> {
        match self.get(name) {
            Some(Value::Text(text)) => Ok(text),
            _ => Err(Self::mistaken(name, "text")),
        }
    }
}

impl fmt::Display for Args {
    /// In brackets, without those that have their default; nothing at all if none is left.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut shown, mut by_position) = (Vec::new(), true);
        for (i, (param, value)) in self.params.iter().zip(&self.values).enumerate() {
            by_position &= !param.named();
            if param.default_after(&self.values[..i]).as_ref() == Some(value) {
                by_position = false;
            } else if by_position {
                shown.push(param.show(value));
            } else {
                shown.push(format!("{}={}", param.name, param.show(value)));
            }
        }
        if shown.is_empty() { Ok(()) } else { write!(f, "({})", shown.join(", ")) }
    }
}

type MakeRule = dyn Fn(&Args) -> Result<Arc<dyn Rule>> + Send + Sync;
type MakeModifier = dyn Fn(&Args) -> Result<Arc<dyn Modifier>> + Send + Sync;

#[derive(Clone)]
pub(super) enum Make {
    Rule(Arc<MakeRule>),
    Modifier(Arc<MakeModifier>),
}

/// A name that pattern strings may use.
///
/// ```
/// use std::sync::Arc;
/// use ophidian_scan::{Args, Entry, Geometry, Order, Param, Pattern, Plan, Result, Rule, register};
///
/// /// Every `step`-th token, and then the next ones.
/// struct Stride(usize);
///
/// impl Rule for Stride {
///     fn plan(&self, geometry: &Geometry) -> Result<Plan> {
///         let tokens = geometry.tokens()?;
///         let walk = (0..self.0).flat_map(|start| (start..tokens).step_by(self.0));
///         Plan::new(vec![Order::new(walk.map(|i| i as i32).collect(), tokens)?])
///     }
/// }
///
/// let make = |args: &Args| Ok(Arc::new(Stride(args.size("step")?)) as Arc<dyn Rule>);
/// register(Entry::curve("stride", "every step-th token, then the next ones", make).params([Param::size("step")]))?;
///
/// let plan = "stride(3) | reverse".parse::<Pattern>()?.plan(&Geometry::Sequence { len: 5 })?;
/// assert_eq!(plan.orders()[0].index(), [2, 4, 1, 3, 0]);
/// # Ok::<(), ophidian_scan::Error>(())
/// ```
#[derive(Clone)]
pub struct Entry {
    name: String,
    pub(super) kind: Kind,
    about: String,
    params: Arc<[Param]>,
    geometry: String,
    directions: String,
    pub(super) make: Make,
}

impl Entry {
    /// A curve, made from its arguments by `make`.
    pub fn curve(
        name: &str,
        about: &str,
        make: impl Fn(&Args) -> Result<Arc<dyn Rule>> + Send + Sync + 'static,
    ) -> Entry {
        Entry::of(name, Kind::Curve, about, "1", Make::Rule(Arc::new(make)))
    }

    /// A modifier, made from its arguments by `make`.
    pub fn modifier(
        name: &str,
        about: &str,
        make: impl Fn(&Args) -> Result<Arc<dyn Modifier>> + Send + Sync + 'static,
    ) -> Entry {
        Entry::of(name, Kind::Modifier, about, "as given", Make::Modifier(Arc::new(make)))
    }

    /// The same modifier as a set: its shortest form leaves out `row |`.
    pub fn as_set(mut self) -> Entry {
        if self.kind == Kind::Modifier {
            self.kind = Kind::Set;
        }
        self
    }

    fn of(name: &str, kind: Kind, about: &str, directions: &str, make: Make) -> Entry {
        Entry {
            name: name.into(),
            kind,
            about: about.into(),
            params: Arc::new([]),
            geometry: "sequence, grid".into(),
            directions: directions.into(),
            make,
        }
    }

    /// The same with parameters.
    pub fn params(mut self, params: impl IntoIterator<Item = Param>) -> Entry {
        self.params = params.into_iter().collect();
        self
    }

    /// The same with the geometries that it knows, in words.
    pub fn on(mut self, geometry: &str) -> Entry {
        self.geometry = geometry.into();
        self
    }

    /// The same with the number of directions that it makes, in words.
    pub fn directed(mut self, directions: &str) -> Entry {
        self.directions = directions.into();
        self
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// What it stands for.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// One line about it.
    pub fn about(&self) -> &str {
        &self.about
    }

    /// The geometries that it knows.
    pub fn geometry(&self) -> &str {
        &self.geometry
    }

    /// How many directions it makes; of a modifier, of each direction that it is given.
    pub fn directions(&self) -> &str {
        &self.directions
    }

    /// Its name and parameters with their defaults: `window(height, width=height, reset=false)`.
    pub fn usage(&self) -> String {
        let mut shown = Vec::new();
        for (i, param) in self.params.iter().enumerate() {
            shown.push(match &param.default {
                Fallback::None => param.name.to_string(),
                Fallback::Previous => {
                    format!("{}={}", param.name, i.checked_sub(1).map_or("?", |i| self.params[i].name))
                }
                Fallback::Value(value) => format!("{}={}", param.name, param.show(value)),
            });
        }
        if shown.is_empty() { self.name.clone() } else { format!("{}({})", self.name, shown.join(", ")) }
    }

    pub(super) fn parameters(&self) -> &Arc<[Param]> {
        &self.params
    }
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Entry({})", self.usage())
    }
}

static ENTRIES: LazyLock<RwLock<Vec<Entry>>> = LazyLock::new(|| {
    let walks = [curves::entries(), points::entries(), graphs::entries()].concat();
    RwLock::new([walks, modifiers::entries(), select::entries()].concat())
});

/// Every name that a pattern string may use, short of [`published`](crate::published) scans: the built-in ones, then those
/// registered.
pub fn entries() -> Vec<Entry> {
    ENTRIES.read().unwrap_or_else(PoisonError::into_inner).clone()
}

pub(super) fn find(name: &str) -> Option<Entry> {
    let known = ENTRIES.read().unwrap_or_else(PoisonError::into_inner);
    known.iter().find(|entry| entry.name == name).cloned().or_else(|| published::find(name))
}

/// Makes `entry`'s name usable in every pattern string that this process reads from now on.
///
/// # Errors
/// The name is taken, or is not a name: a letter, then letters, digits, `_`, `-`, `/`; not `of`, `true` or `false`.
pub fn register(entry: Entry) -> Result<()> {
    if !parse::is_name(&entry.name) {
        let message = format!(
            "`{}` cannot name a pattern: expected a letter, then letters, digits, `_`, `-` or `/`, and not a reserved word",
            entry.name
        );
        return Err(Error::Plan(message));
    }
    let mut entries = ENTRIES.write().unwrap_or_else(PoisonError::into_inner);
    if entries.iter().any(|known| known.name == entry.name) || published::find(&entry.name).is_some() {
        return Err(Error::Plan(format!("there is already a pattern named `{}`", entry.name)));
    }
    entries.push(entry);
    Ok(())
}
