//! The authors' own index maps, exactly.

use std::io::Write;
use std::path::{Path, PathBuf};

use ophidian_scan::{Geometry, Pattern, Plan};
use safetensors::{Dtype, SafeTensors};

/// The folder of goldens, or None with a visible line.
fn goldens() -> Option<PathBuf> {
    let shared = std::env::var_os("OPHIDIAN_SHARED")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let folder = shared.join("golden/scan");
    if folder.is_dir() {
        return Some(folder);
    }
    // Past the capture of the test harness.
    let _ = writeln!(std::io::stderr(), "SKIPPED: no goldens at {}", folder.display());
    None
}

/// The rows of an int64 tensor of a golden file.
fn rows(folder: &Path, file: &str, tensor: &str) -> Vec<Vec<i64>> {
    let bytes = std::fs::read(folder.join(format!("{file}.safetensors"))).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let view = file.tensor(tensor).unwrap();
    assert_eq!(view.dtype(), Dtype::I64);
    let values: Vec<i64> =
        view.data().chunks_exact(8).map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap())).collect();
    let steps = *view.shape().last().unwrap();
    values.chunks(steps).map(<[i64]>::to_vec).collect()
}

fn maps(plan: &Plan) -> Vec<Vec<i64>> {
    plan.orders().iter().map(|order| order.index().iter().map(|&i| i64::from(i)).collect()).collect()
}

fn plan(pattern: &str, shape: &str) -> Plan {
    let geometry: Geometry = shape.parse().unwrap();
    pattern.parse::<Pattern>().unwrap().plan(&geometry).unwrap()
}

/// `pattern` is the map `tensor` of `system_shape`, for each shape.
fn same(system: &str, tensor: &str, pattern: &str, shapes: &[&str]) {
    let Some(folder) = goldens() else { return };
    for shape in shapes {
        let golden = rows(&folder, &format!("{system}_{shape}"), tensor);
        assert_eq!(maps(&plan(pattern, shape)), golden, "{pattern} is not {system} over {shape}");
    }
}

const SHAPES: &[&str] = &["3x5", "4x4", "8x6"];

#[test]
fn vmamba() {
    same("vmamba_cross2d", "perm", "cross", SHAPES);
    same("vmamba_cross2d", "perm", "[row, column, row | reverse, column | reverse]", SHAPES);
    same("vmamba_unidi", "perm", "[row, row, row, row]", SHAPES);
    same("vmamba_bidi", "perm", "[row, row] | bidirectional", SHAPES);
    same("groupmamba_grouped4", "perm", "cross", SHAPES);
}

#[test]
fn plainmamba() {
    let snakes = "[serpentine | bidirectional, serpentine | transpose | bidirectional]";
    same("plainmamba_continuous4", "perm", snakes, &["1x6", "3x5", "4x4", "5x3"]);
}

#[test]
fn efficientvmamba() {
    same("efficientvmamba_es2d_step2", "perm", "atrous(2)", &["3x5", "4x4", "6x8"]);
}

#[test]
fn localmamba() {
    let shapes = &["3x5", "4x4", "6x8", "14x14"];
    for (direction, pattern) in [
        ("h", "row"),
        ("h_flip", "row | reverse"),
        ("v", "column"),
        ("v_flip", "column | reverse"),
        ("w2", "window(2)"),
        ("w2_flip", "window(2) | reverse"),
        ("w3", "window(3, 3) of row"),
        ("w3_flip", "reverse of window(3) of row"),
        ("w7", "row | window(7)"),
        ("w7_flip", "row | window(7) | reverse"),
        ("w2_col", "row | window(2) | transpose"),
        ("w3_col", "row | window(3) | transpose"),
        ("w7_col", "row | window(7) | transpose"),
    ] {
        same("localmamba_multiscan", &format!("perm_{direction}"), pattern, shapes);
    }
}

/// The way back that the authors use, where theirs really goes back.
#[test]
fn localmamba_inverse() {
    let Some(folder) = goldens() else { return };
    for shape in ["3x5", "4x4", "6x8", "14x14"] {
        for (direction, pattern) in
            [("w2", "window(2)"), ("w3_flip", "window(3) | reverse"), ("w7", "window(7)")]
        {
            let file = format!("localmamba_multiscan_{shape}");
            assert_eq!(rows(&folder, &file, &format!("rev_ok_{direction}")), [[1]]);
            let inverse = plan(pattern, shape).orders()[0].inverse().unwrap();
            let inverse = inverse.index().iter().map(|&i| i64::from(i)).collect::<Vec<_>>();
            assert_eq!(rows(&folder, &file, &format!("rev_{direction}")), [inverse]);
        }
    }
}

/// Vim's class token: where the golden has -1, the token that was inserted at number N // 2, or first.
#[test]
fn vim_class_token() {
    let Some(folder) = goldens() else { return };
    for tokens in [4, 9, 15] {
        let file = format!("vim_clslayout_L{tokens}");
        for (mode, at) in [("perm_head", 0), ("perm_middle", tokens / 2)] {
            let golden = &rows(&folder, &file, mode)[0];
            let longer = plan("row", &tokens.to_string()).insert_token(at).unwrap();
            let numbered = |&i: &i32| match usize::try_from(i).unwrap() {
                i if i == at => -1,
                i => i as i64 - i64::from(i > at),
            };
            assert_eq!(&longer.orders()[0].index().iter().map(numbered).collect::<Vec<_>>(), golden);
        }
    }
}
