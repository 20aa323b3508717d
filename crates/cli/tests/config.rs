//! `ophidian config` and what `train` refuses before it begins.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

fn ophidian(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn configs() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs")
}

/// Exit code and message.
fn refused(arguments: &[&str]) -> (i32, String) {
    let output = ophidian(arguments);
    (output.status.code().unwrap(), text(&output.stderr).to_owned())
}

#[test]
fn show_prints_a_whole_config_that_reads_back_as_itself() {
    let folder = tempfile::tempdir().unwrap();
    let demo = configs().join("demo.toml");
    for explain in [false, true] {
        let mut arguments = vec!["config", "show", demo.to_str().unwrap(), "--set", "train.epochs=3"];
        arguments.extend(explain.then_some("--explain"));
        let first = ophidian(&arguments);
        assert!(first.status.success(), "{}", text(&first.stderr));
        let shown = text(&first.stdout);
        for part in ["adapter = \"vision\"", "epochs = 3", "betas = [0.9, 0.999]", "[data]", "[model]"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        for part in ["# Examples in a batch.", "# States per inner channel.", "# RandAugment: how strong"] {
            assert_eq!(shown.contains(part), explain, "{part}: {shown}");
        }
        let copy = folder.path().join("copy.toml");
        fs::write(&copy, shown).unwrap();
        arguments[2] = copy.to_str().unwrap();
        assert_eq!(text(&ophidian(&arguments).stdout), shown);
    }
}

#[test]
fn every_config_of_the_project_is_valid() {
    for entry in fs::read_dir(configs()).unwrap() {
        let path = entry.unwrap().path();
        // `models` holds parts of configs, which `ophidian models` reads.
        if path.is_dir() {
            continue;
        }
        let name = path.to_str().unwrap();
        let sweep = path.file_stem().unwrap().to_str().unwrap().starts_with("ablate");
        let output = if sweep {
            ophidian(&["ablate", name, "--dry-run"])
        } else {
            ophidian(&["config", "show", name])
        };
        // A data set that is not on this machine may be missed, but never a key.
        let message = text(&output.stderr);
        assert!(
            output.status.success() || message.contains("does not exist"),
            "{}: {message}",
            path.display()
        );
    }
}

#[test]
fn keys_are_listed_with_defaults_and_meanings() {
    let output = ophidian(&["config", "keys"]);
    let listed = text(&output.stdout);
    for part in [
        "adapter\n    The modality",
        "train.learning_rate = 0.001\n    Peak learning rate of AdamW.\n",
        "data.format = \"auto\"\n    What the files are",
        "data.augment.flip = 0.0\n    Probability that an image is mirrored",
        "model.base\n    A published model",
        "model.d_state = 16\n    States per inner channel.",
    ] {
        assert!(listed.contains(part), "{part}: {listed}");
    }
    assert_eq!(ophidian(&["config", "keys", "--adapter", "visoin"]).status.code(), Some(2));
}

#[test]
fn wrong_configs_are_usage_errors_that_name_the_key() {
    let folder = tempfile::tempdir().unwrap();
    let demo = configs().join("demo.toml");
    let demo = demo.to_str().unwrap();
    let output = folder.path().join("run");
    let output = output.to_str().unwrap();
    for (set, expected) in [
        ("train.epoch=3", "unknown key `train.epoch`; did you mean `train.epochs`?"),
        ("model.deph=3", "unknown key `model.deph`; did you mean `model.depth`?"),
        ("model.patch_size=9", "patches of 9 rows"),
        ("data.formt=shapes", "unknown key `data.formt`; did you mean `data.format`?"),
        ("train.batch_size=0", "`train.batch_size` is 0"),
        ("train.batch_size=1000000", "there are only"),
        ("adapter=visoin", "did you mean \"vision\"?"),
        ("train.precision=f16", "`train.precision` is \"f16\", expected one of \"f32\", \"bf16\""),
        ("epochs", "is not an override"),
    ] {
        let (code, message) = refused(&["train", demo, "--output", output, "--set", set]);
        assert!(message.contains(expected), "{set}: {message}");
        assert_eq!(code, 2, "{set}: {message}");
        assert!(!Path::new(output).exists(), "{set}");
    }
    assert_eq!(
        refused(&["train", "none.toml", "--output", output]),
        (2, "error: there is no config file `none.toml`\n".to_owned())
    );
    assert_eq!(refused(&["train", "--output", output]).0, 2);
    let (code, message) = refused(&["train", "--output", output, "--resume"]);
    assert!(code == 2 && message.contains("holds no run to resume"), "{message}");
}
