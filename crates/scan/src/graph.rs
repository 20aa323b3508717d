//! Graphs.

use crate::{Error, Result};

/// The nodes and edges of one graph, or of several whose nodes are numbered one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: usize,
    edges: Vec<[u32; 2]>,
    /// Where the nodes of each graph start, and the end.
    starts: Vec<usize>,
}

impl Graph {
    /// One graph of `nodes` nodes; `edges` are (source, target), an undirected edge is given both ways.
    ///
    /// # Errors
    /// No node, or an edge that names a node which does not exist; it is named.
    pub fn new(nodes: usize, edges: Vec<[u32; 2]>) -> Result<Graph> {
        Graph::packed(edges, vec![0, nodes])
    }

    /// Several graphs: graph i has the nodes from `starts[i]` to `starts[i + 1]`.
    ///
    /// # Errors
    /// As [`Graph::new`], bounds that do not ascend from 0, or an edge from one graph to another.
    pub fn packed(edges: Vec<[u32; 2]>, starts: Vec<usize>) -> Result<Graph> {
        let nodes = starts.last().copied().unwrap_or(0);
        if starts.first() != Some(&0) || nodes == 0 || !starts.windows(2).all(|pair| pair[0] < pair[1]) {
            return Err(Error::Plan(format!(
                "the nodes of the graphs start at {starts:?}, expected at least one each"
            )));
        }
        if let Some(i) = edges.iter().position(|edge| edge.iter().any(|&node| node as usize >= nodes)) {
            return Err(Error::Plan(format!(
                "edge {i} is {:?}, but {nodes} nodes are numbered 0 to {}",
                edges[i],
                nodes - 1
            )));
        }
        let graph = |node: u32| starts.partition_point(|&start| start <= node as usize);
        if let Some(i) = edges.iter().position(|&[from, to]| graph(from) != graph(to)) {
            return Err(Error::Plan(format!("edge {i} is {:?}, from one graph to another", edges[i])));
        }
        Ok(Graph { nodes, edges, starts })
    }

    /// How many nodes (L).
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// (source, target) of every edge.
    pub fn edges(&self) -> &[[u32; 2]] {
        &self.edges
    }

    /// The nodes of each graph.
    pub fn samples(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }
}
