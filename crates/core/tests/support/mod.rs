//! What the tests of published models have in common, whatever the modality. Included by path.
#![allow(dead_code)] // each takes what it needs

use std::path::{Path, PathBuf};

use ophidian_core::{
    keymap,
    published::{self, Family, Published},
    tensors::{self, Tensors},
};
use tch::{Kind, Tensor};

/// A file or folder of the shared data, or a word about its absence.
pub fn shared(path: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let found = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from).join(path);
    if !found.exists() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: nothing at {}\n", found.display()),
        );
        return None;
    }
    Some(found)
}

pub fn json(path: &Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

pub fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// The folders within `folder` with their goldens.
pub fn cases(folder: &Path) -> impl Iterator<Item = (PathBuf, Tensors)> {
    let folders = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    folders.filter(|case| case.is_dir()).map(|case| {
        let golden = tensors::read(&case.join("golden.safetensors")).unwrap();
        (case, golden)
    })
}

/// Largest difference, relative to the largest value.
pub fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-6);
    (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]) / scale
}

/// Holds every output and gradient of a golden against what was found.
pub fn matches_golden(case: &Path, golden: &Tensors, found: &Tensors) {
    for (name, want) in golden {
        let (name, tolerance) = match name.split_once('.') {
            Some(("out64", rest)) => (format!("out.{rest}"), 1e-5),
            Some(("grad", _)) => (name.clone(), 1e-4),
            _ => continue,
        };
        let got = found.get(&name).unwrap_or_else(|| panic!("{}: no {name}", case.display()));
        let error = relative(got, want);
        assert!(error <= tolerance, "{}: {name} is off by {error:.2e}", case.display());
    }
}

/// Runs the model of a case; where there are cotangents `ct.*` of its outputs, with the gradients of their products' sum.
pub fn run(family: &dyn Family, case: &Path, golden: &Tensors) -> Tensors {
    let cotangents: Vec<_> =
        golden.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("ct.")?, tensor))).collect();
    if cotangents.is_empty() {
        return published::run(family, case, golden)
            .unwrap_or_else(|error| panic!("{}: {error}", case.display()));
    }
    let model = published::open(family, case, None).unwrap();
    let inputs = golden.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("in.")?, tensor)));
    let inputs = inputs.map(|(name, tensor)| (name.to_owned(), tensor.shallow_clone())).collect();
    let outputs = model.model.run(&inputs).unwrap();
    let products = cotangents.iter().map(|(name, tensor)| (&outputs[*name] * *tensor).sum(Kind::Float));
    products.reduce(|sum, product| sum + product).unwrap().backward();
    let outputs = outputs.into_iter().map(|(name, tensor)| (format!("out.{name}"), tensor.detach()));
    let variables = model.variables.variables();
    outputs.chain(keymap::gradients(&model.keys, &variables).unwrap()).collect()
}

/// How many gradients there are.
pub fn gradients(tensors: &Tensors) -> usize {
    tensors.keys().filter(|name| name.starts_with("grad.")).count()
}

/// Holds a model against a file of `spec_shapes`: names and shapes of all tensors, and the number of parameters.
pub fn has_tensors(what: &str, spec: &serde_json::Value, published: &Published) {
    let shapes: serde_json::Map<_, _> =
        published.keys.iter().map(|key| (key.theirs.clone(), key.shape.clone().into())).collect();
    let want = spec["tensors"].as_object().unwrap();
    for (name, shape) in want {
        assert_eq!(shapes.get(name), Some(shape), "{what}: {name}");
    }
    assert_eq!(shapes.len(), want.len(), "{what}");
    assert_eq!(parameters(published), spec["n_params"].as_i64().unwrap(), "{what}");
}

/// The number of trained values.
pub fn parameters(published: &Published) -> i64 {
    published.variables.trainable_variables().iter().map(Tensor::numel).sum::<usize>() as i64
}
