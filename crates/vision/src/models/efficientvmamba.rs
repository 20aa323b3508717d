//! EfficientVMamba (Pei et al., arXiv 2403.09977) as its authors publish it: their config and parameter names.

use ophidian_core::{
    grid::{
        Classifiers, MixerKind, Mixers, ModelConfig, PerStage, Scans,
        family::{batch_norm, images, layer, without_counters},
    },
    keymap::Key,
    layers::DownsampleKind,
};
use serde::Deserialize;

use super::{
    localmamba::gate_keys,
    vssm::{BlockAt, SSM, Vssm, mlp_keys, op_keys},
};

/// The family.
pub const EFFICIENTVMAMBA: Classifiers = Classifiers {
    name: "efficientvmamba",
    about: "EfficientVMamba (arXiv 2403.09977): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let (vssm, own) = Vssm::read::<Own>(table, &SSM)?;
        Ok(images(own.ours(&vssm), vssm.num_classes, |ours| keys(&vssm, ours)))
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

/// What the authors' `EfficientVSSM` takes beside VMamba's arguments, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    mlp_ratio: f64,
    downsample_version: Version,
    step_size: i64,
    /// Not passed on: there are always 16.
    #[serde(rename = "d_state")]
    _d_state: Option<i64>,
}

impl Default for Own {
    fn default() -> Self {
        Own { mlp_ratio: 4.0, downsample_version: Version::V2, step_size: 2, _d_state: None }
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

impl Own {
    /// Their config in our words.
    fn ours(&self, vssm: &Vssm) -> ModelConfig {
        let kind = |s: usize| if s < SCANNED { MixerKind::Mamba1 } else { MixerKind::Inverted };
        let stages = vssm.depths.len();
        ModelConfig {
            downsample: match self.downsample_version {
                Version::V1 => DownsampleKind::Merge,
                Version::V2 => DownsampleKind::Conv2,
            },
            mixer: Mixers(PerStage::Each((0..stages).map(kind).collect())),
            inverted: (stages > SCANNED).then(Default::default),
            conv_branch: true,
            scan: Scans::One(format!("row | atrous({})", self.step_size)),
            mlp_ratio: self.mlp_ratio.into(),
            ..vssm.model()
        }
    }
}

/// Which of their tensors is which of ours. Late stages are plain sequences: a permutation of axes, the blocks, another
/// permutation and the step.
fn keys(vssm: &Vssm, ours: &ModelConfig) -> Vec<Key> {
    let step = |stage: usize, depth: i64| {
        if stage < SCANNED { "downsample".into() } else { (depth + 2).to_string() }
    };
    vssm.keys(ours, step, |keys, at| match at.stage {
        0..SCANNED => scanned_keys(keys, ours, &at),
        stage => {
            let theirs = format!("layers.{stage}.{}", at.index + 1);
            inverted_keys(keys, ours, at.width, &theirs, &format!("{}.mixer", at.ours));
        }
    })
}

fn scanned_keys(keys: &mut Vec<Key>, ours: &ModelConfig, at: &BlockAt<'_>) {
    let BlockAt { width, theirs, ours: block, .. } = *at;
    let (conv, branch) = (format!("{theirs}.conv_branch"), format!("{block}.mixer.branch"));
    op_keys(keys, &ours.mamba(width, 4), &format!("{theirs}.op"), &format!("{block}.mixer"));
    layer(keys, &format!("{conv}.0"), &format!("{branch}.depthwise"), &[width, 1, 3, 3], true);
    batch_norm(keys, &format!("{conv}.1"), &format!("{branch}.norm"), width);
    layer(keys, &format!("{conv}.3"), &format!("{branch}.pointwise"), &[width, width, 1, 1], true);
    gate_keys(keys, &format!("{theirs}.se"), &format!("{branch}.gate"), width);
    layer(keys, &format!("{theirs}.norm"), &format!("{block}.norm"), &[width], true);
    let hidden = ours.mlp_width(at.stage);
    if hidden > 0 {
        mlp_keys(keys, at, [hidden, hidden]);
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
