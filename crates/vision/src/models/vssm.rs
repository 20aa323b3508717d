//! What VMamba (Liu et al., arXiv 2401.10166) and the models that others made of its `VSSM` have in common: arguments of the
//! constructor and names of tensors.

use ophidian_core::{
    Result, config, documented,
    grid::{ModelConfig, PerStage, Pool, Size, family::layer},
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, NormKind},
    mixer::{ConvPlace, DtRank, Mamba1Config, Merge},
};
use serde::{Deserialize, de::DeserializeOwned};
use toml::Table;

documented! {
/// The arguments that descendants kept as they were in VMamba's first version, with the defaults of most.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Vssm {
    /// Pixels per side of a patch.
    pub patch_size: i64,
    /// Classes.
    pub num_classes: i64,
    /// Blocks of each stage.
    pub depths: Vec<i64>,
    /// Channels of each stage.
    pub dims: PerStage,
    /// Of stochastic depth.
    pub drop_path_rate: f64,
    /// A norm on the patches.
    pub patch_norm: bool,
    /// Inner channels per channel of a token.
    pub ssm_ratio: f64,
    /// States per inner channel.
    pub ssm_d_state: i64,
    /// Rank of the projection to step sizes.
    pub ssm_dt_rank: DtRank,
    /// Taps of the convolution, in each axis.
    pub ssm_conv: i64,
    /// Its bias.
    pub ssm_conv_bias: bool,
}
}

/// What some of them pass on no longer.
pub(super) const SSM: [&str; 4] = ["ssm_d_state", "ssm_dt_rank", "ssm_conv", "ssm_conv_bias"];

/// Our keys and these arguments.
pub(super) const WORDS: &[(&str, &str)] = &[
    ("d_model", "dims"),
    ("depth", "depths"),
    ("drop_path", "drop_path_rate"),
    ("d_state", "ssm_d_state"),
    ("d_conv", "ssm_conv"),
    ("dt_rank", "ssm_dt_rank"),
    ("expand", "ssm_ratio"),
    ("scan", "directions"),
];

impl Default for Vssm {
    fn default() -> Self {
        Vssm {
            patch_size: 4,
            num_classes: 1000,
            depths: vec![2, 2, 9, 2],
            dims: PerStage::Each(vec![96, 192, 384, 768]),
            drop_path_rate: 0.1,
            patch_norm: true,
            ssm_ratio: 2.0,
            ssm_d_state: 16,
            ssm_dt_rank: DtRank::Auto,
            ssm_conv: 3,
            ssm_conv_bias: true,
        }
    }
}

impl Vssm {
    /// The arguments of a descendant that does not have those in `without`, and its own.
    ///
    /// # Errors
    /// Those of [`config::from_table`].
    pub fn read<Own: DeserializeOwned>(table: Table, without: &[&str]) -> Result<(Vssm, Own)> {
        let shared = Vssm::DOCS.iter().map(|(name, _)| *name).filter(|name| !without.contains(name));
        config::from_shared(table, "", &shared.collect::<Vec<_>>())
    }

    /// The model in our words, but for its scan.
    pub fn model(&self) -> ModelConfig {
        ModelConfig {
            patch_size: Size::Square(self.patch_size),
            stride: Size::Square(self.patch_size),
            patch_norm: self.patch_norm,
            d_model: self.dims.clone(),
            depth: PerStage::Each(self.depths.clone()),
            downsample: DownsampleKind::Merge,
            d_state: self.ssm_d_state,
            d_conv: self.ssm_conv,
            conv: ConvPlace::Grid,
            expand: self.ssm_ratio,
            dt_rank: self.ssm_dt_rank,
            conv_bias: self.ssm_conv_bias,
            merge: Merge::Sum,
            out_norm: Some(NormKind::Layer),
            norm: NormKind::Layer,
            drop_path: self.drop_path_rate,
            pool: Pool::Mean,
            pos_embed: false,
            init: Start::Normal,
            ..ModelConfig::default()
        }
    }

    /// The tensors of the whole model: see [`stage_keys`].
    pub fn keys(
        &self,
        ours: &ModelConfig,
        step: impl Fn(usize, i64) -> String,
        block: impl FnMut(&mut Vec<Key>, BlockAt<'_>),
    ) -> Vec<Key> {
        let mut keys = Vec::new();
        patch_keys(&mut keys, ours, 3);
        stage_keys(&mut keys, ours, step, block);
        head_keys(&mut keys, ours, self.num_classes);
        keys
    }
}

/// A block, or where one stands.
pub(super) struct BlockAt<'a> {
    /// Its stage.
    pub stage: usize,
    /// Its number there.
    pub index: i64,
    /// Its channels.
    pub width: i64,
    /// Its number among all.
    pub number: usize,
    /// Its name with the authors.
    pub theirs: &'a str,
    /// Its name with us.
    pub ours: &'a str,
}

/// The embedding of patches by one convolution.
pub(super) fn patch_keys(keys: &mut Vec<Key>, ours: &ModelConfig, channels: i64) {
    let (width, [rows, columns]) = (ours.widths()[0], ours.patch_size.sides());
    layer(keys, "patch_embed.0", "patch_embed.proj", &[width, channels, rows, columns], true);
    if ours.patch_norm {
        layer(keys, "patch_embed.2", "patch_embed.norm", &[width], true);
    }
}

/// What stands behind the blocks of a stage is called so, in most.
pub(super) fn downsample(_stage: usize, _depth: i64) -> String {
    "downsample".into()
}

/// Stages of blocks, whose tensors `block` names, and the steps between them, which `step` names by stage and depth.
pub(super) fn stage_keys(
    keys: &mut Vec<Key>,
    ours: &ModelConfig,
    step: impl Fn(usize, i64) -> String,
    mut block: impl FnMut(&mut Vec<Key>, BlockAt<'_>),
) {
    let (widths, mut number) = (ours.widths(), 0);
    for (stage, (width, depth)) in widths.iter().zip(ours.depths()).enumerate() {
        for i in 0..*depth {
            let (theirs, name) = (format!("layers.{stage}.blocks.{i}"), format!("layers.{number}"));
            block(keys, BlockAt { stage, index: i, width: *width, number, theirs: &theirs, ours: &name });
            number += 1;
        }
        if let Some(next) = widths.get(stage + 1) {
            let (theirs, down) =
                (format!("layers.{stage}.{}", step(stage, *depth)), format!("downsample.{stage}"));
            downsample_keys(keys, ours.downsample, *width, *next, &theirs, &down);
        }
    }
}

/// The last norm and the head.
pub(super) fn head_keys(keys: &mut Vec<Key>, ours: &ModelConfig, classes: i64) {
    let width = ours.last_width();
    layer(keys, "classifier.norm", "norm_f", &[width], true);
    if classes > 0 {
        layer(keys, "classifier.head", "head", &[classes, width], true);
    }
}

/// A norm and an MLP of two maps, the first to `wide` channels and the second from `hidden`.
pub(super) fn mlp_keys(keys: &mut Vec<Key>, at: &BlockAt<'_>, [wide, hidden]: [i64; 2]) {
    let (theirs, ours, width) = (at.theirs, at.ours, at.width);
    layer(keys, &format!("{theirs}.norm2"), &format!("{ours}.norm2"), &[width], true);
    layer(keys, &format!("{theirs}.mlp.fc1"), &format!("{ours}.mlp.fc1"), &[wide, width], true);
    layer(keys, &format!("{theirs}.mlp.fc2"), &format!("{ours}.mlp.fc2"), &[width, hidden], true);
}

/// The tensors of an SS2D, VMamba's and its descendants', one for all directions.
pub(super) fn op_keys(keys: &mut Vec<Key>, mixer: &Mamba1Config, op: &str, mix: &str) {
    let (sets, width) = (mixer.sets(), mixer.d_model);
    let (d, n, r) = (mixer.d_inner(), mixer.d_state, mixer.rank());
    let mut one = |theirs: &str, ours: &str, shape: &[i64]| {
        keys.push(Key::new(format!("{op}.{theirs}"), format!("{mix}.{ours}"), shape));
    };
    one("x_proj_weight", "x_proj.weight", &[sets, r + 2 * n, d]);
    one("A_logs", "A_log", &[sets * d, n]);
    one("Ds", "D", &[sets * d]);
    one("dt_projs_weight", "dt_proj.weight", &[sets, d, r]);
    one("dt_projs_bias", "dt_proj.bias", &[sets, d]);
    one("in_proj.weight", "in_proj.weight", &[if mixer.gate { 2 * d } else { d }, width]);
    one("out_proj.weight", "out_proj.weight", &[width, d]);
    if mixer.conv == ConvPlace::Grid {
        one("conv2d.weight", "conv2d.weight", &[d, 1, mixer.d_conv, mixer.d_conv]);
        if mixer.conv_bias {
            one("conv2d.bias", "conv2d.bias", &[d]);
        }
    }
    if mixer.out_norm.is_some() {
        layer(keys, &format!("{op}.out_norm"), &format!("{mix}.out_norm"), &[d], true);
    }
}

/// The step from `width` to `next` channels.
pub(super) fn downsample_keys(
    keys: &mut Vec<Key>,
    kind: DownsampleKind,
    width: i64,
    next: i64,
    theirs: &str,
    ours: &str,
) {
    let name = |theirs: &str, part: &str| format!("{theirs}.{part}");
    let side = match kind {
        DownsampleKind::Merge => {
            layer(keys, &name(theirs, "norm"), &name(ours, "norm"), &[4 * width], true);
            let weight = [next, 4 * width];
            return layer(keys, &name(theirs, "reduction"), &name(ours, "reduction"), &weight, false);
        }
        DownsampleKind::Conv2 => 2,
        DownsampleKind::Conv3 => 3,
        // None of VMamba's.
        DownsampleKind::Inverted => return,
    };
    layer(keys, &name(theirs, "1"), &name(ours, "conv"), &[next, width, side, side], true);
    layer(keys, &name(theirs, "3"), &name(ours, "norm"), &[next], true);
}
