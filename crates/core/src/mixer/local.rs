//! A branch of convolutions beside a mixer (EfficientVMamba).

use tch::{Tensor, nn};

use super::{Mixer, map_of, merge::ChannelGate};
use crate::{
    Result,
    init::{Init, Start},
    layers::{BatchNorm, Conv2d, Kernel, Linear, to_map, to_tokens},
    ops::Orders,
};

/// The two branches of EfficientVMamba's block (arXiv 2403.09977, section 3.3, as released): a mixer for what is far and
/// convolutions for what is near, each times its gate per channel from the same small network, added up.
///
/// `branch.depthwise` (d_model, 1, 3, 3), `branch.norm` (batch norm), GELU, `branch.pointwise` (d_model, d_model);
/// `branch.gate.norm`, `branch.gate.reduce` (d_model / 8, d_model), `branch.gate.select`; the mixer's parameters stand
/// beside `branch`.
pub struct LocalBranch {
    mixer: Box<dyn Mixer>,
    depthwise: Conv2d,
    norm: BatchNorm,
    pointwise: Linear,
    gate: ChannelGate,
}

impl LocalBranch {
    /// Beside `mixer` of `channels` channels.
    pub fn new(vs: &nn::Path, mixer: Box<dyn Mixer>, channels: i64, start: Start) -> LocalBranch {
        let vs = vs / "branch";
        LocalBranch {
            mixer,
            depthwise: Conv2d::new(&(&vs / "depthwise"), &Kernel::depthwise(channels, 3, 1), true, None),
            norm: BatchNorm::new(&(&vs / "norm"), channels),
            pointwise: Linear::new(&(&vs / "pointwise"), channels, channels, true, Init::Kaiming),
            gate: ChannelGate::new(&(&vs / "gate"), channels, start.linear()),
        }
    }
}

impl Mixer for LocalBranch {
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.forward_t(x, orders, false)
    }

    fn forward_t(&self, x: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        let far = self.mixer.forward_t(x, orders, train)?;
        let near = self.depthwise.forward(&to_map(x, map_of(orders)?)?)?;
        let near = self.pointwise.forward(&to_tokens(&self.norm.forward(&near, train)?.f_gelu("none")?)?)?;
        let gated = |y: Tensor| -> Result<Tensor> {
            let y = y.f_unsqueeze(2)?; // (B, L, 1, d_model)
            Ok(y.f_mul(&self.gate.forward(&y)?.to_kind(y.kind()))?.f_squeeze_dim(2)?)
        };
        Ok(gated(far)?.f_add(&gated(near)?)?)
    }
}
