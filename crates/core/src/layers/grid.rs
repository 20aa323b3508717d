//! Layers that see tokens as the map they lie on.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{BatchNorm, Linear, Norm, NormKind};
use crate::{
    Error, Result,
    init::{Init, Start},
};

/// Tokens (B, L, C) as a map (B, C, h, w): a view.
///
/// # Errors
/// L is not h * w.
pub fn to_map(tokens: &Tensor, [h, w]: [i64; 2]) -> Result<Tensor> {
    let [b, l, c] = tokens.size()[..] else {
        return Err(Error::invalid(format!(
            "tokens have shape {:?}, expected (batch, length, channels)",
            tokens.size()
        )));
    };
    if l != h * w {
        return Err(Error::invalid(format!("{l} tokens do not lie on a grid of {h}x{w}")));
    }
    Ok(tokens.f_reshape([b, h, w, c])?.permute([0, 3, 1, 2]))
}

/// A map (B, C, h, w) as tokens (B, L, C), each token's channels side by side in memory.
///
/// # Errors
/// `map` has other than four axes.
pub fn to_tokens(map: &Tensor) -> Result<Tensor> {
    // In this order: behind a batch norm, the gradient that comes back through `flatten(2, 3).transpose(1, 2)` has strides
    // for one sample that libtorch 2.11's backward pass on the CPU misreads.
    Ok(map.f_permute([0, 2, 3, 1])?.f_contiguous()?.f_flatten(1, 2)?)
}

/// A convolution over a map.
#[derive(Debug)]
pub struct Conv2d {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: [i64; 2],
    padding: [i64; 2],
    groups: i64,
}

/// Shape of a [`Conv2d`].
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Channels in and out.
    pub channels: [i64; 2],
    /// Rows and columns.
    pub sides: [i64; 2],
    /// Step down and across.
    pub stride: [i64; 2],
    /// Zeros on every side, above and beside.
    pub padding: [i64; 2],
    /// Groups of channels that do not mix.
    pub groups: i64,
}

impl Kernel {
    /// Side by side, not padded: patches.
    pub fn patches(inputs: i64, outputs: i64, sides: [i64; 2], stride: [i64; 2]) -> Kernel {
        Kernel { channels: [inputs, outputs], sides, stride, padding: [0, 0], groups: 1 }
    }

    /// `side` x `side` taps around each place, `stride` apart.
    pub fn around(inputs: i64, outputs: i64, side: i64, stride: i64) -> Kernel {
        let [sides, stride, padding] = [side, stride, side / 2].map(|n| [n, n]);
        Kernel { channels: [inputs, outputs], sides, stride, padding, groups: 1 }
    }

    /// As [`around`](Kernel::around), channel by channel.
    pub fn depthwise(channels: i64, side: i64, stride: i64) -> Kernel {
        Kernel { groups: channels, ..Kernel::around(channels, channels, side, stride) }
    }

    /// What a map of `size` becomes; 0 where the kernel does not fit.
    pub fn output(&self, size: [i64; 2]) -> [i64; 2] {
        [0, 1].map(|axis| {
            let room = size[axis] + 2 * self.padding[axis] - self.sides[axis];
            if room < 0 { 0 } else { room / self.stride[axis] + 1 }
        })
    }
}

impl Conv2d {
    /// A convolution whose weight starts from `init`, PyTorch's default if absent; a bias starts likewise, at 0 if
    /// `init` is given.
    pub fn new(vs: &nn::Path, kernel: &Kernel, bias: bool, init: Option<Init>) -> Conv2d {
        let Kernel { channels: [inputs, outputs], sides: [rows, columns], stride, padding, groups } = *kernel;
        let shape = [outputs, inputs / groups.max(1), rows, columns];
        let default = Init::convolution(shape[1] * rows * columns);
        let bias_init = if init.is_some() { Init::Constant(0.0) } else { default };
        Conv2d {
            weight: init.unwrap_or(default).parameter(vs, "weight", &shape),
            bias: bias.then(|| bias_init.parameter(vs, "bias", &[outputs])),
            stride,
            padding,
            groups,
        }
    }

    /// (B, C, h, w) to (B, C', h', w').
    ///
    /// # Errors
    /// A map of other channels, or smaller than the kernel.
    pub fn forward(&self, map: &Tensor) -> Result<Tensor> {
        let (stride, padding) = (&self.stride[..], &self.padding[..]);
        Ok(map.f_conv2d(&self.weight, self.bias.as_ref(), stride, padding, [1, 1], self.groups)?)
    }
}

/// How a stage hands its tokens to the next, on half as many rows and columns.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DownsampleKind {
    /// The four tokens of a square side by side, normalised, and a linear map (Swin's patch merging; VMamba's v1).
    Merge,
    /// A 2x2 convolution of stride 2, then a norm (VMamba's v2).
    Conv2,
    /// A padded 3x3 convolution of stride 2, then a norm (VMamba's v3).
    #[default]
    Conv3,
    /// Between 1x1 convolutions to four times the next stage's channels and back, a depthwise 3x3 one of stride 2, with
    /// ReLU; then batch norm (Spatial-Mamba).
    Inverted,
}

impl DownsampleKind {
    /// The grid that `grid` becomes: an odd row or column is padded, or left out by `Conv2`.
    pub fn grid(self, grid: [i64; 2]) -> [i64; 2] {
        match self {
            DownsampleKind::Conv2 => grid.map(|n| n / 2),
            _ => grid.map(|n| (n + 1) / 2),
        }
    }
}

/// What a [`Downsample`] is told.
#[derive(Debug, Clone, Copy)]
pub struct DownsampleConfig {
    /// Which one.
    pub kind: DownsampleKind,
    /// Channels in and out.
    pub channels: [i64; 2],
    /// Which normalisation; batch norm if [`DownsampleKind::Inverted`].
    pub norm: NormKind,
    /// Added to the variance in it.
    pub eps: f64,
    /// A bias in the convolution of `Conv2` and `Conv3`.
    pub bias: bool,
    /// Where the linear map of `Merge` starts from.
    pub start: Start,
}

/// The step from one stage to the next: `norm` and `reduction`, `conv` and `norm`, or `expand`, `conv`, `project` and
/// `norm`; the mean has no parameters.
#[derive(Debug)]
pub enum Downsample {
    /// [`DownsampleKind::Merge`].
    Merge(Norm, Linear),
    /// [`DownsampleKind::Conv2`] and [`DownsampleKind::Conv3`].
    Conv(DownsampleKind, Conv2d, Norm),
    /// [`DownsampleKind::Inverted`].
    Inverted([Conv2d; 3], BatchNorm),
    /// All tokens become their mean, on a map of one token.
    Mean,
}

impl Downsample {
    /// The step that `config` describes.
    pub fn new(vs: &nn::Path, config: &DownsampleConfig) -> Downsample {
        let DownsampleConfig { kind, channels: [inputs, outputs], norm, eps, bias, start } = *config;
        let conv = |name: &str, kernel: &Kernel, bias: bool| Conv2d::new(&(vs / name), kernel, bias, None);
        match kind {
            DownsampleKind::Merge => Downsample::Merge(
                Norm::new(&(vs / "norm"), norm, 4 * inputs, eps),
                Linear::new(&(vs / "reduction"), 4 * inputs, outputs, false, start.linear()),
            ),
            DownsampleKind::Conv2 | DownsampleKind::Conv3 => {
                let kernel = match kind {
                    DownsampleKind::Conv2 => Kernel::patches(inputs, outputs, [2, 2], [2, 2]),
                    _ => Kernel::around(inputs, outputs, 3, 2),
                };
                let norm = Norm::new(&(vs / "norm"), norm, outputs, eps);
                Downsample::Conv(kind, conv("conv", &kernel, bias), norm)
            }
            DownsampleKind::Inverted => {
                let inner = 4 * outputs;
                let [expand, project] =
                    [(inputs, inner), (inner, outputs)].map(|(from, to)| Kernel::around(from, to, 1, 1));
                let convs = [
                    conv("expand", &expand, true),
                    conv("conv", &Kernel::depthwise(inner, 3, 2), true),
                    conv("project", &project, true),
                ];
                Downsample::Inverted(convs, BatchNorm::new(&(vs / "norm"), outputs))
            }
        }
    }

    /// (B, L, inputs) over `grid` to (B, L', outputs) over the grid that is returned.
    ///
    /// # Errors
    /// Tokens that do not lie on `grid`.
    pub fn forward(&self, tokens: &Tensor, grid: [i64; 2], train: bool) -> Result<(Tensor, [i64; 2])> {
        let map = to_map(tokens, grid)?;
        Ok(match self {
            Downsample::Merge(norm, reduction) => {
                let tokens = reduction.forward(&norm.forward(&squares(&map)?)?)?;
                (tokens, DownsampleKind::Merge.grid(grid))
            }
            Downsample::Conv(kind, conv, norm) => {
                (norm.forward(&to_tokens(&conv.forward(&map)?)?)?, kind.grid(grid))
            }
            Downsample::Inverted([expand, conv, project], norm) => {
                let inside = conv.forward(&expand.forward(&map)?.f_relu()?)?.f_relu()?;
                let map = norm.forward(&project.forward(&inside)?, train)?;
                (to_tokens(&map)?, DownsampleKind::Inverted.grid(grid))
            }
            Downsample::Mean => (tokens.f_mean_dim(1, true, Kind::Float)?, [1, 1]),
        })
    }
}

/// The tokens of each 2x2 square side by side, (0,0), (1,0), (0,1), (1,1) by (row, column): (B, L / 4, 4 C). Odd rows
/// and columns are padded with zeros behind.
fn squares(map: &Tensor) -> Result<Tensor> {
    let [b, c, h, w] = map.size()[..] else {
        return Err(Error::invalid(format!("a map has shape {:?}, expected four axes", map.size())));
    };
    let map =
        if h % 2 + w % 2 > 0 { map.f_constant_pad_nd([0, w % 2, 0, h % 2])? } else { map.shallow_clone() };
    let (h, w) = ((h + 1) / 2, (w + 1) / 2);
    let squares = map.f_permute([0, 2, 3, 1])?.f_reshape([b, h, 2, w, 2, c])?; // (…, row, …, column, C)
    Ok(squares.permute([0, 1, 3, 4, 2, 5]).f_reshape([b, h * w, 4 * c])?)
}

/// gelu(batch norm(3x3 depthwise convolution)): where a token lies among its neighbours (PlainMamba's `dw`).
#[derive(Debug)]
pub struct LocalConv {
    conv: Conv2d,
    norm: BatchNorm,
}

impl LocalConv {
    /// Of `channels` channels.
    pub fn new(vs: &nn::Path, channels: i64) -> LocalConv {
        LocalConv {
            conv: Conv2d::new(&(vs / "conv"), &Kernel::depthwise(channels, 3, 1), false, None),
            norm: BatchNorm::new(&(vs / "norm"), channels),
        }
    }

    /// (B, L, channels) over `grid` to the same.
    ///
    /// # Errors
    /// Tokens that do not lie on `grid`.
    pub fn forward(&self, tokens: &Tensor, grid: [i64; 2], train: bool) -> Result<Tensor> {
        let map = self.conv.forward(&to_map(tokens, grid)?)?;
        to_tokens(&self.norm.forward(&map, train)?.f_gelu("none")?)
    }
}
