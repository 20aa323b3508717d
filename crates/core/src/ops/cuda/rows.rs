//! Rows of activations as the kernels take and leave them, and the sums that follow a kernel.

use ophidian_kernels::{
    Strides,
    cuda::{Address, Element, aligned, sums},
};
use tch::{Kind, Tensor};

use super::{Launcher, Tables, element_of, kind_of};
use crate::{
    Error, Result,
    ops::args::{Axes, kernel_error, rows, strides},
};

/// What every launch of an op needs.
pub(super) struct Run<'a> {
    pub op: &'static str,
    pub launcher: &'a Launcher,
    pub tables: &'a Tables,
    pub element: Element,
}

/// The address of a tensor's values.
pub(super) fn address(tensor: &Tensor) -> Address {
    tensor.data_ptr() as Address
}

/// Likewise, or 0.
pub(super) fn given(tensor: Option<&Tensor>) -> Address {
    tensor.map_or(0, address)
}

/// `tensor` as rows of `kind` side by side: itself, or a copy.
pub(super) fn rows_of(tensor: &Tensor, kind: Kind) -> Tensor {
    rows(&tensor.to_kind(kind))
}

/// Parameters and states, which the kernels take in f32 and whole.
pub(super) fn whole(tensor: &Tensor) -> Tensor {
    tensor.to_kind(Kind::Float).contiguous()
}

/// From sample to sample, token to token, direction to direction and group to group, in elements.
pub(super) fn distances(tensor: &Tensor, axes: Axes) -> [i64; 4] {
    let Strides { batch, token, direction, group, .. } = strides(tensor, axes).0;
    [batch, token, direction, group].map(|stride| stride as i64)
}

/// `n` as a kernel takes it.
pub(super) fn int(op: &str, name: &str, n: i64) -> Result<i32> {
    i32::try_from(n).map_err(|_| Error::invalid(format!("{op}: {name} is {n}; a GPU takes less than 2^31")))
}

/// Rows that a kernel makes: stored by token if every order visits each token once and directions share none, else by step
/// in f32, and summed by token afterwards.
pub(super) struct Target {
    out: Tensor,
    steps: Option<Tensor>,
}

impl Target {
    /// `out` (B, L, K or 1, width) is where they will be, in their dtype.
    pub fn new(run: &Run, out: Tensor) -> Result<Target> {
        let tables = run.tables.host();
        let (b, shared, width) = out_sizes(&out, tables.directions);
        let by_token = tables.permutations && !shared;
        let shape = [b, tables.directions as i64, tables.steps as i64, width];
        let steps = (!by_token).then(|| run.launcher.empty(&shape, Kind::Float)).transpose()?;
        Ok(Target { out, steps })
    }

    /// Contiguous rows of that shape, in the op's dtype.
    pub fn empty(run: &Run, shape: &[i64]) -> Result<Target> {
        Target::new(run, run.launcher.empty(shape, kind_of(run.element))?)
    }

    /// Where the kernel stores by token, and where by step: one of them is 0.
    pub fn addresses(&self) -> [Address; 2] {
        let rows = if self.steps.is_some() { 0 } else { address(&self.out) };
        [rows, given(self.steps.as_ref())]
    }

    /// Their dtype by token.
    pub fn kind(&self) -> Kind {
        self.out.kind()
    }

    /// As [`distances`], of the rows by token.
    pub fn distances(&self) -> [i64; 4] {
        distances(&self.out, Axes::Channels)
    }

    /// Address of the rows by token, and the bytes between them.
    pub fn bytes(&self) -> [usize; 4] {
        bytes(&self.out)
    }

    /// The rows by token: the sum over the steps that wrote each if `written`, else over those that read it.
    pub fn finish(self, run: &Run, written: bool) -> Result<Tensor> {
        let Target { out, steps } = self;
        let Some(steps) = steps else { return Ok(out) };
        let tables = run.tables.host();
        let (b, shared, width) = out_sizes(&out, tables.directions);
        let visits = run.tables.visits(written, shared, run.launcher)?;
        let [batch, token, group, _] = distances(&out, Axes::Channels);
        let visited = (tables.steps * tables.directions) as i64;
        let arguments = sums::VisitSums {
            rows: steps.data_ptr().cast(),
            starts: visits.starts.data_ptr().cast(),
            visits: visits.steps.data_ptr().cast(),
            out: out.data_ptr(),
            out_strides: [batch, token, group],
            batch: int(run.op, "the batch", b)?,
            tokens: int(run.op, "the number of tokens", tables.tokens as i64)?,
            groups: visits.groups as i32,
            channels: int(run.op, "the number of channels", width)?,
            visited: int(run.op, "the number of steps", visited)?,
            listed: visits.listed as i32,
            per_sample: tables.per_sample.into(),
            aligned: aligned(&[bytes(&out).to_vec(), vec![width as usize * 4]].concat()),
        };
        let sizes = [b as usize, tables.tokens, visits.groups, width as usize];
        let element = element_of([&out]);
        let launch = sums::visits_launch(element, sizes).map_err(kernel_error(run.op))?;
        run.launcher.launch(&sums::variant(element), "sum_visits", arguments, launch)?;
        Ok(out)
    }
}

/// B, whether the directions share rows, and the width of (B, L, K or 1, width).
fn out_sizes(out: &Tensor, directions: usize) -> (i64, bool, i64) {
    let size = out.size();
    (size[0], size[2] == 1 && directions > 1, size[3])
}

/// Address of rows (B, L, K, width), and the bytes from sample to sample, token to token and direction to direction.
pub(super) fn bytes(rows: &Tensor) -> [usize; 4] {
    let size = rows.kind().elt_size_in_bytes();
    let [batch, token, direction, _] = distances(rows, Axes::Channels).map(|n| n as usize * size);
    [rows.data_ptr() as usize, batch, token, direction]
}

/// dB or dC, (B, L, K, G, N), from its parts: (B, K, tokens or steps, G, `count`, N).
pub(super) fn coefficients(run: &Run, parts: &Tensor, count: usize, shape: [i64; 5]) -> Result<Tensor> {
    let tables = run.tables.host();
    let out = run.launcher.empty(&shape, kind_of(run.element))?;
    let visits = match tables.permutations {
        true => None,
        false => Some(run.tables.visits(false, false, run.launcher)?),
    };
    let [b, l, k, g, n] = shape.map(|n| n as i32);
    let arguments = sums::Coefficients {
        parts: address(parts),
        starts: given(visits.as_ref().map(|visits| &visits.starts)),
        visits: given(visits.as_ref().map(|visits| &visits.steps)),
        out: address(&out),
        out_strides: distances(&out, Axes::Groups),
        batch: b,
        tokens: l,
        directions: k,
        groups: g,
        states: n,
        rows: line(run) as i32,
        count: count as i32,
        per_sample: tables.per_sample.into(),
    };
    let values = shape.iter().product::<i64>() as usize;
    let launch = sums::coefficients_launch(values).map_err(kernel_error(run.op))?;
    run.launcher.launch(&sums::variant(run.element), "sum_coefficients", arguments, launch)?;
    Ok(out)
}

/// Rows of dB and dC that a direction leaves: one for each token, or for each step.
pub(super) fn line(run: &Run) -> usize {
    let tables = run.tables.host();
    if tables.permutations { tables.tokens } else { tables.steps }
}

/// The sum of `count` parts of `shape` each, in f32.
pub(super) fn fold(
    op: &'static str,
    launcher: &Launcher,
    element: Element,
    (parts, count): (&Tensor, usize),
    shape: &[i64],
) -> Result<Tensor> {
    let out = launcher.empty(shape, Kind::Float)?;
    let columns = out.numel();
    let arguments = sums::Parts {
        parts: parts.data_ptr().cast(),
        out: out.data_ptr().cast(),
        count: int(op, "the number of parts", count as i64)?,
        columns: int(op, "the number of parameters", columns as i64)?,
    };
    let launch = sums::parts_launch(columns).map_err(kernel_error(op))?;
    launcher.launch(&sums::variant(element), "sum_parts", arguments, launch)?;
    Ok(out)
}
