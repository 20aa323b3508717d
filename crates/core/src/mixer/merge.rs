//! How the directions of a mixer come together.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use crate::{Result, init::Init};

/// How the outputs of K directions become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// Added up. Their variance grows with K, a known cause of non-finite values in training.
    Sum,
    /// Added up and divided by K.
    #[default]
    Mean,
    /// Side by side: the output projection reads K times as many channels.
    Concat,
    /// Added up with weights that a sample chooses: a softmax over K of a linear map of the directions' means
    /// (RSMamba, arXiv 2403.19654, eq. 4).
    Gated,
}

/// The gate of [`Merge::Gated`]: `weight` (K, K D).
#[derive(Debug)]
pub(super) struct Gate {
    weight: Tensor,
}

impl Gate {
    pub fn new(vs: &nn::Path, directions: i64, channels: i64) -> Gate {
        Gate { weight: Init::Kaiming.parameter(vs, "weight", &[directions, directions * channels]) }
    }

    /// (B, L, K, D) to (B, L, D).
    pub fn forward(&self, y: &Tensor) -> Result<Tensor> {
        let means = y.f_mean_dim(1, false, Kind::Float)?.flatten(1, 2); // (B, K D)
        let gate = means.f_linear(&self.weight, None::<Tensor>)?.softmax(1, Kind::Float); // (B, K)
        let gate = gate.to_kind(y.kind()).unsqueeze(1).unsqueeze(3); // (B, 1, K, 1)
        Ok(y.f_mul(&gate)?.f_sum_dim_intlist(2, false, y.kind())?)
    }
}
