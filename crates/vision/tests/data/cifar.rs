use ophidian_vision::source::cifar::{self, Kind};

use crate::common::{error, gz, put, says, tar};

/// A record whose planes are 10, 20 and 30, but for the first pixel: 1, 2, 3.
fn record(labels: &[u8]) -> Vec<u8> {
    let mut record = labels.to_vec();
    for channel in 1..=3u8 {
        record.push(channel);
        record.extend([10 * channel; 1023]);
    }
    record
}

#[test]
fn cifar10_reads_batches_in_order() {
    let folder = tempfile::tempdir().unwrap();
    put(folder.path(), "data_batch_2.bin", &record(&[9]));
    put(folder.path(), "data_batch_1.bin", &[record(&[4]), record(&[0])].concat());
    put(folder.path(), "test_batch.bin", &record(&[3]));
    let found = cifar::open(folder.path(), Kind::Cifar10, &[]).unwrap();
    let train = found.train.unwrap();
    assert_eq!(train.items, [(0, 4), (1, 0), (2, 9)]);
    assert_eq!(found.classes[4], "deer");
    assert_eq!(found.eval.unwrap().items, [(0, 3)]);
    let image = train.source.pixels(2).unwrap();
    assert_eq!((image.height, image.width, image.channels), (32, 32, 3));
    assert_eq!(image.data[..6], [1, 2, 3, 10, 20, 30]);
    assert_eq!(train.source.name_of(1), "data_batch_1.bin #1");
    assert_eq!(train.source.name_of(2), "data_batch_2.bin #0");
}

#[test]
fn the_published_archive_is_read_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let packed = gz(&tar(&[
        ("cifar-100-binary/train.bin", &record(&[19, 99])),
        ("cifar-100-binary/fine_label_names.txt", b"x"),
        ("cifar-100-binary/test.bin", &record(&[2, 7])),
    ]));
    put(folder.path(), "cifar-100-binary.tar.gz", &packed);
    let fine = cifar::open(folder.path(), Kind::Cifar100, &[]).unwrap();
    assert_eq!(fine.train.unwrap().items, [(0, 99)]);
    assert_eq!(fine.classes.len(), 100);
    let coarse =
        cifar::open(&folder.path().join("cifar-100-binary.tar.gz"), Kind::Cifar100Coarse, &[]).unwrap();
    assert_eq!(coarse.eval.unwrap().items, [(0, 2)]);
    assert_eq!(coarse.classes.len(), 20);
}

#[test]
fn faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let open = || error(cifar::open(folder.path(), Kind::Cifar10, &[]));
    says(&open(), &["no CIFAR files", "data_batch_1.bin"]);
    put(folder.path(), "data_batch_1.bin", &record(&[1])[..3000]);
    says(&open(), &["data_batch_1.bin", "has 3000 bytes", "3073"]);
    put(folder.path(), "data_batch_1.bin", b"");
    says(&open(), &["has 0 bytes"]);
    put(folder.path(), "data_batch_1.bin", &[record(&[1]), record(&[10])].concat());
    says(&open(), &["data_batch_1.bin", "label #1 is 10, out of range", "10 classes"]);
    says(&error(cifar::open(&folder.path().join("none"), Kind::Cifar10, &[])), &["does not exist"]);
}
