//! The error of this floor.

use std::path::PathBuf;

/// What can go wrong between a config and a run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A floor below failed: config, file, tensor or libtorch.
    #[error("{0}")]
    Core(#[from] ophidian_core::Error),
    /// The run folder is in use, or holds what the request does not expect; the user decides (exit code 2).
    #[error("{0}")]
    Folder(String),
    /// The loss, a gradient or an output is NaN or infinite; says where, since when and why that is likely.
    #[error("{0}")]
    NonFinite(String),
    /// A checkpoint is damaged or belongs to another model or run; says all that differs.
    #[error("{}: {reason}", path.display())]
    Checkpoint {
        /// The checkpoint.
        path: PathBuf,
        /// What was found and what was expected.
        reason: String,
    },
}

/// Result of this floor.
pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// True if the command line or the config is at fault, not the machine or the data.
    pub fn is_usage(&self) -> bool {
        matches!(self, Error::Folder(_) | Error::Core(ophidian_core::Error::Config(_)))
    }

    /// A config key that cannot be.
    pub(crate) fn config(reason: impl Into<String>) -> Self {
        Error::Core(ophidian_core::Error::Config(reason.into()))
    }

    /// A file that does not read or write.
    pub(crate) fn file(path: &std::path::Path, reason: impl ToString) -> Self {
        Error::Core(ophidian_core::Error::file(path, reason))
    }
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        Error::Core(error.into())
    }
}
