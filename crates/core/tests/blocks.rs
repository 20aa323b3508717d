//! Published blocks against vectors made by the authors' own code, where those are at hand.

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
};

use ophidian_core::{
    Error, keymap,
    mixer::{Merge, Merger},
    published::{
        self,
        blocks::{self, Author, BLOCKS},
    },
    tensors::{self, Tensors},
};
use ophidian_scan::{Geometry, Pattern, Plan};
use tch::{Device, Kind, Tensor, nn::VarStore};

struct Golden {
    file: String,
    /// `system/pattern`.
    name: String,
    kind: String,
    options: toml::Table,
    tensors: Tensors,
}

/// All goldens of scans; none, said aloud, where they are not at hand.
fn goldens() -> Vec<Golden> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| PathBuf::from(beside), PathBuf::from);
    let folder = shared.join("golden/scan");
    let Ok(index) = std::fs::read(folder.join("manifest.json")) else {
        let _ = writeln!(std::io::stderr(), "SKIPPED: no goldens at {}", folder.display());
        return vec![];
    };
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let entries = index["entries"].as_array().unwrap();
    let here = entries.iter().filter(|entry| folder.join(entry["file"].as_str().unwrap()).exists());
    here.map(|entry| golden(&folder, entry)).collect()
}

/// A golden of each block.
fn one_of_each_block() -> Vec<Golden> {
    let mut seen = BTreeSet::new();
    let mut new = |golden: &Golden| blocks::find(&golden.name).is_some() && seen.insert(golden.name.clone());
    goldens().into_iter().filter(|golden| new(golden)).collect()
}

fn golden(folder: &Path, entry: &serde_json::Value) -> Golden {
    let text = |key: &str| entry[key].as_str().unwrap();
    Golden {
        file: text("file").to_owned(),
        name: format!("{}/{}", text("system"), text("pattern")),
        kind: text("kind").to_owned(),
        options: toml::Table::try_from(entry["params"].clone()).unwrap(),
        tensors: tensors::read(&folder.join(text("file"))).unwrap(),
    }
}

impl Golden {
    /// The author's parameters by the author's names.
    fn parameters(&self) -> Tensors {
        let all = self.tensors.iter().filter(|(name, _)| !["x", "y", "keep", "seq"].contains(&name.as_str()));
        let name = |name: &str| name.strip_prefix("param.").unwrap_or(name).to_owned();
        all.map(|(theirs, t)| (name(theirs), t.shallow_clone())).collect()
    }

    /// All of the file, to be changed.
    fn copied(&self) -> Tensors {
        self.tensors.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect()
    }

    fn int(&self, key: &str) -> i64 {
        self.options[key].as_integer().unwrap()
    }
}

fn expect_close(file: &str, got: &Tensor, want: &Tensor) {
    assert_eq!(got.size(), want.size(), "{file}");
    let error = (got - want).abs().max().double_value(&[]) / want.abs().max().double_value(&[]);
    assert!(error <= 1e-5, "{file}: off by {error:.1e} of the largest value");
}

/// Every block of the table on every golden of it.
#[test]
fn blocks() {
    let goldens = goldens();
    let mut found = BTreeSet::new();
    for golden in &goldens {
        if let Some(block) = blocks::find(&golden.name) {
            found.insert(block.name);
            run(golden, block);
        }
    }
    let names: BTreeSet<_> = BLOCKS.iter().map(|block| block.name).collect();
    let elsewhere = std::env::var_os("OPHIDIAN_SHARED").is_some();
    assert!(
        goldens.is_empty() || elsewhere || names == found,
        "blocks without a golden: {:?}",
        names.difference(&found)
    );
}

fn run(golden: &Golden, block: &blocks::Block) {
    let (found, _) = blocks::run(block.name, &golden.tensors, &golden.options).unwrap();
    let y = &found["y"];
    expect_close(&golden.file, y, &golden.tensors["y"].reshape(y.size()));
}

fn plan(pattern: &str, geometry: &Geometry) -> Plan {
    pattern.parse::<Pattern>().unwrap().plan(geometry).unwrap()
}

/// What each direction makes, (B, K, T, C) step by step, at its tokens: (B, L, K, C).
fn at_tokens(steps: &Tensor, plan: &Plan) -> Tensor {
    let shape = steps.size();
    let out = Tensor::zeros([shape[0], plan.tokens() as i64, shape[1], shape[3]], (Kind::Float, Device::Cpu));
    for (k, order) in plan.orders().iter().enumerate() {
        for (t, token) in order.index().iter().enumerate().filter(|(_, token)| **token >= 0) {
            let step = steps.select(1, k as i64).select(1, t as i64);
            out.select(2, k as i64).select(1, i64::from(*token)).copy_(&step);
        }
    }
    out
}

/// LocalVMamba's merge: shorter directions are padded at the end, which is cut off.
#[test]
fn localmamba_merge() {
    for golden in goldens().iter().filter(|golden| golden.name == "localmamba/vssm_merge") {
        let words = golden.options["directions"].as_array().unwrap();
        let patterns: Vec<String> =
            words.iter().map(|word| blocks::local_direction(word.as_str().unwrap()).unwrap()).collect();
        let geometry = Geometry::Grid2 { height: golden.int("H") as usize, width: golden.int("W") as usize };
        let plan = plan(&format!("[{}]", patterns.join(", ")), &geometry);
        let lengths: Vec<i64> = plan.orders().iter().map(|order| order.len() as i64).collect();
        assert!(golden.tensors["lengths"].equal(&Tensor::from_slice(&lengths)), "{}", golden.file);

        let ys = at_tokens(&golden.tensors["ys"].transpose(2, 3), &plan);
        let channels = ys.size()[3];
        let vs = VarStore::new(Device::Cpu);
        let merger = Merger::new(&vs.root(), Merge::ChannelGate, lengths.len() as i64, channels, channels);
        let mut parameters = golden.parameters();
        parameters.retain(|name, _| name.starts_with("attn."));
        let author = Author::new(&golden.options, &parameters, &[]);
        keymap::load(&blocks::channel_gate(&author), &parameters, &vs.variables()).unwrap();
        let out = merger.forward(&ys, |y| Ok(y.shallow_clone())).unwrap();
        expect_close(&golden.file, &out.squeeze_dim(2), &golden.tensors["y"]);
    }
}

/// RSMamba's paths: the authors' mixer is replaced by a cumulative sum; the gate and the mean are ours.
#[test]
fn rsmamba_paths() {
    for golden in goldens().iter().filter(|golden| golden.name.starts_with("rsmamba/")) {
        let tensor = |name: &str| &golden.tensors[name];
        let kind = golden.options["path_type"].as_str().unwrap();
        let mut x = tensor("x").shallow_clone();
        let (l, c) = (x.size()[1], x.size()[2]);
        for (layer, scale) in golden.options["layer_scale"].as_array().unwrap().iter().enumerate() {
            let mut paths = vec![Tensor::arange(l, (Kind::Int64, Device::Cpu))];
            if kind.contains("reverse") {
                paths.push(paths[0].flip([0]));
            }
            if kind.contains("shuffle") {
                paths.push(tensor(&format!("shuffle{layer}")).shallow_clone());
            }
            let k = paths.len() as i64;
            let normed = x.layer_norm([c], Some(tensor("ln_weight")), Some(tensor("ln_bias")), 1e-6, false);
            let path = |path: &Tensor| {
                let scanned = normed.index_select(1, path).cumsum(1, Kind::Float) * scale.as_float().unwrap();
                scanned.index_select(1, &path.argsort(0, false))
            };
            let ys = Tensor::stack(&paths.iter().map(path).collect::<Vec<_>>(), 2); // (B, L, K, C)
            let gated = kind.ends_with("gate");
            let vs = VarStore::new(Device::Cpu);
            let merge = if gated { Merge::Gated } else { Merge::Mean };
            let merger = Merger::new(&vs.root(), merge, k, c, c);
            if gated {
                let gate = tensor(&format!("gate{layer}"));
                tch::no_grad(|| vs.variables()["gate.weight"].shallow_clone().copy_(gate));
            }
            let merged = merger.forward(&ys, |y| Ok(y.shallow_clone())).unwrap().squeeze_dim(2);
            x = &x + if gated { merged } else { merged / k as f64 };
        }
        expect_close(&golden.file, &x, tensor("y"));
    }
}

/// Video Mamba Suite's TimeMamba: every patch position is a segment, time runs fastest.
#[test]
fn timemamba_segments() {
    for golden in goldens().iter().filter(|golden| golden.name == "videomambasuite/timemamba_divided") {
        let (n, frames) = (golden.int("n"), golden.int("T"));
        let plan =
            plan(&format!("row | chunk({frames})"), &Geometry::Sequence { len: (n * frames) as usize });
        let order = &plan.orders()[0];
        let want: Vec<i32> =
            Vec::try_from(golden.tensors["time_segments"].flatten(0, -1).to_kind(Kind::Int)).unwrap();
        assert_eq!(order.index(), want, "{}", golden.file);
        let starts: Vec<bool> = (0..n * frames).map(|t| t > 0 && t % frames == 0).collect();
        assert_eq!(order.resets(), starts, "{}", golden.file);
    }
}

/// Every parameter that does not fit is listed, whether it says how large the block is or not.
#[test]
fn what_does_not_fit_a_block_is_listed() {
    let Some(golden) = goldens().into_iter().find(|golden| golden.name == "vmamba/ss2d_v05") else { return };
    let told = |change: &dyn Fn(&mut Tensors), parts: &[&str]| {
        let mut file = golden.copied();
        change(&mut file);
        let error = blocks::run(&golden.name, &file, &golden.options).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
        assert!(!error.contains("Exception") && !error.contains("frame #"), "{error}");
    };
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    told(&|file| drop(file.insert("param.Ds".into(), ones(&[5]))), &["`Ds` has shape [5], expected [32]"]);
    told(
        &|file| {
            file.insert("param.Ds".into(), ones(&[5]));
            file.insert("param.dt_projs_bias".into(), ones(&[2, 3]));
            file.insert("param.more".into(), ones(&[1]));
            file.remove("param.conv2d.bias");
        },
        &[
            "(4 of 11 keys)",
            "`Ds` has shape [5]",
            "`dt_projs_bias` has shape [2, 3]",
            "`more` [1] is not known",
            "`conv2d.bias` [",
        ],
    );
    // Those that say how large it is.
    told(
        &|file| {
            file.remove("param.A_logs");
            file.remove("param.out_proj.weight");
            file.remove("param.Ds");
            file.insert("param.more".into(), ones(&[1]));
        },
        &[
            "`A_logs` is missing",
            "`out_proj.weight` [8, 8] is missing",
            "`Ds` [4, 8] is missing",
            "`more` [1] is not known",
        ],
    );
    told(
        &|file| {
            file.remove("param.Ds");
            file.insert("param.more".into(), ones(&[1]));
            file.insert("param.conv2d.weight".into(), ones(&[8, 1, 4, 4]));
        },
        &[
            "(3 of 11 keys)",
            "`Ds` [4, 8] is missing",
            "`more` [1] is not known",
            "`conv2d.weight` has shape [8, 1, 4, 4], of which no block can be made: `d_conv` is 4",
        ],
    );
    told(
        &|file| drop(file.insert("param.A_logs".into(), ones(&[7]))),
        &["`A_logs` has shape [7], expected at least 2 axes"],
    );
    told(
        &|file| {
            let x = file["x"].narrow(3, 0, 5);
            file.insert("x".into(), x);
        },
        &["`x` has 5 channels, expected "],
    );
}

/// A misshaped parameter is listed beside a missing one, even if that one says how large the block is.
#[test]
fn what_is_misshaped_is_listed_beside_what_is_missing() {
    for golden in one_of_each_block() {
        let parameters = golden.parameters();
        let key = |name: &str| {
            let prefixed = format!("param.{name}");
            if golden.tensors.contains_key(&prefixed) { prefixed } else { name.to_owned() }
        };
        // Biases alone never say how large a block is: others do that too.
        let biases = || parameters.keys().filter(|name| name.ends_with("bias")).take(2);
        for (missing, misshaped) in
            biases().flat_map(|bias| parameters.keys().map(move |missing| (missing, bias)))
        {
            // What a block may lack is not missing.
            let optional =
                golden.name == "hydra/block" && ["in_proj.bias", "out_proj.bias"].contains(&missing.as_str());
            if missing == misshaped || optional {
                continue;
            }
            let wrong = &parameters[misshaped];
            let wrong = Tensor::cat(&[wrong, &wrong.narrow(-1, 0, 1)], -1);
            let mut file = golden.copied();
            file.insert(key(misshaped), wrong);
            file.remove(&key(missing));
            let error = blocks::run(&golden.name, &file, &golden.options).unwrap_err().to_string();
            for name in [missing, misshaped] {
                assert!(error.contains(&format!("`{name}` ")), "{}: {missing}: {error}", golden.name);
            }
        }
    }
}

/// Arguments that do not lay out the input's tokens, or that no block has.
#[test]
fn arguments_that_do_not_fit_are_named() {
    let all = one_of_each_block();
    for (name, arguments, told) in [
        ("plainmamba/block", "H = 3\nW = 5", "H by W is 3 by 5, but `x` has 16 tokens"),
        ("plainmamba/block", "H = -4\nW = -4", "`H` is -4, expected a whole number from 1 on"),
        ("vmamba/ss2d_v05", "H = 3\nW = 7", "H by W is 3 by 7, but `x` has a map of 4 by "),
        (
            "vmamba/ss2d_v05",
            "channel_first = 'maybe'",
            "`channel_first` is \"maybe\", expected true or false",
        ),
        ("vmamba/ss2d_v05", "forward_typ = 'v05'", "unknown key `forward_typ`; did you mean `forward_type`?"),
        ("vivim/tri_block", "nframes = 7", "`nframes` by tokens of one is 7 by "),
        ("zigma/zigzagN8_block", "N = 40", "N by N is 40 by 40, but `x` has "),
        ("zigma/zigzagN8_block", "layer_idx = -1", "`layer_idx` is -1, expected a whole number from 0 on"),
        ("localmamba/multimamba", "H = 3\nW = 4", "H by W is 3 by 4, but `x` has 16 tokens"),
        ("hydra/block", "ngroups = 0", "`ngroups` is 0, expected a whole number from 1 on"),
    ] {
        let Some(golden) = all.iter().find(|golden| golden.name == name) else { continue };
        let mut options = golden.options.clone();
        options.extend(arguments.parse::<toml::Table>().unwrap());
        match blocks::run(name, &golden.tensors, &options) {
            Err(Error::Config(text)) => assert!(text.starts_with(told), "{name}: {text}"),
            other => panic!("{name}, {arguments}: {other:?}"),
        }
    }
    let Some(golden) = all.iter().find(|golden| golden.name == "quadmamba/block") else { return };
    for keep in
        [Tensor::zeros_like(&golden.tensors["keep"]), Tensor::ones([1, 1], (Kind::Float, Device::Cpu))]
    {
        let mut file = golden.copied();
        file.insert("keep".into(), keep);
        let error = blocks::run(&golden.name, &file, &golden.options).unwrap_err().to_string();
        assert!(error.starts_with("`keep` has shape [1, ") && error.contains("expected [1, 4]"), "{error}");
    }
    // A block has all its parameters unless its arguments say otherwise.
    let Some(golden) = all.iter().find(|golden| golden.name == "hydra/block") else { return };
    let mut file = golden.copied();
    file.remove("param.conv1d.bias");
    let error = blocks::run(&golden.name, &file, &golden.options).unwrap_err().to_string();
    assert!(error.contains("`conv1d.bias` [") && error.contains("is missing"), "{error}");
}

/// Whichever parameter is too long on whichever axis, beside a missing one or alone: it is named in a list, or it is another
/// block, of more taps. What is wrong with a file is no wrong argument.
#[test]
fn a_parameter_that_makes_no_block_is_listed() {
    for golden in one_of_each_block() {
        let parameters = golden.parameters();
        for (name, tensor) in &parameters {
            let axes = (0..tensor.dim() as i64).map(|axis| (axis, false));
            for (axis, also) in axes.chain([(0, true)]) {
                let mut file = parameters
                    .iter()
                    .map(|(name, t)| (format!("param.{name}"), t.shallow_clone()))
                    .collect::<Tensors>();
                file.insert("x".into(), golden.tensors["x"].shallow_clone());
                let longer = Tensor::cat(&[tensor, &tensor.narrow(axis, 0, 1)], axis);
                file.insert(format!("param.{name}"), longer);
                let missing = parameters.keys().find(|other| *other != name && other.contains('D'));
                if let Some(missing) = missing.filter(|_| also) {
                    file.remove(&format!("param.{missing}"));
                }
                let told = match blocks::run(&golden.name, &file, &golden.options) {
                    Ok(_) => "another block".to_owned(),
                    Err(Error::Config(text)) => panic!("{}: {name}, axis {axis}: {text}", golden.file),
                    Err(error) => error.to_string(),
                };
                let taps = name.contains("conv") && axis > 1;
                // Of step sizes and states x_proj says how many there are together: either may be the one that is wrong.
                let other = told.contains("x_proj") && (name.contains("dt_proj") || name.contains("A_log"));
                let listed = told.contains(&format!("`{name}` "));
                assert!(listed || taps || other, "{}: {name}, axis {axis}: {told}", golden.file);
            }
        }
    }
}

/// Goldens of blocks and of toy layers that are held elsewhere: in `beyond_goldens.rs`, here by name, or by their maps in the
/// scans' own tests.
const ELSEWHERE: [&str; 9] = [
    "hydra/quasiseparable",
    "spatialmamba/statefusion",
    "vim/layerpairs",
    "graphmamba/degree_order",
    "rsmamba/forward",
    "rsmamba/forward_reverse_gate",
    "rsmamba/forward_reverse_mean",
    "rsmamba/forward_reverse_shuffle_gate",
    "rsmamba/forward_reverse_shuffle_mean",
];

/// No golden of a block lies there unread.
#[test]
fn every_golden_of_a_block_is_read() {
    for golden in goldens().iter().filter(|golden| ["block", "toy"].contains(&golden.kind.as_str())) {
        let read = blocks::find(&golden.name).is_some() || ELSEWHERE.contains(&golden.name.as_str());
        assert!(read, "{}: no test reads {}", golden.file, golden.name);
    }
}

/// Hydra's mixer as a family: a folder with the authors' arguments and names gives their numbers, and gradients by their
/// names.
#[test]
fn hydra_is_a_family() {
    let family = published::FAMILIES.iter().find(|family| family.name() == "hydra").unwrap();
    for golden in goldens().iter().filter(|golden| golden.name == "hydra/block") {
        let folder = tempfile::tempdir().unwrap();
        let config = serde_json::to_string(&golden.options).unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        let parameters = golden.parameters();
        tensors::write(&folder.path().join("model.safetensors"), &parameters).unwrap();
        let (x, y) = (&golden.tensors["x"], &golden.tensors["y"]);
        let ct = y.sin() + 0.5;
        let mut inputs: Tensors = [("in.x".to_owned(), x.shallow_clone())].into();
        let plain = published::run(*family, folder.path(), &inputs).unwrap();
        expect_close(&golden.file, &plain["out.y"], y);
        assert_eq!(plain.len(), 1, "{:?}", plain.keys());

        inputs.insert("in.ct".into(), ct.shallow_clone());
        let found = published::run(*family, folder.path(), &inputs).unwrap();
        expect_close(&golden.file, &found["out.y"], y);
        // The slope of the sum of y times ct along every parameter, by differences.
        for (name, tensor) in &parameters {
            let grad = &found[&format!("grad.{name}")];
            let wave = Tensor::arange(tensor.numel() as i64, (Kind::Double, Device::Cpu)) * 1.7;
            let direction = wave.cos().view_as(tensor).to_kind(Kind::Float);
            let at = |step: f64| {
                let mut moved: Tensors =
                    parameters.iter().map(|(name, t)| (name.clone(), t.shallow_clone())).collect();
                moved.insert(name.clone(), tensor + &direction * step);
                tensors::write(&folder.path().join("model.safetensors"), &moved).unwrap();
                let moved = published::run(*family, folder.path(), &inputs).unwrap();
                (moved["out.y"].to_kind(Kind::Double) * &ct).sum(Kind::Double).double_value(&[])
            };
            let slope = (grad * &direction).sum(Kind::Double).double_value(&[]);
            let usual = (grad.norm() * direction.norm()).double_value(&[]) / (tensor.numel() as f64).sqrt();
            // A short step is rounded, a long one bends: one of them is good enough.
            let off = [3e-3, 1e-2, 3e-2].map(|step| {
                let found = (at(step) - at(-step)) / (2.0 * step);
                (found - slope).abs() / slope.abs().max(usual)
            });
            let off = off.into_iter().fold(f64::INFINITY, f64::min);
            assert!(off < 2e-2, "{}: the gradient of {name} is off by {off:.1e}", golden.file);
        }
    }
}

#[test]
fn hydra_as_a_family_refuses_what_it_is_not() {
    let family = published::FAMILIES.iter().find(|family| family.name() == "hydra").unwrap();
    let refused = |text: &str| family.build(text.parse().unwrap()).err().expect("an error").to_string();
    assert!(refused("d_state = 4").contains("d_model"));
    assert!(refused("d_model = 16\nheaddim = 8\ndstate = 4").contains("did you mean `d_state`"));
    assert!(refused("d_model = 16").contains("`headdim` is 64"));
    assert!(refused("d_model = 32\nactivation = 'relu'").contains("`activation` is \"relu\""));
    assert!(refused("d_model = 32\nlearnable_init_states = true").contains("not supported"));
    assert!(refused("d_model = 32\ndt_limit = [0.1, 1.0]").contains("not supported"));
    let fine = family.build("d_model = 32\ndt_limit = [0.0, inf]\nchunk_size = 64".parse().unwrap()).unwrap();
    let ones = |shape: &[i64]| Tensor::ones(shape, (Kind::Float, Device::Cpu));
    let run = |inputs: Tensors| fine.model.run(&inputs).map(|_| ()).map_err(|error| error.to_string());
    assert_eq!(run([("x".to_owned(), ones(&[1, 3, 32]))].into()), Ok(()));
    assert!(run([].into()).unwrap_err().contains("`in.x` is missing"));
    assert!(run([("x".to_owned(), ones(&[1, 3, 31]))].into()).unwrap_err().contains("[1, 3, 31]"));
    let two = [("x".to_owned(), ones(&[1, 3, 32])), ("ct".to_owned(), ones(&[1, 2, 32]))];
    assert!(run(two.into()).unwrap_err().contains("`in.ct` has shape [1, 2, 32]"));
    let two = [("x".to_owned(), ones(&[1, 3, 32])), ("labels".to_owned(), ones(&[1]))];
    assert!(run(two.into()).unwrap_err().contains("`in.labels` is no input"));
}
