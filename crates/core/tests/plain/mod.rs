//! Mixers written out plainly: tokens gathered one by one, a loop over time, f64; and the comparison with ours, outputs
//! and every gradient.
#![allow(dead_code, missing_docs)]

use std::collections::HashMap;

use ophidian_core::{
    layers::NormKind,
    mixer::{ConvPlace, DtRank, Mamba1Config, Merge},
    ops::Orders,
};
use ophidian_scan::{Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

pub const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
pub const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

pub type Weights = HashMap<String, Tensor>;

pub fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-3);
    (got.to_kind(Kind::Double) - want).abs().max().double_value(&[]) / scale
}

/// Zero where none arrived.
pub fn grad(leaf: &Tensor) -> Tensor {
    let grad = leaf.grad();
    if grad.defined() { grad } else { leaf.zeros_like() }
}

/// Compares a mixer with its reference; `reference` may add to the loss what only gradients need.
pub fn check(
    vs: &VarStore,
    input: &Tensor,
    run: impl Fn(&Tensor) -> Tensor,
    reference: impl Fn(&Weights, &Tensor, &Tensor) -> (Tensor, Tensor),
) -> Result<(), TestCaseError> {
    let x = input.copy().set_requires_grad(true);
    let out = run(&x);
    let cotangent = Tensor::randn(out.size(), F32);
    (&out * &cotangent).sum(Kind::Float).backward();
    let wide = |t: &Tensor| t.detach().to_kind(Kind::Double).set_requires_grad(true);
    let weights: Weights = vs.variables().iter().map(|(name, t)| (name.clone(), wide(t))).collect();
    let x_wide = wide(input);
    let (want, extra) = reference(&weights, &x_wide, &cotangent.to_kind(Kind::Double));
    ((&want * cotangent.to_kind(Kind::Double)).sum(Kind::Double) + extra).backward();
    let error = relative(&out, &want);
    prop_assert!(error < 2e-5, "out is off by {error:.1e}");
    let error = relative(&grad(&x), &grad(&x_wide));
    prop_assert!(error < 1e-4, "gradient of x is off by {error:.1e}");
    // Some gradients are small sums of large terms: their measure is the largest of all.
    let largest = |t: &Tensor| grad(t).abs().max().double_value(&[]);
    let floor = weights.values().map(largest).fold(0.0, f64::max) * 1e-2;
    for (name, tensor) in vs.variables() {
        let want = &weights[&name];
        let error = (grad(&tensor).to_kind(Kind::Double) - grad(want)).abs().max().double_value(&[]);
        // None at all where every unit of a ReLU is off.
        let error = error / largest(want).max(floor).max(f64::MIN_POSITIVE);
        prop_assert!(error < 1e-4, "gradient of {name} is off by {error:.1e}");
    }
    Ok(())
}

pub fn perturb(vs: &VarStore) {
    tch::no_grad(|| {
        for mut variable in vs.trainable_variables() {
            let noise = variable.randn_like() * 0.1;
            let _ = variable.g_add_(&noise);
        }
        for name in ["dt_proj.bias", "dt_bias"] {
            if let Some(bias) = vs.variables().get(name) {
                let _ = bias.shallow_clone().g_add_scalar_(2.5);
            }
        }
    });
}

pub fn none() -> Tensor {
    Tensor::zeros([], F64)
}

pub fn linear(w: &Weights, name: &str, x: &Tensor) -> Tensor {
    let y = x.matmul(&w[&format!("{name}.weight")].tr());
    match w.get(&format!("{name}.bias")) {
        Some(bias) => y + bias,
        None => y,
    }
}

pub fn layer_norm(w: &Weights, name: &str, x: &Tensor) -> Tensor {
    let mean = x.mean_dim(-1, true, Kind::Double);
    let centred = x - mean;
    let variance = centred.square().mean_dim(-1, true, Kind::Double);
    centred / (variance + 1e-5).sqrt() * &w[&format!("{name}.weight")] + &w[&format!("{name}.bias")]
}

/// Token (row, column) plus an offset, by the index of a neighbour: a depthwise convolution tap by tap. `border` says
/// whether what lies beyond the map repeats its edge (else it is zero).
pub fn convolved(x: &Tensor, weight: &Tensor, map: [i64; 2], dilation: i64, border: bool) -> Tensor {
    let (b, _, d) = x.size3().unwrap();
    let [rows, columns] = map;
    let taps = weight.size()[2];
    let mut out = vec![];
    for row in 0..rows {
        for column in 0..columns {
            let mut sum = Tensor::zeros([b, d], F64);
            for i in 0..taps {
                for j in 0..taps {
                    let (mut r, mut c) =
                        (row + (i - taps / 2) * dilation, column + (j - taps / 2) * dilation);
                    if border {
                        (r, c) = (r.clamp(0, rows - 1), c.clamp(0, columns - 1));
                    }
                    if (0..rows).contains(&r) && (0..columns).contains(&c) {
                        sum += x.select(1, r * columns + c) * weight.select(2, i).select(2, j).squeeze_dim(1);
                    }
                }
            }
            out.push(sum);
        }
    }
    Tensor::stack(&out, 1)
}

pub struct Direction {
    pub delta: Tensor,
    pub a: Tensor,
    pub b: Tensor,
    pub c: Tensor,
    pub d: Tensor,
}

/// Coefficients of direction k for u (B, L, D).
pub fn direction(w: &Weights, config: &Mamba1Config, k: i64, u: &Tensor) -> Direction {
    let row = |name: &str| w[name].select(0, k);
    let (n, r) = (config.d_state, config.rank());
    let projected = u.matmul(&row("x_proj.weight").tr());
    Direction {
        delta: (projected.narrow(2, 0, r).matmul(&row("dt_proj.weight").tr()) + row("dt_proj.bias"))
            .softplus(),
        a: -row("A_log").exp(),
        b: projected.narrow(2, r, n),
        c: projected.narrow(2, r + n, n),
        d: row("D"),
    }
}

/// The states (B, L, D, N) by token, along orders of each sample (a blank decays the state).
pub fn states(u: &Tensor, p: &Direction, orders: &[Vec<i64>]) -> Tensor {
    let (b, l, d) = u.size3().unwrap();
    let samples: Vec<Tensor> = (0..b)
        .map(|sample| {
            let at = |t: &Tensor, token: i64| t.select(0, sample).select(0, token);
            let mut h = Tensor::zeros(p.a.size(), F64);
            let mut found: Vec<Tensor> = (0..l).map(|_| Tensor::zeros([d, p.a.size()[1]], F64)).collect();
            for &token in &orders[sample as usize % orders.len()] {
                let dt = at(&p.delta, token).unsqueeze(1);
                h = (&dt * &p.a).exp() * h + dt * at(&p.b, token).unsqueeze(0) * at(u, token).unsqueeze(1);
                found[token as usize] = h.shallow_clone();
            }
            Tensor::stack(&found, 0)
        })
        .collect();
    Tensor::stack(&samples, 0)
}

pub fn scan(u: &Tensor, p: &Direction, orders: &[Vec<i64>]) -> Tensor {
    (states(u, p, orders) * p.c.unsqueeze(2)).sum_dim_intlist(3, false, Kind::Double) + u * &p.d
}

/// Everything around the core.
pub fn shell(
    w: &Weights,
    config: &Mamba1Config,
    map: [i64; 2],
    tokens: &Tensor,
    core: impl FnOnce(&Tensor) -> Tensor,
) -> Tensor {
    let d = config.d_inner();
    let xz = linear(w, "in_proj", tokens);
    let u = if config.conv == ConvPlace::Grid {
        convolved(&xz.narrow(2, 0, d), &w["conv2d.weight"], map, 1, false) + &w["conv2d.bias"]
    } else {
        let (x, weight) = (xz.narrow(2, 0, d), w["conv1d.weight"].select(0, 0));
        let steps: Vec<Tensor> = (0..x.size()[1])
            .map(|t| {
                let taps = (0..config.d_conv).filter(|tap| t >= *tap);
                let taps = taps.map(|tap| x.select(1, t - tap) * weight.select(1, config.d_conv - 1 - tap));
                taps.fold(w["conv1d.bias"].shallow_clone(), |sum, tap| sum + tap)
            })
            .collect();
        Tensor::stack(&steps, 1)
    };
    let mut y = core(&u.silu());
    if config.out_norm.is_some() {
        y = layer_norm(w, "out_norm", &y);
    }
    if config.gate {
        y *= xz.narrow(2, d, d).silu();
    }
    linear(w, "out_proj", &y)
}

pub fn row_order(l: i64) -> Vec<Vec<i64>> {
    vec![(0..l).collect()]
}

pub fn reversed(orders: &[Vec<i64>]) -> Vec<Vec<i64>> {
    orders.iter().map(|order| order.iter().rev().copied().collect()).collect()
}

pub fn both_ways(tokens: i64, directions: usize) -> Orders {
    let row = Order::identity(tokens as usize).unwrap();
    let both = [row.clone(), row.reversed()];
    Orders::new(&Plan::new(both[..directions].to_vec()).unwrap())
}

/// Mamba-1's part of a config over maps.
pub fn config(d_model: i64, directions: i64, d_state: i64, norm: bool, gate: bool) -> Mamba1Config {
    Mamba1Config {
        d_model,
        directions,
        d_state,
        d_conv: 3,
        conv: ConvPlace::Grid,
        dt_rank: DtRank::Rank(2),
        merge: Merge::Sum,
        out_norm: norm.then_some(NormKind::Layer),
        gate,
        ..Mamba1Config::default()
    }
}

pub fn fresh<M>(seed: u64, new: impl FnOnce(&tch::nn::Path) -> ophidian_core::Result<M>) -> (VarStore, M) {
    tch::manual_seed(seed as i64);
    let vs = VarStore::new(Device::Cpu);
    let mixer = new(&vs.root()).unwrap();
    perturb(&vs);
    (vs, mixer)
}
