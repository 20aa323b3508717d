//! A mixer within GroupMamba's channel affinity modulation.

use tch::{Kind, Tensor, nn};

use super::Mixer;
use crate::{
    Result,
    init::Init,
    layers::{Linear, Norm, NormKind},
    ops::Orders,
};

/// Channel affinity modulation (GroupMamba, arXiv 2407.13772, section 3.3, as released): with n = norm(x),
/// `proj(norm(mixer(n) * skip_scale * n * sigmoid(fc2(relu(fc1(mean(n)))))))`, the norm being the same both times.
///
/// Parameters: `norm`, `fc1` (inner, d_model), `fc2` (d_model, inner), `skip_scale` (1), `proj`; those of the mixer stand
/// beside them as they are.
pub struct ChannelAffinity {
    norm: Norm,
    fc1: Linear,
    fc2: Linear,
    skip_scale: Tensor,
    mixer: Box<dyn Mixer>,
    proj: Linear,
}

impl ChannelAffinity {
    /// Around `mixer` of `channels` channels, `inner` inside the gate.
    pub fn new(vs: &nn::Path, mixer: Box<dyn Mixer>, channels: i64, inner: i64) -> ChannelAffinity {
        let linear =
            |name: &str, inputs, outputs| Linear::new(&(vs / name), inputs, outputs, true, Init::Kaiming);
        ChannelAffinity {
            norm: Norm::new(&(vs / "norm"), NormKind::Layer, channels, 1e-5),
            fc1: linear("fc1", channels, inner),
            fc2: linear("fc2", inner, channels),
            skip_scale: Init::Constant(1.0).parameter(vs, "skip_scale", &[1]),
            mixer,
            proj: linear("proj", channels, channels),
        }
    }
}

impl Mixer for ChannelAffinity {
    fn forward_t(&self, x: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        let x = self.norm.forward(x)?;
        let mean = x.f_mean_dim(1, true, Kind::Float)?; // (B, 1, d_model)
        let gate = self.fc2.forward(&self.fc1.forward(&mean)?.f_relu()?)?.f_sigmoid()?;
        let y = self.mixer.forward_t(&x, orders, train)?.f_mul(&x)?.f_mul(&gate.f_mul(&self.skip_scale)?)?;
        self.proj.forward(&self.norm.forward(&y)?)
    }

    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.forward_t(x, orders, false)
    }
}
