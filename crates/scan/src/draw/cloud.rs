//! Tokens that are drawn at any place: volumes and points in space, nodes of a graph.

use crate::{Graph, Points};

/// Graphs up to this size are laid out by springs, larger ones on a circle.
const MAX_SPRUNG: usize = 256;
const SPRING_ROUNDS: usize = 200;

/// Longest side of a picture, and what its typical spacing may not exceed.
const LONGEST: f64 = 420.0;
const WIDEST_SPACING: f64 = 44.0;

/// Places, in a box of `width` x `height` from (0, 0).
pub(super) struct Cloud {
    at: Vec<(f64, f64)>,
    pub(super) width: f64,
    pub(super) height: f64,
    /// Typical distance between neighbours.
    pub(super) spacing: f64,
    /// Thin lines behind the walk: edges of a graph, outlines of frames.
    pub(super) behind: Vec<((f64, f64), (f64, f64))>,
    near: Near,
}

/// Which tokens a walk may join by a line.
enum Near {
    Any,
    /// Neighbours of a grid of (rows, columns) and any number of frames.
    Grid(usize, usize),
    /// Sorted pairs.
    Edges(Vec<(u32, u32)>),
}

/// (x, y, z) seen from a corner: x to the lower right, y to the lower left, z up. A little off the isometric angles, where
/// (x, y, z) and (x + 1, y + 1, z + 1) fall together.
fn isometric([x, y, z]: [f64; 3]) -> (f64, f64) {
    (0.93 * x - 0.61 * y, 0.29 * x + 0.43 * y - z)
}

impl Cloud {
    /// A grid of frames, one behind another.
    pub(super) fn volume(frames: usize, height: usize, width: usize) -> Cloud {
        let place = |f: usize, r: usize, c: usize| isometric([c as f64, f as f64, -(r as f64)]);
        let at = (0..frames * height * width)
            .map(|i| place(i / (height * width), i / width % height, i % width))
            .collect();
        let (bottom, right) = (height - 1, width - 1);
        let frame = |f: usize| {
            let corners = [place(f, 0, 0), place(f, 0, right), place(f, bottom, right), place(f, bottom, 0)];
            (0..4).map(move |i| (corners[i], corners[(i + 1) % 4]))
        };
        let behind = (0..frames).flat_map(frame).collect();
        Cloud::fitted(at, behind, 1.0, Near::Grid(height, width))
    }

    /// Points, seen from a corner.
    pub(super) fn points(points: &Points) -> Cloud {
        let at: Vec<_> = points.xyz().iter().map(|xyz| isometric(xyz.map(f64::from))).collect();
        // As if they were spread evenly over their picture.
        let (width, height) = extent(&at).1;
        let spacing = (width.max(1e-9) * height.max(1e-9) / at.len() as f64).sqrt();
        Cloud::fitted(at, Vec::new(), spacing, Near::Any)
    }

    /// Nodes and edges.
    pub(super) fn graph(graph: &Graph) -> Cloud {
        let edges: Vec<(u32, u32)> = graph.undirected().pairs().collect();
        let at = sprung(graph.nodes(), &edges);
        let behind: Vec<_> = edges.iter().map(|&(a, b)| (at[a as usize], at[b as usize])).collect();
        let length = |&((x, y), (u, v)): &((f64, f64), (f64, f64))| (x - u).hypot(y - v);
        let mean = behind.iter().map(length).sum::<f64>() / behind.len().max(1) as f64;
        let spacing = if mean > 0.0 { mean } else { 1.0 };
        Cloud::fitted(at, behind, spacing, Near::Edges(edges))
    }

    /// Scales places to the size of a picture.
    fn fitted(at: Vec<(f64, f64)>, behind: Vec<((f64, f64), (f64, f64))>, spacing: f64, near: Near) -> Cloud {
        let ((left, top), (width, height)) = extent(&at);
        let scale = (LONGEST / width.max(height).max(1e-9)).min(WIDEST_SPACING / spacing.max(1e-9));
        let edge = 10.0;
        let to = |(x, y): (f64, f64)| ((x - left) * scale + edge, (y - top) * scale + edge);
        Cloud {
            at: at.into_iter().map(to).collect(),
            width: width * scale + 2.0 * edge,
            height: height * scale + 2.0 * edge,
            spacing: spacing * scale,
            behind: behind.into_iter().map(|(a, b)| (to(a), to(b))).collect(),
            near,
        }
    }

    /// Where a token is drawn.
    pub(super) fn at(&self, token: usize) -> (f64, f64) {
        self.at.get(token).copied().unwrap_or_default()
    }

    /// How many tokens there are.
    pub(super) fn len(&self) -> usize {
        self.at.len()
    }

    /// True if a walk from one to the other is no jump.
    pub(super) fn near(&self, from: usize, to: usize) -> bool {
        match &self.near {
            Near::Any => true,
            Near::Grid(height, width) => {
                let place = |i: usize| [i / (height * width), i / width % height, i % width];
                place(from).iter().zip(place(to)).map(|(&a, b)| a.abs_diff(b)).sum::<usize>() == 1
            }
            Near::Edges(edges) => edges.binary_search(&(from.min(to) as u32, from.max(to) as u32)).is_ok(),
        }
    }
}

/// (left, top) and (width, height) of places.
fn extent(at: &[(f64, f64)]) -> ((f64, f64), (f64, f64)) {
    let low = at.iter().fold((f64::MAX, f64::MAX), |low, p| (low.0.min(p.0), low.1.min(p.1)));
    let high = at.iter().fold((f64::MIN, f64::MIN), |high, p| (high.0.max(p.0), high.1.max(p.1)));
    (low, (high.0 - low.0, high.1 - low.1))
}

/// Nodes on a circle and, if they are few, drawn together along edges and apart otherwise (Fruchterman and Reingold 1991);
/// the same graph is laid out the same way.
fn sprung(nodes: usize, edges: &[(u32, u32)]) -> Vec<(f64, f64)> {
    let radius = nodes as f64 / std::f64::consts::TAU;
    let angle = |i: usize| std::f64::consts::TAU * (i as f64 / nodes as f64 - 0.25);
    let mut at: Vec<(f64, f64)> =
        (0..nodes).map(|i| (radius * angle(i).cos(), radius * angle(i).sin())).collect();
    if nodes > MAX_SPRUNG {
        return at;
    }
    for round in 0..SPRING_ROUNDS {
        let mut push = vec![(0.0, 0.0); nodes];
        for a in 0..nodes {
            // Towards the middle a little, so that parts without an edge between them stay near.
            push[a] = (-0.02 * at[a].0, -0.02 * at[a].1);
            for b in (0..nodes).filter(|&b| b != a) {
                let (dx, dy) = (at[a].0 - at[b].0, at[a].1 - at[b].1);
                let square = (dx * dx + dy * dy).max(1e-6);
                push[a].0 += dx / square;
                push[a].1 += dy / square;
            }
        }
        for &(a, b) in edges {
            let (a, b) = (a as usize, b as usize);
            let (dx, dy) = (at[a].0 - at[b].0, at[a].1 - at[b].1);
            let length = dx.hypot(dy);
            push[a] = (push[a].0 - dx * length, push[a].1 - dy * length);
            push[b] = (push[b].0 + dx * length, push[b].1 + dy * length);
        }
        let most = 0.3 * radius.max(1.0) * (1.0 - round as f64 / SPRING_ROUNDS as f64);
        for (place, push) in at.iter_mut().zip(push) {
            let length = push.0.hypot(push.1).max(1e-9);
            let step = length.min(most) / length;
            *place = (place.0 + push.0 * step, place.1 + push.1 * step);
        }
    }
    at
}
