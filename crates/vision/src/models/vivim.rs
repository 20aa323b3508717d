//! Vivim's encoder (Yang et al., arXiv 2401.14168) as its authors publish it: their config and parameter names.
//!
//! Each stage is one of SegFormer's (Xie et al., arXiv 2105.15203) on every frame, without its last norm, and then blocks of
//! Mamba along three walks through all frames. What its authors make of the stages' maps, a mask of each pixel, is not here.

use ophidian_core::{
    Result, config,
    grid::{
        AttentionOptions, Classifiers, ModelConfig, PerStage, Pool, Report, Scans, Size, Translated,
        bimamba::direction_keys, family::layer,
    },
    init::Start,
    keymap::Key,
    layers::{DownsampleKind, MlpKind, NormKind},
    mixer::Merge,
    tensors::Tensors,
};
use serde::Deserialize;

/// The family.
pub const VIVIM: Classifiers = Classifiers {
    name: "vivim",
    about: "Vivim's encoder (arXiv 2401.14168): in.x clips (batch, channels, frames, height, width)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        let [height, width] = theirs.img_size.sides();
        let input = [theirs.in_chans, theirs.nframes, height, width];
        let report = Report { levels: true, ..Report::default() };
        Ok(Translated::new(theirs.ours(), input, 0, report, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "feat_size"),
        ("depth", "depths"),
        ("drop_path", "drop_path_rate"),
        ("attention.depth", "segformer.depths"),
        ("attention.heads", "segformer.num_attention_heads"),
        ("attention.reduction", "segformer.sr_ratios"),
    ],
    adapt,
};

/// The arguments of the authors' `Vivim` that its encoder reads, with their defaults; `img_size` is that of their
/// training, `nframes` the default of the mixer, which takes clips of so many frames alone.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    img_size: Size,
    nframes: i64,
    in_chans: i64,
    depths: Vec<i64>,
    feat_size: Vec<i64>,
    drop_path_rate: f64,
    segformer: SegFormer,
}

/// What the SegFormer whose stages they take says of itself: by default its size B3.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct SegFormer {
    depths: Vec<i64>,
    num_attention_heads: Vec<i64>,
    sr_ratios: Vec<i64>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            img_size: Size::Square(256),
            nframes: 5,
            in_chans: 3,
            depths: vec![2, 2, 2, 2],
            feat_size: vec![64, 128, 320, 512],
            drop_path_rate: 0.0,
            segformer: SegFormer::default(),
        }
    }
}

impl Default for SegFormer {
    fn default() -> Self {
        SegFormer {
            depths: vec![3, 4, 18, 3],
            num_attention_heads: vec![1, 2, 5, 8],
            sr_ratios: vec![8, 4, 2, 1],
        }
    }
}

impl Config {
    /// Their config in our words.
    fn ours(&self) -> ModelConfig {
        ModelConfig {
            patch_size: Size::Square(7),
            stride: Size::Square(4),
            patch_padding: 3,
            patch_norm: true,
            d_model: PerStage::Each(self.feat_size.clone()),
            depth: PerStage::Each(self.depths.clone()),
            downsample: DownsampleKind::Conv3,
            attention: Some(AttentionOptions {
                depth: PerStage::Each(self.segformer.depths.clone()),
                heads: PerStage::Each(self.segformer.num_attention_heads.clone()),
                reduction: PerStage::Each(self.segformer.sr_ratios.clone()),
            }),
            scan: Scans::One("vivim/tri".into()),
            merge: Merge::Mean,
            norm: NormKind::Layer,
            drop_path: self.drop_path_rate,
            mlp_ratio: 4.0.into(),
            mlp: MlpKind::Conv,
            pool: Pool::Mean,
            pos_embed: false,
            init: Start::Normal,
            ..ModelConfig::default()
        }
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (mut keys, mut before, mut ahead, mut number) = (Vec::new(), self.in_chans, 0, 0);
        let segformer = "encoder.downsample_layers";
        for (s, width) in ours.widths().into_iter().enumerate() {
            let (side, [conv, norm]) = match s {
                0 => (7, ["patch_embed.proj".into(), "patch_embed.norm".into()]),
                _ => (3, ["conv", "norm"].map(|part| format!("downsample.{}.{part}", s - 1))),
            };
            let theirs = format!("{segformer}.patch_embeddings.{s}");
            layer(&mut keys, &format!("{theirs}.proj"), &conv, &[width, before, side, side], true);
            layer(&mut keys, &format!("{theirs}.layer_norm"), &norm, &[width], true);
            for i in 0..ours.within(s) {
                let (theirs, block) = (format!("{segformer}.block.{s}.{i}"), format!("within.{ahead}"));
                self.attention_keys(&mut keys, ours, s, &theirs, &block);
                ahead += 1;
            }
            for i in 0..ours.depths()[s] {
                let (theirs, block) = (format!("encoder.stages.{s}.{i}.0"), format!("layers.{number}"));
                mamba_keys(&mut keys, ours, s, &theirs, &block);
                number += 1;
            }
            before = width;
        }
        // SegFormer's norm behind its last stage, which Vivim has and does not run; ours is behind the maps.
        let last = ours.stages() - 1;
        layer(&mut keys, &format!("{segformer}.layer_norm.{last}"), "norm_f", &[before], true);
        keys
    }

    fn attention_keys(
        &self,
        keys: &mut Vec<Key>,
        ours: &ModelConfig,
        stage: usize,
        theirs: &str,
        block: &str,
    ) {
        let (d, hidden, attention) =
            (ours.widths()[stage], ours.mlp_width(stage), format!("{theirs}.attention"));
        let side = self.segformer.sr_ratios.get(stage).copied().unwrap_or(1);
        let mut one = |theirs: String, name: &str, shape: &[i64]| {
            layer(keys, &theirs, &format!("{block}.{name}"), shape, true);
        };
        one(format!("{theirs}.layer_norm_1"), "norm", &[d]);
        for name in ["query", "key", "value"] {
            one(format!("{attention}.self.{name}"), &format!("mixer.{name}"), &[d, d]);
        }
        if side > 1 {
            one(format!("{attention}.self.sr"), "mixer.reduce", &[d, d, side, side]);
            one(format!("{attention}.self.layer_norm"), "mixer.norm", &[d]);
        }
        one(format!("{attention}.output.dense"), "mixer.out", &[d, d]);
        one(format!("{theirs}.layer_norm_2"), "norm2", &[d]);
        one(format!("{theirs}.mlp.dense1"), "mlp.fc1", &[hidden, d]);
        one(format!("{theirs}.mlp.dwconv.dwconv"), "mlp.dwconv", &[hidden, 1, 3, 3]);
        one(format!("{theirs}.mlp.dense2"), "mlp.fc2", &[d, hidden]);
    }
}

fn mamba_keys(keys: &mut Vec<Key>, ours: &ModelConfig, stage: usize, theirs: &str, block: &str) {
    let (d, hidden) = (ours.widths()[stage], ours.mlp_width(stage));
    let names: [&[&str]; 2] = [&["A_log", "A_b_log", "A_s_log"], &["", "_b", "_s"]];
    direction_keys(keys, &ours.mamba(d, 3), names, &format!("{theirs}.mamba"), &format!("{block}.mixer"));
    let mut one = |their_name: &str, name: &str, shape: &[i64]| {
        layer(keys, &format!("{theirs}.{their_name}"), &format!("{block}.{name}"), shape, true);
    };
    one("norm1", "norm", &[d]);
    one("norm2", "norm2", &[d]);
    one("mlp.fc1", "mlp.fc1", &[hidden, d]);
    one("mlp.dwconv.dwconv", "mlp.dwconv", &[hidden, 1, 3, 3, 3]);
    one("mlp.fc2", "mlp.fc2", &[d, hidden]);
}

/// Without what makes masks of the maps, and the norms of earlier stages, which Vivim does not run.
fn adapt(table: &toml::Table, mut weights: Tensors) -> Result<Tensors> {
    let theirs: Config = config::from_table(table.clone(), "")?;
    let last = format!("encoder.downsample_layers.layer_norm.{}.", theirs.feat_size.len().saturating_sub(1));
    weights.retain(|name, _| {
        name.starts_with("encoder.")
            && (!name.starts_with("encoder.downsample_layers.layer_norm.") || name.starts_with(&last))
    });
    Ok(weights)
}
