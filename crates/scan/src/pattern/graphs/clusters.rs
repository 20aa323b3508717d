//! Clusters of nodes: Blondel, Guillaume, Lambiotte and Lefebvre, "Fast unfolding of communities in large networks",
//! 2008 (the Louvain method).

use super::super::samples::{self, Random};
use crate::graph::Neighbours;
use crate::{Graph, Plan, Result};

/// Nodes cluster by cluster. With a seed, the clusters of each graph and the nodes of each cluster stand in random order,
/// as the authors have it; without, clusters by their first node and nodes by degree.
pub(super) fn plan(graph: &Graph, seed: Option<u64>) -> Result<Plan> {
    let clusters = clusters(graph);
    let Some(seed) = seed else {
        let keys: Vec<(u32, u32)> = clusters.into_iter().zip(graph.degrees()).collect();
        return samples::sorted(graph.starts(), &keys);
    };
    let mut random = Random::new(seed);
    // One random number for each cluster; those of one graph differ from those of another because nodes do.
    let of_cluster: Vec<u64> = clusters.iter().map(|_| random.bits()).collect();
    let key = |&cluster: &u32| (of_cluster.get(cluster as usize).copied().unwrap_or(0), random.bits());
    let keys: Vec<(u64, u64)> = clusters.iter().map(key).collect();
    samples::sorted(graph.starts(), &keys)
}

/// The cluster of each node, named by its first node.
///
/// Clusters of greatest modularity are sought in the simple undirected graph, each edge of weight 1: nodes move one by
/// one, in the order of their numbers, to the neighbouring cluster that gains most, until none gains; then clusters
/// become nodes, and so on until none moves. All in whole numbers, so that every machine finds the same.
pub(super) fn clusters(graph: &Graph) -> Vec<u32> {
    let neighbours = graph.undirected();
    let mut clusters = vec![0; graph.nodes()];
    for sample in graph.samples() {
        let start = sample.start;
        let found = of_one(&neighbours, start, sample.len());
        let mut first = vec![u32::MAX; sample.len()];
        for (node, &cluster) in found.iter().enumerate() {
            first[cluster] = first[cluster].min((start + node) as u32);
        }
        for (node, &cluster) in sample.zip(&found) {
            clusters[node] = first[cluster];
        }
    }
    clusters
}

/// A graph whose edges have weights; each edge stands at both ends, one from a node to itself apart.
struct Weighted {
    edges: Vec<Vec<(usize, i128)>>,
    /// Weight of the edges inside a node.
    inner: Vec<i128>,
}

impl Weighted {
    /// Sum of the weights at a node, those inside it at both of their ends.
    fn strength(&self, node: usize) -> i128 {
        self.edges[node].iter().map(|edge| edge.1).sum::<i128>() + 2 * self.inner[node]
    }
}

fn of_one(neighbours: &Neighbours, start: usize, nodes: usize) -> Vec<usize> {
    let mut graph = Weighted { edges: vec![Vec::new(); nodes], inner: vec![0; nodes] };
    for node in 0..nodes {
        for other in neighbours.of_node(start + node).iter().map(|&other| other as usize - start) {
            if other == node {
                graph.inner[node] += 1;
            } else {
                graph.edges[node].push((other, 1));
            }
        }
    }
    let mut clusters: Vec<usize> = (0..nodes).collect();
    loop {
        let (found, count) = moved(&graph);
        if count == found.len() {
            return clusters; // nothing joined
        }
        for cluster in &mut clusters {
            *cluster = found[*cluster];
        }
        graph = aggregated(&graph, &found, count);
    }
}

/// Clusters after every node has moved until no move gains, numbered from 0, and how many there are.
fn moved(graph: &Weighted) -> (Vec<usize>, usize) {
    let nodes = graph.inner.len();
    let strengths: Vec<i128> = (0..nodes).map(|node| graph.strength(node)).collect();
    let twice_all: i128 = strengths.iter().sum();
    let mut clusters: Vec<usize> = (0..nodes).collect();
    let mut totals = strengths.clone();
    // Weight of the edges between the node that moves and each cluster around it.
    let mut links = vec![0i128; nodes];
    loop {
        let mut any = false;
        for node in 0..nodes {
            let (own, strength) = (clusters[node], strengths[node]);
            let mut around: Vec<usize> = graph.edges[node].iter().map(|edge| clusters[edge.0]).collect();
            for edge in &graph.edges[node] {
                links[clusters[edge.0]] += edge.1;
            }
            totals[own] -= strength;
            around.sort_unstable();
            around.dedup();
            // Gain of modularity, times half the square of the sum of all strengths.
            let gain = |cluster: usize| links[cluster] * twice_all - totals[cluster] * strength;
            let mut best = (gain(own), own);
            for &cluster in &around {
                if gain(cluster) > best.0 {
                    best = (gain(cluster), cluster);
                }
            }
            for &cluster in &around {
                links[cluster] = 0;
            }
            totals[best.1] += strength;
            clusters[node] = best.1;
            any |= best.1 != own;
        }
        if !any {
            break;
        }
    }
    let mut number = vec![usize::MAX; nodes];
    let mut count = 0;
    for cluster in &mut clusters {
        if number[*cluster] == usize::MAX {
            number[*cluster] = count;
            count += 1;
        }
        *cluster = number[*cluster];
    }
    (clusters, count)
}

/// The graph whose nodes are the clusters.
fn aggregated(graph: &Weighted, clusters: &[usize], count: usize) -> Weighted {
    let mut whole = Weighted { edges: vec![Vec::new(); count], inner: vec![0; count] };
    let mut joined = vec![0; count];
    for (node, &cluster) in clusters.iter().enumerate() {
        whole.inner[cluster] += graph.inner[node];
        for &(other, weight) in &graph.edges[node] {
            let other = clusters[other];
            if other == cluster {
                joined[cluster] += weight;
            } else {
                whole.edges[cluster].push((other, weight));
            }
        }
    }
    for (inner, joined) in whole.inner.iter_mut().zip(joined) {
        *inner += joined / 2; // each stands at both ends
    }
    for edges in &mut whole.edges {
        edges.sort_unstable();
        edges.dedup_by(|next, kept| {
            let same = next.0 == kept.0;
            if same {
                kept.1 += next.1;
            }
            same
        });
    }
    whole
}
