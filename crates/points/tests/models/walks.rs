//! Orders of samples.

use std::collections::BTreeSet;

use ophidian_core::{
    adapter::Model,
    data::Sample,
    ops::Orders,
    rng::{self, Rng},
};
use ophidian_points::{
    models::{Classifier, Input, ModelConfig},
    scans::register_scans,
};
use ophidian_scan::{Geometry, Pattern, Plan, Points};
use proptest::prelude::*;
use rand::RngExt;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::table;

const CLOUD: Input = Input { frames: None, groups: 12, size: 5, channels: 3 };
const SEQUENCE: Input = Input { frames: Some(4), groups: 6, size: 5, channels: 4 };

fn model(input: Input, text: &str) -> (VarStore, Classifier) {
    let small = "d_model = 8\ndepth = 2\nencoder = [8, 8, 8]\nposition = 8\nhead = [8]\n";
    let config = ModelConfig::read(table(&format!("{small}{text}"))).unwrap();
    let vs = VarStore::new(Device::Cpu);
    let model = Classifier::new(&vs.root(), &config, input, 3).unwrap();
    (vs, model)
}

fn sample(input: Input, random: &mut Rng) -> Sample {
    let count = input.shape().iter().product::<i64>();
    Sample { input: (0..count).map(|_| random.random_range(-1.0f32..1.0)).collect(), label: 0 }
}

/// Every scan over points works in the same model with every mixer, by one line, and along the planner's orders it computes what it
/// computes along orders of its own.
#[test]
fn any_scan_over_points_runs() {
    for (input, scans) in [
        (
            CLOUD,
            &[
                "pointmamba/serialize",
                "pointmamba/hilbert",
                "hilbert",
                "morton | bidirectional",
                "pcm/serialize",
                "pcm/xyz | bidirectional",
                "axis(x)",
                "[axis(x), axis(y), axis(z)] | bidirectional",
                "serialize(z) | bidirectional",
                "point-mamba/octree",
                "random(seed=3)",
                "row | bidirectional",
                "pointmamba/serialize | concat",
            ][..],
        ),
        (
            SEQUENCE,
            &[
                "pointmamba/serialize | spatial-first",
                "pointmamba/hilbert | spatial-first(reset=true) | bidirectional",
                "pointmamba/serialize | temporal-first",
                "axis(z) | temporal-first(0.5) | bidirectional",
                "pointmamba/hilbert",
            ],
        ),
    ] {
        for scan in scans {
            for more in [
                "",
                "mixer = \"mamba2\"",
                "mixer = \"mamba2\"\nchannels = \"split\"\nmerge = \"concat\"\nnorm_each = true",
                "join = true",
                "merge = \"concat\"\nclass_token = true\npool = \"max\"",
            ] {
                let (_vs, model) = model(input, &format!("scan = \"{scan}\"\n{more}"));
                let mut random = rng::stream(&[7]);
                let samples = [sample(input, &mut random), sample(input, &mut random)];
                let values: Vec<f32> = samples.iter().flat_map(|sample| sample.input.clone()).collect();
                let shape: Vec<i64> = [2].into_iter().chain(input.shape()).collect();
                let batch = Tensor::from_slice(&values).view(&shape[..]);
                let planner = model.planner().unwrap();
                let plans =
                    samples.each_ref().map(|sample| planner.plans(sample, &mut rng::stream(&[1])).unwrap());
                let orders: Vec<Orders> = (0..plans[0].len())
                    .map(|at| Orders::per_sample(&[plans[0][at].clone(), plans[1][at].clone()]).unwrap())
                    .collect();
                let along = model.forward_along(&batch, &orders, false).unwrap();
                assert_eq!(along.size(), [2, 3], "{scan} {more}");
                let own = model.forward(&batch, false).unwrap();
                let error = (along - own).abs().max().double_value(&[]);
                assert!(error <= 1e-6, "{scan} {more}: {error}");
            }
        }
    }
}

#[test]
fn a_scan_drawn_for_the_sample_differs_from_sample_to_sample() {
    let (_vs, model) = model(CLOUD, "scan = \"random(seed=sample)\"");
    let mut random = rng::stream(&[7]);
    let one = sample(CLOUD, &mut random);
    let planner = model.planner().unwrap();
    let plan = |key| planner.plans(&one, &mut rng::stream(&[key])).unwrap();
    assert_eq!(plan(1), plan(1));
    assert_ne!(plan(1), plan(2));
}

/// The tokens of the second order come behind those of the first, and the class token last.
#[test]
fn joined_orders_visit_tokens_of_their_own() {
    let (_vs, model) = model(CLOUD, "scan = \"pointmamba/serialize\"\njoin = true\nclass_token = true");
    let one = sample(CLOUD, &mut rng::stream(&[3]));
    let plans = model.planner().unwrap().plans(&one, &mut rng::stream(&[0])).unwrap();
    let [order] = plans[0].orders() else { panic!("{plans:?}") };
    let centres = one.input.chunks_exact(18).map(|group| [group[0], group[1], group[2]]).collect();
    let geometry = Geometry::Points(std::sync::Arc::new(Points::new(centres).unwrap()));
    let plain = "pointmamba/serialize".parse::<Pattern>().unwrap().plan(&geometry).unwrap();
    let mut expected = plain.orders()[0].index().to_vec();
    expected.extend(plain.orders()[1].index().iter().map(|token| token + 12));
    expected.push(24);
    assert_eq!(order.index(), expected);
    assert!(order.resets().iter().all(|reset| !reset));
}

/// The indicator scales and shifts tokens by their order, the positions stay as they are: with a scale of 0 and a shift of
/// 0 nothing of the groups is left.
#[test]
fn the_indicator_acts_on_tokens_alone() {
    let (vs, model) = model(CLOUD, "scan = \"pointmamba/serialize\"\njoin = true");
    let variables = vs.variables();
    tch::no_grad(|| {
        for name in ["order.gamma", "order.beta"] {
            let _ = variables[name].shallow_clone().zero_();
        }
    });
    let mut random = rng::stream(&[7]);
    let shape = [1, 12, 6, 3];
    let input = Tensor::from_slice(&sample(CLOUD, &mut random).input).view(shape);
    // Other points around the same centres.
    let moved = input.shallow_clone() + 0.0;
    let _ = moved.narrow(2, 1, 5).uniform_(-1.0, 1.0);
    let [a, b] = [input, moved].map(|input| model.forward(&input, false).unwrap());
    assert_eq!((a - b).abs().max().double_value(&[]), 0.0);
}

#[test]
fn training_with_one_sample_leaves_the_running_statistics_finite() {
    let (vs, model) = model(CLOUD, "");
    let input = Tensor::from_slice(&sample(CLOUD, &mut rng::stream(&[7])).input).view([1, 12, 6, 3]);
    model.forward(&input, true).unwrap().sum(Kind::Float).backward();
    for (name, tensor) in vs.variables() {
        assert!(bool::try_from(tensor.isfinite().all()).unwrap(), "{name}");
    }
}

/// The plan of `text` over `frames` frames of points.
fn plan(text: &str, frames: &[Vec<[f32; 3]>]) -> Plan {
    register_scans();
    let mut starts = vec![0];
    starts.extend(frames.iter().scan(0, |sum, frame| {
        *sum += frame.len();
        Some(*sum)
    }));
    let geometry = Geometry::Points(std::sync::Arc::new(Points::packed(frames.concat(), starts).unwrap()));
    text.parse::<Pattern>().unwrap().plan(&geometry).unwrap()
}

fn clouds() -> impl Strategy<Value = Vec<Vec<[f32; 3]>>> {
    let point = prop::array::uniform3(-1.0f32..1.0);
    prop::collection::vec(prop::collection::vec(point, 1..9), 1..6)
}

proptest! {
    #[test]
    fn spatial_first_walks_each_frame_as_if_alone(frames in clouds()) {
        let found = plan("serialize(hilbert, depth=7) | spatial-first", &frames);
        let (mut first, mut expected) = (0, Vec::new());
        for frame in &frames {
            let alone = plan("serialize(hilbert, depth=7)", std::slice::from_ref(frame));
            expected.extend(alone.orders()[0].index().iter().map(|token| token + first));
            first += frame.len() as i32;
        }
        let [order] = found.orders() else { panic!() };
        prop_assert_eq!(order.index(), &expected[..]);
        prop_assert!(order.resets().iter().all(|reset| !reset));
        let reset = plan("serialize(hilbert) | spatial-first(reset=true)", &frames);
        let count = reset.orders()[0].resets().iter().filter(|reset| **reset).count();
        prop_assert_eq!(count, frames.len() - 1);
    }

    #[test]
    fn temporal_first_stays_in_a_cell_and_goes_forward_in_time(frames in clouds()) {
        let found = plan("serialize(z) | temporal-first(0.5)", &frames);
        let [order] = found.orders() else { panic!() };
        prop_assert!(order.is_permutation());
        let all = frames.concat();
        let cell = |token: &i32| all[*token as usize].map(|x| (x / 0.5).floor() as i64);
        let (mut seen, mut last) = (BTreeSet::new(), None);
        for token in order.index() {
            match last {
                Some((place, before)) if place == cell(token) => prop_assert!(before < *token),
                _ => prop_assert!(seen.insert(cell(token)), "a cell is left and entered again"),
            }
            last = Some((cell(token), *token));
        }
        let both = plan("serialize(z) | temporal-first(0.5) | bidirectional", &frames);
        prop_assert_eq!(&both.orders()[1], &order.reversed());
    }
}
