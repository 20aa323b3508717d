//! Points from end to end: train on drawn solids, evaluate, predict, inspect, and what is refused before training.
#![allow(clippy::print_stderr)] // a test that is skipped says so

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use ophidian_core::tensors;

const CONFIG: &str = "adapter = 'points'
[data]
train = 60
eval = 20
points = 48
groups = 8
group_size = 6
[data.augment]
rotate = 'z'
[model]
d_model = 16
depth = 1
d_state = 4
encoder = [8, 16, 16]
position = 8
head = [16]
join = true
[train]
epochs = 2
batch_size = 20
log_every_steps = 2
";

const MESH: &str = "OFF\n4 4 6\n0 0 0\n1 0 0\n0 1 0\n0 0 1\n3 0 2 1\n3 0 1 3\n3 0 3 2\n3 1 2 3\n";

fn ophidian(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn succeeds(arguments: &[&str]) -> String {
    let output = ophidian(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn put(folder: &Path, path: &str, bytes: &[u8]) -> String {
    let path = folder.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(&path, bytes).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn a_run_is_trained_evaluated_and_predicts_a_mesh() {
    let dir = tempfile::tempdir().unwrap();
    let config = put(dir.path(), "config.toml", CONFIG.as_bytes());
    let run = dir.path().join("run").to_str().unwrap().to_owned();
    succeeds(&["train", &config, "--output", &run]);
    assert!(dir.path().join("run/misclassified.png").exists());
    let again = dir.path().join("again").to_str().unwrap().to_owned();
    succeeds(&["train", &config, "--output", &again, "--set", "train.workers=3"]);
    let weights = |run: &str| {
        let folder = PathBuf::from(run).join("checkpoints");
        let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.into_iter().rfind(|file| file.extension().is_some_and(|e| e == "safetensors")).unwrap()
    };
    let [one, other] = [&run, &again].map(|run| tensors::read(&weights(run)).unwrap());
    assert!(one.iter().all(|(name, tensor)| tensor.equal(&other[name])), "threads change nothing");
    assert!(succeeds(&["eval", &run]).contains("accuracy"));
    let mesh = put(dir.path(), "in/a.off", MESH.as_bytes());
    let table = dir.path().join("out.csv").to_str().unwrap().to_owned();
    succeeds(&["predict", &run, &mesh, "--output", &table]);
    assert!(fs::read_to_string(&table).unwrap().contains("a.off"));
    let broken = put(dir.path(), "in/b.off", b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n");
    let output = ophidian(&["predict", &run, &broken]);
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output.stderr).contains("b.off: has no faces"), "{}", text(&output.stderr));
}

#[test]
fn mistakes_are_told_before_training_starts() {
    let dir = tempfile::tempdir().unwrap();
    let config = put(dir.path(), "config.toml", CONFIG.as_bytes());
    for class in ["a", "b"] {
        for split in ["train", "test"] {
            put(dir.path(), &format!("data/{class}/{split}/1.off"), MESH.as_bytes());
        }
    }
    let run = dir.path().join("run").to_str().unwrap().to_owned();
    let path = format!("data.path={}", dir.path().join("data").display());
    let train = |more: &[&str]| {
        let arguments: Vec<&str> = ["train", &config, "--output", &run].iter().chain(more).copied().collect();
        ophidian(&arguments)
    };
    for (more, code, words) in [
        (vec!["--set", "model.scan=cross"], 2, "`scan`"),
        (vec!["--set", "data.groups=49"], 2, "`data.groups` is 49"),
        (vec!["--set", "data.path=nowhere"], 1, "nowhere: does not exist"),
    ] {
        let output = train(&more);
        assert_eq!(output.status.code(), Some(code), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains(words), "{}", text(&output.stderr));
    }
    put(dir.path(), "data/b/train/2.xyz", b"0 0 0\n1 nan 0\n");
    let output = train(&["--set", &path]);
    assert_eq!(output.status.code(), Some(1));
    let said = text(&output.stderr);
    assert!(said.contains("2.xyz: line 2: y is `nan`"), "{said}");
    assert!(!said.contains("epoch"), "{said}");
}

#[test]
fn data_sets_are_listed_and_inspected() {
    let listed = succeeds(&["data", "list"]);
    for name in ["solids", "geometric-shapes", "radhar"] {
        assert!(listed.lines().any(|line| line.starts_with(name)), "{listed}");
    }
    let said = succeeds(&["data", "inspect", "solids"]);
    assert!(said.contains("format      solids") && said.contains("torus"), "{said}");
    let dir = tempfile::tempdir().unwrap();
    for i in 0..4 {
        put(dir.path(), &format!("data/a/{i}.off"), MESH.as_bytes());
    }
    let folder = dir.path().join("data");
    let said = succeeds(&["data", "inspect", folder.to_str().unwrap(), "--set", "adapter=points"]);
    assert!(said.contains("of 3 files, 8192 to 8192 points"), "{said}");
    let output = ophidian(&["data", "fetch", "radhar"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("github.com/nesl/RadHAR"), "{}", text(&output.stderr));
}

#[test]
fn pointmamba_is_listed_shown_and_runs() {
    let line = succeeds(&["models", "list"]);
    let line = line.lines().find(|line| line.starts_with("pointmamba_modelnet40 ")).unwrap().to_owned();
    assert!(line.contains("pointmamba/serialize") && line.contains("2402.10739"), "{line}");
    let dir = tempfile::tempdir().unwrap();
    let shown = succeeds(&["models", "show", "pointmamba_scanobjectnn"]);
    assert!(shown.contains("--family pointmamba") && shown.contains("finetune_scan_hardest.pth"), "{shown}");
    let config = put(dir.path(), "shown.toml", shown.as_bytes());
    assert!(succeeds(&["config", "show", &config]).contains("join = true"));

    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    let model = shared.join("golden/models/pointmamba/a");
    if !model.is_dir() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no goldens at {}\n", model.display()),
        );
        return;
    }
    let (input, output) = (model.join("golden.safetensors"), dir.path().join("out.safetensors"));
    let [folder, from, to] = [&model, &input, &output].map(|path| path.to_str().unwrap());
    succeeds(&["forward", "--family", "pointmamba", "--model", folder, "--input", from, "--output", to]);
    let (want, got) = (tensors::read(&input).unwrap(), tensors::read(&output).unwrap());
    let error = (&got["out.logits"] - &want["out.logits"]).abs().max().double_value(&[]);
    assert!(error <= 1e-5 * want["out.logits"].abs().max().double_value(&[]), "{error}");
}
