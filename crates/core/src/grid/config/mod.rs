//! The `[model]` table of a config.

mod check;
mod kinds;
mod mixers;
mod options;
mod published;
mod values;

use serde::{Deserialize, Serialize};

use super::{embed::Pool, rope::Rope, stem::StemKind};
use crate::{
    Result,
    config::{self, KeyDoc},
    documented,
    init::Start,
    layers::{DownsampleKind, MlpKind, NormKind},
    mixer::{
        Channels, Coarse, Compat, ConvPlace, DtInit, DtRank, Mamba1Config, Mamba2Options, Merge, Parameters,
        QuadCompat, StepSizes,
    },
};

pub use kinds::{MixerKind, Mixers};
pub(super) use kinds::{with_implied, without_unread};
pub use options::{
    AttentionOptions, ChangeMambaOptions, DefMambaOptions, DividedOptions, GrootLOptions, HydraOptions,
    InvertedOptions, SemanticOptions,
};
pub use published::published_with;
pub(super) use values::plan;
pub use values::{PerStage, Scans, Size, pattern, reseeded};

documented! {
/// A backbone over a grid with a classifying head: patches, blocks along scan patterns in one stage or several,
/// pooling, a linear map.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ModelConfig {
    /// Pixels per side of a patch, or [rows, columns].
    pub patch_size: Size,
    /// Pixels from one patch to the next, or [rows, columns]; smaller than the patch they overlap. 0 stands for the
    /// patch's own.
    pub stride: Size,
    /// Frames of a patch, where the inputs are clips; 1 for images.
    pub tubelet: i64,
    /// How pixels become patches: "patch" (one convolution), "overlap" (two 3x3 convolutions that overlap, a norm and
    /// GELU between them: VMamba), "conv" (a 7x7 convolution of stride 2, batch norm, ReLU, then patches: PlainMamba),
    /// "conv-overlap" (the same, with patches that overlap: GroupMamba) or "residual" (3x3 convolutions with batch norm,
    /// two of them around a residual: Spatial-Mamba).
    pub stem: StemKind,
    /// Further 3x3 convolutions within the "conv" and "conv-overlap" stems.
    pub stem_convs: i64,
    /// Channels within those stems.
    pub stem_width: i64,
    /// A bias in the "patch" stem's convolution.
    pub patch_bias: bool,
    /// The "patch" stem pads images below and to the right, up to whole steps of the stride (RSMamba).
    pub patch_pad: bool,
    /// Pixels of zeros around the images or frames of the "patch" stem (SegFormer, Vivim).
    pub patch_padding: i64,
    /// A norm on the patches.
    pub patch_norm: bool,
    /// Added to the variance there and in the steps from stage to stage, where it is another than `norm_eps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub patch_norm_eps: Option<f64>,
    /// Channels of a token; one number doubles from stage to stage, a list has one for each.
    pub d_model: PerStage,
    /// Blocks; a list such as [2, 2, 8, 2] makes stages, each on half as many rows and columns as the one before.
    pub depth: PerStage,
    /// The step from stage to stage: "merge" (patch merging), "conv2" (2x2 convolution), "conv3" (3x3, overlapping) or
    /// "inverted" (an inverted bottleneck of convolutions: Spatial-Mamba).
    pub downsample: DownsampleKind,
    /// A bias in the convolution of "conv2" and "conv3".
    pub downsample_bias: bool,
    /// A norm behind each stage but the last, in front of the step to the next (GrootV, GroupMamba).
    pub stage_norm: bool,
    /// The blocks' token mixer, or one for each stage: "mamba1", "mamba2", "grootv", "grootl", "spatialmamba", "hydra",
    /// "defmamba", "quadmamba", "semantic", "inverted" (convolutions alone), "divided" (time, then space: clips alone) or
    /// "changemamba" (two images in three arrangements: clips of two frames alone).
    /// Keys that a mixer cannot do without (a `scan` of one
    /// direction, a `conv` on the grid …) take what its paper has unless they are set; what it does not read of a `base` is
    /// left out, and is an error where it is set beside it.
    pub mixer: Mixers,
    /// What `mixer = "mamba2"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mamba2: Option<Mamba2Options>,
    /// What `mixer = "hydra"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hydra: Option<HydraOptions>,
    /// What `mixer = "grootl"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grootl: Option<GrootLOptions>,
    /// What `mixer = "defmamba"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub defmamba: Option<DefMambaOptions>,
    /// What `mixer = "quadmamba"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quadmamba: Option<QuadCompat>,
    /// What `mixer = "semantic"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub semantic: Option<SemanticOptions>,
    /// What `mixer = "inverted"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub inverted: Option<InvertedOptions>,
    /// What `mixer = "divided"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub divided: Option<DividedOptions>,
    /// What `mixer = "changemamba"` is told beside the other keys.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub changemamba: Option<ChangeMambaOptions>,
    /// Blocks of attention in front of each stage's, in each frame of a clip by itself (SegFormer, Vivim). None if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attention: Option<AttentionOptions>,
    /// GroupMamba's gate around every mixer, through this many times fewer channels; it has the block's norm within. None
    /// if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub affinity: Option<i64>,
    /// A branch of convolutions beside every mixer but "inverted", both times gates (EfficientVMamba).
    pub conv_branch: bool,
    /// States per inner channel.
    pub d_state: i64,
    /// Taps of the convolution before the scan, in each axis if it runs on the grid.
    pub d_conv: i64,
    /// Where that convolution runs: "along" each order (causal: Mamba, Vim), on the "grid" (once for all directions:
    /// VMamba, PlainMamba) or "none".
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
    /// Start of Mamba-1's dt_proj.bias: "log-uniform", or "first-log-uniform" as the released Vim (other directions
    /// 0).
    pub step_sizes: StepSizes,
    /// A bias in the convolution before the scan.
    pub conv_bias: bool,
    /// Biases in the mixer's input and output projections.
    pub bias: bool,
    /// Scan pattern over the grid of patches (`ophidian scan list`), which has three axes where the inputs are clips; a
    /// list gives block i pattern i modulo its length, and so does a published scan that layers take in turn
    /// (`zigma/zigzag8`). `random(seed=sample)` is drawn anew for every sample and epoch.
    pub scan: Scans,
    /// Pattern by which results are put back, where it is not the one that tokens are visited by (VMamba's cascade2d as
    /// released).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub written_as: Option<String>,
    /// What each direction has for itself: "own" (everything), "shared" (nothing), "decay" (A alone, as Vim
    /// v1).
    pub parameters: Parameters,
    /// How directions come together: "mean", "sum", "concat", "gated" (a softmax over the directions: RSMamba),
    /// "channel-gate" (each times a gate per channel, then the sum: LocalMamba) or "search" (a learned softmax, for
    /// `ophidian scan searched`: LocalMamba).
    pub merge: Merge,
    /// The scan's result is multiplied by silu(z), z being a second half of the input projection.
    pub gate: bool,
    /// A norm on Mamba-1's result, before the gate: "layer" or "rms"; none if absent. (Mamba-2's is `mamba2.rmsnorm`.)
    #[serde(skip_serializing_if = "Option::is_none")]
    pub out_norm: Option<NormKind>,
    /// The norm, or Mamba-2's, acts on each direction before they come together.
    pub norm_each: bool,
    /// Which channels a direction reads: "all", "split" (each its own, as Video Mamba Suite's DBM) or "grouped" (each
    /// its own throughout the mixer, as GroupMamba).
    pub channels: Channels,
    /// A learned vector by the way that a step goes (start, right, left, up, down) is added to B (PlainMamba).
    pub step_embedding: bool,
    /// The directions are this many groups that run one after another (VMamba's cascade2d: rows, then columns).
    pub cascade: i64,
    /// The scan's result times a gate per channel that its mean chooses, through this many times fewer channels (MSVMamba);
    /// none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub squeeze: Option<i64>,
    /// Further directions over a coarser map (MSVMamba); none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coarse: Option<Coarse>,
    /// Scan pattern of those directions, over the coarser map.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub coarse_scan: Option<String>,
    /// In front of each norm of a block a depthwise 3x3 convolution is added to what it reads (Spatial-Mamba).
    pub position_conv: bool,
    /// Blocks (from 0) behind which a depthwise 3x3 convolution with batch norm and GELU stands (PlainMamba-L1).
    pub local_conv: Vec<i64>,
    /// Blocks 2i and 2i+1 read the same tokens and add up (Vim's if_bidirectional).
    pub layer_pairs: bool,
    /// All blocks have one norm for what their mixers read (RSMamba).
    pub shared_norm: bool,
    /// A mixer's result is added to the normalised tokens that it read (Mamba-ND as released).
    pub carry_normed: bool,
    /// "rms" or "layer".
    pub norm: NormKind,
    /// Added to the variance in a normalisation.
    pub norm_eps: f64,
    /// The norm behind the last block, where it is another than `norm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_norm: Option<NormKind>,
    /// Added to the variance there, where it is another than `norm_eps`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub final_norm_eps: Option<f64>,
    /// Start of a learned scale per channel on every mixer's output; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub layer_scale: Option<f64>,
    /// Probability of dropping the last block for a sample in training; earlier blocks less, the first never.
    pub drop_path: f64,
    /// Channels inside the MLP behind each mixer, per channel of a token, or one number for each stage; 0 for no MLP.
    pub mlp_ratio: PerStage<f64>,
    /// Between the MLP's two maps: "gelu", "gated" (half of the channels times the gelu of the other half), "conv" (gelu of
    /// a depthwise 3x3 convolution: GroupMamba) or "conv-residual" (gelu of the sum with it: MSVMamba).
    pub mlp: MlpKind,
    /// What the head reads: a class token at "middle", "head" or "end" or at "both" ends, or, without a
    /// class token, "mean", "last", "max" (of the logits) or "all" tokens.
    pub pool: Pool,
    /// Blocks that the mean of the tokens passes before the last norm, with norms behind their mixers (GroupMamba).
    pub class_blocks: i64,
    /// A norm on what the head reads.
    pub pool_norm: bool,
    /// Channels that a linear map, batch norm and GELU make of each token before pooling, per channel (GrootV); 0 for none.
    pub head_width: f64,
    /// A second head beside the first, whose logits are averaged with its (what GroupMamba distils with).
    pub second_head: bool,
    /// A learned position embedding; for clips the sum of one for the place and one for the time.
    pub pos_embed: bool,
    /// Rotary position embedding before every block: "none", on the block's "hidden" input, or on the
    /// "residual" too.
    pub rope: Rope,
    /// Patches per side that the rotary embedding's positions are stretched to; 0 for the image's own.
    pub rope_grid: i64,
    /// Where weights start from: "fan-in" (uniform by the number of inputs, branches scaled down by depth: Mamba, Vim)
    /// or "normal" (deviation 0.02, convolutions as PyTorch's: VMamba, PlainMamba), or "normal-inputs" (the same but for
    /// the last weights of branches, with step sizes and class tokens from 0: VideoMamba).
    pub init: Start,
    /// What released code does differently from its paper, by name; needed for the authors' weights alone.
    pub compat: Compat,
}
}

impl Default for ModelConfig {
    fn default() -> Self {
        let mixer = Mamba1Config::default();
        ModelConfig {
            patch_size: Size::Square(4),
            stride: Size::Square(0),
            tubelet: 1,
            stem: StemKind::Patch,
            stem_convs: 0,
            stem_width: 64,
            patch_bias: true,
            patch_pad: false,
            patch_padding: 0,
            patch_norm: false,
            patch_norm_eps: None,
            d_model: PerStage::One(128),
            depth: PerStage::One(6),
            downsample: DownsampleKind::default(),
            downsample_bias: true,
            stage_norm: false,
            mixer: Mixers::default(),
            mamba2: None,
            hydra: None,
            grootl: None,
            defmamba: None,
            quadmamba: None,
            semantic: None,
            inverted: None,
            divided: None,
            changemamba: None,
            attention: None,
            affinity: None,
            conv_branch: false,
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
            step_sizes: mixer.step_sizes,
            conv_bias: mixer.conv_bias,
            bias: mixer.bias,
            scan: Scans::One("bidirectional".into()),
            written_as: None,
            parameters: mixer.parameters,
            merge: mixer.merge,
            gate: mixer.gate,
            out_norm: mixer.out_norm,
            norm_each: mixer.norm_each,
            channels: mixer.channels,
            step_embedding: mixer.step_embedding,
            cascade: mixer.stages,
            squeeze: mixer.squeeze,
            coarse: mixer.coarse,
            coarse_scan: None,
            position_conv: false,
            local_conv: Vec::new(),
            layer_pairs: false,
            shared_norm: false,
            carry_normed: false,
            norm: NormKind::Rms,
            norm_eps: 1e-5,
            final_norm: None,
            final_norm_eps: None,
            layer_scale: None,
            drop_path: 0.0,
            mlp_ratio: PerStage::One(0.0),
            mlp: MlpKind::default(),
            pool: Pool::Middle,
            class_blocks: 0,
            pool_norm: false,
            head_width: 0.0,
            second_head: false,
            pos_embed: true,
            rope: Rope::None,
            rope_grid: 0,
            init: Start::default(),
            compat: Compat::default(),
        }
    }
}

impl ModelConfig {
    /// Every key with its default and what it means.
    pub fn keys() -> Vec<KeyDoc> {
        let mut keys = KeyDoc::of(&ModelConfig::default(), ModelConfig::DOCS);
        keys.extend(KeyDoc::within("compat", KeyDoc::of(&Compat::default(), Compat::DOCS)));
        // It is absent by default, so its keys have none.
        keys.extend(KeyDoc::within("coarse", KeyDoc::of(&toml::Table::new(), Coarse::DOCS)));
        keys.extend(KeyDoc::within("mamba2", KeyDoc::of(&Mamba2Options::default(), Mamba2Options::DOCS)));
        keys.extend(KeyDoc::within("hydra", KeyDoc::of(&HydraOptions::default(), HydraOptions::DOCS)));
        keys.extend(KeyDoc::within("grootl", KeyDoc::of(&GrootLOptions::default(), GrootLOptions::DOCS)));
        keys.extend(KeyDoc::within(
            "defmamba",
            KeyDoc::of(&DefMambaOptions::default(), DefMambaOptions::DOCS),
        ));
        keys.extend(KeyDoc::within("quadmamba", KeyDoc::of(&QuadCompat::default(), QuadCompat::DOCS)));
        keys.extend(KeyDoc::within(
            "semantic",
            KeyDoc::of(&SemanticOptions::default(), SemanticOptions::DOCS),
        ));
        keys.extend(KeyDoc::within("divided", KeyDoc::of(&DividedOptions::default(), DividedOptions::DOCS)));
        keys.extend(KeyDoc::within(
            "changemamba",
            KeyDoc::of(&ChangeMambaOptions::default(), ChangeMambaOptions::DOCS),
        ));
        keys.extend(KeyDoc::within(
            "attention",
            KeyDoc::of(&AttentionOptions::default(), AttentionOptions::DOCS),
        ));
        keys.extend(KeyDoc::within(
            "inverted",
            KeyDoc::of(&InvertedOptions::default(), InvertedOptions::DOCS),
        ));
        keys
    }

    /// Reads and checks a `[model]` table and fills in what follows from other keys.
    ///
    /// # Errors
    /// [`Error::Config`](crate::Error::Config) naming the key (`model.…`) that is unknown or wrong.
    pub fn read(table: toml::Table) -> Result<ModelConfig> {
        let mut read: ModelConfig = config::from_table(kinds::with_implied(table), "model")?;
        if read.stride == Size::Square(0) {
            read.stride = read.patch_size;
        }
        read.scan = read.scan.scheduled();
        read = read.with_options();
        read.check().map_err(check::in_model)?;
        Ok(read)
    }

    /// How many stages there are.
    pub fn stages(&self) -> usize {
        self.depth.values().len()
    }

    /// Blocks of each stage.
    pub fn depths(&self) -> &[i64] {
        self.depth.values()
    }

    /// Blocks of all stages.
    pub fn blocks(&self) -> i64 {
        self.depths().iter().fold(0, |sum: i64, depth| sum.saturating_add(*depth))
    }

    /// Channels of each stage.
    pub fn widths(&self) -> Vec<i64> {
        match &self.d_model {
            PerStage::One(width) => {
                (0..self.stages()).map(|stage| width.saturating_mul(1 << stage.min(40))).collect()
            }
            PerStage::Each(widths) => widths.clone(),
        }
    }

    /// Channels of the last stage.
    pub fn last_width(&self) -> i64 {
        self.widths().last().copied().unwrap_or(0)
    }

    /// Branches that add up in the whole model.
    pub fn residuals(&self) -> i64 {
        let within: i64 = (0..self.stages()).map(|stage| self.within(stage)).sum();
        (self.blocks() + within) * if self.has_mlp() { 2 } else { 1 }
    }

    /// Blocks of attention in front of those of a stage.
    pub fn within(&self, stage: usize) -> i64 {
        self.attention.as_ref().and_then(|attention| attention.depth.of(stage)).unwrap_or(0)
    }

    /// Whether blocks have an MLP.
    pub fn has_mlp(&self) -> bool {
        self.mlp_ratio.values().iter().any(|ratio| *ratio > 0.0)
    }

    /// Channels inside the MLP of a block of a stage; 0 for none.
    pub fn mlp_width(&self, stage: usize) -> i64 {
        let width = self.widths().get(stage).copied().unwrap_or_else(|| self.last_width());
        // Blocks of convolutions have none.
        let ratio = if self.kind(stage) == MixerKind::Inverted { None } else { self.mlp_ratio.of(stage) };
        (ratio.unwrap_or(0.0) * width as f64) as i64
    }

    /// Whether the head reads class tokens.
    pub fn pool_is_token(&self) -> bool {
        !self.pool.class_tokens(1).is_empty()
    }

    /// Added to the variance on the patches and in the steps from stage to stage.
    pub fn patch_eps(&self) -> f64 {
        self.patch_norm_eps.unwrap_or(self.norm_eps)
    }

    /// The Mamba-1 mixer of a block of `directions` directions and `d_model` channels, or what another mixer takes of it.
    pub fn mamba(&self, d_model: i64, directions: i64) -> Mamba1Config {
        Mamba1Config {
            d_model,
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
            step_sizes: self.step_sizes,
            conv_bias: self.conv_bias,
            bias: self.bias,
            parameters: self.parameters,
            channels: self.channels,
            merge: self.merge,
            gate: self.gate,
            out_norm: self.out_norm,
            norm_each: self.norm_each,
            step_embedding: self.step_embedding,
            stages: self.cascade,
            squeeze: self.squeeze,
            coarse: self.coarse,
            compat: self.compat,
            start: self.init,
            residuals: self.residuals(),
            ..Mamba1Config::default()
        }
    }
}
