//! Silent steps: Graph-Mamba's augmented sequence, which is read out at the nodes themselves alone.
#![allow(missing_docs)]

use std::path::PathBuf;

use ophidian_core::ops::{ConvInput, Merge, Orders, ScanInput, causal_conv1d, selective_scan};
use ophidian_scan::{Order, Plan};
use tch::{Device, Kind, Tensor};

/// (index, mask, nodes) of every golden, or of one made here where none is at hand.
fn sequences() -> Vec<(Vec<i64>, Vec<i64>, usize)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    let mut found = vec![(vec![1, 2, 0, 1, 0, 1, 2], vec![0, 0, 1, 1, 0, 0, 1], 3)];
    let files = std::fs::read_dir(shared.join("golden/scan")).into_iter().flatten().flatten();
    for path in files.map(|file| file.path()) {
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("graphmamba_augment_seq")) {
            let tensors = ophidian_core::tensors::read(&path).unwrap();
            let whole = |name: &str| Vec::<i64>::try_from(&tensors[name]).unwrap();
            found.push((whole("index"), whole("mask"), whole("batch").len()));
        }
    }
    if found.len() == 1 {
        let _ = std::io::Write::write_all(&mut std::io::stderr(), b"SKIPPED: no graphmamba goldens\n");
    }
    found
}

fn random(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Device::Cpu)).set_requires_grad(true)
}

/// The sequence is gathered, run from left to right, and read where the mask says so; an order with silent steps does the
/// same, gradients and all, in f64 and in f32.
#[test]
fn silent_steps_are_an_augmented_sequence() {
    tch::manual_seed(7);
    let (d, n) = (5, 3);
    for (index, mask, nodes) in sequences() {
        let (l, t) = (nodes as i64, index.len() as i64);
        let silent = mask.iter().map(|&read| read == 0).collect();
        let order = Order::from_i64(&index, nodes).unwrap().with_silent(silent).unwrap();
        let orders = Orders::new(&Plan::new(vec![order]).unwrap());
        let along = Tensor::from_slice(&index);
        let read = Tensor::from_slice(&mask).nonzero().squeeze_dim(1);
        // [u, delta, z, B, C], then A, D and the taps.
        let mut leaves: Vec<Tensor> = [d, d, d, n, n].map(|width| random(&[2, l, width])).into();
        leaves.extend([random(&[d, n]), random(&[d]), random(&[d, 4])]);
        let ct = [random(&[2, l, d]), random(&[2, l, d])];
        let gathered = |orders: &Orders,
                        kind: Kind,
                        from: &dyn Fn(&Tensor) -> Tensor,
                        to: &dyn Fn(&Tensor) -> Tensor| {
            let [u, delta, z, b, c] = [0, 1, 2, 3, 4].map(|i| from(&leaves[i].to_kind(kind)));
            let [a, skip, weight] = [5, 6, 7].map(|i| leaves[i].to_kind(kind));
            let y = selective_scan(&ScanInput {
                u: &u,
                delta: &delta,
                a: &-a.exp(),
                b: &b,
                c: &c,
                d: Some(&skip),
                z: Some(&z),
                delta_bias: None,
                delta_softplus: true,
                initial_state: None,
                orders,
                merge: Merge::Sum,
            });
            let (x, weight) = (&u, &weight);
            let conv =
                causal_conv1d(&ConvInput { x, weight, bias: None, silu: true, initial_state: None, orders });
            let outputs = [to(&y.unwrap().y), to(&conv.unwrap().y.squeeze_dim(2))];
            let loss = (&outputs[0] * &ct[0]).sum(None::<Kind>) + (&outputs[1] * &ct[1]).sum(None::<Kind>);
            let grads = Tensor::run_backward(&[loss], &leaves, false, false);
            outputs.into_iter().chain(grads).map(|t| t.detach().to_kind(Kind::Double)).collect::<Vec<_>>()
        };
        let plain = Orders::identity(t, 1);
        let want =
            gathered(&plain, Kind::Double, &|x| x.index_select(1, &along), &|y| y.index_select(1, &read));
        for (kind, tolerance) in [(Kind::Double, 1e-12), (Kind::Float, 1e-5)] {
            let got = gathered(&orders, kind, &Tensor::shallow_clone, &Tensor::shallow_clone);
            for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                let error = (got - want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]);
                assert!(error < tolerance, "{i}: {error:.1e} in {kind:?}");
            }
        }
    }
}
