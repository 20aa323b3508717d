//! `ssd` over tensors.

use ophidian_kernels::{
    Isa,
    ssd::{self as kernel, Backward, Forward, Ssd},
};
use tch::{Kind, Tensor};

use super::{
    Merge, Orders, ScanInput, TorchPool,
    args::{
        Axes, empty, expect_numbers, expect_one_device, expect_shape, kernel_error, rows, slice, slice_mut,
        view, view_mut,
    },
    conv::no_f64,
    cuda::{self, Launcher, wants_gradient},
    custom::{CustomOp, Outcome, apply},
    scan::outputs,
    selective_scan,
};
use crate::{Error, Result};

pub(super) const NAME: &str = "ssd";

/// Inputs of [`ssd`]. (B batch, L tokens, K directions, H heads of P channels, G groups of heads, N states.)
#[derive(Clone, Copy)]
pub struct SsdInput<'a> {
    /// (B, L, H, P), shared by all directions, or (B, L, K, H, P). f32, bf16 or f64; f16 is computed as f32.
    pub x: &'a Tensor,
    /// (B, L, K, H), or (B, L, H) if K = 1. May be f32 where x is bf16.
    pub dt: &'a Tensor,
    /// (K, H), or (H) for all directions; below 0 for a state that decays.
    pub a: &'a Tensor,
    /// (B, L, K, G, N); (B, L, K, N) if G = 1; (B, L, N) if K = G = 1.
    pub b: &'a Tensor,
    /// As `b`.
    pub c: &'a Tensor,
    /// y += D x, per head: (K, H), or (H) for all directions; or per channel: (K, H, P).
    pub d: Option<&'a Tensor>,
    /// As `x`: y *= silu(z).
    pub z: Option<&'a Tensor>,
    /// (K, H), or (H) for all directions, added to dt.
    pub dt_bias: Option<&'a Tensor>,
    /// dt = softplus(dt + dt_bias).
    pub dt_softplus: bool,
    /// After that dt is kept between these; (0, inf) in the authors' code.
    pub dt_limits: (f64, f64),
    /// (B, K, H, P, N).
    pub initial_state: Option<&'a Tensor>,
    /// K orders over the L tokens.
    pub orders: &'a Orders,
    /// How the directions come together.
    pub merge: Merge,
}

/// Outputs of [`ssd`].
#[derive(Debug)]
pub struct SsdOutput {
    /// (B, L, H, P), or (B, L, K, H, P) if the directions are kept apart; dtype of x.
    pub y: Tensor,
    /// (B, K, H, P, N): the state after the last step of each order; f32 (f64 if x is).
    pub final_state: Tensor,
}

/// Mamba-2's state space duality (arXiv 2405.21060, sections 6 and 7) along K visiting orders: a scalar decay per head,
/// computed in chunks of masked matrix products. For each direction, over its order:
/// `S = exp(dt A) S + dt x B^T; y = S C + D x; y *= silu(z)`. Differentiable in every tensor.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit (named), or orders for another number of tokens.
pub fn ssd(input: &SsdInput) -> Result<SsdOutput> {
    let (sizes, args) = canonical(input)?;
    let Sizes { b, l, k, h, p, n, .. } = sizes;
    let kind = input.x.kind();
    let op = SsdOp::new(input, sizes, &args);
    let [y, final_state] = match Launcher::of(input.x.device())? {
        Some(_) if kind == Kind::Double => return Err(no_f64(NAME)),
        Some(launcher) => cuda::ssd_op(op, launcher, &args)?,
        None if kind == Kind::Double => op.plainly(&args)?,
        None => {
            let fast =
                |t: &Tensor| if t.kind() == Kind::BFloat16 { rows(t) } else { rows(&t.to_kind(Kind::Float)) };
            let exact = |t: &Tensor| t.to_kind(Kind::Float).contiguous();
            let inputs = args.map(fast, exact);
            outputs(apply(op, &inputs.iter().collect::<Vec<_>>())?)?
        }
    };
    let y = match input.merge {
        Merge::Sum => y.f_view([b, l, h, p])?,
        Merge::Apart => y.f_view([b, l, k, h, p])?,
    };
    Ok(SsdOutput { y: y.to_kind(kind), final_state: final_state.f_view([b, k, h, p, n])? })
}

/// One token of the SSD, for decoding: `input` as for [`ssd`] with L = 1 and no initial state; `state` (B, K, H, P, N)
/// becomes the state after it (a new tensor, of the same dtype). Returns y as [`ssd`] does. Differentiable in the inputs,
/// and in the state it started from if that requires a gradient.
///
/// # Errors
/// As [`ssd`]; the state is left alone then.
pub fn ssd_step(input: &SsdInput, state: &mut Tensor) -> Result<Tensor> {
    if input.x.size().get(1) != Some(&1) {
        return Err(Error::invalid(format!(
            "{NAME}_step: `x` has shape {:?}, expected one token: (B, 1, H, P)",
            input.x.size()
        )));
    }
    let before = state.shallow_clone();
    let input = SsdInput { initial_state: Some(&before), ..*input };
    let out = match step_on_gpu(&input)? {
        Some(out) => out,
        None => ssd(&input)?,
    };
    *state = out.final_state.to_kind(before.kind());
    Ok(out.y)
}

/// The step by a kernel of its own, where a GPU has the tensors and no gradient is wanted of one direction.
fn step_on_gpu(input: &SsdInput) -> Result<Option<SsdOutput>> {
    let Some(launcher) = Launcher::of(input.x.device())? else { return Ok(None) };
    let (sizes, args) = canonical(input)?;
    let Sizes { b, h, p, n, .. } = sizes;
    let given = [input.d, input.dt_bias, input.initial_state].into_iter().flatten();
    let learned = wants_gradient(args.rows().chain([input.a]).chain(given));
    if input.x.kind() == Kind::Double || !input.orders.is_one_token() || learned {
        return Ok(None);
    }
    let op = SsdOp::new(input, sizes, &args);
    let [y, final_state] = cuda::ssd_step(&op, &launcher, &args)?;
    let shape = if input.merge == Merge::Sum { vec![b, 1, h, p] } else { vec![b, 1, 1, h, p] };
    let y = y.f_view(&shape[..])?.to_kind(input.x.kind());
    Ok(Some(SsdOutput { y, final_state: final_state.f_view([b, 1, h, p, n])? }))
}

/// The sizes of an SSD.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub b: i64,
    pub l: i64,
    pub k: i64,
    pub h: i64,
    pub p: i64,
    pub g: i64,
    pub n: i64,
}

/// The arguments with all axes present, heads and their channels side by side.
pub(super) struct Arguments {
    /// (B, L, 1 or K, H P).
    x: Tensor,
    /// (B, L, K, H).
    dt: Tensor,
    /// (K, H).
    a: Tensor,
    /// (B, L, K, G, N).
    b: Tensor,
    c: Tensor,
    /// (K, H P).
    d: Option<Tensor>,
    z: Option<Tensor>,
    /// (K, H).
    dt_bias: Option<Tensor>,
    /// (B, K, H P, N).
    initial_state: Option<Tensor>,
}

impl Arguments {
    /// What lies along the tokens.
    pub fn rows(&self) -> impl Iterator<Item = &Tensor> {
        [&self.x, &self.dt, &self.b, &self.c].into_iter().chain(&self.z)
    }

    /// The op's input list: `row` prepares what lies along the tokens, `whole` the rest.
    pub fn map(&self, row: impl Fn(&Tensor) -> Tensor, whole: impl Fn(&Tensor) -> Tensor) -> Vec<Tensor> {
        let mut list = vec![row(&self.x), row(&self.dt), whole(&self.a), row(&self.b), row(&self.c)];
        list.extend(self.d.as_ref().map(&whole));
        list.extend(self.z.as_ref().map(&row));
        list.extend(self.dt_bias.as_ref().map(&whole));
        list.extend(self.initial_state.as_ref().map(&whole));
        list
    }
}

/// Checks every argument and gives it all its axes.
fn canonical(input: &SsdInput) -> Result<(Sizes, Arguments)> {
    let named = [
        ("x", Some(input.x)),
        ("dt", Some(input.dt)),
        ("A", Some(input.a)),
        ("B", Some(input.b)),
        ("C", Some(input.c)),
        ("D", input.d),
        ("z", input.z),
        ("dt_bias", input.dt_bias),
        ("initial_state", input.initial_state),
    ];
    for (name, tensor) in named {
        tensor.map_or(Ok(()), |tensor| expect_numbers(NAME, name, tensor, false))?;
    }
    expect_one_device(NAME, &named)?;
    let invalid = |text: String| Err(Error::invalid(format!("{NAME}: {text}")));
    let shape = input.x.size();
    let (b, l, h, p) = match shape[..] {
        [b, l, h, p] | [b, l, _, h, p] => (b, l, h, p),
        _ => return invalid(format!("`x` has shape {shape:?}, expected (B, L, H, P) or (B, L, K, H, P)")),
    };
    let k = input.orders.directions();
    if input.orders.tokens() != l {
        return invalid(format!("the orders visit {} tokens, but `x` has {l}", input.orders.tokens()));
    }
    if let Some(samples) = input.orders.samples()
        && samples != b
    {
        return invalid(format!("the orders are for {samples} samples, but `x` has {b}"));
    }
    let channels = |name: &str, t: &Tensor| -> Result<Tensor> {
        let t = if t.dim() == 4 { t.unsqueeze(2) } else { t.shallow_clone() };
        let own = if t.dim() == 5 && t.size()[2] == 1 { 1 } else { k };
        expect_shape(NAME, name, &t, &[b, l, own, h, p])?;
        Ok(t.f_flatten(3, 4)?)
    };
    let per_head = |name: &str, t: &Tensor| -> Result<Tensor> {
        let t = if t.dim() == 1 { t.unsqueeze(0).expand([k, -1], false) } else { t.shallow_clone() };
        expect_shape(NAME, name, &t, &[k, h])?;
        Ok(t)
    };
    let coefficient = |t: &Tensor| match t.dim() {
        3 if k == 1 => t.unsqueeze(2).unsqueeze(3),
        4 => t.unsqueeze(3),
        _ => t.shallow_clone(),
    };
    let (b_rows, c_rows) = (coefficient(input.b), coefficient(input.c));
    let (g, n) = match b_rows.size()[..] {
        [.., g, n] if b_rows.dim() == 5 => (g, n),
        _ => return invalid(format!("`B` has shape {:?}, expected (B, L, K, G, N)", input.b.size())),
    };
    for (name, t) in [("B", &b_rows), ("C", &c_rows)] {
        expect_shape(NAME, name, t, &[b, l, k, g, n])?;
    }
    if g == 0 || h % g != 0 {
        return invalid(format!("{h} heads do not divide into {g} groups"));
    }
    let dt = if input.dt.dim() == 3 && k == 1 { input.dt.unsqueeze(2) } else { input.dt.shallow_clone() };
    expect_shape(NAME, "dt", &dt, &[b, l, k, h])?;
    let skip = |d: &Tensor| -> Result<Tensor> {
        if d.dim() == 3 {
            expect_shape(NAME, "D", d, &[k, h, p])?;
            return Ok(d.f_flatten(1, 2)?);
        }
        Ok(per_head("D", d)?.f_unsqueeze(2)?.f_expand([k, h, p], false)?.f_reshape([k, h * p])?)
    };
    let state = |state: &Tensor| -> Result<Tensor> {
        expect_shape(NAME, "initial_state", state, &[b, k, h, p, n])?;
        Ok(state.f_reshape([b, k, h * p, n])?)
    };
    let (lo, hi) = input.dt_limits;
    if lo.is_nan() || hi.is_nan() || lo > hi {
        return invalid(format!("`dt_limits` is ({lo}, {hi}), expected a lower and a higher number"));
    }
    let args = Arguments {
        x: channels("x", input.x)?,
        dt,
        a: per_head("A", input.a)?,
        b: b_rows,
        c: c_rows,
        d: input.d.map(skip).transpose()?,
        z: input.z.map(|z| channels("z", z)).transpose()?,
        dt_bias: input.dt_bias.map(|bias| per_head("dt_bias", bias)).transpose()?,
        initial_state: input.initial_state.map(state).transpose()?,
    };
    Ok((Sizes { b, l, k, h, p, g, n }, args))
}

/// The op as a node of the graph.
pub(super) struct SsdOp {
    pub sizes: Sizes,
    /// Whether D, z, dt_bias and the initial state are among the inputs.
    has: [bool; 4],
    pub softplus: bool,
    pub limits: [f64; 2],
    pub orders: Orders,
    merge: Merge,
}

/// The input list taken apart again.
pub(super) struct Inputs<'a> {
    pub x: &'a Tensor,
    pub dt: &'a Tensor,
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    pub c: &'a Tensor,
    pub d: Option<&'a Tensor>,
    pub z: Option<&'a Tensor>,
    pub dt_bias: Option<&'a Tensor>,
    pub initial_state: Option<&'a Tensor>,
}

impl SsdOp {
    fn new(input: &SsdInput, sizes: Sizes, args: &Arguments) -> SsdOp {
        SsdOp {
            sizes,
            has: [args.d.is_some(), args.z.is_some(), args.dt_bias.is_some(), args.initial_state.is_some()],
            softplus: input.dt_softplus,
            limits: [input.dt_limits.0, input.dt_limits.1],
            orders: input.orders.clone(),
            merge: input.merge,
        }
    }

    pub fn count(&self) -> usize {
        5 + self.has.iter().filter(|has| **has).count()
    }

    pub fn inputs<'a>(&self, list: &'a [Tensor]) -> Inputs<'a> {
        let mut rest = list[5..].iter();
        let [d, z, dt_bias, initial_state] = self.has.map(|has| if has { rest.next() } else { None });
        let [x, dt, a, b, c] = [0, 1, 2, 3, 4].map(|i| &list[i]);
        Inputs { x, dt, a, b, c, d, z, dt_bias, initial_state }
    }

    /// Shape of y: a direction axis of 1 shares the rows among the directions.
    pub fn y_shape(&self) -> [i64; 4] {
        let Sizes { b, l, k, h, p, .. } = self.sizes;
        [b, l, if self.merge == Merge::Sum { 1 } else { k }, h * p]
    }

    fn kernel<'a>(&'a self, inputs: &Inputs<'a>) -> Ssd<'a> {
        let Sizes { b, l, k, h, p, g, n } = self.sizes;
        Ssd {
            batch: b as usize,
            tokens: l as usize,
            directions: k as usize,
            heads: h as usize,
            headdim: p as usize,
            groups: g as usize,
            states: n as usize,
            orders: self.orders.kernel(),
            x: view(inputs.x, Axes::Channels),
            dt: view(inputs.dt, Axes::Channels),
            a: slice(inputs.a),
            b: view(inputs.b, Axes::Groups),
            c: view(inputs.c, Axes::Groups),
            d: inputs.d.map(slice),
            z: inputs.z.map(|z| view(z, Axes::Channels)),
            dt_bias: inputs.dt_bias.map(slice),
            softplus: self.softplus,
            dt_limits: self.limits.map(|limit| limit as f32),
            initial_state: inputs.initial_state.map(slice),
        }
    }

    /// In f64: the selective scan whose step sizes and decays a head's channels and states share.
    fn plainly(&self, args: &Arguments) -> Result<[Tensor; 2]> {
        let Sizes { b, l, k, h, p, n, .. } = self.sizes;
        // dt is limited here, so blank steps need rows of their own: they decay too.
        let filled = self.orders.with_blanks_as_tokens();
        let orders = filled.as_ref().unwrap_or(&self.orders);
        let blanks = orders.blank_tokens();
        let row = |t: &Tensor| -> Result<Tensor> {
            let behind = [vec![0; 2 * (t.dim() - 2)], vec![0, blanks]].concat();
            Ok(t.to_kind(Kind::Double).f_constant_pad_nd(behind)?)
        };
        let whole = |t: &Tensor| t.to_kind(Kind::Double);
        let mut dt = row(&args.dt)?;
        if let Some(bias) = &args.dt_bias {
            dt = dt.f_add(&whole(bias))?;
        }
        if self.softplus {
            dt = dt.f_softplus()?;
        }
        let dt = dt.f_clamp(self.limits[0], self.limits[1])?.f_unsqueeze(4)?;
        let delta = dt.f_expand([b, l + blanks, k, h, p], false)?.f_flatten(3, 4)?;
        let a = whole(&args.a).f_view([k, h, 1, 1])?.f_expand([k, h, p, n], false)?;
        let out = selective_scan(&ScanInput {
            u: &row(&args.x)?,
            delta: &delta,
            a: &a.f_reshape([k, h * p, n])?,
            b: &row(&args.b)?,
            c: &row(&args.c)?,
            d: args.d.as_ref().map(whole).as_ref(),
            z: args.z.as_ref().map(row).transpose()?.as_ref(),
            delta_bias: None,
            delta_softplus: false,
            initial_state: args.initial_state.as_ref().map(whole).as_ref(),
            orders,
            merge: self.merge,
        })?;
        Ok([out.y.f_narrow(1, 0, l)?.contiguous(), out.final_state])
    }
}

impl CustomOp for SsdOp {
    fn forward(&self, list: &[Tensor], training: bool) -> Result<Outcome> {
        let inputs = self.inputs(list);
        let Sizes { b, k, h, p, n, .. } = self.sizes;
        let mut y = empty(&self.y_shape(), Kind::Float);
        let mut state = empty(&[b, k, h, p, n], Kind::Float);
        let ssd = self.kernel(&inputs);
        let len = training.then(|| kernel::checkpoint_len(&ssd)).transpose().map_err(kernel_error(NAME))?;
        let mut checkpoints = len.map(|len| empty(&[len as i64], Kind::Float));
        let out = Forward {
            y: view_mut(&mut y, Axes::Channels),
            final_state: Some(slice_mut(&mut state)),
            checkpoints: checkpoints.as_mut().map(slice_mut),
        };
        kernel::forward(&ssd, out, Isa::detect(), &TorchPool).map_err(kernel_error(NAME))?;
        Ok(Outcome { outputs: vec![y, state], saved: checkpoints.into_iter().collect() })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let inputs = self.inputs(saved);
        let Sizes { b, l, k, g, n, .. } = self.sizes;
        let dy = match &grads[0] {
            Some(dy) => rows(dy).to_kind(Kind::Float),
            None => Tensor::zeros(self.y_shape(), (Kind::Float, tch::Device::Cpu)),
        };
        let dfinal = grads[1].as_ref().map(|state| state.to_kind(Kind::Float).contiguous());
        let like = |t: &Tensor| empty(&t.size(), Kind::Float);
        let (mut dx, mut ddt, mut da) = (like(inputs.x), like(inputs.dt), like(inputs.a));
        let (mut db, mut dc) = (empty(&[b, l, k, g, n], Kind::Float), empty(&[b, l, k, g, n], Kind::Float));
        let [mut dd, mut dz, mut dbias, mut dinitial] =
            [inputs.d, inputs.z, inputs.dt_bias, inputs.initial_state].map(|t| t.map(like));
        let out = Backward {
            dy: view(&dy, Axes::Channels),
            dfinal: dfinal.as_ref().map(slice),
            checkpoints: slice(&saved[self.count()]),
            dx: view_mut(&mut dx, Axes::Channels),
            ddt: view_mut(&mut ddt, Axes::Channels),
            dz: dz.as_mut().map(|dz| view_mut(dz, Axes::Channels)),
            db: view_mut(&mut db, Axes::Groups),
            dc: view_mut(&mut dc, Axes::Groups),
            da: slice_mut(&mut da),
            dd: dd.as_mut().map(slice_mut),
            ddt_bias: dbias.as_mut().map(slice_mut),
            dinitial: dinitial.as_mut().map(slice_mut),
        };
        kernel::backward(&self.kernel(&inputs), out, Isa::detect(), &TorchPool)
            .map_err(kernel_error(NAME))?;
        let cast = |grad: Tensor, like: &Tensor| grad.to_kind(like.kind());
        let present = [cast(dx, inputs.x), cast(ddt, inputs.dt), da, cast(db, inputs.b), cast(dc, inputs.c)];
        let dz = dz.zip(inputs.z).map(|(dz, z)| cast(dz, z));
        let optional = [dd, dz, dbias, dinitial];
        Ok(present.into_iter().map(Some).chain(optional.into_iter().filter(Option::is_some)).collect())
    }
}
