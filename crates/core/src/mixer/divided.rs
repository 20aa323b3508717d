//! Time and space one after the other (Video Mamba Suite's TimeMamba, arXiv 2403.09626; divided as TimeSformer, arXiv
//! 2102.05095): Mamba along the line of each place through the frames of a clip, then attention within each frame.

use tch::{Kind, Tensor, nn};

use super::{Attention, AttentionConfig, Mamba1, Mamba1Config, Mixer};
use crate::{
    Error, Result,
    init::Init,
    layers::{Norm, NormKind},
    ops::Orders,
};

/// Sizes and options of a [`Divided`].
#[derive(Debug, Clone, PartialEq)]
pub struct DividedConfig {
    /// What runs along time, for orders over the patches alone.
    pub time: Mamba1Config,
    /// Heads of the attention within frames.
    pub heads: i64,
    /// What time makes is multiplied by the tanh of a learned number that starts at 0.
    pub gate: bool,
    /// What time makes is a part of the result (TimeSformer), and not of what space reads alone (Frozen in Time, arXiv
    /// 2104.00650).
    pub keep_time: bool,
    /// The two norms.
    pub norm: NormKind,
    /// Added to the variance in them.
    pub norm_eps: f64,
}

/// time = tanh(alpha) Mamba(norm(x)); space = Attention(norm(x + time)) of each frame with the class token, whose results
/// are averaged over the frames. Returns space, or time + space.
///
/// Has norms of its own: `time_norm` and `time.*`, `alpha`, `norm` and `space.*`.
pub struct Divided {
    time_norm: Norm,
    time: Mamba1,
    alpha: Option<Tensor>,
    norm: Norm,
    space: Attention,
    keep_time: bool,
}

impl Divided {
    /// A fresh one; the values come from libtorch's generator.
    ///
    /// # Errors
    /// Those of [`Mamba1::new`] and [`Attention::new`].
    pub fn new(vs: &nn::Path, config: &DividedConfig) -> Result<Divided> {
        let d_model = config.time.d_model;
        let norm = |name: &str| Norm::new(&(vs / name), config.norm, d_model, config.norm_eps);
        let space = AttentionConfig { d_model, heads: config.heads, reduction: 1, start: config.time.start };
        Ok(Divided {
            time_norm: norm("time_norm"),
            time: Mamba1::new(&(vs / "time"), &config.time)?,
            alpha: config.gate.then(|| Init::Constant(0.0).parameter(vs, "alpha", &[1])),
            norm: norm("norm"),
            space: Attention::new(&(vs / "space"), &space)?,
            keep_time: config.keep_time,
        })
    }
}

impl Mixer for Divided {
    /// `x` (B, frames N, C) frame by frame, or (B, 1 + frames N, C) with a class token in front, and orders over the
    /// frames' tokens that know how many frames there are.
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        let Ok([frames, rows, columns]) = <[i64; 3]>::try_from(orders.plane()?) else {
            return Err(Error::invalid("time and space are told apart in clips of frames alone"));
        };
        let (tokens, of_frame) = (frames * rows * columns, rows * columns);
        let class = x.size()[1] - tokens;
        if !(0..=1).contains(&class) {
            return Err(Error::invalid(format!(
                "{} tokens do not lie on a grid of {frames}x{rows}x{columns}, nor with a class token in front",
                x.size()[1]
            )));
        }
        let patches = x.f_narrow(1, class, tokens)?;
        let mut time = self.time.forward(&self.time_norm.forward(&patches)?, orders)?;
        if let Some(alpha) = &self.alpha {
            time = time.f_mul(&alpha.f_tanh()?)?;
        }
        let seen = patches.f_add(&time)?.f_unflatten(1, [frames, of_frame])?; // (B, T, N, C)
        // Every frame sees the class token.
        let first = x.f_narrow(1, 0, class)?.f_unsqueeze(1)?.f_expand([-1, frames, -1, -1], false)?;
        let framed = Tensor::f_cat(&[first, seen], 2)?.f_flatten(0, 1)?; // (B T, 1 + N, C)
        let space = self.space.forward(&self.norm.forward(&framed)?, orders)?;
        let space = space.f_unflatten(0, [-1, frames])?; // (B, T, 1 + N, C)
        let mut made = space.f_narrow(2, class, of_frame)?.f_flatten(1, 2)?;
        if self.keep_time {
            made = made.f_add(&time)?;
        }
        let first = space.f_narrow(2, 0, class)?.f_mean_dim(1, false, Kind::Float)?; // (B, 1, C)
        Ok(Tensor::f_cat(&[first, made], 1)?)
    }
}
