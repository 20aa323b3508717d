//! What an order costs: a scan along K orders beside K plain left-to-right scans of the same tokens, or over a tree beside a
//! chain.

use std::{sync::Arc, time::Instant};

use ophidian_scan::{Geometry, Graph, Order, Plan, Points};
use rand::RngExt;
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use super::{Case, Effort, Prepared, Shape};
use crate::{
    Result,
    ops::{Sweep, Trees, tree_scan},
    rng,
    torch::peak_of_tensors,
};

/// What [`compare`] measured, as one JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct OrderRow {
    /// The pattern.
    pub pattern: String,
    /// Where the tokens lie.
    pub geometry: String,
    /// K.
    pub directions: usize,
    /// Steps of all orders together, over K L: above 1 where blanks are walked or tokens visited again.
    pub steps: f64,
    /// Median seconds of a forward along the orders.
    pub forward_s: f64,
    /// Median seconds of a forward and backward along the orders.
    pub both_s: f64,
    /// Lower quartile, median and upper quartile of its quotients by K left-to-right scans, round by round.
    pub forward_ratio: [f64; 3],
    /// The same with the backward.
    pub both_ratio: [f64; 3],
    /// Most memory of tensors in a forward and backward beyond its inputs, less that of K left-to-right scans, in
    /// activations (B L D f32 values).
    pub more_activations: f64,
    /// How many rounds these are of.
    pub rounds: usize,
    /// Standard error of the less certain of the two median quotients, as a share of it: sqrt(pi/2) sigma / sqrt(rounds),
    /// sigma from the quartiles of a normal distribution.
    pub error: f64,
    /// What the medians and quartiles are of: (seconds, quotient) of every round, forward and with the backward.
    #[serde(skip)]
    took: [Vec<(f64, f64)>; 2],
}

impl OrderRow {
    /// The row over the rounds of both: of the same scan at another time, its tensors elsewhere in memory.
    pub fn joined(mut self, other: OrderRow) -> OrderRow {
        self.took.iter_mut().zip(other.took).for_each(|(took, others)| took.extend(others));
        self.sum_up();
        self
    }

    fn sum_up(&mut self) {
        let [forward, both] = &self.took;
        (self.forward_s, self.forward_ratio) = summed_up(forward);
        (self.both_s, self.both_ratio) = summed_up(both);
        self.rounds = forward.len();
        let error =
            |[low, median, high]: [f64; 3]| 0.929 * (high - low) / median / (forward.len() as f64).sqrt();
        self.error = error(self.forward_ratio).max(error(self.both_ratio));
    }
}

/// Times the scan of `case` along `plan`, whatever its own pattern is, and K left-to-right scans in turns, so that a machine
/// whose speed drifts changes both, and over the very same tensors: where they happen to lie in memory is worth up to a
/// tenth. The row is called `named`.
///
/// # Errors
/// As [`super::measure`].
pub fn compare(case: &Case, named: &str, plan: &Plan, effort: Effort) -> Result<OrderRow> {
    let (tokens, directions) = (plan.tokens(), plan.directions());
    let plain =
        Plan::new((0..directions).map(|_| Order::identity(tokens)).collect::<ophidian_scan::Result<_>>()?)?;
    let along = Prepared::along(case, plan)?;
    let beside = along.with_orders(&plain);
    let forward = |prepared: &Prepared| prepared.forward().map(|_| ());
    let forwards: [Run; 2] = [&|| forward(&along), &|| forward(&beside)];
    let both: [Run; 2] = [&|| along.forward_backward(), &|| beside.forward_backward()];
    let steps: usize = plan.orders().iter().map(Order::len).sum();
    let steps = steps as f64 / (directions * tokens) as f64;
    Ok(OrderRow { directions, steps, ..measured(named, &case.shape, forwards, both, effort)? })
}

/// The same of a [`tree_scan`] over `trees` beside one over a chain, the tree of which every token is the child of the one
/// after it.
///
/// # Errors
/// As [`tree_scan`].
pub fn compare_trees(
    shape: &Shape,
    named: &str,
    trees: &Trees,
    sweep: Sweep,
    effort: Effort,
) -> Result<OrderRow> {
    let l = trees.tokens() as i32;
    let chain = Trees::new(&(1..l).chain([-1]).collect::<Vec<_>>());
    tch::manual_seed(0);
    let leaf = || {
        let drawn = Tensor::randn([shape.batch, i64::from(l), shape.channels], (Kind::Float, Device::Cpu));
        drawn.set_requires_grad(true)
    };
    let (input, decay) = (leaf(), leaf().sigmoid().detach().set_requires_grad(true));
    let forward = |trees: &Trees| tree_scan(&input, &decay, trees, sweep);
    let both = |trees: &Trees| {
        let sum = forward(trees)?.f_sum(Kind::Float)?;
        Tensor::f_run_backward(&[sum], &[&input, &decay], false, false)?;
        Ok(())
    };
    let forwards: [Run; 2] = [&|| forward(trees).map(drop), &|| forward(&chain).map(drop)];
    measured(named, shape, forwards, [&|| both(trees), &|| both(&chain)], effort)
}

type Run<'a> = &'a dyn Fn() -> Result<()>;

/// The row of one step for each token in one direction: of forwards, and of passes with the backward, each beside the plain
/// one.
fn measured(
    named: &str,
    shape: &Shape,
    forwards: [Run; 2],
    both: [Run; 2],
    effort: Effort,
) -> Result<OrderRow> {
    let memory = |run: Run| {
        let (done, peak) = peak_of_tensors(run);
        done.map(|()| peak as f64)
    };
    // The first run of a process pays for libtorch's own set-up.
    both[1]()?;
    let (less, more) = (memory(both[1])?, memory(both[0])?);
    let took = [tch::no_grad(|| in_turns(effort, forwards))?, in_turns(effort, both)?];
    let activation = (shape.batch * shape.channels) as f64 * shape.geometry.tokens()? as f64 * 4.0;
    let mut row = OrderRow {
        pattern: named.to_owned(),
        geometry: shape.geometry.to_string(),
        directions: 1,
        steps: 1.0,
        forward_s: 0.0,
        both_s: 0.0,
        forward_ratio: [0.0; 3],
        both_ratio: [0.0; 3],
        more_activations: (more - less) / activation,
        rounds: 0,
        error: 0.0,
        took,
    };
    row.sum_up();
    Ok(row)
}

/// Seconds of the first of two, and their quotient by those of the second, by round: each runs both, and every second
/// round the other way about.
fn in_turns(effort: Effort, runs: [Run; 2]) -> Result<Vec<(f64, f64)>> {
    let mut rounds = Vec::new();
    for round in 0..effort.warmup + effort.runs.max(1) {
        let mut took = [0.0; 2];
        for turn in 0..2 {
            let which = (round + turn) % 2;
            let start = Instant::now();
            runs[which]()?;
            took[which] = start.elapsed().as_secs_f64();
        }
        if round >= effort.warmup {
            rounds.push((took[0], took[0] / took[1]));
        }
    }
    Ok(rounds)
}

/// Median seconds, and quartiles of the quotients.
fn summed_up(rounds: &[(f64, f64)]) -> (f64, [f64; 3]) {
    let (seconds, quotients) = rounds.iter().copied().unzip();
    (quartiles(seconds)[1], quartiles(quotients))
}

fn quartiles(mut values: Vec<f64>) -> [f64; 3] {
    values.sort_by(f64::total_cmp);
    let last = values.len() - 1;
    [last / 4, last.div_ceil(2), last - last / 4].map(|at| values[at])
}

/// `n` points (at least 2) drawn from a cube, and a graph of `n` nodes with two random edges each: what orders from data
/// are timed on.
///
/// # Errors
/// `n` is too small or too large for a geometry.
pub fn random_geometries(n: usize) -> Result<[Geometry; 2]> {
    let mut rng = rng::stream(&[0]);
    let xyz = (0..n).map(|_| [(); 3].map(|()| rng.random_range(0.0..1.0f32))).collect();
    let points = Points::new(xyz)?;
    let mut edges = Vec::with_capacity(4 * n);
    for from in (0..n).chain(0..n) {
        let to = (from + rng.random_range(1..n.max(2))) % n.max(1);
        edges.extend([[from as u32, to as u32], [to as u32, from as u32]]);
    }
    Ok([Geometry::Points(Arc::new(points)), Geometry::Graph(Arc::new(Graph::new(n, edges)?))])
}
