//! The real data sets, where they are there.

use ophidian_core::{adapter::Adapter, data::Dataset};
use ophidian_points::{PointClouds, config::Data, inspect};

use crate::common::shared;

fn open(path: &std::path::Path, text: &str) -> ophidian_core::adapter::Splits {
    let mut table: toml::Table = text.parse().unwrap();
    table.insert("path".into(), path.to_str().unwrap().into());
    PointClouds.open(&PointClouds.resolve_data(table).unwrap()).unwrap()
}

#[test]
fn geometric_shapes_from_their_zip() {
    let Some(path) = shared("data/pointcloud/geometric-shapes") else { return };
    let splits = open(&path, "points = 256\ngroups = 16\ngroup_size = 8\npool = 512");
    assert_eq!((splits.train.len(), splits.eval.len()), (40, 40));
    assert_eq!(splits.train.classes().len(), 40);
    for at in 0..40 {
        let sample = splits.train.sample(at, None).unwrap();
        assert_eq!(sample.label, at as i64);
        assert!(splits.train.name_of(at).ends_with(&format!("{}.off", splits.train.classes()[at])));
    }
}

#[test]
fn radhar_is_split_by_recording() {
    let Some(path) = shared("data/pointcloud/radhar") else { return };
    let text = "format = \"frames\"\npoints = 64\ngroups = 8\ngroup_size = 8\nfeatures = [\"velocity\", \"intensity\"]";
    let splits = open(&path, text);
    assert_eq!(splits.train.classes(), ["boxing", "jack", "jump", "squats", "walk"]);
    // Windows of 60 frames, stride 10, of 20 + 10 recordings, one of which has exactly 600 frames.
    assert_eq!((splits.train.len(), splits.eval.len()), (1096, 548));
    assert_eq!(splits.train.input_shape(), [12, 8, 9, 5]);
    let all = |set: &dyn Dataset, part: &str| (0..set.len()).all(|at| set.name_of(at).contains(part));
    assert!(all(&*splits.train, "Train/") && all(&*splits.eval, "Test/"));
    assert!(splits.eval.sample(547, None).unwrap().input.iter().all(|x| x.is_finite()));
}

#[test]
fn what_inspection_finds_of_radhar() {
    let Some(path) = shared("data/pointcloud/radhar") else { return };
    let text = "format = \"frames\"\npoints = 64\ngroups = 8\ngroup_size = 8\nfeatures = [\"velocity\", \"intensity\"]";
    let mut table: toml::Table = text.parse().unwrap();
    table.insert("path".into(), path.to_str().unwrap().into());
    let report = inspect::inspect(Data::read(table).unwrap()).unwrap();
    for (split, files) in report.splits.iter().zip(["of 20 files", "of 10 files"]) {
        assert!(split.notes[0].starts_with(files), "{:?}", split.notes);
    }
    assert_eq!(report.splits[0].per_class.iter().sum::<usize>(), report.splits[0].examples);
    for (found, expected) in report.mean.iter().chain(&report.std).zip([-0.0018, 28.501, 0.2659, 3.552]) {
        assert!((found - expected).abs() < 1e-3, "{found} is not {expected}");
    }
}
