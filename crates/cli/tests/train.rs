//! Train, evaluate and predict with the program, on figures that it draws itself.
#![allow(clippy::print_stdout)] // a test that is skipped says so

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const CONFIG: &str = "adapter = 'vision'
[data]
format = 'shapes'
train = 128
eval = 64
image_size = 16
[model]
patch_size = 4
d_model = 16
depth = 1
d_state = 4
[train]
epochs = 2
batch_size = 32
log_every_steps = 2
";

fn ophidian(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// Standard output of a run that must succeed.
fn succeeds(arguments: &[&str]) -> String {
    let output = ophidian(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout).to_owned()
}

fn fails(arguments: &[&str], code: i32) -> String {
    let output = ophidian(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stderr).to_owned()
}

fn config(folder: &Path) -> PathBuf {
    let path = folder.join("config.toml");
    fs::write(&path, CONFIG).unwrap();
    path
}

/// Grey PNGs of noise are enough to be labelled.
fn pictures(folder: &Path) {
    for number in 0..3u8 {
        let image = image::GrayImage::from_fn(20, 20, |x, y| image::Luma([(x * 7 + y * 3) as u8 ^ number]));
        image.save(folder.join(format!("{number}, \"quoted\".png"))).unwrap();
    }
}

#[test]
fn train_then_eval_then_predict() {
    let folder = tempfile::tempdir().unwrap();
    let path = config(folder.path());
    let (config, run) = (path.to_str().unwrap(), folder.path().join("run"));
    let run = run.to_str().unwrap();
    let said = succeeds(&["train", config, "--output", run]);
    for part in ["best accuracy ", "8 steps in ", "curves.png", "confusion.png", "next:", "ophidian eval "] {
        assert!(said.contains(part), "{part}: {said}");
    }
    // Once more needs a decision; to resume is to find it done.
    let message = fails(&["train", config, "--output", run], 2);
    assert!(message.contains("--resume") && message.contains("--force"), "{message}");
    assert!(succeeds(&["train", "--output", run, "--resume"]).contains("8 steps in "));
    succeeds(&["train", config, "--output", run, "--force", "--set", "train.epochs=1"]);

    let said = succeeds(&["eval", run]);
    for part in ["accuracy ", "loss ", "top 5", "class", "recall", "precision"] {
        assert!(said.contains(part), "{part}: {said}");
    }
    let report = folder.path().join("report");
    let said =
        succeeds(&["eval", run, "--checkpoint", "last", "--json", "--output", report.to_str().unwrap()]);
    let said: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(said["examples"], 64);
    let written: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(report.join("evaluation.json")).unwrap()).unwrap();
    assert_eq!(written, said);
    assert!(report.join("confusion.png").is_file() && report.join("misclassified.png").is_file());
    let best = format!("{run}/checkpoints/best.safetensors");
    succeeds(&["eval", &best, "--set", "train.eval_batch_size=10"]);
    // Data with other classes than the model's.
    let message = fails(&["eval", run, "--set", "data.image_size=20"], 2);
    assert!(message.contains("[1, 20, 20]") && message.contains("[1, 16, 16]"), "{message}");
    let message = fails(&["eval", run, "--set", "model.d_model=32"], 1);
    assert!(message.contains("does not fit the model") && message.lines().count() > 5, "{message}");

    let inputs = folder.path().join("inputs");
    fs::create_dir(&inputs).unwrap();
    pictures(&inputs);
    let inputs = inputs.to_str().unwrap();
    assert_eq!(succeeds(&["predict", run, inputs]).lines().count(), 3);
    for name in ["table.csv", "table.json", "table.jsonl"] {
        let table = folder.path().join(name);
        succeeds(&["predict", run, inputs, "--output", table.to_str().unwrap()]);
        let table = fs::read_to_string(table).unwrap();
        match name {
            "table.csv" => {
                assert!(table.starts_with("input,label,probability,"), "{table}");
                assert!(table.contains("\"\"quoted\"\".png\","), "{table}");
                assert_eq!(table.lines().count(), 4);
            }
            "table.json" => {
                let rows: Vec<serde_json::Value> = serde_json::from_str(&table).unwrap();
                let sum: f64 =
                    rows[0]["probabilities"].as_object().unwrap().values().map(|p| p.as_f64().unwrap()).sum();
                assert!(rows.len() == 3 && (sum - 1.0).abs() < 1e-4, "{table}");
            }
            _ => assert_eq!(table.lines().count(), 3),
        }
    }
    // A picture that is none: named, or left out if asked for.
    let broken = format!("{inputs}/broken.png");
    fs::write(&broken, b"no picture").unwrap();
    assert!(fails(&["predict", run, inputs], 1).contains("broken.png"));
    assert_eq!(succeeds(&["predict", run, inputs, "--skip-corrupt"]).lines().count(), 3);
    assert!(fails(&["predict", run, inputs, "--output", "table.txt"], 2).contains(".csv, .json or .jsonl"));
    let message = fails(&["predict", run, inputs, "--set", "data.image_size=20"], 2);
    assert!(message.contains("[1, 20, 20]") && message.contains("[1, 16, 16]"), "{message}");
    assert!(fails(&["predict", run, "/nowhere.png"], 1).contains("/nowhere.png"));
}

#[test]
fn runs_that_are_not_there_or_not_whole_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    assert!(fails(&["eval", root.join("none").to_str().unwrap()], 2).contains("there is no run folder"));
    assert!(fails(&["eval", root.to_str().unwrap()], 2).contains("is not a run folder"));
    let path = root.join("x.safetensors");
    fs::write(&path, [7u8; 100]).unwrap();
    assert!(fails(&["eval", path.to_str().unwrap()], 1).contains("is not a whole safetensors file"));
}

#[test]
fn a_full_disk_ends_a_run_with_the_last_checkpoint_whole() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("small");
    fs::create_dir(&root).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", "size=400k", "tmpfs"]).arg(&root).status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("SKIPPED: a small file system cannot be mounted here");
        return;
    }
    let path = config(folder.path());
    let run = root.join("run");
    let output = ophidian(&[
        "train",
        path.to_str().unwrap(),
        "--output",
        run.to_str().unwrap(),
        "--set",
        "train.keep_every_epochs=1",
        "--set",
        "train.epochs=20",
    ]);
    // Paths alone: an open folder would keep the file system busy.
    let checkpoints: Vec<PathBuf> =
        fs::read_dir(run.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    let whole = checkpoints.iter().all(|path| ophidian(&["eval", path.to_str().unwrap()]).status.success());
    assert!(Command::new("umount").arg(&root).status().unwrap().success());
    let message = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("cannot be written"), "{message}");
    assert!(whole && !checkpoints.is_empty(), "{checkpoints:?}");
}
