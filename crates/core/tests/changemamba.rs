//! ChangeMamba's three arrangements of two images against their equations.
#![allow(missing_docs)]

mod plain;

use ophidian_core::{
    block::BlockConfig,
    layers::NormKind,
    mixer::{ChangeMamba, ChangeMambaConfig, ConvPlace, Mamba1Config, Mixer},
    ops::Orders,
    tape,
};
use ophidian_scan::{Geometry, Pattern, Plan};
use plain::*;
use proptest::prelude::*;
use tch::{Kind, Tensor};

fn planned(pattern: &str, geometry: &Geometry) -> Plan {
    pattern.parse::<Pattern>().unwrap().plan(geometry).unwrap()
}

/// Orders over both images' map, with those over one image's.
fn orders(pattern: &str, [h, w]: [i64; 2]) -> Orders {
    let of = |width: i64| {
        let geometry = Geometry::Grid2 { height: h as usize, width: width as usize };
        Orders::new(&planned(pattern, &geometry)).on_grid([h, width])
    };
    of(2 * w).with_coarse(of(w))
}

/// A block of VMamba over a map.
fn block(
    w: &Weights,
    name: &str,
    config: &ChangeMambaConfig,
    pattern: &str,
    map: [i64; 2],
    x: &Tensor,
) -> Tensor {
    let part = |prefix: &str| -> Weights {
        let part =
            |(name, t): (&String, &Tensor)| Some((name.strip_prefix(prefix)?.to_owned(), t.shallow_clone()));
        w.iter().filter_map(part).collect()
    };
    let geometry = Geometry::Grid2 { height: map[0] as usize, width: map[1] as usize };
    let plan = planned(pattern, &geometry);
    let (w, mixer) = (part(&format!("{name}.")), part(&format!("{name}.block.mixer.")));
    let x = linear(&w, "conv", x);
    let mixed = shell(&mixer, &config.mamba, map, &layer_norm(&w, "block.norm", &x), |u| {
        let ways = plan.orders().iter().enumerate().map(|(k, order)| {
            let order: Vec<i64> = order.index().iter().map(|token| i64::from(*token)).collect();
            scan(u, &direction(&mixer, &config.mamba, k as i64, u), &[order])
        });
        ways.reduce(|sum, way| sum + way).unwrap()
    });
    let x = x + mixed;
    if config.block.mlp == 0 {
        return x;
    }
    let inside = linear(&w, "block.mlp.fc1", &layer_norm(&w, "block.norm2", &x)).gelu("none");
    x + linear(&w, "block.mlp.fc2", &inside)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn equals_its_equations(
        b in 1..3i64, h in 1..4i64, w in 1..4i64, d_model in 3..6i64, n in 1..3i64, mlp in 0..5i64,
        [norm, gate, activated] in any::<[bool; 3]>(), cross in any::<bool>(), seed in 0..10_000u64,
    ) {
        let pattern = if cross { "cross" } else { "serpentine" };
        let mamba = config(d_model, if cross { 4 } else { 1 }, n, norm, gate);
        let block_config = BlockConfig { d_model, norm: NormKind::Layer, mlp, ..BlockConfig::default() };
        let config = ChangeMambaConfig { mamba, block: block_config, activated };
        let (vs, mixer) = fresh(seed, |vs| ChangeMamba::new(vs, &config));
        tch::no_grad(|| for (name, mut tensor) in vs.variables() {
            if name.ends_with("running_var") {
                let _ = tensor.uniform_(0.5, 2.0);
            }
        });
        let input = Tensor::randn([b, 2 * h * w, d_model], F32);
        let pair = Geometry::Grid3 { frames: 2, height: h as usize, width: w as usize };
        // By the published scans, which goldens hold against the authors'.
        let laid_out = |name: &str| {
            let plan = planned(&format!("changemamba/{name} | direction(0)"), &pair);
            let index: Vec<i64> = plan.orders()[0].index().iter().map(|token| i64::from(*token)).collect();
            Tensor::from_slice(&index)
        };
        check(&vs, &input, |x| mixer.forward(x, &orders(pattern, [h, w])).unwrap(), |weights, x, _| {
            let image = |t: &Tensor, i: i64| t.narrow(1, i * h * w, h * w);
            let both = Tensor::cat(&[image(x, 0), image(x, 1)], 2);
            let stacked = block(weights, "stacked", &config, pattern, [h, w], &both);
            let mut all = vec![stacked];
            for (name, scan) in [("interleaved", "cross"), ("beside", "parallel_w")] {
                let index = laid_out(scan);
                let y = block(weights, name, &config, pattern, [h, 2 * w], &x.index_select(1, &index));
                let y = y.index_select(1, &index.argsort(0, false));
                all.extend([image(&y, 0), image(&y, 1)]);
            }
            let mut y = linear(weights, "fuse", &Tensor::cat(&all, 2));
            if activated {
                let part = |name: &str| &weights[&format!("fuse_norm.{name}")];
                let scale = (part("running_var").detach() + 1e-5).sqrt();
                y = ((y - part("running_mean").detach()) / scale * part("weight") + part("bias")).relu();
            }
            (Tensor::cat(&[&y, &y], 1), none())
        })?;
    }
}

#[test]
fn misfits_are_errors() {
    let block = BlockConfig { d_model: 4, ..BlockConfig::default() };
    let fine = ChangeMambaConfig { mamba: config(4, 4, 1, true, true), block, activated: false };
    let (_vs, mixer) = fresh(1, |vs| ChangeMamba::new(vs, &fine));
    let run = |shape: &[i64], orders: &Orders| {
        mixer.forward(&Tensor::randn(shape, F32), orders).map(|_| ()).map_err(|error| error.to_string())
    };
    let two = orders("cross", [2, 3]);
    assert_eq!(run(&[2, 12, 4], &two), Ok(()));
    assert!(run(&[2, 6, 4], &two).unwrap_err().contains("[2, 6, 4]"));
    assert!(run(&[2, 12, 3], &two).unwrap_err().contains("expected (batch, 12, 4)"));
    assert!(run(&[12, 4], &two).is_err());
    assert!(run(&[2, 12, 4], two.coarse().unwrap()).unwrap_err().contains("a single image"));
    let twice = two.clone().with_coarse(two.clone());
    assert!(run(&[2, 12, 4], &twice).unwrap_err().contains("2x6"));
    let along = Mamba1Config { conv: ConvPlace::Along, ..fine.mamba.clone() };
    let along = ChangeMambaConfig { mamba: along, ..fine };
    let vs = tch::nn::VarStore::new(tch::Device::Cpu);
    let error = ChangeMamba::new(&vs.root(), &along).err().unwrap().to_string();
    assert!(error.contains("`conv` is \"along\""), "{error}");
}

/// What it scans are not the layer's tokens: a tape hears a word and no scan, and goes on behind it.
#[test]
fn a_tape_hears_of_it() {
    let block = BlockConfig { d_model: 4, ..BlockConfig::default() };
    let config = ChangeMambaConfig { mamba: config(4, 4, 1, true, true), block, activated: true };
    let (_vs, mixer) = fresh(1, |vs| ChangeMamba::new(vs, &config));
    let x = Tensor::randn([2, 12, 4], F32);
    let (_, tape) = tape::record(|| {
        tape::layer([4, 3], &x);
        let y = mixer.forward(&x, &orders("cross", [2, 3])).unwrap();
        tape::tokens(&y, [4, 3]);
    });
    assert_eq!((tape.layers[0].scans.len(), tape.layers[0].notes.len()), (0, 1));
    assert!(tape.tokens.is_some());
    let trained = mixer.forward_t(&x, &orders("cross", [2, 3]), true).unwrap();
    assert!(bool::try_from(trained.isfinite().all()).unwrap());
    assert_eq!(trained.kind(), Kind::Float);
}
