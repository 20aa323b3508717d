//! Minimum spanning trees over the tokens, from their features: where the tree scan walks (GrootV and GrootL, Xiao et
//! al. 2024, arXiv 2406.02395, section 3.1).
//!
//! A tree is the cheapest that connects the tokens along candidate edges, an edge costing `exp(-cos(x_i, x_j))`, hung
//! up at a root. Costs that are equal (or NaN) go by the order of the edges, so the same features give the same tree
//! on every machine.

use rayon::prelude::*;

use crate::geometry::{MAX_STEPS, too_many};
use crate::graph::Neighbours;
use crate::{Error, Result};

/// The edges that a tree over `nodes` tokens may be made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    nodes: usize,
    edges: Vec<[u32; 2]>,
    root: usize,
}

impl Candidates {
    /// Any edges over `nodes` tokens; trees hang from token 0.
    ///
    /// # Errors
    /// No token, too many, or an edge to a token that does not exist; it is named.
    pub fn new(nodes: usize, edges: Vec<[u32; 2]>) -> Result<Candidates> {
        if nodes == 0 {
            return Err(Error::Plan("a tree needs at least one token".into()));
        }
        if nodes > MAX_STEPS || edges.len() > 4 * MAX_STEPS {
            return Err(too_many(format!("a tree over {nodes} tokens and {} edges", edges.len())));
        }
        if let Some(i) = edges.iter().position(|edge| edge.iter().any(|&node| node as usize >= nodes)) {
            let found = edges[i];
            return Err(Error::Plan(format!(
                "edge {i} is {found:?}, but {nodes} tokens are numbered 0 to {}",
                nodes - 1
            )));
        }
        Ok(Candidates { nodes, edges, root: 0 })
    }

    /// The neighbours on a grid of `height` rows: first every token and the one below it, then every token and the one
    /// to its right, row by row (GrootV).
    ///
    /// # Errors
    /// As [`Candidates::new`].
    pub fn grid(height: usize, width: usize) -> Result<Candidates> {
        let nodes = height.checked_mul(width).filter(|nodes| *nodes <= MAX_STEPS);
        let Some(nodes) = nodes else {
            return Err(too_many(format!("a grid of {height}x{width}")));
        };
        let below = (0..nodes.saturating_sub(width)).map(|i| [i, i + width]);
        let right = (0..nodes).filter(|i| (i + 1) % width != 0).map(|i| [i, i + 1]);
        Candidates::new(nodes, below.chain(right).map(|edge| edge.map(|i| i as u32)).collect())
    }

    /// A line of `len` tokens, from its end to its start, whose first `context` are also linked to those two and three
    /// before them; trees hang from the last token (GrootL).
    ///
    /// # Errors
    /// As [`Candidates::new`].
    pub fn line(len: usize, context: usize) -> Result<Candidates> {
        if len > MAX_STEPS {
            return Err(too_many(format!("a line of {len} tokens")));
        }
        let reach = |i: usize| if i < context && context >= 3 { 3 } else { 1 };
        let before = |i: usize| (1..=reach(i).min(i)).map(move |step| [i as u32, (i - step) as u32]);
        let candidates = Candidates::new(len, (0..len).rev().flat_map(before).collect())?;
        Ok(Candidates { root: len - 1, ..candidates })
    }

    /// How many tokens.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// The edges.
    pub fn edges(&self) -> &[[u32; 2]] {
        &self.edges
    }

    /// What each edge costs over `features` (nodes, channels): exp(-cos) of the two ends; a row of zeros is orthogonal
    /// to every other.
    ///
    /// # Errors
    /// `features` has another length.
    pub fn costs(&self, features: &[f32], channels: usize) -> Result<Vec<f32>> {
        if features.len() != self.nodes * channels {
            return Err(Error::Plan(format!(
                "{} features for {} tokens of {channels} channels",
                features.len(),
                self.nodes
            )));
        }
        let row = |i: u32| &features[i as usize * channels..(i as usize + 1) * channels];
        let dot =
            |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
        let norms: Vec<f64> = (0..self.nodes as u32).map(|i| dot(row(i), row(i)).sqrt().max(1e-8)).collect();
        let cost = |&[i, j]: &[u32; 2]| {
            let cosine = dot(row(i), row(j)) / (norms[i as usize] * norms[j as usize]);
            // To f32, so that rounding does not tell apart what is equal.
            (-cosine).exp() as f32
        };
        Ok(self.edges.iter().map(cost).collect())
    }

    /// The cheapest edges that connect all tokens, by Boruvka's algorithm; in the order in which it takes them.
    ///
    /// # Errors
    /// As many costs as edges are not given, or the edges do not connect the tokens.
    pub fn spanning_tree(&self, costs: &[f32]) -> Result<Vec<[u32; 2]>> {
        if costs.len() != self.edges.len() {
            return Err(Error::Plan(format!("{} costs for {} edges", costs.len(), self.edges.len())));
        }
        const NONE: u32 = u32::MAX;
        let mut sets = Sets::new(self.nodes);
        let mut tree = Vec::with_capacity(self.nodes - 1);
        let mut cheapest = vec![NONE; self.nodes];
        // Edges inside one set never leave it again.
        let mut open: Vec<u32> = (0..self.edges.len() as u32).collect();
        while tree.len() + 1 < self.nodes {
            cheapest.fill(NONE);
            open.retain(|&edge| {
                let ends = self.edges[edge as usize].map(|node| sets.find(node));
                if ends[0] == ends[1] {
                    return false;
                }
                for set in ends {
                    let best = &mut cheapest[set as usize];
                    if *best == NONE || cheaper(costs[edge as usize], costs[*best as usize]) {
                        *best = edge;
                    }
                }
                true
            });
            let before = tree.len();
            for &edge in cheapest.iter().filter(|edge| **edge != NONE) {
                let [from, to] = self.edges[edge as usize];
                if sets.unite(from, to) {
                    tree.push([from, to]);
                }
            }
            if tree.len() == before {
                return Err(Error::Plan(format!(
                    "the edges leave {} tokens in {} parts, expected one",
                    self.nodes,
                    self.nodes - tree.len()
                )));
            }
        }
        Ok(tree)
    }

    /// The tree of each sample of `features` (B, nodes, channels): parents (B, nodes), -1 at the
    /// root. Samples are done in parallel.
    ///
    /// # Errors
    /// `features` is not a whole number of samples, or the edges do not connect the tokens.
    pub fn parents(&self, features: &[f32], channels: usize) -> Result<Vec<i32>> {
        let sample = self.nodes * channels;
        if sample == 0 || !features.len().is_multiple_of(sample) {
            return Err(Error::Plan(format!(
                "{} features are no samples of {} tokens of {channels} channels",
                features.len(),
                self.nodes
            )));
        }
        let one = |features: &[f32]| {
            let edges = self.spanning_tree(&self.costs(features, channels)?)?;
            Ok(RootedTree::new(self.nodes, &edges, self.root)?.parents)
        };
        Ok(features.par_chunks(sample).map(one).collect::<Result<Vec<_>>>()?.concat())
    }
}

/// True if cost `a` beats `b`, which came first. NaN beats nothing.
fn cheaper(a: f32, b: f32) -> bool {
    a < b || (b.is_nan() && !a.is_nan())
}

/// Disjoint sets of tokens.
struct Sets {
    parent: Vec<u32>,
    rank: Vec<u8>,
}

impl Sets {
    fn new(nodes: usize) -> Sets {
        Sets { parent: (0..nodes as u32).collect(), rank: vec![0; nodes] }
    }

    fn find(&mut self, mut node: u32) -> u32 {
        while self.parent[node as usize] != node {
            let above = self.parent[self.parent[node as usize] as usize];
            self.parent[node as usize] = above;
            node = above;
        }
        node
    }

    /// False if they were one set already.
    fn unite(&mut self, a: u32, b: u32) -> bool {
        let (a, b) = (self.find(a), self.find(b));
        if a == b {
            return false;
        }
        let (rank_a, rank_b) = (self.rank[a as usize], self.rank[b as usize]);
        let (under, over) = if rank_a < rank_b { (a, b) } else { (b, a) };
        self.parent[under as usize] = over;
        self.rank[over as usize] += u8::from(rank_a == rank_b);
        true
    }
}

/// A tree hung up at a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootedTree {
    /// The parent of each token, -1 for the root: (L).
    pub parents: Vec<i32>,
    /// Every token behind its parent, breadth first, children in the order of the edges: (L).
    pub order: Vec<u32>,
}

impl RootedTree {
    /// The tree of `edges` (in any direction) over `nodes` tokens, with `root` at its top.
    ///
    /// # Errors
    /// Edges that are not one tree over the tokens.
    pub fn new(nodes: usize, edges: &[[u32; 2]], root: usize) -> Result<RootedTree> {
        let wrong =
            |what: String| Err(Error::Plan(format!("these {} edges are no tree: {what}", edges.len())));
        if edges.len() + 1 != nodes || root >= nodes {
            return wrong(format!(
                "{nodes} tokens need {} of them and a root below {nodes}",
                nodes.saturating_sub(1)
            ));
        }
        if let Some(node) = edges.iter().flatten().find(|node| **node as usize >= nodes) {
            return wrong(format!("token {node} does not exist"));
        }
        let beside = Neighbours::of(nodes, edges.iter().flat_map(|&[a, b]| [[a, b], [b, a]]));
        let mut parents = vec![-1; nodes];
        let mut order = vec![root as u32];
        let mut at = 0;
        while let Some(&node) = order.get(at) {
            for &child in beside.of_node(node as usize) {
                if child as usize != root && parents[child as usize] < 0 {
                    parents[child as usize] = node as i32;
                    order.push(child);
                }
            }
            at += 1;
        }
        if order.len() < nodes {
            return wrong(format!("they reach {} of {nodes} tokens from token {root}", order.len()));
        }
        Ok(RootedTree { parents, order })
    }
}
