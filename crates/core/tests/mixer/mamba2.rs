//! The Mamba-2 mixer against its equations: tokens gathered by order, a loop over time, f64.

use ophidian_core::{
    mixer::{
        Channels, Coarse, Compat, ConvPlace, Mamba1Config, Mamba2, Mamba2Config, Mamba2Options, Merge, Mixer,
        Parameters,
    },
    ops::Orders,
    torch::autocast,
};
use ophidian_scan::Order;
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{
    Both, both, configs, plan,
    reference::{
        F64, Plans, Weights, add_up, at_steps, conv_along, conv_grid, conv_once, linear, merged, refined,
        row, steps, way,
    },
    relative,
};

/// The recurrence of parameter set `set` over the steps of `order`, from `state`: y by token (B, L, D) and the last state.
/// `mixed` is x, B and C step by step, `dt` is by token.
fn recurrence(
    weights: &Weights,
    config: &Mamba2Config,
    (set, order): (i64, &Order),
    (mixed, dt): (&[Tensor], &Tensor),
    state: Option<Tensor>,
    columns: i64,
) -> (Tensor, Tensor) {
    let (h, p, n, g) = (config.heads(), config.headdim(), config.d_state, config.options.ngroups);
    let b = dt.size()[0];
    let a = -row(weights, "A_log", set).exp();
    let skip = row(weights, "D", set).view([h, -1]).expand([h, p], false);
    let [low, high] = config.options.dt_limit;
    let mut y: Vec<Tensor> = (0..order.tokens()).map(|_| Tensor::zeros([b, h * p], F64)).collect();
    let mut state = state.unwrap_or_else(|| Tensor::zeros([b, h, p, n], F64));
    let (mut last, dts) = (None, at_steps(dt, order));
    for (((at, reset), mixed), dt) in steps(order).into_iter().zip(mixed).zip(dts) {
        if reset {
            state = state.zeros_like();
            last = None;
        }
        let x = mixed.narrow(1, 0, h * p).view([b, h, p]);
        let mut bt = mixed.narrow(1, h * p, g * n);
        if config.step_embedding {
            let way = if at < 0 { 0 } else { way(last, i64::from(at), columns) };
            bt = &bt + weights["step_embedding"].select(0, way);
        }
        let spread = |t: &Tensor| t.view([b, g, 1, n]).expand([b, g, h / g, n], false).reshape([b, h, 1, n]);
        let dt = (dt + row(weights, "dt_bias", set)).softplus().clamp(low, high).view([b, h, 1, 1]);
        state = (&dt * a.view([h, 1, 1])).exp() * state + dt * x.unsqueeze(3) * spread(&bt);
        if at >= 0 {
            let c = spread(&mixed.narrow(1, h * p + g * n, g * n));
            let read = (&state * c).sum_dim_intlist(3, false, Kind::Double);
            y[at as usize] = (read + x * &skip).view([b, h * p]);
            last = Some(i64::from(at));
        }
    }
    (Tensor::stack(&y, 1), state)
}

/// The gated norm of one direction, with row `k` of its weights if each has one.
fn normed(weights: &Weights, config: &Mamba2Config, y: &Tensor, z: Option<&Tensor>, k: i64) -> Tensor {
    let (d, options) = (config.d_inner(), &config.options);
    let gate = |y: &Tensor| z.map_or_else(|| y.shallow_clone(), |z| y * z.silu());
    if !options.rmsnorm {
        return gate(y);
    }
    let x = if options.norm_before_gate { y.shallow_clone() } else { gate(y) };
    let groups = x.unflatten(2, [options.ngroups, d / options.ngroups]);
    let square = groups.square().mean_dim(3, true, Kind::Double) + config.norm_eps;
    let x = (groups / square.sqrt()).flatten(2, 3) * row(&rows_of(weights, d), "norm.weight", k);
    if options.norm_before_gate { gate(&x) } else { x }
}

/// The norm's weight by rows of `d`.
fn rows_of(weights: &Weights, d: i64) -> Weights {
    Weights::from([("norm.weight".to_owned(), weights["norm.weight"].view([-1, d]))])
}

/// The mean over what each tap window covers of a map, (B, L, C).
fn means(x: &Tensor, [rows, columns]: [i64; 2], coarse: Coarse) -> Tensor {
    let c = x.size()[2];
    let map = x.transpose(1, 2).reshape([x.size()[0], c, rows, columns]);
    let ones = Tensor::ones([c, 1, coarse.taps, coarse.taps], F64);
    let sum = |t: &Tensor| t.conv2d(&ones, None::<Tensor>, coarse.stride, coarse.taps / 2, 1, c);
    (sum(&map) / sum(&map.ones_like())).flatten(2, 3).transpose(1, 2)
}

fn reference(weights: &Weights, config: &Mamba2Config, plans: &Plans, tokens: &Tensor) -> Tensor {
    let (d, h, orders) = (config.d_inner(), config.heads(), plans.plan.orders());
    let (directions, own) = (config.directions, 2 * config.options.ngroups * config.d_state);
    let (split, grouped) = (config.channels != Channels::All, config.channels == Channels::Grouped);
    let s = if config.parameters == Parameters::Own && !split { directions } else { 1 };
    let extra = i64::from(config.coarse.is_some());
    let widths = [if config.gate { d } else { 0 }, d + s * own, s * h, extra * own, extra * h];
    let (total, width) = (widths.iter().sum::<i64>(), config.d_model / directions);
    // z, (x, B, C), dt, and B, C, dt of a coarse map, for each direction.
    let rows: Vec<Vec<Tensor>> = (0..directions)
        .map(|k| {
            let made = if grouped {
                linear(weights, "in_proj", &tokens.narrow(2, k * width, width), Some(k))
            } else {
                linear(weights, "in_proj", tokens, None).narrow(2, if split { k * total } else { 0 }, total)
            };
            made.split_with_sizes(widths, 2)
        })
        .collect();
    // What a direction reads of what all have, set by set.
    let part = |t: &Tensor, k: i64, size: i64| t.narrow(2, if s > 1 { k * size } else { 0 }, size);
    let chosen = |xbc: &Tensor, k: i64| {
        Tensor::cat(&[xbc.narrow(2, 0, d), part(&xbc.narrow(2, d, s * own), k, own)], 2)
    };
    let over_grid = (config.conv == ConvPlace::Grid).then(|| {
        let all: Vec<&Tensor> =
            rows.iter().map(|row| &row[1]).take(if split { rows.len() } else { 1 }).collect();
        conv_grid(weights, "conv2d", &Tensor::cat(&all, 2), plans.grid, 1).0
    });
    let mixed = |k: i64| -> Vec<Tensor> {
        let (xbc, order) = (&rows[k as usize][1], &orders[k as usize]);
        match (&over_grid, config.conv) {
            (Some(all), _) => {
                let size = d + s * own;
                at_steps(&chosen(&all.narrow(2, if split { k * size } else { 0 }, size), k), order)
            }
            (_, ConvPlace::None) => at_steps(&chosen(xbc, k).silu(), order),
            _ if config.parameters == Parameters::Decay => {
                at_steps(&conv_once(weights, &orders[0], &chosen(xbc, k)), order)
            }
            _ => conv_along(weights, k, order, &chosen(xbc, k)),
        }
    };
    let z = |k: usize| config.gate.then_some(&rows[k][0]);
    let each = config.norm_each && config.options.rmsnorm;
    let direct = !config.options.rmsnorm && config.coarse.is_none() && config.squeeze.is_none();
    let ys: Vec<Tensor> = (0..directions)
        .map(|k| {
            let (row, order) = (&rows[k as usize], &orders[k as usize]);
            let dt = part(&row[2], k, h);
            let y = recurrence(weights, config, (k, order), (&mixed(k), &dt), None, plans.grid[1]).0;
            if each {
                normed(weights, config, &y, None, k)
            } else if direct {
                normed(weights, config, &y, z(k as usize), k)
            } else {
                y
            }
        })
        .collect();
    let mut y = merged(weights, config.merge, "merge.", &ys);
    if let (Some(coarse), Some(plan)) = (config.coarse, &plans.coarse) {
        let xbc = Tensor::cat(&[&rows[0][1].narrow(2, 0, d), &rows[0][3]], 2);
        let (low, [h, w]) = conv_grid(weights, "coarse", &xbc, plans.grid, coarse.stride);
        let dt = means(&rows[0][4], plans.grid, coarse);
        let (mut state, mut ys) = (None, vec![]);
        for order in plan.orders() {
            let steps = at_steps(&low, order);
            let (y, last) = recurrence(weights, config, (directions, order), (&steps, &dt), state, w);
            ys.push(if each { normed(weights, config, &y, None, 0) } else { y });
            state = Some(last);
        }
        y = &y + refined(&add_up(&ys), [h, w], plans.grid);
    }
    if config.squeeze.is_some() {
        let inner = linear(weights, "squeeze.reduce", &y.mean_dim(1, true, Kind::Double), None).relu();
        y = &y * linear(weights, "squeeze.select", &inner, None).sigmoid();
    }
    let count = y.size()[2] / d;
    let parts: Vec<Tensor> = (0..count)
        .map(|k| {
            let (y, z) = (y.narrow(2, k * d, d), z(if split { k as usize } else { 0 }));
            match z {
                _ if direct => y,
                Some(z) if each => y * z.silu(),
                None if each => y,
                z => normed(weights, config, &y, z, k),
            }
        })
        .collect();
    if grouped {
        let out = |(k, y): (usize, &Tensor)| linear(weights, "out_proj", y, Some(k as i64));
        return Tensor::cat(&parts.iter().enumerate().map(out).collect::<Vec<_>>(), 2);
    }
    linear(weights, "out_proj", &Tensor::cat(&parts, 2), None)
}

fn check(config: &Mamba2Config, batch: i64, grid: [i64; 2], seed: u64) -> Result<(), TestCaseError> {
    let tokens = grid[0] * grid[1];
    let coarse = config.coarse.map(|coarse| {
        let [h, w] = grid.map(|n| (n - 1) / coarse.stride + 1);
        plan((h * w) as usize, coarse.directions as usize, seed + 1)
    });
    let plans =
        Plans { plan: plan(tokens as usize, config.directions as usize, seed), grid, coarse, written: None };
    tch::manual_seed(seed as i64);
    let vs = VarStore::new(Device::Cpu);
    let mixer = Mamba2::new(&vs.root(), config).unwrap();
    tch::no_grad(|| {
        for mut variable in vs.trainable_variables() {
            let noise = variable.randn_like() * 0.1;
            let _ = variable.g_add_(&noise);
        }
        // Larger steps, so that the state matters.
        let _ = vs.variables()["dt_bias"].shallow_clone().g_add_scalar_(2.5);
    });
    let Both { out, want, gradients } =
        both(&mixer, &vs, &plans, [batch, tokens, config.d_model], |weights, x| {
            reference(weights, config, &plans, x)
        });

    // A norm of few channels divides by whatever small square they happen to have.
    let slack = if config.options.rmsnorm { 20.0 } else { 1.0 };
    let error = relative(&out, &want);
    prop_assert!(error < 1e-5 * slack, "out is off by {error:.1e}");
    let largest = gradients.iter().map(|(_, _, want)| want.abs().max().double_value(&[])).fold(0.0, f64::max);
    for (name, got, want) in gradients {
        // A few numbers that many steps of both signs add up to are as exact as what they are made of.
        let few = ["D", "A_log", "dt_bias"].contains(&name.as_str());
        let size = want.abs().max().double_value(&[]).max(if few { 0.1 * largest } else { 1e-2 });
        let error = (got.to_kind(Kind::Double) - want).abs().max().double_value(&[]) / size;
        prop_assert!(error < 3e-5 * slack, "gradient of {name} is off by {error:.1e}");
    }
    Ok(())
}

/// Of what both mixers can be told, and what Mamba-2 alone can.
fn any_config() -> impl Strategy<Value = Mamba2Config> {
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<bool>());
    let limits = prop_oneof![2 => Just([0.0, f64::INFINITY]), 1 => Just([0.3, 2.0])];
    (configs(), 1..4i64, 1..3i64, flags, limits, prop::option::weighted(0.3, 1..4i64)).prop_map(
        |(base, headdim, ngroups, flags, dt_limit, squeeze)| {
            let (rmsnorm, norm_before_gate, d_has_hdim, norm_each) = flags;
            let mut base = Mamba1Config {
                compat: Compat::default(),
                stages: 1,
                norm_each,
                squeeze: squeeze.filter(|_| base.channels == Channels::All && base.merge != Merge::Concat),
                merge: if base.merge == Merge::Search { Merge::Sum } else { base.merge },
                ..base
            };
            // A square of few channels may be nearly none.
            if rmsnorm {
                let least = if base.channels == Channels::Grouped { 4 * base.directions } else { 4 };
                base.d_model = base.d_model.max(least);
            }
            let options = Mamba2Options {
                ngroups,
                rmsnorm,
                norm_before_gate,
                d_has_hdim,
                dt_limit,
                ..Mamba2Options::default()
            };
            let mut config = Mamba2Config { norm_eps: 1e-2, ..Mamba2Config::like(&base, options) };
            if config.d_inner() % headdim == 0 {
                config.options.headdim = headdim;
            }
            if config.heads() % ngroups != 0 {
                config.options.ngroups = 1;
            }
            // What does not go together is left out, one after another.
            if config.check().is_err() {
                config.merge = Merge::Concat;
                config.squeeze = None;
            }
            config.check().unwrap();
            config
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn mamba2_equals_its_equations(
        config in any_config(), batch in 1..4i64, grid in (1..5i64, 1..6i64), seed in 0..10_000u64
    ) {
        check(&config, batch, [grid.0, grid.1], seed)?;
    }
}

/// What follows GroupMamba, MSVMamba and PlainMamba.
fn published() -> [Mamba2Config; 3] {
    let options = Mamba2Options::default();
    let base =
        Mamba1Config { d_model: 32, directions: 4, conv: ConvPlace::Grid, d_conv: 3, ..Default::default() };
    let grouped = Mamba1Config { channels: Channels::Grouped, merge: Merge::Concat, ..base.clone() };
    let coarse = Mamba1Config {
        directions: 1,
        coarse: Some(Coarse { directions: 3, taps: 7, stride: 2 }),
        merge: Merge::Sum,
        norm_each: true,
        squeeze: Some(8),
        ..base.clone()
    };
    let embedded =
        Mamba1Config { step_embedding: true, parameters: Parameters::Shared, merge: Merge::Sum, ..base };
    [grouped, coarse, embedded].map(|config| Mamba2Config::like(&config, options.clone()))
}

/// At the sizes of models, where the norms have many channels.
#[test]
fn published_compositions_are_their_equations() {
    for (seed, config) in published().iter().enumerate() {
        check(config, 2, [6, 7], seed as u64 + 1).unwrap();
    }
}

/// A direction that has channels of its own is a mixer of its own.
#[test]
fn grouped_channels_are_mixers_side_by_side() {
    let [config, ..] = published();
    let vs = VarStore::new(Device::Cpu);
    let whole = Mamba2::new(&vs.root(), &config).unwrap();
    let orders = Orders::new(&plan(30, 4, 7)).on_grid([5, 6]);
    let x = Tensor::randn([2, 30, 32], (Kind::Float, Device::Cpu));
    let want = whole.forward(&x, &orders).unwrap();
    for k in 0..4 {
        let alone = VarStore::new(Device::Cpu);
        let one = Mamba2Config { d_model: 8, directions: 1, channels: Channels::All, ..config.clone() };
        let one = Mamba2::new(&alone.root(), &one).unwrap();
        tch::no_grad(|| {
            for (name, mut tensor) in alone.variables() {
                let all = &vs.variables()[&name];
                let own = if name == "norm.weight" { all.view([4, -1]).get(k) } else { all.get(k) };
                tensor.copy_(&own.view_as(&tensor));
            }
        });
        let got = one.forward(&x.narrow(2, 8 * k, 8), &orders.part(k, 1)).unwrap();
        let error = relative(&got, &want.narrow(2, 8 * k, 8).to_kind(Kind::Double));
        assert!(error < 1e-5, "direction {k} is off by {error:.1e}");
    }
}

#[test]
fn autocast_is_close() {
    for config in published() {
        let mixer = Mamba2::new(&VarStore::new(Device::Cpu).root(), &config).unwrap();
        let mut orders = Orders::new(&plan(48, config.directions as usize, 4)).on_grid([6, 8]);
        if config.coarse.is_some() {
            orders = orders.with_coarse(Orders::new(&plan(12, 3, 7)));
        }
        let x = Tensor::randn([2, 48, 32], (Kind::Float, Device::Cpu));
        let exact = mixer.forward(&x, &orders).unwrap();
        let rounded = autocast(true, || mixer.forward(&x, &orders)).unwrap();
        assert_eq!((exact.kind(), rounded.kind()), (Kind::Float, Kind::BFloat16));
        let error = relative(&rounded, &exact.to_kind(Kind::Double));
        assert!(error > 0.0 && error < 4e-2, "{config:?}: bf16 is off by {error:.1e}");
    }
}

#[test]
fn misfits_are_errors() {
    let [grouped, coarse, _] = published();
    let options = |options: Mamba2Options| Mamba2Config { options, ..grouped.clone() };
    for (text, bad) in [
        ("`d_model` is 33", Mamba2Config { d_model: 33, ..grouped.clone() }),
        ("`merge = \"concat\"`", Mamba2Config { merge: Merge::Sum, ..grouped.clone() }),
        ("`parameters`", Mamba2Config { parameters: Parameters::Decay, ..grouped.clone() }),
        ("16 inner channels of a direction", options(Mamba2Options { headdim: 32, ..Default::default() })),
        ("the 2 heads", options(Mamba2Options { headdim: 8, ngroups: 3, ..Default::default() })),
        ("`norm_eps` is 0", Mamba2Config { norm_eps: 0.0, ..grouped.clone() }),
        ("`coarse`", Mamba2Config { merge: Merge::Mean, ..coarse.clone() }),
        ("`squeeze` is 0", Mamba2Config { squeeze: Some(0), ..coarse.clone() }),
        ("`d_conv` is 4", Mamba2Config { d_conv: 4, ..coarse.clone() }),
    ] {
        let error = Mamba2::new(&VarStore::new(Device::Cpu).root(), &bad).unwrap_err().to_string();
        assert!(error.contains(text), "{text}: {error}");
    }
    let mixer = Mamba2::new(&VarStore::new(Device::Cpu).root(), &coarse).unwrap();
    let x = Tensor::zeros([1, 6, 32], (Kind::Float, Device::Cpu));
    let orders = Orders::identity(6, 1).on_grid([3, 2]);
    let error = |orders: &Orders| mixer.forward(&x, orders).unwrap_err().to_string();
    assert!(error(&Orders::identity(6, 1)).contains("grid"));
    assert!(error(&orders).contains("with_coarse"));
    assert!(error(&orders.clone().with_coarse(Orders::identity(2, 2))).contains("3 directions"));
    assert!(mixer.forward(&x, &orders.with_coarse(Orders::identity(2, 3))).is_ok());
}
