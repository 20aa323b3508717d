//! `selective_scan` over tensors.

use ophidian_kernels::{
    Isa, View,
    scan::{self as kernel, Backward, Forward, Scan},
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
    scan_wide,
};
use crate::{Error, Result};

pub(super) const NAME: &str = "selective_scan";

/// How the directions of a scan come together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Merge {
    /// Added up in place: y is (B, L, D).
    Sum,
    /// Kept apart: y is (B, L, K, D).
    Apart,
}

/// Inputs of [`selective_scan`]. (B batch, L tokens, K directions, D channels, G groups, N states.)
#[derive(Clone, Copy)]
pub struct ScanInput<'a> {
    /// (B, L, D), shared by all directions, or (B, L, K, D). f32, bf16 or f64; f16 is computed as f32.
    pub u: &'a Tensor,
    /// (B, L, K, D), or (B, L, D) if K = 1. May be f32 where u is bf16 or f16.
    pub delta: &'a Tensor,
    /// (K, D, N), or (D, N) for all directions; real, or complex together with B, C and the states.
    pub a: &'a Tensor,
    /// (B, L, K, G, N); (B, L, K, N) if G = 1; (B, L, N) if K = G = 1; or (D, N), constant along the sequence.
    pub b: &'a Tensor,
    /// As `b`.
    pub c: &'a Tensor,
    /// (K, D): y += D u.
    pub d: Option<&'a Tensor>,
    /// (B, L, D) or (B, L, K, D): y *= silu(z).
    pub z: Option<&'a Tensor>,
    /// (K, D), added to delta.
    pub delta_bias: Option<&'a Tensor>,
    /// delta = softplus(delta + delta_bias).
    pub delta_softplus: bool,
    /// (B, K, D, N).
    pub initial_state: Option<&'a Tensor>,
    /// K orders over the L tokens.
    pub orders: &'a Orders,
    /// How the directions come together.
    pub merge: Merge,
}

/// Outputs of [`selective_scan`].
#[derive(Debug)]
pub struct ScanOutput {
    /// (B, L, D) or (B, L, K, D), dtype of u.
    pub y: Tensor,
    /// (B, K, D, N): the state after the last step of each order; f32 (f64 if u is; complex if A is).
    pub final_state: Tensor,
}

/// The sizes of a scan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sizes {
    pub b: i64,
    pub l: i64,
    pub k: i64,
    pub d: i64,
    pub g: i64,
    pub n: i64,
}

/// The selective scan of Mamba (arXiv 2312.00752, eq. 2) along K visiting orders. For each direction, over its order:
/// `h = exp(delta A) h + delta B u; y = C h + D u; y *= silu(z)`. Differentiable in every tensor.
///
/// # Errors
/// Shapes, dtypes or devices that do not fit (named), or orders for another number of tokens.
pub fn selective_scan(input: &ScanInput) -> Result<ScanOutput> {
    let (sizes, args) = canonical(input)?;
    let complex = is_complex(input.a);
    let constant = [input.b, input.c].map(|coefficient| coefficient.dim() == 2);
    let kind = input.u.kind();
    let plain = !complex && constant == [false; 2] && kind != Kind::Double;
    let op = ScanOp::new(input, sizes, &args);
    let launcher = Launcher::of(input.u.device())?;
    let [y, final_state] = match launcher {
        Some(launcher) if plain => cuda::scan_op(op, launcher, &args)?,
        Some(_) => {
            return Err(Error::invalid(format!(
                "{NAME}: complex `A`, constant `B` or `C` and f64 run on the CPU only: move the tensors there with \
                 `to_device(Cpu)`"
            )));
        }
        None if plain => {
            let fast =
                |t: &Tensor| if t.kind() == Kind::BFloat16 { rows(t) } else { rows(&t.to_kind(Kind::Float)) };
            let exact = |t: &Tensor| t.to_kind(Kind::Float).contiguous();
            let inputs = args.map(fast, exact);
            outputs(apply(op, &inputs.iter().collect::<Vec<_>>())?)?
        }
        None => {
            let wide = |t: &Tensor| rows(&scan_wide::real_pairs(t, complex));
            let inputs = args.map(wide, |t| wide(t).contiguous());
            let op = scan_wide::WideOp { scan: op, complex, constant };
            let [y, state] = outputs(apply(op, &inputs.iter().collect::<Vec<_>>())?)?;
            let state = if complex { state.view_as_complex() } else { state };
            let state = match (complex, kind) {
                (true, Kind::Double) | (false, Kind::Double) => state,
                (true, _) => state.to_kind(Kind::ComplexFloat),
                (false, _) => state.to_kind(Kind::Float),
            };
            [y, state]
        }
    };
    Ok(ScanOutput { y: y.to_kind(kind), final_state })
}

pub(super) fn outputs(found: Vec<Tensor>) -> Result<[Tensor; 2]> {
    found.try_into().map_err(|_| Error::invalid("internal error: an op lost an output"))
}

pub(super) fn is_complex(tensor: &Tensor) -> bool {
    matches!(tensor.kind(), Kind::ComplexFloat | Kind::ComplexDouble)
}

/// The arguments with all axes present.
pub(super) struct Arguments {
    u: Tensor,
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Option<Tensor>,
    z: Option<Tensor>,
    delta_bias: Option<Tensor>,
    initial_state: Option<Tensor>,
}

impl Arguments {
    /// What lies along the tokens, but for delta, which may be wider.
    pub fn rows(&self) -> impl Iterator<Item = &Tensor> {
        [&self.u, &self.b, &self.c].into_iter().chain(&self.z)
    }

    /// The op's input list: `row` prepares what lies along the tokens, `whole` the rest.
    pub fn map(&self, row: impl Fn(&Tensor) -> Tensor, whole: impl Fn(&Tensor) -> Tensor) -> Vec<Tensor> {
        let coefficient = |t: &Tensor| if t.dim() == 3 { whole(t) } else { row(t) };
        let mut list =
            vec![row(&self.u), row(&self.delta), whole(&self.a), coefficient(&self.b), coefficient(&self.c)];
        list.extend(self.d.as_ref().map(&whole));
        list.extend(self.z.as_ref().map(&row));
        list.extend(self.delta_bias.as_ref().map(&whole));
        list.extend(self.initial_state.as_ref().map(&whole));
        list
    }
}

/// Checks every argument and gives it all its axes: u, z (B, L, 1 or K, D); delta (B, L, K, D); A (K, D, N);
/// B, C (B, L, K, G, N) or, constant, (K, D, N).
fn canonical(input: &ScanInput) -> Result<(Sizes, Arguments)> {
    // A complex A makes B, C and the states complex too; everything else is real.
    let complex = is_complex(input.a);
    let named = [
        ("u", Some(input.u), false),
        ("delta", Some(input.delta), false),
        ("A", Some(input.a), complex),
        ("B", Some(input.b), complex),
        ("C", Some(input.c), complex),
        ("D", input.d, false),
        ("z", input.z, false),
        ("delta_bias", input.delta_bias, false),
        ("initial_state", input.initial_state, complex),
    ];
    for (name, tensor, complex) in named {
        tensor.map_or(Ok(()), |tensor| expect_numbers(NAME, name, tensor, complex))?;
    }
    expect_one_device(NAME, &named.map(|(name, tensor, _)| (name, tensor)))?;
    let invalid = |text: String| Err(Error::invalid(format!("{NAME}: {text}")));
    let shape = input.u.size();
    let (b, l, d) = match shape[..] {
        [b, l, d] | [b, l, _, d] => (b, l, d),
        _ => return invalid(format!("`u` has shape {shape:?}, expected (B, L, D) or (B, L, K, D)")),
    };
    let k = input.orders.directions();
    if input.orders.tokens() != l {
        return invalid(format!("the orders visit {} tokens, but `u` has {l}", input.orders.tokens()));
    }
    if let Some(samples) = input.orders.samples()
        && samples != b
    {
        return invalid(format!("the orders are for {samples} samples, but `u` has {b}"));
    }
    let a = match input.a.dim() {
        2 => input.a.unsqueeze(0).expand([k, -1, -1], false),
        _ => input.a.shallow_clone(),
    };
    let n = a.size().last().copied().unwrap_or(0);
    expect_shape(NAME, "A", &a, &[k, d, n])?;
    let rows = |name: &str, t: &Tensor, shared: bool| -> Result<Tensor> {
        let t = if t.dim() == 3 && (shared || k == 1) { t.unsqueeze(2) } else { t.shallow_clone() };
        let own = if t.dim() == 4 && shared && t.size()[2] == 1 { 1 } else { k };
        expect_shape(NAME, name, &t, &[b, l, own, d])?;
        Ok(t)
    };
    let mut groups = None;
    let mut coefficient = |name: &str, t: &Tensor| -> Result<Tensor> {
        let t = match t.dim() {
            2 => {
                expect_shape(NAME, name, t, &[d, n])?;
                return Ok(t.unsqueeze(0).expand([k, -1, -1], false));
            }
            3 if k == 1 => t.unsqueeze(2).unsqueeze(3),
            4 => t.unsqueeze(3),
            _ => t.shallow_clone(),
        };
        let found = if t.dim() == 5 { t.size()[3] } else { 1 };
        expect_shape(NAME, name, &t, &[b, l, k, found, n])?;
        // One of B and C may have a single group where the other has several.
        let known = groups.unwrap_or(1).max(found);
        if found != known && found != 1 || groups.is_some_and(|g| g != known && g != 1) {
            return Err(Error::invalid(format!("{NAME}: B and C have {groups:?} and {found} groups")));
        }
        groups = Some(known);
        Ok(t)
    };
    let (b_rows, c_rows) = (coefficient("B", input.b)?, coefficient("C", input.c)?);
    let g = groups.unwrap_or(1);
    if g == 0 || d % g != 0 {
        return invalid(format!("{d} channels do not divide into {g} groups"));
    }
    let widen =
        |t: Tensor| if t.dim() == 5 && t.size()[3] != g { t.expand([b, l, k, g, n], false) } else { t };
    let per_channel = |name: &str, t: Option<&Tensor>, shape: &[i64]| -> Result<Option<Tensor>> {
        let Some(t) = t else { return Ok(None) };
        let t = if t.dim() == 1 && k == 1 { t.unsqueeze(0) } else { t.shallow_clone() };
        expect_shape(NAME, name, &t, shape)?;
        Ok(Some(t))
    };
    let sizes = Sizes { b, l, k, d, g, n };
    let args = Arguments {
        u: rows("u", input.u, true)?,
        delta: rows("delta", input.delta, false)?,
        a,
        b: widen(b_rows),
        c: widen(c_rows),
        d: per_channel("D", input.d, &[k, d])?,
        z: input.z.map(|z| rows("z", z, true)).transpose()?,
        delta_bias: per_channel("delta_bias", input.delta_bias, &[k, d])?,
        initial_state: per_channel("initial_state", input.initial_state, &[b, k, d, n])?,
    };
    Ok((sizes, args))
}

/// The fast scan as a node of the graph.
pub(super) struct ScanOp {
    pub sizes: Sizes,
    /// Whether D, z, delta_bias and the initial state are among the inputs.
    pub has: [bool; 4],
    pub softplus: bool,
    pub orders: Orders,
    pub merge: Merge,
}

/// The input list taken apart again.
pub(super) struct Inputs<'a> {
    pub u: &'a Tensor,
    pub delta: &'a Tensor,
    pub a: &'a Tensor,
    pub b: &'a Tensor,
    pub c: &'a Tensor,
    pub d: Option<&'a Tensor>,
    pub z: Option<&'a Tensor>,
    pub delta_bias: Option<&'a Tensor>,
    pub initial_state: Option<&'a Tensor>,
}

impl ScanOp {
    fn new(input: &ScanInput, sizes: Sizes, args: &Arguments) -> ScanOp {
        ScanOp {
            sizes,
            has: [
                args.d.is_some(),
                args.z.is_some(),
                args.delta_bias.is_some(),
                args.initial_state.is_some(),
            ],
            softplus: input.delta_softplus,
            orders: input.orders.clone(),
            merge: input.merge,
        }
    }

    pub fn inputs<'a>(&self, list: &'a [Tensor]) -> Inputs<'a> {
        let mut rest = list[5..].iter();
        let [d, z, delta_bias, initial_state] = self.has.map(|has| if has { rest.next() } else { None });
        let [u, delta, a, b, c] = [0, 1, 2, 3, 4].map(|i| &list[i]);
        Inputs { u, delta, a, b, c, d, z, delta_bias, initial_state }
    }

    pub fn count(&self) -> usize {
        5 + self.has.iter().filter(|has| **has).count()
    }

    /// Shape of y: a direction axis of 1 shares the rows among the directions.
    pub fn y_shape(&self) -> [i64; 4] {
        let Sizes { b, l, k, d, .. } = self.sizes;
        [b, l, if self.merge == Merge::Sum { 1 } else { k }, d]
    }

    pub fn squeeze(&self, y: Tensor) -> Tensor {
        if self.merge == Merge::Sum { y.squeeze_dim(2) } else { y }
    }

    pub fn unsqueeze(&self, dy: &Tensor) -> Tensor {
        if self.merge == Merge::Sum { dy.unsqueeze(2) } else { dy.shallow_clone() }
    }

    /// The gradients in the order of the inputs, absent ones left out.
    pub fn list(&self, present: [Tensor; 5], optional: [Option<Tensor>; 4]) -> Vec<Option<Tensor>> {
        present.into_iter().map(Some).chain(optional.into_iter().filter(Option::is_some)).collect()
    }

    fn kernel<'a>(&'a self, inputs: &Inputs<'a>) -> Scan<'a> {
        let Sizes { b, l, k, d, g, n } = self.sizes;
        Scan {
            batch: b as usize,
            tokens: l as usize,
            directions: k as usize,
            channels: d as usize,
            groups: g as usize,
            states: n as usize,
            orders: self.orders.kernel(),
            u: view(inputs.u, Axes::Channels),
            delta: view(inputs.delta, Axes::Channels),
            a: slice(inputs.a),
            b: view(inputs.b, Axes::Groups),
            c: view(inputs.c, Axes::Groups),
            d: inputs.d.map(slice),
            z: inputs.z.map(|z| view(z, Axes::Channels)),
            delta_bias: inputs.delta_bias.map(slice),
            softplus: self.softplus,
            initial_state: inputs.initial_state.map(slice),
        }
    }
}

impl CustomOp for ScanOp {
    fn forward(&self, list: &[Tensor], training: bool) -> Result<Outcome> {
        let inputs = self.inputs(list);
        let Sizes { b, k, d, n, .. } = self.sizes;
        let mut y = empty(&self.y_shape(), Kind::Float);
        let mut state = empty(&[b, k, d, n], Kind::Float);
        let scan = self.kernel(&inputs);
        let isa = Isa::detect();
        let len =
            training.then(|| kernel::checkpoint_len(&scan, isa)).transpose().map_err(kernel_error(NAME))?;
        let mut checkpoints = len.map(|len| empty(&[len as i64], Kind::Float));
        let out = Forward {
            y: view_mut(&mut y, Axes::Channels),
            final_state: Some(slice_mut(&mut state)),
            checkpoints: checkpoints.as_mut().map(slice_mut),
        };
        kernel::forward(&scan, out, isa, &TorchPool).map_err(kernel_error(NAME))?;
        Ok(Outcome { outputs: vec![self.squeeze(y), state], saved: checkpoints.into_iter().collect() })
    }

    fn backward(&self, saved: &[Tensor], grads: &[Option<Tensor>]) -> Result<Vec<Option<Tensor>>> {
        let inputs = self.inputs(saved);
        let Sizes { b, l, k, g, n, .. } = self.sizes;
        let dy = match &grads[0] {
            Some(dy) => rows(&self.unsqueeze(dy)).to_kind(Kind::Float),
            None => Tensor::zeros(self.y_shape(), (Kind::Float, tch::Device::Cpu)),
        };
        let dfinal = grads[1].as_ref().map(|state| state.to_kind(Kind::Float).contiguous());
        let like = |t: &Tensor| empty(&t.size(), Kind::Float);
        let (mut du, mut ddelta, mut da) = (like(inputs.u), like(inputs.delta), like(inputs.a));
        let (mut db, mut dc) = (empty(&[b, l, k, g, n], Kind::Float), empty(&[b, l, k, g, n], Kind::Float));
        let [mut dd, mut dz, mut dbias, mut dinitial] =
            [inputs.d, inputs.z, inputs.delta_bias, inputs.initial_state].map(|t| t.map(like));
        let dy: View = view(&dy, Axes::Channels);
        let out = Backward {
            dy,
            dfinal: dfinal.as_ref().map(slice),
            checkpoints: slice(&saved[self.count()]),
            du: view_mut(&mut du, Axes::Channels),
            ddelta: view_mut(&mut ddelta, Axes::Channels),
            dz: dz.as_mut().map(|dz| view_mut(dz, Axes::Channels)),
            db: view_mut(&mut db, Axes::Groups),
            dc: view_mut(&mut dc, Axes::Groups),
            da: slice_mut(&mut da),
            dd: dd.as_mut().map(slice_mut),
            ddelta_bias: dbias.as_mut().map(slice_mut),
            dinitial: dinitial.as_mut().map(slice_mut),
        };
        kernel::backward(&self.kernel(&inputs), out, Isa::detect(), &TorchPool)
            .map_err(kernel_error(NAME))?;
        let cast = |grad: Tensor, like: &Tensor| grad.to_kind(like.kind());
        let present =
            [cast(du, inputs.u), cast(ddelta, inputs.delta), da, cast(db, inputs.b), cast(dc, inputs.c)];
        let dz = dz.zip(inputs.z).map(|(dz, z)| cast(dz, z));
        Ok(self.list(present, [dd, dz, dbias, dinitial]))
    }
}

/// One token of the scan, for decoding: `input` as for [`selective_scan`] with L = 1 and no initial state;
/// `state` (B, K, D, N) becomes the state after it (a new tensor, of the same dtype). Returns y as [`selective_scan`] does. Differentiable in the inputs,
/// and in the state it started from if that requires a gradient.
///
/// # Errors
/// As [`selective_scan`]; the state is left alone then.
pub fn selective_scan_step(input: &ScanInput, state: &mut Tensor) -> Result<Tensor> {
    if input.u.size().get(1) != Some(&1) {
        return Err(Error::invalid(format!(
            "{NAME}_step: `u` has shape {:?}, expected one token: (B, 1, D)",
            input.u.size()
        )));
    }
    let before = state.shallow_clone();
    let input = ScanInput { initial_state: Some(&before), ..*input };
    let out = match step_on_gpu(&input)? {
        Some(out) => out,
        None => selective_scan(&input)?,
    };
    *state = out.final_state.to_kind(before.kind());
    Ok(out.y)
}

/// The step by a kernel of its own, where a GPU has the tensors and no gradient is wanted of one direction.
fn step_on_gpu(input: &ScanInput) -> Result<Option<ScanOutput>> {
    let Some(launcher) = Launcher::of(input.u.device())? else { return Ok(None) };
    let (sizes, args) = canonical(input)?;
    let varying = [input.b, input.c].iter().all(|coefficient| coefficient.dim() > 2);
    let plain = !is_complex(input.a) && varying && input.u.kind() != Kind::Double;
    let given = [input.d, input.delta_bias, input.initial_state].into_iter().flatten();
    let learned = wants_gradient(args.rows().chain([input.delta, input.a]).chain(given));
    if !plain || !input.orders.is_one_token() || learned {
        return Ok(None);
    }
    let op = ScanOp::new(input, sizes, &args);
    let [y, final_state] = cuda::scan_step(&op, &launcher, &args)?;
    Ok(Some(ScanOutput { y: y.to_kind(input.u.kind()), final_state }))
}
