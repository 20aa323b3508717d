//! The generator.

use ophidian_points::solids::{CLASSES, Stream, cloud, label};

#[test]
fn clouds_are_the_same_every_time_and_others_elsewhere() {
    for index in 0..2 * CLASSES.len() {
        let one = cloud(index, 200, 3, Stream::Train);
        assert_eq!(one, cloud(index, 200, 3, Stream::Train));
        assert_ne!(one, cloud(index, 200, 3, Stream::Eval));
        assert_ne!(one, cloud(index, 200, 4, Stream::Train));
        assert_ne!(one, cloud(index + CLASSES.len(), 200, 3, Stream::Train));
        assert_eq!(one.len(), 200);
        assert!(one.iter().flatten().all(|x| x.abs() < 3.0));
        assert_eq!(label(index) as usize, index % CLASSES.len());
    }
}

/// A few statistics that are certain: a sphere has nothing in its middle, a disc no height.
#[test]
fn solids_look_like_what_they_are_called() {
    let of = |name: &str| {
        let class = CLASSES.iter().position(|class| *class == name).unwrap();
        cloud(class, 4000, 1, Stream::Train)
    };
    let near = |points: &[[f32; 3]]| {
        points.iter().filter(|p| p.iter().map(|x| x * x).sum::<f32>() < 0.25).count() as f64
            / points.len() as f64
    };
    assert!(near(&of("sphere")) < 0.05, "{}", near(&of("sphere")));
    assert!(near(&of("cross")) > 0.15, "{}", near(&of("cross")));
}
