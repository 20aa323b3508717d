use std::path::Path;

use image::ImageFormat;
use ophidian_core::{Error, adapter::Adapter, data::Dataset, rng};
use ophidian_vision::Vision;

use crate::common::{error, idx_images, idx_labels, picture, put, says};

fn resolve(text: &str) -> toml::Table {
    Vision.resolve_data(text.parse().unwrap()).unwrap()
}

fn refuses(text: &str, parts: &[&str]) {
    let error = Vision.resolve_data(text.parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Config(_)), "{error}");
    says(&error.to_string(), parts);
}

fn images(folder: &Path, classes: &[(&str, usize)]) {
    for (class, count) in classes {
        for index in 0..*count {
            put(
                folder,
                &format!("{class}/{index}.png"),
                &picture(ImageFormat::Png, 6, 6, [index as u8 * 20, 0, 255]),
            );
        }
    }
}

#[test]
fn resolving_fills_in_every_default_and_is_stable() {
    let shapes = resolve("format = 'shapes'");
    assert_eq!(shapes["image_size"].as_integer(), Some(28));
    assert_eq!(shapes["channels"].as_integer(), Some(1));
    assert_eq!(shapes["class_names"].as_array().unwrap().len(), 10);
    assert_eq!(shapes["mean"].as_array().unwrap().len(), 1);
    assert_eq!(shapes["augment"]["flip"].as_float(), Some(0.0));
    assert_eq!(Vision.resolve_data(shapes.clone()).unwrap(), shapes);

    let rgb = resolve("format = 'shapes'\nimage_size = [16, 24]\nchannels = 3\nmean = [0.4]");
    assert_eq!(rgb["mean"].as_array().unwrap().len(), 3);
    assert_eq!(Vision.open(&rgb).unwrap().train.input_shape(), [3, 16, 24]);

    // Everything that depends on files is given: none is looked for.
    let absent = "format = 'idx'\npath = '/nowhere'\nimage_size = 28\nclass_names = ['a', 'b']";
    assert_eq!(resolve(absent)["format"].as_str(), Some("idx"));
    assert!(Vision.open(&resolve(absent)).is_err());
}

#[test]
fn wrong_keys_and_values_are_named() {
    refuses("format = 'shapes'\nimage_sizes = 3", &["`data.image_sizes`", "`data.image_size`"]);
    refuses("format = 'shape'", &["`data.format`", "did you mean \"shapes\"?"]);
    refuses("format = 'shapes'\naugment.flips = 0.5", &["`data.augment.flips`", "`data.augment.flip`"]);
    refuses("format = 'shapes'\naugment.flip = 1.5", &["`data.augment.flip` is 1.5", "0 to 1"]);
    refuses("format = 'shapes'\naugment.mixup = nan", &["`data.augment.mixup` is NaN"]);
    refuses("format = 'shapes'\nimage_size = 0", &["`data.image_size` is 0x0"]);
    refuses("format = 'shapes'\nimage_size = 'large'", &["`data.image_size`", "[height, width]"]);
    refuses("format = 'shapes'\nchannels = 4", &["`data.channels` is 4"]);
    refuses("format = 'shapes'\nstd = [0.0]", &["`data.std`"]);
    refuses("format = 'shapes'\nmean = [0.1, 0.2, 0.3]", &["`data.mean` has 3 values"]);
    refuses("format = 'shapes'\ntrain = 0", &["`data.train` is 0"]);
    refuses("format = 'shapes'\ntrain = -5", &["`data.train`"]);
    refuses("format = 'shapes'\npath = 'x'", &["`data.path`", "reads no files"]);
    refuses("format = 'shapes'\ncoarse = true", &["`data.coarse`"]);
    refuses("", &["missing key `data.path`"]);
    refuses("path = 'x'\nval_fraction = 1.0", &["`data.val_fraction` is 1"]);
    refuses("path = 'x'\nclass_names = ['a', 'a']", &["`data.class_names`", "twice"]);
}

#[test]
fn auto_says_what_it_found() {
    let folder = tempfile::tempdir().unwrap();
    let config = || format!("path = '{}'", folder.path().display()).parse().unwrap();
    says(&error(Vision.resolve_data(config())), &["no data set that is known", "train-images-idx3-ubyte"]);
    images(folder.path(), &[("cat", 1), ("dog", 2)]);
    let found = Vision.resolve_data(config()).unwrap();
    assert_eq!(found["format"].as_str(), Some("folder"));
    assert_eq!(found["class_names"].as_array().unwrap().len(), 2);
    put(folder.path(), "train-images-idx3-ubyte", &idx_images([1, 1, 1], &[0]));
    put(folder.path(), "train-labels-idx1-ubyte", &idx_labels(&[0]));
    says(&error(Vision.resolve_data(config())), &["more than one data set", "\"idx\" or \"folder\""]);
    says(&error(Vision.resolve_data("path = '/nowhere'".parse().unwrap())), &["/nowhere", "does not exist"]);
}

fn names(set: &dyn Dataset) -> Vec<String> {
    (0..set.len()).map(|index| set.name_of(index)).collect()
}

#[test]
fn images_are_held_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    images(folder.path(), &[("cat", 10), ("dog", 10)]);
    let config =
        resolve(&format!("path = '{}'\nval_fraction = 0.2\nimage_size = 4", folder.path().display()));
    let splits = Vision.open(&config).unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (16, 4));
    let held: Vec<i64> = (0..4).map(|index| splits.eval.sample(index, None).unwrap().label).collect();
    assert_eq!(held, [0, 0, 1, 1]);
    let eval = names(splits.eval.as_ref());
    assert!(names(splits.train.as_ref()).iter().all(|name| !eval.contains(name)));
    // A copy elsewhere is split the same way.
    let copy = tempfile::tempdir().unwrap();
    images(copy.path(), &[("cat", 10), ("dog", 10)]);
    let config = resolve(&format!("path = '{}'\nval_fraction = 0.2\nimage_size = 4", copy.path().display()));
    let other = names(Vision.open(&config).unwrap().eval.as_ref());
    let last = |names: &[String]| -> Vec<String> {
        names.iter().map(|name| name.rsplit('/').take(2).collect::<Vec<_>>().join("/")).collect()
    };
    assert_eq!(last(&eval), last(&other));

    images(folder.path(), &[("lone", 1)]);
    let config = resolve(&format!("path = '{}'", folder.path().display()));
    says(&error(Vision.open(&config)), &["too few to hold out", "eval_path"]);
}

#[test]
fn evaluation_may_lie_elsewhere() {
    let (folder, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    images(folder.path(), &[("cat", 3), ("dog", 3)]);
    images(other.path(), &[("test/dog", 2)]);
    let text = |path: &Path| {
        format!("path = '{}'\neval_path = '{}'\nimage_size = 4", path.display(), other.path().display())
    };
    let splits = Vision.open(&resolve(&text(folder.path()))).unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (6, 2));
    assert_eq!(splits.eval.sample(0, None).unwrap().label, 1);
    // A class that training does not know.
    images(other.path(), &[("test/cow", 1)]);
    says(&error(Vision.open(&resolve(&text(folder.path())))), &["class `cow`", "class_names"]);
}

#[test]
fn limits_take_the_same_images_every_time() {
    let config = resolve("format = 'shapes'\ntrain = 500\neval = 100\nlimit_train = 50\nlimit_eval = 1000");
    let splits = Vision.open(&config).unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (50, 100));
    assert_eq!(names(splits.train.as_ref()), names(Vision.open(&config).unwrap().train.as_ref()));
    let classes: std::collections::BTreeSet<i64> =
        (0..50).map(|index| splits.train.sample(index, None).unwrap().label).collect();
    assert!(classes.len() >= 8, "{classes:?}");
}

#[test]
fn inputs_are_normalised_and_pictures_undo_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = put(folder.path(), "x.png", &picture(ImageFormat::Png, 2, 2, [255, 128, 0]));
    let config = resolve(
        "format = 'folder'\npath = '/nowhere'\nimage_size = 2\nclass_names = ['a', 'b']\nmean = [0.5]\nstd = [0.25]",
    );
    let set = Vision.open_inputs(&config, &[&file]).unwrap();
    assert_eq!((set.len(), set.input_shape(), set.classes().len()), (1, vec![3, 2, 2], 2));
    let sample = set.sample(0, None).unwrap();
    assert_eq!(sample.input[0], 2.0);
    assert_eq!(sample.input[8], -2.0);
    let (height, width, rgb) = Vision.picture(&config, &sample.input, &set.input_shape()).unwrap();
    assert_eq!((height, width, rgb), (2, 2, [255, 128, 0].repeat(4)));
    assert!(Vision.picture(&config, &sample.input, &[3, 2]).is_none());
    assert!(Vision.picture(&config, &sample.input[1..], &[3, 2, 2]).is_none());
    assert!(set.sample(1, None).is_err());
}

#[test]
fn grey_pictures_are_shown_as_rgb() {
    let config = resolve("format = 'shapes'\ntrain = 10\neval = 10");
    let splits = Vision.open(&config).unwrap();
    let sample = splits.train.sample(3, None).unwrap();
    let (height, width, rgb) = Vision.picture(&config, &sample.input, &[1, 28, 28]).unwrap();
    assert_eq!((height, width, rgb.len()), (28, 28, 3 * 28 * 28));
    assert!(rgb.chunks(3).all(|pixel| pixel[0] == pixel[1] && pixel[1] == pixel[2]));
}

#[test]
fn augmentation_comes_from_the_stream_alone() {
    let config = resolve(
        "format = 'shapes'\ntrain = 10\neval = 10\naugment = { flip = 0.5, crop_padding = 3, rand_ops = 2, erase = 0.5, resized_crop = 0.3 }",
    );
    let set = Vision.open(&config).unwrap().train;
    let with = |key: u64| set.sample(2, Some(&mut rng::stream(&[key]))).unwrap();
    assert_eq!(with(5), with(5));
    assert_ne!(with(5), with(6));
    assert_eq!(set.sample(2, None).unwrap(), set.sample(2, None).unwrap());
    assert_eq!(with(5).label, 2);
}

#[test]
fn samples_can_be_read_from_many_threads() {
    let set = Vision.open(&resolve("format = 'shapes'\ntrain = 64\neval = 10")).unwrap().train;
    let expected: Vec<_> = (0..64).map(|index| set.sample(index, None).unwrap()).collect();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..64).for_each(|index| assert_eq!(set.sample(index, None).unwrap(), expected[index]))
            });
        }
    });
}

#[test]
fn maps_lie_as_pictures_do() {
    let values: Vec<f32> = (0..12).map(|value| value as f32).collect();
    let laid = Vision.lay_out(&[], &[3, 28, 28], &values, &[3, 4]).unwrap();
    assert_eq!((laid.rows, laid.columns, &laid.values), (3, 4, &values));
    // Three frames of 2 x 2: two above, one below, and nothing beside it.
    let laid = Vision.lay_out(&[], &[3, 6, 28, 28], &values, &[3, 2, 2]).unwrap();
    assert_eq!((laid.rows, laid.columns), (4, 4));
    let shown: Vec<f32> =
        laid.values.iter().map(|value| if value.is_nan() { -1.0 } else { *value }).collect();
    assert_eq!(shown, [0., 1., 4., 5., 2., 3., 6., 7., 8., 9., -1., -1., 10., 11., -1., -1.]);
    assert_eq!(Vision.lay_out(&[], &[3, 28, 28], &values, &[3, 5]), None);
}
