//! Sweeps of tiny models over figures that the program draws itself.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::Duration,
};

const BASE: &str = "[base]
adapter = 'vision'
[base.data]
format = 'shapes'
train = 96
eval = 40
image_size = 16
[base.data.augment]
flip = 0.5
[base.model]
patch_size = 4
d_model = 16
depth = 1
d_state = 4
drop_path = 0.1
[base.train]
epochs = 2
batch_size = 16
log_every_steps = 1
checkpoint_every_steps = 1
workers = 1
";

const SCANS: &str = "seeds = [0, 4]
[axes]
model.scan = ['row', 'cross']
";

fn ophidian(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ophidian"));
    command.args(arguments).env("OMP_NUM_THREADS", "1").stdin(Stdio::null());
    command
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn run(arguments: &[&str]) -> Output {
    ophidian(arguments).output().unwrap()
}

/// What a command that must succeed says on both channels.
fn succeeds(arguments: &[&str]) -> String {
    let output = run(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stdout) + &text(&output.stderr)
}

fn fails(arguments: &[&str], code: i32) -> String {
    let output = run(arguments);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", text(&output.stderr));
    text(&output.stderr)
}

/// A sweep file in `folder`.
fn sweep(folder: &Path, name: &str, head: &str) -> String {
    let path = folder.join(name);
    fs::write(&path, format!("{head}{BASE}")).unwrap();
    path.to_str().unwrap().to_owned()
}

/// Everything in a checkpoint but its text, which holds seconds.
fn tensors(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

fn runs(folder: &Path) -> Vec<PathBuf> {
    let mut runs: Vec<PathBuf> =
        fs::read_dir(folder.join("runs")).unwrap().map(|entry| entry.unwrap().path()).collect();
    runs.sort();
    runs
}

/// The tables that do not depend on the machine's speed.
fn tables(folder: &Path) -> Vec<String> {
    ["ranking.csv", "runs.csv", "curves.csv", "classes.csv"]
        .map(|name| fs::read_to_string(folder.join(name)).unwrap())
        .to_vec()
}

#[test]
fn a_sweep_is_the_same_alone_side_by_side_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let file = sweep(root, "scans.toml", SCANS);
    let place = |name: &str| root.join(name).to_str().unwrap().to_owned();
    let listed = succeeds(&["ablate", &file, "--dry-run"]);
    assert!(
        listed.contains("row") && listed.contains("4 runs: 2 arms, each with seed 0; seed 4"),
        "{listed}"
    );

    let one = place("one");
    let said = succeeds(&["ablate", &file, "--output", &one, "--threads", "1"]);
    assert!(said.contains("run 1 of 4: arm 1 of 2, row, seed 0"), "{said}");
    assert!(said.contains("4 runs finished, 0 failed"), "{said}");
    let expected = tables(Path::new(&one));
    assert_eq!(expected[1].lines().count(), 5, "{}", expected[1]);
    assert!(expected[0].contains("seeds_and_examples"), "{}", expected[0]);
    assert_eq!(expected[3].lines().count(), 1 + 2 * 10, "{}", expected[3]);
    // The page asks for nothing from outside.
    let page = fs::read_to_string(root.join("one/report.html")).unwrap();
    let outside = page.replace("http://www.w3.org/", "");
    assert!(!outside.contains("http://") && !outside.contains("https://") && !outside.contains("<script"));
    for part in
        ["Ranking", "Learning curves", "Scans", "data:image/svg+xml;base64,", "contains 0", "ophidian train "]
    {
        assert!(page.contains(part), "{part}");
    }
    let json: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(root.join("one/report.json")).unwrap()).unwrap();
    assert_eq!(json["arms"].as_array().unwrap().len(), 2);
    assert!(json["ranking"][0]["flops"].as_f64().unwrap() > 0.0);

    // Under other names they are done already.
    let head = SCANS.replace("[axes]", "[[zip]]\nlabel = ['first', 'second']");
    assert_ne!(head, SCANS);
    let renamed = sweep(root, "renamed.toml", &head);
    let before = runs(Path::new(&one));
    let said = succeeds(&["ablate", &renamed, "--output", &one, "--threads", "1"]);
    assert!(said.contains("4 of 4 runs are done already"), "{said}");
    assert_eq!(runs(Path::new(&one)), before);
    assert!(fs::read_to_string(root.join("one/ranking.csv")).unwrap().contains("first"));

    // So they are if the base says what it would be anyway.
    let spelt = root.join("spelt.toml");
    assert!(BASE.contains("[base.train]"));
    let base = BASE.replace("[base.train]", "[base.train]\nbetas = [0.9, 0.999]");
    fs::write(&spelt, format!("{SCANS}{base}")).unwrap();
    let said = succeeds(&["ablate", spelt.to_str().unwrap(), "--output", &one, "--threads", "1"]);
    assert!(said.contains("4 of 4 runs are done already"), "{said}");

    // Each run by itself, from its resolved config.
    for run in runs(Path::new(&one)) {
        let (alone, config) = (place("alone"), run.join("config.toml"));
        succeeds(&["train", config.to_str().unwrap(), "--output", &alone, "--force"]);
        let weights = |folder: &Path| tensors(&folder.join("checkpoints/last.safetensors"));
        assert!(weights(&run) == weights(Path::new(&alone)), "{}", run.display());
    }

    // Side by side.
    let two = place("two");
    succeeds(&["ablate", &file, "--output", &two, "--jobs", "2", "--threads", "1"]);
    assert_eq!(tables(Path::new(&two)), expected);

    // Killed again and again, its runs with it, and gone on with.
    let cut = place("cut");
    let arguments = ["ablate", &file, "--output", &cut, "--threads", "1"];
    for kill in 0..3 {
        let mut child = ophidian(&arguments).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let begun = || fs::read_dir(root.join("cut/runs")).is_ok_and(|entries| entries.count() > kill);
        for _ in 0..6000 {
            if begun() || child.try_wait().unwrap().is_some() {
                break;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        std::thread::sleep(Duration::from_millis(150));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    succeeds(&arguments);
    assert_eq!(tables(Path::new(&cut)), expected);
    let said = succeeds(&arguments);
    assert!(said.contains("4 of 4 runs are done already"), "{said}");

    // One more seed takes what is there; another base does not.
    let more = sweep(root, "scans.toml", &SCANS.replace("[0, 4]", "[0, 4, 5]"));
    assert!(
        succeeds(&["ablate", &more, "--output", &cut, "--threads", "1"]).contains("4 of 6 runs are done")
    );
    let message = fails(&["ablate", &file, "--output", &cut, "--set", "train.learning_rate=0.1"], 2);
    assert!(
        message.contains("holds another sweep") && message.contains("`train.learning_rate`"),
        "{message}"
    );
}

#[test]
fn ctrl_c_saves_and_the_same_command_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = sweep(folder.path(), "scans.toml", SCANS);
    let output = folder.path().join("out");
    let arguments = ["ablate", &file, "--output", output.to_str().unwrap(), "--threads", "1"];
    let child = ophidian(&arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let begun = || {
        let runs = fs::read_dir(output.join("runs")).into_iter().flatten().flatten();
        runs.into_iter().any(|run| run.path().join("metrics.jsonl").exists())
    };
    for _ in 0..6000 {
        if begun() {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let ended = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(130), "{}", text(&ended.stderr));
    let said = text(&ended.stdout);
    assert!(said.contains("interrupted and saved") && said.contains("ophidian ablate "), "{said}");
    assert!(output.join("report.html").is_file());
    assert!(succeeds(&arguments).contains("4 runs finished, 0 failed"));
}

#[test]
fn an_arm_that_fails_is_reported_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    // Steps so large that the weights overflow.
    let head = "baseline = 'tame'\n[[zip]]\nlabel = ['wild', 'tame']\ntrain.learning_rate = [1000.0, 1e-3]
train.clip_grad_norm = [0.0, 1.0]\ntrain.warmup_epochs = [0, 0]\n";
    let file = sweep(folder.path(), "rates.toml", head);
    let output = folder.path().join("out");
    let ended = run(&["ablate", &file, "--output", output.to_str().unwrap(), "--threads", "1"]);
    let said = text(&ended.stdout) + &text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{said}");
    assert!(said.contains("failed: wild, seed 0: ") && said.contains("1 run finished, 1 failed"), "{said}");
    let rows = fs::read_to_string(output.join("runs.csv")).unwrap();
    assert!(rows.contains("wild,0,,failed,") && rows.contains("tame,0,,finished,"), "{rows}");
    let page = fs::read_to_string(output.join("report.html")).unwrap();
    assert!(page.contains("1 failed") && page.contains("not finite"));
}

#[test]
fn folds_are_averaged_over_and_paired() {
    let folder = tempfile::tempdir().unwrap();
    let file = sweep(folder.path(), "scans.toml", &format!("{SCANS}[folds]\ndata.seed = [7, 8]\n"));
    let output = folder.path().join("out");
    let said = succeeds(&["ablate", &file, "--output", output.to_str().unwrap(), "--threads", "1"]);
    assert!(said.contains("run 2 of 8: arm 2 of 2, cross, seed 0, 7"), "{said}");
    let ranking = fs::read_to_string(output.join("ranking.csv")).unwrap();
    // Two folds have no test example in common, but within each all arms answered the same ones.
    let row = ranking.lines().find(|row| row.contains("cross")).unwrap();
    assert!(row.contains(",cross,4,") && row.contains(",examples_within_folds,4,"), "{ranking}");
    let rows = fs::read_to_string(output.join("runs.csv")).unwrap();
    let mean = |arm: &str| {
        let of = rows.lines().filter(|row| row.starts_with(arm)).map(|row| row.split(',').nth(4).unwrap());
        of.map(|accuracy| accuracy.parse::<f64>().unwrap()).sum::<f64>() / 4.0
    };
    let gap: f64 = row.split(',').nth(6).unwrap().parse().unwrap();
    assert!((gap - (mean("cross,") - mean("row,"))).abs() < 1e-9, "{ranking}{rows}");
    for run in runs(&output) {
        let name = run.file_name().unwrap().to_str().unwrap().to_owned();
        let config = fs::read_to_string(run.join("config.toml")).unwrap();
        let fold = if name.contains("-7-seed") { "seed = 7" } else { "seed = 8" };
        assert!(config.split("[data]").nth(1).unwrap().contains(fold), "{name}: {config}");
    }
}

#[test]
fn budgets_of_seconds_are_kept_and_those_of_flops_become_steps() {
    let folder = tempfile::tempdir().unwrap();
    let seconds = "budget.seconds = 0.5\n[axes]\nmodel.scan = ['row', 'cross']\n";
    let file = sweep(folder.path(), "seconds.toml", seconds);
    let output = folder.path().join("seconds");
    let arguments = ["ablate", &file, "--output", output.to_str().unwrap(), "--threads", "1"];
    assert!(succeeds(&["ablate", &file, "--dry-run"]).contains("0.5 s"));
    let said = succeeds(&arguments);
    assert!(said.contains("2 runs finished"), "{said}");
    // What was spent stands beside every run, and it is the budget, give or take a step.
    let costs = fs::read_to_string(output.join("costs.csv")).unwrap();
    let rows = fs::read_to_string(output.join("runs.csv")).unwrap();
    for (cost, row) in costs.lines().zip(rows.lines()).skip(1) {
        let spent: f64 = cost.split(',').nth(4).unwrap().parse().unwrap();
        let steps: f64 = row.split(',').nth(8).unwrap().parse().unwrap();
        assert!(spent + 0.5 * spent / steps >= 0.5, "{costs}{rows}");
    }
    let page = fs::read_to_string(output.join("report.html")).unwrap();
    assert!(page.contains("for 0.5 s of training steps, by the clock"));
    assert!(succeeds(&arguments).contains("2 of 2 runs are done already"));

    let flops = "budget.flops = 'baseline'\n[axes]\nmodel.depth = [1, 2]\n";
    let file = sweep(folder.path(), "flops.toml", flops);
    let listed = succeeds(&["ablate", &file, "--dry-run"]);
    let steps: Vec<u64> = listed
        .lines()
        .skip(1)
        .take(2)
        .map(|line| line.replace("baseline", "").split_whitespace().last().unwrap().parse().unwrap())
        .collect();
    assert!(steps[0] == 12 && (5..9).contains(&steps[1]), "{listed}");
}

#[test]
fn run_folders_are_reported_without_a_sweep() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let config = root.join("config.toml");
    fs::write(&config, BASE.replace("[base]\n", "").replace("base.", "")).unwrap();
    let mut arguments = vec!["report".to_owned()];
    for (scan, seed) in [("row", 0), ("row", 1), ("cross", 0), ("cross", 1)] {
        let output = root.join(format!("{scan}-{seed}")).to_str().unwrap().to_owned();
        let set = [format!("model.scan={scan}"), format!("seed={seed}")];
        succeeds(&[
            "train",
            config.to_str().unwrap(),
            "--output",
            &output,
            "--set",
            &set[0],
            "--set",
            &set[1],
        ]);
        arguments.push(output);
    }
    let output = root.join("report").to_str().unwrap().to_owned();
    arguments.extend(["--output".to_owned(), output.clone(), "--baseline".to_owned(), "cross".to_owned()]);
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    succeeds(&arguments);
    let ranking = fs::read_to_string(root.join("report/ranking.csv")).unwrap();
    assert!(ranking.contains(",row,2,") && ranking.contains("baseline"), "{ranking}");
    assert!(root.join("report/report.html").is_file());

    // Other data cannot be ranked with these.
    let other = root.join("other").to_str().unwrap().to_owned();
    succeeds(&[
        "train",
        config.to_str().unwrap(),
        "--output",
        &other,
        "--set",
        "data.eval=30",
        "--set",
        "train.epochs=1",
    ]);
    let message = fails(&["report", arguments[1], &other, "-o", &output], 2);
    assert!(
        message.contains("cannot be ranked") && message.contains("eval examples, 40 and 30"),
        "{message}"
    );
    // Nor can what is not whole.
    fs::write(Path::new(&other).join("summary.json"), "{}").unwrap();
    let message = fails(&["report", &other, "-o", &output], 1);
    assert!(message.contains("summary.json: is damaged"), "{message}");

    let mut wrong = arguments.clone();
    *wrong.last_mut().unwrap() = "crss";
    let message = fails(&wrong, 2);
    assert!(message.contains("`crss` names no arm; did you mean `cross`?"), "{message}");
    let message =
        fails(&["report", root.join("row-0").to_str().unwrap(), root.to_str().unwrap(), "-o", &output], 0);
    assert!(message.starts_with("beware: Runs of fewer") || message.contains("holds no"), "{message}");
    assert!(fails(&["report", arguments[1], arguments[1], "-o", &output], 2).contains("is named twice"));
    assert!(fails(&["report", "/nowhere", "-o", &output], 2).contains("is no run folder"));
}

#[test]
fn a_sweep_that_cannot_be_run_is_refused_before_any_training() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    let output = root.join("out").to_str().unwrap().to_owned();
    let message = |head: &str| {
        let file = sweep(root, "bad.toml", head);
        let message = fails(&["ablate", &file, "--output", &output], 2);
        assert!(!root.join("out").exists(), "{head}");
        message
    };
    for (head, parts) in [
        ("", &["the sweep has no arms"][..]),
        ("axes.model.scan = []\n", &["no arms"]),
        ("axes.model.scan = ['row', 'row']\n", &["arms `row` and `row` are equal"]),
        ("axes.model.depth = [1, 1]\n", &["are equal", "bad.toml: "]),
        ("axes.model.scan = ['row', '[row]']\n", &["arms `row` and `[row]` are equal", "the same orders"]),
        ("axes.model.scan = ['bidirectional', 'row | bidirectional']\n", &["are equal"]),
        (
            "axes.model.scan = ['cross', 'vmamba/cross2d']\n",
            &["`cross` and `vmamba/cross2d` are equal", "bad.toml"],
        ),
        ("axes.model.scan = [['row', 'row'], 'row']\n", &["are equal"]),
        (
            "axes.model.scan = ['random(seed=sample)', '[random(seed=sample)]']\n",
            &["`random(seed=sample)` and `[random(seed=sample)]` are equal"],
        ),
        (
            "axes.model.depth = { from = 1, to = 4, count = 4 }\naxes.model.d_state = { from = 1, to = 4, count = 3 }\n",
            &["the range of `model.d_state` gives fractions", "`count`"],
        ),
        ("axes.data.eval = [40, 50]\n", &["arms `40` and `50` cannot be ranked", "40 and 50"]),
        ("[[zip]]\ndata.format = ['shapes', 'motions']\n", &["`data.format`"]),
        ("axes.train.workers = [1, 2]\n", &["arms `1` and `2` are equal"]),
        ("axes.model.scn = ['row']\n", &["unknown key `model.scn`", "`model.scan`", "arm `row`"]),
        ("axes.modl.scan = ['row']\n", &["unknown key `modl`"]),
        ("axes.'model..scan' = ['row']\n", &["the axis `model..scan`", "is not a key"]),
        ("axes.model.scan = ['rwo']\n", &["arm `rwo`", "`scan`"]),
        (
            "[[zip]]\nmodel.depth = [1, 2]\nmodel.d_state = [4]\n",
            &["`model.d_state` has 1", "`model.depth` has 2"],
        ),
        ("axes.model.depth = { from = 1, to = 4, step = 0 }\n", &["4 is never reached"]),
        ("axes.model.depth = { from = 1, to = inf, step = 1 }\n", &["`to` is inf"]),
        ("seeds = [1, 2, 1]\naxes.model.depth = [1]\n", &["`seeds` holds 1 twice"]),
        ("axes.model.patch_size = [4, [4, 4]]\n", &["are equal"]),
        ("axes.model.mixer = ['mamba1', ['mamba1']]\n", &["are equal"]),
        ("budget.moons = 1\naxes.model.depth = [1]\n", &["unknown key `budget.moons`"]),
        ("budget = 'short'\naxes.model.depth = [1]\n", &["`budget`"]),
        ("budget.flops = 1\naxes.model.depth = [1]\n", &["less than one step"]),
        (
            "budget.flops = 1e30\naxes.model.depth = [1, 2]\n",
            &["`budget.flops` is 1e30", "steps, expected at most"],
        ),
        ("budget.seconds = 1e300\naxes.model.depth = [1]\n", &["`budget.seconds` is 1e300", "at most 1e9"]),
        (
            "baseline = 'rwo'\naxes.model.scan = ['row', 'cross']\n",
            &["`baseline` is `rwo`", "did you mean `row`?"],
        ),
        ("axes.data.image_size = [16, 18]\n", &["arm `18`"]),
    ] {
        let found = message(head);
        assert!(parts.iter().all(|part| found.contains(part)), "{head}: {found}");
    }
    let file = sweep(root, "base.toml", "base = 'none.toml'\naxes.model.depth = [1]\n");
    assert!(fails(&["ablate", &file], 2).contains("duplicate key"));
    let file = root.join("path.toml");
    fs::write(&file, "base = 'none.toml'\naxes.model.depth = [1]\n").unwrap();
    assert!(fails(&["ablate", file.to_str().unwrap()], 2).contains("there is no config file"));

    // A folder that holds something else.
    let file = sweep(root, "good.toml", "axes.model.depth = [1, 2]\n");
    let photos = root.join("photos");
    fs::create_dir(&photos).unwrap();
    fs::write(photos.join("a.png"), "x").unwrap();
    assert!(fails(&["ablate", &file, "--output", photos.to_str().unwrap()], 2).contains("holds no sweep"));
    assert!(fails(&["ablate", &file, "--output", &file], 2).contains("is a file"));
}
