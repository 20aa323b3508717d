//! The program itself, interrupted and killed, and resumed to the bit.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

const CONFIG: &str = "adapter = 'vision'
seed = 3
[data]
format = 'shapes'
train = 128
eval = 32
image_size = 16
[data.augment]
flip = 0.5
mixup = 0.2
[model]
patch_size = 4
d_model = 32
depth = 2
d_state = 4
drop_path = 0.2
[train]
epochs = 5
batch_size = 16
ema_decay = 0.9
checkpoint_every_steps = 1
";

fn start(config: &Path, output: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_ophidian"))
        .args(["train", config.to_str().unwrap(), "--output", output.to_str().unwrap(), "--resume"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Sends Ctrl-C.
fn interrupt(child: &Child) {
    let status = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits until the run has written a checkpoint after this moment.
fn await_checkpoint(output: &Path) {
    let time =
        || fs::metadata(output.join("checkpoints/last.safetensors")).and_then(|found| found.modified()).ok();
    let before = time();
    for _ in 0..60_000 {
        if time() != before {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("no checkpoint in {}", output.display());
}

/// Everything in a checkpoint but its text, which holds seconds.
fn tensors(path: &Path) -> Vec<u8> {
    let bytes = fs::read(path).unwrap();
    let header = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    bytes[8 + header..].to_vec()
}

#[test]
fn interrupted_and_killed_it_ends_as_if_never_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, CONFIG).unwrap();
    let (whole, cut) = (folder.path().join("whole"), folder.path().join("cut"));
    let output = start(&config, &whole).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    // Ctrl-C: saves, says how to go on, exit code 130.
    let child = start(&config, &cut);
    await_checkpoint(&cut);
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("interrupted and saved after step "), "{said}");
    assert!(said.contains(&format!("ophidian train --output {} --resume", cut.display())), "{said}");
    // A second Ctrl-C does not wait for the step.
    let child = start(&config, &cut);
    await_checkpoint(&cut);
    interrupt(&child);
    interrupt(&child);
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(130));
    // Killed outright.
    for pause in [0, 7, 30] {
        let mut child = start(&config, &cut);
        await_checkpoint(&cut);
        std::thread::sleep(Duration::from_millis(pause));
        child.kill().unwrap();
        assert!(!child.wait().unwrap().success(), "the run is too short for this test");
    }
    let output = start(&config, &cut).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for name in ["last", "best"] {
        let path = format!("checkpoints/{name}.safetensors");
        assert!(tensors(&whole.join(&path)) == tensors(&cut.join(&path)), "{name} differs");
    }
}

/// A scan that is drawn anew for every sample and epoch, on the loader's threads, trains the same on one thread or
/// three, and across a kill.
#[test]
fn scans_of_each_sample_are_the_same_on_any_threads_and_after_a_kill() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, scan: &str, workers: usize| {
        let text = CONFIG.replace("patch_size = 4", &format!("patch_size = 4\nscan = {scan}"));
        let text = text.replace("epochs = 5", &format!("epochs = 3\nworkers = {workers}"));
        let path = folder.path().join(name);
        fs::write(&path, text).unwrap();
        path
    };
    let drawn = "'[row, row | reverse, random(seed=sample)]'";
    let (one, three) = (write("one.toml", drawn, 1), write("three.toml", drawn, 3));
    let fixed = write("fixed.toml", "'[row, row | reverse, random(seed=0)]'", 1);
    let run = |config: &Path, name: &str| {
        let output = start(config, &folder.path().join(name)).wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        tensors(&folder.path().join(name).join("checkpoints/last.safetensors"))
    };
    let whole = run(&one, "whole");
    assert!(run(&three, "three") == whole, "the number of threads makes a difference");
    assert!(run(&fixed, "fixed") != whole, "no scan was drawn");
    let mut child = start(&three, &folder.path().join("cut"));
    await_checkpoint(&folder.path().join("cut"));
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(run(&three, "cut") == whole, "a resumed run differs");
}

#[test]
fn two_processes_do_not_share_a_run_folder() {
    let folder = tempfile::tempdir().unwrap();
    let config = folder.path().join("config.toml");
    fs::write(&config, CONFIG).unwrap();
    let run = folder.path().join("run");
    let mut first = start(&config, &run);
    await_checkpoint(&run);
    let second = start(&config, &run).wait_with_output().unwrap();
    first.kill().unwrap();
    first.wait().unwrap();
    assert_eq!(second.status.code(), Some(2));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("another process is training in"), "{message}");
}
