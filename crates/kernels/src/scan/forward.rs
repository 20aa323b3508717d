//! The fast forward.
//!
//! A task owns one sample and a range of channel blocks. It walks the order in chunks; inside a chunk it goes through
//! its blocks, so the rows of a chunk's tokens are read from end to end whatever order they are visited in: a random
//! order touches no more cache lines or pages than the identity does. Two blocks at a time are copied to f32 tiles; for
//! each, `prepare` makes what follows from delta and u alone, `recur` is the recurrence, up to eight states in
//! registers, and asks for rows that come later; `finish` gates and writes both.

// Loops over the states index several register arrays at once.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use super::{
    Aligned, Layout, Scan,
    layout::Block,
    rows::{Ahead, Rows, TOGETHER, coefficients, gather, per_channel, prefetch_coefficients, scatter},
};
use crate::{
    Dtype, Isa, Pool, Result, ViewMut,
    orders::{Path, Paths},
    pool::shares,
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
    let splits = shares(scan.batch, layout.blocks.len(), pool.threads());
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
    decay: Aligned,
    y: &'a ViewMut<'a>,
    /// Per direction: whether y rows are stored (else added).
    stored: Vec<bool>,
    final_state: Option<*mut f32>,
    checkpoints: Option<*mut f32>,
    checkpoint_len: usize,
}

// Safety: tasks write disjoint channels and checkpoints.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    /// The rows of u, delta, z and y that some blocks read or write, to be asked for.
    #[inline(always)]
    fn ahead<'a>(
        &self,
        blocks: &[Block],
        [u, delta, z, y, ..]: &'a [Rows; 6],
        first: bool,
    ) -> [Ahead<'a>; 4] {
        let [Block { channel, .. }, ..] = blocks else { return [Ahead::NONE; 4] };
        let channels = *channel..blocks[blocks.len() - 1].channels().end;
        let of = |view, rows| Ahead::new(view, rows, channels.clone(), first).unwrap_or(Ahead::NONE);
        let z = self.scan.z.as_ref().map_or(Ahead::NONE, |view| of(view, z));
        [of(&self.scan.u, u), of(&self.scan.delta, delta), z, of(self.y.view(), y)]
    }

    /// The rows of B and C that a group reads, to be asked for.
    #[inline(always)]
    fn coefficients_ahead<'a>(&self, group: usize, [.., b, c]: &'a [Rows; 6]) -> [Ahead<'a>; 2] {
        [(&self.scan.b, b), (&self.scan.c, c)].map(|(view, rows)| {
            let start = view.offset(0, 0, 0, group);
            Ahead::new(view, rows, start..start + self.scan.states, true).unwrap_or(Ahead::NONE)
        })
    }
}

/// Wide vectors are done before memory is, so they ask for the next chunk's rows too.
const fn asks_far<S: Simd>() -> bool {
    S::REGISTERS >= 32
}

#[inline(always)]
unsafe fn run<S: Simd>(job: &Job, b: usize, blocks: Range<usize>) {
    let (scan, layout) = (job.scan, job.layout);
    let (states, chunk) = (scan.states, layout.chunk);
    let per_block = states * S::LANES;
    let mut state = Aligned::zeros(blocks.len() * per_block);
    let mut tiles = Tiles::new::<S>(chunk, states, scan.decays_below_one());
    let mut rows = Places::default();
    let visit = |first: usize| first..(first + TOGETHER).min(blocks.end);
    for k in 0..scan.directions {
        let path = job.paths.get(b, k);
        let at = (b * scan.directions + k) * scan.channels * states;
        // The lanes without a channel too: nothing of the direction before may be left in them.
        state.fill(0.0);
        if let Some(initial) = scan.initial_state {
            layout.exchange(blocks.clone(), states, |from, to| state[to] = initial[at + from]);
        }
        for start in (0..path.tokens.len()).step_by(chunk) {
            let steps = start..(start + chunk).min(path.tokens.len());
            let resets = path.resets.get(steps.clone()).unwrap_or(&[]);
            let ahead = steps.end..(steps.end + chunk).min(path.tokens.len());
            let next = &path.tokens[ahead.clone()];
            let mut group = usize::MAX;
            rows.turn::<S>(job, path, [steps.clone(), ahead], b, k);
            let tokens = &path.tokens[steps];
            for these in blocks.clone().step_by(TOGETHER).map(visit) {
                let last = these.end == blocks.end;
                let then = &layout.blocks[visit(if last { blocks.start } else { these.end })];
                let visited = &layout.blocks[these.clone()];
                let first = these.start == blocks.start;
                let far = asks_far::<S>().then(|| job.ahead(visited, &rows.next, first));
                let mut near = job.ahead(then, if last { &rows.next } else { &rows.now }, last);
                if !asks_far::<S>() {
                    // What is read last is asked for last, which leaves the first cache to what is read before.
                    let ([u, delta, ..], [.., z, y]) = (near, job.ahead(visited, &rows.now, first));
                    near = [z, y, u, delta];
                }
                let asks = Asks {
                    near,
                    far: far.unwrap_or([Ahead::NONE; 4]),
                    coefficients: (last && !asks_far::<S>())
                        .then(|| job.coefficients_ahead(then[0].group, &rows.next)),
                };
                unsafe {
                    gather::<S>(&scan.u, &rows.now[0], visited, tiles.x.as_mut_ptr());
                    gather::<S>(&scan.delta, &rows.now[1], visited, tiles.dt.as_mut_ptr());
                }
                for (j, (index, &block)) in these.zip(visited).enumerate() {
                    let h = unsafe { state.as_mut_ptr().add((index - blocks.start) * per_block) };
                    if let Some(checkpoints) = job.checkpoints {
                        let sample = (b * scan.directions + k) * job.checkpoint_len;
                        let to = sample + (start / chunk * layout.blocks.len() + index) * per_block;
                        unsafe { std::ptr::copy_nonoverlapping(h, checkpoints.add(to), per_block) };
                    }
                    if block.group != group {
                        group = block.group;
                        coefficients(&scan.b, &mut tiles.b, tokens, [b, k, group], states);
                        coefficients(&scan.c, &mut tiles.c, tokens, [b, k, group], states);
                    }
                    unsafe {
                        if asks_far::<S>() && index + 1 == blocks.end {
                            for view in [&scan.b, &scan.c] {
                                let row = |token| view.offset(b, token, k, then[0].group);
                                let size = view.dtype().size();
                                prefetch_coefficients::<S>(view.ptr(), size, next, states, row);
                            }
                        }
                        let chunk =
                            Chunk { steps: tokens.len(), resets, states, block: j, blocks: visited.len() };
                        prepare::<S>(job, k, block, &chunk, &mut tiles);
                        let decay = job.decay.as_ptr().add((k * layout.blocks.len() + index) * per_block);
                        recur::<S>(&chunk, decay, h, &asks, &mut tiles);
                    }
                }
                unsafe { finish::<S>(job, k, visited, tokens.len(), &rows.now, &mut tiles) };
            }
        }
        if let Some(last) = job.final_state {
            // Safety: this task's channels only.
            layout.exchange(blocks.clone(), states, |to, from| unsafe { *last.add(at + to) = state[from] });
        }
    }
}

/// A block's chunk of steps.
struct Chunk<'a> {
    steps: usize,
    resets: &'a [bool],
    states: usize,
    /// Which of the blocks copied together it is, and how many they are.
    block: usize,
    blocks: usize,
}

impl Chunk<'_> {
    /// Where its (step, lane) values begin in a tile.
    fn tile<S: Simd>(&self) -> usize {
        self.block * self.steps * S::LANES
    }
}

/// What to ask for while some blocks are worked on: rows of u, delta, z and y.
///
/// A core has some two dozen misses under way and drops what more is asked of it, and a burst holds up the work itself.
/// So a view has a turn of its own, a block's pass over some of its states, and each step of it asks for one row.
struct Asks<'a> {
    /// Rows that are used next, into the first-level cache: of the next blocks; with narrow vectors z and y of those at hand,
    /// then u and delta of the next.
    near: [Ahead<'a>; 4],
    /// The same blocks' rows of the next chunk: into the second, for the first has room for what is near alone.
    far: [Ahead<'a>; 4],
    /// With narrow vectors the next chunk's B and C, with a chunk's last blocks: a few before each turn.
    coefficients: Option<[Ahead<'a>; 2]>,
}

impl<'a> Asks<'a> {
    /// Asks for a turn's share of the coefficients' rows.
    #[inline(always)]
    fn for_coefficients<S: Simd>(&self, steps: usize, [turn, turns]: [usize; 2]) {
        if let Some(asks) = &self.coefficients {
            for q in turn * steps / turns..(turn + 1) * steps / turns {
                asks.iter().for_each(|ask| ask.ask_row::<S>(q));
            }
        }
    }

    /// What each step of a turn asks for, near and far.
    #[inline(always)]
    fn turn(&self, [turn, turns]: [usize; 2]) -> (Turn<'_, 'a>, &[Ahead<'a>]) {
        let at_once = 4usize.div_ceil(turns);
        let (start, end) = ((turn * at_once).min(4), ((turn + 1) * at_once).min(4));
        let (first, rest) = match &self.near[start..end] {
            [first, rest @ ..] => (*first, rest),
            [] => (Ahead::NONE, &[][..]),
        };
        (Turn { first, rest }, &self.far[start..end])
    }
}

/// What each step of a turn asks for near.
#[derive(Clone, Copy)]
struct Turn<'a, 'b> {
    /// By value, for the compiler to keep it in registers: most turns have no more.
    first: Ahead<'b>,
    rest: &'a [Ahead<'b>],
}

impl Turn<'_, '_> {
    #[inline(always)]
    fn ask<S: Simd>(&self, step: usize) {
        self.first.ask::<S, false>(step);
        for ask in self.rest {
            ask.ask::<S, false>(step);
        }
    }
}

/// What a chunk of steps works on, in f32 and in step order.
struct Tiles {
    /// softplus(delta + bias): (block, step, lane).
    dt: Aligned,
    /// u, then dt u, then z: (block, step, lane).
    x: Aligned,
    /// y: (block, step, lane).
    y: Aligned,
    /// B and C: (step, state).
    b: Aligned,
    c: Aligned,
    /// exp(dt A) of up to eight states of a block: (step, state, lane).
    e: Aligned,
    /// No decay is above 1.
    below_one: bool,
}

impl Tiles {
    fn new<S: Simd>(chunk: usize, states: usize, below_one: bool) -> Self {
        let tile = || Aligned::zeros(TOGETHER * chunk * S::LANES);
        let coefficients = || Aligned::zeros(chunk * states);
        Tiles {
            dt: tile(),
            x: tile(),
            y: tile(),
            b: coefficients(),
            c: coefficients(),
            e: Aligned::zeros(chunk * 8 * S::LANES),
            below_one,
        }
    }
}

/// Where the rows of u, delta, z and y lie.
#[derive(Default)]
struct Places {
    /// Of a chunk.
    now: [Rows; 6],
    /// Of the chunk after it.
    next: [Rows; 6],
}

impl Places {
    /// Turns to the chunk of the first steps, the one that was next unless an order begins.
    fn turn<S: Simd>(
        &mut self,
        job: &Job,
        path: &Path,
        [steps, next]: [Range<usize>; 2],
        b: usize,
        k: usize,
    ) {
        if self.next[0].is_empty() {
            find::<S>(&mut self.next, job, path, steps, b, k);
        }
        std::mem::swap(&mut self.now, &mut self.next);
        find::<S>(&mut self.next, job, path, next, b, k);
    }
}

fn find<S: Simd>(
    [u, delta, z, y, rows_b, rows_c]: &mut [Rows; 6],
    job: &Job,
    path: &Path,
    steps: Range<usize>,
    b: usize,
    k: usize,
) {
    let (tokens, written) = (&path.tokens[steps.clone()], &path.written()[steps]);
    u.find(tokens, |token| job.scan.u.offset(b, token, k, 0));
    delta.find(tokens, |token| job.scan.delta.offset(b, token, k, 0));
    if let Some(view) = &job.scan.z {
        z.find(tokens, |token| view.offset(b, token, k, 0));
    }
    if !asks_far::<S>() {
        rows_b.find(tokens, |token| job.scan.b.offset(b, token, k, 0));
        rows_c.find(tokens, |token| job.scan.c.offset(b, token, k, 0));
    }
    y.find(written, |token| job.y.offset(b, token, k, 0));
}

#[inline(always)]
unsafe fn prepare<S: Simd>(job: &Job, k: usize, block: Block, chunk: &Chunk, tiles: &mut Tiles) {
    let scan = job.scan;
    let row = k * scan.channels + block.channel;
    unsafe {
        let at = chunk.tile::<S>();
        let (dt, x, y) =
            (tiles.dt.as_mut_ptr().add(at), tiles.x.as_mut_ptr().add(at), tiles.y.as_mut_ptr().add(at));
        let bias = per_channel::<S>(scan.delta_bias, row, block.width);
        let skip = per_channel::<S>(scan.d, row, block.width);
        for at in (0..chunk.steps * S::LANES).step_by(S::LANES) {
            let u = S::load(x.add(at));
            let mut delta = S::add(S::load(dt.add(at)), bias);
            if scan.softplus {
                delta = math::softplus::<S>(delta);
            }
            S::store(dt.add(at), delta);
            S::store(x.add(at), S::mul(delta, u));
            S::store(y.add(at), S::mul(skip, u));
        }
    }
}

#[inline(always)]
unsafe fn finish<S: Simd>(
    job: &Job,
    k: usize,
    blocks: &[Block],
    steps: usize,
    rows: &[Rows; 6],
    tiles: &mut Tiles,
) {
    unsafe {
        let (y, z) = (tiles.y.as_mut_ptr(), tiles.x.as_mut_ptr());
        if let Some(view) = &job.scan.z {
            gather::<S>(view, &rows[2], blocks, z);
            for at in (0..blocks.len() * steps * S::LANES).step_by(S::LANES) {
                let z = S::load(z.add(at));
                S::store(y.add(at), S::mul(S::load(y.add(at)), S::mul(z, math::sigmoid::<S>(z))));
            }
        }
        scatter::<S>(job.y, &rows[3], blocks, y, job.stored[k]);
    }
}

#[inline(always)]
unsafe fn recur<S: Simd>(chunk: &Chunk, decay: *const f32, h: *mut f32, asks: &Asks, tiles: &mut Tiles) {
    let states = chunk.states;
    let passes = states / 8 + (states % 8).count_ones() as usize;
    let turn = |pass: usize| [chunk.block * passes + pass, chunk.blocks * passes];
    let (mut n, mut pass) = (0, 0);
    unsafe {
        while n + 8 <= states {
            recur_tile::<S, 8>(chunk, n, decay, h, asks, turn(pass), tiles);
            (n, pass) = (n + 8, pass + 1);
        }
        if n + 4 <= states {
            recur_tile::<S, 4>(chunk, n, decay, h, asks, turn(pass), tiles);
            (n, pass) = (n + 4, pass + 1);
        }
        if n + 2 <= states {
            recur_tile::<S, 2>(chunk, n, decay, h, asks, turn(pass), tiles);
            (n, pass) = (n + 2, pass + 1);
        }
        if n < states {
            recur_tile::<S, 1>(chunk, n, decay, h, asks, turn(pass), tiles);
        }
    }
}

/// `NS` states over a chunk, all in registers.
#[inline(always)]
unsafe fn recur_tile<S: Simd, const NS: usize>(
    chunk: &Chunk,
    n0: usize,
    decay: *const f32,
    h: *mut f32,
    asks: &Asks,
    turn: [usize; 2],
    tiles: &mut Tiles,
) {
    let &Chunk { steps, resets, states, .. } = chunk;
    unsafe {
        let (decay, h) = (decay.add(n0 * S::LANES), h.add(n0 * S::LANES));
        let at = chunk.tile::<S>();
        let (dt, x, y) = (tiles.dt.as_ptr().add(at), tiles.x.as_ptr().add(at), tiles.y.as_mut_ptr().add(at));
        let (b, c) = (tiles.b.as_ptr().add(n0), tiles.c.as_ptr().add(n0));
        let fused = S::REGISTERS >= 32;
        let (near, far) = asks.turn(turn);
        asks.for_coefficients::<S>(steps, turn);
        if !fused {
            // The decays keep the arithmetic busy, the recurrence the loads: there a request costs 3%, here none.
            let ask = |q| near.ask::<S>(q);
            decays::<S, NS>(steps, dt, decay, tiles.e.as_mut_ptr(), tiles.below_one, ask);
        }
        let e = tiles.e.as_ptr();
        let mut a = [S::splat(0.0); NS];
        let mut state = [S::splat(0.0); NS];
        for n in 0..NS {
            a[n] = S::load(decay.add(n * S::LANES));
            state[n] = S::load(h.add(n * S::LANES));
        }
        for q in 0..steps {
            if fused {
                near.ask::<S>(q);
            }
            if asks_far::<S>() {
                for far in far {
                    far.ask::<S, true>(q);
                }
            }
            if !resets.is_empty() && resets[q] {
                state = [S::splat(0.0); NS];
            }
            let (dt, x) = (S::load(dt.add(q * S::LANES)), S::load(x.add(q * S::LANES)));
            // Two sums: half the latency from one state to the next.
            let mut sum = [S::load(y.add(q * S::LANES)), S::splat(0.0)];
            let (b, c) = (b.add(q * states), c.add(q * states));
            for n in 0..NS {
                let e =
                    if fused { S::decay(S::mul(dt, a[n])) } else { S::load(e.add((q * NS + n) * S::LANES)) };
                state[n] = S::fma(e, state[n], S::mul(x, S::splat(*b.add(n))));
                sum[n % 2] = S::fma(state[n], S::splat(*c.add(n)), sum[n % 2]);
            }
            S::store(y.add(q * S::LANES), S::add(sum[0], sum[1]));
        }
        for n in 0..NS {
            S::store(h.add(n * S::LANES), state[n]);
        }
    }
}

/// The decays exp(dt A) of `NS` states over a chunk, on their own where registers are few: the polynomial's constants
/// stay in registers then. `e` is (step, state, lane); `decay` holds A log2(e). `each` is called with every step.
#[inline(always)]
pub(super) unsafe fn decays<S: Simd, const NS: usize>(
    steps: usize,
    dt: *const f32,
    decay: *const f32,
    e: *mut f32,
    below_one: bool,
    each: impl Fn(usize),
) {
    unsafe {
        if below_one {
            fill_decays::<S, NS>(steps, dt, decay, e, |x| S::decay_below_one(x), each);
        } else {
            fill_decays::<S, NS>(steps, dt, decay, e, |x| S::decay(x), each);
        }
    }
}

#[inline(always)]
unsafe fn fill_decays<S: Simd, const NS: usize>(
    steps: usize,
    dt: *const f32,
    decay: *const f32,
    e: *mut f32,
    power: impl Fn(S::V) -> S::V,
    each: impl Fn(usize),
) {
    unsafe {
        for q in 0..steps {
            each(q);
            let dt = S::load(dt.add(q * S::LANES));
            for n in 0..NS {
                let value = power(S::mul(dt, S::load(decay.add(n * S::LANES))));
                S::store(e.add((q * NS + n) * S::LANES), value);
            }
        }
    }
}
