//! What a Mamba-1 mixer can be told.

use serde::{Deserialize, Serialize};

use super::super::{Coarse, Merge};
use crate::{Error, Result, documented, init::Start, layers::NormKind};

/// Rank of the projection that step sizes come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "RankText", into = "RankText")]
pub enum DtRank {
    /// d_model / 16, rounded up: `"auto"`.
    #[default]
    Auto,
    /// This many.
    Rank(i64),
}

/// A rank as it is written.
#[derive(Serialize, Deserialize)]
#[serde(untagged, expecting = "expected \"auto\" or a number of at least 1")]
enum RankText {
    Number(i64),
    Text(String),
}

impl TryFrom<RankText> for DtRank {
    type Error = String;

    fn try_from(text: RankText) -> std::result::Result<Self, String> {
        match text {
            RankText::Number(rank) if rank >= 1 => Ok(DtRank::Rank(rank)),
            RankText::Text(word) if word == "auto" => Ok(DtRank::Auto),
            RankText::Number(other) => Err(format!("{other}, expected \"auto\" or a number of at least 1")),
            RankText::Text(other) => Err(format!("\"{other}\", expected \"auto\" or a number of at least 1")),
        }
    }
}

impl From<DtRank> for RankText {
    fn from(rank: DtRank) -> Self {
        match rank {
            DtRank::Auto => RankText::Text("auto".into()),
            DtRank::Rank(rank) => RankText::Number(rank),
        }
    }
}

impl DtRank {
    /// The rank in a model of `d_model` channels.
    pub fn of(self, d_model: i64) -> i64 {
        match self {
            DtRank::Auto => (d_model + 15) / 16,
            DtRank::Rank(rank) => rank,
        }
    }
}

/// Which parameters each direction has for itself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Parameters {
    /// Convolution, x_proj, dt_proj, A and D (Vim v2, VMamba).
    #[default]
    Own,
    /// None: one set for all directions.
    Shared,
    /// A alone; the convolution runs once, along the first direction, and all directions scan its output
    /// (Vim v1).
    Decay,
}

/// How dt_proj's weight starts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DtInit {
    /// Uniform in ±scale / sqrt(dt_rank).
    #[default]
    Random,
    /// scale / sqrt(dt_rank) everywhere.
    Constant,
}

/// How the biases of dt_proj start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum StepSizes {
    /// Every direction with step sizes drawn log-uniformly from dt_min to dt_max, as the papers say.
    #[default]
    LogUniform,
    /// The first direction so, the others with a bias of 0 (step sizes around 0.69), as the released Vim
    /// does.
    FirstLogUniform,
}

/// Where the convolution in front of the recurrence runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ConvPlace {
    /// Along each order: causal, `d_conv` taps (Mamba, Vim, LocalVim).
    #[default]
    Along,
    /// Over the map, `d_conv` x `d_conv` taps around each token, once for all directions (VMamba, PlainMamba). The
    /// orders must say on which grid the tokens lie ([`Orders::on_grid`](crate::ops::Orders::on_grid)).
    Grid,
    /// Nowhere: the SiLU alone.
    None,
}

/// Which channels a direction reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Channels {
    /// All directions the same ones.
    #[default]
    All,
    /// Each its own: in_proj makes K pairs (x, z). With [`Merge::Concat`], Video Mamba Suite's DBM.
    Split,
    /// Each its own, and every layer acts within the K groups of channels, in_proj, norm and out_proj too: K small
    /// mixers side by side (GroupMamba). With [`Merge::Concat`].
    Grouped,
}

documented! {
/// What released code does differently from its paper: needed to run the authors' weights, off otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Compat {
    /// PlainMamba: u is visited in order, but step t reads the step size, B and C of token t.
    pub unordered_coefficients: bool,
    /// PlainMamba: dt_proj's bias is added twice.
    pub double_dt_bias: bool,
    /// Mamba3D (v4): instead of the order, every second direction turns the channels of (x, z) around, so that x and
    /// z change places.
    pub mirrored_channels: bool,
}
}

/// A Mamba-1 mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba1Config {
    /// Channels of a token.
    pub d_model: i64,
    /// Directions (K), the number of orders it is run along.
    pub directions: i64,
    /// States per channel (N).
    pub d_state: i64,
    /// Taps of the convolution (W), in each axis if it runs over a grid.
    pub d_conv: i64,
    /// Where the convolution runs.
    pub conv: ConvPlace,
    /// d_inner / d_model.
    pub expand: f64,
    /// Rank of the projection to step sizes (R).
    pub dt_rank: DtRank,
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// No step size starts below this.
    pub dt_floor: f64,
    /// How dt_proj's weight starts.
    pub dt_init: DtInit,
    /// Scale of dt_proj's weight at the start.
    pub dt_scale: f64,
    /// How dt_proj's bias starts.
    pub step_sizes: StepSizes,
    /// A bias in the convolution.
    pub conv_bias: bool,
    /// Biases in in_proj and out_proj.
    pub bias: bool,
    /// Which parameters each direction has for itself.
    pub parameters: Parameters,
    /// Which channels a direction reads.
    pub channels: Channels,
    /// How the directions come together.
    pub merge: Merge,
    /// The result is multiplied by silu(z), z being the second half of in_proj's channels.
    pub gate: bool,
    /// A normalisation between the merge and the gate.
    pub out_norm: Option<NormKind>,
    /// Added to the variance in it.
    pub out_norm_eps: f64,
    /// The normalisation acts on each direction before they come together, not on what they come together to.
    pub norm_each: bool,
    /// A learned vector is added to B by the direction in the plane that a step goes (PlainMamba, arXiv 2403.17695,
    /// section 3.3): start, right, left, up, down. Needs a grid, and orders that visit no token twice.
    pub step_embedding: bool,
    /// The directions are this many groups that run one after another, each reading the normalised output of the one
    /// before (VMamba's cascade2d: rows, then columns).
    pub stages: i64,
    /// Further directions over a coarser map.
    pub coarse: Option<Coarse>,
    /// What comes of all that is multiplied, channel by channel, by a gate that its mean chooses, through this many times
    /// fewer channels (MSVMamba as released).
    pub squeeze: Option<i64>,
    /// Released quirks.
    pub compat: Compat,
    /// Where the weights of in_proj and out_proj start from.
    pub start: Start,
    /// Branches that add up in the whole model, which `start` may want to know.
    pub residuals: i64,
}

impl Default for Mamba1Config {
    fn default() -> Self {
        Mamba1Config {
            d_model: 128,
            directions: 1,
            d_state: 16,
            d_conv: 4,
            conv: ConvPlace::Along,
            expand: 2.0,
            dt_rank: DtRank::Auto,
            dt_min: 1e-3,
            dt_max: 0.1,
            dt_floor: 1e-4,
            dt_init: DtInit::Random,
            dt_scale: 1.0,
            step_sizes: StepSizes::LogUniform,
            conv_bias: true,
            bias: false,
            parameters: Parameters::Own,
            channels: Channels::All,
            merge: Merge::Mean,
            gate: true,
            out_norm: None,
            out_norm_eps: 1e-5,
            norm_each: false,
            step_embedding: false,
            stages: 1,
            coarse: None,
            squeeze: None,
            compat: Compat::default(),
            start: Start::FanIn,
            residuals: 1,
        }
    }
}

impl Mamba1Config {
    /// Channels that a direction scans (D).
    pub fn d_inner(&self) -> i64 {
        (self.expand * self.width() as f64) as i64
    }

    /// Rank of the projection to step sizes (R).
    pub fn rank(&self) -> i64 {
        self.dt_rank.of(self.width())
    }

    /// Channels of a token that a direction reads.
    pub(super) fn width(&self) -> i64 {
        if self.channels == Channels::Grouped { self.d_model / self.directions.max(1) } else { self.d_model }
    }

    /// Pairs (x, z) that in_proj makes.
    pub(in crate::mixer) fn pairs(&self) -> i64 {
        if self.channels == Channels::All { 1 } else { self.directions }
    }

    /// Sets of parameters that are learned: K, or 1 if the directions share; one more, the first, for a coarse map.
    pub fn sets(&self) -> i64 {
        match self.parameters {
            Parameters::Own => self.directions + i64::from(self.coarse.is_some()),
            _ => 1,
        }
    }

    /// z is applied within the scan, where nothing stands between the two.
    pub(in crate::mixer) fn gate_in_scan(&self) -> bool {
        let direct =
            self.out_norm.is_none() && self.stages == 1 && self.coarse.is_none() && self.squeeze.is_none();
        self.gate && direct && !self.compat.unordered_coefficients
    }

    /// Whether what the directions make must be kept apart until it is merged.
    pub(super) fn apart(&self) -> bool {
        let Compat { unordered_coefficients, mirrored_channels, .. } = self.compat;
        !matches!(self.merge, Merge::Sum | Merge::Mean)
            || (self.norm_each && self.out_norm.is_some())
            || unordered_coefficients
            || mirrored_channels
    }

    /// Checks that every size is one.
    ///
    /// # Errors
    /// The first key that is not, with its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let sizes = [
            ("d_model", self.d_model),
            ("d_state", self.d_state),
            ("d_conv", self.d_conv),
            ("dt_rank", self.rank()),
            ("directions", self.directions),
            ("cascade", self.stages),
        ];
        for (key, size) in sizes {
            if !(1..=1 << 20).contains(&size) {
                return Err(Error::Config(format!("`{key}` is {size}, expected 1 to {}", 1 << 20)));
            }
        }
        if !(self.expand.is_finite() && (1..=1 << 20).contains(&self.d_inner())) {
            return Err(Error::Config(format!(
                "`expand` is {}, which makes {} inner channels of d_model = {}; expected at least 1",
                self.expand,
                self.d_inner(),
                self.d_model
            )));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !(positive(self.dt_min) && positive(self.dt_max) && self.dt_min <= self.dt_max) {
            return Err(Error::Config(format!(
                "`dt_min` is {} and `dt_max` {}, expected 0 < dt_min <= dt_max",
                self.dt_min, self.dt_max
            )));
        }
        let numbers =
            [("dt_floor", self.dt_floor), ("dt_scale", self.dt_scale), ("out_norm_eps", self.out_norm_eps)];
        for (key, value) in numbers {
            if !positive(value) {
                return Err(Error::Config(format!("`{key}` is {value}, expected a number above 0")));
            }
        }
        self.check_parts()
    }

    /// Checks that the parts go together.
    fn check_parts(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        let (k, apart) = (self.directions, self.channels != Channels::All);
        if self.conv == ConvPlace::Grid && self.d_conv % 2 == 0 {
            return fail(format!("`d_conv` is {}, expected an odd number on a grid", self.d_conv));
        }
        if self.channels == Channels::Grouped && self.d_model % k != 0 {
            return fail(format!(
                "`d_model` is {}, expected a multiple of the {k} directions, which split it",
                self.d_model
            ));
        }
        if self.channels == Channels::Grouped && self.merge != Merge::Concat {
            return fail("`channels` is \"grouped\", which goes with `merge = \"concat\"` alone".into());
        }
        let many = apart || self.compat.mirrored_channels;
        if many && self.parameters == Parameters::Decay {
            return fail(
                "`parameters` is \"decay\", but each direction has channels of its own, or `compat.mirrored_channels`"
                    .into(),
            );
        }
        if many && self.merge != Merge::Concat && self.gate && !self.gate_in_scan() {
            return fail(
                "a norm in front of the gates of directions with channels of their own needs `merge = \"concat\"`"
                    .into(),
            );
        }
        if k % self.stages != 0 {
            return fail(format!("`cascade` is {}, expected a divisor of the {k} directions", self.stages));
        }
        if self.stages > 1 && (apart || self.merge == Merge::Concat || self.conv == ConvPlace::Along) {
            return fail(
                "`cascade` above 1 needs `channels = \"all\"`, a `merge` other than \"concat\" and no convolution along \
                 the orders: `conv = \"grid\"` with an odd `d_conv`, or `conv = \"none\"`"
                    .into(),
            );
        }
        if self.compat.mirrored_channels && (apart || !self.gate || self.conv == ConvPlace::Grid) {
            return fail(
                "`compat.mirrored_channels` needs one pair (x, z) for all directions, and a convolution along the orders"
                    .into(),
            );
        }
        if self.compat.unordered_coefficients && apart {
            return fail("`compat.unordered_coefficients` needs directions of the same channels".into());
        }
        if let Some(squeeze) = self.squeeze
            && (!(1..=1 << 20).contains(&squeeze) || apart || self.merge == Merge::Concat)
        {
            return fail(format!(
                "`squeeze` is {squeeze}, expected at least 1, and directions of the same channels, not concatenated"
            ));
        }
        let Some(Coarse { directions, taps, stride }) = self.coarse else { return Ok(()) };
        if self.conv != ConvPlace::Grid || apart || self.stages > 1 || self.merge != Merge::Sum {
            return fail("`coarse` needs a convolution on the grid, one stage and `merge = \"sum\"`".into());
        }
        if self.parameters != Parameters::Own || self.step_embedding || self.compat != Compat::default() {
            return fail("`coarse` needs `parameters = \"own\"`, no step embedding and no quirks".into());
        }
        if !(1..=64).contains(&directions) || !(1..=255).contains(&taps) || taps % 2 == 0 || stride < 1 {
            return fail(format!(
                "`coarse` has {directions} directions, {taps} taps and stride {stride}, expected at least 1 of each \
                 and an odd number of taps"
            ));
        }
        Ok(())
    }
}
