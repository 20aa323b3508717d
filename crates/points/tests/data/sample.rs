//! Farthest points, nearest neighbours and groups against plain references.

use ophidian_points::{dataset::group, sample::Columns};
use proptest::prelude::*;

fn squared(a: [f32; 3], b: [f32; 3]) -> f32 {
    let [x, y, z] = [a[0] - b[0], a[1] - b[1], a[2] - b[2]];
    x * x + y * y + z * z
}

/// By the definition: the point whose nearest pick is farthest, the first of equal ones.
fn farthest(points: &[[f32; 3]], count: usize) -> Vec<usize> {
    let mut picks = vec![0];
    while picks.len() < count {
        let nearest = |point: &[f32; 3]| {
            picks.iter().map(|p| squared(points[*p], *point)).fold(f32::INFINITY, f32::min)
        };
        let mut best = 0;
        for at in 1..points.len() {
            if nearest(&points[at]) > nearest(&points[best]) {
                best = at;
            }
        }
        picks.push(best);
    }
    picks
}

/// By sorting all.
fn nearest(points: &[[f32; 3]], to: [f32; 3], count: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..points.len()).collect();
    order.sort_by(|a, b| squared(points[*a], to).total_cmp(&squared(points[*b], to)));
    order.truncate(count);
    order
}

/// Coordinates of few values, so that many distances are equal and points coincide, or of many.
fn points() -> impl Strategy<Value = Vec<[f32; 3]>> {
    let coarse = prop::array::uniform3((-2i8..3).prop_map(f32::from));
    let fine = prop::array::uniform3(-1.0f32..1.0);
    prop_oneof![prop::collection::vec(coarse, 1..40), prop::collection::vec(fine, 1..60)]
}

proptest! {
    #[test]
    fn farthest_points_are_those_of_the_definition(points in points(), count in 1usize..50) {
        prop_assert_eq!(Columns::new(&points).farthest(count, 0), farthest(&points, count));
    }

    #[test]
    fn neighbours_are_those_of_a_full_sort(points in points(), to in prop::array::uniform3(-2.0f32..2.0), count in 1usize..50) {
        let mut found = Vec::new();
        Columns::new(&points).nearest(to, count, &mut found);
        let at: Vec<usize> = found.iter().map(|(_, at)| *at).collect();
        prop_assert_eq!(at, nearest(&points, to, count));
    }

    #[test]
    fn groups_hold_their_points_relative_to_the_centre(points in points(), count in 1usize..9, size in 1usize..9) {
        prop_assume!(size <= points.len());
        let values: Vec<f32> = (0..points.len()).map(|at| at as f32).collect();
        let mut input = Vec::new();
        group(&points, &values, 1, [count, size], &mut input);
        prop_assert_eq!(input.len(), count * (1 + size) * 4);
        for (group, centre) in input.chunks_exact((1 + size) * 4).zip(farthest(&points, count)) {
            let rows: Vec<&[f32]> = group.chunks_exact(4).collect();
            prop_assert_eq!(&rows[0][..3], &points[centre][..]);
            prop_assert_eq!(rows[0][3], centre as f32);
            for (row, at) in rows[1..].iter().zip(nearest(&points, points[centre], size)) {
                prop_assert_eq!(row[3], at as f32);
                for axis in 0..3 {
                    prop_assert_eq!(row[axis], points[at][axis] - points[centre][axis]);
                }
            }
        }
    }
}

#[test]
fn coinciding_and_huge_points_are_no_trouble() {
    let same = vec![[3.0f32, 4.0, 5.0]; 8];
    assert_eq!(Columns::new(&same).farthest(4, 0), [0, 0, 0, 0]);
    let mut input = Vec::new();
    group(&same, &[], 0, [4, 8], &mut input);
    assert!(input.iter().all(|x| x.is_finite()));
    let huge = [[3e38f32, 0.0, 0.0], [-3e38, 0.0, 0.0], [0.0; 3]];
    assert_eq!(Columns::new(&huge).farthest(3, 0).len(), 3);
    assert!(Columns::new(&[]).farthest(3, 0).is_empty());
}
