//! Several directions of each, and one of several.

use super::super::samples;
use super::turns::{rotate, turned};
use super::{check_directions, concatenated, grid};
use crate::geometry::Geometry;
use crate::{Error, Order, Plan, Result, Rule};

pub(super) fn bidirectional(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    let plan = source.plan(geometry)?;
    check_directions("bidirectional", 2, &plan)?;
    let back = plan.reversed();
    plan.joined(back)
}

pub(super) fn cross(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    grid(geometry, "cross")?;
    let plan = source.plan(geometry)?;
    check_directions("cross", 4, &plan)?;
    let turned = turned(source, &plan, geometry)?;
    let both = plan.joined(turned)?;
    let back = both.reversed();
    both.joined(back)
}

pub(super) fn rotations(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    grid(geometry, "rotations")?;
    let plan = source.plan(geometry)?;
    check_directions("rotations", 4, &plan)?;
    (1..4).try_fold(plan, |plan, quarters| plan.joined(rotate(source, geometry, quarters)?))
}

pub(super) fn repeat(source: &dyn Rule, geometry: &Geometry, times: usize) -> Result<Plan> {
    let plan = source.plan(geometry)?;
    check_directions("repeat", times, &plan)?;
    Plan::new((0..times).flat_map(|_| plan.orders().iter().cloned()).collect())
}

/// All directions as one walk: the state runs on from each into the next unless `reset`. Samples that are packed
/// together are walked one after another, each in all directions.
pub(super) fn concat(source: &dyn Rule, geometry: &Geometry, reset: bool) -> Result<Plan> {
    let plan = source.plan(geometry)?;
    let mut kinds = plan.orders().iter().filter(|order| order.blanks() > 0).map(Order::blank);
    let blank = kinds.next();
    if kinds.any(|kind| Some(kind) != blank) {
        return Err(Error::Plan(
            "`concat` joins directions whose blank steps differ (zero and skip): give `blanks(zero)` or `blanks(skip)` before it"
                .into(),
        ));
    }
    let starts = samples::starts(geometry)?;
    let joined = match starts.len() {
        0..=2 => concatenated(plan.orders().iter().cloned(), reset)?,
        _ => samples::joined(&plan, &starts, reset)?,
    };
    Plan::new(vec![match blank {
        Some(blank) => joined.with_blank(blank),
        None => joined,
    }])
}
