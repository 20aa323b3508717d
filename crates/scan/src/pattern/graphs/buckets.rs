//! Graph-Mamba's buckets: the tokens fall into a few random sets, each walked by itself.

use std::sync::Arc;

use super::super::samples::Random;
use super::super::{Args, Entry, Modifier, Param, Rule, Value};
use super::seed;
use crate::{Geometry, Order, Plan, Result};

/// As many as the authors take.
const BUCKETS: i64 = 3;

pub(super) fn entry() -> Entry {
    Entry::modifier("buckets", "tokens in random sets, each walked by itself (Graph-Mamba)", |args: &Args| {
        let (count, by_number, seed) = (args.size("count")?, args.text("by")? == "number", seed(args)?);
        Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
            let mut random = Random::new(seed);
            let bucket = |token: usize| if by_number { token % count } else { random.below(count) };
            let buckets: Vec<usize> = (0..geometry.tokens()?).map(bucket).collect();
            let plan = source.plan(geometry)?;
            let orders = plan.orders().iter().map(|order| parted(order, &buckets));
            Plan::new(orders.collect::<Result<_>>()?)
        }) as Arc<dyn Modifier>)
    })
    .params([
        Param::size("count").or(Value::Int(BUCKETS)),
        Param::word("by", &["random", "number"]).or(Value::Text("random".into())),
        Param::seed(),
    ])
    .on("any")
}

/// Each segment of `order` bucket by bucket, the state starting afresh at each; a blank step stays with the token before
/// it.
fn parted(order: &Order, buckets: &[usize]) -> Result<Order> {
    let mut steps = Vec::with_capacity(order.len());
    let (mut segment, mut bucket) = (0usize, 0);
    for (step, &token) in order.index().iter().enumerate() {
        segment += usize::from(order.resets()[step]);
        bucket = usize::try_from(token).ok().and_then(|token| buckets.get(token)).copied().unwrap_or(bucket);
        steps.push((segment, bucket, token, order.silent()[step]));
    }
    steps.sort_by_key(|&(segment, bucket, ..)| (segment, bucket));
    let starts = steps.windows(2).map(|pair| (pair[0].0, pair[0].1) != (pair[1].0, pair[1].1));
    let resets = std::iter::once(order.resets().first() == Some(&true)).chain(starts).collect();
    let index = steps.iter().map(|step| step.2).collect();
    let silent = steps.iter().map(|step| step.3).collect();
    Order::new(index, order.tokens())?.with_blank(order.blank()).with_resets(resets)?.with_silent(silent)
}
