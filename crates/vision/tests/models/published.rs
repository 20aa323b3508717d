//! VMamba and PlainMamba as their authors publish them, and the published models by name.

use ophidian_core::{
    init::without_values,
    keymap,
    published::{self, Family},
    tensors::{self, Tensors},
};
use ophidian_vision::models::{self, CLASSIFIERS, ModelConfig, Official};
use serde_json::json as object;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{
    family, json, seeded, shared,
    support::{cases, gradients, has_tensors, matches_golden, parameters, run},
};

fn officials() -> impl Iterator<Item = Official> {
    models::CATALOGUE.names().map(|name| models::CATALOGUE.official(name).unwrap())
}

/// The outputs of a folder's model with a position embedding of zeros.
fn without_positions(case: &std::path::Path, golden: &Tensors) -> Tensors {
    let dir = tempfile::tempdir().unwrap();
    std::fs::copy(case.join("config.json"), dir.path().join("config.json")).unwrap();
    let mut weights = tensors::read(&case.join("model.safetensors")).unwrap();
    let zeros = weights["pos_embed"].zeros_like();
    weights.insert("pos_embed".into(), zeros);
    tensors::write(&dir.path().join("model.safetensors"), &weights).unwrap();
    let images: Tensors = [("in.x".to_owned(), golden["in.x"].shallow_clone())].into();
    published::run(family("vmamba"), dir.path(), &images).unwrap()
}

/// Every output and every gradient of every golden of a family; returns how many cases there were.
pub fn goldens(name: &str) -> usize {
    let Some(folder) = shared(&format!("golden/models/{name}")) else { return 0 };
    let mut count = 0;
    for (case, golden) in cases(&folder) {
        let mut found = published::run(family(name), &case, &golden).unwrap();
        if name == "vmamba" && json(&case.join("config.json"))["posembed"] == true {
            // Their maps behind the stages were made stage by stage, which leaves out the position embedding.
            let maps = without_positions(&case, &golden);
            found.extend(maps.into_iter().filter(|(name, _)| name.starts_with("out.stage")));
        }
        matches_golden(&case, &golden, &found);
        assert_eq!(gradients(&found), gradients(&golden), "{}", case.display());
        count += 1;
    }
    count
}

#[test]
fn vmamba_gives_its_authors_logits_and_gradients() {
    assert!(matches!(goldens("vmamba"), 0 | 4..));
}

#[test]
fn plainmamba_gives_its_authors_logits_and_gradients() {
    assert!(matches!(goldens("plainmamba"), 0 | 2..));
}

/// Tiny models of random weights whose logits the authors' own code made (its kernels replaced by plain loops), with the
/// authors' names: every tensor is known, and the logits are theirs.
#[test]
fn descendants_give_their_authors_logits() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/goldens");
    let mut families = std::collections::BTreeSet::new();
    for (case, golden) in cases(&folder) {
        let name = case.file_name().unwrap().to_str().unwrap();
        let (name, _) = name.split_once('_').unwrap_or((name, ""));
        let found = run(family(name), &case, &golden);
        matches_golden(&case, &golden, &found);
        families.insert(name.to_owned());
    }
    assert_eq!(families.len(), 10, "{families:?}");
}

/// The number of parameters of published models by their authors' code.
#[test]
fn descendants_have_their_authors_parameters() {
    for (name, count) in [
        ("localvim_tiny", 7_994_152),
        ("localvim_tiny_midclstok", 7_994_536),
        ("localvim_small", 27_783_784),
        ("localvmamba_tiny", 25_527_160),
        ("localvmamba_small", 49_748_536),
        ("efficientvmamba_tiny", 6_493_660),
        ("efficientvmamba_small", 11_273_688),
        ("efficientvmamba_base", 33_717_136),
        ("msvmamba_nano", 6_864_136),
        ("msvmamba_micro", 11_879_272),
        ("msvmamba_tiny", 33_046_312),
        ("groupmamba_tiny", 23_361_917),
        ("groupmamba_small", 34_781_555),
        ("groupmamba_base", 57_150_838),
        ("spatialmamba_tiny", 26_748_862),
        ("spatialmamba_small", 43_074_280),
        ("spatialmamba_base", 95_745_592),
        ("grootv_tiny", 29_958_600),
        ("grootv_small", 51_331_624),
        ("grootv_base", 90_597_096),
        ("rsmamba_base", 6_377_088 + 193 * 30),
        ("rsmamba_large", 16_241_152 + 257 * 30),
        ("rsmamba_huge", 33_046_400 + 321 * 30),
        ("mamband_2d_small", 24_120_192 + 385 * 1000),
        ("mamband_2d_base", 93_656_832 + 769 * 1000),
        // Their encoder but for three norms that it has and does not run.
        ("vivim_encoder", 56_353_984 - 2 * (64 + 128 + 320)),
    ] {
        let model = models::CATALOGUE.official(name).unwrap();
        let summary = model.model.count(model.input, model.classes).unwrap();
        assert_eq!(summary.parameters, count, "{name}");
        let published = without_values(|| family(&model.family).build(model.authors.clone())).unwrap();
        assert_eq!(parameters(&published), count, "{name} by the authors' arguments");
        let mapped: i64 = published.keys.iter().map(|key| key.shape.iter().product::<i64>()).sum();
        let all: usize = published.variables.variables().values().map(Tensor::numel).sum();
        assert_eq!(mapped, all as i64, "{name}: a key for every value");
    }
}

/// Names and shapes of every tensor, and the number of parameters, of every official model that the specification
/// lists.
#[test]
fn official_models_have_their_tensors_and_no_other() {
    let Some(folder) = shared("golden/spec_shapes") else { return };
    let mut models = 0;
    for model in officials() {
        let path = folder.join(format!("{}.json", model.name));
        if !path.exists() {
            continue;
        }
        let spec = json(&path);
        let published = without_values(|| family(&model.family).build(model.authors.clone())).unwrap();
        has_tensors(model.name, &spec, &published);
        let summary = model.model.count(model.input, model.classes).unwrap();
        assert_eq!(summary.parameters, parameters(&published), "{}", model.name);
        let parts: i64 = summary.parts.iter().map(|part| part.parameters).sum();
        assert_eq!(parts, summary.parameters, "{}: the parts make the whole", model.name);
        models += 1;
    }
    assert!(models >= 20, "{models}");
}

/// A published model is one config in two languages.
#[test]
fn official_configs_are_what_the_authors_constructors_say() {
    for model in officials() {
        let Some(family) = CLASSIFIERS.iter().find(|family| family.name() == model.family) else { continue };
        let translated = family.translate(model.authors.clone()).unwrap();
        assert_eq!((translated.input, translated.classes), (model.input, model.classes), "{}", model.name);
        let mut theirs = translated.model;
        // What follows from other keys, and what released weights alone need.
        let ours = ModelConfig { d_model: model.model.d_model.clone(), ..model.model.clone() };
        theirs.compat = ours.compat;
        if !theirs.norm.eq(&ours.norm) || theirs.final_norm.is_none() {
            theirs.final_norm = ours.final_norm;
        }
        assert_eq!(theirs, ours, "{}", model.name);
    }
}

#[test]
fn operations_are_what_the_authors_print() {
    // README of VMamba (224x224): 4.9, 8.7 and 15.4 GFLOPs, a multiply-add as one, norms included.
    for (name, giga) in [("vmamba_tiny_s1l8", 4.9), ("vmamba_small_s2l15", 8.7), ("vmamba_base_s2l15", 15.4)]
    {
        let model = models::CATALOGUE.official(name).unwrap();
        let summary = model.model.count(model.input, model.classes).unwrap();
        let found = summary.flops_of_papers() / 1e9;
        assert!((found / giga - 1.0).abs() < 0.03, "{name}: {found}, the authors have {giga}");
    }
}

/// Multiply-adds counted by hand for a small model of two stages.
#[test]
fn operations_are_counted_by_place() {
    let text = "patch_size = 4\nd_model = 4\ndepth = [1, 1]\nd_state = 2\nexpand = 2.0\ndt_rank = 1\nconv = 'grid'\n\
                d_conv = 3\nscan = 'cross'\nmlp_ratio = 3.0\npool = 'mean'\npos_embed = false\nnorm = 'layer'";
    let config = ModelConfig::read(text.parse().unwrap()).unwrap();
    let summary = config.count([3, 16, 8], 5).unwrap();
    let block = |l: i64, d: i64| {
        let inner = 2 * d;
        let ssm = 4 * inner * (1 + 2 * 2) + 4 * inner;
        l * (d * 2 * inner + inner * 9 + ssm + inner * d + 2 * 3 * d * d)
    };
    let want = 8 * (4 * 3 * 16) + block(8, 4) + 2 * (8 * 4 * 9) + block(2, 8) + 5 * 8;
    assert_eq!(summary.multiply_adds, want as f64);
    let scan = |l: i64, d: i64| 4 * l * 2 * d * (9 * 2 + 1) + l * 2 * d;
    assert_eq!(summary.scan, (scan(8, 4) + scan(2, 8)) as f64);
    assert_eq!(summary.flops(), 2.0 * want as f64 + summary.scan);

    // Two heads of 4 and of 8 channels: in_proj makes x, B, C and dt, and a decay is a head's.
    let text = format!("{text}\nmixer = 'mamba2'\ngate = false\nmamba2.headdim = 4\nmamba2.ngroups = 1");
    let config = ModelConfig::read(text.parse().unwrap()).unwrap();
    let summary = config.count([3, 16, 8], 5).unwrap();
    let scan = |l: i64, d: i64| 4 * l * 2 * d * (5 * 2 + 1);
    assert_eq!(summary.scan, (scan(8, 4) + scan(2, 8)) as f64);
}

const VMAMBA: &str = r#"{"dims": 8, "depths": [1, 1], "num_classes": 3, "ssm_d_state": 2, "forward_type": "v05_noz",
    "norm_layer": "ln2d", "downsample_version": "v3", "patchembed_version": "v2", "imgsize": 16}"#;

fn vmamba(change: impl Fn(&mut serde_json::Value)) -> toml::Table {
    let mut config: serde_json::Value = serde_json::from_str(VMAMBA).unwrap();
    change(&mut config);
    toml::Table::try_from(&config).unwrap()
}

/// A folder as authors publish it.
fn folder(at: &std::path::Path, change: impl Fn(&mut Tensors)) {
    let published = family("vmamba").build(vmamba(|_| {})).unwrap();
    let mut weights = keymap::export(&published.keys, &published.variables.variables()).unwrap();
    change(&mut weights);
    std::fs::write(at.join("config.json"), VMAMBA).unwrap();
    tensors::write(&at.join("model.safetensors"), &weights).unwrap();
}

#[test]
fn checkpoints_of_older_code_and_convolutions_for_linear_maps_load() {
    let dir = tempfile::tempdir().unwrap();
    let images = Tensor::randn([2, 3, 16, 16], (Kind::Float, Device::Cpu));
    let inputs: Tensors = [("in.x".to_owned(), images)].into();
    let run = |change: &dyn Fn(&mut Tensors)| {
        let _guard = seeded(3);
        folder(dir.path(), change);
        published::run(family("vmamba"), dir.path(), &inputs).unwrap().remove("out.logits").unwrap()
    };
    let new = run(&|_| {});
    let old = run(&|weights| {
        *weights = std::mem::take(weights)
            .into_iter()
            .map(|(name, tensor)| {
                let linear = name.contains("_proj.weight") || name.contains("fc");
                let tensor = match tensor.size()[..] {
                    [rows, columns] if linear => tensor.reshape([rows, columns, 1, 1]),
                    _ => tensor,
                };
                let name = name
                    .replace("classifier.", "")
                    .replace(".op.", ".self_attention.")
                    .replace(".norm.", ".ln_1.");
                (name, tensor)
            })
            .collect();
    });
    assert!(new.equal(&old));
}

#[test]
fn images_of_another_size_make_their_own_plans() {
    let published = family("vmamba").build(vmamba(|config| config["posembed"] = object!(true))).unwrap();
    for (height, width) in [(16, 16), (20, 12), (17, 30)] {
        let images = Tensor::randn([2, 3, height, width], (Kind::Float, Device::Cpu));
        let found = published.model.run(&[("x".to_owned(), images)].into()).unwrap();
        let [rows, columns] = [height, width].map(|side| (side + 3) / 4);
        assert_eq!(found["patch_embed"].size(), [2, 8, rows, columns]);
        assert_eq!(found["stage1"].size(), [2, 16, (rows + 1) / 2, (columns + 1) / 2]);
        assert_eq!(found["logits"].size(), [2, 3]);
    }
    let images = Tensor::zeros([2, 4, 16, 16], (Kind::Float, Device::Cpu));
    let error = published.model.run(&[("x".to_owned(), images)].into()).unwrap_err().to_string();
    assert!(error.contains("[2, 4, 16, 16]") && error.contains("(batch, 3, "), "{error}");
    let none = Tensor::zeros([0, 3, 16, 16], (Kind::Float, Device::Cpu));
    let error = published.model.run(&[("x".to_owned(), none)].into()).unwrap_err().to_string();
    assert!(error.contains("there is no image"), "{error}");
}

/// Every scan that a `forward_type` names runs, and each is another function.
#[test]
fn forward_types_are_scans() {
    let mut seen: Vec<(String, Tensor)> = Vec::new();
    for kind in ["v05", "v051d", "v052d", "v052d3", "v052dc", "v05_onnone"] {
        let _guard = seeded(4);
        let images = Tensor::randn([2, 3, 20, 28], (Kind::Float, Device::Cpu));
        let config = vmamba(|config| config["forward_type"] = object!(format!("{kind}_noz")));
        let published = family("vmamba").build(config).unwrap();
        // As they start, states hardly matter. The same noise for each kind: by name.
        let variables: std::collections::BTreeMap<_, _> =
            published.variables.variables().into_iter().collect();
        tch::no_grad(|| {
            for mut variable in variables.into_values() {
                let noise = variable.randn_like() * 0.3;
                let _ = variable.g_add_(&noise);
            }
        });
        let found = published.model.run(&[("x".to_owned(), images.shallow_clone())].into()).unwrap();
        let logits = found["logits"].detach();
        assert_eq!(logits.isfinite().all().int64_value(&[]), 1, "{kind}");
        for (other, theirs) in &seen {
            assert!(!logits.allclose(theirs, 1e-4, 1e-5, false), "{kind} and {other} are the same");
        }
        seen.push((kind.to_owned(), logits));
    }
}

#[test]
fn configs_that_cannot_run_say_so() {
    let refuse = |name: &str, config: serde_json::Value, parts: &[&str]| {
        let table = toml::Table::try_from(&config).unwrap();
        let error = family(name).build(table).err().expect("an error").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    };
    for (config, parts) in [
        (object!({"dim": 8}), &["unknown key `dim`", "`dims`"][..]),
        (object!({"forward_type": "v05_oact"}), &["`forward_type` is \"v05_oact\"", "not supported"]),
        (object!({"forward_type": "v05_nozact"}), &["`forward_type`", "not activated"]),
        (object!({"forward_type": "v05_onsoftmax_noz"}), &["`forward_type`", "another norm"]),
        (object!({"forward_type": "m0"}), &["`forward_type`", "another mixer"]),
        (object!({"forward_type": "v0", "norm_layer": "ln2d"}), &["`norm_layer`", "\"ln\""]),
        (object!({"norm_layer": "bn"}), &["`norm_layer` is \"bn\"", "not supported"]),
        (object!({"ssm_act_layer": "relu"}), &["`ssm_act_layer` is \"relu\"", "\"silu\""]),
        (object!({"downsample_version": "v4"}), &["`downsample_version` is \"v4\"", "\"v3\""]),
        (object!({"dims": [8, 16], "depths": [1]}), &["`dims` is [8, 16]", "1 stages"]),
        (object!({"depths": []}), &["`depths` is a list of 0"]),
        (object!({"dims": 0}), &["`dims` is 0"]),
        (object!({"ssm_conv": 4}), &["`ssm_conv` is 4", "odd"]),
        (object!({"imgsize": 0}), &["`imgsize` is 0x0"]),
        (object!({"patch_size": 3, "patchembed_version": "v2"}), &["`patch_size`", "even"]),
        (object!({"dims": 100000, "depths": [4000]}), &["parameters"]),
    ] {
        refuse("vmamba", config, parts);
    }
    let local =
        object!({"img_size": 56, "patch_size": 8, "stride": 8, "depth": 1, "directions": [["h", "w2"]]});
    refuse("localvim", local, &["`if_cls_token`", "7x7 patches", "even"]);
    refuse("localvim", object!({"depth": 1}), &["missing key `directions`"]);
    let word = object!({"depths": [1], "dims": 8, "directions": [["x"]]});
    refuse("localvmamba", word, &["`directions` has \"x\"", "h, v or w"]);
    refuse("mamband", object!({"downsample": [40]}), &["`downsample` is [40]", "0 to 22"]);
    refuse("rsmamba", object!({"arch": "x"}), &["`arch` is \"x\""]);
    refuse("grootv", object!({"depth": [1]}), &["unknown key `depth`", "`depths`"]);
    for (config, parts) in [
        (object!({"embed_dim": 8}), &["unknown key `embed_dim`", "did you mean `embed_dims`"][..]),
        (object!({"layer_cfgs": {"mamba_cfg": {"conv_sise": 3}}}), &["`layer_cfgs.mamba_cfg.conv_sise`"]),
        (object!({"arch": "L4"}), &["`arch` is \"L4\"", "\"L3\""]),
        (object!({"final_norm": false}), &["`final_norm` false", "not supported"]),
        (object!({"layers_with_dwconv": [20]}), &["`layers_with_dwconv` is 20", "blocks 0 to 19"]),
        (object!({"patch_size": 7}), &["`patch_size`", "even"]),
        (object!({"img_size": 33}), &["`img_size` is [33, 33]"]),
    ] {
        refuse("plainmamba", config, parts);
    }
}

/// A weight behind the mixer of block 1 must not be one of block 0's: changing any tensor changes the output.
#[test]
fn every_tensor_of_a_checkpoint_is_read() {
    for (name, config) in [
        ("vmamba", vmamba(|config| config["posembed"] = object!(true))),
        (
            "plainmamba",
            toml::Table::try_from(object!({
                "img_size": 16, "patch_size": 8, "embed_dims": 8, "num_layers": 2, "num_convs_patch_embed": 2,
                "layers_with_dwconv": [1], "num_classes": 3,
                "layer_cfgs": {"mamba_cfg": {"d_state": 2, "conv_size": 3, "bias": true, "init_layer_scale": 0.5}},
            }))
            .unwrap(),
        ),
    ] {
        let _guard = seeded(5);
        let published = family(name).build(config).unwrap();
        let variables = published.variables.variables();
        // Far from where it starts, so that every tensor matters; step sizes around 1.
        for (name, tensor) in &variables {
            let noise = tensor.rand_like() * 0.3 + if name.ends_with("dt_proj.bias") { 2.0 } else { 0.1 };
            tch::no_grad(|| {
                let _ = tensor.shallow_clone().g_add_(&noise);
            });
        }
        let images = Tensor::randn([2, 3, 16, 16], (Kind::Float, Device::Cpu));
        let inputs: Tensors = [("x".to_owned(), images)].into();
        let run = || tch::no_grad(|| published.model.run(&inputs)).unwrap().remove("logits").unwrap();
        let before = run();
        for key in &published.keys {
            let variable = &variables[&key.ours];
            let kept = variable.copy();
            let noise = variable.rand_like() + 0.5;
            tch::no_grad(|| {
                let _ = variable.shallow_clone().g_add_(&noise);
            });
            assert!(!run().equal(&before), "{name}: {} changes nothing", key.theirs);
            tch::no_grad(|| variable.shallow_clone().copy_(&kept));
        }
        assert!(run().equal(&before));
        assert_eq!(published.keys.len(), variables.len(), "{name}: a key for every tensor");
    }
}

#[test]
fn a_base_is_a_published_model_with_other_values() {
    let read = |text: &str| models::CATALOGUE.read(text.parse().unwrap()).map_err(|error| error.to_string());
    let tiny = models::CATALOGUE.official("vim_tiny_patch16_224").unwrap();
    assert_eq!(read("base = 'vim_tiny_patch16_224'").unwrap(), tiny.model);
    let smaller = read("base = 'vim_tiny_patch16_224'\ndepth = 3\npatch_size = 8").unwrap();
    assert_eq!((smaller.blocks(), smaller.stride.sides(), smaller.widths()), (3, [8, 8], vec![192]));
    let error = read("base = 'vim_tiny_patch16_22'").unwrap_err();
    assert!(error.contains("did you mean `vim_tiny_patch16_224`?"), "{error}");
    assert!(read("base = 3").unwrap_err().contains("`model.base` is 3"));
    let resolved = models::CATALOGUE.resolve("base = 'vmamba_tiny_s1l8'".parse().unwrap()).unwrap();
    assert!(!resolved.contains_key("base") && resolved.contains_key("depth"), "whole without its base");
}

/// A resolved config says everything: built again it is the same model.
#[test]
fn shown_configs_train() {
    let text = "base = 'vmamba_tiny_s1l8'\nd_model = 8\ndepth = [1, 1, 2]";
    let resolved = models::CATALOGUE.resolve(text.parse().unwrap()).unwrap();
    assert_eq!(models::CATALOGUE.resolve(resolved.clone()).unwrap(), resolved);
    let vs = VarStore::new(Device::Cpu);
    let model = models::build(&resolved, &[3, 32, 32], 4, vs.root()).unwrap();
    let _guard = seeded(2);
    let logits = model.forward(&Tensor::randn([2, 3, 32, 32], (Kind::Float, Device::Cpu)), true).unwrap();
    logits.sum(Kind::Float).backward();
    for (name, tensor) in vs.variables() {
        assert!(tensor.grad().defined(), "{name}");
    }
}
