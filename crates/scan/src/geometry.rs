//! Where the tokens lie.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::{Error, Graph, Points, Result};

/// Most steps that the orders of one plan may take together (2^26, an 8192 x 8192 image once).
///
/// A typo such as `99999999x99999999` is an error and not an attempt to allocate.
pub const MAX_STEPS: usize = 1 << 26;

/// Most directions of one plan.
pub const MAX_DIRECTIONS: usize = 1 << 12;

/// Where the tokens lie: what a [`Pattern`](crate::Pattern) makes a plan from. Cheap to clone.
///
/// Written `49` (a sequence), `7x9` (7 rows of 9 columns) or `4x7x9` (4 frames of 7 rows of 9 columns); points and
/// graphs come from data.
#[derive(Debug, Clone, PartialEq)]
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
    /// Frames of a video or slices of a volume, numbered frame by frame and row by row: the token at
    /// (frame, row, column) is `(frame * height + row) * width + column`.
    Grid3 {
        /// Frames or slices.
        frames: usize,
        /// Rows.
        height: usize,
        /// Columns.
        width: usize,
    },
    /// Points in space, numbered as they are given.
    Points(Arc<Points>),
    /// Nodes of a graph, numbered as they are given.
    Graph(Arc<Graph>),
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
            Geometry::Grid3 { frames, height, width } => {
                height.checked_mul(width).and_then(|frame| frame.checked_mul(frames))
            }
            Geometry::Points(ref points) => Some(points.len()),
            Geometry::Graph(ref graph) => Some(graph.nodes()),
        };
        match tokens {
            Some(0) => {
                Err(Error::Shape { text: self.to_string(), reason: "every size must be at least 1".into() })
            }
            Some(tokens) if tokens <= MAX_STEPS => Ok(tokens),
            _ => Err(too_many(format!("a shape of {self}"))),
        }
    }

    /// (frames, rows, columns); a sequence is one row, and points and nodes are a sequence in their numbering.
    pub fn sizes(&self) -> (usize, usize, usize) {
        match *self {
            Geometry::Sequence { len } => (1, 1, len),
            Geometry::Grid2 { height, width } => (1, height, width),
            Geometry::Grid3 { frames, height, width } => (frames, height, width),
            Geometry::Points(ref points) => (1, 1, points.len()),
            Geometry::Graph(ref graph) => (1, 1, graph.nodes()),
        }
    }

    /// (rows, columns) of a grid, or an error that says what `pattern` needs.
    pub(crate) fn need_grid(&self, pattern: &str) -> Result<(usize, usize)> {
        self.tokens()?;
        match *self {
            Geometry::Grid2 { height, width } => Ok((height, width)),
            _ => Err(self.unfit(
                pattern,
                "a grid of rows and columns",
                "give a shape such as 7x9, or use a pattern for sequences such as `row` or `bidirectional`",
            )),
        }
    }

    /// The error of a pattern that needs another geometry.
    pub(crate) fn unfit(&self, pattern: &str, needed: &str, help: &str) -> Error {
        Error::Geometry {
            pattern: pattern.to_string(),
            needed: needed.to_string(),
            found: self.describe(),
            help: help.to_string(),
        }
    }

    /// In words, for messages.
    pub fn describe(&self) -> String {
        match self {
            Geometry::Sequence { len } => format!("a sequence of {len}"),
            Geometry::Grid2 { .. } | Geometry::Grid3 { .. } => format!("a {self} grid"),
            Geometry::Points(_) | Geometry::Graph(_) => self.to_string(),
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
            Geometry::Grid3 { frames, height, width } => write!(f, "{frames}x{height}x{width}"),
            Geometry::Points(points) if points.len() == 1 => f.write_str("1 point"),
            Geometry::Points(points) => write!(f, "{} points", points.len()),
            Geometry::Graph(graph) if graph.nodes() == 1 => f.write_str("a graph of 1 node"),
            Geometry::Graph(graph) => write!(f, "a graph of {} nodes", graph.nodes()),
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
                return Err(wrong(
                    "expected a length such as 49, rows x columns such as 7x9, or frames x rows x columns such as 4x7x9",
                ));
            }
            part.parse().map_err(|_| too_many(format!("a shape of {text}")))
        };
        let sizes = sizes.iter().map(size).collect::<Result<Vec<_>>>()?;
        let geometry = match sizes[..] {
            [len] => Geometry::Sequence { len },
            [height, width] => Geometry::Grid2 { height, width },
            [frames, height, width] => Geometry::Grid3 { frames, height, width },
            _ => {
                return Err(wrong(
                    "expected one size (a sequence), two (rows x columns) or three (frames x rows x columns)",
                ));
            }
        };
        geometry.tokens()?;
        Ok(geometry)
    }
}
