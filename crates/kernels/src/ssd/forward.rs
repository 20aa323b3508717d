//! The forward.
//!
//! A task owns one sample and a range of heads and walks each order chunk by chunk. C B^T of a chunk is made once for the
//! heads of a group; per head x is gathered into a tile, y is one product of the masked decays with x and of C with the
//! state, and the state moves on.

use std::ops::Range;

use super::{
    Ssd,
    chunks::{CHUNK, Chunk, PAD, checkpoint_len as slots_len, cut, exchange, padded, state_len},
    products::{Decayed, Left, Masked, Output, Right, Triangle, sweep},
    steps::{Part, Steps},
    tiles::{gather, prefetch, scale_rows, transpose},
};
use crate::{
    Dtype, Isa, Pool, Result, ViewMut,
    orders::Paths,
    pool::shares,
    scan::{Aligned, Rows, length, load_row, per_channel, put},
    simd::{Simd, dispatch, math},
};

/// Outputs of [`forward`].
pub struct Forward<'a> {
    /// (B, L, K, H P) f32; directions that share memory (stride 0) are summed. Tokens that no order visits get 0.
    pub y: ViewMut<'a>,
    /// (B, K, H, P, N): the state after the last step of each order.
    pub final_state: Option<&'a mut [f32]>,
    /// What [`super::backward`] needs to recompute the states: [`checkpoint_len`] values. Opaque.
    pub checkpoints: Option<&'a mut [f32]>,
}

/// Values of the checkpoints of an SSD.
///
/// # Errors
/// As [`forward`].
pub fn checkpoint_len(ssd: &Ssd) -> Result<usize> {
    let paths = ssd.check()?;
    Ok(ssd.batch * ssd.directions * slots_len(ssd, &paths))
}

/// Runs the SSD on `pool` with the instruction set `isa`.
///
/// # Errors
/// Shapes that do not fit, or an order that points outside; nothing is written then.
pub fn forward(ssd: &Ssd, out: Forward, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let paths = ssd.check()?;
    out.y.check("y", ssd.channel_extent(), Dtype::F32)?;
    if let Some(state) = &out.final_state {
        length("final_state", state, ssd.state_len())?;
    }
    let checkpoint_len = slots_len(ssd, &paths);
    if let Some(checkpoints) = &out.checkpoints {
        length("checkpoints", checkpoints, ssd.batch * ssd.directions * checkpoint_len)?;
    }
    let job = Job {
        ssd,
        paths: &paths,
        stored: stored(ssd, &paths, &out.y, ssd.channel_extent()),
        y: &out.y,
        final_state: out.final_state.map(|state| state.as_mut_ptr()),
        checkpoints: out.checkpoints.map(|checkpoints| checkpoints.as_mut_ptr()),
        checkpoint_len,
    };
    let splits = shares(ssd.batch, ssd.heads, pool.threads());
    pool.run(ssd.batch * splits.len(), &|task| {
        let (b, heads) = (task / splits.len(), splits[task % splits.len()].clone());
        let job = &job;
        dispatch!(isa, run(job: &Job, b: usize, heads: Range<usize>));
    });
    Ok(())
}

/// Per direction whether the rows of an output are stored, else added to; what is added to is zeroed.
pub(super) fn stored(ssd: &Ssd, paths: &Paths, out: &ViewMut, extent: [usize; 5]) -> Vec<bool> {
    let shared = ssd.directions > 1 && out.offset(0, 0, 1, 0) == 0;
    let stored: Vec<_> = (0..ssd.directions).map(|k| paths.covers(k) && !(shared && k > 0)).collect();
    if !stored[..if shared { 1 } else { ssd.directions }].iter().all(|stored| *stored) {
        out.zero(extent);
    }
    stored
}

struct Job<'a> {
    ssd: &'a Ssd<'a>,
    paths: &'a Paths,
    y: &'a ViewMut<'a>,
    stored: Vec<bool>,
    final_state: Option<*mut f32>,
    checkpoints: Option<*mut f32>,
    checkpoint_len: usize,
}

// Safety: tasks write disjoint heads and checkpoints.
unsafe impl Sync for Job<'_> {}

/// What a chunk works on.
struct Tiles {
    steps: Steps,
    /// (step, channel).
    x: Aligned,
    y: Aligned,
    /// (step, state).
    c: Aligned,
    b: Aligned,
    /// B: (state, step).
    b_across: Aligned,
    /// C B^T: (step, earlier step).
    scores: Aligned,
    /// The same times the decays and step sizes of a head.
    masked: Aligned,
    /// Where the rows of x, dt, z, y, B and C lie.
    rows: [Rows; 6],
}

impl Tiles {
    /// For chunks of up to `steps` steps: one token must not cost the memory of many.
    fn new(ssd: &Ssd, heads: usize, steps: usize) -> Tiles {
        let (width, states, steps) = (padded(ssd.headdim), padded(ssd.states), padded(steps));
        Tiles {
            steps: Steps::new(heads),
            x: Aligned::zeros(steps * width),
            y: Aligned::zeros(steps * width),
            c: Aligned::zeros(steps * states),
            b: Aligned::zeros(steps * states),
            b_across: Aligned::zeros(states * CHUNK),
            scores: Aligned::zeros(steps * CHUNK),
            masked: Aligned::zeros(steps * CHUNK),
            rows: Default::default(),
        }
    }

    /// Looks up where the rows of a chunk lie.
    fn find(&mut self, job: &Job, [tokens, written]: [&[i32]; 2], b: usize, k: usize) {
        let Ssd { x, dt, z, b: b_view, c, .. } = job.ssd;
        let views = [Some(x), Some(dt), z.as_ref(), Some(job.y.view()), Some(b_view), Some(c)];
        for (i, (rows, view)) in self.rows.iter_mut().zip(views).enumerate() {
            let tokens = if i == 3 { written } else { tokens };
            view.iter().for_each(|view| rows.find(tokens, |token| view.offset(b, token, k, 0)));
        }
    }
}

#[inline(always)]
unsafe fn run<S: Simd>(job: &Job, b: usize, heads: Range<usize>) {
    let ssd = job.ssd;
    let (state_len, given) = (state_len(ssd), ssd.headdim * ssd.states);
    let mut states = Aligned::zeros(heads.len() * state_len);
    let mut tiles = Tiles::new(ssd, heads.len(), job.paths.longest.min(CHUNK));
    for k in 0..ssd.directions {
        let path = job.paths.get(b, k);
        let order = b * ssd.directions + k;
        states.fill(0.0);
        if let Some(initial) = ssd.initial_state {
            for (i, head) in heads.clone().enumerate() {
                let from = (order * ssd.heads + head) * given;
                exchange(ssd, |at, to| states[i * state_len + to] = initial[from + at]);
            }
        }
        for chunk in cut(path, ssd.initial_state.is_some(), job.final_state.is_some()) {
            let tokens = [&path.tokens[chunk.steps.clone()], &path.written()[chunk.steps.clone()]];
            tiles.find(job, tokens, b, k);
            let mut group = usize::MAX;
            unsafe {
                tiles.steps.fill::<S>(ssd, &tiles.rows[1], heads.clone(), k);
                for (i, head) in heads.clone().enumerate() {
                    let state = states.as_mut_ptr().add(i * state_len);
                    if let Some(checkpoints) = job.checkpoints
                        && !chunk.fresh
                    {
                        let slot = (order * job.checkpoint_len) + (chunk.slot * ssd.heads + head) * state_len;
                        std::ptr::copy_nonoverlapping(state, checkpoints.add(slot), state_len);
                    }
                    if ssd.group(head) != group {
                        group = ssd.group(head);
                        scores::<S>(ssd, group, &mut tiles);
                    }
                    if i + 1 < heads.len() {
                        let (view, first) = (&ssd.x, (head + 1) * ssd.headdim);
                        prefetch::<S>(view.ptr(), view.dtype().size(), &tiles.rows[0], first, ssd.headdim);
                    }
                    step::<S>(job, k, i, head, &chunk, state, &mut tiles);
                }
            }
        }
        if let Some(last) = job.final_state {
            for (i, head) in heads.clone().enumerate() {
                let to = (order * ssd.heads + head) * given;
                // Safety: this task's heads only.
                exchange(ssd, |at, from| unsafe { *last.add(to + at) = states[i * state_len + from] });
            }
        }
    }
}

/// B, C and their scores for the heads of a group.
#[inline(always)]
unsafe fn scores<S: Simd>(ssd: &Ssd, group: usize, tiles: &mut Tiles) {
    let (n, stride) = (ssd.states, padded(ssd.states));
    let steps = tiles.rows[0].all().len();
    let group_at = |view: &crate::View| view.offset(0, 0, 0, group);
    unsafe {
        gather::<S>(&ssd.b, &tiles.rows[4], group_at(&ssd.b), n, tiles.b.as_mut_ptr());
        gather::<S>(&ssd.c, &tiles.rows[5], group_at(&ssd.c), n, tiles.c.as_mut_ptr());
        let across = tiles.b_across.as_mut_ptr();
        transpose::<S>(tiles.b.as_ptr(), stride, [padded(steps), stride], across, CHUNK);
        let product = Triangle {
            left: Left { at: tiles.c.as_ptr(), row: stride, step: 1 },
            right: Right { at: across, step: CHUNK },
            depth: n,
            lower: true,
            out: Output { at: tiles.scores.as_mut_ptr(), row: CHUNK },
        };
        sweep::<S>(steps, steps, &product);
    }
}

/// One head over one chunk.
#[inline(always)]
unsafe fn step<S: Simd>(
    job: &Job,
    k: usize,
    i: usize,
    head: usize,
    chunk: &Chunk,
    state: *mut f32,
    tiles: &mut Tiles,
) {
    let ssd = job.ssd;
    let (width, steps, first) = (padded(ssd.headdim), chunk.steps.len(), head * ssd.headdim);
    unsafe {
        gather::<S>(&ssd.x, &tiles.rows[0], first, ssd.headdim, tiles.x.as_mut_ptr());
        let (scores, masked) = (tiles.scores.as_ptr(), tiles.masked.as_mut_ptr());
        let dt = tiles.steps.part(i, Part::Dt).as_ptr();
        for q in 0..steps {
            for at in (0..=q).step_by(S::LANES) {
                let decays = S::mul(tiles.steps.decays::<S>(i, at, q, true), S::load(dt.add(at)));
                S::store(masked.add(q * CHUNK + at), S::mul(decays, S::load(scores.add(q * CHUNK + at))));
            }
        }
        let c = Left { at: tiles.c.as_ptr(), row: padded(ssd.states), step: 1 };
        let rows = Right { at: tiles.x.as_ptr(), step: width };
        let product = Masked {
            outer: (!chunk.fresh).then_some((c, Right { at: state, step: width }, ssd.states)),
            scale: tiles.steps.part(i, Part::Rise).as_ptr(),
            triangle: Left { at: masked, row: CHUNK, step: 1 },
            inner: rows,
            lower: true,
            steps,
            out: Output { at: tiles.y.as_mut_ptr(), row: width },
        };
        sweep::<S>(steps, width, &product);
        finish::<S>(job, k, first, tiles);
        if !chunk.carried {
            return;
        }
        let weights = tiles.steps.part(i, Part::Weight);
        scale_rows::<S>(tiles.x.as_mut_ptr(), width, weights, steps);
        let product = Decayed {
            left: Left { at: tiles.b_across.as_ptr(), row: CHUNK, step: 1 },
            right: rows,
            depth: steps,
            decay: tiles.steps.part(i, Part::Rise)[steps - 1],
            fresh: chunk.fresh,
            out: Output { at: state, row: width },
        };
        sweep::<S>(ssd.states, width, &product);
    }
}

/// Adds D x, applies the gate and writes y.
#[inline(always)]
unsafe fn finish<S: Simd>(job: &Job, k: usize, first: usize, tiles: &Tiles) {
    let ssd = job.ssd;
    let stride = padded(ssd.headdim);
    unsafe {
        for at in (0..ssd.headdim).step_by(S::LANES) {
            let width = S::LANES.min(ssd.headdim - at);
            let skip = per_channel::<S>(ssd.d, k * ssd.channels() + first + at, width);
            for (q, row) in tiles.rows[3].iter() {
                let y = S::load(tiles.y.as_ptr().add(q * stride + at));
                let mut y = S::fma(skip, S::load(tiles.x.as_ptr().add(q * stride + at)), y);
                if let Some(z) = &ssd.z {
                    let z = load_row::<S>(z, tiles.rows[2].all()[q] + first + at, width);
                    y = S::mul(y, S::mul(z, math::sigmoid::<S>(z)));
                }
                put::<S>(job.y.ptr::<f32>().add(row + first + at), y, width, job.stored[k]);
            }
        }
    }
}

const _: () = assert!(CHUNK.is_multiple_of(PAD));
