//! What a Mamba-2 mixer can be told.

use serde::{Deserialize, Serialize};

use super::super::{Channels, Coarse, ConvPlace, Mamba1Config, Merge, Parameters};
use crate::{Error, Result, documented, init::Start, layers::NormKind};

documented! {
/// What `mixer = "mamba2"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Mamba2Options {
    /// Channels of a head; 0 for the largest divisor of the inner channels up to 64.
    pub headdim: i64,
    /// Groups of heads that share B and C, and of channels that the norm takes together.
    pub ngroups: i64,
    /// A gated RMS norm in front of the output projection; without it the scan is gated.
    pub rmsnorm: bool,
    /// The gate multiplies what the norm makes, not what it reads.
    pub norm_before_gate: bool,
    /// D has a number per channel, not per head.
    pub d_has_hdim: bool,
    /// Step sizes are kept between these two; `inf` for no upper limit.
    pub dt_limit: [f64; 2],
    /// A starts uniform between minus these two.
    pub a_init_range: [f64; 2],
}
}

impl Default for Mamba2Options {
    fn default() -> Self {
        Mamba2Options {
            headdim: 0,
            ngroups: 1,
            rmsnorm: true,
            norm_before_gate: false,
            d_has_hdim: false,
            dt_limit: [0.0, f64::INFINITY],
            a_init_range: [1.0, 16.0],
        }
    }
}

/// A Mamba-2 mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct Mamba2Config {
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
    /// Smallest step size at the start.
    pub dt_min: f64,
    /// Largest step size at the start.
    pub dt_max: f64,
    /// No step size starts below this.
    pub dt_floor: f64,
    /// A bias in the convolution.
    pub conv_bias: bool,
    /// Biases in in_proj and out_proj.
    pub bias: bool,
    /// Which parameters each direction has for itself. With "own" also its B, C and step sizes; x and z are made once.
    pub parameters: Parameters,
    /// Which channels a direction reads: if its own, it has heads, B, C and step sizes of its own too.
    pub channels: Channels,
    /// How the directions come together.
    pub merge: Merge,
    /// There is a gate z.
    pub gate: bool,
    /// Added to the mean square in the norm.
    pub norm_eps: f64,
    /// The norm acts on each direction before they come together, and the gate on what they come together to.
    pub norm_each: bool,
    /// As Mamba-1's: a learned vector is added to B by the way that a step goes, behind the convolution.
    pub step_embedding: bool,
    /// Further directions over a coarser map, for which x, B and C are convolved with a stride, and step sizes are means
    /// over the windows of that convolution.
    pub coarse: Option<Coarse>,
    /// What the directions come to is multiplied, channel by channel, by a gate that its mean chooses, through this many
    /// times fewer channels, in front of the norm (of what `norm_each` leaves, of the gate).
    pub squeeze: Option<i64>,
    /// What Mamba-1 has no word for.
    pub options: Mamba2Options,
    /// Where the weights of in_proj and out_proj start from.
    pub start: Start,
    /// Branches that add up in the whole model, which `start` may want to know.
    pub residuals: i64,
}

impl Default for Mamba2Config {
    fn default() -> Self {
        let config = Mamba2Config::like(&Mamba1Config::default(), Mamba2Options::default());
        Mamba2Config { d_state: 128, ..config }
    }
}

impl Mamba2Config {
    /// What both mixers can be told from a config of Mamba-1, the rest from `options`. How Mamba-1 makes its step sizes
    /// and which norm it has, its stages and its released quirks have no counterpart here.
    pub fn like(config: &Mamba1Config, options: Mamba2Options) -> Mamba2Config {
        Mamba2Config {
            d_model: config.d_model,
            directions: config.directions,
            d_state: config.d_state,
            d_conv: config.d_conv,
            conv: config.conv,
            expand: config.expand,
            dt_min: config.dt_min,
            dt_max: config.dt_max,
            dt_floor: config.dt_floor,
            conv_bias: config.conv_bias,
            bias: config.bias,
            parameters: config.parameters,
            channels: config.channels,
            merge: config.merge,
            gate: config.gate,
            norm_eps: 1e-5,
            norm_each: config.norm_each,
            step_embedding: config.step_embedding,
            coarse: config.coarse,
            squeeze: config.squeeze,
            options,
            start: config.start,
            residuals: config.residuals,
        }
    }

    /// What both mixers are told, as Mamba-1 has it.
    fn as_mamba1(&self) -> Mamba1Config {
        Mamba1Config {
            d_model: self.d_model,
            directions: self.directions,
            d_state: self.d_state,
            d_conv: self.d_conv,
            conv: self.conv,
            expand: self.expand,
            dt_min: self.dt_min,
            dt_max: self.dt_max,
            dt_floor: self.dt_floor,
            parameters: self.parameters,
            channels: self.channels,
            merge: self.merge,
            gate: self.gate,
            out_norm: self.options.rmsnorm.then_some(NormKind::Rms),
            norm_each: self.norm_each,
            step_embedding: self.step_embedding,
            coarse: self.coarse,
            squeeze: self.squeeze,
            ..Mamba1Config::default()
        }
    }

    /// Channels that a direction scans (D = H P).
    pub fn d_inner(&self) -> i64 {
        self.as_mamba1().d_inner()
    }

    /// Channels of a head (P).
    pub fn headdim(&self) -> i64 {
        let d = self.d_inner();
        match self.options.headdim {
            0 => head_of(d),
            headdim => headdim,
        }
    }

    /// H.
    pub fn heads(&self) -> i64 {
        self.d_inner() / self.headdim().max(1)
    }

    /// Sets of B, C, step sizes and parameters: K, or 1 if the directions share; one more, the last, for a coarse map.
    pub fn sets(&self) -> i64 {
        self.as_mamba1().sets()
    }

    /// Channels of B and C of a set.
    pub(super) fn coefficients(&self) -> i64 {
        2 * self.options.ngroups * self.d_state
    }

    /// Rows of channels that in_proj makes: one for all directions, or one for each.
    pub(super) fn rows(&self) -> i64 {
        self.as_mamba1().pairs()
    }

    /// Sets of B, C and step sizes in such a row, that of a coarse map left out.
    pub(super) fn sets_of_row(&self) -> i64 {
        if self.channels == Channels::All && self.parameters == Parameters::Own { self.directions } else { 1 }
    }

    /// What is in such a row: z, (x, B, C), dt, then B, C and dt of a coarse map.
    pub(super) fn widths(&self) -> [i64; 5] {
        let (d, h, s, own) = (self.d_inner(), self.heads(), self.sets_of_row(), self.coefficients());
        let coarse = i64::from(self.coarse.is_some());
        [if self.gate { d } else { 0 }, d + s * own, s * h, coarse * own, coarse * h]
    }

    /// Whether a norm acts on each direction.
    pub(super) fn norms_each(&self) -> bool {
        self.norm_each && self.options.rmsnorm
    }

    /// Rows that the norm has weights for: one for each direction where it reads channels of their own.
    pub(super) fn normed_rows(&self) -> i64 {
        let apart = self.merge == Merge::Concat || self.norms_each();
        if self.channels != Channels::All && apart { self.directions } else { 1 }
    }

    /// The gate acts within the scan, where nothing stands between the two.
    pub(super) fn gates_in_scan(&self) -> bool {
        self.as_mamba1().gate_in_scan()
    }

    /// Checks that every size is one, and that the parts go together.
    ///
    /// # Errors
    /// The first key that is not, with its value and what it may be.
    pub fn check(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        let Mamba2Options { headdim, ngroups, dt_limit, a_init_range, .. } = self.options;
        self.as_mamba1().check()?;
        for (key, size) in [("headdim", self.headdim()), ("ngroups", ngroups)] {
            if !(1..=1 << 20).contains(&size) {
                return fail(format!("`{key}` is {size}, expected 1 to {}", 1 << 20));
            }
        }
        let d = self.d_inner();
        if d % self.headdim() != 0 {
            return fail(format!(
                "`headdim` is {headdim}, expected a divisor of the {d} inner channels{}, or 0",
                if self.channels == Channels::All { "" } else { " of a direction" }
            ));
        }
        if self.heads() % ngroups != 0 {
            return fail(format!("`ngroups` is {ngroups}, expected a divisor of the {} heads", self.heads()));
        }
        let positive = |value: f64| value.is_finite() && value > 0.0;
        if !positive(self.norm_eps) {
            return fail(format!("`norm_eps` is {}, expected a number above 0", self.norm_eps));
        }
        if !(dt_limit[0] >= 0.0 && dt_limit[0] <= dt_limit[1]) {
            return fail(format!(
                "`dt_limit` is {dt_limit:?}, expected two numbers of at least 0 that do not fall"
            ));
        }
        if !(a_init_range.into_iter().all(positive) && a_init_range[0] <= a_init_range[1]) {
            return fail(format!(
                "`a_init_range` is {a_init_range:?}, expected two numbers above 0 that do not fall"
            ));
        }
        if self.merge == Merge::Search {
            return fail("`merge = \"search\"` goes with Mamba-1 alone".into());
        }
        Ok(())
    }
}

/// Channels of a head where they are not said: the largest divisor of the `inner` channels up to 64.
pub(crate) fn head_of(inner: i64) -> i64 {
    (1..=64.min(inner.max(1))).rev().find(|p| inner % p == 0).unwrap_or(1)
}
