//! The linear maps at the ends of a mixer.

use tch::{Tensor, nn};

use super::mamba1::ssm::project;
use crate::{Result, init::Init, layers::Linear};

/// A linear layer over all channels, or one for each of K groups of them: (B, L, G, in) to (B, L, K or 1, out).
#[derive(Debug)]
pub(super) enum Projection {
    Dense(Linear),
    /// `weight` (K, out, in), `bias` (K, out).
    Grouped {
        weight: Tensor,
        bias: Option<Tensor>,
    },
}

impl Projection {
    /// From `inputs` to `outputs` channels in all, perhaps within so many `groups` of them.
    pub fn new(
        vs: &nn::Path,
        groups: Option<i64>,
        [inputs, outputs]: [i64; 2],
        bias: bool,
        init: Init,
    ) -> Projection {
        let Some(groups) = groups else {
            return Projection::Dense(Linear::new(vs, inputs, outputs, bias, init));
        };
        let (inputs, outputs) = (inputs / groups, outputs / groups);
        Projection::Grouped {
            weight: init.parameter(vs, "weight", &[groups, outputs, inputs]),
            bias: bias.then(|| Init::Constant(0.0).parameter(vs, "bias", &[groups, outputs])),
        }
    }

    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.forward_scaled(x, 1.0)
    }

    /// Of `scale * x`.
    pub fn forward_scaled(&self, x: &Tensor, scale: f64) -> Result<Tensor> {
        let (b, l, width) = (x.size()[0], x.size()[1], x.size()[2..].iter().product::<i64>());
        match self {
            Projection::Dense(linear) if scale == 1.0 => linear.forward(&x.f_reshape([b, l, 1, width])?),
            Projection::Dense(linear) => linear.forward_scaled(&x.f_reshape([b, l, 1, width])?, scale),
            Projection::Grouped { weight, bias } => {
                let groups = weight.size()[0];
                let y = project(&x.f_reshape([b, l, groups, width / groups.max(1)])?, weight)?;
                Ok(match bias {
                    Some(bias) => y.f_add(bias)?,
                    None => y,
                })
            }
        }
    }

    pub fn rescale(&self, factor: f64) {
        match self {
            Projection::Dense(linear) => linear.rescale(factor),
            Projection::Grouped { weight, .. } => tch::no_grad(|| {
                let _ = weight.shallow_clone().g_mul_scalar_(factor);
            }),
        }
    }
}
