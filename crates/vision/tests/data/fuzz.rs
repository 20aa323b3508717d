//! Arbitrary bytes, truncations and flipped bits: errors, never panics, never memory beyond what the file can hold.

use std::path::Path;

use image::ImageFormat;
use ophidian_vision::{
    pixels,
    source::{Found, archive, cifar, idx},
};
use proptest::prelude::*;

use crate::common::{gz, idx_images, idx_labels, peak, picture, put, tar};

/// Damage to a whole file.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    let len = bytes.len();
    let flips = prop::collection::vec((0..len, 0..8u32), 0..6);
    (flips, 0..=len, any::<bool>()).prop_map(move |(flips, cut, truncate)| {
        let mut bytes = bytes.clone();
        for (at, bit) in flips {
            bytes[at] ^= 1 << bit;
        }
        if truncate {
            bytes.truncate(cut);
        }
        bytes
    })
}

/// Reads everything that can be read.
fn exhaust(found: ophidian_core::Result<Found>) {
    let Ok(found) = found else { return };
    for set in [found.train, found.eval].into_iter().flatten() {
        for (at, label) in &set.items {
            assert!((*label as usize) < found.classes.len());
            if let Ok(image) = set.source.pixels(*at as usize) {
                assert_eq!(image.data.len(), image.height * image.width * image.channels);
            }
        }
    }
}

fn bounded(bound: i64, run: impl FnOnce()) {
    let ((), peak) = peak(run);
    assert!(peak < bound, "{peak} bytes");
}

fn idx_folder(folder: &Path, images: &[u8], labels: &[u8]) {
    put(folder, "train-images-idx3-ubyte", images);
    put(folder, "train-labels-idx1-ubyte", labels);
}

fn archived() -> Vec<u8> {
    let png = picture(ImageFormat::Png, 9, 7, [1, 200, 3]);
    let jpeg = picture(ImageFormat::Jpeg, 9, 7, [1, 200, 3]);
    tar(&[
        ("train/a/1.png", &png),
        ("train/b/2.jpg", &jpeg),
        ("test/b/a-rather-long-name-to-fill-the-header.png", &png),
    ])
}

const MIB: i64 = 1 << 20;

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn idx_of_arbitrary_bytes(images in prop::collection::vec(any::<u8>(), 0..64), labels in prop::collection::vec(any::<u8>(), 0..16)) {
        let folder = tempfile::tempdir().unwrap();
        idx_folder(folder.path(), &images, &labels);
        bounded(MIB, || exhaust(idx::open(folder.path(), &[])));
    }

    #[test]
    fn idx_with_arbitrary_headers(dims in any::<[u32; 3]>(), packed: bool, small: bool) {
        let folder = tempfile::tempdir().unwrap();
        let dims = if small { dims.map(|dim| dim % 5) } else { dims };
        let images = idx_images(dims, &[7; 16]);
        let labels = idx_labels(&[0, 1]);
        if packed { idx_folder(folder.path(), &gz(&images), &gz(&labels)) } else { idx_folder(folder.path(), &images, &labels) }
        bounded(MIB, || exhaust(idx::open(folder.path(), &[])));
    }

    #[test]
    fn damaged_idx(images in damaged(idx_images([3, 2, 2], &[9; 12])), labels in damaged(idx_labels(&[0, 2, 1]))) {
        let folder = tempfile::tempdir().unwrap();
        idx_folder(folder.path(), &images, &labels);
        bounded(MIB, || exhaust(idx::open(folder.path(), &[])));
    }

    #[test]
    fn damaged_gzipped_idx(images in damaged(gz(&idx_images([3, 2, 2], &[9; 12]))), labels in damaged(gz(&idx_labels(&[0, 2, 1])))) {
        let folder = tempfile::tempdir().unwrap();
        idx_folder(folder.path(), &images, &labels);
        bounded(MIB, || exhaust(idx::open(folder.path(), &[])));
    }

    #[test]
    fn damaged_cifar(bytes in damaged([[3u8; 3073], [9; 3073]].concat()), coarse: bool) {
        let folder = tempfile::tempdir().unwrap();
        put(folder.path(), "data_batch_1.bin", &bytes);
        put(folder.path(), "train.bin", &bytes);
        let kind = if coarse { cifar::Kind::Cifar100Coarse } else { cifar::Kind::Cifar10 };
        bounded(MIB, || exhaust(cifar::open(folder.path(), kind, &[])));
    }

    #[test]
    fn damaged_archives(bytes in damaged(archived())) {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), "x.tar", &bytes);
        bounded(300 * MIB, || exhaust(archive::open(&path, &[])));
    }

    #[test]
    fn damaged_gzipped_archives(bytes in damaged(gz(&archived()))) {
        let folder = tempfile::tempdir().unwrap();
        let path = put(folder.path(), "x.tgz", &bytes);
        bounded(300 * MIB, || exhaust(archive::open(&path, &[])));
    }

    #[test]
    fn images_of_arbitrary_bytes(magic in 0..7usize, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let magics: [&[u8]; 7] = [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"GIF89a", b"BM", b"RIFF\x40\0\0\0WEBP", b"II*\0"];
        let bytes = [magics[magic], &bytes].concat();
        bounded(2 * pixels::MAX_DECODED as i64 + 64 * MIB, || drop(pixels::decode(&bytes)));
    }
}

macro_rules! damaged_images {
    ($($name:ident: $format:ident;)*) => {
        proptest! {
            #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
            $(#[test]
            fn $name(bytes in damaged(picture(ImageFormat::$format, 23, 17, [7, 99, 200]))) {
                bounded(2 * pixels::MAX_DECODED as i64 + 64 * MIB, || drop(pixels::decode(&bytes)));
            })*
        }
    };
}

damaged_images! {
    damaged_png: Png;
    damaged_jpeg: Jpeg;
    damaged_bmp: Bmp;
    damaged_gif: Gif;
    damaged_webp: WebP;
    damaged_tiff: Tiff;
}
