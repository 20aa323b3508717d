//! The mixer of Mamba-2 (Dao & Gu, arXiv 2405.21060, section 7 and figure 6) along K visiting orders, with the parts that
//! published blocks put around a recurrence.
//!
//! ```text
//! z, x, (B, C), dt = in_proj(tokens)     once, in token order; B, C and dt perhaps each direction's own
//! x, B, C = silu(conv(x, B, C))          along each order, or on the grid, or no convolution
//! y    = ssd(x, softplus(dt + bias), A, B, C, D)      along each order
//! out  = out_proj(norm(merge(y) * silu(z)))           in token order
//! ```
//!
//! Only the ops know the orders; no activation is permuted.

mod config;
mod heads;

use tch::{Tensor, nn};

use self::heads::{Heads, Rows};
use super::{
    Channels, Coarse, ConvPlace, Merge, Merger, Mixer, Parameters, expect_directions,
    mamba1::{
        conv::{Conv, ConvShape, GridConv},
        ssm::parts,
    },
    projection::Projection,
    squeeze::Squeeze,
};
use crate::{Error, Result, layers::GatedNorm, ops::Orders};

pub(crate) use config::head_of;
pub use config::{Mamba2Config, Mamba2Options};

/// The mixer. Of S sets (S = K, or 1 if the directions share) with C = D + 2 G N convolved channels: `in_proj.weight`
/// (2 D + S (2 G N + H), d_model) makes z, x, then B and C of each set, then dt of each set; `conv1d.weight` (S, C, W) and
/// `conv1d.bias` (S, C), or on the grid `conv2d.weight` (1, D + S 2 G N, W, W) and `conv2d.bias`; `dt_bias` (S, H),
/// `A_log` (S or K, H), `D` (S, H) or (S, D); `norm.weight` (D); `out_proj`. Without a gate in_proj makes no z. Under
/// `merge` is what a [`Merger`] has.
///
/// If the channels are split, in_proj makes z, x, B, C and dt K times, `conv2d` has K maps of C channels, and `norm.weight` is
/// (K D) if the directions are concatenated; if they are grouped, `in_proj.weight` is (K, 2 D + 2 G N + H, d_model / K) and
/// `out_proj.weight` (K, d_model / K, D). A coarse map has one more set, the last of all: in_proj makes its B, C and dt behind
/// everything else, and its convolution is `coarse.weight` (1, C, W, W) and `coarse.bias`. `squeeze.reduce` (D / r, D) and
/// `squeeze.select` (D, D / r). `step_embedding` is (5, G N).
#[derive(Debug)]
pub struct Mamba2 {
    config: Mamba2Config,
    in_proj: Projection,
    conv: Conv,
    heads: Heads,
    merger: Merger,
    coarse: Option<(Coarse, GridConv)>,
    squeeze: Option<Squeeze>,
    norm: Option<GatedNorm>,
    out_proj: Projection,
}

/// What in_proj makes of the tokens, each (B, L, 1 or K, …).
struct Inputs {
    z: Option<Tensor>,
    /// x, B and C: (…, D + 2 G N), or (…, D + S 2 G N).
    xbc: Tensor,
    dt: Tensor,
    /// B, C and dt of a coarse map.
    coarse: [Tensor; 2],
}

impl Mamba2 {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// As [`Mamba2Config::check`].
    pub fn new(vs: &nn::Path, config: &Mamba2Config) -> Result<Mamba2> {
        config.check()?;
        let Mamba2Config { d_model, directions: k, bias, conv_bias, start, ref options, .. } = *config;
        let (d, own) = (config.d_inner(), config.coefficients());
        let groups = (config.channels == Channels::Grouped).then_some(k);
        let wide = if config.merge == Merge::Concat { k * d } else { d };
        let along = config.conv == ConvPlace::Along;
        let heads = Heads::new(vs, config);
        let mixer = Mamba2 {
            config: config.clone(),
            in_proj: Projection::new(
                &(vs / "in_proj"),
                groups,
                [d_model, config.rows() * config.widths().iter().sum::<i64>()],
                bias,
                start.linear(),
            ),
            conv: Conv::new(
                vs,
                &ConvShape {
                    place: config.conv,
                    sets: if config.parameters == Parameters::Own { k } else { 1 },
                    once: config.parameters == Parameters::Decay,
                    maps: config.rows(),
                    channels: d + if along { 1 } else { config.sets_of_row() } * own,
                    taps: config.d_conv,
                    bias: conv_bias,
                },
            ),
            heads,
            merger: Merger::new(&(vs / "merge"), config.merge, k, d, d_model),
            coarse: config.coarse.map(|coarse| (coarse, coarse.conv(vs, d + own, conv_bias))),
            squeeze: config.squeeze.map(|squeeze| {
                let inner = (d / squeeze).max(1);
                Squeeze::new(&(vs / "squeeze"), d, inner, false, start.linear())
            }),
            norm: options.rmsnorm.then(|| {
                let (width, group) = (config.normed_rows() * d, d / options.ngroups);
                GatedNorm::new(&(vs / "norm"), width, group, config.norm_eps, options.norm_before_gate)
            }),
            out_proj: Projection::new(&(vs / "out_proj"), groups, [wide, d_model], bias, start.linear()),
        };
        mixer.out_proj.rescale(start.branch(config.residuals));
        Ok(mixer)
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &Mamba2Config {
        &self.config
    }

    /// Of the tokens (B, L, d_model).
    fn inputs(&self, tokens: &Tensor) -> Result<Inputs> {
        let (rows, widths) = (self.config.rows(), self.config.widths());
        let made = self.in_proj.forward(&tokens.f_unsqueeze(2)?)?;
        let made = made.f_view([made.size()[0], made.size()[1], rows, widths.iter().sum()])?;
        let [z, xbc, dt, coarse_bc, coarse_dt] = parts(&made, widths)?;
        let z = self.config.gate.then_some(z);
        Ok(Inputs { z, xbc, dt, coarse: [coarse_bc, coarse_dt] })
    }

    /// x (B, L, 1 or K, D) and B, C (B, L, S or K, 2 G N) along `orders`.
    fn convolved(&self, xbc: &Tensor, orders: &Orders) -> Result<[Tensor; 2]> {
        let (d, s, own) = (self.config.d_inner(), self.config.sets_of_row(), self.config.coefficients());
        let (b, l) = (xbc.size()[0], xbc.size()[1]);
        if s == 1 || self.config.conv != ConvPlace::Along {
            let xbc = self.conv.forward(xbc, orders)?; // (B, L, 1 or K, C)
            let [x, bc] = parts(&xbc, [d, s * own])?;
            return Ok([x, if s == 1 { bc } else { bc.f_reshape([b, l, s, own])? }]);
        }
        // x is all directions', B and C are each one's own.
        let [x, bc] = parts(xbc, [d, s * own])?;
        let bc = bc.f_view([b, l, s, own])?;
        Ok([self.conv.part(0, d)?.forward(&x, orders)?, self.conv.part(d, own)?.forward(&bc, orders)?])
    }

    /// The scan of all directions, merged: (B, L, 1 or K, D).
    fn scanned(&self, xbc: &Tensor, dt: &Tensor, z: Option<&Tensor>, orders: &Orders) -> Result<Tensor> {
        let config = &self.config;
        let (k, h) = (config.directions, config.heads());
        let (b, l) = (xbc.size()[0], xbc.size()[1]);
        let [x, bc] = self.convolved(xbc, orders)?;
        let dt =
            if dt.size()[2] == 1 { dt.f_view([b, l, config.sets_of_row(), h])? } else { dt.shallow_clone() };
        let apart = !matches!(config.merge, Merge::Sum | Merge::Mean) || config.norms_each();
        let rows = Rows { x: &x, bc: &bc, dt: &dt, z };
        let mut y = self.heads.part(0, k)?.scan(&rows, orders, apart, None)?.y;
        y = y.f_narrow(1, 0, l - orders.blank_tokens())?;
        if config.norms_each() {
            y = self.normalised(&y, None)?;
        }
        if apart {
            y = self.merger.forward(&y, |y| self.out_proj.forward(y))?;
        }
        Ok(if config.merge == Merge::Mean && k > 1 { y.f_mul_scalar(1.0 / k as f64)? } else { y })
    }

    /// What the coarse map adds: (B, L, 1, D).
    fn coarsened(
        &self,
        (coarse, conv): &(Coarse, GridConv),
        inputs: &Inputs,
        orders: &Orders,
    ) -> Result<Tensor> {
        let (d, own) = (self.config.d_inner(), self.config.coefficients());
        let ([bc, dt], grid) = (&inputs.coarse, orders.plane()?);
        let xbc = Tensor::f_cat(&[&inputs.xbc.f_narrow(3, 0, d)?, bc], 3)?;
        let (xbc, low) = conv.forward(&xbc, grid)?; // (B, l, 1, C)
        let [x, bc] = parts(&xbc, [d, own])?;
        // Nothing convolves Mamba-2's step sizes: a coarse token has the mean of those that its convolution reads.
        let dt = coarse.means(dt, grid)?;
        let heads = self.heads.part(self.config.directions, 1)?;
        let rows = Rows { x: &x, bc: &bc, dt: &dt, z: None };
        coarse.one_after_another(orders, low, |orders, state| {
            let out = heads.scan(&rows, orders, true, state)?;
            let y = if self.config.norms_each() { self.normalised(&out.y, None)? } else { out.y };
            Ok([y, out.final_state])
        })
    }

    /// The norm of y (B, L, 1 or K, D), gated by z; y gated if there is none.
    fn normalised(&self, y: &Tensor, z: Option<&Tensor>) -> Result<Tensor> {
        let Some(norm) = &self.norm else { return gated(y, z) };
        if self.config.normed_rows() == 1 {
            return norm.forward(y, z);
        }
        let flat = |t: &Tensor| t.f_flatten(2, 3);
        Ok(norm.forward(&flat(y)?, z.map(flat).transpose()?.as_ref())?.f_view_as(y)?)
    }
}

/// y silu(z).
fn gated(y: &Tensor, z: Option<&Tensor>) -> Result<Tensor> {
    Ok(match z {
        Some(z) => y.f_mul(&z.f_silu()?)?,
        None => y.shallow_clone(),
    })
}

impl Mixer for Mamba2 {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        let config = &self.config;
        expect_directions(orders, config.directions)?;
        if tokens.dim() != 3 {
            return Err(Error::invalid(format!(
                "a mixer was given a tensor of shape {:?}, expected (batch, length, {})",
                tokens.size(),
                config.d_model
            )));
        }
        let inputs = self.inputs(tokens)?;
        let share = Tensor::shallow_clone;
        let (mut xbc, mut dt) = (share(&inputs.xbc), share(&inputs.dt));
        let [mut inner, outer] = match config.gates_in_scan() {
            true => [inputs.z.as_ref().map(share), None],
            false => [None, inputs.z.as_ref().map(share)],
        };
        let blanks = match config.conv {
            ConvPlace::Along if !self.conv.is_once() => orders.with_blanks_as_tokens(),
            _ => None,
        };
        if let Some(orders) = &blanks {
            // A convolution along the order makes something of a blank step too, as it does of an author's zero padding.
            let pad = |t: &Tensor| t.f_constant_pad_nd([0, 0, 0, 0, 0, orders.blank_tokens()]);
            (xbc, dt) = (pad(&xbc)?, pad(&dt)?);
            inner = inner.as_ref().map(pad).transpose()?;
        }
        let visited = blanks.as_ref().unwrap_or(orders);
        let mut y = self.scanned(&xbc, &dt, inner.as_ref(), visited)?; // (B, L, 1 or K, D)
        if let Some(coarse) = &self.coarse {
            y = y.f_add(&self.coarsened(coarse, &inputs, orders)?)?;
        }
        if let Some(squeeze) = &self.squeeze {
            y = squeeze.forward(&y)?;
        }
        y = if config.norms_each() {
            gated(&y, outer.as_ref())?
        } else {
            self.normalised(&y, outer.as_ref())?
        };
        Ok(self.out_proj.forward(&y)?.f_flatten(2, 3)?)
    }
}
