//! Outputs moved one step on along K orders (Hydra, Hwang et al. 2024, arXiv 2407.09941, section 3.2): what a causal
//! scan wrote at step t goes to the token of step t + 1, where it stands for all that came before, and the directions
//! add up.
//!
//! ```text
//! out[b, order_k[t + 1]] += y[b, order_k[t], k]
//! ```
//!
//! Nothing arrives at a first step, at a step where the state starts afresh, or behind a blank or silent step; a silent
//! step gets nothing. A task owns a
//! sample and a block of channels, so results do not depend on the threads.

use crate::{
    Dtype, Error, Isa, Orders, Pool, Result, View, ViewMut,
    orders::Paths,
    simd::{Simd, dispatch},
};

/// Channels of a task.
const BLOCK: usize = 64;

/// Outputs to move: shapes and orders. (B batch, L tokens, K directions, D channels.)
#[derive(Clone, Copy)]
pub struct Shift<'a> {
    /// B.
    pub batch: usize,
    /// L.
    pub tokens: usize,
    /// K.
    pub directions: usize,
    /// D.
    pub channels: usize,
    /// K orders over the L tokens.
    pub orders: Orders<'a>,
}

impl Shift<'_> {
    fn check(&self, apart: &View, sum: &View) -> Result<Paths> {
        let (batch, tokens, channels) = (self.batch, self.tokens, self.channels);
        for (name, view, directions) in [("apart", apart, self.directions), ("sum", sum, 1)] {
            if view.dtype() == Dtype::Bf16 || view.dtype() != apart.dtype() {
                return Err(Error::Dtype { name, found: view.dtype(), expected: Dtype::F32 });
            }
            view.check(name, [batch, tokens, directions, 1, channels])?;
        }
        self.orders.paths(batch, tokens, self.directions)
    }

    fn run(&self, paths: &Paths, apart: &View, sum: &View, forward: bool, isa: Isa, pool: &dyn Pool) {
        let blocks = self.channels.div_ceil(BLOCK);
        let wide = apart.dtype() == Dtype::F64;
        pool.run(self.batch * blocks, &|task| {
            let job =
                &Job { shift: self, paths, apart, sum, forward, b: task / blocks, block: task % blocks };
            if wide {
                dispatch!(isa, run_f64(job: &Job));
            } else {
                dispatch!(isa, run_f32(job: &Job));
            }
        });
    }
}

/// Moves y (B, L, K, D) into `out` (B, L, D), of the same dtype, f32 or f64.
///
/// # Errors
/// Shapes or dtypes that do not fit, or an order that points outside; nothing is written then.
pub fn forward(shift: &Shift, y: &View, out: &ViewMut, isa: Isa, pool: &dyn Pool) -> Result<()> {
    out.check("out", [shift.batch, shift.tokens, 1, 1, shift.channels], y.dtype())?;
    let paths = shift.check(y, out.view())?;
    shift.run(&paths, y, out.view(), true, isa, pool);
    Ok(())
}

/// The gradient of y: dy (B, L, K, D) from dout (B, L, D).
///
/// # Errors
/// As [`forward`].
pub fn backward(shift: &Shift, dout: &View, dy: &ViewMut, isa: Isa, pool: &dyn Pool) -> Result<()> {
    dy.check("dy", [shift.batch, shift.tokens, shift.directions, 1, shift.channels], dout.dtype())?;
    let paths = shift.check(dy.view(), dout)?;
    shift.run(&paths, dy.view(), dout, false, isa, pool);
    Ok(())
}

struct Job<'a> {
    shift: &'a Shift<'a>,
    paths: &'a Paths,
    apart: &'a View<'a>,
    sum: &'a View<'a>,
    /// Which of the two is written.
    forward: bool,
    b: usize,
    block: usize,
}

#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "`dispatch` instantiates per instruction set")]
unsafe fn run_f32<S: Simd>(job: &Job) {
    unsafe { run::<f32>(job) }
}
#[inline(always)]
#[expect(clippy::extra_unused_type_parameters, reason = "`dispatch` instantiates per instruction set")]
unsafe fn run_f64<S: Simd>(job: &Job) {
    unsafe { run::<f64>(job) }
}

/// # Safety
/// Both views were checked and are of type T; the one that is written has no other user of these channels.
#[inline(always)]
unsafe fn run<T: Copy + Default + std::ops::Add<Output = T>>(job: &Job) {
    let Job { shift, paths, apart, sum, forward, b, .. } = *job;
    let from = job.block * BLOCK;
    let width = BLOCK.min(shift.channels - from);
    let at = |view: &View, token: usize, k: usize| unsafe {
        view.ptr().cast::<T>().cast_mut().add(view.offset(b, token, k, 0) + from)
    };
    let (written, directions) = if forward { (sum, 1) } else { (apart, shift.directions) };
    for token in 0..shift.tokens {
        for k in 0..directions {
            for i in 0..width {
                unsafe { *at(written, token, k).add(i) = T::default() }
            }
        }
    }
    for k in 0..shift.directions {
        let path = paths.get(b, k);
        for (step, pair) in path.written().windows(2).enumerate() {
            let (Ok(token), Ok(next)) = (usize::try_from(pair[0]), usize::try_from(pair[1])) else {
                continue;
            };
            if path.reset(step + 1) {
                continue;
            }
            let (y, out) = (at(apart, token, k), at(sum, next, 0));
            let (from, to) = if forward { (y, out) } else { (out, y) };
            for i in 0..width {
                unsafe { *to.add(i) = *to.add(i) + *from.add(i) }
            }
        }
    }
}
