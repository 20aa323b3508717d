//! The `[model]` table of a config.

use ophidian_core::{
    Error, Result, config,
    layers::NormKind,
    mixer::{DtInit, DtRank, Mamba1Config, Merge, Parameters, StepSizes},
};
use ophidian_scan::{Geometry, Pattern, Plan};
use serde::{Deserialize, Serialize};

use super::{embed::Pool, rope::Rope};

/// A length, or rows and columns: `4` or `[4, 8]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number such as 4, or [rows, columns] such as [4, 8]")]
pub enum Size {
    /// The same for rows and columns.
    Square(i64),
    /// (rows, columns).
    Sides([i64; 2]),
}

impl Size {
    /// (rows, columns).
    pub fn sides(self) -> [i64; 2] {
        match self {
            Size::Square(side) => [side, side],
            Size::Sides(sides) => sides,
        }
    }
}

/// One pattern for all blocks, or several that the blocks take in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a pattern such as \"bidirectional\", or a list of patterns")]
pub enum Scans {
    /// For every block.
    One(String),
    /// Block i takes number i modulo their count.
    Each(Vec<String>),
}

impl Scans {
    /// One text for every pattern.
    pub(super) fn texts(&self) -> &[String] {
        match self {
            Scans::One(text) => std::slice::from_ref(text),
            Scans::Each(texts) => texts,
        }
    }

    fn check(&self) -> Result<()> {
        if self.texts().is_empty() {
            return Err(Error::Config("`scan` is an empty list, expected at least one pattern".into()));
        }
        self.texts().iter().try_for_each(|text| pattern(text, 0).map(drop))
    }
}

/// `text` with `seed` in the place of every `seed=sample`, if there is one: a random scan drawn anew for every sample.
pub(super) fn reseeded(text: &str, seed: u64) -> Option<String> {
    let (mut found, mut out, mut rest) = (false, String::new(), text);
    while let Some(end) = rest.find("seed").map(|at| at + "seed".len()) {
        let (before, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        out.push_str(before);
        rest = match value.and_then(|value| value.strip_prefix("sample")) {
            Some(after) => {
                found = true;
                // 63 bits, as the seeds of patterns are.
                out.push_str(&format!("={}", seed >> 1));
                after
            }
            None => after,
        };
    }
    out.push_str(rest);
    found.then_some(out)
}

/// The pattern of `text`, drawn with `seed` where that is the sample's.
fn pattern(text: &str, seed: u64) -> Result<Pattern> {
    let text = reseeded(text, seed).unwrap_or_else(|| text.to_owned());
    text.parse().map_err(|error: ophidian_scan::Error| Error::Config(format!("`scan`: {error}")))
}

/// The plan of the pattern `text` over patches that lie as `geometry` says, with class tokens at `class_tokens`.
///
/// # Errors
/// [`Error::Config`] of a text that is no pattern; a pattern that does not suit the geometry.
pub(super) fn plan(text: &str, seed: u64, geometry: &Geometry, class_tokens: &[i64]) -> Result<Plan> {
    let plan = pattern(text, seed)?.plan(geometry)?;
    class_tokens.iter().try_fold(plan, |plan, at| Ok(plan.insert_token(*at as usize)?))
}

/// How parameters start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Start {
    /// As in Mamba and Vim: projections uniform within 1 / sqrt(inputs), step sizes as the `dt_` keys say, patches
    /// LeCun-normal, class tokens normal.
    #[default]
    Mamba,
    /// As in vision transformers and VideoMamba: linear maps normal with deviation 0.02 (but for a mixer's last, which
    /// starts as above), step sizes of softplus(0), patches uniform, class tokens 0.
    Normal,
}

/// A vision backbone with a classifying head: patches, Mamba-1 blocks along scan patterns, pooling, a linear
/// map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Pixels per side of a patch, or [rows, columns].
    pub patch_size: Size,
    /// Pixels from one patch to the next; smaller than the patch they overlap. 0 stands for the patch's rows.
    pub stride: i64,
    /// Frames of a patch, where the inputs are clips; 1 for images.
    pub tubelet: i64,
    /// Channels of a token.
    pub d_model: i64,
    /// Blocks.
    pub depth: i64,
    /// States per inner channel.
    pub d_state: i64,
    /// Taps of the causal convolution.
    pub d_conv: i64,
    /// Inner channels per channel of a token.
    pub expand: f64,
    /// Rank of the projection to step sizes; "auto" is d_model / 16, rounded up.
    pub dt_rank: DtRank,
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// No step size starts below this.
    pub dt_floor: f64,
    /// Start of dt_proj's weight: "random" (uniform) or "constant".
    pub dt_init: DtInit,
    /// Scale of dt_proj's weight at the start.
    pub dt_scale: f64,
    /// Start of dt_proj's bias: "log-uniform", or "first-log-uniform" as the released Vim (other directions
    /// 0).
    pub step_sizes: StepSizes,
    /// A bias in the causal convolution.
    pub conv_bias: bool,
    /// Biases in the mixer's input and output projections.
    pub bias: bool,
    /// Scan pattern over the grid of patches (`ophidian scan list`), which has three axes where the inputs are clips; a
    /// list gives block i pattern i modulo its length. `random(seed=sample)` is drawn anew for every sample and epoch.
    pub scan: Scans,
    /// What each direction has for itself: "own" (everything), "shared" (nothing), "decay" (A alone, as Vim
    /// v1).
    pub parameters: Parameters,
    /// How directions come together: "mean", "sum", "concat" or "gated".
    pub merge: Merge,
    /// Blocks 2i and 2i+1 read the same tokens and add up (Vim's if_bidirectional).
    pub layer_pairs: bool,
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
    /// What the head reads: a class token at "middle", "head" or "end" or at "both" ends, or, without a
    /// class token, "mean", "last", "max" (of the logits) or "all" tokens.
    pub pool: Pool,
    /// A learned position embedding; for clips the sum of one for the place and one for the time.
    pub pos_embed: bool,
    /// Rotary position embedding before every block: "none", on the block's "hidden" input, or on the
    /// "residual" too.
    pub rope: Rope,
    /// Patches per side that the rotary embedding's positions are stretched to; 0 for the image's own.
    pub rope_grid: i64,
    /// How parameters start: "mamba" or "normal".
    pub init: Start,
}

impl Default for ModelConfig {
    fn default() -> Self {
        let mixer = Mamba1Config::default();
        ModelConfig {
            patch_size: Size::Square(4),
            stride: 0,
            tubelet: 1,
            d_model: 128,
            depth: 6,
            d_state: 16,
            d_conv: mixer.d_conv,
            expand: mixer.expand,
            dt_rank: mixer.dt_rank,
            dt_min: mixer.dt_min,
            dt_max: mixer.dt_max,
            dt_floor: mixer.dt_floor,
            dt_init: mixer.dt_init,
            dt_scale: mixer.dt_scale,
            step_sizes: mixer.step_sizes,
            conv_bias: mixer.conv_bias,
            bias: mixer.bias,
            scan: Scans::One("bidirectional".into()),
            parameters: mixer.parameters,
            merge: mixer.merge,
            layer_pairs: false,
            norm: NormKind::Rms,
            norm_eps: 1e-5,
            layer_scale: None,
            drop_path: 0.0,
            mlp_ratio: 0.0,
            pool: Pool::Middle,
            pos_embed: true,
            rope: Rope::None,
            rope_grid: 0,
            init: Start::Mamba,
        }
    }
}

/// Largest model that is built: a config with a few zeros too many is an error and not an attempt to
/// allocate.
const MAX_PARAMETERS: f64 = 2e10;

impl ModelConfig {
    /// Reads and checks a `[model]` table and fills in what follows from other keys.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key (`model.…`) that is unknown or wrong.
    pub fn read(table: toml::Table) -> Result<ModelConfig> {
        let mut read: ModelConfig = config::from_table(table, "model")?;
        if read.stride == 0 {
            read.stride = read.patch_size.sides()[0];
        }
        read.check().map_err(|error| match error {
            Error::Config(text) => Error::Config(format!("[model]: {text}")),
            other => other,
        })?;
        Ok(read)
    }

    /// Checks every value that can be checked without an image.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn check(&self) -> Result<()> {
        let wrong = |key: &str, found: String, expected: &str| {
            Err(Error::Config(format!("`{key}` is {found}, expected {expected}")))
        };
        let patch = self.patch_size.sides();
        if patch.iter().any(|side| !(1..=4096).contains(side)) {
            return wrong("patch_size", format!("{patch:?}"), "sides of 1 to 4096 pixels");
        }
        for (key, found, low, high) in [
            ("stride", self.stride, 1, 4096),
            ("tubelet", self.tubelet, 1, 4096),
            ("depth", self.depth, 0, 4096),
            ("rope_grid", self.rope_grid, 0, 1 << 20),
        ] {
            if !(low..=high).contains(&found) {
                return wrong(key, found.to_string(), &format!("{low} to {high}"));
            }
        }
        self.scan.check()?;
        if !(self.norm_eps.is_finite() && self.norm_eps >= 0.0) {
            return wrong("norm_eps", self.norm_eps.to_string(), "a small number, at least 0");
        }
        if !(0.0..1.0).contains(&self.drop_path) {
            return wrong("drop_path", self.drop_path.to_string(), "a probability from 0 to below 1");
        }
        if !(0.0..=1024.0).contains(&self.mlp_ratio) {
            return wrong("mlp_ratio", self.mlp_ratio.to_string(), "0 (no MLP) to 1024");
        }
        if self.layer_scale.is_some_and(|scale| !scale.is_finite()) {
            return wrong("layer_scale", "not finite".into(), "a number such as 1e-5");
        }
        let mixer = self.mixer(1);
        mixer.check()?;
        let (d, inner) = (self.d_model as f64, mixer.d_inner() as f64);
        let rank = mixer.dt_rank.of(self.d_model) as f64;
        let (states, taps) = (2.0 * rank + 3.0 * self.d_state as f64, self.d_conv as f64);
        let block = d * (3.0 * inner + 2.0 * self.mlp_ratio * d) + inner * (states + taps);
        let patch = d * (self.tubelet * patch[0] * patch[1]) as f64;
        if self.depth as f64 * block + patch > MAX_PARAMETERS {
            return Err(Error::Config(format!(
                "d_model = {}, depth = {} and expand = {} make a model of about {:.0e} parameters, expected at most \
                 {MAX_PARAMETERS:.0e}",
                self.d_model,
                self.depth,
                self.expand,
                self.depth as f64 * block + patch
            )));
        }
        Ok(())
    }

    /// Checks that patches tile an image of (rows, columns) pixels, or such a clip of `frames`, and returns their grid.
    ///
    /// # Errors
    /// [`Error::Config`] with the sizes that do not fit and what would.
    pub fn tile(&self, image: [i64; 2], frames: Option<i64>) -> Result<[i64; 2]> {
        if let Some(frames) = frames.filter(|frames| frames % self.tubelet != 0) {
            return Err(Error::Config(format!(
                "`model.tubelet` is {}, which does not divide clips of {frames} frames; choose another, or clips of {} \
                 frames",
                self.tubelet,
                (frames / self.tubelet + 1) * self.tubelet
            )));
        }
        let (patch, stride) = (self.patch_size.sides(), self.stride);
        for (axis, name) in ["height", "width"].into_iter().enumerate() {
            let (pixels, side) = (image[axis], patch[axis]);
            if pixels < side {
                return Err(Error::Config(format!(
                    "`model.patch_size`: a patch of {side} pixels is larger than the image's {name} of {pixels}; \
                     choose a smaller patch or a larger `data.image_size`"
                )));
            }
            let rest = (pixels - side) % stride;
            if rest != 0 {
                let (below, above) = (pixels - rest, pixels - rest + stride);
                return Err(Error::Config(format!(
                    "`model.patch_size`: patches of {side} pixels every {stride} do not divide the image's {name} of \
                     {pixels}; choose another patch, or images of {below} or {above} pixels"
                )));
            }
        }
        Ok(super::embed::grid(image, patch, stride))
    }

    /// The mixer of a block of `directions` directions.
    pub fn mixer(&self, directions: i64) -> Mamba1Config {
        Mamba1Config {
            d_model: self.d_model,
            directions,
            d_state: self.d_state,
            d_conv: self.d_conv,
            expand: self.expand,
            dt_rank: self.dt_rank,
            dt_min: self.dt_min,
            dt_max: self.dt_max,
            dt_floor: self.dt_floor,
            dt_init: self.dt_init,
            dt_scale: self.dt_scale,
            step_sizes: self.step_sizes,
            conv_bias: self.conv_bias,
            bias: self.bias,
            parameters: self.parameters,
            merge: self.merge,
            residuals: self.depth * if self.mlp_ratio > 0.0 { 2 } else { 1 },
        }
    }
}
