//! The `[model]` table of a config.

use ophidian_core::{
    Error, Result, config, documented,
    grid::{MixerKind, Mixers, Scans},
    init::Start,
    layers::{MlpKind, NormKind},
    mixer::{
        Channels, ConvPlace, DtInit, DtRank, Mamba1Config, Mamba2Config, Mamba2Options, Merge, MixerConfig,
        Parameters,
    },
};
use serde::{Deserialize, Serialize};

use super::CATALOGUE;
use crate::scans::register_scans;

/// Largest model that is built.
const MAX_PARAMETERS: f64 = 2e10;

/// What of the tokens the head reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Their mean.
    #[default]
    Mean,
    /// Their maximum, channel by channel.
    Max,
    /// Mean and maximum, one behind the other.
    Both,
    /// The last one.
    Last,
}

/// The token mixer of the blocks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mixer {
    /// Mamba-1.
    #[default]
    Mamba1,
    /// Mamba-2: a scalar decay per head, many states.
    Mamba2,
}

impl Mixer {
    pub(super) fn kind(self) -> MixerKind {
        match self {
            Mixer::Mamba1 => MixerKind::Mamba1,
            Mixer::Mamba2 => MixerKind::Mamba2,
        }
    }
}

documented! {
/// A backbone over groups of points with a classifying head: a small PointNet makes a token of each group, Mamba blocks
/// run along scan patterns, pooling, a head.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// Blocks.
    pub depth: i64,
    /// Channels inside the network that makes a token of a group: [hidden, of a point, hidden].
    pub encoder: [i64; 3],
    /// Channels inside the network that makes a position embedding of a group's centre (and of its time).
    pub position: i64,
    /// Scan pattern over the centres of the groups (`ophidian scan list`); of a sequence with `| spatial-first` or
    /// `| temporal-first` (without either, frames are walked each for itself). A list gives block i pattern i modulo its
    /// length, and so does a published scan that layers take in turn (`pcm/serialize`). `random(seed=sample)` is drawn
    /// anew for every sample and epoch.
    pub scan: Scans,
    /// The directions are one sequence and one causal scan: the tokens once for each direction, scaled and shifted by an
    /// indicator of their order (PointMamba).
    pub join: bool,
    /// A learned token behind all others, which the head reads beside the pool.
    pub class_token: bool,
    /// What of the tokens the head reads: "mean", "max", "both" or "last".
    pub pool: Pool,
    /// Channels of the head's hidden layers, each with batch norm and ReLU; an empty list for a linear head.
    pub head: Vec<i64>,
    /// Probability of dropping a channel behind each of them in training.
    pub head_dropout: f64,
    /// The blocks' token mixer: "mamba1" or "mamba2", for which `d_state` is 64 unless it is set. What it does not read of a
    /// `base` is left out, and is an error where it is set beside it.
    pub mixer: Mixer,
    /// What `mixer = "mamba2"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mamba2: Option<Mamba2Options>,
    /// States per inner channel.
    pub d_state: i64,
    /// Taps of the convolution before the scan.
    pub d_conv: i64,
    /// Where that convolution runs: "along" each order, or "none".
    pub conv: ConvPlace,
    /// Inner channels per channel of a token.
    pub expand: f64,
    /// Rank of Mamba-1's projection to step sizes; "auto" is d_model / 16, rounded up.
    pub dt_rank: DtRank,
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// No step size starts below this.
    pub dt_floor: f64,
    /// Start of Mamba-1's dt_proj.weight: "random" (uniform) or "constant".
    pub dt_init: DtInit,
    /// Scale of Mamba-1's dt_proj.weight at the start.
    pub dt_scale: f64,
    /// A bias in the convolution before the scan.
    pub conv_bias: bool,
    /// Biases in the mixer's input and output projections.
    pub bias: bool,
    /// What each direction has for itself: "own" (everything), "shared" (nothing) or "decay" (A alone).
    pub parameters: Parameters,
    /// How directions come together: "mean", "sum", "concat" or "gated".
    pub merge: Merge,
    /// The scan's result is multiplied by silu(z), z being a second half of the input projection.
    pub gate: bool,
    /// A norm on Mamba-1's result, before the gate: "layer" or "rms"; none if absent. (Mamba-2's is `mamba2.rmsnorm`.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_norm: Option<NormKind>,
    /// The norm, or Mamba-2's, acts on each direction before they come together.
    pub norm_each: bool,
    /// Which channels a direction reads: "all", "split" or "grouped".
    pub channels: Channels,
    /// "rms" or "layer".
    pub norm: NormKind,
    /// Added to the variance in a normalisation.
    pub norm_eps: f64,
    /// Start of a learned scale per channel on every mixer's output; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_scale: Option<f64>,
    /// Probability of dropping the last block for a sample in training; earlier blocks less, the first never.
    pub drop_path: f64,
    /// Channels inside the MLP behind each mixer, per channel of a token; 0 for no MLP.
    pub mlp_ratio: f64,
    /// Between the MLP's two maps: "gelu", or "gated".
    pub mlp: MlpKind,
    /// Where weights start from: "fan-in" (uniform by the number of inputs, branches scaled down by depth) or "normal"
    /// (deviation 0.02, PointMamba from scratch).
    pub init: Start,
}
}

impl Default for ModelConfig {
    fn default() -> Self {
        let mixer = Mamba1Config::default();
        ModelConfig {
            d_model: 96,
            depth: 4,
            encoder: [64, 128, 256],
            position: 128,
            scan: Scans::One("pointmamba/serialize".into()),
            join: false,
            class_token: false,
            pool: Pool::Mean,
            head: vec![256, 256],
            head_dropout: 0.5,
            mixer: Mixer::default(),
            mamba2: None,
            d_state: 16,
            d_conv: mixer.d_conv,
            conv: mixer.conv,
            expand: mixer.expand,
            dt_rank: mixer.dt_rank,
            dt_min: mixer.dt_min,
            dt_max: mixer.dt_max,
            dt_floor: mixer.dt_floor,
            dt_init: mixer.dt_init,
            dt_scale: mixer.dt_scale,
            conv_bias: mixer.conv_bias,
            bias: mixer.bias,
            parameters: mixer.parameters,
            merge: mixer.merge,
            gate: mixer.gate,
            out_norm: mixer.out_norm,
            norm_each: mixer.norm_each,
            channels: mixer.channels,
            norm: NormKind::Layer,
            norm_eps: 1e-5,
            layer_scale: None,
            drop_path: 0.0,
            mlp_ratio: 0.0,
            mlp: MlpKind::default(),
            init: Start::default(),
        }
    }
}

impl ModelConfig {
    /// Reads and checks a `[model]` table and fills in what follows from other keys. A key `base` names a published
    /// model, whose values the others replace.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key (`model.…`) that is unknown or wrong.
    pub fn read(table: toml::Table) -> Result<ModelConfig> {
        register_scans();
        let mut table = table;
        // Named over a base it brings its own number of states, but not over one that is set with it.
        let named = table.contains_key("mixer");
        if table.get("mixer").and_then(toml::Value::as_str) == Some("mamba2") {
            table.entry("d_state").or_insert(64.into());
        }
        let mut read: ModelConfig = config::from_table(CATALOGUE.with_base(table)?, "model")?;
        if read.mixer == Mixer::Mamba2 && read.mamba2.is_none() {
            read.mamba2 = Some(Mamba2Options::default());
        }
        if read.tells_no_one() && !named {
            return Err(Error::Config("[model]: `mamba2` is set, but `mixer` is not \"mamba2\"".into()));
        }
        read.scan = read.scan.scheduled();
        read.check().map_err(|error| match error {
            Error::Config(text) => Error::Config(format!("[model]: {text}")),
            other => other,
        })?;
        Ok(read)
    }

    /// True if there are options for a mixer that the model has not.
    fn tells_no_one(&self) -> bool {
        self.mixer == Mixer::Mamba1 && self.mamba2.is_some()
    }

    /// What a user should know before training: keys that are set in vain.
    pub fn notes(&self) -> Vec<String> {
        let absent = self.tells_no_one();
        let absent =
            absent.then(|| "`mamba2` is set, but `mixer` is not \"mamba2\": nothing reads it".to_owned());
        let mixers = Mixers::from(self.mixer.kind());
        absent.into_iter().chain(mixers.notes(self, &ModelConfig::default())).collect()
    }

    /// Branches that add up in the whole model.
    pub fn residuals(&self) -> i64 {
        self.depth * if self.mlp_ratio > 0.0 { 2 } else { 1 }
    }

    /// Channels that the head reads.
    pub fn head_inputs(&self) -> i64 {
        let pooled = if self.pool == Pool::Both { 2 } else { 1 };
        (pooled + i64::from(self.class_token)) * self.d_model
    }

    /// The mixer of a block of `directions` directions.
    pub fn mixer(&self, directions: i64) -> MixerConfig {
        let mamba = self.mamba(directions);
        match self.mixer {
            Mixer::Mamba1 => mamba.into(),
            Mixer::Mamba2 => Mamba2Config::like(&mamba, self.mamba2.clone().unwrap_or_default()).into(),
        }
    }

    /// The Mamba-1 mixer of a block of `directions` directions, or what another takes of it.
    pub fn mamba(&self, directions: i64) -> Mamba1Config {
        Mamba1Config {
            d_model: self.d_model,
            directions,
            d_state: self.d_state,
            d_conv: self.d_conv,
            conv: self.conv,
            expand: self.expand,
            dt_rank: self.dt_rank,
            dt_min: self.dt_min,
            dt_max: self.dt_max,
            dt_floor: self.dt_floor,
            dt_init: self.dt_init,
            dt_scale: self.dt_scale,
            conv_bias: self.conv_bias,
            bias: self.bias,
            parameters: self.parameters,
            channels: self.channels,
            merge: self.merge,
            gate: self.gate,
            out_norm: self.out_norm,
            norm_each: self.norm_each,
            start: self.init,
            residuals: self.residuals(),
            ..Mamba1Config::default()
        }
    }

    /// Checks every value that can be checked without an input.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        let wrong = |key: &str, found: &dyn std::fmt::Debug, expected: &str| {
            Err(Error::Config(format!("`{key}` is {found:?}, expected {expected}")))
        };
        for (key, found) in [("d_model", self.d_model), ("position", self.position)]
            .into_iter()
            .chain(self.encoder.map(|width| ("encoder", width)))
            .chain(self.head.iter().map(|width| ("head", *width)))
        {
            if !(1..=1 << 20).contains(&found) {
                return wrong(key, &found, "1 to 1048576 channels");
            }
        }
        if !(0..=4096).contains(&self.depth) {
            return wrong("depth", &self.depth, "0 to 4096 blocks");
        }
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return wrong("norm_eps", &self.norm_eps, "a small number, at least 0");
        }
        for (key, found) in [("drop_path", self.drop_path), ("head_dropout", self.head_dropout)] {
            if !(0.0..1.0).contains(&found) {
                return wrong(key, &found, "a probability from 0 to below 1");
            }
        }
        if !(0.0..=1024.0).contains(&self.mlp_ratio) {
            return wrong("mlp_ratio", &self.mlp_ratio, "0 (no MLP) to 1024");
        }
        if self.layer_scale.is_some_and(|scale| !scale.is_finite()) {
            return wrong("layer_scale", &self.layer_scale, "a number such as 1e-5");
        }
        if self.conv == ConvPlace::Grid {
            return wrong("conv", &"grid", "\"along\" or \"none\": points lie on no grid");
        }
        Mixers::from(self.mixer.kind()).expect_read(self, &ModelConfig::default())?;
        match self.mixer(1) {
            MixerConfig::Mamba2(mixer) => mixer.check()?,
            _ => self.mamba(1).check()?,
        }
        register_scans();
        self.scan.check()?;
        let mixer = self.mamba(1);
        let (d, inner) = (self.d_model as f64, mixer.d_inner() as f64);
        let (rank, states) = (mixer.dt_rank.of(self.d_model) as f64, self.d_state as f64);
        let block = d * (3.0 * inner + 2.0 * self.mlp_ratio * d)
            + inner * (2.0 * rank + 3.0 * states + self.d_conv as f64);
        let [first, local, second] = self.encoder.map(|width| width as f64);
        let ends = first * local
            + 2.0 * local * second
            + second * d
            + self.head.windows(2).map(|pair| pair[0] as f64 * pair[1] as f64).sum::<f64>();
        let total = self.depth as f64 * block + ends;
        if total > MAX_PARAMETERS {
            return Err(Error::Config(format!(
                "d_model = {}, depth = {} and the widths make a model of about {total:.0e} parameters, expected at most \
                 {MAX_PARAMETERS:.0e}",
                self.d_model, self.depth
            )));
        }
        Ok(())
    }
}
