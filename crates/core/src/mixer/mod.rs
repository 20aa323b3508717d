//! Mixers: what moves information between tokens. A mixer runs a recurrence along the orders it is given; it
//! knows nothing of where the tokens lie.

mod affinity;
mod mamba1;
mod merge;

use tch::Tensor;

use crate::{Result, ops::Orders};

pub use affinity::ChannelAffinity;
pub use mamba1::{
    Channels, Coarse, Compat, ConvPlace, DtInit, DtRank, Mamba1, Mamba1Config, Parameters, StepSizes,
};
pub use merge::{Merge, Merger};

/// A token-mixing layer.
pub trait Mixer {
    /// (batch, length, d_model) to the same, along `orders`.
    ///
    /// # Errors
    /// A shape that does not fit, or orders of another number of tokens or directions.
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor>;
}
