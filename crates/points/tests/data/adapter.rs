//! The adapter from a `[data]` table to samples, and what is refused before training starts.

use std::path::Path;

use ophidian_core::{adapter::Adapter, data::Dataset, rng};
use ophidian_points::{PointClouds, cards, config::Format};

use crate::common::{TETRAHEDRON, error, gz, line, put, recording, says};

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// The table `text` with `path`.
fn at(path: &Path, text: &str) -> toml::Table {
    let mut table = table(text);
    table.insert("path".into(), path.to_str().unwrap().into());
    table
}

const SMALL: &str = "points = 16\ngroups = 4\ngroup_size = 3\npool = 64\nval_fraction = 0.3\n";

fn open(path: &Path, text: &str) -> ophidian_core::Result<ophidian_core::adapter::Splits> {
    let data = PointClouds.resolve_data(at(path, &format!("{SMALL}{text}")))?;
    PointClouds.open(&data)
}

#[test]
fn modelnet_folders_and_folders_of_clouds() {
    let dir = tempfile::tempdir().unwrap();
    for class in ["chair", "bed"] {
        put(dir.path(), &format!("{class}/train/{class}_1.off"), TETRAHEDRON.as_bytes());
        put(dir.path(), &format!("{class}/train/{class}_2.xyz"), line(30).as_bytes());
        put(dir.path(), &format!("{class}/test/{class}_3.off.gz"), &gz(TETRAHEDRON.as_bytes()));
        put(dir.path(), &format!("{class}/.DS_Store"), b"junk");
        put(dir.path(), &format!("{class}/readme.md"), b"junk");
    }
    let splits = open(dir.path(), "").unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (4, 2));
    assert_eq!(splits.train.classes(), ["bed", "chair"]);
    assert_eq!(splits.train.input_shape(), [4, 4, 3]);
    let sample = splits.train.sample(2, Some(&mut rng::stream(&[1]))).unwrap();
    assert_eq!((sample.input.len(), sample.label), (48, 1));
    assert!(splits.train.name_of(2).contains("chair_1.off"));
    // split/class/file, and no split at all.
    let other = tempfile::tempdir().unwrap();
    for i in 0..5 {
        put(other.path(), &format!("data/Train/a/{i}.xyz"), line(20).as_bytes());
        put(other.path(), &format!("data/Test/a/{i}.xyz"), line(20).as_bytes());
    }
    let splits = open(other.path(), "").unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (5, 5));
    let held = open(&other.path().join("data/Train"), "").unwrap();
    assert_eq!((held.train.len(), held.eval.len()), (3, 2));
}

#[test]
fn evaluation_is_the_same_every_time_and_training_is_not() {
    let splits = PointClouds
        .open(
            &PointClouds
                .resolve_data(table(&format!(
                    "{SMALL}train = 20\neval = 10\n[augment]\nrotate = \"any\"\njitter = 0.01"
                )))
                .unwrap(),
        )
        .unwrap();
    let eval = |at| splits.eval.sample(at, None).unwrap();
    assert_eq!(eval(3), eval(3));
    let train = |key| splits.train.sample(3, Some(&mut rng::stream(&[key]))).unwrap();
    assert_eq!(train(1), train(1));
    assert_ne!(train(1), train(2));
    assert!(splits.train.sample(20, None).is_err());
}

#[test]
fn recordings_become_windows_of_steps() {
    let dir = tempfile::tempdir().unwrap();
    for split in ["Train", "Test"] {
        put(dir.path(), &format!("{split}/walk/1.txt.gz"), &gz(recording(10, 3).as_bytes()));
        put(dir.path(), &format!("{split}/jump/2.txt"), recording(8, 4).as_bytes());
    }
    let text = "format = \"frames\"\nnormalise = \"none\"\nfeatures = [\"intensity\"]\nfeature_mean = [10.0]\n\
                feature_std = [2.0]\n[sequence]\nframes = 3\nmerge = 2\nstride = 2";
    let splits = open(dir.path(), text).unwrap();
    // (8 - 6) / 2 + 1 and (10 - 6) / 2 + 1 windows.
    assert_eq!((splits.train.len(), splits.eval.len()), (2 + 3, 5));
    assert_eq!(splits.train.classes(), ["jump", "walk"]);
    assert_eq!(splits.train.input_shape(), [3, 4, 4, 4]);
    let sample = splits.train.sample(3, None).unwrap();
    assert_eq!(sample.label, 1);
    assert!(splits.train.name_of(3).ends_with("1.txt.gz frames 2 to 7"), "{}", splits.train.name_of(3));
    // The centres of the first step lie in frames 2 and 3, those of the last in frames 6 and 7.
    let centres: Vec<&[f32]> = sample.input.chunks_exact(16).map(|group| &group[..4]).collect();
    assert!(centres[..4].iter().all(|centre| centre[0] == 2.0 || centre[0] == 3.0));
    assert!(centres[8..].iter().all(|centre| centre[0] == 6.0 || centre[0] == 7.0));
    for [x, y, _, intensity] in centres.iter().map(|centre| [centre[0], centre[1], centre[2], centre[3]]) {
        assert_eq!(intensity, (10.0 * x + y - 10.0) / 2.0);
    }
    // A recording is held out as a whole.
    let whole = tempfile::tempdir().unwrap();
    for i in 0..4 {
        put(whole.path(), &format!("walk/{i}.txt"), recording(10, 3).as_bytes());
    }
    let splits = open(whole.path(), text).unwrap();
    let names = |set: &dyn Dataset| -> std::collections::BTreeSet<String> {
        (0..set.len()).map(|at| set.name_of(at).split(' ').next().unwrap().to_owned()).collect()
    };
    assert!(names(&*splits.train).is_disjoint(&names(&*splits.eval)));
}

#[test]
fn lists_name_files_and_classes() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..6 {
        put(dir.path(), &format!("a cloud {i}.xyz"), line(20).as_bytes());
    }
    let list = |name: &str, text: &str| put(dir.path(), name, text.as_bytes());
    let train = list("train.txt", "# all\na cloud 0.xyz  cat\na cloud 1.xyz\tdog\na cloud 2.xyz,cat\n\n");
    let eval = list("eval.txt", "a cloud 3.xyz dog\n");
    let text = format!("format = \"list\"\neval_path = \"{}\"", eval.display());
    let splits = open(&train, &text).unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (3, 1));
    assert_eq!(splits.train.classes(), ["cat", "dog"]);
    assert_eq!(splits.eval.sample(0, None).unwrap().label, 1);
    for (lines, words) in [
        ("a.xyz", &["list.txt", "line 1 has no label"][..]),
        ("a cloud 0.xyz cat\nnone.xyz cat\n", &["line 2", "no file", "none.xyz"]),
        ("a cloud 0.stl cat\n", &["line 1", "`a cloud 0.stl` ends in no format"]),
    ] {
        says(&error(open(&list("list.txt", lines), &text)), words);
    }
    let other = list("other.txt", "a cloud 3.xyz cow\n");
    let text = format!("format = \"list\"\neval_path = \"{}\"", other.display());
    says(&error(open(&train, &text)), &["other.txt", "line 1", "`cow` is none of the 2"]);
}

#[test]
fn what_is_wrong_is_said_before_training_starts() {
    let one = |name: &str, bytes: &[u8], text: &str, words: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        for i in 0..3 {
            put(dir.path(), &format!("train/a/{i}.off"), TETRAHEDRON.as_bytes());
            put(dir.path(), &format!("test/a/{i}.off"), TETRAHEDRON.as_bytes());
        }
        put(dir.path(), name, bytes);
        says(&error(open(dir.path(), text)), words);
    };
    one("train/a/x.off", b"OFF\n3 0 0\n0 0 0\n1 0 0\n0 1 0\n", "", &["x.off", "no faces"]);
    one(
        "train/a/x.xyz",
        line(15).as_bytes(),
        "",
        &["x.xyz", "has 15 points, expected at least 16", "`data.short`"],
    );
    one("test/a/x.xyz", b"", "", &["x.xyz", "is empty"]);
    one("train/a/x.xyz", line(20).as_bytes(), "features = [\"4\"]", &["0.off", "is a mesh"]);
    one("train/a/x.txt", recording(3, 3).as_bytes(), "", &["x.txt", "recording", "\"frames\""]);
    one("x.off", TETRAHEDRON.as_bytes(), "", &["x.off", "no folder of a class"]);
    one("b/x.off", TETRAHEDRON.as_bytes(), "", &["x.off", "lies in neither"]);
    one("test/b/x.off", TETRAHEDRON.as_bytes(), "class_names = [\"a\"]", &["x.off", "class `b`"]);
    let gone = tempfile::tempdir().unwrap();
    says(&error(open(gone.path(), "")), &["holds no files that are known"]);
    says(&error(open(&gone.path().join("none"), "")), &["none", "does not exist"]);
    put(gone.path(), "a/1.xyz", line(20).as_bytes());
    says(&error(open(gone.path(), "")), &["1 file(s) of class `a`", "eval_path"]);
    put(gone.path(), "raw.zip", b"PK");
    says(&error(open(gone.path(), "")), &["raw.zip"]);

    let recordings = tempfile::tempdir().unwrap();
    for i in 0..3 {
        put(recordings.path(), &format!("a/{i}.txt"), recording(5, 3).as_bytes());
    }
    let frames = "format = \"frames\"\n";
    let six = "[sequence]\nframes = 3\nmerge = 2";
    says(
        &error(open(recordings.path(), &format!("{frames}{six}"))),
        &[".txt", "has 5 frames, expected at least 6"],
    );
    let short = "short = \"fail\"\n[sequence]\nframes = 2\nmerge = 2";
    says(&error(open(recordings.path(), &format!("{frames}{short}"))), &["6 points in the frames from 0 on"]);
    put(recordings.path(), "a/x.off", TETRAHEDRON.as_bytes());
    says(
        &error(open(recordings.path(), &format!("{frames}[sequence]\nframes = 2\nmerge = 2"))),
        &["x.off", "no recording"],
    );
}

#[test]
fn tables_that_are_wrong_are_named() {
    let dir = tempfile::tempdir().unwrap();
    for (text, words) in [
        ("groups = 17", &["`data.groups` is 17", "`data.points`"][..]),
        ("group_size = 0", &["`data.group_size` is 0"]),
        ("points = 100", &["`data.pool` is 64"]),
        ("format = \"solids\"", &["`data.path`", "reads no files"]),
        ("feature_mean = [1.0]", &["`data.feature_mean`", "0 features"]),
        ("features = [\"a\"]\nfeature_std = [0.0]", &["`data.feature_std`", "above 0"]),
        ("features = [\"a\", \"a\"]", &["\"a\" twice"]),
        ("[sequence]\nframes = 2", &["`data.sequence`", "\"frames\""]),
        ("format = \"frames\"\n[sequence]\nmerge = 0", &["`data.sequence.merge` is 0"]),
        ("[augment]\nscale = [2.0, 1.0]", &["`data.augment.scale`"]),
        ("[augment]\ndropout = 1.0", &["`data.augment.dropout`"]),
        ("[augment]\njiter = 1.0", &["did you mean `data.augment.jitter`?"]),
    ] {
        let mut full = table(SMALL);
        full.extend(table(text));
        full.insert("path".into(), dir.path().to_str().unwrap().into());
        says(&error(PointClouds.resolve_data(full)), words);
    }
    says(&error(PointClouds.resolve_data(table("format = \"folder\""))), &["missing key `data.path`"]);
    says(&error(PointClouds.resolve_data(table("class_names = [\"a\"]"))), &["has its own names"]);
}

#[test]
fn short_clouds_may_repeat_points() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..4 {
        put(dir.path(), &format!("a/{i}.xyz"), line(2).as_bytes());
    }
    for choose in ["random", "farthest", "first"] {
        let splits = open(dir.path(), &format!("short = \"repeat\"\nchoose = \"{choose}\"")).unwrap();
        let sample = splits.train.sample(0, None).unwrap();
        assert!(sample.input.iter().all(|x| x.is_finite()));
        assert_eq!(sample.input.len(), 48);
    }
}

#[test]
fn inputs_without_labels_and_pictures() {
    let dir = tempfile::tempdir().unwrap();
    let mesh = put(dir.path(), "in/one.off", TETRAHEDRON.as_bytes());
    let data = PointClouds.resolve_data(table(SMALL)).unwrap();
    let folder = dir.path().join("in");
    for inputs in [&mesh, &folder] {
        let set = PointClouds.open_inputs(&data, &[inputs]).unwrap();
        assert_eq!(set.len(), 1);
        assert!(set.name_of(0).ends_with("one.off"));
        let sample = set.sample(0, None).unwrap();
        let (height, width, pixels) = PointClouds.picture(&data, &sample.input, &set.input_shape()).unwrap();
        assert_eq!(pixels.len() as u32, height * width * 3);
        assert!(pixels.iter().any(|byte| *byte < 100) && pixels.contains(&255));
    }
    says(
        &error(PointClouds.open_inputs(&data, &[&dir.path().join("two.off")])),
        &["two.off", "does not exist"],
    );
    // A sequence is a picture of small ones, row by row; one place is no trouble.
    let (height, width, _) = PointClouds.picture(&data, &[0.0; 3 * 4 * 4 * 3], &[3, 4, 4, 3]).unwrap();
    assert_eq!((height, width), (168, 168));
    assert!(PointClouds.reading(&[3, 4, 4, 3]).unwrap().starts_with("3 time steps"));
    assert_eq!(PointClouds.reading(&[4, 4, 3]), None);
    let frames = [-1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0, 0.0, 0.0];
    let laid = PointClouds.lay_out(&frames, &[3, 1, 1, 3], &[1.0, 2.0, 3.0], &[3]).unwrap();
    let middle = |value: f32| {
        let cells = laid.values.iter().enumerate().filter(|(_, cell)| **cell == value);
        let places: Vec<[usize; 2]> = cells.map(|(at, _)| [at / laid.columns, at % laid.columns]).collect();
        [0, 1].map(|axis| places.iter().map(|place| place[axis]).sum::<usize>() / places.len())
    };
    let [first, second, third] = [1.0, 2.0, 3.0].map(middle);
    assert!(first[0] < 84 && first[1] < 42 && second[0] < 84 && (126..168).contains(&second[1]));
    assert_eq!(third, [second[0] + 84, second[1] - 84], "the same place in the next row");
    let (height, width) = (128, 128);
    assert!(PointClouds.picture(&data, &[0.0; 7], &[4, 4, 3]).is_none());
    // A map over groups lies on their centres, seen from the same side: here the second is to the right of the first.
    let input = [-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let laid = PointClouds.lay_out(&input, &[2, 2, 3], &[0.25, 0.75], &[2]).unwrap();
    assert_eq!((laid.rows as u32, laid.columns as u32), (height, width));
    let columns = |value: f32| {
        let cells = laid.values.iter().enumerate().filter(move |(_, cell)| **cell == value);
        cells.map(|(cell, _)| cell % laid.columns).collect::<Vec<_>>()
    };
    let (first, second) = (columns(0.25), columns(0.75));
    assert_eq!((first.len(), second.len()), (49, 49));
    assert!(first.iter().max() < second.iter().min());
    assert!(laid.values.iter().filter(|cell| cell.is_nan()).count() == laid.values.len() - 98);
    assert_eq!(PointClouds.lay_out(&input, &[2, 2, 3], &[0.25], &[1]), None);
}

#[test]
fn numbers_that_are_too_large_for_the_model_are_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for i in 0..4 {
        put(dir.path(), &format!("a/{i}.xyz"), b"3e38 0 0\n-3e38 0 1\n");
    }
    let open = |normalise: &str| {
        let text = format!(
            "points = 2\ngroups = 1\ngroup_size = 2\nval_fraction = 0.3\nnormalise = \"{normalise}\""
        );
        PointClouds.open(&PointClouds.resolve_data(at(dir.path(), &text)).unwrap()).unwrap()
    };
    says(&error(open("none").train.sample(0, None)), &[".xyz", "too large", "`data.normalise`"]);
    assert!(open("sphere").train.sample(0, None).is_ok());
}

#[test]
fn cards_read_and_their_formats_are_known() {
    let cards = cards::all().unwrap();
    assert!(cards.iter().any(|card| card.name == "radhar" && card.format == Format::Frames.name()));
    let solids = cards.iter().find(|card| card.name == "solids").unwrap();
    assert_eq!(solids.classes, ophidian_points::solids::CLASSES);
    for card in &cards {
        assert!(!card.what.is_empty() && !card.licence.is_empty());
        assert!(card.files.iter().all(|file| file.sha256.len() == 64 && file.bytes > 0));
        assert_eq!(card.files.is_empty(), card.sources.is_empty());
    }
}
