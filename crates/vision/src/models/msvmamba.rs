//! MSVMamba (Shi et al., arXiv 2405.14174) as its authors publish it: their config and parameter names.

use ophidian_core::{
    config,
    grid::{
        Classifiers, ModelConfig, PerStage, Pool, Scans, Size,
        family::{images, layer, without_counters},
    },
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, MlpKind, NormKind},
    mixer::{Coarse, ConvPlace, DtRank, Merge},
};
use serde::Deserialize;

use super::vmamba::{downsample_keys, op_keys};

/// The family.
pub const MSVMAMBA: Classifiers = Classifiers {
    name: "msvmamba",
    about: "MSVMamba (arXiv 2405.14174): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        Ok(images(theirs.ours(), theirs.num_classes, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "dims"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("d_state", "ssm_d_state"),
        ("d_conv", "ssm_conv"),
        ("dt_rank", "ssm_dt_rank"),
        ("expand", "ssm_ratio"),
    ],
    adapt: without_counters,
};

/// The arguments of the authors' `VSSM` in their multi-scale models: one direction on the map, three on a map half as
/// fine. Of the others, those that are passed on as they are there.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    patch_size: i64,
    num_classes: i64,
    depths: Vec<i64>,
    dims: PerStage,
    ssm_d_state: i64,
    ssm_ratio: f64,
    ssm_dt_rank: DtRank,
    ssm_conv: i64,
    ssm_conv_bias: bool,
    drop_path_rate: f64,
    patch_norm: bool,
    add_se: bool,
    #[serde(rename = "convFFN")]
    conv_ffn: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            patch_size: 4,
            num_classes: 1000,
            depths: vec![1, 2, 9, 2],
            dims: PerStage::One(96),
            ssm_d_state: 1,
            ssm_ratio: 2.0,
            ssm_dt_rank: DtRank::Auto,
            ssm_conv: 3,
            ssm_conv_bias: true,
            drop_path_rate: 0.2,
            patch_norm: true,
            add_se: true,
            conv_ffn: true,
        }
    }
}

impl Config {
    /// Their config in our words.
    fn ours(&self) -> ModelConfig {
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
            scan: Scans::One("row".into()),
            coarse: Some(Coarse { directions: 3, taps: 7, stride: 2 }),
            coarse_scan: Some("[row | reverse, column, column | reverse]".into()),
            merge: Merge::Sum,
            out_norm: Some(NormKind::Layer),
            norm_each: true,
            squeeze: self.add_se.then_some(8),
            norm: NormKind::Layer,
            drop_path: self.drop_path_rate,
            mlp_ratio: if self.conv_ffn { 2.0 } else { 0.0 }.into(),
            mlp: if self.conv_ffn { MlpKind::ConvResidual } else { MlpKind::Gelu },
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
                let (theirs, block) = (format!("layers.{s}.blocks.{i}"), format!("layers.{number}"));
                block_keys(&mut keys, ours, *width, &theirs, &block);
                number += 1;
            }
            if let Some(next) = widths.get(s + 1) {
                let (theirs, down) = (format!("layers.{s}.downsample"), format!("downsample.{s}"));
                downsample_keys(&mut keys, ours.downsample, *width, *next, &theirs, &down);
            }
        }
        layer(&mut keys, "classifier.norm", "norm_f", &[ours.last_width()], true);
        if self.num_classes > 0 {
            layer(&mut keys, "classifier.head", "head", &[self.num_classes, ours.last_width()], true);
        }
        keys
    }
}

fn block_keys(keys: &mut Vec<Key>, ours: &ModelConfig, width: i64, theirs: &str, block: &str) {
    let (mixer, mix) = (ours.mamba(width, 1), format!("{block}.mixer"));
    let d = mixer.d_inner();
    op_keys(keys, &mixer, &format!("{theirs}.op"), &mix);
    layer(keys, &format!("{theirs}.op.conv2d_b1"), &format!("{mix}.coarse"), &[d, 1, 7, 7], mixer.conv_bias);
    if let Some(squeeze) = mixer.squeeze {
        let inner = (d / squeeze).max(1);
        layer(keys, &format!("{theirs}.op.se.fc.0"), &format!("{mix}.squeeze.reduce"), &[inner, d], false);
        layer(keys, &format!("{theirs}.op.se.fc.2"), &format!("{mix}.squeeze.select"), &[d, inner], false);
    }
    layer(keys, &format!("{theirs}.norm"), &format!("{block}.norm"), &[width], true);
    if ours.has_mlp() {
        let (ffn, mlp, hidden) = (format!("{theirs}.convFFN"), format!("{block}.mlp"), 2 * width);
        layer(keys, &format!("{theirs}.norm2"), &format!("{block}.norm2"), &[width], true);
        layer(keys, &format!("{ffn}.linear1"), &format!("{mlp}.fc1"), &[hidden, width, 1, 1], true);
        layer(keys, &format!("{ffn}.dwc"), &format!("{mlp}.dwconv"), &[hidden, 1, 3, 3], true);
        layer(keys, &format!("{ffn}.linear2"), &format!("{mlp}.fc2"), &[width, hidden, 1, 1], true);
    }
}
