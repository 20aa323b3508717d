//! Checkpoints as `torch.save` writes them. `data/checkpoint.pth` was saved by PyTorch 2.11: `{"model": OrderedDict, "args":
//! Namespace, "epoch": 3, "optimizer": AdamW, "best": a numpy number, "long": 2**70}`, names with `module.`.
#![allow(missing_docs)]

use std::io::{Read, Write};

use ophidian_core::tensors;
use proptest::prelude::*;
use tch::{Kind, Tensor};

const SAVED: &[u8] = include_bytes!("data/checkpoint.pth");

fn read(bytes: &[u8]) -> Result<tensors::Tensors, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.pth");
    std::fs::write(&path, bytes).unwrap();
    tensors::read(&path).map_err(|error| error.to_string())
}

fn refused(bytes: &[u8], parts: &[&str]) {
    let error = read(bytes).unwrap_err();
    let found =
        error.contains("x.pth") && parts.iter().all(|part| error.contains(part)) && !error.contains('\n');
    assert!(found && error.len() < 2000, "{error}");
}

/// The pickle of the checkpoint above, and the same zip with another one, or with other bytes of storage 0.
fn pickle() -> Vec<u8> {
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(SAVED)).unwrap();
    let mut bytes = Vec::new();
    archive.by_name("checkpoint/data.pkl").unwrap().read_to_end(&mut bytes).unwrap();
    bytes
}

fn with(pickle: &[u8]) -> Vec<u8> {
    let mut writer = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(SAVED)).unwrap();
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        let name = entry.name().unwrap().into_owned();
        writer.start_file(&*name, options).unwrap();
        writer.write_all(if name.ends_with("data.pkl") { pickle } else { &bytes }).unwrap();
    }
    writer.finish().unwrap().into_inner()
}

/// A protocol-2 pickle of one operation after another.
fn written(parts: &[&[u8]]) -> Vec<u8> {
    with(&[&[0x80, 2], parts.concat().as_slice(), b"."].concat())
}

fn text(text: &str) -> Vec<u8> {
    [b"X", (text.len() as u32).to_le_bytes().as_slice(), text.as_bytes()].concat()
}

/// `_rebuild_tensor_v2` of float storage 0 (6 values).
fn tensor(offset: u8, size: &[u8], stride: &[u8], key: &str, count: u8) -> Vec<u8> {
    let numbers = |values: &[u8]| {
        let inside: Vec<u8> = values.iter().flat_map(|n| [b'K', *n]).collect();
        [b"(", inside.as_slice(), b"t"].concat()
    };
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n((".to_vec(),
        text("storage"),
        b"ctorch\nFloatStorage\n".to_vec(),
        text(key),
        text("cpu"),
        vec![b'K', count, b't', b'Q', b'K', offset],
        numbers(size),
        numbers(stride),
        vec![0x89, b'}', b't', b'R'],
    ]
    .concat()
}

#[test]
fn what_pytorch_saved_is_read() {
    let found = read(SAVED).unwrap();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    let all = ["brain", "count", "double", "empty", "flag", "half", "parameter", "part", "plain", "turned"];
    assert_eq!(names, all, "without `module.`, and without what is no tensor");
    let base = Tensor::arange(12, (Kind::Float, tch::Device::Cpu)).reshape([3, 4]);
    assert_eq!(found["plain"], Tensor::arange(6, (Kind::Float, tch::Device::Cpu)).reshape([2, 3]));
    assert_eq!(found["turned"], base.transpose(0, 1));
    assert_eq!(found["part"], base.narrow(0, 1, 2).narrow(1, 1, 2));
    assert_eq!(found["parameter"], Tensor::from_slice(&[1.5f32, -2.0]));
    for (name, kind) in [("half", Kind::Half), ("brain", Kind::BFloat16)] {
        assert_eq!(found[name], Tensor::from_slice(&[0.5f32, 1.0]).to_kind(kind));
        assert_eq!(found[name].kind(), kind);
    }
    assert_eq!((found["double"].double_value(&[]), found["count"].int64_value(&[])), (3.25, 7));
    assert_eq!((found["double"].kind(), found["flag"].kind()), (Kind::Double, Kind::Bool));
    assert_eq!(found["empty"].size(), [0, 3]);
}

#[test]
fn dicts_are_found_where_authors_keep_them() {
    let one = tensor(0, &[2, 3], &[3, 1], "1", 12);
    let flat: Vec<u8> = [b"}".as_slice(), &text("a"), &one, b"s", &text("epoch"), b"K\x01s"].concat();
    for bytes in [
        written(&[&flat]),
        written(&[b"}", &text("state_dict"), &flat, b"s"]),
        written(&[b"}", &text("model_ema"), &flat, b"s"]),
        written(&[b"}", &text("model"), b"}", &text("state_dict"), &flat, b"ss"]),
    ] {
        let found = read(&bytes).unwrap();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["a"]);
        assert_eq!(found["a"].size(), [2, 3]);
    }
    refused(&written(&[&one]), &["no dict of tensors", "one tensor without a name"]);
    refused(&written(&[b"cmine\nNet\n)R"]), &["an object of mine.Net", "state_dict()"]);
    refused(&written(&[b"}", &text("epoch"), b"K\x01s"]), &["no dict of tensors", "it holds epoch"]);
}

#[test]
fn tensors_that_their_bytes_do_not_suffice_for_are_refused() {
    let named = |tensor: Vec<u8>| written(&[b"}", &text("a"), &tensor, b"s"]);
    for (tensor, part) in [
        (tensor(0, &[3, 5], &[5, 1], "1", 12), "size [3, 5]"),
        (tensor(11, &[2], &[1], "1", 12), "offset 11"),
        (tensor(0, &[2], &[200], "1", 12), "stride [200]"),
        (tensor(0, &[2, 2], &[1], "1", 12), "stride [1]"),
        (tensor(0, &[2], &[1], "1", 200), "too few for 200 values"),
        (tensor(0, &[2], &[1], "99", 2), "`data/99` cannot be read"),
        (tensor(0, &[2], &[1], "../version", 2), "cannot be read"),
    ] {
        refused(&named(tensor), &["tensor `a`", part]);
    }
    let object = b"ctorch._utils\n_rebuild_tensor_v2\n)R".to_vec();
    refused(&named(object), &["tensor `a`", "0 values, expected at least 4"]);
    // Many names of the same bytes.
    let mut many = vec![b'}'];
    many.extend(tensor(0, &[12], &[1], "1", 12));
    many.extend(*b"q\x000");
    for i in 0..3000 {
        many.extend([text(&i.to_string()), b"h\x00s".to_vec()].concat());
    }
    refused(&written(&[&many]), &["share bytes"]);
}

#[test]
fn hostile_pickles_are_refused() {
    for (bytes, part) in [
        (vec![b'R'], "the stack is empty"),
        (vec![b'u'], "there is no mark"),
        (vec![b'h', 9], "nothing was kept as 9"),
        (vec![b'X', 255, 255, 255, 255], "4294967295 bytes were expected"),
        ([vec![0x8d], vec![255; 8]].concat(), "bytes were"),
        (vec![b'P'], "0x50 is no opcode"),
        (b"cos".to_vec(), "a line does not end"),
    ] {
        refused(&written(&[&bytes]), &["broken at byte 2", part]);
    }
    refused(&with(&[]), &["broken at byte 0"]);
    // What a malicious file calls is not called.
    refused(&written(&[b"cos\nsystem\n", &text("touch /tmp/never"), b"\x85R"]), &["an object of os.system"]);
    // A dict that holds itself.
    refused(&written(&[b"}q\x00", &text("model"), b"h\x00s"]), &["no dict of tensors"]);
    let dir = tempfile::tempdir().unwrap();
    refused(&SAVED[..SAVED.len() / 2], &["no whole zip"]);
    refused(&[0x80, 0x02, 0x8a, 0x0a, 1, 2, 3], &["before 1.6"]);
    refused(b"PK\x03\x04", &["no whole zip"]);
    assert!(tensors::read(dir.path()).unwrap_err().to_string().contains("is not a regular file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_pickle_is_tensors_or_an_error(
        flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6), cut in 0.5..1.0f64, wild in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut bytes = pickle();
        for (at, byte) in flips {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        let _ = read(&with(&bytes));
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        prop_assert!(read(&with(&bytes)).is_err());
        let _ = read(&written(&[&wild]));
    }

    #[test]
    fn any_zip_is_tensors_or_an_error(flips in prop::collection::vec((any::<u16>(), any::<u8>()), 1..6)) {
        let mut bytes = SAVED.to_vec();
        for (at, byte) in flips {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        let _ = read(&bytes);
    }
}
