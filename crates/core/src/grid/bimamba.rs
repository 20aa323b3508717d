//! The mixer of Vim and its descendants as their authors publish it: its arguments and parameter names.

use serde::Deserialize;

use super::{ModelConfig, Pool, family::layer};
use crate::{
    Error, Result,
    keymap::Key,
    mixer::{DtInit, DtRank, Mamba1Config, Parameters},
};

/// `ssm_cfg`: further arguments of the authors' `Mamba`.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MixerConfig {
    /// States per inner channel; Vim has it among the arguments of the model.
    pub d_state: Option<i64>,
    /// Taps of the convolution.
    pub d_conv: i64,
    /// Inner channels per channel of a token.
    pub expand: f64,
    /// Rank of the projection to step sizes.
    pub dt_rank: DtRank,
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// Start of the weight behind that projection.
    pub dt_init: DtInit,
    /// Scale of that weight.
    pub dt_scale: f64,
    /// No step size starts below this.
    pub dt_init_floor: f64,
    /// A bias in the convolution.
    pub conv_bias: bool,
    /// Biases in the mixer's first and last projection.
    pub bias: bool,
    /// Which of the authors' two code paths runs.
    pub use_fast_path: bool,
}

impl MixerConfig {
    /// `model` with a mixer as this says, of one direction or, as the authors' fast path alone is, of two.
    ///
    /// # Errors
    /// Two directions without the fast path.
    pub fn apply(&self, bidirectional: bool, model: ModelConfig) -> Result<ModelConfig> {
        if bidirectional && !self.use_fast_path {
            return Err(Error::Config(
                "`ssm_cfg.use_fast_path` is false, which makes the authors' code drop the backward direction \
                 silently: not supported; leave it out, or switch the backward direction off"
                    .into(),
            ));
        }
        Ok(ModelConfig {
            d_state: self.d_state.unwrap_or(model.d_state),
            d_conv: self.d_conv,
            expand: self.expand,
            dt_rank: self.dt_rank,
            dt_min: self.dt_min,
            dt_max: self.dt_max,
            dt_floor: self.dt_init_floor,
            dt_init: self.dt_init,
            dt_scale: self.dt_scale,
            conv_bias: self.conv_bias,
            bias: self.bias,
            ..model
        })
    }
}

impl Default for MixerConfig {
    fn default() -> Self {
        MixerConfig {
            d_state: None,
            d_conv: 4,
            expand: 2.0,
            dt_rank: DtRank::Auto,
            dt_min: 1e-3,
            dt_max: 0.1,
            dt_init: DtInit::Random,
            dt_scale: 1.0,
            dt_init_floor: 1e-4,
            conv_bias: true,
            bias: false,
            use_fast_path: true,
        }
    }
}

/// What the authors' mixer has for a backward direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bimamba {
    /// There is none.
    None,
    /// Decays.
    V1,
    /// Everything.
    V2,
}

impl Bimamba {
    /// The directions as a scan.
    pub fn scan(self) -> &'static str {
        if self == Bimamba::None { "row" } else { "bidirectional" }
    }

    /// What each direction has for itself.
    pub fn parameters(self) -> Parameters {
        if self == Bimamba::V1 { Parameters::Decay } else { Parameters::Own }
    }
}

/// What is read without a class token: the authors' `final_pool_type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalPool {
    /// The last token.
    None,
    /// The mean of all tokens.
    Mean,
    /// Each class by the token that is surest of it.
    Max,
    /// Logits of every token.
    All,
}

impl FinalPool {
    /// The same in our words.
    pub fn ours(self) -> Pool {
        match self {
            FinalPool::None => Pool::Last,
            FinalPool::Mean => Pool::Mean,
            FinalPool::Max => Pool::Max,
            FinalPool::All => Pool::All,
        }
    }
}

/// The tensors of a mixer of Vim and its descendants, whose two directions are the rows of our tensors.
pub fn mixer_keys(ours: &ModelConfig, bimamba: Bimamba, layer: &str, keys: &mut Vec<Key>) {
    let d = ours.last_width();
    let mixer = format!("{layer}.mixer");
    if ours.layer_scale.is_some() {
        keys.push(Key::new(format!("{mixer}.gamma"), format!("{layer}.gamma"), &[d]));
    }
    let decays: &[&str] = if bimamba == Bimamba::None { &["A_log"] } else { &["A_log", "A_b_log"] };
    let suffixes: &[&str] = if bimamba == Bimamba::V2 { &["", "_b"] } else { &[""] };
    direction_keys(keys, &ours.mamba(d, 1), [decays, suffixes], &mixer, &mixer);
}

/// The tensors of a Mamba of several directions, the rows of our tensors, which have their decays and the rest by these
/// names and suffixes.
pub fn direction_keys(
    keys: &mut Vec<Key>,
    mixer: &Mamba1Config,
    [decays, suffixes]: [&[&str]; 2],
    theirs: &str,
    ours: &str,
) {
    let (d, inner, n, w, rank) = (mixer.d_model, mixer.d_inner(), mixer.d_state, mixer.d_conv, mixer.rank());
    let pair = |their_name: &str, name: &str| (format!("{theirs}.{their_name}"), format!("{ours}.{name}"));
    for (projection, rows, columns) in [("in_proj", 2 * inner, d), ("out_proj", d, inner)] {
        let (theirs, ours) = pair(projection, projection);
        layer(keys, &theirs, &ours, &[rows, columns], mixer.bias);
    }
    for (row, decay) in decays.iter().enumerate() {
        let (theirs, ours) = pair(decay, "A_log");
        keys.push(Key::row(theirs, ours, row as i64, &[inner, n]));
    }
    for (row, suffix) in suffixes.iter().enumerate() {
        let mut part = |layer: &str, part: &str, shape: &[i64]| {
            let (theirs, ours) = pair(&format!("{layer}{suffix}{part}"), &format!("{layer}{part}"));
            keys.push(Key::row(theirs, ours, row as i64, shape));
        };
        part("D", "", &[inner]);
        part("conv1d", ".weight", &[inner, 1, w]);
        if mixer.conv_bias {
            part("conv1d", ".bias", &[inner]);
        }
        part("x_proj", ".weight", &[rank + 2 * n, inner]);
        part("dt_proj", ".weight", &[inner, rank]);
        part("dt_proj", ".bias", &[inner]);
    }
}
