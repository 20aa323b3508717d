//! Values of the `[model]` table that are more than a number or a word.

use ophidian_core::{Error, Result};
use ophidian_scan::{Geometry, Pattern, Plan};
use serde::{Deserialize, Serialize};

/// A length, or rows and columns: `4` or `[4, 8]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number such as 4, or [rows, columns] such as [4, 8]")]
pub enum Size {
    /// The same for rows and columns.
    Square(i64),
    /// (rows, columns).
    Sides([i64; 2]),
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
pub enum PerStage {
    /// One number.
    One(i64),
    /// One for each stage.
    Each(Vec<i64>),
}

impl From<i64> for PerStage {
    fn from(number: i64) -> PerStage {
        PerStage::One(number)
    }
}

impl PerStage {
    /// The numbers as they are written.
    pub fn values(&self) -> &[i64] {
        match self {
            PerStage::One(number) => std::slice::from_ref(number),
            PerStage::Each(numbers) => numbers,
        }
    }
}

impl std::fmt::Display for PerStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PerStage::One(number) => number.fmt(f),
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

    pub(super) fn patterns(&self) -> Result<Vec<Pattern>> {
        let texts = self.texts();
        if texts.is_empty() {
            return Err(Error::Config("`scan` is an empty list, expected at least one pattern".into()));
        }
        let parse = |text: &String| {
            text.parse().map_err(|error: ophidian_scan::Error| Error::Config(format!("`scan`: {error}")))
        };
        texts.iter().map(parse).collect()
    }

    /// The plans that the blocks take in turn, over the patches of `grid` with class tokens at
    /// `class_tokens`.
    pub(in crate::models) fn plans(&self, grid: [i64; 2], class_tokens: &[i64]) -> Result<Vec<Plan>> {
        let geometry = Geometry::Grid2 { height: grid[0] as usize, width: grid[1] as usize };
        let plan = |pattern: &Pattern| {
            let plan = pattern.plan(&geometry)?;
            class_tokens.iter().try_fold(plan, |plan, at| Ok(plan.insert_token(*at as usize)?))
        };
        self.patterns()?.iter().map(plan).collect()
    }
}
