//! How the directions of a mixer come together.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use crate::{
    Result,
    init::Init,
    layers::{Linear, Norm, NormKind},
    torch::full_precision,
};

/// How the outputs of K directions become one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Merge {
    /// Added up. Their variance grows with K, a known cause of non-finite values in training.
    Sum,
    /// Added up and divided by K.
    #[default]
    Mean,
    /// Side by side: the output projection reads K times as many channels.
    Concat,
    /// Added up with weights that a sample chooses: a softmax over K of a linear map of the directions' means, as they
    /// leave the mixer (RSMamba, arXiv 2403.19654, eq. 4).
    Gated,
    /// Added up, each times a gate per channel that a sample chooses: a two-layer map, the same for all directions, of
    /// the direction's normalised mean (LocalMamba, arXiv 2403.09338, section 3.3).
    ChannelGate,
    /// Added up, each normalised over its channels (without weights) and times its share: a softmax over K of learned
    /// numbers. What LocalMamba searches directions with: train with many, keep those with the largest shares.
    Search,
}

/// What a [`Merge`] needs to learn: `gate.weight` (K, K times d_model) of [`Merge::Gated`]; `norm`, `reduce`
/// (D / 8, D) and `select` (D, D / 8) of [`Merge::ChannelGate`]; `search.weight` (K) of [`Merge::Search`].
#[derive(Debug)]
pub struct Merger {
    merge: Merge,
    gate: Option<Tensor>,
    channel_gate: Option<ChannelGate>,
    search: Option<Tensor>,
}

impl Merger {
    /// For K directions of `channels` channels in a mixer of `d_model` channels.
    pub fn new(vs: &nn::Path, merge: Merge, directions: i64, channels: i64, d_model: i64) -> Merger {
        let gate = || Init::Kaiming.parameter(&(vs / "gate"), "weight", &[directions, directions * d_model]);
        Merger {
            merge,
            gate: (merge == Merge::Gated).then(gate),
            channel_gate: (merge == Merge::ChannelGate)
                .then(|| ChannelGate::new(vs, channels, Init::Kaiming)),
            search: (merge == Merge::Search)
                .then(|| Init::Normal(1e-3).parameter(&(vs / "search"), "weight", &[directions])),
        }
    }

    /// The share of each direction (K), of [`Merge::Search`].
    pub fn shares(&self) -> Option<Tensor> {
        Some(self.search.as_ref()?.softmax(0, Kind::Float))
    }

    /// (B, L, K, D) to (B, L, 1, D), or to itself if they are concatenated. The mean is left to the caller: this adds
    /// up. `out` is what the mixer does to the result.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn forward(&self, y: &Tensor, out: impl Fn(&Tensor) -> Result<Tensor>) -> Result<Tensor> {
        let weighed = match (self.merge, &self.gate, &self.channel_gate) {
            (Merge::Concat, ..) => return Ok(y.shallow_clone()),
            (Merge::Search, ..) => {
                let width = y.size().last().copied().unwrap_or(0);
                let y = y.to_kind(Kind::Float);
                let y = y.f_layer_norm([width], None::<Tensor>, None::<Tensor>, 1e-5, false)?;
                match self.shares() {
                    Some(shares) => y.f_mul(&shares.unsqueeze(1))?, // (K, 1)
                    None => y,
                }
            }
            (_, Some(gate), _) => {
                let weights = full_precision(|| -> Result<Tensor> {
                    let means = out(&y.f_mean_dim(1, false, Kind::Float)?)?.f_flatten(1, -1)?; // (B, K d_model)
                    Ok(means.f_linear(gate, None::<Tensor>)?.f_softmax(1, Kind::Float)?) // (B, K)
                })?;
                y.f_mul(&weights.to_kind(y.kind()).unsqueeze(1).unsqueeze(3))?
            }
            (_, _, Some(gate)) => y.f_mul(&gate.forward(y)?.to_kind(y.kind()))?,
            _ => y.shallow_clone(),
        };
        Ok(weighed.f_sum_dim_intlist(2, true, weighed.kind())?)
    }
}

/// LocalMamba's BiAttn as released: its spatial half is left out there. `norm`, `reduce` (D / 8, D), `select` (D, D / 8).
#[derive(Debug)]
pub(super) struct ChannelGate {
    norm: Norm,
    reduce: Linear,
    select: Linear,
}

impl ChannelGate {
    pub fn new(vs: &nn::Path, channels: i64, init: Init) -> ChannelGate {
        let inner = (channels / 8).max(1);
        ChannelGate {
            norm: Norm::new(&(vs / "norm"), NormKind::Layer, channels, 1e-5),
            reduce: Linear::new(&(vs / "reduce"), channels, inner, true, init),
            select: Linear::new(&(vs / "select"), inner, channels, true, init),
        }
    }

    /// The gates of (B, L, K, D): (B, 1, K, D).
    pub fn forward(&self, y: &Tensor) -> Result<Tensor> {
        full_precision(|| {
            let means = self.norm.forward(y)?.f_mean_dim(1, true, Kind::Float)?;
            Ok(self.select.forward(&self.reduce.forward(&means)?.f_gelu("none")?)?.f_sigmoid()?)
        })
    }
}
