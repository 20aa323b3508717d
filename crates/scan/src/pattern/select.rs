//! Modifiers that pick directions of a plan, and give it steps for class tokens.

use std::sync::Arc;

use super::{Args, Entry, Modifier, Param, Rule};
use crate::{Error, Geometry, Order, Plan, Result};

/// Where class tokens stand in a walk.
pub(super) const CLASS_TOKENS: &[&str] = &["none", "head", "middle", "end", "both", "double"];

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::modifier(
            "direction",
            "direction k alone, for a layer that walks one of several",
            |args: &Args| {
                let k = args.size("k")?;
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    source.plan(geometry)?.direction(k)
                }))
            },
        )
        .params([Param::count("k")])
        .directed("1")
        .on("any"),
        Entry::modifier(
            "class_token",
            "a blank step where a class token stands in the walk (the middle: step T // 2 of T)",
            |args: &Args| {
                let at = args.text("at")?.to_string();
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    let orders = source.plan(geometry)?;
                    Plan::new(orders.orders().iter().map(|o| class_token(o, &at)).collect::<Result<_>>()?)
                }) as Arc<dyn Modifier>)
            },
        )
        .params([Param::word("at", CLASS_TOKENS)])
        .on("any"),
    ]
}

/// `order` with blank steps at the places that `at` names; the first step of a segment stays one.
fn class_token(order: &Order, at: &str) -> Result<Order> {
    let steps = order.len();
    let places: &[usize] = match at {
        "head" => &[0],
        "middle" => &[steps / 2],
        "end" => &[steps],
        "both" | "double" => &[steps, 0],
        _ => &[],
    };
    let (mut index, mut resets) = (order.index().to_vec(), order.resets().to_vec());
    let mut silent = order.silent().to_vec();
    for &step in places {
        index.insert(step, -1);
        resets.insert(step, false);
        silent.insert(step, false);
    }
    Order::new(index, order.tokens())?.with_blank(order.blank()).with_resets(resets)?.with_silent(silent)
}

impl Plan {
    /// The plan of direction `k` alone.
    ///
    /// # Errors
    /// There is no direction `k`.
    pub fn direction(&self, k: usize) -> Result<Plan> {
        let order = self.orders().get(k).ok_or_else(|| {
            let count = self.directions();
            let last = count - 1;
            Error::Plan(format!("there is no direction {k}: the plan has {count}, numbered 0 to {last}"))
        })?;
        Plan::new(vec![order.clone()])
    }

    /// A plan for each direction, as layers take them that walk one direction each.
    pub fn split(&self) -> Vec<Plan> {
        (0..self.directions()).filter_map(|k| self.direction(k).ok()).collect()
    }
}
