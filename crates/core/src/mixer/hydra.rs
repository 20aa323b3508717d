//! Hydra's quasi-separable mixer (Hwang et al. 2024, arXiv 2407.09941).
//!
//! ```text
//! z, x, (B, C)_k, dt_k = in_proj(tokens)         B, C and dt are each direction's own
//! x, (B, C)_k          = silu(conv(...))         once, in token order, centred on the token
//! y                    = sum_k shift(scan_k(x)) + (W_D x + D) x
//! out                  = out_proj(norm(y) * silu(z))
//! ```
//!
//! The decay is a scalar per head, so a scan is Mamba-2's [`ssd`].

use tch::{Kind, Tensor, nn};

use super::{Mixer, mamba1::ssm::parts};
use crate::{
    Error, Result,
    init::{Init, Start, draw_for, step_size_bias},
    layers::{Linear, Norm, NormKind},
    ops::{Merge, Orders, SsdInput, shift, ssd},
    tape,
    torch::full_precision,
};

/// Inputs of [`quasi_separable`]. (B batch, L tokens, K directions, H heads of P channels, G groups, N states.)
#[derive(Clone, Copy)]
pub struct QuasiSeparable<'a> {
    /// (B, L, H P).
    pub x: &'a Tensor,
    /// (B, L, K, H): step sizes before bias and softplus.
    pub dt: &'a Tensor,
    /// (H), added to dt. Hydra's stand-alone `Quasiseparable` has one and does not add it.
    pub dt_bias: Option<&'a Tensor>,
    /// (H): A = -exp(A_log).
    pub a_log: &'a Tensor,
    /// (B, L, K, G, N).
    pub b: &'a Tensor,
    /// As `b`.
    pub c: &'a Tensor,
    /// (B, L, H): the diagonal.
    pub diagonal: &'a Tensor,
    /// K orders, each of which sees what lies before a token; row and its reverse in the paper.
    pub orders: &'a Orders,
}

/// x times a quasi-separable matrix (section 3.2): what lies strictly before a token along each order, and the token
/// itself through the diagonal. (B, L, H P); differentiable in every tensor.
///
/// # Errors
/// Shapes that do not fit.
pub fn quasi_separable(input: &QuasiSeparable) -> Result<Tensor> {
    let QuasiSeparable { x, dt, a_log, diagonal, orders, .. } = *input;
    let (shape, steps) = (x.size(), dt.size());
    let misfit = || {
        Error::invalid(format!(
            "quasi_separable: `x` has shape {shape:?}, `dt` {steps:?} and `A_log` {:?}, expected (B, L, H P), \
             (B, L, K, H) and (H)",
            a_log.size()
        ))
    };
    let ([b, l, d], [_, _, _, h]) = (&shape[..], &steps[..]) else { return Err(misfit()) };
    let [b, l, d, h] = [*b, *l, *d, *h];
    if steps[..2] != shape[..2] || a_log.size() != [h] || h == 0 || d % h != 0 {
        return Err(misfit());
    }
    let p = d / h;
    let heads = x.f_reshape([b, l, h, p])?;
    let y = ssd(&SsdInput {
        x: &heads,
        dt: &dt.to_kind(Kind::Float),
        a: &full_precision(|| a_log.exp().f_neg())?,
        b: input.b,
        c: input.c,
        d: None,
        z: None,
        dt_bias: input.dt_bias,
        dt_softplus: true,
        dt_limits: (0.0, f64::INFINITY),
        initial_state: None,
        orders,
        merge: Merge::Apart,
    })?
    .y
    .f_flatten(3, 4)?; // (B, L, K, H P)
    let own = heads.f_mul(&diagonal.f_unsqueeze(3)?)?.f_reshape([b, l, d])?;
    Ok(shift(&y, orders)?.f_add(&own)?)
}

/// A Hydra mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct HydraConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// Directions (K).
    pub directions: i64,
    /// States per channel (N).
    pub d_state: i64,
    /// Taps of the convolution, odd.
    pub d_conv: i64,
    /// d_inner / d_model.
    pub expand: i64,
    /// Channels of a head (P).
    pub headdim: i64,
    /// Groups of heads that share B and C (G).
    pub ngroups: i64,
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// No step size starts below this.
    pub dt_floor: f64,
    /// Biases in in_proj and out_proj.
    pub bias: bool,
    /// A bias in the convolution.
    pub conv_bias: bool,
    /// Added to the mean square in the norm.
    pub norm_eps: f64,
    /// Where the weights of in_proj and out_proj start from.
    pub start: Start,
    /// Branches that add up in the whole model, which `start` may want to know.
    pub residuals: i64,
}

impl Default for HydraConfig {
    fn default() -> Self {
        HydraConfig {
            d_model: 128,
            directions: 2,
            d_state: 64,
            d_conv: 7,
            expand: 2,
            headdim: 64,
            ngroups: 1,
            dt_min: 1e-3,
            dt_max: 0.1,
            dt_floor: 1e-4,
            bias: false,
            conv_bias: true,
            norm_eps: 1e-5,
            start: Start::FanIn,
            residuals: 1,
        }
    }
}

impl HydraConfig {
    /// Channels inside the mixer (D = H P).
    pub fn d_inner(&self) -> i64 {
        self.expand * self.d_model
    }

    /// H.
    pub fn heads(&self) -> i64 {
        self.d_inner() / self.headdim.max(1)
    }

    /// Channels of B and C of all directions.
    fn coefficients(&self) -> i64 {
        2 * self.directions * self.ngroups * self.d_state
    }

    /// Checks that every size is one.
    ///
    /// # Errors
    /// The first key that is not, with its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("d_model", self.d_model),
            ("directions", self.directions),
            ("d_state", self.d_state),
            ("d_conv", self.d_conv),
            ("expand", self.expand),
            ("headdim", self.headdim),
            ("ngroups", self.ngroups),
        ];
        for (key, size) in sizes {
            if !(1..=1 << 20).contains(&size) {
                return Err(Error::Config(format!("`{key}` is {size}, expected 1 to {}", 1 << 20)));
            }
        }
        if self.d_conv % 2 == 0 {
            return Err(Error::Config(format!("`d_conv` is {}, expected an odd number", self.d_conv)));
        }
        if self.d_inner() % self.headdim != 0 || self.heads() % self.ngroups != 0 {
            return Err(Error::Config(format!(
                "`headdim` is {} and `ngroups` {}, expected a divisor of {} channels and one of the heads",
                self.headdim,
                self.ngroups,
                self.d_inner()
            )));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        let steps = [self.dt_min, self.dt_max, self.dt_floor, self.norm_eps];
        if !steps.into_iter().all(positive) || self.dt_min > self.dt_max {
            return Err(Error::Config(format!(
                "`dt_min`, `dt_max`, `dt_floor`, `norm_eps` are {steps:?}, expected numbers above 0 and \
                 dt_min <= dt_max"
            )));
        }
        Ok(())
    }
}

/// The mixer: `in_proj`, `conv1d.weight` (D + 2 K G N, 1, W) and `conv1d.bias`, `dt_bias`, `A_log` and `D` (H),
/// `fc_D.weight` (H, D), `norm.weight` (D), `out_proj`.
#[derive(Debug)]
pub struct Hydra {
    config: HydraConfig,
    in_proj: Linear,
    conv_weight: Tensor,
    conv_bias: Option<Tensor>,
    dt_bias: Tensor,
    a_log: Tensor,
    d: Tensor,
    fc_d: Tensor,
    norm: Norm,
    out_proj: Linear,
}

impl Hydra {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// As [`HydraConfig::check`].
    pub fn new(vs: &nn::Path, config: &HydraConfig) -> Result<Hydra> {
        config.check()?;
        let (d, h, k, w) = (config.d_inner(), config.heads(), config.directions, config.d_conv);
        let mixed = d + config.coefficients();
        let taps = Init::Uniform((w as f64).powf(-0.5));
        draw_for(vs, "dt_bias");
        let dt_bias = step_size_bias(&[h], config.dt_min, config.dt_max, config.dt_floor);
        let conv = vs / "conv1d";
        let hydra = Hydra {
            config: config.clone(),
            in_proj: Linear::new(
                &(vs / "in_proj"),
                config.d_model,
                d + mixed + k * h,
                config.bias,
                config.start.linear(),
            ),
            conv_weight: taps.parameter(&conv, "weight", &[mixed, 1, w]),
            conv_bias: config.conv_bias.then(|| taps.parameter(&conv, "bias", &[mixed])),
            dt_bias: vs.add("dt_bias", dt_bias.to_device(vs.device()), true),
            a_log: Init::Constant(0.0).parameter(vs, "A_log", &[h]),
            d: Init::Constant(1.0).parameter(vs, "D", &[h]),
            fc_d: Init::Kaiming.parameter(&(vs / "fc_D"), "weight", &[h, d]),
            norm: Norm::new(&(vs / "norm"), NormKind::Rms, d, config.norm_eps),
            out_proj: Linear::new(&(vs / "out_proj"), d, config.d_model, config.bias, config.start.linear()),
        };
        hydra.out_proj.rescale(config.start.branch(config.residuals));
        Ok(hydra)
    }
}

impl Mixer for Hydra {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        let HydraConfig { directions: k, ngroups: g, d_state: n, d_conv: w, .. } = self.config;
        let (d, h) = (self.config.d_inner(), self.config.heads());
        if orders.directions() != k {
            return Err(Error::invalid(format!(
                "a mixer of {k} directions was given {} orders",
                orders.directions()
            )));
        }
        tape::note("the quasi-separable matrix of Hydra is no selective scan's");
        let (b, l, _) = tokens.size3()?;
        let mixed = d + self.config.coefficients();
        let [z, xbc, dt] = parts(&self.in_proj.forward(tokens)?, [d, mixed, k * h])?;
        // A map of one row, channels last.
        let row = xbc.f_unsqueeze(1)?.f_permute([0, 3, 1, 2])?; // (B, C, 1, L)
        let (weight, bias) = (self.conv_weight.f_unsqueeze(2)?, self.conv_bias.as_ref());
        let row = row.f_conv2d(&weight, bias, [1, 1], [0, w / 2], [1, 1], mixed)?.f_silu()?;
        let xbc = row.f_permute([0, 2, 3, 1])?.f_reshape([b, l, mixed])?;
        let [x, bc] = parts(&xbc, [d, mixed - d])?;
        // Each direction has its B, then its C.
        let bc = bc.f_reshape([b, l, k, 2, g, n])?;
        let diagonal = x.f_linear(&self.fc_d, Some(&self.d))?;
        let y = quasi_separable(&QuasiSeparable {
            x: &x,
            dt: &dt.f_reshape([b, l, k, h])?,
            dt_bias: Some(&self.dt_bias),
            a_log: &self.a_log,
            b: &bc.f_select(3, 0)?,
            c: &bc.f_select(3, 1)?,
            diagonal: &diagonal,
            orders,
        })?;
        self.out_proj.forward(&self.norm.forward(&y)?.f_mul(&z.f_silu()?)?)
    }
}
