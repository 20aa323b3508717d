//! Audio Mamba against its authors' numbers, shapes and orders.

use std::{collections::BTreeMap, path::Path};

use ophidian_audio::models::{AUM, CATALOGUE, FAMILIES};
use ophidian_core::{
    grid::Summary,
    keymap,
    published::{self, Family},
    tensors::{self, Tensors},
};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

use crate::{
    error, says, shared,
    support::{cases, gradients, has_tensors, matches_golden, relative},
};

fn config(value: &Value) -> toml::Table {
    toml::Table::try_from(value).unwrap()
}

#[test]
fn logits_and_gradients_of_the_goldens() {
    let Some(folder) = shared("golden/models/aum") else { return };
    let mut count = 0;
    for (case, golden) in cases(&folder) {
        let found = published::run(&AUM, &case, &golden).unwrap();
        matches_golden(&case, &golden, &found);
        assert_eq!(gradients(&found), gradients(&golden), "{}", case.display());
        count += 1;
    }
    assert!(count >= 3);
}

#[test]
fn official_models_have_their_tensors_and_no_other() {
    let Some(folder) = shared("golden/spec_shapes") else { return };
    let mut models = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("aum-") {
            continue;
        }
        let spec: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let built = ophidian_core::init::without_values(|| AUM.build(config(&spec["config"]))).unwrap();
        has_tensors(&path.display().to_string(), &spec, &built);
        models += 1;
    }
    assert!(models >= 4);
}

/// What `ophidian models list` says is what the authors' arguments build.
#[test]
fn the_catalogue_is_what_the_authors_build() {
    for name in CATALOGUE.names() {
        let model = CATALOGUE.official(name).unwrap();
        let theirs = AUM.translate(model.authors.clone()).unwrap();
        let summary =
            |model: &ophidian_core::grid::ModelConfig, input| -> Summary { model.count(input, 527).unwrap() };
        let (ours, built) = (summary(&model.model, model.input), summary(&theirs.model, theirs.input));
        assert_eq!(ours.parameters, built.parameters, "{name}");
        assert_eq!(model.input, theirs.input);
        let mamba2 = CATALOGUE.read(format!("base = '{name}'\nmixer = 'mamba2'").parse().unwrap()).unwrap();
        let parts = |summary: &Summary| summary.parts.iter().map(|part| part.parameters).collect::<Vec<_>>();
        let (before, after) = (parts(&ours), parts(&summary(&mamba2, model.input)));
        let changed = before.iter().zip(&after).filter(|(before, after)| before != after).count();
        assert_eq!((mamba2.d_state, before.len(), changed), (64, after.len(), 1), "{name}: the blocks alone");
        assert_eq!(model.model.merge, theirs.model.merge);
        assert_eq!(model.model.parameters, theirs.model.parameters);
        assert!(
            ophidian_audio::config::Data::read(model.data.clone()).is_err(),
            "but for where the clips are"
        );
        let mut data = model.data.clone();
        data.insert("format".into(), "tones".into());
        let shape = ophidian_audio::config::Data::read(data).unwrap().shape().unwrap();
        assert_eq!(shape, [1, 128, 1024], "what it reads is of its size");
    }
    assert_eq!(FAMILIES.len(), 1);
}

/// The authors' orders of tokens: -1 and -2 are class tokens, the others patches, frequency by frequency.
#[test]
fn tokens_and_positions_are_in_the_authors_orders() {
    let Some(folder) = shared("golden/scan") else { return };
    let mut orders = 0;
    for (mels, frames) in [(2, 3), (4, 5), (8, 4)] {
        let golden =
            tensors::read(&folder.join(format!("aum_specgrid_F{mels}_T{frames}.safetensors"))).unwrap();
        for (name, order) in golden.iter().filter(|(name, _)| name.starts_with("perm_")) {
            let order = Vec::<i64>::try_from(order).unwrap();
            let built = AUM.build(config(&json!({
                "spectrogram_size": [mels, frames], "patch_size": 1, "strides": 1, "depth": 1, "embed_dim": 4,
                "num_classes": 2, "transpose_token_sequence": name.contains("timemajor"),
                "use_middle_cls_token": name.ends_with("middle"), "use_end_cls_token": name.ends_with("end"),
                "use_double_cls_token": name.ends_with("double"),
            })));
            let built = built.unwrap();
            let key = built.keys.iter().find(|key| key.ours == "pos_embed").unwrap();
            // Row i of their table is for: class tokens first, then the patches.
            let tokens = if name.ends_with("double") { vec![-1, -2] } else { vec![-1] };
            let wanted: Vec<i64> = tokens
                .into_iter()
                .chain(0..mels * frames)
                .map(|token| order.iter().position(|found| *found == token).unwrap() as i64)
                .collect();
            assert_eq!(key.order, wanted, "{name} of {mels}x{frames}");
            orders += 1;
        }
    }
    assert_eq!(orders, 24);
}

/// A model by time is the model by frequency of the spectrogram on its side, weights and table on their side too.
#[test]
fn time_by_time_is_frequency_by_frequency_on_its_side() {
    tch::manual_seed(5);
    for extra in [
        json!({"use_double_cls_token": true}),
        json!({"if_cls_token": false, "final_pool_type": "max", "rms_norm": false}),
        json!({"use_middle_cls_token": true, "bimamba_type": "v1", "init_layer_scale": 0.5}),
        json!({"if_bidirectional": true, "depth": 4, "use_middle_cls_token": false, "ssm_cfg": {"d_state": 3, "expand": 1.5}}),
    ] {
        let config_of = |side: bool| {
            let swap = |a: i64, b: i64| if side { json!([b, a]) } else { json!([a, b]) };
            let mut all = json!({
                "spectrogram_size": swap(6, 20), "patch_size": swap(2, 4), "strides": swap(2, 4), "depth": 2,
                "embed_dim": 8, "num_classes": 3, "transpose_token_sequence": side,
            });
            all.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
            config(&all)
        };
        let (plain, side) = (AUM.build(config_of(false)).unwrap(), AUM.build(config_of(true)).unwrap());
        tch::no_grad(|| {
            plain.variables.trainable_variables().iter_mut().for_each(|x| drop(x.normal_(0.0, 0.3)))
        });
        let weights = keymap::export(&plain.keys, &plain.variables.variables()).unwrap();
        let patches = 3 * 5;
        let turned: Tensors = weights
            .iter()
            .map(|(name, weight)| {
                let weight = match name.as_str() {
                    "patch_embed.proj.weight" => weight.transpose(2, 3),
                    "pos_embed.pos_embed" => {
                        let tokens = weight.size()[1] - patches;
                        let table = weight.narrow(1, tokens, patches).reshape([1, 3, 5, 8]).transpose(1, 2);
                        Tensor::cat(&[weight.narrow(1, 0, tokens), table.reshape([1, patches, 8])], 1)
                    }
                    _ => weight.shallow_clone(),
                };
                (name.clone(), weight.contiguous())
            })
            .collect();
        keymap::load(&side.keys, &turned, &side.variables.variables()).unwrap();
        let x = Tensor::randn([2, 20, 6], (Kind::Float, Device::Cpu));
        let labels = Tensor::from_slice(&[2i64, 0]);
        let run = |model: &published::Published, x: Tensor| {
            let inputs = BTreeMap::from([("x".to_owned(), x), ("labels".to_owned(), labels.shallow_clone())]);
            let found = model.model.run(&inputs).unwrap();
            found["loss"].sum(Kind::Float).backward();
            (
                found["logits"].shallow_clone(),
                keymap::gradients(&model.keys, &model.variables.variables()).unwrap(),
            )
        };
        let (first, gradients) = run(&plain, x.shallow_clone());
        let (second, turned) = run(&side, x.transpose(1, 2));
        assert!(relative(&second, &first) < 1e-5, "{extra}");
        let (a, b) = (&gradients["grad.patch_embed.proj.weight"], &turned["grad.patch_embed.proj.weight"]);
        assert!(relative(&b.transpose(2, 3), a) < 1e-4, "{extra}");
        let head = |gradients: &Tensors| gradients["grad.head.weight"].shallow_clone();
        assert!(relative(&head(&turned), &head(&gradients)) < 1e-4, "{extra}");
    }
}

#[test]
fn configs_and_inputs_that_do_not_fit_say_so() {
    let build = |value: Value| AUM.build(config(&value)).map(drop);
    for (value, parts) in [
        (json!({"embed_dims": 3}), &["did you mean `embed_dim`?"][..]),
        (json!({"must_square": true}), &["`must_square`", "not supported"]),
        (json!({"weird__target_size": [2, 2]}), &["`weird__target_size`"]),
        (json!({"channels": 3}), &["`channels` is 3"]),
        (
            json!({"strides": [8, 16], "transpose_token_sequence": true}),
            &["`transpose_token_sequence`", "`strides`"],
        ),
        (json!({"strides": 0}), &["`strides` 0"]),
        (json!({"patch_size": 300}), &["hold no patch"]),
        (json!({"embed_dim": 0}), &["`embed_dim` is 0"]),
        (json!({"if_rope": true, "if_cls_token": false}), &["`if_rope`"]),
        (json!({"flip_img_sequences_ratio": 0.5}), &["`flip_img_sequences_ratio`"]),
        (json!({"ssm_cfg": {"use_fast_path": false}}), &["`ssm_cfg.use_fast_path`"]),
        (json!({"bimamba_type": "v3"}), &["`bimamba_type` is \"v3\""]),
    ] {
        says(&error(build(value)), parts);
    }
    let small =
        json!({"spectrogram_size": [4, 8], "patch_size": 2, "strides": 2, "depth": 1, "embed_dim": 4});
    let built = AUM.build(config(&small)).unwrap();
    let run = |shape: &[i64]| {
        let x = Tensor::zeros(shape, (Kind::Float, Device::Cpu));
        built.model.run(&BTreeMap::from([("x".to_owned(), x)]))
    };
    assert_eq!(run(&[2, 8, 4]).unwrap()["logits"].size(), [2, 527]);
    says(&error(run(&[2, 4, 8])), &["[2, 1, 8, 4]", "expected (batch, 1, 4, 8)"]);
    says(&error(run(&[8, 4])), &["(batch, frames, mels)"]);
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), small.to_string()).unwrap();
    let weights =
        Tensors::from([("pos_embed".to_owned(), Tensor::zeros([1, 9, 4], (Kind::Float, Device::Cpu)))]);
    tensors::write(&folder.path().join("model.safetensors"), &weights).unwrap();
    let said = error(published::run(&AUM, Path::new(folder.path()), &Tensors::new()));
    says(&said, &["`pos_embed.pos_embed` [1, 9, 4] is missing", "`pos_embed` [1, 9, 4] is not known"]);
}
