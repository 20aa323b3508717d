//! The fast forward.
//!
//! A task owns one sample and a range of channel blocks. It walks the order in chunks; inside a chunk it goes through
//! its blocks, so the rows of a chunk's tokens are read from end to end whatever order they are visited in: a random
//! order touches no more cache lines or pages than the identity does. Per block: `prepare` (delta, u to f32 tiles),
//! `recur` (the recurrence, eight states in registers), `finish` (gate and write).

use std::ops::Range;

use super::{Layout, Scan, load_row};
use crate::{
    Dtype, Isa, Pool, Result, ViewMut,
    orders::{Path, Paths},
    simd::{Simd, dispatch, math},
};

/// Outputs of [`forward`].
pub struct Forward<'a> {
    /// (B, L, K, D) f32; directions that share memory (stride 0) are summed. Tokens that no order visits get 0.
    pub y: ViewMut<'a>,
    /// (B, K, D, N): the state after the last step of each order.
    pub final_state: Option<&'a mut [f32]>,
    /// What [`super::backward`] needs to recompute the states: [`checkpoint_len`] values. Opaque.
    pub checkpoints: Option<&'a mut [f32]>,
}

/// Values of the checkpoints of a scan on `isa`.
///
/// # Errors
/// As [`forward`].
pub fn checkpoint_len(scan: &Scan, isa: Isa) -> Result<usize> {
    let (paths, layout) = (scan.check()?, Layout::new(scan, isa));
    Ok(scan.batch * scan.directions * layout.checkpoint_len(scan, &paths))
}

/// Runs the scan on `pool` with the instruction set `isa`.
///
/// # Errors
/// Shapes that do not fit, or an order that points outside; nothing is written then.
pub fn forward(scan: &Scan, out: Forward, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let paths = scan.check()?;
    out.y.check("y", scan.channel_extent(), Dtype::F32)?;
    if let Some(state) = &out.final_state {
        super::length("final_state", state, scan.state_len())?;
    }
    let layout = Layout::new(scan, isa);
    if let Some(checkpoints) = &out.checkpoints {
        let expected = scan.batch * scan.directions * layout.checkpoint_len(scan, &paths);
        super::length("checkpoints", checkpoints, expected)?;
    }
    let shared = scan.directions > 1 && out.y.offset(0, 0, 1, 0) == 0;
    let stored = |k: usize| paths.covers(k) && !(shared && k > 0);
    if !(0..if shared { 1 } else { scan.directions }).all(stored) {
        out.y.zero(scan.channel_extent());
    }
    let checkpoint_len = layout.checkpoint_len(scan, &paths);
    let job = Job {
        scan,
        paths: &paths,
        decay: layout.pack(scan.a, scan.channels, scan.states, std::f32::consts::LOG2_E),
        y: &out.y,
        stored: (0..scan.directions).map(stored).collect(),
        final_state: out.final_state.map(|state| state.as_mut_ptr()),
        checkpoints: out.checkpoints.map(|checkpoints| checkpoints.as_mut_ptr()),
        checkpoint_len,
        layout: &layout,
    };
    let splits = job.layout.splits(scan.batch, 4 * pool.threads());
    pool.run(scan.batch * splits.len(), &|task| {
        let (b, blocks) = (task / splits.len(), splits[task % splits.len()].clone());
        let job = &job;
        dispatch!(isa, run(job: &Job, b: usize, blocks: Range<usize>));
    });
    Ok(())
}

struct Job<'a> {
    scan: &'a Scan<'a>,
    paths: &'a Paths,
    layout: &'a Layout,
    /// A log2(e), packed.
    decay: Vec<f32>,
    y: &'a ViewMut<'a>,
    /// Per direction: whether y rows are stored (else added).
    stored: Vec<bool>,
    final_state: Option<*mut f32>,
    checkpoints: Option<*mut f32>,
    checkpoint_len: usize,
}

// Safety: tasks write disjoint channels and checkpoints.
unsafe impl Sync for Job<'_> {}

#[inline(always)]
unsafe fn run<S: Simd>(job: &Job, b: usize, blocks: Range<usize>) {
    let (scan, layout) = (job.scan, job.layout);
    let (states, lanes, chunk) = (scan.states, S::LANES, layout.chunk);
    let mut state = vec![0f32; blocks.len() * states * lanes];
    let mut tiles = Tiles::new(chunk, lanes, states);
    for k in 0..scan.directions {
        let path = job.paths.get(b, k);
        let at = (b * scan.directions + k) * scan.channels * states;
        match scan.initial_state {
            Some(initial) => {
                layout.exchange(blocks.clone(), states, |from, to| state[to] = initial[at + from]);
            }
            None => state.fill(0.0),
        }
        for start in (0..path.tokens.len()).step_by(chunk) {
            let steps = start..(start + chunk).min(path.tokens.len());
            let mut group = usize::MAX;
            for (i, index) in blocks.clone().enumerate() {
                let block = layout.blocks[index];
                let h = unsafe { state.as_mut_ptr().add(i * states * lanes) };
                if let Some(checkpoints) = job.checkpoints {
                    let sample = (b * scan.directions + k) * job.checkpoint_len;
                    let to = sample + (start / chunk * layout.blocks.len() + index) * states * lanes;
                    unsafe { std::ptr::copy_nonoverlapping(h, checkpoints.add(to), states * lanes) };
                }
                if block.group != group {
                    group = block.group;
                    unsafe { tiles.coefficients(scan, path, steps.clone(), b, k, group) };
                }
                let next = if index + 1 < blocks.end { index + 1 } else { blocks.start };
                let ahead = if next > index { steps.start } else { steps.end };
                unsafe {
                    prepare::<S>(job, path, steps.clone(), b, k, index, &mut tiles);
                    prefetch::<S>(job, path, ahead..(ahead + chunk), b, k, next);
                    let decay = job.decay.as_ptr().add((k * layout.blocks.len() + index) * states * lanes);
                    recur::<S>(path, steps.clone(), states, decay, h, &mut tiles);
                    finish::<S>(job, path, steps.clone(), b, k, index, &tiles);
                }
            }
        }
        if let Some(last) = job.final_state {
            // Safety: this task's channels only.
            layout.exchange(blocks.clone(), states, |to, from| unsafe { *last.add(at + to) = state[from] });
        }
    }
}

/// What a chunk of steps works on, in f32 and in step order.
struct Tiles {
    /// softplus(delta + bias): (step, lane).
    dt: Vec<f32>,
    /// dt u: (step, lane).
    x: Vec<f32>,
    /// y: (step, lane).
    y: Vec<f32>,
    /// B and C: (step, state).
    b: Vec<f32>,
    c: Vec<f32>,
}

impl Tiles {
    fn new(chunk: usize, lanes: usize, states: usize) -> Self {
        let tile = || vec![0f32; chunk * lanes];
        Tiles { dt: tile(), x: tile(), y: tile(), b: vec![0.0; chunk * states], c: vec![0.0; chunk * states] }
    }

    unsafe fn coefficients(
        &mut self,
        scan: &Scan,
        path: &Path,
        steps: Range<usize>,
        b: usize,
        k: usize,
        g: usize,
    ) {
        for (view, tile) in [(&scan.b, &mut self.b), (&scan.c, &mut self.c)] {
            gather_coefficients(view, tile, &path.tokens[steps.clone()], b, k, g, 0..scan.states);
        }
    }
}

/// Rows of B or C for the given tokens, states `range`, as f32; zeros for blanks.
pub(super) fn gather_coefficients(
    view: &crate::View,
    tile: &mut [f32],
    tokens: &[i32],
    b: usize,
    k: usize,
    g: usize,
    range: Range<usize>,
) {
    let width = range.len();
    for (row, &token) in tile.chunks_exact_mut(width.max(1)).zip(tokens) {
        if token < 0 {
            row.fill(0.0);
            continue;
        }
        let at = view.offset(b, token as usize, k, g) + range.start;
        // Safety: the view was checked for every token, group and state.
        unsafe {
            if view.dtype() == Dtype::F32 {
                std::ptr::copy_nonoverlapping(view.ptr().cast::<f32>().add(at), row.as_mut_ptr(), width);
            } else {
                let from = view.ptr().cast::<half::bf16>().add(at);
                for (n, value) in row.iter_mut().enumerate() {
                    *value = (*from.add(n)).to_f32();
                }
            }
        }
    }
}

#[inline(always)]
unsafe fn prepare<S: Simd>(
    job: &Job,
    path: &Path,
    steps: Range<usize>,
    b: usize,
    k: usize,
    index: usize,
    tiles: &mut Tiles,
) {
    let scan = job.scan;
    let block = job.layout.blocks[index];
    unsafe {
        let row = k * scan.channels + block.channel;
        let bias = per_channel::<S>(scan.delta_bias, row, block.width);
        let skip = per_channel::<S>(scan.d, row, block.width);
        for (q, &token) in path.tokens[steps].iter().enumerate() {
            let (mut u, mut delta) = (S::splat(0.0), S::splat(0.0));
            if token >= 0 {
                let token = token as usize;
                u = load_row::<S>(&scan.u, scan.u.offset(b, token, k, 0) + block.channel, block.width);
                delta = load_row::<S>(
                    &scan.delta,
                    scan.delta.offset(b, token, k, 0) + block.channel,
                    block.width,
                );
            }
            let mut dt = S::add(delta, bias);
            if scan.softplus {
                dt = math::softplus::<S>(dt);
            }
            S::store(tiles.dt.as_mut_ptr().add(q * S::LANES), dt);
            S::store(tiles.x.as_mut_ptr().add(q * S::LANES), S::mul(dt, u));
            S::store(tiles.y.as_mut_ptr().add(q * S::LANES), S::mul(skip, u));
        }
    }
}

/// A vector of an optional (K, D) argument, zeros if it is absent.
#[inline(always)]
pub(crate) unsafe fn per_channel<S: Simd>(values: Option<&[f32]>, at: usize, width: usize) -> S::V {
    unsafe {
        match values {
            Some(values) if width == S::LANES => S::load(values.as_ptr().add(at)),
            Some(values) => S::load_part(values.as_ptr().add(at), width),
            None => S::splat(0.0),
        }
    }
}

/// Asks for the lines that the next block will read: along an arbitrary order no hardware prefetcher can guess them.
#[inline(always)]
unsafe fn prefetch<S: Simd>(job: &Job, path: &Path, steps: Range<usize>, b: usize, k: usize, index: usize) {
    let scan = job.scan;
    let channel = job.layout.blocks[index].channel;
    let steps = steps.start.min(path.tokens.len())..steps.end.min(path.tokens.len());
    for &token in &path.tokens[steps] {
        if token < 0 {
            continue;
        }
        let token = token as usize;
        unsafe {
            prefetch_row::<S>(&scan.u, b, token, k, channel);
            prefetch_row::<S>(&scan.delta, b, token, k, channel);
            if let Some(z) = &scan.z {
                prefetch_row::<S>(z, b, token, k, channel);
            }
            S::prefetch(job.y.ptr::<f32>().wrapping_add(job.y.offset(b, token, k, 0) + channel).cast());
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn prefetch_row<S: Simd>(
    view: &crate::View,
    b: usize,
    token: usize,
    k: usize,
    channel: usize,
) {
    let size = if view.dtype() == Dtype::Bf16 { 2 } else { 4 };
    unsafe { S::prefetch(view.ptr().wrapping_add((view.offset(b, token, k, 0) + channel) * size)) }
}

#[inline(always)]
unsafe fn recur<S: Simd>(
    path: &Path,
    steps: Range<usize>,
    states: usize,
    decay: *const f32,
    h: *mut f32,
    tiles: &mut Tiles,
) {
    let resets = if path.resets.is_empty() { &[][..] } else { &path.resets[steps.clone()] };
    let mut n = 0;
    unsafe {
        // Sixteen-lane sets have 32 registers: eight states and their decays fit beside the polynomial.
        while S::LANES == 16 && n + 8 <= states {
            recur_tile::<S, 8>(steps.len(), resets, states, n, decay, h, tiles);
            n += 8;
        }
        while n + 4 <= states {
            recur_tile::<S, 4>(steps.len(), resets, states, n, decay, h, tiles);
            n += 4;
        }
        while n + 2 <= states {
            recur_tile::<S, 2>(steps.len(), resets, states, n, decay, h, tiles);
            n += 2;
        }
        if n < states {
            recur_tile::<S, 1>(steps.len(), resets, states, n, decay, h, tiles);
        }
    }
}

/// `NS` states over a chunk, all in registers.
#[inline(always)]
unsafe fn recur_tile<S: Simd, const NS: usize>(
    steps: usize,
    resets: &[bool],
    states: usize,
    n0: usize,
    decay: *const f32,
    h: *mut f32,
    tiles: &mut Tiles,
) {
    unsafe {
        let mut a = [S::splat(0.0); NS];
        let mut state = [S::splat(0.0); NS];
        for n in 0..NS {
            a[n] = S::load(decay.add((n0 + n) * S::LANES));
            state[n] = S::load(h.add((n0 + n) * S::LANES));
        }
        let (dt, x, y) = (tiles.dt.as_ptr(), tiles.x.as_ptr(), tiles.y.as_mut_ptr());
        let (b, c) = (tiles.b.as_ptr().add(n0), tiles.c.as_ptr().add(n0));
        for q in 0..steps {
            if !resets.is_empty() && resets[q] {
                state = [S::splat(0.0); NS];
            }
            let (dt, x) = (S::load(dt.add(q * S::LANES)), S::load(x.add(q * S::LANES)));
            let mut sum = S::load(y.add(q * S::LANES));
            let (b, c) = (b.add(q * states), c.add(q * states));
            for n in 0..NS {
                let e = S::exp2(S::mul(dt, a[n]));
                state[n] = S::fma(e, state[n], S::mul(x, S::splat(*b.add(n))));
                sum = S::fma(state[n], S::splat(*c.add(n)), sum);
            }
            S::store(y.add(q * S::LANES), sum);
        }
        for n in 0..NS {
            S::store(h.add((n0 + n) * S::LANES), state[n]);
        }
    }
}

#[inline(always)]
unsafe fn finish<S: Simd>(
    job: &Job,
    path: &Path,
    steps: Range<usize>,
    b: usize,
    k: usize,
    index: usize,
    tiles: &Tiles,
) {
    let scan = job.scan;
    let block = job.layout.blocks[index];
    for (q, &token) in path.tokens[steps].iter().enumerate() {
        if token < 0 {
            continue;
        }
        let token = token as usize;
        unsafe {
            let mut y = S::load(tiles.y.as_ptr().add(q * S::LANES));
            if let Some(z) = &scan.z {
                let z = load_row::<S>(z, z.offset(b, token, k, 0) + block.channel, block.width);
                y = S::mul(y, S::mul(z, math::sigmoid::<S>(z)));
            }
            let to = job.y.ptr::<f32>().add(job.y.offset(b, token, k, 0) + block.channel);
            put::<S>(to, y, block.width, job.stored[k]);
        }
    }
}

/// Stores a vector, or adds it to what is there.
#[inline(always)]
pub(crate) unsafe fn put<S: Simd>(to: *mut f32, value: S::V, width: usize, store: bool) {
    unsafe {
        let value = match (store, width == S::LANES) {
            (true, _) => value,
            (false, true) => S::add(S::load(to), value),
            (false, false) => S::add(S::load_part(to, width), value),
        };
        if width == S::LANES { S::store(to, value) } else { S::store_part(to, value, width) }
    }
}
