//! Graphs.

use std::fmt;

use crate::geometry::{MAX_STEPS, too_many};
use crate::{Error, Result};

/// Most edges of a graph (2^26).
const MAX_EDGES: usize = 1 << 26;

/// The nodes and edges of one graph, or of several whose nodes are numbered one after another.
///
/// Edges are directed and kept as they are given: an undirected edge is given both ways, as PyTorch Geometric does.
/// Nodes without edges, edges from a node to itself and repeated edges are legal; every order over graphs says what it
/// makes of them, [`summary`](Graph::summary) counts them, and
/// [`oddities`](Graph::oddities) names the first for whoever would rather refuse them.
#[derive(Debug, Clone, PartialEq)]
pub struct Graph {
    nodes: usize,
    edges: Vec<[u32; 2]>,
    /// Where the nodes of each graph start, and the end.
    starts: Vec<usize>,
    batched: bool,
}

impl Graph {
    /// One graph of `nodes` nodes; `edges` are (source, target), an undirected edge is given both ways.
    ///
    /// # Errors
    /// No node, or an edge that names a node which does not exist; it is named.
    pub fn new(nodes: usize, edges: Vec<[u32; 2]>) -> Result<Graph> {
        Ok(Graph { batched: false, ..Graph::packed(edges, vec![0, nodes])? })
    }

    /// Several graphs: graph i has the nodes from `starts[i]` to `starts[i + 1]`.
    ///
    /// # Errors
    /// As [`Graph::new`], bounds that do not ascend from 0, or an edge from one graph to another.
    pub fn packed(edges: Vec<[u32; 2]>, starts: Vec<usize>) -> Result<Graph> {
        let nodes = starts.last().copied().unwrap_or(0);
        if nodes == 0 {
            return Err(Error::Plan("the graph has no node".into()));
        }
        if let Some(i) = starts.windows(2).position(|pair| pair[0] >= pair[1]) {
            let (start, end) = (starts[i], starts[i + 1]);
            let message = format!("graph {i} goes from node {start} to node {end}, expected at least one");
            return Err(Error::Plan(message));
        }
        if starts.first() != Some(&0) {
            return Err(Error::Plan(format!(
                "the first graph starts at node {:?}, expected 0",
                starts.first()
            )));
        }
        if nodes > MAX_STEPS {
            return Err(too_many(format!("a graph of {nodes} nodes")));
        }
        if edges.len() > MAX_EDGES {
            let what = format!("a graph of {} edges", edges.len());
            return Err(Error::TooLarge { what, limit: format!("{MAX_EDGES} edges") });
        }
        if let Some(i) = edges.iter().position(|edge| edge.iter().any(|&node| node as usize >= nodes)) {
            return Err(Error::Plan(format!(
                "edge {i} is {:?}, but {nodes} nodes are numbered 0 to {}",
                edges[i],
                nodes - 1
            )));
        }
        let graph = |node: u32| starts.partition_point(|&start| start <= node as usize);
        if let Some(i) = edges.iter().position(|&[from, to]| from != to && graph(from) != graph(to)) {
            return Err(Error::Plan(format!("edge {i} is {:?}, from one graph to another", edges[i])));
        }
        Ok(Graph { nodes, edges, starts, batched: true })
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

    /// Where the nodes of each graph start, and the end.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Whether it is a batch of graphs, of which every node is said to belong to one ([`Graph::packed`], a file's `batch`):
    /// a node without edges is meant then, and not one that the edges leave out.
    pub fn batched(&self) -> bool {
        self.batched
    }

    /// How many edges leave each node: (L). An edge from a node to itself counts once, a repeated one each time.
    pub fn degrees(&self) -> Vec<u32> {
        let mut degrees = vec![0; self.nodes];
        for &[from, _] in &self.edges {
            degrees[from as usize] += 1;
        }
        degrees
    }

    /// What each node's edges lead to, in the order of the edges.
    pub(crate) fn neighbours(&self) -> Neighbours {
        Neighbours::of(self.nodes, self.edges.iter().copied())
    }

    /// The simple undirected graph of these edges: every edge both ways and once, whichever way and how often it is
    /// given. An edge from a node to itself stays, once. Neighbours ascend.
    pub(crate) fn undirected(&self) -> Neighbours {
        let mut edges: Vec<[u32; 2]> = Vec::with_capacity(2 * self.edges.len());
        for &[from, to] in &self.edges {
            edges.push([from, to]);
            edges.push([to, from]);
        }
        edges.sort_unstable();
        edges.dedup();
        Neighbours::of(self.nodes, edges.into_iter())
    }

    /// What the graph holds, in numbers; its `Display` says it in words.
    pub fn summary(&self) -> GraphSummary {
        let mut touched = vec![false; self.nodes];
        let mut sorted = self.edges.clone();
        sorted.sort_unstable();
        for &[from, to] in &sorted {
            touched[from as usize] = true;
            touched[to as usize] = true;
        }
        let one_way = |&&[from, to]: &&[u32; 2]| sorted.binary_search(&[to, from]).is_err();
        GraphSummary {
            nodes: self.nodes,
            edges: self.edges.len(),
            graphs: self.starts.len() - 1,
            isolated: touched.iter().filter(|&&touched| !touched).count(),
            loops: sorted.iter().filter(|[from, to]| from == to).count(),
            repeated: sorted.windows(2).filter(|pair| pair[0] == pair[1]).count(),
            one_way: sorted.iter().filter(one_way).count(),
        }
    }
}

/// For each node, nodes that it has to do with.
pub(crate) struct Neighbours {
    starts: Vec<usize>,
    nodes: Vec<u32>,
}

impl Neighbours {
    /// What each of `nodes` nodes has edges to, in the order of the edges, whose ends are all below `nodes`.
    pub(crate) fn of(nodes: usize, edges: impl Iterator<Item = [u32; 2]> + Clone) -> Neighbours {
        let mut starts = vec![0; nodes + 1];
        for [from, _] in edges.clone() {
            starts[from as usize + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut next = starts.clone();
        let mut targets = vec![0; starts[nodes]];
        for [from, to] in edges {
            let place = &mut next[from as usize];
            targets[*place] = to;
            *place += 1;
        }
        Neighbours { starts, nodes: targets }
    }

    pub(crate) fn of_node(&self, node: usize) -> &[u32] {
        &self.nodes[self.starts[node]..self.starts[node + 1]]
    }

    /// Of neighbours that ascend and have each other: every pair of different ones once, lower number first, ascending.
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (0..self.starts.len() - 1).flat_map(|node| {
            let after = self.of_node(node).iter().filter(move |&&other| node < other as usize);
            after.map(move |&other| (node as u32, other))
        })
    }

    /// How many nodes there are, and how many neighbours all of them have together.
    pub(crate) fn size(&self) -> (usize, usize) {
        (self.starts.len() - 1, self.nodes.len())
    }
}

/// What a graph holds: see [`Graph::summary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GraphSummary {
    /// Nodes (L).
    pub nodes: usize,
    /// Edges as they are given.
    pub edges: usize,
    /// Graphs.
    pub graphs: usize,
    /// Nodes that no edge touches.
    pub isolated: usize,
    /// Edges from a node to itself.
    pub loops: usize,
    /// Edges that were given before.
    pub repeated: usize,
    /// Edges that are not given the other way too.
    pub one_way: usize,
}

impl fmt::Display for GraphSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = |n: usize| if n == 1 { "" } else { "s" };
        write!(f, "{} node{}, {} edge{}", self.nodes, s(self.nodes), self.edges, s(self.edges))?;
        if self.graphs > 1 {
            write!(f, " in {} graphs", self.graphs)?;
        }
        if self.isolated > 0 {
            write!(f, ", {} node{} without edges", self.isolated, s(self.isolated))?;
        }
        if self.loops > 0 {
            write!(f, ", {} edge{} from a node to itself", self.loops, s(self.loops))?;
        }
        if self.repeated > 0 {
            write!(f, ", {} repeated edge{}", self.repeated, s(self.repeated))?;
        }
        if self.one_way > 0 {
            write!(f, ", {} edge{} in one direction only", self.one_way, s(self.one_way))?;
        }
        Ok(())
    }
}
