//! LocalVMamba (Huang et al., arXiv 2403.09338) as its authors publish it: their config and parameter names.

use ophidian_core::{
    Result,
    grid::{
        Classifiers, ModelConfig, Scans,
        family::{images, layer, without_counters},
    },
    keymap::Key,
    mixer::Merge,
    published::blocks::local_direction,
};
use serde::Deserialize;

use super::vssm::{BlockAt, Vssm, WORDS, downsample, op_keys};

/// The family.
pub const LOCALVMAMBA: Classifiers = Classifiers {
    name: "localvmamba",
    about: "LocalVMamba (arXiv 2403.09338): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let (vssm, own) = Vssm::read::<Own>(table, &[])?;
        let keys =
            |ours: &ModelConfig| vssm.keys(ours, downsample, |keys, at| own.block_keys(keys, ours, &at));
        Ok(images(own.ours(&vssm)?, vssm.num_classes, keys))
    },
    words: WORDS,
    adapt: without_counters,
};

/// What the authors' `VSSM` takes beside VMamba's arguments. Directions must be said: without, theirs is what searches for
/// them.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    directions: Vec<Vec<String>>,
    /// The models' factories pass it, and the constructor swallows it.
    #[serde(rename = "d_state")]
    _d_state: Option<i64>,
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

impl Own {
    /// Their config in our words.
    fn ours(&self, vssm: &Vssm) -> Result<ModelConfig> {
        Ok(ModelConfig { scan: scans(&self.directions)?, merge: Merge::ChannelGate, ..vssm.model() })
    }

    /// Which of their tensors is which of ours.
    fn block_keys(&self, keys: &mut Vec<Key>, ours: &ModelConfig, at: &BlockAt<'_>) {
        let (op, mix) = (format!("{}.op", at.theirs), format!("{}.mixer", at.ours));
        let directions = self.directions.get(at.number).map_or(4, Vec::len) as i64;
        let mixer = ours.mamba(at.width, directions);
        op_keys(keys, &mixer, &op, &mix);
        gate_keys(keys, &format!("{op}.multi_scan.attn"), &mix, mixer.d_inner());
        layer(keys, &format!("{}.norm", at.theirs), &format!("{}.norm", at.ours), &[at.width], true);
    }
}
