//! Normalisation and augmentation.

use ophidian_core::rng;
use ophidian_points::geometry::{Augment, Normalise, Rotate};
use proptest::prelude::*;

fn norm(point: [f32; 3]) -> f64 {
    point.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt()
}

fn cloud() -> impl Strategy<Value = Vec<[f32; 3]>> {
    (prop::collection::vec(prop::array::uniform3(-1.0f32..1.0), 2..40), -3i32..30).prop_map(
        |(points, scale)| {
            points.into_iter().map(|point| point.map(|x| (x + 0.3) * 10f32.powi(scale))).collect()
        },
    )
}

proptest! {
    #[test]
    fn a_sphere_is_centred_and_of_radius_one(mut points in cloud()) {
        let distinct = points.iter().any(|point| *point != points[0]);
        Normalise::Sphere.apply(&mut points);
        let mean = |axis: usize| points.iter().map(|point| f64::from(point[axis])).sum::<f64>() / points.len() as f64;
        for axis in 0..3 {
            prop_assert!(mean(axis).abs() < 1e-5);
        }
        let radius = points.iter().map(|point| norm(*point)).fold(0.0, f64::max);
        prop_assert!(!distinct || (radius - 1.0).abs() < 1e-5, "{radius}");
    }

    #[test]
    fn turns_keep_distances(points in cloud(), seed in any::<u64>(), which in 0usize..4) {
        let rotate = [Rotate::X, Rotate::Y, Rotate::Z, Rotate::Any][which];
        let mut frames = [(points.clone(), Vec::new())];
        Augment { rotate, ..Augment::default() }.apply(&mut frames, 0, &mut rng::stream(&[seed]));
        for (before, after) in points.iter().zip(&frames[0].0) {
            prop_assert!((norm(*before) - norm(*after)).abs() <= 1e-5 * norm(*before));
            let kept = [Some(0), Some(1), Some(2), None][which];
            if let Some(axis) = kept {
                prop_assert!((before[axis] - after[axis]).abs() <= 1e-5 * norm(*before) as f32);
            }
        }
        // Neither a mirror nor a squeeze: volumes keep their sign and size.
        if points.len() >= 3 {
            let volume = |p: &[[f32; 3]]| {
                let [a, b, c] = [p[0], p[1], p[2]].map(|point| point.map(f64::from));
                a[0] * (b[1] * c[2] - b[2] * c[1]) - a[1] * (b[0] * c[2] - b[2] * c[0]) + a[2] * (b[0] * c[1] - b[1] * c[0])
            };
            let size = norm(points[0]) * norm(points[1]) * norm(points[2]);
            prop_assert!((volume(&points) - volume(&frames[0].0)).abs() <= 1e-5 * size);
        }
    }

    #[test]
    fn changes_stay_within_their_bounds_and_come_from_the_stream_alone(seed in any::<u64>()) {
        let augment = Augment {
            scale: [0.5, 2.0],
            scale_axes: true,
            shift: 0.25,
            jitter: 0.1,
            jitter_clip: 0.2,
            ..Augment::default()
        };
        let points = vec![[1.0f32, -1.0, 0.5]; 50];
        let run = || {
            let mut frames = [(points.clone(), Vec::new()), (points.clone(), Vec::new())];
            augment.apply(&mut frames, 0, &mut rng::stream(&[seed]));
            frames
        };
        let frames = run();
        prop_assert_eq!(&frames, &run());
        for point in &frames[0].0 {
            for (x, changed) in points[0].iter().zip(point) {
                prop_assert!(changed.abs() <= x.abs() * 2.0 + 0.45 + 1e-5);
            }
        }
        // Both frames are scaled and moved alike: their means differ by noise alone.
        let mean = |frame: usize| frames[frame].0.iter().map(|p| p[0]).sum::<f32>() / 50.0;
        prop_assert!((mean(0) - mean(1)).abs() < 0.12);
    }
}

#[test]
fn coinciding_points_are_not_divided_by_nothing() {
    for normalise in [Normalise::Sphere, Normalise::Centre] {
        let mut points = vec![[5.0f32, -2.0, 1e30]; 4];
        normalise.apply(&mut points);
        assert_eq!(points, [[0.0; 3]; 4]);
        normalise.apply(&mut []);
    }
    let mut huge = vec![[3e38f32, 0.0, 0.0], [-3e38, 0.0, 0.0]];
    Normalise::Sphere.apply(&mut huge);
    assert_eq!(huge, [[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]]);
    let mut as_it_is = vec![[7.0f32, 8.0, 9.0]];
    Normalise::None.apply(&mut as_it_is);
    assert_eq!(as_it_is, [[7.0, 8.0, 9.0]]);
}

#[test]
fn dropped_points_lie_on_the_first_with_its_features() {
    let points: Vec<[f32; 3]> = (0..1000).map(|i| [i as f32, 0.0, 0.0]).collect();
    let values: Vec<f32> = (0..2000).map(|i| i as f32).collect();
    let mut frames = [(points.clone(), values)];
    Augment { dropout: 0.875, ..Augment::default() }.apply(&mut frames, 2, &mut rng::stream(&[5]));
    let (after, features) = &frames[0];
    assert_eq!(after.len(), 1000);
    let mut dropped = 0;
    for (at, point) in after.iter().enumerate() {
        if *point == points[at] {
            assert_eq!(features[2 * at], 2.0 * at as f32);
        } else {
            assert_eq!((*point, &features[2 * at..2 * at + 2]), (points[0], &[0.0, 1.0][..]));
            dropped += 1;
        }
    }
    assert!((1..=900).contains(&dropped), "{dropped}");
}
