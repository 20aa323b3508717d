//! What a graph or a set of points may hold that can be put in an order, but seldom in the one that was meant.

use std::collections::HashMap;
use std::fmt;

use crate::{Graph, GraphSummary, Points, PointsSummary};

/// A kind of oddity. Every order is defined for all of them; whether to take them is the caller's choice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OddityKind {
    /// Nodes without edges: where they stand tells nothing of the graph.
    Isolated,
    /// Edges from a node to itself: they count in its degree.
    Loops,
    /// Points of a sample at one place: they keep their numbering.
    Equal,
    /// Samples of one point: there is nothing to order.
    Single,
}

/// Something odd about a graph or a set of points; its `Display` says it in words.
#[derive(Debug, Clone, PartialEq)]
pub struct Oddity {
    /// Of which kind.
    pub kind: OddityKind,
    /// How many nodes, edges, points or samples are so.
    pub count: usize,
    /// The first of them, in words.
    pub first: String,
}

impl fmt::Display for Oddity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.count == 1 { "" } else { "s" };
        let count = self.count;
        match self.kind {
            OddityKind::Isolated => write!(f, "{count} node{s} without edges"),
            OddityKind::Loops => write!(f, "{count} edge{s} from a node to itself"),
            OddityKind::Equal => write!(f, "{count} point{s} at the place of an earlier one"),
            OddityKind::Single => write!(f, "{count} sample{s} of one point"),
        }?;
        write!(f, " (the first: {})", self.first)
    }
}

impl Graph {
    /// What is odd about it, each kind once; `summary` is its own.
    pub fn oddities(&self, summary: &GraphSummary) -> Vec<Oddity> {
        let mut touched = vec![false; self.nodes()];
        self.edges().iter().flatten().for_each(|&node| touched[node as usize] = true);
        let isolated = touched.iter().position(|touched| !touched).map(|node| Oddity {
            kind: OddityKind::Isolated,
            count: summary.isolated,
            first: format!("node {node}"),
        });
        let edges = self.edges();
        let loops = edges.iter().position(|[from, to]| from == to).map(|edge| Oddity {
            kind: OddityKind::Loops,
            count: summary.loops,
            first: format!("edge {edge}, of node {}", edges[edge][0]),
        });
        isolated.into_iter().chain(loops).collect()
    }
}

impl Points {
    /// What is odd about them, each kind once; `summary` is their own.
    pub fn oddities(&self, summary: &PointsSummary) -> Vec<Oddity> {
        let equal = if summary.repeated > 0 { first_equal(self) } else { None };
        let equal = equal.map(|(earlier, later)| Oddity {
            kind: OddityKind::Equal,
            count: summary.repeated,
            first: format!("points {earlier} and {later} at {:?}", self.xyz()[later]),
        });
        let single = self.samples().position(|sample| sample.len() == 1).map(|first| Oddity {
            kind: OddityKind::Single,
            count: self.samples().filter(|sample| sample.len() == 1).count(),
            first: format!("sample {first}"),
        });
        equal.into_iter().chain(single).collect()
    }
}

/// The first point at the place of an earlier one of its sample, behind that one.
fn first_equal(points: &Points) -> Option<(usize, usize)> {
    points.samples().find_map(|sample| {
        let mut seen = HashMap::with_capacity(sample.len());
        sample.into_iter().find_map(|at| {
            let earlier = *seen.entry(points.place(at)).or_insert(at);
            (earlier != at).then_some((earlier, at))
        })
    })
}
