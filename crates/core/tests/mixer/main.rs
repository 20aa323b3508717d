//! The Mamba-1 and Mamba-2 mixers against their equations.

mod mamba2;
mod reference;

use std::collections::HashMap;

use ophidian_core::{
    layers::NormKind,
    mixer::{Channels, Coarse, Compat, ConvPlace, DtRank, Mamba1, Mamba1Config, Merge, Mixer, Parameters},
    ops::Orders,
    torch::autocast,
};
use ophidian_scan::{Blank, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

use self::reference::{Plans, Weights, reference};

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
    let scale = want.abs().max().double_value(&[]).max(1e-2);
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

fn check(config: &Mamba1Config, batch: i64, grid: [i64; 2], seed: u64) -> Result<(), TestCaseError> {
    let tokens = grid[0] * grid[1];
    let coarse = config.coarse.map(|coarse| {
        let [h, w] = grid.map(|n| (n - 1) / coarse.stride + 1);
        plan((h * w) as usize, coarse.directions as usize, seed + 1)
    });
    let plan = plan(tokens as usize, config.directions as usize, seed);
    // Of orders that visit every token once, some are written as others are.
    let permutes = plan.orders().iter().all(Order::is_permutation);
    let mut config = config.clone();
    config.compat.unordered_coefficients &= permutes;
    let config = &config;
    let written = (permutes && config.coarse.is_none() && seed % 4 == 1).then(|| plan.reversed());
    let plans = Plans { plan, grid, coarse, written };
    let (vs, mixer) = perturbed(config, seed as i64);
    let Both { out, want, gradients } =
        both(&mixer, &vs, &plans, [batch, tokens, config.d_model], |weights, x| {
            reference(weights, config, &plans, x)
        });

    // A norm of few channels divides by whatever small variance they happen to have.
    let norms = config.out_norm.is_some() || config.stages > 1 || config.merge == Merge::Search;
    let slack = if norms { 20.0 } else { 1.0 };
    let error = relative(&out, &want);
    prop_assert!(error < 1e-5 * slack, "out is off by {error:.1e}");
    for (name, got, want) in gradients {
        let error = relative(&got, &want);
        prop_assert!(error < 3e-5 * slack, "gradient of {name} is off by {error:.1e}");
    }
    Ok(())
}

/// What a mixer and its reference make of the same tokens.
struct Both {
    out: Tensor,
    want: Tensor,
    /// (name, ours, the reference's) of every parameter, then of the tokens, `x`.
    gradients: Vec<(String, Tensor, Tensor)>,
}

/// Runs `mixer` over random tokens of a shape, and `reference` in f64 over the same, both backwards from one cotangent.
fn both(
    mixer: &dyn Mixer,
    vs: &VarStore,
    plans: &Plans,
    shape: [i64; 3],
    reference: impl Fn(&Weights, &Tensor) -> Tensor,
) -> Both {
    let input = Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let cotangent = Tensor::randn(input.size(), (Kind::Float, Device::Cpu));
    let x = input.copy().set_requires_grad(true);
    let out = mixer.forward(&x, &plans.orders()).unwrap();
    (&out * &cotangent).sum(Kind::Float).backward();

    let wide = |t: &Tensor| t.detach().to_kind(Kind::Double).set_requires_grad(true);
    let weights: Weights = vs.variables().iter().map(|(name, t)| (name.clone(), wide(t))).collect();
    let x_wide = wide(&input);
    let want = reference(&weights, &x_wide);
    (&want * cotangent.to_kind(Kind::Double)).sum(Kind::Double).backward();
    let parameters = vs.variables().into_iter().map(|(name, t)| {
        let pair = (grad(&t), grad(&weights[&name]));
        (name, pair.0, pair.1)
    });
    let gradients = parameters.chain([("x".to_owned(), grad(&x), grad(&x_wide))]).collect();
    Both { out, want, gradients }
}

fn configs() -> impl Strategy<Value = Mamba1Config> {
    let parameters = prop_oneof![
        3 => Just(Parameters::Own),
        1 => Just(Parameters::Shared),
        1 => Just(Parameters::Decay)
    ];
    let merge = prop_oneof![
        Just(Merge::Sum),
        Just(Merge::Mean),
        Just(Merge::Concat),
        Just(Merge::Gated),
        Just(Merge::ChannelGate),
        Just(Merge::Search)
    ];
    let conv =
        prop_oneof![2 => Just(ConvPlace::Along), 2 => Just(ConvPlace::Grid), 1 => Just(ConvPlace::None)];
    let norm = prop_oneof![2 => Just(None), 1 => Just(Some(NormKind::Layer)), 1 => Just(Some(NormKind::Rms))];
    let channels =
        prop_oneof![3 => Just(Channels::All), 1 => Just(Channels::Split), 1 => Just(Channels::Grouped)];
    let coarse = (1..4i64, 0..3i64, 1..3i64).prop_map(|(directions, half, stride)| Coarse {
        directions,
        taps: 2 * half + 1,
        stride,
    });
    let parts =
        (conv, norm, channels, prop::option::weighted(0.3, coarse), prop::option::weighted(0.3, 2..4i64));
    let flags = (any::<bool>(), any::<bool>(), prop_oneof![Just(1.0), Just(2.0), Just(1.5)]);
    let compat = prop_oneof![
        5 => Just([false; 3]),
        1 => Just([true, true, false]),
        1 => Just([false, true, false]),
        2 => Just([false, false, true])
    ];
    let more = (any::<bool>(), any::<bool>(), any::<bool>(), compat);
    let sizes = (1..9i64, 1..5i64, 1..9i64, 1..6i64, 1..4i64);
    (parameters, merge, flags, parts, more, sizes).prop_map(
        |(parameters, merge, flags, parts, more, sizes)| {
            let (bias, conv_bias, expand) = flags;
            let (conv, out_norm, channels, coarse, stages) = parts;
            let (gate, norm_each, step_embedding, compat) = more;
            let [unordered_coefficients, double_dt_bias, mirrored_channels] = compat;
            let (d_model, mut directions, d_state, d_conv, rank) = sizes;
            directions *= stages.unwrap_or(1);
            // A norm over one channel is constant, and a group of channels has more than one.
            let norms = out_norm.is_some() || stages.is_some() || merge == Merge::Search;
            let least = if norms { 4 } else { 1 };
            let d_model = if channels == Channels::Grouped {
                directions * d_model.max(least)
            } else {
                d_model.max(least)
            };
            let mut config = Mamba1Config {
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
                conv,
                out_norm,
                out_norm_eps: 1e-3,
                norm_each,
                gate,
                step_embedding,
                channels,
                stages: stages.unwrap_or(1),
                coarse,
                compat: Compat { unordered_coefficients, double_dt_bias, mirrored_channels },
                ..Mamba1Config::default()
            };
            // What does not go together is left out, one after another.
            if config.conv == ConvPlace::Grid && config.d_conv % 2 == 0 {
                config.d_conv += 1;
            }
            if config.channels == Channels::Grouped {
                config.merge = Merge::Concat;
            }
            if config.coarse.is_some() && config.d_state > 3 {
                // A coarse map needs much else to be plain.
                let d_conv = config.d_conv | 1;
                config = Mamba1Config {
                    conv: ConvPlace::Grid,
                    d_conv,
                    channels: Channels::All,
                    stages: 1,
                    merge: Merge::Sum,
                    parameters: Parameters::Own,
                    step_embedding: false,
                    compat: Compat::default(),
                    ..config
                };
            }
            if config.check().is_err() {
                config.coarse = None;
            }
            if config.check().is_err() {
                config.compat = Compat::default();
            }
            if config.check().is_err() {
                config.stages = 1;
            }
            if config.check().is_err() {
                config.parameters = Parameters::Own;
            }
            if config.check().is_err() {
                config.merge = Merge::Concat;
            }
            config
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_its_equations(
        config in configs(), batch in 1..4i64, grid in (1..5i64, 1..6i64), seed in 0..10_000u64
    ) {
        check(&config, batch, [grid.0, grid.1], seed)?;
    }
}

/// A sequence longer than a chunk of the scan, and channels beyond a vector.
/// One token and one direction: some of these plans have no step that happens.
#[test]
fn an_order_may_skip_all_of_its_steps() {
    let config = Mamba1Config { d_model: 2, parameters: Parameters::Decay, ..Mamba1Config::default() };
    for seed in 2590..2610 {
        check(&config, 1, [1, 1], seed).unwrap();
    }
}

#[test]
fn equals_its_equations_at_size() {
    let config = Mamba1Config { d_model: 20, directions: 3, ..Mamba1Config::default() };
    check(&config, 2, [10, 15], 2).unwrap();
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
    assert_eq!(decay["gate.weight"], [4, 128]);
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
        ("out_norm_eps", Mamba1Config { out_norm_eps: 0.0, ..config.clone() }),
        ("d_conv", Mamba1Config { conv: ConvPlace::Grid, ..config.clone() }),
        ("cascade", Mamba1Config { conv: ConvPlace::None, stages: 3, ..config.clone() }),
        ("cascade", Mamba1Config { stages: 2, ..config.clone() }),
        ("channels", Mamba1Config { channels: Channels::Grouped, ..config.clone() }),
        ("d_model", Mamba1Config { d_model: 9, channels: Channels::Grouped, ..config.clone() }),
        (
            "parameters",
            Mamba1Config { channels: Channels::Split, parameters: Parameters::Decay, ..config.clone() },
        ),
        (
            "parameters",
            Mamba1Config {
                parameters: Parameters::Decay,
                compat: Compat { mirrored_channels: true, ..Compat::default() },
                ..config.clone()
            },
        ),
        (
            "coarse",
            Mamba1Config { coarse: Some(Coarse { directions: 1, taps: 3, stride: 2 }), ..config.clone() },
        ),
        (
            "mirrored_channels",
            Mamba1Config {
                gate: false,
                compat: Compat { mirrored_channels: true, ..Compat::default() },
                ..config.clone()
            },
        ),
    ] {
        let error = Mamba1::new(&VarStore::new(Device::Cpu).root(), &bad).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}

#[test]
fn a_grid_that_is_missing_or_does_not_fit_is_an_error() {
    let config = Mamba1Config { d_model: 8, conv: ConvPlace::Grid, d_conv: 3, ..Default::default() };
    let mixer = Mamba1::new(&VarStore::new(Device::Cpu).root(), &config).unwrap();
    let x = Tensor::zeros([1, 6, 8], (Kind::Float, Device::Cpu));
    let orders = Orders::identity(6, 1);
    let error = |orders: &Orders| mixer.forward(&x, orders).unwrap_err().to_string();
    assert!(error(&orders).contains("grid"), "{}", error(&orders));
    let wrong = orders.clone().on_grid([2, 4]);
    assert!(error(&wrong).contains("[2, 4]") && error(&wrong).contains("6 tokens"), "{}", error(&wrong));
    assert!(mixer.forward(&x, &orders.clone().on_grid([3, 2])).is_ok());
    assert!(mixer.forward(&x, &orders.clone().on_grid([3, 1, 2])).is_ok(), "frames by frames");

    let coarse = Coarse { directions: 2, taps: 3, stride: 2 };
    let config = Mamba1Config { coarse: Some(coarse), merge: Merge::Sum, ..config };
    let mixer = Mamba1::new(&VarStore::new(Device::Cpu).root(), &config).unwrap();
    let error = |orders: &Orders| mixer.forward(&x, orders).unwrap_err().to_string();
    let orders = orders.on_grid([3, 2]);
    assert!(error(&orders).contains("with_coarse"), "{}", error(&orders));
    let few = orders.clone().with_coarse(Orders::identity(2, 1));
    assert!(error(&few).contains("2 directions"), "{}", error(&few));
    assert!(mixer.forward(&x, &orders.with_coarse(Orders::identity(2, 2))).is_ok());
}

#[test]
fn what_a_step_embedding_and_orders_written_elsewhere_refuse() {
    let config = Mamba1Config { d_model: 8, step_embedding: true, ..Default::default() };
    let mixer = Mamba1::new(&VarStore::new(Device::Cpu).root(), &config).unwrap();
    let x = Tensor::zeros([1, 4, 8], (Kind::Float, Device::Cpu));
    let plan = |index: &[i32]| Plan::new(vec![Order::new(index.to_vec(), 4).unwrap()]).unwrap();
    let twice = Orders::new(&plan(&[0, 1, 1, 2])).on_grid([2, 2]);
    let error = mixer.forward(&x, &twice).unwrap_err().to_string();
    assert!(error.contains("token 1 twice"), "{error}");

    let all = Orders::new(&plan(&[3, 1, 0, 2]));
    assert!(all.clone().written_as(&Orders::identity(4, 1)).is_ok());
    for other in [Orders::identity(4, 2), Orders::identity(5, 1), twice] {
        assert!(all.clone().written_as(&other).is_err());
    }
}
