//! The channel-mixing half of a block.

use tch::{Tensor, nn};

use super::Linear;
use crate::{Result, init::Init};

/// fc2(gelu(fc1(x))), as in vision transformers and VMamba.
#[derive(Debug)]
pub struct Mlp {
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// Of `channels` channels, `hidden` inside; `residuals` branches add up in the model, so the last weight
    /// starts smaller by its square root.
    pub fn new(vs: &nn::Path, channels: i64, hidden: i64, residuals: i64) -> Mlp {
        let fc2 = Linear::new(&(vs / "fc2"), hidden, channels, true, Init::Kaiming);
        fc2.rescale((residuals.max(1) as f64).powf(-0.5));
        Mlp { fc1: Linear::new(&(vs / "fc1"), channels, hidden, true, Init::Kaiming), fc2 }
    }

    /// (…, channels) to the same.
    ///
    /// # Errors
    /// `x` has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.fc2.forward(&self.fc1.forward(x)?.gelu("none"))
    }
}
