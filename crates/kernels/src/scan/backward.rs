//! The fast backward.
//!
//! Chunks are taken from the last to the first. The states of a chunk are recomputed from its checkpoint into a tile
//! that lives in the second-level cache, then the chunk is walked backwards (g is the gradient of the state):
//!
//! ```text
//! g   += dy C            dC += dy h           dB += g dt u          dx = sum_n g B        (x = dt u)
//! w    = g e h_before    dA += w dt           d(dt) = sum_n w A + dx u                     (e = exp(dt A))
//! g    = g e
//! ```
//!
//! dB and dC are sums over channels: a task adds them up lane by lane over its blocks, folds the lanes once per
//! chunk, and tasks that share a sample are added in a fixed order at the end.

use std::ops::Range;

use super::{
    Layout, Scan,
    forward::{gather_coefficients, per_channel, prefetch_row, put},
    load_row,
};
use crate::{
    Dtype, Error, Isa, Pool, Result, Strides, View, ViewMut,
    orders::{Path, Paths},
    simd::{Simd, dispatch, math},
};

/// Cotangents in, gradients out. All outputs are f32 and are overwritten.
pub struct Backward<'a> {
    /// (B, L, K, D): gradient of y, f32 or bf16.
    pub dy: View<'a>,
    /// (B, K, D, N): gradient of the final state.
    pub dfinal: Option<&'a [f32]>,
    /// From [`super::forward`] with the same inputs and instruction set.
    pub checkpoints: &'a [f32],
    /// (B, L, K, D); a shared direction stride sums over the directions, here and below.
    pub du: ViewMut<'a>,
    /// (B, L, K, D).
    pub ddelta: ViewMut<'a>,
    /// (B, L, K, D), present exactly if z is.
    pub dz: Option<ViewMut<'a>>,
    /// (B, L, K, G, N).
    pub db: ViewMut<'a>,
    /// (B, L, K, G, N).
    pub dc: ViewMut<'a>,
    /// (K, D, N).
    pub da: &'a mut [f32],
    /// (K, D), present exactly if D is.
    pub dd: Option<&'a mut [f32]>,
    /// (K, D), present exactly if delta_bias is.
    pub ddelta_bias: Option<&'a mut [f32]>,
    /// (B, K, D, N).
    pub dinitial: Option<&'a mut [f32]>,
}

/// Computes every gradient.
///
/// # Errors
/// Shapes that do not fit, checkpoints of another shape; nothing is written then.
pub fn backward(scan: &Scan, mut out: Backward, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let paths = scan.check()?;
    let layout = Layout::new(scan, isa);
    check(scan, &out, &layout, &paths)?;

    let per_channel = scan.channels * scan.directions;
    let rows = |view: &ViewMut| -> Vec<bool> {
        let shared = scan.directions > 1 && view.offset(0, 0, 1, 0) == 0;
        let stored: Vec<_> = (0..scan.directions).map(|k| paths.covers(k) && !(shared && k > 0)).collect();
        if !stored[..if shared { 1 } else { scan.directions }].iter().all(|s| *s) {
            view.zero(scan.channel_extent());
        }
        stored
    };
    out.db.zero(scan.coefficient_extent());
    out.dc.zero(scan.coefficient_extent());

    // Enough tasks for many threads at batch 1, few enough that the partial sums stay small; by shape alone.
    let splits = layout.splits(scan.batch, 16);
    let coefficient_len = scan.tokens * scan.directions * scan.groups * scan.states;
    let partial_len = if splits.len() > 1 { scan.batch * splits.len() * coefficient_len } else { 0 };
    let (mut partial_b, mut partial_c) = (vec![0f32; partial_len], vec![0f32; partial_len]);
    let mut parameters = vec![0f32; scan.batch * per_channel * (scan.states + 2)];

    let job = Job {
        scan,
        paths: &paths,
        layout: &layout,
        decay: layout.pack(scan.a, scan.channels, scan.states, 1.0),
        stored: [rows(&out.du), rows(&out.ddelta), out.dz.as_ref().map(rows).unwrap_or_default()],
        dy: out.dy,
        dfinal: out.dfinal,
        checkpoints: out.checkpoints,
        checkpoint_len: layout.checkpoint_len(scan, &paths),
        du: &out.du,
        ddelta: &out.ddelta,
        dz: out.dz.as_ref(),
        parameters: parameters.as_mut_ptr(),
        dinitial: out.dinitial.as_mut().map(|state| state.as_mut_ptr()),
    };
    let flat = Strides::contiguous(scan.tokens, scan.directions, scan.groups, scan.states);
    // Safety: the partial sums outlive the tasks, and tasks write disjoint samples of them.
    let partial = unsafe {
        [&mut partial_b, &mut partial_c]
            .map(|sums| ViewMut::from_raw(sums.as_mut_ptr().cast(), Dtype::F32, partial_len, flat))
    };
    pool.run(scan.batch * splits.len(), &|task| {
        let (b, split) = (task / splits.len(), task % splits.len());
        let blocks = splits[split].clone();
        let coefficients = if splits.len() > 1 {
            Coefficients { views: [&partial[0], &partial[1]], sample: task }
        } else {
            Coefficients { views: [&out.db, &out.dc], sample: b }
        };
        let job = &job;
        dispatch!(isa, run(job: &Job, b: usize, blocks: Range<usize>, coefficients: Coefficients));
    });
    if splits.len() > 1 {
        for (partial, view) in [(&partial_b, &out.db), (&partial_c, &out.dc)] {
            fold_splits(scan, partial, view, splits.len(), pool);
        }
    }
    fold_samples(scan, &parameters, &mut out);
    Ok(())
}

fn check(scan: &Scan, out: &Backward, layout: &Layout, paths: &Paths) -> Result<()> {
    let expected = scan.batch * scan.directions * layout.checkpoint_len(scan, paths);
    super::length("checkpoints", out.checkpoints, expected)?;
    out.dy.check("dy", scan.channel_extent())?;
    super::not_f64("dy", &out.dy)?;
    for (name, view) in [("du", Some(&out.du)), ("ddelta", Some(&out.ddelta)), ("dz", out.dz.as_ref())] {
        view.map_or(Ok(()), |view| view.check(name, scan.channel_extent(), Dtype::F32))?;
    }
    for (name, view) in [("dB", &out.db), ("dC", &out.dc)] {
        view.check(name, scan.coefficient_extent(), Dtype::F32)?;
    }
    let per_channel = scan.directions * scan.channels;
    super::length("dA", out.da, per_channel * scan.states)?;
    for (name, have, given) in [
        ("dD", out.dd.as_deref(), scan.d.is_some()),
        ("ddelta_bias", out.ddelta_bias.as_deref(), scan.delta_bias.is_some()),
    ] {
        if have.is_some() != given {
            return Err(Error::Shape(format!("`{name}` must be given exactly if its argument is")));
        }
        have.map_or(Ok(()), |slice| super::length(name, slice, per_channel))?;
    }
    if out.dz.is_some() != scan.z.is_some() {
        return Err(Error::Shape("`dz` must be given exactly if z is".into()));
    }
    for (name, state) in [("dfinal", out.dfinal), ("dinitial", out.dinitial.as_deref())] {
        state.map_or(Ok(()), |state| super::length(name, state, scan.state_len()))?;
    }
    Ok(())
}

/// Adds the partial sums of a sample's tasks, in the order of the tasks, into the output.
fn fold_splits(scan: &Scan, partial: &[f32], view: &ViewMut, splits: usize, pool: &dyn Pool) {
    let row = scan.directions * scan.groups * scan.states;
    let len = scan.tokens * row;
    let tiles = scan.tokens.div_ceil(64);
    pool.run(scan.batch * tiles, &|task| {
        let (b, tile) = (task / tiles, task % tiles);
        for token in tile * 64..((tile + 1) * 64).min(scan.tokens) {
            for k in 0..scan.directions {
                for g in 0..scan.groups {
                    let from = token * row + (k * scan.groups + g) * scan.states;
                    let to = view.offset(b, token, k, g);
                    for n in 0..scan.states {
                        let sum: f32 = (0..splits).map(|s| partial[(b * splits + s) * len + from + n]).sum();
                        // Safety: checked extent; tasks own disjoint tokens.
                        unsafe { *view.ptr::<f32>().add(to + n) += sum };
                    }
                }
            }
        }
    });
}

/// Adds the gradients of per-channel parameters over the samples, in order: each sample left (K, D, N + 2) values.
fn fold_samples(scan: &Scan, parameters: &[f32], out: &mut Backward) {
    let (n, per_channel) = (scan.states, scan.directions * scan.channels);
    out.da.fill(0.0);
    out.dd.iter_mut().for_each(|dd| dd.fill(0.0));
    out.ddelta_bias.iter_mut().for_each(|dbias| dbias.fill(0.0));
    for sample in parameters.chunks_exact((per_channel * (n + 2)).max(1)) {
        for (channel, values) in sample.chunks_exact(n + 2).enumerate() {
            for (sum, value) in out.da[channel * n..(channel + 1) * n].iter_mut().zip(values) {
                *sum += value;
            }
            out.dd.iter_mut().for_each(|dd| dd[channel] += values[n]);
            out.ddelta_bias.iter_mut().for_each(|dbias| dbias[channel] += values[n + 1]);
        }
    }
}

struct Job<'a> {
    scan: &'a Scan<'a>,
    paths: &'a Paths,
    layout: &'a Layout,
    decay: Vec<f32>,
    /// Per direction, for du, ddelta, dz: rows are stored (else added).
    stored: [Vec<bool>; 3],
    dy: View<'a>,
    dfinal: Option<&'a [f32]>,
    checkpoints: &'a [f32],
    checkpoint_len: usize,
    du: &'a ViewMut<'a>,
    ddelta: &'a ViewMut<'a>,
    dz: Option<&'a ViewMut<'a>>,
    /// (B, K, D, N + 2): gradients of A, D and delta_bias of each sample.
    parameters: *mut f32,
    dinitial: Option<*mut f32>,
}

// Safety: tasks write disjoint channels of disjoint samples.
unsafe impl Sync for Job<'_> {}

/// Where dB and dC of a task go.
#[derive(Clone, Copy)]
struct Coefficients<'a> {
    views: [&'a ViewMut<'a>; 2],
    /// Which "batch" of the views is the task's.
    sample: usize,
}

/// Scratch of a task, in f32 and in step order.
struct Tiles {
    /// Step, lane: delta after softplus, its derivative, u, dt u, gradient of y before the gate, y without its gate,
    /// gradient of dt u, gradient of dt through the decays.
    dt: Vec<f32>,
    slope: Vec<f32>,
    u: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    ddt: Vec<f32>,
    /// Step, state.
    b: Vec<f32>,
    c: Vec<f32>,
    /// Step (one more), state, lane: the states; and the decays.
    h: Vec<f32>,
    e: Vec<f32>,
    /// Step, state, lane: dB and dC before the lanes are folded.
    db: Vec<f32>,
    dc: Vec<f32>,
}

impl Tiles {
    fn new(chunk: usize, lanes: usize, states: usize) -> Self {
        let tile = || vec![0f32; chunk * lanes];
        let wide = || vec![0f32; chunk * states * lanes];
        Tiles {
            dt: tile(),
            slope: tile(),
            u: tile(),
            x: tile(),
            dy: tile(),
            y: tile(),
            dx: tile(),
            ddt: tile(),
            b: vec![0.0; chunk * states],
            c: vec![0.0; chunk * states],
            h: vec![0f32; (chunk + 1) * states * lanes],
            e: wide(),
            db: wide(),
            dc: wide(),
        }
    }
}

/// What a chunk of one block is about.
#[derive(Clone)]
struct Spot<'a> {
    b: usize,
    k: usize,
    index: usize,
    path: &'a Path,
    steps: Range<usize>,
    /// States at hand.
    states: Range<usize>,
}

#[inline(always)]
unsafe fn run<S: Simd>(job: &Job, b: usize, blocks: Range<usize>, coefficients: Coefficients) {
    let (scan, layout) = (job.scan, job.layout);
    let (states, chunk) = (scan.states, layout.chunk);
    let wide = blocks.len() * states * S::LANES;
    // Gradients of the state and of A, kept across chunks: block, state, lane. Of D and the bias: block, 2, lane.
    let (mut g, mut da) = (vec![0f32; wide], vec![0f32; wide]);
    let mut small = vec![0f32; blocks.len() * 2 * S::LANES];
    let mut tiles = Tiles::new(chunk, S::LANES, layout.state_tile.min(states));
    for k in 0..scan.directions {
        let path = job.paths.get(b, k);
        let at = (b * scan.directions + k) * scan.channels * states;
        da.fill(0.0);
        small.fill(0.0);
        match job.dfinal {
            Some(last) => layout.exchange(blocks.clone(), states, |from, to| g[to] = last[at + from]),
            None => g.fill(0.0),
        }
        for start in (0..path.tokens.len()).step_by(chunk).rev() {
            let steps = start..(start + chunk).min(path.tokens.len());
            for n0 in (0..states).step_by(layout.state_tile) {
                let range = n0..(n0 + layout.state_tile).min(states);
                let mut group = usize::MAX;
                for (i, index) in blocks.clone().enumerate() {
                    let spot = Spot { b, k, index, path, steps: steps.clone(), states: range.clone() };
                    let block = layout.blocks[index];
                    unsafe {
                        if block.group != group {
                            if group != usize::MAX {
                                fold_lanes::<S>(&spot, group, &mut tiles, coefficients);
                            }
                            group = block.group;
                            let tokens = &path.tokens[steps.clone()];
                            gather_coefficients(&scan.b, &mut tiles.b, tokens, b, k, group, range.clone());
                            gather_coefficients(&scan.c, &mut tiles.c, tokens, b, k, group, range.clone());
                            let used = steps.len() * range.len() * S::LANES;
                            tiles.db[..used].fill(0.0);
                            tiles.dc[..used].fill(0.0);
                        }
                        let own = (i * states + n0) * S::LANES;
                        prepare::<S>(job, &spot, &mut tiles);
                        prefetch::<S>(job, &spot, blocks.clone(), chunk);
                        replay::<S>(job, &spot, &mut tiles);
                        retrace::<S>(
                            job,
                            &spot,
                            g.as_mut_ptr().add(own),
                            da.as_mut_ptr().add(own),
                            &mut tiles,
                        );
                        finish::<S>(job, &spot, small.as_mut_ptr().add(i * 2 * S::LANES), &tiles);
                    }
                }
                if group != usize::MAX {
                    let spot = Spot { b, k, index: 0, path, steps: steps.clone(), states: range };
                    unsafe { fold_lanes::<S>(&spot, group, &mut tiles, coefficients) };
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

/// Loads u, delta, dy (and z) of the chunk; the first state tile also carries what does not depend on states.
#[inline(always)]
unsafe fn prepare<S: Simd>(job: &Job, spot: &Spot, tiles: &mut Tiles) {
    let (scan, block) = (job.scan, job.layout.blocks[spot.index]);
    let (b, k) = (spot.b, spot.k);
    let zero = unsafe { S::splat(0.0) };
    unsafe {
        let row = k * scan.channels + block.channel;
        let bias = per_channel::<S>(scan.delta_bias, row, block.width);
        let skip = if spot.states.start == 0 { per_channel::<S>(scan.d, row, block.width) } else { zero };
        for (q, &token) in spot.path.tokens[spot.steps.clone()].iter().enumerate() {
            let (mut u, mut delta, mut dy) = (zero, zero, zero);
            if token >= 0 {
                let token = token as usize;
                let load = |view: &View| {
                    load_row::<S>(view, view.offset(b, token, k, 0) + block.channel, block.width)
                };
                u = load(&scan.u);
                delta = load(&scan.delta);
                dy = load(&job.dy);
                if let Some(z) = &scan.z {
                    let z = load(z);
                    dy = S::mul(dy, S::mul(z, math::sigmoid::<S>(z)));
                }
            }
            let (mut dt, mut slope) = (S::add(delta, bias), S::splat(1.0));
            if scan.softplus {
                slope = math::sigmoid::<S>(dt);
                dt = math::softplus::<S>(dt);
            }
            let at = q * S::LANES;
            S::store(tiles.dt.as_mut_ptr().add(at), dt);
            S::store(tiles.slope.as_mut_ptr().add(at), slope);
            S::store(tiles.u.as_mut_ptr().add(at), u);
            S::store(tiles.x.as_mut_ptr().add(at), S::mul(dt, u));
            S::store(tiles.dy.as_mut_ptr().add(at), dy);
            S::store(tiles.y.as_mut_ptr().add(at), S::mul(skip, u));
            S::store(tiles.dx.as_mut_ptr().add(at), zero);
            S::store(tiles.ddt.as_mut_ptr().add(at), zero);
        }
    }
}

/// Asks for the rows of the block that comes next (in the chunk before this one after the last block).
#[inline(always)]
unsafe fn prefetch<S: Simd>(job: &Job, spot: &Spot, blocks: Range<usize>, chunk: usize) {
    let (mut index, mut steps) = (spot.index + 1, spot.steps.clone());
    if index == blocks.end {
        index = blocks.start;
        steps = steps.start.saturating_sub(chunk)..steps.start;
    }
    let channel = job.layout.blocks[index].channel;
    let (b, k) = (spot.b, spot.k);
    for &token in &spot.path.tokens[steps] {
        if token < 0 {
            continue;
        }
        let token = token as usize;
        let write = |view: &ViewMut| unsafe {
            S::prefetch(view.ptr::<f32>().wrapping_add(view.offset(b, token, k, 0) + channel).cast());
        };
        unsafe {
            prefetch_row::<S>(&job.scan.u, b, token, k, channel);
            prefetch_row::<S>(&job.scan.delta, b, token, k, channel);
            prefetch_row::<S>(&job.dy, b, token, k, channel);
            if let Some(z) = &job.scan.z {
                prefetch_row::<S>(z, b, token, k, channel);
            }
        }
        write(job.du);
        write(job.ddelta);
        job.dz.iter().for_each(|view| write(view));
    }
}

/// Recomputes the states and decays of the chunk from its checkpoint.
#[inline(always)]
unsafe fn replay<S: Simd>(job: &Job, spot: &Spot, tiles: &mut Tiles) {
    let (states, blocks) = (job.scan.states, job.layout.blocks.len());
    let sample = (spot.b * job.scan.directions + spot.k) * job.checkpoint_len;
    let chunk = spot.steps.start / job.layout.chunk;
    let from = sample + ((chunk * blocks + spot.index) * states + spot.states.start) * S::LANES;
    unsafe {
        let checkpoint = job.checkpoints.as_ptr().add(from);
        std::ptr::copy_nonoverlapping(checkpoint, tiles.h.as_mut_ptr(), spot.states.len() * S::LANES);
        let mut n = 0;
        while S::LANES == 16 && n + 8 <= spot.states.len() {
            replay_tile::<S, 8>(job, spot, n, tiles);
            n += 8;
        }
        while n + 4 <= spot.states.len() {
            replay_tile::<S, 4>(job, spot, n, tiles);
            n += 4;
        }
        while n < spot.states.len() {
            replay_tile::<S, 1>(job, spot, n, tiles);
            n += 1;
        }
    }
}

#[inline(always)]
unsafe fn replay_tile<S: Simd, const NS: usize>(job: &Job, spot: &Spot, n0: usize, tiles: &mut Tiles) {
    let width = spot.states.len();
    unsafe {
        let decay = decay::<S>(job, spot, n0);
        let log2e = S::splat(std::f32::consts::LOG2_E);
        let mut a = [S::splat(0.0); NS];
        let mut state = [S::splat(0.0); NS];
        for n in 0..NS {
            a[n] = S::mul(S::load(decay.add(n * S::LANES)), log2e);
            state[n] = S::load(tiles.h.as_ptr().add((n0 + n) * S::LANES));
        }
        let gated = job.scan.z.is_some();
        let (h, e) = (tiles.h.as_mut_ptr(), tiles.e.as_mut_ptr());
        for q in 0..spot.steps.len() {
            if spot.path.reset(spot.steps.start + q) {
                state = [S::splat(0.0); NS];
            }
            let dt = S::load(tiles.dt.as_ptr().add(q * S::LANES));
            let x = S::load(tiles.x.as_ptr().add(q * S::LANES));
            let (b, c) = (tiles.b.as_ptr().add(q * width + n0), tiles.c.as_ptr().add(q * width + n0));
            let at = (q * width + n0) * S::LANES;
            for n in 0..NS {
                let decay = S::exp2(S::mul(dt, a[n]));
                state[n] = S::fma(decay, state[n], S::mul(x, S::splat(*b.add(n))));
                S::store(e.add(at + n * S::LANES), decay);
                S::store(h.add(at + (width + n) * S::LANES), state[n]);
            }
            if gated {
                let y = tiles.y.as_mut_ptr().add(q * S::LANES);
                let mut sum = S::load(y);
                for n in 0..NS {
                    sum = S::fma(state[n], S::splat(*c.add(n)), sum);
                }
                S::store(y, sum);
            }
        }
    }
}

/// A of the block at state `n0` of the tile.
#[inline(always)]
unsafe fn decay<S: Simd>(job: &Job, spot: &Spot, n0: usize) -> *const f32 {
    let block = spot.k * job.layout.blocks.len() + spot.index;
    unsafe { job.decay.as_ptr().add((block * job.scan.states + spot.states.start + n0) * S::LANES) }
}

/// Walks the chunk backwards.
#[inline(always)]
unsafe fn retrace<S: Simd>(job: &Job, spot: &Spot, g: *mut f32, da: *mut f32, tiles: &mut Tiles) {
    let mut n = 0;
    unsafe {
        while n + 4 <= spot.states.len() {
            retrace_tile::<S, 4>(job, spot, n, g, da, tiles);
            n += 4;
        }
        while n < spot.states.len() {
            retrace_tile::<S, 1>(job, spot, n, g, da, tiles);
            n += 1;
        }
    }
}

#[inline(always)]
unsafe fn retrace_tile<S: Simd, const NS: usize>(
    job: &Job,
    spot: &Spot,
    n0: usize,
    g: *mut f32,
    da: *mut f32,
    tiles: &mut Tiles,
) {
    let width = spot.states.len();
    unsafe {
        let decay = decay::<S>(job, spot, n0);
        let zero = S::splat(0.0);
        let (mut a, mut grad, mut sum_a) = ([zero; NS], [zero; NS], [zero; NS]);
        for n in 0..NS {
            a[n] = S::load(decay.add(n * S::LANES));
            grad[n] = S::load(g.add((n0 + n) * S::LANES));
            sum_a[n] = S::load(da.add((n0 + n) * S::LANES));
        }
        for q in (0..spot.steps.len()).rev() {
            let dt = S::load(tiles.dt.as_ptr().add(q * S::LANES));
            let x = S::load(tiles.x.as_ptr().add(q * S::LANES));
            let dy = S::load(tiles.dy.as_ptr().add(q * S::LANES));
            let (dx_at, ddt_at) =
                (tiles.dx.as_mut_ptr().add(q * S::LANES), tiles.ddt.as_mut_ptr().add(q * S::LANES));
            let (mut dx, mut ddt) = (S::load(dx_at), S::load(ddt_at));
            let (b, c) = (tiles.b.as_ptr().add(q * width + n0), tiles.c.as_ptr().add(q * width + n0));
            let at = (q * width + n0) * S::LANES;
            let (before, after) = (tiles.h.as_ptr().add(at), tiles.h.as_ptr().add(at + width * S::LANES));
            let e = tiles.e.as_ptr().add(at);
            let (db, dc) = (tiles.db.as_mut_ptr().add(at), tiles.dc.as_mut_ptr().add(at));
            let reset = spot.path.reset(spot.steps.start + q);
            for n in 0..NS {
                let lane = n * S::LANES;
                let total = S::fma(dy, S::splat(*c.add(n)), grad[n]);
                S::store(dc.add(lane), S::fma(dy, S::load(after.add(lane)), S::load(dc.add(lane))));
                S::store(db.add(lane), S::fma(total, x, S::load(db.add(lane))));
                dx = S::fma(total, S::splat(*b.add(n)), dx);
                let through = S::mul(total, S::load(e.add(lane)));
                if !reset {
                    let w = S::mul(through, S::load(before.add(lane)));
                    ddt = S::fma(w, a[n], ddt);
                    sum_a[n] = S::fma(w, dt, sum_a[n]);
                }
                grad[n] = if reset { zero } else { through };
            }
            S::store(dx_at, dx);
            S::store(ddt_at, ddt);
        }
        for n in 0..NS {
            S::store(g.add((n0 + n) * S::LANES), grad[n]);
            S::store(da.add((n0 + n) * S::LANES), sum_a[n]);
        }
    }
}

/// Writes du, ddelta, dz of the chunk; adds to the gradients of D and the bias.
#[inline(always)]
unsafe fn finish<S: Simd>(job: &Job, spot: &Spot, small: *mut f32, tiles: &Tiles) {
    let (scan, block) = (job.scan, job.layout.blocks[spot.index]);
    let (b, k) = (spot.b, spot.k);
    let first = spot.states.start == 0;
    unsafe {
        let zero = S::splat(0.0);
        let row = k * scan.channels + block.channel;
        let skip = if first { per_channel::<S>(scan.d, row, block.width) } else { zero };
        let (mut dd, mut dbias) = (S::load(small), S::load(small.add(S::LANES)));
        for (q, &token) in spot.path.tokens[spot.steps.clone()].iter().enumerate() {
            let at = q * S::LANES;
            let (dt, u) = (S::load(tiles.dt.as_ptr().add(at)), S::load(tiles.u.as_ptr().add(at)));
            let (dx, dy) = (S::load(tiles.dx.as_ptr().add(at)), S::load(tiles.dy.as_ptr().add(at)));
            let ddelta = S::fma(dx, u, S::load(tiles.ddt.as_ptr().add(at)));
            let ddelta = S::mul(ddelta, S::load(tiles.slope.as_ptr().add(at)));
            dbias = S::add(dbias, ddelta);
            if token < 0 {
                continue;
            }
            let token = token as usize;
            let write = |view: &ViewMut, value: S::V, store: bool| {
                let to = view.ptr::<f32>().add(view.offset(b, token, k, 0) + block.channel);
                put::<S>(to, value, block.width, store && first);
            };
            write(job.du, S::fma(dx, dt, S::mul(dy, skip)), job.stored[0][k]);
            write(job.ddelta, ddelta, job.stored[1][k]);
            if let (Some(z), Some(dz)) = (&scan.z, job.dz) {
                let z = load_row::<S>(z, z.offset(b, token, k, 0) + block.channel, block.width);
                let dy = load_row::<S>(&job.dy, job.dy.offset(b, token, k, 0) + block.channel, block.width);
                let s = math::sigmoid::<S>(z);
                // d silu = s (1 + z (1 - s))
                let one = S::splat(1.0);
                let slope = S::mul(s, S::fma(z, S::sub(one, s), one));
                let y = S::load(tiles.y.as_ptr().add(at));
                write(dz, S::mul(dy, S::mul(y, slope)), job.stored[2][k]);
            }
            if first {
                dd = S::fma(dy, u, dd);
            }
        }
        S::store(small, dd);
        S::store(small.add(S::LANES), dbias);
    }
}

/// Folds the lanes of dB and dC of a chunk and adds them to the rows of its tokens.
#[inline(always)]
unsafe fn fold_lanes<S: Simd>(spot: &Spot, group: usize, tiles: &mut Tiles, to: Coefficients) {
    let width = spot.states.len();
    for (tile, view) in [(&tiles.db, to.views[0]), (&tiles.dc, to.views[1])] {
        for (q, &token) in spot.path.tokens[spot.steps.clone()].iter().enumerate() {
            if token < 0 {
                continue;
            }
            let row = view.offset(to.sample, token as usize, spot.k, group) + spot.states.start;
            for n in 0..width {
                // Safety: checked extent.
                unsafe {
                    let sum = S::sum(S::load(tile.as_ptr().add((q * width + n) * S::LANES)));
                    *view.ptr::<f32>().add(row + n) += sum;
                }
            }
        }
    }
}
