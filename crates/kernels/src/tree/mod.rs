//! The scan over a tree (GrootV, Xiao et al. 2024, arXiv 2406.02395, eq. 4 and algorithm 1), scalar state per channel.
//!
//! Every node i has an input f_i and a decay d_i, that of the edge to its parent. A path multiplies the decays of its
//! edges, and a node sums what reaches it:
//!
//! ```text
//! y_i = sum_j (product of decays on the path from j to i) f_j
//! ```
//!
//! in two sweeps: from the leaves to the root, then from the root to the leaves.
//!
//! ```text
//! up:    a_i = f_i + sum_{children c} d_c a_c
//! down:  y_i = a_i + d_i (y_parent - d_i a_i),   y_root = a_root
//! ```
//!
//! With [`Sweep::Up`] alone, y = a: every node sums its own subtree, the tree's form of a causal scan (a chain gives
//! the plain recurrence h_t = f_t + d h_{t-1}). A root's decay is not read. Several roots make a forest of separate trees.
//!
//! A task owns a sample and a block of channels, so results do not depend on the threads. The forward works in place on
//! its output; the backward recomputes the sweeps in a scratch of one block and keeps nothing between.

mod order;
mod sweep;

use std::ops::Range;

use crate::{
    Dtype, Error, Isa, Pool, Result, View, ViewMut,
    simd::{Simd, dispatch},
};
use order::Walks;
use sweep::Float;

/// Which way sums flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// From the leaves to the root: a node sums its subtree.
    Up,
    /// And back: a node sums the whole tree.
    UpDown,
}

/// A tree scan: shapes and inputs. (B batch, L nodes, D channels.)
#[derive(Clone, Copy)]
pub struct Tree<'a> {
    /// B.
    pub batch: usize,
    /// L.
    pub nodes: usize,
    /// D.
    pub channels: usize,
    /// The parent of each node, -1 for a root: (L), one tree for all samples, or (B, L).
    pub parents: &'a [i32],
    /// Which way sums flow.
    pub sweep: Sweep,
    /// (B, L, D), f32 or f64: the decay of the edge from a node to its parent.
    pub decay: View<'a>,
    /// (B, L, D), of the same dtype.
    pub input: View<'a>,
}

/// What the backward reads and writes, all (B, L, D) of the inputs' dtype.
pub struct Backward<'a> {
    /// Gradient of y.
    pub dy: View<'a>,
    /// Gradient of the decays; 0 at roots.
    pub ddecay: ViewMut<'a>,
    /// Gradient of the inputs.
    pub dinput: ViewMut<'a>,
}

/// Channels of a task: a cache line of f32 in the forward, where the rows of some thousand nodes stay in the second-level cache
/// from one sweep to the other; two in the backward, which holds more of a node than would stay.
const FORWARD: usize = 16;
const BACKWARD: usize = 32;

impl Tree<'_> {
    fn extent(&self) -> [usize; 5] {
        [self.batch, self.nodes, 1, 1, self.channels]
    }

    /// Checks shapes and dtypes, and puts every node behind its parent.
    fn check(&self) -> Result<Walks<'_>> {
        let dtype = self.input.dtype();
        if dtype == Dtype::Bf16 {
            return Err(Error::Dtype { name: "input", found: dtype, expected: Dtype::F32 });
        }
        self.input.check("input", self.extent())?;
        self.view("decay", &self.decay)?;
        Walks::new(self.parents, self.batch, self.nodes)
    }

    fn view(&self, name: &'static str, view: &View) -> Result<()> {
        if view.dtype() != self.input.dtype() {
            return Err(Error::Dtype { name, found: view.dtype(), expected: self.input.dtype() });
        }
        view.check(name, self.extent())
    }

    /// How many tasks of `width` channels there are.
    fn tasks(&self, width: usize) -> usize {
        self.batch * self.channels.div_ceil(width)
    }

    /// Sample and channels of one of them.
    fn task(&self, task: usize, width: usize) -> (usize, Range<usize>) {
        let blocks = self.channels.div_ceil(width);
        let (b, block) = (task / blocks, task % blocks);
        (b, block * width..((block + 1) * width).min(self.channels))
    }
}

/// Runs the scan into y (B, L, D), of the inputs' dtype.
///
/// # Errors
/// Shapes or dtypes that do not fit, a parent that does not exist, a cycle; nothing is written then.
pub fn forward(tree: &Tree, y: &ViewMut, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let walks = tree.check()?;
    y.check("y", tree.extent(), tree.input.dtype())?;
    let (walks, wide) = (&walks, tree.input.dtype() == Dtype::F64);
    pool.run(tree.tasks(FORWARD), &|task| {
        let job = &ForwardJob { tree, walks, y, task };
        if wide {
            dispatch!(isa, forward_f64(job: &ForwardJob));
        } else {
            dispatch!(isa, forward_f32(job: &ForwardJob));
        }
    });
    Ok(())
}

/// The gradients of [`forward`].
///
/// With G the up sweep of dy and E its up and down sweep (its down sweep alone for [`Sweep::Up`]), the inputs'
/// gradient is E, for the map from inputs to y is its own transpose, and that of the decays
/// `G_i (y_parent - d_i a_i) + a_i (E_parent - d_i G_i)`, or `a_i E_parent`.
///
/// # Errors
/// As [`forward`].
pub fn backward(tree: &Tree, out: &Backward, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let walks = tree.check()?;
    tree.view("dy", &out.dy)?;
    out.ddecay.check("ddecay", tree.extent(), tree.input.dtype())?;
    out.dinput.check("dinput", tree.extent(), tree.input.dtype())?;
    let (walks, wide) = (&walks, tree.input.dtype() == Dtype::F64);
    pool.run(tree.tasks(BACKWARD), &|task| {
        let job = &BackwardJob { tree, walks, out, task };
        if wide {
            dispatch!(isa, backward_f64(job: &BackwardJob));
        } else {
            dispatch!(isa, backward_f32(job: &BackwardJob));
        }
    });
    Ok(())
}

struct ForwardJob<'a> {
    tree: &'a Tree<'a>,
    walks: &'a Walks<'a>,
    y: &'a ViewMut<'a>,
    task: usize,
}

struct BackwardJob<'a> {
    tree: &'a Tree<'a>,
    walks: &'a Walks<'a>,
    out: &'a Backward<'a>,
    task: usize,
}

// The loops are plain; instantiating them per instruction set lets the compiler use its vectors.
#[inline(always)]
unsafe fn forward_f32<S: Simd>(job: &ForwardJob) {
    unsafe { run_forward::<S, f32>(job) }
}
#[inline(always)]
unsafe fn forward_f64<S: Simd>(job: &ForwardJob) {
    unsafe { run_forward::<S, f64>(job) }
}
#[inline(always)]
unsafe fn backward_f32<S: Simd>(job: &BackwardJob) {
    unsafe { run_backward::<S, f32>(job) }
}
#[inline(always)]
unsafe fn backward_f64<S: Simd>(job: &BackwardJob) {
    unsafe { run_backward::<S, f64>(job) }
}

#[inline(always)]
unsafe fn run_forward<S: Simd, T: Float>(job: &ForwardJob) {
    let (b, channels) = job.tree.task(job.task, FORWARD);
    let walk = job.walks.get(b);
    unsafe {
        let rows = |view: &View| sweep::Rows::<T>::read(view, b, channels.clone());
        let (input, decay) = (rows(&job.tree.input), rows(&job.tree.decay));
        let y = sweep::Rows::write(job.y, b, channels.clone());
        y.copy_from::<S>(&input, job.tree.nodes, Some(&decay));
        sweep::up(walk, &decay, &y);
        if job.tree.sweep == Sweep::UpDown {
            sweep::down(walk, &decay, &y);
        }
    }
}

#[inline(always)]
unsafe fn run_backward<S: Simd, T: Float>(job: &BackwardJob) {
    let Tree { nodes, sweep: way, .. } = *job.tree;
    let (b, channels) = job.tree.task(job.task, BACKWARD);
    let walk = job.walks.get(b);
    let mut scratch = vec![T::ZERO; 3 * nodes * channels.len()];
    let scratch = scratch.as_mut_ptr();
    unsafe {
        let rows = |view: &View| sweep::Rows::<T>::read(view, b, channels.clone());
        let (input, decay, dy) = (rows(&job.tree.input), rows(&job.tree.decay), rows(&job.out.dy));
        let ddecay = sweep::Rows::write(&job.out.ddecay, b, channels.clone());
        let dinput = sweep::Rows::write(&job.out.dinput, b, channels.clone());
        let part = |i: usize| {
            sweep::Rows::at(scratch.add(i * nodes * channels.len()), channels.len(), channels.len())
        };
        let [a, y, g] = [0, 1, 2].map(part);
        a.copy_from::<S>(&input, nodes, Some(&decay));
        sweep::up(walk, &decay, &a);
        dinput.copy_from::<S>(&dy, nodes, None);
        if way == Sweep::Up {
            sweep::spread(walk, &decay, &dinput);
            sweep::decays_up(walk, &a, &dinput, &ddecay);
        } else {
            y.copy_from::<S>(&a, nodes, None);
            sweep::down(walk, &decay, &y);
            sweep::up(walk, &decay, &dinput);
            g.copy_from::<S>(&dinput, nodes, None);
            sweep::down(walk, &decay, &dinput);
            sweep::decays(walk, &decay, [&a, &y, &g, &dinput], &ddecay);
        }
    }
}
