//! `ophidian scan`, as a user runs it.

use std::path::Path;
use std::process::{Command, Output};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

fn scan(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).arg("scan").args(arguments).output().unwrap()
}

/// What a run that must succeed says.
fn said(arguments: &[&str]) -> String {
    let output = scan(arguments);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(0), "{arguments:?}: {errors}");
    String::from_utf8(output.stdout).unwrap()
}

/// What a run that must end with `code` complains of.
fn complaint(code: i32, arguments: &[&str]) -> String {
    let output = scan(arguments);
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
    assert!(output.stdout.is_empty());
    errors
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn files(folder: &Path) -> usize {
    std::fs::read_dir(folder).unwrap().count()
}

#[test]
fn list_names_every_pattern() {
    let list = said(&["list"]);
    for name in [
        "row",
        "column",
        "serpentine",
        "random(seed=0)",
        "file(path, strict=false)",
        "bidirectional",
        "cross",
        "reverse",
        "transpose",
        "window(height, width=height, reset=false)",
        "atrous(step, ",
        "shift(down, right=down)",
        "blanks(kind)",
    ] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{name} is not in\n{list}");
    }
    let cross = list.lines().find(|line| line.starts_with("cross ")).unwrap();
    assert!(
        cross.contains("set") && cross.contains("grid") && cross.contains("4x") && cross.contains("VMamba")
    );
}

#[test]
fn show_draws_in_the_terminal() {
    let shown = said(&["show", "serpentine|bidirectional", "--shape", "2x3"]);
    let expected = "\
serpentine | bidirectional over a 2x3 grid

order.0  6 steps: every token once
  ○───┐    0 1 2
  ●───┘    5 4 3

order.1  6 steps: every token once
  ●───┐    5 4 3
  ○───┘    0 1 2
";
    assert_eq!(shown, expected);
}

#[test]
fn show_writes_pictures() {
    let folder = tempfile::tempdir().unwrap();
    let (svg, png) = (path(&folder, "cross.svg"), path(&folder, "cross.PNG"));
    let told = said(&["show", "cross", "--shape", "7x9", "--output", &svg]);
    assert!(told.contains("order.3  63 steps: every token once"), "{told}");
    let text = std::fs::read_to_string(&svg).unwrap();
    assert!(
        text.starts_with("<svg") && text.contains(">cross</text>") && text.contains("7x9 grid, 63 tokens")
    );

    said(&["show", "cross", "--shape", "7x9", "--output", &png]);
    let image = resvg::tiny_skia::Pixmap::decode_png(&std::fs::read(&png).unwrap()).unwrap();
    assert!(image.width() > 800 && image.height() > 600);
    let colour = |p: &resvg::tiny_skia::PremultipliedColorU8| (p.red(), p.green(), p.blue());
    let colours: std::collections::HashSet<_> = image.pixels().iter().map(colour).collect();
    assert!(colours.len() > 100, "the picture holds {} colours", colours.len());
    // The title is there: dark pixels above the panels.
    let title = &image.pixels()[..image.width() as usize * 84];
    assert!(title.iter().map(colour).any(|(r, g, b)| r < 100 && g < 100 && b < 100));
}

#[test]
fn export_writes_json() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.json");
    said(&["export", "row | bidirectional", "--shape", "2x2", "--output", &file]);
    let found: Value = serde_json::from_slice(&std::fs::read(&file).unwrap()).unwrap();
    assert_eq!(found, json!({"tokens": 4, "order.0": [0, 1, 2, 3], "order.1": [3, 2, 1, 0]}));
}

#[test]
fn export_writes_safetensors() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.safetensors");
    said(&["export", "window(2, reset=true)", "--shape", "1x3", "--output", &file]);
    let bytes = std::fs::read(&file).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(tensors.names().len(), 2);
    for (name, expected) in [("order.0", vec![0i64, 1, -1, -1, 2, -1, -1, -1]), ("resets.0", vec![4])] {
        let tensor = tensors.tensor(name).unwrap();
        let entry = |chunk: &[u8]| i64::from_le_bytes(chunk.try_into().unwrap());
        let found: Vec<i64> = tensor.data().chunks_exact(8).map(entry).collect();
        assert_eq!((tensor.dtype(), tensor.shape(), found), (Dtype::I64, &[expected.len()][..], expected));
    }
}

#[test]
fn export_writes_npy() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.npy");
    said(&["export", "column | bidirectional", "--shape", "2x3", "--output", &file]);
    let bytes = std::fs::read(&file).unwrap();
    let entries = [0i64, 3, 1, 4, 2, 5, 5, 2, 4, 1, 3, 0];
    let header = String::from_utf8_lossy(&bytes);
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00") && header.contains("'shape': (2, 6)"));
    assert!(bytes.ends_with(&entries.iter().flat_map(|entry| entry.to_le_bytes()).collect::<Vec<u8>>()));

    let other = path(&folder, "p.npy");
    let shorter = complaint(2, &["export", "[row, window(2)]", "--shape", "3x3", "--output", &other]);
    assert!(
        shorter.contains("order.0 has 9 steps and order.1 has 16; write .json or .safetensors"),
        "{shorter}"
    );
    let resets = complaint(2, &["export", "window(2, reset=true)", "--shape", "3x3", "--output", &other]);
    assert!(
        resets.contains("p.npy") && resets.contains("starts afresh; write .json or .safetensors"),
        "{resets}"
    );
    assert_eq!(files(folder.path()), 1);
}

#[test]
fn an_index_file_is_a_pattern() {
    let folder = tempfile::tempdir().unwrap();
    let direct = path(&folder, "direct.json");
    said(&["export", "cross", "--shape", "3x4", "--output", &direct]);
    for name in ["o.json", "o.npy", "o.safetensors"] {
        let (file, again) = (path(&folder, name), path(&folder, "again.json"));
        said(&["export", "cross", "--shape", "3x4", "--output", &file]);
        said(&["export", &file, "--shape", "3x4", "--output", &again]);
        assert_eq!(std::fs::read(&again).unwrap(), std::fs::read(&direct).unwrap());
        assert!(said(&["show", &format!("file('{file}') | reverse"), "--shape", "3x4"]).contains("order.3"));
    }
    let mine = path(&folder, "mine.json");
    std::fs::write(&mine, "[0, 1, 99]").unwrap();
    let wrong = complaint(1, &["show", &mine, "--shape", "3"]);
    assert!(wrong.contains("mine.json: order.0[2] is 99, but 3 tokens are numbered 0 to 2"), "{wrong}");
    let missing = complaint(1, &["show", &path(&folder, "none.json"), "--shape", "3"]);
    assert!(missing.contains("none.json") && missing.contains("No such file"), "{missing}");
}

#[test]
fn wrong_usage_is_explained() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "o.txt");
    let unknown = "there is no pattern named `crss`\n  crss\n  ^^^^\ndid you mean `cross`?";
    let sequence = "`cross` needs a grid of rows and columns, but the tokens are a sequence of 63";
    for (arguments, expected) in [
        (vec!["show", "crss", "--shape", "7x9"], unknown),
        (vec!["show", "row | window(0)", "--shape", "7x9"], "  row | window(0)\n               ^"),
        (vec!["show", "row", "--shape", "7y9"], "shape `7y9`: expected a length such as 49"),
        (vec!["show", "row", "--shape", "0x9"], "shape `0x9`: every size must be at least 1"),
        (vec!["show", "row", "--shape", "7x9x2"], "shape `7x9x2`"),
        (vec!["show", "row", "--shape", "99999999x99999999"], "too large"),
        (vec!["show", "cross", "--shape", "63"], sequence),
        (vec!["show", "row", "--shape", "3x3", "--output", &file], "o.txt: a picture ends in .svg or .png"),
        (
            vec!["export", "row", "--shape", "3x3", "--output", &file],
            "o.txt: an index file ends in .json, .npy or .safetensors",
        ),
        (vec!["show", "row"], "--shape"),
        (vec!["shw"], "show"),
    ] {
        let complaint = complaint(2, &arguments);
        assert!(complaint.contains(expected), "{arguments:?}: {complaint}");
    }
    assert_eq!(files(folder.path()), 0);
}

#[test]
fn a_file_that_cannot_be_written_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(&folder, "missing/o.json");
    let told = complaint(1, &["export", "row", "--shape", "3x3", "--output", &file]);
    assert!(told.contains("missing/o.json"), "{told}");
    assert_eq!(files(folder.path()), 0);
}
