//! GroupMamba (Shaker et al., arXiv 2407.13772) as its authors publish it: their config and parameter names.

use ophidian_core::{
    config,
    grid::{
        Classifiers, ModelConfig, PerStage, Pool, Scans, Size, StemKind,
        family::{batch_norm, images, layer, without_counters},
    },
    init::Start,
    keymap::Key,
    layers::{MlpKind, NormKind},
    mixer::{Channels, ConvPlace, Merge},
};
use serde::Deserialize;

/// The family.
pub const GROUPMAMBA: Classifiers = Classifiers {
    name: "groupmamba",
    about: "GroupMamba (arXiv 2407.13772): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        Ok(images(theirs.ours(), theirs.num_classes, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "embed_dims"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("mlp_ratio", "mlp_ratios"),
        ("stem_width", "stem_hidden_dim"),
    ],
    adapt: without_counters,
};

/// The arguments of the authors' `GroupMamba`, with the defaults of their smallest model.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    num_classes: i64,
    stem_hidden_dim: i64,
    embed_dims: Vec<i64>,
    mlp_ratios: Vec<f64>,
    drop_path_rate: f64,
    depths: Vec<i64>,
    distillation: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            num_classes: 1000,
            stem_hidden_dim: 32,
            embed_dims: vec![64, 128, 348, 448],
            mlp_ratios: vec![8.0, 8.0, 4.0, 4.0],
            drop_path_rate: 0.0,
            depths: vec![3, 4, 9, 3],
            distillation: true,
        }
    }
}

/// Groups of channels.
const GROUPS: i64 = 4;

/// Channels of a token per channel within the gate.
const REDUCTION: i64 = 16;

impl Config {
    /// Their config in our words.
    fn ours(&self) -> ModelConfig {
        ModelConfig {
            patch_size: Size::Square(4),
            stride: Size::Square(4),
            stem: StemKind::ConvOverlap,
            stem_convs: 2,
            stem_width: self.stem_hidden_dim,
            patch_norm: true,
            patch_norm_eps: Some(1e-5),
            d_model: PerStage::Each(self.embed_dims.clone()),
            depth: PerStage::Each(self.depths.clone()),
            stage_norm: true,
            affinity: Some(REDUCTION),
            d_state: 1,
            d_conv: 3,
            conv: ConvPlace::Grid,
            expand: 1.0,
            scan: Scans::One("cross".into()),
            channels: Channels::Grouped,
            merge: Merge::Concat,
            out_norm: Some(NormKind::Layer),
            norm: NormKind::Layer,
            norm_eps: 1e-6,
            drop_path: self.drop_path_rate,
            mlp_ratio: PerStage::Each(self.mlp_ratios.clone()),
            mlp: MlpKind::Conv,
            class_blocks: 1,
            second_head: self.distillation,
            pool: Pool::Mean,
            pos_embed: false,
            init: Start::Normal,
            ..ModelConfig::default()
        }
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (mut keys, stem) = (Vec::new(), self.stem_hidden_dim);
        let convs =
            [("patch_embed.stem", 3, 7), ("patch_embed.convs.0", stem, 3), ("patch_embed.convs.1", stem, 3)];
        for (i, (name, inputs, side)) in convs.into_iter().enumerate() {
            let theirs = |part: usize| format!("patch_embed1.conv.{}", 3 * i + part);
            layer(&mut keys, &theirs(0), &format!("{name}.conv"), &[stem, inputs, side, side], false);
            batch_norm(&mut keys, &theirs(1), &format!("{name}.norm"), stem);
        }
        let (mut number, mut before, stages) = (0, stem, self.embed_dims.len());
        for (s, (width, depth)) in self.embed_dims.iter().zip(&self.depths).enumerate() {
            let [conv, norm] = match s {
                0 => ["patch_embed.proj".into(), "patch_embed.norm".into()],
                _ => ["conv", "norm"].map(|part| format!("downsample.{}.{part}", s - 1)),
            };
            let theirs = format!("patch_embed{}", s + 1);
            layer(&mut keys, &format!("{theirs}.proj"), &conv, &[*width, before, 3, 3], true);
            layer(&mut keys, &format!("{theirs}.norm"), &norm, &[*width], true);
            for i in 0..*depth {
                let (theirs, block) = (format!("block{}.{i}", s + 1), format!("layers.{number}"));
                block_keys(&mut keys, ours, s, *width, &theirs, &block);
                let dwconv = [ours.mlp_width(s), 1, 3, 3];
                layer(
                    &mut keys,
                    &format!("{theirs}.mlp.dwconv.dwconv"),
                    &format!("{block}.mlp.dwconv"),
                    &dwconv,
                    true,
                );
                number += 1;
            }
            let norm = if s + 1 < stages { format!("stage_norm.{s}") } else { "norm_f".into() };
            layer(&mut keys, &format!("norm{}", s + 1), &norm, &[*width], true);
            before = *width;
        }
        layer(&mut keys, "post_network.0.norm1", "class_layers.0.norm", &[before], true);
        block_keys(&mut keys, ours, stages - 1, before, "post_network.0", "class_layers.0");
        let heads: &[_] = if self.distillation {
            &[("head", "head"), ("dist_head", "second_head")]
        } else {
            &[("head", "head")]
        };
        if self.num_classes > 0 {
            heads
                .iter()
                .for_each(|(theirs, name)| layer(&mut keys, theirs, name, &[self.num_classes, before], true));
        }
        keys
    }
}

/// What blocks of tokens and those of their mean have in common.
fn block_keys(keys: &mut Vec<Key>, ours: &ModelConfig, stage: usize, width: i64, theirs: &str, block: &str) {
    let mixer = ours.mamba(width, GROUPS);
    let (attn, mix) = (format!("{theirs}.attn"), format!("{block}.mixer"));
    let (inner, group) = ((width / REDUCTION).max(1), width / GROUPS);
    let (d, n, r) = (mixer.d_inner(), mixer.d_state, mixer.rank());
    keys.push(Key::new(format!("{attn}.skip_scale"), format!("{mix}.skip_scale"), &[1]));
    layer(keys, &format!("{attn}.norm"), &format!("{mix}.norm"), &[width], true);
    layer(keys, &format!("{attn}.fc1"), &format!("{mix}.fc1"), &[inner, width], true);
    layer(keys, &format!("{attn}.fc2"), &format!("{mix}.fc2"), &[width, inner], true);
    layer(keys, &format!("{attn}.proj"), &format!("{mix}.proj"), &[width, width], true);
    for g in 0..GROUPS {
        let mut row = |theirs: &str, ours: &str, shape: &[i64]| {
            keys.push(Key::row(
                format!("{attn}.mamba_g{}.{theirs}", g + 1),
                format!("{mix}.{ours}"),
                g,
                shape,
            ));
        };
        row("x_proj_weight", "x_proj.weight", &[1, r + 2 * n, d]);
        row("dt_projs_weight", "dt_proj.weight", &[1, d, r]);
        row("dt_projs_bias", "dt_proj.bias", &[1, d]);
        row("A_logs", "A_log", &[d, n]);
        row("Ds", "D", &[d]);
        row("out_norm.weight", "out_norm.weight", &[d]);
        row("out_norm.bias", "out_norm.bias", &[d]);
        row("in_proj.weight", "in_proj.weight", &[2 * d, group]);
        row("conv2d.weight", "conv2d.weight", &[d, 1, 3, 3]);
        row("conv2d.bias", "conv2d.bias", &[d]);
        row("out_proj.weight", "out_proj.weight", &[group, d]);
    }
    let hidden = ours.mlp_width(stage);
    layer(keys, &format!("{theirs}.norm2"), &format!("{block}.norm2"), &[width], true);
    layer(keys, &format!("{theirs}.mlp.fc1"), &format!("{block}.mlp.fc1"), &[hidden, width], true);
    layer(keys, &format!("{theirs}.mlp.fc2"), &format!("{block}.mlp.fc2"), &[width, hidden], true);
}
