//! Attention within a map and the MLP that convolves over a clip, against their equations.
#![allow(missing_docs)]

mod plain;

use std::cell::Cell;

use ophidian_core::{
    init::Start,
    layers::{Mlp, MlpKind},
    mixer::{Attention, AttentionConfig, Mixer},
    ops::Orders,
};
use plain::*;
use proptest::prelude::*;
use tch::{Kind, Tensor};

/// Every R x R tokens of a map as one, what is left over at the edges not read: a sum over all taps, and a norm.
/// Leaves in `least` the least variance that the norm meets.
fn reduced(w: &Weights, x: &Tensor, [rows, columns]: [i64; 2], reduction: i64, least: &Cell<f64>) -> Tensor {
    let weight = &w["reduce.weight"]; // (out, in, R, R)
    let mut coarse = vec![];
    for row in 0..rows / reduction {
        for column in 0..columns / reduction {
            let mut sum = w["reduce.bias"].unsqueeze(0);
            for i in 0..reduction {
                for j in 0..reduction {
                    let token = x.select(1, (row * reduction + i) * columns + column * reduction + j);
                    sum = &sum + token.matmul(&weight.select(3, j).select(2, i).tr());
                }
            }
            coarse.push(sum);
        }
    }
    let coarse = Tensor::stack(&coarse, 1);
    least.set(coarse.var_dim(&[-1i64][..], false, false).min().double_value(&[]));
    layer_norm(w, "norm", &coarse)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn attention(
        b in 1..3i64, heads in 1..4i64, per in 3..6i64, reduction in 1..4i64, more in prop::array::uniform2(0..4i64),
        seed in 0..10_000u64,
    ) {
        let (d, map) = (heads * per, more.map(|more| reduction + more));
        let config = AttentionConfig { d_model: d, heads, reduction, start: Start::FanIn };
        let (vs, mixer) = fresh(seed, |vs| Attention::new(vs, &config));
        let l = map[0] * map[1];
        let input = Tensor::randn([b, l, d], F32);
        let orders = Orders::identity(l, 1).on_grid(map);
        let least = Cell::new(f64::INFINITY);
        let checked = check(&vs, &input, |x| mixer.forward(x, &orders).unwrap(), |w, x, _| {
            let coarse = if reduction > 1 { reduced(w, x, map, reduction, &least) } else { x.shallow_clone() };
            let [query, key, value] =
                [("query", x), ("key", &coarse), ("value", &coarse)].map(|(name, x)| linear(w, name, x));
            let of_head = |head: i64| {
                let part = |t: &Tensor| t.narrow(2, head * per, per);
                // Scores token by token, and their softmax written out.
                let scores = part(&query).matmul(&part(&key).transpose(1, 2)) / (per as f64).sqrt();
                let weights = scores.exp();
                let shares = &weights / weights.sum_dim_intlist(2, true, Kind::Double);
                shares.matmul(&part(&value))
            };
            let seen = Tensor::cat(&(0..heads).map(of_head).collect::<Vec<_>>(), 2);
            (linear(w, "out", &seen), none())
        });
        // A norm over channels that are all but equal makes much of rounding; one over two of them has no gradient.
        prop_assume!(checked.is_ok() || least.get() > 0.02);
        checked?;
    }

    #[test]
    fn an_mlp_convolves_over_a_clip(
        b in 1..3i64, clip in prop::array::uniform3(1..4i64), d in 1..4i64, inside in 1..5i64, residual in any::<bool>(),
        seed in 0..10_000u64,
    ) {
        let kind = if residual { MlpKind::ConvResidual } else { MlpKind::Conv };
        let [frames, rows, columns] = clip;
        let l = frames * rows * columns;
        let (vs, mlp) = fresh(seed, |vs| Ok(Mlp::new(vs, kind, [d, inside], true, 1, Start::FanIn)));
        let input = Tensor::randn([b, l, d], F32);
        check(&vs, &input, |x| mlp.forward(x, &clip).unwrap(), |w, x, _| {
            let hidden = linear(w, "fc1", x);
            let (weight, bias) = (&w["dwconv.weight"], &w["dwconv.bias"]); // (C, 1, 3, 3, 3)
            let mut near = vec![];
            for at in 0..l {
                let place = [at / (rows * columns), at / columns % rows, at % columns];
                let mut sum = bias.unsqueeze(0).expand([b, inside], false).shallow_clone();
                for tap in 0..27 {
                    let taps = [tap / 9, tap / 3 % 3, tap % 3];
                    let from = [0, 1, 2].map(|axis| place[axis] + taps[axis] - 1);
                    if (0..3).all(|axis| (0..clip[axis]).contains(&from[axis])) {
                        let token = (from[0] * rows + from[1]) * columns + from[2];
                        let tap = weight.select(4, taps[2]).select(3, taps[1]).select(2, taps[0]).squeeze_dim(1);
                        sum = &sum + hidden.select(1, token) * tap;
                    }
                }
                near.push(sum);
            }
            let near = Tensor::stack(&near, 1);
            let near = if residual { near + &hidden } else { near };
            (linear(w, "fc2", &near.gelu("none")), none())
        })?;
    }
}

#[test]
fn misfits_are_errors() {
    let vs = tch::nn::VarStore::new(tch::Device::Cpu);
    let config = AttentionConfig { d_model: 6, heads: 2, reduction: 1, start: Start::FanIn };
    for (wrong, named) in [
        (AttentionConfig { heads: 4, ..config }, "`heads` is 4"),
        (AttentionConfig { heads: 0, ..config }, "`heads` is 0"),
        (AttentionConfig { reduction: 0, ..config }, "`reduction` is 0"),
    ] {
        let error = Attention::new(&vs.root(), &wrong).err().unwrap().to_string();
        assert!(error.contains(named), "{error}");
    }
    let (_vs, mlp) = fresh(1, |vs| Ok(Mlp::new(vs, MlpKind::Conv, [4, 6], true, 1, Start::FanIn)));
    let x = Tensor::randn([2, 12, 4], F32);
    assert!(mlp.forward(&x, &[2, 2, 3]).is_ok());
    let error = mlp.forward(&x, &[4, 3]).unwrap_err().to_string();
    assert!(error.contains("[frames, rows, columns]"), "{error}");
    assert!(mlp.forward(&x, &[2, 2, 4]).is_err());
}
