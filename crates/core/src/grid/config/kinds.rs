//! Mixers by name, and what a name says of the other keys.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::PerStage;
use crate::config;

/// A mixer by name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum MixerKind {
    /// Mamba-1 along any scan, with whatever the keys ask for.
    #[default]
    Mamba1,
    /// Mamba-2 along any scan: a scalar decay per head, many states.
    Mamba2,
    /// GrootV's scan over a tree that the features choose.
    GrootV,
    /// GrootL's: the scan along the tokens and one over a tree.
    GrootL,
    /// Spatial-Mamba's fusion of neighbouring states.
    SpatialMamba,
    /// Hydra's quasi-separable matrix.
    Hydra,
    /// DefMamba's deformable path beside two others.
    DefMamba,
    /// QuadMamba's quadrants.
    QuadMamba,
    /// MambaIRv2's tokens sorted by class.
    Semantic,
    /// Convolutions alone, as EfficientVMamba's late stages.
    Inverted,
    /// TimeMamba's time, then space, of clips.
    Divided,
    /// ChangeMamba's three arrangements of two images.
    ChangeMamba,
}

use MixerKind::{
    ChangeMamba, DefMamba, Divided, GrootL, GrootV, Hydra, Inverted, Mamba1, Mamba2, QuadMamba, Semantic,
    SpatialMamba,
};

/// What nothing but Mamba-1 can be told.
const MAMBA1_ALONE: [&str; 9] = [
    "channels",
    "coarse",
    "coarse_scan",
    "cascade",
    "step_embedding",
    "norm_each",
    "squeeze",
    "written_as",
    "compat",
];

impl MixerKind {
    /// All of them.
    pub const ALL: [MixerKind; 12] = [
        Mamba1,
        Mamba2,
        GrootV,
        GrootL,
        SpatialMamba,
        Hydra,
        DefMamba,
        QuadMamba,
        Semantic,
        Inverted,
        Divided,
        ChangeMamba,
    ];

    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Mamba1 => "mamba1",
            Mamba2 => "mamba2",
            GrootV => "grootv",
            GrootL => "grootl",
            SpatialMamba => "spatialmamba",
            Hydra => "hydra",
            DefMamba => "defmamba",
            QuadMamba => "quadmamba",
            Semantic => "semantic",
            Inverted => "inverted",
            Divided => "divided",
            ChangeMamba => "changemamba",
        }
    }

    /// Whether it reads the map that the tokens lie on.
    pub fn needs_map(self) -> bool {
        !matches!(self, Mamba1 | Mamba2 | GrootL | Hydra | Divided)
    }

    /// Keys of `[model]` that follow from the mixer where a config does not set them: what its paper has.
    pub(super) fn implied(self) -> Vec<(&'static str, Value)> {
        let mut keys: Vec<(&str, Value)> = match self {
            Mamba1 => return Vec::new(),
            Mamba2 => vec![("d_state", 64.into())],
            GrootV | SpatialMamba => vec![
                ("d_state", 1.into()),
                ("scan", "row".into()),
                ("merge", "sum".into()),
                ("out_norm", "layer".into()),
            ],
            GrootL => vec![("scan", "row".into()), ("merge", "sum".into()), ("pool", "last".into())],
            Hydra => vec![("d_state", 64.into()), ("d_conv", 7.into()), ("scan", "bidirectional".into())],
            DefMamba => vec![("scan", "row | bidirectional".into()), ("merge", "mean".into())],
            QuadMamba => {
                vec![("scan", "row".into()), ("merge", "sum".into()), ("out_norm", "layer".into())]
            }
            Semantic | Inverted => vec![("scan", "row".into())],
            Divided => vec![
                ("expand", 1.0.into()),
                ("scan", "videomambasuite/timemamba".into()),
                ("merge", "sum".into()),
                ("norm", "layer".into()),
                ("pool", "head".into()),
                ("mlp_ratio", 4.0.into()),
            ],
            ChangeMamba => vec![
                ("scan", "cross".into()),
                ("merge", "sum".into()),
                ("out_norm", "layer".into()),
                ("norm", "layer".into()),
            ],
        };
        if self.needs_map() {
            keys.push(("pool", "mean".into()));
        }
        if matches!(self, GrootV | SpatialMamba | DefMamba | QuadMamba | ChangeMamba) {
            keys.extend([("conv", "grid".into()), ("d_conv", 3.into())]);
        }
        keys
    }

    /// Keys of `[model]` that it does not read.
    pub(super) fn unread(self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Mamba1 | Divided => return Vec::new(),
            ChangeMamba => return vec!["coarse", "coarse_scan", "written_as"],
            // How Mamba-1 makes step sizes, and its norm, have a counterpart that is not told by these keys; they may stay,
            // so that one line turns a config of Mamba-1 into one of Mamba-2.
            Mamba2 => &[],
            GrootV | GrootL | SpatialMamba | DefMamba | QuadMamba => &["parameters"],
            Hydra => &[
                "conv",
                "dt_rank",
                "dt_init",
                "dt_scale",
                "step_sizes",
                "parameters",
                "merge",
                "gate",
                "out_norm",
            ],
            // What shapes a scan is left alone, so that stages of convolutions can follow others.
            Semantic | Inverted => &[
                "conv",
                "d_conv",
                "conv_bias",
                "bias",
                "dt_min",
                "dt_max",
                "dt_floor",
                "dt_init",
                "dt_scale",
                "step_sizes",
                "parameters",
                "merge",
                "gate",
                "out_norm",
            ],
        };
        [more, &MAMBA1_ALONE].concat()
    }
}

/// One mixer for all stages, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Names", into = "Names")]
pub struct Mixers(pub PerStage<MixerKind>);

impl Default for Mixers {
    fn default() -> Self {
        Mixers(PerStage::One(MixerKind::default()))
    }
}

/// Mixers as they are written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected the name of a mixer such as \"mamba1\", or one for each stage")]
enum Names {
    One(String),
    Each(Vec<String>),
}

impl TryFrom<Names> for Mixers {
    type Error = String;

    fn try_from(names: Names) -> std::result::Result<Self, String> {
        let names_of_all = || MixerKind::ALL.map(MixerKind::name);
        let find = |name: &String| {
            MixerKind::ALL.into_iter().find(|kind| kind.name() == name).ok_or_else(|| {
                let near = config::nearest(name, names_of_all());
                let hint = near.map_or(String::new(), |near| format!("; did you mean \"{near}\"?"));
                format!("\"{name}\", expected one of {}{hint}", names_of_all().join(", "))
            })
        };
        Ok(Mixers(match &names {
            Names::One(name) => PerStage::One(find(name)?),
            Names::Each(names) => {
                PerStage::Each(names.iter().map(find).collect::<std::result::Result<_, _>>()?)
            }
        }))
    }
}

impl From<Mixers> for Names {
    fn from(mixers: Mixers) -> Names {
        let name = |kind: &MixerKind| kind.name().to_owned();
        match &mixers.0 {
            PerStage::One(kind) => Names::One(name(kind)),
            PerStage::Each(kinds) => Names::Each(kinds.iter().map(name).collect()),
        }
    }
}

/// `table`, a `[model]` table, with what the mixer it names implies where it does not say otherwise.
pub(in crate::grid) fn with_implied(table: Table) -> Table {
    match table.get("mixer") {
        Some(Value::String(name)) => {
            let kind = MixerKind::ALL.into_iter().find(|kind| kind.name() == name);
            let implied = kind.map(MixerKind::implied).unwrap_or_default();
            config::with_defaults(table, implied)
        }
        _ => table,
    }
}
