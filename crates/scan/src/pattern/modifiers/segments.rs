//! Where the state starts afresh, and the order that stands for its own inverse.

use super::{grid, volume};
use crate::geometry::Geometry;
use crate::{Error, Order, Plan, Result, Rule};

/// The state starts afresh wherever the walk enters another row, column (each of one frame), frame, or pixel (through
/// all frames) than that of the token visited last. Blank steps belong to the segment before them.
pub(super) fn segment(source: &dyn Rule, geometry: &Geometry, by: &str) -> Result<Plan> {
    let sizes = match by {
        "frame" | "pixel" => volume(geometry, &format!("segment({by})")),
        _ => grid(geometry, &format!("segment({by})")),
    };
    let (_, height, width) = sizes?;
    let frame = height * width;
    let line = |token: usize| match by {
        "row" => token / width,
        "column" => token / frame * width + token % width,
        "frame" => token / frame,
        _ => token % frame,
    };
    let segmented = |order: &Order| {
        let mut resets = order.resets().to_vec();
        let mut last = None;
        for (reset, &token) in resets.iter_mut().zip(order.index()) {
            let Ok(token) = usize::try_from(token) else { continue };
            *reset |= last.is_some_and(|last| last != line(token));
            last = Some(line(token));
        }
        order.clone().with_resets(resets)
    };
    Plan::new(source.plan(geometry)?.orders().iter().map(segmented).collect::<Result<_>>()?)
}

pub(super) fn chunk(source: &dyn Rule, geometry: &Geometry, steps: usize) -> Result<Plan> {
    let chunked = |order: &Order| {
        let mut resets = order.resets().to_vec();
        resets.iter_mut().step_by(steps).skip(1).for_each(|reset| *reset = true);
        order.clone().with_resets(resets)
    };
    Plan::new(source.plan(geometry)?.orders().iter().map(chunked).collect::<Result<_>>()?)
}

/// The map from tokens to steps in the place of the one from steps to tokens. Resets are lost: they belong to steps.
pub(super) fn inverse(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    let inverted = |order: &Order| {
        if order.len() != order.tokens() {
            let message = format!(
                "`inverse` needs a walk of as many steps as tokens, found {} steps over {} tokens",
                order.len(),
                order.tokens()
            );
            return Err(Error::Plan(message));
        }
        order.inverse()
    };
    Plan::new(source.plan(geometry)?.orders().iter().map(inverted).collect::<Result<_>>()?)
}
