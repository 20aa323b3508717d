//! What every pattern keeps to, over all shapes.

use ophidian_scan::{Blank, Geometry, Order, Pattern, Plan};
use proptest::prelude::*;

fn plan(pattern: &str, geometry: &Geometry) -> Plan {
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    pattern.plan(geometry).unwrap_or_else(|error| panic!("{pattern} over {geometry}: {error}"))
}

fn grid(height: usize, width: usize) -> Geometry {
    Geometry::Grid2 { height, width }
}

fn index(pattern: &str, geometry: &Geometry) -> Vec<i32> {
    plan(pattern, geometry).orders()[0].index().to_vec()
}

/// Grids of all kinds: one row, one column, primes, squares, wide and tall ones.
fn grids() -> impl Strategy<Value = Geometry> {
    let side = prop_oneof![Just(1), Just(2), Just(7), Just(13), Just(16), 1..20usize];
    (side.clone(), side).prop_map(|(height, width)| grid(height, width))
}

fn geometries() -> impl Strategy<Value = Geometry> {
    prop_oneof![grids(), (1..80usize).prop_map(|len| Geometry::Sequence { len })]
}

/// Boxes of all kinds.
fn volumes() -> impl Strategy<Value = Geometry> {
    let side = || prop_oneof![Just(1), Just(2), Just(5), 1..8usize];
    (side(), side(), side()).prop_map(|(frames, height, width)| Geometry::Grid3 { frames, height, width })
}

/// Names that need a plane, names that need a grid, and names that also know sequences.
const ON_PLANES: &[&str] = &[
    "diagonal",
    "diagonal(alternate=true)",
    "spiral",
    "spiral | reverse | cross",
    "zigzag(5)",
    "gilbert | rotate(3) | transpose",
    "random | rotations | inverse",
];
const ON_GRIDS: &[&str] = &[
    "column",
    "serpentine",
    "transpose",
    "cross",
    "serpentine | cross",
    "row | transpose",
    "hilbert",
    "hilbert(bits=7)",
    "morton",
    "peano",
    "gilbert",
    "temporal",
    "rotations",
    "hilbert | rotate(-1)",
    "gilbert | mirror(rows) | mirror(columns)",
    "morton | tiles(2, 3) | blanks(drop)",
    "hilbert | window(4, 3) | shift(2, -1) | blanks(drop)",
    "row | repeat(3) | inverse",
];
const ON_VOLUMES: &[&str] = &[
    "axes(wht)",
    "hilbert | axes(htw) | cross",
    "spiral | frames",
    "zigzag(2) | frames(alternate=true, reset=true)",
    "cross | montage(interleaved)",
    "spiral | montage(beside)",
    "diagonal | montage(below)",
    "gilbert | mirror(frames)",
    "row | shift(1, 2, frames=-3)",
    "hilbert | window(2, 3, frames=2) | blanks(drop)",
    "row | tiles(2, frames=3) | blanks(drop)",
    "serpentine | atrous(2, joined=true) | blanks(drop)",
];
const ANYWHERE: &[&str] = &[
    "row",
    "random",
    "random(seed=7)",
    "reverse",
    "bidirectional",
    "shift(3)",
    "random | shift(-2) | bidirectional",
    "[row, reverse, random]",
    "row | window(3) | blanks(drop)",
    "random | window(2) | window(5) | blanks(drop)",
    "row | atrous(3, joined=true) | blanks(drop)",
];

/// A random pattern that makes sense on grids.
fn patterns() -> impl Strategy<Value = String> {
    let curve = prop_oneof![
        Just("row".to_string()),
        Just("column".to_string()),
        Just("serpentine".to_string()),
        (0..5).prop_map(|seed| format!("random(seed={seed})")),
        Just("hilbert".to_string()),
        Just("gilbert".to_string()),
        Just("cross".to_string()),
    ];
    let modifier = prop_oneof![
        Just("reverse".to_string()),
        Just("transpose".to_string()),
        Just("bidirectional".to_string()),
        Just("concat".to_string()),
        Just("segment(column)".to_string()),
        (1..9).prop_map(|steps| format!("chunk({steps})")),
        (1..3).prop_map(|times| format!("repeat({times})")),
        (0..4).prop_map(|quarters| format!("rotate({quarters})")),
        (1..4, 1..4).prop_map(|(down, right)| format!("tiles({down}, {right})")),
        (1..5, 1..5, any::<bool>()).prop_map(|(h, w, reset)| format!("window({h}, {w}, reset={reset})")),
        (1..4, any::<bool>(), any::<bool>()).prop_map(|(step, joined, alternate)| format!(
            "atrous({step}, joined={joined}, alternate={alternate})"
        )),
        (-9..9, -9..9).prop_map(|(down, right)| format!("shift({down}, {right})")),
        prop_oneof![Just("zero"), Just("skip"), Just("drop")].prop_map(|kind| format!("blanks({kind})")),
    ];
    curve.prop_recursive(3, 10, 3, move |inner| {
        prop_oneof![
            (inner.clone(), modifier.clone()).prop_map(|(inner, modifier)| format!("({inner}) | {modifier}")),
            (inner.clone(), modifier.clone())
                .prop_map(|(inner, modifier)| format!("{modifier} of ({inner})")),
            prop::collection::vec(inner, 1..3).prop_map(|inner| format!("[{}]", inner.join(", "))),
        ]
    })
}

proptest! {
    #[test]
    fn permutations_are_permutations(geometry in geometries(), at in 0..ANYWHERE.len()) {
        for order in plan(ANYWHERE[at], &geometry).orders() {
            prop_assert!(order.is_permutation(), "{} over {geometry}: {}", ANYWHERE[at], order.summary());
        }
    }

    #[test]
    fn permutations_of_grids_are_permutations(geometry in grids(), at in 0..ON_GRIDS.len()) {
        for order in plan(ON_GRIDS[at], &geometry).orders() {
            prop_assert!(order.is_permutation(), "{} over {geometry}: {}", ON_GRIDS[at], order.summary());
        }
    }

    #[test]
    fn permutations_of_planes_are_permutations(geometry in grids(), at in 0..ON_PLANES.len()) {
        for order in plan(ON_PLANES[at], &geometry).orders() {
            prop_assert!(order.is_permutation(), "{} over {geometry}: {}", ON_PLANES[at], order.summary());
        }
    }

    #[test]
    fn permutations_of_volumes_are_permutations(
        geometry in volumes(), at in 0..ON_VOLUMES.len(), on_grids in 0..ON_GRIDS.len(),
    ) {
        for text in [ON_VOLUMES[at], ON_GRIDS[on_grids]] {
            for order in plan(text, &geometry).orders() {
                prop_assert!(order.is_permutation(), "{text} over {geometry}: {}", order.summary());
            }
        }
    }

    #[test]
    fn inverse_of_the_inverse_is_the_order(geometry in grids(), pattern in patterns()) {
        let Ok(plan) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        for order in plan.orders() {
            let twice = order.visits().iter().any(|&n| n > 1);
            prop_assert_eq!(order.inverse().is_err(), twice);
            let Ok(inverse) = order.inverse() else { continue };
            for (step, &token) in order.index().iter().enumerate().filter(|(_, token)| **token >= 0) {
                prop_assert_eq!(inverse.index()[token as usize], step as i32);
            }
            let back = inverse.inverse().unwrap();
            prop_assert_eq!(back.index(), order.index());
        }
    }

    #[test]
    fn reversing_twice_changes_nothing(geometry in grids(), pattern in patterns()) {
        let Ok(once) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        prop_assert_eq!(&plan(&format!("({pattern}) | reverse | reverse"), &geometry), &once);
    }

    #[test]
    fn transposing_twice_changes_nothing(geometry in grids(), pattern in patterns()) {
        let Ok(once) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        prop_assert_eq!(&plan(&format!("({pattern}) | transpose | transpose"), &geometry), &once);
    }

    #[test]
    fn shifting_there_and_back_changes_nothing(
        geometry in grids(), pattern in patterns(), by in any::<i32>(), right in any::<i32>(),
    ) {
        let Ok(once) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        let (back, left) = (-i64::from(by), -i64::from(right));
        let there = format!("({pattern}) | shift({by}, {right}) | shift({back}, {left})");
        prop_assert_eq!(&plan(&there, &geometry), &once);
    }

    #[test]
    fn names_equal_their_compositions(geometry in grids()) {
        for (left, right) in [
            ("row | transpose", "column"),
            ("column | transpose", "row"),
            ("cross", "[row, column, row | reverse, column | reverse]"),
            ("[row, column] | bidirectional", "cross"),
            ("bidirectional", "[row, reverse of row]"),
            ("window(3, 2) of row | reverse", "row | window(3, 2) | reverse"),
            ("window(4)", "window(4, 4, reset=false)"),
            ("column | window(2, 3)", "row | transpose | window(2, 3)"),
            ("window(1)", "row"),
            ("atrous(1)", "row"),
            ("shift(0)", "row"),
        ] {
            prop_assert_eq!(plan(left, &geometry), plan(right, &geometry), "{} = {}", left, right);
        }
    }

    #[test]
    fn segments_begin_where_a_line_is_entered(geometry in prop_oneof![grids(), volumes()], pattern in patterns()) {
        let Ok(walk) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        let (_, _, width) = geometry.sizes();
        for (order, parted) in walk.orders().iter().zip(plan(&format!("({pattern}) | segment(row)"), &geometry).orders()) {
            prop_assert_eq!(order.index(), parted.index());
            let mut last = None;
            for t in 0..order.len() {
                let Ok(token) = usize::try_from(order.index()[t]) else {
                    prop_assert_eq!(parted.resets()[t], order.resets()[t]);
                    continue;
                };
                let entered = last.is_some_and(|last| last != token / width);
                prop_assert_eq!(parted.resets()[t], entered || order.resets()[t]);
                last = Some(token / width);
            }
        }
    }

    #[test]
    fn concat_chains_and_repeat_copies(geometry in grids(), pattern in patterns(), times in 1..4usize) {
        let Ok(once) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        let Ok(repeated) = format!("({pattern}) | repeat({times})").parse::<Pattern>().unwrap().plan(&geometry) else {
            return Ok(());
        };
        prop_assert_eq!(repeated.directions(), times * once.directions());
        for (k, order) in repeated.orders().iter().enumerate() {
            prop_assert_eq!(order, &once.orders()[k % once.directions()]);
        }
        // Directions whose blanks mean different things cannot be one.
        let Ok(chain) = format!("({pattern}) | concat(reset=true)").parse::<Pattern>().unwrap().plan(&geometry) else {
            return Ok(());
        };
        let index: Vec<i32> = once.orders().iter().flat_map(|order| order.index().to_vec()).collect();
        prop_assert_eq!((chain.directions(), chain.orders()[0].index()), (1, &index[..]));
        let mut start = 0;
        for order in once.orders() {
            prop_assert_eq!(chain.orders()[0].resets()[start], start > 0 || order.resets()[0]);
            prop_assert_eq!(&chain.orders()[0].resets()[start + 1..start + order.len()], &order.resets()[1..]);
            start += order.len();
        }
    }

    #[test]
    fn a_window_larger_than_the_grid_is_the_row_order(geometry in grids(), more in 0..3usize) {
        let (_, height, width) = geometry.sizes();
        let exact = format!("window({height}, {width})");
        prop_assert_eq!(plan(&exact, &geometry), plan("row", &geometry));
        let larger = format!("window({}, {}) | blanks(drop)", height + more, width + 2 * more);
        prop_assert_eq!(plan(&larger, &geometry), plan("row", &geometry));
    }

    #[test]
    fn the_classes_of_atrous_part_the_tokens(geometry in geometries(), step in 1..5usize) {
        let classes = plan(&format!("atrous({step})"), &geometry);
        let mut visits = vec![0; classes.tokens()];
        for order in classes.orders() {
            visits.iter_mut().zip(order.visits()).for_each(|(sum, n)| *sum += n);
        }
        prop_assert!(visits.iter().all(|&n| n == 1));
        let joined = plan(&format!("atrous({step}, joined=true)"), &geometry);
        let chained: Vec<i32> = classes.orders().iter().flat_map(|order| order.index().to_vec()).collect();
        prop_assert_eq!(joined.orders()[0].index(), chained);
    }

    #[test]
    fn serpentine_only_takes_steps_to_neighbours(geometry in grids()) {
        let (_, _, width) = geometry.sizes();
        let place = |i: i32| (i as usize / width, i as usize % width);
        for pair in index("serpentine", &geometry).windows(2) {
            let ((r, c), (s, d)) = (place(pair[0]), place(pair[1]));
            prop_assert_eq!(r.abs_diff(s) + c.abs_diff(d), 1);
        }
    }

    #[test]
    fn resets_part_windows_both_ways(height in 1..9usize, width in 1..9usize) {
        let plan = plan("window(2, 3, reset=true) | bidirectional", &grid(height, width));
        let windows = height.div_ceil(2) * width.div_ceil(3);
        let starts: Vec<usize> = (1..windows).map(|w| w * 6).collect();
        for order in plan.orders() {
            let resets: Vec<usize> = (0..order.len()).filter(|&t| order.resets()[t]).collect();
            prop_assert_eq!(&resets, &starts);
        }
    }

    #[test]
    fn class_token_keeps_row_order_a_row_order(geometry in geometries(), at in 0.0..=1.0f64) {
        let tokens = geometry.tokens().unwrap();
        prop_assume!(tokens > 1); // of one token, a walk and its reverse are the same
        let at = (at * tokens as f64).round() as usize;
        let longer = plan("bidirectional", &Geometry::Sequence { len: tokens + 1 });
        prop_assert_eq!(plan("bidirectional", &geometry).insert_token(at).unwrap(), longer);
    }

    #[test]
    fn class_token_is_visited_once_and_changes_no_other_step(
        geometry in grids(), pattern in patterns(), at in 0.0..=1.0f64,
    ) {
        let Ok(plan) = pattern.parse::<Pattern>().unwrap().plan(&geometry) else { return Ok(()) };
        let at = (at * plan.tokens() as f64).round() as usize;
        let longer = plan.insert_token(at).unwrap();
        prop_assert_eq!(longer.tokens(), plan.tokens() + 1);
        for (order, longer) in plan.orders().iter().zip(longer.orders()) {
            let steps: Vec<usize> = (0..longer.len()).filter(|&t| longer.index()[t] == at as i32).collect();
            prop_assert_eq!(steps.len(), 1);
            let mut rest = longer.index().to_vec();
            rest.remove(steps[0]);
            let numbered = |&i: &i32| if i >= at as i32 { i + 1 } else { i };
            prop_assert_eq!(rest, order.index().iter().map(numbered).collect::<Vec<_>>());
            let mut resets = longer.resets().to_vec();
            prop_assert!(!resets.remove(steps[0]));
            prop_assert_eq!(resets, order.resets());
        }
    }

    #[test]
    fn class_token_and_reverse_commute(geometry in grids(), seed in 0..99, at in 0.0..1.0f64) {
        let plan = plan(&format!("random(seed={seed})"), &geometry);
        prop_assume!(plan.tokens() > 1);
        let at = 1 + (at * (plan.tokens() - 1) as f64) as usize;
        prop_assert_eq!(plan.reversed().insert_token(at).unwrap(), plan.insert_token(at).unwrap().reversed());
    }

    #[test]
    fn large_numbers_are_refused_and_not_allocated(
        name in prop_oneof![
            Just("window"), Just("tiles"), Just("atrous"), Just("shift"), Just("repeat"), Just("chunk"), Just("rotate"),
        ],
        a in any::<i64>(), b in any::<i64>(),
    ) {
        for text in [format!("{name}({a})"), format!("{name}({a}, {b})"), format!("{name}({a}, {b}, frames={a})"), format!("{name}({a}, pad={b})")] {
            if let Ok(pattern) = text.parse::<Pattern>() {
                let _ = pattern.plan(&Geometry::Grid3 { frames: 2, height: 3, width: 5 });
                let _ = pattern.plan(&grid(3, 5));
                let _ = pattern.plan(&Geometry::Sequence { len: 11 });
            }
        }
    }
}

#[test]
fn orders_by_hand() {
    assert_eq!(index("column", &grid(2, 3)), [0, 3, 1, 4, 2, 5]);
    assert_eq!(index("serpentine", &grid(3, 3)), [0, 1, 2, 5, 4, 3, 6, 7, 8]);
    assert_eq!(index("window(2)", &grid(3, 3)), [0, 1, 3, 4, 2, -1, 5, -1, 6, 7, -1, -1, 8, -1, -1, -1]);
    assert_eq!(index("window(2)", &Geometry::Sequence { len: 3 }), [0, 1, 2, -1]);
    // Joined, there may be more classes than a plan may have directions.
    assert_eq!(plan("atrous(70, joined=true) | blanks(drop)", &grid(3, 5)).orders()[0].len(), 15);
    assert_eq!(plan("atrous(3, compat=four-classes)", &grid(6, 6)).directions(), 4);
    assert_eq!(index("shift(1, 2)", &grid(2, 3)), [5, 3, 4, 2, 0, 1]);
    assert_eq!(index("shift(-1)", &Geometry::Sequence { len: 4 }), [3, 0, 1, 2]);
    assert_eq!(index("row | atrous(2, joined=true)", &Geometry::Sequence { len: 5 }), [0, 2, 4, 1, 3, -1]);
    // The same seed means the same order in every version.
    assert_eq!(index("random(seed=1)", &grid(2, 4)), [0, 3, 7, 1, 2, 6, 5, 4]);
}

#[test]
fn seeds_differ() {
    let shape = grid(8, 8);
    assert_eq!(index("random", &shape), index("random(0)", &shape));
    assert_ne!(index("random", &shape), index("random(1)", &shape));
}

#[test]
fn middle_class_token_stays_in_the_middle_of_column_order() {
    let plan = plan("cross", &grid(14, 14)).insert_token(98).unwrap();
    for order in plan.orders() {
        assert_eq!(order.index().iter().position(|&i| i == 98), Some(98));
    }
}

#[test]
fn class_token_at_a_step_of_the_walk() {
    let plan = plan("window(2)", &grid(3, 3)).with_token(0, |order| (order.len() - 1) / 2).unwrap();
    assert_eq!(plan.orders()[0].index(), [1, 2, 4, 5, 3, -1, 6, 0, -1, 7, 8, -1, -1, 9, -1, -1, -1]);
    let end = plan.with_token(10, Order::len).unwrap();
    assert_eq!(end.orders()[0].index().last(), Some(&10));
    assert!(plan.with_token(11, |_| 0).is_err());
    assert!(plan.with_token(0, |order| order.len() + 1).is_err());
    assert!(plan.insert_token(11).is_err());
}

#[test]
fn kinds_of_blank_follow_the_order() {
    let blank = |pattern: &str| plan(pattern, &grid(3, 3)).orders()[0].blank();
    assert_eq!(blank("window(2)"), Blank::Zero);
    assert_eq!(blank("window(2) | blanks(skip) | reverse"), Blank::Skip);
    assert_eq!(blank("row | blanks(skip) | window(2)"), Blank::Skip);
}

#[test]
fn geometry_that_does_not_suit_says_so() {
    let line = Geometry::Sequence { len: 12 };
    for text in ["column", "serpentine", "cross", "transpose", "window(3, 4)", "shift(1, 2)"] {
        let error = text.parse::<Pattern>().unwrap().plan(&line).unwrap_err();
        let message = error.to_string();
        assert!(message.contains("grid") && message.contains("a sequence of 12"), "{message}");
        assert!(error.is_usage());
    }
}

#[test]
fn what_is_too_large_is_refused_at_once() {
    let row = |n: usize| vec!["row"; n].join(", ");
    for (text, shape) in [
        ("window(3000000000, 3000000000)".to_string(), "3x5"),
        ("atrous(3000000000)".to_string(), "3x5"),
        ("atrous(100)".to_string(), "3x5"),
        ("row".to_string() + &" | cross".repeat(12), "3x5"),
        ("row".to_string() + &" | bidirectional".repeat(40), "9"),
        ("row".to_string() + &" | atrous(2, joined=true)".repeat(40), "1x1"),
        (format!("[{}] | bidirectional | bidirectional", row(1200)), "9"),
        (format!("[{}]", row(30)), "2000x2000"),
        ("row | window(9000)".to_string(), "8000x8000"),
        ("repeat(3000000000)".to_string(), "3x5"),
        ("repeat(40)".to_string(), "2000x2000"),
        ("row".to_string() + &" | repeat(2) | concat".repeat(26), "9"),
        ("row".to_string() + &" | rotations".repeat(12), "3x5"),
        ("spiral | window(70) | frames".to_string(), "60000x2x2"),
        ("row | window(3000000000, frames=3000000000)".to_string(), "2x3x5"),
    ] {
        let plan = text.parse::<Pattern>().unwrap().plan(&shape.parse().unwrap());
        let error = plan.map(|plan| plan.directions()).unwrap_err();
        assert!(error.to_string().contains("too large"), "{text}: {error}");
    }
}

#[test]
fn evaluation_of_a_hostile_chain_ends_soon() {
    // Both walks of a class (plain and transposed) are asked for at every level, and nothing grows.
    let text = "row".to_string() + &" | atrous(2, joined=true) | blanks(drop)".repeat(31);
    let plan = text.parse::<Pattern>().unwrap().plan(&grid(3, 5)).unwrap();
    assert!(plan.orders()[0].is_permutation());
}
