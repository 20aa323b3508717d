//! Which mixer the blocks have, and what it needs of the other keys.

use ophidian_scan::Plan;

use super::{
    ChangeMambaOptions, DividedOptions, GrootLOptions, HydraOptions, InvertedOptions,
    MixerKind::{
        self, ChangeMamba, DefMamba, Divided, GrootL, GrootV, Hydra, Inverted, Mamba1, Mamba2, QuadMamba,
        Semantic, SpatialMamba,
    },
    ModelConfig, SemanticOptions, pattern,
};
use crate::{
    Error, Result,
    block::BlockConfig,
    grid::{Input, embed::Pool},
    mixer::{
        ChangeMambaConfig, ConvPlace, DefMambaConfig, DeformCompat, DividedConfig, GrootLConfig, HydraConfig,
        InvertedConfig, Mamba2Config, Merge, MixerConfig, QuadMambaConfig, SemanticCompat, SemanticConfig,
        head_of,
    },
};

impl ModelConfig {
    /// The mixer of a stage's blocks.
    pub fn kind(&self, stage: usize) -> MixerKind {
        self.mixer.0.of(stage).unwrap_or_default()
    }

    /// Whether a stage has it.
    pub(in crate::grid) fn has(&self, kind: MixerKind) -> bool {
        self.mixer.0.values().contains(&kind)
    }

    /// What the scans of a stage run over, its tokens lying on `grid` at each of `times`: groups of frames, rows and
    /// columns. ChangeMamba lays two images out as one map.
    pub(in crate::grid) fn scanned(
        &self,
        stage: usize,
        times: Option<i64>,
        [rows, columns]: [i64; 2],
    ) -> (Option<i64>, [i64; 2]) {
        match self.kind(stage) {
            ChangeMamba => (None, [rows, 2 * columns]),
            _ => (times, [rows, columns]),
        }
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
        fill(self.has(ChangeMamba), &mut self.changemamba);
        self
    }

    /// That a mixer has options here and is not among those of the model, for each.
    fn absent(&self) -> impl Iterator<Item = String> + '_ {
        let all = [
            (Mamba2, self.mamba2.is_some()),
            (Hydra, self.hydra.is_some()),
            (GrootL, self.grootl.is_some()),
            (DefMamba, self.defmamba.is_some()),
            (QuadMamba, self.quadmamba.is_some()),
            (Semantic, self.semantic.is_some()),
            (Inverted, self.inverted.is_some()),
            (Divided, self.divided.is_some()),
            (ChangeMamba, self.changemamba.is_some()),
        ];
        let absent = all.into_iter().filter(|(kind, set)| *set && !self.has(*kind));
        absent.map(|(kind, _)| format!("`{0}` is set, but `mixer` is not \"{0}\"", kind.name()))
    }

    /// Checks that nothing is told to a mixer that the model has not, where the config names none: its line was forgotten.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub(in crate::grid) fn expect_present(&self) -> Result<()> {
        self.absent().next().map_or(Ok(()), |absent| Err(Error::Config(absent)))
    }

    /// What a user should know before training: keys that are set in vain, and where published scans have more around them
    /// than this model.
    pub fn notes(&self) -> Vec<String> {
        let mut notes: Vec<String> =
            self.absent().map(|absent| format!("{absent}: nothing reads it")).collect();
        notes.extend(self.mixer.notes(self, &ModelConfig::default()));
        notes.extend(self.differs_from_published());
        notes
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
        self.mixer.expect_read(self, &ModelConfig::default())
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
            ChangeMamba => {
                let ChangeMambaOptions { mlp_ratio, activated } =
                    self.changemamba.clone().unwrap_or_default();
                let block = BlockConfig {
                    d_model,
                    norm: self.norm,
                    norm_eps: self.norm_eps,
                    mlp: (mlp_ratio * d_model as f64) as i64,
                    start: self.init,
                    residuals: self.residuals(),
                    ..BlockConfig::default()
                };
                MixerConfig::ChangeMamba(ChangeMambaConfig { mamba, block, activated })
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
        self.map_keys().into_iter().next()
    }

    /// All keys that ask for what needs the map.
    pub(super) fn map_keys(&self) -> Vec<String> {
        let mixers = self.mixer.0.values().iter().filter(|kind| kind.needs_map());
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
        let keys = keys.into_iter().filter(|(set, _)| *set).map(|(_, key)| key.to_owned());
        mixers.map(|kind| format!("mixer = \"{}\"", kind.name())).chain(keys).collect()
    }

    /// Checks what two images ask of the rest.
    pub(super) fn check_pair(&self, input: &Input) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if input.times(self.tubelet) != Some(2) {
            return fail(format!(
                "`mixer = \"changemamba\"` reads two images, but the inputs are {} of {input}; choose clips of 2 frames, or of \
                 2 groups of `tubelet`",
                input.unit()
            ));
        }
        let fits = ["mixer = \"changemamba\"", "conv = \"grid\"", "attention"];
        if let Some(key) = self.map_keys().iter().find(|key| !fits.contains(&key.as_str())) {
            return fail(format!("`{key}` does not go with `mixer = \"changemamba\"`; leave it out"));
        }
        let text = self.scan.texts().iter().find(|text| {
            let scan = pattern(text, 0).ok().and_then(|pattern| pattern.published());
            scan.is_some_and(|scan| scan.name().starts_with("changemamba/"))
        });
        match text {
            Some(text) => fail(format!(
                "`scan` is \"{text}\", but `mixer = \"changemamba\"` lays the two images out itself; choose what each \
                 layout is walked by: `scan = \"cross\"` in the paper"
            )),
            None => Ok(()),
        }
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
        let kinds = self.mixer.0.values();
        if let Some(affinity) = self.affinity
            && (!(1..=1 << 20).contains(&affinity) || !kinds.iter().all(|kind| kind.takes_any_scan()))
        {
            return fail(format!(
                "`affinity` is {affinity}, expected at least 1, and `mixer` \"mamba1\" or \"mamba2\""
            ));
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
        let ratio = self.changemamba.as_ref().map_or(0.0, |options| options.mlp_ratio);
        if !(0.0..=1024.0).contains(&ratio) {
            return fail(format!("`changemamba.mlp_ratio` is {ratio}, expected 0 (no MLP) to 1024"));
        }
        if self.merge == Merge::Search && !kinds.iter().all(|kind| *kind == Mamba1) {
            return fail("`merge = \"search\"` goes with `mixer = \"mamba1\"`".into());
        }
        Ok(())
    }
}
