//! Numbers that say how a node lies in its graph.

use std::{
    ops::Range,
    sync::atomic::{AtomicU64, Ordering},
};

use rayon::prelude::*;

use crate::{Error, Graph, Result, graph::Neighbours};

/// Most steps of a random walk.
const MAX_WALK: usize = 1 << 16;

/// Most edges that the random walks of a graph may pass together.
const MAX_WALKED: u64 = 1 << 33;

/// Walks that tell how long those of all nodes will be.
const TRIED: usize = 64;

/// Most steps of the power iteration. A graph that has not settled by then, such as a long path, takes what is reached.
const MAX_STEPS: usize = 1000;

/// Mean change of an entry below which the power iteration has settled.
const SETTLED: f64 = 1e-12;

/// Eigenvector centrality of each node: the entries of the leading eigenvector of the adjacency matrix of the simple
/// undirected graph, of length 1 in each graph (Bonacich 1987), by power iteration from equal entries on A + I, as
/// networkx does it: the identity keeps the iteration from swinging on a graph of two halves.
pub(super) fn eigenvector(graph: &Graph) -> Vec<f64> {
    let neighbours = graph.undirected();
    let mut centrality = vec![0.0; graph.nodes()];
    for sample in graph.samples() {
        let start = sample.start;
        let degree: usize = sample.clone().map(|node| neighbours.of_node(node).len()).sum();
        if degree == 0 {
            continue; // no eigenvector to speak of: all are alike
        }
        let mut x = vec![1.0 / (sample.len() as f64).sqrt(); sample.len()];
        for _ in 0..MAX_STEPS {
            let entry = |(i, &own): (usize, &f64)| {
                let others = neighbours.of_node(start + i).iter();
                own + others.map(|&other| x[other as usize - start]).sum::<f64>()
            };
            let mut next: Vec<f64> = x.iter().enumerate().map(entry).collect();
            let length = next.iter().map(|x| x * x).sum::<f64>().sqrt();
            next.iter_mut().for_each(|x| *x /= length);
            let change: f64 = next.iter().zip(&x).map(|(new, old)| (new - old).abs()).sum();
            x = next;
            if change < SETTLED * x.len() as f64 {
                break;
            }
        }
        centrality[sample].copy_from_slice(&x);
    }
    centrality
}

/// The sum over k = 1 to `steps` of the chance that a random walk from the node is back at it after k steps: the diagonal
/// of (D^-1 A)^k, the random-walk structural encoding (Dwivedi et al. 2022).
///
/// A walk ends at a node that no edge leaves. The work is that of `steps` products of the matrix with a vector for each
/// node, over the part of the graph that the walk reaches.
///
/// # Errors
/// The walks are longer than [`MAX_WALK`] steps or pass more than [`MAX_WALKED`] edges.
pub(super) fn walk_returns(graph: &Graph, steps: usize) -> Result<Vec<f64>> {
    if steps > MAX_WALK {
        let what = format!("`rwse` with walks of {steps} steps");
        return Err(Error::TooLarge { what, limit: format!("{MAX_WALK} steps") });
    }
    let too_long = || {
        let what = format!("`rwse` with walks of {steps} steps over a graph of {} nodes", graph.nodes());
        Error::TooLarge { what, limit: format!("{MAX_WALKED} edges passed") }
    };
    let neighbours = graph.neighbours();
    let samples: Vec<_> = graph.samples().collect();
    let nodes: Vec<_> =
        samples.iter().flat_map(|sample| sample.clone().map(move |node| (sample.clone(), node))).collect();
    let walked = AtomicU64::new(0);
    let returns = |nodes: Vec<(Range<usize>, usize)>| -> Result<Vec<f64>> {
        let walks = nodes.into_par_iter().map_init(Walk::default, |walk, (sample, node)| {
            walk.returns(&neighbours, sample, node, steps, &walked).ok_or_else(too_long)
        });
        walks.collect()
    };
    // A minute's work is refused before it is begun: a few walks, from all over the graph, tell how long all will be. Twice
    // the limit, since they may tell of a part that is denser than the rest.
    if nodes.len() > 8 * TRIED {
        returns(nodes.iter().step_by(nodes.len() / TRIED).cloned().collect())?;
        let few = walked.swap(0, Ordering::Relaxed);
        if few.saturating_mul((nodes.len() / TRIED) as u64) > 2 * MAX_WALKED {
            return Err(too_long());
        }
    }
    returns(nodes)
}

/// Where a random walk may be, with which chance. All zero between one walk and the next: a short one in a large graph
/// costs little.
#[derive(Default)]
struct Walk {
    now: Vec<f64>,
    next: Vec<f64>,
}

impl Walk {
    /// The chances of `node` in `sample`, added up; none where `walked`, the edges passed, goes beyond [`MAX_WALKED`].
    fn returns(
        &mut self,
        neighbours: &Neighbours,
        sample: Range<usize>,
        node: usize,
        steps: usize,
        walked: &AtomicU64,
    ) -> Option<f64> {
        let Walk { now, next } = self;
        now.resize(sample.len().max(now.len()), 0.0);
        next.resize(sample.len().max(next.len()), 0.0);
        // Nodes that the walk may be at.
        let mut at = vec![node - sample.start];
        now[node - sample.start] = 1.0;
        let mut back = 0.0;
        for _ in 0..steps {
            if at.is_empty() {
                break; // it has ended
            }
            let passed: usize = at.iter().map(|&i| 1 + neighbours.of_node(sample.start + i).len()).sum();
            if walked.fetch_add(passed as u64, Ordering::Relaxed) > MAX_WALKED {
                return None;
            }
            let mut reached = Vec::new();
            for i in at {
                let chance = std::mem::take(&mut now[i]);
                let found = neighbours.of_node(sample.start + i);
                for &other in found {
                    let place = &mut next[other as usize - sample.start];
                    if *place == 0.0 {
                        reached.push(other as usize - sample.start);
                    }
                    *place += chance / found.len() as f64;
                }
            }
            reached.sort_unstable();
            reached.dedup();
            std::mem::swap(now, next);
            back += now[node - sample.start];
            at = reached;
        }
        at.into_iter().for_each(|i| now[i] = 0.0);
        Some(back)
    }
}
