//! The authors' own index maps of the static scans, exactly, as compositions.

use std::io::Write;
use std::path::{Path, PathBuf};

use ophidian_scan::{Geometry, Order, Pattern, Plan};
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

/// The values of an int64 tensor of a golden file, and the length of its last axis.
fn values(file: &str, tensor: &str) -> Option<(Vec<i64>, usize)> {
    let bytes = std::fs::read(goldens()?.join(format!("{file}.safetensors"))).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let view = tensors.tensor(tensor).unwrap();
    assert_eq!(view.dtype(), Dtype::I64);
    let values = view.data().chunks_exact(8).map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap()));
    Some((values.collect(), *view.shape().last().unwrap()))
}

/// The rows of an int64 tensor of a golden file.
fn rows(file: &str, tensor: &str) -> Option<Vec<Vec<i64>>> {
    let (values, steps) = values(file, tensor)?;
    Some(values.chunks(steps).map(<[i64]>::to_vec).collect())
}

fn plan(pattern: &str, shape: &str) -> Plan {
    let geometry: Geometry = shape.parse().unwrap();
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    pattern.plan(&geometry).unwrap_or_else(|error| panic!("{error}"))
}

fn map(order: &Order) -> Vec<i64> {
    order.index().iter().map(|&i| i64::from(i)).collect()
}

/// The walk, parted where the state starts afresh.
fn segments(order: &Order) -> Vec<Vec<i64>> {
    let mut parts = vec![Vec::new()];
    for (&token, &reset) in order.index().iter().zip(order.resets()) {
        if reset {
            parts.push(Vec::new());
        }
        parts.last_mut().unwrap().push(i64::from(token));
    }
    parts
}

/// `pattern` over `shape` is the map `tensor` of `file`.
fn same(file: &str, tensor: &str, pattern: &str, shape: &str) {
    let Some(golden) = rows(file, tensor) else { return };
    let found: Vec<Vec<i64>> = plan(pattern, shape).orders().iter().map(map).collect();
    assert_eq!(found, golden, "{pattern} over {shape} is not {tensor} of {file}");
}

/// `pattern` over `shape` has the rows of `tensor` for its segments.
fn same_segments(file: &str, tensor: &str, pattern: &str, shape: &str) {
    let Some(golden) = rows(file, tensor) else { return };
    let plan = plan(pattern, shape);
    assert_eq!(plan.directions(), 1);
    assert_eq!(segments(&plan.orders()[0]), golden, "{pattern} over {shape} is not {tensor} of {file}");
}

/// `pattern` over `shape` visits the cells in the order of the codes in `tensor`.
fn same_codes(file: &str, tensor: &str, pattern: &str, shape: &str) {
    let Some((codes, _)) = values(file, tensor) else { return };
    let mut cells: Vec<i64> = (0..codes.len() as i64).collect();
    cells.sort_by_key(|&cell| codes[cell as usize]);
    assert_eq!(
        map(&plan(pattern, shape).orders()[0]),
        cells,
        "{pattern} over {shape} is not {tensor} of {file}"
    );
}

const SHAPES: &[&str] = &["3x5", "4x4", "8x6"];

#[test]
fn vmamba() {
    for shape in SHAPES {
        same(&format!("vmamba_unidi_{shape}"), "perm", "repeat(4) of row", shape);
        same(&format!("vmamba_bidi_{shape}"), "perm", "row | repeat(2) | bidirectional", shape);
        same(&format!("vmamba_rot90_{shape}"), "perm", "rotations", shape);
        let turns = "[rotate(0), rotate(1), row | reverse, rotate(3) of row]";
        same(&format!("vmamba_rot90_{shape}"), "perm", turns, shape);
    }
}

#[test]
fn efficientvmamba_as_released() {
    same("efficientvmamba_es2d_step3_6x6", "perm", "atrous(3, compat=four-classes)", "6x6");
    for shape in ["3x5", "4x4", "6x8"] {
        let file = format!("efficientvmamba_es2d_step2_{shape}");
        same(&file, "perm", "atrous(2, compat=four-classes)", shape);
    }
}

#[test]
fn zigma_zigzag() {
    let all: Vec<String> = (0..8).map(|k| format!("zigzag({k})")).collect();
    for n in [3, 4, 8] {
        let (file, shape) = (format!("zigma_zigzag8_{n}x{n}"), format!("{n}x{n}"));
        same(&file, "perm", &format!("[{}]", all.join(", ")), &shape);
        same(&file, "inv", &format!("[{}] | inverse", all.join(", ")), &shape);
        same(&file, "traverse", "serpentine | bidirectional", &shape);
    }
}

#[test]
fn zigma_hilbert() {
    let turn = |k| format!("gilbert | rotate({k}), gilbert | rotate({k}) | transpose");
    // ZigMa turns the map of ranks, which turns the walk the other way.
    let all = format!("[gilbert, transpose of gilbert, {}, {}, {}]", turn(3), turn(2), turn(1));
    for n in [4, 5, 8] {
        let (file, shape) = (format!("zigma_hilbert8_{n}x{n}"), format!("{n}x{n}"));
        same(&file, "rank_inv", &all, &shape);
        same(&file, "rank", &format!("{all} | inverse"), &shape);
    }
}

#[test]
fn videomamba() {
    for (name, shape) in [("T2_2x2", "2x2x2"), ("T3_2x4", "3x2x4"), ("T4_3x3", "4x3x3")] {
        let file = format!("videomamba_spatialfirst_{name}");
        let Some(golden) = rows(&file, "perm") else { return };
        // The class token comes first and has number 0.
        let with_class = plan("row", shape).with_token(0, |_| 0).unwrap();
        assert_eq!(map(&with_class.orders()[0]).iter().map(|i| i - 1).collect::<Vec<_>>(), golden[0]);
    }
}

#[test]
fn vivim_and_segmamba() {
    let tri = "[row, row | reverse, temporal]";
    for (frames, pixels) in [(2, 4), (3, 5), (5, 4)] {
        for system in ["vivim_tri_perm_nf", "segmamba_tri_perm_ns"] {
            let file = format!("{system}{frames}x{pixels}");
            for shape in [format!("{frames}x{pixels}"), format!("{frames}x1x{pixels}")] {
                same(&file, "perm", tri, &shape);
            }
            if pixels == 4 {
                same(&file, "perm", "[row, row | reverse, axes(hwt)]", &format!("{frames}x2x2"));
            }
        }
    }
}

#[test]
fn video_mamba_suite() {
    for (n, frames) in [(3, 2), (4, 3)] {
        let file = format!("videomambasuite_timemamba_divided_n{n}_T{frames}");
        same_segments(&file, "time_segments", "row | segment(row)", &format!("{n}x{frames}"));
        same_segments(&file, "time_segments", &format!("chunk({frames})"), &format!("{}", n * frames));
    }
}

#[test]
fn mamba_nd() {
    for n in [3, 4] {
        let (file, shape) = (format!("mamband_alternate2d_{n}x{n}"), format!("{n}x{n}"));
        same(&file, "perm", "[row | bidirectional, column | bidirectional]", &shape);
    }
    for (name, shape) in [("T2_2x3", "2x2x3"), ("T3_4x2", "3x4x2")] {
        let file = format!("mamband_alternate3d_{name}");
        for (axes, ours, inner, outer) in [
            ("tlhw", "thw", "segment(row)", "segment(frame)"),
            ("tlwh", "twh", "segment(column)", "segment(frame)"),
            ("whtl", "wht", "chunk(1)", "segment(pixel)"),
        ] {
            let walk = format!("axes({ours})");
            same(&file, &format!("perm_{axes}_fwd"), &walk, shape);
            same(&file, &format!("perm_{axes}_rev"), &format!("{walk} | reverse"), shape);
            same_segments(&file, &format!("segments_{axes}_ndim1"), &format!("{walk} | {inner}"), shape);
            same_segments(&file, &format!("segments_{axes}_ndim2"), &format!("{walk} | {outer}"), shape);
        }
    }
}

#[test]
fn msvmamba() {
    for shape in SHAPES {
        let file = format!("msvmamba_scans_{shape}");
        same(&file, "perm_CrossScan", "cross", shape);
        same(&file, "perm_ThreeScan", "[column, row | reverse, column | reverse]", shape);
        same(&file, "perm_CrossScan2", "[row, column]", shape);
        same(&file, "perm_CrossScan3", "[row, column, row | reverse]", shape);
    }
}

#[test]
fn quadmamba() {
    for shape in ["4x4", "8x8", "8x12"] {
        let file = format!("quadmamba_quad_perm_{shape}");
        same(&file, "quad", "tiles(2)", shape);
        same(&file, "quadquad", "tiles(4)", shape);
        same(&file, "rev_quad", "tiles(2) | inverse", shape);
        same(&file, "rev_quadquad", "tiles(4) | inverse", shape);
    }
}

#[test]
fn changemamba() {
    for shape in ["2x3", "4x4"] {
        let (file, pair) = (format!("changemamba_spatiotemporal_{shape}"), format!("2x{shape}"));
        for (tensor, pattern) in
            [("cross", "montage(interleaved)"), ("parallel_w", "montage(beside)"), ("stacked", "row")]
        {
            let Some((golden, _)) = values(&file, tensor) else { return };
            assert_eq!(map(&plan(pattern, &pair).orders()[0]), golden, "{pattern} over {pair}");
        }
    }
}

#[test]
fn audio_mamba() {
    for (name, shape) in [("F2_T3", "2x3"), ("F4_T5", "4x5"), ("F8_T4", "8x4")] {
        for (tensor, pattern) in [("freqmajor", "row"), ("timemajor", "column")] {
            let Some(golden) = rows(&format!("aum_specgrid_{name}"), &format!("perm_{tensor}_end")) else {
                return;
            };
            assert_eq!(map(&plan(pattern, shape).orders()[0]), golden[0][..golden[0].len() - 1]);
        }
    }
}

#[test]
fn pointmamba_hilbert() {
    for bits in [1, 2, 3] {
        let side = 1 << bits;
        let (file, shape) = (format!("pointmamba_hilbert2d_bits{bits}"), format!("{side}x{side}"));
        same(&file, "order", "hilbert", &shape);
        same_codes(&file, "code", "hilbert", &shape);
    }
    for bits in [1, 2] {
        let side = 1 << bits;
        let (file, shape) = (format!("pointmamba_hilbert3d_bits{bits}"), format!("{side}x{side}x{side}"));
        same(&file, "order", "hilbert", &shape);
        same_codes(&file, "code", "hilbert", &shape);
    }
    for depth in 2..=5 {
        let file = "pointmamba_hilbert_depth_dependence_bits2";
        same(file, &format!("order_depth{depth}"), &format!("hilbert(bits={depth})"), "4x4x4");
    }
}

#[test]
fn voxelmamba_hilbert() {
    for bits in [2, 3] {
        let (file, side) = (format!("voxelmamba_hilbert2d_bits{bits}"), 1 << bits);
        same_codes(&file, "convert_to_index", "hilbert", &format!("{side}x{side}"));
        same_codes(&file, "convert_2d", "hilbert", &format!("{side}x{side}"));
    }
    for (bits, z_max) in [(2, 4), (3, 5), (4, 3)] {
        let (file, side) = (format!("voxelmamba_hilbert3d_bits{bits}_z{z_max}"), 1 << bits);
        same_codes(&file, "template", "hilbert", &format!("{z_max}x{side}x{side}"));
    }
}

#[test]
fn pcm_morton() {
    for bits in [1, 2] {
        let (file, side) = (format!("pcm_codes_full_grid_bits{bits}"), 1 << bits);
        let shape = format!("{side}x{side}x{side}");
        same_codes(&file, "code_z", "morton", &shape);
        same_codes(&file, "code_z_trans", "morton | axes(htw)", &shape);
    }
}
