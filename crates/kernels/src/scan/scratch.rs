//! What a task of the backward works on.

use std::ops::Range;

use super::{Aligned, backward::Job, rows::Rows};
use crate::orders::Path;

/// Channel blocks that share one sum of dB and dC: enough to make folding the lanes cheap, few enough that what is
/// prepared for them stays in the second-level cache.
pub(super) const STRIP: usize = 8;

/// States recomputed together: their decays, states and the lanes of dB and dC stay near the first-level cache.
pub(super) const TILE: usize = 8;

/// What is prepared once per block of a strip and chunk, each (step, lane).
#[derive(Clone, Copy)]
pub(super) enum Part {
    /// delta after softplus.
    Dt,
    /// Its derivative by delta.
    Slope,
    U,
    /// dt u.
    X,
    /// Gradient of y before the gate.
    Dy,
    /// y before the gate.
    Y,
    /// Gradient of dt u.
    Dx,
    /// Gradient of dt through the decays, by log2(e).
    Ddt,
}

const PARTS: usize = 8;

/// Scratch of a task, in f32 and in step order.
pub(super) struct Scratch {
    /// Block of the strip, [`Part`], step, lane.
    parts: Aligned,
    /// Values of one part.
    part: usize,
    /// B and C: (step, state).
    pub b: Aligned,
    pub c: Aligned,
    /// Of the tile: decays (step, state, lane), and states (one step more).
    pub e: Aligned,
    pub h: Aligned,
    /// dB and dC of the tile before the lanes are folded: (step, state, lane).
    pub db: Aligned,
    pub dc: Aligned,
    /// Where the rows of u, delta, dy, z, du, ddelta and dz lie.
    pub rows: [Rows; 7],
    /// The same of the chunk that comes next.
    pub ahead: [Rows; 7],
    /// z and the gradient of the gated y, (step, lane).
    pub z: Aligned,
    pub dy: Aligned,
    /// No decay is above 1.
    pub below_one: bool,
}

impl Scratch {
    pub fn new(chunk: usize, lanes: usize, states: usize, below_one: bool) -> Self {
        // Of lengths that no power of two divides: tiles that lie a multiple of 4096 bytes apart would share the sets
        // of the first-level cache.
        let wide = || Aligned::zeros((chunk + 1) * TILE * lanes + 80);
        let tile = || Aligned::zeros(chunk * lanes);
        Scratch {
            parts: Aligned::zeros(STRIP * PARTS * chunk * lanes),
            part: chunk * lanes,
            b: Aligned::zeros(chunk * states),
            c: Aligned::zeros(chunk * states),
            e: wide(),
            h: wide(),
            db: wide(),
            dc: wide(),
            rows: Default::default(),
            ahead: Default::default(),
            z: tile(),
            dy: tile(),
            below_one,
        }
    }

    pub fn part(&mut self, block: usize, part: Part) -> *mut f32 {
        // Safety: a strip has no more than STRIP blocks.
        unsafe { self.parts.as_mut_ptr().add((block * PARTS + part as usize) * self.part) }
    }

    /// Turns to the chunk of the first steps, the one that was ahead unless an order begins.
    pub fn turn(&mut self, job: &Job, path: &Path, [steps, ahead]: [Range<usize>; 2], b: usize, k: usize) {
        if self.ahead[0].is_empty() {
            find(&mut self.ahead, job, path, steps, b, k);
        }
        std::mem::swap(&mut self.rows, &mut self.ahead);
        find(&mut self.ahead, job, path, ahead, b, k);
    }
}

fn find(rows: &mut [Rows; 7], job: &Job, path: &Path, steps: Range<usize>, b: usize, k: usize) {
    let (tokens, written) = (&path.tokens[steps.clone()], &path.written()[steps]);
    let read = [Some(&job.scan.u), Some(&job.scan.delta), Some(&job.dy), job.scan.z.as_ref()];
    let write = [Some(job.du), Some(job.ddelta), job.dz];
    let (inputs, outputs) = rows.split_at_mut(4);
    for (i, (rows, view)) in inputs.iter_mut().zip(read).enumerate() {
        // No gradient comes from a step that writes nothing.
        let tokens = if i == 2 { written } else { tokens };
        view.iter().for_each(|view| rows.find(tokens, |token| view.offset(b, token, k, 0)));
    }
    for (rows, view) in outputs.iter_mut().zip(write) {
        view.iter().for_each(|view| rows.find(tokens, |token| view.offset(b, token, k, 0)));
    }
}
