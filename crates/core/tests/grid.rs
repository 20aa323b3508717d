//! Layers on the map that tokens lie on, and backbones of several stages, against plain references.

use ophidian_core::{
    Result,
    backbone::{Backbone, Behind, Stage},
    block::{Block, BlockConfig},
    init::{Start, without_values},
    keymap::{Key, export, load},
    layers::{
        BatchNorm, Conv2d, Downsample, DownsampleConfig, DownsampleKind, Kernel, LocalConv, Mlp, MlpKind,
        Norm, NormKind, to_map, to_tokens,
    },
    mixer::Mixer,
    ops::Orders,
    tensors::Tensors,
};
use tch::{Device, Kind, Tensor, nn::VarStore};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

/// Moves every trained value away from where it starts.
fn perturb(vs: &VarStore) {
    tch::no_grad(|| {
        for mut tensor in vs.trainable_variables() {
            let noise = tensor.randn_like() * 0.3;
            let _ = tensor.g_add_(&noise);
        }
    });
}

fn close(name: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{name}");
    assert!(got.allclose(want, 1e-4, 1e-5, false), "{name}: {}", (got - want).abs().max());
}

#[test]
fn tokens_are_maps_and_back() {
    let tokens = Tensor::randn([2, 15, 4], F32);
    let map = to_map(&tokens, [3, 5]).unwrap();
    assert_eq!(map.size(), [2, 4, 3, 5]);
    assert_eq!(
        map.double_value(&[1, 2, 1, 3]),
        tokens.double_value(&[1, 8, 2]),
        "token 8 is row 1, column 3"
    );
    assert!(to_tokens(&map).unwrap().equal(&tokens));
    let error = to_map(&tokens, [4, 4]).unwrap_err().to_string();
    assert!(error.contains("15 tokens") && error.contains("4x4"), "{error}");
}

#[test]
fn a_kernel_knows_what_it_makes_of_a_map() {
    for kernel in
        [Kernel::around(2, 3, 3, 2), Kernel::patches(2, 3, [2, 4], [2, 3]), Kernel::around(2, 3, 7, 1)]
    {
        for size in [[4, 4], [5, 9], [8, 7]] {
            let vs = VarStore::new(Device::Cpu);
            let conv = Conv2d::new(&vs.root(), &kernel, true, None);
            let map = conv.forward(&Tensor::randn([1, 2, size[0], size[1]], F32)).unwrap();
            assert_eq!(map.size()[2..], kernel.output(size), "{kernel:?} of {size:?}");
        }
    }
    assert_eq!(Kernel::patches(1, 1, [4, 4], [4, 4]).output([3, 8]), [0, 2]);
}

/// The value of channel `c` at (row, column) of sample 0, 0 outside.
fn at(tokens: &Tensor, [h, w]: [i64; 2], row: i64, column: i64, c: i64) -> f64 {
    if !(0..h).contains(&row) || !(0..w).contains(&column) {
        return 0.0;
    }
    tokens.double_value(&[0, row * w + column, c])
}

fn step_config(kind: DownsampleKind, channels: [i64; 2]) -> DownsampleConfig {
    DownsampleConfig { kind, channels, norm: NormKind::Layer, eps: 1e-5, bias: true, start: Start::Normal }
}

#[test]
fn downsampling_is_its_sum_written_out() {
    for kind in [DownsampleKind::Merge, DownsampleKind::Conv2, DownsampleKind::Conv3] {
        for grid in [[4, 6], [5, 3], [1, 2]] {
            let [h, w] = grid;
            let vs = VarStore::new(Device::Cpu);
            let down = Downsample::new(&vs.root(), &step_config(kind, [2, 3]));
            perturb(&vs);
            let variables = vs.variables();
            let norm = |x: &Tensor| {
                let (weight, bias) = (&variables["norm.weight"], &variables["norm.bias"]);
                x.layer_norm([x.size()[0]], Some(weight), Some(bias), 1e-5, false)
            };
            let tokens = Tensor::randn([1, h * w, 2], F32);
            let Ok((got, found)) = down.forward(&tokens, grid, false) else {
                assert!(kind == DownsampleKind::Conv2 && h == 1, "{kind:?} of {grid:?}");
                continue;
            };
            assert_eq!(found, kind.grid(grid));
            assert_eq!(got.size(), [1, found[0] * found[1], 3], "{kind:?} of {grid:?}");
            let token = |row: i64, column: i64| -> Tensor {
                if kind == DownsampleKind::Merge {
                    let places = [[0, 0], [1, 0], [0, 1], [1, 1]];
                    let values: Vec<f64> = places
                        .iter()
                        .flat_map(|[r, c]| [0, 1].map(|k| at(&tokens, grid, 2 * row + r, 2 * column + c, k)))
                        .collect();
                    let side_by_side = Tensor::from_slice(&values).to_kind(Kind::Float);
                    return variables["reduction.weight"].mv(&norm(&side_by_side));
                }
                let (side, before) = if kind == DownsampleKind::Conv3 { (3, 1) } else { (2, 0) };
                let sum = |o: i64| {
                    let mut sum = variables["conv.bias"].double_value(&[o]);
                    for (r, c, k) in (0..side * side * 2).map(|i| (i / 2 / side, i / 2 % side, i % 2)) {
                        let value = at(&tokens, grid, 2 * row + r - before, 2 * column + c - before, k);
                        sum += variables["conv.weight"].double_value(&[o, k, r, c]) * value;
                    }
                    sum
                };
                norm(&Tensor::from_slice(&[sum(0), sum(1), sum(2)]).to_kind(Kind::Float))
            };
            for row in 0..found[0] {
                for column in 0..found[1] {
                    let name = format!("{kind:?} of {grid:?} at {row}, {column}");
                    close(&name, &got.select(0, 0).select(0, row * found[1] + column), &token(row, column));
                }
            }
        }
    }
}

#[test]
fn batch_norm_follows_the_batch_while_training_alone() {
    let vs = VarStore::new(Device::Cpu);
    let norm = BatchNorm::new(&vs.root(), 3);
    perturb(&vs);
    let variables = vs.variables();
    let [weight, bias] = ["weight", "bias"].map(|name| variables[name].view([1, 3, 1, 1]));
    let x = Tensor::randn([4, 3, 2, 5], F32) * 2.0 + 1.0;
    let formula = |mean: &Tensor, variance: &Tensor| {
        let [mean, variance] = [mean, variance].map(|t| t.view([1, 3, 1, 1]));
        (&x - mean) / (variance + 1e-5).sqrt() * &weight + &bias
    };
    let fresh = norm.forward(&x, false).unwrap();
    close("fresh", &fresh, &formula(&Tensor::zeros([3], F32), &Tensor::ones([3], F32)));
    let mean = x.mean_dim([0i64, 2, 3].as_slice(), false, Kind::Float);
    let variance = x.var_dim([0i64, 2, 3].as_slice(), false, false);
    close("training", &norm.forward(&x, true).unwrap(), &formula(&mean, &variance));
    close("running mean", &variables["running_mean"], &(&mean * 0.1));
    let unbiased = x.var_dim([0i64, 2, 3].as_slice(), true, false) * 0.1 + 0.9;
    close("running variance", &variables["running_var"], &unbiased);
    let after = norm.forward(&x, false).unwrap();
    close("afterwards", &after, &formula(&variables["running_mean"], &variables["running_var"]));
    assert_eq!(vs.trainable_variables().len(), 2, "statistics are not trained");
}

/// libtorch misread the gradient of one sample that came back through tokens to a batch norm (Spatial-Mamba's stem): it
/// must be that of the sample among others.
#[test]
fn one_sample_has_the_gradient_that_it_has_among_others() {
    let vs = VarStore::new(Device::Cpu);
    let norm = BatchNorm::new(&vs.root(), 8);
    let step = Downsample::new(&(vs.root() / "down"), &step_config(DownsampleKind::Inverted, [8, 4]));
    let local = LocalConv::new(&(vs.root() / "local"), 8);
    perturb(&vs);
    let pair = Tensor::randn([2, 8, 5, 4], (Kind::Float, Device::Cpu));
    let tokens = |map: &Tensor| to_tokens(map).unwrap();
    type Path<'a> = (&'a str, &'a dyn Fn(&Tensor) -> Tensor);
    let paths: [Path; 3] = [
        ("norm", &|map| tokens(&norm.forward(map, false).unwrap())),
        ("step", &|map| step.forward(&tokens(map), [5, 4], false).unwrap().0),
        ("local", &|map| local.forward(&tokens(map), [5, 4], false).unwrap()),
    ];
    for (name, run) in paths {
        let gradient = |samples: i64| {
            let x = pair.narrow(0, 0, samples).copy().set_requires_grad(true);
            let y = run(&x);
            let count = y.narrow(0, 0, 1).numel() as i64;
            let weights = Tensor::arange(count, (Kind::Float, Device::Cpu)).sin().view_as(&y.narrow(0, 0, 1));
            (y * weights).sum(Kind::Float).backward();
            x.grad().narrow(0, 0, 1).copy()
        };
        close(name, &gradient(1), &gradient(2));
    }
}

#[test]
fn a_gated_mlp_multiplies_its_halves() {
    let vs = VarStore::new(Device::Cpu);
    let mlp = Mlp::new(&vs.root(), MlpKind::Gated, [3, 5], false, 1, Start::FanIn);
    perturb(&vs);
    let variables = vs.variables();
    assert_eq!(variables["fc1.weight"].size(), [10, 3]);
    let x = Tensor::randn([2, 4, 3], F32);
    let inside = x.linear(&variables["fc1.weight"], Some(&variables["fc1.bias"]));
    let inside = inside.narrow(2, 0, 5) * inside.narrow(2, 5, 5).gelu("none");
    let want = inside.linear(&variables["fc2.weight"], Some(&variables["fc2.bias"]));
    close("gated", &mlp.forward(&x, &[]).unwrap(), &want);
}

/// Doubles its input and tells how many directions it was given.
struct Double;

impl Mixer for Double {
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        Ok(x * 2.0 * orders.directions() as f64)
    }
}

fn block(vs: &VarStore, number: i64, d_model: i64) -> Block {
    let config = BlockConfig {
        d_model,
        norm: NormKind::Layer,
        norm_eps: 1e-5,
        drop_path: 0.0,
        layer_scale: None,
        mlp: 0,
        mlp_kind: MlpKind::Gelu,
        start: Start::Normal,
        residuals: 1,
        ..BlockConfig::default()
    };
    Block::new(&(vs.root() / "layers" / number), &config, Box::new(Double))
}

#[test]
fn stages_run_one_after_another_on_their_grids() {
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let kind = DownsampleKind::Merge;
    let down = || Downsample::new(&(&root / "down"), &step_config(kind, [2, 4]));
    let alone = VarStore::new(Device::Cpu);
    let first = Stage {
        blocks: vec![block(&vs, 0, 2), block(&vs, 1, 2)],
        local: [(0, LocalConv::new(&(&root / "local"), 2))].into(),
        downsample: Some(down()),
        ..Stage::default()
    };
    let second = Stage { blocks: vec![block(&vs, 2, 4)], ..Stage::default() };
    let norm = Norm::new(&(&root / "norm_f"), NormKind::Rms, 4, 1e-5);
    let backbone = Backbone::staged(vec![first, second], false, norm);
    perturb(&vs);
    // The same layers by themselves, with the same values.
    let local = LocalConv::new(&(alone.root() / "local"), 2);
    let step = Downsample::new(&(alone.root() / "down"), &step_config(kind, [2, 4]));
    let theirs = vs.variables();
    tch::no_grad(|| {
        for (name, mut tensor) in alone.variables() {
            tensor.copy_(&theirs[&name]);
        }
    });
    let norm = |x: &Tensor, name: &str| {
        let weight = &theirs[&format!("{name}.weight")];
        match theirs.get(&format!("{name}.bias")) {
            Some(bias) => x.layer_norm(weight.size(), Some(weight), Some(bias), 1e-5, false),
            None => x.rms_norm(weight.size(), Some(weight), 1e-5),
        }
    };
    let x = Tensor::randn([2, 12, 2], F32);
    let orders = [Orders::identity(12, 1), Orders::identity(12, 2), Orders::identity(4, 3)];
    let mut seen = Vec::new();
    let mut tap = |behind: Behind, tokens: &Tensor, place: [i64; 3]| {
        if let Behind::Stage(stage) = behind {
            seen.push((stage, tokens.copy(), place));
        }
    };
    let out = backbone.forward_on(&x, [1, 3, 4], &orders, None, false, &mut tap).unwrap();
    let one = &x + norm(&x, "layers.0.norm") * 2.0;
    let one = local.forward(&one, [3, 4], false).unwrap();
    let one = &one + norm(&one, "layers.1.norm") * 4.0;
    let (one, grid) = step.forward(&one, [3, 4], false).unwrap();
    let two = &one + norm(&one, "layers.2.norm") * 6.0;
    assert_eq!(grid, [2, 2]);
    close("the first stage", &seen[0].1, &one);
    close("the second stage", &seen[1].1, &two);
    close("all", &out, &norm(&two, "norm_f"));
    assert_eq!((seen[0].0, seen[0].2, seen[1].0, seen[1].2), (0, [1, 2, 2], 1, [1, 2, 2]));
    assert!(
        backbone.forward_on(&x, [1, 3, 5], &orders, None, false, &mut |_, _, _| {}).is_err(),
        "another grid"
    );
    let two = &orders[..2];
    assert!(backbone.forward_on(&x, [1, 3, 4], two, None, false, &mut |_, _, _| {}).is_err(), "two plans");
}

#[test]
fn tables_of_positions_are_maps_in_the_authors_files() {
    let vs = VarStore::new(Device::Cpu);
    let _ = vs.root().zeros("positions", &[1, 6, 4]);
    let keys = [Key::map("pos_embed", "positions", &[1, 4, 2, 3])];
    let map = Tensor::arange(24, F32).reshape([1, 4, 2, 3]);
    let file: Tensors = [("pos_embed".to_owned(), map.shallow_clone())].into();
    load(&keys, &file, &vs.variables()).unwrap();
    let ours = &vs.variables()["positions"];
    assert_eq!(ours.double_value(&[0, 5, 3]), map.double_value(&[0, 3, 1, 2]));
    assert!(export(&keys, &vs.variables()).unwrap()["pos_embed"].equal(&map));
}

#[test]
fn counting_does_not_fill() {
    let build = || {
        let vs = VarStore::new(Device::Cpu);
        Mlp::new(&vs.root(), MlpKind::Gelu, [1 << 13, 1 << 14], false, 4, Start::FanIn);
        vs.trainable_variables().iter().map(Tensor::numel).sum::<usize>()
    };
    let count = without_values(build);
    assert_eq!(count, 2 * (1 << 27) + (1 << 13) + (1 << 14));
}
