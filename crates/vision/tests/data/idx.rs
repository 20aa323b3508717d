use std::path::Path;

use ophidian_vision::source::{Found, idx};

use crate::common::{error, gz, idx_images, idx_labels, peak, put, says};

fn write(folder: &Path, prefix: &str, ending: &str, labels: &[u8]) {
    let data: Vec<u8> = (0..labels.len() * 6).map(|value| value as u8).collect();
    let (mut images, mut labels) = (idx_images([labels.len() as u32, 2, 3], &data), idx_labels(labels));
    if ending == ".gz" {
        (images, labels) = (gz(&images), gz(&labels));
    }
    put(folder, &format!("{prefix}-images-idx3-ubyte{ending}"), &images);
    put(folder, &format!("{prefix}-labels-idx1-ubyte{ending}"), &labels);
}

#[test]
fn plain_and_gzipped_files_read_the_same() {
    for ending in ["", ".gz"] {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), "train", ending, &[3, 0, 1]);
        write(folder.path(), "t10k", ending, &[2]);
        let Found { classes, train, eval, .. } = idx::open(folder.path(), &[]).unwrap();
        assert_eq!(classes, ["0", "1", "2", "3"]);
        let (train, eval) = (train.unwrap(), eval.unwrap());
        assert_eq!(train.items, [(0, 3), (1, 0), (2, 1)]);
        assert_eq!(eval.items, [(0, 2)]);
        let image = train.source.pixels(2).unwrap();
        assert_eq!((image.height, image.width, image.channels), (2, 3, 1));
        assert_eq!(image.data, [12, 13, 14, 15, 16, 17]);
        assert_eq!(train.source.name_of(2), format!("train-images-idx3-ubyte{ending} #2"));
        assert_eq!(idx::size(folder.path()).unwrap(), (2, 3));
        assert!(train.source.pixels(3).is_err());
    }
}

#[test]
fn other_customary_names_are_found() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "emnist-letters-train-images.idx3-ubyte", &idx_images([1, 1, 1], &[7]));
    put(folder.path(), "emnist-letters-train-labels.idx1-ubyte.gz", &gz(&idx_labels(&[0])));
    put(folder.path(), "emnist-letters-test-images.idx3-ubyte", &idx_images([1, 1, 1], &[7]));
    put(folder.path(), "emnist-letters-test-labels.idx1-ubyte", &idx_labels(&[0]));
    let found = idx::open(folder.path(), &["a".into()]).unwrap();
    assert!(found.train.is_some() && found.eval.is_some());
    put(folder.path(), "emnist-digits-train-images.idx3-ubyte", &idx_images([1, 1, 1], &[7]));
    put(folder.path(), "emnist-digits-train-labels.idx1-ubyte", &idx_labels(&[0]));
    says(
        &error(idx::open(folder.path(), &[])),
        &["more than one data set", "emnist-letters", "emnist-digits"],
    );
}

#[test]
fn faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let train = |images: &[u8], labels: &[u8]| {
        put(folder.path(), "train-images-idx3-ubyte", images);
        put(folder.path(), "train-labels-idx1-ubyte", labels);
        error(idx::open(folder.path(), &[]))
    };
    let good = idx_images([2, 1, 2], &[1, 2, 3, 4]);
    let labels = idx_labels(&[0, 1]);
    says(&train(&good[..19], &labels), &["train-images-idx3-ubyte", "truncated", "2x1x2"]);
    says(&train(&[&good[..], &[9]].concat(), &labels), &["goes on after the 4 bytes"]);
    says(&train(&good[..7], &labels), &["header of 16 bytes"]);
    says(&train(&idx_labels(&[0; 20]), &labels), &["is not IDX images", "starts with"]);
    says(&train(&good, &good), &["is not IDX labels"]);
    says(&train(&good, &idx_labels(&[0])), &["has 1 labels", "has 2 images"]);
    says(&train(&idx_images([0, 1, 2], &[]), &labels), &["is empty", "0x1x2"]);
    says(&train(b"", &labels), &["header"]);

    put(folder.path(), "train-images-idx3-ubyte", &good);
    put(folder.path(), "train-labels-idx1-ubyte", &labels);
    says(
        &error(idx::open(folder.path(), &["only".into()])),
        &["train-labels-idx1-ubyte", "label #1 is 1, out of range", "1 classes"],
    );
    std::fs::remove_file(folder.path().join("train-labels-idx1-ubyte")).unwrap();
    says(&error(idx::open(folder.path(), &[])), &["no labels beside it", "train-labels-idx1-ubyte"]);
}

#[test]
fn hostile_headers_allocate_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let huge = idx_images([u32::MAX, u32::MAX, u32::MAX], &[0; 64]);
    let large = idx_images([1 << 12, 1 << 10, 1 << 10], &[0; 64]);
    for (name, bytes) in [("a", huge.clone()), ("b", large.clone()), ("c", gz(&huge)), ("d", gz(&large))] {
        let path = put(folder.path(), name, &bytes);
        let (result, peak) = peak(|| idx::read_images(&path).map(|_| ()));
        says(&error(result), &["truncated or hostile", name]);
        assert!(peak < 1 << 20, "{peak} bytes for a file of {}", bytes.len());
    }
}

#[test]
fn gzip_bombs_are_bounded_by_the_header() {
    let folder = tempfile::tempdir().unwrap();
    // 64 MiB of zeros behind a header that promises 4 bytes.
    let mut bomb = idx_images([1, 2, 2], &[]);
    bomb.resize(64 << 20, 0);
    let path = put(folder.path(), "bomb", &gz(&bomb));
    drop(bomb);
    let (result, peak) = peak(|| idx::read_images(&path).map(|_| ()));
    says(&error(result), &["goes on after the 4 bytes"]);
    assert!(peak < 1 << 20, "{peak} bytes");
}
