//! What the backward does with a block of registers, beside the products that the forward has too.

use super::{
    chunks::CHUNK,
    products::{Block, Left, Output, Registers, Right, Triangle, add, zeros},
};
use crate::simd::Simd;

/// The products x_s . dY_q of all pairs s <= q of a head, and what follows from them: the gradients of the scores, and
/// the row and column sums of P.
pub(super) struct Pairs<'a> {
    pub left: Left,
    pub right: Right,
    pub depth: usize,
    pub scores: *const f32,
    pub decays: *const f32,
    pub dt: &'a [f32],
    /// From the start of the chunk to each step, and what f32 cannot hold of it.
    pub time: [&'a [f32]; 2],
    pub out: *mut f32,
    pub received: *mut f32,
    pub given: *mut f32,
    pub apart: *mut f32,
}

/// 0, 1, 2, …
static NUMBERS: [f32; 16] =
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0, 13.0, 14.0, 15.0];

impl Block for Pairs<'_> {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        if !Triangle::reaches(false, [row, R], [column, V * S::LANES]) {
            return;
        }
        unsafe {
            let mut sums = zeros::<S, R, V>();
            add::<S, R, V>(&mut sums, self.left, self.right, [row, column], 0..self.depth);
            let zero = S::splat(0.0);
            for v in 0..V {
                let column = column + v * S::LANES;
                let mut received = S::load(self.received.add(column));
                let mut apart = S::load(self.apart.add(column));
                let [time, low] = self.time;
                let (to, to_low) = (S::load(time.as_ptr().add(column)), S::load(low.as_ptr().add(column)));
                for (r, sums) in sums.iter().enumerate() {
                    let (s, at) = (row + r, (row + r) * CHUNK + column);
                    let mut scored = S::mul(sums[v], S::load(self.decays.add(at)));
                    let mut pair = S::mul(scored, S::load(self.scores.add(at)));
                    if column < s {
                        // Nothing comes from a step that lies before s, whatever stands there.
                        let ahead = S::add(S::load(NUMBERS.as_ptr()), S::splat(column as f32 - s as f32));
                        scored = S::select_positive(ahead, scored, zero);
                        pair = S::select_positive(ahead, pair, zero);
                    }
                    let dt = S::splat(self.dt[s]);
                    let out = self.out.add(at);
                    S::store(out, S::fma(scored, dt, S::load(out)));
                    let part = S::mul(pair, dt);
                    received = S::add(received, part);
                    let (time, low) = (S::sub(to, S::splat(time[s])), S::sub(to_low, S::splat(low[s])));
                    apart = S::fma(part, S::add(time, low), apart);
                    *self.given.add(s) += S::sum(pair);
                }
                S::store(self.apart.add(column), apart);
                S::store(self.received.add(column), received);
            }
        }
    }
}

/// `out += scale_c (left right)`, and per column the sum of the unscaled product times `with`.
pub(super) struct Through {
    pub left: Left,
    pub right: Right,
    pub depth: usize,
    pub scale: *const f32,
    pub with: *const f32,
    pub sums: *mut f32,
    pub out: Output,
}

impl Block for Through {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        unsafe {
            let mut product = zeros::<S, R, V>();
            add::<S, R, V>(&mut product, self.left, self.right, [row, column], 0..self.depth);
            let mut out: Registers<S, R, V> = self.out.load::<S, R, V>(row, column);
            for v in 0..V {
                let at = column + v * S::LANES;
                let scale = S::load(self.scale.add(at));
                let mut sum = S::load(self.sums.add(at));
                for r in 0..R {
                    let with = S::load(self.with.add((row + r) * CHUNK + at));
                    sum = S::fma(product[r][v], with, sum);
                    out[r][v] = S::fma(product[r][v], scale, out[r][v]);
                }
                S::store(self.sums.add(at), sum);
            }
            self.out.store::<S, R, V>(row, column, &out);
        }
    }
}

/// `out += left right` over the steps that are no later than a column's, or no earlier.
pub(super) struct Banded {
    pub left: Left,
    pub right: Right,
    pub steps: usize,
    pub earlier: bool,
    pub out: Output,
}

impl Block for Banded {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        unsafe {
            let end = (column + V * S::LANES).min(self.steps);
            let steps = if self.earlier { 0..end } else { column..self.steps };
            let mut sums = self.out.load::<S, R, V>(row, column);
            add::<S, R, V>(&mut sums, self.left, self.right, [row, column], steps);
            self.out.store::<S, R, V>(row, column, &sums);
        }
    }
}
