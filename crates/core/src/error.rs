//! The error of this floor.

use std::path::{Path, PathBuf};

use crate::device::out_of_memory;

/// What can go wrong below the trainer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An argument has the wrong shape, dtype, device or value; says what was found and what was expected.
    #[error("{0}")]
    Invalid(String),
    /// A config key or value is wrong: the user's to mend (exit code 2).
    #[error("{0}")]
    Config(String),
    /// A file is unreadable, truncated or not what it claims to be.
    #[error("{}: {reason}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
    /// libtorch refused.
    #[error("libtorch: {}", first_line(.0))]
    Torch(#[from] tch::TchError),
    /// A scan pattern or plan is wrong.
    #[error(transparent)]
    Scan(#[from] ophidian_scan::Error),
}

/// What libtorch has to say, without the trace of its own code that follows.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    if let Some(told) = out_of_memory(&text) {
        return told;
    }
    text.lines().next().unwrap_or_default().to_owned()
}

/// Result of this floor.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// An argument that does not fit.
    pub fn invalid(reason: impl Into<String>) -> Self {
        Error::Invalid(reason.into())
    }

    /// The same error, told of the file that the arguments came from.
    #[must_use]
    pub fn of_file(self, path: impl AsRef<Path>) -> Self {
        match self {
            Error::Invalid(reason) => Error::file(path, reason),
            other => other,
        }
    }

    /// The same error, and if it is about a config, what else the user should know of it.
    #[must_use]
    pub fn with_hint(self, hint: &str) -> Self {
        match self {
            Error::Config(text) => Error::Config(format!("{text} ({hint})")),
            other => other,
        }
    }

    /// A file that does not read.
    pub fn file(path: impl AsRef<Path>, reason: impl ToString) -> Self {
        Error::File { path: path.as_ref().to_path_buf(), reason: reason.to_string() }
    }
}
