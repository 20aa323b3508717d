//! Where clouds lie: centre, size, turns.

use ophidian_core::{Error, Result, documented, rng::Rng};
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};
use serde::{Deserialize, Serialize};

/// How a cloud is brought to a place and size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Normalise {
    /// Its mean to the origin, its farthest point to distance 1 (PointNet).
    #[default]
    Sphere,
    /// Its mean to the origin.
    Centre,
    /// As it is.
    None,
}

impl Normalise {
    /// Moves and scales `points`. Points that all coincide come to lie at the origin.
    pub fn apply(self, points: &mut [[f32; 3]]) {
        if self == Normalise::None || points.is_empty() {
            return;
        }
        let mut mean = [0.0f64; 3];
        for point in points.iter() {
            mean.iter_mut().zip(point).for_each(|(sum, x)| *sum += f64::from(*x));
        }
        let mean = mean.map(|sum| sum / points.len() as f64);
        let moved =
            |point: &[f32; 3]| std::array::from_fn::<f64, 3, _>(|axis| f64::from(point[axis]) - mean[axis]);
        let norm = |point: [f64; 3]| point.iter().map(|x| x * x).sum::<f64>().sqrt();
        let radius = match self {
            Normalise::Sphere => points.iter().map(|point| norm(moved(point))).fold(0.0, f64::max),
            _ => 1.0,
        };
        let scale = if radius > 0.0 { 1.0 / radius } else { 0.0 };
        for point in points.iter_mut() {
            *point = moved(point).map(|x| (x * scale) as f32);
        }
    }
}

/// About which axis clouds are turned.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rotate {
    /// None.
    #[default]
    None,
    /// The first.
    X,
    /// The second, which points up in ScanObjectNN and most of ShapeNet.
    Y,
    /// The third, which points up in ModelNet.
    Z,
    /// Any: a random rotation of space.
    Any,
}

documented! {
/// The table `[data.augment]`: how training clouds are changed at random, in this order, after they were normalised. Off
/// by default. All frames of a sequence are turned, scaled and moved alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Turns by any angle about the axis "x", "y" or "z", or about "any"; "none" is off.
    pub rotate: Rotate,
    /// Factors of size, [least, most] ([0.667, 1.5] is PointMamba's).
    pub scale: [f64; 2],
    /// Each axis takes a factor of its own, as PointMamba does it; otherwise all the same.
    pub scale_axes: bool,
    /// Most that a cloud is moved along each axis (0.2 is customary).
    pub shift: f64,
    /// Deviation of the noise on every coordinate (0.01 is customary).
    pub jitter: f64,
    /// That noise is cut off here.
    pub jitter_clip: f64,
    /// Up to this share of the points is dropped: they come to lie on the first (PointNet++: 0.875).
    pub dropout: f64,
}
}

impl Default for Augment {
    fn default() -> Self {
        Augment {
            rotate: Rotate::None,
            scale: [1.0, 1.0],
            scale_axes: false,
            shift: 0.0,
            jitter: 0.0,
            jitter_clip: 0.05,
            dropout: 0.0,
        }
    }
}

impl Augment {
    /// # Errors
    /// [`Error::Config`] naming the key whose value is out of range.
    pub fn validate(&self) -> Result<()> {
        let fail = |key: &str, found: &dyn std::fmt::Debug, expected: &str| {
            Err(Error::Config(format!("`data.augment.{key}` is {found:?}, expected {expected}")))
        };
        let [least, most] = self.scale;
        if !(least > 0.0 && least <= most && most <= 1e3) {
            return fail("scale", &self.scale, "[least, most] with 0 < least <= most <= 1000");
        }
        for (key, value) in
            [("shift", self.shift), ("jitter", self.jitter), ("jitter_clip", self.jitter_clip)]
        {
            if !(0.0..=1e3).contains(&value) {
                return fail(key, &value, "0 to 1000");
            }
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return fail("dropout", &self.dropout, "0 to below 1");
        }
        Ok(())
    }

    /// Changes `frames`, each (points, features row by row of `width` columns).
    pub fn apply(&self, frames: &mut [(Vec<[f32; 3]>, Vec<f32>)], width: usize, random: &mut Rng) {
        let turn = self.turn(random);
        let [least, most] = self.scale;
        let mut factor = || if most > least { random.random_range(least..=most) } else { least };
        let factors = if self.scale_axes { [factor(), factor(), factor()] } else { [factor(); 3] };
        let mut shift = || if self.shift > 0.0 { random.random_range(-self.shift..=self.shift) } else { 0.0 };
        let shifts = [shift(), shift(), shift()];
        for (points, values) in frames {
            for point in points.iter_mut() {
                let [x, y, z] = point.map(f64::from);
                let turned = turn.map(|row| row[0] * x + row[1] * y + row[2] * z);
                let mut noise = || {
                    if self.jitter > 0.0 {
                        let normal: f64 = StandardNormal.sample(random);
                        (normal * self.jitter).clamp(-self.jitter_clip, self.jitter_clip)
                    } else {
                        0.0
                    }
                };
                *point = std::array::from_fn(|axis| {
                    (turned[axis] * factors[axis] + shifts[axis] + noise()) as f32
                });
            }
            if self.dropout > 0.0 {
                self.drop(points, values, width, random);
            }
        }
    }

    fn drop(&self, points: &mut [[f32; 3]], values: &mut [f32], width: usize, random: &mut Rng) {
        let share = random.random::<f64>() * self.dropout;
        let Some(first) = points.first().copied() else { return };
        for (at, point) in points.iter_mut().enumerate().skip(1) {
            if random.random::<f64>() < share {
                *point = first;
                if (at + 1) * width <= values.len() {
                    values.copy_within(0..width, at * width);
                }
            }
        }
    }

    /// A rotation, row by row.
    fn turn(&self, random: &mut Rng) -> [[f64; 3]; 3] {
        let mut plane = |a: usize, b: usize| {
            let (sin, cos) = random.random_range(0.0..std::f64::consts::TAU).sin_cos();
            let mut turn: [[f64; 3]; 3] =
                std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j))));
            (turn[a][a], turn[a][b], turn[b][a], turn[b][b]) = (cos, -sin, sin, cos);
            turn
        };
        match self.rotate {
            Rotate::None => std::array::from_fn(|i| std::array::from_fn(|j| f64::from(u8::from(i == j)))),
            Rotate::X => plane(1, 2),
            Rotate::Y => plane(2, 0),
            Rotate::Z => plane(0, 1),
            Rotate::Any => {
                // A uniform unit quaternion is a uniform rotation.
                let q: [f64; 4] = std::array::from_fn(|_| StandardNormal.sample(random));
                let norm = q.iter().map(|x| x * x).sum::<f64>().sqrt().max(f64::MIN_POSITIVE);
                let [w, x, y, z] = q.map(|part| part / norm);
                [
                    [1.0 - 2.0 * (y * y + z * z), 2.0 * (x * y - w * z), 2.0 * (x * z + w * y)],
                    [2.0 * (x * y + w * z), 1.0 - 2.0 * (x * x + z * z), 2.0 * (y * z - w * x)],
                    [2.0 * (x * z - w * y), 2.0 * (y * z + w * x), 1.0 - 2.0 * (x * x + y * y)],
                ]
            }
        }
    }
}
