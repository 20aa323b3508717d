//! VideoMamba as its authors publish it, and clips in our own configs.

use ophidian_core::{
    adapter::Model,
    keymap,
    mixer::{Mamba1, Mamba1Config, Merge, Mixer},
    ops::Orders,
    published,
    tensors::{self, Tensors},
};
use ophidian_scan::{Order, Plan};
use ophidian_vision::models::{self, Classifier, ModelConfig};
use serde_json::json as object;
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::{
    family, published::goldens, reference::Options, relative, seeded, shared, table, vim::compare_family,
};

const OPTIONS: (Kind, Device) = (Kind::Float, Device::Cpu);

#[test]
fn logits_and_gradients_of_the_goldens() {
    assert!(matches!(goldens("videomamba"), 0 | 3..));
}

/// Options that no golden covers, against the plain reference.
#[test]
fn every_option_computes_what_it_says() {
    let cases = [
        ("a clip", object!({"num_frames": 3}), Some(1), [3, 12, 8], "v2", true),
        (
            "a tubelet that leaves a frame over",
            object!({"num_frames": 5, "kernel_size": 2}),
            Some(2),
            [5, 8, 8],
            "v2",
            true,
        ),
        (
            "one patch of all frames",
            object!({"num_frames": 3, "kernel_size": 3}),
            Some(3),
            [3, 8, 8],
            "v2",
            true,
        ),
        ("one direction", object!({"num_frames": 4, "bimamba": false}), Some(1), [4, 8, 8], "none", true),
        ("LayerNorm", object!({"num_frames": 2, "rms_norm": false}), Some(1), [2, 4, 12], "v2", false),
        ("images, overlapping", object!({"stride": 3}), None, [0, 13, 10], "v2", true),
    ];
    for (name, extra, tubelet, [frames, height, width], bimamba, rms) in cases {
        let mut config = object!({
            "img_size": [height, width], "patch_size": 4, "depth": 3, "embed_dim": 12, "channels": 2,
            "num_classes": 5, "ssm_cfg": {"d_state": 3, "d_conv": 3, "expand": 1.5, "dt_rank": 2},
        });
        config.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let o = Options {
            patch: 4,
            stride: if tubelet.is_some() { 4 } else { 3 },
            depth: 3,
            bimamba,
            divide: false,
            rms,
            class_token: "head",
            pool: "none",
            pairs: false,
            rope: false,
            rope_residual: false,
            tubelet,
        };
        let shape: Vec<i64> = match tubelet {
            Some(_) => vec![2, 2, frames, height, width],
            None => vec![2, 2, height, width],
        };
        compare_family(family("videomamba"), name, &config, &o, &shape);
    }
}

#[test]
fn configs_that_cannot_run_say_so() {
    for (config, parts) in [
        (object!({"num_frame": 8}), &["unknown key `num_frame`", "did you mean `num_frames`"][..]),
        (object!({"num_frames": 8, "stride": 8}), &["`stride` is for image models"]),
        (object!({"inflate": "center"}), &["`inflate`", "`num_frames`"]),
        (
            object!({"num_frames": 8, "inflate": "centre"}),
            &["`inflate` is \"centre\"", "did you mean \"center\""],
        ),
        (object!({"num_frames": 2, "kernel_size": 3}), &["3x2x224x224", "no patch of 3x16x16"]),
        (object!({"num_frames": 0}), &["`num_frames` 0"]),
        (object!({"kernel_size": 0}), &["`kernel_size` is 0"]),
        (object!({"num_frames": 4, "patch_size": [16, 8]}), &["`patch_size` is 16x8", "square"]),
        (object!({"ssm_cfg": {"use_fast_path": false}}), &["`ssm_cfg.use_fast_path`", "not supported"]),
        (object!({"ssm_cfg": {"d_state": 0}}), &["`ssm_cfg.d_state` is 0"]),
        (object!({"embed_dim": 100000, "depth": 4000}), &["parameters"]),
    ] {
        let error =
            family("videomamba").build(toml::Table::try_from(&config).unwrap()).err().expect("an error");
        let error = error.to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{config}: {error}");
    }
}

/// An image model's file in a video model's folder: it sees a still clip as it saw the image.
#[test]
fn image_weights_inflate() {
    let _guard = seeded(3);
    let dir = tempfile::tempdir().unwrap();
    let mut config = object!({"img_size": 8, "patch_size": 4, "depth": 1, "embed_dim": 8, "num_classes": 3});
    config["stride"] = object!(4);
    let image = family("videomamba").build(toml::Table::try_from(&config).unwrap()).unwrap();
    let weights = keymap::export(&image.keys, &image.variables.variables()).unwrap();
    tensors::write(&dir.path().join("model.safetensors"), &weights).unwrap();
    config.as_object_mut().unwrap().remove("stride");
    config["num_frames"] = object!(3);
    config["kernel_size"] = object!(3);
    let write = |config: &serde_json::Value| {
        std::fs::write(dir.path().join("config.json"), config.to_string()).unwrap();
    };
    write(&config);
    let pictures = Tensor::randn([2, 3, 8, 8], OPTIONS);
    let run = |clip: &Tensor| {
        let inputs = [("in.x".to_owned(), clip.shallow_clone())].into();
        published::run(family("videomamba"), dir.path(), &inputs)
            .map(|found| found["out.logits"].shallow_clone())
    };
    let still = pictures.unsqueeze(2).repeat([1, 1, 3, 1, 1]);
    let refused = run(&still).unwrap_err().to_string();
    assert!(refused.contains("`temporal_pos_embedding`") && refused.contains("[8, 3, 3, 4, 4]"), "{refused}");
    let inputs: Tensors = [("x".to_owned(), pictures.shallow_clone())].into();
    let want = &image.model.run(&inputs).unwrap()["logits"];
    for kind in ["center", "average"] {
        config["inflate"] = object!(kind);
        write(&config);
        let error = relative(&run(&still).unwrap(), want);
        assert!(error < 1e-5, "{kind}: off by {error:.1e}");
        // What the other frames show counts only where all frames do.
        let moving = still.copy();
        let _ = moving.select(2, 0).g_mul_scalar_(-100.0);
        let error = relative(&run(&moving).unwrap(), want);
        assert_eq!(error > 1e-4, kind == "average", "{kind}: {error:.1e}");
    }
}

fn build(text: &str, shape: &[i64]) -> ophidian_core::Result<(VarStore, Box<dyn Model>)> {
    let vs = VarStore::new(Device::Cpu);
    let model = models::build(&models::CATALOGUE.resolve(table(text))?, shape, 8, vs.root())?;
    Ok((vs, model))
}

/// Clips in our own configs: any pattern over frames, rows and columns, any pool, patches of several frames.
#[test]
fn clips_train() {
    for text in [
        "scan = 'row | bidirectional'\npool = 'head'\nmerge = 'sum'\ninit = 'normal-inputs'",
        "tubelet = 2\npool = 'middle'\nmlp_ratio = 2.0\ninit = 'normal-inputs'",
        "scan = ['row', 'row | reverse']\npool = 'both'",
        "scan = '[row, temporal] | bidirectional'\npool = 'head'",
        "scan = 'vivim/tri'\nmerge = 'mean'\npool = 'mean'",
        "scan = 'segmamba/tri'\nmerge = 'sum'\npool = 'mean'",
        "scan = ['mamband/tlhw_fwd', 'mamband/tlhw_rev', 'mamband/whtl_fwd', 'mamband/whtl_rev']\npool = 'mean'",
        "scan = 'rsmamba/forward_reverse_shuffle_gate(seed=sample)'\nmerge = 'gated'\nparameters = 'shared'\npool = 'mean'",
        "scan = 'hilbert | bidirectional'\npool = 'mean'",
        "pool = 'mean'\ndepth = [1, 1]\nstride = 3\npatch_padding = 1\npatch_norm = true",
        "pool = 'mean'\ndepth = [1, 1]\nattention = {depth = 1, heads = 2, reduction = [2, 1]}\nmlp_ratio = 2.0\nmlp = 'conv'",
        "pool = 'mean'\npos_embed = false",
    ] {
        let _guard = seeded(1);
        let depth = if text.contains("\ndepth") { "" } else { "depth = 2\n" };
        let text = format!("d_model = 16\nd_state = 4\n{depth}patch_size = [4, 4]\n{text}");
        let (vs, model) = build(&text, &[2, 4, 8, 12]).unwrap_or_else(|error| panic!("{text}: {error}"));
        let clips = Tensor::randn([3, 2, 4, 8, 12], OPTIONS);
        let logits = model.forward(&clips, true).unwrap();
        assert_eq!(logits.size(), [3, 8], "{text}");
        logits.cross_entropy_for_logits(&Tensor::from_slice(&[1i64, 4, 7])).backward();
        for (name, tensor) in vs.variables() {
            assert!(
                tensor.grad().defined() && tensor.grad().isfinite().all().int64_value(&[]) == 1,
                "{text}: {name}"
            );
        }
        // The order of the frames matters.
        if text.contains("pos_embed = false") {
            continue;
        }
        let backwards = clips.flip([2]);
        assert!(
            relative(&model.forward(&backwards, false).unwrap(), &model.forward(&clips, false).unwrap())
                > 1e-6
        );
        let wrong = model.forward(&clips.narrow(2, 0, 2), false).unwrap_err().to_string();
        assert!(wrong.contains("[3, 2, 2, 8, 12]") && wrong.contains("(batch, 2, 4, 8, 12)"), "{wrong}");
    }
    for (text, shape, parts) in [
        ("tubelet = 3", &[1i64, 4, 8, 8][..], &["`model.tubelet` is 3", "clips of 6"][..]),
        ("tubelet = 2", &[1, 8, 8], &["`tubelet` is 2", "images"]),
        ("tubelet = 0", &[1, 4, 8, 8], &["`tubelet` is 0"]),
        ("rope = 'hidden'\npool = 'mean'", &[1, 4, 8, 8], &["`rope`", "clips"]),
        ("depth = [1, 1]\npool = 'mean'\nclass_blocks = 1", &[1, 4, 8, 8], &["`class_blocks`", "clips"]),
        (
            "attention = {heads = 3}\npool = 'mean'",
            &[1, 4, 8, 8],
            &["`attention.heads` is 3", "128 channels"],
        ),
        (
            "attention = {reduction = 9}\npool = 'mean'",
            &[1, 4, 8, 8],
            &["`model.attention.reduction` is 9", "2x2"],
        ),
        (
            "attention = {depth = [1, 1]}\npool = 'mean'",
            &[1, 4, 8, 8],
            &["`attention.depth` is [1, 1]", "1 stages"],
        ),
        ("attention = {depth = 1}", &[1, 4, 8, 8], &["class token", "`attention`"]),
        ("patch_padding = 4\npool = 'mean'", &[1, 4, 8, 8], &["`patch_padding` is 4", "0 to 3"]),
        ("conv = 'grid'\nd_conv = 3\npool = 'mean'", &[1, 4, 8, 8], &["`conv", "clips"]),
        ("patch_size = 3", &[1, 4, 8, 8], &["do not divide an input of 8"]),
        ("init = 'random'", &[1, 4, 8, 8], &["`model.init`", "\"normal-inputs\""]),
    ] {
        let error = build(text, shape).err().expect("an error").to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{text}: {error}");
    }
}

/// Places and times add up, and each patch has its own, wherever class tokens stand.
#[test]
fn positions_are_sums_of_place_and_time() {
    let _guard = seeded(5);
    let vs = VarStore::new(Device::Cpu);
    let text = "d_model = 4\ndepth = 0\npatch_size = 2\npool = 'all'\nnorm = 'layer'\nstride = 2";
    let config = ModelConfig::read(table(text)).unwrap();
    for pool in ["all", "head", "middle", "end", "both"] {
        let vs = VarStore::new(Device::Cpu);
        let config = ModelConfig::read(table(&text.replace("'all'", &format!("'{pool}'")))).unwrap();
        Classifier::new(&vs.root(), &config, [1, 3, 4, 6], 0).unwrap();
        let tokens = match pool {
            "all" => 0,
            "both" => 2,
            _ => 1,
        };
        assert_eq!(vs.variables()["pos_embed"].size(), [1, 6 + tokens, 4], "{pool}");
        assert_eq!(vs.variables()["temporal.pos_embed"].size(), [1, 3, 4], "{pool}");
    }
    let model = Classifier::new(&vs.root(), &config, [1, 3, 4, 6], 0).unwrap();
    let variables = vs.variables();
    tch::no_grad(|| {
        let _ = variables["temporal.pos_embed"].shallow_clone().normal_(0.0, 1.0);
        let _ = variables["patch_embed.proj.weight"].shallow_clone().zero_();
    });
    let found = model.features(&Tensor::zeros([1, 1, 3, 4, 6], OPTIONS), false).unwrap();
    let (place, time) = (&variables["pos_embed"], &variables["temporal.pos_embed"]);
    for token in 0..18 {
        let sum = place.select(1, token % 6) + time.select(1, token / 6);
        let want = sum.layer_norm([4], None::<Tensor>, None::<Tensor>, 1e-5, false);
        assert!(relative(&found.select(1, token), &want) < 1e-5, "token {token}");
    }
}

/// The blocks of Vivim and SegMamba: forward, backward and frame by frame for every place, each with its own
/// parameters; the mean or the sum.
#[test]
fn mixers_of_three_directions_are_theirs() {
    let Some(folder) = shared("golden/scan") else { return };
    for (system, merge) in [("vivim_tri", Merge::Mean), ("segmamba_tri", Merge::Sum)] {
        let short = if merge == Merge::Mean { "nf" } else { "ns" };
        for (frames, places) in [(2, 4), (3, 5), (5, 4)] {
            let name = format!("{system}_block_{short}{frames}x{places}.safetensors");
            let file = tensors::read(&folder.join(&name)).unwrap();
            let config = Mamba1Config { d_model: 8, d_state: 4, directions: 3, merge, ..Default::default() };
            let vs = VarStore::new(Device::Cpu);
            let mixer = Mamba1::new(&vs.root(), &config).unwrap();
            tch::no_grad(|| {
                for (name, ours) in vs.variables() {
                    let (layer, part) = name.split_once('.').unwrap_or((&name, ""));
                    let theirs = |suffix: &str| match (layer, part) {
                        ("A_log", _) => format!("A{suffix}_log"),
                        (_, "") => format!("{layer}{suffix}"),
                        _ => format!("{layer}{suffix}.{part}"),
                    };
                    let rows = ["", "_b", "_s"].map(|suffix| file.get(&format!("param.{}", theirs(suffix))));
                    let rows: Vec<_> = rows.into_iter().flatten().collect();
                    ours.shallow_clone().copy_(&Tensor::stack(&rows, 0).reshape(ours.size()));
                }
            });
            let length = frames * places;
            let across = (0..length).map(|t| ((t % frames) * places + t / frames) as i32).collect();
            let row = Order::identity(length).unwrap();
            let plan =
                Plan::new(vec![row.clone(), row.reversed(), Order::new(across, length).unwrap()]).unwrap();
            let out = mixer.forward(&file["x"], &Orders::new(&plan)).unwrap();
            let error = relative(&out, &file["y"]);
            assert!(error <= 1e-5, "{name}: off by {error:.1e}");
        }
    }
}
