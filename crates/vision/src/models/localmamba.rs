//! LocalVMamba (Huang et al., arXiv 2403.09338) as its authors publish it: their config and parameter names.

use ophidian_core::{
    Result, config,
    grid::{
        Classifiers, ModelConfig, PerStage, Pool, Scans, Size,
        family::{images, layer, without_counters},
    },
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, NormKind},
    mixer::{ConvPlace, DtRank, Merge},
    published::blocks::local_direction,
};
use serde::Deserialize;

use super::vmamba::{downsample_keys, op_keys};

/// The family.
pub const LOCALVMAMBA: Classifiers = Classifiers {
    name: "localvmamba",
    about: "LocalVMamba (arXiv 2403.09338): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        Ok(images(theirs.ours()?, theirs.num_classes, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "dims"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("d_state", "ssm_d_state"),
        ("d_conv", "ssm_conv"),
        ("dt_rank", "ssm_dt_rank"),
        ("expand", "ssm_ratio"),
        ("scan", "directions"),
    ],
    adapt: without_counters,
};

/// The arguments of the authors' `VSSM`, with their defaults, but that directions must be said: without, theirs is what
/// searches for them.
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
    directions: Vec<Vec<String>>,
    /// The models' factories pass it, and the constructor swallows it.
    d_state: Option<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            patch_size: 4,
            num_classes: 1000,
            depths: vec![2, 2, 9, 2],
            dims: PerStage::Each(vec![96, 192, 384, 768]),
            ssm_d_state: 16,
            ssm_ratio: 2.0,
            ssm_dt_rank: DtRank::Auto,
            ssm_conv: 3,
            ssm_conv_bias: true,
            drop_path_rate: 0.1,
            patch_norm: true,
            directions: Vec::new(),
            d_state: None,
        }
    }
}

/// The scans of layers whose directions are called so.
///
/// # Errors
/// A word that is not one of theirs.
pub(super) fn scans(directions: &[Vec<String>]) -> Result<Scans> {
    let layer = |words: &Vec<String>| {
        let walks = words.iter().map(|word| local_direction(word)).collect::<Result<Vec<_>>>()?;
        Ok(format!("[{}]", walks.join(", ")))
    };
    Ok(Scans::Each(directions.iter().map(layer).collect::<Result<_>>()?))
}

/// The gate of a layer's directions, `channels` channels.
pub(super) fn gate_keys(keys: &mut Vec<Key>, theirs: &str, ours: &str, channels: i64) {
    let inner = (channels / 8).max(1);
    layer(keys, &format!("{theirs}.norm"), &format!("{ours}.norm"), &[channels], true);
    layer(keys, &format!("{theirs}.global_reduce"), &format!("{ours}.reduce"), &[inner, channels], true);
    layer(keys, &format!("{theirs}.channel_select"), &format!("{ours}.select"), &[channels, inner], true);
}

impl Config {
    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        Ok(ModelConfig {
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
            scan: scans(&self.directions)?,
            merge: Merge::ChannelGate,
            out_norm: Some(NormKind::Layer),
            norm: NormKind::Layer,
            drop_path: self.drop_path_rate,
            pool: Pool::Mean,
            pos_embed: false,
            init: Start::Normal,
            ..ModelConfig::default()
        })
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
                let directions = self.directions.get(number).map_or(4, Vec::len) as i64;
                let mixer = ours.mamba(*width, directions);
                op_keys(&mut keys, &mixer, &format!("{theirs}.op"), &format!("{block}.mixer"));
                let gate = format!("{theirs}.op.multi_scan.attn");
                gate_keys(&mut keys, &gate, &format!("{block}.mixer"), mixer.d_inner());
                layer(&mut keys, &format!("{theirs}.norm"), &format!("{block}.norm"), &[*width], true);
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
