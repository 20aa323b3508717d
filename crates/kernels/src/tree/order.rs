//! Trees as walks: every node behind its parent.

use crate::{Error, Result};

/// A walk over one forest, parents before their children.
pub(super) struct Walk<'a> {
    /// (node, parent), level by level; a root is its own parent.
    pub steps: Vec<(u32, u32)>,
    /// The first steps visit the roots.
    pub roots: usize,
    /// The parent of each node, -1 for a root.
    pub parents: &'a [i32],
}

impl Walk<'_> {
    /// (node, parent, whether it is a root and its own parent), by the number of the node.
    #[inline(always)]
    pub fn nodes(&self) -> impl Iterator<Item = (u32, u32, bool)> {
        (0u32..).zip(self.parents).map(|(node, &parent)| {
            let root = parent < 0;
            (node, if root { node } else { parent as u32 }, root)
        })
    }
}

/// The walks of a batch.
pub(super) struct Walks<'a> {
    walks: Vec<Walk<'a>>,
}

impl<'a> Walks<'a> {
    /// From parents (L) or (B, L), -1 for a root.
    pub fn new(parents: &'a [i32], batch: usize, nodes: usize) -> Result<Self> {
        if parents.len() != nodes && parents.len() != batch * nodes {
            return Err(Error::Length { name: "parents", found: parents.len(), expected: batch * nodes });
        }
        let trees = if nodes == 0 { &[] } else { parents };
        let walks = trees.chunks(nodes.max(1)).enumerate();
        Ok(Walks { walks: walks.map(|(tree, parents)| walk(tree, parents)).collect::<Result<_>>()? })
    }

    /// The walk of sample `b`.
    pub fn get(&self, b: usize) -> &Walk<'a> {
        const NOTHING: &Walk = &Walk { steps: Vec::new(), roots: 0, parents: &[] };
        match &self.walks[..] {
            [] => NOTHING,
            [one] => one,
            many => &many[b],
        }
    }
}

/// Breadth first from the roots, children in the order of their numbers.
fn walk(tree: usize, parents: &[i32]) -> Result<Walk<'_>> {
    let nodes = parents.len();
    // Children of node p, by counting: children[first[p]..first[p + 1]].
    let mut first = vec![0u32; nodes + 1];
    let mut steps = Vec::with_capacity(nodes);
    for (node, &parent) in parents.iter().enumerate() {
        match usize::try_from(parent) {
            Ok(parent) if parent < nodes => first[parent + 1] += 1,
            Err(_) if parent == -1 => steps.push((node as u32, node as u32)),
            _ => return Err(Error::Parent { tree, node, parent, nodes }),
        }
    }
    let roots = steps.len();
    for i in 0..nodes {
        first[i + 1] += first[i];
    }
    let mut next = first.clone();
    let mut children = vec![0u32; nodes - roots];
    for (node, &parent) in parents.iter().enumerate().filter(|(_, parent)| **parent >= 0) {
        let at = &mut next[parent as usize];
        children[*at as usize] = node as u32;
        *at += 1;
    }
    let mut at = 0;
    while let Some(&(node, _)) = steps.get(at) {
        let range = first[node as usize] as usize..first[node as usize + 1] as usize;
        steps.extend(children[range].iter().map(|child| (*child, node)));
        at += 1;
    }
    if steps.len() < nodes {
        let mut reached = vec![false; nodes];
        steps.iter().for_each(|(node, _)| reached[*node as usize] = true);
        let node = reached.iter().position(|reached| !reached).unwrap_or(0);
        return Err(Error::Cycle { tree, node, count: nodes - steps.len() });
    }
    Ok(Walk { steps, roots, parents })
}
