//! The Mamba-1 mixer against its equations, written out plainly: tokens gathered by order, a loop over time,
//! f64.

use std::collections::HashMap;

use ophidian_core::{
    mixer::{DtRank, Mamba1, Mamba1Config, Merge, Mixer, Parameters},
    ops::Orders,
    torch::autocast,
};
use ophidian_scan::{Blank, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// One direction up to the merge: (B, L, D).
fn direction(
    weights: &HashMap<String, Tensor>,
    config: &Mamba1Config,
    k: i64,
    order: &Order,
    conv_order: &Order,
    x: &Tensor,
    z: &Tensor,
) -> Tensor {
    let row = |name: &str| {
        let all = &weights[name];
        all.select(0, k.min(all.size()[0] - 1))
    };
    let (b, l, d) = x.size3().unwrap();
    let (n, r, w) = (config.d_state, config.dt_rank.of(config.d_model), config.d_conv);
    let zero = Tensor::zeros([b, d], F64);
    let token = |tokens: &Tensor, at: i32| tokens.select(1, i64::from(at));
    // Steps that happen: a blank that is skipped does not.
    let steps = |order: &Order| -> Vec<(i32, bool)> {
        let mut reset = false;
        let mut steps = vec![];
        for (&token, &r) in order.index().iter().zip(order.resets()) {
            reset |= r;
            if token >= 0 || order.blank() == Blank::Zero {
                steps.push((token, std::mem::take(&mut reset)));
            }
        }
        steps
    };

    let mut u: Vec<Tensor> = (0..l).map(|_| zero.shallow_clone()).collect();
    let mut window: Vec<Tensor> = (0..w).map(|_| zero.shallow_clone()).collect();
    for (at, reset) in steps(conv_order) {
        if reset {
            window.iter_mut().for_each(|row| *row = zero.shallow_clone());
        }
        drop(window.remove(0));
        window.push(if at < 0 { zero.shallow_clone() } else { token(x, at) });
        let taps = window.iter().enumerate();
        let taps = taps.map(|(tap, input)| input * row("conv1d.weight").select(1, tap as i64));
        let bias = if config.conv_bias { row("conv1d.bias") } else { zero.shallow_clone() };
        let sum = taps.fold(bias, |sum, term| sum + term);
        if at >= 0 {
            u[at as usize] = sum.silu();
        }
    }
    let u = Tensor::stack(&u, 1); // (B, L, D)
    let projected = u.matmul(&row("x_proj.weight").tr());
    let delta = projected.narrow(2, 0, r).matmul(&row("dt_proj.weight").tr());
    let a = -row("A_log").exp();

    let mut y: Vec<Tensor> = (0..l).map(|_| zero.shallow_clone()).collect();
    let mut h = Tensor::zeros([b, d, n], F64);
    for (at, reset) in steps(order) {
        let blank = at < 0;
        let read = |t: &Tensor, width: i64| {
            if blank { Tensor::zeros([b, width], F64) } else { token(t, at) }
        };
        let dt = (read(&delta, d) + row("dt_proj.bias")).softplus();
        let (ut, bt) = (read(&u, d), read(&projected.narrow(2, r, n), n));
        if reset {
            h = h.zeros_like();
        }
        h = (dt.unsqueeze(2) * &a).exp() * h + (&dt * &ut).unsqueeze(2) * bt.unsqueeze(1);
        if !blank {
            let ct = token(&projected.narrow(2, r + n, n), at);
            let out = (&h * ct.unsqueeze(1)).sum_dim_intlist(2, false, Kind::Double) + ut * row("D");
            y[at as usize] = out * token(z, at).silu();
        }
    }
    Tensor::stack(&y, 1)
}

fn reference(weights: &HashMap<String, Tensor>, config: &Mamba1Config, plan: &Plan, x: &Tensor) -> Tensor {
    let linear = |name: &str, x: &Tensor| {
        let out = x.matmul(&weights[&format!("{name}.weight")].tr());
        match weights.get(&format!("{name}.bias")) {
            Some(bias) => out + bias,
            None => out,
        }
    };
    let d = config.d_inner();
    let xz = linear("in_proj", x);
    let (x, z) = (xz.narrow(2, 0, d), xz.narrow(2, d, d));
    let ys: Vec<Tensor> = plan
        .orders()
        .iter()
        .enumerate()
        .map(|(k, order)| {
            let conv = if config.parameters == Parameters::Decay { &plan.orders()[0] } else { order };
            direction(weights, config, k as i64, order, conv, &x, &z)
        })
        .collect();
    let y = match config.merge {
        Merge::Sum => ys.iter().map(Tensor::shallow_clone).reduce(|a, b| a + b).unwrap(),
        Merge::Mean => ys.iter().map(Tensor::shallow_clone).reduce(|a, b| a + b).unwrap() / ys.len() as f64,
        Merge::Concat => Tensor::cat(&ys, 2),
        Merge::Gated => {
            let means: Vec<Tensor> = ys.iter().map(|y| y.mean_dim(1, false, Kind::Double)).collect();
            let gate = Tensor::cat(&means, 1).matmul(&weights["gate.weight"].tr()).softmax(1, Kind::Double);
            let weighed = ys.iter().enumerate().map(|(k, y)| y * gate.select(1, k as i64).view([-1, 1, 1]));
            weighed.reduce(|a, b| a + b).unwrap()
        }
    };
    linear("out_proj", &y)
}

/// Orders that leave tokens out, take blanks and start afresh, from the bits of `seed`.
fn plan(tokens: usize, directions: usize, seed: u64) -> Plan {
    use rand::{RngExt, seq::SliceRandom};
    let mut rng = ophidian_core::rng::stream(&[seed]);
    let order = |k: usize, rng: &mut ophidian_core::rng::Rng| {
        let mut index: Vec<i32> = (0..tokens as i32).collect();
        match (seed as usize + k) % 4 {
            0 => {}
            1 => index.reverse(),
            _ => index.shuffle(rng),
        }
        if seed.is_multiple_of(3) {
            for _ in 0..rng.random_range(0..3) {
                index.insert(rng.random_range(0..=index.len()), -1);
            }
            if index.len() > 2 {
                index.remove(rng.random_range(0..index.len()));
            }
        }
        let resets = index.iter().map(|_| seed.is_multiple_of(5) && rng.random_range(0..4) == 0).collect();
        let blank = if seed.is_multiple_of(2) { Blank::Zero } else { Blank::Skip };
        Order::new(index, tokens).unwrap().with_resets(resets).unwrap().with_blank(blank)
    };
    Plan::new((0..directions).map(|k| order(k, &mut rng)).collect()).unwrap()
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-3);
    (got.to_kind(Kind::Double) - want).abs().max().double_value(&[]) / scale
}

/// Zero where none arrived (an order of blanks alone reads nothing).
fn grad(leaf: &Tensor) -> Tensor {
    let grad = leaf.grad();
    if grad.defined() { grad } else { leaf.zeros_like() }
}

fn perturbed(config: &Mamba1Config, seed: i64) -> (VarStore, Mamba1) {
    tch::manual_seed(seed);
    let vs = VarStore::new(Device::Cpu);
    let mixer = Mamba1::new(&vs.root(), config).unwrap();
    tch::no_grad(|| {
        for mut variable in vs.trainable_variables() {
            let noise = variable.randn_like() * 0.1;
            let _ = variable.g_add_(&noise);
        }
        // Larger steps, so that the state matters.
        let _ = vs.variables()["dt_proj.bias"].shallow_clone().g_add_scalar_(2.5);
    });
    (vs, mixer)
}

fn check(config: &Mamba1Config, batch: i64, tokens: usize, seed: u64) -> Result<(), TestCaseError> {
    let plan = plan(tokens, config.directions as usize, seed);
    let (vs, mixer) = perturbed(config, seed as i64);
    let input = Tensor::randn([batch, tokens as i64, config.d_model], (Kind::Float, Device::Cpu));
    let cotangent = Tensor::randn(input.size(), (Kind::Float, Device::Cpu));

    let x = input.copy().set_requires_grad(true);
    let out = mixer.forward(&x, &Orders::new(&plan)).unwrap();
    (&out * &cotangent).sum(Kind::Float).backward();

    let wide = |t: &Tensor| t.detach().to_kind(Kind::Double).set_requires_grad(true);
    let weights: HashMap<String, Tensor> =
        vs.variables().iter().map(|(name, t)| (name.clone(), wide(t))).collect();
    let x_wide = wide(&input);
    let want = reference(&weights, config, &plan, &x_wide);
    (&want * cotangent.to_kind(Kind::Double)).sum(Kind::Double).backward();

    let error = relative(&out, &want);
    prop_assert!(error < 1e-5, "out is off by {error:.1e}");
    let error = relative(&grad(&x), &grad(&x_wide));
    prop_assert!(error < 3e-5, "gradient of x is off by {error:.1e}");
    for (name, tensor) in vs.variables() {
        let error = relative(&grad(&tensor), &grad(&weights[&name]));
        prop_assert!(error < 3e-5, "gradient of {name} is off by {error:.1e}");
    }
    Ok(())
}

fn configs() -> impl Strategy<Value = Mamba1Config> {
    let parameters = prop_oneof![
        3 => Just(Parameters::Own),
        1 => Just(Parameters::Shared),
        1 => Just(Parameters::Decay)
    ];
    let merge = prop_oneof![Just(Merge::Sum), Just(Merge::Mean), Just(Merge::Concat), Just(Merge::Gated)];
    let flags = (any::<bool>(), any::<bool>(), prop_oneof![Just(1.0), Just(2.0), Just(1.5)]);
    (parameters, merge, flags, 1..9i64, 1..5i64, 1..9i64, 1..6i64, 1..4i64).prop_map(
        |(parameters, merge, (bias, conv_bias, expand), d_model, directions, d_state, d_conv, rank)| {
            Mamba1Config {
                d_model,
                directions,
                d_state,
                d_conv,
                expand,
                dt_rank: DtRank::Rank(rank),
                conv_bias,
                bias,
                parameters,
                merge,
                ..Mamba1Config::default()
            }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_its_equations(config in configs(), batch in 1..4i64, tokens in 1..12usize, seed in 0..10_000u64) {
        check(&config, batch, tokens, seed)?;
    }
}

/// A sequence longer than a chunk of the scan, and channels beyond a vector.
#[test]
fn equals_its_equations_at_size() {
    let config = Mamba1Config { d_model: 20, directions: 3, ..Mamba1Config::default() };
    check(&config, 2, 150, 2).unwrap();
}

#[test]
fn sets_of_parameters() {
    let shapes = |parameters, merge| {
        let config = Mamba1Config { d_model: 32, directions: 4, parameters, merge, ..Default::default() };
        let vs = VarStore::new(Device::Cpu);
        Mamba1::new(&vs.root(), &config).unwrap();
        vs.variables().into_iter().map(|(name, t)| (name, t.size())).collect::<HashMap<_, _>>()
    };
    let own = shapes(Parameters::Own, Merge::Mean);
    assert_eq!(own["x_proj.weight"], [4, 34, 64]);
    assert_eq!((&own["A_log"], &own["conv1d.weight"]), (&vec![4, 64, 16], &vec![4, 64, 4]));
    let shared = shapes(Parameters::Shared, Merge::Concat);
    assert_eq!(shared["x_proj.weight"], [1, 34, 64]);
    assert_eq!((&shared["A_log"], &shared["out_proj.weight"]), (&vec![1, 64, 16], &vec![32, 256]));
    let decay = shapes(Parameters::Decay, Merge::Gated);
    assert_eq!((&decay["A_log"], &decay["D"]), (&vec![4, 64, 16], &vec![1, 64]));
    assert_eq!(decay["gate.weight"], [4, 256]);
}

#[test]
fn directions_that_share_parameters_and_orders_agree() {
    let orders = Orders::identity(9, 3);
    let x = Tensor::randn([2, 9, 8], (Kind::Float, Device::Cpu));
    let build = |directions, parameters| {
        let config = Mamba1Config { d_model: 8, directions, parameters, ..Default::default() };
        let vs = VarStore::new(Device::Cpu);
        let mixer = Mamba1::new(&vs.root(), &config).unwrap();
        (vs, mixer)
    };
    let (mut own, one) = build(1, Parameters::Own);
    let (shared, three) = build(3, Parameters::Shared);
    own.copy(&shared).unwrap();
    let one = one.forward(&x, &Orders::identity(9, 1)).unwrap();
    let three = three.forward(&x, &orders).unwrap();
    assert!(one.allclose(&three, 1e-5, 1e-6, false));
}

#[test]
fn autocast_keeps_step_sizes_and_states_in_f32() {
    let config = Mamba1Config { d_model: 64, directions: 2, ..Default::default() };
    let (vs, mixer) = perturbed(&config, 5);
    let plan = plan(48, 2, 4);
    let orders = Orders::new(&plan);
    let x = Tensor::randn([2, 48, 64], (Kind::Float, Device::Cpu));
    let exact = mixer.forward(&x, &orders).unwrap();
    let rounded = autocast(true, || mixer.forward(&x, &orders)).unwrap();
    assert_eq!((exact.kind(), rounded.kind()), (Kind::Float, Kind::BFloat16));
    let error = relative(&rounded, &exact.to_kind(Kind::Double));
    assert!(error > 0.0 && error < 2e-2, "bf16 is off by {error:.1e}");

    // What the step sizes are computed from is f32 within autocast: its gradients reach the weights
    // unrounded.
    let loss = autocast(true, || mixer.forward(&x, &orders)).unwrap().to_kind(Kind::Float).square();
    loss.sum(Kind::Float).backward();
    let rounded_to_bf16 =
        |t: &Tensor| t.allclose(&t.to_kind(Kind::BFloat16).to_kind(Kind::Float), 0.0, 0.0, false);
    let variables = vs.variables();
    assert!(!rounded_to_bf16(&variables["dt_proj.weight"].grad()));
    assert!(!rounded_to_bf16(&variables["A_log"].grad()));
    assert!(rounded_to_bf16(&variables["in_proj.weight"].grad()), "a product that autocast rounds");
}

#[test]
fn misfits_are_errors() {
    let config = Mamba1Config { d_model: 8, directions: 2, ..Default::default() };
    let vs = VarStore::new(Device::Cpu);
    let mixer = Mamba1::new(&vs.root(), &config).unwrap();
    let x = Tensor::zeros([1, 5, 8], (Kind::Float, Device::Cpu));
    let error = mixer.forward(&x, &Orders::identity(5, 3)).unwrap_err().to_string();
    assert!(error.contains("2 directions") && error.contains("3 orders"), "{error}");
    assert!(mixer.forward(&x, &Orders::identity(6, 2)).is_err());
    assert!(mixer.forward(&x.narrow(2, 0, 7), &Orders::identity(5, 2)).is_err());
    for (key, bad) in [
        ("d_state", Mamba1Config { d_state: 0, ..config.clone() }),
        ("expand", Mamba1Config { expand: 0.01, ..config.clone() }),
        ("expand", Mamba1Config { expand: f64::NAN, ..config.clone() }),
        ("dt_min", Mamba1Config { dt_min: 0.2, ..config.clone() }),
        ("dt_rank", Mamba1Config { dt_rank: DtRank::Rank(0), ..config.clone() }),
        ("dt_scale", Mamba1Config { dt_scale: -1.0, ..config.clone() }),
    ] {
        let error = Mamba1::new(&VarStore::new(Device::Cpu).root(), &bad).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}
