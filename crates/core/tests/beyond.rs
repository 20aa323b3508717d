//! The mixers that run on trees, on states or one step behind, against their equations.

mod plain;

use ophidian_core::{
    mixer::{ConvPlace, GrootL, GrootLConfig, GrootV, Hydra, HydraConfig, Mamba1Config, Mixer, SpatialMamba},
    ops::{Orders, Trees},
};
use ophidian_scan::{Candidates, Order, Plan};
use plain::*;
use proptest::prelude::*;
use tch::{Kind, Tensor};

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
                term = &term * decay.select(0, sample).select(0, *edge);
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
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn grootv(b in 1..3i64, h in 1..4i64, w in 1..5i64, d_model in 3..6i64, gate in any::<bool>(), seed in 0..10_000u64) {
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
    fn spatial_mamba(b in 1..3i64, h in 1..5i64, w in 1..5i64, d_model in 3..6i64, gate in any::<bool>(), seed in 0..10_000u64) {
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

#[test]
fn misfits_are_errors() {
    let vs = tch::nn::VarStore::new(tch::Device::Cpu);
    let base = config(4, 1, 1, true, true);
    let message = |error: ophidian_core::Error| error.to_string();
    for (named, error) in [
        ("`d_state` is 2", GrootV::new(&vs.root(), &Mamba1Config { d_state: 2, ..base.clone() }).err()),
        ("`directions` is 2", GrootV::new(&vs.root(), &Mamba1Config { directions: 2, ..base.clone() }).err()),
        ("`d_state` is 3", SpatialMamba::new(&vs.root(), &Mamba1Config { d_state: 3, ..base.clone() }).err()),
        (
            "step_embedding",
            SpatialMamba::new(&vs.root(), &Mamba1Config { step_embedding: true, ..base.clone() }).err(),
        ),
    ] {
        let error = error.map(message).unwrap_or_default();
        assert!(error.contains(named), "{named}: {error}");
    }
    for (named, bad) in [
        ("`d_conv` is 4", HydraConfig { d_conv: 4, ..HydraConfig::default() }),
        ("`headdim` is 48", HydraConfig { headdim: 48, ..HydraConfig::default() }),
        ("`ngroups` is 0", HydraConfig { ngroups: 0, ..HydraConfig::default() }),
        ("dt_min", HydraConfig { dt_min: f64::NAN, ..HydraConfig::default() }),
    ] {
        let error = Hydra::new(&vs.root(), &bad).err().map(message).unwrap_or_default();
        assert!(error.contains(named), "{named}: {error}");
    }
    let context = GrootLConfig { mamba: base.clone(), context: -1, scale: 0.3 };
    assert!(message(GrootL::new(&vs.root(), &context).unwrap_err()).contains("`context` is -1"));

    let (_vs, mixer) = fresh(1, |vs| GrootV::new(vs, &base));
    let x = Tensor::randn([2, 6, 4], F32);
    let run = |x: &Tensor, orders: Orders| mixer.forward(x, &orders).map(|_| ()).map_err(message);
    assert_eq!(run(&x, both_ways(6, 1).on_grid([2, 3])), Ok(()));
    assert!(run(&x, both_ways(6, 1)).unwrap_err().contains("grid"));
    assert!(run(&x, both_ways(6, 1).on_grid([2, 2])).unwrap_err().contains("[2, 2]"));
    assert!(run(&x, both_ways(6, 1).on_grid([1, 2, 3])).unwrap_err().contains("[1, 2, 3]"));
    assert!(run(&x.narrow(1, 0, 5), both_ways(6, 1).on_grid([2, 3])).unwrap_err().contains("[2, 5, 4]"));
    assert!(run(&x.select(0, 0), both_ways(6, 1).on_grid([2, 3])).is_err());
    assert!(run(&x.narrow(2, 0, 3), both_ways(6, 1).on_grid([2, 3])).is_err());
    // A NaN among the features leaves a tree.
    let odd = x.copy();
    let _ = odd.select(1, 2).fill_(f64::NAN);
    let y = mixer.forward(&odd, &both_ways(6, 1).on_grid([2, 3])).unwrap();
    assert!(bool::try_from(y.isnan().any()).unwrap());

    let (_vs, hydra) =
        fresh(1, |vs| Hydra::new(vs, &HydraConfig { d_model: 4, headdim: 4, ..HydraConfig::default() }));
    assert!(message(hydra.forward(&x, &both_ways(6, 1)).unwrap_err()).contains("2 directions"));
    assert!(hydra.forward(&x, &both_ways(5, 2)).is_err());
}
