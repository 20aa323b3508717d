//! The published scans: every row of the table is what it says.

use std::collections::HashSet;
use std::sync::Arc;

use ophidian_scan::{
    Geometry, Graph, Merge, Pattern, Points, Published, Schedule, Shape, entries, published,
};
use proptest::prelude::*;

fn parse(text: &str) -> Pattern {
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn grid(text: &str) -> Geometry {
    text.parse().unwrap()
}

/// Points of two samples in no order, and two graphs of a few nodes.
fn points() -> Geometry {
    let at = |i: usize| [(i * 7 % 11) as f32 * 0.1, (i * 5 % 13) as f32 * 0.1, (i * 3 % 7) as f32 * 0.1];
    Geometry::Points(Arc::new(Points::packed((0..24).map(at).collect(), vec![0, 10, 24]).unwrap()))
}

fn graph() -> Geometry {
    let edges = [[0, 1], [1, 2], [2, 3], [1, 3], [4, 5], [5, 6]];
    let both = edges.iter().flat_map(|&[a, b]| [[a, b], [b, a]]).collect();
    Geometry::Graph(Arc::new(Graph::packed(both, vec![0, 4, 7]).unwrap()))
}

fn geometries() -> Vec<Geometry> {
    let mut all: Vec<Geometry> = ["5", "4x4", "3x5", "1x6", "2x3x3", "3x2x4"].map(grid).to_vec();
    all.extend([points(), graph()]);
    all
}

/// A composition with its arguments at their defaults: what the name alone stands for.
fn by_hand(scan: &'static Published, text: &str) -> String {
    let mut text = text.replace("{#}", "2");
    let usage = scan.usage();
    let arguments = usage.split_once('(').map_or("", |(_, rest)| rest.trim_end_matches(')'));
    for argument in arguments.split(", ").filter(|argument| !argument.is_empty()) {
        let (name, default) = argument.split_once('=').unwrap();
        let default = match (name, default) {
            ("major", "frequency") => "row".to_string(),
            ("directions", words) => {
                let words = words.trim_matches('"').split(' ');
                words.map(|word| format!("localmamba/{word}")).collect::<Vec<_>>().join(", ")
            }
            _ => default.to_string(),
        };
        text = text.replace(&format!("{{{name}}}"), &default);
    }
    assert!(!text.contains('{'), "{}: {text}", scan.name());
    text
}

/// The composition is the definition.
#[test]
fn names_are_their_compositions() {
    for scan in published() {
        let Some(composition) = scan.composition() else { continue };
        let name = scan.example();
        let released = scan.released().map(|text| (format!("{name}(compat=released)"), text));
        for (name, composition) in [(name, composition)].into_iter().chain(released) {
            let (pattern, by_hand) = (parse(&name), parse(&by_hand(scan, composition)));
            for geometry in
                geometries().iter().filter(|geometry| scan.shapes().contains(&Shape::of(geometry)))
            {
                if scan.composition_over().is_some_and(|(shape, _)| shape == Shape::of(geometry)) {
                    continue;
                }
                match (pattern.plan(geometry), by_hand.plan(geometry)) {
                    (Ok(plan), Ok(same)) => assert_eq!(plan, same, "{name} over {geometry}"),
                    (Err(error), Err(same)) => assert_eq!(error.to_string(), same.to_string()),
                    (found, same) => panic!("{name} over {geometry}: {found:?} and {same:?}"),
                }
            }
        }
    }
}

/// A number stands in the composition as a pattern writes it, however small or large.
#[test]
fn numbers_stand_in_the_composition() {
    for grid in ["0.00005", "0.0000000001", "3", "2.0", "10000000000000000000.0"] {
        let (pattern, by_hand) = (format!("pcm/xyz(grid={grid})"), format!("serialize(xyz, {grid})"));
        match (parse(&pattern).plan(&points()), parse(&by_hand).plan(&points())) {
            (Ok(plan), Ok(same)) => assert_eq!(plan, same, "{pattern}"),
            (Err(error), Err(same)) => assert_eq!(error.to_string(), same.to_string()),
            (found, same) => panic!("{pattern}: {found:?} and {same:?}"),
        }
    }
}

/// Every name and alias resolves, in any spelling, to the same scan; and no two scans share one.
#[test]
fn names_resolve() {
    let mut seen = HashSet::new();
    for scan in published() {
        assert!(!scan.system().title().is_empty(), "{} has no system", scan.name());
        assert!(entries().iter().all(|entry| entry.name() != scan.name()));
        for name in [scan.name()].iter().chain(scan.aliases()) {
            assert!(seen.insert(name.to_lowercase().replace('_', "-")), "{name} stands there twice");
            let name = name.replace('#', "3");
            if scan.needs().is_some() {
                let error = name.parse::<Pattern>().unwrap_err().to_string();
                assert!(error.contains("it needs features"), "{error}");
                continue;
            }
            for spelled in [name.clone(), name.to_uppercase(), name.replace('_', "-"), name.replace('-', "_")]
            {
                let pattern = parse(&spelled);
                assert_eq!(pattern.to_string(), scan.name().replace('#', "3"), "{spelled}");
                assert_eq!(pattern.published().map(Published::name), Some(scan.name()));
            }
        }
    }
    assert!(published().len() > 90, "{} scans", published().len());
}

/// It knows the shapes that it says it knows and has as many directions as it says; what it says of others is clear.
#[test]
fn shapes_and_directions_are_as_listed() {
    for scan in published().iter().filter(|scan| scan.needs().is_none()) {
        let pattern = parse(&scan.example());
        let mut known = 0;
        for geometry in geometries() {
            let shape = Shape::of(&geometry);
            match pattern.plan(&geometry) {
                Ok(plan) => {
                    assert!(scan.shapes().contains(&shape), "{} plans over {geometry}", scan.name());
                    assert_eq!(plan.directions().to_string(), scan.directions(), "{}", scan.name());
                    known += 1;
                }
                Err(error) if scan.shapes().contains(&shape) => {
                    // Whole numbers are needed where real ones are given, and ChangeMamba's two images where three are.
                    let voxels = scan.name().starts_with("voxelmamba") && shape == Shape::Points;
                    let pair = scan.name().starts_with("changemamba") && shape == Shape::Volume;
                    assert!(voxels || pair && error.to_string().contains("needs 2 frames"), "{error}");
                    known += 1;
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.contains(scan.name()) && error.contains("but the tokens are"), "{error}");
                    for fit in scan.shapes() {
                        let fit = fit
                            .to_string()
                            .replace("grid", "rows x columns")
                            .replace("volume", "frames x rows");
                        assert!(error.contains(&fit), "{error}: no {fit}");
                    }
                }
            }
        }
        assert!(known > 0, "{}", scan.name());
        if scan.directions() == "1" {
            assert_eq!(scan.schedule(), Schedule::Together);
        } else {
            let merged = scan.merge() != Merge::Alone;
            assert_eq!(merged, scan.schedule() == Schedule::Together, "{}", scan.name());
        }
    }
}

#[test]
fn layers_take_one_direction_each() {
    let all = parse("zigma/zigzag8").plan(&grid("4x4")).unwrap();
    let layers = parse("zigma/zigzag8").layers().unwrap();
    assert_eq!(layers.len(), 8);
    assert_eq!(layers[3].to_string(), "zigma/zigzag8 | direction(3)");
    for (k, (layer, alone)) in layers.iter().zip(all.split()).enumerate() {
        assert_eq!(layer.plan(&grid("4x4")).unwrap(), alone);
        assert_eq!(alone.orders(), &all.orders()[k..=k]);
    }
    assert_eq!(parse("mamband/alternate3d").layers().unwrap().len(), 6);
    assert_eq!(parse("vmamba/cross2d").layers().unwrap(), [parse("vmamba/cross2d")]);
    assert_eq!(parse("row").layers().unwrap(), [parse("row")]);
    let beyond = parse("zigma/zigzag8 | direction(8)").plan(&grid("4x4")).unwrap_err();
    assert_eq!(beyond.to_string(), "there is no direction 8: the plan has 8, numbered 0 to 7");
}

#[test]
fn class_tokens_are_blank_steps() {
    let steps = |text: &str| parse(text).plan(&grid("4")).unwrap().orders()[0].index().to_vec();
    assert_eq!(steps("vim/clslayout"), [0, 1, -1, 2, 3]);
    assert_eq!(steps("vim/clslayout(class_token=head)"), [-1, 0, 1, 2, 3]);
    assert_eq!(steps("vim/clslayout(class_token=\"end\")"), [0, 1, 2, 3, -1]);
    assert_eq!(steps("vim/clslayout(class_token=both)"), [-1, 0, 1, 2, 3, -1]);
    assert_eq!(steps("vim/clslayout(class_token=none)"), [0, 1, 2, 3]);
    // A segment's boundary stays between the tokens that it parts.
    let plan = parse("row | chunk(2) | class_token(middle)").plan(&grid("4")).unwrap();
    assert_eq!(plan.orders()[0].resets(), [false, false, false, true, false]);
}

/// A searched layer of LocalMamba is named by its directions, in the authors' words.
#[test]
fn a_searched_layer_is_its_directions() {
    let layer = parse("localmamba/vssm_merge(directions=\"h_flip v w7_flip w2\")");
    let same = parse("[row | reverse, column, row | window(7) | reverse, row | window(2)]");
    assert_eq!(layer.plan(&grid("4x6")).unwrap(), same.plan(&grid("4x6")).unwrap());
    assert_eq!(layer.to_string(), "localmamba/vssm_merge(\"h_flip v w7_flip w2\")");
    for (words, told) in [
        ("h x7", "has `x7`, expected words such as h"),
        ("vssm_merge", "has `vssm_merge`"),
        (" ", "names none"),
    ] {
        let wrong = format!("localmamba/vssm_merge(directions=\"{words}\")").parse::<Pattern>().unwrap_err();
        assert!(wrong.to_string().contains(told), "{wrong}");
    }
}

/// Where the released code deviates in the model and not in the order, `compat` says what to set.
#[test]
fn deviations_of_models_name_their_keys() {
    for scan in published().iter().filter(|scan| scan.released().is_none()) {
        let wrong =
            format!("{}(compat=released)", scan.example()).parse::<Pattern>().unwrap_err().to_string();
        let told = if scan.deviation().is_empty() { "there is no `compat`" } else { scan.deviation() };
        assert!(wrong.contains(told), "{wrong}");
    }
    let deviates = |name: &str| parse(name).published().unwrap().deviation();
    assert!(deviates("vmamba/cascade2d").contains("`model.written_as = "));
    assert!(deviates("plainmamba/continuous4").contains("`model.compat.unordered_coefficients"));
    assert!(deviates("zigma/video_sst_t").contains("`model.written_as = "));
    for (name, written) in [
        ("localmamba/v", "column | inverse"),
        ("localmamba/v_flip", "column | inverse | reverse"),
        ("localmamba/multimamba", "[row, column | inverse | reverse, row | window(2) | bidirectional]"),
    ] {
        assert_eq!(deviates(name), format!("`model.written_as = \"{written}\"`"));
        // Of as many steps as what is read, and the same where there are as many rows as columns.
        let sizes = |pattern: &str, shape| {
            parse(pattern)
                .plan(&grid(shape))
                .unwrap()
                .orders()
                .iter()
                .map(|o| o.index().to_vec())
                .collect::<Vec<_>>()
        };
        assert_eq!(sizes(name, "4x4"), sizes(written, "4x4"));
        let (read, write) = (sizes(name, "4x6"), sizes(written, "4x6"));
        assert!(read.len() == write.len() && read != write);
    }
}

#[test]
fn numbers_in_names_may_be_too_large() {
    let wide = parse("localmamba/w999999999").plan(&grid("7x9")).unwrap_err().to_string();
    assert!(wide.contains("999999999x999999999 is too large"), "{wide}");
}

/// On audio's grids, which are frequencies x times.
#[test]
fn audio_scans_walk_time_by_time_or_not() {
    let spectrogram = grid("3x2");
    let index = |name: &str| parse(name).plan(&spectrogram).unwrap().orders()[0].index().to_vec();
    assert_eq!(index("ssam/time"), [0, 2, 4, 1, 3, 5]);
    assert_eq!(index("aum/specgrid(major=time, class_token=none)"), index("ssam/time"));
    assert_eq!(index("aum/specgrid(class_token=none)"), [0, 1, 2, 3, 4, 5]);
}

#[test]
fn what_is_published_is_told_from_compositions() {
    assert!(parse("vmamba/cross2d").published().is_some());
    assert!(parse("cross").published().is_none());
    assert!(parse("vmamba/cross2d | reverse").published().is_none());
    assert_ne!(parse("vmamba/cross2d"), parse("cross"));
    assert_eq!(parse("point-mamba/octree").published().unwrap().system().title(), "Point Mamba (octree)");
    assert!("point_mamba/hilbert".parse::<Pattern>().is_err());
}

/// A file of indices that repeats or leaves out tokens is refused and says so, unless it is not strict.
#[test]
fn faults_of_an_index_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("mine.json");
    std::fs::write(&path, "[[3, 0, 3, 1, 0, 3], [0, 1, 2, 3, 4, 5, -1], [-1, 0, 1, 2, 3, 4]]").unwrap();
    let text = path.display().to_string();
    let pattern = parse(&format!("file(\"{text}\", strict=false)"));
    assert!(pattern.is_file());
    let plan = pattern.plan(&grid("2x3")).unwrap();
    let faults: Vec<Option<String>> = plan.orders().iter().map(|order| order.faults()).collect();
    let first = "2 tokens are repeated (first 0, at steps 1 and 4), 3 tokens are missing (first 2)";
    assert_eq!(faults[0].as_deref(), Some(first));
    assert_eq!(faults[1], None);
    assert_eq!(faults[2].as_deref(), Some("1 token is missing (first 5)"));
    let strict = parse(&text).plan(&grid("2x3")).unwrap_err();
    assert!(!strict.is_usage());
    let told = format!(
        "{text}: order.0 does not visit every token once: {first}; if it is meant so, write `{pattern}`"
    );
    assert_eq!(strict.to_string(), told);
    // Blank steps visit no token, and silent ones only read theirs.
    std::fs::write(&path, r#"{"order.0": [0, 0, 1, -1, 2], "silent.0": [0]}"#).unwrap();
    assert_eq!(parse(&text).plan(&grid("1x3")).unwrap().orders()[0].index(), [0, 0, 1, -1, 2]);
    std::fs::write(&path, "[0, 9, 2, -7, 4, 6]").unwrap();
    let outside = pattern.plan(&grid("2x3")).unwrap_err().to_string();
    let more = "; 3 entries lie outside; of the others 3 tokens are missing (first 1)";
    assert!(outside.contains("order.0[1] is 9") && outside.ends_with(more), "{outside}");
}

fn merge() -> impl Strategy<Value = Merge> {
    prop_oneof![
        Just(Merge::Alone),
        Just(Merge::Sum),
        Just(Merge::Mean),
        Just(Merge::Gate),
        Just(Merge::Channels),
        Just(Merge::Length),
    ]
}

proptest! {
    /// Scanning and merging without a mixer gives x back, K times over for a sum.
    #[test]
    fn roundtrips(
        height in 1..6usize, width in 1..6usize, channels in 1..5usize, merge in merge(),
        text in prop_oneof![Just("cross"), Just("row | window(2) | bidirectional"), Just("[row, random(4), column]")],
    ) {
        let geometry = Geometry::Grid2 { height, width };
        let plan = parse(text).plan(&geometry).unwrap();
        let x: Vec<f64> = (0..2 * channels * height * width).map(|i| (i * i % 17) as f64).collect();
        let scanned = plan.scanned(&x).unwrap();
        for (order, rows) in plan.orders().iter().zip(&scanned) {
            for (n, row) in rows.chunks(order.len()).enumerate() {
                for (&token, &value) in order.index().iter().zip(row) {
                    let expected = if token < 0 { 0.0 } else { x[n * height * width + token as usize] };
                    prop_assert_eq!(value, expected);
                }
            }
        }
        let times = if merge == Merge::Sum { plan.directions() as f64 } else { 1.0 };
        let merged = merge.merged(&plan, &scanned, channels).unwrap();
        for (found, x) in merged.iter().zip(&x) {
            prop_assert!((found - times * x).abs() < 1e-9, "{merged:?}");
        }
        prop_assert!(merge.merged(&plan, &scanned[1..], channels).is_err());
        prop_assert!(plan.scanned(&x[1..]).is_err() || height * width == 1);
    }
}

/// Channels in groups: each channel comes from the direction of its group.
#[test]
fn channels_are_parted() {
    let plan = parse("groupmamba/grouped4").plan(&grid("1x2")).unwrap();
    let constant = |k: usize| vec![k as f64; 8 * 2];
    let scanned: Vec<Vec<f64>> = (0..4).map(constant).collect();
    let merged = Merge::Channels.merged(&plan, &scanned, 8).unwrap();
    let expected: Vec<f64> = (0..8).flat_map(|channel| [(channel / 2) as f64; 2]).collect();
    assert_eq!(merged, expected);
}
