//! Where a model that walks a published scan differs from what was published around it.

use ophidian_scan as scan;
use toml::{Table, Value};

use super::{MixerKind, ModelConfig, pattern};
use crate::config;

/// The keys of `[model]` that give the whole of what was published with `scan`, which a model names as `text` (such as
/// `videomamba/spatialfirst(class_token=head)`): how its directions come together, what they share, what stands before and
/// behind the scan, another mixer where it is more than an order. None where the order is all. What stands around the
/// mixers of the published model is left to its own config (`ophidian models list`).
pub fn published_with(scan: &'static scan::Published, text: &str) -> Vec<(&'static str, Value)> {
    use MixerKind::{ChangeMamba, Divided, Hydra, QuadMamba, SpatialMamba};
    let ss2d = || -> Vec<(&'static str, Value)> {
        vec![
            ("conv", "grid".into()),
            ("d_conv", 3.into()),
            ("out_norm", "layer".into()),
            ("pool", "mean".into()),
        ]
    };
    let mut keys = merged(scan);
    keys.extend(match scan.name() {
        "hydra/quasiseparable" => return of_mixer(Hydra, true),
        "spatialmamba/statefusion" => return of_mixer(SpatialMamba, true),
        "videomambasuite/timemamba" => return of_mixer(Divided, true),
        "quadmamba/quad" | "quadmamba/quadquad" | "quadmamba/quad_perm" => return of_mixer(QuadMamba, false),
        "changemamba/spatiotemporal" => return of_mixer(ChangeMamba, false),
        "vim/layerpairs" => {
            let walks = ["row | bidirectional", "row | bidirectional | reverse"];
            vec![("scan", walks.to_vec().into()), ("layer_pairs", true.into())]
        }
        "vmamba/cascade2d" => [ss2d(), vec![("cascade", 2.into())]].concat(),
        name if name.starts_with("vmamba/") => ss2d(),
        "mambair/cross2d" | "localmamba/vssm_merge" => ss2d(),
        "plainmamba/continuous4" => vec![
            ("step_embedding", true.into()),
            ("conv", "grid".into()),
            ("d_conv", 7.into()),
            ("pool", "mean".into()),
        ],
        name if name.starts_with("efficientvmamba/") => [ss2d(), vec![("conv_branch", true.into())]].concat(),
        "groupmamba/grouped4" => {
            [ss2d(), vec![("channels", "grouped".into()), ("affinity", 16.into())]].concat()
        }
        "msvmamba/multiscale" | "msvmamba/half" => {
            let coarse = [("directions", 3), ("taps", 7), ("stride", 2)];
            let coarse = coarse.map(|(key, value)| (key.to_owned(), Value::from(value)));
            let mut keys = vec![
                ("coarse", Table::from_iter(coarse).into()),
                ("coarse_scan", "[row | reverse, column, column | reverse]".into()),
                ("norm_each", true.into()),
                ("merge", "sum".into()),
                ("parameters", "own".into()),
            ];
            if scan.name() == "msvmamba/half" {
                keys.push(("scan", "msvmamba/multiscale".into()));
            }
            [ss2d(), keys].concat()
        }
        "videomambasuite/dbm" => vec![("channels", "split".into())],
        // Two whole mixers: one output projection over both is the sum of theirs.
        "s-d-mamba/variates" => vec![("channels", "split".into()), ("merge", "concat".into())],
        name if name.starts_with("videomamba/") => vec![("merge", "sum".into())],
        _ => Vec::new(),
    });
    if let Some((walk, pool)) = without_token(scan, text) {
        keys.extend([("scan", walk.into()), ("pool", pool.into())]);
    }
    // The last word on a key stands.
    let mut last: Vec<(&'static str, Value)> = Vec::new();
    for (key, value) in keys {
        last.retain(|(known, _)| *known != key);
        last.push((key, value));
    }
    last
}

/// How the directions of `scan` come together and what they share.
fn merged(scan: &scan::Published) -> Vec<(&'static str, Value)> {
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
    vec![("merge", merge.into()), ("parameters", parameters.into())]
}

/// A mixer and what its paper has; with a scan of its own, unless the published one is that.
fn of_mixer(kind: MixerKind, keep_scan: bool) -> Vec<(&'static str, Value)> {
    let implied = kind.implied().into_iter().filter(|(key, _)| !keep_scan || *key != "scan");
    [("mixer", kind.name().into())].into_iter().chain(implied).collect()
}

/// What says where a scan leaves room for class tokens.
const KEY: &str = "class_token=";

/// A scan that leaves room for class tokens, named `text`, without that room, which a model makes itself; and the `pool`
/// whose tokens stand there. A layout of one direction is walked both ways.
fn without_token(scan: &'static scan::Published, text: &str) -> Option<(String, String)> {
    let fixed = |walk: &str, pool: &str| Some((walk.to_owned(), pool.to_owned()));
    match scan.name() {
        "ssamba/frequency" => return fixed("row | bidirectional", "head"),
        "localmamba/multimamba_cls" => {
            return fixed("[row | bidirectional, column, row | window(2)]", "middle");
        }
        _ => {}
    }
    let word = |text: &str| {
        let (_, rest) = text.split_once(KEY)?;
        Some(rest.split([',', ')']).next().unwrap_or_default().trim().to_owned())
    };
    let default = word(&scan.usage())?;
    let given = word(text);
    let word = given.clone().unwrap_or(default);
    let text = text.trim();
    let bare = match (given, text.strip_suffix(')')) {
        (Some(word), _) => text.replace(&format!("{KEY}{word}"), &format!("{KEY}none")),
        (None, Some(open)) => format!("{open}, {KEY}none)"),
        (None, None) => format!("{text}({KEY}none)"),
    };
    let walk = if scan.directions() == "1" { format!("{bare} | bidirectional") } else { bare };
    let pool = if word == "double" { "both".to_owned() } else { word.clone() };
    (word != "none").then_some((walk, pool))
}

/// `--set` of a key of `[model]`, as a shell takes it.
fn as_set((key, value): &(&str, Value)) -> String {
    let text = value.to_string();
    let plain = |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    match value.as_str().unwrap_or(&text) {
        word if plain(word) => format!("--set model.{key}={word}"),
        _ => format!("--set 'model.{key}={text}'"),
    }
}

impl ModelConfig {
    /// One line for each published scan of `scan` whose paper has it with other keys than this model, which takes the
    /// orders alone: what they are, and how to set them. None for mixers that do not read those keys.
    pub fn differs_from_published(&self) -> Vec<String> {
        let (Ok(ours), Ok(default)) =
            (config::to_table(self, "model"), config::to_table(&ModelConfig::default(), "model"))
        else {
            return Vec::new();
        };
        if !self.mixer.0.values().iter().all(|kind| kind.takes_any_scan()) {
            return Vec::new();
        }
        let mut lines: Vec<String> = Vec::new();
        for text in self.scan.texts() {
            let Some(scan) = pattern(text, 0).ok().and_then(|pattern| pattern.published()) else { continue };
            let mut keys = published_with(scan, text);
            let mixer = keys.iter().find(|(key, _)| *key == "mixer").and_then(|(_, name)| name.as_str());
            let kind = MixerKind::ALL.into_iter().find(|kind| Some(kind.name()) == mixer);
            // What that mixer does not read must be left alone.
            let unread = kind.map(MixerKind::unread).unwrap_or_default().into_iter();
            keys.extend(unread.filter_map(|key| Some((key, default.get(key)?.clone()))));
            for (_, scans) in keys.iter_mut().filter(|(key, _)| *key == "scan") {
                // In its place among others.
                if let (Some(walk), true) = (scans.as_str(), self.scan.texts().len() > 1) {
                    let put = |own: &String| if own == text { walk.to_owned() } else { own.clone() };
                    *scans = self.scan.texts().iter().map(put).collect::<Vec<String>>().into();
                }
            }
            let kept = if kind.is_none() { self.mixer.unread() } else { Vec::new() };
            keys.retain(|(key, value)| ours.get(*key) != Some(value) && !kept.contains(key));
            if keys.is_empty() {
                continue;
            }
            let said = |(key, value): &(&str, Value)| match ours.get(*key) {
                Some(ours) => format!("`{key} = {value}` (this model: {ours})"),
                None => format!("`{key} = {value}`"),
            };
            let [said, set] = [
                keys.iter().map(said).collect::<Vec<_>>().join(", "),
                keys.iter().map(as_set).collect::<Vec<_>>().join(" "),
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
