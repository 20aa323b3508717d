//! The SSD: random problems, and what their values may be off.

mod launches;

use ophidian_kernels::cuda::Element;
use proptest::prelude::*;

use super::{elements, rounded, storing};
use crate::{
    common::{
        Compared, Kind,
        ssd::{Answer, NAMES, Problem, Shape, Summing, shapes},
    },
    cuda::SUMS,
};

pub use launches::{Form, Operands, Run, kernels, run, step_by_step};

/// Sizes that are compiled for the random problems: headdim, states, element, chunk, width.
pub const VARIANTS: [(usize, usize, Element, usize, usize); 7] = [
    (16, 16, Element::F32, 32, 64),
    (8, 24, Element::Bf16, 32, 32),
    (16, 32, Element::Bf16, 64, 32),
    (5, 3, Element::F32, 32, 32),
    (20, 17, Element::F16, 32, 64),
    (40, 16, Element::F32, 32, 16),
    (48, 16, Element::Bf16, 64, 32),
];

/// Likewise of the steps: headdim, states.
const STEPS: [(usize, usize); 3] = [(7, 3), (16, 50), (20, 128)];

/// How a problem is run.
#[derive(Debug, Clone, Copy)]
pub struct How {
    pub element: Element,
    /// Tiling: most steps of a chunk and channels of a slab.
    pub chunk: usize,
    pub width: usize,
    /// About how many spans the forward and the backward are cut into.
    pub spans: [usize; 2],
    pub parts: usize,
    pub d_per_head: bool,
}

/// A random problem.
#[derive(Debug, Clone)]
pub struct Case {
    pub shape: Shape,
    pub how: How,
}

pub fn cases() -> impl Strategy<Value = Case> {
    let cut = ([1..4usize, 1..4usize], 1..4usize);
    (shapes(110, 2, 2), 0..VARIANTS.len(), cut, any::<bool>()).prop_map(
        |(shape, variant, (spans, parts), d_per_head)| {
            let (headdim, states, element, chunk, width) = VARIANTS[variant];
            let how = How { element, chunk, width, spans, parts, d_per_head };
            Case { shape: Shape { headdim, states, ..shape }, how }
        },
    )
}

/// One token after the other, in one direction.
pub fn step_cases() -> impl Strategy<Value = Case> {
    (shapes(6, 40, 70), elements(), any::<bool>(), 0..STEPS.len()).prop_map(
        |(shape, element, d_per_head, size)| {
            let (headdim, states) = STEPS[size];
            let shape = Shape { directions: 1, kind: Kind::Identity, headdim, states, ..shape };
            Case { shape, how: How { element, chunk: 32, width: 32, spans: [1, 1], parts: 1, d_per_head } }
        },
    )
}

impl Case {
    /// Its problem: what the kernels read as the element type is rounded to it, D is its first channel's of a head if
    /// there is one a head.
    pub fn problem(&self) -> Problem {
        self.how.prepared(Problem::new(&self.shape))
    }

    /// What the kernels gave beside the equations.
    pub fn compared(&self, p: &Problem, found: &[Vec<f32>]) -> Vec<Compared> {
        self.how.compared(p, found)
    }

    /// Likewise of the steps: y and the state.
    pub fn steps_compared(&self, p: &Problem, found: &[Vec<f32>]) -> Vec<Compared> {
        let (want, allowed) = (p.reference(&p.leaves()), Allowed::by_steps(p, self.how.element));
        vec![allowed.compared(0, &found[0], &want.y, 1), allowed.compared(1, &found[1], &want.last, 1)]
    }
}

impl How {
    pub fn prepared(&self, mut p: Problem) -> Problem {
        let round = |v: &mut Vec<f32>| *v = rounded(self.element, std::mem::take(v));
        [&mut p.x, &mut p.dt, &mut p.b, &mut p.c, &mut p.dy].into_iter().for_each(round);
        p.z.iter_mut().for_each(round);
        if let Some(d) = p.d.as_mut().filter(|_| self.d_per_head) {
            for head in d.chunks_mut(p.headdim) {
                let first = head[0];
                head.fill(first);
            }
        }
        p
    }

    pub fn compared(&self, p: &Problem, found: &[Vec<f32>]) -> Vec<Compared> {
        let Answer { y, last, grads } = p.reference(&p.leaves());
        let allowed = Allowed::new(p, self.element, self.chunk);
        let compare = |(i, want): (usize, &Vec<f64>)| {
            let each = if i == 7 && self.d_per_head { p.headdim } else { 1 };
            allowed.compared(i, &found[i], want, each)
        };
        [y, last].iter().chain(&grads).enumerate().map(compare).collect()
    }
}

/// Relative error of an operand of a product that stood between two products. (f32 is multiplied in three parts.)
fn operands(element: Element) -> f64 {
    match element {
        Element::F32 => 0.0,
        Element::Bf16 => 1.0 / 256.0,
        Element::F16 => 1.0 / 2048.0,
    }
}

/// How many of those a value has behind one another, in the order of `Run::results`: the masked scores, or the weighted x
/// and the state they make; backwards dy after the gate, the weighted dy and the gradient of the state; then S . S'.
const ROUNDED: [f64; 11] = [2.0, 1.0, 3.0, 5.0, 5.0, 4.0, 4.0, 1.0, 3.0, 5.0, 2.0];

/// What values of a problem may be off.
pub struct Allowed {
    sizes: [Vec<f64>; 11],
    element: Element,
    operands: f64,
}

impl Allowed {
    pub fn new(p: &Problem, element: Element, chunk: usize) -> Allowed {
        let operands = operands(element);
        let cancelling = SUMS / (SUMS + ROUNDED[3] * operands);
        let Answer { y, last, grads } = p.sizes(Summing { chunk, at_resets: false, cancelling });
        let mut sizes = [y, last].into_iter().chain(grads);
        Allowed { sizes: std::array::from_fn(|_| sizes.next().unwrap()), element, operands }
    }

    /// Where tokens are taken one by one, in f32.
    pub fn by_steps(p: &Problem, element: Element) -> Allowed {
        Allowed { operands: 0.0, ..Allowed::new(p, element, 1) }
    }

    /// Result number `i`; sums over `each` values of what is wanted are compared.
    pub fn compared(&self, i: usize, got: &[f32], want: &[f64], each: usize) -> Compared {
        let summed = |v: &[f64]| v.chunks(each).map(|v| v.iter().sum()).collect::<Vec<f64>>();
        let (want, sizes) = (summed(want), summed(&self.sizes[i]));
        let relative = SUMS + ROUNDED[i] * self.operands;
        // Below the least numbers of f16, or of f32.
        let least = if self.element == Element::F16 { 1e-7 } else { 1e-30 };
        let allowed = |j: usize| relative * sizes[j] + storing(self.element) * want[j].abs() + least;
        let name = ["y", "final_state"].into_iter().chain(NAMES).nth(i).unwrap();
        Compared::within(name, got, &want, allowed)
    }
}
