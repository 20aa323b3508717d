//! What tells orders apart, in numbers.

mod neighbours;

use serde::Serialize;

use crate::{Error, Geometry, Order, Plan, Result, Summary};
use neighbours::Neighbours;

/// Most steps of a plan that is measured: pairs are held at once.
const MAX_MEASURED: usize = 1 << 23;

/// Most edges that the searches for paths in a graph may pass, one search for each step.
const MAX_SEARCHED: usize = 1 << 34;

/// Directions whose overlap is measured, the first ones of a plan.
const MAX_OVERLAPPED: usize = 64;

/// What tells an order apart from others; [`stats`] says how each is computed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Stats {
    /// K.
    pub directions: usize,
    /// L.
    pub tokens: usize,
    /// Steps of all directions together.
    pub steps: usize,
    /// Distance along the scan between spatial neighbours, in steps; None without such a pair.
    pub step_distance: Option<Spread>,
    /// Distance in space between scan neighbours.
    pub space_distance: Option<Spread>,
    /// Share of scan neighbours that are spatial neighbours.
    pub adjacent: Option<f64>,
    /// Share of ordered pairs that two directions have in common; None for one direction.
    pub overlap_directed: Option<f64>,
    /// Share of unordered pairs that two directions have in common.
    pub overlap_undirected: Option<f64>,
    /// Blank steps.
    pub blanks: usize,
    /// Steps at which the state starts afresh.
    pub resets: usize,
    /// Visits beyond the first of a token, over all directions.
    pub repeats: usize,
    /// Tokens that a direction leaves out, over all directions.
    pub unvisited: usize,
    /// Scan neighbours without a path between them (graphs).
    pub unreachable: usize,
}

/// Mean and 95th percentile.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    /// The mean.
    pub mean: f64,
    /// The least value that at least 95% of the values do not exceed.
    pub p95: f64,
}

impl Spread {
    fn of(mut values: Vec<f64>) -> Option<Spread> {
        let count = values.len();
        let rank = (count * 19).div_ceil(20).checked_sub(1)?;
        let mean = values.iter().sum::<f64>() / count as f64;
        let (_, p95, _) = values.select_nth_unstable_by(rank, f64::total_cmp);
        Some(Spread { mean, p95: *p95 })
    }
}

/// Measures `plan` over `geometry`.
///
/// Tokens i and j are *spatial neighbours* if they are next to each other in a sequence, share a side in a grid (4 of
/// them in a 2-D one, 6 in a 3-D one), if one is among the 6 points nearest to the other, or if an edge joins them. Two
/// tokens are *scan neighbours* in a direction if it visits one right after the other with the same state: blank steps
/// between them do not count, a reset does. With r(i) the step of a direction's first visit of token i:
///
/// - **step distance** of spatial neighbours: |r(i) - r(j)|, over all pairs that the direction visits;
/// - **space distance** of scan neighbours: |x(i) - x(j)|, Euclidean in a sequence (of places 0, 1, …), grid or space, and
///   the number of edges between them in a graph (pairs without a path are left out, and counted);
/// - **adjacent**: the share of scan neighbours that are spatial neighbours;
/// - **overlap** of two directions: 2 |A ∩ B| / (|A| + |B|) for their sets A and B of scan neighbours, as ordered pairs
///   (directed) or as unordered ones (undirected).
///
/// Means, percentiles (nearest rank) and the share are over the pairs of all directions together, the overlap is the
/// mean over all pairs of directions.
///
/// # Errors
/// The plan is over another number of tokens than the geometry, has more than 2^23 steps, or walks a graph so large that
/// the paths between its nodes take too long to find.
pub fn stats(plan: &Plan, geometry: &Geometry) -> Result<Stats> {
    let tokens = geometry.tokens()?;
    if plan.tokens() != tokens {
        let found = plan.tokens();
        let message = format!("a plan over {found} tokens cannot be measured on {}", geometry.describe());
        return Err(Error::Plan(message));
    }
    let steps: usize = plan.orders().iter().map(Order::len).sum();
    if steps > MAX_MEASURED {
        let what = format!("a plan of {steps} steps");
        return Err(Error::TooLarge { what, limit: format!("{MAX_MEASURED} steps") });
    }
    let space = Neighbours::of(geometry);
    if space.search() > MAX_SEARCHED / steps {
        let what = format!("the distances of {steps} steps over {}", geometry.describe());
        return Err(Error::TooLarge { what, limit: format!("{MAX_SEARCHED} edges passed") });
    }
    let (mut along, mut apart) = (Vec::new(), Vec::new());
    let (mut next, mut adjacent, mut unreachable) = (0usize, 0usize, 0usize);
    let mut walks: Vec<Vec<(u32, u32)>> = Vec::new();
    for order in plan.orders() {
        let first = first_visits(order);
        along.extend(space.pairs().filter_map(|(i, j)| Some(first[i]?.abs_diff(first[j]?) as f64)));
        let pairs = scan_neighbours(order);
        next += pairs.len();
        for &(i, j) in &pairs {
            adjacent += usize::from(space.adjacent(i as usize, j as usize));
            match space.distance(i as usize, j as usize) {
                Some(distance) => apart.push(distance),
                None => unreachable += 1,
            }
        }
        if walks.len() < MAX_OVERLAPPED {
            walks.push(pairs);
        }
    }
    let undirected = walks.iter().map(|walk| walk.iter().map(|&(i, j)| (i.min(j), i.max(j))).collect());
    let summaries: Vec<Summary> = plan.orders().iter().map(Order::summary).collect();
    let sum = |count: fn(&Summary) -> usize| summaries.iter().map(count).sum();
    Ok(Stats {
        directions: plan.directions(),
        tokens,
        steps,
        step_distance: Spread::of(along),
        space_distance: Spread::of(apart),
        adjacent: (next > 0).then(|| adjacent as f64 / next as f64),
        overlap_undirected: overlap(undirected.collect()),
        overlap_directed: overlap(walks),
        blanks: sum(|order| order.blanks),
        resets: sum(|order| order.resets),
        // Steps that visit a token, less the first visits.
        repeats: sum(|order| order.steps - order.blanks - (order.tokens - order.unvisited)),
        unvisited: sum(|order| order.unvisited),
        unreachable,
    })
}

/// The step at which each token is first visited.
fn first_visits(order: &Order) -> Vec<Option<usize>> {
    let mut first = vec![None; order.tokens()];
    for (step, &token) in order.index().iter().enumerate() {
        if let Some(slot) = usize::try_from(token).ok().and_then(|token| first.get_mut(token)) {
            slot.get_or_insert(step);
        }
    }
    first
}

/// The tokens that are visited one right after the other, in the walk's order.
fn scan_neighbours(order: &Order) -> Vec<(u32, u32)> {
    let (mut pairs, mut last) = (Vec::with_capacity(order.len()), None);
    for (&token, &reset) in order.index().iter().zip(order.resets()) {
        if reset {
            last = None;
        }
        if let Ok(token) = u32::try_from(token) {
            pairs.extend(last.map(|last| (last, token)));
            last = Some(token);
        }
    }
    pairs
}

/// The mean over all pairs of walks of the share of pairs that they have in common.
fn overlap(mut walks: Vec<Vec<(u32, u32)>>) -> Option<f64> {
    for walk in &mut walks {
        walk.sort_unstable();
        walk.dedup();
    }
    let (mut sum, mut count) = (0.0, 0usize);
    for (k, a) in walks.iter().enumerate() {
        for b in walks.iter().skip(k + 1).filter(|b| a.len() + b.len() > 0) {
            let common = a.iter().filter(|pair| b.binary_search(pair).is_ok()).count();
            sum += 2.0 * common as f64 / (a.len() + b.len()) as f64;
            count += 1;
        }
    }
    (count > 0).then(|| sum / count as f64)
}
