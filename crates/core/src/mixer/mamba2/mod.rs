//! The mixer of Mamba-2 (Dao & Gu, arXiv 2405.21060, section 7 and figure 6) along K visiting orders.
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

use tch::{Kind, Tensor, nn};

use super::{
    ConvPlace, Merge, Merger, Mixer, Parameters, expect_directions,
    mamba1::{
        conv::{Conv, ConvShape},
        ssm::parts,
    },
};
use crate::{
    Error, Result,
    init::{Init, draw_for, step_size_bias},
    layers::{GatedNorm, Linear},
    ops::{self, Orders, SsdInput, ssd},
    torch::full_precision,
};

pub(crate) use config::head_of;
pub use config::{Mamba2Config, Mamba2Options};

/// The mixer. Of S sets (S = K, or 1 if the directions share) with C = D + 2 G N convolved channels: `in_proj.weight`
/// (2 D + S (2 G N + H), d_model) makes z, x, then B and C of each set, then dt of each set; `conv1d.weight` (S, C, W) and
/// `conv1d.bias` (S, C), or on the grid `conv2d.weight` (1, D + S 2 G N, W, W) and `conv2d.bias`; `dt_bias` (S, H),
/// `A_log` (S or K, H), `D` (S, H) or (S, D); `norm.weight` (D); `out_proj`. Without a gate in_proj makes no z. For the
/// merge see [`Merger`].
#[derive(Debug)]
pub struct Mamba2 {
    config: Mamba2Config,
    in_proj: Linear,
    conv: Conv,
    dt_bias: Tensor,
    a_log: Tensor,
    d: Tensor,
    merger: Merger,
    norm: Option<GatedNorm>,
    out_proj: Linear,
}

impl Mamba2 {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// As [`Mamba2Config::check`].
    pub fn new(vs: &nn::Path, config: &Mamba2Config) -> Result<Mamba2> {
        config.check()?;
        let Mamba2Config { d_model, directions: k, bias, start, ref options, .. } = *config;
        let (d, h, s) = (config.d_inner(), config.heads(), config.sets());
        let along = config.conv == ConvPlace::Along;
        draw_for(vs, "dt_bias");
        let dt_bias = step_size_bias(&[s, h], config.dt_min, config.dt_max, config.dt_floor);
        let decays = if config.parameters == Parameters::Decay { k } else { s };
        draw_for(vs, "A_log");
        let [low, high] = options.a_init_range;
        let a = Tensor::rand([decays, h], (Kind::Float, vs.device())) * (high - low) + low;
        let gates = if config.gate { d } else { 0 };
        let wide = if config.merge == Merge::Concat { k * d } else { d };
        let mixer = Mamba2 {
            config: config.clone(),
            in_proj: Linear::new(
                &(vs / "in_proj"),
                d_model,
                gates + d + s * (config.coefficients() + h),
                bias,
                start.linear(),
            ),
            conv: Conv::new(
                vs,
                &ConvShape {
                    place: config.conv,
                    sets: s,
                    once: config.parameters == Parameters::Decay,
                    maps: 1,
                    channels: d + if along { 1 } else { s } * config.coefficients(),
                    taps: config.d_conv,
                    bias: config.conv_bias,
                },
            ),
            dt_bias: vs.add("dt_bias", dt_bias.to_device(vs.device()), true),
            a_log: vs.add("A_log", a.log(), true),
            d: Init::Constant(1.0).parameter(vs, "D", &[s, if options.d_has_hdim { d } else { h }]),
            merger: Merger::new(vs, config.merge, k, d, d_model),
            norm: options.rmsnorm.then(|| {
                let group = d / options.ngroups;
                GatedNorm::new(&(vs / "norm"), d, group, config.norm_eps, options.norm_before_gate)
            }),
            out_proj: Linear::new(&(vs / "out_proj"), wide, d_model, bias, start.linear()),
        };
        mixer.out_proj.rescale(start.branch(config.residuals));
        Ok(mixer)
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &Mamba2Config {
        &self.config
    }

    /// x (B, L, 1 or K, D) and B, C (B, L, K, 2 G N) of what in_proj made, (B, L, D + S 2 G N), along `orders`.
    fn convolved(&self, xbc: &Tensor, orders: &Orders) -> Result<[Tensor; 2]> {
        let (k, d, s) = (self.config.directions, self.config.d_inner(), self.config.sets());
        let (b, l, own) = (xbc.size()[0], xbc.size()[1], self.config.coefficients());
        let [x, bc] = if s == 1 || self.config.conv != ConvPlace::Along {
            let xbc = self.conv.forward(&xbc.f_unsqueeze(2)?, orders)?; // (B, L, 1 or K, C)
            parts(&xbc, [d, s * own])?
        } else {
            // x is all directions', B and C are each one's own.
            let [x, bc] = parts(xbc, [d, s * own])?;
            let (x, bc) = (x.f_unsqueeze(2)?, bc.f_view([b, l, s, own])?);
            [self.conv.part(0, d)?.forward(&x, orders)?, self.conv.part(d, own)?.forward(&bc, orders)?]
        };
        let made = if bc.size()[2] == 1 { bc.f_reshape([b, l, s, own])? } else { bc };
        Ok([x, made.f_expand([-1, -1, k, -1], false)?])
    }

    /// The scan of all directions, merged: (B, L, 1 or K, D).
    fn scanned(&self, xbc: &Tensor, dt: &Tensor, z: Option<&Tensor>, orders: &Orders) -> Result<Tensor> {
        let (config, options) = (&self.config, &self.config.options);
        let (k, h, p) = (config.directions, config.heads(), config.headdim());
        let (b, l) = (xbc.size()[0], xbc.size()[1]);
        let [x, bc] = self.convolved(xbc, orders)?;
        let bc = bc.f_unflatten(3, [2, options.ngroups, config.d_state])?;
        let dt = dt.f_view([b, l, config.sets(), h])?.f_expand([-1, -1, k, -1], false)?;
        let parameter = |t: &Tensor| t.f_expand([k, -1], false);
        let skip = parameter(&self.d)?;
        let apart = !matches!(config.merge, Merge::Sum | Merge::Mean);
        let y = ssd(&SsdInput {
            x: &x.f_unflatten(3, [h, p])?,
            dt: &dt,
            a: &parameter(&full_precision(|| self.a_log.exp().f_neg())?)?,
            b: &bc.f_select(3, 0)?,
            c: &bc.f_select(3, 1)?,
            d: Some(&if options.d_has_hdim { skip.f_unflatten(1, [h, p])? } else { skip }),
            z: z.map(|z| z.f_unflatten(2, [h, p])).transpose()?.as_ref(),
            dt_bias: Some(&parameter(&self.dt_bias)?),
            dt_softplus: true,
            dt_limits: (options.dt_limit[0], options.dt_limit[1]),
            initial_state: None,
            orders,
            merge: if apart { ops::Merge::Apart } else { ops::Merge::Sum },
        })?
        .y;
        let y = y.f_narrow(1, 0, l - orders.blank_tokens())?;
        if apart {
            let y = y.f_flatten(3, 4)?;
            return self.merger.forward(&y, |y| self.out_proj.forward(y));
        }
        let y = y.f_view([b, y.size()[1], 1, h * p])?;
        Ok(if config.merge == Merge::Mean && k > 1 { y.f_mul_scalar(1.0 / k as f64)? } else { y })
    }
}

impl Mixer for Mamba2 {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        let (config, d, s) = (&self.config, self.config.d_inner(), self.config.sets());
        expect_directions(orders, config.directions)?;
        if tokens.dim() != 3 {
            return Err(Error::invalid(format!(
                "a mixer was given a tensor of shape {:?}, expected (batch, length, {})",
                tokens.size(),
                config.d_model
            )));
        }
        let gates = if config.gate { d } else { 0 };
        let mixed = d + s * config.coefficients();
        let made = self.in_proj.forward(tokens)?;
        let [z, mut xbc, mut dt] = parts(&made, [gates, mixed, s * config.heads()])?;
        let mut z = config.gate.then_some(z); // (B, L, D)
        let gate_in_scan = self.norm.is_none();
        let blanks = match config.conv {
            ConvPlace::Along if !self.conv.is_once() => orders.with_blanks_as_tokens(),
            _ => None,
        };
        let outer = z.as_ref().filter(|_| !gate_in_scan).map(Tensor::shallow_clone);
        if let Some(orders) = &blanks {
            // A convolution along the order makes something of a blank step too, as it does of an author's zero padding.
            let pad = |t: &Tensor| t.f_constant_pad_nd([0, 0, 0, orders.blank_tokens()]);
            (xbc, dt) = (pad(&xbc)?, pad(&dt)?);
            z = z.as_ref().map(pad).transpose()?;
        }
        let visited = blanks.as_ref().unwrap_or(orders);
        let mut y = self.scanned(&xbc, &dt, z.as_ref().filter(|_| gate_in_scan), visited)?;
        if let Some(norm) = &self.norm {
            y = norm.forward(&y, outer.map(|z| z.f_unsqueeze(2)).transpose()?.as_ref())?;
        }
        self.out_proj.forward(&y.f_flatten(2, 3)?)
    }
}
