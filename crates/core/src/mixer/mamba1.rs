//! The mixer of Mamba-1 (Gu & Dao, arXiv 2312.00752, figure 3) along K visiting orders.
//!
//! ```text
//! x, z = in_proj(tokens)                 once, in token order
//! u    = silu(conv1d(x))                 along each order
//! dt, B, C = x_proj(u)                   token by token, one batched product for all directions
//! delta = softplus(dt_proj(dt))          likewise
//! y    = scan(u, delta, A, B, C, D) * silu(z)     along each order
//! out  = out_proj(merge(y))              once, in token order
//! ```
//!
//! Only the ops know the orders; no activation is permuted.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{Merge, Mixer, merge::Gate};
use crate::{
    Error, Result,
    init::{Init, s4d_real_log, step_size_bias},
    layers::Linear,
    ops::{self, ConvInput, Orders, ScanInput, causal_conv1d, selective_scan},
    torch::full_precision,
};

/// Rank of the projection that step sizes come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RankText", into = "RankText")]
pub enum DtRank {
    /// d_model / 16, rounded up: `"auto"`.
    #[default]
    Auto,
    /// This many.
    Rank(i64),
}

/// A rank as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number of at least 1")]
enum RankText {
    Number(i64),
    Text(String),
}

impl TryFrom<RankText> for DtRank {
    type Error = String;

    fn try_from(text: RankText) -> std::result::Result<Self, String> {
        match text {
            RankText::Number(rank) if rank >= 1 => Ok(DtRank::Rank(rank)),
            RankText::Text(word) if word == "auto" => Ok(DtRank::Auto),
            RankText::Number(other) => Err(format!("{other}, expected \"auto\" or a number of at least 1")),
            RankText::Text(other) => Err(format!("\"{other}\", expected \"auto\" or a number of at least 1")),
        }
    }
}

impl From<DtRank> for RankText {
    fn from(rank: DtRank) -> Self {
        match rank {
            DtRank::Auto => RankText::Text("auto".into()),
            DtRank::Rank(rank) => RankText::Number(rank),
        }
    }
}

impl DtRank {
    /// The rank in a model of `d_model` channels.
    pub fn of(self, d_model: i64) -> i64 {
        match self {
            DtRank::Auto => (d_model + 15) / 16,
            DtRank::Rank(rank) => rank,
        }
    }
}

/// Which parameters each direction has for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parameters {
    /// Convolution, x_proj, dt_proj, A and D (Vim v2, VMamba).
    #[default]
    Own,
    /// None: one set for all directions.
    Shared,
    /// A alone; the convolution runs once, along the first direction, and all directions scan its output
    /// (Vim v1).
    Decay,
}

/// How dt_proj's weight starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtInit {
    /// Uniform in ±scale / sqrt(dt_rank).
    #[default]
    Random,
    /// scale / sqrt(dt_rank) everywhere.
    Constant,
}

/// How the biases of dt_proj start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepSizes {
    /// Every direction with step sizes drawn log-uniformly from dt_min to dt_max, as the papers say.
    #[default]
    LogUniform,
    /// The first direction so, the others with a bias of 0 (step sizes around 0.69), as the released Vim
    /// does.
    FirstLogUniform,
}

/// A Mamba-1 mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba1Config {
    /// Channels of a token.
    pub d_model: i64,
    /// Directions (K), the number of orders it is run along.
    pub directions: i64,
    /// States per channel (N).
    pub d_state: i64,
    /// Taps of the convolution (W).
    pub d_conv: i64,
    /// d_inner / d_model.
    pub expand: f64,
    /// Rank of the projection to step sizes (R).
    pub dt_rank: DtRank,
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// No step size starts below this.
    pub dt_floor: f64,
    /// How dt_proj's weight starts.
    pub dt_init: DtInit,
    /// Scale of dt_proj's weight at the start.
    pub dt_scale: f64,
    /// How dt_proj's bias starts.
    pub step_sizes: StepSizes,
    /// A bias in the convolution.
    pub conv_bias: bool,
    /// Biases in in_proj and out_proj.
    pub bias: bool,
    /// Which parameters each direction has for itself.
    pub parameters: Parameters,
    /// How the directions come together.
    pub merge: Merge,
    /// Branches that add up in the whole model: out_proj starts smaller by the square root.
    pub residuals: i64,
}

impl Default for Mamba1Config {
    fn default() -> Self {
        Mamba1Config {
            d_model: 128,
            directions: 1,
            d_state: 16,
            d_conv: 4,
            expand: 2.0,
            dt_rank: DtRank::Auto,
            dt_min: 1e-3,
            dt_max: 0.1,
            dt_floor: 1e-4,
            dt_init: DtInit::Random,
            dt_scale: 1.0,
            step_sizes: StepSizes::LogUniform,
            conv_bias: true,
            bias: false,
            parameters: Parameters::Own,
            merge: Merge::Mean,
            residuals: 1,
        }
    }
}

impl Mamba1Config {
    /// Channels inside the mixer (D).
    pub fn d_inner(&self) -> i64 {
        (self.expand * self.d_model as f64) as i64
    }

    /// Sets of parameters that are learned: K, or 1 if the directions share.
    pub fn sets(&self) -> i64 {
        if self.parameters == Parameters::Own { self.directions } else { 1 }
    }

    /// Checks that every size is one.
    ///
    /// # Errors
    /// The first key that is not, with its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("d_model", self.d_model),
            ("d_state", self.d_state),
            ("d_conv", self.d_conv),
            ("dt_rank", self.dt_rank.of(self.d_model)),
            ("directions", self.directions),
        ];
        for (key, size) in sizes {
            if !(1..=1 << 20).contains(&size) {
                return Err(Error::Config(format!("`{key}` is {size}, expected 1 to {}", 1 << 20)));
            }
        }
        if !(self.expand.is_finite() && (1..=1 << 20).contains(&self.d_inner())) {
            return Err(Error::Config(format!(
                "`expand` is {}, which makes {} inner channels of d_model = {}; expected at least 1",
                self.expand,
                self.d_inner(),
                self.d_model
            )));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !(positive(self.dt_min) && positive(self.dt_max) && self.dt_min <= self.dt_max) {
            return Err(Error::Config(format!(
                "`dt_min` is {} and `dt_max` {}, expected 0 < dt_min <= dt_max",
                self.dt_min, self.dt_max
            )));
        }
        for (key, value) in [("dt_floor", self.dt_floor), ("dt_scale", self.dt_scale)] {
            if !positive(value) {
                return Err(Error::Config(format!("`{key}` is {value}, expected a number above 0")));
            }
        }
        Ok(())
    }
}

/// The mixer. Parameters of P sets (P = K, or 1 if shared) lie in one tensor each, set by set:
/// `conv1d.weight` (P, D, W), `conv1d.bias` (P, D), `x_proj.weight` (P, R + 2 N, D), `dt_proj.weight`
/// (P, D, R), `dt_proj.bias` (P, D), `A_log` (P or K, D, N), `D` (P, D). `in_proj` and `out_proj` are shared by
/// all directions.
#[derive(Debug)]
pub struct Mamba1 {
    config: Mamba1Config,
    in_proj: Linear,
    conv_weight: Tensor,
    conv_bias: Option<Tensor>,
    x_proj: Tensor,
    dt_weight: Tensor,
    dt_bias: Tensor,
    a_log: Tensor,
    d: Tensor,
    gate: Option<Gate>,
    out_proj: Linear,
}

impl Mamba1 {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`].
    pub fn new(vs: &nn::Path, config: &Mamba1Config) -> Result<Mamba1> {
        config.check()?;
        let Mamba1Config { d_model, directions: k, d_state: n, d_conv: w, .. } = *config;
        let (d, r, p) = (config.d_inner(), config.dt_rank.of(d_model), config.sets());
        let decays = if config.parameters == Parameters::Shared { 1 } else { k };
        let (conv, dt) = (vs / "conv1d", vs / "dt_proj");
        let taps = Init::Uniform((w as f64).powf(-0.5));
        let dt_bound = config.dt_scale * (r as f64).powf(-0.5);
        let dt_init = match config.dt_init {
            DtInit::Random => Init::Uniform(dt_bound),
            DtInit::Constant => Init::Constant(dt_bound),
        };
        let dt_bias = step_size_bias(&[p, d], config.dt_min, config.dt_max, config.dt_floor);
        if config.step_sizes == StepSizes::FirstLogUniform && p > 1 {
            let _ = dt_bias.narrow(0, 1, p - 1).zero_();
        }
        let wide = if config.merge == Merge::Concat { k * d } else { d };
        let mixer = Mamba1 {
            config: config.clone(),
            in_proj: Linear::new(&(vs / "in_proj"), d_model, 2 * d, config.bias, Init::Kaiming),
            conv_weight: taps.parameter(&conv, "weight", &[p, d, w]),
            conv_bias: config.conv_bias.then(|| taps.parameter(&conv, "bias", &[p, d])),
            x_proj: Init::Kaiming.parameter(&(vs / "x_proj"), "weight", &[p, r + 2 * n, d]),
            dt_weight: dt_init.parameter(&dt, "weight", &[p, d, r]),
            dt_bias: dt.add("bias", dt_bias.to_device(vs.device()), true),
            a_log: vs.add("A_log", s4d_real_log(decays, d, n).to_device(vs.device()), true),
            d: Init::Constant(1.0).parameter(vs, "D", &[p, d]),
            gate: (config.merge == Merge::Gated).then(|| Gate::new(&(vs / "gate"), k, d)),
            out_proj: Linear::new(&(vs / "out_proj"), wide, d_model, config.bias, Init::Kaiming),
        };
        mixer.out_proj.rescale((config.residuals.max(1) as f64).powf(-0.5));
        Ok(mixer)
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &Mamba1Config {
        &self.config
    }

    /// u of [`ScanInput`]: (B, L, K or 1, D), memory direction by direction.
    fn convolved(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        let once = self.config.parameters == Parameters::Decay;
        let along = if once { orders.first() } else { orders.clone() };
        let k = along.directions();
        let weight = self.conv_weight.f_expand([k, -1, -1], false)?;
        let bias = self.conv_bias.as_ref().map(|bias| bias.f_expand([k, -1], false)).transpose()?;
        let input = ConvInput {
            x,
            weight: &weight,
            bias: bias.as_ref(),
            silu: true,
            initial_state: None,
            orders: &along,
        };
        Ok(causal_conv1d(&input)?.y)
    }
}

impl Mixer for Mamba1 {
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        let Mamba1Config { d_state: n, directions: k, .. } = self.config;
        let (d, r) = (self.config.d_inner(), self.config.dt_rank.of(self.config.d_model));
        if orders.directions() != k {
            return Err(Error::invalid(format!(
                "a mixer of {k} directions was given {} orders",
                orders.directions()
            )));
        }
        let xz = self.in_proj.forward(x)?; // (B, L, 2 D)
        let [x, z] = parts(&xz, [d, d])?;
        let u = self.convolved(&x, orders)?; // (B, L, K', D), K' = K or 1
        let (b, l, scanned) = (u.size()[0], u.size()[1], u.size()[2]);
        let sets = self.config.sets();
        let rows = u.permute([2, 0, 1, 3]).f_reshape([sets, scanned * b * l / sets, d])?; // a view
        let projected = project(&rows, &self.x_proj)?; // (P, M, R + 2 N)
        let [dt, b_rows, c_rows] = parts(&projected, [r, n, n])?;
        // The step sizes must not be rounded to bf16: from here to the scan they are f32 whatever autocast
        // says, and the bias and softplus are applied inside the scan, in f32.
        let delta = full_precision(|| project(&dt.to_kind(Kind::Float), &self.dt_weight))?; // (P, M, D)
        // (P, M, width) to (B, L, K, width): views.
        let spread = |t: &Tensor, width: i64| -> Result<Tensor> {
            let rows = t.f_view([scanned, b, l, width])?.permute([1, 2, 0, 3]);
            Ok(rows.f_expand([b, l, k, width], false)?)
        };
        let a = full_precision(|| self.a_log.exp().f_neg())?.f_expand([k, -1, -1], false)?;
        let merge = match self.config.merge {
            Merge::Sum | Merge::Mean => ops::Merge::Sum,
            Merge::Concat | Merge::Gated => ops::Merge::Apart,
        };
        let y = selective_scan(&ScanInput {
            u: &u,
            delta: &spread(&delta, d)?,
            a: &a,
            b: &spread(&b_rows, n)?,
            c: &spread(&c_rows, n)?,
            d: Some(&self.d.f_expand([k, -1], false)?),
            z: Some(&z),
            delta_bias: Some(&self.dt_bias.f_expand([k, -1], false)?),
            delta_softplus: true,
            initial_state: None,
            orders,
            merge,
        })?
        .y;
        match (self.config.merge, &self.gate) {
            (Merge::Mean, _) => self.out_proj.forward_scaled(&y, 1.0 / k as f64),
            (Merge::Concat, _) => self.out_proj.forward(&y.flatten(2, 3)), // (B, L, K D)
            (Merge::Gated, Some(gate)) => self.out_proj.forward(&gate.forward(&y)?),
            _ => self.out_proj.forward(&y),
        }
    }
}

/// Views of `x` (…, sum of widths) side by side along its third axis. (The gradient of a split is one copy;
/// that of several `narrow`s is a sum of zero-padded tensors.)
fn parts<const N: usize>(x: &Tensor, widths: [i64; N]) -> Result<[Tensor; N]> {
    let views = x.f_split_with_sizes(widths, 2)?;
    views.try_into().map_err(|_| Error::invalid("internal error: a split lost a part"))
}

/// (P, M, in) times (P, out, in) transposed: (P, M, out), one product for all sets.
fn project(rows: &Tensor, weight: &Tensor) -> Result<Tensor> {
    if weight.size()[0] == 1 {
        return Ok(rows.f_linear(&weight.f_squeeze_dim(0)?, None::<Tensor>)?);
    }
    Ok(rows.f_bmm(&weight.transpose(1, 2))?)
}
