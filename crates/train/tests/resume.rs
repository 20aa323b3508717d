//! A run that is killed at random moments, again and again, ends with the weights of a run that never was.

mod common;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use common::{config, metrics, run, tensors};
use ophidian_core::rng::{Rng, stream};
use ophidian_train::Mode;
use rand::RngExt;

const KILLS: usize = 24;
const RUN: &str = "OPHIDIAN_TEST_RUN";

/// Large enough that writing a checkpoint takes as long as a step or two.
const CONFIG: &str = "seed = 5
[train]
epochs = 10
batch_size = 16
accumulate = 2
ema_decay = 0.99
log_every_steps = 7
checkpoint_every_steps = 3
[data]
train = 800
mix = true
[model]
hidden = 400
dropout = 0.2
";

/// Not a test of its own: the process that is killed. It only runs when told where.
#[test]
fn victim() {
    if let Ok(root) = std::env::var(RUN) {
        run(&config(CONFIG), Path::new(&root), Mode::Resume).unwrap();
    }
}

fn start(root: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture"])
        .env(RUN, root)
        // Threads that wait for each other crawl on a busy machine; the program's own test has them.
        .env("OMP_NUM_THREADS", "1")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// True if a checkpoint is being written.
fn is_writing(root: &Path) -> bool {
    let entries = fs::read_dir(root.join("checkpoints")).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| entry.file_name().to_string_lossy().ends_with(".tmp"))
}

#[test]
fn killed_at_random_moments_it_ends_as_if_never_killed() {
    if std::env::var(RUN).is_ok() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (whole, killed) = (folder.path().join("whole"), folder.path().join("killed"));
    assert!(start(&whole).wait().unwrap().success());

    let mut random = stream(&[11]);
    let (mut kills, mut while_writing) = (0, 0);
    // On a fast machine a run may end before it was killed often enough; then another begins.
    while kills < KILLS {
        loop {
            let mut child = start(&killed);
            if kills < KILLS {
                await_moment(&mut child, &killed, kills, &mut random);
                child.kill().unwrap(); // SIGKILL
            }
            if child.wait().unwrap().success() {
                break;
            }
            kills += 1;
            assert!(kills < 10 * KILLS, "no life of the run comes to its end");
            while_writing += usize::from(is_writing(&killed));
        }
        for name in ["last", "best"] {
            let path = format!("checkpoints/{name}.safetensors");
            assert!(tensors(&killed.join(&path)) == tensors(&whole.join(&path)), "{name} differs");
        }
        assert_eq!(metrics(&killed), metrics(&whole));
        fs::remove_dir_all(&killed).unwrap();
    }
    assert!(while_writing >= 3, "only {while_writing} kills hit the writing of a checkpoint");
}

/// Waits for the moment at which kill `kill` falls. Every third falls at any time, start-up included; before the
/// others the run may write a checkpoint of its own, and half of these fall in the middle of writing the next.
fn await_moment(child: &mut Child, root: &Path, kill: usize, random: &mut Rng) {
    if kill.is_multiple_of(3) {
        std::thread::sleep(Duration::from_millis(random.random_range(0..400)));
        return;
    }
    let checkpoint = root.join("checkpoints/last.safetensors");
    let time = || fs::metadata(&checkpoint).and_then(|found| found.modified()).ok();
    let mut ended = || child.try_wait().unwrap().is_some();
    let before = time();
    while time() == before && !ended() {
        std::thread::sleep(Duration::from_millis(1));
    }
    std::thread::sleep(Duration::from_millis(random.random_range(0..40)));
    while kill.is_multiple_of(2) && !is_writing(root) && !ended() {
        std::thread::yield_now();
    }
}
