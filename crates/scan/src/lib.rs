//! Scan geometry: in which orders the tokens of a geometry are visited. No tensors, no libtorch.
//!
//! An [`Order`] is one direction, a [`Plan`] several over the same tokens, a [`Geometry`] says where the tokens lie.

mod error;
mod geometry;
mod order;
mod plan;

pub use error::{Error, Result, SyntaxError};
pub use geometry::{Geometry, MAX_DIRECTIONS, MAX_STEPS};
pub use order::{Blank, Order, Summary};
pub use plan::Plan;
