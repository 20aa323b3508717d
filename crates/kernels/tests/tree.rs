//! The tree scan against its definition: a sum over all pairs of nodes of the decays on the path between them.
#![allow(missing_docs)]

mod common;

use common::{Draw, Two, close, wide};
use ophidian_kernels::{
    Error, Isa, Pool, Strides, View, ViewMut,
    pool::Serial,
    tree::{Backward, Sweep, Tree, backward, forward},
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Shape {
    batch: usize,
    nodes: usize,
    channels: usize,
    seed: u64,
    per_sample: bool,
    roots: usize,
    up: bool,
}

fn shapes(nodes: usize, channels: usize) -> impl Strategy<Value = Shape> {
    (1..4usize, 1..nodes, 1..channels, any::<u64>(), any::<bool>(), 1..4usize, any::<bool>()).prop_map(
        |(batch, nodes, channels, seed, per_sample, roots, up)| Shape {
            batch,
            nodes,
            channels,
            seed,
            per_sample,
            roots,
            up,
        },
    )
}

/// A random forest over randomly numbered nodes.
fn forest(nodes: usize, roots: usize, draw: &mut Draw) -> Vec<i32> {
    let mut number: Vec<usize> = (0..nodes).collect();
    for i in (1..nodes).rev() {
        number.swap(i, draw.below(i + 1));
    }
    let chain = draw.below(2) == 0;
    let mut parents = vec![-1; nodes];
    for i in roots..nodes {
        let parent = if chain { i - 1 - draw.below(2.min(i)) } else { draw.below(i) };
        parents[number[i]] = number[parent] as i32;
    }
    parents
}

struct Problem {
    s: Shape,
    parents: Vec<i32>,
    decay: Vec<f32>,
    input: Vec<f32>,
    dy: Vec<f32>,
}

impl Problem {
    fn new(s: &Shape) -> Problem {
        let mut draw = Draw(s.seed);
        let trees = if s.per_sample { s.batch } else { 1 };
        let parents = (0..trees).flat_map(|_| forest(s.nodes, s.roots, &mut draw)).collect();
        let len = s.batch * s.nodes * s.channels;
        let decay = draw.vec(len, 1.0);
        Problem { s: s.clone(), parents, decay, input: draw.vec(len, 1.0), dy: draw.vec(len, 1.0) }
    }

    fn parent(&self, b: usize, node: usize) -> Option<usize> {
        let tree = if self.s.per_sample { b } else { 0 };
        usize::try_from(self.parents[tree * self.s.nodes + node]).ok()
    }

    /// y by the definition: up from j until an ancestor of i (or i), then down to i.
    fn naive(&self, decay: &[f64], input: &[f64]) -> Vec<f64> {
        let Shape { batch, nodes, channels, up, .. } = self.s;
        let mut y = vec![0.0; input.len()];
        for b in 0..batch {
            let ancestors = |node: usize| {
                std::iter::successors(Some(node), |node| self.parent(b, *node)).collect::<Vec<_>>()
            };
            for i in 0..nodes {
                let above = ancestors(i);
                for j in 0..nodes {
                    let path = ancestors(j);
                    let Some(meet) = path.iter().position(|node| above.contains(node)) else { continue };
                    let back = above.iter().position(|node| *node == path[meet]).unwrap();
                    if up && back > 0 {
                        continue;
                    }
                    for c in 0..channels {
                        let at = |node: usize| (b * nodes + node) * channels + c;
                        let edges = path[..meet].iter().chain(&above[..back]);
                        y[at(i)] += edges.map(|node| decay[at(*node)]).product::<f64>() * input[at(j)];
                    }
                }
            }
        }
        y
    }

    fn sweep(&self) -> Sweep {
        if self.s.up { Sweep::Up } else { Sweep::UpDown }
    }

    fn run(&self, isa: Isa, pool: &dyn Pool) -> [Vec<f32>; 3] {
        let Shape { batch, nodes, channels, .. } = self.s;
        let strides = Strides::shared(nodes, channels);
        let mut found = [0, 1, 2].map(|_| vec![f32::NAN; self.dy.len()]);
        let [y, ddecay, dinput] = &mut found;
        let tree = Tree {
            batch,
            nodes,
            channels,
            parents: &self.parents,
            sweep: self.sweep(),
            decay: View::f32(&self.decay, strides),
            input: View::f32(&self.input, strides),
        };
        forward(&tree, &ViewMut::f32(y, strides), isa, pool).unwrap();
        let out = Backward {
            dy: View::f32(&self.dy, strides),
            ddecay: ViewMut::f32(ddecay, strides),
            dinput: ViewMut::f32(dinput, strides),
        };
        backward(&tree, &out, isa, pool).unwrap();
        found
    }

    fn run_f64(&self, decay: &[f64], input: &[f64]) -> [Vec<f64>; 3] {
        let Shape { batch, nodes, channels, .. } = self.s;
        let strides = Strides::shared(nodes, channels);
        let dy = wide(&self.dy);
        let mut found = [0, 1, 2].map(|_| vec![f64::NAN; dy.len()]);
        let [y, ddecay, dinput] = &mut found;
        let view = |data| View::f64(data, strides);
        let tree = Tree {
            batch,
            nodes,
            channels,
            parents: &self.parents,
            sweep: self.sweep(),
            decay: view(decay),
            input: view(input),
        };
        forward(&tree, &ViewMut::f64(y, strides), Isa::detect(), &Two).unwrap();
        let out = Backward {
            dy: view(&dy),
            ddecay: ViewMut::f64(ddecay, strides),
            dinput: ViewMut::f64(dinput, strides),
        };
        backward(&tree, &out, Isa::detect(), &Two).unwrap();
        found
    }
}

fn close_f64(name: &str, got: &[f64], want: &[f64], tolerance: f64) {
    let scale = want.iter().fold(1e-3f64, |m, v| m.max(v.abs()));
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!((g - w).abs() <= tolerance * scale, "{name}[{i}]: got {g}, want {w}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_is_the_definition(shape in shapes(24, 70)) {
        let p = Problem::new(&shape);
        let (decay, input) = (wide(&p.decay), wide(&p.input));
        let want = p.naive(&decay, &input);
        let exact = p.run_f64(&decay, &input);
        close_f64("y", &exact[0], &want, 1e-12);
        // Gradients by differences of the definition, which is linear in each of its inputs.
        let loss = |decay: &[f64], input: &[f64]| -> f64 {
            p.naive(decay, input).iter().zip(&p.dy).map(|(y, dy)| y * f64::from(*dy)).sum()
        };
        let mut draw = Draw(shape.seed ^ 1);
        for (which, grad) in [("decay", &exact[1]), ("input", &exact[2])] {
            let largest = grad.iter().fold(1.0f64, |m, v| m.max(v.abs()));
            for _ in 0..4 {
                let i = draw.below(grad.len());
                let moved = |by: f64| {
                    let (mut decay, mut input) = (decay.clone(), input.clone());
                    if which == "decay" { decay[i] += by } else { input[i] += by }
                    loss(&decay, &input)
                };
                let want = (moved(1e-4) - moved(-1e-4)) / 2e-4;
                prop_assert!((grad[i] - want).abs() < 1e-6 * largest, "{which}[{i}]: {} {want}", grad[i]);
            }
        }
        for isa in common::isas() {
            for (name, (got, want)) in ["y", "ddecay", "dinput"].iter().zip(p.run(isa, &Two).iter().zip(&exact)) {
                close(name, got, want, 2e-6);
            }
        }
    }

    #[test]
    fn threads_do_not_matter(shape in shapes(60, 140)) {
        let p = Problem::new(&shape);
        let bits = |found: [Vec<f32>; 3]| found.concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits(p.run(Isa::detect(), &Serial)), bits(p.run(Isa::detect(), &Two)));
    }
}

fn refused(parents: &[i32], batch: usize, nodes: usize) -> Error {
    let data = vec![0f32; batch * nodes * 2];
    let mut y = vec![7f32; data.len()];
    let strides = Strides::shared(nodes, 2);
    let view = View::f32(&data, strides);
    let tree = Tree { batch, nodes, channels: 2, parents, sweep: Sweep::UpDown, decay: view, input: view };
    let error = forward(&tree, &ViewMut::f32(&mut y, strides), Isa::detect(), &Serial).unwrap_err();
    assert!(y.iter().all(|v| *v == 7.0), "nothing may be written");
    error
}

#[test]
fn what_is_no_tree_is_refused() {
    assert_eq!(refused(&[-1, 0, 5], 1, 3), Error::Parent { tree: 0, node: 2, parent: 5, nodes: 3 });
    assert_eq!(
        refused(&[-1, 0, 1, -1, -2, 0], 2, 3),
        Error::Parent { tree: 1, node: 1, parent: -2, nodes: 3 }
    );
    assert_eq!(refused(&[-1, 2, 1], 1, 3), Error::Cycle { tree: 0, node: 1, count: 2 });
    assert_eq!(refused(&[1, 2, 0], 1, 3), Error::Cycle { tree: 0, node: 0, count: 3 });
    assert_eq!(refused(&[-1, 1, 1], 1, 3), Error::Cycle { tree: 0, node: 1, count: 2 });
    assert_eq!(refused(&[-1, 0], 2, 3), Error::Length { name: "parents", found: 2, expected: 6 });
}

#[test]
fn misfits_are_refused() {
    let (data, narrow) = (vec![0f32; 6], vec![0f64; 6]);
    let mut y = vec![0f32; 6];
    let strides = Strides::shared(3, 2);
    let tree = |decay| Tree {
        batch: 1,
        nodes: 3,
        channels: 2,
        parents: &[-1, 0, 0],
        sweep: Sweep::Up,
        decay,
        input: View::f32(&data, strides),
    };
    let mut run = |decay| forward(&tree(decay), &ViewMut::f32(&mut y, strides), Isa::detect(), &Serial);
    assert!(matches!(run(View::f64(&narrow, strides)), Err(Error::Dtype { name: "decay", .. })));
    assert!(matches!(run(View::f32(&data[1..], strides)), Err(Error::OutOfBounds { name: "decay", .. })));
    assert!(run(View::f32(&data, strides)).is_ok());
}

/// A NaN reaches the nodes that the equations lead it to, and no channel beside it.
#[test]
fn nan_follows_the_tree() {
    let (mut input, decay) = (vec![1f32; 8], vec![0.5f32; 8]);
    input[2 * 2] = f32::NAN;
    let strides = Strides::shared(4, 2);
    let mut y = vec![0f32; 8];
    let tree = Tree {
        batch: 1,
        nodes: 4,
        channels: 2,
        parents: &[-1, 0, 1, 0],
        sweep: Sweep::Up,
        decay: View::f32(&decay, strides),
        input: View::f32(&input, strides),
    };
    forward(&tree, &ViewMut::f32(&mut y, strides), Isa::detect(), &Serial).unwrap();
    let nan: Vec<bool> = y.iter().step_by(2).map(|v| v.is_nan()).collect();
    assert_eq!(nan, [true, true, true, false]);
    assert!(y.iter().skip(1).step_by(2).all(|v| v.is_finite()));
}

/// A chain is the plain recurrence; deep trees need no stack.
#[test]
fn a_chain_is_a_scan() {
    let n = 200_000;
    let parents: Vec<i32> = (0..n).map(|i| if i + 1 == n { -1 } else { i + 1 }).collect();
    let mut draw = Draw(3);
    let (decay, input) = (draw.vec(n as usize, 1.0), draw.vec(n as usize, 1.0));
    let strides = Strides::shared(n as usize, 1);
    let mut y = vec![0f32; n as usize];
    let tree = Tree {
        batch: 1,
        nodes: n as usize,
        channels: 1,
        parents: &parents,
        sweep: Sweep::Up,
        decay: View::f32(&decay, strides),
        input: View::f32(&input, strides),
    };
    forward(&tree, &ViewMut::f32(&mut y, strides), Isa::detect(), &Serial).unwrap();
    // The decay of the edge from t to t + 1 belongs to t.
    let mut h = 0.0;
    for t in 0..n as usize {
        h = input[t] + if t > 0 { decay[t - 1] * h } else { 0.0 };
        assert!((y[t] - h).abs() < 1e-5, "{t}");
    }
}
