//! Statistics of orders against counting them out.

use std::collections::HashSet;
use std::sync::Arc;

use ophidian_scan::{Geometry, Graph, Order, Pattern, Plan, Points, Spread, Stats, stats};
use proptest::prelude::*;

fn measured(pattern: &str, shape: &str) -> Stats {
    let geometry: Geometry = shape.parse().unwrap();
    stats(&pattern.parse::<Pattern>().unwrap().plan(&geometry).unwrap(), &geometry).unwrap()
}

fn spread(mean: f64, p95: f64) -> Option<Spread> {
    Some(Spread { mean, p95 })
}

#[test]
fn rows_of_a_grid() {
    let row = measured("row", "3x4");
    // 9 pairs side by side are 1 step apart, 8 pairs above each other 4.
    assert_eq!(row.step_distance, spread((9.0 + 8.0 * 4.0) / 17.0, 4.0));
    // 9 steps to the right, 2 back to the start of the next row.
    let back = 10f64.sqrt();
    assert_eq!(row.space_distance, spread((9.0 + 2.0 * back) / 11.0, back));
    assert_eq!(row.adjacent, Some(9.0 / 11.0));
    assert_eq!((row.overlap_directed, row.overlap_undirected), (None, None));
    let both = measured("row | bidirectional", "3x4");
    assert_eq!((both.overlap_directed, both.overlap_undirected), (Some(0.0), Some(1.0)));
    assert_eq!(both.step_distance, row.step_distance);
    let snake = measured("serpentine", "3x4");
    assert_eq!((snake.adjacent, snake.space_distance), (Some(1.0), spread(1.0, 1.0)));
}

#[test]
fn blanks_resets_and_repeats_are_counted() {
    let windows = measured("window(2, reset=true)", "3x3");
    assert_eq!((windows.blanks, windows.resets, windows.repeats, windows.unvisited), (7, 3, 0, 0));
    // Pairs on both sides of a reset are not scan neighbours: 3 + 1 + 1 + 0 are left, one of them diagonal.
    assert_eq!(windows.adjacent, Some(4.0 / 5.0));
    let geometry = Geometry::Sequence { len: 4 };
    let plan = Plan::new(vec![Order::new(vec![2, -1, 2, 0], 4).unwrap()]).unwrap();
    let found = stats(&plan, &geometry).unwrap();
    assert_eq!((found.blanks, found.repeats, found.unvisited, found.steps), (1, 1, 2, 4));
    assert_eq!(found.step_distance, None); // 2 and 0 are no neighbours
    assert_eq!(found.space_distance, spread(1.0, 2.0));
    assert!(stats(&plan, &Geometry::Sequence { len: 5 }).unwrap_err().to_string().contains("4 tokens"));
}

#[test]
fn single_tokens_have_no_neighbours() {
    let one = measured("row | bidirectional", "1");
    assert_eq!(
        (one.step_distance, one.space_distance, one.adjacent, one.overlap_directed),
        (None, None, None, None)
    );
}

#[test]
fn graphs_count_edges() {
    // A path of four and a pair, with a loop and an edge given both ways.
    let edges = vec![[0, 1], [1, 2], [2, 1], [2, 3], [4, 5], [4, 4]];
    let geometry = Geometry::Graph(Arc::new(Graph::new(6, edges).unwrap()));
    let plan = Plan::new(vec![Order::new(vec![0, 3, 2, 1, 4, 5], 6).unwrap()]).unwrap();
    let found = stats(&plan, &geometry).unwrap();
    // Pairs 01, 12, 23, 45 are 3, 1, 1, 1 steps apart; steps 0-3, 3-2, 2-1, 4-5 are 3, 1, 1, 1 edges long, 1-4 has no path.
    assert_eq!(found.step_distance, spread(1.5, 3.0));
    assert_eq!(found.space_distance, spread(1.5, 3.0));
    assert_eq!((found.adjacent, found.unreachable), (Some(3.0 / 5.0), 1));
    // A node is no neighbour of itself, whatever edges there are.
    let plan = Plan::new(vec![Order::new(vec![4, 4, 5], 6).unwrap()]).unwrap();
    let found = stats(&plan, &geometry).unwrap();
    assert_eq!((found.adjacent, found.space_distance), (Some(0.5), spread(0.5, 1.0)));
}

/// Everything by definition: all pairs of tokens and steps.
fn counted(plan: &Plan, near: &dyn Fn(usize, usize) -> bool, far: &dyn Fn(usize, usize) -> f64) -> Stats {
    let tokens = plan.tokens();
    let (mut along, mut apart, mut adjacent, mut walks) = (Vec::new(), Vec::new(), 0, Vec::new());
    for order in plan.orders() {
        let first = |i: usize| order.index().iter().position(|&found| found == i as i32);
        for i in 0..tokens {
            for j in i + 1..tokens {
                if let (true, Some(a), Some(b)) = (near(i, j), first(i), first(j)) {
                    along.push(a.abs_diff(b) as f64);
                }
            }
        }
        let mut walk = Vec::new();
        for t in 0..order.len() {
            for s in t + 1..order.len() {
                let (i, j) = (order.index()[t], order.index()[s]);
                let between = &order.index()[t + 1..s];
                if i >= 0
                    && j >= 0
                    && between.iter().all(|&i| i < 0)
                    && !order.resets()[t + 1..=s].contains(&true)
                {
                    walk.push((i as usize, j as usize));
                }
            }
        }
        apart.extend(walk.iter().map(|&(i, j)| far(i, j)));
        adjacent += walk.iter().filter(|&&(i, j)| near(i.min(j), i.max(j))).count();
        walks.push(walk);
    }
    let of = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        let rank = (values.len() as f64 * 0.95).ceil() as usize;
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        rank.checked_sub(1).map(|last| Spread { mean, p95: values[last] })
    };
    let overlap = |turn: &dyn Fn((usize, usize)) -> (usize, usize)| {
        let sets: Vec<HashSet<_>> =
            walks.iter().map(|walk| walk.iter().map(|&pair| turn(pair)).collect()).collect();
        let mut shares = Vec::new();
        for k in 0..sets.len() {
            for other in &sets[k + 1..] {
                let both = sets[k].len() + other.len();
                if both > 0 {
                    shares.push(2.0 * sets[k].intersection(other).count() as f64 / both as f64);
                }
            }
        }
        (!shares.is_empty()).then(|| shares.iter().sum::<f64>() / shares.len() as f64)
    };
    let next = apart.len();
    Stats {
        directions: plan.directions(),
        tokens,
        steps: plan.orders().iter().map(Order::len).sum(),
        step_distance: of(along),
        space_distance: of(apart),
        adjacent: (next > 0).then(|| adjacent as f64 / next as f64),
        overlap_directed: overlap(&|pair| pair),
        overlap_undirected: overlap(&|(i, j)| (i.min(j), i.max(j))),
        blanks: plan.orders().iter().map(Order::blanks).sum(),
        resets: plan.orders().iter().flat_map(|order| order.resets()).filter(|&&reset| reset).count(),
        repeats: plan.orders().iter().flat_map(Order::visits).map(|n| n.saturating_sub(1) as usize).sum(),
        unvisited: plan.orders().iter().flat_map(Order::visits).filter(|&n| n == 0).count(),
        unreachable: 0,
    }
}

fn same(found: &Stats, expected: &Stats) -> std::result::Result<(), TestCaseError> {
    let close = |a: Option<f64>, b: Option<f64>| match (a, b) {
        (Some(a), Some(b)) => (a - b).abs() < 1e-9 * (1.0 + b.abs()),
        (a, b) => a == b,
    };
    let spreads = |a: Option<Spread>, b: Option<Spread>| {
        close(a.map(|s| s.mean), b.map(|s| s.mean)) && close(a.map(|s| s.p95), b.map(|s| s.p95))
    };
    let whole = |s: &Stats| {
        (s.directions, s.tokens, s.steps, s.blanks, s.resets, s.repeats, s.unvisited, s.unreachable)
    };
    prop_assert_eq!(whole(found), whole(expected));
    prop_assert!(spreads(found.step_distance, expected.step_distance), "{:?} {:?}", found, expected);
    prop_assert!(spreads(found.space_distance, expected.space_distance), "{:?} {:?}", found, expected);
    prop_assert!(close(found.adjacent, expected.adjacent), "{:?} {:?}", found, expected);
    prop_assert!(close(found.overlap_directed, expected.overlap_directed), "{:?} {:?}", found, expected);
    prop_assert!(close(found.overlap_undirected, expected.overlap_undirected), "{:?} {:?}", found, expected);
    Ok(())
}

fn plan(tokens: usize) -> impl Strategy<Value = Plan> {
    let step = (-1..tokens as i32, prop::bool::weighted(0.2));
    let order = prop::collection::vec(step, 1..40).prop_map(move |steps| {
        let (index, resets): (Vec<i32>, Vec<bool>) = steps.into_iter().unzip();
        Order::new(index, tokens).unwrap().with_resets(resets).unwrap()
    });
    prop::collection::vec(order, 1..4).prop_map(|orders| Plan::new(orders).unwrap())
}

proptest! {
    #[test]
    fn grids_by_definition(
        (frames, height, width, plan) in (1..4usize, 1..5usize, 1..5usize)
            .prop_flat_map(|(f, h, w)| (Just(f), Just(h), Just(w), plan(f * h * w))),
    ) {
        let place = |i: usize| [i / (height * width), i / width % height, i % width];
        let offset = |i: usize, j: usize| -> Vec<usize> {
            place(i).iter().zip(place(j)).map(|(&a, b)| a.abs_diff(b)).collect()
        };
        let near = |i: usize, j: usize| offset(i, j).iter().sum::<usize>() == 1;
        let far = |i: usize, j: usize| (offset(i, j).iter().map(|d| d * d).sum::<usize>() as f64).sqrt();
        let geometry = Geometry::Grid3 { frames, height, width };
        same(&stats(&plan, &geometry).unwrap(), &counted(&plan, &near, &far))?;
        if frames == 1 {
            let geometry = Geometry::Grid2 { height, width };
            same(&stats(&plan, &geometry).unwrap(), &counted(&plan, &near, &far))?;
        }
        if frames == 1 && height == 1 {
            let geometry = Geometry::Sequence { len: width };
            same(&stats(&plan, &geometry).unwrap(), &counted(&plan, &near, &far))?;
        }
    }

    #[test]
    fn points_by_definition(
        (xyz, cut, plan) in prop::collection::vec((0..4u8, 0..4u8, 0..3u8), 1..30)
            .prop_flat_map(|xyz| { let n = xyz.len(); (Just(xyz), 0..n, plan(n)) }),
    ) {
        // Whole coordinates: many points are equally far away, or at the same place.
        let xyz: Vec<[f32; 3]> = xyz.into_iter().map(|(x, y, z)| [x, y, z].map(f32::from)).collect();
        let starts = if cut == 0 { vec![0, xyz.len()] } else { vec![0, cut, xyz.len()] };
        let square = |i: usize, j: usize| -> f64 {
            xyz[i].iter().zip(xyz[j]).map(|(&a, b)| f64::from(a - b).powi(2)).sum()
        };
        let sample = |i: usize| i >= cut;
        let nearest = |i: usize| -> Vec<usize> {
            let mut others: Vec<usize> = (0..xyz.len()).filter(|&j| j != i && sample(i) == sample(j)).collect();
            others.sort_by(|&a, &b| square(i, a).total_cmp(&square(i, b)).then(a.cmp(&b)));
            others.truncate(6);
            others
        };
        let near = |i: usize, j: usize| nearest(i).contains(&j) || nearest(j).contains(&i);
        let far = |i: usize, j: usize| square(i, j).sqrt();
        let geometry = Geometry::Points(Arc::new(Points::packed(xyz.clone(), starts).unwrap()));
        same(&stats(&plan, &geometry).unwrap(), &counted(&plan, &near, &far))?;
    }
}

/// Each of many points at a few places has as neighbours those of the lowest numbers, as brute force says of few, and they
/// are found at once.
#[test]
fn many_points_at_one_place() {
    let places = [[0.0, 0.0, 0.0], [1.0, 0.0, 0.0], [1.0, 2.0, 0.0]];
    for count in [3, 20, 40_000] {
        let xyz: Vec<[f32; 3]> = (0..count).map(|i| places[i % 3]).collect();
        let geometry = Geometry::Points(Arc::new(Points::new(xyz).unwrap()));
        let plan: Plan = "hilbert".parse::<Pattern>().unwrap().plan(&geometry).unwrap();
        let found = stats(&plan, &geometry).unwrap();
        let apart = found.space_distance.unwrap().mean;
        // Two steps from one place to the next, 1 and 2 apart, in any case; all others stay.
        assert!((apart * (count - 1) as f64 - 3.0).abs() < 1.3, "{count}: {apart}");
    }
}
