//! The block of convolutions that EfficientVMamba (Pei et al. 2024, arXiv 2403.09977) has in its late stages, as a
//! token mixer without a scan.

use tch::{Tensor, nn};

use super::{Mixer, map_of, squeeze::Squeeze};
use crate::{
    Error, Result,
    init::{Init, Start},
    layers::{BatchNorm, Conv2d, Kernel, Linear, to_map, to_tokens},
    ops::Orders,
    tape,
};

/// What an [`Inverted`] mixer is told.
#[derive(Debug, Clone, PartialEq)]
pub struct InvertedConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// Channels inside, per channel of a token.
    pub expand: i64,
    /// Channels inside, per channel of the squeezed gate.
    pub squeeze: i64,
    /// Where the weights of the gate start from.
    pub start: Start,
}

impl Default for InvertedConfig {
    fn default() -> Self {
        InvertedConfig { d_model: 128, expand: 4, squeeze: 8, start: Start::FanIn }
    }
}

impl InvertedConfig {
    /// Channels inside.
    pub fn d_inner(&self) -> i64 {
        self.expand.saturating_mul(self.d_model)
    }

    /// Checks that every size is one.
    ///
    /// # Errors
    /// The first key that is not, with its value and what it may be.
    pub fn check(&self) -> Result<()> {
        for (key, size) in [("d_model", self.d_model), ("expand", self.expand), ("squeeze", self.squeeze)] {
            if !(1..=1 << 20).contains(&size) {
                return Err(Error::Config(format!("`{key}` is {size}, expected 1 to {}", 1 << 20)));
            }
        }
        Ok(())
    }
}

/// The inverted residual of MobileNet (arXiv 1801.04381) without its residual: relu(norm(expand(x))), a depthwise 3x3
/// convolution over the map, norm, relu, squeeze and excitation, norm(project); the norms are batch norms.
///
/// `expand.weight` (D, d_model), `expand_norm`, `depthwise.weight` (D, 1, 3, 3), `depthwise_norm`, `squeeze.reduce`
/// (D / 8, D), `squeeze.select`, `project.weight` (d_model, D), `project_norm`. The orders tell the map alone.
#[derive(Debug)]
pub struct Inverted {
    expand: Linear,
    depthwise: Conv2d,
    squeeze: Squeeze,
    project: Linear,
    norms: [BatchNorm; 3],
}

impl Inverted {
    /// A fresh mixer.
    ///
    /// # Errors
    /// As [`InvertedConfig::check`].
    pub fn new(vs: &nn::Path, config: &InvertedConfig) -> Result<Inverted> {
        config.check()?;
        let (d_model, d) = (config.d_model, config.d_inner());
        let inner = (d / config.squeeze).max(1);
        Ok(Inverted {
            expand: Linear::new(&(vs / "expand"), d_model, d, false, Init::Kaiming),
            depthwise: Conv2d::new(&(vs / "depthwise"), &Kernel::depthwise(d, 3, 1), false, None),
            squeeze: Squeeze::new(&(vs / "squeeze"), d, inner, true, config.start.linear()),
            project: Linear::new(&(vs / "project"), d, d_model, false, Init::Kaiming),
            norms: [("expand_norm", d), ("depthwise_norm", d), ("project_norm", d_model)]
                .map(|(name, channels)| BatchNorm::new(&(vs / name), channels)),
        })
    }
}

impl Mixer for Inverted {
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.forward_t(x, orders, false)
    }

    fn forward_t(&self, x: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        tape::note("convolutions, and no scan");
        let map = map_of(orders)?;
        let [expand_norm, depthwise_norm, project_norm] = &self.norms;
        let inside = to_map(&self.expand.forward(x)?, map)?;
        let inside = self.depthwise.forward(&expand_norm.forward(&inside, train)?.f_relu()?)?;
        let inside = to_tokens(&depthwise_norm.forward(&inside, train)?.f_relu()?)?;
        let y = self.project.forward(&self.squeeze.forward(&inside)?)?;
        to_tokens(&project_norm.forward(&to_map(&y, map)?, train)?)
    }
}
