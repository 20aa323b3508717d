//! Spatial-Mamba's structure-aware mixer (Xiao et al. 2024, arXiv 2410.15091).

use tch::{Tensor, nn};

use super::{
    Mamba1Config, Mixer,
    shell::{Shell, as_map, as_tokens, map_of},
    tree::one_state,
};
use crate::{Result, init::Init, ops::Orders, tape};

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
}

impl Mixer for SpatialMamba {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        tape::note("the states of neighbours are fused before C reads them");
        let map = map_of(orders)?;
        self.shell.forward(tokens, orders, 1.0, |u| {
            let ssm = &self.shell.ssm;
            let coefficients = ssm.coefficients(&u.f_unsqueeze(2)?)?;
            let h = ssm.states(u, &coefficients, orders)?;
            ssm.read_out(&self.fusion.forward(&h, map)?, u, &coefficients)
        })
    }
}
