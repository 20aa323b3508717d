//! The ops over tensors: against the equations written with libtorch's own differentiable functions in f64, and what
//! they promise about strides, dtypes, states, graphs and bad input.
#![allow(missing_docs)]

use ophidian_core::ops::{
    ConvInput, Merge, Orders, ScanInput, causal_conv1d, causal_conv1d_update, selective_scan,
    selective_scan_step,
};
use ophidian_scan::{Blank, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

/// Sizes and switches of a case.
#[derive(Debug, Clone)]
struct Case {
    b: i64,
    k: i64,
    groups: i64,
    per_group: i64,
    n: i64,
    l: i64,
    /// Bits: D, z, delta bias, initial state, softplus, u shared by the directions, directions summed, orders that skip,
    /// repeat, pad and reset.
    flags: u32,
    seed: i64,
}

fn cases() -> impl Strategy<Value = Case> {
    (1i64..3, 1i64..4, 1i64..3, 1i64..12, 1i64..7, 1i64..20, 0u32..256, 0i64..1 << 30).prop_map(
        |(b, k, groups, per_group, n, l, flags, seed)| Case { b, k, groups, per_group, n, l, flags, seed },
    )
}

impl Case {
    fn has(&self, bit: u32) -> bool {
        self.flags >> bit & 1 == 1
    }

    fn d(&self) -> i64 {
        self.groups * self.per_group
    }

    /// K orders: permutations, or anything that is legal.
    fn plan(&self) -> Plan {
        let mut state = self.seed as u64 | 1;
        let mut draw = move |below: i64| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 33) as i64).rem_euclid(below)
        };
        let orders = (0..self.k).map(|_| {
            let mut index: Vec<i32> = (0..self.l as i32).collect();
            for i in (1..index.len()).rev() {
                index.swap(i, draw(i as i64 + 1) as usize);
            }
            if !self.has(7) {
                return Order::new(index, self.l as usize).unwrap();
            }
            let steps = draw(self.l + 4) + 1;
            let index: Vec<i32> = (0..steps).map(|_| draw(self.l + 1) as i32 - 1).collect();
            let resets = (0..steps).map(|_| draw(5) == 0).collect();
            let blank = if draw(2) == 0 { Blank::Skip } else { Blank::Zero };
            Order::new(index, self.l as usize).unwrap().with_resets(resets).unwrap().with_blank(blank)
        });
        Plan::new(orders.collect()).unwrap()
    }
}

fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Device::Cpu))
}

/// The inputs of a scan in f64, each a leaf: u, delta, A, B, C, then D, z, delta bias, initial state where present.
struct Inputs {
    tensors: Vec<Tensor>,
    present: [bool; 4],
}

impl Inputs {
    fn new(case: &Case) -> Self {
        tch::manual_seed(case.seed);
        let Case { b, k, groups: g, n, l, .. } = *case;
        let d = case.d();
        let once: Vec<i64> = if case.has(5) { vec![b, l, d] } else { vec![b, l, k, d] };
        let mut tensors = vec![
            randn(&once),
            if case.has(4) { randn(&[b, l, k, d]) } else { randn(&[b, l, k, d]).abs() * 0.3 },
            -(randn(&[k, d, n]).abs() + 0.1),
            randn(&[b, l, k, g, n]),
            randn(&[b, l, k, g, n]),
        ];
        let present = [0, 1, 2, 3].map(|bit| case.has(bit));
        let optional = [vec![k, d], once, vec![k, d], vec![b, k, d, n]];
        for (i, shape) in optional.iter().enumerate() {
            if present[i] {
                tensors.push(if i == 2 && !case.has(4) { randn(shape).abs() * 0.1 } else { randn(shape) });
            }
        }
        Inputs { tensors: tensors.into_iter().map(|t| t.set_requires_grad(true)).collect(), present }
    }

    /// The same values as leaves of another kind.
    fn cast(&self, kind: Kind) -> Self {
        let tensors =
            self.tensors.iter().map(|t| t.detach().copy().to_kind(kind).set_requires_grad(true)).collect();
        Inputs { tensors, present: self.present }
    }

    fn optional(&self) -> [Option<&Tensor>; 4] {
        let mut rest = self.tensors[5..].iter();
        self.present.map(|present| if present { rest.next() } else { None })
    }

    fn run(&self, case: &Case, orders: &Orders) -> [Tensor; 2] {
        let [d, z, delta_bias, initial_state] = self.optional();
        let [u, delta, a, b, c] = [0, 1, 2, 3, 4].map(|i| &self.tensors[i]);
        let merge = if case.has(6) { Merge::Sum } else { Merge::Apart };
        let delta_softplus = case.has(4);
        let input =
            ScanInput { u, delta, a, b, c, d, z, delta_bias, delta_softplus, initial_state, orders, merge };
        let out = selective_scan(&input).unwrap();
        [out.y, out.final_state]
    }

    /// The equations, one step at a time, by libtorch's own differentiable functions.
    fn reference(&self, case: &Case, plan: &Plan) -> [Tensor; 2] {
        let Case { b, k, groups, per_group, n, l, .. } = *case;
        let d = case.d();
        let [skip, z, bias, initial] = self.optional();
        let rows = |t: &Tensor, k: i64| if t.dim() == 3 { t.shallow_clone() } else { t.select(2, k) };
        let (mut ys, mut states) = (Vec::new(), Vec::new());
        for k in 0..k {
            let (u, delta) = (rows(&self.tensors[0], k), rows(&self.tensors[1], k));
            let a = self.tensors[2].select(0, k);
            let spread =
                |t: &Tensor| t.select(2, k).repeat_interleave_self_int(per_group, 2, groups * per_group);
            let (bm, cm) = (spread(&self.tensors[3]), spread(&self.tensors[4])); // (B, L, D, N)
            let mut h =
                initial.map_or_else(|| Tensor::zeros([b, d, n], (a.kind(), Device::Cpu)), |s| s.select(1, k));
            let zeros = Tensor::zeros([b, d], (a.kind(), Device::Cpu));
            let mut y: Vec<Tensor> = (0..l).map(|_| zeros.shallow_clone()).collect();
            let order = &plan.orders()[k as usize];
            let mut pending = false;
            for (&token, &reset) in order.index().iter().zip(order.resets()) {
                pending |= reset;
                if token < 0 && order.blank() == Blank::Skip {
                    continue;
                }
                if std::mem::take(&mut pending) {
                    h = h.zeros_like();
                }
                let token = i64::from(token);
                let read = |t: &Tensor| if token < 0 { zeros.shallow_clone() } else { t.select(1, token) };
                let mut dt = read(&delta) + bias.map_or_else(|| zeros.select(0, 0), |bias| bias.select(0, k));
                if case.has(4) {
                    dt = dt.softplus();
                }
                let input = read(&u);
                h = (dt.unsqueeze(-1) * &a).exp() * h;
                if token < 0 {
                    continue;
                }
                h += (&dt * &input).unsqueeze(-1) * bm.select(1, token);
                let mut out = (&h * cm.select(1, token)).sum_dim_intlist(-1, false, None::<Kind>);
                if let Some(skip) = skip {
                    out += skip.select(0, k) * &input;
                }
                if let Some(z) = z {
                    out *= rows(z, k).select(1, token).silu();
                }
                y[token as usize] = &y[token as usize] + out;
            }
            ys.push(Tensor::stack(&y, 1));
            states.push(h);
        }
        let y = Tensor::stack(&ys, 2);
        let y = if case.has(6) { y.sum_dim_intlist(2, false, None::<Kind>) } else { y };
        [y, Tensor::stack(&states, 1)]
    }

    fn gradients(&self, outputs: &[Tensor; 2], cotangents: &[Tensor; 2]) -> Vec<Tensor> {
        gradients(&self.tensors, outputs, cotangents)
    }
}

/// Gradients of <y, cotangent> + <state, cotangent>; zero for a leaf that nothing depends on.
fn gradients(leaves: &[Tensor], outputs: &[Tensor; 2], cotangents: &[Tensor; 2]) -> Vec<Tensor> {
    let term = |i: usize| (&outputs[i] * cotangents[i].to_kind(outputs[i].kind())).sum(Kind::Double);
    let loss = leaves.iter().fold(term(0) + term(1), |sum, leaf| sum + leaf.sum(Kind::Double) * 0.0);
    Tensor::run_backward(&[loss], leaves, false, false)
}

fn close(name: &str, got: &Tensor, want: &Tensor, tolerance: f64) {
    assert_eq!(got.size(), want.size(), "{name}");
    if want.numel() == 0 {
        return;
    }
    let error = (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]);
    let scale = want.abs().max().double_value(&[]).max(1.0);
    assert!(error <= tolerance * scale, "{name}: off by {error:.2e} of {scale:.2e}");
}

const NAMES: [&str; 5] = ["du", "ddelta", "dA", "dB", "dC"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    /// Forward and every gradient are those of the equations: f64 to rounding, f32 to its own.
    #[test]
    fn the_scan_is_the_equations(case in cases()) {
        let plan = case.plan();
        let orders = Orders::new(&plan);
        let wide = Inputs::new(&case);
        let want = wide.reference(&case, &plan);
        let cotangents = [randn(&want[0].size()), randn(&want[1].size())];
        let want_grads = wide.gradients(&want, &cotangents);
        for (kind, out, grad) in [(Kind::Double, 1e-11, 1e-10), (Kind::Float, 1e-5, 3e-5)] {
            let inputs = wide.cast(kind);
            let got = inputs.run(&case, &orders);
            close("y", &got[0], &want[0], out);
            close("final_state", &got[1], &want[1], out);
            for (i, (got, want)) in inputs.gradients(&got, &cotangents).iter().zip(&want_grads).enumerate() {
                close(NAMES.get(i).unwrap_or(&"of an optional input"), got, want, grad);
            }
        }
    }

    /// bf16 tensors give what their values give in f32, rounded once at the end.
    #[test]
    fn bf16_is_f32_on_rounded_values(case in cases()) {
        let orders = Orders::new(&case.plan());
        let halves = Inputs::new(&case).cast(Kind::BFloat16);
        let [got, state] = halves.run(&case, &orders);
        let [want, want_state] = halves.cast(Kind::Float).run(&case, &orders);
        assert_eq!((got.kind(), state.kind()), (Kind::BFloat16, Kind::Float));
        assert_eq!(got, want.to_kind(Kind::BFloat16));
        assert_eq!(state, want_state);
    }

    /// The convolution, the same way.
    #[test]
    fn the_convolution_is_the_equations(case in cases(), w in 1i64..6) {
        tch::manual_seed(case.seed);
        let (plan, d) = (case.plan(), case.d());
        let Case { b, k, l, .. } = case;
        let (bias, initial, silu) = (case.has(0), case.has(1) && w > 1, case.has(2));
        let x_shape = if case.has(5) { vec![b, l, d] } else { vec![b, l, k, d] };
        let leaf = |shape: &[i64]| randn(shape).set_requires_grad(true);
        let mut leaves = vec![leaf(&x_shape), leaf(&[k, d, w])];
        bias.then(|| leaves.push(leaf(&[k, d])));
        initial.then(|| leaves.push(leaf(&[b, k, d, w - 1])));
        let run = |leaves: &[Tensor]| {
            let mut rest = leaves[2..].iter();
            let bias = if bias { rest.next() } else { None };
            let initial_state = if initial { rest.next() } else { None };
            let orders = &Orders::new(&plan);
            let input = ConvInput { x: &leaves[0], weight: &leaves[1], bias, silu, initial_state, orders };
            let out = causal_conv1d(&input).unwrap();
            [out.y, out.final_state]
        };
        let want = conv_reference(&case, &plan, &leaves, [bias, initial, silu], w);
        let cotangents = [randn(&want[0].size()), randn(&want[1].size())];
        let want_grads = gradients(&leaves, &want, &cotangents);
        for (kind, out, grad) in [(Kind::Double, 1e-11, 1e-10), (Kind::Float, 1e-5, 3e-5)] {
            let leaves: Vec<Tensor> =
                leaves.iter().map(|t| t.detach().to_kind(kind).set_requires_grad(true)).collect();
            let got = run(&leaves);
            assert_eq!((got[0].kind(), got[1].kind()), (kind, kind));
            close("y", &got[0], &want[0], out);
            close("final_state", &got[1], &want[1], out);
            for (got, want) in gradients(&leaves, &got, &cotangents).iter().zip(&want_grads) {
                close("a gradient", got, want, grad);
            }
        }
    }
}

fn conv_reference(
    case: &Case,
    plan: &Plan,
    leaves: &[Tensor],
    [bias, initial, silu]: [bool; 3],
    w: i64,
) -> [Tensor; 2] {
    let Case { b, k, l, .. } = *case;
    let d = case.d();
    let zeros = || Tensor::zeros([b, d], (Kind::Double, Device::Cpu));
    let (mut ys, mut states) = (Vec::new(), Vec::new());
    for k in 0..k {
        let x = if leaves[0].dim() == 3 { leaves[0].shallow_clone() } else { leaves[0].select(2, k) };
        let mut past: Vec<Tensor> = (0..w - 1)
            .map(|i| if initial { leaves[leaves.len() - 1].select(1, k).select(2, i) } else { zeros() })
            .collect();
        let mut y: Vec<Tensor> = (0..l).map(|_| zeros()).collect();
        let order = &plan.orders()[k as usize];
        let mut pending = false;
        for (&token, &reset) in order.index().iter().zip(order.resets()) {
            pending |= reset;
            if token < 0 && order.blank() == Blank::Skip {
                continue;
            }
            if std::mem::take(&mut pending) {
                past = (0..w - 1).map(|_| zeros()).collect();
            }
            past.push(if token < 0 { zeros() } else { x.select(1, i64::from(token)) });
            let mut out = zeros();
            if bias {
                out += leaves[2].select(0, k);
            }
            for (tap, row) in past.iter().enumerate() {
                out += leaves[1].select(0, k).select(1, tap as i64) * row;
            }
            drop(past.remove(0));
            if token >= 0 {
                let out = if silu { out.silu() } else { out };
                y[token as usize] = &y[token as usize] + out;
            }
        }
        ys.push(Tensor::stack(&y, 1));
        states.push(if w > 1 {
            Tensor::stack(&past, -1)
        } else {
            Tensor::zeros([b, d, 0], (Kind::Double, Device::Cpu))
        });
    }
    [Tensor::stack(&ys, 2), Tensor::stack(&states, 1)]
}

fn plain(flags: u32) -> (Case, Inputs, Orders) {
    let case = Case { b: 2, k: 2, groups: 1, per_group: 19, n: 5, l: 13, flags, seed: 7 };
    let (inputs, orders) = (Inputs::new(&case).cast(Kind::Float), Orders::new(&case.plan()));
    (case, inputs, orders)
}

/// Finite differences of the f64 op itself.
#[test]
fn gradcheck_in_f64() {
    let case = Case { b: 1, k: 2, groups: 2, per_group: 2, n: 3, l: 6, flags: 0xff, seed: 11 };
    let (inputs, orders) = (Inputs::new(&case), Orders::new(&case.plan()));
    let out = inputs.run(&case, &orders);
    let cotangents = [randn(&out[0].size()), randn(&out[1].size())];
    let grads = inputs.gradients(&out, &cotangents);
    let loss = |inputs: &Inputs| {
        let out = tch::no_grad(|| inputs.run(&case, &orders));
        ((&out[0] * &cotangents[0]).sum(Kind::Double) + (&out[1] * &cotangents[1]).sum(Kind::Double))
            .double_value(&[])
    };
    for (i, grad) in grads.iter().enumerate() {
        for at in 0..grad.numel() as i64 {
            let moved = |by: f64| {
                let moved = inputs.cast(Kind::Double);
                let _ = tch::no_grad(|| moved.tensors[i].view(-1).select(0, at).g_add_scalar_(by));
                loss(&moved)
            };
            let want = (moved(1e-6) - moved(-1e-6)) / 2e-6;
            let got = grad.reshape(-1).double_value(&[at]);
            assert!(
                (got - want).abs() < 1e-6 * want.abs().max(1.0),
                "input {i}[{at}]: {got}, differences {want}"
            );
        }
    }
}

#[test]
fn strides_do_not_matter() {
    let (case, inputs, orders) = plain(0x7f);
    let want = inputs.run(&case, &orders);
    let cotangents = [randn(&want[0].size()), randn(&want[1].size())];
    let want_grads = inputs.gradients(&want, &cotangents);
    // Every axis reversed in memory, and rows inside a wider tensor.
    for shuffle in [0, 1] {
        let tensors = inputs.tensors.iter().map(|t| {
            let t = t.detach();
            let axes: Vec<i64> = (0..t.dim() as i64).rev().collect();
            let strided = match shuffle {
                0 => t.permute(&axes).contiguous().permute(&axes),
                _ => {
                    let n = t.size()[t.dim() - 1];
                    Tensor::cat(&[&t.ones_like(), &t, &t.zeros_like()], -1).narrow(-1, n, n)
                }
            };
            strided.set_requires_grad(true)
        });
        let strided = Inputs { tensors: tensors.collect(), present: inputs.present };
        let got = strided.run(&case, &orders);
        assert_eq!((&got[0], &got[1]), (&want[0], &want[1]));
        assert_eq!(strided.gradients(&got, &cotangents), want_grads);
    }
}

#[test]
fn threads_do_not_matter() {
    let (case, inputs, orders) = plain(0xff);
    let run = |threads| {
        tch::set_num_threads(threads);
        let out = inputs.run(&case, &orders);
        let cotangents = [out[0].ones_like(), out[1].ones_like()];
        (inputs.gradients(&out, &cotangents), out)
    };
    let threads = tch::get_num_threads();
    let (one, three) = (run(1), run(3));
    tch::set_num_threads(threads);
    assert_eq!(one, three);
}

/// Two halves with the state carried over are the whole, gradients included; and so are single steps.
#[test]
fn the_state_carries_over() {
    let (b, l, d, n, w) = (2, 9, 11, 4, 4);
    tch::manual_seed(3);
    let float = (Kind::Float, Device::Cpu);
    let leaf = |shape: &[i64]| Tensor::randn(shape, float).set_requires_grad(true);
    let (u, delta, bm, cm) = (leaf(&[b, l, d]), leaf(&[b, l, d]), leaf(&[b, l, n]), leaf(&[b, l, n]));
    let a = -leaf(&[d, n]).abs();
    let scan = |from: i64, len: i64, state: Option<&Tensor>| {
        let orders = Orders::identity(len, 1);
        let part = |t: &Tensor| t.narrow(1, from, len);
        selective_scan(&ScanInput {
            u: &part(&u),
            delta: &part(&delta),
            a: &a,
            b: &part(&bm),
            c: &part(&cm),
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: true,
            initial_state: state,
            orders: &orders,
            merge: Merge::Sum,
        })
        .unwrap()
    };
    let whole = scan(0, l, None);
    let first = scan(0, 5, None);
    let second = scan(5, l - 5, Some(&first.final_state));
    let joined = Tensor::cat(&[&first.y, &second.y], 1);
    close("y", &joined, &whole.y, 1e-6);
    let leaves = [&u, &delta, &bm, &cm];
    let want = Tensor::run_backward(&[whole.y.square().sum(Kind::Float)], &leaves, true, false);
    let got = Tensor::run_backward(&[joined.square().sum(Kind::Float)], &leaves, true, false);
    for (got, want) in got.iter().zip(&want) {
        close("a gradient", got, want, 1e-5);
    }

    let conv_weight = leaf(&[d, w]);
    let conv = causal_conv1d(&ConvInput {
        x: &u,
        weight: &conv_weight,
        bias: None,
        silu: true,
        initial_state: None,
        orders: &Orders::identity(l, 1),
    })
    .unwrap();
    let mut state = Tensor::zeros([b, 1, d, n], float);
    let mut cache = Tensor::zeros([b, d, w - 1], float);
    for t in 0..l {
        let orders = Orders::identity(1, 1);
        let part = |x: &Tensor| x.narrow(1, t, 1);
        let input = ScanInput {
            u: &part(&u),
            delta: &part(&delta),
            a: &a,
            b: &part(&bm),
            c: &part(&cm),
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: true,
            initial_state: None,
            orders: &orders,
            merge: Merge::Sum,
        };
        close("step", &selective_scan_step(&input, &mut state).unwrap(), &part(&whole.y), 1e-6);
        let (y, next) = causal_conv1d_update(&part(&u), &cache, &conv_weight, None, true, None).unwrap();
        cache = next;
        close("update", &y, &conv.y.squeeze_dim(2).narrow(1, t, 1), 1e-6);
    }
    close("state", &state, &whole.final_state, 1e-6);
    close("cache", &cache, &conv.final_state.squeeze_dim(1), 0.0);
}

#[test]
fn a_graph_serves_once() {
    let (case, inputs, orders) = plain(0x40);
    let out = inputs.run(&case, &orders);
    let loss = out[0].sum(Kind::Float);
    loss.f_backward().unwrap();
    let error = loss.f_backward().unwrap_err().to_string();
    assert!(error.contains("backward through the graph a second time"), "{error}");

    let loss = inputs.run(&case, &orders)[0].sum(Kind::Float);
    let error = Tensor::f_run_backward(&[loss], &inputs.tensors, true, true).unwrap_err().to_string();
    assert!(error.contains("no second derivative"), "{error}");

    // A saved input that changed since is noticed, not used.
    let scaled =
        Inputs { tensors: inputs.tensors.iter().map(|t| t * 1.0).collect(), present: inputs.present };
    let loss = scaled.run(&case, &orders)[0].sum(Kind::Float);
    let _ = tch::no_grad(|| scaled.tensors[0].shallow_clone().fill_(0.0));
    let error = loss.f_backward().unwrap_err().to_string();
    assert!(error.contains("modified by an inplace operation"), "{error}");
}

#[test]
fn nothing_is_needed_of_inputs_without_gradients() {
    let (case, inputs, orders) = plain(0x0f);
    let tensors =
        inputs.tensors.iter().enumerate().map(|(i, t)| t.detach().set_requires_grad(i == 1)).collect();
    let inputs = Inputs { tensors, present: inputs.present };
    inputs.run(&case, &orders)[0].sum(Kind::Float).backward();
    for (i, tensor) in inputs.tensors.iter().enumerate() {
        assert_eq!(tensor.grad().defined(), i == 1, "input {i}");
    }
}

#[test]
fn nothing_in_nothing_out() {
    for (b, l, d) in [(0, 5, 3), (2, 5, 0)] {
        let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let (u, a, bm) = (zeros(&[b, l, d]), zeros(&[d, 4]), zeros(&[b, l, 4]));
        let orders = Orders::identity(l, 1);
        let input = ScanInput {
            u: &u,
            delta: &u,
            a: &a,
            b: &bm,
            c: &bm,
            d: None,
            z: Some(&u),
            delta_bias: None,
            delta_softplus: true,
            initial_state: None,
            orders: &orders,
            merge: Merge::Sum,
        };
        let out = selective_scan(&input).unwrap();
        assert_eq!(out.y.size(), [b, l, d]);
        out.y.sum(Kind::Float).backward();
        assert_eq!(u.grad().size(), [b, l, d]);
        let weight = zeros(&[d, 3]);
        let input = ConvInput {
            x: &u,
            weight: &weight,
            bias: None,
            silu: true,
            initial_state: None,
            orders: &orders,
        };
        assert_eq!(causal_conv1d(&input).unwrap().y.size(), [b, l, 1, d]);
    }
}

#[test]
fn bad_arguments_are_named() {
    let (case, inputs, orders) = plain(0x5f);
    let refuse = |i: usize, replace: &dyn Fn(&Tensor) -> Tensor, expected: &str| {
        let mut bad = inputs.cast(Kind::Float);
        bad.tensors[i] = tch::no_grad(|| replace(&bad.tensors[i]));
        let [d, z, delta_bias, initial_state] = bad.optional();
        let [u, delta, a, b, c] = [0, 1, 2, 3, 4].map(|i| &bad.tensors[i]);
        let (delta_softplus, merge, orders) = (case.has(4), Merge::Sum, &orders);
        let input =
            ScanInput { u, delta, a, b, c, d, z, delta_bias, delta_softplus, initial_state, orders, merge };
        let error = selective_scan(&input).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    refuse(0, &|t| t.narrow(1, 0, 12), "12");
    refuse(0, &|t| t.to_kind(Kind::Int), "`u` has dtype Int");
    refuse(0, &|t| t.select(0, 0).select(0, 0), "`u` has shape");
    refuse(1, &|t| t.narrow(3, 0, 18), "`delta` has shape [2, 13, 2, 18], expected [2, 13, 2, 19]");
    refuse(2, &|t| t.select(0, 0).select(0, 0), "`A` has shape");
    refuse(3, &|t| t.narrow(4, 0, 4), "`B` has shape");
    refuse(5, &|t| t.narrow(1, 0, 3), "`D` has shape");
    refuse(8, &|t| t.narrow(3, 0, 1), "`initial_state` has shape");
}

#[test]
fn a_nan_stays_where_the_equations_put_it() {
    let (case, inputs, _) = plain(0x00);
    let orders = Orders::identity(case.l, case.k);
    let _ =
        tch::no_grad(|| inputs.tensors[0].narrow(0, 1, 1).narrow(1, 4, 1).narrow(3, 6, 1).fill_(f64::NAN));
    let y = inputs.run(&case, &orders)[0].isnan().to_kind(Kind::Int64); // (B, L, K, D)
    let expected = y.zeros_like();
    let _ = expected.narrow(0, 1, 1).narrow(1, 4, case.l - 4).narrow(3, 6, 1).fill_(1);
    assert_eq!(y, expected);
}
