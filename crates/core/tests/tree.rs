//! The tree scan and the shift as differentiable ops.

use std::path::PathBuf;

use ophidian_core::{
    ops::{Orders, Sweep, Trees, shift, tree_scan},
    tensors::{self, Tensors},
};
use ophidian_scan::{Candidates, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// A golden file, or None with a visible line.
fn golden(name: &str) -> Option<Tensors> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    let path = shared.join(format!("golden/scan/{name}.safetensors"));
    if !path.is_file() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no golden at {}\n", path.display()),
        );
        return None;
    }
    Some(tensors::read(&path).unwrap())
}

fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-3);
    (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]) / scale
}

#[test]
fn grootv() {
    for (shape, height, width) in [("3x3", 3, 3), ("4x5", 4, 5), ("6x6", 6, 6)] {
        let Some(golden) = golden(&format!("grootv_treescan_{shape}")) else { return };
        let candidates = Candidates::grid(height, width).unwrap();
        let features = golden["x"].flatten(2, 3).transpose(1, 2); // (B, L, C)
        let trees = Trees::spanning(&features, &candidates).unwrap();
        let decay = &golden["edge_weight"];
        let input = golden["feat"].transpose(1, 2);
        let y = tree_scan(&input, &decay.transpose(1, 2), &trees, Sweep::UpDown).unwrap();
        let error = relative(&y.transpose(1, 2), &golden["y"]);
        assert!(error < 1e-6, "{shape}: off by {error:.1e}");
    }
}

/// Parents of a random forest.
fn forest(tokens: usize, seed: u64) -> Vec<i32> {
    use rand::{RngExt, seq::SliceRandom};
    let mut rng = ophidian_core::rng::stream(&[seed]);
    let mut number: Vec<i32> = (0..tokens as i32).collect();
    number.shuffle(&mut rng);
    let mut parents = vec![-1; tokens];
    for i in 1..tokens {
        if rng.random_range(0..8) > 0 {
            parents[number[i] as usize] = number[rng.random_range(0..i)];
        }
    }
    parents
}

/// The matrix of the scan, (B, L, L, D): what token j adds to token i.
fn matrix(decay: &Tensor, parents: &[i32], sweep: Sweep) -> Tensor {
    let (b, l, d) = decay.size3().unwrap();
    let ancestors = |batch: i64, node: i64| {
        let tree = &parents[if parents.len() as i64 == l { 0 } else { (batch * l) as usize }..];
        std::iter::successors(Some(node), |node| {
            Some(i64::from(tree[*node as usize])).filter(|node| *node >= 0)
        })
        .collect::<Vec<_>>()
    };
    let zero = Tensor::zeros([d], F64);
    let entry = |batch: i64, i: i64, j: i64| {
        let (above, path) = (ancestors(batch, i), ancestors(batch, j));
        let Some(meet) = path.iter().position(|node| above.contains(node)) else {
            return zero.shallow_clone();
        };
        let back = above.iter().position(|node| *node == path[meet]).unwrap();
        if sweep == Sweep::Up && back > 0 {
            return zero.shallow_clone();
        }
        let edges = path[..meet].iter().chain(&above[..back]);
        edges.fold(Tensor::ones([d], F64), |product, node| product * decay.select(0, batch).select(0, *node))
    };
    let rows: Vec<Tensor> = (0..b)
        .flat_map(|batch| (0..l).flat_map(move |i| (0..l).map(move |j| (batch, i, j))))
        .map(|(batch, i, j)| entry(batch, i, j))
        .collect();
    Tensor::stack(&rows, 0).view([b, l, l, d])
}

/// Zero where none arrived.
fn grad(leaf: &Tensor) -> Tensor {
    let grad = leaf.grad();
    if grad.defined() { grad } else { leaf.zeros_like() }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn tree_scan_equals_its_definition(
        b in 1..3i64, l in 1..10i64, d in 1..40i64, up in any::<bool>(), own in any::<bool>(),
        wide in any::<bool>(), seed in 0..10_000u64,
    ) {
        tch::manual_seed(seed as i64);
        let sweep = if up { Sweep::Up } else { Sweep::UpDown };
        let count = if own { b as u64 } else { 1 };
        let parents: Vec<i32> = (0..count).flat_map(|i| forest(l as usize, seed + 7919 * i)).collect();
        let trees = if own { Trees::per_sample(&parents, l).unwrap() } else { Trees::new(&parents) };
        let kind = if wide { Kind::Double } else { Kind::Float };
        let leaf = |t: &Tensor, kind| t.to_kind(kind).set_requires_grad(true);
        let (input, decay) = (Tensor::randn([b, l, d], F64), Tensor::rand([b, l, d], F64));
        let cotangent = Tensor::randn([b, l, d], F64);
        // Rows that are not contiguous in the middle.
        let ours = [&input, &decay].map(|t| leaf(&t.transpose(0, 1).contiguous(), kind));
        let y = tree_scan(&ours[0].transpose(0, 1), &ours[1].transpose(0, 1), &trees, sweep).unwrap();
        (&y * cotangent.to_kind(kind)).sum(kind).backward();
        let exact = [&input, &decay].map(|t| leaf(t, Kind::Double));
        let m = matrix(&exact[1], &parents, sweep);
        let want = (m * exact[0].unsqueeze(1)).sum_dim_intlist(2, false, Kind::Double);
        (&want * &cotangent).sum(Kind::Double).backward();
        let tolerance = if wide { 1e-12 } else { 1e-5 };
        prop_assert!(relative(&y, &want) < tolerance);
        for (ours, exact) in ours.iter().zip(&exact) {
            prop_assert!(relative(&grad(ours).transpose(0, 1), &grad(exact)) < 3.0 * tolerance);
        }
    }

    #[test]
    fn shift_equals_its_definition(b in 1..3i64, l in 1..9usize, k in 1..4usize, d in 1..70i64, seed in 0..10_000u64) {
        use rand::seq::SliceRandom;
        tch::manual_seed(seed as i64);
        let mut rng = ophidian_core::rng::stream(&[seed]);
        let mut order = |_| {
            let mut index: Vec<i32> = (0..l as i32).collect();
            index.shuffle(&mut rng);
            let resets = index.iter().map(|i| *i == 2).collect();
            Order::new(index, l).unwrap().with_resets(resets).unwrap()
        };
        let plan = Plan::new((0..k).map(&mut order).collect()).unwrap();
        let y = Tensor::randn([b, l as i64, k as i64, d], F64).set_requires_grad(true);
        let out = shift(&y, &Orders::new(&plan)).unwrap();
        let cotangent = Tensor::randn(out.size(), F64);
        (&out * &cotangent).sum(Kind::Double).backward();
        let mut want = out.zeros_like();
        let mut want_grad = y.zeros_like();
        for (k, order) in plan.orders().iter().enumerate() {
            for (t, pair) in order.index().windows(2).enumerate().filter(|(t, _)| !order.resets()[t + 1]) {
                let (from, to) = (i64::from(pair[0]), i64::from(pair[1]));
                let _ = (t, want.select(1, to).g_add_(&y.detach().select(1, from).select(1, k as i64)));
                want_grad.select(1, from).select(1, k as i64).copy_(&cotangent.select(1, to));
            }
        }
        prop_assert!(relative(&out, &want) < 1e-12);
        prop_assert!(relative(&y.grad(), &want_grad) < 1e-12);
        let _ = (&mut want, &mut want_grad);
    }
}

#[test]
fn narrow_floats_and_nan() {
    let trees = Trees::new(&[-1, 0, 1, 0]);
    let input = Tensor::from_slice(&[1f32, f32::NAN, 1.0, 1.0]).view([1, 4, 1]);
    let decay = Tensor::full([1, 4, 1], 0.5, (Kind::Float, Device::Cpu));
    let y = tree_scan(&input, &decay, &trees, Sweep::Up).unwrap();
    assert_eq!(Vec::<bool>::try_from(y.isnan().flatten(0, -1)).unwrap(), [true, true, false, false]);
    let narrow = |t: &Tensor| t.to_kind(Kind::BFloat16);
    let y = tree_scan(&narrow(&decay), &narrow(&decay), &trees, Sweep::UpDown).unwrap();
    assert_eq!(y.kind(), Kind::BFloat16);
    assert_eq!(y.double_value(&[0, 0, 0]), 0.5 + 0.25 + 0.25 + 0.125);
    // A root's decay is not read.
    let odd = decay.copy();
    let _ = odd.select(1, 0).fill_(f64::NAN);
    let x = decay.copy().set_requires_grad(true);
    let odd = odd.set_requires_grad(true);
    tree_scan(&x, &odd, &trees, Sweep::UpDown).unwrap().sum(Kind::Float).backward();
    assert!(bool::try_from(x.grad().isfinite().all()).unwrap());
    assert!(bool::try_from(odd.grad().isfinite().all()).unwrap());
}

#[test]
fn misfits_are_errors() {
    let x = Tensor::ones([2, 3, 4], (Kind::Float, Device::Cpu));
    let scan = |input: &Tensor, decay: &Tensor, trees: &Trees| {
        tree_scan(input, decay, trees, Sweep::UpDown).unwrap_err().to_string()
    };
    let tree = Trees::new(&[-1, 0, 1]);
    assert!(tree_scan(&x, &x, &tree, Sweep::Up).is_ok());
    for (error, expected) in [
        (scan(&x, &x.narrow(2, 0, 3), &tree), "`decay` has shape [2, 3, 3]"),
        (scan(&x.select(0, 0), &x, &tree), "`input` has shape [3, 4]"),
        (scan(&x.to_kind(Kind::Int64), &x, &tree), "`input` has dtype Int64"),
        (scan(&x, &x, &Trees::new(&[-1, 0])), "the trees are over 2 tokens, `input` has 3"),
        (scan(&x, &x, &Trees::new(&[-1, 2, 1])), "cycle"),
        (scan(&x, &x, &Trees::new(&[-1, 3, 0])), "the parent of node 1 is 3"),
        (scan(&x, &x, &Trees::per_sample(&[-1; 9], 3).unwrap()), "`parents` holds 9 values, expected 6"),
        (Trees::per_sample(&[-1; 4], 3).unwrap_err().to_string(), "4 parents"),
    ] {
        assert!(error.contains(expected), "{error}");
    }
    let features = Trees::spanning(&x, &Candidates::grid(2, 2).unwrap()).unwrap_err().to_string();
    assert!(features.contains("features of 3"), "{features}");
    let y = Tensor::ones([2, 3, 2, 4], (Kind::Float, Device::Cpu));
    assert!(shift(&y, &Orders::identity(3, 2)).is_ok());
    for orders in [Orders::identity(3, 1), Orders::identity(4, 2)] {
        assert!(shift(&y, &orders).unwrap_err().to_string().contains("[2, 3, 2, 4]"));
    }
    assert!(shift(&x, &Orders::identity(3, 2)).is_err());
}
