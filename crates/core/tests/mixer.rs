//! The Mamba-1 mixer against its equations, written out plainly: tokens gathered by order, a loop over time,
//! f64.

use std::collections::HashMap;

use ophidian_core::{
    layers::NormKind,
    mixer::{Channels, Coarse, ConvPlace, DtRank, Mamba1, Mamba1Config, Merge, Mixer, Parameters},
    ops::Orders,
    torch::autocast,
};
use ophidian_scan::{Blank, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

type Weights = HashMap<String, Tensor>;

/// The steps that happen (a blank that is skipped does not): token, -1 for a blank, and whether the state starts afresh.
fn steps(order: &Order) -> Vec<(i32, bool)> {
    let mut reset = false;
    let mut steps = vec![];
    for (&token, &r) in order.index().iter().zip(order.resets()) {
        reset |= r;
        if token >= 0 || order.blank() == Blank::Zero {
            steps.push((token, std::mem::take(&mut reset)));
        }
    }
    steps
}

/// Row k of a parameter, or its only one.
fn row(weights: &Weights, name: &str, k: i64) -> Tensor {
    let all = &weights[name];
    all.select(0, k.min(all.size()[0] - 1))
}

/// u of each step of a convolution along an order.
fn conv_along(weights: &Weights, config: &Mamba1Config, k: i64, order: &Order, x: &Tensor) -> Vec<Tensor> {
    let (b, _, d) = x.size3().unwrap();
    let zero = Tensor::zeros([b, d], F64);
    let mut window: Vec<Tensor> = (0..config.d_conv).map(|_| zero.shallow_clone()).collect();
    let step = |(at, reset): (i32, bool)| {
        if reset {
            window.iter_mut().for_each(|row| *row = zero.shallow_clone());
        }
        drop(window.remove(0));
        window.push(if at < 0 { zero.shallow_clone() } else { x.select(1, i64::from(at)) });
        let taps = window.iter().enumerate();
        let taps = taps.map(|(tap, input)| input * row(weights, "conv1d.weight", k).select(1, tap as i64));
        let bias = if config.conv_bias { row(weights, "conv1d.bias", k) } else { zero.shallow_clone() };
        taps.fold(bias, |sum, term| sum + term).silu()
    };
    steps(order).into_iter().map(step).collect()
}

/// A depthwise convolution over the map, tap by tap: (B, L, C).
fn conv_grid(weights: &Weights, name: &str, x: &Tensor, grid: [i64; 2], stride: i64) -> (Tensor, [i64; 2]) {
    let (b, _, c) = x.size3().unwrap();
    let weight = weights[&format!("{name}.weight")].flatten(0, 1); // (C, W, W)
    let (taps, [h, w]) = (weight.size()[2], grid);
    let half = taps / 2;
    let map = x.transpose(1, 2).reshape([b, c, h, w]).constant_pad_nd([half; 4]);
    let out = [h, w].map(|n| (n + 2 * half - taps) / stride + 1);
    let mut sum = match weights.get(&format!("{name}.bias")) {
        Some(bias) => bias.reshape([1, c, 1, 1]).expand([b, c, out[0], out[1]], false),
        None => Tensor::zeros([b, c, out[0], out[1]], F64),
    };
    for i in 0..taps {
        for j in 0..taps {
            let rows = map.slice(2, i, i + (out[0] - 1) * stride + 1, stride);
            let cells = rows.slice(3, j, j + (out[1] - 1) * stride + 1, stride);
            sum = sum + cells * weight.select(2, j).select(1, i).view([1, c, 1, 1]);
        }
    }
    (sum.flatten(2, 3).transpose(1, 2).silu(), out)
}

/// 0 start, 1 right, 2 left, 3 up, 4 down.
fn way(from: Option<i64>, to: i64, columns: i64) -> i64 {
    let Some(from) = from else { return 0 };
    let (right, down) = (to % columns - from % columns, to / columns - from / columns);
    if right == 0 && down == 0 {
        0
    } else if right.abs() >= down.abs() {
        if right > 0 { 1 } else { 2 }
    } else if down < 0 {
        3
    } else {
        4
    }
}

/// The recurrence of parameter set k over the steps of `order`, u being given step by step, from `state`: y by token
/// (B, L, D) and the last state.
fn recurrence(
    weights: &Weights,
    config: &Mamba1Config,
    k: i64,
    order: &Order,
    u: &[Tensor],
    state: Option<Tensor>,
    columns: i64,
) -> (Tensor, Tensor) {
    let (b, d) = u[0].size2().unwrap();
    let (n, r) = (config.d_state, config.rank());
    let get = |name: &str| row(weights, name, k);
    let a = -get("A_log").exp();
    let mut y: Vec<Tensor> = (0..order.tokens()).map(|_| Tensor::zeros([b, d], F64)).collect();
    let mut h = state.unwrap_or_else(|| Tensor::zeros([b, d, n], F64));
    let mut last = None;
    for ((at, reset), u) in steps(order).into_iter().zip(u) {
        let projected = u.matmul(&get("x_proj.weight").tr());
        let delta = projected.narrow(1, 0, r).matmul(&get("dt_proj.weight").tr());
        let dt = (delta + get("dt_proj.bias")).softplus();
        let mut bt = projected.narrow(1, r, n);
        if reset {
            h = h.zeros_like();
            last = None;
        }
        if config.step_embedding {
            let way = if at < 0 { 0 } else { way(last, i64::from(at), columns) };
            bt = bt + weights["step_embedding"].select(0, way);
        }
        h = (dt.unsqueeze(2) * &a).exp() * h + (&dt * u).unsqueeze(2) * bt.unsqueeze(1);
        if at >= 0 {
            let ct = projected.narrow(1, r + n, n);
            y[at as usize] = (&h * ct.unsqueeze(1)).sum_dim_intlist(2, false, Kind::Double) + u * get("D");
            last = Some(i64::from(at));
        }
    }
    (Tensor::stack(&y, 1), h)
}

fn norm(weights: &Weights, config: &Mamba1Config, y: &Tensor, group: Option<i64>) -> Tensor {
    let Some(kind) = config.out_norm else { return y.shallow_clone() };
    let part = |name: &str| {
        let all = &weights[&format!("out_norm.{name}")];
        group.map_or_else(|| all.shallow_clone(), |g| all.select(0, g))
    };
    let mean = y.mean_dim(-1, true, Kind::Double);
    let centred = if kind == NormKind::Layer { y - mean } else { y.shallow_clone() };
    let scale = (centred.square().mean_dim(-1, true, Kind::Double) + config.out_norm_eps).rsqrt();
    let y = centred * scale * part("weight");
    if kind == NormKind::Layer { y + part("bias") } else { y }
}

fn linear(weights: &Weights, name: &str, x: &Tensor, group: Option<i64>) -> Tensor {
    let part = |t: &Tensor| group.map_or_else(|| t.shallow_clone(), |g| t.select(0, g));
    let out = x.matmul(&part(&weights[&format!("{name}.weight")]).tr());
    match weights.get(&format!("{name}.bias")) {
        Some(bias) => out + part(bias),
        None => out,
    }
}

fn add_up(ys: &[Tensor]) -> Tensor {
    ys.iter().map(Tensor::shallow_clone).reduce(|a, b| a + b).unwrap()
}

fn merged(weights: &Weights, config: &Mamba1Config, ys: &[Tensor]) -> Tensor {
    match config.merge {
        Merge::Sum => add_up(ys),
        Merge::Mean => add_up(ys) / ys.len() as f64,
        Merge::Concat => Tensor::cat(ys, 2),
        Merge::Gated => {
            let mean = |y: &Tensor| linear(weights, "out_proj", &y.mean_dim(1, false, Kind::Double), None);
            let means: Vec<Tensor> = ys.iter().map(mean).collect();
            let gate = Tensor::cat(&means, 1).matmul(&weights["gate.weight"].tr()).softmax(1, Kind::Double);
            let weighed = ys.iter().enumerate().map(|(k, y)| y * gate.select(1, k as i64).view([-1, 1, 1]));
            weighed.reduce(|a, b| a + b).unwrap()
        }
        Merge::ChannelGate => {
            let gated = |y: &Tensor| {
                let mean = y.mean_dim(-1, true, Kind::Double);
                let variance = (y - &mean).square().mean_dim(-1, true, Kind::Double);
                let normed =
                    (y - mean) * (variance + 1e-5).rsqrt() * &weights["norm.weight"] + &weights["norm.bias"];
                let inner = linear(weights, "reduce", &normed.mean_dim(1, true, Kind::Double), None);
                let inner = &inner * 0.5 * (1.0 + (&inner / 2f64.sqrt()).erf());
                y * linear(weights, "select", &inner, None).sigmoid()
            };
            add_up(&ys.iter().map(gated).collect::<Vec<_>>())
        }
    }
}

/// A plan, the sizes of its grid and the plan of the coarse map.
struct Plans {
    plan: Plan,
    grid: [i64; 2],
    coarse: Option<Plan>,
}

impl Plans {
    fn orders(&self) -> Orders {
        let orders = Orders::new(&self.plan).on_grid(self.grid);
        match &self.coarse {
            Some(coarse) => orders.with_coarse(Orders::new(coarse)),
            None => orders,
        }
    }
}

fn reference(weights: &Weights, config: &Mamba1Config, plans: &Plans, tokens: &Tensor) -> Tensor {
    let (d, orders) = (config.d_inner(), plans.plan.orders());
    let (split, grouped) = (config.channels != Channels::All, config.channels == Channels::Grouped);
    let width = config.d_model / config.directions;
    // (x, z) of each direction.
    let pairs: Vec<(Tensor, Option<Tensor>)> = (0..config.directions)
        .map(|k| {
            let per = if config.gate { 2 * d } else { d };
            let xz = if grouped {
                linear(weights, "in_proj", &tokens.narrow(2, k * width, width), Some(k))
            } else {
                linear(weights, "in_proj", tokens, None).narrow(2, if split { k * per } else { 0 }, per)
            };
            (xz.narrow(2, 0, d), config.gate.then(|| xz.narrow(2, d, d)))
        })
        .collect();
    let at_steps = |u: &Tensor, order: &Order| -> Vec<Tensor> {
        let zero = u.select(1, 0).zeros_like();
        let step = |at: i32| if at < 0 { zero.shallow_clone() } else { u.select(1, i64::from(at)) };
        steps(order).into_iter().map(|(at, _)| step(at)).collect()
    };
    // u of each direction, step by step.
    let mut u: Vec<Vec<Tensor>> = match config.conv {
        ConvPlace::Along if config.parameters == Parameters::Decay => {
            let first = conv_along(weights, config, 0, &orders[0], &pairs[0].0);
            let mut by_token: Vec<Tensor> = (0..orders[0].tokens()).map(|_| first[0].zeros_like()).collect();
            for ((at, _), u) in steps(&orders[0]).into_iter().zip(&first) {
                if at >= 0 {
                    by_token[at as usize] = u.shallow_clone();
                }
            }
            let by_token = Tensor::stack(&by_token, 1);
            orders.iter().map(|order| at_steps(&by_token, order)).collect()
        }
        ConvPlace::Along => (0..orders.len())
            .map(|k| conv_along(weights, config, k as i64, &orders[k], &pairs[k].0))
            .collect(),
        ConvPlace::Grid => {
            let all = if split {
                Tensor::cat(&pairs.iter().map(|(x, _)| x).collect::<Vec<_>>(), 2)
            } else {
                pairs[0].0.shallow_clone()
            };
            let all = conv_grid(weights, "conv2d", &all, plans.grid, 1).0;
            (0..orders.len())
                .map(|k| at_steps(&all.narrow(2, if split { k as i64 * d } else { 0 }, d), &orders[k]))
                .collect()
        }
        ConvPlace::None => (0..orders.len()).map(|k| at_steps(&pairs[k].0.silu(), &orders[k])).collect(),
    };
    let direct = config.out_norm.is_none() && config.stages == 1 && config.coarse.is_none();
    let per = orders.len() / config.stages as usize;
    let mut y = Tensor::new();
    for stage in 0..config.stages as usize {
        let range = stage * per..(stage + 1) * per;
        if stage > 0 || config.stages > 1 {
            let plain = |y: &Tensor| y.layer_norm([d], None::<Tensor>, None::<Tensor>, 1e-5, false);
            for k in range.clone() {
                // The first stage normalises what the convolution left, step by step, blanks (zero) included.
                u[k] = if stage > 0 {
                    at_steps(&plain(&y), &orders[k])
                } else {
                    u[k].iter().map(plain).collect()
                };
            }
        }
        let ys: Vec<Tensor> = range
            .map(|k| {
                let set = k as i64 + i64::from(config.coarse.is_some());
                let y = recurrence(weights, config, set, &orders[k], &u[k], None, plans.grid[1]).0;
                let y = match &pairs[k].1 {
                    Some(z) if direct => y * z.silu(),
                    _ => y,
                };
                if config.norm_each { norm(weights, config, &y, grouped.then_some(k as i64)) } else { y }
            })
            .collect();
        y = merged(weights, config, &ys);
    }
    if grouped {
        let outs: Vec<Tensor> = (0..config.directions)
            .map(|k| {
                let mut y = y.narrow(2, k * d, d);
                if !config.norm_each {
                    y = norm(weights, config, &y, Some(k));
                }
                match &pairs[k as usize].1 {
                    Some(z) if !direct => y = y * z.silu(),
                    _ => {}
                }
                linear(weights, "out_proj", &y, Some(k))
            })
            .collect();
        return Tensor::cat(&outs, 2);
    }
    if !config.norm_each {
        y = norm(weights, config, &y, None);
    }
    if let (Some(coarse), Some(plan)) = (config.coarse, &plans.coarse) {
        let (low, [h, w]) = conv_grid(weights, "coarse", &pairs[0].0, plans.grid, coarse.stride);
        let mut state = None;
        let mut ys = vec![];
        for order in plan.orders() {
            let (y, last) = recurrence(weights, config, 0, order, &at_steps(&low, order), state, w);
            ys.push(if config.norm_each { norm(weights, config, &y, None) } else { y });
            state = Some(last);
        }
        let map = add_up(&ys).transpose(1, 2).reshape([-1, d, h, w]);
        let map = map.upsample_bilinear2d(plans.grid, false, None, None);
        y = y + map.flatten(2, 3).transpose(1, 2);
    }
    if !direct && config.gate {
        let zs: Vec<Tensor> = pairs.iter().map(|(_, z)| z.as_ref().unwrap().silu()).collect();
        y = match (config.merge, split) {
            (Merge::Concat, _) => y * Tensor::cat(&zs, 2),
            _ => y * &zs[0],
        };
    }
    linear(weights, "out_proj", &y, None)
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
    let plans = Plans { plan, grid, coarse };
    let (vs, mixer) = perturbed(config, seed as i64);
    let input = Tensor::randn([batch, tokens, config.d_model], (Kind::Float, Device::Cpu));
    let cotangent = Tensor::randn(input.size(), (Kind::Float, Device::Cpu));

    let x = input.copy().set_requires_grad(true);
    let out = mixer.forward(&x, &plans.orders()).unwrap();
    (&out * &cotangent).sum(Kind::Float).backward();

    let wide = |t: &Tensor| t.detach().to_kind(Kind::Double).set_requires_grad(true);
    let weights: Weights = vs.variables().iter().map(|(name, t)| (name.clone(), wide(t))).collect();
    let x_wide = wide(&input);
    let want = reference(&weights, config, &plans, &x_wide);
    (&want * cotangent.to_kind(Kind::Double)).sum(Kind::Double).backward();

    // A norm of few channels divides by whatever small variance they happen to have.
    let slack = if config.out_norm.is_some() || config.stages > 1 { 20.0 } else { 1.0 };
    let error = relative(&out, &want);
    prop_assert!(error < 1e-5 * slack, "out is off by {error:.1e}");
    let error = relative(&grad(&x), &grad(&x_wide));
    prop_assert!(error < 3e-5 * slack, "gradient of x is off by {error:.1e}");
    for (name, tensor) in vs.variables() {
        let error = relative(&grad(&tensor), &grad(&weights[&name]));
        prop_assert!(error < 3e-5 * slack, "gradient of {name} is off by {error:.1e}");
    }
    Ok(())
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
        Just(Merge::ChannelGate)
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
    let more = (any::<bool>(), any::<bool>(), any::<bool>());
    let sizes = (1..9i64, 1..5i64, 1..9i64, 1..6i64, 1..4i64);
    (parameters, merge, flags, parts, more, sizes).prop_map(
        |(parameters, merge, flags, parts, more, sizes)| {
            let (bias, conv_bias, expand) = flags;
            let (conv, out_norm, channels, coarse, stages) = parts;
            let (gate, norm_each, step_embedding) = more;
            let (d_model, mut directions, d_state, d_conv, rank) = sizes;
            directions *= stages.unwrap_or(1);
            // A norm over one channel is constant, and a group of channels has more than one.
            let least = if out_norm.is_some() || stages.is_some() { 4 } else { 1 };
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
                    ..config
                };
            }
            if config.check().is_err() {
                config.coarse = None;
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
    ] {
        let error = Mamba1::new(&VarStore::new(Device::Cpu).root(), &bad).unwrap_err().to_string();
        assert!(error.contains(key), "{key}: {error}");
    }
}
