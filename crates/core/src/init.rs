//! How parameters start: fresh values under libtorch's own generator (`tch::manual_seed`), or each under a seed of its
//! own ([`keyed`]), and which of them weight decay must leave alone.

use std::cell::Cell;

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use crate::rng::hash;

thread_local! {
    static WITHOUT_VALUES: Cell<bool> = const { Cell::new(false) };
    static SEED: Cell<Option<u64>> = const { Cell::new(None) };
}

/// Runs `build` with the values of every parameter drawn from a stream of its own, keyed by `seed` and by its name: a
/// parameter of the same name, shape and rule starts equal in two models, whatever else they are made of.
pub fn keyed<T>(seed: u64, build: impl FnOnce() -> T) -> T {
    /// Puts the seed back, also if `build` panics.
    struct Restore(Option<u64>);
    impl Drop for Restore {
        fn drop(&mut self) {
            SEED.set(self.0);
        }
    }
    let _restore = Restore(SEED.replace(Some(seed)));
    build()
}

/// Points libtorch's generator at the stream of the parameter `name` at `vs`, within [`keyed`]; does nothing elsewhere.
/// To be called before values are drawn that do not come from an [`Init`].
pub fn draw_for(vs: &nn::Path, name: &str) {
    if let Some(seed) = SEED.get().filter(|_| values_wanted()) {
        let name = vs.components().chain([name]).flat_map(|part| part.bytes().map(u64::from).chain([0]));
        tch::manual_seed(hash(&[seed].into_iter().chain(name).collect::<Vec<_>>()) as i64);
    }
}

/// Runs `build` without filling the parameters that it makes: a model that is only counted costs neither time nor
/// memory, whatever its size. Its values are whatever lay in memory.
pub fn without_values<T>(build: impl FnOnce() -> T) -> T {
    /// Puts the switch back, also if `build` panics.
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            WITHOUT_VALUES.set(self.0);
        }
    }
    let _restore = Restore(WITHOUT_VALUES.replace(true));
    build()
}

/// Whether parameters are being filled, which they are unless [`without_values`] runs.
pub fn values_wanted() -> bool {
    !WITHOUT_VALUES.get()
}

/// Probability that a standard normal falls within ±2.
const WITHIN: f64 = 0.954_499_736_103_641_6;

/// Deviation of a standard normal that is cut at ±2.
const CUT_DEVIATION: f64 = 0.879_625_661_034_239_8;

/// Values that a parameter starts from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// All the same.
    Constant(f64),
    /// Uniform in ±bound.
    Uniform(f64),
    /// Uniform in ±1/sqrt(fan_in), fan_in being the last axis: what PyTorch does with a linear layer
    /// (`kaiming_uniform` with a = sqrt 5).
    Kaiming,
    /// Normal around 0 with this deviation. "trunc_normal 0.02" of the authors truncates at ±2, which is 100
    /// deviations: it is this.
    Normal(f64),
    /// LeCun's normal truncated at two deviations, with variance 1/fan_in; fan_in is everything but the
    /// first axis.
    LecunNormal,
}

/// Where the weights of a model's linear layers start from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Start {
    /// Uniform in ±1/sqrt(inputs), the last weight of every residual branch divided by the root of their number
    /// (Mamba, Vim).
    #[default]
    FanIn,
    /// Normal with deviation 0.02 (VMamba, vision transformers).
    Normal,
    /// Normal with deviation 0.02 but for the last weight of every residual branch, which starts as with `FanIn`; step
    /// sizes start from softplus(0), class tokens from 0 (VideoMamba).
    NormalInputs,
}

impl Start {
    /// Of a linear layer's weight.
    pub fn linear(self) -> Init {
        match self {
            Start::FanIn | Start::NormalInputs => Init::Kaiming,
            Start::Normal => Init::Normal(0.02),
        }
    }

    /// What the last weight of each of `residuals` branches is multiplied by.
    pub fn branch(self, residuals: i64) -> f64 {
        match self {
            Start::FanIn | Start::NormalInputs => (residuals.max(1) as f64).powf(-0.5),
            Start::Normal => 1.0,
        }
    }
}

impl Init {
    /// PyTorch's default for a convolution's weight and bias: uniform in ±1/sqrt(fan_in).
    pub fn convolution(fan_in: i64) -> Init {
        Init::Uniform((fan_in.max(1) as f64).powf(-0.5))
    }

    /// A fresh tensor of `shape`.
    pub fn tensor(self, shape: &[i64], device: Device) -> Tensor {
        let empty = || Tensor::empty(shape, (Kind::Float, device));
        if !values_wanted() {
            return empty();
        }
        match self {
            Init::Constant(value) => Tensor::full(shape, value, (Kind::Float, device)),
            Init::Uniform(bound) => empty().uniform_(-bound, bound),
            Init::Kaiming => {
                let bound = (shape.last().copied().unwrap_or(1).max(1) as f64).powf(-0.5);
                empty().uniform_(-bound, bound)
            }
            Init::Normal(deviation) => empty().normal_(0.0, deviation),
            Init::LecunNormal => {
                let fan_in = shape.iter().skip(1).product::<i64>().max(1) as f64;
                let mut values = empty().uniform_(-WITHIN, WITHIN).erfinv_();
                values *= std::f64::consts::SQRT_2 / (CUT_DEVIATION * fan_in.sqrt());
                values
            }
        }
    }

    /// Registers a trainable parameter of `shape` that starts so.
    pub fn parameter(self, vs: &nn::Path, name: &str, shape: &[i64]) -> Tensor {
        draw_for(vs, name);
        vs.add(name, self.tensor(shape, vs.device()), true)
    }
}

/// ln(1 … N) for every channel: the real S4D start (Gu et al., arXiv 2206.11893), A = -(1 … N).
pub fn s4d_real_log(directions: i64, channels: i64, states: i64) -> Tensor {
    let row = Tensor::arange_start(1, states + 1, (Kind::Float, Device::Cpu)).log();
    row.expand([directions, channels, states], false).contiguous()
}

/// Biases that softplus maps to step sizes drawn log-uniformly from `min` to `max`, none below `floor`
/// (Gu & Dao, arXiv 2312.00752, section 3.6).
pub fn step_size_bias(shape: &[i64], min: f64, max: f64, floor: f64) -> Tensor {
    let dt = (Tensor::rand(shape, (Kind::Double, Device::Cpu)) * (max.ln() - min.ln()) + min.ln())
        .exp()
        .clamp_min(floor);
    // softplus(dt + ln(1 - exp(-dt))) = dt.
    let bias = &dt + (-(-&dt).expm1()).log();
    bias.to_kind(Kind::Float)
}

/// True for parameters that weight decay must leave alone, by the last parts of their name: decays, skips,
/// biases, norms, layer scales, position embeddings and class tokens.
pub fn no_weight_decay(name: &str) -> bool {
    let mut parts = name.rsplit('.');
    let (last, parent) = (parts.next().unwrap_or(""), parts.next().unwrap_or(""));
    matches!(
        last,
        "A_log" | "D" | "bias" | "dt_bias" | "gamma" | "pos_embed" | "running_mean" | "running_var"
    ) || last.starts_with("cls_token")
        || parent.starts_with("norm")
        || parent.ends_with("norm")
}
