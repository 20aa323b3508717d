//! What the mixers that are more than an order share with VMamba's SS2D: everything but the core.
//!
//! ```text
//! x, z = in_proj(tokens)
//! u    = silu(conv(x))
//! y    = core(u)                     what a mixer is about
//! out  = out_proj(scale * norm(y) * silu(z))
//! ```

use ophidian_scan::{Order, Plan};
use tch::{Kind, Tensor, nn};

use super::{
    Channels, Compat, Mamba1Config,
    mamba1::{
        conv::Conv,
        ssm::{Coefficients, Ssm, first_steps, parts},
    },
};
use crate::{
    Error, Result,
    layers::{Linear, Norm},
    ops::{Merge, Orders, ScanInput, selective_scan},
    torch::full_precision,
};

/// Parameters as those of [`Mamba1`](super::Mamba1).
#[derive(Debug)]
pub(super) struct Shell {
    pub config: Mamba1Config,
    pub ssm: Ssm,
    in_proj: Linear,
    conv: Conv,
    out_norm: Option<Norm>,
    out_proj: Linear,
}

impl Shell {
    /// A fresh one, for a mixer called `name` of `directions` directions.
    pub fn new(vs: &nn::Path, name: &str, directions: i64, config: &Mamba1Config) -> Result<Shell> {
        config.check()?;
        if config.directions != directions {
            return Err(Error::Config(format!(
                "`directions` is {}, expected {directions} for {name}",
                config.directions
            )));
        }
        let theirs = (config.channels, config.coarse, config.stages, config.compat, config.step_embedding);
        let more = config.norm_each || config.squeeze.is_some();
        if theirs != (Channels::All, None, 1, Compat::default(), false) || more {
            return Err(Error::Config(format!(
                "{name} takes no `channels`, `coarse`, `cascade`, `step_embedding`, `norm_each`, `squeeze` or `compat`"
            )));
        }
        let (d, d_model) = (config.d_inner(), config.d_model);
        let dt_bias = first_steps(vs, config);
        let inputs = if config.gate { 2 * d } else { d };
        let shell = Shell {
            in_proj: Linear::new(&(vs / "in_proj"), d_model, inputs, config.bias, config.start.linear()),
            conv: Conv::new(vs, &config.into()),
            ssm: Ssm::new(vs, config, dt_bias),
            out_norm: config.out_norm.map(|kind| Norm::new(&(vs / "out_norm"), kind, d, config.out_norm_eps)),
            out_proj: Linear::new(&(vs / "out_proj"), d, d_model, config.bias, config.start.linear()),
            config: config.clone(),
        };
        shell.out_proj.rescale(config.start.branch(config.residuals));
        Ok(shell)
    }

    /// `core` makes y (B, L, D) of u (B, L, D).
    pub fn forward(
        &self,
        tokens: &Tensor,
        orders: &Orders,
        scale: f64,
        core: impl FnOnce(&Tensor) -> Result<Tensor>,
    ) -> Result<Tensor> {
        let shape = tokens.size();
        if shape.len() != 3 || shape[1] != orders.tokens() {
            return Err(Error::invalid(format!(
                "a mixer was given a tensor of shape {shape:?}, expected (batch, {}, {})",
                orders.tokens(),
                self.config.d_model
            )));
        }
        let d = self.config.d_inner();
        let xz = self.in_proj.forward(tokens)?;
        let (x, z) = if self.config.gate {
            let [x, z] = parts(&xz, [d, d])?;
            (x, Some(z))
        } else {
            (xz, None)
        };
        let u = self.conv.forward(&x.f_unsqueeze(2)?, orders)?.f_squeeze_dim(2)?;
        let mut y = core(&u)?;
        if let Some(norm) = &self.out_norm {
            y = norm.forward(&y)?;
        }
        if let Some(z) = z {
            y = y.f_mul(&z.f_silu()?)?;
        }
        if scale == 1.0 { self.out_proj.forward(&y) } else { self.out_proj.forward_scaled(&y, scale) }
    }
}

impl Ssm {
    /// delta = softplus(delta + bias) (B, L, D) of one direction, in f32.
    pub(super) fn step_sizes(&self, coefficients: &Coefficients) -> Result<Tensor> {
        full_precision(|| Ok(coefficients.delta.f_add(&self.dt_bias)?.f_squeeze_dim(2)?.f_softplus()?))
    }

    /// The state of a scan with one state per channel along one order: (B, L, D), before it is read out by C.
    pub(super) fn states(&self, u: &Tensor, coefficients: &Coefficients, orders: &Orders) -> Result<Tensor> {
        let ones = coefficients.b.f_ones_like()?;
        let out = selective_scan(&ScanInput {
            u,
            delta: &coefficients.delta,
            a: &full_precision(|| self.a_log.exp().f_neg())?,
            b: &coefficients.b,
            c: &ones,
            d: None,
            z: None,
            delta_bias: Some(&self.dt_bias),
            delta_softplus: true,
            initial_state: None,
            orders,
            merge: Merge::Sum,
        })?;
        Ok(out.y)
    }

    /// y = C h + D u of one direction with one state per channel, from the states h (B, L, D).
    pub(super) fn read_out(&self, h: &Tensor, u: &Tensor, coefficients: &Coefficients) -> Result<Tensor> {
        let c = coefficients.c.f_squeeze_dim(2)?; // (B, L, 1)
        Ok(h.f_mul(&c)?.f_add(&u.f_mul(&self.d.f_squeeze_dim(0)?)?)?)
    }

    /// exp(delta A), (B, L, D, N), and delta B u, (B, L, D, N), of one direction, in f32.
    pub(super) fn discretised(&self, u: &Tensor, coefficients: &Coefficients) -> Result<[Tensor; 2]> {
        let delta = self.step_sizes(coefficients)?.f_unsqueeze(3)?; // (B, L, D, 1)
        full_precision(|| {
            let a = self.a_log.exp().f_neg()?.f_squeeze_dim(0)?; // (D, N)
            let b = coefficients.b.to_kind(Kind::Float); // (B, L, 1, N)
            let u = u.to_kind(Kind::Float).f_unsqueeze(3)?;
            Ok([delta.f_mul(&a)?.f_exp()?, delta.f_mul(&u)?.f_mul(&b)?])
        })
    }
}

/// [rows, columns] of one map.
pub(crate) fn map_of(orders: &Orders) -> Result<[i64; 2]> {
    let plane = orders.plane()?;
    <[i64; 2]>::try_from(plane)
        .map_err(|_| Error::invalid(format!("a grid of {plane:?} is no map; expected [rows, columns]")))
}

/// (B, L, D) as a map (B, D, rows, columns), channels last in memory: a view.
pub(super) fn as_map(x: &Tensor, [rows, columns]: [i64; 2]) -> Result<Tensor> {
    let (b, _, d) = x.size3()?;
    Ok(x.f_reshape([b, rows, columns, d])?.f_permute([0, 3, 1, 2])?)
}

/// A map as tokens (B, L, D); a view if its channels are last in memory.
pub(super) fn as_tokens(map: &Tensor) -> Result<Tensor> {
    let (b, d, rows, columns) = map.size4()?;
    Ok(map.f_permute([0, 2, 3, 1])?.f_reshape([b, rows * columns, d])?)
}

/// One order per sample from its index (B, L): the token that each step visits.
pub(super) fn orders_of(index: &Tensor) -> Result<Orders> {
    let (b, l) = index.size2()?;
    let entries = Vec::<i64>::try_from(index.f_reshape([-1])?)?;
    if b * l == 0 {
        return Ok(Orders::identity(l, 1));
    }
    let plan = |entries: &[i64]| Ok(Plan::new(vec![Order::from_i64(entries, l as usize)?])?);
    Orders::per_sample(&entries.chunks(l as usize).map(plan).collect::<Result<Vec<_>>>()?)
}

/// The step at which each token is visited, (B, L), of orders (B, L) that visit every token once.
pub(super) fn inverse_of(index: &Tensor) -> Result<Tensor> {
    let steps = Tensor::f_arange(index.size2()?.1, (Kind::Int64, index.device()))?;
    Ok(index.f_zeros_like()?.f_scatter(1, index, &steps.f_expand_as(index)?)?)
}
