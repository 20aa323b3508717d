//! EfficientVMamba (Pei et al., arXiv 2403.09977) as its authors publish it: their config and parameter names.

use ophidian_core::{
    config,
    grid::{
        Classifiers, MixerKind, Mixers, ModelConfig, PerStage, Pool, Scans, Size,
        family::{batch_norm, images, layer, without_counters},
    },
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, NormKind},
    mixer::{ConvPlace, Merge},
};
use serde::Deserialize;

use super::{
    localmamba::gate_keys,
    vmamba::{downsample_keys, op_keys},
};

/// The family.
pub const EFFICIENTVMAMBA: Classifiers = Classifiers {
    name: "efficientvmamba",
    about: "EfficientVMamba (arXiv 2403.09977): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        Ok(images(theirs.ours(), theirs.num_classes, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "dims"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("expand", "ssm_ratio"),
        ("downsample", "downsample_version"),
    ],
    adapt: without_counters,
};

/// The arguments of the authors' `EfficientVSSM`, with their defaults. (It does not pass d_state and dt_rank on: they are
/// always 16 and automatic.)
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    patch_size: i64,
    num_classes: i64,
    depths: Vec<i64>,
    dims: PerStage,
    ssm_ratio: f64,
    drop_path_rate: f64,
    mlp_ratio: f64,
    patch_norm: bool,
    downsample_version: Version,
    step_size: i64,
    d_state: Option<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            patch_size: 4,
            num_classes: 1000,
            depths: vec![2, 2, 9, 2],
            dims: PerStage::Each(vec![96, 192, 384, 768]),
            ssm_ratio: 2.0,
            drop_path_rate: 0.1,
            mlp_ratio: 4.0,
            patch_norm: true,
            downsample_version: Version::V2,
            step_size: 2,
            d_state: None,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Version {
    V1,
    V2,
}

/// Stages that scan; the others are of convolutions.
const SCANNED: usize = 2;

impl Config {
    /// Their config in our words.
    fn ours(&self) -> ModelConfig {
        let kind = |s: usize| if s < SCANNED { MixerKind::Mamba1 } else { MixerKind::Inverted };
        ModelConfig {
            patch_size: Size::Square(self.patch_size),
            stride: Size::Square(self.patch_size),
            patch_norm: self.patch_norm,
            d_model: self.dims.clone(),
            depth: PerStage::Each(self.depths.clone()),
            downsample: match self.downsample_version {
                Version::V1 => DownsampleKind::Merge,
                Version::V2 => DownsampleKind::Conv2,
            },
            mixer: Mixers(PerStage::Each((0..self.depths.len()).map(kind).collect())),
            inverted: (self.depths.len() > SCANNED).then(Default::default),
            conv_branch: true,
            d_conv: 3,
            conv: ConvPlace::Grid,
            expand: self.ssm_ratio,
            scan: Scans::One(format!("row | atrous({})", self.step_size)),
            merge: Merge::Sum,
            out_norm: Some(NormKind::Layer),
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
        let (mut keys, widths, patch) = (Vec::new(), ours.widths(), self.patch_size);
        layer(&mut keys, "patch_embed.0", "patch_embed.proj", &[widths[0], 3, patch, patch], true);
        if self.patch_norm {
            layer(&mut keys, "patch_embed.2", "patch_embed.norm", &[widths[0]], true);
        }
        let mut number = 0;
        for (s, (width, depth)) in widths.iter().zip(&self.depths).enumerate() {
            for i in 0..*depth {
                let block = format!("layers.{number}");
                if s < SCANNED {
                    self.scanned_keys(&mut keys, ours, s, *width, &format!("layers.{s}.blocks.{i}"), &block);
                } else {
                    // A permutation of axes stands in front.
                    let theirs = format!("layers.{s}.{}", i + 1);
                    inverted_keys(&mut keys, ours, *width, &theirs, &format!("{block}.mixer"));
                }
                number += 1;
            }
            if let Some(next) = widths.get(s + 1) {
                let theirs = if s < SCANNED { "downsample".into() } else { (depth + 2).to_string() };
                let (theirs, down) = (format!("layers.{s}.{theirs}"), format!("downsample.{s}"));
                downsample_keys(&mut keys, ours.downsample, *width, *next, &theirs, &down);
            }
        }
        layer(&mut keys, "classifier.norm", "norm_f", &[ours.last_width()], true);
        if self.num_classes > 0 {
            layer(&mut keys, "classifier.head", "head", &[self.num_classes, ours.last_width()], true);
        }
        keys
    }

    fn scanned_keys(
        &self,
        keys: &mut Vec<Key>,
        ours: &ModelConfig,
        stage: usize,
        width: i64,
        theirs: &str,
        block: &str,
    ) {
        let branch = format!("{block}.mixer.branch");
        op_keys(keys, &ours.mamba(width, 4), &format!("{theirs}.op"), &format!("{block}.mixer"));
        let conv = format!("{theirs}.conv_branch");
        layer(keys, &format!("{conv}.0"), &format!("{branch}.depthwise"), &[width, 1, 3, 3], true);
        batch_norm(keys, &format!("{conv}.1"), &format!("{branch}.norm"), width);
        layer(keys, &format!("{conv}.3"), &format!("{branch}.pointwise"), &[width, width, 1, 1], true);
        gate_keys(keys, &format!("{theirs}.se"), &format!("{branch}.gate"), width);
        layer(keys, &format!("{theirs}.norm"), &format!("{block}.norm"), &[width], true);
        let hidden = ours.mlp_width(stage);
        if hidden > 0 {
            layer(keys, &format!("{theirs}.norm2"), &format!("{block}.norm2"), &[width], true);
            layer(keys, &format!("{theirs}.mlp.fc1"), &format!("{block}.mlp.fc1"), &[hidden, width], true);
            layer(keys, &format!("{theirs}.mlp.fc2"), &format!("{block}.mlp.fc2"), &[width, hidden], true);
        }
    }
}

fn inverted_keys(keys: &mut Vec<Key>, ours: &ModelConfig, width: i64, theirs: &str, mix: &str) {
    let config = ours.inverted(width);
    let (d, inner) = (config.d_inner(), (config.d_inner() / config.squeeze.max(1)).max(1));
    for (their_name, our_name, shape) in [
        ("conv_pw.0", "expand", [d, width, 1, 1]),
        ("conv_dw.0", "depthwise", [d, 1, 3, 3]),
        ("conv_pw2.0", "project", [width, d, 1, 1]),
    ] {
        layer(keys, &format!("{theirs}.{their_name}"), &format!("{mix}.{our_name}"), &shape, false);
    }
    for (their_name, our_name, channels) in [
        ("conv_pw.1", "expand_norm", d),
        ("conv_dw.1", "depthwise_norm", d),
        ("conv_pw2.1", "project_norm", width),
    ] {
        batch_norm(keys, &format!("{theirs}.{their_name}"), &format!("{mix}.{our_name}"), channels);
    }
    layer(
        keys,
        &format!("{theirs}.se.conv_reduce"),
        &format!("{mix}.squeeze.reduce"),
        &[inner, d, 1, 1],
        true,
    );
    layer(
        keys,
        &format!("{theirs}.se.conv_expand"),
        &format!("{mix}.squeeze.select"),
        &[d, inner, 1, 1],
        true,
    );
}
