//! The backward. Chunks go from the last to the first; s is the gradient of the pre-activation:
//!
//! ```text
//! s_t = dy_t act'(pre_t)      dx_t = sum_j weight[W - 1 - j] s_{t + j}      dweight[w] = sum_t s_t x_{t - W + 1 + w}
//! ```
//!
//! The s of the W - 1 steps after a chunk are carried from chunk to chunk. A reset between t and t + j cuts the term.

use std::ops::Range;

use super::{
    Conv,
    forward::{CHUNK, channel_ranges, first_tap, stored_rows, tap, tap_sum},
};
use crate::{
    Dtype, Error, Isa, Pool, Result, View, ViewMut,
    orders::{Path, Paths},
    scan::{length, load_row, per_channel, prefetch_row, put},
    simd::{Simd, dispatch, math},
};

/// Cotangents in, gradients out (of `T`, overwritten).
pub struct Backward<'a, T = f32> {
    /// (B, L, K, D): gradient of y, f32 or bf16 (f64 for [`super::wide`]).
    pub dy: View<'a>,
    /// (B, K, D, W - 1): gradient of the final state.
    pub dfinal: Option<&'a [T]>,
    /// (B, L, K, D); a shared direction stride sums over the directions.
    pub dx: ViewMut<'a>,
    /// (K, D, W).
    pub dweight: &'a mut [T],
    /// (K, D), present exactly if the bias is.
    pub dbias: Option<&'a mut [T]>,
    /// (B, K, D, W - 1).
    pub dinitial: Option<&'a mut [T]>,
}

impl<T> Backward<'_, T> {
    pub(super) fn check(&self, conv: &Conv<T>, dtype: Dtype) -> Result<Paths> {
        let paths = conv.check()?;
        self.dy.check("dy", conv.extent())?;
        self.dx.check("dx", conv.extent(), dtype)?;
        let per_channel = conv.directions * conv.channels;
        length("dweight", self.dweight, per_channel * conv.taps)?;
        if self.dbias.is_some() != conv.bias.is_some() {
            return Err(Error::Shape("`dbias` must be given exactly if the bias is".into()));
        }
        self.dbias.as_deref().map_or(Ok(()), |dbias| length("dbias", dbias, per_channel))?;
        for (name, state) in [("dfinal", self.dfinal), ("dinitial", self.dinitial.as_deref())] {
            state.map_or(Ok(()), |state| length(name, state, conv.state_len()))?;
        }
        Ok(paths)
    }
}

/// Computes every gradient.
///
/// # Errors
/// Shapes that do not fit; nothing is written then.
pub fn backward(conv: &Conv, mut out: Backward, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let paths = out.check(conv, Dtype::F32)?;
    let per_channel = conv.directions * conv.channels;
    let sums = conv.taps + 1;
    let mut parameters = vec![0f32; conv.batch * per_channel * sums];
    let job = Job {
        conv,
        paths: &paths,
        weight: conv.taps_outer(),
        stored: stored_rows(conv, &paths, &out.dx),
        dy: out.dy,
        dfinal: out.dfinal,
        dx: &out.dx,
        parameters: parameters.as_mut_ptr(),
        dinitial: out.dinitial.as_mut().map(|state| state.as_mut_ptr()),
    };
    // Channels are independent of each other, so the cut may follow the threads: results do not depend on it.
    let ranges = channel_ranges(conv, isa, pool.threads());
    pool.run(conv.batch * ranges.len(), &|task| {
        let (b, channels) = (task / ranges.len(), ranges[task % ranges.len()].clone());
        let job = &job;
        dispatch!(isa, run(job: &Job, b: usize, channels: Range<usize>));
    });
    out.dweight.fill(0.0);
    out.dbias.iter_mut().for_each(|dbias| dbias.fill(0.0));
    for sample in parameters.chunks_exact((per_channel * sums).max(1)) {
        for (channel, values) in sample.chunks_exact(sums).enumerate() {
            for (sum, value) in out.dweight[channel * conv.taps..].iter_mut().zip(&values[..conv.taps]) {
                *sum += value;
            }
            out.dbias.iter_mut().for_each(|dbias| dbias[channel] += values[conv.taps]);
        }
    }
    Ok(())
}

struct Job<'a> {
    conv: &'a Conv<'a>,
    paths: &'a Paths,
    weight: Vec<f32>,
    stored: Vec<bool>,
    dy: View<'a>,
    dfinal: Option<&'a [f32]>,
    dx: &'a ViewMut<'a>,
    /// (B, K, D, W + 1): gradients of the taps and the bias of each sample.
    parameters: *mut f32,
    dinitial: Option<*mut f32>,
}

// Safety: tasks write disjoint channels of disjoint samples.
unsafe impl Sync for Job<'_> {}

/// A vector of channels of one direction of one sample.
#[derive(Clone, Copy)]
struct Spot {
    b: usize,
    k: usize,
    /// First channel and how many.
    d: usize,
    width: usize,
}

#[inline(always)]
unsafe fn run<S: Simd>(job: &Job, b: usize, channels: Range<usize>) {
    let conv = job.conv;
    let past = conv.taps - 1;
    let wide = channels.len().next_multiple_of(S::LANES);
    // s of the W - 1 steps after the chunk, (W - 1, channels); sums of the taps and the bias, (W + 1, channels).
    let mut after = vec![0f32; past * wide];
    let mut sums = vec![0f32; (conv.taps + 1) * wide];
    // x of the chunk and the W - 1 steps before it; s of the chunk and the W - 1 steps after it.
    let mut x = vec![0f32; (past + CHUNK) * S::LANES];
    let mut s = vec![0f32; (past + CHUNK) * S::LANES];
    for k in 0..conv.directions {
        let path = job.paths.get(b, k);
        after.fill(0.0);
        sums.fill(0.0);
        for start in (0..path.tokens.len()).step_by(CHUNK).rev() {
            let steps = start..(start + CHUNK).min(path.tokens.len());
            for d in channels.clone().step_by(S::LANES) {
                let spot = Spot { b, k, d, width: S::LANES.min(channels.end - d) };
                let at = d - channels.start;
                unsafe {
                    load_rows::<S>(job, path, steps.clone(), spot, &mut x);
                    let (after, sums) = (after.as_mut_ptr().wrapping_add(at), sums.as_mut_ptr().add(at));
                    match conv.taps {
                        4 => chunk::<S, 4>(job, path, steps.clone(), spot, &x, &mut s, after, sums, wide),
                        3 => chunk::<S, 3>(job, path, steps.clone(), spot, &x, &mut s, after, sums, wide),
                        2 => chunk::<S, 2>(job, path, steps.clone(), spot, &x, &mut s, after, sums, wide),
                        _ => chunk::<S, 0>(job, path, steps.clone(), spot, &x, &mut s, after, sums, wide),
                    }
                }
            }
        }
        for d in channels.clone() {
            let at = d - channels.start;
            let to = ((b * conv.directions + k) * conv.channels + d) * (conv.taps + 1);
            for w in 0..=conv.taps {
                // Safety: this task's channels only.
                unsafe { *job.parameters.add(to + w) = sums[w * wide + at] };
            }
            let Some(initial) = job.dinitial else { continue };
            // Row i of the initial state is step i - past; s of step j stands in row j of `after` now.
            for i in 0..past {
                let mut sum = 0.0;
                for j in 0..=i {
                    let cut = (0..=j).any(|t| path.reset(t));
                    if j < path.tokens.len() && !cut {
                        // Step j reads step i - past through tap i - j.
                        sum +=
                            after[j * wide + at] * conv.weight[(k * conv.channels + d) * conv.taps + i - j];
                    }
                }
                sum += direct_share(job, path, spot_row(job, b, k, d), i);
                unsafe { *initial.add(conv.state_at(b, k, d, i)) = sum };
            }
        }
    }
}

/// Index of (b, k, d) in a (B, K, D) array, for the gradient of the final state.
fn spot_row(job: &Job, b: usize, k: usize, d: usize) -> usize {
    (b * job.conv.directions + k) * job.conv.channels + d
}

/// If the order is shorter than W - 1 steps, part of the final state *is* the initial state: its gradient.
fn direct_share(job: &Job, path: &Path, row: usize, i: usize) -> f32 {
    let (past, len) = (job.conv.taps - 1, path.tokens.len());
    match job.dfinal {
        // Row i of the initial state (step i - past) is row i - len of the final state.
        Some(dfinal) if i >= len && !(0..len).any(|t| path.reset(t)) => dfinal[row * past + i - len],
        _ => 0.0,
    }
}

/// x of the chunk's steps and of the W - 1 before it.
#[inline(always)]
unsafe fn load_rows<S: Simd>(job: &Job, path: &Path, steps: Range<usize>, spot: Spot, x: &mut [f32]) {
    let conv = job.conv;
    let past = conv.taps - 1;
    for row in 0..past + steps.len() {
        let mut value = unsafe { S::splat(0.0) };
        let step = steps.start + row;
        if step >= past {
            let token = path.tokens[step - past];
            if token >= 0 {
                let at = conv.x.offset(spot.b, token as usize, spot.k, 0) + spot.d;
                value = unsafe { load_row::<S>(&conv.x, at, spot.width) };
                unsafe { prefetch_row::<S>(&conv.x, spot.b, token as usize, spot.k, spot.d + S::LANES) };
            }
        } else if let Some(state) = conv.initial_state {
            let mut lanes = [0f32; 16];
            for (lane, value) in lanes.iter_mut().enumerate().take(spot.width) {
                *value = state[conv.state_at(spot.b, spot.k, spot.d + lane, step)];
            }
            value = unsafe { S::load(lanes.as_ptr()) };
        }
        unsafe { S::store(x.as_mut_ptr().add(row * S::LANES), value) };
    }
}

#[inline(always)]
unsafe fn chunk<S: Simd, const W: usize>(
    job: &Job,
    path: &Path,
    steps: Range<usize>,
    spot: Spot,
    x: &[f32],
    s: &mut [f32],
    after: *mut f32,
    sums: *mut f32,
    wide: usize,
) {
    let conv = job.conv;
    let taps = if W > 0 { W } else { conv.taps };
    let past = taps - 1;
    let Spot { b, k, d, width } = spot;
    unsafe {
        let zero = S::splat(0.0);
        let bias = per_channel::<S>(conv.bias, k * conv.channels + d, width);
        let weight = |w: usize| tap::<S>(&job.weight, conv, k, w, d, width);
        let mut held = [zero; 4];
        for (w, tap) in held.iter_mut().enumerate().take(W) {
            *tap = weight(w);
        }
        let weight = |w: usize| if W > 0 { held[w] } else { weight(w) };
        for i in 0..past {
            S::store(s.as_mut_ptr().add((steps.len() + i) * S::LANES), S::load(after.add(i * wide)));
        }
        for (q, &token) in path.written()[steps.clone()].iter().enumerate() {
            let mut slope = zero;
            let first = first_tap(path, steps.start + q, taps);
            if token >= 0 {
                slope = load_row::<S>(&job.dy, job.dy.offset(b, token as usize, k, 0) + d, width);
                prefetch_row::<S>(&job.dy, b, token as usize, k, d + S::LANES);
                if conv.silu {
                    let pre = tap_sum::<S, W>(taps, first, weight, x.as_ptr(), q, bias);
                    let sigmoid = math::sigmoid::<S>(pre);
                    let one = S::splat(1.0);
                    slope = S::mul(slope, S::mul(sigmoid, S::fma(pre, S::sub(one, sigmoid), one)));
                }
                for w in first..taps {
                    let sum = sums.add(w * wide);
                    let x = S::load(x.as_ptr().add((q + w) * S::LANES));
                    S::store(sum, S::fma(slope, x, S::load(sum)));
                }
                let sum = sums.add(taps * wide);
                S::store(sum, S::add(S::load(sum), slope));
            }
            S::store(s.as_mut_ptr().add(q * S::LANES), slope);
        }
        for (q, &token) in path.tokens[steps.clone()].iter().enumerate() {
            let t = steps.start + q;
            if token < 0 {
                continue;
            }
            let mut dx = zero;
            for j in 0..taps {
                if j > 0 && path.reset(t + j) {
                    break;
                }
                dx = S::fma(weight(past - j), S::load(s.as_ptr().add((q + j) * S::LANES)), dx);
            }
            let len = path.tokens.len();
            if let Some(dfinal) = job.dfinal
                && t + past >= len
                && !(t + 1..len).any(|t| path.reset(t))
            {
                let mut lanes = [0f32; 16];
                for (lane, value) in lanes.iter_mut().enumerate().take(width) {
                    *value = dfinal[conv.state_at(b, k, d + lane, t + past - len)];
                }
                dx = S::add(dx, S::load(lanes.as_ptr()));
            }
            let to = job.dx.ptr::<f32>().add(job.dx.offset(b, token as usize, k, 0) + d);
            S::prefetch(to.wrapping_add(S::LANES).cast());
            put::<S>(to, dx, width, job.stored[k]);
        }
        for i in 0..past {
            S::store(after.add(i * wide), S::load(s.as_ptr().add(i * S::LANES)));
        }
    }
}
