//! Whole runs on small data.

mod common;

use std::{fs, path::Path};

use common::{Blobs, config, metrics, run, run_crashing, tensors};
use ophidian_train::{Checkpoint, Ending, Error, Mode, measure};
use tempfile::tempdir;

const QUICK: &str = "[train]\nepochs = 3\nbatch_size = 16\nlog_every_steps = 4\nlearning_rate = 0.01\n";

fn fails(text: &str) -> String {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    run(&config(text), &root, Mode::New).unwrap_err().to_string()
}

#[test]
fn a_run_learns_and_leaves_a_whole_folder() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    let config = config(
        "seed = 7\n[train]\nepochs = 12\nbatch_size = 16\nlog_every_steps = 4\nlearning_rate = 0.01\nema_decay = 0.9\nkeep_every_epochs = 6\n[data]\nmix = true\n",
    );
    let outcome = run(&config, &root, Mode::New).unwrap();
    assert_eq!(outcome.ending, Ending::Finished);
    assert_eq!((outcome.state.step, outcome.state.updates), (72, 72));
    let best = outcome.state.best.unwrap();
    assert!(best.accuracy > 0.9, "{best:?}");

    for name in ["config.toml", "environment.json", "curves.png", "confusion.png"] {
        assert!(root.join(name).metadata().unwrap().len() > 100, "{name}");
    }
    for name in ["last", "best", "epoch-0006", "epoch-0012"] {
        assert!(root.join(format!("checkpoints/{name}.safetensors")).is_file(), "{name}");
    }
    let lines = metrics(&root);
    let kinds = |kind: &str| lines.iter().filter(|line| line["kind"] == kind).count();
    assert_eq!([kinds("step"), kinds("epoch"), kinds("eval"), kinds("ema")], [18, 12, 12, 12]);
    let saved: ophidian_train::Config =
        toml::from_str(&fs::read_to_string(root.join("config.toml")).unwrap()).unwrap();
    assert_eq!(saved, config);

    // The best checkpoint alone gives the measurement that made it the best.
    let path = root.join("checkpoints/best.safetensors");
    let checkpoint = Checkpoint::read(&path).unwrap();
    let (_vs, model) = checkpoint.model(&Blobs, tch::Device::Cpu).unwrap();
    let splits = ophidian_core::adapter::Adapter::open(&Blobs, &config.data).unwrap();
    let reading = measure::Reading::of(&config.train, tch::Device::Cpu);
    let found = measure::measure(&*model, &splits.eval, 3, &reading, |_| {}).unwrap().unwrap();
    assert_eq!((found.accuracy, found.loss), (best.accuracy, best.loss));
    assert_eq!(found.per_class().iter().map(|class| class.0).sum::<u64>(), 48);
}

#[test]
fn equal_seeds_give_equal_runs_and_workers_change_nothing() {
    let folder = tempdir().unwrap();
    let last = |name: &str, text: &str| {
        let root = folder.path().join(name);
        run(&config(text), &root, Mode::New).unwrap();
        tensors(&root.join("checkpoints/last.safetensors"))
    };
    let first = last("a", QUICK);
    assert_eq!(last("b", &format!("{QUICK}workers = 3\nprefetch = 1\n")), first);
    assert_ne!(last("c", &format!("seed = 1\n{QUICK}")), first);
}

#[test]
fn a_run_cut_at_any_batch_resumes_to_the_bit() {
    let folder = tempdir().unwrap();
    let text = |more: &str| {
        format!(
            "{more}\n[train]\nepochs = 3\nbatch_size = 16\naccumulate = 4\nema_decay = 0.9\nlog_every_steps = 2\ncheckpoint_every_steps = 2\n[data]\nmix = true\ntrain = 150\n"
        )
    };
    let whole = folder.path().join("whole");
    run(&config(&text("")), &whole, Mode::New).unwrap();
    let expected = tensors(&whole.join("checkpoints/last.safetensors"));
    let expected_best = tensors(&whole.join("checkpoints/best.safetensors"));
    let expected_metrics = metrics(&whole);
    assert_eq!(expected_metrics.last().unwrap()["step"], 9);
    for forward in (1..=30).step_by(2).chain([2, 30]) {
        let root = folder.path().join(format!("cut-{forward}"));
        let error = run_crashing(&config(&text("")), &root, forward).unwrap_err();
        assert_eq!(error.to_string(), "crashed as told");
        let outcome = run(&config(&text("")), &root, Mode::Resume).unwrap();
        assert_eq!(outcome.ending, Ending::Finished);
        assert_eq!(tensors(&root.join("checkpoints/last.safetensors")), expected, "cut at {forward}");
        assert_eq!(tensors(&root.join("checkpoints/best.safetensors")), expected_best, "cut at {forward}");
        assert_eq!(metrics(&root), expected_metrics, "cut at {forward}");
    }
    // A run that is done has nothing to do.
    let outcome = run(&config(&text("")), &whole, Mode::Resume).unwrap();
    assert_eq!((outcome.ending, outcome.state.step), (Ending::Finished, 9));
    assert_eq!(metrics(&whole), expected_metrics);
}

#[test]
fn accumulation_equals_a_large_batch() {
    let folder = tempdir().unwrap();
    let last = |name: &str, batches: &str| {
        let root = folder.path().join(name);
        let text = format!("[train]\nepochs = 2\n{batches}\n[model]\ndropout = 0.0\n[data]\ntrain = 90\n");
        run(&config(&text), &root, Mode::New).unwrap();
        ophidian_core::tensors::read(&root.join("checkpoints/last.safetensors")).unwrap()
    };
    let (large, small) = (last("large", "batch_size = 32"), last("small", "batch_size = 8\naccumulate = 4"));
    for (name, tensor) in large.iter().filter(|(name, _)| name.starts_with("model.")) {
        assert!(tensor.allclose(&small[name], 1e-3, 1e-5, false), "{name}");
    }
}

#[test]
fn early_stop_and_steps_end_a_run() {
    let folder = tempdir().unwrap();
    let config =
        config("[train]\nepochs = 50\nbatch_size = 32\nearly_stop_epochs = 3\nlearning_rate = 0.01\n");
    let root = folder.path().join("early");
    let outcome = run(&config, &root, Mode::New).unwrap();
    assert_eq!(outcome.ending, Ending::StoppedEarly);
    assert_eq!(outcome.state.epochs_done, outcome.state.best.unwrap().epoch + 3);
    assert_eq!(run(&config, &root, Mode::Resume).unwrap().state, outcome.state);

    let outcome =
        run(&common::config(&format!("{QUICK}max_steps = 8\n")), &folder.path().join("steps"), Mode::New)
            .unwrap();
    assert_eq!((outcome.state.step, outcome.state.epochs_done), (8, 2));
}

#[test]
fn seconds_of_training_end_a_run_and_are_kept_when_it_resumes() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    let text = |seconds: f64| {
        format!(
            "[train]\nbatch_size = 8\neval_every_epochs = 1000000\nwarmup_epochs = 0\nmax_seconds = {seconds}\nlog_every_steps = 1\n"
        )
    };
    let outcome = run(&config(&text(0.3)), &root, Mode::New).unwrap();
    assert_eq!((outcome.ending, outcome.steps), (Ending::Finished, Some(outcome.state.step)));
    // To the closest step, but any may be slow on a busy machine.
    let last = metrics(&root).iter().filter(|line| line["kind"] == "step").count() as u64;
    assert_eq!(last, outcome.state.step);
    let each = outcome.state.training_seconds / outcome.state.step as f64;
    assert!(outcome.state.training_seconds + 0.5 * each >= 0.3, "{:?}", outcome.state);
    // However its last epoch ends, it is measured; and the learning rate has come down.
    assert!(outcome.state.best.is_some());
    let rates: Vec<f64> = metrics(&root).iter().filter_map(|line| line["learning_rate"].as_f64()).collect();
    assert!(rates[0] == 1e-3 && rates.windows(2).all(|pair| pair[1] <= pair[0]), "{rates:?}");
    let summary: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(root.join("summary.json")).unwrap()).unwrap();
    assert_eq!(summary["max_seconds"], 0.3);
    assert_eq!(summary["training_seconds"].as_f64(), Some(outcome.state.training_seconds));
    // Done is done.
    assert_eq!(run(&config(&text(0.3)), &root, Mode::Resume).unwrap().state, outcome.state);
}

#[test]
fn bf16_learns_too() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    let text = "[train]\nepochs = 12\nbatch_size = 16\nlearning_rate = 0.01\nprecision = 'bf16'\n";
    let outcome = run(&config(text), &root, Mode::New).unwrap();
    assert!(outcome.state.best.unwrap().accuracy > 0.9);
    let checkpoint = ophidian_core::tensors::read(&root.join("checkpoints/last.safetensors")).unwrap();
    assert!(checkpoint.values().all(|tensor| tensor.kind() == tch::Kind::Float));
}

#[test]
fn a_non_finite_loss_stops_with_the_place_and_the_cause() {
    let message = fails(&format!("{QUICK}[data]\npoison = [40]\n"));
    assert!(message.starts_with("step "), "{message}");
    for part in [
        "(epoch 1, learning rate ",
        "the loss is NaN",
        "first gradient that is not finite: `first.",
        "likely cause: the input train #40 holds values that are not finite",
        "train.on_non_finite=skip",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_non_finite_loss_is_skipped_and_counted_and_the_weights_stay_finite() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    let text = format!("{QUICK}on_non_finite = 'skip'\n[data]\npoison = [40]\n");
    let outcome = run(&config(&text), &root, Mode::New).unwrap();
    assert_eq!((outcome.state.skipped_steps, outcome.state.step, outcome.state.updates), (3, 18, 15));
    // Reading a checkpoint refuses values that are not finite.
    let path = root.join("checkpoints/last.safetensors");
    Checkpoint::read(&path).unwrap().model(&Blobs, tch::Device::Cpu).unwrap();

    let everything = (0..96).map(|index| index.to_string()).collect::<Vec<_>>().join(",");
    let message =
        fails(
            &format!("{QUICK}epochs = 9\non_non_finite = 'skip'\n[data]\npoison = [{everything}]\n")
                .replacen("epochs = 3\n", "", 1),
        );
    assert!(message.starts_with("25 steps in a row were skipped"), "{message}");
}

#[test]
fn a_corrupt_example_stops_or_is_skipped_and_counted() {
    assert_eq!(fails(&format!("{QUICK}[data]\ncorrupt = [5]\n")), "train #5: is corrupt");
    let folder = tempdir().unwrap();
    let text = format!("{QUICK}on_corrupt = 'skip'\n[data]\ncorrupt = [5, 6]\n");
    let outcome = run(&config(&text), &folder.path().join("run"), Mode::New).unwrap();
    assert_eq!(outcome.state.corrupt_samples, 6);
}

#[test]
fn impossible_requests_are_refused_before_any_work() {
    assert!(fails("[train]\nbatch_size = 97\n").contains("there are only 96 examples to train on"));
    assert_eq!(fails("[data]\ntrain = 0\n"), "there is no example to train on");
    assert!(fails("[data]\neval = 0\n").contains("the eval split is empty"));
    assert!(fails("[data]\nclasses = 1\n").contains("expected at least 2"));
}

#[test]
fn a_resumed_run_must_be_the_same_run() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    run(&config(QUICK), &root, Mode::New).unwrap();
    let error =
        run(&config(&format!("seed = 3\n{QUICK}weight_decay = 0.5\n")), &root, Mode::Resume).unwrap_err();
    assert!(error.is_usage());
    let message = error.to_string();
    assert!(message.contains("`seed`: the run has 0, asked for 3"), "{message}");
    assert!(message.contains("`train.weight_decay`: the run has 0.05, asked for 0.5"), "{message}");
    assert!(run(&config(QUICK), &root, Mode::New).unwrap_err().to_string().contains("--force"));
    // What does not enter the arithmetic may change.
    run(&config(&format!("{QUICK}workers = 2\n")), &root, Mode::Resume).unwrap();
    run(&config(&format!("seed = 3\n{QUICK}")), &root, Mode::Force).unwrap();
}

#[test]
fn a_checkpoint_of_another_model_lists_all_that_differs() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    run(&config(QUICK), &root, Mode::New).unwrap();
    let path = root.join("checkpoints/last.safetensors");
    let (mut tensors, mut metadata) = ophidian_core::tensors::read_with_metadata(&path).unwrap();
    tensors.remove("model.head.bias");
    tensors.insert("model.extra".to_owned(), tch::Tensor::from_slice(&[1.0f32]));
    tensors.insert("model.first.bias".to_owned(), tch::Tensor::from_slice(&[1.0f32]));
    let nan = tensors["model.second.bias"].zeros_like() / 0.0;
    tensors.insert("model.second.bias".to_owned(), nan);
    ophidian_core::tensors::write_with_metadata(&path, &tensors, metadata.clone()).unwrap();
    let reason = |path: &Path| match Checkpoint::read(path)
        .and_then(|read| read.model(&Blobs, tch::Device::Cpu).map(|_| ()))
    {
        Err(Error::Checkpoint { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    let found = reason(&path);
    for part in [
        "`model.head.bias` [3] is missing",
        "`model.first.bias` is [1] Float, expected [16] Float",
        "`model.second.bias` holds values that are not finite",
        "`model.extra` [1] is not part of the model",
    ] {
        assert!(found.contains(part), "{part}: {found}");
    }
    metadata.insert("state".to_owned(), "{}".to_owned());
    ophidian_core::tensors::write_with_metadata(&path, &tensors, metadata.clone()).unwrap();
    assert!(reason(&path).contains("damaged metadata: `state`"));
    metadata.remove("format");
    ophidian_core::tensors::write_with_metadata(&path, &tensors, metadata).unwrap();
    assert!(reason(&path).contains("is not a checkpoint of a run"));
}

#[test]
fn damaged_checkpoints_are_errors_never_panics() {
    let folder = tempdir().unwrap();
    let root = folder.path().join("run");
    run(
        &config(&format!("{QUICK}[model]\nhidden = 3\n").replace("epochs = 3", "epochs = 1")),
        &root,
        Mode::New,
    )
    .unwrap();
    let whole = fs::read(root.join("checkpoints/last.safetensors")).unwrap();
    let header = u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let path = root.join("checkpoints/damaged.safetensors");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        Checkpoint::read(&path).and_then(|checkpoint| checkpoint.model(&Blobs, tch::Device::Cpu).map(|_| ()))
    };
    let _turn = common::turn();
    read(&whole).unwrap();
    for length in (0..whole.len()).step_by(whole.len() / 60) {
        assert!(read(&whole[..length]).is_err(), "{length}");
    }
    // Flips in the header; some only change a name or a number and are read as what they then say.
    let mut random = ophidian_core::rng::stream(&[1]);
    for _ in 0..400 {
        let mut bytes = whole.clone();
        let at = rand::RngExt::random_range(&mut random, 0..8 + header);
        bytes[at] ^= 1 << rand::RngExt::random_range(&mut random, 0..8u32);
        let _ = read(&bytes);
    }
    // A header that claims more than there is.
    let mut bytes = whole.clone();
    bytes[..8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(read(&bytes).is_err());
}

#[test]
fn a_folder_that_cannot_be_written_is_an_error() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let error = run(&config(QUICK), &file.path().join("run"), Mode::New).unwrap_err();
    assert!(error.to_string().contains("cannot be made"), "{error}");
    let error = run(&config(QUICK), file.path(), Mode::New).unwrap_err();
    assert!(error.to_string().contains("expected a folder"), "{error}");
}
