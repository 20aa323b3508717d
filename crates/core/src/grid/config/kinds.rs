//! Mixers by name, and what a name says of the other keys.

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::PerStage;
use crate::{Error, Result, config};

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

/// What nothing but Mamba-1 and Mamba-2 can be told.
const BOTH_ALONE: [&str; 6] = ["channels", "coarse", "coarse_scan", "step_embedding", "norm_each", "squeeze"];

/// What nothing but Mamba-1 can be told.
const MAMBA1_ALONE: [&str; 3] = ["cascade", "written_as", "compat"];

/// How Mamba-1 makes its step sizes, and its norm.
const STEPS_AND_NORM: [&str; 5] = ["dt_rank", "dt_init", "dt_scale", "step_sizes", "out_norm"];

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

    /// Operations of a scan for each state of a channel and step: 9 with an exponential of each; 5 where a head's channels
    /// share their decay (decay times state, plus dt u times B, times C, summed).
    pub fn operations_per_state(self) -> f64 {
        if matches!(self, Mamba2 | Hydra) { 5.0 } else { 9.0 }
    }

    /// Whether it reads the map that the tokens lie on.
    pub fn needs_map(self) -> bool {
        !matches!(self, Mamba1 | Mamba2 | GrootL | Hydra | Divided)
    }

    /// Whether it is one recurrence along the orders of any scan.
    pub(super) fn takes_any_scan(self) -> bool {
        matches!(self, Mamba1 | Mamba2)
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
            Mamba2 => return [&STEPS_AND_NORM[..], &MAMBA1_ALONE].concat(),
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
        [more, &BOTH_ALONE, &MAMBA1_ALONE].concat()
    }

    /// What it has in the place of a key that it does not read.
    fn instead(self, key: &str) -> Option<&'static str> {
        if self != Mamba2 {
            return None;
        }
        match key {
            "dt_rank" | "dt_init" | "dt_scale" => Some(
                "its in_proj makes step sizes of the tokens at once, which `dt_min`, `dt_max`, `dt_floor` and \
                 `mamba2.dt_limit` shape",
            ),
            "step_sizes" => {
                Some("the step sizes of every direction start log-uniform from `dt_min` to `dt_max`")
            }
            "out_norm" => {
                Some("its norm is what `mamba2.rmsnorm`, `mamba2.norm_before_gate` and `norm_each` make it")
            }
            "cascade" => {
                Some("its step sizes, B and C come from the tokens, and not from what other directions made")
            }
            _ => None,
        }
    }
}

/// One mixer for all stages, or one for each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Names", into = "Names")]
pub struct Mixers(pub PerStage<MixerKind>);

impl Default for Mixers {
    fn default() -> Self {
        MixerKind::default().into()
    }
}

impl Mixers {
    /// Keys of `[model]` that none of them reads.
    pub(super) fn unread(&self) -> Vec<&'static str> {
        let mut unread = self.0.values().iter().map(|kind| kind.unread());
        let first = unread.next().unwrap_or_default();
        unread.fold(first, |all, some| all.into_iter().filter(|key| some.contains(key)).collect())
    }

    /// Keys of those that may be set and are noted, so that one line turns a config of Mamba-1 into one of Mamba-2.
    fn ignored(&self) -> &'static [&'static str] {
        if self.0.values().iter().all(|kind| *kind == Mamba2) { &STEPS_AND_NORM } else { &[] }
    }

    /// Keys that none of them reads and that have another value in `model` than in `default`.
    fn set_in_vain<T: Serialize>(&self, model: &T, default: &T) -> Result<Vec<&'static str>> {
        let (ours, default) = (config::to_table(model, "model")?, config::to_table(default, "model")?);
        Ok(self.unread().into_iter().filter(|key| ours.get(*key) != default.get(*key)).collect())
    }

    /// That a key is set in vain, and what the first mixer has in its place.
    fn says(&self, key: &str) -> String {
        let kind = self.0.values().first().copied().unwrap_or_default();
        let instead = kind.instead(key).map_or(String::new(), |instead| format!("; {instead}"));
        format!("`{key}` is set, but `mixer = \"{}\"` does not read it{instead}", kind.name())
    }

    /// Checks that no key that none of them reads has another value in `model` than in `default`, but for those of which
    /// [`notes`](Mixers::notes) tells.
    ///
    /// # Errors
    /// [`Error::Config`] naming the first, and what the first mixer has in its place.
    pub fn expect_read<T: Serialize>(&self, model: &T, default: &T) -> Result<()> {
        let set = self.set_in_vain(model, default)?;
        let wrong = set.into_iter().find(|key| !self.ignored().contains(key));
        wrong.map_or(Ok(()), |key| Err(Error::Config(format!("{}; leave it out", self.says(key)))))
    }

    /// One line for each key that is set in vain and that may be.
    pub fn notes<T: Serialize>(&self, model: &T, default: &T) -> Vec<String> {
        let set = self.set_in_vain(model, default).unwrap_or_default().into_iter();
        set.filter(|key| self.ignored().contains(key)).map(|key| self.says(key)).collect()
    }
}

/// Takes out of `base`, the `[model]` table of a published model, what is nothing to the mixers that `over` puts in the place
/// of its own: their options, and keys that none of the new ones reads.
pub(in crate::grid) fn without_unread(base: &mut Table, over: &Table) {
    // What is no mixer is an error of the whole table.
    let Some(Ok(mixers)) = over.get("mixer").map(|value| value.clone().try_into::<Mixers>()) else { return };
    let others = MixerKind::ALL.into_iter().filter(|kind| !mixers.0.values().contains(kind));
    for key in mixers.unread().into_iter().chain(others.map(MixerKind::name)) {
        base.remove(key);
    }
}

impl From<MixerKind> for Mixers {
    fn from(kind: MixerKind) -> Mixers {
        Mixers(PerStage::One(kind))
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
