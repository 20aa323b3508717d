//! Mixers: what moves information between tokens. A mixer runs a recurrence along the orders it is given; it
//! knows nothing of where the tokens lie.

mod affinity;
mod choice;
mod deform;
mod fusion;
mod hydra;
mod mamba1;
mod merge;
mod quad;
mod semantic;
mod shell;
mod tree;

use tch::Tensor;

use crate::{Result, ops::Orders};

pub use affinity::ChannelAffinity;
pub use choice::Choice;
pub use deform::{DefMamba, DefMambaConfig, DeformCompat, DeformablePath, Deformed};
pub use fusion::{SpatialMamba, StateFusion};
pub use hydra::{Hydra, HydraConfig, QuasiSeparable, quasi_separable};
pub use mamba1::{
    Channels, Coarse, Compat, ConvPlace, DtInit, DtRank, Mamba1, Mamba1Config, Parameters, StepSizes,
};
pub use merge::{Merge, Merger};
pub use quad::{QuadCompat, QuadMamba, QuadMambaConfig};
pub use semantic::{Semantic, SemanticCompat, SemanticConfig, sorted_by_class};
pub use tree::{GrootL, GrootLConfig, GrootV};

/// A token-mixing layer.
pub trait Mixer {
    /// (batch, length, d_model) to the same, along `orders`.
    ///
    /// # Errors
    /// A shape that does not fit, or orders of another number of tokens or directions.
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor>;
}
