//! Shapes in words, and what the tensors of a file make of them.

use std::collections::BTreeMap;

use tch::Tensor;

use crate::{Error, Result, tensors::Tensors};

/// What an op reads: a name, the shapes it may have, and whether it must be there.
pub(super) struct Input {
    pub name: &'static str,
    /// Axes by the letters of their sizes, for example `B 2D L`: the first tensor that has a letter says how much it is.
    /// Shapes of a constant coefficient start with D.
    pub shapes: &'static [&'static str],
    pub required: bool,
    /// Whole numbers instead of floats.
    pub whole: bool,
}

impl Input {
    pub const fn new(name: &'static str, shapes: &'static [&'static str]) -> Input {
        Input { name, shapes, required: true, whole: false }
    }

    pub const fn optional(self) -> Input {
        Input { required: false, ..self }
    }

    pub const fn whole(self) -> Input {
        Input { whole: true, ..self }
    }
}

/// One axis: `factor` times a letter, less `minus`; without a letter the factor itself.
struct Axis<'a> {
    factor: i64,
    letter: &'a str,
    minus: i64,
}

impl<'a> Axis<'a> {
    fn of(text: &'a str) -> Axis<'a> {
        let (text, minus) = match text.split_once('-') {
            Some((text, minus)) => (text, minus.parse().unwrap_or(0)),
            None => (text, 0),
        };
        let letter = text.trim_start_matches(|c: char| c.is_ascii_digit());
        let factor = text[..text.len() - letter.len()].parse().unwrap_or(1);
        Axis { factor, letter, minus }
    }

    /// How long it must be, if that is known.
    fn size(&self, known: Option<i64>) -> Option<i64> {
        if self.letter.is_empty() { Some(self.factor) } else { known.map(|n| self.factor * n - self.minus) }
    }
}

/// What is known of a call's sizes: how much each letter is and which tensor says so.
#[derive(Default)]
pub(super) struct Sizes {
    letters: BTreeMap<&'static str, (i64, &'static str)>,
    /// The shape that was chosen for each input.
    chosen: BTreeMap<&'static str, &'static str>,
}

impl Sizes {
    /// How much a letter is.
    pub fn get(&self, letter: &str) -> Option<i64> {
        self.letters.get(letter).map(|(n, _)| *n)
    }

    /// The input that says how much a letter is.
    pub fn source(&self, letter: &str) -> &'static str {
        self.letters.get(letter).map_or("", |(_, name)| *name)
    }

    /// Whether input `name` has a shape that starts with this letter.
    pub fn starts_with(&self, name: &str, letter: &str) -> bool {
        self.chosen.get(name).is_some_and(|shape| shape.split(' ').next() == Some(letter))
    }

    /// Checks all inputs that are there, in turn; `may` says which of its shapes an input may have.
    ///
    /// # Errors
    /// The first tensor of another type or shape: found, expected, and which tensor says so.
    pub fn of(
        op: &str,
        inputs: &'static [Input],
        tensors: &Tensors,
        may: impl Fn(&Input, &str) -> bool,
    ) -> Result<Sizes> {
        let mut sizes = Sizes::default();
        for input in inputs {
            let Some(tensor) = tensors.get(input.name) else { continue };
            check_kind(op, input, tensor)?;
            let found = tensor.size();
            let axes = |shape: &str| if shape.is_empty() { 0 } else { shape.split(' ').count() };
            let allowed: Vec<&'static str> =
                input.shapes.iter().copied().filter(|shape| may(input, shape)).collect();
            let alike: Vec<_> = allowed.iter().copied().filter(|shape| axes(shape) == found.len()).collect();
            let Some(shape) = alike.iter().copied().find(|shape| sizes.fits(shape, &found)) else {
                let shapes = if alike.is_empty() { allowed } else { alike };
                let expected: Vec<String> = shapes.iter().map(|shape| sizes.describe(shape)).collect();
                return Err(Error::invalid(format!(
                    "{op}: `in.{}` has shape {found:?}, expected {}{}",
                    input.name,
                    expected.join(" or "),
                    sizes.sources(&shapes)
                )));
            };
            sizes.learn(input.name, shape, &found);
        }
        Ok(sizes)
    }

    fn fits(&self, shape: &str, found: &[i64]) -> bool {
        shape.split(' ').zip(found).all(|(axis, &n)| {
            let axis = Axis::of(axis);
            match axis.size(self.get(axis.letter)) {
                // One of two tensors may have a single group where the other has several.
                Some(size) => size == n || axis.letter == "G" && (size == 1 || n == 1),
                None => (n + axis.minus) % axis.factor == 0,
            }
        })
    }

    fn learn(&mut self, name: &'static str, shape: &'static str, found: &[i64]) {
        for (axis, n) in shape.split(' ').zip(found) {
            let axis = Axis::of(axis);
            if !axis.letter.is_empty() {
                let n = (n + axis.minus) / axis.factor;
                let known = self.letters.entry(axis.letter).or_insert((n, name));
                if n > known.0 && axis.letter == "G" {
                    *known = (n, name);
                }
            }
        }
        self.chosen.insert(name, shape);
    }

    /// `[2, 12, L] (B, 2D, L)`.
    fn describe(&self, shape: &str) -> String {
        let known = |text: &str| {
            let axis = Axis::of(text);
            axis.size(self.get(axis.letter)).map_or_else(|| text.to_owned(), |n| n.to_string())
        };
        let sizes: Vec<String> = shape.split(' ').map(known).collect();
        format!("[{}] ({})", sizes.join(", "), shape.replace(' ', ", "))
    }

    /// Which tensors say how much the letters of these shapes are.
    fn sources(&self, shapes: &[&str]) -> String {
        let mut names: Vec<&str> = shapes
            .iter()
            .flat_map(|shape| shape.split(' '))
            .filter_map(|axis| self.letters.get(Axis::of(axis).letter).map(|(_, name)| *name))
            .collect();
        names.sort_unstable();
        names.dedup();
        if names.is_empty() {
            return String::new();
        }
        let names: Vec<String> = names.iter().map(|name| format!("`in.{name}`")).collect();
        format!(" by {}", names.join(", "))
    }
}

fn check_kind(op: &str, input: &Input, tensor: &Tensor) -> Result<()> {
    use tch::Kind::{BFloat16, Double, Float, Half, Int, Int8, Int16, Int64, Uint8};
    let kind = tensor.kind();
    let (fits, expected) = if input.whole {
        (matches!(kind, Int64 | Int | Int16 | Int8 | Uint8), "whole numbers (Int64 or Int)")
    } else {
        (matches!(kind, Float | Double | BFloat16 | Half), "floats (Float, BFloat16, Half or Double)")
    };
    if fits {
        return Ok(());
    }
    Err(Error::invalid(format!("{op}: `in.{}` has dtype {kind:?}, expected {expected}", input.name)))
}
