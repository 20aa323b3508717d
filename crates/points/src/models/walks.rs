//! The orders of a sample: from the centres of its groups, on the loader's threads.

use std::sync::Arc;

use ophidian_core::{
    Error, Result,
    adapter::Planner,
    data::Sample,
    grid::{self, Scans},
    rng::Rng,
};
use ophidian_scan::{Geometry, Order, Pattern, Plan, Points};
use rand::Rng as _;

use super::Input;
use crate::scans::register_scans;

/// The pattern of `text`, drawn with `seed` where that is the sample's; it may name the scans of this crate.
pub(super) fn pattern(text: &str, seed: u64) -> Result<Pattern> {
    register_scans();
    grid::pattern(text, seed)
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
