//! The error of this crate, and the one that points into a pattern string.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

/// What can be wrong with an order, a plan, a pattern or a file of indices.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A pattern string does not read; says what is wrong and points at it.
    #[error("{0}")]
    Syntax(Box<SyntaxError>),
    /// A shape that is not `49` or `7x9`, or that holds no token.
    #[error("shape `{text}`: {reason}")]
    Shape {
        /// The shape as it was given.
        text: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A pattern was asked for a plan over a geometry that it does not know.
    #[error("`{pattern}` needs {needed}, but the tokens are {found}; {help}")]
    Geometry {
        /// The pattern's name.
        pattern: String,
        /// The geometry it needs.
        needed: String,
        /// The geometry it was given.
        found: String,
        /// What to do.
        help: String,
    },
    /// More tokens, steps or directions than the crate's limits ([`crate::MAX_STEPS`], [`crate::MAX_DIRECTIONS`]).
    #[error("{what} is too large: at most {limit}")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit, in words.
        limit: String,
    },
    /// An order points at a token that does not exist.
    #[error("{}[{step}] is {found}, but {tokens} tokens are numbered 0 to {} (-1 is a blank step)",
            direction.map_or("order".to_string(), |k| format!("order.{k}")), tokens.saturating_sub(1))]
    Entry {
        /// Which order of the plan, if it belongs to one.
        direction: Option<usize>,
        /// The step whose entry is wrong.
        step: usize,
        /// The entry.
        found: i64,
        /// How many tokens there are.
        tokens: usize,
    },
    /// An order or a plan that is not one, or that cannot do what was asked of it.
    #[error("{0}")]
    Plan(String),
    /// A file name whose ending names no format, or a format that cannot hold this plan.
    #[error("{}: {reason}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong and what to do.
        reason: String,
    },
    /// A file that is truncated or is not what it claims to be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// The system refused to read or write a file.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        source: std::io::Error,
    },
}

/// Result of this crate.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// True if the user's typing is at fault (a pattern, a shape, a file name's ending), false if a file or the system is.
    ///
    /// A program maps the first to its usage exit code and the second to a failure.
    pub fn is_usage(&self) -> bool {
        !matches!(self, Error::File { .. } | Error::Io { .. })
    }

    pub(crate) fn file(path: &Path, reason: impl fmt::Display) -> Self {
        Error::File { path: path.to_path_buf(), reason: reason.to_string() }
    }

    pub(crate) fn io(path: &Path, source: std::io::Error) -> Self {
        Error::Io { path: path.to_path_buf(), source }
    }

    pub(crate) fn format(path: &Path, reason: impl fmt::Display) -> Self {
        Error::Format { path: path.to_path_buf(), reason: reason.to_string() }
    }

    /// Names the order of the plan in which an entry is wrong.
    pub(crate) fn in_direction(self, k: usize) -> Self {
        match self {
            Error::Entry { step, found, tokens, .. } => {
                Error::Entry { direction: Some(k), step, found, tokens }
            }
            other => other,
        }
    }
}

/// What is wrong with a pattern string, and where.
///
/// Displays as three or four lines: the message, the pattern, a caret line under the culprit, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError {
    /// The whole pattern string.
    pub text: String,
    /// The bytes of `text` that are wrong; empty at the end of `text` if something is missing there.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: Option<String>,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One printed character for one character of the text, so that the carets stand under the culprit.
        let shown =
            |text: &str| -> String { text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect() };
        let before = self.text.get(..self.span.start).unwrap_or(&self.text).chars().count();
        let width = self.text.get(self.span.clone()).map_or(0, |s| s.chars().count()).max(1);
        writeln!(f, "{}", self.message)?;
        writeln!(f, "  {}", shown(&self.text))?;
        write!(f, "  {}{}", " ".repeat(before), "^".repeat(width))?;
        match &self.help {
            Some(help) => write!(f, "\n{help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for SyntaxError {}
