//! Vim as its authors publish it.

use std::path::Path;

use ophidian_core::{
    keymap,
    mixer::{Mamba1, Mamba1Config, Merge, Mixer, Parameters},
    ops::Orders,
    published::{self, Family},
    tensors::{self, Tensors},
};
use ophidian_scan::{Order, Plan};
use ophidian_vision::models::Pool;
use serde_json::json as object;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{
    json,
    reference::{self, Options},
    relative, shared,
    support::{cases, gradients, has_tensors, matches_golden},
    vim,
};

#[test]
fn logits_and_gradients_of_the_goldens() {
    let Some(folder) = shared("golden/models/vim") else { return };
    let mut count = 0;
    for (case, golden) in cases(&folder) {
        let found = published::run(vim(), &case, &golden).unwrap();
        matches_golden(&case, &golden, &found);
        assert_eq!(gradients(&found), gradients(&golden), "{}", case.display());
        count += 1;
    }
    assert!(count >= 4);
}

#[test]
fn official_models_have_their_tensors_and_no_other() {
    let Some(folder) = shared("golden/spec_shapes") else { return };
    let mut models = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("vim_") {
            continue;
        }
        let spec = json(&path);
        let published = vim().build(toml::Table::try_from(&spec["config"]).unwrap()).unwrap();
        has_tensors(&path.display().to_string(), &spec, &published);
        models += 1;
    }
    assert!(models >= 5);
}

/// Scans of one mixer: the authors' tensors in, their numbers out.
#[test]
fn mixers_of_the_scan_goldens() {
    let Some(folder) = shared("golden/scan") else { return };
    for (kind, parameters, merge) in [
        ("bimambav1", Parameters::Decay, Merge::Sum),
        ("bimambav2", Parameters::Own, Merge::Sum),
        ("bimambav2div2", Parameters::Own, Merge::Mean),
    ] {
        for length in [5, 12, 17] {
            let file = tensors::read(&folder.join(format!("vim_{kind}_L{length}.safetensors"))).unwrap();
            let config = Mamba1Config {
                d_model: 8,
                d_state: 4,
                directions: 2,
                parameters,
                merge,
                ..Default::default()
            };
            let vs = VarStore::new(Device::Cpu);
            let mixer = Mamba1::new(&vs.root(), &config).unwrap();
            let variables = vs.variables();
            tch::no_grad(|| {
                for (name, ours) in &variables {
                    // The second row is theirs with suffix `_b` behind the layer's name (`A_b_log`,
                    // `conv1d_b.weight`).
                    let (layer, part) = name.split_once('.').unwrap_or((name, ""));
                    let back = match layer {
                        "A_log" => "A_b_log".to_owned(),
                        _ if part.is_empty() => format!("{layer}_b"),
                        _ => format!("{layer}_b.{part}"),
                    };
                    let rows = [name.clone(), back].map(|name| file.get(&format!("param.{name}")));
                    let theirs = rows.into_iter().flatten().collect::<Vec<_>>();
                    ours.shallow_clone().copy_(&Tensor::stack(&theirs, 0).reshape(ours.size()));
                }
            });
            let row = Order::identity(length).unwrap();
            let plan = Plan::new(vec![row.clone(), row.reversed()]).unwrap();
            let out = mixer.forward(&file["x"], &Orders::new(&plan)).unwrap();
            let error = relative(&out, &file["y"]);
            assert!(error <= 1e-5, "{kind} L{length}: off by {error:.1e}");
        }
    }
}

#[test]
fn class_tokens_stand_where_theirs_do() {
    let Some(folder) = shared("golden/scan") else { return };
    for patches in [4, 9, 15] {
        let file = tensors::read(&folder.join(format!("vim_clslayout_L{patches}.safetensors"))).unwrap();
        for (name, pool) in [
            ("perm_head", Pool::Head),
            ("perm_middle", Pool::Middle),
            ("perm_double", Pool::Both),
            ("perm_none", Pool::Mean),
        ] {
            let want: Vec<i64> = (&file[name]).try_into().unwrap();
            let at: Vec<i64> = (0..want.len() as i64).filter(|i| want[*i as usize] < 0).collect();
            assert_eq!(pool.class_tokens(patches), at, "{name} of {patches}");
        }
    }
}

/// Options that no golden covers, against the plain reference.
#[test]
fn every_option_computes_what_it_says() {
    let base = || Options {
        patch: 4,
        stride: 4,
        depth: 3,
        bimamba: "v2",
        divide: true,
        rms: true,
        class_token: "middle",
        pool: "none",
        pairs: false,
        rope: false,
        rope_residual: false,
        tubelet: None,
    };
    let cases = [
        ("pairs", Options { pairs: true, depth: 4, ..base() }),
        ("pairs of v1", Options { pairs: true, depth: 4, bimamba: "v1", ..base() }),
        ("a last block without a partner", Options { pairs: true, depth: 5, bimamba: "none", ..base() }),
        ("pairs with rope", Options { pairs: true, depth: 4, rope: true, class_token: "none", ..base() }),
        ("one direction", Options { bimamba: "none", class_token: "head", ..base() }),
        ("v1 with LayerNorm", Options { bimamba: "v1", rms: false, class_token: "head", ..base() }),
        ("last token", Options { class_token: "none", ..base() }),
        ("mean", Options { class_token: "none", pool: "mean", divide: false, ..base() }),
        ("max", Options { class_token: "none", pool: "max", ..base() }),
        ("all", Options { class_token: "none", pool: "all", ..base() }),
        ("a class token wins over a pool", Options { pool: "max", ..base() }),
        ("rope on hidden alone", Options { rope: true, ..base() }),
        (
            "rope and residual, class token in front",
            Options { rope: true, rope_residual: true, class_token: "head", ..base() },
        ),
        ("no block", Options { depth: 0, ..base() }),
        ("overlap, both ends", Options { stride: 3, class_token: "double", ..base() }),
    ];
    for (name, o) in cases {
        for (positions, scale, classes) in [(true, None, 5), (false, Some(0.3), 0)] {
            let mut config = object!({
                "img_size": 16, "patch_size": o.patch, "stride": o.stride, "depth": o.depth, "embed_dim": 12,
                "d_state": 3, "channels": 2, "num_classes": classes, "rms_norm": o.rms, "final_pool_type": o.pool,
                "if_abs_pos_embed": positions, "if_rope": o.rope, "if_rope_residual": o.rope_residual,
                "bimamba_type": o.bimamba, "if_cls_token": o.class_token != "none", "if_divide_out": o.divide,
                "use_middle_cls_token": o.class_token == "middle", "use_double_cls_token": o.class_token == "double",
                "if_bidirectional": o.pairs, "pt_hw_seq_len": 7, "fused_add_norm": false,
                "ssm_cfg": {"d_conv": 3, "expand": 1.5, "dt_rank": 2, "bias": true, "conv_bias": positions},
            });
            if let Some(scale) = scale {
                config["init_layer_scale"] = object!(scale);
            }
            compare(name, &config, &o);
        }
    }
}

fn compare(name: &str, config: &serde_json::Value, o: &Options) {
    compare_family(vim(), name, config, o, &[2, 2, 16, 16]);
}

/// Holds a family's numbers for random weights and inputs of `shape` against the reference, gradients too.
pub fn compare_family(
    family: &dyn Family,
    name: &str,
    config: &serde_json::Value,
    o: &Options,
    shape: &[i64],
) {
    let published = family.build(toml::Table::try_from(config).unwrap()).unwrap();
    let variables = published.variables.variables();
    tch::no_grad(|| {
        for mut tensor in published.variables.trainable_variables() {
            let noise = tensor.randn_like() * 0.2;
            let _ = tensor.g_add_(&noise);
        }
    });
    let theirs: Tensors = keymap::export(&published.keys, &variables)
        .unwrap()
        .into_iter()
        .map(|(name, tensor)| (name, tensor.to_kind(Kind::Double)))
        .collect();
    let trained = |name: &str| !name.starts_with("rope");
    let wide: Tensors = theirs
        .iter()
        .map(|(name, tensor)| (name.clone(), tensor.copy().set_requires_grad(trained(name))))
        .collect();
    let images = Tensor::randn(shape, (Kind::Float, Device::Cpu));
    let (features, logits) = reference::forward(&wide, o, &images.to_kind(Kind::Double));
    let inputs: Tensors = [("x".to_owned(), images)].into();
    let found = published.model.run(&inputs).unwrap();
    for (what, want) in [("features", &features), ("logits", &logits)] {
        let error = relative(&found[what], want);
        assert!(error <= 1e-5, "{name}: {what} off by {error:.1e}");
    }
    let cotangent = logits.randn_like();
    (&logits * &cotangent).sum(Kind::Double).backward();
    (&found["logits"] * cotangent.to_kind(Kind::Float)).sum(Kind::Float).backward();
    for (key, got) in keymap::gradients(&published.keys, &variables).unwrap() {
        let leaf = &wide[key.strip_prefix("grad.").unwrap()];
        let grad = leaf.grad();
        let want = if grad.defined() { grad } else { leaf.zeros_like() };
        if want.abs().max().double_value(&[]) < 1e-6 {
            assert!(got.abs().max().double_value(&[]) < 1e-5, "{name}: {key}");
            continue;
        }
        let error = relative(&got, &want);
        assert!(error <= 1e-4, "{name}: {key} off by {error:.1e}");
    }
}

fn refused(config: serde_json::Value) -> String {
    let table = toml::Table::try_from(&config).unwrap();
    vim().build(table).err().expect("an error").to_string()
}

#[test]
fn configs_that_cannot_run_say_so() {
    for (config, parts) in [
        (object!({"embed_dims": 8}), &["unknown key `embed_dims`", "did you mean `embed_dim`"][..]),
        (object!({"bimamba_type": "v3"}), &["`bimamba_type` is \"v3\"", "\"v2\""]),
        (object!({"ssm_cfg": {"d_sate": 3}}), &["unknown key `ssm_cfg.d_sate`"]),
        (object!({"flip_img_sequences_ratio": 0.5}), &["`flip_img_sequences_ratio` is 0.5", "not supported"]),
        (object!({"ssm_cfg": {"use_fast_path": false}}), &["`ssm_cfg.use_fast_path`", "not supported"]),
        (object!({"img_size": 8, "patch_size": 16}), &["3x8x8", "no patch"]),
        (object!({"embed_dim": 0}), &["`embed_dim` is 0"]),
        (object!({"embed_dim": 100000, "depth": 4000}), &["parameters"]),
        (object!({"img_size": 1000000}), &["`img_size` is 1000000x1000000"]),
        (object!({"if_rope": true, "use_double_cls_token": true}), &["`if_rope`", "198 tokens"]),
        (object!({"stride": 0}), &["`stride` is 0"]),
        (object!({"img_size": "big"}), &["`img_size`"]),
    ] {
        let error = refused(config);
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
}

const TINY: &str = r#"{"img_size": 8, "patch_size": 4, "stride": 4, "depth": 1, "embed_dim": 8, "d_state": 2,
    "num_classes": 3, "drop_block_rate": null}"#;

/// Writes a folder as authors publish it, all zeros.
fn folder(at: &Path, change: impl Fn(&mut Tensors)) {
    let config: serde_json::Value = serde_json::from_str(TINY).unwrap();
    let mut config = config.as_object().unwrap().clone();
    config.remove("drop_block_rate");
    let published = vim().build(toml::Table::try_from(&config).unwrap()).unwrap();
    let mut weights = keymap::export(&published.keys, &published.variables.variables()).unwrap();
    change(&mut weights);
    std::fs::write(at.join("config.json"), TINY).unwrap();
    tensors::write(&at.join("model.safetensors"), &weights).unwrap();
}

#[test]
fn folders_and_inputs_that_do_not_fit_say_so() {
    let dir = tempfile::tempdir().unwrap();
    let options = (Kind::Float, Device::Cpu);
    let images = || ("in.x".to_owned(), Tensor::zeros([2, 3, 8, 8], options));
    let run = |inputs: Tensors| published::run(vim(), dir.path(), &inputs).map_err(|error| error.to_string());
    let fails = |inputs: Vec<(String, Tensor)>, parts: &[&str]| {
        let error = run(inputs.into_iter().collect()).unwrap_err();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    fails(vec![images()], &["config.json"]);
    folder(dir.path(), |_| {});
    let labels = |values: &[i64]| ("in.labels".to_owned(), Tensor::from_slice(values));
    let out = run([images(), labels(&[0, 2])].into()).unwrap();
    assert_eq!(out["out.logits"].size(), [2, 3]);
    assert!(out.contains_key("grad.layers.0.mixer.dt_proj_b.bias"));
    assert!(!run([images()].into()).unwrap().keys().any(|name| name.starts_with("grad.")));

    fails(vec![], &["`in.x` is missing"]);
    fails(vec![("in.x".into(), Tensor::zeros([2, 3, 8, 9], options))], &["[2, 3, 8, 9]", "(batch, 3, 8, 8)"]);
    fails(vec![images(), labels(&[0, 3])], &["`in.labels` holds 3, expected 0 to 2"]);
    fails(vec![images(), labels(&[-1, 0])], &["`in.labels` holds -1"]);
    fails(vec![images(), labels(&[0])], &["`in.labels` has shape [1]", "2 integers"]);
    fails(vec![images(), ("in.y".into(), Tensor::zeros([1], options))], &["`in.y` is no input"]);

    folder(dir.path(), |weights| {
        weights.remove("cls_token");
        weights.insert("pos_embed".into(), Tensor::zeros([1, 4, 8], options));
        weights.insert("dist_token".into(), Tensor::zeros([1], options));
    });
    let all = ["`cls_token` [1, 1, 8] is missing", "expected [1, 5, 8]", "`dist_token`", "model.safetensors"];
    fails(vec![images()], &all);
    std::fs::write(dir.path().join("config.json"), "{\"embed_dim\": }").unwrap();
    fails(vec![images()], &["config.json", "line 1"]);
    std::fs::write(dir.path().join("config.json"), "[3]").unwrap();
    fails(vec![images()], &["config.json", "a JSON object"]);
    let bytes = std::fs::read(dir.path().join("model.safetensors")).unwrap();
    std::fs::write(dir.path().join("config.json"), TINY).unwrap();
    std::fs::write(dir.path().join("model.safetensors"), &bytes[..bytes.len() / 2]).unwrap();
    fails(vec![images()], &["model.safetensors", "not a whole safetensors file"]);
}
