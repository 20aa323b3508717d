//! Scan geometry: in which orders the tokens of a geometry are visited. No tensors, no libtorch.
//!
//! An [`Order`] is one direction, a [`Plan`] several over the same tokens, a [`Geometry`] says where the tokens lie, and
//! a [`Pattern`] is the rule that makes a plan for a geometry. [`draw`] shows a plan as text or SVG.

pub mod draw;
mod error;
mod files;
mod geometry;
mod graph;
mod keys;
mod merge;
mod oddity;
mod order;
mod pattern;
mod plan;
mod points;
mod stats;
mod tree;

pub use error::{Error, Result, SyntaxError};
pub use geometry::{Geometry, MAX_DIRECTIONS, MAX_STEPS};
pub use graph::{Graph, GraphSummary};
pub use keys::{hilbert_key, key_bits, morton_key};
pub use merge::Merge;
pub use oddity::{Oddity, OddityKind};
pub use order::{Blank, Order, Summary};
pub use pattern::{
    Args, Entry, Kind, Modifier, Param, Parameters, Pattern, PointCompat, PointCurve, Published, Real, Rule,
    Schedule, Serialization, Shape, System, Value, entries, published, published_named, register,
};
pub use plan::Plan;
pub use points::{Points, PointsSummary};
pub use stats::{Spread, Stats, stats};
pub use tree::{Candidates, RootedTree};
