//! The fast backward.
//!
//! Chunks are taken from the last to the first, a strip of channel blocks at a time. The states of a chunk are
//! recomputed from its checkpoint, a few at a time into a tile that lives in the first-level cache, then the chunk is
//! walked backwards (g is the gradient of the state; see `retrace`):
//!
//! ```text
//! g   += dy C            dC += dy h           dB += g dt u          dx = sum_n g B        (x = dt u)
//! w    = g e h_before    dA += w dt           d(dt) = sum_n w A + dx u                     (e = exp(dt A))
//! g    = g e
//! ```
//!
//! dB and dC are sums over channels: a task adds them up lane by lane over a strip, folds the lanes once per strip,
//! and tasks that share a sample are added in a fixed order at the end.

use std::ops::Range;

use super::{Aligned, Layout, Scan, retrace::run};
use crate::{
    Dtype, Error, Isa, Pool, Result, Strides, View, ViewMut, orders::Paths, pool::ranges, simd::dispatch,
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

    // Enough tasks for many threads at batch 1, few enough that the partial sums (two for each state and group) stay
    // below half of an activation for each direction (four tasks a sample may take more); by shape alone.
    let most = (scan.channels / (4 * scan.groups * scan.states).max(1)).max(4);
    let splits = ranges(layout.blocks.len(), 16usize.div_ceil(scan.batch.max(1)).min(most));
    let coefficient_len = scan.tokens * scan.directions * scan.groups * scan.states;
    let partial_len = if splits.len() > 1 { scan.batch * splits.len() * coefficient_len } else { 0 };
    let (mut partial_b, mut partial_c) = (vec![0f32; partial_len], vec![0f32; partial_len]);
    let mut parameters = vec![0f32; scan.batch * per_channel * (scan.states + 2)];

    let job = Job {
        scan,
        paths: &paths,
        layout: &layout,
        decay: layout.pack(scan.a, scan.channels, scan.states, std::f32::consts::LOG2_E),
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
            fold_splits(scan.coefficient_extent(), partial, view, splits.len(), pool);
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

/// Adds the partial sums of a sample's tasks, in the order of the tasks, into the output. `extent` is that of B and C:
/// (B, L, K, G, N).
pub(crate) fn fold_splits(
    extent: [usize; 5],
    partial: &[f32],
    view: &ViewMut,
    splits: usize,
    pool: &dyn Pool,
) {
    let [batch, tokens, directions, groups, states] = extent;
    let row = directions * groups * states;
    let len = tokens * row;
    let tiles = tokens.div_ceil(64);
    pool.run(batch * tiles, &|task| {
        let (b, tile) = (task / tiles, task % tiles);
        for token in tile * 64..((tile + 1) * 64).min(tokens) {
            for k in 0..directions {
                for g in 0..groups {
                    let from = token * row + (k * groups + g) * states;
                    let to = view.offset(b, token, k, g);
                    for n in 0..states {
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

pub(super) struct Job<'a> {
    pub scan: &'a Scan<'a>,
    pub paths: &'a Paths,
    pub layout: &'a Layout,
    /// A log2(e), packed.
    pub decay: Aligned,
    /// Per direction, for du, ddelta, dz: rows are stored (else added).
    pub stored: [Vec<bool>; 3],
    pub dy: View<'a>,
    pub dfinal: Option<&'a [f32]>,
    pub checkpoints: &'a [f32],
    pub checkpoint_len: usize,
    pub du: &'a ViewMut<'a>,
    pub ddelta: &'a ViewMut<'a>,
    pub dz: Option<&'a ViewMut<'a>>,
    /// (B, K, D, N + 2): gradients of A, D and delta_bias of each sample.
    pub parameters: *mut f32,
    pub dinitial: Option<*mut f32>,
}

// Safety: tasks write disjoint channels of disjoint samples.
unsafe impl Sync for Job<'_> {}

/// Where dB and dC of a task go.
#[derive(Clone, Copy)]
pub(super) struct Coefficients<'a> {
    pub views: [&'a ViewMut<'a>; 2],
    /// Which "batch" of the views is the task's.
    pub sample: usize,
}
