//! Squeeze and excitation (Hu et al., arXiv 1709.01507): a gate per channel that the mean over all tokens chooses.

use tch::{Kind, Tensor, nn};

use crate::{Result, init::Init, layers::Linear, torch::full_precision};

/// x * sigmoid(select(relu(reduce(mean(x))))); `reduce` (D / r, D) and `select` (D, D / r).
#[derive(Debug)]
pub(super) struct Squeeze {
    reduce: Linear,
    select: Linear,
}

impl Squeeze {
    /// Over `channels` channels, `inner` inside.
    pub fn new(vs: &nn::Path, channels: i64, inner: i64, bias: bool, init: Init) -> Squeeze {
        Squeeze {
            reduce: Linear::new(&(vs / "reduce"), channels, inner, bias, init),
            select: Linear::new(&(vs / "select"), inner, channels, bias, init),
        }
    }

    /// (B, L, …, D) to the same.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let gate = full_precision(|| -> Result<Tensor> {
            let mean = x.f_mean_dim(1, true, Kind::Float)?;
            Ok(self.select.forward(&self.reduce.forward(&mean)?.f_relu()?)?.f_sigmoid()?)
        })?;
        Ok(x.f_mul(&gate.to_kind(x.kind()))?)
    }
}
