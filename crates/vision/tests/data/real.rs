//! The real files, where they are at hand.

use ophidian_core::adapter::Adapter;
use ophidian_vision::{
    Vision,
    config::Data,
    inspect,
    source::{archive, cifar},
};

use crate::common::{error, says, shared};

fn data(text: &str) -> Data {
    Data::read(text.parse().unwrap()).unwrap()
}

fn near(found: &[f64], expected: &[f64], within: f64) {
    assert_eq!(found.len(), expected.len());
    assert!(
        found.iter().zip(expected).all(|(a, b)| (a - b).abs() < within),
        "{found:?}, expected {expected:?}"
    );
}

#[test]
fn fashion_mnist() {
    let Some(path) = shared("data/images/fashion-mnist") else { return };
    let config: toml::Table = format!("path = '{}'", path.display()).parse().unwrap();
    let config = Vision.resolve_data(config).unwrap();
    assert_eq!(config["format"].as_str(), Some("idx"));
    assert_eq!(config["image_size"].as_integer(), Some(28));
    let splits = Vision.open(&config).unwrap();
    assert_eq!((splits.train.len(), splits.eval.len()), (60_000, 10_000));
    assert_eq!(splits.train.input_shape(), [1, 28, 28]);
    let labels = |set: &dyn ophidian_core::data::Dataset| -> Vec<i64> {
        (0..5).map(|index| set.sample(index, None).unwrap().label).collect()
    };
    assert_eq!(labels(splits.train.as_ref()), [9, 0, 0, 3, 0]);
    assert_eq!(labels(splits.eval.as_ref()), [9, 2, 1, 1, 6]);

    let report = inspect::inspect(Data::read(config).unwrap(), false, &|_, _| ()).unwrap();
    assert_eq!(report.splits[0].per_class, [6000; 10]);
    assert_eq!(report.splits[1].per_class, [1000; 10]);
    near(&report.mean, &[0.2860], 5e-5);
    near(&report.std, &[0.3530], 5e-5);
}

#[test]
fn mnist() {
    let Some(path) = shared("data/images/mnist") else { return };
    let report = inspect::inspect(data(&format!("path = '{}'", path.display())), false, &|_, _| ()).unwrap();
    assert_eq!(report.splits[0].per_class, [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]);
    near(&report.mean, &[0.1307], 5e-5);
    near(&report.std, &[0.3081], 5e-5);
}

#[test]
fn cifar10_as_jpeg_in_archives() {
    let Some(path) = shared("data/images/cifar10") else { return };
    says(&error(ophidian_vision::open::detect(&path)), &["more than one data set", "\"cifar10\" or \"tar\""]);
    // The test archive alone, to be quick; its own path says that it is a test split.
    let found = archive::open(&path.join("cifar10-jpg-test.tar.gz"), &[]).unwrap();
    assert_eq!(found.classes, cifar::Kind::Cifar10.classes());
    let eval = found.eval.unwrap();
    assert!(found.train.is_none());
    assert_eq!(eval.items.len(), 10_000);
    for class in 0..10 {
        assert_eq!(eval.items.iter().filter(|item| item.1 == class).count(), 1000);
    }
    let image = eval.source.pixels(1234).unwrap();
    assert_eq!((image.height, image.width, image.channels), (32, 32, 3));
    assert!(eval.source.name_of(1234).ends_with("test/automobile/0234.jpg"), "{}", eval.source.name_of(1234));
}

#[test]
fn cifar10_binary_agrees_with_the_jpegs() {
    let Some(path) = shared("data/images/cifar10") else { return };
    let binary = cifar::open(&path, cifar::Kind::Cifar10, &[]).unwrap();
    let (train, test) = (binary.train.unwrap(), binary.eval.unwrap());
    assert_eq!((train.items.len(), test.items.len()), (1000, 1000));
    assert_eq!(train.items[..5].iter().map(|item| item.1).collect::<Vec<_>>(), [6, 9, 9, 4, 1]);
    let order = std::fs::read(path.join("train_labels_original_order.txt")).unwrap();
    assert!(train.items.iter().zip(&order).all(|(item, digit)| item.1 == u32::from(digit - b'0')));
    // The first test image is the first cat: record and JPEG show the same.
    let jpegs = archive::open(&path.join("cifar10-jpg-test.tar.gz"), &[]).unwrap().eval.unwrap();
    assert_eq!(test.items[0].1, 3);
    let (a, b) = (test.source.pixels(0).unwrap(), jpegs.source.pixels(3000).unwrap());
    let square: u32 = a.data.iter().zip(&b.data).map(|(a, b)| u32::from(a.abs_diff(*b)).pow(2)).sum();
    let rms = (f64::from(square) / a.data.len() as f64).sqrt();
    assert!(rms < 12.0, "root mean square difference {rms}");
}

#[test]
fn cifar10_format_is_given_where_two_are_found() {
    let Some(path) = shared("data/images/cifar10") else { return };
    let report =
        inspect::inspect(data(&format!("format = 'cifar10'\npath = '{}'", path.display())), true, &|_, _| ())
            .unwrap();
    assert_eq!(report.format, "cifar10");
    assert!(report.splits.iter().all(|split| split.problems.is_empty() && split.read == 1000));
    near(&report.mean, &[0.4914, 0.4822, 0.4465], 0.02);
}
