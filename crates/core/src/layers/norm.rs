//! Normalisation over the channels of a token.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use crate::{Result, init::Init};

/// Which normalisation.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NormKind {
    /// x / rms(x) * weight (Zhang & Sennrich, arXiv 1910.07467).
    #[default]
    Rms,
    /// (x - mean) / deviation * weight + bias (Ba et al., arXiv 1607.06450).
    Layer,
}

/// A normalisation over the last axis, computed in f32.
#[derive(Debug)]
pub struct Norm {
    kind: NormKind,
    weight: Tensor,
    bias: Option<Tensor>,
    eps: f64,
}

impl Norm {
    /// Over `channels` channels: weight 1, bias 0.
    pub fn new(vs: &nn::Path, kind: NormKind, channels: i64, eps: f64) -> Norm {
        let bias = (kind == NormKind::Layer).then(|| Init::Constant(0.0).parameter(vs, "bias", &[channels]));
        Norm { kind, weight: Init::Constant(1.0).parameter(vs, "weight", &[channels]), bias, eps }
    }

    /// Over `channels` channels each of `groups` groups: weight and bias (groups, channels).
    pub fn grouped(vs: &nn::Path, kind: NormKind, groups: i64, channels: i64, eps: f64) -> Norm {
        let shape = [groups, channels];
        let bias = (kind == NormKind::Layer).then(|| Init::Constant(0.0).parameter(vs, "bias", &shape));
        Norm { kind, weight: Init::Constant(1.0).parameter(vs, "weight", &shape), bias, eps }
    }

    /// The same norm, with the same parameters.
    pub fn shared(&self) -> Norm {
        let share = Tensor::shallow_clone;
        Norm {
            kind: self.kind,
            weight: share(&self.weight),
            bias: self.bias.as_ref().map(share),
            eps: self.eps,
        }
    }

    /// (…, channels), or (…, groups, channels), f32 out.
    ///
    /// # Errors
    /// `x` has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let x = x.to_kind(Kind::Float);
        let shape = self.weight.size();
        if let [_, channels] = shape[..] {
            let (none, eps) = (None::<Tensor>, self.eps);
            let x = match self.kind {
                NormKind::Rms => x.f_rms_norm([channels], none, eps)?,
                NormKind::Layer => x.f_layer_norm([channels], none, None::<Tensor>, eps, false)?,
            };
            let x = x.f_mul(&self.weight)?;
            return Ok(match &self.bias {
                Some(bias) => x.f_add(bias)?,
                None => x,
            });
        }
        Ok(match self.kind {
            NormKind::Rms => x.f_rms_norm(shape, Some(&self.weight), self.eps)?,
            NormKind::Layer => {
                x.f_layer_norm(shape, Some(&self.weight), self.bias.as_ref(), self.eps, false)?
            }
        })
    }
}
