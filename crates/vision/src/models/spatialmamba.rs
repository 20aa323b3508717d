//! Spatial-Mamba (Xiao et al., arXiv 2410.15091) as its authors publish it: their config and parameter names.

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

/// The family.
pub const SPATIALMAMBA: Classifiers = Classifiers {
    name: "spatialmamba",
    about: "Spatial-Mamba (arXiv 2410.15091): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        Ok(images(theirs.ours(), theirs.num_classes, |ours| theirs.keys(ours)))
    },
    words: &[("d_model", "dims"), ("depth", "depths"), ("drop_path", "drop_path_rate")],
    adapt: without_counters,
};

/// The arguments of the authors' `SpatialMamba`, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    patch_size: i64,
    num_classes: i64,
    depths: Vec<i64>,
    dims: PerStage,
    d_state: i64,
    mlp_ratio: f64,
    drop_path_rate: f64,
    /// How step sizes start, which a forward pass on loaded weights does not see.
    dt_init: String,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            patch_size: 4,
            num_classes: 1000,
            depths: vec![2, 2, 9, 2],
            dims: PerStage::Each(vec![96, 192, 384, 768]),
            d_state: 1,
            mlp_ratio: 4.0,
            drop_path_rate: 0.1,
            dt_init: "random".into(),
        }
    }
}

impl Config {
    /// Their config in our words.
    fn ours(&self) -> ModelConfig {
        ModelConfig {
            patch_size: Size::Square(self.patch_size),
            stride: Size::Square(self.patch_size),
            stem: StemKind::Residual,
            d_model: self.dims.clone(),
            depth: PerStage::Each(self.depths.clone()),
            downsample: DownsampleKind::Inverted,
            mixer: Mixers(PerStage::One(MixerKind::SpatialMamba)),
            d_state: self.d_state,
            d_conv: 3,
            conv: ConvPlace::Grid,
            scan: Scans::One("row".into()),
            merge: Merge::Sum,
            out_norm: Some(NormKind::Layer),
            position_conv: true,
            norm: NormKind::Layer,
            drop_path: self.drop_path_rate,
            mlp_ratio: self.mlp_ratio.into(),
            pool: Pool::Mean,
            pos_embed: false,
            init: Start::Normal,
            ..ModelConfig::default()
        }
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (mut keys, widths) = (Vec::new(), ours.widths());
        let (d, half, side) = (widths[0], widths[0] / 2, self.patch_size / 2 + 1);
        for (theirs, name, norm, shape) in [
            ("conv1", "patch_embed.stem.conv", "patch_embed.stem.norm", [half, 3, 3, 3]),
            ("conv2.0", "patch_embed.inner.conv", "patch_embed.inner.norm", [half, half, 3, 3]),
            ("conv2.1", "patch_embed.outer.conv", "patch_embed.outer.norm", [half, half, 3, 3]),
            ("conv3.0", "patch_embed.expand.conv", "patch_embed.expand.norm", [4 * d, half, side, side]),
            ("conv3.1", "patch_embed.proj", "patch_embed.norm", [d, 4 * d, 1, 1]),
        ] {
            layer(&mut keys, &format!("patch_embed.{theirs}.conv"), name, &shape, false);
            batch_norm(&mut keys, &format!("patch_embed.{theirs}.norm"), norm, shape[0]);
        }
        let mut number = 0;
        for (s, (width, depth)) in widths.iter().zip(&self.depths).enumerate() {
            for i in 0..*depth {
                let (theirs, block) = (format!("layers.{s}.blocks.{i}"), format!("layers.{number}"));
                block_keys(&mut keys, ours, s, *width, &theirs, &block);
                number += 1;
            }
            if s + 1 < widths.len() {
                let (next, inner) = (2 * width, 8 * width);
                let (theirs, down) = (format!("layers.{s}.downsample.conv"), format!("downsample.{s}"));
                for (i, name, shape) in [
                    (0, "expand", [inner, *width, 1, 1]),
                    (1, "conv", [inner, 1, 3, 3]),
                    (2, "project", [next, inner, 1, 1]),
                ] {
                    layer(&mut keys, &format!("{theirs}.{i}.conv"), &format!("{down}.{name}"), &shape, true);
                }
                batch_norm(&mut keys, &format!("{theirs}.2.norm"), &format!("{down}.norm"), next);
            }
        }
        layer(&mut keys, "norm", "norm_f", &[ours.last_width()], true);
        if self.num_classes > 0 {
            layer(&mut keys, "head", "head", &[self.num_classes, ours.last_width()], true);
        }
        keys
    }
}

fn block_keys(keys: &mut Vec<Key>, ours: &ModelConfig, stage: usize, width: i64, theirs: &str, block: &str) {
    let mixer = ours.mamba(width, 1);
    let (d, n, r) = (mixer.d_inner(), mixer.d_state, mixer.rank());
    let (op, mix) = (format!("{theirs}.self_attention"), format!("{block}.mixer"));
    // One direction is no axis of theirs.
    for (their_name, our_name, shape) in [
        ("x_proj_weight", "x_proj.weight", &[r + 2 * n, d][..]),
        ("dt_projs_weight", "dt_proj.weight", &[d, r]),
        ("dt_projs_bias", "dt_proj.bias", &[d]),
        ("A_logs", "A_log", &[d, n]),
        ("Ds", "D", &[d]),
        ("in_proj.weight", "in_proj.weight", &[2 * d, width]),
        ("out_proj.weight", "out_proj.weight", &[width, d]),
        ("state_fusion.alpha", "state_fusion.alpha", &[3]),
    ] {
        keys.push(Key::new(format!("{op}.{their_name}"), format!("{mix}.{our_name}"), shape));
    }
    for (i, kernel) in ["kernel_3", "kernel_3_1", "kernel_3_2"].into_iter().enumerate() {
        let (kernel, weight) = (format!("{op}.state_fusion.{kernel}"), format!("{mix}.state_fusion.weight"));
        keys.push(Key::row(kernel, weight, i as i64, &[d, 1, 3, 3]));
    }
    layer(keys, &format!("{op}.conv2d"), &format!("{mix}.conv2d"), &[d, 1, 3, 3], true);
    layer(keys, &format!("{op}.out_norm"), &format!("{mix}.out_norm"), &[d], true);
    for (their_name, our_name) in [("cpe1", "position"), ("cpe2", "position2")] {
        layer(
            keys,
            &format!("{theirs}.{their_name}"),
            &format!("{block}.{our_name}"),
            &[width, 1, 3, 3],
            true,
        );
    }
    let hidden = ours.mlp_width(stage);
    layer(keys, &format!("{theirs}.ln_1"), &format!("{block}.norm"), &[width], true);
    layer(keys, &format!("{theirs}.ln_2"), &format!("{block}.norm2"), &[width], true);
    layer(keys, &format!("{theirs}.mlp.fc1"), &format!("{block}.mlp.fc1"), &[hidden, width], true);
    layer(keys, &format!("{theirs}.mlp.fc2"), &format!("{block}.mlp.fc2"), &[width, hidden], true);
}
