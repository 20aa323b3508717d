//! The mixers that are more than an order against their equations, written out plainly: tokens gathered one by one, a
//! loop over time, f64; outputs and every gradient.

use std::collections::HashMap;

use ophidian_core::{
    layers::NormKind,
    mixer::{
        Choice, ConvPlace, DefMamba, DefMambaConfig, DeformCompat, DtRank, GrootL, GrootLConfig, GrootV,
        Hydra, HydraConfig, Mamba1Config, Merge, Mixer, QuadCompat, QuadMamba, QuadMambaConfig, Semantic,
        SemanticCompat, SemanticConfig, SpatialMamba,
    },
    ops::{Orders, Trees},
};
use ophidian_scan::{Candidates, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);
const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

type Weights = HashMap<String, Tensor>;

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-3);
    (got.to_kind(Kind::Double) - want).abs().max().double_value(&[]) / scale
}

/// Zero where none arrived.
fn grad(leaf: &Tensor) -> Tensor {
    let grad = leaf.grad();
    if grad.defined() { grad } else { leaf.zeros_like() }
}

/// Compares a mixer with its reference; `reference` may add to the loss what only gradients need.
fn check(
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
        let error = error / largest(want).max(floor);
        prop_assert!(error < 1e-4, "gradient of {name} is off by {error:.1e}");
    }
    Ok(())
}

fn perturb(vs: &VarStore) {
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

fn none() -> Tensor {
    Tensor::zeros([], F64)
}

fn linear(w: &Weights, name: &str, x: &Tensor) -> Tensor {
    let y = x.matmul(&w[&format!("{name}.weight")].tr());
    match w.get(&format!("{name}.bias")) {
        Some(bias) => y + bias,
        None => y,
    }
}

fn layer_norm(w: &Weights, name: &str, x: &Tensor) -> Tensor {
    let mean = x.mean_dim(-1, true, Kind::Double);
    let centred = x - mean;
    let variance = centred.square().mean_dim(-1, true, Kind::Double);
    centred / (variance + 1e-5).sqrt() * &w[&format!("{name}.weight")] + &w[&format!("{name}.bias")]
}

/// Token (row, column) plus an offset, by the index of a neighbour: a depthwise convolution tap by tap. `border` says
/// whether what lies beyond the map repeats its edge (else it is zero).
fn convolved(x: &Tensor, weight: &Tensor, map: [i64; 2], dilation: i64, border: bool) -> Tensor {
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

struct Direction {
    delta: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    d: Tensor,
}

/// Coefficients of direction k for u (B, L, D).
fn direction(w: &Weights, config: &Mamba1Config, k: i64, u: &Tensor) -> Direction {
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
fn states(u: &Tensor, p: &Direction, orders: &[Vec<i64>]) -> Tensor {
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

fn scan(u: &Tensor, p: &Direction, orders: &[Vec<i64>]) -> Tensor {
    (states(u, p, orders) * p.c.unsqueeze(2)).sum_dim_intlist(3, false, Kind::Double) + u * &p.d
}

/// Everything around the core.
fn shell(
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

fn row_order(l: i64) -> Vec<Vec<i64>> {
    vec![(0..l).collect()]
}

fn reversed(orders: &[Vec<i64>]) -> Vec<Vec<i64>> {
    orders.iter().map(|order| order.iter().rev().copied().collect()).collect()
}

fn both_ways(tokens: i64, directions: usize) -> Orders {
    let row = Order::identity(tokens as usize).unwrap();
    let both = [row.clone(), row.reversed()];
    Orders::new(&Plan::new(both[..directions].to_vec()).unwrap())
}

/// Mamba-1's part of a config over maps.
fn config(d_model: i64, directions: i64, d_state: i64, norm: bool, gate: bool) -> Mamba1Config {
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

fn fresh<M>(seed: u64, new: impl FnOnce(&tch::nn::Path) -> ophidian_core::Result<M>) -> (VarStore, M) {
    tch::manual_seed(seed as i64);
    let vs = VarStore::new(Device::Cpu);
    let mixer = new(&vs.root()).unwrap();
    perturb(&vs);
    (vs, mixer)
}

/// Sums over a tree along paths, by definition: `below` only from a node's own subtree.
fn tree_sums(input: &Tensor, decay: &Tensor, parents: &[i32], below: bool) -> Tensor {
    let (b, l, d) = input.size3().unwrap();
    let ancestors = |sample: i64, node: i64| {
        let up =
            |node: &i64| Some(i64::from(parents[(sample * l + node) as usize])).filter(|node| *node >= 0);
        std::iter::successors(Some(node), up).collect::<Vec<_>>()
    };
    let sum = |sample: i64, i: i64| {
        let above = ancestors(sample, i);
        let mut sum = Tensor::zeros([d], F64);
        for j in 0..l {
            let path = ancestors(sample, j);
            let meet = path.iter().position(|node| above.contains(node)).unwrap();
            let back = above.iter().position(|node| *node == path[meet]).unwrap();
            if below && back > 0 {
                continue;
            }
            let mut term = input.select(0, sample).select(0, j);
            for edge in path[..meet].iter().chain(&above[..back]) {
                term = term * decay.select(0, sample).select(0, *edge);
            }
            sum += term;
        }
        sum
    };
    let rows: Vec<Tensor> =
        (0..b).flat_map(|sample| (0..l).map(move |i| (sample, i))).map(|(s, i)| sum(s, i)).collect();
    Tensor::stack(&rows, 0).view([b, l, d])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grootv(b in 1..3i64, h in 1..4i64, w in 1..5i64, d_model in 2..6i64, gate in any::<bool>(), seed in 0..10_000u64) {
        let config = config(d_model, 1, 1, true, gate);
        let (vs, mixer) = fresh(seed, |vs| GrootV::new(vs, &config));
        let input = Tensor::randn([b, h * w, d_model], F32);
        let orders = both_ways(h * w, 1).on_grid([h, w]);
        let candidates = Candidates::grid(h as usize, w as usize).unwrap();
        check(&vs, &input, |x| mixer.forward(x, &orders).unwrap(), |weights, x, _| {
            let y = shell(weights, &config, [h, w], x, |u| {
                let p = direction(weights, &config, 0, u);
                let trees = Trees::spanning(u, &candidates).unwrap();
                let decay = (&p.delta * p.a.squeeze_dim(1)).exp();
                let state = tree_sums(&(&p.delta * &p.b * u), &decay, trees.parents(), false);
                layer_norm(weights, "h_norm", &state) * &p.c + u * &p.d
            });
            (y, none())
        })?;
    }

    #[test]
    fn grootl(b in 1..3i64, l in 1..9i64, n in 1..4i64, context in 0..10i64, seed in 0..10_000u64) {
        let mamba = Mamba1Config { conv: ConvPlace::Along, d_conv: 4, ..config(3, 1, n, false, true) };
        let config = GrootLConfig { mamba: mamba.clone(), context, scale: 0.3 };
        let (vs, mixer) = fresh(seed, |vs| GrootL::new(vs, &config));
        let input = Tensor::randn([b, l, 3], F32);
        let candidates = Candidates::line(l as usize, context as usize).unwrap();
        check(&vs, &input, |x| mixer.forward(x, &Orders::identity(l, 1)).unwrap(), |weights, x, _| {
            let y = shell(weights, &mamba, [1, l], x, |u| {
                let p = direction(weights, &mamba, 0, u);
                let chain = scan(u, &p, &row_order(l));
                let dt = p.delta.unsqueeze(3);
                let flat = |t: Tensor| t.reshape([b, l, -1]);
                let input = flat(&dt * p.b.unsqueeze(2) * u.unsqueeze(3));
                let decay = flat((&dt * &p.a).exp());
                // A token's edge decays by the next token's step.
                let next = Tensor::cat(&[decay.narrow(1, 1, l - 1), decay.narrow(1, 0, 1)], 1);
                let trees = Trees::spanning(&input, &candidates).unwrap();
                let state = tree_sums(&input, &next, trees.parents(), true).reshape([b, l, -1, n]);
                chain + (state * p.c.unsqueeze(2)).sum_dim_intlist(3, false, Kind::Double) * 0.3
            });
            (y, none())
        })?;
    }

    #[test]
    fn spatial_mamba(b in 1..3i64, h in 1..5i64, w in 1..5i64, d_model in 1..6i64, gate in any::<bool>(), seed in 0..10_000u64) {
        let config = config(d_model, 1, 1, true, gate);
        let (vs, mixer) = fresh(seed, |vs| SpatialMamba::new(vs, &config));
        let input = Tensor::randn([b, h * w, d_model], F32);
        let orders = both_ways(h * w, 1).on_grid([h, w]);
        check(&vs, &input, |x| mixer.forward(x, &orders).unwrap(), |weights, x, _| {
            let y = shell(weights, &config, [h, w], x, |u| {
                let p = direction(weights, &config, 0, u);
                let state = states(u, &p, &row_order(h * w)).squeeze_dim(3);
                let part = |i: i64| {
                    let kernel = weights["state_fusion.weight"].select(0, i);
                    convolved(&state, &kernel, [h, w], 2 * i + 1, true) * weights["state_fusion.alpha"].select(0, i)
                };
                (part(0) + part(1) + part(2)) * &p.c + u * &p.d
            });
            (y, none())
        })?;
    }

    #[test]
    fn hydra(
        b in 1..3i64, l in 1..8i64, k in 1..4i64, groups in 1..3i64, per in 1..3i64, p in 1..4i64, n in 1..4i64,
        half in 0..3i64, bias in any::<bool>(), seed in 0..10_000u64,
    ) {
        use rand::seq::SliceRandom;
        let heads = groups * per;
        let config = HydraConfig {
            d_model: heads * p, directions: k, d_state: n, d_conv: 2 * half + 1, expand: 1, headdim: p,
            ngroups: groups, bias, conv_bias: bias, ..HydraConfig::default()
        };
        let (vs, mixer) = fresh(seed, |vs| Hydra::new(vs, &config));
        let input = Tensor::randn([b, l, config.d_model], F32);
        let mut rng = ophidian_core::rng::stream(&[seed]);
        let orders: Vec<Vec<i64>> = (0..k).map(|_| {
            let mut order: Vec<i64> = (0..l).collect();
            order.shuffle(&mut rng);
            order
        }).collect();
        let plan = orders.iter().map(|order| Order::from_i64(order, l as usize).unwrap()).collect();
        let plan = Orders::new(&Plan::new(plan).unwrap());
        let d = config.d_inner();
        check(&vs, &input, |x| mixer.forward(x, &plan).unwrap(), |weights, x, _| {
            let all = linear(weights, "in_proj", x);
            let mixed = d + 2 * k * groups * n;
            let (z, xbc, dt) = (all.narrow(2, 0, d), all.narrow(2, d, mixed), all.narrow(2, d + mixed, k * heads));
            let mut xbc = convolved(&xbc, &weights["conv1d.weight"].unsqueeze(3).expand([-1, -1, -1, 2 * half + 1], false)
                .transpose(2, 3).tril_middle(half), [1, l], 1, false);
            if let Some(bias) = weights.get("conv1d.bias") {
                xbc += bias;
            }
            let xbc = xbc.silu();
            let u = xbc.narrow(2, 0, d);
            let mut y = &u * (u.matmul(&weights["fc_D.weight"].tr()) + &weights["D"])
                .unsqueeze(3).expand([b, l, heads, p], false).reshape([b, l, d]);
            for (direction, order) in orders.iter().enumerate() {
                let direction = direction as i64;
                let width = groups * n;
                let from = d + direction * 2 * width;
                let wide = |t: Tensor| t.view([b, l, groups, 1, n]).expand([b, l, groups, per * p, n], false).reshape([b, l, d, n]);
                let (bs, cs) = (wide(xbc.narrow(2, from, width)), wide(xbc.narrow(2, from + width, width)));
                let delta = (dt.narrow(2, direction * heads, heads) + &weights["dt_bias"]).softplus();
                let delta = delta.unsqueeze(3).expand([b, l, heads, p], false).reshape([b, l, d]);
                let a = -weights["A_log"].exp().unsqueeze(1).expand([heads, p], false).reshape([d, 1]);
                let mut state = Tensor::zeros([b, d, n], F64);
                let mut shifted: Vec<Tensor> = (0..l).map(|_| Tensor::zeros([b, d], F64)).collect();
                for pair in order.windows(2) {
                    let dt = delta.select(1, pair[0]).unsqueeze(2);
                    state = (&dt * &a).exp() * state + &dt * bs.select(1, pair[0]) * u.select(1, pair[0]).unsqueeze(2);
                    let read = (&state * cs.select(1, pair[0])).sum_dim_intlist(2, false, Kind::Double);
                    shifted[pair[1] as usize] = read;
                }
                y += Tensor::stack(&shifted, 1);
            }
            let rms = (y.square().mean_dim(2, true, Kind::Double) + 1e-5).sqrt();
            (linear(weights, "out_proj", &(y / rms * &weights["norm.weight"] * z.silu())), none())
        })?;
    }

    #[test]
    fn semantic(
        b in 1..3i64, h in 1..4i64, w in 1..4i64, d_model in 1..5i64, classes in 1..4i64, unsorted in any::<bool>(),
        seed in 0..10_000u64,
    ) {
        let compat = SemanticCompat { unsorted_prompts: unsorted, random_inference: false };
        let config = SemanticConfig { d_model, d_state: 2, expand: 2.0, dt_rank: DtRank::Rank(1), classes, rank: 3, compat };
        let (vs, mixer) = fresh(seed, |vs| Semantic::new(vs, &config));
        let l = h * w;
        let input = Tensor::randn([b, l, d_model], F32);
        let chosen = Tensor::randint(classes, [b, l], (Kind::Int64, Device::Cpu));
        let orders = both_ways(l, 1).on_grid([h, w]);
        let inner = Mamba1Config {
            d_model: 2 * d_model, d_state: 2, expand: 1.0, dt_rank: DtRank::Rank(1), ..Mamba1Config::default()
        };
        let walks: Vec<Vec<i64>> = (0..b).map(|sample| {
            let of = |token: &i64| chosen.int64_value(&[sample, *token]);
            let mut walk: Vec<i64> = (0..l).collect();
            walk.sort_by_key(of);
            walk
        }).collect();
        let run = |x: &Tensor| mixer.forward_choosing(x, &orders, &mut Choice::Given(&chosen)).unwrap();
        check(&vs, &input, run, |weights, x, _| {
            let scores = linear(weights, "route.out", &linear(weights, "route.hidden", x).gelu("none"));
            let soft = scores.softmax(2, Kind::Double);
            let weight = chosen.one_hot(classes).to_kind(Kind::Double) + &soft - soft.detach();
            let prompt = weight.matmul(&weights["prompt.classes"]).matmul(&weights["prompt.states"]);
            let x = linear(weights, "in_proj", x);
            let near = convolved(&x, &weights["position.weight"], [h, w], 1, false) + &weights["position.bias"];
            let u = &x * near.sigmoid();
            let mut p = direction(weights, &inner, 0, &u);
            let added: Vec<Tensor> = walks.iter().enumerate().map(|(sample, walk)| {
                let rows: Vec<Tensor> = (0..l).map(|token| {
                    let step = walk.iter().position(|visited| *visited == token).unwrap() as i64;
                    prompt.select(0, sample as i64).select(0, if unsorted { step } else { token })
                }).collect();
                Tensor::stack(&rows, 0)
            }).collect();
            p.c = p.c + Tensor::stack(&added, 0);
            let y = layer_norm(weights, "out_norm", &scan(&u, &p, &walks));
            (linear(weights, "out_proj", &y), none())
        })?;
    }

    #[test]
    fn defmamba(
        b in 1..3i64, h in 1..4i64, w in 1..4i64, d_model in 1..5i64, half_cell in any::<bool>(), mean in any::<bool>(),
        taps in 0..3i64, seed in 0..10_000u64,
    ) {
        let merge = if mean { Merge::Mean } else { Merge::Sum };
        let mamba = Mamba1Config { merge, ..config(d_model, 3, 2, false, true) };
        let config = DefMambaConfig { mamba: mamba.clone(), taps: 2 * taps + 1, compat: DeformCompat { half_cell } };
        let (vs, mixer) = fresh(seed, |vs| DefMamba::new(vs, &config));
        // Far enough off the corners of the interpolation.
        let input = Tensor::randn([b, h * w, d_model], F32);
        let l = h * w;
        let orders = both_ways(l, 2).on_grid([h, w]);
        check(&vs, &input, |x| mixer.forward(x, &orders).unwrap(), |weights, x, cotangent| {
            let extra = std::cell::RefCell::new(none());
            let scale = if mean { 1.0 / 3.0 } else { 1.0 };
            let z = linear(weights, "in_proj", x).narrow(2, mamba.d_inner(), mamba.d_inner()).silu();
            let y = shell(weights, &mamba, [h, w], x, |u| {
                let (values, key) = deformed(weights, u, [h, w], half_cell);
                let walks: Vec<Vec<i64>> = (0..b).map(|sample| {
                    let mut walk: Vec<i64> = (0..l).collect();
                    let of = |token: i64| key.double_value(&[sample, token]);
                    walk.sort_by(|i, j| of(*i).total_cmp(&of(*j)));
                    walk
                }).collect();
                // The key's gradient, by the released rule, from the gradient of the path alone.
                let leaf = values.detach().set_requires_grad(true);
                let path = scan(&leaf, &direction(weights, &mamba, 2, &leaf), &walks) * z.detach() * scale;
                let y = linear(weights, "out_proj", &path);
                let g = Tensor::run_backward(&[(y * cotangent).sum(Kind::Double)], &[&leaf], false, false);
                let mean = g[0].mean_dim(2, false, Kind::Double); // (B, L)
                let sorted = Tensor::stack(&walks.iter().enumerate().map(|(sample, walk)| {
                    mean.select(0, sample as i64).index_select(0, &Tensor::from_slice(walk))
                }).collect::<Vec<_>>(), 0);
                *extra.borrow_mut() = (&key * (sorted - mean).detach()).sum(Kind::Double);
                let both = [row_order(l), reversed(&row_order(l))];
                let still = (0..2).map(|k| scan(u, &direction(weights, &mamba, k, u), &both[k as usize]));
                let still = still.reduce(|a, b| a + b).unwrap();
                (still + scan(&values, &direction(weights, &mamba, 2, &values), &walks)) * scale
            });
            (y, extra.into_inner())
        })?;
    }

    #[test]
    fn quadmamba(
        b in 1..3i64, h in 1..9i64, w in 1..9i64, block in 0..8i64, colliding in any::<bool>(), mean in any::<bool>(),
        seed in 0..10_000u64,
    ) {
        let (h, w) = if colliding { (4 * (h / 4 + 1), 4 * (w / 4 + 1)) } else { (h, w) };
        let merge = if mean { Merge::Mean } else { Merge::Sum };
        let mamba = Mamba1Config { merge, expand: 1.0, ..config(4, 2, 2, true, false) };
        let compat = QuadCompat { colliding_windows: colliding, random_inference: false };
        let config = QuadMambaConfig { mamba: mamba.clone(), block, compat };
        let (vs, mixer) = fresh(seed, |vs| QuadMamba::new(vs, &config));
        let l = h * w;
        let input = Tensor::randn([b, l, 4], F32);
        let chosen = Tensor::randint(4, [b], (Kind::Int64, Device::Cpu));
        let orders = both_ways(l, 2).on_grid([h, w]);
        let run = |x: &Tensor| mixer.forward_choosing(x, &orders, &mut Choice::Given(&chosen)).unwrap();
        check(&vs, &input, run, |weights, x, _| {
            let y = shell(weights, &mamba, [h, w], x, |u| {
                let y = quad(weights, &mamba, u, [h, w], block, colliding, &chosen);
                if mean { y * 0.5 } else { y }
            });
            (y, none())
        })?;
    }
}

/// Middle column of taps alone: a 1-D kernel as a 2-D one over a map of one row.
trait OneRow {
    fn tril_middle(&self, half: i64) -> Tensor;
}

impl OneRow for Tensor {
    fn tril_middle(&self, half: i64) -> Tensor {
        let mut mask = Tensor::zeros([2 * half + 1, 1], F64);
        mask = mask.index_fill(0, &Tensor::from_slice(&[half]), 1.0);
        self * mask
    }
}

/// Bilinear reading of a map (D, rows, columns) at cell coordinates, zero beyond it.
fn read(map: &Tensor, y: &Tensor, x: &Tensor) -> Tensor {
    let (rows, columns) = (map.size()[1], map.size()[2]);
    let mut sum = Tensor::zeros([map.size()[0]], F64);
    let (top, left) = (y.double_value(&[]).floor(), x.double_value(&[]).floor());
    for i in [top, top + 1.0] {
        for j in [left, left + 1.0] {
            if i >= 0.0 && j >= 0.0 && i < rows as f64 && j < columns as f64 {
                let share = (-(y - i).abs() + 1.0) * (-(x - j).abs() + 1.0);
                sum += map.select(1, i as i64).select(1, j as i64) * share;
            }
        }
    }
    sum
}

/// The tokens that DefMamba reads, and their keys.
fn deformed(w: &Weights, u: &Tensor, [rows, columns]: [i64; 2], half_cell: bool) -> (Tensor, Tensor) {
    let (b, l, d) = u.size3().unwrap();
    let near = convolved(u, &w["deform.conv.weight"], [rows, columns], 1, false) + &w["deform.conv.bias"];
    let mean = u.mean_dim(1, true, Kind::Double);
    let gate = linear(w, "deform.expand", &linear(w, "deform.reduce", &mean).gelu("none")).sigmoid();
    let moves = linear(w, "deform.offset", &layer_norm(w, "deform.norm", &(near * gate)).gelu("none")).tanh();
    let table = w["deform.rpe_table"]
        .unsqueeze(0)
        .upsample_bilinear2d([rows, columns], false, None, None)
        .squeeze_dim(0);
    let half = if half_cell { 0.5 } else { 0.0 };
    // A position bias is read at minus half the move (and at minus half of what the released grids are apart), from
    // the middle of the table.
    let grid =
        |n: i64, i: i64| if half_cell && n > 1 { i as f64 * n as f64 / (n - 1) as f64 } else { i as f64 };
    let mut tokens = vec![];
    for sample in 0..b {
        for row in 0..rows {
            for column in 0..columns {
                let at = moves.select(0, sample).select(0, row * columns + column);
                // A move of 1 in the sampler's units / (n - 1) is half a cell.
                let place = |i: i64, n: i64, axis: i64| -> (Tensor, Tensor) {
                    if n == 1 {
                        // One cell: wherever the sampler is sent, align_corners leads to cell 0.
                        return (Tensor::zeros([], F64), Tensor::zeros([], F64));
                    }
                    let y = at.select(0, axis) * 0.5 + (i as f64 + half);
                    let back = (-(&y) + grid(n, i)) * 0.5;
                    (y, back + (n - 1) as f64 / 2.0)
                };
                let ((y, back_y), (x, back_x)) = (place(row, rows, 0), place(column, columns, 1));
                let map = u.select(0, sample).view([rows, columns, d]).permute([2, 0, 1]);
                tokens.push(read(&map, &y, &x) + read(&table, &back_y, &back_x));
            }
        }
    }
    let places = (Tensor::arange(l, F64) + half) * (2.0 / (l - 1).max(1) as f64) - 1.0;
    (Tensor::stack(&tokens, 0).view([b, l, d]), moves.select(2, 2) + places)
}

/// QuadMamba's core.
fn quad(
    w: &Weights,
    config: &Mamba1Config,
    u: &Tensor,
    [rows, columns]: [i64; 2],
    block: i64,
    colliding: bool,
    chosen: &Tensor,
) -> Tensor {
    let (b, l, _) = u.size3().unwrap();
    let x = linear(w, "score.embed", &layer_norm(w, "score.norm", u)).gelu("none");
    let x = linear(w, "score.reduce", &linear(w, "score.hidden", &x).gelu("none")).gelu("none");
    let score = linear(w, "score.out", &x).log_softmax(2, Kind::Double).select(2, 0);
    let pooled = score.view([b, 1, rows, columns]).adaptive_avg_pool2d([2, 2]).view([b, 4]);
    let soft = pooled.softmax(1, Kind::Double);
    let keep = chosen.one_hot(4).to_kind(Kind::Double) + &soft - soft.detach();

    let by = rows / 8;
    let (down, right) = match (block % 2, (block / 2) % 4) {
        (0, _) => (0, 0),
        (_, 0) => (by, by),
        (_, 1) => (-by, -by),
        (_, 2) => (by, -by),
        _ => (-by, by),
    };
    // Padded to multiples of 4; the token at each place of the rolled map.
    let (tall, wide) = ((rows + 3) / 4 * 4, (columns + 3) / 4 * 4);
    let token = |row: i64, column: i64| {
        let real = row < rows && column < columns;
        real.then(|| (row - down).rem_euclid(rows) * columns + (column - right).rem_euclid(columns))
    };
    let places: Vec<(i64, i64)> =
        (0..tall).flat_map(|row| (0..wide).map(move |column| (row, column))).collect();
    let quadrant = |&(row, column): &(i64, i64)| row / (tall / 2) * 2 + column / (wide / 2);
    let window = |&(row, column): &(i64, i64)| row / (tall / 4) * 4 + column / (wide / 4);
    let mut quadrants = vec![0; l as usize];
    for place in &places {
        if let Some(token) = token(place.0, place.1) {
            quadrants[token as usize] = quadrant(place);
        }
    }
    let mask = keep.index_select(1, &Tensor::from_slice(&quadrants)).unsqueeze(2); // (B, L, 1)
    let sorted = |key: &dyn Fn(&(i64, i64)) -> i64| {
        let mut sorted = places.clone();
        sorted.sort_by_key(key);
        sorted
    };
    let two_ways = |u: &Tensor, walks: &[Vec<i64>]| {
        scan(u, &direction(w, config, 0, u), walks) + scan(u, &direction(w, config, 1, u), &reversed(walks))
    };
    if colliding {
        let tokens =
            |places: Vec<(i64, i64)>| places.iter().map(|(r, c)| token(*r, *c).unwrap()).collect::<Vec<_>>();
        let (fine, coarse) = (tokens(sorted(&window)), tokens(sorted(&quadrant)));
        let take = |x: &Tensor, index: &[i64]| x.index_select(1, &Tensor::from_slice(index));
        let back = |index: &[i64]| -> Vec<i64> {
            (0..l).map(|token| index.iter().position(|i| *i == token).unwrap() as i64).collect()
        };
        let rest = -&mask + 1.0;
        let sequence = take(&(u * &mask), &fine) + take(&(u * &rest), &coarse);
        let y = two_ways(&sequence, &row_order(l));
        return take(&y, &back(&fine)) * mask + take(&y, &back(&coarse)) * rest;
    }
    // Blank steps are tokens of zeros behind the others.
    let blanks = tall * wide - l;
    let padded = |u: &Tensor| u.constant_pad_nd([0, 0, 0, blanks]);
    let walks: Vec<Vec<i64>> = (0..b)
        .map(|sample| {
            let chosen = chosen.int64_value(&[sample]);
            let key = |place: &(i64, i64)| {
                let (quadrant, window) = (quadrant(place), window(place));
                quadrant * 16 + if quadrant == chosen { window } else { 0 }
            };
            let mut next = l;
            let number = |(row, column): (i64, i64)| {
                token(row, column).unwrap_or_else(|| {
                    next += 1;
                    next - 1
                })
            };
            sorted(&key).into_iter().map(number).collect()
        })
        .collect();
    let hard =
        chosen.one_hot(4).to_kind(Kind::Double).index_select(1, &Tensor::from_slice(&quadrants)).unsqueeze(2);
    // The weight of the way that a token is sent.
    let weight = &mask * &hard + (-&mask + 1.0) * (-&hard + 1.0);
    two_ways(&padded(&(u * &weight)), &walks).narrow(1, 0, l) * weight
}
