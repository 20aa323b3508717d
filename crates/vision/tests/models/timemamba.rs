//! Time and space divided, as Video Mamba Suite's TimeMamba: its blocks against the authors' numbers, and clips that train.

use std::collections::BTreeMap;

use ophidian_core::{
    block::{Block, BlockConfig, NormPlace},
    layers::NormKind,
    mixer::{Divided, DividedConfig, Mamba1Config, Merge},
    ops::Orders,
    tensors,
};
use ophidian_scan::{Geometry, Pattern};
use ophidian_vision::models;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{relative, seeded, table};

/// The authors' names of ours; a second name is that of a second row.
fn theirs(ours: &str) -> Vec<(String, Option<i64>)> {
    let attention = [("query", 0), ("key", 1), ("value", 2)];
    if let Some(part) = ours.strip_prefix("mixer.space.") {
        let (layer, part) = part.split_once('.').unwrap();
        return vec![match attention.iter().find(|(name, _)| *name == layer) {
            Some((_, third)) => (format!("attn.Wqkv.{part}"), Some(*third)),
            None => (format!("attn.out_proj.{part}"), None),
        }];
    }
    if let Some(part) = ours.strip_prefix("mixer.time.") {
        let time = |name: String| (format!("time_mamba.{name}"), None);
        return match part.split_once('.') {
            Some(("in_proj" | "out_proj", _)) => vec![time(part.into())],
            Some((layer, rest)) => vec![time(part.into()), time(format!("{layer}_b.{rest}"))],
            None if part == "A_log" => vec![time("A_log".into()), time("A_b_log".into())],
            None => vec![time(part.into()), time(format!("{part}_b"))],
        };
    }
    let name = match ours {
        "mixer.alpha" => "alpha_timeattn".into(),
        _ => ours.replace("mixer.time_norm", "norm3").replace("mixer.norm", "norm1"),
    };
    vec![(name, None)]
}

#[test]
fn blocks_are_the_authors() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/models/blocks");
    for (style, keep_time) in [("frozen_in_time", false), ("timesformer_div", true)] {
        let golden = tensors::read(&folder.join(format!("timemamba_{style}.safetensors"))).unwrap();
        let [frames, rows, columns] = [3, 2, 2];
        let vs = VarStore::new(Device::Cpu);
        let time = Mamba1Config {
            d_model: 8,
            directions: 2,
            expand: 1.0,
            merge: Merge::Sum,
            ..Mamba1Config::default()
        };
        let divided =
            DividedConfig { time, heads: 2, gate: true, keep_time, norm: NormKind::Layer, norm_eps: 1e-5 };
        let config = BlockConfig {
            d_model: 8,
            norm: NormKind::Layer,
            norm_place: NormPlace::None,
            mlp: 32,
            ..BlockConfig::default()
        };
        let mixer = Divided::new(&(vs.root() / "mixer"), &divided).unwrap();
        let block = Block::new(&vs.root(), &config, Box::new(mixer));
        let variables: BTreeMap<_, _> = vs.variables().into_iter().collect();
        let of = |ours: &str, kind: &str| {
            let parts = theirs(ours).into_iter().map(|(name, third)| {
                let whole = &golden[&format!("{kind}.{name}")];
                third.map_or_else(
                    || whole.shallow_clone(),
                    |third| whole.chunk(3, 0)[third as usize].shallow_clone(),
                )
            });
            Tensor::stack(&parts.collect::<Vec<_>>(), 0)
        };
        for (name, mut tensor) in vs.variables() {
            tch::no_grad(|| tensor.copy_(&of(&name, "param").reshape(tensor.size())));
        }
        let text = "videomambasuite/timemamba";
        let geometry = Geometry::Grid3 { frames: 3, height: 2, width: 2 };
        let plan = text.parse::<Pattern>().unwrap().plan(&geometry).unwrap();
        let orders = Orders::new(&plan).on_grid([frames, rows, columns]);
        let x = golden["in.x"].copy().set_requires_grad(true);
        let (branch, stream) = block.forward(&x, None, &orders, false).unwrap();
        let y = branch + stream;
        let off = relative(&y, &golden["out64.y"]);
        assert!(off < 1e-5, "{style} is off by {off:.1e}");
        (y * &golden["ct.y"]).sum(Kind::Float).backward();
        let off = relative(&x.grad(), &golden["grad.x"]);
        assert!(off < 1e-4, "{style}: the gradient of x is off by {off:.1e}");
        for (name, tensor) in variables {
            let want = of(&name, "grad").reshape(tensor.size());
            let off = if name.ends_with("key.bias") {
                // What is added to all keys alike is nothing to a softmax: both are rounding.
                tensor.grad().abs().max().double_value(&[])
            } else {
                relative(&tensor.grad(), &want)
            };
            assert!(off < 1e-4, "{style}: the gradient of {name} is off by {off:.1e}");
        }
    }
}

#[test]
fn divided_clips_train() {
    for (text, pooled) in [("", "head"), ("pool = 'mean'", "mean")] {
        let text = format!(
            "mixer = 'divided'\nd_model = 8\ndepth = 2\npatch_size = 4\ndivided = {{heads = 2}}\n{text}"
        );
        let resolved = models::CATALOGUE.resolve(table(&text)).unwrap();
        assert_eq!(resolved["pool"].as_str(), Some(pooled));
        let _guard = seeded(2);
        let vs = VarStore::new(Device::Cpu);
        let model = models::build(&resolved, &[1, 3, 8, 12], 4, vs.root()).unwrap();
        // A gate that is shut lets nothing of time through, nor back.
        for (name, mut tensor) in vs.variables() {
            if name.ends_with("alpha") {
                let _ = tch::no_grad(|| tensor.fill_(0.5));
            }
        }
        let clips = Tensor::randn([2, 1, 3, 8, 12], (Kind::Float, Device::Cpu));
        model.forward(&clips, true).unwrap().logsumexp([1], false).sum(Kind::Float).backward();
        for (name, tensor) in vs.variables() {
            assert!(
                tensor.grad().defined() && bool::try_from(tensor.grad().isfinite().all()).unwrap(),
                "{name}"
            );
        }
        let summary = models::CATALOGUE.read(table(&text)).unwrap().count([1, 3, 8, 12], 4).unwrap();
        let trained: usize = vs.trainable_variables().iter().map(Tensor::numel).sum();
        assert_eq!(summary.parameters, trained as i64);
    }
    let resolved = models::CATALOGUE.resolve(table("mixer = 'divided'")).unwrap();
    let error = models::build(&resolved, &[1, 8, 8], 4, VarStore::new(Device::Cpu).root()).err().unwrap();
    assert!(error.to_string().contains("`mixer` is \"divided\""), "{error}");
    let error = models::CATALOGUE.resolve(table("mixer = 'divided'\npool = 'end'")).unwrap_err().to_string();
    assert!(error.contains("`pool = \"head\"`"), "{error}");
}
