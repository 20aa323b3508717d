//! Where a model that walks a published scan differs from what was published around it.

use ophidian_scan as scan;
use toml::Value;

use super::{MixerKind, ModelConfig, pattern};
use crate::config;

/// The keys of `[model]` that a published scan goes with.
fn published_with(scan: &scan::Published) -> Vec<(&'static str, Value)> {
    let merge = match (scan.name(), scan.merge()) {
        ("localmamba/multiscan", _) => "search",
        ("localmamba/vssm_merge" | "localmamba/multimamba" | "localmamba/multimamba_cls", _) => {
            "channel-gate"
        }
        (_, scan::Merge::Sum | scan::Merge::Interleave) => "sum",
        (_, scan::Merge::Mean) => "mean",
        (_, scan::Merge::Gate) => "gated",
        (_, scan::Merge::Channels) => "concat",
        // One direction for each block, or one sequence: nothing comes together.
        (_, scan::Merge::Alone | scan::Merge::Length) => return Vec::new(),
    };
    let parameters = match scan.parameters() {
        scan::Parameters::Own => "own",
        scan::Parameters::Shared => "shared",
        scan::Parameters::SharedButA => "decay",
    };
    let mut keys = vec![("merge", merge.into()), ("parameters", parameters.into())];
    match scan.name() {
        "vmamba/cascade2d" => keys.push(("cascade", 2.into())),
        "plainmamba/continuous4" => keys.push(("step_embedding", true.into())),
        "videomambasuite/dbm" => keys.push(("channels", "split".into())),
        "groupmamba/grouped4" => keys.push(("channels", "grouped".into())),
        _ => {}
    }
    keys
}

impl ModelConfig {
    /// One line for each published scan of `scan` whose paper has it with other keys than this model, which takes the
    /// orders alone: what they are, and how to set them. None for mixers that do not read those keys.
    pub fn differs_from_published(&self) -> Vec<String> {
        let reads = |kind: &MixerKind| matches!(kind, MixerKind::Mamba1 | MixerKind::Mamba2);
        let Ok(ours) = config::to_table(self, "model") else { return Vec::new() };
        if !self.mixer.0.values().iter().all(reads) {
            return Vec::new();
        }
        let mut lines: Vec<String> = Vec::new();
        for text in self.scan.texts() {
            let Some(scan) = pattern(text, 0).ok().and_then(|pattern| pattern.published()) else { continue };
            let other = |(key, value): &(&str, Value)| ours.get(*key).is_some_and(|ours| ours != value);
            let keys: Vec<_> = published_with(scan).into_iter().filter(other).collect();
            if keys.is_empty() {
                continue;
            }
            let said = |(key, value): &(&str, Value)| {
                format!("`{key} = {value}` (this model: {})", ours.get(*key).unwrap_or(value))
            };
            let set = |(key, value): &(&str, Value)| {
                format!(
                    "--set model.{key}={}",
                    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
                )
            };
            let [said, set] = [
                keys.iter().map(said).collect::<Vec<_>>().join(", "),
                keys.iter().map(set).collect::<Vec<_>>().join(" "),
            ];
            let line =
                format!("`{}` gives the orders alone; it is published with {said}: {set}", scan.name());
            if !lines.contains(&line) {
                lines.push(line);
            }
        }
        lines
    }
}
