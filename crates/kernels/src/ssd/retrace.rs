//! A task of the backward: some heads of one sample, chunk by chunk from the last to the first.
//!
//! What it works on lies (step s, step q) or (…, step) where the formulas of `backward` have the steps the other way
//! around, so that the sums over heads and the tile that every product reads in vectors run along the later steps.
//!
//! The gradient of dt A at step t is that of every decay over t. With P = M o G o L dt, the part of the pair (q, s) in
//! <dY, Y>, the sum of all P with s < t <= q is a sum over q >= t of row sums less column sums. What passes through the
//! states before and behind adds C . (their part of dC) for q >= t, B . (their part of dB) for s < t, and
//! <S', S> times the decay of the chunk. Each of them also is what dt multiplies, which gives the rest of its gradient;
//! that of A is the sum of all of them, each times the time its decay lasts.

use std::ops::Range;

use super::{
    Ssd,
    backward::{Coefficients, Job},
    blocks::{Banded, Pairs, Through},
    chunks::{CHUNK, Chunk, cut, exchange, padded, state_len},
    products::{Decayed, Left, Masked, Output, Right, Triangle, sweep},
    steps::{Part, Steps},
    tiles::{gather, prefetch, scale_rows, scatter, transpose},
};
use crate::{
    scan::{Aligned, Rows, load_row, per_channel, put},
    simd::{Simd, math},
};

/// Which rows of a chunk.
#[derive(Clone, Copy)]
enum Of {
    X,
    Dt,
    Z,
    Dy,
    Dx,
    Ddt,
    Dz,
    B,
    C,
    Db,
    Dc,
}

/// Scratch of a task.
struct Scratch {
    steps: Steps,
    rows: [Rows; 11],
    /// (step, channel).
    x: Aligned,
    dy: Aligned,
    /// y before the gate, then the gradient of x.
    out: Aligned,
    /// (channel, step).
    x_across: Aligned,
    dy_across: Aligned,
    /// (step, state).
    b: Aligned,
    c: Aligned,
    /// (state, step).
    b_across: Aligned,
    c_across: Aligned,
    /// Gradients of B and C, summed over the heads of a group: (state, step).
    db: Aligned,
    dc: Aligned,
    /// (step s, step q): C B^T, the decays L, both and dt, and the gradient of the first summed over heads.
    scores: Aligned,
    decays: Aligned,
    masked: Aligned,
    dscores: Aligned,
    /// The last, (step q, step s).
    dscores_across: Aligned,
    sums: Sums,
}

/// Sums of a head over the chunk, by step.
struct Sums {
    /// Row sums of P; in the end the gradient of dt.
    received: Aligned,
    /// Column sums of P / dt.
    given: Aligned,
    /// Row sums of P times the time between the two steps.
    apart: Aligned,
    /// C . dC of the state before, but for the decay.
    before: Aligned,
    /// B . dB of the state behind, but for decay and dt.
    behind: Aligned,
}

impl Sums {
    fn all(&mut self) -> [&mut Aligned; 5] {
        [&mut self.received, &mut self.given, &mut self.apart, &mut self.before, &mut self.behind]
    }
}

impl Scratch {
    fn new(ssd: &Ssd, heads: usize) -> Scratch {
        let (width, states) = (padded(ssd.headdim), padded(ssd.states));
        let [channels, coefficients, square] =
            [width, states, CHUNK].map(|n| move || Aligned::zeros(n * CHUNK));
        let line = || Aligned::zeros(CHUNK);
        Scratch {
            steps: Steps::new(heads),
            rows: Default::default(),
            x: channels(),
            dy: channels(),
            out: channels(),
            x_across: channels(),
            dy_across: channels(),
            b: coefficients(),
            c: coefficients(),
            b_across: coefficients(),
            c_across: coefficients(),
            db: coefficients(),
            dc: coefficients(),
            scores: square(),
            decays: square(),
            masked: square(),
            dscores: square(),
            dscores_across: square(),
            sums: Sums { received: line(), given: line(), apart: line(), before: line(), behind: line() },
        }
    }

    fn rows(&self, of: Of) -> &Rows {
        &self.rows[of as usize]
    }

    /// Looks up where the rows of a chunk lie. No gradient comes from a step that writes nothing.
    fn find(&mut self, job: &Job, to: Coefficients, [tokens, written]: [&[i32]; 2], b: usize, k: usize) {
        let ssd = job.ssd;
        let [db, dc] = to.views.map(|view| Some(view.view()));
        let found = [
            (Of::X, Some(&ssd.x)),
            (Of::Dt, Some(&ssd.dt)),
            (Of::Z, ssd.z.as_ref()),
            (Of::Dy, Some(&job.dy)),
            (Of::Dx, Some(job.dx.view())),
            (Of::Ddt, Some(job.ddt.view())),
            (Of::Dz, job.dz.map(|dz| dz.view())),
            (Of::B, Some(&ssd.b)),
            (Of::C, Some(&ssd.c)),
            (Of::Db, db),
            (Of::Dc, dc),
        ];
        for (of, view) in found {
            let tokens = if matches!(of, Of::Dy) { written } else { tokens };
            let b = if matches!(of, Of::Db | Of::Dc) { to.sample } else { b };
            let rows = &mut self.rows[of as usize];
            view.iter().for_each(|view| rows.find(tokens, |token| view.offset(b, token, k, 0)));
        }
    }
}

#[inline(always)]
pub(super) unsafe fn run<S: Simd>(job: &Job, b: usize, heads: Range<usize>, to: Coefficients) {
    let ssd = job.ssd;
    let (state_len, given) = (state_len(ssd), ssd.headdim * ssd.states);
    let mut gradients = Aligned::zeros(heads.len() * state_len);
    let mut scratch = Scratch::new(ssd, heads.len());
    for k in 0..ssd.directions {
        let path = job.paths.get(b, k);
        let order = b * ssd.directions + k;
        gradients.fill(0.0);
        for (i, head) in heads.clone().enumerate() {
            let from = (order * ssd.heads + head) * given;
            let dfinal = job.dfinal.iter();
            dfinal.for_each(|d| exchange(ssd, |at, to| gradients[i * state_len + to] = d[from + at]));
        }
        let chunks = cut(path, ssd.initial_state.is_some(), job.dfinal.is_some());
        for chunk in chunks.iter().rev() {
            let tokens = [&path.tokens[chunk.steps.clone()], &path.written()[chunk.steps.clone()]];
            scratch.find(job, to, tokens, b, k);
            unsafe {
                scratch.steps.fill::<S>(ssd, &scratch.rows[Of::Dt as usize], heads.clone(), k);
                for (i, head) in heads.clone().enumerate() {
                    let group = ssd.group(head);
                    if i == 0 || ssd.group(head - 1) != group {
                        scores::<S>(ssd, group, &mut scratch);
                    }
                    let slot = order * job.checkpoint_len + (chunk.slot * ssd.heads + head) * state_len;
                    let states = States {
                        before: (!chunk.fresh).then(|| job.checkpoints.as_ptr().add(slot)),
                        gradient: gradients.as_mut_ptr().add(i * state_len),
                    };
                    if i + 1 < heads.len() {
                        for (view, of) in [(&ssd.x, Of::X), (&job.dy, Of::Dy)] {
                            let (size, first) = (view.dtype().size(), (head + 1) * ssd.headdim);
                            prefetch::<S>(view.ptr(), size, scratch.rows(of), first, ssd.headdim);
                        }
                    }
                    step::<S>(job, [b, k, i, head], chunk, &states, &mut scratch);
                    if i + 1 == heads.len() || ssd.group(head + 1) != group {
                        coefficients::<S>(ssd, to, group, &mut scratch);
                    }
                }
            }
        }
        if let Some(initial) = job.dinitial {
            let reset = chunks.first().is_some_and(|chunk| chunk.fresh);
            for (i, head) in heads.clone().enumerate() {
                let to = (order * ssd.heads + head) * given;
                let value = |at: usize| if reset { 0.0 } else { gradients[i * state_len + at] };
                // Safety: this task's heads only.
                exchange(ssd, |at, from| unsafe { *initial.add(to + at) = value(from) });
            }
        }
    }
}

/// B, C and their scores for the heads of a group, and zeros for the sums over them.
#[inline(always)]
unsafe fn scores<S: Simd>(ssd: &Ssd, group: usize, scratch: &mut Scratch) {
    let (n, stride) = (ssd.states, padded(ssd.states));
    let steps = scratch.rows(Of::X).all().len();
    unsafe {
        for (view, of, tile, across) in [
            (&ssd.b, Of::B, &mut scratch.b, &mut scratch.b_across),
            (&ssd.c, Of::C, &mut scratch.c, &mut scratch.c_across),
        ] {
            let rows = &scratch.rows[of as usize];
            gather::<S>(view, rows, view.offset(0, 0, 0, group), n, tile.as_mut_ptr());
            transpose::<S>(tile.as_ptr(), stride, [padded(steps), stride], across.as_mut_ptr(), CHUNK);
        }
        let product = Triangle {
            left: Left { at: scratch.b.as_ptr(), row: stride, step: 1 },
            right: Right { at: scratch.c_across.as_ptr(), step: CHUNK },
            depth: n,
            lower: false,
            out: Output { at: scratch.scores.as_mut_ptr(), row: CHUNK },
        };
        sweep::<S>(steps, steps, &product);
    }
    scratch.db.fill(0.0);
    scratch.dc.fill(0.0);
    scratch.dscores.fill(0.0);
}

/// The state before a chunk, and the gradient of the state behind it, which becomes that of the state before.
struct States {
    before: Option<*const f32>,
    gradient: *mut f32,
}

/// One head over one chunk.
#[inline(always)]
unsafe fn step<S: Simd>(
    job: &Job,
    [b, k, i, head]: [usize; 4],
    chunk: &Chunk,
    states: &States,
    scratch: &mut Scratch,
) {
    let ssd = job.ssd;
    let (width, stride, steps) = (padded(ssd.headdim), padded(ssd.states), chunk.steps.len());
    let (first, row) = (head * ssd.headdim, k * ssd.channels() + head * ssd.headdim);
    unsafe {
        for (view, of, tile) in [(&ssd.x, Of::X, &mut scratch.x), (&job.dy, Of::Dy, &mut scratch.dy)] {
            gather::<S>(view, &scratch.rows[of as usize], first, ssd.headdim, tile.as_mut_ptr());
        }
        decays::<S>(i, steps, scratch);
        let masked = Left { at: scratch.masked.as_ptr(), row: CHUNK, step: 1 };
        let before = states.before.map(|at| Right { at, step: width });
        let rise = scratch.steps.part(i, Part::Rise).as_ptr();
        let [x, dy] = [&scratch.x, &scratch.dy].map(|tile| Right { at: tile.as_ptr(), step: width });
        let out = Output { at: scratch.out.as_mut_ptr(), row: width };
        if ssd.z.is_some() {
            let c = Left { at: scratch.c.as_ptr(), row: stride, step: 1 };
            let product = Masked {
                outer: before.map(|state| (c, state, ssd.states)),
                scale: rise,
                triangle: Left { row: masked.step, step: masked.row, ..masked },
                inner: x,
                lower: true,
                steps,
                out,
            };
            sweep::<S>(steps, width, &product);
            gate::<S>(job, [first, row], k, scratch);
        }

        let shape = [padded(steps), width];
        transpose::<S>(x.at, width, shape, scratch.x_across.as_mut_ptr(), CHUNK);
        transpose::<S>(dy.at, width, shape, scratch.dy_across.as_mut_ptr(), CHUNK);
        let [x_across, dy_across] =
            [&scratch.x_across, &scratch.dy_across].map(|tile| Right { at: tile.as_ptr(), step: CHUNK });
        scratch.sums.all().into_iter().for_each(|sums| sums.fill(0.0));
        let [received, given, apart, through, behind] = scratch.sums.all().map(|sums| sums.as_mut_ptr());

        let product = Pairs {
            left: Left { at: x.at, row: width, step: 1 },
            right: dy_across,
            depth: ssd.headdim,
            scores: scratch.scores.as_ptr(),
            decays: scratch.decays.as_ptr(),
            dt: scratch.steps.part(i, Part::Dt),
            time: [scratch.steps.part(i, Part::Time), scratch.steps.part(i, Part::TimeLow)],
            out: scratch.dscores.as_mut_ptr(),
            received,
            given,
            apart,
        };
        sweep::<S>(steps, steps, &product);

        let gradient = Right { at: states.gradient, step: width };
        let b_rows = Left { at: scratch.b.as_ptr(), row: stride, step: 1 };
        let product = Masked {
            outer: chunk.carried.then_some((b_rows, gradient, ssd.states)),
            scale: scratch.steps.part(i, Part::Weight).as_ptr(),
            triangle: masked,
            inner: dy,
            lower: false,
            steps,
            out,
        };
        sweep::<S>(steps, width, &product);
        skip::<S>(job, [b, k, head], scratch);

        if chunk.carried {
            let product = Through {
                left: Left { at: states.gradient, row: width, step: 1 },
                right: x_across,
                depth: ssd.headdim,
                scale: scratch.steps.part(i, Part::Weight).as_ptr(),
                with: scratch.b_across.as_ptr(),
                sums: behind,
                out: Output { at: scratch.db.as_mut_ptr(), row: CHUNK },
            };
            sweep::<S>(ssd.states, steps, &product);
        }
        let mut whole = 0f32;
        if let Some(before) = before {
            let product = Through {
                left: Left { at: before.at, row: width, step: 1 },
                right: dy_across,
                depth: ssd.headdim,
                scale: rise,
                with: scratch.c_across.as_ptr(),
                sums: through,
                out: Output { at: scratch.dc.as_mut_ptr(), row: CHUNK },
            };
            sweep::<S>(ssd.states, steps, &product);
            if chunk.carried {
                whole = *rise.add(steps - 1) * dot::<S>(before.at, states.gradient, state_len(ssd));
            }
        }
        let found = parameters(ssd.a[k * ssd.heads + head], i, steps, whole, scratch);
        let at = ((b * ssd.directions + k) * ssd.heads + head) * (ssd.headdim + 2) + ssd.headdim;
        *job.parameters.add(at) += found[0];
        *job.parameters.add(at + 1) += found[1];
        for (q, row) in scratch.rows(Of::Ddt).iter() {
            *job.ddt.ptr::<f32>().add(row + head) += scratch.sums.received[q];
        }

        if chunk.fresh {
            return;
        }
        let rise = scratch.steps.part(i, Part::Rise);
        scale_rows::<S>(scratch.dy.as_mut_ptr(), width, rise, steps);
        let product = Decayed {
            left: Left { at: scratch.c.as_ptr(), row: 1, step: stride },
            right: dy,
            depth: steps,
            decay: rise[steps - 1],
            fresh: !chunk.carried,
            out: Output { at: states.gradient, row: width },
        };
        sweep::<S>(ssd.states, width, &product);
    }
}

/// The decays of the chunk, and with the scores and step sizes.
#[inline(always)]
unsafe fn decays<S: Simd>(i: usize, steps: usize, scratch: &mut Scratch) {
    let dt = *scratch.steps.part(i, Part::Dt);
    unsafe {
        for (s, dt) in dt.iter().enumerate().take(steps) {
            for at in (s / S::LANES * S::LANES..steps).step_by(S::LANES) {
                let (decay, at) = (scratch.steps.decays::<S>(i, at, s, false), s * CHUNK + at);
                S::store(scratch.decays.as_mut_ptr().add(at), decay);
                let score = S::mul(S::load(scratch.scores.as_ptr().add(at)), S::splat(*dt));
                S::store(scratch.masked.as_mut_ptr().add(at), S::mul(score, decay));
            }
        }
    }
}

/// From y before the gate, less D x, and the gradient of the gated y: the gradient of z, and that of y before the gate.
#[inline(always)]
unsafe fn gate<S: Simd>(job: &Job, [first, parameter]: [usize; 2], k: usize, scratch: &mut Scratch) {
    let ssd = job.ssd;
    let (Some(z), Some(dz)) = (&ssd.z, job.dz) else { return };
    let stride = padded(ssd.headdim);
    unsafe {
        for at in (0..ssd.headdim).step_by(S::LANES) {
            let width = S::LANES.min(ssd.headdim - at);
            let skip = per_channel::<S>(ssd.d, parameter + at, width);
            for (q, row) in scratch.rows[Of::Z as usize].iter() {
                let tile = q * stride + at;
                let z = load_row::<S>(z, row + first + at, width);
                let dy_at = scratch.dy.as_mut_ptr().add(tile);
                let dy = S::load(dy_at);
                let y = S::load(scratch.out.as_ptr().add(tile));
                let y = S::fma(skip, S::load(scratch.x.as_ptr().add(tile)), y);
                let one = S::splat(1.0);
                let sigmoid = math::sigmoid::<S>(z);
                let slope = S::mul(sigmoid, S::fma(z, S::sub(one, sigmoid), one));
                let to = dz.ptr::<f32>().add(scratch.rows(Of::Dz).all()[q] + first + at);
                put::<S>(to, S::mul(S::mul(dy, y), slope), width, job.stored[1][k]);
                S::store(dy_at, S::mul(dy, S::mul(z, sigmoid)));
            }
        }
    }
}

/// Writes the gradient of x with the part of D, and adds that of D.
#[inline(always)]
unsafe fn skip<S: Simd>(job: &Job, [b, k, head]: [usize; 3], scratch: &mut Scratch) {
    let ssd = job.ssd;
    let (first, stride) = (head * ssd.headdim, padded(ssd.headdim));
    let steps = scratch.rows(Of::X).all().len();
    let parameters = ((b * ssd.directions + k) * ssd.heads + head) * (ssd.headdim + 2);
    unsafe {
        if ssd.d.is_some() {
            for at in (0..ssd.headdim).step_by(S::LANES) {
                let width = S::LANES.min(ssd.headdim - at);
                let d = per_channel::<S>(ssd.d, k * ssd.channels() + first + at, width);
                let mut sum = S::splat(0.0);
                for tile in (0..steps).map(|q| q * stride + at) {
                    let (x, dy) =
                        (S::load(scratch.x.as_ptr().add(tile)), S::load(scratch.dy.as_ptr().add(tile)));
                    let dx = scratch.out.as_mut_ptr().add(tile);
                    S::store(dx, S::fma(d, dy, S::load(dx)));
                    sum = S::fma(x, dy, sum);
                }
                put::<S>(job.parameters.add(parameters + at), sum, width, false);
            }
        }
        let out = scratch.out.as_ptr();
        scatter::<S>(job.dx, scratch.rows(Of::Dx), [first, ssd.headdim], out, job.stored[0][k]);
    }
}

/// The gradients of dt before bias and softplus, which take the place of the row sums, and those of A and the bias.
fn parameters(a: f32, i: usize, steps: usize, whole: f32, scratch: &mut Scratch) -> [f32; 2] {
    let part = |part| scratch.steps.part(i, part).map(f64::from);
    let [dt, slope, rise, fall] = [Part::Dt, Part::Slope, Part::Rise, Part::Fall].map(part);
    let [mut time, low] = [Part::Time, Part::TimeLow].map(part);
    time.iter_mut().zip(low).for_each(|(time, low)| *time += low);
    let Sums { received, given, apart, before, behind } = &mut scratch.sums;
    let (a, end) = (f64::from(a), time[steps.saturating_sub(1)]);
    // That of A directly: as the sum of dt times the gradients of dt A it would be a difference of large numbers.
    let mut total = [f64::from(whole) * end, 0.0];
    // Of dt A: what goes over the whole chunk, and what the steps before have given to the state behind it.
    let mut over = f64::from(whole);
    for q in 0..steps {
        behind[q] *= fall[q] as f32;
        let behind = dt[q] * f64::from(behind[q]);
        over += behind;
        total[0] += f64::from(apart[q]) + rise[q] * f64::from(before[q]) * time[q] + behind * (end - time[q]);
    }
    let mut later = 0f64;
    for q in (0..steps).rev() {
        let [given, behind] = [given[q], behind[q]].map(f64::from);
        over -= dt[q] * behind;
        later += f64::from(received[q]) + rise[q] * f64::from(before[q]) - dt[q] * given;
        let raw = (a * (later + over) + given + behind) * slope[q];
        total[1] += raw;
        received[q] = raw as f32;
    }
    total.map(|sum| sum as f32)
}

/// What the pairs of steps within the chunk add to dB and dC, and both written.
#[inline(always)]
unsafe fn coefficients<S: Simd>(ssd: &Ssd, to: Coefficients, group: usize, scratch: &mut Scratch) {
    let (n, stride) = (ssd.states, padded(ssd.states));
    let steps = scratch.rows(Of::X).all().len();
    unsafe {
        let (dscores, across) = (scratch.dscores.as_ptr(), scratch.dscores_across.as_mut_ptr());
        transpose::<S>(dscores, CHUNK, [padded(steps); 2], across, CHUNK);
        for (left, right, earlier, tile) in [
            (&scratch.b, dscores, true, &mut scratch.dc),
            (&scratch.c, across.cast_const(), false, &mut scratch.db),
        ] {
            let product = Banded {
                left: Left { at: left.as_ptr(), row: 1, step: stride },
                right: Right { at: right, step: CHUNK },
                steps,
                earlier,
                out: Output { at: tile.as_mut_ptr(), row: CHUNK },
            };
            sweep::<S>(n, steps, &product);
        }
        // B and C are no longer needed: their tiles hold the rows that are written.
        for (tile, rows, of, view) in [
            (&scratch.db, &mut scratch.b, Of::Db, to.views[0]),
            (&scratch.dc, &mut scratch.c, Of::Dc, to.views[1]),
        ] {
            transpose::<S>(tile.as_ptr(), CHUNK, [stride, padded(steps)], rows.as_mut_ptr(), stride);
            let first = view.offset(0, 0, 0, group);
            scatter::<S>(view, &scratch.rows[of as usize], [first, n], rows.as_ptr(), false);
        }
    }
}

/// The sum of the products of two tiles.
#[inline(always)]
unsafe fn dot<S: Simd>(a: *const f32, b: *const f32, len: usize) -> f32 {
    unsafe {
        let mut sums = [S::splat(0.0); 2];
        for at in (0..len).step_by(2 * S::LANES) {
            for (v, sum) in sums.iter_mut().enumerate() {
                let at = at + v * S::LANES;
                if at < len {
                    *sum = S::fma(S::load(a.add(at)), S::load(b.add(at)), *sum);
                }
            }
        }
        S::sum(S::add(sums[0], sums[1]))
    }
}
