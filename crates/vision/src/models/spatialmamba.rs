//! Spatial-Mamba (Xiao et al., arXiv 2410.15091) as its authors publish it: their config and parameter names.

use ophidian_core::{
    grid::{
        Classifiers, MixerKind, Mixers, ModelConfig, PerStage, Scans, StemKind,
        family::{batch_norm, images, layer, without_counters},
    },
    keymap::Key,
    layers::DownsampleKind,
};
use serde::Deserialize;

use super::vssm::{BlockAt, SSM, Vssm, downsample, stage_keys};

/// The family.
pub const SPATIALMAMBA: Classifiers = Classifiers {
    name: "spatialmamba",
    about: "Spatial-Mamba (arXiv 2410.15091): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let (vssm, own) = Vssm::read::<Own>(table, &without())?;
        Ok(images(own.ours(&vssm), vssm.num_classes, |ours| keys(&vssm, ours)))
    },
    words: &[("d_model", "dims"), ("depth", "depths"), ("drop_path", "drop_path_rate")],
    adapt: without_counters,
};

/// What the authors' `SpatialMamba` takes beside VMamba's arguments, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    d_state: i64,
    mlp_ratio: f64,
    /// How step sizes start, which a forward pass on loaded weights does not see.
    #[serde(rename = "dt_init")]
    _dt_init: String,
}

impl Default for Own {
    fn default() -> Self {
        Own { d_state: 1, mlp_ratio: 4.0, _dt_init: "random".into() }
    }
}

/// VMamba's arguments that it does not have.
fn without() -> Vec<&'static str> {
    [&SSM[..], &["patch_norm", "ssm_ratio"]].concat()
}

impl Own {
    /// Their config in our words.
    fn ours(&self, vssm: &Vssm) -> ModelConfig {
        ModelConfig {
            stem: StemKind::Residual,
            patch_norm: false,
            downsample: DownsampleKind::Inverted,
            mixer: Mixers(PerStage::One(MixerKind::SpatialMamba)),
            d_state: self.d_state,
            scan: Scans::One("row".into()),
            position_conv: true,
            mlp_ratio: self.mlp_ratio.into(),
            ..vssm.model()
        }
    }
}

/// Which of their tensors is which of ours.
fn keys(vssm: &Vssm, ours: &ModelConfig) -> Vec<Key> {
    let (mut keys, widths) = (Vec::new(), ours.widths());
    let (d, half, side) = (widths[0], widths[0] / 2, vssm.patch_size / 2 + 1);
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
    stage_keys(&mut keys, ours, downsample, |keys, at| block_keys(keys, ours, &at));
    for (s, width) in widths.iter().enumerate().take(widths.len() - 1) {
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
    layer(&mut keys, "norm", "norm_f", &[ours.last_width()], true);
    if vssm.num_classes > 0 {
        layer(&mut keys, "head", "head", &[vssm.num_classes, ours.last_width()], true);
    }
    keys
}

fn block_keys(keys: &mut Vec<Key>, ours: &ModelConfig, at: &BlockAt<'_>) {
    let BlockAt { stage, width, theirs, ours: block, .. } = *at;
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
