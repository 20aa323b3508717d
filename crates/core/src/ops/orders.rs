//! Scan plans as the ops take them.

use std::sync::Arc;

use ophidian_kernels::orders::{BLANK, SKIP, identity};
use ophidian_scan::{Blank, Order, Plan};

use crate::{Error, Result};

/// K visiting orders over L tokens, static or one set per sample. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Orders(Arc<Table>);

#[derive(Debug)]
struct Table {
    table: Vec<i32>,
    resets: Option<Vec<u8>>,
    steps: usize,
    directions: usize,
    tokens: usize,
    /// Samples, if every sample has its own orders.
    samples: Option<usize>,
}

impl Orders {
    /// The orders of a static plan.
    pub fn new(plan: &Plan) -> Orders {
        Self::build(&[plan], None)
    }

    /// One plan per sample.
    ///
    /// # Errors
    /// No plan, or plans that differ in their number of tokens or directions.
    pub fn per_sample(plans: &[Plan]) -> Result<Orders> {
        let Some(first) = plans.first() else {
            return Err(Error::invalid("per-sample orders need at least one plan"));
        };
        let shape = |plan: &Plan| (plan.tokens(), plan.orders().len());
        if let Some(i) = plans.iter().position(|plan| shape(plan) != shape(first)) {
            return Err(Error::invalid(format!(
                "plan {i} has (tokens, directions) = {:?}, plan 0 has {:?}",
                shape(&plans[i]),
                shape(first)
            )));
        }
        Ok(Self::build(&plans.iter().collect::<Vec<_>>(), Some(plans.len())))
    }

    /// `directions` plain left-to-right orders.
    pub fn identity(tokens: i64, directions: i64) -> Orders {
        let (tokens, directions) = (tokens.max(0) as usize, directions.max(0) as usize);
        let table = identity(tokens, directions);
        Orders(Arc::new(Table { table, resets: None, steps: tokens, directions, tokens, samples: None }))
    }

    /// Left-to-right orders over packed sequences: `ids` (B, L) names the sequence of each token. The state starts
    /// afresh where the id changes; tokens with a negative id are skipped (and what follows them is another sequence).
    pub fn packed(ids: &[i64], batch: i64, tokens: i64) -> Orders {
        let (batch, tokens) = (batch.max(0) as usize, tokens.max(0) as usize);
        let ids = &ids[..ids.len().min(batch * tokens)];
        let table =
            ids.iter().enumerate().map(|(i, id)| if *id < 0 { SKIP } else { (i % tokens) as i32 }).collect();
        let resets =
            ids.iter().enumerate().map(|(i, id)| u8::from(i % tokens > 0 && ids[i - 1] != *id)).collect();
        let samples = Some(batch);
        Orders(Arc::new(Table { table, resets: Some(resets), steps: tokens, directions: 1, tokens, samples }))
    }

    fn build(plans: &[&Plan], samples: Option<usize>) -> Orders {
        let orders: Vec<&Order> = plans.iter().flat_map(|plan| plan.orders()).collect();
        let steps = orders.iter().map(|order| order.len()).max().unwrap_or(0);
        let mut table = vec![SKIP; orders.len() * steps];
        let mut resets = vec![0u8; table.len()];
        for (i, order) in orders.iter().enumerate() {
            let blank = if order.blank() == Blank::Zero { BLANK } else { SKIP };
            for (t, token) in order.index().iter().enumerate() {
                table[i * steps + t] = if *token < 0 { blank } else { *token };
                resets[i * steps + t] = u8::from(order.resets().get(t).copied().unwrap_or(false));
            }
        }
        let resets = resets.contains(&1).then_some(resets);
        let (tokens, directions) = plans.first().map_or((0, 0), |plan| (plan.tokens(), plan.orders().len()));
        Orders(Arc::new(Table { table, resets, steps, directions, tokens, samples }))
    }

    /// K.
    pub fn directions(&self) -> i64 {
        self.0.directions as i64
    }

    /// The first direction alone.
    pub fn first(&self) -> Orders {
        fn heads<T: Copy>(values: &[T], sample: usize, steps: usize) -> Vec<T> {
            values.chunks(sample.max(1)).flat_map(|directions| &directions[..steps]).copied().collect()
        }
        let Table { ref table, ref resets, steps, directions, tokens, samples } = *self.0;
        let sample = steps * directions;
        let table = heads(table, sample, steps);
        let resets = resets.as_ref().map(|resets| heads(resets, sample, steps));
        Orders(Arc::new(Table { table, resets, steps, directions: directions.min(1), tokens, samples }))
    }

    /// The tokens visited at step `step` of all samples and directions, in this order; negative for none.
    pub fn visited(&self, step: usize) -> Vec<i32> {
        self.0.table.iter().skip(step).step_by(self.0.steps.max(1)).copied().collect()
    }

    /// L.
    pub fn tokens(&self) -> i64 {
        self.0.tokens as i64
    }

    /// How many samples it is for, if every sample has its own orders.
    pub fn samples(&self) -> Option<i64> {
        self.0.samples.map(|n| n as i64)
    }

    pub(crate) fn kernel(&self) -> ophidian_kernels::Orders<'_> {
        ophidian_kernels::Orders {
            table: &self.0.table,
            resets: self.0.resets.as_deref(),
            steps: self.0.steps,
            per_sample: self.0.samples.is_some(),
        }
    }
}
