//! MSVMamba (Shi et al., arXiv 2405.14174) as its authors publish it: their config and parameter names.

use ophidian_core::{
    config,
    grid::{
        Classifiers, ModelConfig, Scans,
        family::{images, layer, without_counters},
    },
    keymap::Key,
    layers::MlpKind,
    mixer::Coarse,
};
use serde::Deserialize;
use toml::Value;

use super::vssm::{BlockAt, Vssm, WORDS, downsample, op_keys};

/// The family.
pub const MSVMAMBA: Classifiers = Classifiers {
    name: "msvmamba",
    about: "MSVMamba (arXiv 2405.14174): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let (vssm, own) = Vssm::read::<Own>(config::with_defaults(table, defaults()), &[])?;
        let keys = |ours: &ModelConfig| vssm.keys(ours, downsample, |keys, at| block_keys(keys, ours, &at));
        Ok(images(own.ours(&vssm), vssm.num_classes, keys))
    },
    words: WORDS,
    adapt: without_counters,
};

/// What the authors' `VSSM` takes beside VMamba's arguments in their multi-scale models: one direction on the map, three on
/// a map half as fine. Of the others, those that are passed on as they are there.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    add_se: bool,
    #[serde(rename = "convFFN")]
    conv_ffn: bool,
}

impl Default for Own {
    fn default() -> Self {
        Own { add_se: true, conv_ffn: true }
    }
}

/// Defaults of VMamba's arguments that are others here.
fn defaults() -> [(&'static str, Value); 4] {
    let depths = [1, 2, 9, 2].map(Value::Integer);
    [
        ("depths", depths.to_vec().into()),
        ("dims", 96.into()),
        ("ssm_d_state", 1.into()),
        ("drop_path_rate", 0.2.into()),
    ]
}

impl Own {
    /// Their config in our words.
    fn ours(&self, vssm: &Vssm) -> ModelConfig {
        ModelConfig {
            scan: Scans::One("row".into()),
            coarse: Some(Coarse { directions: 3, taps: 7, stride: 2 }),
            coarse_scan: Some("[row | reverse, column, column | reverse]".into()),
            norm_each: true,
            squeeze: self.add_se.then_some(8),
            mlp_ratio: if self.conv_ffn { 2.0 } else { 0.0 }.into(),
            mlp: if self.conv_ffn { MlpKind::ConvResidual } else { MlpKind::Gelu },
            ..vssm.model()
        }
    }
}

/// Which of their tensors is which of ours.
fn block_keys(keys: &mut Vec<Key>, ours: &ModelConfig, at: &BlockAt<'_>) {
    let BlockAt { width, theirs, ours: block, .. } = *at;
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
