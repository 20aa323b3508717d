//! `ophidian scan roundtrip`.

use std::path::Path;

use safetensors::Dtype;

use crate::{complaint, floats, integers, path, read, said, scan, tensors};

#[test]
fn roundtrip_scans_and_merges() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (path(&folder, "x.safetensors"), path(&folder, "y.safetensors"));
    let x: Vec<f32> = (0..2 * 3 * 6).map(|i| i as f32).collect();
    tensors(&input, &[("x", Dtype::F32, &[2, 3, 2, 3], floats(&x))]);
    said(&["roundtrip", "vmamba/cross2d", "--input", &input, "--output", &output]);
    let (scanned, shape) = read(&output, "scanned.1");
    assert_eq!(shape, [2, 3, 6]);
    assert_eq!(scanned[..6], [0.0, 3.0, 1.0, 4.0, 2.0, 5.0]);
    let (merged, shape) = read(&output, "merged");
    assert_eq!(shape, [2, 3, 2, 3]);
    assert_eq!(merged, x.iter().map(|x| 4.0 * x).collect::<Vec<_>>());

    // Padding is 0, and other merges give x back.
    said(&["roundtrip", "localmamba/w2", "--input", &input, "--output", &output]);
    assert_eq!(read(&output, "scanned.0").0[..8], [0.0, 1.0, 3.0, 4.0, 2.0, 0.0, 5.0, 0.0]);
    for name in
        ["rsmamba/forward_reverse_mean", "groupmamba/grouped4", "efficientvmamba/es2d_step2", "localmamba/w2"]
    {
        said(&["roundtrip", name, "--input", &input, "--output", &output]);
        assert_eq!(read(&output, "merged").0, x, "{name}");
    }

    // What a mixer made of the sequences is merged in the place of x's own.
    let ys: Vec<f32> = (0..2 * 3).map(|i| i as f32).collect();
    let given = [
        ("tokens", Dtype::F32, &[1, 1, 3][..], floats(&[7.0, 8.0, 9.0])),
        ("ys", Dtype::F32, &[1, 2, 1, 3], floats(&ys)),
    ];
    tensors(&input, &given);
    let arguments =
        ["roundtrip", "vim/bimambav2", "--input", &input, "--output", &output, "--tensor", "tokens"];
    said(&arguments);
    assert_eq!(read(&output, "merged").0, [5.0, 5.0, 5.0]);
    assert_eq!(read(&output, "scanned.1").0, [9.0, 8.0, 7.0]);

    let wrong = complaint(1, &arguments[..6]);
    assert!(wrong.contains("name one of its tensors with --tensor: it holds tokens, ys"), "{wrong}");
    let wrong = complaint(1, &["roundtrip", "row", "--input", &input, "--tensor", "x"]);
    assert!(wrong.contains("no tensor `x`: it holds tokens, ys"), "{wrong}");
    let wrong = complaint(2, &["roundtrip", "cross", "--input", &input, "--tensor", "tokens"]);
    assert!(wrong.contains("but the tokens are a sequence of 3"), "{wrong}");
    tensors(&input, &[("x", Dtype::I64, &[1, 1, 3], integers(&[1, 2, 3]))]);
    let wrong = complaint(1, &["roundtrip", "row", "--input", &input]);
    assert!(
        wrong.contains("tensor `x` is Int64 [1, 1, 3], expected (batch, channels, geometry …) of floats"),
        "{wrong}"
    );
}

#[test]
fn roundtrip_says_what_is_odd() {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (path(&folder, "x.safetensors"), path(&folder, "y.safetensors"));
    let written = ["--input", &input, "--output", &output];
    let roundtrip = |name: &'static str| ["roundtrip", name].into_iter().chain(written).collect::<Vec<_>>();
    let x = |value: f32| ("x", Dtype::F32, &[1, 1, 4][..], floats(&[1.0, value, 3.0, 4.0]));

    // What is not finite is told, or refused where it would choose the order.
    tensors(&input, &[x(f32::NAN)]);
    let told = String::from_utf8(scan(&roundtrip("row")).stderr).unwrap();
    assert!(told.contains("warning: merged holds 1 values that are not finite"), "{told}");
    std::fs::remove_file(&output).unwrap();
    let told = complaint(1, &roundtrip("grootl/block"));
    assert!(told.contains("`x` holds a value that is not finite, at [0, 0, 1]"), "{told}");
    assert!(!Path::new(&output).exists());

    tensors(&input, &[x(2.0), ("scanned.9", Dtype::F32, &[1, 1, 4], floats(&[0.0; 4]))]);
    let told = complaint(1, &roundtrip("bidirectional"));
    assert!(told.contains("`scanned.9`, but there are 2 directions"), "{told}");

    tensors(&input, &[x(2.0)]);
    let told = complaint(2, &["roundtrip", "row", "--input", &input, "--output", &path(&folder, "y.npy")]);
    assert!(told.contains("expected a file that ends in .safetensors"), "{told}");
    tensors(&input, &[("x", Dtype::F32, &[1, 3, 2, 2], floats(&[1.0; 12]))]);
    let told = String::from_utf8(scan(&roundtrip("groupmamba/grouped4")).stderr).unwrap();
    assert!(
        told.contains("warning: the 3 channels of `x` do not divide into 4 groups of one size"),
        "{told}"
    );
}
