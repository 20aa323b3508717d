//! PointMamba as its authors publish it.

use ophidian_core::{
    published::{self, Family},
    tensors::{self, Tensors},
};
use ophidian_points::models::{CATALOGUE, POINTMAMBA, official};
use tch::{Kind, Tensor};

use crate::{
    shared,
    support::{cases, matches_golden, parameters},
    table,
};

#[test]
fn logits_and_gradients_of_the_goldens() {
    let Some(folder) = shared("golden/models/pointmamba") else { return };
    let mut count = 0;
    for (case, golden) in cases(&folder) {
        let found = published::run(&POINTMAMBA, &case, &golden).unwrap();
        matches_golden(&case, &golden, &found);
        // The goldens leave large gradients out; ours are there for every trained tensor.
        let weights = tensors::read(&case.join("model.safetensors")).unwrap();
        let trained = weights
            .keys()
            .filter(|name| !name.contains(".running_") && !name.ends_with("num_batches_tracked"));
        assert!(trained.clone().count() > 40);
        for name in trained {
            assert!(found.contains_key(&format!("grad.{name}")), "{}: {name}", case.display());
        }
        count += 1;
    }
    assert!(count >= 2);
}

/// A published config in our words is the model that its authors' config makes.
#[test]
fn official_configs_are_the_authors() {
    for name in CATALOGUE.names() {
        let model = official(name).unwrap();
        let published = POINTMAMBA.build(model.authors.clone()).unwrap();
        let ours = model.model.count(model.input.input(), model.classes).unwrap();
        assert_eq!(ours.parameters, parameters(&published), "{name}");
        assert_eq!(ours.tokens, 2 * model.input.groups, "{name}");
        // 12.3 M parameters for 1,024 points (arXiv 2402.10739, table 1).
        assert!((ours.parameters as f64 / 1e6 - 12.3).abs() < 0.1, "{name}: {}", ours.parameters);
    }
}

const SMALL: &str =
    "trans_dim = 16\ndepth = 1\ncls_dim = 3\ngroup_size = 4\nnum_group = 8\nencoder_dims = 16\n";

#[test]
fn configs_that_the_authors_code_cannot_run_are_refused() {
    for (text, words) in [
        ("", "leaves the head nothing to read"),
        ("avg_head = true\nmax_head = true\nuse_cls_token = true", "too wide"),
        ("avg_head = true\nencoder_dim = 3", "did you mean `encoder_dims`?"),
    ] {
        let error = POINTMAMBA.build(table(&format!("{SMALL}{text}"))).err().unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
    let other = SMALL.replace("encoder_dims = 16", "encoder_dims = 8\navg_head = true");
    let error = POINTMAMBA.build(table(&other)).err().unwrap().to_string();
    assert!(error.contains("`encoder_dims` is 8, expected 16"), "{error}");
}

#[test]
fn inputs_that_are_wrong_are_named() {
    let published = POINTMAMBA.build(table(&format!("{SMALL}avg_head = true"))).unwrap();
    let run = |name: &str, tensor: Tensor| {
        let inputs = Tensors::from([(name.to_owned(), tensor)]);
        published.model.run(&inputs).err().unwrap().to_string()
    };
    let zeros = |size: &[i64]| Tensor::zeros(size, (Kind::Float, tch::Device::Cpu));
    assert!(run("x", zeros(&[1, 8, 3])).contains("`in.x` is no input"));
    assert!(run("pts", zeros(&[1, 8, 2])).contains("expected (batch, points, 3)"));
    assert!(run("pts", zeros(&[1, 7, 3])).contains("at least 8 points"));
    assert!(run("pts", zeros(&[1, 9, 3]) / 0.0).contains("at point 0 of cloud 0"));
}

/// Coinciding points are legal: nothing is divided by their distance.
#[test]
fn a_cloud_of_one_place_runs() {
    let published = POINTMAMBA.build(table(&format!("{SMALL}avg_head = true"))).unwrap();
    let pts = Tensor::ones([2, 9, 3], (Kind::Float, tch::Device::Cpu));
    let out = published.model.run(&Tensors::from([("pts".to_owned(), pts)])).unwrap();
    assert_eq!(out["logits"].size(), [2, 3]);
    assert!(tensors::non_finite(&out).is_empty());
}
