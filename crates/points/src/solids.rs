//! A built-in generator of labelled clouds: the surface of one of ten solids, stretched and turned at random, with noise
//! and stray points. Cloud `index` of a seed is always the same cloud.

use std::f64::consts::TAU;

use ophidian_core::rng::{self, Rng};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

/// Which of the generator's endless clouds a set draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Clouds to train on.
    Train,
    /// Clouds to evaluate on: none of them is among the training clouds.
    Eval,
}

/// The classes, in the order of their labels.
pub const CLASSES: [&str; 10] =
    ["sphere", "cube", "cylinder", "cone", "torus", "pyramid", "prism", "helix", "cross", "disc"];

/// The label of cloud `index`: classes take turns, so every set is balanced.
pub fn label(index: usize) -> u32 {
    (index % CLASSES.len()) as u32
}

/// Cloud `index`: `points` points.
pub fn cloud(index: usize, points: usize, seed: u64, stream: Stream) -> Vec<[f32; 3]> {
    let mut random = rng::stream(&[seed, stream as u64, index as u64]);
    let class = label(index) as usize;
    // Stretched along each axis, turned about the upright one and tilted a little.
    let stretch: [f64; 3] = std::array::from_fn(|_| random.random_range(0.75..1.25));
    let (sin, cos) = random.random_range(0.0..TAU).sin_cos();
    let (tilt_sin, tilt_cos) = random.random_range(-0.35f64..0.35).sin_cos();
    let (noise, stray) = (random.random_range(0.005..0.03), random.random_range(0.0..0.05));
    let mut one = || {
        let place = if random.random::<f64>() < stray {
            std::array::from_fn(|_| random.random_range(-1.2..1.2))
        } else {
            surface(class, &mut random)
        };
        let [x, y, z]: [f64; 3] = std::array::from_fn(|axis| place[axis] * stretch[axis]);
        let (x, y) = (cos * x - sin * y, sin * x + cos * y);
        let (y, z) = (tilt_cos * y - tilt_sin * z, tilt_sin * y + tilt_cos * z);
        [x, y, z].map(|x| {
            let normal: f64 = StandardNormal.sample(&mut random);
            (x + noise * normal) as f32
        })
    };
    (0..points).map(|_| one()).collect()
}

/// A place on the surface of a solid of about unit size, the z axis upright.
fn surface(class: usize, random: &mut Rng) -> [f64; 3] {
    let angle = random.random_range(0.0..TAU);
    let (sin, cos) = angle.sin_cos();
    let side: f64 = random.random_range(-1.0..1.0);
    match class {
        0 => {
            let r = (1.0 - side * side).sqrt();
            [r * cos, r * sin, side]
        }
        1 => cuboid([0.8; 3], random),
        2 => {
            // Radius 0.7, height 1.8: the caps have 0.7 / 2.5 of the area.
            if random.random_bool(0.28) {
                let r = 0.7 * random.random::<f64>().sqrt();
                [r * cos, r * sin, if random.random_bool(0.5) { 0.9 } else { -0.9 }]
            } else {
                [0.7 * cos, 0.7 * sin, random.random_range(-0.9..0.9)]
            }
        }
        3 => {
            // Radius 0.8, height 1.8, slant 1.97.
            let r = 0.8 * random.random::<f64>().sqrt();
            if random.random_bool(0.29) {
                [r * cos, r * sin, -0.9]
            } else {
                [r * cos, r * sin, 0.9 - 1.8 * r / 0.8]
            }
        }
        4 => {
            let (around_sin, around_cos) = random.random_range(0.0..TAU).sin_cos();
            let r = 0.7 + 0.28 * around_cos;
            [r * cos, r * sin, 0.28 * around_sin]
        }
        5 | 6 => walls(if class == 5 { 4 } else { 3 }, class == 5, random),
        7 => {
            // Two turns of a wire.
            let turn = random.random_range(0.0..2.0 * TAU);
            let r = 0.7 + 0.1 * cos;
            [r * turn.cos(), r * turn.sin(), turn / TAU - 1.0 + 0.1 * sin]
        }
        8 => {
            let at = random.random_range(0..3usize);
            let size: [f64; 3] = std::array::from_fn(|axis| if axis == at { 0.95 } else { 0.22 });
            cuboid(size, random)
        }
        _ => {
            let r = random.random::<f64>().sqrt();
            [r * cos, r * sin, 0.08 * side]
        }
    }
}

/// On the surface of a box of these half sides.
fn cuboid(half: [f64; 3], random: &mut Rng) -> [f64; 3] {
    let area = |axis: usize| {
        half.iter().enumerate().filter(|(at, _)| *at != axis).map(|(_, side)| side).product::<f64>()
    };
    let areas = [area(0), area(1), area(2)];
    let mut drawn = random.random::<f64>() * areas.iter().sum::<f64>();
    let mut across = 2;
    for (axis, area) in areas.iter().enumerate() {
        if drawn < *area {
            across = axis;
            break;
        }
        drawn -= area;
    }
    std::array::from_fn(|axis| {
        if axis == across {
            if random.random_bool(0.5) { half[axis] } else { -half[axis] }
        } else {
            random.random_range(-half[axis]..half[axis])
        }
    })
}

/// On the walls and the floor above a regular polygon: a pyramid if they `meet` in a tip, else a prism.
fn walls(corners: usize, meet: bool, random: &mut Rng) -> [f64; 3] {
    let corner = |at: usize| {
        let (sin, cos) = (TAU * at as f64 / corners as f64).sin_cos();
        [0.9 * cos, 0.9 * sin]
    };
    let wall = random.random_range(0..corners);
    let (a, b) = (corner(wall), corner(wall + 1));
    let along: f64 = random.random();
    let edge: [f64; 2] = std::array::from_fn(|axis| a[axis] + along * (b[axis] - a[axis]));
    // A fourth of the points lies on the floor (and the roof).
    let inward = random.random::<f64>().sqrt();
    if random.random_bool(0.25) {
        let z = if meet || random.random_bool(0.5) { -0.8 } else { 0.8 };
        [edge[0] * inward, edge[1] * inward, z]
    } else if meet {
        [edge[0] * inward, edge[1] * inward, 0.9 - 1.7 * inward]
    } else {
        [edge[0], edge[1], random.random_range(-0.8..0.8)]
    }
}
