use image::ImageFormat;
use ophidian_vision::source::archive;

use crate::common::{error, gz, peak, picture, put, says, tar, zip};

#[test]
fn plain_and_gzipped_archives_read_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let (red, blue) =
        (picture(ImageFormat::Png, 2, 3, [255, 0, 0]), picture(ImageFormat::Png, 2, 3, [0, 0, 255]));
    let entries: [(&str, &[u8]); 5] = [
        ("set/train/red/1.png", &red),
        ("set/train/blue/1.png", &blue),
        ("set/test/red/2.png", &red),
        ("set/README.txt", b"hello"),
        ("__MACOSX/set/train/red/._1.png", b"junk"),
    ];
    let bytes = tar(&entries);
    put(folder.path(), "a.tar", &bytes);
    put(folder.path(), "b.tar.gz", &gz(&bytes));
    put(folder.path(), "c.tgz", &gz(&bytes));
    put(folder.path(), "d.zip", &zip(&entries, false));
    put(folder.path(), "e.zip", &zip(&entries, true));
    for name in ["a.tar", "b.tar.gz", "c.tgz", "d.zip", "e.zip"] {
        let found = archive::open(&folder.path().join(name), &[]).unwrap();
        assert_eq!(found.classes, ["blue", "red"]);
        let (train, eval) = (found.train.unwrap(), found.eval.unwrap());
        assert_eq!(train.items, [(0, 1), (1, 0)]);
        assert_eq!(eval.items, [(2, 1)]);
        assert_eq!(train.source.pixels(1).unwrap().data[..3], [0, 0, 255]);
        assert!(train.source.name_of(1).ends_with(&format!("{name}/set/train/blue/1.png")));
    }
}

#[test]
fn archives_in_a_folder_are_splits_by_their_names() {
    let folder = tempfile::tempdir().unwrap();
    let png = picture(ImageFormat::Png, 1, 1, [0; 3]);
    put(folder.path(), "pets-train-0.tar", &tar(&[("cat/1.png", &png)]));
    put(folder.path(), "pets-train-1.tar.gz", &gz(&tar(&[("dog/1.png", &png)])));
    put(folder.path(), "pets-test.zip", &zip(&[("dog/2.png", &png)], false));
    let found = archive::open(folder.path(), &[]).unwrap();
    assert_eq!(found.train.unwrap().items, [(1, 0), (2, 1)]);
    assert_eq!(found.eval.unwrap().items, [(0, 1)]);
}

#[test]
fn faults_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let png = picture(ImageFormat::Png, 40, 40, [7, 8, 9]);
    let good = tar(&[("a/1.png", &png), ("a/2.png", &png)]);
    let open = |name: &str, bytes: &[u8]| {
        let path = put(folder.path(), name, bytes);
        error(archive::open(&path, &[]).and_then(|found| found.train.unwrap().source.pixels(1)))
    };
    let second = 512 + png.len().next_multiple_of(512);
    for cut in [second + 600, second + 512 + 1, second + 200] {
        says(&open("cut.tar", &good[..cut]), &["cut.tar"]);
    }
    says(&open("cut.tar", &good[..second]), &["cut.tar", "truncated: no end mark"]);
    let packed = gz(&good);
    says(&open("cut.tar.gz", &packed[..packed.len() - 20]), &["cut.tar.gz", "no whole tar archive"]);
    let mut flipped = packed.clone();
    let end = flipped.len() - 6;
    flipped[end] ^= 1;
    says(&open("flipped.tar.gz", &flipped), &["flipped.tar.gz", "no whole tar archive"]);
    says(&open("empty.tar", b""), &["empty"]);
    says(&open("text.tar", &[b'x'; 700]), &["text.tar", "no whole tar archive"]);
    says(&open("none.tar", &tar(&[("a.txt", b"x")])), &["holds no images"]);
    says(&open("flat.tar", &tar(&[("1.png", &png)])), &["`1.png` lies in no class folder"]);
    says(&error(archive::open(&folder.path().join("absent.tar"), &[])), &["absent.tar"]);
}

#[test]
fn hostile_entries_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let craft = |path: &str, size: u64, kind: tar::EntryType| {
        let mut header = tar::Header::new_gnu();
        let name = &mut header.as_old_mut().name;
        name[..path.len()].copy_from_slice(path.as_bytes());
        header.set_entry_type(kind);
        header.set_size(size);
        header.as_gnu_mut().unwrap().set_real_size(1 << 40);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(2048, 0);
        bytes
    };
    let cases = [
        ("../../etc/a.png", 4, tar::EntryType::Regular, "points outside the archive"),
        ("/etc/a.png", 4, tar::EntryType::Regular, "points outside the archive"),
        ("a/1.png", u64::MAX / 2, tar::EntryType::Regular, "claims 9223372036854775807 bytes"),
        ("a/1.png", 1 << 33, tar::EntryType::Regular, "claims 8589934592 bytes"),
        ("a/1.png", 1 << 27, tar::EntryType::Regular, "truncated"),
        ("a/1.png", 4, tar::EntryType::GNUSparse, "sparse"),
    ];
    for (path, size, kind, message) in cases {
        for packed in [false, true] {
            let bytes = craft(path, size, kind);
            let (name, bytes) = if packed { ("x.tar.gz", gz(&bytes)) } else { ("x.tar", bytes) };
            let file = put(folder.path(), name, &bytes);
            let (result, peak) = peak(|| archive::open(&file, &[]).map(|_| ()));
            let found = error(result);
            says(&found, &[name, message]);
            assert!(peak < 2 << 20, "{peak} bytes for {path} of {size}");
        }
    }
}

#[test]
fn gzip_bombs_are_stopped() {
    let folder = tempfile::tempdir().unwrap();
    // 192 MiB of zeros in an entry that would be skipped.
    let zeros = vec![0u8; 96 << 20];
    let bomb = gz(&tar(&[("a/zeros.bin", &zeros), ("a/more.bin", &zeros)]));
    drop(zeros);
    let path = put(folder.path(), "bomb.tar.gz", &bomb);
    let (result, peak) = peak(|| archive::open(&path, &[]).map(|_| ()));
    says(&error(result), &["bomb.tar.gz", "unpacks to more than"]);
    assert!(peak < 2 << 20, "{peak} bytes");
}

#[test]
fn faults_of_zips_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let png = picture(ImageFormat::Png, 40, 40, [7, 8, 9]);
    let open = |name: &str, bytes: &[u8]| {
        let path = put(folder.path(), name, bytes);
        let (result, peak) = peak(|| {
            archive::open(&path, &[]).and_then(|found| found.train.unwrap().source.pixels(0)).map(|_| ())
        });
        assert!(peak < 4 << 20, "{name}: {peak} bytes");
        error(result)
    };
    for deflated in [false, true] {
        let good = zip(&[("a/1.png", &png), ("a/2.png", &png)], deflated);
        for cut in [4, good.len() / 2, good.len() - 1] {
            says(&open("cut.zip", &good[..cut]), &["cut.zip"]);
        }
        let mut flipped = good.clone();
        flipped[37 + 60] ^= 1; // within the first image
        says(&open("flipped.zip", &flipped), &["flipped.zip", "a/1.png"]);
        for hostile in ["../a/1.png", "/a/1.png"] {
            says(&open("out.zip", &zip(&[(hostile, &png)], deflated)), &["points outside the archive"]);
        }
        // What the directory at the end says, every byte of it changed once: an error or an image, nothing worse.
        let start = good.windows(4).position(|magic| magic == b"PK\x01\x02").unwrap();
        for at in start..good.len() {
            let mut changed = good.clone();
            changed[at] ^= 0xff;
            let path = put(folder.path(), "changed.zip", &changed);
            let (_, peak) = peak(|| {
                archive::open(&path, &[]).and_then(|found| found.train.unwrap().source.pixels(0)).map(|_| ())
            });
            assert!(peak < 2 << 20, "{peak} bytes with byte {at} changed");
        }
    }
    says(&open("none.zip", &zip(&[], false)), &["none.zip"]);
    // A megabyte of zeros that says it is an image is inflated no further than it says.
    let zeros = zip(&[("a/1.png", &vec![0; 1 << 20])], true);
    says(&open("zeros.zip", &zeros), &["a/1.png"]);
}
