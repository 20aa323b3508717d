//! `ophidian explain` on tiny runs: known answers, the files, and what is refused.
#![allow(clippy::print_stderr)] // a test that is skipped says so

use std::{
    ffi::OsStr,
    fmt::Debug,
    fs,
    path::Path,
    process::{Command, Output},
};

use ophidian_core::tensors::{self, Tensors};
use tch::Kind;

const IMAGES: &str = "adapter = 'vision'
[data]
format = 'shapes'
train = 40
eval = 20
image_size = [16, 20]
[model]
patch_size = 4
d_model = 16
depth = 2
d_state = 4
pool = 'mean'
conv = 'none'
[train]
epochs = 1
batch_size = 20
";

fn ophidian(arguments: &[impl AsRef<OsStr> + Debug]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(arguments).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output, then standard error.
fn succeeds(arguments: &[impl AsRef<OsStr> + Debug]) -> [String; 2] {
    let output = ophidian(arguments);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    [text(&output.stdout), text(&output.stderr)]
}

fn fails(arguments: &[impl AsRef<OsStr> + Debug], said: &str) {
    let output = ophidian(arguments);
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{arguments:?}: {error}");
    assert!(error.contains(said), "{arguments:?}: {error}");
}

/// A run of `config` with some keys set otherwise.
fn train(folder: &Path, name: &str, config: &str, set: &[&str]) -> String {
    let (path, run) = (folder.join("config.toml"), folder.join(name));
    fs::write(&path, config).unwrap();
    let run = run.to_str().unwrap().to_owned();
    let set: Vec<String> = set.iter().map(|assignment| format!("--set={assignment}")).collect();
    let mut arguments = vec!["train", path.to_str().unwrap(), "--output", &run];
    arguments.extend(set.iter().map(String::as_str));
    succeeds(&arguments);
    run
}

fn maps(folder: &Path) -> Tensors {
    tensors::read(&folder.join("maps.safetensors")).unwrap()
}

/// Along rows alone a token knows nothing of what comes later; both ways it does. So say the gradient and the scans,
/// which have nothing in common but the model.
#[test]
fn a_causal_scan_sees_nothing_of_what_comes_later() {
    let folder = tempfile::tempdir().unwrap();
    for (scan, both) in [("row", false), ("bidirectional", true)] {
        let run = train(folder.path(), scan, IMAGES, &[&format!("model.scan={scan}")]);
        let out = folder.path().join(format!("{scan}-out"));
        let output = out.to_str().unwrap();
        // Row 1, column 2 of 4 x 5 tokens, whose pixels are rows 4 to 7 and columns 8 to 11.
        let [said, _] = succeeds(&["explain", &run, "--token", "1,2", "--samples", "3", "--output", output]);
        assert!(said.contains("receptive field") && said.contains("mean of 3"), "{said}");
        let maps = maps(&out);
        for name in ["field", "field_mean"] {
            let field = &maps[name];
            assert_eq!(field.size(), [16, 20]);
            assert!((field.sum(Kind::Double).double_value(&[]) - 1.0).abs() < 1e-4);
            let tokens =
                field.reshape([4, 4, 5, 4]).sum_dim_intlist([1i64, 3].as_slice(), false, Kind::Double);
            let sums = Vec::<f64>::try_from(tokens.view([-1])).unwrap();
            assert!(sums[..8].iter().all(|sum| *sum > 0.0), "{name} of {scan}: {sums:?}");
            assert!(sums[8..].iter().all(|sum| (*sum > 0.0) == both), "{name} of {scan}: {sums:?}");
        }
        for layer in 0..2 {
            let forward =
                Vec::<f64>::try_from(maps[&format!("attention.{layer}.0")].view([-1]).to_kind(Kind::Double));
            let forward = forward.unwrap();
            assert!(
                forward[..8].iter().all(|value| *value > 0.0) && forward[8..] == [0.0; 12],
                "{forward:?}"
            );
            let backward = maps.get(&format!("attention.{layer}.1"));
            assert_eq!(backward.is_some(), both);
            let Some(backward) = backward else { continue };
            let backward = Vec::<f64>::try_from(backward.view([-1]).to_kind(Kind::Double)).unwrap();
            assert!(
                backward[7..].iter().all(|value| *value > 0.0) && backward[..7] == [0.0; 7],
                "{backward:?}"
            );
            let sum =
                Vec::<f64>::try_from(maps[&format!("attention.{layer}.2")].view([-1]).to_kind(Kind::Double));
            let close = |(sum, (a, b)): (&f64, (&f64, &f64))| (sum - a - b).abs() <= 1e-6 * sum.abs();
            assert!(sum.unwrap().iter().zip(forward.iter().zip(&backward)).all(close));
        }
        let json: serde_json::Value =
            serde_json::from_str(&fs::read_to_string(out.join("explain.json")).unwrap()).unwrap();
        assert_eq!(json["token"], serde_json::json!({"sizes": [4, 5], "place": 7, "class_token": false}));
        assert_eq!(json["field"].as_array().unwrap().len(), 4);
        assert_eq!(json["layers"][1]["maps"][0]["name"], "direction 1");
        for picture in ["field.png", "attention.png"] {
            let picture = image::open(out.join(picture)).unwrap().to_rgb8();
            let colours: std::collections::BTreeSet<_> = picture.pixels().map(|pixel| pixel.0).collect();
            assert!(colours.len() > 20, "{} colours", colours.len());
        }
        let page = fs::read_to_string(out.join("explain.html")).unwrap();
        for part in
            ["Effective receptive field", "(1, 2) of 4x5", "Layer 2", "mean of 3 samples", "--token 1,2"]
        {
            assert!(page.contains(part), "{part}");
        }
        assert!(
            !page.contains("src=\"http") && !page.contains("<script"),
            "it asks for nothing from outside"
        );
    }
}

#[test]
fn files_samples_and_tokens_are_named_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let run = train(folder.path(), "run", IMAGES, &["model.pool=middle", "model.scan=bidirectional"]);
    let page = folder.path().join("page.html");
    let image = folder.path().join("a picture.png");
    image::GrayImage::from_fn(30, 30, |x, y| image::Luma([(x * 7 + y * 3) as u8])).save(&image).unwrap();
    let (page_path, image_path) = (page.to_str().unwrap(), image.to_str().unwrap());
    let explain = |more: &[&str]| -> Vec<String> {
        ["explain", &run, "--output", page_path].iter().chain(more).map(|text| (*text).to_owned()).collect()
    };
    succeeds(&explain(&["--image", image_path, "--token", "class", "--projections", "1"]));
    let written = fs::read_to_string(&page).unwrap();
    assert!(written.contains("a picture.png") && written.contains("the class token"));
    assert!(!written.contains("It is <b>"), "the class of a file is not known");
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().count(),
        4,
        "the page alone beside config, run and picture"
    );

    for (more, said) in [
        (&["--sample", "20"][..], "the eval split has 20, numbered from 0 to 19"),
        (&["--token", "4,0"], "lie on 4x5, counted from 0"),
        (&["--token", "-1"], "there is no such token"),
        (&["--token", "middle"], "expected centre, class"),
        (&["--image", image_path, "--sample", "1"], "cannot be used with"),
        (&["--projections", "0"], "0 is not in 1.."),
        (&["--family", "vim"], "cannot be used with"),
    ] {
        fails(&explain(more), said);
    }
    fails(&["explain", folder.path().to_str().unwrap()], "is not a run folder");
    let empty = folder.path().join("empty");
    fs::create_dir_all(empty.join("checkpoints")).unwrap();
    fails(&["explain", empty.to_str().unwrap()], "holds no checkpoint `best` yet");
    fails(&["explain"], "required");
    let missing = folder.path().join("none.png");
    let output = ophidian(&explain(&["--image", missing.to_str().unwrap()]));
    assert!(
        !output.status.success() && text(&output.stderr).contains("none.png"),
        "{}",
        text(&output.stderr)
    );
    assert_eq!(fs::read_to_string(&page).unwrap(), written, "what failed left the page alone");
}

#[test]
fn layers_without_a_selective_scan_say_so() {
    let folder = tempfile::tempdir().unwrap();
    let set = [
        "model.depth=[1, 1]",
        "model.d_model=[16, 16]",
        "model.mixer=['mamba1', 'hydra']",
        "model.d_conv=3",
        "model.hydra.headdim=8",
    ];
    let config = IMAGES.replace("conv = 'none'\n", "");
    let run = train(folder.path(), "run", &config, &set);
    let out = folder.path().join("out");
    let [_, said] = succeeds(&["explain", &run, "--output", out.to_str().unwrap()]);
    assert!(
        said.contains("layer 2 has no implicit attention: the quasi-separable matrix of Hydra"),
        "{said}"
    );
    let page = fs::read_to_string(out.join("explain.html")).unwrap();
    assert!(page.contains("No implicit attention: "), "{page}");
    assert!(maps(&out).contains_key("attention.0.0") && !maps(&out).contains_key("attention.1.0"));
}

const CLOUDS: &str = "adapter = 'points'
[data]
train = 20
eval = 10
points = 48
groups = 8
group_size = 6
[model]
d_model = 16
depth = 2
d_state = 4
encoder = [8, 16, 16]
position = 8
head = [16]
join = true
[train]
epochs = 1
batch_size = 10
";

const TONES: &str = "adapter = 'audio'
[data]
format = 'tones'
train = 20
eval = 10
seconds = 0.96
[model]
patch_size = 16
d_model = 16
depth = 1
d_state = 4
[train]
epochs = 1
batch_size = 10
";

/// Sounds and clouds through the same door; places without a grid are one each.
#[test]
fn sounds_and_clouds_are_explained_too() {
    let folder = tempfile::tempdir().unwrap();
    for (name, config) in [("clouds", CLOUDS), ("tones", TONES)] {
        let run = train(folder.path(), name, config, &[]);
        let out = folder.path().join(format!("{name}-out"));
        succeeds(&["explain", &run, "--sample", "2", "--output", out.to_str().unwrap()]);
        for file in ["field.png", "attention.png", "explain.html", "explain.json"] {
            assert!(out.join(file).is_file(), "{name}: {file}");
        }
        if name == "clouds" {
            let maps = maps(&out);
            assert_eq!((maps["field"].size(), maps["attention.1.0"].size()), (vec![8], vec![8]));
            fails(&["explain", &run, "--token", "8"], "the last layer has 8, numbered from 0");
            fails(&["explain", &run, "--token", "1,2"], "has 2 numbers");
            fails(&["explain", &run, "--samples", "2"], "these inputs have no grid");
        }
    }
}

/// A published model's folder, where one is at hand: Vim with a class token in the middle, its ERF wide open.
#[test]
fn a_published_model_is_explained() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), std::path::PathBuf::from);
    let model = shared.join("golden/models/vim/a_midcls_div2");
    if !model.is_dir() {
        eprintln!("SKIPPED: nothing at {}", model.display());
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (image, out) = (folder.path().join("x.png"), folder.path().join("out"));
    image::RgbImage::from_fn(50, 40, |x, y| image::Rgb([x as u8 * 5, y as u8 * 6, 99])).save(&image).unwrap();
    let (model, image) = (model.to_str().unwrap(), image.to_str().unwrap());
    let explain = ["explain", "--family", "vim", "--model", model, "--output", out.to_str().unwrap()];
    succeeds(&[&explain[..], &["--image", image, "--token", "class"]].concat());
    let maps = maps(&out);
    assert!(maps["field"].min().double_value(&[]) > 0.0, "both directions reach everything");
    assert!(maps.contains_key("attention.0.0") && maps.contains_key("attention.0.1"));
    fails(&explain, "--image");
    fails(&["explain", "--family", "vmi", "--model", model, "--image", image], "did you mean `vim`?");
    let mut pointmamba = explain;
    pointmamba[2] = "pointmamba";
    let clouds = shared.join("golden/models/pointmamba/a");
    pointmamba[4] = clouds.to_str().unwrap();
    if clouds.is_dir() {
        fails(&[&pointmamba[..], &["--image", image]].concat(), "do not read images");
    }
}
