//! The convolution in f64, plainly: what f64 tensors take. A task owns a channel, so no two write the same place and
//! sums do not depend on the threads.

use super::{Backward, Conv};
use crate::{Dtype, Pool, Result, ViewMut, orders::Path, scan::length};

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// One channel of one direction of one sample.
struct Line<'a> {
    conv: &'a Conv<'a, f64>,
    path: &'a Path,
    b: usize,
    k: usize,
    d: usize,
}

impl Line<'_> {
    /// The W - 1 inputs of the initial state, then those of every step: (W - 1 + T).
    fn inputs(&self) -> Vec<f64> {
        let Conv { taps, x, initial_state, .. } = *self.conv;
        let from = self.conv.state_at(self.b, self.k, self.d, 0);
        let mut inputs = match initial_state {
            Some(state) => state[from..from + taps - 1].to_vec(),
            None => vec![0.0; taps - 1],
        };
        inputs.extend(self.path.tokens.iter().map(|&token| match usize::try_from(token) {
            Ok(token) => x.get(x.offset(self.b, token, self.k, 0) + self.d),
            Err(_) => 0.0,
        }));
        inputs
    }

    /// First of the W inputs up to each step that a reset does not cut off: (T).
    fn firsts(&self) -> Vec<usize> {
        let (mut start, past) = (0, self.conv.taps - 1);
        let first = |t: usize| {
            if self.path.reset(t) {
                start = t + past;
            }
            start.max(t)
        };
        (0..self.path.tokens.len()).map(first).collect()
    }

    fn weight(&self) -> &[f64] {
        &self.conv.weight[(self.k * self.conv.channels + self.d) * self.conv.taps..][..self.conv.taps]
    }

    /// The pre-activation of step t.
    fn sum(&self, t: usize, first: usize, inputs: &[f64]) -> f64 {
        let bias = self.conv.bias.map_or(0.0, |bias| bias[self.k * self.conv.channels + self.d]);
        let taps = self.weight()[first - t..].iter().zip(&inputs[first..]);
        taps.fold(bias, |sum, (weight, x)| sum + weight * x)
    }
}

/// Pointers that tasks write through, each to its own channel.
#[derive(Clone, Copy)]
struct Out(*mut f64);

// Safety: see above.
unsafe impl Sync for Out {}

impl Out {
    /// # Safety
    /// `at` lies in the slice, and this task's channel owns it.
    unsafe fn add(&self, at: usize, value: f64) {
        unsafe { *self.0.add(at) += value }
    }
}

/// As [`super::forward`], in f64.
///
/// # Errors
/// As there.
pub fn forward(
    conv: &Conv<f64>,
    y: &ViewMut,
    mut final_state: Option<&mut [f64]>,
    pool: &dyn Pool,
) -> Result<()> {
    let paths = conv.check()?;
    y.check("y", conv.extent(), Dtype::F64)?;
    final_state.as_deref().map_or(Ok(()), |state| length("final_state", state, conv.state_len()))?;
    y.zero(conv.extent());
    let last = final_state.as_mut().map(|state| {
        state.fill(0.0);
        Out(state.as_mut_ptr())
    });
    let out = Out(y.ptr());
    pool.run(conv.channels, &|d| {
        for (b, k) in (0..conv.batch).flat_map(|b| (0..conv.directions).map(move |k| (b, k))) {
            let line = Line { conv, path: paths.get(b, k), b, k, d };
            let (inputs, firsts) = (line.inputs(), line.firsts());
            for (t, &token) in line.path.written().iter().enumerate() {
                let Ok(token) = usize::try_from(token) else { continue };
                let sum = line.sum(t, firsts[t], &inputs);
                let value = if conv.silu { sum * sigmoid(sum) } else { sum };
                // Safety: this task's channel of a checked view.
                unsafe { out.add(y.offset(b, token, k, 0) + d, value) };
            }
            let Some(last) = &last else { continue };
            let (steps, past) = (line.path.tokens.len(), conv.taps - 1);
            let kept = (0..steps).rev().find(|t| line.path.reset(*t)).map_or(0, |t| t + past);
            for i in (0..past).filter(|i| steps + i >= kept) {
                // Safety: as above.
                unsafe { last.add(conv.state_at(b, k, d, i), inputs[steps + i]) };
            }
        }
    });
    Ok(())
}

/// As [`super::backward`], in f64.
///
/// # Errors
/// As there.
pub fn backward(conv: &Conv<f64>, mut out: Backward<f64>, pool: &dyn Pool) -> Result<()> {
    let paths = out.check(conv, Dtype::F64)?;
    out.dx.zero(conv.extent());
    let zeroed = |values: &mut [f64]| {
        values.fill(0.0);
        Out(values.as_mut_ptr())
    };
    let dx = Out(out.dx.ptr());
    let dweight = zeroed(out.dweight);
    let dbias = out.dbias.as_mut().map(|dbias| zeroed(dbias));
    let dinitial = out.dinitial.as_mut().map(|dinitial| zeroed(dinitial));
    let (dy, dfinal, dx_view) = (&out.dy, out.dfinal, &out.dx);
    pool.run(conv.channels, &|d| {
        for (b, k) in (0..conv.batch).flat_map(|b| (0..conv.directions).map(move |k| (b, k))) {
            let line = Line { conv, path: paths.get(b, k), b, k, d };
            let (inputs, firsts, weight) = (line.inputs(), line.firsts(), line.weight());
            let (steps, past, channel) = (line.path.tokens.len(), conv.taps - 1, k * conv.channels + d);
            let mut dinputs = vec![0.0; inputs.len()];
            if let Some(dfinal) = dfinal {
                let kept = (0..steps).rev().find(|t| line.path.reset(*t)).map_or(0, |t| t + past);
                for i in (0..past).filter(|i| steps + i >= kept) {
                    dinputs[steps + i] += dfinal[conv.state_at(b, k, d, i)];
                }
            }
            for (t, &token) in line.path.written().iter().enumerate() {
                let Ok(token) = usize::try_from(token) else { continue };
                let mut ds = dy.get(dy.offset(b, token, k, 0) + d);
                if conv.silu {
                    let sum = line.sum(t, firsts[t], &inputs);
                    let gate = sigmoid(sum);
                    ds *= gate * (1.0 + sum * (1.0 - gate));
                }
                for at in firsts[t]..t + conv.taps {
                    dinputs[at] += ds * weight[at - t];
                    // Safety: this task's channel of checked slices, here and below.
                    unsafe { dweight.add(channel * conv.taps + at - t, ds * inputs[at]) };
                }
                if let Some(dbias) = &dbias {
                    unsafe { dbias.add(channel, ds) };
                }
            }
            for (t, &token) in line.path.tokens.iter().enumerate() {
                let Ok(token) = usize::try_from(token) else { continue };
                unsafe { dx.add(dx_view.offset(b, token, k, 0) + d, dinputs[past + t]) };
            }
            if let Some(dinitial) = &dinitial {
                for (i, &value) in dinputs[..past].iter().enumerate() {
                    unsafe { dinitial.add(conv.state_at(b, k, d, i), value) };
                }
            }
        }
    });
    Ok(())
}
