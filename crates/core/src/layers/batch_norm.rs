//! Batch normalisation of maps.

use tch::{Tensor, nn};

use crate::{Result, init::Init};

/// Share of a batch's statistics in the running ones.
const MOMENTUM: f64 = 0.1;

/// Added to the variance.
const EPS: f64 = 1e-5;

/// (x - mean) / deviation * weight + bias for each channel (Ioffe & Szegedy, arXiv 1502.03167): over the batch while
/// training, with `running_mean` and `running_var`, which follow it, otherwise.
#[derive(Debug)]
pub struct BatchNorm {
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    variance: Tensor,
}

impl BatchNorm {
    /// Over `channels` channels: weight and variance 1, bias and mean 0.
    pub fn new(vs: &nn::Path, channels: i64) -> BatchNorm {
        let constant = |name: &str, value: f64, trained: bool| {
            vs.add(name, Init::Constant(value).tensor(&[channels], vs.device()), trained)
        };
        BatchNorm {
            weight: constant("weight", 1.0, true),
            bias: constant("bias", 0.0, true),
            mean: constant("running_mean", 0.0, false),
            variance: constant("running_var", 1.0, false),
        }
    }

    /// (B, channels, h, w) to the same.
    ///
    /// # Errors
    /// `x` has another number of channels.
    pub fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let (weight, bias) = (Some(&self.weight), Some(&self.bias));
        let (mean, variance) = (Some(&self.mean), Some(&self.variance));
        Ok(x.f_batch_norm(weight, bias, mean, variance, train, MOMENTUM, EPS, false)?)
    }
}
