//! How an order is cut into chunks of steps, and the heads into tasks. Whatever a sum depends on follows from shapes
//! alone, never from the number of threads.

use std::ops::Range;

use super::Ssd;
use crate::orders::{Path, Paths};

/// Rows and columns of tiles are counted up to multiples of this, the widest vector.
pub(super) const PAD: usize = 16;

/// Most steps of a chunk (Q), a multiple of [`PAD`]. Between chunks a step costs 2 P N multiply-adds whatever Q is,
/// inside a chunk Q P / 2 more, and the states that a backward needs take N / Q of an activation: at the sizes of
/// Mamba-2 (P = 64, N = 128) 64 keeps the first below an eighth of the second, and a head's tiles near the first-level
/// cache. Measured beside 32 and 128 it is the fastest with the backward (BENCHMARKS.md).
pub(super) const CHUNK: usize = 64;

/// Steps whose y is one masked matrix product.
#[derive(Debug, Clone)]
pub(super) struct Chunk {
    pub steps: Range<usize>,
    /// The state before it is zero.
    pub fresh: bool,
    /// The state behind it is needed.
    pub carried: bool,
    /// Which checkpoint holds the state before it, unless it is fresh.
    pub slot: usize,
}

/// Cuts `path`; `initial` says whether it starts from a state, `last` whether the state at its end is needed.
pub(super) fn cut(path: &Path, initial: bool, last: bool) -> Vec<Chunk> {
    let steps = path.tokens.len();
    let (mut chunks, mut slot, mut start) = (Vec::new(), 0, 0);
    while start < steps {
        let most = (start + CHUNK).min(steps);
        let end = (start + 1..most).find(|t| path.reset(*t)).unwrap_or(most);
        let fresh = path.reset(start) || start == 0 && !initial;
        let carried = if end == steps { last } else { !path.reset(end) };
        chunks.push(Chunk { steps: start..end, fresh, carried, slot });
        slot += usize::from(!fresh);
        start = end;
    }
    chunks
}

/// `n` counted up to a multiple of [`PAD`].
pub(super) fn padded(n: usize) -> usize {
    n.next_multiple_of(PAD)
}

/// Values of a head's state as the kernels keep it: N rows of P channels.
pub(super) fn state_len(ssd: &Ssd) -> usize {
    ssd.states * padded(ssd.headdim)
}

/// f32 values of the checkpoints of one order of one sample: slot, head, state.
pub(super) fn checkpoint_len(ssd: &Ssd, paths: &Paths) -> usize {
    let count = |b, k| {
        let chunks = cut(paths.get(b, k), ssd.initial_state.is_some(), true);
        chunks.iter().filter(|chunk| !chunk.fresh).count()
    };
    let orders = (0..ssd.batch).flat_map(|b| (0..ssd.directions).map(move |k| (b, k)));
    orders.map(|(b, k)| count(b, k)).max().unwrap_or(0) * ssd.heads * state_len(ssd)
}

/// Copies a head's (P, N) values into or out of the kernels' layout.
pub(super) fn exchange(ssd: &Ssd, mut each: impl FnMut(usize, usize)) {
    let width = padded(ssd.headdim);
    for p in 0..ssd.headdim {
        for n in 0..ssd.states {
            each(p * ssd.states + n, n * width + p);
        }
    }
}
