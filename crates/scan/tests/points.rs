//! Orders of points: the authors' own, the laws they keep to, and bad input.

use std::sync::Arc;

use ophidian_scan::{
    Geometry, Pattern, Plan, PointCompat, PointCurve, Points, Serialization, hilbert_key, morton_key,
};
use proptest::prelude::*;

mod golden;

use golden::{Golden, files, number};

const CURVES: [&str; 10] =
    ["hilbert", "hilbert-trans", "z", "z-trans", "xyz", "xzy", "yxz", "yzx", "zxy", "zyx"];

fn plan(pattern: &str, points: &Points) -> Plan {
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    let plan = pattern.plan(&Geometry::Points(Arc::new(points.clone())));
    plan.unwrap_or_else(|error| panic!("{pattern}: {error}"))
}

fn index(pattern: &str, points: &Points) -> Vec<i64> {
    plan(pattern, points).orders()[0].index().iter().map(|&i| i64::from(i)).collect()
}

fn error(pattern: &str, points: &Points) -> String {
    let pattern: Pattern = pattern.parse().unwrap_or_else(|error| panic!("{error}"));
    pattern.plan(&Geometry::Points(Arc::new(points.clone()))).unwrap_err().to_string()
}

fn curve(name: &str) -> Serialization {
    Serialization::new(name.parse().unwrap())
}

/// The steps at which the state starts afresh.
fn resets(plan: &Plan) -> Vec<usize> {
    let resets = plan.orders()[0].resets().iter().enumerate();
    resets.filter(|(_, reset)| **reset).map(|(step, _)| step).collect()
}

/// Codes and orders of PointMamba and PCM, ties apart, over every file there is.
#[test]
fn serializations_are_the_authors() {
    for path in files("pointmamba_serialize").into_iter().chain(files("pcm_serialize")) {
        let (golden, points) = (Golden::open(&path), Points::read(&path).unwrap());
        let samples = golden.shape("pos")[0];
        for name in golden.names().iter().filter_map(|name| name.strip_prefix("code_")) {
            let authors = Serialization { compat: PointCompat::Pcm, ..curve(&name.replace('_', "-")) };
            let codes = authors.codes(&points).unwrap();
            assert_eq!(codes, golden.whole(&format!("code_{name}")), "{name} of {}", path.display());
            let found = authors.plan(&points).unwrap();
            let order: Vec<i64> = found.orders()[0].index().iter().map(|&i| i64::from(i)).collect();
            let expected = golden.whole(&format!("order_{name}"));
            if golden.whole(&format!("ties_{name}")) == [0] {
                assert_eq!(order, expected, "{name} of {}", path.display());
                let inverse = found.orders()[0].inverse().unwrap();
                let inverse: Vec<i64> = inverse.index().iter().map(|&i| i64::from(i)).collect();
                assert_eq!(inverse, golden.whole(&format!("inverse_{name}")));
            }
            let sorted = |order: &[i64]| order.iter().map(|&i| codes[i as usize]).collect::<Vec<_>>();
            assert_eq!(sorted(&order), sorted(&expected), "{name} of {}", path.display());
            let size = points.len() / samples;
            assert_eq!(resets(&found), (1..samples).map(|sample| sample * size).collect::<Vec<_>>());
            let text = format!("serialize({}, compat=pcm)", name.replace('_', "-"));
            assert_eq!(plan(&text, &points), found);
            if !name.contains(['x', 'y']) {
                // Neither the paper nor the code deviates.
                assert_eq!(curve(&name.replace('_', "-")).plan(&points).unwrap(), found);
            }
        }
    }
}

#[test]
fn codes_of_all_cells_are_the_authors() {
    for path in files("pcm_codes_full_grid") {
        let (golden, cells) = (Golden::open(&path), Points::read(&path).unwrap());
        assert!(cells.are_voxels());
        for name in
            CURVES.iter().filter(|name| golden.names().contains(&format!("code_{name}").replace('-', "_")))
        {
            let depth = Some(number(&path, "bits"));
            let authors = Serialization { compat: PointCompat::Pcm, depth, ..curve(name) };
            assert_eq!(
                authors.codes(&cells).unwrap(),
                golden.whole(&format!("code_{name}").replace('-', "_")),
                "{name}"
            );
        }
    }
}

#[test]
fn hilbert_keys_are_the_authors() {
    fn same<const D: usize>(prefix: &str) {
        for path in files(prefix) {
            let golden = Golden::open(&path);
            let cells = golden.whole("coords");
            let cells = cells.chunks_exact(D).map(|cell| std::array::from_fn::<_, D, _>(|i| cell[i] as u32));
            let keys: Vec<i64> = cells.map(|cell| hilbert_key(cell, number(&path, "bits")) as i64).collect();
            assert_eq!(keys, golden.whole("code"), "{}", path.display());
            let mut order: Vec<i64> = (0..keys.len() as i64).collect();
            order.sort_by_key(|&i| keys[i as usize]);
            assert_eq!(order, golden.whole("order"), "{}", path.display());
        }
    }
    same::<2>("pointmamba_hilbert2d");
    same::<3>("pointmamba_hilbert3d");
}

#[test]
fn hilbert_depends_on_the_depth_as_the_authors_have_it() {
    for path in files("pointmamba_hilbert_depth_dependence") {
        let (golden, cells) = (Golden::open(&path), Points::read(&path).unwrap());
        for name in golden.names().iter().filter(|name| name.starts_with("order_depth")) {
            let depth = name.strip_prefix("order_depth").unwrap();
            assert_eq!(index(&format!("serialize(hilbert, depth={depth})"), &cells), golden.whole(name));
        }
    }
}

/// The two orders of PointMamba, one after the other, each scaled by its order indicator.
#[test]
fn order_indicator_concat() {
    for path in files("pointmamba_order_indicator_concat") {
        let (golden, points) = (Golden::open(&path), Points::read(&path).unwrap());
        let plan = plan("[serialize(hilbert), serialize(hilbert-trans)] | concat", &points);
        let order = &plan.orders()[0];
        let (size, channels) = (golden.shape("tokens")[1], golden.shape("tokens")[2]);
        let (tokens, positions) = (golden.real("tokens"), golden.real("pos"));
        let indicator = |k: &str| [format!("gamma{k}"), format!("beta{k}")].map(|name| golden.real(&name));
        let indicators = ["1", "2"].map(indicator);
        let (mut sequence, mut pos) = (Vec::new(), Vec::new());
        for (step, &token) in order.index().iter().enumerate() {
            let [gamma, beta] = &indicators[step / size % 2];
            let row = token as usize * channels..(token as usize + 1) * channels;
            let scaled = tokens[row.clone()].iter().zip(gamma).zip(beta);
            sequence.extend(scaled.map(|((x, gamma), beta)| gamma * x + beta));
            pos.extend_from_slice(&positions[row]);
            assert_eq!(order.resets()[step], step > 0 && step % (2 * size) == 0);
        }
        let near =
            |a: &[f32], b: &[f32]| a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
        assert!(near(&sequence, &golden.real("sequence")), "{}", path.display());
        assert!(near(&pos, &golden.real("pos_sequence")), "{}", path.display());
    }
}

#[test]
fn voxel_orders_are_the_authors() {
    for path in files("voxelmamba_hilbert3d") {
        let (golden, voxels) = (Golden::open(&path), Points::read(&path).unwrap());
        let (bits, slices) = (number(&path, "bits"), number(&path, "_z"));
        let side = 1u32 << bits;
        let cells = (0..slices).flat_map(|z| (0..side).flat_map(move |y| (0..side).map(move |x| [z, y, x])));
        let template: Vec<i64> = cells.map(|cell| hilbert_key(cell, bits) as i64).collect();
        assert_eq!(template, golden.whole("template"), "{}", path.display());
        let mut compared = 0;
        for name in golden.names().iter().filter_map(|name| name.strip_prefix("order_b")) {
            let (sample, shift) = name.split_once("_shift").unwrap();
            let sample = voxels.samples().nth(sample.parse().unwrap()).unwrap();
            let walk = index(&format!("voxel-hilbert({bits}, slices={slices}, shift={shift})"), &voxels);
            let within: Vec<i64> = walk[sample.clone()].iter().map(|i| i - sample.start as i64).collect();
            assert_eq!(within, golden.whole(&format!("order_b{name}")), "{name} of {}", path.display());
            compared += 1;
        }
        assert!(compared > 1);
    }
    for path in files("voxelmamba_hilbert2d") {
        let golden = Golden::open(&path);
        let bits = number(&path, "bits");
        let pillars: Vec<[i64; 3]> =
            (0..1i64 << (2 * bits)).map(|i| [i % (1 << bits), i >> bits, 0]).collect();
        let ranks = pillars.iter().map(|&[x, y, _]| hilbert_key([y as u32, x as u32], bits) as i64);
        assert_eq!(ranks.collect::<Vec<_>>(), golden.whole("convert_to_index"));
        let pillars = Points::voxels(&pillars, vec![0, pillars.len()]).unwrap();
        let mut inverse = vec![0; pillars.len()];
        for (step, token) in
            index(&format!("voxel-hilbert({bits}, flat=true)"), &pillars).into_iter().enumerate()
        {
            inverse[token as usize] = step as i64;
        }
        assert_eq!(inverse, golden.whole("convert_to_index"));
    }
}

/// At the end of a row the shift goes on in the next row, at the end of a slice in the next slice.
#[test]
fn a_shift_spills() {
    let cells = [[3, 0, 0], [0, 1, 0], [3, 3, 0], [1, 2, 2]];
    let voxels = Points::voxels(&cells, vec![0, 4]).unwrap();
    let rank = |&i: &i64| {
        let [x, y, z] = cells[i as usize].map(|x| x as u32);
        let flat = (z + 1) * 16 + (y + 1) * 4 + x + 1;
        hilbert_key([flat / 16, flat / 4 % 4, flat % 4], 2)
    };
    let walk = index("voxel-hilbert(2, shift=1)", &voxels);
    assert!(walk.is_sorted_by_key(rank), "{walk:?}");
    let message = error("voxel-hilbert(2, shift=2)", &voxels);
    assert!(message.contains("voxel 3 is at z 2, y 2, x 1") && message.contains("4 slices"), "{message}");
    let corner = Points::voxels(&[[3, 3, 1]], vec![0, 1]).unwrap();
    assert!(error("voxel-hilbert(2, slices=3, shift=1)", &corner).contains("3 slices"));
}

/// A consistent traverse goes from each cell to one beside it, the first axis fastest, whatever the shape.
#[test]
fn traverses_never_jump() {
    for (height, width, depth) in [(3, 4, 5), (1, 7, 2), (4, 4, 4), (2, 1, 9)] {
        let cells =
            (0..depth).flat_map(|z| (0..height).flat_map(move |y| (0..width).map(move |x| [x, y, z])));
        let cells: Vec<[i64; 3]> = cells.collect();
        let voxels = Points::voxels(&cells, vec![0, cells.len()]).unwrap();
        for (name, axes) in [("xyz", [0, 1, 2]), ("zxy", [2, 0, 1]), ("yzx", [1, 2, 0]), ("xzy", [0, 2, 1])] {
            let walk = index(&format!("serialize({name})"), &voxels);
            for pair in walk.windows(2) {
                let [a, b] = [cells[pair[0] as usize], cells[pair[1] as usize]];
                assert_eq!((0..3).map(|i| a[i].abs_diff(b[i])).sum::<u64>(), 1, "{name}: {a:?} to {b:?}");
            }
            assert_eq!(cells[walk[0] as usize], [0, 0, 0]);
            // The slowest axis only ever grows.
            assert!(walk.is_sorted_by_key(|&i| cells[i as usize][axes[2]]), "{name}");
        }
    }
}

/// As released, a flat set mixes points of different samples; as meant, samples stay together.
#[test]
fn released_traverses_mix_samples_of_a_flat_set() {
    let points = |z: f32| {
        let xyz = (0..40).map(|i| [(i * 7 % 20) as f32, (i * 3 % 5) as f32, z * (i % 3) as f32]).collect();
        Points::packed(xyz, vec![0, 20, 40]).unwrap()
    };
    let together = |pattern: &str, points: &Points| index(pattern, points)[..20].iter().all(|&i| i < 20);
    assert!(!together("serialize(xyz, grid=1, compat=pcm)", &points(0.0)));
    assert!(together("serialize(xyz, grid=1, compat=pcm)", &points(1.0)));
    assert!(together("serialize(xyz, grid=1)", &points(0.0)));
    assert_eq!(resets(&plan("serialize(xyz, grid=1, compat=pcm)", &points(0.0))), [20]);
    assert!(resets(&plan("serialize(z, grid=1, compat=point-mamba-octree)", &points(1.0))).is_empty());
    assert_eq!(resets(&plan("serialize(z, grid=1)", &points(1.0))), [20]);
}

/// Random points on a fine lattice, in up to three samples.
fn clouds() -> impl Strategy<Value = Points> {
    let point = [-40..40i32, -40..40i32, -40..40i32].prop_map(|p| p.map(|x| x as f32 * 0.25));
    prop::collection::vec(prop::collection::vec(point, 1..30), 1..4).prop_map(|samples| {
        let mut starts = vec![0];
        starts.extend(samples.iter().scan(0, |sum, sample| {
            *sum += sample.len();
            Some(*sum)
        }));
        Points::packed(samples.concat(), starts).unwrap()
    })
}

/// A plain order: cells and keys as the equations have them, then a stable sort.
fn reference(points: &Points, name: &str, grid: f32, depth: u32) -> Vec<i64> {
    let mut order = Vec::new();
    for sample in points.samples() {
        let cell = |i: usize| points.xyz()[i].map(|x| (x / grid).floor() as i64);
        let least: [i64; 3] = std::array::from_fn(|a| sample.clone().map(|i| cell(i)[a]).min().unwrap());
        let key = |i: usize| -> Vec<i64> {
            let [x, y, z]: [u32; 3] = std::array::from_fn(|a| (cell(i)[a] - least[a]) as u32);
            match name {
                "hilbert" => vec![hilbert_key([x, y, z], depth) as i64],
                "hilbert-trans" => vec![hilbert_key([y, x, z], depth) as i64],
                "z" => vec![morton_key([x, y, z], depth) as i64],
                "z-trans" => vec![morton_key([y, x, z], depth) as i64],
                name => {
                    let [a, b, c] =
                        [0, 1, 2].map(|i| i64::from([x, y, z][name.as_bytes()[i] as usize - b'x' as usize]));
                    // Planes up; rows up in even planes and down in odd ones; along a row forwards where row and plane
                    // are both even or both odd.
                    let b = if c % 2 == 0 { b } else { -b };
                    let a = if (b + c) % 2 == 0 { a } else { -a };
                    vec![c, b, a]
                }
            }
        };
        let mut of_sample: Vec<usize> = sample.collect();
        of_sample.sort_by_key(|&i| key(i));
        order.extend(of_sample.into_iter().map(|i| i as i64));
    }
    order
}

proptest! {
    #[test]
    fn orders_are_those_of_the_equations(points in clouds(), at in 0..CURVES.len(), coarse in any::<bool>()) {
        let (grid, name) = (if coarse { 2.0 } else { 0.5 }, CURVES[at]);
        let depth = 6;
        let found = plan(&format!("serialize({name}, grid={grid:?}, depth={depth})"), &points);
        prop_assert!(found.orders()[0].is_permutation());
        let order: Vec<i64> = found.orders()[0].index().iter().map(|&i| i64::from(i)).collect();
        prop_assert_eq!(order, reference(&points, name, grid, depth));
        prop_assert_eq!(resets(&found), points.starts()[1..points.starts().len() - 1].to_vec());
        // Codes order as the walk does, samples in their high bits.
        let codes = Serialization { grid, depth: Some(depth), ..curve(name) }.codes(&points).unwrap();
        prop_assert!(found.orders()[0].index().is_sorted_by_key(|&i| (codes[i as usize], i)));
        for (sample, range) in points.samples().enumerate() {
            prop_assert!(codes[range].iter().all(|code| code >> (3 * depth) == sample as i64));
        }
    }

    #[test]
    fn moving_all_points_by_whole_cells_changes_nothing(
        points in clouds(), at in 0..CURVES.len(), by in [-50..50i32, -50..50i32, -50..50i32],
    ) {
        let moved = points.xyz().iter().map(|p| std::array::from_fn(|a| p[a] + by[a] as f32)).collect();
        let moved = Points::packed(moved, points.starts().to_vec()).unwrap();
        let pattern = format!("serialize({}, grid=0.5)", CURVES[at]);
        prop_assert_eq!(plan(&pattern, &points), plan(&pattern, &moved));
    }

    #[test]
    fn at_a_fixed_depth_a_sample_does_not_see_the_others(points in clouds(), at in 0..CURVES.len()) {
        let pattern = format!("serialize({}, grid=0.5, depth=9)", CURVES[at]);
        let all = index(&pattern, &points);
        for sample in points.samples() {
            let alone = Points::new(points.xyz()[sample.clone()].to_vec()).unwrap();
            let alone: Vec<i64> = index(&pattern, &alone).iter().map(|i| i + sample.start as i64).collect();
            prop_assert_eq!(&all[sample], &alone[..]);
        }
    }

    #[test]
    fn exchanged_axes_are_the_trans_orders(points in clouds(), hilbert in any::<bool>()) {
        let turned = points.xyz().iter().map(|&[x, y, z]| [y, x, z]).collect();
        let turned = Points::packed(turned, points.starts().to_vec()).unwrap();
        let name = if hilbert { "hilbert" } else { "z" };
        prop_assert_eq!(
            plan(&format!("serialize({name}-trans, grid=0.5)"), &points),
            plan(&format!("serialize({name}, grid=0.5)"), &turned)
        );
    }

    /// Each sample by itself, walked in both directions.
    #[test]
    fn joined_directions_stay_in_their_sample(points in clouds(), reset in any::<bool>()) {
        let both = "[axis(x), axis(y) | reverse]";
        let found = plan(&format!("{both} | concat(reset={reset})"), &points);
        let (mut index, mut afresh) = (Vec::new(), Vec::new());
        for sample in points.samples() {
            let alone = Points::new(points.xyz()[sample.clone()].to_vec()).unwrap();
            afresh.push(index.len());
            for (k, order) in plan(both, &alone).orders().iter().enumerate() {
                if k > 0 && reset {
                    afresh.push(index.len());
                }
                index.extend(order.index().iter().map(|i| i + sample.start as i32));
            }
        }
        prop_assert_eq!(found.orders()[0].index(), &index[..]);
        prop_assert_eq!(resets(&found), afresh[1..].to_vec());
    }

    #[test]
    fn axis_sorts_ascend(points in clouds(), axis in 0..3usize) {
        let walk = index(&format!("axis({})", ["x", "y", "z"][axis]), &points);
        for sample in points.samples() {
            let key = |i: i64| points.xyz()[i as usize][axis];
            let ascends = |a: &i64, b: &i64| key(*a) < key(*b) || (key(*a) == key(*b) && a < b);
            prop_assert!(walk[sample].is_sorted_by(ascends));
        }
    }

    /// Most sets lie within a grid, some hold a coordinate of any size, some one that is no number or infinite.
    #[test]
    fn any_finite_points_are_ordered_or_refused(
        xyz in prop::collection::vec(
            prop::array::uniform3(prop_oneof![40 => -1.0..1.0f32, 1 => prop::num::f32::ANY]), 0..20,
        ),
        at in 0..CURVES.len(),
    ) {
        let finite = xyz.iter().flatten().all(|x| x.is_finite());
        let points = Points::new(xyz.clone());
        prop_assert_eq!(points.is_ok(), finite && !xyz.is_empty());
        if let Ok(points) = points {
            let found = curve(CURVES[at]).plan(&points);
            prop_assert!(found.is_err() || found.unwrap().orders()[0].is_permutation());
        }
    }
}

#[test]
fn equal_points_keep_their_numbering() {
    let points = Points::new(vec![[0.25, -1.0, 3.0]; 5]).unwrap();
    for name in CURVES {
        assert_eq!(index(&format!("serialize({name})"), &points), [0, 1, 2, 3, 4], "{name}");
    }
    assert_eq!(points.summary().to_string(), "5 points, 4 at the place of an earlier one");
    assert_eq!(
        oddities(points),
        ["4 points at the place of an earlier one (the first: points 0 and 1 at [0.25, -1.0, 3.0])"]
    );
    // Samples apart: the second holds point 0's place anew, the third one point, at -0 for 0.
    let places = [[0.0; 3], [1.0; 3], [0.0; 3], [2.0, 0.0, 1.0], [2.0, -0.0, 1.0], [0.0; 3]];
    let packed = Points::packed(places.to_vec(), vec![0, 2, 5, 6]).unwrap();
    assert_eq!(
        oddities(packed),
        [
            "1 point at the place of an earlier one (the first: points 3 and 4 at [2.0, -0.0, 1.0])",
            "1 sample of one point (the first: sample 2)"
        ]
    );
    let one = Points::new(vec![[1e30, -2.0, 0.0]]).unwrap();
    assert_eq!(index("serialize(hilbert)", &one), [0]);
    assert_eq!(curve("z").codes(&one).unwrap(), [0]);
}

fn oddities(points: Points) -> Vec<String> {
    points.oddities(&points.summary()).iter().map(ToString::to_string).collect()
}

#[test]
fn bad_points_are_told() {
    let refused =
        |xyz: Vec<[f32; 3]>, starts: Vec<usize>| Points::packed(xyz, starts).unwrap_err().to_string();
    assert_eq!(refused(vec![], vec![0]), "there is no point");
    let nan = refused(vec![[0.0; 3], [0.0, f32::NAN, 1.0]], vec![0, 2]);
    assert_eq!(nan, "point 1 is [0.0, NaN, 1.0], expected finite coordinates");
    let empty = refused(vec![[0.0; 3]; 4], vec![0, 2, 2, 4]);
    assert_eq!(empty, "sample 1 goes from point 2 to point 2, expected at least one");
    assert!(refused(vec![[0.0; 3]; 4], vec![0, 3]).contains("expected 0 to 4"));
    let voxel = Points::voxels(&[[0, 0, 0], [1, -1, 0]], vec![0, 2]).unwrap_err().to_string();
    assert_eq!(voxel, "voxel 1 is at x 1, y -1, z 0, expected coordinates from 0 to 2097151");

    let wide = Points::new(vec![[0.0; 3], [0.0, 5e6, 0.0]]).unwrap();
    let message = error("serialize(hilbert, grid=1)", &wide);
    assert!(
        message.contains("point 1 at [0.0, 5000000.0, 0.0]") && message.contains("larger grid"),
        "{message}"
    );
    let message = error("serialize(z, grid=1000000, depth=2)", &wide);
    assert!(message.contains("depth of 2 holds 4 cells along an axis: use 3"), "{message}");
    assert!(error("serialize(z, grid=10, depth=22)", &wide).contains("at most 21"));
    let huge = Points::new(vec![[f32::MAX; 3], [f32::MIN; 3]]).unwrap();
    assert!(error("serialize(hilbert)", &huge).contains("larger grid"));
    assert!(error("voxel-hilbert(4)", &wide).contains("no voxels"));
    let voxels = Points::voxels(&[[3, 0, 0], [16, 0, 0]], vec![0, 2]).unwrap();
    assert!(error("voxel-hilbert(4)", &voxels).contains("voxel 1 is at z 0, y 0, x 16"));
    assert!(error("voxel-hilbert(4, slices=17)", &voxels).contains("16"));
    assert!(error("voxel-hilbert(99)", &voxels).contains("expected 1 to 21"));
    assert!(error("voxel-hilbert(4, shift=99)", &voxels).contains("less than 16"));

    let pattern: Pattern = "serialize(z)".parse().unwrap();
    let message = pattern.plan(&"7x9".parse().unwrap()).unwrap_err().to_string();
    assert!(message.contains("`serialize` needs points, but the tokens are a 7x9 grid"), "{message}");
    for (text, culprit) in [
        ("serialize(spiral)", "hilbert-trans"),
        ("serialize(z, grid=0)", "above zero"),
        ("serialize(z, grid=-0.5)", "above zero"),
        ("axis(w)", "x, y, z"),
    ] {
        let message = text.parse::<Pattern>().unwrap_err().to_string();
        assert!(message.contains(culprit), "{message}");
    }
    let many = Points::packed(vec![[0.0; 3], [1e6, 0.0, 0.0], [0.0; 3]], vec![0, 2, 3]).unwrap();
    let codes = Serialization { depth: Some(21), grid: 1.0, ..curve("z") }.codes(&many);
    assert!(codes.unwrap_err().to_string().contains("at most 63"));
    assert!("serialize(z, grid=1, depth=21)".parse::<Pattern>().is_ok());
    assert!(matches!("zyx".parse(), Ok(PointCurve::Traverse([2, 1, 0]))));
}

/// Of several faults the first is told, whichever thread meets one first.
#[test]
fn the_first_of_many_faults_is_told() {
    let far = |i: usize| [if i % 400 == 399 { 5e6 } else { 0.0 }, 0.0, 0.0];
    let cloud = Points::new((0..20_000).map(far).collect()).unwrap();
    let cells: Vec<[i64; 3]> = (0..20_000).map(|i| [if i % 400 == 399 { 16 } else { 0 }, 0, 0]).collect();
    let voxels = Points::voxels(&cells, vec![0, cells.len()]).unwrap();
    for _ in 0..50 {
        let message = error("serialize(z, grid=1)", &cloud);
        assert!(message.starts_with("point 399 at"), "{message}");
        let message = error("voxel-hilbert(4)", &voxels);
        assert!(message.contains("voxel 399 is at"), "{message}");
    }
}

/// Numbers read back as they are written.
#[test]
fn decimal_arguments_read_back() {
    for (text, shown) in [
        ("serialize(z, 0.02)", "serialize(z)"),
        ("serialize(z, grid=0.5, depth=3)", "serialize(z, 0.5, 3)"),
        ("serialize(z, grid=2)", "serialize(z, 2)"),
        ("serialize(z, 2.0)", "serialize(z, 2.0)"),
        ("serialize(z, 0.0000000001)", "serialize(z, 0.0000000001)"),
    ] {
        let pattern: Pattern = text.parse().unwrap();
        assert_eq!(pattern.to_string(), shown);
        assert_eq!(pattern.to_string().parse::<Pattern>().unwrap(), pattern);
    }
    assert!("serialize(z, 1.)".parse::<Pattern>().is_ok());
    let error = "serialize(z, -.)".parse::<Pattern>().unwrap_err().to_string();
    assert!(error.contains("`-.` is not a number"), "{error}");
}
