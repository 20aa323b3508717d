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
    /// A parent in a tree that does not exist.
    #[error(
        "tree {tree}: the parent of node {node} is {parent}; expected 0 to {}, or -1 for a root",
        nodes.saturating_sub(1)
    )]
    Parent {
        /// Which tree.
        tree: usize,
        /// Which node.
        node: usize,
        /// What it says.
        parent: i32,
        /// Nodes there are.
        nodes: usize,
    },
    /// Nodes that no root is above.
    #[error("tree {tree}: node {node} is on or below a cycle of parents ({count} nodes reach no root)")]
    Cycle {
        /// Which tree.
        tree: usize,
        /// The first such node.
        node: usize,
        /// How many there are.
        count: usize,
    },
    /// Anything else about the shape.
    #[error("{0}")]
    Shape(String),
}
