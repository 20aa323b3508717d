//! `causal_conv1d` on a GPU.

use ophidian_kernels::cuda::{Element, aligned, conv as kernels};
use tch::{Kind, Tensor};

use super::{
    Launcher, element_of, kind_of,
    rows::{Run, Target, bytes, distances, fold, int, rows_of, whole},
};
use crate::{
    Result,
    ops::{
        args::{Axes, kernel_error},
        conv::{ConvOp, NAME},
        custom::{CustomOp, Outcome, apply},
        scan::outputs,
    },
};

/// y and the final state of `op` on x (B, L, 1 or K, D), the weight and what it has of bias and initial state.
pub(in crate::ops) fn conv_op(
    op: ConvOp,
    launcher: Launcher,
    x: &Tensor,
    parameters: &[&Tensor],
) -> Result<[Tensor; 2]> {
    let element = element_of([x]);
    let mut list = vec![rows_of(x, kind_of(element))];
    list.extend(parameters.iter().map(|t| whole(t)));
    let op = CudaConv { op, launcher, element };
    outputs(apply(op, &list.iter().collect::<Vec<_>>())?)
}

/// The convolution as a node of the graph.
struct CudaConv {
    op: ConvOp,
    launcher: Launcher,
    element: Element,
}

/// Address or null.
fn pointer<T>(tensor: Option<&Tensor>) -> *mut T {
    tensor.map_or(std::ptr::null_mut(), |tensor| tensor.data_ptr().cast())
}

/// From sample to sample, token to token and direction to direction.
fn strides(rows: [i64; 4]) -> [i64; 3] {
    [rows[0], rows[1], rows[2]]
}

impl CudaConv {
    fn variant(&self) -> Result<ophidian_kernels::cuda::Variant> {
        let [.., taps] = self.op.sizes;
        kernels::variant(self.element, taps as usize).map_err(kernel_error(NAME))
    }

    fn empty(&self, shape: &[i64]) -> Result<Tensor> {
        self.launcher.empty(shape, Kind::Float)
    }
}

impl CustomOp for CudaConv {
    fn forward(&self, list: &[Tensor], _: bool) -> Result<Outcome> {
        let [b, l, k, d, w] = self.op.sizes;
        let [bias, initial] = self.op.optional(list);
        let variant = self.variant()?;
        let tables = self.op.orders.on(&self.launcher)?;
        let run = Run { op: NAME, launcher: &self.launcher, tables: &tables, element: self.element };
        let (host, [read, written, resets]) = (tables.host(), tables.addresses());
        // Direction by direction, as on the CPU.
        let y = self.launcher.empty(&[k, b, l, d], kind_of(self.element))?.permute([1, 2, 0, 3]);
        let y = Target::new(&run, y)?;
        let state = self.empty(&[b, k, d, w - 1])?;
        let sizes = [b, k, d, host.steps as i64].map(|n| n as usize);
        let plan =
            kernels::Plan::forward(self.element, sizes, self.launcher.card()).map_err(kernel_error(NAME))?;
        let [rows, steps] = y.addresses();
        let arguments = kernels::Forward {
            x: list[0].data_ptr(),
            weight: list[1].data_ptr().cast(),
            bias: pointer(bias),
            initial: pointer(initial),
            read: read as *const i32,
            written: written as *const i32,
            resets: resets as *const u8,
            y: rows as *mut _,
            y_steps: steps as *mut f32,
            final_state: state.data_ptr().cast(),
            x_strides: strides(distances(&list[0], Axes::Channels)),
            y_strides: strides(y.distances()),
            batch: b as i32,
            directions: k as i32,
            channels: d as i32,
            steps: host.steps as i32,
            span: plan.span,
            lanes: plan.lanes,
            per_sample: host.per_sample.into(),
            silu: self.op.silu.into(),
            aligned: aligned(&[&bytes(&list[0])[..], &y.bytes(), &[d as usize * 4]].concat()),
        };
        self.launcher.launch(&variant, "causal_conv1d_forward", arguments, plan.launch)?;
        Ok(Outcome { outputs: vec![y.finish(&run, true)?, state], saved: vec![] })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let [b, l, k, d, w] = self.op.sizes;
        let [bias, initial] = self.op.optional(saved);
        let (variant, kind) = (self.variant()?, kind_of(self.element));
        let tables = self.op.orders.on(&self.launcher)?;
        let run = Run { op: NAME, launcher: &self.launcher, tables: &tables, element: self.element };
        let (host, [read, written, resets]) = (tables.host(), tables.addresses());
        let dy = match &grads[0] {
            Some(dy) => rows_of(dy, kind),
            None => Tensor::f_zeros([b, l, k, d], (kind, self.launcher.device()))?,
        };
        let dfinal = grads[1].as_ref().map(whole);
        let dx = Target::empty(&run, &saved[0].size())?;
        let sizes = [b, k, d, host.steps as i64].map(|n| n as usize);
        let plan = kernels::Plan::backward(sizes, self.launcher.card()).map_err(kernel_error(NAME))?;
        let parts = self.empty(&[plan.parts as i64, k, w + 1, d])?;
        let dinitial = initial.map(|_| self.empty(&[b, k, d, w - 1])).transpose()?;
        let [rows, steps] = dx.addresses();
        let rows_bytes = [&bytes(&saved[0])[..], &bytes(&dy), &dx.bytes(), &[d as usize * 4]].concat();
        let arguments = kernels::Backward {
            x: saved[0].data_ptr(),
            weight: saved[1].data_ptr().cast(),
            bias: pointer(bias),
            initial: pointer(initial),
            read: read as *const i32,
            written: written as *const i32,
            resets: resets as *const u8,
            dy: dy.data_ptr(),
            dfinal: pointer(dfinal.as_ref()),
            dx: rows as *mut _,
            dx_steps: steps as *mut f32,
            parts: parts.data_ptr().cast(),
            dinitial: pointer(dinitial.as_ref()),
            x_strides: strides(distances(&saved[0], Axes::Channels)),
            dy_strides: strides(distances(&dy, Axes::Channels)),
            dx_strides: strides(dx.distances()),
            batch: b as i32,
            directions: k as i32,
            channels: d as i32,
            steps: host.steps as i32,
            span: plan.span,
            lanes: plan.lanes,
            per_sample: host.per_sample.into(),
            silu: self.op.silu.into(),
            aligned: aligned(&rows_bytes),
        };
        self.launcher.launch(&variant, "causal_conv1d_backward", arguments, plan.launch)?;
        let dx = dx.finish(&run, false)?;
        // The taps and, last, the bias.
        let sums = fold(NAME, &self.launcher, self.element, (&parts, plan.parts), &[k, w + 1, d])?;
        let dweight = sums.f_narrow(1, 0, w)?.f_transpose(1, 2)?.contiguous();
        let dbias = bias.map(|_| sums.f_select(1, w)).transpose()?;
        let optional = [dbias, dinitial].into_iter().filter(Option::is_some);
        Ok([Some(dx), Some(dweight)].into_iter().chain(optional).collect())
    }
}

/// Tokens `x` (B, L, D) on a cache `state` (B, D, S): y, and the cache behind them. Makes no node of a graph.
pub(in crate::ops) fn conv_step(
    launcher: &Launcher,
    [x, state, weight]: [&Tensor; 3],
    bias: Option<&Tensor>,
    silu: bool,
    seen: Option<&Tensor>,
) -> Result<[Tensor; 2]> {
    let element = element_of([x]);
    let (b, l, d) = x.size3()?;
    let (room, taps) = (state.size3()?.2, weight.size2()?.1);
    let variant = kernels::variant(element, taps as usize).map_err(kernel_error(NAME))?;
    let x = rows_of(x, kind_of(element));
    let (weight, bias) = (whole(weight), bias.map(whole));
    let seen = seen.map(|seen| seen.to_kind(Kind::Int).contiguous());
    let mut after = launcher.empty(&[b, d, room], Kind::Float)?;
    after.f_copy_(state)?;
    let y = launcher.empty(&[b, l, d], kind_of(element))?;
    let strides = |t: &Tensor| [t.stride()[0], t.stride()[1]];
    let arguments = kernels::Step {
        x: x.data_ptr(),
        weight: weight.data_ptr().cast(),
        bias: pointer(bias.as_ref()),
        state: after.data_ptr().cast(),
        seen: pointer(seen.as_ref()),
        y: y.data_ptr(),
        x_strides: strides(&x),
        y_strides: strides(&y),
        batch: int(NAME, "the batch", b)?,
        tokens: int(NAME, "the number of tokens", l)?,
        channels: int(NAME, "the number of channels", d)?,
        room: int(NAME, "the length of `conv_state`", room)?,
        silu: silu.into(),
    };
    let launch = kernels::step_launch(b as usize, d as usize).map_err(kernel_error(NAME))?;
    launcher.launch(&variant, "causal_conv1d_step", arguments, launch)?;
    Ok([y, after])
}
