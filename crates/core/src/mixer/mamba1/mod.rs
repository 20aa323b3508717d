//! The mixer of Mamba-1 (Gu & Dao, arXiv 2312.00752, figure 3) along K visiting orders, with the parts that published
//! blocks put around its recurrence.
//!
//! ```text
//! x, z = in_proj(tokens)                 once, in token order
//! u    = silu(conv(x))                   along each order, or on the grid, or no convolution
//! dt, B, C = x_proj(u)                   token by token, one batched product for all directions
//! delta = softplus(dt_proj(dt))          likewise
//! y    = scan(u, delta, A, B, C, D)      along each order
//! out  = out_proj(norm(merge(y)) * silu(z))       in token order; the norm is an option
//! ```
//!
//! Only the ops know the orders; no activation is permuted, but for [`Compat`].

mod compat;
mod config;
pub(super) mod conv;
pub(super) mod ssm;

use tch::{Tensor, nn};

use self::{
    conv::{Conv, GridConv},
    ssm::{Ssm, first_steps, parts},
};
use super::{Coarse, Merge, Merger, Mixer, expect_directions, projection::Projection, squeeze::Squeeze};
use crate::{Error, Result, layers::Norm, ops::Orders};

pub use config::{Channels, Compat, ConvPlace, DtInit, DtRank, Mamba1Config, Parameters, StepSizes};

/// The mixer. Parameters of P sets (P = K, or 1 if shared; one more, the first, for a coarse map) lie in one tensor each, set by
/// set: `conv1d.weight` (P, D, W), `conv1d.bias` (P, D), `x_proj.weight` (P, R + 2 N, D), `dt_proj.weight` (P, D, R),
/// `dt_proj.bias` (P, D), `A_log` (P or K, D, N), `D` (P, D). A convolution on the grid is `conv2d.weight`
/// (1 or K, D, W, W) and `conv2d.bias` (1 or K, D), K if the channels are split, that of a coarse map `coarse.*` likewise. `squeeze.reduce` (D / r, D) and
/// `squeeze.select` (D, D / r). `in_proj.weight`
/// (2 D, d_model) makes x, then z ((K 2 D, d_model) if the channels are split: K times x, then z), `out_norm` is over
/// the D channels (K D if concatenated); `out_proj`. If the channels are grouped, `in_proj.weight` is
/// (K, 2 D, d_model / K), `out_proj.weight` (K, d_model / K, D) and so on. `step_embedding` is (5, N). For the merge see
/// [`Merger`].
#[derive(Debug)]
pub struct Mamba1 {
    config: Mamba1Config,
    in_proj: Projection,
    conv: Conv,
    ssm: Ssm,
    merger: Merger,
    coarse: Option<(Coarse, GridConv)>,
    squeeze: Option<Squeeze>,
    out_norm: Option<Norm>,
    out_proj: Projection,
}

impl Mamba1 {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`].
    pub fn new(vs: &nn::Path, config: &Mamba1Config) -> Result<Mamba1> {
        config.check()?;
        let Mamba1Config { d_model, directions: k, conv_bias, .. } = *config;
        let dt_bias = first_steps(vs, config);
        let d = config.d_inner();
        let inputs = config.pairs() * d * if config.gate { 2 } else { 1 };
        let grouped = config.channels == Channels::Grouped;
        let wide = if config.merge == Merge::Concat { k * d } else { d };
        let projection = |vs: nn::Path, inputs: i64, outputs: i64| {
            let groups = grouped.then_some(k);
            Projection::new(&vs, groups, [inputs, outputs], config.bias, config.start.linear())
        };
        let norm = |kind| match grouped {
            true => Norm::grouped(&(vs / "out_norm"), kind, k, d, config.out_norm_eps),
            false if config.norm_each => Norm::new(&(vs / "out_norm"), kind, d, config.out_norm_eps),
            false => Norm::new(&(vs / "out_norm"), kind, wide, config.out_norm_eps),
        };
        let mixer = Mamba1 {
            config: config.clone(),
            in_proj: projection(vs / "in_proj", d_model, inputs),
            conv: Conv::new(vs, &config.into()),
            ssm: Ssm::new(vs, config, dt_bias),
            merger: Merger::new(vs, config.merge, k / config.stages, d, d_model),
            coarse: config.coarse.map(|coarse| (coarse, coarse.conv(vs, d, conv_bias))),
            squeeze: config.squeeze.map(|squeeze| {
                let inner = (d / squeeze).max(1);
                Squeeze::new(&(vs / "squeeze"), d, inner, false, config.start.linear())
            }),
            out_norm: config.out_norm.map(norm),
            out_proj: projection(vs / "out_proj", wide, d_model),
        };
        mixer.out_proj.rescale(config.start.branch(config.residuals));
        Ok(mixer)
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &Mamba1Config {
        &self.config
    }

    /// What lies between the convolution and the gate: u (B, L, 1 or K, D) through the recurrence, the merge and the
    /// norm, (B, L, 1, D), or (B, L, K, D) if the directions are concatenated. `z` (B, L, 1 or K, D) gates within the
    /// scan. (Where out_proj divides by K in place of a mean, this is the sum.)
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn core(&self, u: &Tensor, z: Option<&Tensor>, orders: &Orders) -> Result<Tensor> {
        let stages = self.config.stages;
        let per = self.config.directions / stages;
        let first = i64::from(self.config.coarse.is_some());
        let mut y = u.shallow_clone();
        for stage in 0..stages {
            let (ssm, orders) = (self.ssm.part(first + stage * per, per)?, orders.part(stage * per, per));
            if stages > 1 {
                let normed =
                    y.f_layer_norm([self.config.d_inner()], None::<Tensor>, None::<Tensor>, 1e-5, false)?;
                // A GPU's autocast leaves f32.
                y = normed.to_kind(y.kind());
            }
            y = self.stage(&ssm, &y, z, &orders)?;
        }
        if self.config.norm_each { Ok(y) } else { self.normalised(y) }
    }

    /// One group of directions, merged.
    fn stage(&self, ssm: &Ssm, u: &Tensor, z: Option<&Tensor>, orders: &Orders) -> Result<Tensor> {
        let (compat, k) = (&self.config.compat, orders.directions());
        let mut coefficients = ssm.coefficients(u)?;
        let apart = self.config.apart() || orders.is_written_elsewhere();
        let mut y = if compat.unordered_coefficients {
            compat::scan_unordered(ssm, u, coefficients, orders)?
        } else {
            if ssm.embeds_steps() {
                ssm.embed_steps(&mut coefficients, &orders.ways()?.to_device(u.device()))?;
            }
            ssm.scan(u, &coefficients, z, orders, apart)?
        };
        if orders.blank_tokens() > 0 {
            y = y.f_narrow(1, 0, orders.tokens() - orders.blank_tokens())?;
        }
        if !apart {
            y = y.f_unsqueeze(2)?;
        } else {
            if compat.mirrored_channels {
                y = compat::mirror_back(&y)?;
            }
            if orders.is_written_elsewhere() {
                y = compat::rewritten(&y, orders)?;
            }
            if self.config.norm_each {
                y = self.normalised(y)?;
            }
            y = self.merger.forward(&y, |y| self.out_proj.forward(y))?;
        }
        // The last step of a mean is left to the output projection where nothing but that comes.
        if self.config.merge == Merge::Mean && k > 1 && self.out_scale() == 1.0 {
            y = y.f_mul_scalar(1.0 / k as f64)?;
        }
        Ok(y)
    }

    /// Factor of the output projection: the 1 / K of a mean, if nothing that is not linear stands between.
    fn out_scale(&self) -> f64 {
        let linear = self.config.stages == 1 && (self.config.out_norm.is_none() || self.config.norm_each);
        if self.config.merge == Merge::Mean && linear { 1.0 / self.config.directions as f64 } else { 1.0 }
    }

    fn normalised(&self, y: Tensor) -> Result<Tensor> {
        let Some(norm) = &self.out_norm else { return Ok(y) };
        if self.config.merge != Merge::Concat
            || self.config.norm_each
            || self.config.channels == Channels::Grouped
        {
            return norm.forward(&y);
        }
        Ok(norm.forward(&y.f_flatten(2, 3)?)?.f_view(&y.size()[..])?)
    }

    /// What the coarse map adds: (B, L, 1, D) from x (B, L, 1, D).
    fn coarsened(&self, (coarse, conv): &(Coarse, GridConv), x: &Tensor, orders: &Orders) -> Result<Tensor> {
        let (u, low) = conv.forward(x, orders.plane()?)?; // (B, l, 1, D)
        let ssm = self.ssm.part(0, 1)?;
        let coefficients = ssm.coefficients(&u)?;
        coarse.one_after_another(orders, low, |orders, state| {
            let out = ssm.scan_from(&u, &coefficients, None, orders, true, state)?;
            let y = if self.config.norm_each { self.normalised(out.y)? } else { out.y };
            Ok([y, out.final_state])
        })
    }

    /// x and z (B, L, 1 or K, D) of the tokens.
    fn inputs(&self, tokens: &Tensor) -> Result<(Tensor, Option<Tensor>)> {
        let d = self.config.d_inner();
        if let (Conv::Grid(_), Projection::Dense(in_proj), 1, true) =
            (&self.conv, &self.in_proj, self.config.pairs(), self.config.gate)
        {
            // The convolution wants x alone in memory: two products instead of one and a copy each way.
            let part = |first: i64| -> Result<Tensor> {
                Ok(in_proj.forward_part(tokens, first, d)?.f_unsqueeze(2)?)
            };
            return Ok((part(0)?, Some(part(d)?)));
        }
        let xz = self.in_proj.forward(&tokens.f_unsqueeze(2)?)?;
        let (b, l) = (xz.size()[0], xz.size()[1]);
        if !self.config.gate {
            return Ok((xz.f_view([b, l, xz.size()[2..].iter().product::<i64>() / d, d])?, None));
        }
        let mut xz = xz.f_view([b, l, xz.size()[2..].iter().product::<i64>() / (2 * d), 2 * d])?;
        if self.config.compat.mirrored_channels {
            xz = compat::mirrored(&xz, self.config.directions)?;
        }
        let [x, z] = parts(&xz, [d, d])?;
        Ok((x, Some(z)))
    }
}

impl Mixer for Mamba1 {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        expect_directions(orders, self.config.directions)?;
        if tokens.dim() != 3 {
            return Err(Error::invalid(format!(
                "a mixer was given a tensor of shape {:?}, expected (batch, length, {})",
                tokens.size(),
                self.config.d_model
            )));
        }
        let (mut x, mut z) = self.inputs(tokens)?;
        let l = tokens.size()[1];
        // A convolution along the order makes something of a blank step too, as it does of an author's zero padding.
        let blanks = match &self.conv {
            Conv::Along { once: false, .. } => orders.with_blanks_as_tokens(),
            _ => None,
        };
        if let Some(orders) = &blanks {
            let pad = |t: &Tensor| t.f_constant_pad_nd([0, 0, 0, 0, 0, orders.blank_tokens()]);
            x = pad(&x)?;
            z = z.as_ref().map(pad).transpose()?;
        }
        let visited = blanks.as_ref().unwrap_or(orders);
        let u = self.conv.forward(&x, visited)?;
        let inside = self.config.gate_in_scan();
        let mut y = self.core(&u, z.as_ref().filter(|_| inside), visited)?; // (B, L, 1 or K, D)
        if let Some(coarse) = &self.coarse {
            let added = self.coarsened(coarse, &x, orders)?;
            y = y.f_add(&added)?;
        }
        if let Some(squeeze) = &self.squeeze {
            y = squeeze.forward(&y)?;
        }
        if let Some(z) = z.filter(|_| !inside) {
            y = y.f_mul(&z.f_narrow(1, 0, l)?.f_silu()?)?;
        }
        let out = self.out_proj.forward_scaled(&y, self.out_scale())?;
        Ok(out.f_flatten(2, 3)?)
    }
}
