//! Names that equal compositions of other names, over planes and volumes.

use ophidian_scan::{Geometry, Pattern, Plan};
use proptest::prelude::*;

fn plan(pattern: &str, geometry: &Geometry) -> Plan {
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    pattern.plan(geometry).unwrap_or_else(|error| panic!("{pattern} over {geometry}: {error}"))
}

fn grid(height: usize, width: usize) -> Geometry {
    Geometry::Grid2 { height, width }
}

/// Grids of all kinds: one row, one column, primes, squares, wide and tall ones.
fn grids() -> impl Strategy<Value = Geometry> {
    let side = prop_oneof![Just(1), Just(2), Just(7), Just(13), Just(16), 1..20usize];
    (side.clone(), side).prop_map(|(height, width)| grid(height, width))
}

/// Boxes of all kinds.
fn volumes() -> impl Strategy<Value = Geometry> {
    let side = || prop_oneof![Just(1), Just(2), Just(5), 1..8usize];
    (side(), side(), side()).prop_map(|(frames, height, width)| Geometry::Grid3 { frames, height, width })
}

proptest! {
    #[test]
    fn turns_equal_their_compositions(geometry in prop_oneof![grids(), volumes()], curve in 0..3usize, k in 0..4i32) {
        let walk = ["hilbert", "random", "[gilbert, peano]"][curve];
        for (left, right) in [
            ("rotate(0)", "repeat(1)"),
            ("rotate(1)", "transpose | mirror(columns)"),
            ("rotate(2)", "mirror(rows) | mirror(columns)"),
            ("rotate(3)", "transpose | mirror(rows)"),
            ("rotate(1) | rotate(1) | rotate(1) | rotate(1)", "repeat(1)"),
            ("mirror(rows) | mirror(rows)", "repeat(1)"),
            ("mirror(columns) | transpose", "transpose | mirror(rows)"),
            ("inverse | inverse", "repeat(1)"),
            ("tiles(1)", "repeat(1)"),
            ("reverse | repeat(2)", "repeat(2) | reverse"),
        ] {
            let (left, right) = (format!("{walk} | {left}"), format!("{walk} | {right}"));
            prop_assert_eq!(plan(&left, &geometry), plan(&right, &geometry), "{} = {}", left, right);
        }
        let both = format!("{walk} | rotate({k}) | rotate({})", -k);
        prop_assert_eq!(plan(&both, &geometry), plan(walk, &geometry));
        let all = format!("[{walk}, {walk} | rotate(1), {walk} | rotate(2), {walk} | rotate(3)]");
        prop_assert_eq!(plan(&format!("{walk} | rotations"), &geometry), plan(&all, &geometry));
    }

    #[test]
    fn zigzags_are_mirrored_snakes(geometry in grids()) {
        for (k, mirrored) in ["", "| mirror(columns)", "| mirror(rows)", "| mirror(rows) | mirror(columns)"]
            .iter()
            .enumerate()
        {
            let (along, across) = (format!("serpentine {mirrored}"), format!("serpentine | transpose {mirrored}"));
            prop_assert_eq!(plan(&format!("zigzag({})", 2 * k), &geometry), plan(&along, &geometry));
            prop_assert_eq!(plan(&format!("zigzag({})", 2 * k + 1), &geometry), plan(&across, &geometry));
        }
    }

    #[test]
    fn volumes_equal_their_compositions(geometry in volumes()) {
        let (frames, height, width) = geometry.sizes();
        for (left, right) in [
            ("row", "axes(thw)"),
            ("column", "axes(twh)"),
            ("column", "transpose"),
            ("temporal", "axes(hwt)"),
            ("cross", "[row, column] | bidirectional"),
            ("row", "row | frames"),
            ("column", "column | frames"),
            ("cross", "[row | frames, column | frames, row | frames | reverse, column | frames | reverse]"),
            ("row", "montage(below)"),
            ("axes(htw)", "montage(beside)"),
            ("axes(hwt)", "montage(interleaved)"),
            ("hilbert | axes(wht) | axes(wht)", "hilbert"),
            ("hilbert | axes(hwt) | axes(wth)", "hilbert"),
            ("hilbert | axes(twh)", "hilbert | transpose"),
            ("hilbert | window(3, frames=1) | shift(1)", "hilbert | window(3) | shift(1, 1, frames=0)"),
            ("row | mirror(frames) | mirror(frames)", "row"),
            ("random | shift(0, frames=5) | shift(0, frames=-5)", "random"),
            ("row | segment(frame)", "row | frames(reset=true)"),
        ] {
            prop_assert_eq!(plan(left, &geometry), plan(right, &geometry), "{} = {}", left, right);
        }
        let whole = format!("hilbert | window({height}, {width}, frames={frames})");
        prop_assert_eq!(plan(&whole, &geometry), plan("hilbert", &geometry));
        let cut = plan(&format!("row | chunk({})", height * width), &geometry);
        prop_assert_eq!(cut, plan("row | segment(frame)", &geometry));
        let cut = plan(&format!("temporal | chunk({frames})"), &geometry);
        prop_assert_eq!(cut, plan("temporal | segment(pixel)", &geometry));
        let cut = plan(&format!("column | chunk({height}) | reverse"), &geometry);
        prop_assert_eq!(cut, plan("column | segment(column) | reverse", &geometry));
    }

    #[test]
    fn one_frame_is_an_image(geometry in grids()) {
        let (_, height, width) = geometry.sizes();
        let one = Geometry::Grid3 { frames: 1, height, width };
        for text in ["row", "column", "serpentine", "cross", "rotations", "window(2, 3)", "atrous(2)", "shift(1)"] {
            prop_assert_eq!(plan(text, &one), plan(text, &geometry), "{}", text);
        }
        for text in ["spiral", "diagonal", "hilbert", "gilbert", "cross", "rotations"] {
            prop_assert_eq!(plan(&format!("{text} | frames"), &one), plan(text, &geometry), "{}", text);
        }
    }

    #[test]
    fn tiles_part_the_grid_evenly(height in 1..9usize, width in 1..9usize, down in 1..4usize, right in 1..4usize) {
        let tiles = format!("tiles({down}, {right})");
        let windows = format!("window({height}, {width})");
        let geometry = grid(down * height, right * width);
        prop_assert_eq!(plan(&tiles, &geometry), plan(&windows, &geometry));
    }
}

#[test]
fn montages_by_hand() {
    let pair = Geometry::Grid3 { frames: 2, height: 2, width: 2 };
    let index = |pattern: &str| plan(pattern, &pair).orders()[0].index().to_vec();
    assert_eq!(index("montage(beside)"), [0, 1, 4, 5, 2, 3, 6, 7]);
    assert_eq!(index("montage(interleaved)"), [0, 4, 1, 5, 2, 6, 3, 7]);
    assert_eq!(index("column | montage(below)"), [0, 2, 4, 6, 1, 3, 5, 7]);
    // As many frames as are said; ChangeMamba's are two.
    assert_eq!(index("montage(beside, 2)"), index("montage(beside)"));
    for pattern in
        ["montage(beside, 3)", "changemamba/cross", "changemamba/parallel_w", "changemamba/spatiotemporal"]
    {
        let clip =
            Geometry::Grid3 { frames: if pattern.ends_with("3)") { 2 } else { 5 }, height: 2, width: 3 };
        let error = pattern.parse::<Pattern>().unwrap().plan(&clip).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("frames"), "{error}");
    }
}

/// QuadMamba over sides that are no multiples of 4: all windows of the padded map, the last ones blank.
#[test]
fn tiles_of_a_padded_grid() {
    let index = |pattern: &str, geometry: &Geometry| plan(pattern, geometry).orders()[0].index().to_vec();
    assert_eq!(index("tiles(2)", &grid(2, 3)), [0, 1, 2, -1, 3, 4, 5, -1]);
    assert_eq!(
        index("tiles(2, pad=4)", &grid(1, 3)),
        [0, 1, -1, -1, 2, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1]
    );
    for (count, side) in [(2, 8), (4, 8)] {
        let padded = plan(&format!("tiles({count})"), &grid(side, side));
        let blank = |&i: &i32| if i / 8 < 6 && i % 8 < 6 { i / 8 * 6 + i % 8 } else { -1 };
        let expected: Vec<i32> = padded.orders()[0].index().iter().map(blank).collect();
        assert_eq!(index(&format!("tiles({count}, pad=4)"), &grid(6, 6)), expected);
    }
    assert_eq!(index("tiles(2, pad=3)", &Geometry::Sequence { len: 4 }), [0, 1, 2, 3, -1, -1]);
}
