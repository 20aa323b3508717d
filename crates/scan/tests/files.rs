//! Index files: what is written reads back, what is broken is named.

use std::path::Path;

use ophidian_scan::{Blank, Error, Geometry, Order, Pattern, Plan};
use proptest::prelude::*;

fn read_back(plan: &Plan, name: &str) -> Plan {
    let bytes = plan.encode(Path::new(name)).unwrap();
    Plan::decode(Path::new(name), &bytes, None).unwrap()
}

fn plan(pattern: &str, shape: &str) -> Plan {
    pattern.parse::<Pattern>().unwrap().plan(&shape.parse().unwrap()).unwrap()
}

/// Plans with repeated, missing, blank and silent steps, resets, both kinds of blank, and orders of different lengths.
fn plans() -> impl Strategy<Value = Plan> {
    (1..40usize).prop_flat_map(|tokens| {
        let step = (-1..tokens as i32, (any::<bool>(), any::<bool>()));
        let order = (prop::collection::vec(step, 1..30), any::<bool>()).prop_map(move |(steps, skip)| {
            let (index, marks): (Vec<i32>, Vec<(bool, bool)>) = steps.into_iter().unzip();
            let (resets, silent) = marks.into_iter().unzip();
            let order = Order::new(index, tokens).unwrap().with_resets(resets).unwrap();
            let order = order.with_silent(silent).unwrap();
            if skip { order.with_blank(Blank::Skip) } else { order }
        });
        prop::collection::vec(order, 1..12).prop_map(|orders| Plan::new(orders).unwrap())
    })
}

proptest! {
    #[test]
    fn json_and_safetensors_hold_every_plan(plan in plans()) {
        prop_assert_eq!(&read_back(&plan, "p.json"), &plan);
        prop_assert_eq!(&read_back(&plan, "p.safetensors"), &plan);
        let value = serde_json::to_value(&plan).unwrap();
        prop_assert_eq!(&serde_json::from_value::<Plan>(value).unwrap(), &plan);
    }

    #[test]
    fn npy_holds_plain_plans_and_refuses_others(plan in plans()) {
        let path = Path::new("p.npy");
        let steps = plan.orders()[0].len();
        let plain = plan.orders().iter().all(|order| {
            order.len() == steps
                && !order.resets().contains(&true)
                && !order.silent().contains(&true)
                && (order.blank() == Blank::Zero || order.blanks() == 0)
        });
        match plan.encode(path) {
            Ok(bytes) => {
                prop_assert!(plain);
                let again = Plan::decode(path, &bytes, Some(plan.tokens())).unwrap();
                let index = |plan: &Plan| plan.orders().iter().map(|o| o.index().to_vec()).collect::<Vec<_>>();
                prop_assert_eq!(index(&again), index(&plan));
                prop_assert_eq!(again.tokens(), plan.tokens());
            }
            Err(error) => {
                prop_assert!(!plain);
                prop_assert!(error.is_usage() && error.to_string().contains(".json or .safetensors"), "{}", error);
            }
        }
    }

    #[test]
    fn a_broken_file_is_an_error(
        plan in plans(), ending in 0..3usize, cut in 0.0..1.0f64, flips in prop::collection::vec((any::<u16>(), any::<u8>()), 0..4),
    ) {
        let path = Path::new(["p.json", "p.npy", "p.safetensors"][ending]);
        let Ok(mut bytes) = plan.encode(path) else { return Ok(()) };
        let cut_short = (bytes.len() as f64 * cut) as usize;
        prop_assert!(Plan::decode(path, &bytes[..cut_short.min(bytes.len() - 2)], None).is_err());
        for (at, byte) in flips {
            let at = at as usize % bytes.len();
            bytes[at] = byte;
        }
        // Whatever it says now, it is a plan within bounds or an error.
        if let Ok(plan) = Plan::decode(path, &bytes, None) {
            prop_assert!(plan.orders().iter().all(|order| order.validate().is_ok()));
        }
    }

    #[test]
    fn any_bytes_are_an_error_or_a_plan(bytes in prop::collection::vec(any::<u8>(), 0..200), ending in 0..3usize) {
        let path = Path::new(["p.json", "p.npy", "p.safetensors"][ending]);
        if let Err(error) = Plan::decode(path, &bytes, None) {
            prop_assert!(matches!(error, Error::File { .. }), "{}", error);
        }
    }
}

/// A npy file as numpy writes it.
fn npy(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    [bytes.as_slice(), header.as_bytes(), data].concat()
}

fn le<const N: usize, T: Copy>(values: &[T], bytes: impl Fn(T) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| bytes(value)).collect()
}

#[test]
fn json_is_laid_out_for_people() {
    let bytes = plan("window(2, 2, reset=true) | blanks(skip)", "1x3").encode(Path::new("p.json")).unwrap();
    let text = "{\n  \"tokens\": 3,\n  \"order.0\": [0,1,-1,-1,2,-1,-1,-1],\n  \"resets.0\": [4],\n  \"blank.0\": \"skip\"\n}\n";
    assert_eq!(String::from_utf8(bytes).unwrap(), text);
}

#[test]
fn npy_is_what_numpy_writes() {
    let bytes = plan("bidirectional", "2").encode(Path::new("p.npy")).unwrap();
    assert_eq!(bytes.len(), 128 + 4 * 8);
    assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
    let header = std::str::from_utf8(&bytes[10..128]).unwrap();
    assert_eq!(header.trim_end(), "{'descr': '<i8', 'fortran_order': False, 'shape': (2, 2), }");
    assert!(header.ends_with(" \n"));
    assert_eq!(&bytes[128..], le(&[0i64, 1, 1, 0], i64::to_le_bytes));
}

#[test]
fn files_written_by_hand() {
    let json = |text: &str| Plan::decode(Path::new("p.json"), text.as_bytes(), None).unwrap();
    assert_eq!(json("[2, 0, 1]").orders()[0].index(), [2, 0, 1]);
    assert_eq!(json("[[2, 0, 1], [0, -1]]").directions(), 2);
    assert_eq!(json(r#"{"order.1": [1], "order.0": [0, 4]}"#).tokens(), 5);
    let tokens = Plan::decode(Path::new("p.json"), b"[0, 1]", Some(9)).unwrap().tokens();
    assert_eq!(tokens, 9);

    let read = |bytes: &[u8]| Plan::decode(Path::new("p.npy"), bytes, None).unwrap();
    let one = npy(
        "{'descr': '<i4', 'fortran_order': False, 'shape': (3,), }\n",
        &le(&[2, 0, -1], i32::to_le_bytes),
    );
    assert_eq!(read(&one).orders()[0].index(), [2, 0, -1]);
    let two = npy(
        "{'descr': '<i8', 'fortran_order': True, 'shape': (2, 3), }\n",
        &le(&[0i64, 3, 1, 4, 2, 5], i64::to_le_bytes),
    );
    assert_eq!(read(&two).orders()[1].index(), [3, 4, 5]);
}

#[test]
fn what_is_wrong_with_a_file_is_said() {
    let big = le(&[0i64], i64::to_le_bytes);
    let descr = |descr: &str, shape: &str| {
        format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n")
    };
    for (name, bytes, expected) in [
        ("p.json", b"{}".to_vec(), "it holds no order.0"),
        ("p.json", b"[]".to_vec(), "it holds no order.0"),
        ("p.json", b"[0, 1".to_vec(), "is not an index file in JSON: EOF"),
        ("p.json", b"[0, 1.5]".to_vec(), "invalid type: floating point"),
        ("p.json", b"[0, [1]]".to_vec(), "invalid type: sequence"),
        ("p.json", b"\"row\"".to_vec(), "expected an object of order.0"),
        (
            "p.json",
            br#"{"order.0": [0], "order.2": [0]}"#.to_vec(),
            "the last one order.2: one before it is missing",
        ),
        ("p.json", br#"{"order.0": [0], "order.0": [0]}"#.to_vec(), "`order.0` stands there twice"),
        ("p.json", br#"{"oder.0": [0]}"#.to_vec(), "unknown key `oder.0`"),
        ("p.json", br#"{"order.00": [0]}"#.to_vec(), "unknown key `order.00`"),
        ("p.json", br#"{"order.9999": [0]}"#.to_vec(), "one direction too many"),
        ("p.json", br#"{"order.0": [0], "resets.1": [0]}"#.to_vec(), "there is no order.1"),
        (
            "p.json",
            br#"{"order.0": [0], "resets.0": [1]}"#.to_vec(),
            "resets.0 names step 1, but order.0 has 1 steps",
        ),
        (
            "p.json",
            br#"{"order.0": [0, 1], "order.1": [0, 7], "tokens": 3}"#.to_vec(),
            "order.1[1] is 7, but 3 tokens",
        ),
        ("p.json", b"[0, -2]".to_vec(), "order.0[1] is -2"),
        ("p.json", b"[0, 9000000000000000000]".to_vec(), "order.0[1] is 9000000000000000000"),
        ("p.json", br#"{"order.0": [0], "tokens": 9000000000000000000}"#.to_vec(), "too large"),
        ("p.npy", b"\x93NUMPX".to_vec(), "is not a npy file"),
        ("p.npy", npy(&descr("<f4", "(1, 1)"), &big), "its entries are `<f4`, expected int64"),
        ("p.npy", npy(&descr("<i8", "(1, 2)"), &big), "its shape [1, 2] does not fit its 8 bytes"),
        ("p.npy", npy(&descr("<i8", "(1, 1, 1)"), &big), "expected (T,) or (K, T)"),
        ("p.npy", npy(&descr("<i8", "(99999999999, 99999999999)"), &big), "does not fit"),
        ("p.npy", npy(&descr("<i8", "(0, 5)"), &[]), "no entries"),
        ("p.npy", npy(&descr("<i8", "(99999999, 0)"), &[]), "no entries"),
        ("p.npy", npy("{}\n", &big), "its header names no descr"),
        ("p.safetensors", vec![255; 64], "is not a whole safetensors file"),
    ] {
        let error = Plan::decode(Path::new(name), &bytes, None).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with(name) && message.contains(expected), "{message} (expected {expected})");
        assert!(!error.is_usage());
    }
}

#[test]
fn other_endings_are_refused() {
    for name in ["p.txt", "p", ".json", "p.npz"] {
        let error = plan("row", "3").encode(Path::new(name)).unwrap_err();
        assert!(error.to_string().contains(".json, .npy or .safetensors") && error.is_usage());
    }
}

#[test]
fn a_file_is_a_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let cross = plan("cross", "3x4");
    for name in ["o.json", "o.npy", "o.safetensors"] {
        let path = folder.path().join(name);
        std::fs::write(&path, cross.encode(&path).unwrap()).unwrap();
        let pattern: Pattern = path.display().to_string().parse().unwrap();
        let shape = Geometry::Grid2 { height: 3, width: 4 };
        assert_eq!(pattern.plan(&shape).unwrap(), cross);
        let reversed: Pattern = format!("file(\"{}\") | reverse", path.display()).parse().unwrap();
        assert_eq!(reversed.plan(&shape).unwrap(), cross.reversed());

        let error = pattern.plan(&Geometry::Grid2 { height: 3, width: 3 }).unwrap_err().to_string();
        let expected =
            if name == "o.npy" { "order.0[9] is 9, but 9 tokens" } else { "over 12 tokens, expected 9" };
        assert!(error.contains(name) && error.contains(expected), "{error}");
    }
    let missing = folder.path().join("missing.json").display().to_string();
    let error = missing.parse::<Pattern>().unwrap().plan(&Geometry::Sequence { len: 3 }).unwrap_err();
    assert!(matches!(error, Error::Io { .. }) && error.to_string().contains("missing.json"));
}
