//! The recurrence of Mamba-1 with what its coefficients come from.

use tch::{Kind, Tensor, nn};

use super::{DtInit, Mamba1Config, Parameters, StepSizes};
use crate::{
    Error, Result,
    init::{Init, draw_for, s4d_real_log, step_size_bias},
    ops::{self, Orders, ScanInput, selective_scan},
    tape,
    torch::full_precision,
};

/// Parameters of P sets: `x_proj.weight` (P, R + 2 N, D), `dt_proj.weight` (P, D, R), `dt_proj.bias` (P, D),
/// `A_log` (P or K, D, N), `D` (P, D), and perhaps `step_embedding` (5, N).
#[derive(Debug)]
pub(in crate::mixer) struct Ssm {
    x_proj: Tensor,
    dt_weight: Tensor,
    pub dt_bias: Tensor,
    pub a_log: Tensor,
    pub d: Tensor,
    step_embedding: Option<Tensor>,
    double_dt_bias: bool,
}

/// What the scan reads beside u, in token order: (B, L, 1 or K, …).
pub(in crate::mixer) struct Coefficients {
    pub delta: Tensor,
    pub b: Tensor,
    pub c: Tensor,
}

impl Ssm {
    /// A fresh one; `dt_bias` is [`first_steps`].
    pub fn new(vs: &nn::Path, config: &Mamba1Config, dt_bias: Tensor) -> Ssm {
        let (d, n, r, p) = (config.d_inner(), config.d_state, config.rank(), config.sets());
        let decays = if config.parameters == Parameters::Decay { config.directions } else { p };
        let dt_bound = config.dt_scale * (r as f64).powf(-0.5);
        let dt_init = match config.dt_init {
            DtInit::Random => Init::Uniform(dt_bound),
            DtInit::Constant => Init::Constant(dt_bound),
        };
        let dt = vs / "dt_proj";
        Ssm {
            x_proj: Init::Kaiming.parameter(&(vs / "x_proj"), "weight", &[p, r + 2 * n, d]),
            dt_weight: dt_init.parameter(&dt, "weight", &[p, d, r]),
            dt_bias: dt.add("bias", dt_bias.to_device(vs.device()), true),
            a_log: vs.add("A_log", s4d_real_log(decays, d, n).to_device(vs.device()), true),
            d: Init::Constant(1.0).parameter(vs, "D", &[p, d]),
            step_embedding: config
                .step_embedding
                .then(|| Init::Normal(0.02).parameter(vs, "step_embedding", &[5, n])),
            double_dt_bias: config.compat.double_dt_bias,
        }
    }

    /// The sets of `count` directions from number `first` on; a set that is shared stays.
    pub fn part(&self, first: i64, count: i64) -> Result<Ssm> {
        let part = |t: &Tensor| -> Result<Tensor> {
            let whole = t.size()[0] == 1 || (first, count) == (0, t.size()[0]);
            Ok(if whole { t.shallow_clone() } else { t.f_narrow(0, first, count)? })
        };
        Ok(Ssm {
            x_proj: part(&self.x_proj)?,
            dt_weight: part(&self.dt_weight)?,
            dt_bias: part(&self.dt_bias)?,
            a_log: part(&self.a_log)?,
            d: part(&self.d)?,
            step_embedding: self.step_embedding.as_ref().map(Tensor::shallow_clone),
            double_dt_bias: self.double_dt_bias,
        })
    }

    /// Of u (B, L, 1 or K, D), token by token: one product for all directions.
    pub fn coefficients(&self, u: &Tensor) -> Result<Coefficients> {
        let [n, r] = [self.a_log.size()[2], self.dt_weight.size()[2]];
        let projected = project(u, &self.x_proj)?; // (B, L, 1 or K, R + 2 N)
        let [dt, b, c] = parts(&projected, [r, n, n])?;
        // The step sizes must not be rounded to bf16: from here to the scan they are f32 whatever autocast
        // says, and the bias and softplus are applied inside the scan, in f32.
        let delta = full_precision(|| project(&dt.to_kind(Kind::Float), &self.dt_weight))?; // (B, L, 1 or K, D)
        Ok(Coefficients { delta, b, c })
    }

    /// Adds the embedding of `ways` (K, L) or (B, K, L) to B.
    pub fn embed_steps(&self, coefficients: &mut Coefficients, ways: &Tensor) -> Result<()> {
        if let Some(embedding) = &self.step_embedding {
            coefficients.b = with_ways(&coefficients.b, embedding, ways)?; // (B, L, K, N)
        }
        Ok(())
    }

    /// Whether steps have an embedding.
    pub fn embeds_steps(&self) -> bool {
        self.step_embedding.is_some()
    }

    /// The scan of u (B, L, 1 or K, D) along K orders, gated by silu(z) if there is one: (B, L, D), or (B, L, K, D)
    /// if `apart`.
    pub fn scan(
        &self,
        u: &Tensor,
        coefficients: &Coefficients,
        z: Option<&Tensor>,
        orders: &Orders,
        apart: bool,
    ) -> Result<Tensor> {
        Ok(self.scan_from(u, coefficients, z, orders, apart, None)?.y)
    }

    /// As [`scan`](Ssm::scan), from a state (B, K, D, N), with the state at the end.
    pub fn scan_from(
        &self,
        u: &Tensor,
        coefficients: &Coefficients,
        z: Option<&Tensor>,
        orders: &Orders,
        apart: bool,
        initial_state: Option<&Tensor>,
    ) -> Result<ops::ScanOutput> {
        let k = orders.directions();
        let spread = |t: &Tensor| t.f_expand([-1, -1, k, -1], false);
        let a = full_precision(|| self.a_log.exp().f_neg())?.f_expand([k, -1, -1], false)?;
        let dt_bias =
            if self.double_dt_bias { self.dt_bias.f_mul_scalar(2.0)? } else { self.dt_bias.shallow_clone() };
        let (d, dt_bias) = (self.d.f_expand([k, -1], false)?, dt_bias.f_expand([k, -1], false)?);
        let Coefficients { delta, b, c } = coefficients;
        let (delta, b, c) = (spread(delta)?, spread(b)?, spread(c)?);
        let input = ScanInput {
            u,
            delta: &delta,
            a: &a,
            b: &b,
            c: &c,
            d: Some(&d),
            z,
            delta_bias: Some(&dt_bias),
            delta_softplus: true,
            initial_state,
            orders,
            merge: if apart { ops::Merge::Apart } else { ops::Merge::Sum },
        };
        tape::scan(&input);
        selective_scan(&input)
    }
}

/// Where the biases of dt_proj start, in the mixer at `vs`: (P, D).
pub(in crate::mixer) fn first_steps(vs: &nn::Path, config: &Mamba1Config) -> Tensor {
    let p = config.sets();
    draw_for(&(vs / "dt_proj"), "bias");
    let bias = step_size_bias(&[p, config.d_inner()], config.dt_min, config.dt_max, config.dt_floor);
    if config.step_sizes == StepSizes::FirstLogUniform && p > 1 {
        let _ = bias.narrow(0, 1, p - 1).zero_();
    }
    bias
}

/// `b` (B, L, 1 or K, N) with the row of `embedding` (5, N) that `ways` (K, L) or (B, K, L) names: (B, L, K, N).
pub(in crate::mixer) fn with_ways(b: &Tensor, embedding: &Tensor, ways: &Tensor) -> Result<Tensor> {
    let shape = [ways.size(), vec![embedding.size()[1]]].concat();
    let added = embedding.f_index_select(0, &ways.f_flatten(0, -1)?)?.f_view(&shape[..])?;
    // B stays in its dtype, that of u: the scan would turn all to f32.
    Ok(b.f_add(&added.f_transpose(-3, -2)?.to_kind(b.kind()))?)
}

/// Views of `x` side by side along its last axis. (The gradient of a split is one copy; that of several `narrow`s is a
/// sum of zero-padded tensors.)
pub(in crate::mixer) fn parts<const N: usize>(x: &Tensor, widths: [i64; N]) -> Result<[Tensor; N]> {
    let views = x.f_split_with_sizes(widths, -1)?;
    views.try_into().map_err(|_| Error::invalid("internal error: a split lost a part"))
}

/// (B, L, S, in) times P matrices (P, out, in) transposed, S = P or one of them 1: (B, L, S or P, out), one product for
/// all of them.
pub(in crate::mixer) fn project(x: &Tensor, weight: &Tensor) -> Result<Tensor> {
    let (shape, [p, out, inner]) = (x.size(), [0, 1, 2].map(|i| weight.size()[i]));
    let [b, l, s] = [0, 1, 2].map(|i| shape[i]);
    if s == 1 {
        let y = x.f_linear(&weight.f_reshape([p * out, inner])?, None::<Tensor>)?;
        return Ok(y.f_view([b, l, p, out])?);
    }
    // Row by row of one direction: views where x lies direction by direction, as a convolution leaves it.
    let rows = x.permute([2, 0, 1, 3]); // (S, B, L, in)
    let y = if p == 1 {
        rows.f_linear(&weight.f_squeeze_dim(0)?, None::<Tensor>)?
    } else {
        rows.f_reshape([s, b * l, inner])?.f_bmm(&weight.transpose(1, 2))?.f_view([s, b, l, out])?
    };
    Ok(y.permute([1, 2, 0, 3]))
}
