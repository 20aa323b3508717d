//! The mixers that are more than an order against numbers of the authors' own code, where those are at hand.

use std::path::PathBuf;

use ophidian_core::{
    Result,
    keymap::{self, Key},
    layers::NormKind,
    mixer::{
        Choice, ConvPlace, DefMamba, DefMambaConfig, DeformCompat, DeformablePath, DtRank, GrootL,
        GrootLConfig, GrootV, Hydra, HydraConfig, Mamba1Config, Merge, Mixer, QuadCompat, QuadMamba,
        QuadMambaConfig, QuasiSeparable, SpatialMamba, StateFusion, quasi_separable, sorted_by_class,
    },
    ops::Orders,
    tensors::{self, Tensors},
};
use ophidian_scan::{Order, Plan};
use tch::{
    Device, Kind, Tensor,
    nn::{Path, VarStore},
};

/// Golden files whose name starts with `prefix`, by the rest of their name; a visible line if there are none.
fn goldens(prefix: &str) -> Vec<(String, Tensors)> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    let folder = shared.join("golden/scan");
    let files = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let found: Vec<_> = files
        .filter_map(|file| {
            let name = file.file_name().into_string().ok()?;
            let rest = name.strip_prefix(prefix)?.strip_suffix(".safetensors")?.to_owned();
            Some((rest, tensors::read(&file.path()).unwrap()))
        })
        .collect();
    if found.is_empty() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no goldens {prefix}* at {}\n", folder.display()),
        );
    }
    found
}

/// The author's parameters, by the author's names.
fn parameters(golden: &Tensors) -> Tensors {
    let named = |(name, tensor): (&String, &Tensor)| {
        Some((name.strip_prefix("param.")?.to_owned(), tensor.shallow_clone()))
    };
    golden.iter().filter_map(named).collect()
}

/// A mixer with the author's parameters.
fn loaded<M>(golden: &Tensors, new: impl FnOnce(&Path) -> Result<M>, keys: impl FnOnce(&M) -> Vec<Key>) -> M {
    let vs = VarStore::new(Device::Cpu);
    let mixer = new(&vs.root()).unwrap();
    keymap::load(&keys(&mixer), &parameters(golden), &vs.variables()).unwrap();
    mixer
}

fn close(name: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{name}");
    let scale = want.abs().max().double_value(&[]);
    let error = (got - want).abs().max().double_value(&[]) / scale;
    assert!(error < 1e-5, "{name}: off by {error:.1e} of the largest");
}

/// An SS2D block whose sizes are those of the author's parameters.
fn ss2d(golden: &Tensors, directions: i64) -> Mamba1Config {
    let axis = |name: &str, axis: usize| golden[&format!("param.{name}")].size()[axis];
    let d = axis("conv2d.weight", 0);
    let d_model = axis("in_proj.weight", 1);
    let rank = *golden["param.dt_projs_weight"].size().last().unwrap();
    Mamba1Config {
        d_model,
        directions,
        d_state: axis("A_logs", 1),
        d_conv: axis("conv2d.weight", 2),
        conv: ConvPlace::Grid,
        expand: d as f64 / d_model as f64,
        dt_rank: DtRank::Rank(rank),
        merge: Merge::Sum,
        out_norm: golden.contains_key("param.out_norm.weight").then_some(NormKind::Layer),
        gate: axis("in_proj.weight", 0) == 2 * d,
        ..Mamba1Config::default()
    }
}

fn rows(tokens: usize, directions: usize) -> Orders {
    let row = Order::identity(tokens).unwrap();
    let both = [row.clone(), row.reversed()];
    Orders::new(&Plan::new(both[..directions].to_vec()).unwrap())
}

/// Runs a block over a map, (B, H, W, C) in and out.
fn check_map(name: &str, golden: &Tensors, directions: usize, mixer: &dyn Mixer) {
    let x = &golden["x"];
    let (b, h, w, c) = x.size4().unwrap();
    let orders = rows((h * w) as usize, directions).on_grid([h, w]);
    let y = mixer.forward(&x.view([b, h * w, c]), &orders).unwrap();
    close(name, &y.view([b, h, w, c]), &golden["y"]);
}

#[test]
fn grootv_block() {
    for (shape, golden) in goldens("grootv_block_") {
        let config = ss2d(&golden, 1);
        let mixer = loaded(&golden, |vs| GrootV::new(vs, &config), GrootV::keys);
        check_map(&format!("grootv_block_{shape}"), &golden, 1, &mixer);
    }
}

#[test]
fn grootl_block() {
    for (shape, golden) in goldens("grootl_block_") {
        let context = shape.split_once("_ctx").unwrap().1.parse().unwrap();
        let axis = |name: &str, axis: usize| golden[&format!("param.{name}")].size()[axis];
        let (d, d_model) = (axis("conv1d.weight", 0), axis("in_proj.weight", 1));
        let mamba = Mamba1Config {
            d_model,
            d_state: axis("A_log", 1),
            d_conv: axis("conv1d.weight", 2),
            expand: d as f64 / d_model as f64,
            dt_rank: DtRank::Rank(axis("dt_proj.weight", 1)),
            ..Mamba1Config::default()
        };
        let config = GrootLConfig { mamba, context, ..GrootLConfig::default() };
        let mixer = loaded(&golden, |vs| GrootL::new(vs, &config), GrootL::keys);
        let orders = Orders::identity(golden["x"].size()[1], 1);
        close(&format!("grootl_block_{shape}"), &mixer.forward(&golden["x"], &orders).unwrap(), &golden["y"]);
    }
}

#[test]
fn spatialmamba_statefusion() {
    for (shape, golden) in goldens("spatialmamba_statefusion_") {
        let (b, c, h, w) = golden["x"].size4().unwrap();
        let fusion = loaded(&golden, |vs| Ok(StateFusion::new(vs, c)), |_| StateFusion::keys("", "", c));
        let tokens = golden["x"].flatten(2, 3).transpose(1, 2);
        let y = fusion.forward(&tokens, [h, w]).unwrap();
        close(
            &format!("spatialmamba_statefusion_{shape}"),
            &y.transpose(1, 2).reshape([b, c, h, w]),
            &golden["y"],
        );
    }
}

#[test]
fn spatialmamba_block() {
    for (shape, golden) in goldens("spatialmamba_block_") {
        let config = ss2d(&golden, 1);
        let mixer = loaded(&golden, |vs| SpatialMamba::new(vs, &config), SpatialMamba::keys);
        check_map(&format!("spatialmamba_block_{shape}"), &golden, 1, &mixer);
    }
}

#[test]
fn hydra_block() {
    for (shape, golden) in goldens("hydra_block_") {
        let axis = |name: &str, axis: usize| golden[&format!("param.{name}")].size()[axis];
        let (d, d_model, h) = (axis("norm.weight", 0), axis("in_proj.weight", 1), axis("A_log", 0));
        let config = HydraConfig {
            d_model,
            d_state: (axis("conv1d.weight", 0) - d) / 4,
            d_conv: axis("conv1d.weight", 2),
            expand: d / d_model,
            headdim: d / h,
            ..HydraConfig::default()
        };
        let mixer = loaded(&golden, |vs| Hydra::new(vs, &config), Hydra::keys);
        let y = mixer.forward(&golden["x"], &rows(golden["x"].size()[1] as usize, 2)).unwrap();
        close(&format!("hydra_block_{shape}"), &y, &golden["y"]);
    }
}

#[test]
fn hydra_quasiseparable() {
    for (shape, golden) in goldens("hydra_quasiseparable_") {
        let x = &golden["x"];
        let (b, l, _) = x.size3().unwrap();
        let h = golden["param.A_log"].size()[0];
        let bc = golden["BC"].view([b, l, 1, 2, 1, -1]).expand([b, l, 2, 2, 1, -1], false);
        // The released module has a dt_bias and leaves it out.
        let y = quasi_separable(&QuasiSeparable {
            x,
            dt: &golden["dt"].view([b, l, 2, h]),
            dt_bias: None,
            a_log: &golden["param.A_log"],
            b: &bc.select(3, 0),
            c: &bc.select(3, 1),
            diagonal: &x.linear(&golden["param.fc_D.weight"], Some(&golden["param.D"])),
            orders: &rows(l as usize, 2),
        });
        close(&format!("hydra_quasiseparable_{shape}"), &y.unwrap(), &golden["y"]);
    }
}

const RELEASED: DeformCompat = DeformCompat { half_cell: true };

#[test]
fn defmamba_deform_path() {
    for (shape, golden) in goldens("defmamba_deform_path_") {
        let (_, c, h, w) = golden["x"].size4().unwrap();
        let taps = golden["param.conv_offset.conv1.weight"].size()[2];
        let new = |vs: &Path| DeformablePath::new(vs, c, taps, RELEASED);
        let path = loaded(&golden, new, |_| DeformablePath::keys("", "", c, taps));
        let found = path.forward(&golden["x"].flatten(2, 3).transpose(1, 2), [h, w]).unwrap();
        assert_eq!(found.index, golden["perm"], "{shape}");
        let index = found.index.unsqueeze(2).expand_as(&found.tokens);
        close(&shape, &found.tokens.gather(1, &index, false), &golden["x_out"]);
        close(&shape, &found.tokens.transpose(1, 2), &golden["x_back"]);
    }
}

#[test]
fn defmamba_block() {
    for (shape, golden) in goldens("defmamba_block_") {
        let taps = golden["param.DS.conv_offset.conv1.weight"].size()[2];
        let mamba = Mamba1Config { merge: Merge::Mean, ..ss2d(&golden, 3) };
        let config = DefMambaConfig { mamba, taps, compat: RELEASED };
        let mixer = loaded(&golden, |vs| DefMamba::new(vs, &config), DefMamba::keys);
        check_map(&format!("defmamba_block_{shape}"), &golden, 2, &mixer);
    }
}

#[test]
fn quadmamba_block() {
    for (shape, golden) in goldens("quadmamba_block_") {
        let block = shape.split_once("_depth").unwrap().1.parse().unwrap();
        let compat = QuadCompat { colliding_windows: true, random_inference: true };
        let config = QuadMambaConfig { mamba: ss2d(&golden, 2), block, compat };
        let mixer = loaded(&golden, |vs| QuadMamba::new(vs, &config), QuadMamba::keys);
        let (b, c, h, w) = golden["x"].size4().unwrap();
        let orders = rows((h * w) as usize, 2).on_grid([h, w]);
        let tokens = golden["x"].flatten(2, 3).transpose(1, 2);
        let chosen = golden["keep"].argmax(1, false);
        let y = mixer.forward_choosing(&tokens, &orders, &mut Choice::Given(&chosen)).unwrap();
        close(&format!("quadmamba_block_{shape}"), &y.transpose(1, 2).reshape([b, c, h, w]), &golden["y"]);
    }
}

#[test]
fn mambairv2_semantic_sort() {
    for (shape, golden) in goldens("mambairv2_semantic_sort_") {
        let (label, theirs) = (&golden["label"], &golden["perm"]);
        let perm = sorted_by_class(label).unwrap();
        // The order within a class is the implementation's there.
        assert_eq!(label.gather(1, &perm, false), label.gather(1, theirs, false), "{shape}");
        if golden["equals_stable"].int64_value(&[0]) == 1 {
            assert_eq!(&perm, theirs, "{shape}");
        }
        let inverse = perm.argsort(1, false);
        let steps = Tensor::arange(label.size()[1], (Kind::Int64, Device::Cpu)).expand_as(label);
        assert_eq!(perm.gather(1, &inverse, false), steps, "{shape}");
    }
}
