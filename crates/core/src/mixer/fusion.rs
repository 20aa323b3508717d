//! Spatial-Mamba's structure-aware mixer (Xiao et al. 2024, arXiv 2410.15091).

use tch::{Tensor, nn};

use super::{
    Mamba1Config, Mixer,
    shell::{Shell, as_map, as_tokens, map_of},
    tree::one_state,
};
use crate::{Result, init::Init, keymap::Key, ops::Orders};

/// Distances of a kernel's taps, and so its padding.
const DILATIONS: [i64; 3] = [1, 3, 5];

/// The fusion of neighbouring states (eq. 8): three dilated depthwise 3 x 3 convolutions of the map of states, whose
/// border is repeated outward, weighted and added up. `weight` (3, D, 1, 3, 3), `alpha` (3).
#[derive(Debug)]
pub struct StateFusion {
    weight: Tensor,
    alpha: Tensor,
}

impl StateFusion {
    /// Over `channels` channels; everything starts at 1.
    pub fn new(vs: &nn::Path, channels: i64) -> StateFusion {
        let ones = Init::Constant(1.0);
        StateFusion {
            weight: ones.parameter(vs, "weight", &[3, channels, 1, 3, 3]),
            alpha: ones.parameter(vs, "alpha", &[3]),
        }
    }

    /// States (B, L, D) on a map of [rows, columns] to the same.
    ///
    /// # Errors
    /// Another number of tokens or channels.
    pub fn forward(&self, h: &Tensor, map: [i64; 2]) -> Result<Tensor> {
        let channels = self.weight.size()[1];
        // Padded once, as far as the widest kernel reaches.
        let [rows, columns] = map;
        let padded = as_map(h, map)?.f_replication_pad2d([5; 4])?;
        let mut sum: Option<Tensor> = None;
        for (i, reach) in DILATIONS.into_iter().enumerate() {
            let part = padded.f_narrow(2, 5 - reach, rows + 2 * reach)?;
            let part = part.f_narrow(3, 5 - reach, columns + 2 * reach)?;
            // The factor goes onto the small weight.
            let weight = self.weight.f_select(0, i as i64)?.f_mul(&self.alpha.f_select(0, i as i64)?)?;
            let y = part.f_conv2d(&weight, None::<Tensor>, [1; 2], [0; 2], [reach; 2], channels)?;
            sum = Some(sum.map_or_else(|| Ok(y.shallow_clone()), |sum| sum.f_add(&y))?);
        }
        as_tokens(&sum.unwrap_or(padded))
    }

    /// What the authors call the parameters, below `theirs`; ours are below `ours`.
    pub fn keys(theirs: &str, ours: &str, channels: i64) -> Vec<Key> {
        let kernels = ["kernel_3", "kernel_3_1", "kernel_3_2"].into_iter().enumerate();
        let kernel = |(i, name): (usize, &str)| {
            Key::row(format!("{theirs}{name}"), format!("{ours}weight"), i as i64, &[channels, 1, 3, 3])
        };
        let mut keys: Vec<Key> = kernels.map(kernel).collect();
        keys.push(Key::new(format!("{theirs}alpha"), format!("{ours}alpha"), &[3]));
        keys
    }
}

/// A [`Mamba1`](super::Mamba1) of one direction and one state that fuses the states of neighbours before C reads them:
/// y = C fuse(h) + D u. With `state_fusion.*` beside.
#[derive(Debug)]
pub struct SpatialMamba {
    shell: Shell,
    fusion: StateFusion,
}

impl SpatialMamba {
    /// A fresh mixer.
    ///
    /// # Errors
    /// As [`Mamba1Config::check`], or a `d_state` or `directions` other than 1.
    pub fn new(vs: &nn::Path, config: &Mamba1Config) -> Result<SpatialMamba> {
        one_state("Spatial-Mamba", config)?;
        let shell = Shell::new(vs, "Spatial-Mamba", 1, config)?;
        Ok(SpatialMamba { shell, fusion: StateFusion::new(&(vs / "state_fusion"), config.d_inner()) })
    }

    /// What the authors call the parameters.
    pub fn keys(&self) -> Vec<Key> {
        let mut keys = self.shell.keys();
        for key in &mut keys {
            // One direction is no axis there.
            if matches!(key.theirs.as_str(), "x_proj_weight" | "dt_projs_weight" | "dt_projs_bias") {
                key.shape.remove(0);
            }
        }
        keys.extend(StateFusion::keys("state_fusion.", "state_fusion.", self.shell.config.d_inner()));
        keys
    }
}

impl Mixer for SpatialMamba {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        let map = map_of(orders)?;
        self.shell.forward(tokens, orders, 1.0, |u| {
            let ssm = &self.shell.ssm;
            let coefficients = ssm.coefficients(&u.f_unsqueeze(2)?)?;
            let h = ssm.states(u, &coefficients, orders)?;
            ssm.read_out(&self.fusion.forward(&h, map)?, u, &coefficients)
        })
    }
}
