//! Scans whose order features choose: made-up ones, those of a file, those of the authors.

use std::path::Path;

use safetensors::{Dtype, SafeTensors};

use crate::{complaint, floats, integers, path, read, said, scan, tensors};

/// What features choose is drawn for made-up ones, which the title says, and follows a file's own in a round trip.
#[test]
fn scans_that_features_choose() {
    let folder = tempfile::tempdir().unwrap();
    for (name, shape) in [
        ("grootv/treescan", "6x8"),
        ("grootl/block", "20"),
        ("defmamba/deform_path", "6x8"),
        ("mambairv2/semantic_sort", "6x8"),
    ] {
        let shown = said(&["show", name, "--shape", shape]);
        assert!(shown.contains(name) && shown.contains("made-up smooth features"), "{shown}");
        assert_eq!(shown, said(&["show", name, "--shape", shape]), "the same every time");
        let file = path(&folder, "order.json");
        said(&["export", name, "--shape", shape, "--output", &file]);
        said(&["stats", &file, name, "--shape", shape]);
    }
    let (input, output) = (path(&folder, "x.safetensors"), path(&folder, "y.safetensors"));
    let x: Vec<f32> = (0..2 * 3 * 6).map(|i| (i * 7 % 11) as f32).collect();
    tensors(&input, &[("x", Dtype::F32, &[2, 3, 2, 3], floats(&x))]);
    said(&["roundtrip", "grootv/treescan", "--input", &input, "--output", &output]);
    assert_eq!(read(&output, "merged"), (x.clone(), vec![2, 3, 2, 3]));
    assert_eq!(read(&output, "scanned.0").0[0], x[0], "the root comes first");
    let wrong = complaint(1, &["roundtrip", "mambairv2/semantic_sort", "--input", &input]);
    assert!(wrong.contains("x.safetensors") && wrong.contains("`label`"), "{wrong}");
    let wrong = complaint(1, &["roundtrip", "defmamba/deform_path", "--input", &input]);
    assert!(wrong.contains("x.safetensors") && wrong.contains("`rpe_table`"), "{wrong}");
}

/// Features of a file choose in the place of made-up ones, sample by sample, and so do weights and classes beside them.
#[test]
fn features_of_a_file_choose() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (path(&folder, "f.safetensors"), path(&folder, "o.safetensors"));
    let wave = |i: usize| ((i * i * 7 + 3 * i) % 23) as f32 / 7.0;
    let x: Vec<f32> = (0..2 * 3 * 20).map(wave).collect();
    let label: Vec<i64> = (0..40).map(|i| (i * 5 % 7) % 3).collect();
    tensors(
        &input,
        &[("x", Dtype::F32, &[2, 3, 4, 5], floats(&x)), ("label", Dtype::I64, &[2, 20], integers(&label))],
    );
    let visits = |name: &str, sample: &str| {
        said(&["export", name, "--features", &input, "--sample", sample, "--output", &output]);
        let bytes = std::fs::read(&output).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let order = file.tensor("order.0").unwrap();
        let order = order.data().chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()));
        let order: Vec<i64> = order.collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..20).collect::<Vec<_>>(), "{name}: every token once");
        order
    };
    for name in ["grootv/treescan", "defmamba/deform_path", "mambairv2/semantic_sort"] {
        let first = visits(name, "0");
        assert_ne!(first, visits(name, "1"), "{name}: another sample");
        let shown = said(&["show", name, "--features", &input]);
        assert!(shown.contains(&format!("of {input}")) || shown.contains(&format!("in {input}")), "{shown}");
        assert!(!shown.contains("made-up"), "{shown}");
        said(&["stats", name, "row", "--features", &input]);
    }
    // By class, and within a class as they lie.
    let mut wanted: Vec<i64> = (0..20).collect();
    wanted.sort_by_key(|&token| label[20 + token as usize]);
    assert_eq!(visits("mambairv2/semantic_sort", "1"), wanted);
    // The tree hangs from the first token, and a round trip walks it alike.
    let tree = visits("grootv/treescan", "1");
    said(&["roundtrip", "grootv/treescan", "--input", &input, "--output", &output]);
    let bytes = std::fs::read(&output).unwrap();
    let index = SafeTensors::deserialize(&bytes).unwrap().tensor("index").unwrap().data()[20 * 8..].to_vec();
    let index: Vec<i64> = index.chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap())).collect();
    assert_eq!((tree[0], tree), (0, index));
    // What reads no features says so.
    let run = scan(&["show", "row", "--features", &input]);
    assert!(String::from_utf8(run.stderr).unwrap().contains("row: the same whatever the features are"));

    let line = path(&folder, "line.safetensors");
    tensors(&line, &[("x", Dtype::F32, &[1, 6, 20], floats(&x))]);
    assert!(said(&["show", "grootl/block", "--features", &line]).contains("the tree of the features of"));
    let mut odd = x.clone();
    odd[25] = f32::NAN;
    odd[119] = f32::INFINITY;
    let bad = path(&folder, "bad.safetensors");
    for (tensor, arguments, told) in [
        (
            ("x", Dtype::F32, &[2, 3, 4, 5][..], floats(&odd)),
            vec![],
            "holds 2 values that are not finite, the first at [0, 1, 1, 0]",
        ),
        (
            ("y", Dtype::F32, &[2, 3, 4, 5], floats(&x)),
            vec![],
            "the tensor `x` of features is missing; it holds y",
        ),
        (
            ("x", Dtype::F32, &[24, 5], floats(&x)),
            vec![],
            "`x` is Float [24, 5], expected floats (batch, channels",
        ),
        (("x", Dtype::I64, &[2, 2, 2, 5], integers(&label)), vec![], "`x` is Int64 [2, 2, 2, 5]"),
        (("x", Dtype::F32, &[2, 3, 4, 5], floats(&x)), vec!["--sample", "2"], "there is no sample 2"),
        (("x", Dtype::F32, &[2, 0, 4, 5], vec![]), vec![], "none of them 0"),
    ] {
        tensors(&bad, &[tensor]);
        let told_by =
            complaint(1, &[&["stats", "grootv/treescan", "--features", &bad][..], &arguments].concat());
        assert!(told_by.contains("bad.safetensors") && told_by.contains(told), "{told_by}");
    }
    let wrong = complaint(2, &["show", "grootv/treescan", "--features", &line]);
    assert!(wrong.contains("`grootv/treescan` is over a grid"), "{wrong}");
    let twice = complaint(2, &["show", "grootv/treescan", "--features", &line, "--shape", "4x5"]);
    assert!(twice.contains("--shape") && twice.contains("--features"), "{twice}");
    assert!(complaint(2, &["show", "row", "--shape", "4", "--sample", "1"]).contains("--features"));
    tensors(
        &bad,
        &[
            ("x", Dtype::F32, &[2, 3, 4, 5], floats(&x)),
            ("param.rpe_table", Dtype::F32, &[1], floats(&[0.0])),
        ],
    );
    let wrong = complaint(1, &["show", "defmamba/deform_path", "--features", &bad]);
    assert!(wrong.contains("bad.safetensors") && wrong.contains("`rpe_table`"), "{wrong}");
    let labelled: Vec<i64> = vec![0; 38];
    tensors(
        &bad,
        &[("x", Dtype::F32, &[2, 3, 4, 5], floats(&x)), ("label", Dtype::I64, &[2, 19], integers(&labelled))],
    );
    let wrong = complaint(1, &["show", "mambairv2/semantic_sort", "--features", &bad]);
    assert!(wrong.contains("`label` has shape [1, 19]"), "{wrong}");
}

/// The authors' own trees, sample by sample: siblings stand in the order of their edges.
#[test]
fn features_of_a_golden_choose_its_authors_tree() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").unwrap_or_else(|_| beside.into());
    let folder = tempfile::tempdir().unwrap();
    let output = path(&folder, "order.safetensors");
    let integers = |path: &str, name: &str| {
        let bytes = std::fs::read(path).unwrap();
        let view = SafeTensors::deserialize(&bytes).unwrap();
        let view = view.tensor(name).unwrap();
        let all = view.data().chunks_exact(8).map(|c| i64::from_le_bytes(c.try_into().unwrap()));
        all.collect::<Vec<_>>()
    };
    for shape in ["3x3", "4x5", "6x6"] {
        let golden = format!("{shared}/golden/scan/grootv_treescan_{shape}.safetensors");
        if !Path::new(&golden).is_file() {
            let _ = std::io::Write::write_fmt(
                &mut std::io::stderr(),
                format_args!("SKIPPED: no golden at {golden}\n"),
            );
            return;
        }
        let theirs = integers(&golden, "sorted_index");
        for (sample, theirs) in theirs.chunks(theirs.len() / 2).enumerate() {
            let sample = sample.to_string();
            said(&[
                "export",
                "grootv/treescan",
                "--features",
                &golden,
                "--sample",
                &sample,
                "--output",
                &output,
            ]);
            assert_eq!(integers(&output, "order.0"), theirs, "{golden}, sample {sample}");
        }
    }
}
