//! What drawings look like, and that every plan can be drawn.

use ophidian_scan::{Geometry, Order, Pattern, Plan, draw};
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
    assert!(!draw::svg(&plan, &line, "").unwrap().contains(">jump<"));
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
    assert!(draw::svg(&large, &shape, "").unwrap_err().to_string().contains("too large"));
    let other = Geometry::Sequence { len: 4 };
    assert!(
        draw::svg(&wide, &other, "")
            .unwrap_err()
            .to_string()
            .contains("195 tokens cannot be drawn on a sequence of 4")
    );
    assert!(draw::text(&wide, &other).is_err());
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
        let svg = draw::svg(&plan, &geometry, "<a & \"b\">\u{1}").unwrap();
        prop_assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
        prop_assert!(svg.contains(">&lt;a &amp; &quot;b&quot;&gt; </text>"));
        prop_assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }
}
