//! Orders of the nodes of graphs: those of Graph-Mamba (arXiv 2402.00789), the authors' code where the paper is silent.
//!
//! Graphs that are packed together are walked one after another, the state starting afresh at each. Nodes of equal keys
//! keep their numbering. What the orders make of unusual graphs:
//! - degree counts the edges that leave a node, as they are given: one from the node to itself once, a repeated one each
//!   time, and one that is given in one direction only at its source;
//! - a node without edges has degree 0, centrality 0 and no random walk back, and is a cluster by itself;
//! - centrality and clusters take the simple undirected graph ([`Graph::undirected`]), random walks the edges as given;
//! - a graph that is not connected needs nothing special, but its centrality is that of its best connected part, and
//!   falls to 0 in the others.

mod buckets;
mod centrality;
mod clusters;

use std::sync::Arc;

use super::points::ascending;
use super::samples::{self, Random};
use super::{Args, Entry, Param, Rule, Value};
use crate::{Geometry, Graph, Order, Plan, Result};

/// Steps of the random walk whose returns are summed: as many as the authors' configurations take.
const WALK: i64 = 16;

/// Random neighbours that stand before each node in the augmented sequence.
const NEIGHBOURS: i64 = 3;

/// How nodes of one degree stand.
#[derive(Clone, Copy)]
enum Ties {
    /// As they are numbered.
    Number,
    /// As they come after a random permutation within each graph.
    Shuffle,
    /// As noise from 0 to 1 on the degree has them.
    Noise,
    /// Cluster by cluster, the clusters of the graph and the nodes of each in random order.
    Cluster,
}

/// By degree, ascending, so that those with the most edges come last and see all others.
fn by_degree(graph: &Graph, ties: Ties, seed: u64) -> Result<Plan> {
    let degrees = graph.degrees();
    // At which step a plan comes to each node.
    let ranks = |plan: Plan| -> Result<Vec<u64>> {
        Ok(plan.orders()[0].inverse()?.index().iter().map(|&step| u64::from(step.unsigned_abs())).collect())
    };
    let second: Vec<u64> = match ties {
        Ties::Number => vec![0; degrees.len()],
        Ties::Shuffle => ranks(samples::shuffled(graph.starts(), seed)?)?,
        Ties::Cluster => ranks(clusters::plan(graph, Some(seed))?)?,
        Ties::Noise => {
            let mut random = Random::new(seed);
            degrees.iter().map(|_| random.bits()).collect()
        }
    };
    let keys: Vec<(u32, u64)> = degrees.into_iter().zip(second).collect();
    samples::sorted(graph.starts(), &keys)
}

/// By a number of each node, ascending; with noise, `noise` standard deviations of the graph's own numbers are drawn
/// for each node and added. (The authors take the deviation over all graphs of a batch, so that a graph would depend on
/// those it is packed with.)
fn by_score(graph: &Graph, mut scores: Vec<f64>, noise: Option<&mut dyn FnMut() -> f64>) -> Result<Plan> {
    // Sums in another order differ in the last digits: nodes that are alike must tie.
    for score in &mut scores {
        *score = (*score * 1e8).round() / 1e8;
    }
    if let Some(draw) = noise {
        for sample in graph.samples() {
            let deviation = deviation(&scores[sample.clone()]);
            for score in &mut scores[sample] {
                *score += deviation * draw();
            }
        }
    }
    samples::sorted(graph.starts(), &scores.into_iter().map(ascending).collect::<Vec<_>>())
}

/// Standard deviation, divided by one less than there are.
fn deviation(numbers: &[f64]) -> f64 {
    if numbers.len() < 2 {
        return 0.0;
    }
    let mean = numbers.iter().sum::<f64>() / numbers.len() as f64;
    let squares = numbers.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>();
    (squares / (numbers.len() - 1) as f64).sqrt()
}

impl Graph {
    /// The cluster of each node by the Louvain method, named by its first node: (L).
    ///
    /// Modularity of the simple undirected graph, nodes in the order of their numbers; the same on every machine.
    pub fn louvain_clusters(&self) -> Vec<u32> {
        clusters::clusters(self)
    }

    /// Graph-Mamba's augmented sequence: before each node stand the nodes that its edges lead to, `neighbours` random
    /// ones if there are more. They are silent: the output is read where the node itself stands, and there alone.
    ///
    /// # Errors
    /// The sequence is longer than [`MAX_STEPS`](crate::MAX_STEPS).
    pub fn augmented(&self, neighbours: usize, seed: u64) -> Result<Order> {
        let all = self.neighbours();
        let mut random = Random::new(seed);
        let (mut index, mut silent, mut starts) = (Vec::new(), Vec::new(), Vec::new());
        for sample in self.samples() {
            starts.push(index.len());
            for node in sample {
                let found = all.of_node(node);
                let mut chosen: Vec<i32> = found.iter().map(|&node| node as i32).collect();
                if found.len() > neighbours {
                    random.shuffle(&mut chosen);
                    chosen.truncate(neighbours);
                }
                silent.resize(index.len() + chosen.len(), true);
                index.append(&mut chosen);
                index.push(node as i32);
                silent.push(false);
            }
        }
        samples::walk(index, self.nodes(), &starts)?.with_silent(silent)
    }
}

/// The graph of `geometry`, or an error that says what `pattern` needs.
fn need_graph<'a>(geometry: &'a Geometry, pattern: &str) -> Result<&'a Graph> {
    match geometry {
        Geometry::Graph(graph) => Ok(graph),
        _ => Err(geometry.unfit(
            pattern,
            "a graph",
            "give a graph, or a pattern for sequences such as `random`",
        )),
    }
}

/// A curve over graphs from a closure.
fn rule(
    name: &'static str,
    plan: impl Fn(&Graph) -> Result<Plan> + Send + Sync + 'static,
) -> Result<Arc<dyn Rule>> {
    Ok(Arc::new(move |geometry: &Geometry| plan(need_graph(geometry, name)?)))
}

fn seed(args: &Args) -> Result<u64> {
    Ok(args.int("seed")?.unsigned_abs())
}

pub(super) fn entries() -> Vec<Entry> {
    let word = |word: &str| Value::Text(word.into());
    let entries = [
        Entry::curve("degree", "nodes by degree, the best connected last (Graph-Mamba)", |args: &Args| {
            let seed = seed(args)?;
            let ties = match args.text("ties")? {
                "shuffle" => Ties::Shuffle,
                "noise" => Ties::Noise,
                "cluster" => Ties::Cluster,
                _ => Ties::Number,
            };
            rule("degree", move |graph| by_degree(graph, ties, seed))
        })
        .params([
            Param::word("ties", &["number", "shuffle", "noise", "cluster"]).or(word("number")),
            Param::seed(),
        ]),
        Entry::curve("eigen", "nodes by eigenvector centrality (Graph-Mamba)", |args: &Args| {
            let (noise, seed) = (args.flag("noise")?, seed(args)?);
            rule("eigen", move |graph| {
                let mut random = Random::new(seed);
                let mut draw = || random.unit();
                by_score(graph, centrality::eigenvector(graph), noise.then_some(&mut draw))
            })
        })
        .params([Param::flag("noise", false), Param::seed()]),
        Entry::curve(
            "rwse",
            "nodes by how often a random walk returns to them (Graph-Mamba)",
            |args: &Args| {
                let (steps, noise, seed) = (args.size("steps")?, args.flag("noise")?, seed(args)?);
                rule("rwse", move |graph| {
                    let mut random = Random::new(seed);
                    let mut draw = || random.normal();
                    let returns = centrality::walk_returns(graph, steps)?;
                    by_score(graph, returns.into_iter().map(|x| -x).collect(), noise.then_some(&mut draw))
                })
            },
        )
        .params([
            Param::size("steps").or(Value::Int(WALK)),
            Param::flag("noise", false),
            Param::seed(),
        ]),
        Entry::curve(
            "louvain",
            "nodes cluster by cluster, clusters by Louvain (Graph-Mamba)",
            |args: &Args| {
                let (shuffle, seed) = (args.text("within")? == "shuffle", seed(args)?);
                rule("louvain", move |graph| clusters::plan(graph, shuffle.then_some(seed)))
            },
        )
        .params([Param::word("within", &["shuffle", "degree"]).or(word("shuffle")), Param::seed()]),
        Entry::curve("augment", "before each node some of its neighbours (Graph-Mamba)", |args: &Args| {
            let (neighbours, seed) = (args.size("neighbours")?, seed(args)?);
            rule("augment", move |graph| Plan::new(vec![graph.augmented(neighbours, seed)?]))
        })
        .params([Param::size("neighbours").or(Value::Int(NEIGHBOURS)), Param::seed()]),
    ];
    let mut entries: Vec<Entry> = entries.into_iter().map(|entry| entry.on("graph")).collect();
    entries.push(buckets::entry());
    entries
}
