//! Where the tokens lie.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::{Error, Result};

/// Most steps that the orders of one plan may take together (2^26, an 8192 x 8192 image once).
///
/// A typo such as `99999999x99999999` is an error and not an attempt to allocate.
pub const MAX_STEPS: usize = 1 << 26;

/// Most directions of one plan.
pub const MAX_DIRECTIONS: usize = 1 << 12;

/// Where the tokens lie: what a [`Pattern`](crate::Pattern) makes a plan from.
///
/// Written `49` (a sequence) or `7x9` (7 rows of 9 columns).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
#[non_exhaustive]
pub enum Geometry {
    /// `len` tokens in a line.
    Sequence {
        /// How many.
        len: usize,
    },
    /// A grid, numbered row by row: the token at (row, column) is `row * width + column`.
    Grid2 {
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
}

impl Geometry {
    /// How many tokens there are (L).
    ///
    /// # Errors
    /// None at all, or more than [`MAX_STEPS`].
    pub fn tokens(&self) -> Result<usize> {
        let tokens = match *self {
            Geometry::Sequence { len } => Some(len),
            Geometry::Grid2 { height, width } => height.checked_mul(width),
        };
        match tokens {
            Some(0) => {
                Err(Error::Shape { text: self.to_string(), reason: "every size must be at least 1".into() })
            }
            Some(tokens) if tokens <= MAX_STEPS => Ok(tokens),
            _ => Err(too_many(format!("a shape of {self}"))),
        }
    }

    /// (rows, columns); a sequence is one row.
    pub fn grid(&self) -> (usize, usize) {
        match *self {
            Geometry::Sequence { len } => (1, len),
            Geometry::Grid2 { height, width } => (height, width),
        }
    }

    /// (rows, columns) of a grid, or an error that says what `pattern` needs.
    pub(crate) fn need_grid(&self, pattern: &str) -> Result<(usize, usize)> {
        self.tokens()?;
        match *self {
            Geometry::Grid2 { height, width } => Ok((height, width)),
            Geometry::Sequence { .. } => Err(Error::Geometry {
                pattern: pattern.to_string(),
                needed: "a grid of rows and columns".into(),
                found: self.describe(),
                help: "give a shape such as 7x9, or use a pattern for sequences such as `row` or `bidirectional`"
                    .into(),
            }),
        }
    }

    /// In words, for messages.
    pub fn describe(&self) -> String {
        match self {
            Geometry::Sequence { len } => format!("a sequence of {len}"),
            Geometry::Grid2 { .. } => format!("a {self} grid"),
        }
    }
}

/// The error of a request for more steps than [`MAX_STEPS`].
pub(crate) fn too_many(what: String) -> Error {
    Error::TooLarge { what, limit: format!("{MAX_STEPS} steps over all directions") }
}

/// Refuses a plan that would be too large, before anything is allocated for it.
pub(crate) fn check_size(name: &str, directions: usize, steps_each: Option<usize>) -> Result<()> {
    if directions > MAX_DIRECTIONS {
        let what = format!("`{name}` with {directions} directions");
        return Err(Error::TooLarge { what, limit: format!("{MAX_DIRECTIONS} directions") });
    }
    match steps_each.and_then(|steps| steps.checked_mul(directions)) {
        Some(steps) if steps <= MAX_STEPS => Ok(()),
        _ => Err(too_many(format!("`{name}`"))),
    }
}

impl fmt::Display for Geometry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Geometry::Sequence { len } => write!(f, "{len}"),
            Geometry::Grid2 { height, width } => write!(f, "{height}x{width}"),
        }
    }
}

impl FromStr for Geometry {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = |reason: &str| Error::Shape { text: text.to_string(), reason: reason.to_string() };
        let sizes: Vec<&str> = text.trim().split(['x', 'X', '×']).collect();
        let size = |part: &&str| -> Result<usize> {
            if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) {
                return Err(wrong("expected a length such as 49, or rows x columns such as 7x9"));
            }
            part.parse().map_err(|_| too_many(format!("a shape of {text}")))
        };
        let sizes = sizes.iter().map(size).collect::<Result<Vec<_>>>()?;
        let geometry = match sizes[..] {
            [len] => Geometry::Sequence { len },
            [height, width] => Geometry::Grid2 { height, width },
            _ => return Err(wrong("expected one size (a sequence) or two (rows x columns)")),
        };
        geometry.tokens()?;
        Ok(geometry)
    }
}

impl TryFrom<String> for Geometry {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Geometry> for String {
    fn from(geometry: Geometry) -> String {
        geometry.to_string()
    }
}
