//! The channel-mixing half of a block.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::Linear;
use crate::{Result, init::Start};

/// What stands between the two linear maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MlpKind {
    /// gelu(x).
    #[default]
    Gelu,
    /// x * gelu(z), x and z being the halves of twice as many channels.
    Gated,
}

/// fc2 of gelu of fc1, as in vision transformers and VMamba.
#[derive(Debug)]
pub struct Mlp {
    kind: MlpKind,
    fc1: Linear,
    fc2: Linear,
}

impl Mlp {
    /// Of `channels` channels, `hidden` inside; `residuals` branches add up in the model, which [`Start`] may want to
    /// know.
    pub fn new(
        vs: &nn::Path,
        kind: MlpKind,
        channels: i64,
        hidden: i64,
        residuals: i64,
        start: Start,
    ) -> Mlp {
        let fc2 = Linear::new(&(vs / "fc2"), hidden, channels, true, start.linear());
        fc2.rescale(start.branch(residuals));
        let wide = if kind == MlpKind::Gated { 2 * hidden } else { hidden };
        Mlp { kind, fc1: Linear::new(&(vs / "fc1"), channels, wide, true, start.linear()), fc2 }
    }

    /// (…, channels) to the same.
    ///
    /// # Errors
    /// `x` has another number of channels.
    pub fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let inside = self.fc1.forward(x)?;
        let inside = match self.kind {
            MlpKind::Gelu => inside.f_gelu("none")?,
            MlpKind::Gated => {
                let halves = inside.f_chunk(2, -1)?;
                halves[0].f_mul(&halves[1].f_gelu("none")?)?
            }
        };
        self.fc2.forward(&inside)
    }
}
