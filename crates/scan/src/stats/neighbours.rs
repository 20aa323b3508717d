//! Which tokens of a geometry are neighbours, and how far apart any two are.

use std::collections::VecDeque;
use std::ops::Range;

use crate::{Geometry, Points, graph};

/// How many of the nearest points are a point's neighbours.
const NEAREST: usize = 6;

/// The neighbourhood of a geometry.
pub(super) enum Neighbours<'a> {
    /// (frames, rows, columns).
    Grid([usize; 3]),
    /// The points, and each pair once, sorted.
    Points(&'a Points, Vec<(u32, u32)>),
    /// Each node's neighbours whatever the direction of the edge; itself too, where an edge leads back to it.
    Graph(graph::Neighbours),
}

impl<'a> Neighbours<'a> {
    pub(super) fn of(geometry: &'a Geometry) -> Neighbours<'a> {
        match geometry {
            Geometry::Points(points) => Neighbours::Points(points, nearest(points)),
            Geometry::Graph(graph) => Neighbours::Graph(graph.undirected()),
            _ => {
                let (frames, rows, columns) = geometry.sizes();
                Neighbours::Grid([frames, rows, columns])
            }
        }
    }

    /// Every pair of neighbours once.
    pub(super) fn pairs(&self) -> Box<dyn Iterator<Item = (usize, usize)> + '_> {
        match self {
            Neighbours::Grid([frames, rows, columns]) => {
                let (rows, columns, frame) = (*rows, *columns, rows * columns);
                let tokens = frames * frame;
                Box::new((0..tokens).flat_map(move |i| {
                    let right = (i % columns + 1 < columns).then_some(i + 1);
                    let below = (i / columns % rows + 1 < rows).then_some(i + columns);
                    let after = (i + frame < tokens).then_some(i + frame);
                    [right, below, after].into_iter().flatten().map(move |j| (i, j))
                }))
            }
            Neighbours::Points(_, pairs) => Box::new(pairs.iter().map(|&(i, j)| (i as usize, j as usize))),
            Neighbours::Graph(links) => Box::new(links.pairs().map(|(i, j)| (i as usize, j as usize))),
        }
    }

    /// True if `i` and `j` are neighbours.
    pub(super) fn adjacent(&self, i: usize, j: usize) -> bool {
        match self {
            Neighbours::Grid(_) => self.distance(i, j) == Some(1.0),
            Neighbours::Points(_, pairs) => pairs.binary_search(&(i.min(j) as u32, i.max(j) as u32)).is_ok(),
            Neighbours::Graph(links) => i != j && links.of_node(i).binary_search(&(j as u32)).is_ok(),
        }
    }

    /// Edges that [`distance`](Neighbours::distance) may pass.
    pub(super) fn search(&self) -> usize {
        match self {
            Neighbours::Graph(links) => {
                let (nodes, edges) = links.size();
                nodes + edges
            }
            _ => 1,
        }
    }

    /// How far `i` is from `j`; None if there is no path.
    pub(super) fn distance(&self, i: usize, j: usize) -> Option<f64> {
        match self {
            Neighbours::Grid([_, rows, columns]) => {
                let place = |i: usize| [i / (rows * columns), i / columns % rows, i % columns];
                let (a, b) = (place(i), place(j));
                let square: usize = a.iter().zip(b).map(|(&a, b)| a.abs_diff(b).pow(2)).sum();
                Some((square as f64).sqrt())
            }
            Neighbours::Points(points, _) => {
                let (a, b) = (points.xyz().get(i)?, points.xyz().get(j)?);
                Some(square(a, b).sqrt())
            }
            Neighbours::Graph(links) => hops(links, i, j),
        }
    }
}

fn square(a: &[f32; 3], b: &[f32; 3]) -> f64 {
    a.iter().zip(b).map(|(&a, &b)| (f64::from(a) - f64::from(b)).powi(2)).sum()
}

/// The number of edges on the shortest path.
fn hops(links: &graph::Neighbours, from: usize, to: usize) -> Option<f64> {
    if from == to {
        return Some(0.0);
    }
    let (mut seen, mut queue) = (vec![false; links.size().0], VecDeque::from([(from, 0u32)]));
    *seen.get_mut(from)? = true;
    while let Some((node, far)) = queue.pop_front() {
        for &next in links.of_node(node) {
            let next = next as usize;
            if next == to {
                return Some(f64::from(far + 1));
            }
            if let Some(seen) = seen.get_mut(next).filter(|seen| !**seen) {
                *seen = true;
                queue.push_back((next, far + 1));
            }
        }
    }
    None
}

/// Every pair of points of one sample of which one is among the [`NEAREST`] nearest of the other. Of points equally far
/// away, those with the lower number are nearer.
fn nearest(points: &Points) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for sample in points.samples() {
        let tree = Tree::of(points.xyz(), sample.clone());
        for i in sample {
            let mut found = Vec::with_capacity(NEAREST + 1);
            tree.nearest(0..tree.points.len(), i, &mut found);
            pairs.extend(found.iter().map(|&(_, j)| (j.min(i as u32), j.max(i as u32))));
        }
    }
    pairs.sort_unstable();
    pairs.dedup();
    pairs
}

/// What stands for the axis of a range of points that all lie at one place.
const ONE_PLACE: usize = 3;

/// A k-d tree: the middle of any range of points parts the others by the axis that stands in its place. Points that lie
/// at one place are not parted but sorted by their numbers, so that many of them are as quickly gone through as few.
struct Tree<'a> {
    xyz: &'a [[f32; 3]],
    points: Vec<u32>,
    axes: Vec<u8>,
}

impl Tree<'_> {
    fn of(xyz: &[[f32; 3]], sample: Range<usize>) -> Tree<'_> {
        let mut points: Vec<u32> = sample.map(|i| i as u32).collect();
        let mut axes = vec![0; points.len()];
        part(&mut points, &mut axes, xyz);
        Tree { xyz, points, axes }
    }

    /// Puts point `here` into `found` if it is another than `of` and among the nearest so far.
    fn offer(&self, here: u32, of: usize, found: &mut Vec<(f64, u32)>) {
        if here as usize != of {
            let near = (square(&self.xyz[here as usize], &self.xyz[of]), here);
            let nearer = |other: &(f64, u32)| other.0.total_cmp(&near.0).then(other.1.cmp(&near.1)).is_lt();
            found.insert(found.partition_point(nearer), near);
            found.truncate(NEAREST);
        }
    }

    /// Puts the nearest points of point `of` within `range` of the tree into `found`, nearest first.
    fn nearest(&self, range: Range<usize>, of: usize, found: &mut Vec<(f64, u32)>) {
        if range.is_empty() {
            return;
        }
        let middle = range.start + range.len() / 2;
        let (here, axis) = (self.points[middle], usize::from(self.axes[middle]));
        if axis == ONE_PLACE {
            // In the order of their numbers: no more than the first can be among the nearest, one of them perhaps `of`.
            self.points[range].iter().take(NEAREST + 1).for_each(|&here| self.offer(here, of, found));
            return;
        }
        self.offer(here, of, found);
        let gap = f64::from(self.xyz[of][axis]) - f64::from(self.xyz[here as usize][axis]);
        let (below, above) = (range.start..middle, middle + 1..range.end);
        let (first, second) = if gap < 0.0 { (below, above) } else { (above, below) };
        self.nearest(first, of, found);
        if found.len() < NEAREST || found.last().is_some_and(|(far, _)| gap * gap <= *far) {
            self.nearest(second, of, found);
        }
    }
}

/// Sorts points into a tree, each range by the axis along which it spreads most.
fn part(points: &mut [u32], axes: &mut [u8], xyz: &[[f32; 3]]) {
    if points.len() < 2 {
        return;
    }
    let spread = |axis: &usize| {
        let values = points.iter().map(|&i| xyz[i as usize][*axis]);
        let (low, high) = values.fold((f32::MAX, f32::MIN), |(low, high), x| (low.min(x), high.max(x)));
        f64::from(high) - f64::from(low)
    };
    let axis = (0..3).max_by(|a, b| spread(a).total_cmp(&spread(b))).unwrap_or(0);
    let middle = points.len() / 2;
    if spread(&axis) == 0.0 {
        axes[middle] = ONE_PLACE as u8;
        points.sort_unstable();
        return;
    }
    let at = |i: &u32| xyz[*i as usize][axis];
    let (below, _, above) = points.select_nth_unstable_by(middle, |a, b| at(a).total_cmp(&at(b)));
    let (axes_below, rest) = axes.split_at_mut(middle);
    rest[0] = axis as u8;
    part(below, axes_below, xyz);
    part(above, &mut rest[1..], xyz);
}
