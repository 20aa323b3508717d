//! Sounds through the program: a published model, a run on made-up sounds, labels for files.
#![allow(clippy::print_stderr)] // a test that is skipped says so

use std::{
    fs,
    path::PathBuf,
    process::{Command, Output},
};

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

fn fails(arguments: &[&str], code: i32, parts: &[&str]) {
    let output = ophidian(arguments);
    let said = text(&output.stderr);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
    assert!(parts.iter().all(|part| said.contains(part)), "{said}");
}

/// A WAV file of 16-bit samples, mono, 8 kHz.
fn wav(samples: &[i16]) -> Vec<u8> {
    let data: Vec<u8> = samples.iter().flat_map(|sample| sample.to_le_bytes()).collect();
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data.len() as u32).to_le_bytes());
    bytes.extend(b"WAVEfmt ");
    for word in [16u32, 0x0001_0001, 8000, 16_000, 0x0010_0002] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(b"data");
    bytes.extend((data.len() as u32).to_le_bytes());
    bytes.extend(data);
    bytes
}

fn configs() -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs"))
}

#[test]
fn made_up_sounds_train_evaluate_and_label_files() {
    let folder = tempfile::tempdir().unwrap();
    let (config, run) = (configs().join("audio-tones.toml"), folder.path().join("run"));
    let (config, run) = (config.to_str().unwrap(), run.to_str().unwrap());
    let small = ["data.train=64", "data.eval=32", "train.epochs=1", "model.d_model=16", "model.depth=1"];
    let mut arguments = vec!["train", config, "--output", run];
    small.iter().for_each(|set| arguments.extend(["--set", set]));
    assert!(succeeds(&arguments).contains("best accuracy "));
    let report = folder.path().join("report");
    let said = succeeds(&["eval", run, "--output", report.to_str().unwrap()]);
    assert!(said.contains("vibrato") && said.contains("recall"), "{said}");
    assert!(report.join("misclassified.png").is_file(), "pictures of spectrograms");

    let clips = folder.path().join("clips");
    fs::create_dir(&clips).unwrap();
    let tone: Vec<i16> = (0..6000).map(|i| (8000.0 * (f64::from(i) * 0.3).sin()) as i16).collect();
    fs::write(clips.join("a.wav"), wav(&tone)).unwrap();
    fs::write(clips.join("short.wav"), wav(&tone[..50])).unwrap();
    let clips = clips.to_str().unwrap();
    let found = succeeds(&["predict", run, clips, "--skip-corrupt"]);
    assert!(found.lines().count() == 1 && found.contains("a.wav\t") && found.contains('%'), "{found}");
    fails(&["predict", run, clips], 1, &["short.wav", "shorter than a frame"]);
}

#[test]
fn wrong_sounds_and_configs_say_so_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let run = folder.path().join("run");
    let config = configs().join("audio.toml");
    let path = |name: &str| format!("data.path={}", folder.path().join(name).display());
    let train = |sets: &[&str], code: i32, parts: &[&str]| {
        let mut arguments = vec!["train", config.to_str().unwrap(), "--output", run.to_str().unwrap()];
        sets.iter().for_each(|set| arguments.extend(["--set", set]));
        fails(&arguments, code, parts);
        assert!(!run.exists() || fs::read_dir(&run).unwrap().count() == 0, "nothing was begun");
    };
    train(&[&path("absent")], 1, &["absent", "does not exist"]);
    train(&["model.patch_size=[7, 6]"], 2, &["`model.patch_size`", "an input of 40", "`data.fbank.mels`"]);
    let recordings = folder.path().join("digits/recordings");
    fs::create_dir_all(&recordings).unwrap();
    for take in 0..10 {
        fs::write(recordings.join(format!("1_x_{take}.wav")), wav(&[100; 900])).unwrap();
    }
    fs::write(recordings.join("2_x_7.wav"), &wav(&[100; 900])[..500]).unwrap();
    train(&[&path("digits")], 1, &["2_x_7.wav", "is cut short"]);
    train(&[&path("digits"), "data.speaker=y"], 2, &["`data.speaker` is \"y\"", "expected one of x"]);
}

#[test]
fn data_commands_know_sounds() {
    let folder = tempfile::tempdir().unwrap();
    let list = succeeds(&["data", "list"]);
    let line = |name: &str| list.lines().find(|line| line.starts_with(name)).unwrap().to_owned();
    assert!(line("fsdd").contains("elsewhere") && line("tones").contains("generated"), "{list}");
    let found = succeeds(&["data", "inspect", "tones", "--set", "data.train=16", "--set", "data.eval=8"]);
    for part in
        ["format      tones", "train       16 clips", "8000 Hz, 1, generated", "seconds", "tremolo", "mean"]
    {
        assert!(found.contains(part), "{part}: {found}");
    }
    let class = folder.path().join("x");
    fs::create_dir(&class).unwrap();
    (0..4).for_each(|clip| fs::write(class.join(format!("{clip}.wav")), wav(&[100; 900])).unwrap());
    fs::write(class.join("bad.wav"), b"RIFF").unwrap();
    let path = folder.path().to_str().unwrap();
    let sets = ["--set", "data.sample_rate=8000", "--set", "data.channels=1"];
    let mut arguments = vec!["data", "inspect", path, "--adapter", "audio", "--check"];
    arguments.extend(sets);
    fails(&arguments, 1, &["1 clips cannot be read"]);
    fails(&["data", "fetch", "fsdd"], 2, &["git clone"]);
}

#[test]
fn audio_mamba_runs_as_published() {
    let listed = succeeds(&["models", "list"]);
    let line = listed.lines().find(|line| line.starts_with("aum_base_fobi ")).unwrap();
    assert!(["92,107,535", "1x128x1024", "2406.03344"].iter().all(|part| line.contains(part)), "{line}");
    let shown = succeeds(&["models", "show", "aum_small_bibi"]);
    for part in ["adapter = \"audio\"", "# parameters: 25,539,215", "mels = 128", "--family aum"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    let model = shared.join("golden/models/aum/a");
    if !model.is_dir() {
        eprintln!("SKIPPED: no goldens at {}", model.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (model.join("golden.safetensors"), folder.path().join("out.safetensors"));
    let [model, input, output] = [&model, &input, &output].map(|path| path.to_str().unwrap());
    let said =
        succeeds(&["forward", "--family", "aum", "--model", model, "--input", input, "--output", output]);
    assert!(said.contains("out.logits [2, 9] Float") && said.contains("grad.*"), "{said}");
}
