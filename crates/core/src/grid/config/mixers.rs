//! Which mixer the blocks have, and what it needs of the other keys.

use crate::{
    Error, Result, config,
    mixer::{
        ConvPlace, DefMambaConfig, DeformCompat, DividedConfig, GrootLConfig, HydraConfig, InvertedConfig,
        Mamba2Config, Merge, MixerConfig, QuadMambaConfig, SemanticCompat, SemanticConfig, head_of,
    },
};
use ophidian_scan::Plan;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use super::{
    DividedOptions, GrootLOptions, HydraOptions, InvertedOptions, ModelConfig, PerStage, SemanticOptions,
};
use crate::grid::embed::Pool;

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
}

use MixerKind::{
    DefMamba, Divided, GrootL, GrootV, Hydra, Inverted, Mamba1, Mamba2, QuadMamba, Semantic, SpatialMamba,
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
    pub const ALL: [MixerKind; 11] = [
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
        }
    }

    /// Whether it reads the map that the tokens lie on.
    pub fn needs_map(self) -> bool {
        !matches!(self, Mamba1 | Mamba2 | GrootL | Hydra | Divided)
    }

    /// Keys of `[model]` that follow from the mixer where a config does not set them: what its paper has.
    fn implied(self) -> Vec<(&'static str, Value)> {
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
        };
        if self.needs_map() {
            keys.push(("pool", "mean".into()));
        }
        if matches!(self, GrootV | SpatialMamba | DefMamba | QuadMamba) {
            keys.extend([("conv", "grid".into()), ("d_conv", 3.into())]);
        }
        keys
    }

    /// Keys of `[model]` that it does not read.
    fn unread(self) -> Vec<&'static str> {
        let more: &[&str] = match self {
            Mamba1 | Divided => return Vec::new(),
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

impl ModelConfig {
    /// The mixer of a stage's blocks.
    pub fn kind(&self, stage: usize) -> MixerKind {
        self.mixer.0.of(stage).unwrap_or_default()
    }

    /// Whether a stage has it.
    pub(in crate::grid) fn has(&self, kind: MixerKind) -> bool {
        self.mixer.0.values().contains(&kind)
    }

    /// Those of `class_tokens` that orders visit: none where time and space are divided.
    pub(in crate::grid) fn walked<'a>(&self, class_tokens: &'a [i64]) -> &'a [i64] {
        if self.has(Divided) { &[] } else { class_tokens }
    }

    /// Fills in the options of the mixers that there are.
    pub(super) fn with_options(mut self) -> ModelConfig {
        fn fill<T: Default>(there: bool, options: &mut Option<T>) {
            if there && options.is_none() {
                *options = Some(T::default());
            }
        }
        fill(self.has(Mamba2), &mut self.mamba2);
        fill(self.has(Hydra), &mut self.hydra);
        fill(self.has(GrootL), &mut self.grootl);
        fill(self.has(DefMamba), &mut self.defmamba);
        fill(self.has(QuadMamba), &mut self.quadmamba);
        fill(self.has(Semantic), &mut self.semantic);
        fill(self.has(Inverted), &mut self.inverted);
        fill(self.has(Divided), &mut self.divided);
        self
    }

    /// Checks that the keys are for the mixers that there are.
    pub(super) fn check_mixers(&self) -> Result<()> {
        if !self.mixer.0.fits(self.stages()) {
            return Err(Error::Config(format!(
                "`mixer` is a list of {}, expected one name, or one for each of {} stages",
                self.mixer.0.values().len(),
                self.stages()
            )));
        }
        for (kind, set) in [
            (Mamba2, self.mamba2.is_some()),
            (Hydra, self.hydra.is_some()),
            (GrootL, self.grootl.is_some()),
            (DefMamba, self.defmamba.is_some()),
            (QuadMamba, self.quadmamba.is_some()),
            (Semantic, self.semantic.is_some()),
            (Inverted, self.inverted.is_some()),
            (Divided, self.divided.is_some()),
        ] {
            if set && !self.has(kind) {
                let name = kind.name();
                return Err(Error::Config(format!("`{name}` is set, but `mixer` is not \"{name}\"")));
            }
        }
        let mut unread = self.mixer.0.values().iter().map(|kind| kind.unread());
        let first = unread.next().unwrap_or_default();
        let unread: Vec<&str> =
            unread.fold(first, |all, some| all.into_iter().filter(|key| some.contains(key)).collect());
        let (ours, default) =
            (config::to_table(self, "model")?, config::to_table(&ModelConfig::default(), "model")?);
        if let Some(key) = unread.into_iter().find(|key| ours.get(*key) != default.get(*key)) {
            let name = self.mixer.0.values().first().copied().unwrap_or_default().name();
            return Err(Error::Config(format!(
                "`{key}` is set, but `mixer = \"{name}\"` does not read it; leave it out"
            )));
        }
        Ok(())
    }

    /// The mixer of block number `block`, in stage `stage` of `d_model` channels, along the orders of `plan`.
    ///
    /// # Errors
    /// A scan that does not suit the mixer.
    pub(in crate::grid) fn mixer_of(
        &self,
        stage: usize,
        block: usize,
        d_model: i64,
        plan: &Plan,
    ) -> Result<MixerConfig> {
        let (kind, directions) = (self.kind(stage), plan.directions() as i64);
        let misfit = |expected: &str| {
            Err(Error::Config(format!(
                "`model.scan` makes {directions} directions in stage {stage}, but `mixer = \"{}\"` {expected}",
                kind.name()
            )))
        };
        let mamba = self.mamba(d_model, directions);
        Ok(match kind {
            Mamba1 => MixerConfig::Mamba1(mamba),
            Mamba2 => {
                MixerConfig::Mamba2(Mamba2Config::like(&mamba, self.mamba2.clone().unwrap_or_default()))
            }
            GrootV | GrootL | SpatialMamba if directions != 1 => return misfit("has one; choose \"row\""),
            GrootV => MixerConfig::GrootV(mamba),
            SpatialMamba => MixerConfig::SpatialMamba(mamba),
            GrootL => {
                let GrootLOptions { context, scale } = self.grootl.clone().unwrap_or_default();
                MixerConfig::GrootL(GrootLConfig { mamba, context, scale })
            }
            Hydra if directions < 2 => {
                return misfit(
                    "needs what lies before and what lies behind a token; choose a scan there and back, such as \
                     \"bidirectional\"",
                );
            }
            Hydra if !plan.orders().iter().all(|order| order.is_permutation()) => {
                return Err(Error::Config(format!(
                    "`model.scan` visits some token of stage {stage} never, twice, or with a blank step, but `mixer = \
                     \"hydra\"` shifts what a walk makes by a step, which needs every token once"
                )));
            }
            Hydra => MixerConfig::Hydra(self.hydra(d_model, directions)?),
            DefMamba if directions != 2 => {
                return misfit("takes two beside the one that it makes; choose \"row | bidirectional\"");
            }
            DefMamba => {
                let options = self.defmamba.clone().unwrap_or_default();
                MixerConfig::DefMamba(DefMambaConfig {
                    mamba: self.mamba(d_model, 3),
                    taps: options.taps.of(stage).unwrap_or(5),
                    compat: DeformCompat { half_cell: options.half_cell },
                })
            }
            QuadMamba => MixerConfig::QuadMamba(QuadMambaConfig {
                mamba: self.mamba(d_model, 2),
                block: block as i64,
                compat: self.quadmamba.unwrap_or_default(),
            }),
            Semantic => {
                let SemanticOptions { classes, rank, unsorted_prompts, random_inference } =
                    self.semantic.clone().unwrap_or_default();
                MixerConfig::Semantic(SemanticConfig {
                    d_model,
                    d_state: self.d_state,
                    expand: self.expand,
                    dt_rank: self.dt_rank,
                    classes,
                    rank,
                    compat: SemanticCompat { unsorted_prompts, random_inference },
                })
            }
            Inverted => MixerConfig::Inverted(self.inverted(d_model)),
            Divided => {
                let DividedOptions { heads, gate, keep_time } = self.divided.clone().unwrap_or_default();
                let (norm, norm_eps) = (self.norm, self.norm_eps);
                MixerConfig::Divided(DividedConfig { time: mamba, heads, gate, keep_time, norm, norm_eps })
            }
        })
    }

    /// Hydra's options.
    fn hydra(&self, d_model: i64, directions: i64) -> Result<HydraConfig> {
        let HydraOptions { headdim, ngroups } = self.hydra.clone().unwrap_or_default();
        if self.expand.fract() != 0.0 {
            return Err(Error::Config(format!(
                "`model.expand` is {}, expected a whole number for `mixer = \"hydra\"`",
                self.expand
            )));
        }
        let expand = self.expand as i64;
        Ok(HydraConfig {
            d_model,
            directions,
            d_state: self.d_state,
            d_conv: self.d_conv,
            expand,
            headdim: if headdim == 0 { head_of(expand * d_model) } else { headdim },
            ngroups,
            dt_min: self.dt_min,
            dt_max: self.dt_max,
            dt_floor: self.dt_floor,
            bias: self.bias,
            conv_bias: self.conv_bias,
            start: self.init,
            residuals: self.residuals(),
            ..HydraConfig::default()
        })
    }

    /// Those of a stage of convolutions.
    pub fn inverted(&self, d_model: i64) -> InvertedConfig {
        let InvertedOptions { expand, squeeze } = self.inverted.clone().unwrap_or_default();
        InvertedConfig { d_model, expand, squeeze, start: self.init }
    }

    /// Whether something needs the map that the tokens lie on, and what: a key.
    pub(super) fn needs_map(&self) -> Option<String> {
        let mixer = self.mixer.0.values().iter().find(|kind| kind.needs_map());
        let keys = [
            (self.conv == ConvPlace::Grid, "conv = \"grid\""),
            (self.step_embedding, "step_embedding"),
            (!self.local_conv.is_empty(), "local_conv"),
            (self.position_conv, "position_conv"),
            (self.conv_branch, "conv_branch"),
            // Last: the frames of a clip are maps for these.
            (self.mlp.needs_grid() && self.has_mlp(), "mlp"),
            (self.attention.is_some(), "attention"),
        ];
        let key = keys.into_iter().find(|(set, _)| *set).map(|(_, key)| key.to_owned());
        mixer.map(|kind| format!("mixer = \"{}\"", kind.name())).or(key)
    }

    /// Checks what stands around the mixers.
    pub(super) fn check_around(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.has(Divided) {
            if self.pool_is_token() && self.pool != Pool::Head {
                return fail("`mixer = \"divided\"` has a class token in front; choose `pool = \"head\"`, or one without".into());
            }
            if self.layer_pairs || self.carry_normed || self.shared_norm {
                return fail("`layer_pairs`, `carry_normed` and `shared_norm` do not go with `mixer = \"divided\"`, whose norms are its own".into());
            }
        }
        let plain = self.mixer.0.values().iter().all(|kind| *kind == Mamba1);
        if let Some(affinity) = self.affinity
            && (!(1..=1 << 20).contains(&affinity) || !plain)
        {
            return fail(format!("`affinity` is {affinity}, expected at least 1, and `mixer = \"mamba1\"`"));
        }
        if self.conv_branch && self.affinity.is_some() {
            return fail("`conv_branch` and `affinity` are both set; choose one".into());
        }
        if self.class_blocks > 0 && self.pool_is_token() {
            return fail("`class_blocks` read the mean of the tokens; choose `pool = \"mean\"`".into());
        }
        if !(0..=64).contains(&self.class_blocks) {
            return fail(format!("`class_blocks` is {}, expected 0 to 64", self.class_blocks));
        }
        if self.layer_pairs && self.class_blocks > 0 {
            return fail("`layer_pairs` and `class_blocks` do not go together".into());
        }
        if self.shared_norm && (self.stages() > 1 || self.affinity.is_some() || self.has(Inverted)) {
            return fail("`shared_norm` is for one stage of blocks that have a norm".into());
        }
        if !(0.0..=1024.0).contains(&self.head_width) {
            return fail(format!("`head_width` is {}, expected 0 (none) to 1024", self.head_width));
        }
        if self.merge == Merge::Search && !plain {
            return fail("`merge = \"search\"` goes with `mixer = \"mamba1\"`".into());
        }
        Ok(())
    }
}
