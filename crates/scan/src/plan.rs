//! Several directions over the same tokens.

use crate::geometry::{MAX_DIRECTIONS, MAX_STEPS, too_many};
use crate::{Error, Order, Result};

/// K visiting orders over the same L tokens: what a [`Pattern`](crate::Pattern) makes for a geometry.
///
/// The orders may differ in length. Data-dependent orders are plans too, one per sample.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    orders: Vec<Order>,
    tokens: usize,
}

impl Plan {
    /// A plan of `orders`, all over the same number of tokens.
    ///
    /// # Errors
    /// No order, more than [`MAX_DIRECTIONS`], more than [`MAX_STEPS`] steps together, or orders over different
    /// numbers of tokens.
    pub fn new(orders: Vec<Order>) -> Result<Plan> {
        let Some(first) = orders.first() else {
            return Err(Error::Plan("a plan needs at least one order".into()));
        };
        let tokens = first.tokens();
        if let Some(k) = orders.iter().position(|order| order.tokens() != tokens) {
            let found = orders[k].tokens();
            return Err(Error::Plan(format!("order.{k} is over {found} tokens, order.0 over {tokens}")));
        }
        if orders.len() > MAX_DIRECTIONS {
            let what = format!("a plan of {} directions", orders.len());
            return Err(Error::TooLarge { what, limit: format!("{MAX_DIRECTIONS} directions") });
        }
        let steps: usize = orders.iter().map(Order::len).sum();
        if steps > MAX_STEPS {
            return Err(too_many(format!("a plan of {steps} steps")));
        }
        Ok(Plan { orders, tokens })
    }

    /// The orders, one per direction (K).
    pub fn orders(&self) -> &[Order] {
        &self.orders
    }

    /// How many tokens they are over (L).
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// How many directions there are (K).
    pub fn directions(&self) -> usize {
        self.orders.len()
    }

    /// The same plan if every direction visits every token once, beside blank and silent steps.
    ///
    /// # Errors
    /// A direction that does not is named, with what it does instead.
    pub fn each_once(self) -> Result<Plan> {
        let faults = |(k, order): (usize, &Order)| Some((k, order.faults()?));
        match self.orders.iter().enumerate().find_map(faults) {
            Some((k, faults)) => {
                Err(Error::Plan(format!("order.{k} does not visit every token once: {faults}")))
            }
            None => Ok(self),
        }
    }

    /// Every direction walked from its end to its start.
    pub fn reversed(&self) -> Plan {
        Plan { orders: self.orders.iter().map(Order::reversed).collect(), tokens: self.tokens }
    }

    /// The directions of both plans, these first.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn joined(mut self, other: Plan) -> Result<Plan> {
        self.orders.extend(other.orders);
        Plan::new(self.orders)
    }

    /// The plan over one more token, which takes number `token`; the tokens from there on are renumbered by one.
    ///
    /// Every direction visits it once, at the step that `step` names for it (0 is before all others, T after them).
    /// `plan.with_token(0, |order| order.len() / 2)`, for example, is a class token in the middle of each walk, blank
    /// steps counted, and first in the numbering.
    ///
    /// # Errors
    /// `token` is above L, a step is above T, or the plan would be too large.
    pub fn with_token(&self, token: usize, step: impl Fn(&Order) -> usize) -> Result<Plan> {
        let tokens = self.tokens + 1;
        if token >= tokens {
            let message = format!("a token cannot be inserted as number {token} of {tokens}");
            return Err(Error::Plan(message));
        }
        let insert = |(k, order): (usize, &Order)| {
            let (step, steps) = (step(order), order.len());
            if step > steps {
                let message =
                    format!("a token cannot be inserted at step {step} of order.{k} ({steps} steps)");
                return Err(Error::Plan(message));
            }
            order.renumbered(tokens, |i| Some(i + usize::from(i >= token))).inserted(step, token, tokens)
        };
        Plan::new(self.orders.iter().enumerate().map(insert).collect::<Result<_>>()?)
    }

    /// The plan over a token sequence in which a class token stands at number `at`: a plan over a 7 x 9 grid becomes
    /// one over 64 tokens.
    ///
    /// Each direction visits the class token midway between the steps that visit its neighbours in the numbering,
    /// token `at - 1` and the token that was `at` (or the nearest ones that the direction visits, at their first
    /// visit). So the row order becomes the row order of the longer sequence, its reverse the reverse, and a class
    /// token in the middle of a grid stays in the middle of column order too. Where a direction has a neighbour on one
    /// side only, the class token goes to the end of the walk that is nearer to that neighbour; with no neighbour at
    /// all, it comes last. It never starts a segment: before a reset, it belongs to the segment that ends there.
    ///
    /// # Errors
    /// `at` is above L.
    pub fn insert_token(&self, at: usize) -> Result<Plan> {
        self.with_token(at, |order| step_between(order, at))
    }
}

/// The step before which a new token numbered `at` stands between its neighbours.
fn step_between(order: &Order, at: usize) -> usize {
    let steps = order.len();
    let visited = order.index().iter().enumerate().filter_map(|(t, &i)| Some((usize::try_from(i).ok()?, t)));
    // The nearest visited tokens on both sides of `at`, at their first visit.
    let before =
        visited.clone().filter(|(token, _)| *token < at).max_by_key(|&(token, t)| (token, steps - t));
    let after = visited.filter(|(token, _)| *token >= at).min_by_key(|&(token, t)| (token, t));
    match (before, after) {
        // Rounded towards the neighbour that is visited second, so that reversing the walk reverses the result.
        (Some((_, p)), Some((_, q))) if p < q => (p + q) / 2 + 1,
        (Some((_, p)), Some((_, q))) => (p + q).div_ceil(2),
        (Some((_, p)), None) if p + 1 < steps - p => 0,
        (None, Some((_, q))) if q < steps - q => 0,
        _ => steps,
    }
}
