//! The channel-mixing half of a block.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::{Conv2d, Kernel, Linear, to_map, to_tokens};
use crate::{
    Error, Result,
    init::{Init, Start},
};

/// What stands between the two linear maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MlpKind {
    /// gelu(x).
    #[default]
    Gelu,
    /// x * gelu(z), x and z being the halves of twice as many channels.
    Gated,
    /// gelu of a depthwise 3x3 convolution of x over the map (SegFormer's Mix-FFN; GroupMamba), 3x3x3 over the frames of
    /// a clip (Vivim).
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

/// Sides of the convolutions.
const TAPS: i64 = 3;

/// The depthwise convolution between the maps.
#[derive(Debug)]
enum Local {
    /// Over rows and columns.
    Map(Conv2d),
    /// Over frames, rows and columns: `weight` (C, 1, 3, 3, 3) and `bias` (C).
    Clip(Tensor, Tensor),
}

impl Local {
    fn new(vs: &nn::Path, channels: i64, clip: bool) -> Local {
        if !clip {
            return Local::Map(Conv2d::new(vs, &Kernel::depthwise(channels, TAPS, 1), true, None));
        }
        let init = Init::convolution(TAPS.pow(3));
        let weight = init.parameter(vs, "weight", &[channels, 1, TAPS, TAPS, TAPS]);
        Local::Clip(weight, init.parameter(vs, "bias", &[channels]))
    }

    /// (B, L, C) on `grid` to the same.
    fn forward(&self, x: &Tensor, grid: &[i64]) -> Result<Tensor> {
        match (self, grid) {
            (Local::Map(conv), &[rows, columns]) => to_tokens(&conv.forward(&to_map(x, [rows, columns])?)?),
            (Local::Clip(weight, bias), &[frames, rows, columns]) => {
                let clip = x.f_unflatten(1, [frames, rows, columns])?.f_permute([0, 4, 1, 2, 3])?;
                let channels = weight.size()[0];
                let clip = clip.f_conv3d(weight, Some(bias), 1, TAPS / 2, 1, channels)?; // (B, C, t, h, w)
                Ok(clip.f_flatten(2, 4)?.f_transpose(1, 2)?.f_contiguous()?)
            }
            (Local::Map(_), _) => Err(misplaced("[rows, columns]", grid)),
            (Local::Clip(..), _) => Err(misplaced("[frames, rows, columns]", grid)),
        }
    }
}

fn misplaced(expected: &str, grid: &[i64]) -> Error {
    Error::invalid(format!("an MLP with a convolution needs tokens on {expected}, not on a grid of {grid:?}"))
}

/// fc2 of gelu of fc1, as in vision transformers and VMamba; `dwconv` where a convolution stands between.
#[derive(Debug)]
pub struct Mlp {
    kind: MlpKind,
    fc1: Linear,
    conv: Option<Local>,
    fc2: Linear,
}

impl Mlp {
    /// Of `channels` channels, `hidden` inside, over clips if `clip`; `residuals` branches add up in the model, which
    /// [`Start`] may want to know.
    pub fn new(
        vs: &nn::Path,
        kind: MlpKind,
        [channels, hidden]: [i64; 2],
        clip: bool,
        residuals: i64,
        start: Start,
    ) -> Mlp {
        let fc2 = Linear::new(&(vs / "fc2"), hidden, channels, true, start.linear());
        fc2.rescale(start.branch(residuals));
        let wide = if kind == MlpKind::Gated { 2 * hidden } else { hidden };
        Mlp {
            kind,
            fc1: Linear::new(&(vs / "fc1"), channels, wide, true, start.linear()),
            conv: kind.needs_grid().then(|| Local::new(&(vs / "dwconv"), hidden, clip)),
            fc2,
        }
    }

    /// (…, channels) to the same; (B, L, channels) on `grid` = [rows, columns], or [frames, rows,
    /// columns] of a clip, if the kind needs one.
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
        match &self.conv {
            Some(conv) => conv.forward(x, grid),
            None => Err(Error::invalid("internal error: an MLP without a convolution was asked for one")),
        }
    }
}
