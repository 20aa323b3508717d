//! `causal_conv1d` over tensors.

use ophidian_kernels::{
    Isa,
    conv::{self as kernel, Backward, Conv},
};
use tch::{Kind, Tensor};

use super::{
    Orders, TorchPool,
    args::{
        Axes, empty, expect_numbers, expect_one_device, expect_shape, kernel_error, rows, slice, slice_mut,
        view, view_mut,
    },
    cuda::{self, Launcher, wants_gradient},
    custom::{CustomOp, Outcome, apply},
    scan::outputs,
};
use crate::{Error, Result};

pub(super) const NAME: &str = "causal_conv1d";

/// Inputs of [`causal_conv1d`]. (B batch, L tokens, K directions, D channels, W taps.)
#[derive(Clone, Copy)]
pub struct ConvInput<'a> {
    /// (B, L, D), shared by all directions, or (B, L, K, D). f32, bf16 or f64 (plainly); f16 is computed as f32.
    pub x: &'a Tensor,
    /// (K, D, W), or (D, W) if K = 1; tap W - 1 multiplies the current step.
    pub weight: &'a Tensor,
    /// (K, D), or (D) if K = 1.
    pub bias: Option<&'a Tensor>,
    /// SiLU behind the convolution.
    pub silu: bool,
    /// (B, K, D, W - 1): the inputs before the first step, oldest first.
    pub initial_state: Option<&'a Tensor>,
    /// K orders over the L tokens.
    pub orders: &'a Orders,
}

/// Outputs of [`causal_conv1d`].
#[derive(Debug)]
pub struct ConvOutput {
    /// (B, L, K, D) in token order, dtype of x. Its memory is direction by direction, so that a direction's rows lie
    /// side by side for the matrix products that follow.
    pub y: Tensor,
    /// (B, K, D, W - 1): the last inputs of each order, f32 (f64 if x is).
    pub final_state: Tensor,
}

/// Depthwise causal convolution along K visiting orders (Dao-AILab's `causal_conv1d`). Differentiable.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit (named), or orders for another number of tokens.
pub fn causal_conv1d(input: &ConvInput) -> Result<ConvOutput> {
    let named = [
        ("x", Some(input.x)),
        ("weight", Some(input.weight)),
        ("bias", input.bias),
        ("initial_state", input.initial_state),
    ];
    for (name, tensor) in named {
        tensor.map_or(Ok(()), |tensor| expect_numbers(NAME, name, tensor, false))?;
    }
    expect_one_device(NAME, &named)?;
    let k = input.orders.directions();
    let shape = input.x.size();
    let (b, l, d) = match shape[..] {
        [b, l, d] | [b, l, _, d] => (b, l, d),
        _ => {
            return Err(Error::invalid(format!(
                "{NAME}: `x` has shape {shape:?}, expected (B, L, D) or (B, L, K, D)"
            )));
        }
    };
    if input.orders.tokens() != l || input.orders.samples().is_some_and(|samples| samples != b) {
        return Err(Error::invalid(format!(
            "{NAME}: the orders visit {} tokens of {} samples, but `x` has shape {shape:?}",
            input.orders.tokens(),
            input.orders.samples().map_or("any number of".to_string(), |n| n.to_string())
        )));
    }
    let lead = |t: &Tensor, full: usize| {
        if t.dim() + 1 == full && k == 1 { t.unsqueeze(0) } else { t.shallow_clone() }
    };
    let weight = lead(input.weight, 3);
    let w = weight.size().last().copied().unwrap_or(0);
    if w == 0 {
        return Err(Error::invalid(format!("{NAME}: `weight` has no taps")));
    }
    expect_shape(NAME, "weight", &weight, &[k, d, w])?;
    let bias = input.bias.map(|bias| lead(bias, 2));
    bias.iter().try_for_each(|bias| expect_shape(NAME, "bias", bias, &[k, d]))?;
    input.initial_state.map_or(Ok(()), |s| expect_shape(NAME, "initial_state", s, &[b, k, d, w - 1]))?;
    let x = if shape.len() == 3 { input.x.unsqueeze(2) } else { input.x.shallow_clone() };
    let shared = x.size()[2] == 1;
    expect_shape(NAME, "x", &x, &[b, l, if shared { 1 } else { k }, d])?;

    let kind = x.kind();
    let inner = if kind == Kind::Double { Kind::Double } else { Kind::Float };
    let op = ConvOp {
        sizes: [b, l, k, d, w],
        has: [bias.is_some(), input.initial_state.is_some()],
        silu: input.silu,
        orders: input.orders.clone(),
        inner,
    };
    let parameters: Vec<&Tensor> =
        [Some(&weight), bias.as_ref(), input.initial_state].into_iter().flatten().collect();
    let [y, final_state] = match Launcher::of(x.device())? {
        Some(_) if kind == Kind::Double => return Err(no_f64(NAME)),
        Some(launcher) => cuda::conv_op(op, launcher, &x, &parameters)?,
        None => {
            let mut list = vec![if kind == Kind::BFloat16 { rows(&x) } else { rows(&x.to_kind(inner)) }];
            list.extend(parameters.iter().map(|t| t.to_kind(inner).contiguous()));
            outputs(apply(op, &list.iter().collect::<Vec<_>>())?)?
        }
    };
    Ok(ConvOutput { y: y.to_kind(kind), final_state })
}

/// The kernels of a GPU compute in f32.
pub(super) fn no_f64(op: &str) -> Error {
    Error::invalid(format!("{op}: f64 runs on the CPU only: move the tensors there with `to_device(Cpu)`"))
}

pub(super) struct ConvOp {
    /// B, L, K, D, W.
    pub sizes: [i64; 5],
    /// Whether the bias and the initial state are among the inputs.
    pub has: [bool; 2],
    pub silu: bool,
    pub orders: Orders,
    /// f32, or f64 for f64 inputs.
    inner: Kind,
}

impl ConvOp {
    pub fn optional<'a>(&self, list: &'a [Tensor]) -> [Option<&'a Tensor>; 2] {
        let mut rest = list[2..].iter();
        self.has.map(|has| if has { rest.next() } else { None })
    }

    fn kernel<'a, T>(&'a self, list: &'a [Tensor]) -> Conv<'a, T> {
        let [b, l, k, d, w] = self.sizes.map(|n| n as usize);
        let [bias, initial_state] = self.optional(list);
        Conv {
            batch: b,
            tokens: l,
            directions: k,
            channels: d,
            taps: w,
            orders: self.orders.kernel(),
            x: view(&list[0], Axes::Channels),
            weight: slice(&list[1]),
            bias: bias.map(slice),
            silu: self.silu,
            initial_state: initial_state.map(slice),
        }
    }
}

impl CustomOp for ConvOp {
    fn forward(&self, list: &[Tensor], _: bool) -> Result<Outcome> {
        let [b, l, k, d, w] = self.sizes;
        let mut y =
            Tensor::empty_strided([b, l, k, d], [l * d, d, b * l * d, 1], (self.inner, tch::Device::Cpu));
        let mut state = empty(&[b, k, d, w - 1], self.inner);
        let out = &view_mut(&mut y, Axes::Channels);
        if self.inner == Kind::Double {
            kernel::wide::forward(&self.kernel(list), out, Some(slice_mut(&mut state)), &TorchPool)
        } else {
            kernel::forward(&self.kernel(list), out, Some(slice_mut(&mut state)), Isa::detect(), &TorchPool)
        }
        .map_err(kernel_error(NAME))?;
        Ok(Outcome { outputs: vec![y, state], saved: vec![] })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let [b, l, k, d, _] = self.sizes;
        let dy = match &grads[0] {
            Some(dy) => rows(dy).to_kind(self.inner),
            None => Tensor::zeros([b, l, k, d], (self.inner, tch::Device::Cpu)),
        };
        let dfinal = grads[1].as_ref().map(|state| state.to_kind(self.inner).contiguous());
        let like = |t: &Tensor| empty(&t.size(), self.inner);
        let mut grads = Gradients {
            dx: like(&saved[0]),
            dweight: like(&saved[1]),
            optional: self.optional(saved).map(|t| t.map(like)),
        };
        if self.inner == Kind::Double {
            let out = grads.out(&dy, dfinal.as_ref());
            kernel::wide::backward(&self.kernel(saved), out, &TorchPool)
        } else {
            let out = grads.out(&dy, dfinal.as_ref());
            kernel::backward(&self.kernel(saved), out, Isa::detect(), &TorchPool)
        }
        .map_err(kernel_error(NAME))?;
        let Gradients { dx, dweight, optional } = grads;
        let dx = dx.to_kind(saved[0].kind());
        let optional = optional.into_iter().filter(Option::is_some);
        Ok([Some(dx), Some(dweight)].into_iter().chain(optional).collect())
    }
}

/// Gradients of the inputs, still to be computed.
struct Gradients {
    dx: Tensor,
    dweight: Tensor,
    /// Of the bias and the initial state.
    optional: [Option<Tensor>; 2],
}

impl Gradients {
    fn out<'a, T>(&'a mut self, dy: &'a Tensor, dfinal: Option<&'a Tensor>) -> Backward<'a, T> {
        let [dbias, dinitial] = &mut self.optional;
        Backward {
            dy: view(dy, Axes::Channels),
            dfinal: dfinal.map(slice),
            dx: view_mut(&mut self.dx, Axes::Channels),
            dweight: slice_mut(&mut self.dweight),
            dbias: dbias.as_mut().map(slice_mut),
            dinitial: dinitial.as_mut().map(slice_mut),
        }
    }
}

/// Advances a convolution cache by the tokens of `x`, for decoding. `x` (B, L, D); `state` (B, D, S) with
/// S >= W - 1 holds the last S inputs, oldest first; with `cache_seqlens` (B, int) it is a circular buffer in which
/// sample b has seen `cache_seqlens[b]` tokens. Returns y (B, L, D) and the new state.
///
/// # Errors
/// Shapes that do not fit.
pub fn causal_conv1d_update(
    x: &Tensor,
    state: &Tensor,
    weight: &Tensor,
    bias: Option<&Tensor>,
    silu: bool,
    cache_seqlens: Option<&Tensor>,
) -> Result<(Tensor, Tensor)> {
    let (shape, room) = (x.size(), state.size());
    let ([b, l, d], [_, _, s]) = (&shape[..], &room[..]) else {
        return Err(Error::invalid(format!("{NAME}_update: `x` has shape {shape:?}, expected (B, L, D)")));
    };
    let (b, l, d, s) = (*b, *l, *d, *s);
    expect_shape(NAME, "conv_state", state, &[b, d, s])?;
    let past = weight.size().last().copied().unwrap_or(0) - 1;
    if past < 0 || s < past || s == 0 {
        return Err(Error::invalid(format!(
            "{NAME}_update: `conv_state` holds {s} inputs, expected at least {}",
            past.max(1)
        )));
    }
    expect_one_device(
        &format!("{NAME}_update"),
        &[
            ("x", Some(x)),
            ("conv_state", Some(state)),
            ("weight", Some(weight)),
            ("bias", bias),
            ("cache_seqlens", cache_seqlens),
        ],
    )?;
    let all = [x, state, weight].into_iter().chain(bias);
    if let Some(launcher) = Launcher::of(x.device())?
        && x.kind() != Kind::Double
        && !wants_gradient(all)
    {
        expect_shape(NAME, "weight", weight, &[d, past + 1])?;
        bias.map_or(Ok(()), |bias| expect_shape(NAME, "bias", bias, &[d]))?;
        cache_seqlens.map_or(Ok(()), |seen| expect_shape(NAME, "cache_seqlens", seen, &[b]))?;
        let [y, after] = cuda::conv_step(&launcher, [x, state, weight], bias, silu, cache_seqlens)?;
        return Ok((y, after.to_kind(state.kind())));
    }
    let rows = x.transpose(1, 2).to_kind(state.kind()); // (B, D, L)
    let (before, after) = match cache_seqlens {
        None => {
            let all = Tensor::cat(&[state, &rows], 2); // (B, D, S + L)
            (state.narrow(2, s - past, past), all.narrow(2, l, s))
        }
        Some(seen) => {
            expect_shape(NAME, "cache_seqlens", seen, &[b])?;
            let at = |offsets: Tensor, n: i64| {
                let index = (seen.to_kind(Kind::Int64).unsqueeze(1) + offsets).remainder(s); // (B, n)
                index.unsqueeze(1).expand([b, d, n], false)
            };
            let range = |from: i64, to: i64| Tensor::arange_start(from, to, (Kind::Int64, x.device()));
            let before = state.gather(2, &at(range(-past, 0), past), false);
            (before, state.scatter(2, &at(range(0, l), l), &rows))
        }
    };
    let out = causal_conv1d(&ConvInput {
        x,
        weight,
        bias,
        silu,
        initial_state: Some(&before.unsqueeze(1)),
        orders: &Orders::identity(l, 1),
    })?;
    Ok((out.y.squeeze_dim(2), after))
}
