//! Step sizes and decays of a chunk.

use std::ops::Range;

use super::{Ssd, chunks::CHUNK};
use crate::{
    scan::{Aligned, Rows},
    simd::{Simd, math},
};

/// What is known of each step of a chunk, per head.
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// The step size.
    Dt,
    /// Its derivative by dt.
    Slope,
    /// log2 of the decay from the start of the chunk over the step: a sum, in f32.
    High,
    /// What f32 cannot hold of it: the decay from step to step is a difference of two that may be much larger.
    Low,
    /// Decay from the state before the chunk to the step.
    Rise,
    /// Decay from the step to the state behind the chunk.
    Fall,
    /// The same times the step size.
    Weight,
    /// Sum of the step sizes from the start of the chunk, the step's own included, in f32.
    Time,
    /// What f32 cannot hold of it: what lies between two steps may be far less than either.
    TimeLow,
}

const PARTS: usize = 9;

/// The parts of some heads: (head, part, step).
pub(super) struct Steps {
    values: Aligned,
    /// dt of the chunk as it was read: (head, step).
    raw: Aligned,
}

impl Steps {
    pub fn new(heads: usize) -> Steps {
        Steps { values: Aligned::zeros(heads * PARTS * CHUNK), raw: Aligned::zeros(heads * CHUNK) }
    }

    /// A part of the task's head number `i`.
    pub fn part(&self, i: usize, part: Part) -> &[f32; CHUNK] {
        let at = (i * PARTS + part as usize) * CHUNK;
        match self.values[at..at + CHUNK].first_chunk() {
            Some(part) => part,
            None => unreachable!(),
        }
    }

    fn part_mut(&mut self, i: usize, part: Part) -> &mut [f32] {
        let at = (i * PARTS + part as usize) * CHUNK;
        &mut self.values[at..at + CHUNK]
    }

    /// Reads the chunk whose rows of dt are `rows` and works everything out for `heads` of direction `k`.
    ///
    /// # Safety
    /// The rows were found in dt, which was checked.
    #[inline(always)]
    pub unsafe fn fill<S: Simd>(&mut self, ssd: &Ssd, rows: &Rows, heads: Range<usize>, k: usize) {
        let steps = rows.all().len();
        for (q, &row) in rows.all().iter().enumerate() {
            for (i, head) in heads.clone().enumerate() {
                let blank = row == usize::MAX;
                self.raw[i * CHUNK + q] =
                    if blank { 0.0 } else { unsafe { Ssd::number(&ssd.dt, row + head) } };
            }
        }
        for (i, head) in heads.enumerate() {
            unsafe { self.head::<S>(ssd, i, k * ssd.heads + head, steps) }
        }
    }

    #[inline(always)]
    unsafe fn head<S: Simd>(&mut self, ssd: &Ssd, i: usize, parameter: usize, steps: usize) {
        let bias = ssd.dt_bias.map_or(0.0, |bias| bias[parameter]);
        let [lo, hi] = ssd.dt_limits;
        let vectors = || (0..steps).step_by(S::LANES);
        unsafe {
            let (raw, bias) = (self.raw.as_ptr().add(i * CHUNK), S::splat(bias));
            for at in vectors() {
                let dt = S::add(S::load(raw.add(at)), bias);
                let (dt, slope) =
                    if ssd.softplus { math::softplus_sigmoid::<S>(dt) } else { (dt, S::splat(1.0)) };
                S::store(self.part_mut(i, Part::Dt).as_mut_ptr().add(at), dt);
                S::store(self.part_mut(i, Part::Slope).as_mut_ptr().add(at), slope);
            }
        }
        let rate = f64::from(ssd.a[parameter]) * std::f64::consts::LOG2_E;
        let (mut sum, mut time) = (0f64, 0f64);
        for q in 0..CHUNK {
            // Behind the last step nothing happens.
            let mut dt = 0.0;
            if q < steps {
                dt = self.part(i, Part::Dt)[q];
                if dt < lo || dt > hi {
                    self.part_mut(i, Part::Slope)[q] = 0.0;
                    dt = dt.clamp(lo, hi);
                }
                sum += rate * f64::from(dt);
                time += f64::from(dt);
            }
            let (high, low) = split(sum);
            self.part_mut(i, Part::Dt)[q] = dt;
            // The one NaN that `Simd::decay` keeps.
            self.part_mut(i, Part::High)[q] = if high.is_nan() { f32::NAN } else { high };
            self.part_mut(i, Part::Low)[q] = low;
            let (high, low) = split(time);
            self.part_mut(i, Part::Time)[q] = high;
            self.part_mut(i, Part::TimeLow)[q] = low;
        }
        let last = steps.saturating_sub(1);
        let end = [self.part(i, Part::High)[last], self.part(i, Part::Low)[last]];
        unsafe {
            for at in vectors() {
                let part = |part| S::load(self.part(i, part).as_ptr().add(at));
                let (high, low, dt) = (part(Part::High), part(Part::Low), part(Part::Dt));
                let fall = S::decay(S::add(S::sub(S::splat(end[0]), high), S::sub(S::splat(end[1]), low)));
                S::store(self.part_mut(i, Part::Rise).as_mut_ptr().add(at), S::decay(high));
                S::store(self.part_mut(i, Part::Fall).as_mut_ptr().add(at), fall);
                S::store(self.part_mut(i, Part::Weight).as_mut_ptr().add(at), S::mul(fall, dt));
            }
        }
    }

    /// Decays from step `from` to the steps at `at`..`at + LANES`, or with `back` from those to it.
    #[inline(always)]
    pub unsafe fn decays<S: Simd>(&self, i: usize, at: usize, step: usize, back: bool) -> S::V {
        let (high, low) = (self.part(i, Part::High), self.part(i, Part::Low));
        unsafe {
            let (others, rest) = (S::load(high.as_ptr().add(at)), S::load(low.as_ptr().add(at)));
            let (one, one_rest) = (S::splat(high[step]), S::splat(low[step]));
            let difference = if back {
                S::add(S::sub(one, others), S::sub(one_rest, rest))
            } else {
                S::add(S::sub(others, one), S::sub(rest, one_rest))
            };
            S::decay(difference)
        }
    }
}

/// A sum in f32, and what f32 cannot hold of it.
fn split(sum: f64) -> (f32, f32) {
    let high = sum as f32;
    (high, if high.is_finite() { (sum - f64::from(high)) as f32 } else { 0.0 })
}
