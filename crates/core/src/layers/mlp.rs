//! The channel-mixing half of a block.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::{Conv2d, Kernel, Linear, to_map, to_tokens};
use crate::{Error, Result, init::Start};

/// What stands between the two linear maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MlpKind {
    /// gelu(x).
    #[default]
    Gelu,
    /// x * gelu(z), x and z being the halves of twice as many channels.
    Gated,
    /// gelu of a depthwise 3x3 convolution of x over the map (SegFormer's Mix-FFN; GroupMamba).
    Conv,
    /// gelu of x plus that convolution of it (MSVMamba).
    ConvResidual,
}

impl MlpKind {
    /// Whether it must know where the tokens lie.
    pub fn needs_grid(self) -> bool {
        matches!(self, MlpKind::Conv | MlpKind::ConvResidual)
    }
}

/// fc2 of gelu of fc1, as in vision transformers and VMamba; `dwconv` where a convolution stands between.
#[derive(Debug)]
pub struct Mlp {
    kind: MlpKind,
    fc1: Linear,
    conv: Option<Conv2d>,
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
        let kernel = Kernel::depthwise(hidden, 3, 1);
        Mlp {
            kind,
            fc1: Linear::new(&(vs / "fc1"), channels, wide, true, start.linear()),
            conv: kind.needs_grid().then(|| Conv2d::new(&(vs / "dwconv"), &kernel, true, None)),
            fc2,
        }
    }

    /// (…, channels) to the same; (B, L, channels) on a map of `grid` = [rows, columns] if the kind needs one.
    ///
    /// # Errors
    /// `x` has another number of channels, or does not lie on `grid`.
    pub fn forward(&self, x: &Tensor, grid: &[i64]) -> Result<Tensor> {
        let inside = self.fc1.forward(x)?;
        let inside = match self.kind {
            MlpKind::Gelu => inside.f_gelu("none")?,
            MlpKind::Conv => self.convolved(&inside, grid)?.f_gelu("none")?,
            MlpKind::ConvResidual => inside.f_add(&self.convolved(&inside, grid)?)?.f_gelu("none")?,
            MlpKind::Gated => {
                let halves = inside.f_chunk(2, -1)?;
                halves[0].f_mul(&halves[1].f_gelu("none")?)?
            }
        };
        self.fc2.forward(&inside)
    }

    /// Whether [`forward`](Mlp::forward) must know where the tokens lie.
    pub fn needs_grid(&self) -> bool {
        self.kind.needs_grid()
    }

    fn convolved(&self, x: &Tensor, grid: &[i64]) -> Result<Tensor> {
        let (Some(conv), Ok(grid)) = (&self.conv, <[i64; 2]>::try_from(grid)) else {
            return Err(Error::invalid(format!(
                "an MLP with a convolution needs tokens on [rows, columns], not on a grid of {grid:?}"
            )));
        };
        to_tokens(&conv.forward(&to_map(x, grid)?)?)
    }
}
