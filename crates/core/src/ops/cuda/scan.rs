//! `selective_scan` on a GPU.

use ophidian_kernels::{
    cuda::scan::{self as variants, Elements},
    scan::cuda::{self as kernels, Arguments, Cut, Output, Rows, Sizes, StepArguments},
};
use tch::{Kind, Tensor};

use super::{
    Launcher, Tables, element_of, kind_of,
    rows::{Run, Target, address, coefficients, distances, fold, given, int, line, rows_of, whole},
};
use crate::{
    Error, Result,
    ops::{
        args::{Axes, kernel_error},
        custom::{CustomOp, Outcome, apply},
        scan::{self, Inputs, NAME, outputs},
    },
};

/// Most states of a channel that the kernels take.
const MOST_STATES: i64 = 256;

/// y and the final state of `op` on its inputs in their order, canonical and of any floating dtype.
pub(in crate::ops) fn scan_op(
    op: scan::ScanOp,
    launcher: Launcher,
    args: &scan::Arguments,
) -> Result<[Tensor; 2]> {
    check(&op)?;
    let (elements, list) = operands(args);
    let op = CudaScan { op, launcher, elements };
    outputs(apply(op, &list.iter().collect::<Vec<_>>())?)
}

/// The op's inputs as the kernels take them: bf16 or f16 if all rows but delta are that, delta as they are or else f32.
fn operands(args: &scan::Arguments) -> (Elements, Vec<Tensor>) {
    let rows = element_of(args.rows());
    // Only delta can be of another dtype where these are not f32 anyway.
    let held = |t: &Tensor| if t.kind() == kind_of(rows) { t.kind() } else { Kind::Float };
    let list = args.map(|t| rows_of(t, held(t)), whole);
    let delta = element_of([&list[1]]);
    (Elements { rows, delta }, list)
}

fn check(op: &scan::ScanOp) -> Result<()> {
    let n = op.sizes.n;
    if !(1..=MOST_STATES).contains(&n) {
        return Err(Error::invalid(format!("{NAME}: `A` has {n} states; a GPU takes 1 to {MOST_STATES}")));
    }
    Ok(())
}

/// The scan as a node of the graph.
struct CudaScan {
    op: scan::ScanOp,
    launcher: Launcher,
    elements: Elements,
}

/// Rows (B, L, K or 1, D) or (B, L, K, G, N) as the scan's kernels take them.
fn rows(name: &str, tensor: &Tensor, axes: Axes) -> Result<Rows> {
    let [batch, token, direction, group] = distances(tensor, axes);
    let token_bytes = token_bytes(name, token, tensor.kind())?;
    Ok(Rows { data: address(tensor), batch, direction, group, token_bytes })
}

fn output(name: &str, target: &Target) -> Result<Output> {
    let ([batch, token, direction, _], [rows, steps]) = (target.distances(), target.addresses());
    Ok(Output { rows, steps, batch, direction, token_bytes: token_bytes(name, token, target.kind())? })
}

fn token_bytes(name: &str, token: i64, kind: Kind) -> Result<i32> {
    int(
        NAME,
        &format!("the distance of two tokens of `{name}` in bytes"),
        token * kind.elt_size_in_bytes() as i64,
    )
}

impl CudaScan {
    fn run<'a>(&'a self, tables: &'a Tables) -> Run<'a> {
        Run { op: NAME, launcher: &self.launcher, tables, element: self.elements.rows }
    }

    fn empty(&self, shape: &[i64]) -> Result<Tensor> {
        self.launcher.empty(shape, Kind::Float)
    }

    fn sizes(&self, tables: &Tables) -> Sizes {
        let scan::Sizes { b, l, k, d, g, n } = self.op.sizes;
        let [batch, tokens, directions, channels, groups, states] = [b, l, k, d, g, n].map(|n| n as usize);
        Sizes { batch, tokens, directions, channels, groups, states, steps: tables.host().steps }
    }

    fn cut(&self, sizes: &Sizes, backward: bool) -> Cut {
        sizes.cut(self.launcher.card().multiprocessors as usize, backward)
    }

    /// What forward and backward are both given.
    fn arguments(&self, inputs: &Inputs, tables: &Tables, sizes: &Sizes, cut: &Cut) -> Result<Arguments> {
        let [read, written, resets] = tables.addresses();
        Ok(Arguments {
            u: rows("u", inputs.u, Axes::Channels)?,
            delta: rows("delta", inputs.delta, Axes::Channels)?,
            z: inputs.z.map(|z| rows("z", z, Axes::Channels)).transpose()?.unwrap_or_default(),
            b: rows("B", inputs.b, Axes::Groups)?,
            c: rows("C", inputs.c, Axes::Groups)?,
            a: address(inputs.a),
            d: given(inputs.d),
            bias: given(inputs.delta_bias),
            initial: given(inputs.initial_state),
            read,
            written,
            resets,
            per_sample: tables.host().per_sample.into(),
            softplus: self.op.softplus.into(),
            ..Arguments::new(sizes, cut)
        })
    }
}

impl CustomOp for CudaScan {
    fn forward(&self, list: &[Tensor], training: bool) -> Result<Outcome> {
        let inputs = self.op.inputs(list);
        let scan::Sizes { b, k, d, n, .. } = self.op.sizes;
        let tables = self.op.orders.on(&self.launcher)?;
        let (run, sizes) = (self.run(&tables), self.sizes(&tables));
        let cut = self.cut(&sizes, false);
        let y = Target::empty(&run, &self.op.y_shape())?;
        let state = self.empty(&[b, k, d, n])?;
        let spans = cut.spans > 1;
        let checkpoints =
            (training || spans).then(|| self.empty(&[b, k, cut.chunks as i64, d, n])).transpose()?;
        let reach = spans.then(|| self.empty(&[b, k, cut.spans as i64, d])).transpose()?;
        let arguments = Arguments {
            y: output("y", &y)?,
            final_state: address(&state),
            checkpoints: given(checkpoints.as_ref()),
            reach: given(reach.as_ref()),
            ..self.arguments(&inputs, &tables, &sizes, &cut)?
        };
        let variant = variants::forward(self.elements, sizes.states);
        for (kernel, launch) in sizes.forward(&cut).map_err(kernel_error(NAME))? {
            self.launcher.launch(&variant, kernel, arguments, launch)?;
        }
        let y = y.finish(&run, true)?;
        let saved = checkpoints.filter(|_| training).into_iter().collect();
        Ok(Outcome { outputs: vec![self.op.squeeze(y), state], saved })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let inputs = self.op.inputs(saved);
        let scan::Sizes { b, l, k, d, g, n } = self.op.sizes;
        let kind = kind_of(self.elements.rows);
        let tables = self.op.orders.on(&self.launcher)?;
        let (run, sizes) = (self.run(&tables), self.sizes(&tables));
        let cut = self.cut(&sizes, true);
        let dy = match &grads[0] {
            Some(dy) => rows_of(&self.op.unsqueeze(dy), kind),
            None => Tensor::f_zeros(self.op.y_shape(), (kind, self.launcher.device()))?,
        };
        let dfinal = grads[1].as_ref().map(whole);
        let target = |t: &Tensor| Target::new(&run, self.launcher.empty(&t.size(), t.kind())?);
        let (du, ddelta, dz) = (target(inputs.u)?, target(inputs.delta)?, inputs.z.map(target).transpose()?);
        let spans = cut.spans as i64;
        let carried = |shape: &[i64]| (spans > 1).then(|| self.empty(shape)).transpose();
        let (carry, reach) = (carried(&[b, k, spans, d, n])?, carried(&[b, k, spans, d])?);
        let parts = sizes.parts();
        let unsummed = [b, k, line(&run) as i64, g, parts as i64, n];
        let (db, dc) = (self.empty(&unsummed)?, self.empty(&unsummed)?);
        let da = self.empty(&[b, spans, k, d, n])?;
        let per_channel = |t: Option<&Tensor>| t.map(|_| self.empty(&[b, spans, k, d])).transpose();
        let (dd, dbias) = (per_channel(inputs.d)?, per_channel(inputs.delta_bias)?);
        let dinitial = inputs.initial_state.map(|_| self.empty(&[b, k, d, n])).transpose()?;
        let arguments = Arguments {
            dy: rows("dy", &dy, Axes::Channels)?,
            checkpoints: address(&saved[self.op.count()]),
            reach: given(reach.as_ref()),
            dfinal: given(dfinal.as_ref()),
            carry: given(carry.as_ref()),
            du: output("du", &du)?,
            ddelta: output("ddelta", &ddelta)?,
            dz: dz.as_ref().map(|dz| output("dz", dz)).transpose()?.unwrap_or_default(),
            db_parts: address(&db),
            dc_parts: address(&dc),
            da_parts: address(&da),
            dd_parts: given(dd.as_ref()),
            dbias_parts: given(dbias.as_ref()),
            dinitial: given(dinitial.as_ref()),
            coefficients_by_token: tables.host().permutations.into(),
            ..self.arguments(&inputs, &tables, &sizes, &cut)?
        };
        let variant = variants::backward(self.elements, sizes.states);
        for (kernel, launch) in sizes.backward(&cut).map_err(kernel_error(NAME))? {
            self.launcher.launch(&variant, kernel, arguments, launch)?;
        }
        let folded = |parts: &Tensor, shape: &[i64]| {
            fold(NAME, &self.launcher, self.elements.rows, (parts, (b * spans) as usize), shape)
        };
        let summed = |of: &Tensor| coefficients(&run, of, parts, [b, l, k, g, n]);
        let per_channel = |t: Option<&Tensor>| t.map(|t| folded(t, &[k, d])).transpose();
        let present = [
            du.finish(&run, false)?,
            ddelta.finish(&run, false)?,
            folded(&da, &[k, d, n])?,
            summed(&db)?,
            summed(&dc)?,
        ];
        let dz = dz.map(|dz| dz.finish(&run, false)).transpose()?;
        Ok(self.op.list(present, [per_channel(dd.as_ref())?, dz, per_channel(dbias.as_ref())?, dinitial]))
    }
}

/// One token of one direction from an initial state: y, and the state after it. Makes no node of a graph.
pub(in crate::ops) fn scan_step(
    op: &scan::ScanOp,
    launcher: &Launcher,
    args: &scan::Arguments,
) -> Result<[Tensor; 2]> {
    check(op)?;
    let scan::Sizes { b, d, g, n, .. } = op.sizes;
    let (elements, list) = operands(args);
    let inputs = op.inputs(&list);
    // The caller may hold the state that it gives.
    let mut after = launcher.empty(&[b, 1, d, n], Kind::Float)?;
    if let Some(before) = inputs.initial_state {
        after.f_copy_(before)?;
    }
    let y = launcher.empty(&[b, 1, 1, d], kind_of(elements.rows))?;
    let sample = |t: &Tensor| distances(t, Axes::Groups)[0];
    let group = |t: &Tensor| distances(t, Axes::Groups)[3];
    let row = |t: &Tensor| distances(t, Axes::Channels)[0];
    let arguments = StepArguments {
        u: address(inputs.u),
        delta: address(inputs.delta),
        z: given(inputs.z),
        b: address(inputs.b),
        c: address(inputs.c),
        a: address(inputs.a),
        d: given(inputs.d),
        bias: given(inputs.delta_bias),
        state: address(&after),
        y: address(&y),
        u_batch: row(inputs.u),
        delta_batch: row(inputs.delta),
        z_batch: inputs.z.map_or(0, row),
        b_batch: sample(inputs.b),
        b_group: group(inputs.b),
        c_batch: sample(inputs.c),
        c_group: group(inputs.c),
        y_batch: row(&y),
        batch: int(NAME, "the batch", b)?,
        channels: int(NAME, "the number of channels", d)?,
        groups: int(NAME, "the number of groups", g)?,
        softplus: op.softplus.into(),
        aligned: (address(&after).is_multiple_of(16) && address(inputs.a).is_multiple_of(16)).into(),
    };
    let (kernel, launch) = kernels::step(b as usize, d as usize, n as usize).map_err(kernel_error(NAME))?;
    launcher.launch(&variants::step(elements, n as usize), kernel, arguments, launch)?;
    Ok([op.squeeze(y), after])
}
