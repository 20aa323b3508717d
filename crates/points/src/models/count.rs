//! What a model costs: parameters by part, and operations of a forward pass.

use std::sync::Arc;

use ophidian_core::{
    Result,
    adapter::{Description, Walk},
    grid::{Scans, pattern, shortest, spelt},
    init::without_values,
    rng,
};
use ophidian_scan::{Geometry, Points};
use rand::RngExt;
use tch::{Device, nn::VarStore};

use super::{Classifier, Input, ModelConfig};

/// Parameters and operations of a model for one cloud. A multiply-add of a matrix product or convolution is two
/// operations, a scan 9 L D N, or 5 L D N of Mamba-2, and a skip or gate L D (L steps, D channels, N states); norms,
/// activations and sums are not counted, nor is the search for groups.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Trained numbers.
    pub parameters: i64,
    /// The same by part, in the order of the model.
    pub parts: Vec<(&'static str, i64)>,
    /// Tokens that the blocks read.
    pub tokens: i64,
    /// Operations.
    pub flops: f64,
}

/// The parts and the first word of their tensors.
const PARTS: [(&str, &[&str]); 5] = [
    ("encoder of groups", &["encoder"]),
    ("positions and tokens", &["pos_embed", "order", "cls_token", "cls_pos"]),
    ("blocks", &["layers"]),
    ("last norm", &["norm_f"]),
    ("head", &["head"]),
];

impl ModelConfig {
    /// Counts what the model of this config costs for `input`.
    ///
    /// # Errors
    /// [`ophidian_core::Error::Config`] if the config is wrong or does not fit the input.
    pub fn count(&self, input: Input, classes: i64) -> Result<Summary> {
        let vs = VarStore::new(Device::Cpu);
        let model = without_values(|| Classifier::new(&vs.root(), self, input, classes))?;
        let directions = model.directions();
        let joined = if self.join { directions.first().copied().unwrap_or(1) } else { 1 };
        let tokens = input.tokens() * joined + i64::from(self.class_token);
        let (mut parts, mut flops) = (PARTS.map(|(name, _)| (name, 0)), 0.0);
        for (name, tensor) in vs.variables().into_iter().filter(|(_, tensor)| tensor.requires_grad()) {
            let (first, size) = (name.split('.').next().unwrap_or(""), tensor.size());
            let count: i64 = size.iter().product();
            if let Some(at) = PARTS.iter().position(|(_, words)| words.contains(&first)) {
                parts[at].1 += count;
            }
            // A matrix is multiplied once for each point, group, token or cloud.
            let points = (input.tokens() * input.size) as f64;
            let times = match first {
                // Half of its columns reads the maximum of a group.
                "encoder" if name == "encoder.second.0.weight" => (points + input.tokens() as f64) / 2.0,
                "encoder" => points,
                "pos_embed" => input.tokens() as f64,
                "layers" if name.contains(".norm") || name.ends_with("A_log") || name.ends_with(".D") => 0.0,
                "layers" => tokens as f64,
                "head" => 1.0,
                _ => 0.0,
            };
            if name.ends_with("weight") && size.len() > 1 {
                flops += 2.0 * times * count as f64;
            }
        }
        let per_state = self.mixer.kind().operations_per_state();
        for i in 0..self.depth {
            let k = directions.get(i as usize % directions.len().max(1)).copied().unwrap_or(1);
            let mixer = self.mamba(if self.join { 1 } else { k });
            let (d, n) = (mixer.d_inner() as f64, mixer.d_state as f64);
            let steps = (tokens * mixer.directions) as f64;
            flops += steps * d * (per_state * n + 1.0) + if mixer.gate { tokens as f64 * d } else { 0.0 };
        }
        let parts = parts.into_iter().filter(|(_, count)| *count > 0).collect::<Vec<_>>();
        Ok(Summary { parameters: parts.iter().map(|(_, count)| count).sum(), parts, tokens, flops })
    }

    /// The pattern, or how many patterns the blocks take in turn.
    pub fn scan_name(&self) -> String {
        match &self.scan {
            Scans::One(text) => text.clone(),
            Scans::Each(texts) => format!("{} in turn", texts.len()),
        }
    }
}

/// A resolved `[model]` table whose `scan` holds for each block what its pattern comes to over random points, or its shortest
/// form where it is drawn for each sample or made for other points.
///
/// # Errors
/// A table or `input_shape` that is no model's.
pub fn canonical(table: &toml::Table, input_shape: &[i64]) -> Result<toml::Table> {
    let config = ModelConfig::read(table.clone())?;
    let met = met(Input::try_from(input_shape)?)?;
    // Some are made for other points than these.
    let spelt = |text: &String| spelt(text, &met).or_else(|_| shortest(text));
    let texts = config.scan.texts().iter().map(spelt).collect::<Result<Vec<String>>>()?;
    let blocks: Vec<String> = (0..config.depth as usize).map(|i| texts[i % texts.len()].clone()).collect();
    let mut table = table.clone();
    table.insert("scan".into(), blocks.into());
    Ok(table)
}

/// Random tokens that a scan may meet, far from each other and near: scans that walk all of them in the same orders are the
/// same.
fn met(input: Input) -> Result<Vec<Geometry>> {
    let (frames, groups) = (input.frames.map_or(1, |frames| frames.clamp(1, 4)) as usize, 512);
    let cloud = |at: u64| {
        let mut random = rng::stream(&[MET, at]);
        let mut xyz: Vec<[f32; 3]> = Vec::new();
        for _ in 0..frames * groups {
            // Whatever a scan takes for a place, from 1 down to 1e-4, some points share one.
            let (near, reach) =
                (random.random_range(0..=xyz.len()), 10f32.powf(-random.random_range(0.0..4.0f32)));
            let from = xyz.get(near).copied().unwrap_or_default();
            xyz.push(from.map(|x| x + reach * random.random_range(-1.0..1.0f32)));
        }
        packed(xyz, frames)
    };
    (0..3).map(cloud).collect()
}

/// Points of so many frames, as many in each.
fn packed(xyz: Vec<[f32; 3]>, frames: usize) -> Result<Geometry> {
    let groups = xyz.len() / frames;
    let starts = (0..=frames).map(|frame| frame * groups).collect();
    Ok(Geometry::Points(Arc::new(Points::packed(xyz, starts)?)))
}

/// Key of the random stream of those tokens.
const MET: u64 = 0x3E7;

/// Points of the cloud that stands for all when a scan is drawn.
const SHOWN: usize = 64;

/// What the model of a resolved `[model]` table costs for one input of `input_shape`, and its scans over points that lie
/// evenly on a sphere; a scan over frames is left out.
///
/// # Errors
/// As [`build`](super::build).
pub fn describe(table: &toml::Table, input_shape: &[i64], classes: i64) -> Result<Description> {
    let config = ModelConfig::read(table.clone())?;
    let input = Input::try_from(input_shape)?;
    let flops = config.count(input, classes)?.flops;
    let (met, drawn) = made_up(input)?;
    let walk = |name: &String| {
        let plan = pattern(name, 0).ok()?.plan(&met).ok()?;
        Some(Walk { name: name.clone(), plan, geometry: drawn.clone() })
    };
    Ok(Description { flops: Some(flops), scans: config.scan.texts().iter().filter_map(walk).collect() })
}

/// Tokens to show scans with, as a scan meets them and as they are drawn: a cloud, or the first time steps of one that
/// stands still, in the same place and side by side.
fn made_up(input: Input) -> Result<(Geometry, Geometry)> {
    let (frames, groups) = match input.frames {
        Some(frames) => (frames.clamp(1, 4) as usize, input.groups.clamp(1, 16) as usize),
        None => (1, SHOWN),
    };
    let apart = |apart: f32| {
        let frame =
            |at: usize| sphere(groups).into_iter().map(move |[x, y, z]| [x + apart * at as f32, y, z]);
        packed((0..frames).flat_map(frame).collect(), frames)
    };
    Ok((apart(0.0)?, apart(2.6)?))
}

/// The Fibonacci lattice: `count` points on the unit sphere.
fn sphere(count: usize) -> Vec<[f32; 3]> {
    let golden = std::f64::consts::PI * (3.0 - 5f64.sqrt());
    let point = |i: usize| {
        let z = 1.0 - (2 * i + 1) as f64 / count as f64;
        let (radius, angle) = ((1.0 - z * z).sqrt(), golden * i as f64);
        [radius * angle.cos(), radius * angle.sin(), z].map(|v| v as f32)
    };
    (0..count).map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scans that are written differently and walk the same way are one; those that walk another way are not.
    #[test]
    fn scans_are_told_apart_by_their_orders() {
        let spelt = |scan: &str, shape: &[i64]| {
            canonical(&format!("scan = \"{scan}\"").parse().unwrap(), shape).unwrap()
        };
        let cloud = |scan| spelt(scan, &[64, 33, 3]);
        for same in ["hilbert | reverse | reverse", "hilbert | spatial-first"] {
            assert_eq!(cloud("hilbert"), cloud(same), "{same}");
        }
        for other in [
            "hilbert | reverse",
            "serialize(z)",
            "serialize(hilbert, grid=0.01)",
            "random(seed=0)",
            "random(seed=sample)",
        ] {
            assert_ne!(cloud("hilbert"), cloud(other), "{other}");
        }
        let sequence = |scan| spelt(scan, &[12, 8, 9, 3]);
        assert_ne!(sequence("hilbert"), sequence("hilbert | spatial-first"));
        assert_eq!(
            sequence("hilbert | spatial-first"),
            sequence("hilbert | reverse | reverse | spatial-first")
        );
    }

    /// What parts two scans over time steps is seen in their pictures.
    #[test]
    fn time_steps_are_drawn() {
        let shown = |scan: &str| {
            let table = format!("scan = \"{scan}\"").parse().unwrap();
            let mut found = describe(&table, &[12, 8, 9, 3], 5).unwrap().scans;
            found.pop().unwrap()
        };
        let names = [
            "hilbert | spatial-first",
            "hilbert | temporal-first",
            "random(seed=0)",
            "random(seed=0) | spatial-first",
        ];
        let plans = names.map(|name| shown(name).plan);
        for (at, plan) in plans.iter().enumerate() {
            assert_eq!(plan.tokens(), 4 * 8);
            assert!(plans[..at].iter().all(|other| other != plan), "{}", names[at]);
        }
        let table = "scan = \"hilbert\"".parse().unwrap();
        let cloud = describe(&table, &[64, 33, 3], 5).unwrap().scans;
        assert_eq!(cloud[0].geometry.tokens().unwrap(), SHOWN);
    }
}
