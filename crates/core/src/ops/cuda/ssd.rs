//! `ssd` on a GPU.

use ophidian_kernels::{
    cuda::{Element, Variant},
    ssd::cuda::{self as kernels, Arguments, Cut, Output, Rows, Sizes, StepArguments, Tiling},
};
use tch::{Kind, Tensor};

use super::{
    Launcher, Tables, element_of, kind_of,
    rows::{Run, Target, address, coefficients, distances, fold, given, int, line, rows_of, whole},
};
use crate::{
    Result,
    ops::{
        args::{Axes, kernel_error},
        custom::{CustomOp, Outcome, apply},
        scan::outputs,
        ssd::{self, Inputs, NAME},
    },
};

/// y and the final state of `op` on its inputs in their order, canonical and of any floating dtype.
pub(in crate::ops) fn ssd_op(
    op: ssd::SsdOp,
    launcher: Launcher,
    args: &ssd::Arguments,
) -> Result<[Tensor; 2]> {
    let element = element_of(args.rows());
    let kind = kind_of(element);
    let list = args.map(|t| rows_of(t, kind), whole);
    let op = CudaSsd { op, launcher, element };
    outputs(apply(op, &list.iter().collect::<Vec<_>>())?)
}

/// The op as a node of the graph.
struct CudaSsd {
    op: ssd::SsdOp,
    launcher: Launcher,
    element: Element,
}

/// How a problem is cut for the card.
struct Problem {
    sizes: Sizes,
    tiling: Tiling,
    cut: Cut,
}

/// Rows (B, L, K or 1, width) or (B, L, K, G, N) as the kernels take them.
fn rows(tensor: &Tensor, axes: Axes) -> Rows {
    let [batch, token, direction, group] = distances(tensor, axes);
    Rows { data: address(tensor), batch, token, direction, group }
}

fn output(target: &Target) -> Output {
    let ([batch, token, direction, _], [rows, steps]) = (target.distances(), target.addresses());
    Output { rows, steps, batch, token, direction }
}

impl CudaSsd {
    fn run<'a>(&'a self, tables: &'a Tables) -> Run<'a> {
        Run { op: NAME, launcher: &self.launcher, tables, element: self.element }
    }

    fn empty(&self, shape: &[i64]) -> Result<Tensor> {
        self.launcher.empty(shape, Kind::Float)
    }

    /// Room for `count` states as the matrix products take them.
    fn operands(&self, count: usize, tiling: &Tiling) -> Result<Tensor> {
        self.launcher.empty(&[(count * tiling.operand()) as i64], Kind::Uint8)
    }

    /// `training` says whether there is a backward, which has the tiling of its forward.
    fn problem(&self, tables: &Tables, training: bool) -> Result<Problem> {
        let ssd::Sizes { b, l, k, h, p, g, n } = self.op.sizes;
        let [batch, tokens, directions, heads] = [b, l, k, h].map(|n| n as usize);
        let [headdim, groups, states] = [p, g, n].map(|n| n as usize);
        let steps = tables.host().steps;
        let sizes = Sizes { batch, tokens, directions, heads, headdim, groups, states, steps };
        let card = self.launcher.card();
        let tiling = Tiling::new(self.element, &sizes, card.shared, training).map_err(kernel_error(NAME))?;
        Ok(Problem { sizes, tiling, cut: Cut::new(&sizes, &tiling, card) })
    }

    /// What forward and backward are both given.
    fn arguments(&self, inputs: &Inputs, tables: &Tables, problem: &Problem) -> Arguments {
        let [read, written, resets] = tables.addresses();
        let [low, high] = self.op.limits.map(|limit| limit as f32);
        Arguments {
            x: rows(inputs.x, Axes::Channels),
            dt: rows(inputs.dt, Axes::Channels),
            z: inputs.z.map(|z| rows(z, Axes::Channels)).unwrap_or_default(),
            b: rows(inputs.b, Axes::Groups),
            c: rows(inputs.c, Axes::Groups),
            a: address(inputs.a),
            d: given(inputs.d),
            bias: given(inputs.dt_bias),
            initial: given(inputs.initial_state),
            read,
            written,
            resets,
            low,
            high,
            per_sample: tables.host().per_sample.into(),
            softplus: self.op.softplus.into(),
            ..Arguments::new(&problem.sizes, &problem.cut)
        }
    }

    fn launch(
        &self,
        variant: &Variant,
        passes: ophidian_kernels::Result<Vec<ophidian_kernels::cuda::Pass>>,
        mut arguments: Arguments,
        sizes: &Sizes,
    ) -> Result<()> {
        arguments.align(self.element, sizes.headdim, sizes.states);
        for (kernel, launch) in passes.map_err(kernel_error(NAME))? {
            self.launcher.launch(variant, kernel, arguments, launch)?;
        }
        Ok(())
    }
}

impl CustomOp for CudaSsd {
    fn forward(&self, list: &[Tensor], training: bool) -> Result<Outcome> {
        let inputs = self.op.inputs(list);
        let ssd::Sizes { b, k, h, p, n, .. } = self.op.sizes;
        let tables = self.op.orders.on(&self.launcher)?;
        let run = self.run(&tables);
        let problem = self.problem(&tables, training)?;
        let Problem { sizes, tiling, cut } = &problem;
        let y = Target::empty(&run, &self.op.y_shape())?;
        let state = self.empty(&[b, k, h, p, n])?;
        let slabs = || self.operands(cut.checkpoint_len(sizes, tiling), tiling);
        let checkpoints = training.then(slabs).transpose()?;
        let rows_by_step = [b, k, sizes.steps as i64, h * p];
        let ungated = (training && inputs.z.is_some())
            .then(|| self.launcher.empty(&rows_by_step, kind_of(self.element)))
            .transpose()?;
        let spans = cut.spans > 1;
        let carry = spans.then(|| self.empty(&[cut.carry_len(sizes, tiling) as i64])).transpose()?;
        let reach = spans.then(|| self.empty(&[b, k, cut.spans as i64, h])).transpose()?;
        let arguments = Arguments {
            y: output(&y),
            ungated: given(ungated.as_ref()),
            final_state: address(&state),
            checkpoints: given(checkpoints.as_ref()),
            carry: given(carry.as_ref()),
            reach: given(reach.as_ref()),
            ..self.arguments(&inputs, &tables, &problem)
        };
        self.launch(&tiling.forward(), kernels::forward(sizes, tiling, cut), arguments, sizes)?;
        let saved = checkpoints.into_iter().chain(ungated).collect();
        Ok(Outcome { outputs: vec![y.finish(&run, true)?, state], saved })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let inputs = self.op.inputs(saved);
        let ssd::Sizes { b, l, k, h, p, g, n } = self.op.sizes;
        let tables = self.op.orders.on(&self.launcher)?;
        let run = self.run(&tables);
        let problem = self.problem(&tables, true)?;
        let Problem { sizes, tiling, cut } = &problem;
        let kind = kind_of(self.element);
        let dy = match &grads[0] {
            Some(dy) => rows_of(dy, kind),
            None => Tensor::f_zeros(self.op.y_shape(), (kind, self.launcher.device()))?,
        };
        let dfinal = grads[1].as_ref().map(whole);
        let kept = &saved[self.op.count()..];
        let behind = self.operands(cut.checkpoint_len(sizes, tiling), tiling)?;
        let target = |t: &Tensor| Target::empty(&run, &t.size());
        let (dx, ddt, dz) = (target(inputs.x)?, target(inputs.dt)?, inputs.z.map(target).transpose()?);
        let spans = cut.spans > 1;
        let carry = spans.then(|| self.empty(&[cut.carry_len(sizes, tiling) as i64])).transpose()?;
        let reach = spans.then(|| self.empty(&[b, k, cut.spans as i64, h])).transpose()?;
        let unsummed = [b, k, line(&run) as i64, g, cut.parts as i64, n];
        let (db, dc) = (self.empty(&unsummed)?, self.empty(&unsummed)?);
        let chunks = cut.chunks as i64;
        let da = self.empty(&[b, chunks, k, h])?;
        let dd = inputs.d.map(|_| self.empty(&[b, chunks, k, h * p])).transpose()?;
        let dbias = inputs.dt_bias.map(|_| self.empty(&[b, chunks, k, h])).transpose()?;
        let dinitial = inputs.initial_state.map(|t| self.empty(&t.size())).transpose()?;
        let arguments = Arguments {
            dy: rows(&dy, Axes::Channels),
            ungated: given(kept.get(1)),
            checkpoints: address(&kept[0]),
            dfinal: given(dfinal.as_ref()),
            behind: address(&behind),
            carry: given(carry.as_ref()),
            reach: given(reach.as_ref()),
            dx: output(&dx),
            ddt: output(&ddt),
            dz: dz.as_ref().map(output).unwrap_or_default(),
            db_parts: address(&db),
            dc_parts: address(&dc),
            da_parts: address(&da),
            dd_parts: given(dd.as_ref()),
            dbias_parts: given(dbias.as_ref()),
            dinitial: given(dinitial.as_ref()),
            coefficients_by_token: tables.host().permutations.into(),
            ..self.arguments(&inputs, &tables, &problem)
        };
        self.launch(&tiling.backward(), kernels::backward(sizes, tiling, cut), arguments, sizes)?;
        let folded = |parts: &Tensor, shape: &[i64]| {
            fold(NAME, &self.launcher, self.element, (parts, (b * chunks) as usize), shape)
        };
        let summed = |of: &Tensor| coefficients(&run, of, cut.parts, [b, l, k, g, n]);
        let present = [
            dx.finish(&run, false)?,
            ddt.finish(&run, false)?,
            folded(&da, &[k, h])?,
            summed(&db)?,
            summed(&dc)?,
        ];
        let optional = [
            dd.map(|dd| folded(&dd, &[k, h * p])).transpose()?,
            dz.map(|dz| dz.finish(&run, false)).transpose()?,
            dbias.map(|dbias| folded(&dbias, &[k, h])).transpose()?,
            dinitial,
        ];
        Ok(present.into_iter().map(Some).chain(optional.into_iter().filter(Option::is_some)).collect())
    }
}

/// One token of one direction from an initial state: y, and the state after it. Makes no node of a graph.
pub(in crate::ops) fn ssd_step(
    op: &ssd::SsdOp,
    launcher: &Launcher,
    args: &ssd::Arguments,
) -> Result<[Tensor; 2]> {
    let ssd::Sizes { b, h, p, g, n, .. } = op.sizes;
    let element = element_of(args.rows());
    let kind = kind_of(element);
    let list = args.map(|t| rows_of(t, kind), whole);
    let inputs = op.inputs(&list);
    // The caller may hold the state that it gives.
    let mut after = launcher.empty(&[b, 1, h * p, n], Kind::Float)?;
    if let Some(before) = inputs.initial_state {
        after.f_copy_(before)?;
    }
    let y = launcher.empty(&[b, 1, 1, h * p], kind)?;
    let row = |t: &Tensor| distances(t, Axes::Channels)[0];
    let (sample, group) =
        (|t: &Tensor| distances(t, Axes::Groups)[0], |t: &Tensor| distances(t, Axes::Groups)[3]);
    let [low, high] = op.limits.map(|limit| limit as f32);
    let arguments = StepArguments {
        x: address(inputs.x),
        dt: address(inputs.dt),
        a: address(inputs.a),
        b: address(inputs.b),
        c: address(inputs.c),
        d: given(inputs.d),
        z: given(inputs.z),
        bias: given(inputs.dt_bias),
        state: address(&after),
        y: address(&y),
        x_row: row(inputs.x),
        dt_row: row(inputs.dt),
        b_row: sample(inputs.b),
        b_group: group(inputs.b),
        c_row: sample(inputs.c),
        c_group: group(inputs.c),
        z_row: inputs.z.map_or(0, row),
        y_row: row(&y),
        low,
        high,
        batch: int(NAME, "the batch", b)?,
        heads: int(NAME, "the number of heads", h)?,
        groups: int(NAME, "the number of groups", g)?,
        softplus: op.softplus.into(),
        d_per_head: 0,
    };
    let (kernel, launch) =
        kernels::step(b as usize, (h * p) as usize, n as usize).map_err(kernel_error(NAME))?;
    launcher.launch(&kernels::step_variant(element, p as usize, n as usize), kernel, arguments, launch)?;
    Ok([y, after])
}
