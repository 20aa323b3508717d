//! DefMamba's mixer (Liu et al. 2025, arXiv 2504.05794): besides the map as it is, row by row and back, a path whose
//! tokens and order the features choose.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{
    Mamba1Config, Merge, Mixer,
    shell::{Shell, as_map, as_tokens, inverse_of, map_of, orders_of},
};
use crate::{
    Error, Result,
    init::Init,
    layers::{Linear, Norm, NormKind},
    ops::Orders,
    tape,
};

/// What the released code does differently from the paper: needed to run its weights, off otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DeformCompat {
    /// A token without an offset is read half a cell below and to the right of its place, beyond the map at its edge,
    /// and the position bias on a grid that is as much too wide.
    pub half_cell: bool,
}

/// Side of the table of position biases.
const TABLE: i64 = 7;

/// The deformable path (section 3.2): a small network moves each token by up to one cell and along the sequence. The
/// map is read, bilinearly, at the moved places, with a bias by the move; the path visits the tokens by their moved
/// places in the sequence.
///
/// `conv.weight` (D, 1, W, W) and `conv.bias`, `reduce` and `expand` (a channel gate through D / 16), `norm` (D),
/// `offset.weight` (3, D): down, right, along the sequence; `rpe_table` (D, 7, 7).
#[derive(Debug)]
pub struct DeformablePath {
    conv_weight: Tensor,
    conv_bias: Tensor,
    reduce: Linear,
    expand: Linear,
    norm: Norm,
    offset: Linear,
    rpe_table: Tensor,
    compat: DeformCompat,
}

/// What a deformable path visits.
#[derive(Debug)]
pub struct Deformed {
    /// (B, L, D): the tokens read at their moved places, in the order of the map. Their gradient also trains the order:
    /// a token's key gets the mean over the channels of the gradient at its step less that at its place.
    pub tokens: Tensor,
    /// (B, L) int64: the token that each step visits.
    pub index: Tensor,
}

impl DeformablePath {
    /// Over `channels` channels with a convolution of `taps` x `taps`, odd.
    ///
    /// # Errors
    /// Taps that are even or below 1.
    pub fn new(vs: &nn::Path, channels: i64, taps: i64, compat: DeformCompat) -> Result<DeformablePath> {
        if taps < 1 || taps % 2 == 0 || taps > 255 {
            return Err(Error::Config(format!("`taps` is {taps}, expected an odd number from 1 to 255")));
        }
        let inner = (channels / 16).max(1);
        let (init, conv) = (Init::Uniform(1.0 / taps as f64), vs / "conv");
        Ok(DeformablePath {
            conv_weight: init.parameter(&conv, "weight", &[channels, 1, taps, taps]),
            conv_bias: init.parameter(&conv, "bias", &[channels]),
            reduce: Linear::new(&(vs / "reduce"), channels, inner, true, Init::Kaiming),
            expand: Linear::new(&(vs / "expand"), inner, channels, true, Init::Kaiming),
            norm: Norm::new(&(vs / "norm"), NormKind::Layer, channels, 1e-5),
            offset: Linear::new(&(vs / "offset"), channels, 3, false, Init::Kaiming),
            rpe_table: Init::Normal(0.01).parameter(vs, "rpe_table", &[channels, TABLE, TABLE]),
            compat,
        })
    }

    /// The path of u (B, L, D) on a map of [rows, columns].
    ///
    /// # Errors
    /// Another number of tokens or channels.
    pub fn forward(&self, u: &Tensor, map: [i64; 2]) -> Result<Deformed> {
        let ([rows, columns], (b, l, d)) = (map, u.size3()?);
        let u = u.to_kind(Kind::Float);
        let u_map = as_map(&u, map)?;
        let moved = self.moves(&u, &u_map)?; // (B, L, 3) in (-1, 1)
        let [down, right, along] = [0, 1, 2].map(|i| moved.select(2, i));
        // In the sampler's units a map reaches from -1 to 1, from the middle of its first cell to that of its last.
        let axis = |n: i64, first: f64, step: f64| -> Result<Tensor> {
            let at =
                Tensor::f_arange(n, (Kind::Float, u.device()))?.f_mul_scalar(step)?.f_add_scalar(first)?;
            Ok(at.f_mul_scalar(2.0 / (n - 1).max(1) as f64)?.f_sub_scalar(1.0)?)
        };
        let half = if self.compat.half_cell { 0.5 } else { 0.0 };
        let wide = |n: i64| if self.compat.half_cell { n as f64 / (n - 1).max(1) as f64 } else { 1.0 };
        // (B, rows, columns): where each token is read, and how far from its place.
        let place = |n: i64, offset: &Tensor, shape: [i64; 2]| -> Result<[Tensor; 2]> {
            let offset = offset.f_reshape([b, rows, columns])?.f_mul_scalar(1.0 / (n - 1).max(1) as f64)?;
            let at = offset.f_add(&axis(n, half, 1.0)?.f_view(shape)?)?;
            let back = axis(n, 0.0, wide(n))?.f_view(shape)?.f_sub(&at)?.f_mul_scalar(0.5)?;
            Ok([at, back])
        };
        let [y, y_back] = place(rows, &down, [rows, 1])?;
        let [x, x_back] = place(columns, &right, [1, columns])?;
        let sample = |map: &Tensor, x: &Tensor, y: &Tensor| -> Result<Tensor> {
            let (bilinear, zeros) = (0, 0);
            Ok(map.f_grid_sampler(&Tensor::f_stack(&[x, y], 3)?, bilinear, zeros, true)?)
        };
        let bias = self.rpe_table.f_unsqueeze(0)?.f_upsample_bilinear2d(map, false, None, None)?;
        let bias = sample(&bias.f_expand([b, d, rows, columns], false)?, &x_back, &y_back)?;
        let tokens = as_tokens(&sample(&u_map, &x, &y)?.f_add(&bias)?)?;
        let key = along.f_add(&axis(l, half, 1.0)?)?; // (B, L)
        let index = key.f_detach()?.f_argsort_stable(true, 1, false)?;
        Ok(Deformed { tokens: trained_order(&tokens, &key, &index)?, index })
    }

    /// tanh of the network's three outputs per token.
    fn moves(&self, u: &Tensor, u_map: &Tensor) -> Result<Tensor> {
        let (d, taps) = (u.size()[2], self.conv_weight.size()[2]);
        let bias = Some(&self.conv_bias);
        let near = as_tokens(&u_map.f_conv2d(&self.conv_weight, bias, [1; 2], [taps / 2; 2], [1; 2], d)?)?;
        let mean = u.f_mean_dim(1, true, Kind::Float)?; // (B, 1, D)
        let gate = self.expand.forward(&self.reduce.forward(&mean)?.f_gelu("none")?)?.f_sigmoid()?;
        let features = self.norm.forward(&near.f_mul(&gate)?)?.f_gelu("none")?;
        Ok(self.offset.forward(&features)?.f_tanh()?)
    }
}

/// `tokens` unchanged, with a gradient to the keys (B, L) that they are sorted by: with g the mean over the channels of
/// the tokens' gradient, the key of token t gets g at the token of step t less g at token t.
fn trained_order(tokens: &Tensor, key: &Tensor, index: &Tensor) -> Result<Tensor> {
    if !key.requires_grad() {
        return Ok(tokens.shallow_clone());
    }
    // Zero, with that gradient.
    let channels = tokens.size()[2].max(1) as f64;
    let pull = key.f_gather(1, &inverse_of(index)?, false)?.f_sub(key)?.f_mul_scalar(1.0 / channels)?;
    Ok(tokens.f_add(&pull.f_sub(&pull.f_detach()?)?.f_unsqueeze(2)?)?)
}

/// What a DefMamba mixer is told beside a [`Mamba1Config`].
#[derive(Debug, Clone, PartialEq)]
pub struct DefMambaConfig {
    /// The Mamba-1 mixer; of its three directions the orders give the first two.
    pub mamba: Mamba1Config,
    /// Taps of the offset network's convolution, in each axis: 9, 7, 5, 3 by stage in the paper.
    pub taps: i64,
    /// Released quirks.
    pub compat: DeformCompat,
}

/// A [`Mamba1`](super::Mamba1) of three directions, the third along a [`DeformablePath`] (`deform.*`). The orders hold
/// the other two, row by row and back in the paper, and the map.
#[derive(Debug)]
pub struct DefMamba {
    config: DefMambaConfig,
    shell: Shell,
    path: DeformablePath,
}

impl DefMamba {
    /// A fresh mixer.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`] and [`DeformablePath::new`], other than 3 directions, a merge that is no sum or mean,
    /// or a norm behind it.
    pub fn new(vs: &nn::Path, config: &DefMambaConfig) -> Result<DefMamba> {
        let mamba = &config.mamba;
        if !matches!(mamba.merge, Merge::Sum | Merge::Mean) || mamba.out_norm.is_some() {
            return Err(Error::Config("DefMamba takes a sum or a mean as `merge`, and no `out_norm`".into()));
        }
        Ok(DefMamba {
            config: config.clone(),
            shell: Shell::new(vs, "DefMamba", 3, mamba)?,
            path: DeformablePath::new(&(vs / "deform"), mamba.d_inner(), config.taps, config.compat)?,
        })
    }
}

impl Mixer for DefMamba {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        if orders.directions() != 2 {
            return Err(Error::invalid(format!(
                "DefMamba was given {} orders, expected 2 beside the one that it makes",
                orders.directions()
            )));
        }
        let map = map_of(orders)?;
        let scale = if self.config.mamba.merge == Merge::Mean { 1.0 / 3.0 } else { 1.0 };
        self.shell.forward(tokens, orders, scale, |u| {
            let (still, moved) = (self.shell.ssm.part(0, 2)?, self.shell.ssm.part(2, 1)?);
            let coefficients = still.coefficients(&u.f_unsqueeze(2)?)?;
            let y = still.scan(u, &coefficients, None, orders, false)?;
            tape::note("the last direction reads each token at the place that it is moved to");
            let path = self.path.forward(u, map)?;
            let coefficients = moved.coefficients(&path.tokens.f_unsqueeze(2)?)?;
            let along = orders_of(&path.index)?;
            Ok(y.f_add(&moved.scan(&path.tokens, &coefficients, None, &along, false)?)?)
        })
    }
}
