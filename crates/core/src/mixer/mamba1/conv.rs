//! The convolution in front of the recurrence.

use tch::{Tensor, nn};

use super::{ConvPlace, Mamba1Config, Parameters};
use crate::{
    Error, Result,
    init::Init,
    ops::{ConvInput, Orders, causal_conv1d},
};

/// Depthwise, and a SiLU. Along orders: `conv1d.weight` (P, D, W), `conv1d.bias` (P, D). On a grid: `weight`
/// (1 or K, D, W, W), `bias` (1 or K, D), as x has one set of channels for all directions or one for each.
#[derive(Debug)]
pub(in crate::mixer) enum Conv {
    Along { weight: Tensor, bias: Option<Tensor>, once: bool },
    Grid(GridConv),
    None,
}

/// What a convolution is made for.
pub(in crate::mixer) struct ConvShape {
    pub place: ConvPlace,
    /// Sets of taps along the orders (P).
    pub sets: i64,
    /// It runs along the first order alone.
    pub once: bool,
    /// Maps on the grid.
    pub maps: i64,
    pub channels: i64,
    pub taps: i64,
    pub bias: bool,
}

impl From<&Mamba1Config> for ConvShape {
    fn from(config: &Mamba1Config) -> Self {
        ConvShape {
            place: config.conv,
            sets: config.sets(),
            once: config.parameters == Parameters::Decay,
            maps: config.pairs(),
            channels: config.d_inner(),
            taps: config.d_conv,
            bias: config.conv_bias,
        }
    }
}

impl Conv {
    pub fn new(vs: &nn::Path, shape: &ConvShape) -> Conv {
        let (d, w, p) = (shape.channels, shape.taps, shape.sets);
        match shape.place {
            ConvPlace::None => Conv::None,
            ConvPlace::Grid => Conv::Grid(GridConv::new(&(vs / "conv2d"), [shape.maps, d], w, 1, shape.bias)),
            ConvPlace::Along => {
                let vs = vs / "conv1d";
                let init = Init::Uniform((w as f64).powf(-0.5));
                Conv::Along {
                    weight: init.parameter(&vs, "weight", &[p, d, w]),
                    bias: shape.bias.then(|| init.parameter(&vs, "bias", &[p, d])),
                    once: shape.once,
                }
            }
        }
    }

    /// Whether it runs along the first order alone.
    pub fn is_once(&self) -> bool {
        matches!(self, Conv::Along { once: true, .. })
    }

    /// `count` channels from number `first` on, of one along the orders.
    pub fn part(&self, first: i64, count: i64) -> Result<Conv> {
        let Conv::Along { weight, bias, once } = self else {
            return Err(Error::invalid("internal error: a part of a convolution that is not along orders"));
        };
        let part = |t: &Tensor| t.f_narrow(1, first, count);
        let bias = bias.as_ref().map(part).transpose()?;
        Ok(Conv::Along { weight: part(weight)?, bias, once: *once })
    }

    /// u (B, L, 1 or K, D) of x (B, L, 1 or K, D).
    pub fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        match self {
            Conv::None => Ok(x.f_silu()?),
            Conv::Grid(conv) => Ok(conv.forward(x, orders.plane()?)?.0),
            Conv::Along { weight, bias, once } => {
                let along = if *once { orders.first() } else { orders.clone() };
                let k = along.directions();
                let bias = bias.as_ref().map(|bias| bias.f_expand([k, -1], false)).transpose()?;
                let input = ConvInput {
                    x,
                    weight: &weight.f_expand([k, -1, -1], false)?,
                    bias: bias.as_ref(),
                    silu: true,
                    initial_state: None,
                    orders: &along,
                };
                Ok(causal_conv1d(&input)?.y) // memory direction by direction
            }
        }
    }
}

/// A depthwise convolution over the map, and a SiLU.
#[derive(Debug)]
pub(in crate::mixer) struct GridConv {
    weight: Tensor,
    bias: Option<Tensor>,
    stride: i64,
}

impl GridConv {
    /// Of [P, D] channels.
    pub fn new(vs: &nn::Path, [p, d]: [i64; 2], taps: i64, stride: i64, bias: bool) -> GridConv {
        // As PyTorch's Conv2d starts: fan_in is one channel's taps.
        let init = Init::Uniform(1.0 / taps as f64);
        GridConv {
            weight: init.parameter(vs, "weight", &[p, d, taps, taps]),
            bias: bias.then(|| init.parameter(vs, "bias", &[p, d])),
            stride,
        }
    }

    /// x (B, L, P, D) over a grid of [… frames, rows, columns] to (B, L', P, D), and the rows and columns of L'. Tokens
    /// and channels keep their places in memory: channels last.
    pub fn forward(&self, x: &Tensor, grid: &[i64]) -> Result<(Tensor, [i64; 2])> {
        let shape = x.size();
        let (b, p, d) = (shape[0], shape[2], shape[3]);
        let [.., rows, columns] = *grid else { return Ok((x.f_silu()?, [1, 1])) };
        let frames = shape[1] / (rows * columns).max(1);
        let map = x.f_reshape([b * frames, rows, columns, p * d])?.permute([0, 3, 1, 2]);
        let taps = self.weight.size()[3];
        let (half, stride) = (taps / 2, self.stride);
        let weight = self.weight.f_view([p * d, 1, taps, taps])?;
        let bias = self.bias.as_ref().map(|bias| bias.f_view([p * d])).transpose()?;
        let y = map.f_conv2d(&weight, bias, [stride; 2], [half; 2], [1; 2], p * d)?.f_silu()?;
        let size = [y.size()[2], y.size()[3]];
        Ok((y.permute([0, 2, 3, 1]).f_reshape([b, frames * size[0] * size[1], p, d])?, size))
    }
}
