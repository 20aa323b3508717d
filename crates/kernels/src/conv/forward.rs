//! The forward. A task owns a sample and a range of channels and walks the order in chunks, all its channels chunk by
//! chunk, so rows are read whole. The last W - 1 rows are carried from chunk to chunk.

use std::ops::Range;

use super::Conv;
use crate::{
    Dtype, Isa, Pool, Result, ViewMut,
    orders::{Path, Paths},
    pool::shares,
    scan::{load_row, per_channel, prefetch_row, put},
    simd::{Simd, dispatch, math},
};

/// Steps a task goes through before it moves on to its next channels.
pub(super) const CHUNK: usize = 32;

/// Runs the convolution: y (B, L, K, D) f32, a shared direction stride sums; the final state (B, K, D, W - 1) holds
/// the last inputs of each order. Tokens that no order visits get 0.
///
/// # Errors
/// Shapes that do not fit, or an order that points outside; nothing is written then.
pub fn forward(
    conv: &Conv,
    y: &ViewMut,
    final_state: Option<&mut [f32]>,
    isa: Isa,
    pool: &dyn Pool,
) -> Result<()> {
    let paths = conv.check()?;
    y.check("y", conv.extent(), Dtype::F32)?;
    if let Some(state) = &final_state {
        crate::scan::length("final_state", state, conv.state_len())?;
    }
    let stored = stored_rows(conv, &paths, y);
    let job = Job {
        conv,
        paths: &paths,
        weight: conv.taps_outer(),
        y,
        stored,
        final_state: final_state.map(|state| state.as_mut_ptr()),
    };
    let ranges = channel_ranges(conv, isa, pool.threads());
    pool.run(conv.batch * ranges.len(), &|task| {
        let (b, channels) = (task / ranges.len(), ranges[task % ranges.len()].clone());
        let job = &job;
        dispatch!(isa, run(job: &Job, b: usize, channels: Range<usize>));
    });
    Ok(())
}

/// Per direction, whether a row of `view` is stored rather than added; zeroes the view where rows are added.
pub(super) fn stored_rows(conv: &Conv, paths: &Paths, view: &ViewMut) -> Vec<bool> {
    let shared = conv.directions > 1 && view.offset(0, 0, 1, 0) == 0;
    let stored: Vec<_> = (0..conv.directions).map(|k| paths.covers(k) && !(shared && k > 0)).collect();
    if !stored[..if shared { 1 } else { conv.directions }].iter().all(|s| *s) {
        view.zero(conv.extent());
    }
    stored
}

/// Cuts the channels into ranges of whole vectors.
pub(super) fn channel_ranges(conv: &Conv, isa: Isa, threads: usize) -> Vec<Range<usize>> {
    let edge = |block: usize| (block * isa.lanes()).min(conv.channels);
    let blocks = shares(conv.batch, conv.channels.div_ceil(isa.lanes()), threads);
    blocks.into_iter().map(|range| edge(range.start)..edge(range.end)).collect()
}

struct Job<'a> {
    conv: &'a Conv<'a>,
    paths: &'a Paths,
    /// (K, W, D).
    weight: Vec<f32>,
    y: &'a ViewMut<'a>,
    stored: Vec<bool>,
    final_state: Option<*mut f32>,
}

// Safety: tasks write disjoint channels.
unsafe impl Sync for Job<'_> {}

#[inline(always)]
unsafe fn run<S: Simd>(job: &Job, b: usize, channels: Range<usize>) {
    let conv = job.conv;
    let past = conv.taps - 1;
    // (W - 1, channels): the rows before the chunk.
    let wide = channels.len().next_multiple_of(S::LANES);
    let mut before = vec![0f32; past * wide];
    // (W - 1 + CHUNK, lanes).
    let mut window = vec![0f32; (past + CHUNK) * S::LANES];
    for k in 0..conv.directions {
        let path = job.paths.get(b, k);
        before.fill(0.0);
        if let Some(state) = conv.initial_state {
            for i in 0..past {
                for d in channels.clone() {
                    before[i * wide + d - channels.start] = state[conv.state_at(b, k, d, i)];
                }
            }
        }
        for start in (0..path.tokens.len()).step_by(CHUNK) {
            let steps = start..(start + CHUNK).min(path.tokens.len());
            for d in channels.clone().step_by(S::LANES) {
                let width = S::LANES.min(channels.end - d);
                let rows = before.as_mut_ptr().wrapping_add(d - channels.start);
                unsafe {
                    load_window::<S>(conv, path, steps.clone(), (b, k, d, width), rows, wide, &mut window);
                    match conv.taps {
                        4 => convolve::<S, 4>(job, path, steps.clone(), (b, k, d, width), &window),
                        3 => convolve::<S, 3>(job, path, steps.clone(), (b, k, d, width), &window),
                        2 => convolve::<S, 2>(job, path, steps.clone(), (b, k, d, width), &window),
                        _ => convolve::<S, 0>(job, path, steps.clone(), (b, k, d, width), &window),
                    }
                }
            }
        }
        if let Some(last) = job.final_state {
            // A reset inside the last W - 1 steps leaves zeros before it.
            let len = path.tokens.len();
            let kept = (0..len).rev().take(past).find(|t| path.reset(*t)).map_or(0, |t| t + past - len);
            for i in 0..past {
                for d in channels.clone() {
                    let value = if i < kept { 0.0 } else { before[i * wide + d - channels.start] };
                    // Safety: this task's channels only.
                    unsafe { *last.add(conv.state_at(b, k, d, i)) = value };
                }
            }
        }
    }
}

/// Fills the window with the W - 1 rows before the chunk and the chunk's rows, and moves its last W - 1 rows to
/// `before` for the next chunk.
#[inline(always)]
pub(super) unsafe fn load_window<S: Simd>(
    conv: &Conv,
    path: &Path,
    steps: Range<usize>,
    (b, k, d, width): (usize, usize, usize, usize),
    before: *mut f32,
    stride: usize,
    window: &mut [f32],
) {
    let past = conv.taps - 1;
    unsafe {
        let window = window.as_mut_ptr();
        for i in 0..past {
            S::store(window.add(i * S::LANES), S::load(before.add(i * stride)));
        }
        for (q, &token) in path.tokens[steps.clone()].iter().enumerate() {
            let mut row = S::splat(0.0);
            if token >= 0 {
                let at = conv.x.offset(b, token as usize, k, 0) + d;
                row = load_row::<S>(&conv.x, at, width);
                prefetch_row::<S>(&conv.x, b, token as usize, k, d + S::LANES);
            }
            S::store(window.add((past + q) * S::LANES), row);
        }
        for i in 0..past {
            S::store(before.add(i * stride), S::load(window.add((steps.len() + i) * S::LANES)));
        }
    }
}

/// First tap of step `t` that is not cut off by a reset: taps before it see zeros.
#[inline(always)]
pub(super) fn first_tap(path: &Path, t: usize, taps: usize) -> usize {
    if path.resets.is_empty() {
        return 0;
    }
    (0..taps).find(|back| *back <= t && path.resets[t - back]).map_or(0, |back| taps - 1 - back)
}

/// The pre-activation of step q of the chunk. `W` = 0 stands for any number of taps.
#[inline(always)]
pub(super) unsafe fn tap_sum<S: Simd, const W: usize>(
    taps: usize,
    first: usize,
    weight: impl Fn(usize) -> S::V,
    window: *const f32,
    q: usize,
    bias: S::V,
) -> S::V {
    let taps = if W > 0 { W } else { taps };
    let mut sum = bias;
    unsafe {
        for w in first..taps {
            sum = S::fma(weight(w), S::load(window.add((q + w) * S::LANES)), sum);
        }
    }
    sum
}

/// A tap's weights for the channels at `d`.
#[inline(always)]
pub(super) unsafe fn tap<S: Simd>(
    weight: &[f32],
    conv: &Conv,
    k: usize,
    w: usize,
    d: usize,
    width: usize,
) -> S::V {
    unsafe { per_channel::<S>(Some(weight), (k * conv.taps + w) * conv.channels + d, width) }
}

#[inline(always)]
unsafe fn convolve<S: Simd, const W: usize>(
    job: &Job,
    path: &Path,
    steps: Range<usize>,
    (b, k, d, width): (usize, usize, usize, usize),
    window: &[f32],
) {
    let conv = job.conv;
    unsafe {
        let bias = per_channel::<S>(conv.bias, k * conv.channels + d, width);
        let mut held = [S::splat(0.0); 4];
        for (w, weight) in held.iter_mut().enumerate().take(W) {
            *weight = tap::<S>(&job.weight, conv, k, w, d, width);
        }
        for (q, &token) in path.written()[steps.clone()].iter().enumerate() {
            if token < 0 {
                continue;
            }
            let first = first_tap(path, steps.start + q, conv.taps);
            let weight = |w: usize| if W > 0 { held[w] } else { tap::<S>(&job.weight, conv, k, w, d, width) };
            let mut y = tap_sum::<S, W>(conv.taps, first, weight, window.as_ptr(), q, bias);
            if conv.silu {
                y = S::mul(y, math::sigmoid::<S>(y));
            }
            let to = job.y.ptr::<f32>().add(job.y.offset(b, token as usize, k, 0) + d);
            // The line that the next channels write: along any order no hardware prefetcher guesses it.
            S::prefetch(to.wrapping_add(S::LANES).cast());
            put::<S>(to, y, width, job.stored[k]);
        }
    }
}
