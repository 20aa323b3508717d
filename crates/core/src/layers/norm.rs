//! Normalisation over the channels of a token.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use crate::{
    Error, Result, block,
    init::Init,
    ops::cuda::{Gated, Launcher, add_norm, gated_norm},
};

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

impl Norm {
    /// `x` (…, channels) onto the stream `residual` (as x, f32): the norm of the sum, and the sum in f32. The norm is f32; on
    /// a GPU, where one kernel does both, it has the dtype of x.
    ///
    /// # Errors
    /// As [`forward`](Norm::forward).
    pub fn add(&self, x: &Tensor, residual: &Tensor) -> Result<[Tensor; 2]> {
        let plain = self.weight.dim() == 1
            && x.size() == residual.size()
            && x.size().last() == self.weight.size().last()
            && x.kind() != Kind::Double;
        if let Some(launcher) = Launcher::of(x.device())?.filter(|_| plain) {
            return add_norm(launcher, [x, residual, &self.weight], self.bias.as_ref(), self.eps);
        }
        let sum = block::add(x, Some(residual))?;
        Ok([self.forward(&sum)?, sum])
    }
}

/// Inputs of [`gated_rms_norm`].
#[derive(Clone, Copy)]
pub struct GatedRmsNorm<'a> {
    /// (…, channels).
    pub x: &'a Tensor,
    /// As `x`, or of a shape that is spread over it: the gate is silu(z); none if absent.
    pub z: Option<&'a Tensor>,
    /// (channels).
    pub weight: &'a Tensor,
    /// (channels).
    pub bias: Option<&'a Tensor>,
    /// Channels whose mean square is taken together.
    pub group: i64,
    /// Added to the mean square.
    pub eps: f64,
    /// rms(x) weight silu(z), else rms(x silu(z)) weight.
    pub norm_before_gate: bool,
}

/// Mamba-2's gated RMS normalisation (arXiv 2405.21060, section 7.1): (…, channels), f32 out, or f64 if x is.
///
/// # Errors
/// Shapes that do not fit, or a group that does not divide the channels.
pub fn gated_rms_norm(input: &GatedRmsNorm) -> Result<Tensor> {
    let exact =
        |t: &Tensor| if t.kind() == Kind::Double { t.shallow_clone() } else { t.to_kind(Kind::Float) };
    let shape = input.x.size();
    let channels = shape.last().copied().unwrap_or(0);
    if input.group < 1 || channels % input.group != 0 {
        return Err(Error::invalid(format!(
            "a norm over groups of {} channels was given {channels}",
            input.group
        )));
    }
    if let Some(launcher) = Launcher::of(input.x.device())?
        && channels > 0
        && input.x.kind() != Kind::Double
    {
        let GatedRmsNorm { x, z, weight, bias, group, eps, norm_before_gate } = *input;
        let options = Gated { group, eps, norm_before_gate };
        return Ok(gated_norm(launcher, x, z, (weight, bias), options)?.to_kind(Kind::Float));
    }
    let gate = input.z.map(|z| exact(z).f_silu()).transpose()?;
    let mut x = exact(input.x);
    if let Some(gate) = gate.as_ref().filter(|_| !input.norm_before_gate) {
        x = x.f_mul(gate)?;
    }
    x = if input.group == channels {
        x.f_rms_norm([channels], Some(input.weight), input.eps)?
    } else {
        let grouped = x.f_unflatten(-1, [channels / input.group, input.group])?;
        let normed = grouped.f_rms_norm([input.group], None::<Tensor>, input.eps)?;
        normed.f_view(&shape[..])?.f_mul(input.weight)?
    };
    if let Some(bias) = input.bias {
        x = x.f_add(bias)?;
    }
    if let Some(gate) = gate.filter(|_| input.norm_before_gate) {
        x = x.f_mul(&gate)?;
    }
    Ok(x)
}

/// [`gated_rms_norm`] with a weight that is learned.
#[derive(Debug)]
pub struct GatedNorm {
    weight: Tensor,
    group: i64,
    eps: f64,
    norm_before_gate: bool,
}

impl GatedNorm {
    /// Over `channels` channels in groups of `group`: `weight` (channels) of 1.
    pub fn new(vs: &nn::Path, channels: i64, group: i64, eps: f64, norm_before_gate: bool) -> GatedNorm {
        let weight = Init::Constant(1.0).parameter(vs, "weight", &[channels]);
        GatedNorm { weight, group, eps, norm_before_gate }
    }

    /// x (…, channels), gated by silu(z) if there is a z.
    ///
    /// # Errors
    /// As [`gated_rms_norm`].
    pub fn forward(&self, x: &Tensor, z: Option<&Tensor>) -> Result<Tensor> {
        let GatedNorm { ref weight, group, eps, norm_before_gate } = *self;
        gated_rms_norm(&GatedRmsNorm { x, z, weight, bias: None, group, eps, norm_before_gate })
    }
}
