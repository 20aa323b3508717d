//! Starting values against statistics of the authors' own, pooled over 16 seeds.

use ophidian_core::{
    init::keyed,
    keymap::{self, Key},
    mixer::{Mamba1, Mamba1Config},
};
use serde_json::Value;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{json, seeded, shared};

const SEEDS: i64 = 4;

/// Holds `values` (all seeds) against the statistics of one tensor.
fn check(name: &str, values: &Tensor, golden: &Value, authors: f64) {
    let number = |key: &str| golden[key].as_f64().unwrap();
    let values = values.to_kind(Kind::Double).flatten(0, -1);
    let (mean, deviation) =
        (values.mean(Kind::Double).double_value(&[]), values.std(false).double_value(&[]));
    let (low, high) = (values.min().double_value(&[]), values.max().double_value(&[]));
    if golden["deterministic"].as_bool().unwrap() {
        for (found, key) in [(mean, "mean"), (deviation, "std"), (low, "min"), (high, "max")] {
            assert!((found - number(key)).abs() < 1e-6, "{name}: {key} is {found}, theirs {}", number(key));
        }
        return;
    }
    // Their sample and ours both scatter; five deviations each way.
    let count = values.size()[0] as f64;
    let scatter = 5.0 * number("std") * (1.0 / count + 1.0 / (count / SEEDS as f64 * authors)).sqrt();
    assert!((mean - number("mean")).abs() < scatter, "{name}: mean {mean}, theirs {}", number("mean"));
    assert!((deviation - number("std")).abs() < scatter, "{name}: std {deviation}, theirs {}", number("std"));
    let sorted = values.sort(0, false).0;
    for (i, share) in [0.01, 0.25, 0.5, 0.75, 0.99].into_iter().enumerate() {
        let want = golden["q01_25_50_75_99"][i].as_f64().unwrap();
        let found = sorted.double_value(&[(share * (count - 1.0)) as i64]);
        // A quantile in a normal tail scatters four times as much as the mean.
        assert!((found - want).abs() < 4.0 * scatter, "{name}: quantile {share} is {found}, theirs {want}");
    }
    // The extremes of a bounded distribution; a tail's scatter by more than a deviation.
    for (found, key) in [(low, "min"), (high, "max")] {
        let room = 1.7 * number("std");
        assert!((found - number(key)).abs() < room, "{name}: {key} is {found}, theirs {}", number(key));
    }
}

/// All tensors of a published model against the statistics in `file`, but those that `skip` says.
fn starts_as(file: &str, family: &str, skip: impl Fn(&str) -> bool) {
    let Some(path) = shared(file) else { return };
    let golden = json(&path);
    let config = toml::Table::try_from(&golden["config"]).unwrap();
    let family = crate::family(family);
    let models: Vec<_> = (0..SEEDS)
        .map(|seed| {
            let _guard = seeded(seed);
            let published = family.build(config.clone()).unwrap();
            keymap::export(&published.keys, &published.variables.variables()).unwrap()
        })
        .collect();
    let params = golden["params"].as_object().unwrap();
    assert_eq!(models[0].len(), params.len());
    let authors = golden["seeds"].as_f64().unwrap();
    for (name, statistics) in params.iter().filter(|(name, _)| !skip(name)) {
        let all: Vec<Tensor> = models.iter().map(|model| model[name].shallow_clone()).collect();
        check(name, &Tensor::stack(&all, 0), statistics, authors);
    }
}

#[test]
fn vim_starts_as_its_authors_do() {
    starts_as("golden/init/vim.json", "vim", |_| false);
}

#[test]
fn videomamba_starts_as_its_authors_do() {
    starts_as("golden/init/videomamba.json", "videomamba", |_| false);
}

#[test]
fn vmamba_starts_as_its_authors_do() {
    // Their truncated normal, cut at 100 deviations, has put one value of this tensor at the cut, -2.
    starts_as("golden/init/vmamba_v05_noz.json", "vmamba", |name| {
        name == "layers.1.blocks.0.op.out_proj.weight"
    });
}

#[test]
fn mamba1_starts_as_its_authors_do() {
    let Some(path) = shared("golden/init/mamba1.json") else { return };
    let golden = json(&path);
    let config = &golden["config"];
    let (d_model, layers) = (config["d_model"].as_i64().unwrap(), config["n_layer"].as_i64().unwrap());
    let config = Mamba1Config { d_model, residuals: layers, ..Default::default() };
    let prefix = "backbone.layers.0.mixer.";
    let params: Vec<_> =
        golden["params"].as_object().unwrap().iter().filter(|(name, _)| name.starts_with(prefix)).collect();
    assert_eq!(params.len(), 9);
    for (name, statistics) in params {
        let ours = name.strip_prefix(prefix).unwrap();
        let shape: Vec<i64> =
            statistics["shape"].as_array().unwrap().iter().map(|n| n.as_i64().unwrap()).collect();
        let key = Key::new(ours, ours, &shape);
        let all: Vec<Tensor> = (0..SEEDS)
            .map(|seed| {
                let _guard = seeded(seed);
                let vs = VarStore::new(Device::Cpu);
                Mamba1::new(&vs.root(), &config).unwrap();
                keymap::export(std::slice::from_ref(&key), &vs.variables()).unwrap()[ours].shallow_clone()
            })
            .collect();
        check(name, &Tensor::stack(&all, 0), statistics, golden["seeds"].as_f64().unwrap());
    }
}

/// Two models that differ in their scan, and so in what else is drawn, start equal wherever a parameter has the same name
/// and shape, in any order of making.
#[test]
fn parameters_of_the_same_name_and_shape_start_equal() {
    // libtorch's generator is one for all threads.
    let _guard = seeded(0);
    let start = |seed: u64, text: &str| {
        let vs = VarStore::new(Device::Cpu);
        let table = ophidian_vision::models::CATALOGUE.resolve(text.parse().unwrap()).unwrap();
        keyed(seed, || ophidian_vision::models::build(&table, &[1, 16, 16], 10, vs.root())).unwrap();
        vs.variables()
    };
    let base = "patch_size = 4\nd_model = 16\ndepth = 2\nd_state = 4\n";
    let row = start(1, &format!("{base}scan = 'row'"));
    for other in
        ["scan = 'cross'", "scan = 'hilbert'\npool = 'end'", "scan = 'cross'\nmlp_ratio = 2.0", "depth = 3"]
    {
        let text = if other.starts_with("depth") {
            base.replace("depth = 2", other)
        } else {
            format!("{base}{other}")
        };
        let other = start(1, &text);
        let shared: Vec<&String> = row
            .keys()
            .filter(|name| other.get(*name).is_some_and(|t| t.size() == row[*name].size()))
            .collect();
        assert!(shared.len() > 8, "{text}: {shared:?}");
        for name in shared {
            // The last weight of a residual branch is scaled by how many there are.
            let more = text.contains("depth = 3") || text.contains("mlp_ratio");
            let alike = row[name].equal(&other[name]) || (more && name.contains("out_proj"));
            assert!(alike, "{text}: {name}");
        }
    }
    let other = start(2, &format!("{base}scan = 'row'"));
    assert!(!other["layers.0.mixer.in_proj.weight"].equal(&row["layers.0.mixer.in_proj.weight"]));
    // Parameters of one model differ among themselves.
    assert!(!row["layers.0.mixer.in_proj.weight"].equal(&row["layers.1.mixer.in_proj.weight"]));
}
