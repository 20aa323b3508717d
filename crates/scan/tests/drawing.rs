//! What drawings look like, and that every plan can be drawn.

use std::sync::Arc;

use ophidian_scan::{Geometry, Graph, Order, Pattern, Plan, Points, draw};
use proptest::prelude::*;

fn drawn(pattern: &str, shape: &str) -> String {
    let geometry: Geometry = shape.parse().unwrap();
    let plan = pattern.parse::<Pattern>().unwrap().plan(&geometry).unwrap();
    draw::text(&plan, &geometry).unwrap()
}

#[test]
fn a_walk_without_jumps() {
    assert_eq!(
        drawn("serpentine", "3x4"),
        "\
order.0  12 steps: every token once
  ○─────┐     0  1  2  3
  ┌─────┘     7  6  5  4
  └─────●     8  9 10 11
"
    );
}

#[test]
fn jumps_are_told() {
    assert_eq!(
        drawn("column | reverse", "3x3"),
        "\
order.0  9 steps: every token once
  ● ▴ ▴    8 5 2
  │ │ │    7 4 1
  ╵ ╵ ○    6 3 0
  jumps to steps 3, 6
"
    );
}

#[test]
fn blanks_and_resets_are_told() {
    assert_eq!(
        drawn("window(2, 2, reset=true)", "3x3"),
        "\
order.0  16 steps: every token once, 7 blank (zero input), state starts afresh 3 times
  ○─▸ •     0  1  4
  ╶─▸ •     2  3  6
  ╶─▸ ●     8  9 12
  jumps to steps 2
  blank at steps 5, 7, 10-11, 13-15
  state afresh at steps 4, 8, 12
"
    );
}

#[test]
fn long_sequences_are_folded() {
    let text = drawn("row", "70");
    assert!(text.contains("─▸\n  ╶─") && !text.contains("jumps"), "{text}");
    let line = Geometry::Sequence { len: 70 };
    let plan = "row".parse::<Pattern>().unwrap().plan(&line).unwrap();
    assert!(!draw::svg(&plan, &line, draw::View::Slices, "").unwrap().contains(">jump<"));
    assert!(drawn("random", "70").contains("jumps to steps"));
}

#[test]
fn tokens_left_out_are_passed_over() {
    let first = drawn("atrous(2)", "3x5");
    assert!(
        first.starts_with(
            "\
order.0  6 steps: 6 of 15 tokens once
  ○───────▸    0 · 1 · 2
  · · · · ·    · · · · ·
  ╶───────●    3 · 4 · 5
  jumps to steps 3
"
        ),
        "{first}"
    );
}

#[test]
fn repeated_tokens_are_marked() {
    let geometry = Geometry::Grid2 { height: 1, width: 3 };
    let plan = Plan::new(vec![Order::new(vec![0, 1, 0, 1, 2], 3).unwrap()]).unwrap();
    let text = draw::text(&plan, &geometry).unwrap();
    assert_eq!(text, "order.0  5 steps: every token, 2 of 3 more than once\n  ○───●    0+ 1+  4\n");
}

#[test]
fn large_plans_are_cut_short_or_refused() {
    let plan = |pattern: &str, shape: &str| {
        let geometry: Geometry = shape.parse().unwrap();
        (pattern.parse::<Pattern>().unwrap().plan(&geometry).unwrap(), geometry)
    };
    let (wide, shape) = plan("row", "3x65");
    assert!(draw::text(&wide, &shape).unwrap().contains("a 3x65 grid is too large to draw as text"));
    let (many, shape) = plan("atrous(5)", "7x7");
    assert!(draw::text(&many, &shape).unwrap().ends_with("… and 9 more directions\n"));
    let (large, shape) = plan("row", "1000x1000");
    assert!(draw::svg(&large, &shape, draw::View::Slices, "").unwrap_err().to_string().contains("too large"));
    // Tokens that are left out and the edges of a graph stand in every panel.
    let refused = |plan: &Plan, geometry: &Geometry| {
        draw::svg(plan, geometry, draw::View::Slices, "").unwrap_err().to_string()
    };
    let (one, line) = plan("row", "1024");
    let short = Order::new(vec![0], 1024).unwrap();
    let short = Plan::new(vec![short; 4096]).unwrap();
    assert!(refused(&short, &line).contains("4194304 tokens over all directions"));
    let edges = (0..1024u32).flat_map(|i| (0..1024).map(move |j| [i, j])).collect();
    let dense = Geometry::Graph(Arc::new(Graph::new(1024, edges).unwrap()));
    assert!(refused(&one, &dense).contains("1048576 edges over all directions"));
    let other = Geometry::Sequence { len: 4 };
    assert!(
        draw::svg(&wide, &other, draw::View::Slices, "")
            .unwrap_err()
            .to_string()
            .contains("195 tokens cannot be drawn on a sequence of 4")
    );
    assert!(draw::text(&wide, &other).is_err());
}

#[test]
fn frames_stand_side_by_side() {
    assert_eq!(
        drawn("serpentine | frames", "3x2x3"),
        "\
order.0  18 steps: every token once
  ○───┐   ╶───┐   ╶───┐     0  1  2     6  7  8    12 13 14
  ◂───┘   ◂───┘   ●───┘     5  4  3    11 10  9    17 16 15
  jumps to steps 6, 12
"
    );
    // To the same place of the next frame is no jump.
    assert_eq!(
        drawn("temporal", "2x1x2"),
        "\
order.0  4 steps: every token once
  ○ •   • ●    0 2   1 3
  jumps to steps 2
"
    );
    // Frames that do not fit beside each other stand below.
    let folded = drawn("row", "20x2x9");
    assert!(folded.lines().all(|line| line.chars().count() <= 110), "{folded}");
    assert_eq!(folded.lines().nth(3), Some(""), "{folded}");
    assert!(drawn("row", "99x8x8").contains("a 99x8x8 grid is too large to draw as text"));
}

#[test]
fn points_are_listed() {
    let xyz = vec![[0.0, 0.0, 0.0], [0.5, 0.0, 0.0], [0.5, 0.25, -1.0]];
    let geometry = Geometry::Points(Arc::new(Points::packed(xyz, vec![0, 2, 3]).unwrap()));
    let plan = "row | class_token(head)".parse::<Pattern>().unwrap().plan(&geometry).unwrap();
    assert_eq!(
        draw::text(&plan, &geometry).unwrap(),
        "\
order.0  4 steps: every token once, 1 blank (zero input), state starts afresh once
    step     point           x          y          z    distance
       0     blank
       1         0      0.0000     0.0000     0.0000
       2         1      0.5000     0.0000     0.0000      0.5000
       3         2      0.5000     0.2500    -1.0000
  blank at steps 0
  state afresh at steps 3
"
    );
}

#[test]
fn nodes_are_listed() {
    let graph = Graph::new(20, vec![[0, 1], [1, 0], [1, 2], [2, 1]]).unwrap();
    let geometry = Geometry::Graph(Arc::new(graph));
    let plan = "row".parse::<Pattern>().unwrap().plan(&geometry).unwrap();
    let text = draw::text(&plan, &geometry).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines[1], "       0  node 0       of degree 1");
    assert_eq!(lines[2], "       1  node 1       of degree 2     along an edge");
    assert_eq!(lines[4], "       3  node 3       of degree 0");
    assert_eq!(lines.last(), Some(&"  … and 8 more steps"));
}

/// Every published scan can be drawn, in both views, over every geometry that it knows.
#[test]
fn published_scans_are_drawn() {
    let at = |i: usize| [(i * 7 % 11) as f32 * 0.1, (i * 5 % 13) as f32 * 0.1, (i * 3 % 7) as f32];
    let edges = (0..11).flat_map(|i| [[i, (i * 5 + 1) % 11], [(i * 5 + 1) % 11, i]]).collect();
    let mut geometries: Vec<Geometry> =
        ["7", "4x4", "3x5", "2x4x3"].map(|shape| shape.parse().unwrap()).to_vec();
    geometries.push(Geometry::Points(Arc::new(Points::new((0..24).map(at).collect()).unwrap())));
    geometries.push(Geometry::Points(Arc::new(Points::new(vec![[1.0; 3]; 2]).unwrap())));
    geometries.push(Geometry::Graph(Arc::new(Graph::new(11, edges).unwrap())));
    geometries.push(Geometry::Graph(Arc::new(Graph::new(300, Vec::new()).unwrap())));
    let mut drawn = 0;
    for scan in ophidian_scan::published().iter().filter(|scan| scan.needs().is_none()) {
        let pattern: Pattern = scan.example().parse().unwrap();
        for geometry in &geometries {
            let Ok(plan) = pattern.plan(geometry) else { continue };
            assert!(draw::text(&plan, geometry).unwrap().lines().count() > plan.directions());
            for view in [draw::View::Slices, draw::View::Isometric] {
                let svg = draw::svg(&plan, geometry, view, &pattern.to_string()).unwrap();
                assert!(
                    svg.ends_with("</svg>\n") && !svg.contains("NaN") && !svg.contains("inf"),
                    "{pattern}"
                );
                // Every direction has its walk: the last step's token is marked.
                assert!(svg.matches("<circle").count() >= 2 * plan.directions(), "{pattern} over {geometry}");
                drawn += 1;
            }
        }
    }
    assert!(drawn > 300, "{drawn} drawings");
}

proptest! {
    #[test]
    fn every_plan_can_be_drawn(
        height in 1..9usize, width in 1..70usize, folded in any::<bool>(),
        seed in prop::collection::vec((-1..40i32, any::<bool>()), 1..60),
    ) {
        let geometry = if folded { Geometry::Sequence { len: height * width } } else { Geometry::Grid2 { height, width } };
        let tokens = height * width;
        let (index, resets): (Vec<i32>, Vec<bool>) = seed.into_iter().map(|(i, reset)| (i.min(tokens as i32 - 1), reset)).unzip();
        let order = Order::new(index, tokens).unwrap().with_resets(resets).unwrap();
        let plan = Plan::new(vec![order.reversed(), order]).unwrap();
        prop_assert!(!draw::text(&plan, &geometry).unwrap().is_empty());
        let svg = draw::svg(&plan, &geometry, draw::View::Slices, "<a & \"b\">\u{1}").unwrap();
        prop_assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        prop_assert!(svg.contains(">&lt;a &amp; &quot;b&quot;&gt; </text>"));
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
