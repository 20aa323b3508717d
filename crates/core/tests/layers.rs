//! Norms, stochastic depth, blocks and the backbone.

use ophidian_core::{
    Result,
    backbone::{Backbone, Between},
    block::{Block, BlockConfig},
    init::Start,
    layers::{DropPath, MlpKind, Norm, NormKind},
    mixer::Mixer,
    ops::Orders,
    torch::autocast,
};
use tch::{
    Device, Kind, Tensor,
    nn::{self, VarStore},
};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn norms_are_their_formulas() {
    let x = Tensor::randn([3, 5, 7], F32) * 4.0 + 1.0;
    for kind in [NormKind::Rms, NormKind::Layer] {
        let vs = VarStore::new(Device::Cpu);
        let norm = Norm::new(&vs.root(), kind, 7, 1e-5);
        tch::no_grad(|| {
            vs.trainable_variables().iter_mut().for_each(|t| {
                let _ = t.normal_(0.0, 1.0);
            })
        });
        let variables = vs.variables();
        let mean = x.mean_dim(-1, true, Kind::Float);
        let centred = if kind == NormKind::Layer { &x - mean } else { x.shallow_clone() };
        let scale = (centred.square().mean_dim(-1, true, Kind::Float) + 1e-5).rsqrt();
        let mut want = centred * scale * &variables["weight"];
        if kind == NormKind::Layer {
            want += &variables["bias"];
        }
        assert!(norm.forward(&x).unwrap().allclose(&want, 1e-5, 1e-5, false), "{kind:?}");
        let half = autocast(true, || norm.forward(&x.to_kind(Kind::BFloat16))).unwrap();
        assert_eq!(half.kind(), Kind::Float, "a norm is computed in f32");
    }
}

#[test]
fn drop_path_drops_whole_samples_and_keeps_the_mean() {
    tch::manual_seed(1);
    let (samples, rate) = (20_000, 0.3);
    let branch = Tensor::ones([samples, 2, 3], F32);
    let path = DropPath::new(rate);
    assert!(path.forward(branch.shallow_clone(), false).equal(&branch), "only in training");
    assert!(DropPath::new(0.0).forward(branch.shallow_clone(), true).equal(&branch));
    let out = path.forward(branch, true);
    let first = out.narrow(1, 0, 1).narrow(2, 0, 1);
    assert!(out.equal(&first.expand_as(&out)), "a sample is dropped whole");
    let dropped = first.eq(0.0).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
    // Five deviations of a binomial.
    assert!((dropped - rate).abs() < 5.0 * (rate * (1.0 - rate) / samples as f64).sqrt(), "{dropped}");
    let kept = out.max().double_value(&[]);
    assert!((kept - 1.0 / (1.0 - rate)).abs() < 1e-6, "{kept}");
}

/// Vim's toy mixer: a running sum over the order's walk.
struct Sum(f64);

impl Mixer for Sum {
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        // The toy knows two walks: two directions stand for the reverse one.
        Ok(match orders.directions() {
            1 => x.cumsum(1, Kind::Float),
            _ => x.flip([1]).cumsum(1, Kind::Float).flip([1]),
        } * self.0)
    }
}

fn config() -> BlockConfig {
    BlockConfig {
        d_model: 3,
        norm: NormKind::Rms,
        norm_eps: 1e-5,
        drop_path: 0.0,
        layer_scale: None,
        mlp: 0,
        mlp_kind: MlpKind::Gelu,
        start: Start::FanIn,
        residuals: 1,
        ..BlockConfig::default()
    }
}

fn rms(x: &Tensor) -> Tensor {
    x * (x.square().mean_dim(-1, true, Kind::Float) + 1e-5).rsqrt()
}

#[test]
fn a_stack_of_blocks_is_pre_norm_residual() {
    let vs = VarStore::new(Device::Cpu);
    let blocks = [0.5, 0.25]
        .map(|w| Block::new(&(vs.root() / format!("b{w}").replace('.', "_")), &config(), Box::new(Sum(w))));
    let backbone = Backbone::new(&vs.root(), blocks.into(), false, NormKind::Rms, 3, 1e-5);
    let x = Tensor::randn([2, 6, 3], F32);
    let out = backbone.forward(&x, &[Orders::identity(6, 1)], None, false).unwrap();
    let mut want = x.shallow_clone();
    for w in [0.5, 0.25] {
        want = &want + rms(&want).cumsum(1, Kind::Float) * w;
    }
    assert!(out.allclose(&rms(&want), 1e-5, 1e-5, false));
    assert!(backbone.forward(&x, &[], None, false).is_err(), "no plan");
    let three = [1, 1, 1].map(|k| Orders::identity(6, k));
    assert!(backbone.forward(&x, &three, None, false).is_err(), "three plans for two blocks");
}

#[test]
fn pairs_read_the_same_tokens_and_add_up() {
    let vs = VarStore::new(Device::Cpu);
    let weights = [0.5, 0.25, 0.3, 0.2];
    let block = |(i, w): (usize, &f64)| Block::new(&(vs.root() / i), &config(), Box::new(Sum(*w)));
    let blocks = weights.iter().enumerate().map(block).collect();
    let backbone = Backbone::new(&vs.root(), blocks, true, NormKind::Rms, 3, 1e-5);
    let x = Tensor::randn([2, 6, 3], F32);
    let walks = [1, 2, 1, 2].map(|k| Orders::identity(6, k));
    let out = backbone.forward(&x, &walks, None, false).unwrap();
    let (mut hidden, mut residual) = (x.shallow_clone(), x.zeros_like());
    for pair in weights.chunks(2) {
        let stream = &residual + &hidden;
        let tokens = rms(&stream);
        let back = tokens.flip([1]).cumsum(1, Kind::Float).flip([1]);
        hidden = tokens.cumsum(1, Kind::Float) * pair[0] + back * pair[1];
        residual = stream * 2.0;
    }
    assert!(out.allclose(&rms(&(hidden + residual)), 1e-5, 1e-5, false));
}

/// Counts what passes between the blocks.
struct Doubled;

impl Between for Doubled {
    fn hidden(&self, hidden: Tensor) -> Result<Tensor> {
        Ok(hidden * 2.0)
    }
    fn residual(&self, residual: Tensor) -> Result<Tensor> {
        Ok(residual * 3.0)
    }
}

#[test]
fn between_acts_on_the_branch_and_on_the_stream_before_every_block() {
    let vs = VarStore::new(Device::Cpu);
    let block = |i: usize| Block::new(&(vs.root() / i), &config(), Box::new(Sum(0.5)));
    let backbone = Backbone::new(&vs.root(), vec![block(0), block(1)], false, NormKind::Rms, 3, 1e-5);
    let x = Tensor::randn([1, 4, 3], F32);
    let out = backbone.forward(&x, &[Orders::identity(4, 1)], Some(&Doubled), false).unwrap();
    let stream = &x * 2.0;
    let branch = rms(&stream).cumsum(1, Kind::Float) * 0.5;
    let stream = stream * 3.0 + branch * 2.0;
    let want = &stream + rms(&stream).cumsum(1, Kind::Float) * 0.5;
    assert!(out.allclose(&rms(&want), 1e-5, 1e-5, false));
}

#[test]
fn mlp_layer_scale_and_drop_path_stand_where_they_should() {
    tch::manual_seed(2);
    let vs = VarStore::new(Device::Cpu);
    let full = BlockConfig { mlp: 5, layer_scale: Some(0.1), drop_path: 0.5, ..config() };
    let block = Block::new(&vs.root(), &full, Box::new(Sum(1.0)));
    let x = Tensor::randn([1, 4, 3], F32);
    let variables = vs.variables();
    assert_eq!(variables["mlp.fc1.weight"].size(), [5, 3]);
    let linear = |x: &Tensor, name: &str| {
        x.linear(&variables[&format!("{name}.weight")], Some(&variables[&format!("{name}.bias")]))
    };
    let mlp = |x: &Tensor| linear(&linear(&rms(x), "mlp.fc1").gelu("none"), "mlp.fc2");
    let (branch, stream) = block.forward(&x, None, &Orders::identity(4, 1), false).unwrap();
    let want = &x + rms(&x).cumsum(1, Kind::Float) * 0.1;
    assert!(stream.allclose(&want, 1e-5, 1e-5, false));
    assert!(branch.allclose(&mlp(&want), 1e-5, 1e-5, false));

    // In training each of the two branches is dropped or doubled.
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..100 {
        let (branch, stream) = block.forward(&x, None, &Orders::identity(4, 1), true).unwrap();
        let mixed = (&stream - &x).allclose(&((&want - &x) * 2.0), 1e-4, 1e-5, false);
        assert!(mixed || stream.equal(&x));
        let passed = branch.allclose(&(mlp(&stream) * 2.0), 1e-4, 1e-5, false);
        assert!(passed || branch.abs().max().double_value(&[]) == 0.0);
        seen.insert((mixed, passed));
    }
    assert_eq!(seen.len(), 4, "both branches are drawn apart: {seen:?}");
}

#[test]
fn the_stream_stays_in_f32_under_autocast() {
    struct Rounded(nn::Linear);
    impl Mixer for Rounded {
        fn forward(&self, x: &Tensor, _: &Orders) -> Result<Tensor> {
            Ok(x.linear(&self.0.ws, self.0.bs.as_ref()))
        }
    }
    let vs = VarStore::new(Device::Cpu);
    let mixer = Rounded(nn::linear(vs.root() / "mixer", 3, 3, Default::default()));
    let block = Block::new(&vs.root(), &config(), Box::new(mixer));
    let x = Tensor::randn([1, 4, 3], F32);
    let (branch, stream) = autocast(true, || {
        let (branch, stream) = block.forward(&x, None, &Orders::identity(4, 1), false)?;
        block.forward(&branch, Some(&stream), &Orders::identity(4, 1), false)
    })
    .unwrap();
    assert_eq!((branch.kind(), stream.kind()), (Kind::BFloat16, Kind::Float));
}
