//! What published models put around and in place of a scan: convolutions over the map, gates, blocks of both.

use ophidian_core::{
    Result,
    block::{Block, BlockConfig, NormPlace},
    init::Start,
    keymap::{self, Key},
    layers::{Downsample, DownsampleConfig, DownsampleKind, Mlp, MlpKind, NormKind},
    mixer::{ConvPlace, Inverted, InvertedConfig, LocalBranch, Mamba1, Mamba1Config, Mixer},
    ops::Orders,
    tensors::Tensors,
};
use tch::{
    Device, Kind, Tensor,
    nn::{self, VarStore},
};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);
const MAP: [i64; 2] = [3, 5];

/// Random values in every tensor; positive ones where a square root is taken.
fn perturb(vs: &VarStore) {
    tch::manual_seed(3);
    let variables: std::collections::BTreeMap<_, _> = vs.variables().into_iter().collect();
    tch::no_grad(|| {
        for (name, mut tensor) in variables {
            let _ = if name.ends_with("running_var") {
                tensor.uniform_(0.5, 2.0)
            } else {
                tensor.normal_(0.0, 0.6)
            };
        }
    });
}

fn close(what: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{what}");
    let error = ((got - want).abs().max() / want.abs().max()).double_value(&[]);
    assert!(error < 1e-5, "{what} is off by {error:.2e}");
}

fn map(x: &Tensor, [h, w]: [i64; 2]) -> Tensor {
    x.transpose(1, 2).reshape([x.size()[0], -1, h, w])
}

fn tokens(x: &Tensor) -> Tensor {
    x.flatten(2, 3).transpose(1, 2)
}

/// The named layers of a VarStore as formulas over maps (B, C, h, w).
struct Named(std::collections::HashMap<String, Tensor>);

impl Named {
    fn of(vs: &VarStore) -> Named {
        Named(vs.variables())
    }

    fn conv(&self, name: &str, x: &Tensor, stride: i64) -> Tensor {
        let weight = &self.0[&format!("{name}.weight")];
        // A linear map is a convolution of one tap.
        let weight =
            if weight.dim() == 2 { weight.unsqueeze(-1).unsqueeze(-1) } else { weight.shallow_clone() };
        let size = weight.size();
        let groups = x.size()[1] / size[1];
        let padding = size[2] / 2;
        x.conv2d(&weight, self.0.get(&format!("{name}.bias")), [stride; 2], [padding; 2], [1, 1], groups)
    }

    fn batch_norm(&self, name: &str, x: &Tensor) -> Tensor {
        let part = |part: &str| self.0[&format!("{name}.{part}")].reshape([1, -1, 1, 1]);
        (x - part("running_mean")) / (part("running_var") + 1e-5).sqrt() * part("weight") + part("bias")
    }
}

#[test]
fn an_mlp_convolves_over_the_map() {
    for kind in [MlpKind::Conv, MlpKind::ConvResidual] {
        let vs = VarStore::new(Device::Cpu);
        let mlp = Mlp::new(&vs.root(), kind, [4, 6], false, 1, Start::FanIn);
        perturb(&vs);
        let (x, named) = (Tensor::randn([2, 15, 4], F32), Named::of(&vs));
        let inside = named.conv("fc1", &map(&x, MAP), 1);
        let near = named.conv("dwconv", &inside, 1);
        let inside = if kind == MlpKind::Conv { near } else { near + inside };
        let want = tokens(&named.conv("fc2", &inside.gelu("none"), 1));
        close(&format!("{kind:?}"), &mlp.forward(&x, &MAP).unwrap(), &want);
        let error = mlp.forward(&x, &[]).unwrap_err().to_string();
        assert!(error.contains("[rows, columns]"), "{error}");
        assert!(mlp.forward(&x, &[4, 4]).is_err());
    }
}

#[test]
fn an_inverted_bottleneck_halves_the_map() {
    let vs = VarStore::new(Device::Cpu);
    let kind = DownsampleKind::Inverted;
    let config = DownsampleConfig {
        kind,
        channels: [2, 3],
        norm: NormKind::Layer,
        eps: 1e-5,
        bias: true,
        start: Start::FanIn,
    };
    let down = Downsample::new(&vs.root(), &config);
    perturb(&vs);
    let (x, named) = (Tensor::randn([2, 15, 2], F32), Named::of(&vs));
    let inside = named.conv("conv", &named.conv("expand", &map(&x, MAP), 1).relu(), 2).relu();
    let want = tokens(&named.batch_norm("norm", &named.conv("project", &inside, 1)));
    let (got, grid) = down.forward(&x, MAP, false).unwrap();
    assert_eq!(grid, [2, 3]);
    close("inverted", &got, &want);
    let (mean, grid) = Downsample::Mean.forward(&x, MAP, false).unwrap();
    assert_eq!(grid, [1, 1]);
    close("mean", &mean, &x.mean_dim(1, true, Kind::Float));
}

fn squeezed(named: &Named, name: &str, x: &Tensor) -> Tensor {
    let mean = x.mean_dim([2i64, 3].as_slice(), true, Kind::Float);
    let inside = named.conv(&format!("{name}.reduce"), &mean, 1).relu();
    x * named.conv(&format!("{name}.select"), &inside, 1).sigmoid()
}

#[test]
fn inverted_residuals_are_their_convolutions() {
    let vs = VarStore::new(Device::Cpu);
    let config = InvertedConfig { d_model: 4, squeeze: 2, ..InvertedConfig::default() };
    let mixer = Inverted::new(&vs.root(), &config).unwrap();
    perturb(&vs);
    let (x, named) = (Tensor::randn([2, 15, 4], F32), Named::of(&vs));
    assert_eq!(named.0["squeeze.reduce.weight"].size(), [8, 16]);
    let inside = named.batch_norm("expand_norm", &named.conv("expand", &map(&x, MAP), 1)).relu();
    let inside = named.batch_norm("depthwise_norm", &named.conv("depthwise", &inside, 1)).relu();
    let inside = squeezed(&named, "squeeze", &inside);
    let want = tokens(&named.batch_norm("project_norm", &named.conv("project", &inside, 1)));
    let orders = Orders::identity(15, 1).on_grid(MAP);
    close("inverted", &mixer.forward(&x, &orders).unwrap(), &want);
    let before = named.0["expand_norm.running_mean"].copy();
    let _ = mixer.forward_t(&x, &orders, true).unwrap();
    assert!(!before.equal(&named.0["expand_norm.running_mean"]), "statistics follow the batches in training");
    assert!(mixer.forward(&x, &Orders::identity(15, 1)).is_err(), "no map");
}

/// Doubles its input.
struct Double;

impl Mixer for Double {
    fn forward(&self, x: &Tensor, _: &Orders) -> Result<Tensor> {
        Ok(x * 2.0)
    }
}

#[test]
fn a_branch_of_convolutions_stands_beside_a_mixer() {
    let vs = VarStore::new(Device::Cpu);
    let mixer = LocalBranch::new(&vs.root(), Box::new(Double), 16, Start::FanIn);
    perturb(&vs);
    let (x, named) = (Tensor::randn([2, 15, 16], F32), Named::of(&vs));
    let near =
        named.batch_norm("branch.norm", &named.conv("branch.depthwise", &map(&x, MAP), 1)).gelu("none");
    let near = named.conv("branch.pointwise", &near, 1);
    let gated = |y: &Tensor| {
        let (weight, bias) = (&named.0["branch.gate.norm.weight"], &named.0["branch.gate.norm.bias"]);
        let normed = tokens(y).layer_norm([16], Some(weight), Some(bias), 1e-5, false);
        let mean = map(&normed.mean_dim(1, true, Kind::Float), [1, 1]);
        let inside = named.conv("branch.gate.reduce", &mean, 1).gelu("none");
        y * named.conv("branch.gate.select", &inside, 1).sigmoid()
    };
    let want = tokens(&(gated(&map(&(&x * 2.0), MAP)) + gated(&near)));
    close("branches", &mixer.forward(&x, &Orders::identity(15, 1).on_grid(MAP)).unwrap(), &want);
}

/// The gate stands between the merged directions and z.
#[test]
fn a_scans_result_is_squeezed_and_gated() {
    let config = Mamba1Config {
        d_model: 4,
        d_state: 2,
        d_conv: 3,
        conv: ConvPlace::Grid,
        out_norm: Some(NormKind::Layer),
        squeeze: Some(4),
        ..Mamba1Config::default()
    };
    let run = |squeeze: f64| {
        let vs = VarStore::new(Device::Cpu);
        let mixer = Mamba1::new(&vs.root(), &config).unwrap();
        perturb(&vs);
        let variables = vs.variables();
        tch::no_grad(|| {
            let _ = variables["squeeze.select.weight"].shallow_clone().g_mul_scalar_(squeeze);
            // Whatever was drawn, the ReLU lets one of two opposite channels through.
            let reduce = &variables["squeeze.reduce.weight"];
            reduce.get(1).copy_(&reduce.get(0).neg());
        });
        let x = Tensor::randn([2, 15, 4], F32);
        let y = mixer.forward(&x, &Orders::identity(15, 1).on_grid(MAP)).unwrap();
        (y, variables, mixer, x)
    };
    // Gates of a half everywhere.
    let (half, ..) = run(0.0);
    let (y, variables, mixer, x) = run(10.0);
    assert!(!y.allclose(&half, 1e-3, 1e-4, false));
    let plain = Mamba1Config { squeeze: None, ..config.clone() };
    let vs = VarStore::new(Device::Cpu);
    let other = Mamba1::new(&vs.root(), &plain).unwrap();
    tch::no_grad(|| vs.variables().iter().for_each(|(name, t)| t.shallow_clone().copy_(&variables[name])));
    close("half", &half, &(other.forward(&x, &Orders::identity(15, 1).on_grid(MAP)).unwrap() * 0.5));
    assert!(mixer.config().squeeze == Some(4) && variables["squeeze.reduce.weight"].size() == [2, 8]);
    let wrong = Mamba1Config { squeeze: Some(0), ..config };
    assert!(Mamba1::new(&VarStore::new(Device::Cpu).root(), &wrong).is_err());
}

fn block(vs: &nn::Path, config: BlockConfig) -> Block {
    let config = BlockConfig { d_model: 4, norm: NormKind::Layer, ..config };
    Block::new(vs, &config, Box::new(Double))
}

#[test]
fn a_norm_acts_before_behind_or_not_at_all() {
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let places = [NormPlace::Before, NormPlace::After, NormPlace::None];
    let [before, after, none] = places.map(|norm_place| {
        block(&(&root / format!("{norm_place:?}")), BlockConfig { norm_place, ..BlockConfig::default() })
    });
    let carried = BlockConfig { carry_normed: true, ..BlockConfig::default() };
    let carried = block(&(&root / "carried"), carried);
    let position = BlockConfig { position_conv: true, mlp: 8, ..BlockConfig::default() };
    let position = block(&(&root / "position"), position);
    perturb(&vs);
    let (x, named) = (Tensor::randn([2, 15, 4], F32), Named::of(&vs));
    let norm = |name: &str, x: &Tensor| {
        let (weight, bias) = (&named.0[&format!("{name}.weight")], &named.0[&format!("{name}.bias")]);
        x.layer_norm([4], Some(weight), Some(bias), 1e-5, false)
    };
    let run = |block: &Block| {
        let orders = Orders::identity(15, 1).on_grid(MAP);
        let (branch, stream) = block.forward(&x, None, &orders, false).unwrap();
        branch + stream
    };
    close("before", &run(&before), &(&x + norm("Before.norm", &x) * 2.0));
    close("after", &run(&after), &(&x + norm("After.norm", &(&x * 2.0))));
    close("none", &run(&none), &(&x * 3.0));
    close("carried", &run(&carried), &(norm("carried.norm", &x) * 3.0));
    let conv = |name: &str, x: &Tensor| x + tokens(&named.conv(name, &map(x, MAP), 1));
    let stream = conv("position.position", &x);
    let stream = &stream + norm("position.norm", &stream) * 2.0;
    let stream = conv("position.position2", &stream);
    let inside = named.conv("position.mlp.fc1", &map(&norm("position.norm2", &stream), MAP), 1).gelu("none");
    let want = &stream + tokens(&named.conv("position.mlp.fc2", &inside, 1));
    close("position", &run(&position), &want);
}

/// Patch merging by squares of channels, rows, columns is ours with its columns in another order.
#[test]
fn squares_are_read_and_written_in_their_authors_order() {
    let (channels, outputs) = (3, 2);
    let vs = VarStore::new(Device::Cpu);
    let root = vs.root();
    let norm = root.var("norm", &[4 * channels], nn::Init::Const(0.0));
    let weight = root.var("weight", &[outputs, 4 * channels], nn::Init::Const(0.0));
    let theirs: Tensors = [
        ("n".to_owned(), Tensor::randn([4 * channels], F32)),
        ("w".to_owned(), Tensor::randn([outputs, 4 * channels], F32)),
    ]
    .into();
    let keys =
        [Key::squares("n", "norm", &[4 * channels]), Key::squares("w", "weight", &[outputs, 4 * channels])];
    keymap::load(&keys, &theirs, &vs.variables()).unwrap();
    for (c, row, column) in (0..12).map(|i| (i / 4, i / 2 % 2, i % 2)) {
        let (at, ours) = ((c * 2 + row) * 2 + column, (column * 2 + row) * channels + c);
        assert_eq!(theirs["n"].double_value(&[at]), norm.double_value(&[ours]));
        assert_eq!(theirs["w"].double_value(&[1, at]), weight.double_value(&[1, ours]));
    }
    let exported = keymap::export(&keys, &vs.variables()).unwrap();
    assert!(exported.iter().all(|(name, tensor)| tensor.equal(&theirs[name])));
}
