//! Values of the `[model]` table that are more than a number or a word.

use ophidian_scan::{Geometry, Pattern, Plan};
use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// A length, or rows and columns: `4` or `[4, 8]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number such as 4, or [rows, columns] such as [4, 8]")]
pub enum Size {
    /// The same for rows and columns.
    Square(i64),
    /// (rows, columns).
    Sides([i64; 2]),
}

impl From<i64> for Size {
    fn from(side: i64) -> Size {
        Size::Square(side)
    }
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Size::Square(side) => side.fmt(f),
            Size::Sides(sides) => write!(f, "{sides:?}"),
        }
    }
}

impl Size {
    /// (rows, columns).
    pub fn sides(self) -> [i64; 2] {
        match self {
            Size::Square(side) => [side, side],
            Size::Sides(sides) => sides,
        }
    }
}

/// A number, or one for each stage: `24` or `[2, 2, 8, 2]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number such as 24, or one for each stage such as [2, 2, 8, 2]")]
pub enum PerStage<T = i64> {
    /// One number.
    One(T),
    /// One for each stage.
    Each(Vec<T>),
}

impl<T> From<T> for PerStage<T> {
    fn from(number: T) -> PerStage<T> {
        PerStage::One(number)
    }
}

impl<T: Copy> PerStage<T> {
    /// The numbers as they are written.
    pub fn values(&self) -> &[T] {
        match self {
            PerStage::One(number) => std::slice::from_ref(number),
            PerStage::Each(numbers) => numbers,
        }
    }

    /// That of stage number `stage`; the last one if there are fewer.
    pub fn of(&self, stage: usize) -> Option<T> {
        let values = self.values();
        values.get(stage).or(values.last()).copied()
    }

    /// Whether there is one for all stages, or one for each of `stages`.
    pub(super) fn fits(&self, stages: usize) -> bool {
        matches!(self, PerStage::One(_)) || self.values().len() == stages
    }
}

impl<T: std::fmt::Debug> std::fmt::Display for PerStage<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PerStage::One(number) => write!(f, "{number:?}"),
            PerStage::Each(numbers) => write!(f, "{numbers:?}"),
        }
    }
}

/// One pattern for all blocks, or several that the blocks take in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a pattern such as \"bidirectional\", or a list of patterns")]
pub enum Scans {
    /// For every block.
    One(String),
    /// Block i takes number i modulo their count.
    Each(Vec<String>),
}

impl Scans {
    /// The patterns as they are written.
    pub fn texts(&self) -> &[String] {
        match self {
            Scans::One(text) => std::slice::from_ref(text),
            Scans::Each(texts) => texts,
        }
    }

    /// The same scans; each that its paper has the layers take in turn (`zigma/zigzag8`) becomes the list of them.
    pub fn scheduled(self) -> Scans {
        let layers = |text: &String| match pattern(text, 0).ok().and_then(|pattern| pattern.layers().ok()) {
            Some(layers) if layers.len() > 1 => layers.iter().map(Pattern::to_string).collect(),
            _ => vec![text.clone()],
        };
        let texts: Vec<String> = self.texts().iter().flat_map(layers).collect();
        if texts == self.texts() { self } else { Scans::Each(texts) }
    }

    /// Checks that each is a pattern.
    ///
    /// # Errors
    /// [`Error::Config`] of one that is not, or if there is none.
    pub fn check(&self) -> Result<()> {
        if self.texts().is_empty() {
            return Err(Error::Config("`scan` is an empty list, expected at least one pattern".into()));
        }
        self.texts().iter().try_for_each(|text| pattern(text, 0).map(drop))
    }

    /// The plans that the blocks take in turn, over patches that lie as `geometry` says, with class tokens at
    /// `class_tokens`.
    ///
    /// # Errors
    /// [`Error::Config`] of a text that is no pattern; a pattern that does not suit the geometry.
    pub fn plans(&self, geometry: &Geometry, class_tokens: &[i64]) -> Result<Vec<Plan>> {
        self.texts().iter().map(|text| plan(text, 0, geometry, class_tokens)).collect()
    }
}

/// The plan of the pattern `text` over patches that lie as `geometry` says, with class tokens at `class_tokens`.
/// `seed` is that of a sample.
///
/// # Errors
/// [`Error::Config`] of a text that is no pattern; a pattern that does not suit the geometry.
pub(in crate::grid) fn plan(
    text: &str,
    seed: u64,
    geometry: &Geometry,
    class_tokens: &[i64],
) -> Result<Plan> {
    let plan = pattern(text, seed)?.plan(geometry)?;
    class_tokens.iter().try_fold(plan, |plan, at| Ok(plan.insert_token(*at as usize)?))
}

/// The pattern of `text`, drawn with `seed` where that is the sample's (`seed=sample`).
///
/// # Errors
/// [`Error::Config`] of a text that is no pattern.
pub fn pattern(text: &str, seed: u64) -> Result<Pattern> {
    let text = reseeded(text, seed).unwrap_or_else(|| text.to_owned());
    text.parse().map_err(|error: ophidian_scan::Error| Error::Config(format!("`scan`: {error}")))
}

/// `text` with `seed` in the place of every `seed=sample`, if there is one: a random scan drawn anew for every sample.
pub fn reseeded(text: &str, seed: u64) -> Option<String> {
    let (mut found, mut out, mut rest) = (false, String::new(), text);
    while let Some(end) = rest.find("seed").map(|at| at + "seed".len()) {
        let (before, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        out.push_str(before);
        rest = match value.and_then(|value| value.strip_prefix("sample")) {
            Some(after) => {
                found = true;
                // 63 bits, as the seeds of patterns are.
                out.push_str(&format!("={}", seed >> 1));
                after
            }
            None => after,
        };
    }
    out.push_str(rest);
    found.then_some(out)
}
