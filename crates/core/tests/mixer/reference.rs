//! The equations of the mixer, written out plainly: tokens gathered by order, a loop over time, f64.

use std::collections::HashMap;

use ophidian_core::{
    layers::NormKind,
    mixer::{Channels, ConvPlace, Mamba1Config, Merge, Parameters},
    ops::Orders,
};
use ophidian_scan::{Blank, Order, Plan};
use tch::{Device, Kind, Tensor};

pub const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

pub type Weights = HashMap<String, Tensor>;

/// The steps that happen (a blank that is skipped does not): token, -1 for a blank, and whether the state starts afresh.
pub fn steps(order: &Order) -> Vec<(i32, bool)> {
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
pub fn row(weights: &Weights, name: &str, k: i64) -> Tensor {
    let all = &weights[name];
    all.select(0, k.min(all.size()[0] - 1))
}

/// u of each step of a convolution along an order.
pub fn conv_along(weights: &Weights, k: i64, order: &Order, x: &Tensor) -> Vec<Tensor> {
    let (b, _, d) = x.size3().unwrap();
    let zero = Tensor::zeros([b, d], F64);
    let taps = weights["conv1d.weight"].size()[2];
    let mut window: Vec<Tensor> = (0..taps).map(|_| zero.shallow_clone()).collect();
    let step = |(at, reset): (i32, bool)| {
        if reset {
            window.iter_mut().for_each(|row| *row = zero.shallow_clone());
        }
        drop(window.remove(0));
        window.push(if at < 0 { zero.shallow_clone() } else { x.select(1, i64::from(at)) });
        let taps = window.iter().enumerate();
        let taps = taps.map(|(tap, input)| input * row(weights, "conv1d.weight", k).select(1, tap as i64));
        let biased = weights.contains_key("conv1d.bias");
        let bias = if biased { row(weights, "conv1d.bias", k) } else { zero.shallow_clone() };
        taps.fold(bias, |sum, term| sum + term).silu()
    };
    steps(order).into_iter().map(step).collect()
}

/// The same of each token of the first order, (B, L, C); zero for those that it leaves out.
pub fn conv_once(weights: &Weights, order: &Order, x: &Tensor) -> Tensor {
    let first = conv_along(weights, 0, order, x);
    let mut by_token: Vec<Tensor> = (0..order.tokens()).map(|_| x.select(1, 0).zeros_like()).collect();
    for ((at, _), u) in steps(order).into_iter().zip(&first) {
        if at >= 0 {
            by_token[at as usize] = u.shallow_clone();
        }
    }
    Tensor::stack(&by_token, 1)
}

/// u (B, L, C) step by step; zero at blanks.
pub fn at_steps(u: &Tensor, order: &Order) -> Vec<Tensor> {
    let zero = u.select(1, 0).zeros_like();
    let step = |at: i32| if at < 0 { zero.shallow_clone() } else { u.select(1, i64::from(at)) };
    steps(order).into_iter().map(|(at, _)| step(at)).collect()
}

/// A depthwise convolution over the map, tap by tap: (B, L, C).
pub fn conv_grid(
    weights: &Weights,
    name: &str,
    x: &Tensor,
    grid: [i64; 2],
    stride: i64,
) -> (Tensor, [i64; 2]) {
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
            sum = &sum + cells * weight.select(2, j).select(1, i).view([1, c, 1, 1]);
        }
    }
    (sum.flatten(2, 3).transpose(1, 2).silu(), out)
}

/// 0 start, 1 right, 2 left, 3 up, 4 down.
pub fn way(from: Option<i64>, to: i64, columns: i64) -> i64 {
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

/// The recurrence of parameter set k over the steps of `order`, from `state`: y by token (B, L, D) and the last state. u
/// is given step by step, and so is what the coefficients of the step are made of.
fn recurrence(
    weights: &Weights,
    config: &Mamba1Config,
    k: i64,
    order: &Order,
    [u, sources]: [&[Tensor]; 2],
    state: Option<Tensor>,
    [b, columns]: [i64; 2],
) -> (Tensor, Tensor) {
    let (d, n, r) = (config.d_inner(), config.d_state, config.rank());
    let get = |name: &str| row(weights, name, k);
    let a = -get("A_log").exp();
    let mut y: Vec<Tensor> = (0..order.tokens()).map(|_| Tensor::zeros([b, d], F64)).collect();
    let mut h = state.unwrap_or_else(|| Tensor::zeros([b, d, n], F64));
    let mut last = None;
    for (((at, reset), u), source) in steps(order).into_iter().zip(u).zip(sources) {
        let projected = source.matmul(&get("x_proj.weight").tr());
        let delta = projected.narrow(1, 0, r).matmul(&get("dt_proj.weight").tr());
        let times = if config.compat.double_dt_bias { 2.0 } else { 1.0 };
        let dt = (delta + get("dt_proj.bias") * times).softplus();
        let mut bt = projected.narrow(1, r, n);
        if reset {
            h = h.zeros_like();
            last = None;
        }
        if config.step_embedding {
            let way = if at < 0 { 0 } else { way(last, i64::from(at), columns) };
            bt = &bt + weights["step_embedding"].select(0, way);
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

pub fn linear(weights: &Weights, name: &str, x: &Tensor, group: Option<i64>) -> Tensor {
    let part = |t: &Tensor| group.map_or_else(|| t.shallow_clone(), |g| t.select(0, g));
    let out = x.matmul(&part(&weights[&format!("{name}.weight")]).tr());
    match weights.get(&format!("{name}.bias")) {
        Some(bias) => out + part(bias),
        None => out,
    }
}

pub fn add_up(ys: &[Tensor]) -> Tensor {
    ys.iter().map(Tensor::shallow_clone).reduce(|a, b| a + b).unwrap()
}

/// The directions together; what a merge has learned is under `prefix`.
pub fn merged(weights: &Weights, merge: Merge, prefix: &str, ys: &[Tensor]) -> Tensor {
    let named = |name: &str| format!("{prefix}{name}");
    match merge {
        Merge::Sum => add_up(ys),
        Merge::Mean => add_up(ys) / ys.len() as f64,
        Merge::Concat => Tensor::cat(ys, 2),
        Merge::Gated => {
            let mean = |y: &Tensor| linear(weights, "out_proj", &y.mean_dim(1, false, Kind::Double), None);
            let means: Vec<Tensor> = ys.iter().map(mean).collect();
            let gate =
                Tensor::cat(&means, 1).matmul(&weights[&named("gate.weight")].tr()).softmax(1, Kind::Double);
            let weighed = ys.iter().enumerate().map(|(k, y)| y * gate.select(1, k as i64).view([-1, 1, 1]));
            weighed.reduce(|a, b| a + b).unwrap()
        }
        Merge::Search => {
            let plain = |y: &Tensor| {
                let mean = y.mean_dim(-1, true, Kind::Double);
                let variance = (y - &mean).square().mean_dim(-1, true, Kind::Double);
                (y - mean) * (variance + 1e-5).rsqrt()
            };
            let share = weights[&named("search.weight")].softmax(0, Kind::Double);
            let weighed = ys.iter().enumerate().map(|(k, y)| plain(y) * share.get(k as i64));
            add_up(&weighed.collect::<Vec<_>>())
        }
        Merge::ChannelGate => {
            let gated = |y: &Tensor| {
                let mean = y.mean_dim(-1, true, Kind::Double);
                let variance = (y - &mean).square().mean_dim(-1, true, Kind::Double);
                let normed = (y - mean) * (variance + 1e-5).rsqrt() * &weights[&named("norm.weight")]
                    + &weights[&named("norm.bias")];
                let inner = linear(weights, &named("reduce"), &normed.mean_dim(1, true, Kind::Double), None);
                let inner = &inner * 0.5 * (1.0 + (&inner / 2f64.sqrt()).erf());
                y * linear(weights, &named("select"), &inner, None).sigmoid()
            };
            add_up(&ys.iter().map(gated).collect::<Vec<_>>())
        }
    }
}

/// (B, l, D) on a coarse map of [rows, columns] = `low`, brought to that of `grid`.
pub fn refined(y: &Tensor, [h, w]: [i64; 2], grid: [i64; 2]) -> Tensor {
    let map = y.transpose(1, 2).reshape([y.size()[0], -1, h, w]);
    map.upsample_bilinear2d(grid, false, None, None).flatten(2, 3).transpose(1, 2)
}

/// A plan, the sizes of its grid and the plan of the coarse map.
pub struct Plans {
    pub plan: Plan,
    pub grid: [i64; 2],
    pub coarse: Option<Plan>,
    /// Where the steps are written, if elsewhere than where they were read.
    pub written: Option<Plan>,
}

impl Plans {
    pub fn orders(&self) -> Orders {
        let mut orders = Orders::new(&self.plan).on_grid(self.grid);
        if let Some(written) = &self.written {
            orders = orders.written_as(&Orders::new(written)).unwrap();
        }
        match &self.coarse {
            Some(coarse) => orders.with_coarse(Orders::new(coarse)),
            None => orders,
        }
    }
}

pub fn reference(weights: &Weights, config: &Mamba1Config, plans: &Plans, tokens: &Tensor) -> Tensor {
    let (b, d, orders) = (tokens.size()[0], config.d_inner(), plans.plan.orders());
    let (split, grouped) = (config.channels != Channels::All, config.channels == Channels::Grouped);
    let width = config.d_model / config.directions;
    let mirrored = |k: i64| config.compat.mirrored_channels && k % 2 == 1;
    // (x, z) of each direction.
    let pairs: Vec<(Tensor, Option<Tensor>)> = (0..config.directions)
        .map(|k| {
            let per = if config.gate { 2 * d } else { d };
            let xz = if grouped {
                linear(weights, "in_proj", &tokens.narrow(2, k * width, width), Some(k))
            } else {
                linear(weights, "in_proj", tokens, None).narrow(2, if split { k * per } else { 0 }, per)
            };
            let xz = if mirrored(k) { xz.flip([2]) } else { xz };
            (xz.narrow(2, 0, d), config.gate.then(|| xz.narrow(2, d, d)))
        })
        .collect();
    // u of each direction, step by step.
    let mut u: Vec<Vec<Tensor>> = match config.conv {
        ConvPlace::Along if config.parameters == Parameters::Decay => {
            let by_token = conv_once(weights, &orders[0], &pairs[0].0);
            orders.iter().map(|order| at_steps(&by_token, order)).collect()
        }
        ConvPlace::Along => {
            (0..orders.len()).map(|k| conv_along(weights, k as i64, &orders[k], &pairs[k].0)).collect()
        }
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
    let direct = config.out_norm.is_none()
        && config.stages == 1
        && config.coarse.is_none()
        && !config.compat.unordered_coefficients;
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
                let (set, order) = (k as i64 + i64::from(config.coarse.is_some()), &orders[k]);
                let index = Tensor::from_slice(order.index()).to_kind(Kind::Int64);
                let sources = if config.compat.unordered_coefficients {
                    let by_token = Tensor::stack(&u[k], 1).index_select(1, &index.argsort(0, false));
                    by_token.unbind(1)
                } else {
                    u[k].iter().map(Tensor::shallow_clone).collect()
                };
                let inputs = [u[k].as_slice(), sources.as_slice()];
                let mut y = recurrence(weights, config, set, order, inputs, None, [b, plans.grid[1]]).0;
                if let Some(z) = pairs[k].1.as_ref().filter(|_| direct) {
                    y = &y * z.silu();
                }
                if mirrored(k as i64) {
                    y = y.flip([2]);
                }
                if let Some(written) = &plans.written {
                    let to = Tensor::from_slice(written.orders()[k].index()).to_kind(Kind::Int64);
                    y = y.index_select(1, &index).index_select(1, &to.argsort(0, false));
                }
                if config.norm_each { norm(weights, config, &y, grouped.then_some(k as i64)) } else { y }
            })
            .collect();
        y = merged(weights, config.merge, "", &ys);
    }
    if grouped {
        let outs: Vec<Tensor> = (0..config.directions)
            .map(|k| {
                let mut y = y.narrow(2, k * d, d);
                if !config.norm_each {
                    y = norm(weights, config, &y, Some(k));
                }
                match &pairs[k as usize].1 {
                    Some(z) if !direct => y = &y * z.silu(),
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
            let u = at_steps(&low, order);
            let (y, last) = recurrence(weights, config, 0, order, [&u, &u], state, [b, w]);
            ys.push(if config.norm_each { norm(weights, config, &y, None) } else { y });
            state = Some(last);
        }
        y = &y + refined(&add_up(&ys), [h, w], plans.grid);
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
