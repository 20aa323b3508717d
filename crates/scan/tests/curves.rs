//! The curves against plain references written from their definitions, over grids of all shapes.

use ophidian_scan::{Geometry, Pattern};
use proptest::prelude::*;

fn index(pattern: &str, sides: &[usize]) -> Vec<usize> {
    let geometry = match *sides {
        [height, width] => Geometry::Grid2 { height, width },
        [frames, height, width] => Geometry::Grid3 { frames, height, width },
        _ => unreachable!(),
    };
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    let plan = pattern.plan(&geometry).unwrap_or_else(|error| panic!("{pattern} over {geometry}: {error}"));
    let order = &plan.orders()[0];
    assert!(order.is_permutation(), "{pattern} over {geometry}: {}", order.summary());
    order.index().iter().map(|&token| token as usize).collect()
}

/// Where a token lies on each axis.
fn place(mut token: usize, sides: &[usize]) -> Vec<usize> {
    let mut place = vec![0; sides.len()];
    for (at, side) in place.iter_mut().zip(sides).rev() {
        (*at, token) = (token % side, token / side);
    }
    place
}

/// How far each step leads along each axis.
fn strides(pattern: &str, sides: &[usize]) -> Vec<Vec<usize>> {
    let places: Vec<_> = index(pattern, sides).into_iter().map(|token| place(token, sides)).collect();
    let apart = |pair: &[Vec<usize>]| pair[0].iter().zip(&pair[1]).map(|(a, b)| a.abs_diff(*b)).collect();
    places.windows(2).map(apart).collect()
}

/// How many steps do not lead to a neighbour.
fn jumps(pattern: &str, sides: &[usize]) -> usize {
    strides(pattern, sides).iter().filter(|step| step.iter().sum::<usize>() != 1).count()
}

/// All tokens in the order of their codes.
fn by_code(sides: &[usize], code: impl Fn(&[usize]) -> Vec<usize>) -> Vec<usize> {
    let mut tokens: Vec<usize> = (0..sides.iter().product()).collect();
    tokens.sort_by_cached_key(|&token| code(&place(token, sides)));
    tokens
}

/// Sides of grids of all kinds: lines, primes, powers of 2 and 3, wide and tall ones.
fn planes() -> impl Strategy<Value = Vec<usize>> {
    let side = || prop_oneof![Just(1), Just(2), Just(7), Just(13), Just(16), Just(27), 1..20usize];
    (side(), side()).prop_map(|(height, width)| vec![height, width])
}

fn volumes() -> impl Strategy<Value = Vec<usize>> {
    let side = || prop_oneof![Just(1), Just(2), Just(5), Just(8), Just(9), 1..10usize];
    (side(), side(), side()).prop_map(|(frames, height, width)| vec![frames, height, width])
}

fn grids() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![planes(), volumes()]
}

/// Skilling's AxestoTranspose as published, then the bits read out, the first axis the most significant.
fn skilling(place: &[usize], bits: u32) -> Vec<usize> {
    let mut x = place.to_vec();
    let n = x.len();
    let mut q = 1usize << (bits - 1);
    while q > 1 {
        let p = q - 1;
        for i in 0..n {
            if x[i] & q != 0 {
                x[0] ^= p;
            } else {
                let t = (x[0] ^ x[i]) & p;
                x[0] ^= t;
                x[i] ^= t;
            }
        }
        q >>= 1;
    }
    for i in 1..n {
        x[i] ^= x[i - 1];
    }
    let mut t = 0;
    let mut q = 1usize << (bits - 1);
    while q > 1 {
        if x[n - 1] & q != 0 {
            t ^= q - 1;
        }
        q >>= 1;
    }
    (0..bits).rev().flat_map(|bit| x.iter().map(move |x| (x ^ t) >> bit & 1).collect::<Vec<_>>()).collect()
}

/// Peano's 1890 definition, backwards: the digits t of the code from the digits of the coordinates, where k t = 2 - t is
/// taken as often as the digits of the other axes before it add up to.
fn peano(place: &[usize], digits: u32) -> Vec<usize> {
    let mut sums = vec![0; place.len()];
    let mut code = Vec::new();
    for level in (0..digits).rev() {
        for (axis, at) in place.iter().enumerate() {
            let others = sums.iter().sum::<usize>() - sums[axis];
            let digit = at / 3usize.pow(level) % 3;
            let digit = if others % 2 == 1 { 2 - digit } else { digit };
            sums[axis] += digit;
            code.push(digit);
        }
    }
    code
}

/// A turtle that goes on until it meets the edge or its own trace, and turns right there.
fn turtle(height: usize, width: usize) -> Vec<usize> {
    let mut seen = vec![false; height * width];
    let (mut row, mut column, mut down, mut right) = (0i64, 0i64, 0i64, 1i64);
    let mut index = Vec::new();
    let free = |seen: &[bool], row: i64, column: i64| {
        let inside = (0..height as i64).contains(&row) && (0..width as i64).contains(&column);
        inside && !seen[row as usize * width + column as usize]
    };
    loop {
        let token = row as usize * width + column as usize;
        index.push(token);
        seen[token] = true;
        if !free(&seen, row + down, column + right) {
            (down, right) = (right, -down);
            if !free(&seen, row + down, column + right) {
                return index;
            }
        }
        (row, column) = (row + down, column + right);
    }
}

proptest! {
    #[test]
    fn hilbert_is_skillings(sides in grids(), more in 0..4u32) {
        let longest = *sides.iter().max().unwrap();
        let bits = longest.next_power_of_two().trailing_zeros();
        prop_assert_eq!(index("hilbert", &sides), by_code(&sides, |place| skilling(place, bits.max(1))));
        let bits = bits + more;
        prop_assume!(bits > 0);
        let forced = index(&format!("hilbert(bits={bits})"), &sides);
        prop_assert_eq!(forced, by_code(&sides, |place| skilling(place, bits)));
    }

    #[test]
    fn morton_interleaves_bits(sides in grids()) {
        let code = |place: &[usize]| -> Vec<usize> {
            (0..8).rev().flat_map(|bit| place.iter().map(move |at| at >> bit & 1)).collect()
        };
        prop_assert_eq!(index("morton", &sides), by_code(&sides, code));
    }

    #[test]
    fn peano_is_peanos(sides in grids()) {
        prop_assert_eq!(index("peano", &sides), by_code(&sides, |place| peano(place, 4)));
    }

    #[test]
    fn spiral_is_a_turtles(height in 1..20usize, width in 1..20usize) {
        prop_assert_eq!(index("spiral", &[height, width]), turtle(height, width));
    }

    #[test]
    fn diagonal_sorts_by_row_plus_column(height in 1..20usize, width in 1..20usize) {
        let sides = [height, width];
        let plain = by_code(&sides, |at| vec![at[0] + at[1], at[0]]);
        prop_assert_eq!(index("diagonal", &sides), plain);
        let turned = |at: &[usize]| vec![at[0] + at[1], if (at[0] + at[1]) % 2 == 1 { at[0] } else { at[1] }];
        prop_assert_eq!(index("diagonal(alternate=true)", &sides), by_code(&sides, turned));
    }

    #[test]
    fn steps_to_neighbours(sides in planes(), k in 0..8) {
        for pattern in ["serpentine", "spiral", "serpentine | transpose", &format!("zigzag({k})")] {
            prop_assert_eq!(jumps(pattern, &sides), 0, "{} over {:?}", pattern, sides);
        }
        let alternating = strides("diagonal(alternate=true)", &sides);
        prop_assert!(alternating.iter().all(|step| step.iter().all(|along| *along <= 1)));
    }

    #[test]
    fn steps_to_neighbours_through_frames(sides in volumes()) {
        for pattern in ["serpentine", "spiral | frames(alternate=true)", "serpentine | axes(wht)"] {
            prop_assert_eq!(jumps(pattern, &sides), 0, "{} over {:?}", pattern, sides);
        }
    }

    /// As its author promises: one diagonal step at most, and none unless the long side is odd and the short one even.
    #[test]
    fn gilbert_steps_to_neighbours(sides in planes()) {
        let (long, short) = (sides.iter().max().unwrap(), sides.iter().min().unwrap());
        let odd = long % 2 == 1 && short % 2 == 0;
        prop_assert!(jumps("gilbert", &sides) <= usize::from(odd), "{:?}", sides);
        let steps = strides("gilbert", &sides);
        prop_assert!(steps.iter().all(|step| step.iter().all(|along| *along <= 1)));
        let walk = index("gilbert", &sides);
        let end = if sides[0] >= sides[1] { (sides[0] - 1) * sides[1] } else { sides[1] - 1 };
        prop_assert_eq!(walk[0], 0);
        prop_assert!(odd || walk[walk.len() - 1] == end, "{:?}", sides);
    }

    #[test]
    fn gilbert_fills_boxes_of_even_sides(frames in 1..6usize, height in 1..6usize, width in 1..6usize) {
        prop_assert_eq!(jumps("gilbert", &[2 * frames, 2 * height, 2 * width]), 0);
        index("gilbert", &[frames, height, width]);
    }

    #[test]
    fn temporal_is_vivims_third_map(frames in 1..9usize, height in 1..9usize, width in 1..9usize) {
        let pixels = height * width;
        let map: Vec<usize> = (0..frames * pixels).map(|t| t % frames * pixels + t / frames).collect();
        prop_assert_eq!(&index("temporal", &[frames, height, width]), &map);
        prop_assert_eq!(&index("temporal", &[frames, pixels]), &map);
    }
}

#[test]
fn cubes_are_filled_without_a_jump() {
    for bits in 0..=4 {
        let side = 1 << bits;
        assert_eq!(jumps("hilbert", &[side, side]), 0);
        assert_eq!(jumps("hilbert", &[side, side, side]), 0);
        assert_eq!(index("hilbert", &[side, side]), index("gilbert", &[side, side]));
    }
    for side in [1, 3, 9, 27] {
        assert_eq!(jumps("peano", &[side, side]), 0);
    }
    for side in [1, 3, 9] {
        assert_eq!(jumps("peano", &[side, side, side]), 0);
    }
}

#[test]
fn curves_by_hand() {
    assert_eq!(index("diagonal", &[2, 3]), [0, 1, 3, 2, 4, 5]);
    // The zigzag of JPEG.
    assert_eq!(index("diagonal(alternate=true)", &[3, 3]), [0, 1, 3, 6, 4, 2, 5, 7, 8]);
    assert_eq!(index("spiral", &[3, 4]), [0, 1, 2, 3, 7, 11, 10, 9, 8, 4, 5, 6]);
    assert_eq!(index("morton", &[2, 3]), [0, 1, 3, 4, 2, 5]);
    assert_eq!(index("hilbert", &[2, 3]), [0, 3, 4, 1, 2, 5]);
    assert_eq!(index("peano", &[2, 4]), [0, 1, 2, 6, 5, 4, 7, 3]);
    assert_eq!(index("gilbert", &[2, 3]), [0, 3, 4, 5, 2, 1]);
    assert_eq!(index("serpentine", &[2, 2, 3]), [0, 1, 2, 5, 4, 3, 9, 10, 11, 8, 7, 6]);
    assert_eq!(index("column", &[2, 2, 3]), [0, 3, 1, 4, 2, 5, 6, 9, 7, 10, 8, 11]);
    assert_eq!(index("temporal", &[2, 2, 2]), [0, 4, 1, 5, 2, 6, 3, 7]);
}

/// Nothing outside the grid is walked through: a line of 2^16 tokens lies in a cube of 2^32 cells.
#[test]
fn thin_grids_cost_no_more_than_others() {
    let long = 1 << 16;
    for curve in ["hilbert", "morton", "peano", "gilbert", "spiral", "diagonal", "hilbert(bits=31)"] {
        index(curve, &[1, long]);
        index(curve, &[long, 1]);
        index(curve, &[3, long / 4]);
    }
    for curve in ["hilbert", "morton", "peano", "gilbert", "serpentine"] {
        index(curve, &[1, 2, long / 4]);
    }
}

#[test]
fn the_cube_must_hold_the_grid() {
    let error = "hilbert(bits=2)".parse::<Pattern>().unwrap().plan(&"5x3".parse().unwrap()).unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("at most 4") && message.contains("one is 5") && message.contains("at least 3"),
        "{message}"
    );
    for text in ["hilbert(bits=32)", "hilbert(bits=-1)", "zigzag(8)", "zigzag(-1)", "zigzag"] {
        assert!(text.parse::<Pattern>().is_err(), "{text}");
    }
}

#[test]
fn shapes_that_do_not_suit_are_told_which_do() {
    for (text, shape, expected) in [
        ("spiral", "4x7x9", "`spiral | frames` walks each frame so"),
        ("zigzag(3)", "63", "give a shape such as 7x9"),
        ("diagonal", "4x7x9", "`diagonal | frames`"),
        ("hilbert", "63", "a grid of rows and columns"),
        ("gilbert", "63", "a grid of rows and columns"),
        ("temporal", "63", "4x7x9"),
        ("axes(hwt)", "7x9", "give a shape such as 4x7x9"),
        ("spiral | frames", "7x9", "leave the modifier out"),
        ("cross | montage(beside)", "7x9", "4x7x9"),
        ("mirror(frames)", "7x9", "4x7x9"),
        ("segment(pixel)", "7x9", "4x7x9"),
        ("segment(row)", "63", "7x9"),
        ("window(2, frames=2)", "7x9", "leave `frames` out"),
        ("shift(1, frames=2)", "63", "different numbers"),
        ("rotate(1)", "63", "7x9"),
        ("rotations", "63", "7x9"),
        ("window(3, 3) | inverse", "7x9", "as many steps as tokens"),
    ] {
        let error = text.parse::<Pattern>().unwrap().plan(&shape.parse().unwrap()).unwrap_err();
        assert!(error.to_string().contains(expected), "{text} over {shape}: {error}");
        assert!(error.is_usage());
    }
}
