//! The orders of a sample: from the centres of its groups, on the loader's threads.

use std::sync::Arc;

use ophidian_core::{Error, Result, adapter::Planner, data::Sample, rng::Rng};
use ophidian_scan::{Geometry, Order, Pattern, Plan, Points};
use rand::Rng as _;
use serde::{Deserialize, Serialize};

use super::Input;
use crate::scans::register_scans;

/// One pattern for all blocks, or several that the blocks take in turn.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a pattern such as \"pointmamba/serialize\", or a list of patterns")]
pub enum Scans {
    /// For every block.
    One(String),
    /// Block i takes number i modulo their count.
    Each(Vec<String>),
}

impl Scans {
    /// The patterns as they are written.
    pub fn texts(&self) -> &[String] {
        match self {
            Scans::One(text) => std::slice::from_ref(text),
            Scans::Each(texts) => texts,
        }
    }

    /// The same scans; one that its paper has the layers take in turn (`pcm/serialize`) becomes the list of them.
    pub(super) fn scheduled(self) -> Scans {
        let Scans::One(text) = &self else { return self };
        match pattern(text, 0).ok().and_then(|pattern| pattern.layers().ok()) {
            Some(layers) if layers.len() > 1 => Scans::Each(layers.iter().map(Pattern::to_string).collect()),
            _ => self,
        }
    }

    /// Checks that each is a pattern.
    ///
    /// # Errors
    /// [`Error::Config`] of one that is not, or if there is none.
    pub(super) fn check(&self) -> Result<()> {
        if self.texts().is_empty() {
            return Err(Error::Config("`scan` is an empty list, expected at least one pattern".into()));
        }
        self.texts().iter().try_for_each(|text| pattern(text, 0).map(drop))
    }
}

/// The pattern of `text`, drawn with `seed` where that is the sample's.
pub(super) fn pattern(text: &str, seed: u64) -> Result<Pattern> {
    register_scans();
    let (mut out, mut rest) = (String::new(), text);
    while let Some(end) = rest.find("seed").map(|at| at + "seed".len()) {
        let (before, after) = rest.split_at(end);
        let value = after.trim_start().strip_prefix('=').map(str::trim_start);
        out.push_str(before);
        rest = match value.and_then(|value| value.strip_prefix("sample")) {
            Some(after) => {
                // 63 bits, as the seeds of patterns are.
                out.push_str(&format!("={}", seed >> 1));
                after
            }
            None => after,
        };
    }
    out.push_str(rest);
    out.parse().map_err(|error: ophidian_scan::Error| Error::Config(format!("`scan`: {error}")))
}

/// What becomes of a plan before the blocks walk along it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// The directions are one sequence, each over tokens of its own.
    pub join: bool,
    /// A class token behind all others, visited last.
    pub class_token: bool,
}

impl Layout {
    /// `plan` over all tokens.
    pub fn of(self, plan: Plan) -> Result<Plan> {
        let plan = if self.join { joined(&plan)? } else { plan };
        if !self.class_token {
            return Ok(plan);
        }
        Ok(plan.with_token(plan.tokens(), Order::len)?)
    }
}

/// The K directions of `plan` one after another as a single one over K L tokens: direction k visits the tokens from
/// number k L on. The state runs on from one into the next.
fn joined(plan: &Plan) -> Result<Plan> {
    let tokens = plan.tokens();
    let (mut index, mut resets) = (Vec::new(), Vec::new());
    for (k, order) in plan.orders().iter().enumerate() {
        let first = i32::try_from(k * tokens).unwrap_or(i32::MAX);
        index.extend(
            order.index().iter().map(|token| if *token < 0 { -1 } else { token.saturating_add(first) }),
        );
        resets.extend_from_slice(order.resets());
    }
    let order = Order::new(index, tokens * plan.directions())?.with_resets(resets)?;
    let blank = plan.orders().first().map(Order::blank).unwrap_or_default();
    Ok(Plan::new(vec![order.with_blank(blank)])?)
}

/// Makes the plans of samples.
pub(super) struct Walks {
    texts: Vec<String>,
    input: Input,
    layout: Layout,
}

impl Walks {
    pub fn new(scans: &Scans, input: Input, layout: Layout) -> Walks {
        Walks { texts: scans.texts().to_vec(), input, layout }
    }

    /// One plan for each pattern, of a sample with the values `input`.
    pub fn of(&self, input: &[f32], mut seed: impl FnMut() -> u64) -> Result<Vec<Plan>> {
        let geometry = self.geometry(input)?;
        self.texts.iter().map(|text| self.layout.of(pattern(text, seed())?.plan(&geometry)?)).collect()
    }

    /// Where the centres of a sample lie; frame by frame if it is a sequence.
    fn geometry(&self, input: &[f32]) -> Result<Geometry> {
        let Input { frames, groups, size, channels } = self.input;
        let group = (1 + size) * channels;
        if input.len() as i64 != frames.unwrap_or(1) * groups * group {
            return Err(Error::invalid(format!(
                "a sample has {} values, expected those of {}",
                input.len(),
                self.input
            )));
        }
        let group = usize::try_from(group).unwrap_or(1).max(1);
        let centre = |group: &[f32]| [0, 1, 2].map(|axis| group.get(axis).copied().unwrap_or(f32::NAN));
        let centres = input.chunks_exact(group).map(centre).collect();
        let points = match frames {
            None => Points::new(centres)?,
            Some(frames) => Points::packed(centres, (0..=frames).map(|f| (f * groups) as usize).collect())?,
        };
        Ok(Geometry::Points(Arc::new(points)))
    }
}

impl Planner for Walks {
    fn plans(&self, sample: &Sample, random: &mut Rng) -> Result<Vec<Plan>> {
        self.of(&sample.input, || random.next_u64())
    }
}
