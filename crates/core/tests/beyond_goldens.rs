//! Parts of the mixers that are more than an order against numbers of the authors' own code, where those are at hand.

use std::path::PathBuf;

use ophidian_core::{
    keymap::{self, Key},
    mixer::{DeformCompat, DeformablePath, QuasiSeparable, StateFusion, quasi_separable, sorted_by_class},
    ops::Orders,
    published::blocks::{Author, deformable_path, state_fusion},
    tensors::{self, Tensors},
};
use ophidian_scan::{Order, Plan};
use tch::{Device, Kind, Tensor, nn::VarStore};

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

/// Loads the author's parameters by the keys that `keys` makes of them.
fn load(golden: &Tensors, vs: &VarStore, keys: impl Fn(&Author) -> Vec<Key>) {
    let named = |(name, tensor): (&String, &Tensor)| {
        Some((name.strip_prefix("param.")?.to_owned(), tensor.shallow_clone()))
    };
    let parameters: Tensors = golden.iter().filter_map(named).collect();
    let options = toml::Table::new();
    let keys = keys(&Author::new(&options, &parameters, &[]));
    keymap::load(&keys, &parameters, &vs.variables()).unwrap();
}

fn close(name: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{name}");
    let scale = want.abs().max().double_value(&[]);
    let error = (got - want).abs().max().double_value(&[]) / scale;
    assert!(error < 1e-5, "{name}: off by {error:.1e} of the largest");
}

#[test]
fn spatialmamba_statefusion() {
    for (shape, golden) in goldens("spatialmamba_statefusion_") {
        let (b, c, h, w) = golden["x"].size4().unwrap();
        let vs = VarStore::new(Device::Cpu);
        let fusion = StateFusion::new(&vs.root(), c);
        load(&golden, &vs, |author| state_fusion(author, ""));
        let tokens = golden["x"].flatten(2, 3).transpose(1, 2);
        let y = fusion.forward(&tokens, [h, w]).unwrap();
        close(&shape, &y.transpose(1, 2).reshape([b, c, h, w]), &golden["y"]);
    }
}

#[test]
fn hydra_quasiseparable() {
    for (shape, golden) in goldens("hydra_quasiseparable_") {
        let x = &golden["x"];
        let (b, l, _) = x.size3().unwrap();
        let h = golden["param.A_log"].size()[0];
        let row = Order::identity(l as usize).unwrap();
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
            orders: &Orders::new(&Plan::new(vec![row.clone(), row.reversed()]).unwrap()),
        });
        close(&format!("hydra_quasiseparable_{shape}"), &y.unwrap(), &golden["y"]);
    }
}

#[test]
fn defmamba_deform_path() {
    for (shape, golden) in goldens("defmamba_deform_path_") {
        let (_, c, h, w) = golden["x"].size4().unwrap();
        let taps = golden["param.conv_offset.conv1.weight"].size()[2];
        let vs = VarStore::new(Device::Cpu);
        let path = DeformablePath::new(&vs.root(), c, taps, DeformCompat { half_cell: true }).unwrap();
        load(&golden, &vs, |author| deformable_path(author, "", ""));
        let found = path.forward(&golden["x"].flatten(2, 3).transpose(1, 2), [h, w]).unwrap();
        assert_eq!(found.index, golden["perm"], "{shape}");
        let index = found.index.unsqueeze(2).expand_as(&found.tokens);
        close(&shape, &found.tokens.gather(1, &index, false), &golden["x_out"]);
        close(&shape, &found.tokens.transpose(1, 2), &golden["x_back"]);
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
