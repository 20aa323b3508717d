//! GrootV (Xiao et al., arXiv 2406.02395) as its authors publish it: their config and parameter names.

use ophidian_core::{
    config,
    grid::{
        Classifiers, MixerKind, Mixers, ModelConfig, PerStage, Pool, Scans, Size, StemKind,
        family::{batch_norm, images, layer, without_counters},
    },
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, NormKind},
    mixer::{ConvPlace, Merge},
};
use serde::Deserialize;

use super::vssm::op_keys;

/// The family.
pub const GROOTV: Classifiers = Classifiers {
    name: "grootv",
    about: "GrootV (arXiv 2406.02395): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        Ok(images(theirs.ours(), theirs.num_classes, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "channels"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("head_width", "cls_scale"),
    ],
    adapt: without_counters,
};

/// The arguments of the authors' `GrootV`, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    channels: i64,
    depths: Vec<i64>,
    num_classes: i64,
    mlp_ratio: f64,
    drop_path_rate: f64,
    cls_scale: f64,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            channels: 64,
            depths: vec![3, 4, 18, 5],
            num_classes: 1000,
            mlp_ratio: 4.0,
            drop_path_rate: 0.2,
            cls_scale: 1.5,
        }
    }
}

impl Config {
    /// Their config in our words.
    fn ours(&self) -> ModelConfig {
        ModelConfig {
            patch_size: Size::Square(4),
            stride: Size::Square(4),
            stem: StemKind::Overlap,
            patch_norm: true,
            d_model: self.channels.into(),
            depth: PerStage::Each(self.depths.clone()),
            downsample: DownsampleKind::Conv3,
            downsample_bias: false,
            stage_norm: true,
            mixer: Mixers(PerStage::One(MixerKind::GrootV)),
            d_state: 1,
            d_conv: 3,
            conv: ConvPlace::Grid,
            conv_bias: false,
            scan: Scans::One("row".into()),
            merge: Merge::Sum,
            out_norm: Some(NormKind::Layer),
            norm: NormKind::Layer,
            norm_eps: 1e-6,
            drop_path: self.drop_path_rate,
            mlp_ratio: self.mlp_ratio.into(),
            head_width: self.cls_scale,
            pool: Pool::Mean,
            pos_embed: false,
            init: Start::Normal,
            ..ModelConfig::default()
        }
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (mut keys, widths) = (Vec::new(), ours.widths());
        let (d, half, stages) = (widths[0], widths[0] / 2, widths.len());
        layer(&mut keys, "patch_embed.conv1", "patch_embed.stem.conv", &[half, 3, 3, 3], true);
        layer(&mut keys, "patch_embed.norm1.1", "patch_embed.stem.norm", &[half], true);
        layer(&mut keys, "patch_embed.conv2", "patch_embed.proj", &[d, half, 3, 3], true);
        layer(&mut keys, "patch_embed.norm2.1", "patch_embed.norm", &[d], true);
        let mut number = 0;
        for (s, (width, depth)) in widths.iter().zip(&self.depths).enumerate() {
            let level = format!("levels.{s}");
            for i in 0..*depth {
                let (theirs, block) = (format!("{level}.blocks.{i}"), format!("layers.{number}"));
                let (tree, mix, hidden) =
                    (format!("{theirs}.TreeSSM"), format!("{block}.mixer"), ours.mlp_width(s));
                let mixer = ours.mamba(*width, 1);
                op_keys(&mut keys, &mixer, &tree, &mix);
                layer(
                    &mut keys,
                    &format!("{tree}.h_norm"),
                    &format!("{mix}.h_norm"),
                    &[mixer.d_inner()],
                    true,
                );
                layer(&mut keys, &format!("{theirs}.norm1.0"), &format!("{block}.norm"), &[*width], true);
                layer(&mut keys, &format!("{theirs}.norm2.0"), &format!("{block}.norm2"), &[*width], true);
                layer(
                    &mut keys,
                    &format!("{theirs}.mlp.fc1"),
                    &format!("{block}.mlp.fc1"),
                    &[hidden, *width],
                    true,
                );
                layer(
                    &mut keys,
                    &format!("{theirs}.mlp.fc2"),
                    &format!("{block}.mlp.fc2"),
                    &[*width, hidden],
                    true,
                );
                number += 1;
            }
            let norm = if s + 1 < stages { format!("stage_norm.{s}") } else { "norm_f".into() };
            layer(&mut keys, &format!("{level}.norm.0"), &norm, &[*width], true);
            if s + 1 < stages {
                let (theirs, down) = (format!("{level}.downsample"), format!("downsample.{s}"));
                layer(
                    &mut keys,
                    &format!("{theirs}.conv"),
                    &format!("{down}.conv"),
                    &[2 * width, *width, 3, 3],
                    false,
                );
                layer(&mut keys, &format!("{theirs}.norm.1"), &format!("{down}.norm"), &[2 * width], true);
            }
        }
        let last = ours.last_width();
        let wide = ((self.cls_scale * last as f64) as i64).max(1);
        layer(&mut keys, "conv_head.0", "head_map", &[wide, last, 1, 1], false);
        batch_norm(&mut keys, "conv_head.1.0", "head_map.norm", wide);
        if self.num_classes > 0 {
            layer(&mut keys, "head", "head", &[self.num_classes, wide], true);
        }
        keys
    }
}
