//! y = x Wᵀ + b.

use tch::{Tensor, nn};

use crate::{
    Result,
    init::{Init, values_wanted},
};

/// A linear layer: `weight` (out, in) and, if it has one, `bias` (out).
#[derive(Debug)]
pub struct Linear {
    weight: Tensor,
    bias: Option<Tensor>,
}

impl Linear {
    /// A layer from `inputs` to `outputs` channels whose weight starts from `init`; the bias starts at 0.
    pub fn new(vs: &nn::Path, inputs: i64, outputs: i64, bias: bool, init: Init) -> Linear {
        Linear {
            weight: init.parameter(vs, "weight", &[outputs, inputs]),
            bias: bias.then(|| Init::Constant(0.0).parameter(vs, "bias", &[outputs])),
        }
    }

    /// (…, in) to (…, out).
    ///
    /// # Errors
    /// `x` has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight, self.bias.as_ref())?)
    }

    /// The output channels from number `first` on, `count` of them: (…, in) to (…, count).
    ///
    /// # Errors
    /// As [`forward`](Linear::forward), or channels that it does not have.
    pub fn forward_part(&self, x: &Tensor, first: i64, count: i64) -> Result<Tensor> {
        let part = |t: &Tensor| t.f_narrow(0, first, count);
        Ok(x.f_linear(&part(&self.weight)?, self.bias.as_ref().map(part).transpose()?.as_ref())?)
    }

    /// As [`forward`](Linear::forward) of `scale * x`, with the small weight scaled in place of the
    /// activation.
    ///
    /// # Errors
    /// As there.
    pub fn forward_scaled(&self, x: &Tensor, scale: f64) -> Result<Tensor> {
        Ok(x.f_linear(&self.weight.f_mul_scalar(scale)?, self.bias.as_ref())?)
    }

    /// Multiplies the weight by `factor`, for initialisation.
    pub fn rescale(&self, factor: f64) {
        if factor == 1.0 || !values_wanted() {
            return;
        }
        tch::no_grad(|| {
            let _ = self.weight.shallow_clone().g_mul_scalar_(factor);
        });
    }
}
