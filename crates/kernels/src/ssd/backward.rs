//! The backward.
//!
//! Chunks are taken from the last to the first, each from the state that the forward kept in front of it. With G = C B^T,
//! L the decays from step s to step q >= s, f those from a step to the end of its chunk, r those from its start, S the
//! state before it and S' the gradient of the state behind it:
//!
//! ```text
//! M     = dY X^T o L                              (q, s), q >= s
//! dX    = f dt (B S') + (G o L dt)^T dY + D dY
//! dC    = r (dY S) + (M dt) B                     summed over the heads of a group
//! dB    = f dt (X S') + (M dt)^T C                likewise
//! dS    = (the decay of the chunk) S' + (r C)^T dY
//! ```
//!
//! and the gradients of the decays are sums of what already stands there: see `retrace`. Tasks that share a sample make
//! partial sums of dB and dC, which are added in a fixed order at the end.

use std::ops::Range;

use super::{Ssd, chunks::checkpoint_len, forward::stored, retrace::run};
use crate::{
    Dtype, Error, Isa, Pool, Result, Strides, View, ViewMut,
    orders::Paths,
    pool::ranges,
    scan::{fold_splits, length, not_f64},
    simd::dispatch,
};

/// Cotangents in, gradients out. All outputs are f32 and are overwritten.
pub struct Backward<'a> {
    /// (B, L, K, H P): gradient of y, f32 or bf16.
    pub dy: View<'a>,
    /// (B, K, H, P, N): gradient of the final state.
    pub dfinal: Option<&'a [f32]>,
    /// From [`super::forward`] with the same inputs.
    pub checkpoints: &'a [f32],
    /// (B, L, K, H P); a shared direction stride sums over the directions, here and below.
    pub dx: ViewMut<'a>,
    /// (B, L, K, H).
    pub ddt: ViewMut<'a>,
    /// (B, L, K, H P), present exactly if z is.
    pub dz: Option<ViewMut<'a>>,
    /// (B, L, K, G, N).
    pub db: ViewMut<'a>,
    /// (B, L, K, G, N).
    pub dc: ViewMut<'a>,
    /// (K, H).
    pub da: &'a mut [f32],
    /// (K, H P), present exactly if D is.
    pub dd: Option<&'a mut [f32]>,
    /// (K, H), present exactly if dt_bias is.
    pub ddt_bias: Option<&'a mut [f32]>,
    /// (B, K, H, P, N).
    pub dinitial: Option<&'a mut [f32]>,
}

/// Computes every gradient.
///
/// # Errors
/// Shapes that do not fit, checkpoints of another shape; nothing is written then.
pub fn backward(ssd: &Ssd, mut out: Backward, isa: Isa, pool: &dyn Pool) -> Result<()> {
    let paths = ssd.check()?;
    let checkpoint_len = checkpoint_len(ssd, &paths);
    check(ssd, &out, checkpoint_len)?;
    out.db.zero(ssd.coefficient_extent());
    out.dc.zero(ssd.coefficient_extent());
    // dt is written number by number, and added to what other steps of a token left.
    out.ddt.zero(ssd.head_extent());

    // Enough tasks for many threads at batch 1, few enough that the partial sums (two for each state and group) stay
    // below half of an activation for each direction (four tasks a sample may take more); by shape alone.
    let most = (ssd.channels() / (4 * ssd.groups * ssd.states).max(1)).max(4);
    let splits = ranges(ssd.heads, 16usize.div_ceil(ssd.batch.max(1)).min(most));
    let coefficients = ssd.tokens * ssd.directions * ssd.groups * ssd.states;
    let partial_len = if splits.len() > 1 { ssd.batch * splits.len() * coefficients } else { 0 };
    let (mut partial_b, mut partial_c) = (vec![0f32; partial_len], vec![0f32; partial_len]);
    let mut parameters = vec![0f32; ssd.batch * ssd.directions * ssd.heads * (ssd.headdim + 2)];
    let job = Job {
        ssd,
        paths: &paths,
        stored: [
            stored(ssd, &paths, &out.dx, ssd.channel_extent()),
            out.dz.as_ref().map(|dz| stored(ssd, &paths, dz, ssd.channel_extent())).unwrap_or_default(),
        ],
        dy: out.dy,
        dfinal: out.dfinal,
        checkpoints: out.checkpoints,
        checkpoint_len,
        dx: &out.dx,
        ddt: &out.ddt,
        dz: out.dz.as_ref(),
        parameters: parameters.as_mut_ptr(),
        dinitial: out.dinitial.as_mut().map(|state| state.as_mut_ptr()),
    };
    let flat = Strides::contiguous(ssd.tokens, ssd.directions, ssd.groups, ssd.states);
    // Safety: the partial sums outlive the tasks, and tasks write disjoint samples of them.
    let partial = unsafe {
        [&mut partial_b, &mut partial_c]
            .map(|sums| ViewMut::from_raw(sums.as_mut_ptr().cast(), Dtype::F32, partial_len, flat))
    };
    pool.run(ssd.batch * splits.len(), &|task| {
        let (b, split) = (task / splits.len(), task % splits.len());
        let heads = splits[split].clone();
        let coefficients = if splits.len() > 1 {
            Coefficients { views: [&partial[0], &partial[1]], sample: task }
        } else {
            Coefficients { views: [&out.db, &out.dc], sample: b }
        };
        let job = &job;
        dispatch!(isa, run(job: &Job, b: usize, heads: Range<usize>, coefficients: Coefficients));
    });
    if splits.len() > 1 {
        for (partial, view) in [(&partial_b, &out.db), (&partial_c, &out.dc)] {
            fold_splits(ssd.coefficient_extent(), partial, view, splits.len(), pool);
        }
    }
    fold_samples(ssd, &parameters, &mut out);
    Ok(())
}

fn check(ssd: &Ssd, out: &Backward, checkpoint_len: usize) -> Result<()> {
    length("checkpoints", out.checkpoints, ssd.batch * ssd.directions * checkpoint_len)?;
    out.dy.check("dy", ssd.channel_extent())?;
    not_f64("dy", &out.dy)?;
    for (name, view, extent) in [
        ("dx", Some(&out.dx), ssd.channel_extent()),
        ("ddt", Some(&out.ddt), ssd.head_extent()),
        ("dz", out.dz.as_ref(), ssd.channel_extent()),
        ("dB", Some(&out.db), ssd.coefficient_extent()),
        ("dC", Some(&out.dc), ssd.coefficient_extent()),
    ] {
        view.map_or(Ok(()), |view| view.check(name, extent, Dtype::F32))?;
    }
    let per_head = ssd.directions * ssd.heads;
    length("dA", out.da, per_head)?;
    for (name, have, given, expected) in [
        ("dD", out.dd.as_deref(), ssd.d.is_some(), per_head * ssd.headdim),
        ("ddt_bias", out.ddt_bias.as_deref(), ssd.dt_bias.is_some(), per_head),
    ] {
        if have.is_some() != given {
            return Err(Error::Shape(format!("`{name}` must be given exactly if its argument is")));
        }
        have.map_or(Ok(()), |slice| length(name, slice, expected))?;
    }
    if out.dz.is_some() != ssd.z.is_some() {
        return Err(Error::Shape("`dz` must be given exactly if z is".into()));
    }
    for (name, state) in [("dfinal", out.dfinal), ("dinitial", out.dinitial.as_deref())] {
        state.map_or(Ok(()), |state| length(name, state, ssd.state_len()))?;
    }
    Ok(())
}

/// Adds the gradients of the heads' parameters over the samples, in order: each sample left (K, H, P + 2) values.
fn fold_samples(ssd: &Ssd, parameters: &[f32], out: &mut Backward) {
    let (p, per_head) = (ssd.headdim, ssd.directions * ssd.heads);
    out.da.fill(0.0);
    out.dd.iter_mut().for_each(|dd| dd.fill(0.0));
    out.ddt_bias.iter_mut().for_each(|dbias| dbias.fill(0.0));
    for sample in parameters.chunks_exact((per_head * (p + 2)).max(1)) {
        for (head, values) in sample.chunks_exact(p + 2).enumerate() {
            if let Some(dd) = &mut out.dd {
                dd[head * p..(head + 1) * p].iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
            }
            out.da[head] += values[p];
            out.ddt_bias.iter_mut().for_each(|dbias| dbias[head] += values[p + 1]);
        }
    }
}

pub(super) struct Job<'a> {
    pub ssd: &'a Ssd<'a>,
    pub paths: &'a Paths,
    /// Per direction, for dx and dz: rows are stored (else added).
    pub stored: [Vec<bool>; 2],
    pub dy: View<'a>,
    pub dfinal: Option<&'a [f32]>,
    pub checkpoints: &'a [f32],
    pub checkpoint_len: usize,
    pub dx: &'a ViewMut<'a>,
    pub ddt: &'a ViewMut<'a>,
    pub dz: Option<&'a ViewMut<'a>>,
    /// (B, K, H, P + 2): gradients of D, A and dt_bias of each sample.
    pub parameters: *mut f32,
    pub dinitial: Option<*mut f32>,
}

// Safety: tasks write disjoint heads of disjoint samples.
unsafe impl Sync for Job<'_> {}

/// Where dB and dC of a task go.
#[derive(Clone, Copy)]
pub(super) struct Coefficients<'a> {
    pub views: [&'a ViewMut<'a>; 2],
    /// Which "batch" of the views is the task's.
    pub sample: usize,
}
