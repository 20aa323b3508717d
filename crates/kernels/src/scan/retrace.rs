//! One task of the backward: a sample and a range of channel blocks, all directions.

// Loops over the states index several register arrays at once.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::{
    Aligned,
    backward::{Coefficients, Job},
    forward::decays,
    layout::Block,
    rows::{self, Ahead, Rows, gather, per_channel, prefetch_coefficients, scatter},
    scratch::{Part, STRIP, Scratch, TILE},
};
use crate::{
    View,
    simd::{Simd, math},
};

/// States walked backwards together: what a step of theirs needs fits the registers.
const WALK: usize = 2;

/// What a strip of a chunk is about.
struct Strip<'a> {
    b: usize,
    k: usize,
    /// Its blocks.
    blocks: Range<usize>,
    /// The block that is taken after them: of this chunk, or the first of the chunk ahead.
    next: usize,
    /// First step of the chunk.
    start: usize,
    tokens: &'a [i32],
    resets: &'a [bool],
}

#[inline(always)]
pub(super) unsafe fn run<S: Simd>(job: &Job, b: usize, blocks: Range<usize>, coefficients: Coefficients) {
    let (scan, layout) = (job.scan, job.layout);
    let (states, chunk) = (scan.states, layout.chunk);
    let per_block = states * S::LANES;
    // Gradients of the state and of A, kept across chunks: block, state, lane. Of D and the bias: block, 2, lane.
    let (mut g, mut da) =
        (Aligned::zeros(blocks.len() * per_block), Aligned::zeros(blocks.len() * per_block));
    let mut small = Aligned::zeros(blocks.len() * 2 * S::LANES);
    let mut scratch = Scratch::new(chunk, S::LANES, states, scan.decays_below_one());
    for k in 0..scan.directions {
        let path = job.paths.get(b, k);
        let at = (b * scan.directions + k) * scan.channels * states;
        da.fill(0.0);
        small.fill(0.0);
        g.fill(0.0);
        if let Some(last) = job.dfinal {
            layout.exchange(blocks.clone(), states, |from, to| g[to] = last[at + from]);
        }
        for start in (0..path.tokens.len()).step_by(chunk).rev() {
            let steps = start..(start + chunk).min(path.tokens.len());
            let tokens = &path.tokens[steps.clone()];
            let before = start.saturating_sub(chunk)..start;
            let ahead = &path.tokens[before.clone()];
            let resets = path.resets.get(steps.clone()).unwrap_or(&[]);
            scratch.turn(job, path, [steps, before], b, k);
            let mut group = usize::MAX;
            let mut first = blocks.start;
            while first < blocks.end {
                let here = layout.blocks[first].group;
                let last =
                    (first..blocks.end.min(first + STRIP)).take_while(|i| layout.blocks[*i].group == here);
                let end = last.last().unwrap_or(first) + 1;
                let next = if end == blocks.end { blocks.start } else { end };
                let strip = Strip { b, k, blocks: first..end, next, start, tokens, resets };
                if end == blocks.end {
                    unsafe { prefetch_sums::<S>(job, &strip, ahead, coefficients) };
                }
                if group != here {
                    group = here;
                    rows::coefficients(&scan.b, &mut scratch.b, tokens, [b, k, group], states);
                    rows::coefficients(&scan.c, &mut scratch.c, tokens, [b, k, group], states);
                }
                let own = first - blocks.start;
                first = strip.blocks.end;
                unsafe {
                    let (g, da) = (g.as_mut_ptr().add(own * per_block), da.as_mut_ptr().add(own * per_block));
                    strip_backward::<S>(job, &strip, g, da, &mut scratch, coefficients);
                    for (i, index) in strip.blocks.clone().enumerate() {
                        let small = small.as_mut_ptr().add((own + i) * 2 * S::LANES);
                        finish::<S>(job, &strip, i, layout.blocks[index], small, &mut scratch);
                    }
                }
            }
        }
        let sample = (b * scan.directions + k) * scan.channels;
        for (i, block) in layout.blocks[blocks.clone()].iter().enumerate() {
            for lane in 0..block.width {
                let to = (sample + block.channel + lane) * (states + 2);
                // Safety: this task's channels only.
                unsafe {
                    for n in 0..states {
                        *job.parameters.add(to + n) = da[(i * states + n) * S::LANES + lane];
                    }
                    *job.parameters.add(to + states) = small[i * 2 * S::LANES + lane];
                    *job.parameters.add(to + states + 1) = small[(i * 2 + 1) * S::LANES + lane];
                }
            }
        }
        if let Some(initial) = job.dinitial {
            // Safety: this task's channels only.
            layout.exchange(blocks.clone(), states, |to, from| unsafe { *initial.add(at + to) = g[from] });
        }
    }
}

/// Everything of a strip that goes through the states.
#[inline(always)]
unsafe fn strip_backward<S: Simd>(
    job: &Job,
    strip: &Strip,
    g: *mut f32,
    da: *mut f32,
    scratch: &mut Scratch,
    to: Coefficients,
) {
    let states = job.scan.states;
    let steps = strip.tokens.len();
    unsafe {
        for (i, index) in strip.blocks.clone().enumerate() {
            if index + 1 < strip.blocks.end {
                prefetch_block::<S>(job, job.layout.blocks[index + 1], &scratch.rows, false);
            }
            prepare::<S>(job, strip, i, job.layout.blocks[index], scratch);
        }
        let mut n0 = 0;
        while n0 < states {
            let width = if states - n0 >= TILE { TILE } else { 1 };
            let used = steps * width * S::LANES;
            scratch.db[..used].fill(0.0);
            scratch.dc[..used].fill(0.0);
            for (i, index) in strip.blocks.clone().enumerate() {
                // Between the recurrences memory has time.
                if n0 == 0 && index + 1 == strip.blocks.end {
                    let ahead = strip.next <= strip.blocks.start;
                    let rows = if ahead { &scratch.ahead } else { &scratch.rows };
                    prefetch_block::<S>(job, job.layout.blocks[strip.next], rows, true);
                }
                let own = (i * states + n0) * S::LANES;
                let (g, da) = (g.add(own), da.add(own));
                if width == TILE {
                    tile::<S, TILE>(job, strip, i, index, n0, g, da, scratch);
                } else {
                    tile::<S, 1>(job, strip, i, index, n0, g, da, scratch);
                }
            }
            let group = job.layout.blocks[strip.blocks.start].group;
            fold_lanes::<S>(strip, group, n0, width, scratch, to);
            n0 += width;
        }
    }
}

/// Asks for the rows of a block.
#[inline(always)]
unsafe fn prefetch_block<S: Simd>(job: &Job, block: Block, rows: &[Rows; 7], first: bool) {
    let [du, ddelta] = [job.du, job.ddelta].map(|view| Some(view.view()));
    let dz = job.dz.map(|view| view.view());
    let views =
        [Some(&job.scan.u), Some(&job.scan.delta), Some(&job.dy), job.scan.z.as_ref(), du, ddelta, dz];
    for (view, rows) in views.into_iter().zip(rows) {
        if let Some(ahead) = view.and_then(|view| Ahead::new(view, rows, block.channels(), first)) {
            ahead.ask_all::<S>();
        }
    }
}

/// Asks for the rows of B and C, and of the sums of their gradients, of the chunk `ahead`.
#[inline(always)]
unsafe fn prefetch_sums<S: Simd>(job: &Job, strip: &Strip, ahead: &[i32], to: Coefficients) {
    let (scan, group) = (job.scan, job.layout.blocks[strip.next].group);
    for view in [&scan.b, &scan.c] {
        let row = |token| view.offset(strip.b, token, strip.k, group);
        prefetch_coefficients::<S>(view.ptr(), view.dtype().size(), ahead, scan.states, row);
    }
    for view in to.views {
        let row = |token| view.offset(to.sample, token, strip.k, group);
        prefetch_coefficients::<S>(view.ptr(), 4, ahead, scan.states, row);
    }
}

/// Loads u, delta, dy (and z) of a block and what follows from them alone.
#[inline(always)]
unsafe fn prepare<S: Simd>(job: &Job, strip: &Strip, i: usize, block: Block, scratch: &mut Scratch) {
    let scan = job.scan;
    let row = strip.k * scan.channels + block.channel;
    let [dt, slope, u, x, dy, y, dx, ddt] =
        [Part::Dt, Part::Slope, Part::U, Part::X, Part::Dy, Part::Y, Part::Dx, Part::Ddt]
            .map(|part| scratch.part(i, part));
    unsafe {
        gather::<S>(&scan.u, &scratch.rows[0], &[block], u);
        gather::<S>(&scan.delta, &scratch.rows[1], &[block], dt);
        gather::<S>(&job.dy, &scratch.rows[2], &[block], dy);
        let z = scratch.z.as_mut_ptr();
        if let Some(view) = &scan.z {
            gather::<S>(view, &scratch.rows[3], &[block], z);
        }
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let bias = per_channel::<S>(scan.delta_bias, row, block.width);
        let skip = per_channel::<S>(scan.d, row, block.width);
        for at in (0..strip.tokens.len() * S::LANES).step_by(S::LANES) {
            let input = S::load(u.add(at));
            let (mut delta, mut by_delta) = (S::add(S::load(dt.add(at)), bias), one);
            if scan.softplus {
                (delta, by_delta) = math::softplus_sigmoid::<S>(delta);
            }
            S::store(dt.add(at), delta);
            S::store(slope.add(at), by_delta);
            S::store(x.add(at), S::mul(delta, input));
            S::store(y.add(at), S::mul(skip, input));
            S::store(dx.add(at), zero);
            S::store(ddt.add(at), zero);
            if scan.z.is_some() {
                let z = S::load(z.add(at));
                S::store(dy.add(at), S::mul(S::load(dy.add(at)), S::mul(z, math::sigmoid::<S>(z))));
            }
        }
    }
}

/// `NS` states of one block over the chunk: recomputed from the checkpoint, then walked backwards.
#[inline(always)]
unsafe fn tile<S: Simd, const NS: usize>(
    job: &Job,
    strip: &Strip,
    i: usize,
    index: usize,
    n0: usize,
    g: *mut f32,
    da: *mut f32,
    scratch: &mut Scratch,
) {
    let (states, blocks) = (job.scan.states, job.layout.blocks.len());
    let steps = strip.tokens.len();
    let chunk = strip.start / job.layout.chunk;
    let sample = (strip.b * job.scan.directions + strip.k) * job.checkpoint_len;
    unsafe {
        let checkpoint =
            job.checkpoints.as_ptr().add(sample + ((chunk * blocks + index) * states + n0) * S::LANES);
        let a = job.decay.as_ptr().add(((strip.k * blocks + index) * states + n0) * S::LANES);
        let (e, h) = (scratch.e.as_mut_ptr(), scratch.h.as_mut_ptr());
        decays::<S, NS>(steps, scratch.part(i, Part::Dt), a, e, scratch.below_one, |_| ());
        replay::<S, NS>(job, strip, i, n0, checkpoint, e, h, scratch);
        if NS == TILE {
            for n in (0..TILE).step_by(WALK) {
                if strip.resets.is_empty() {
                    retrace::<S, WALK, TILE, false>(job, strip, i, [n0, n], a, e, h, g, da, scratch);
                } else {
                    retrace::<S, WALK, TILE, true>(job, strip, i, [n0, n], a, e, h, g, da, scratch);
                }
            }
        } else {
            retrace::<S, NS, NS, true>(job, strip, i, [n0, 0], a, e, h, g, da, scratch);
        }
    }
}

/// Recomputes the states of the chunk; and y, if the gate needs it.
#[inline(always)]
unsafe fn replay<S: Simd, const NS: usize>(
    job: &Job,
    strip: &Strip,
    i: usize,
    n0: usize,
    checkpoint: *const f32,
    e: *const f32,
    h: *mut f32,
    scratch: &mut Scratch,
) {
    let states = job.scan.states;
    let gated = job.scan.z.is_some();
    let (x, y) = (scratch.part(i, Part::X), scratch.part(i, Part::Y));
    let (b, c) = (scratch.b.as_ptr(), scratch.c.as_ptr());
    unsafe {
        let mut state = [S::splat(0.0); NS];
        for (n, state) in state.iter_mut().enumerate() {
            *state = S::load(checkpoint.add(n * S::LANES));
            S::store(h.add(n * S::LANES), *state);
        }
        for q in 0..strip.tokens.len() {
            if strip.resets.get(q) == Some(&true) {
                state = [S::splat(0.0); NS];
            }
            let x = S::load(x.add(q * S::LANES));
            let (b, c) = (b.add(q * states + n0), c.add(q * states + n0));
            for n in 0..NS {
                let e = S::load(e.add((q * NS + n) * S::LANES));
                state[n] = S::fma(e, state[n], S::mul(x, S::splat(*b.add(n))));
                S::store(h.add(((q + 1) * NS + n) * S::LANES), state[n]);
            }
            if gated {
                let y = y.add(q * S::LANES);
                let mut sum = S::load(y);
                for (n, state) in state.iter().enumerate() {
                    sum = S::fma(*state, S::splat(*c.add(n)), sum);
                }
                S::store(y, sum);
            }
        }
    }
}

/// Walks the chunk backwards with states `n..n + NS` of a tile of `WIDTH` that starts at state `n0`.
#[inline(always)]
unsafe fn retrace<S: Simd, const NS: usize, const WIDTH: usize, const RESETS: bool>(
    job: &Job,
    strip: &Strip,
    i: usize,
    [n0, n]: [usize; 2],
    a: *const f32,
    e: *const f32,
    h: *const f32,
    g: *mut f32,
    da: *mut f32,
    scratch: &mut Scratch,
) {
    let states = job.scan.states;
    let [dt, x, dy, dx_at, ddt_at] =
        [Part::Dt, Part::X, Part::Dy, Part::Dx, Part::Ddt].map(|part| scratch.part(i, part));
    let lane = n * S::LANES;
    unsafe {
        let (b, c) = (scratch.b.as_ptr().add(n0 + n), scratch.c.as_ptr().add(n0 + n));
        let (db, dc) = (scratch.db.as_mut_ptr().add(lane), scratch.dc.as_mut_ptr().add(lane));
        let (a, e, h, g, da) = (a.add(lane), e.add(lane), h.add(lane), g.add(lane), da.add(lane));
        let zero = S::splat(0.0);
        let (mut grad, mut sum_a) = ([zero; NS], [zero; NS]);
        for n in 0..NS {
            grad[n] = S::load(g.add(n * S::LANES));
            sum_a[n] = S::load(da.add(n * S::LANES));
        }
        for q in (0..strip.tokens.len()).rev() {
            let dt = S::load(dt.add(q * S::LANES));
            let x = S::load(x.add(q * S::LANES));
            let dy = S::load(dy.add(q * S::LANES));
            let (mut dx, mut ddt) = (S::load(dx_at.add(q * S::LANES)), S::load(ddt_at.add(q * S::LANES)));
            let (b, c) = (b.add(q * states), c.add(q * states));
            let at = q * WIDTH * S::LANES;
            let (before, after) = (h.add(at), h.add(at + WIDTH * S::LANES));
            let (e, db, dc) = (e.add(at), db.add(at), dc.add(at));
            // A reset cuts what flows to the step before and through the decay.
            let reset = RESETS && strip.resets.get(q) == Some(&true);
            for n in 0..NS {
                let lane = n * S::LANES;
                let total = S::fma(dy, S::splat(*c.add(n)), grad[n]);
                S::store(dc.add(lane), S::fma(dy, S::load(after.add(lane)), S::load(dc.add(lane))));
                S::store(db.add(lane), S::fma(total, x, S::load(db.add(lane))));
                dx = S::fma(total, S::splat(*b.add(n)), dx);
                grad[n] = if reset { zero } else { S::mul(total, S::load(e.add(lane))) };
                if !reset {
                    let w = S::mul(grad[n], S::load(before.add(lane)));
                    ddt = S::fma(w, S::load(a.add(lane)), ddt);
                    sum_a[n] = S::fma(w, dt, sum_a[n]);
                }
            }
            S::store(dx_at.add(q * S::LANES), dx);
            S::store(ddt_at.add(q * S::LANES), ddt);
        }
        for n in 0..NS {
            S::store(g.add(n * S::LANES), grad[n]);
            S::store(da.add(n * S::LANES), sum_a[n]);
        }
    }
}

/// Writes du, ddelta, dz of a block; adds to the gradients of D and the bias.
#[inline(always)]
unsafe fn finish<S: Simd>(
    job: &Job,
    strip: &Strip,
    i: usize,
    block: Block,
    small: *mut f32,
    scratch: &mut Scratch,
) {
    let scan = job.scan;
    let row = strip.k * scan.channels + block.channel;
    let [dt, slope, u, dy, y, dx, ddt] =
        [Part::Dt, Part::Slope, Part::U, Part::Dy, Part::Y, Part::Dx, Part::Ddt]
            .map(|part| scratch.part(i, part));
    let steps = strip.tokens.len();
    unsafe {
        let skip = per_channel::<S>(scan.d, row, block.width);
        let (mut dd, mut dbias) = (S::load(small), S::load(small.add(S::LANES)));
        let ln2 = S::splat(std::f32::consts::LN_2);
        for at in (0..steps * S::LANES).step_by(S::LANES) {
            let (input, dx_row, dy_row) = (S::load(u.add(at)), S::load(dx.add(at)), S::load(dy.add(at)));
            let through_decay = S::mul(S::load(ddt.add(at)), ln2);
            let ddelta = S::mul(S::fma(dx_row, input, through_decay), S::load(slope.add(at)));
            dbias = S::add(dbias, ddelta);
            dd = S::fma(dy_row, input, dd);
            S::store(ddt.add(at), ddelta);
            S::store(dx.add(at), S::fma(dx_row, S::load(dt.add(at)), S::mul(dy_row, skip)));
        }
        S::store(small, dd);
        S::store(small.add(S::LANES), dbias);
        scatter::<S>(job.du, &scratch.rows[4], &[block], dx, job.stored[0][strip.k]);
        scatter::<S>(job.ddelta, &scratch.rows[5], &[block], ddt, job.stored[1][strip.k]);
        let (Some(z), Some(dz)) = (&scan.z, job.dz) else { return };
        gate_gradient::<S>(z, &job.dy, block, steps, y, scratch);
        scatter::<S>(dz, &scratch.rows[6], &[block], y, job.stored[2][strip.k]);
    }
}

/// Turns y (before the gate) into the gradient of z: dy y silu'(z), with silu'(z) = s (1 + z (1 - s)), s = sigmoid(z).
#[inline(always)]
unsafe fn gate_gradient<S: Simd>(
    z: &View,
    dy: &View,
    block: Block,
    steps: usize,
    y: *mut f32,
    scratch: &mut Scratch,
) {
    unsafe {
        gather::<S>(z, &scratch.rows[3], &[block], scratch.z.as_mut_ptr());
        gather::<S>(dy, &scratch.rows[2], &[block], scratch.dy.as_mut_ptr());
        let one = S::splat(1.0);
        for at in (0..steps * S::LANES).step_by(S::LANES) {
            let z = S::load(scratch.z.as_ptr().add(at));
            let s = math::sigmoid::<S>(z);
            let slope = S::mul(s, S::fma(z, S::sub(one, s), one));
            let dy = S::load(scratch.dy.as_ptr().add(at));
            S::store(y.add(at), S::mul(dy, S::mul(S::load(y.add(at)), slope)));
        }
    }
}

/// Folds the lanes of dB and dC of a tile and adds them to the rows of its tokens.
#[inline(always)]
unsafe fn fold_lanes<S: Simd>(
    strip: &Strip,
    group: usize,
    n0: usize,
    width: usize,
    scratch: &Scratch,
    to: Coefficients,
) {
    for (tile, view) in [(&scratch.db, to.views[0]), (&scratch.dc, to.views[1])] {
        for (q, &token) in strip.tokens.iter().enumerate() {
            if token < 0 {
                continue;
            }
            let row = view.offset(to.sample, token as usize, strip.k, group) + n0;
            // Safety: checked extent.
            unsafe {
                let to = view.ptr::<f32>().add(row);
                let lanes = |n: usize| S::load(tile.as_ptr().add((q * width + n) * S::LANES));
                if width == TILE {
                    let sums = S::sums(std::array::from_fn(lanes));
                    (0..TILE).for_each(|n| *to.add(n) += sums[n]);
                } else {
                    (0..width).for_each(|n| *to.add(n) += S::sum(lanes(n)));
                }
            }
        }
    }
}
