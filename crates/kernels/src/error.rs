//! Errors of this floor.

use crate::{Dtype, Strides};

/// Result of this floor.
pub type Result<T> = std::result::Result<T, Error>;

/// Arguments that do not fit together. Nothing was read or written.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// A view is too small for the shape.
    #[error(
        "`{name}` holds {len} elements, too few for (batch, tokens, directions, groups, width) = {extent:?} at strides {strides:?}"
    )]
    OutOfBounds {
        /// Argument.
        name: &'static str,
        /// Extent asked for.
        extent: [usize; 5],
        /// Its strides.
        strides: Strides,
        /// Elements there are.
        len: usize,
    },
    /// A flat argument has the wrong length.
    #[error("`{name}` holds {found} values, expected {expected}")]
    Length {
        /// Argument.
        name: &'static str,
        /// Found.
        found: usize,
        /// Expected.
        expected: usize,
    },
    /// An argument has a dtype the kernel does not take.
    #[error("`{name}` is {found:?}, expected {expected:?}")]
    Dtype {
        /// Argument.
        name: &'static str,
        /// Found.
        found: Dtype,
        /// Expected.
        expected: Dtype,
    },
    /// An order points outside the tokens.
    #[error(
        "order {order}, step {step}: token {token} does not exist; expected 0 to {}, -1 (blank) or -2 (skip)",
        tokens.saturating_sub(1)
    )]
    Token {
        /// Which order of the table.
        order: usize,
        /// Which step.
        step: usize,
        /// What it says.
        token: i32,
        /// Tokens there are.
        tokens: usize,
    },
    /// Anything else about the shape.
    #[error("{0}")]
    Shape(String),
}
