//! Mixers: what moves information between tokens. A mixer runs a recurrence along the orders it is given; it
//! knows nothing of where the tokens lie.

mod affinity;
mod attention;
mod changemamba;
mod choice;
mod coarse;
mod deform;
mod divided;
mod fusion;
mod hydra;
mod inverted;
mod local;
mod mamba1;
mod mamba2;
mod merge;
mod projection;
mod quad;
mod semantic;
mod shell;
mod squeeze;
mod tree;

use tch::{Tensor, nn};

use crate::{Error, Result, ops::Orders};

pub use affinity::ChannelAffinity;
pub use attention::{Attention, AttentionConfig};
pub use changemamba::{ChangeMamba, ChangeMambaConfig};
pub use choice::Choice;
pub use coarse::Coarse;
pub use deform::{DefMamba, DefMambaConfig, DeformCompat, DeformablePath, Deformed};
pub use divided::{Divided, DividedConfig};
pub use fusion::{SpatialMamba, StateFusion};
pub use hydra::{Hydra, HydraConfig, QuasiSeparable, quasi_separable};
pub use inverted::{Inverted, InvertedConfig};
pub use local::LocalBranch;
pub use mamba1::{Channels, Compat, ConvPlace, DtInit, DtRank, Mamba1, Mamba1Config, Parameters, StepSizes};
pub(crate) use mamba2::head_of;
pub use mamba2::{Mamba2, Mamba2Config, Mamba2Options};
pub use merge::{Merge, Merger};
pub use quad::{QuadCompat, QuadMamba, QuadMambaConfig};
pub use semantic::{Semantic, SemanticCompat, SemanticConfig, sorted_by_class};
pub(crate) use shell::map_of;
pub use tree::{GrootL, GrootLConfig, GrootV};

/// A token-mixing layer.
pub trait Mixer {
    /// (batch, length, d_model) to the same, along `orders`.
    ///
    /// # Errors
    /// A shape that does not fit, or orders of another number of tokens or directions.
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor>;

    /// The same, or, where batch statistics or chance play a part, as in training if `train`.
    ///
    /// # Errors
    /// As [`forward`](Mixer::forward).
    fn forward_t(&self, x: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        let _ = train;
        self.forward(x, orders)
    }
}

/// Any mixer of this floor, by its configuration.
#[derive(Debug, Clone, PartialEq)]
pub enum MixerConfig {
    /// [`Mamba1`].
    Mamba1(Mamba1Config),
    /// [`Mamba2`].
    Mamba2(Mamba2Config),
    /// [`GrootV`].
    GrootV(Mamba1Config),
    /// [`GrootL`].
    GrootL(GrootLConfig),
    /// [`SpatialMamba`].
    SpatialMamba(Mamba1Config),
    /// [`Hydra`].
    Hydra(HydraConfig),
    /// [`DefMamba`].
    DefMamba(DefMambaConfig),
    /// [`QuadMamba`].
    QuadMamba(QuadMambaConfig),
    /// [`Semantic`].
    Semantic(SemanticConfig),
    /// [`Inverted`].
    Inverted(InvertedConfig),
    /// [`Divided`].
    Divided(DividedConfig),
    /// [`ChangeMamba`].
    ChangeMamba(ChangeMambaConfig),
}

impl From<Mamba2Config> for MixerConfig {
    fn from(config: Mamba2Config) -> Self {
        MixerConfig::Mamba2(config)
    }
}

impl From<Mamba1Config> for MixerConfig {
    fn from(config: Mamba1Config) -> Self {
        MixerConfig::Mamba1(config)
    }
}

impl MixerConfig {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// A size or an option that does not fit, which is named.
    pub fn build(&self, vs: &nn::Path) -> Result<Box<dyn Mixer>> {
        Ok(match self {
            MixerConfig::Mamba1(config) => Box::new(Mamba1::new(vs, config)?),
            MixerConfig::Mamba2(config) => Box::new(Mamba2::new(vs, config)?),
            MixerConfig::GrootV(config) => Box::new(GrootV::new(vs, config)?),
            MixerConfig::GrootL(config) => Box::new(GrootL::new(vs, config)?),
            MixerConfig::SpatialMamba(config) => Box::new(SpatialMamba::new(vs, config)?),
            MixerConfig::Hydra(config) => Box::new(Hydra::new(vs, config)?),
            MixerConfig::DefMamba(config) => Box::new(DefMamba::new(vs, config)?),
            MixerConfig::QuadMamba(config) => Box::new(QuadMamba::new(vs, config)?),
            MixerConfig::Semantic(config) => Box::new(Semantic::new(vs, config)?),
            MixerConfig::Inverted(config) => Box::new(Inverted::new(vs, config)?),
            MixerConfig::Divided(config) => Box::new(Divided::new(vs, config)?),
            MixerConfig::ChangeMamba(config) => Box::new(ChangeMamba::new(vs, config)?),
        })
    }

    /// Channels of a token.
    pub fn d_model(&self) -> i64 {
        match self {
            MixerConfig::Mamba1(config) | MixerConfig::GrootV(config) | MixerConfig::SpatialMamba(config) => {
                config.d_model
            }
            MixerConfig::Mamba2(config) => config.d_model,
            MixerConfig::GrootL(config) => config.mamba.d_model,
            MixerConfig::Hydra(config) => config.d_model,
            MixerConfig::DefMamba(config) => config.mamba.d_model,
            MixerConfig::QuadMamba(config) => config.mamba.d_model,
            MixerConfig::Semantic(config) => config.d_model,
            MixerConfig::Inverted(config) => config.d_model,
            MixerConfig::Divided(config) => config.time.d_model,
            MixerConfig::ChangeMamba(config) => config.mamba.d_model,
        }
    }
}

fn expect_directions(orders: &Orders, expected: i64) -> Result<()> {
    if orders.directions() != expected {
        return Err(Error::invalid(format!(
            "a mixer of {expected} directions was given {} orders",
            orders.directions()
        )));
    }
    Ok(())
}
