//! Directions over a coarser map, beside those over the tokens' own.

use serde::{Deserialize, Serialize};
use tch::{Tensor, nn};

use super::{expect_directions, mamba1::conv::GridConv};
use crate::{Error, Result, documented, ops::Orders, tape};

documented! {
/// A second, coarser map that further directions run over: u is convolved with a stride, scanned, brought back to the
/// full map by bilinear interpolation and added (MSVMamba, arXiv 2405.14174, section 3.3).
///
/// As in the released code the directions of the coarse map are one sequence: the state that one ends with is what the
/// next starts from, and they share one set of parameters. Their orders are the
/// [`coarse`](crate::ops::Orders::with_coarse) ones of the orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Coarse {
    /// Directions over the coarse map.
    pub directions: i64,
    /// Taps of its convolution, in each axis; odd.
    pub taps: i64,
    /// Step of its convolution.
    pub stride: i64,
}
}

impl Coarse {
    /// The convolution that makes the coarse map of `channels` channels, under `coarse` of the mixer at `vs`.
    pub(super) fn conv(&self, vs: &nn::Path, channels: i64, bias: bool) -> GridConv {
        GridConv::new(&(vs / "coarse"), [1, channels], self.taps, self.stride, bias)
    }

    /// The mean of (B, L, 1, C) over what each tap window of that convolution covers of a map on `grid`: (B, l, 1, C).
    pub(super) fn means(&self, x: &Tensor, grid: &[i64]) -> Result<Tensor> {
        let [.., rows, columns] = *grid else {
            return Err(Error::invalid(format!("a grid of {grid:?} is no map")));
        };
        let (b, c) = (x.size()[0], x.size()[3]);
        let frames = x.size()[1] / (rows * columns).max(1);
        let map = x.f_reshape([b * frames, rows, columns, c])?.permute([0, 3, 1, 2]);
        let half = self.taps / 2;
        let means = map.f_avg_pool2d([self.taps; 2], [self.stride; 2], [half; 2], false, false, None)?;
        let cells: i64 = means.size()[2..].iter().product();
        Ok(means.permute([0, 2, 3, 1]).f_reshape([b, frames * cells, 1, c])?)
    }

    /// The sum of what the directions over the coarse map of [rows, columns] = `low` make, brought to the map of `orders`:
    /// (B, L, 1, D). `scan` makes of one direction, from the state that the one before ended with, y (B, l, 1, D) and the
    /// state that it ends with.
    pub(super) fn one_after_another(
        &self,
        orders: &Orders,
        low: [i64; 2],
        scan: impl Fn(&Orders, Option<&Tensor>) -> Result<[Tensor; 2]>,
    ) -> Result<Tensor> {
        let (Some(coarse), [.., rows, columns]) = (orders.coarse(), orders.plane()?) else {
            return Err(Error::invalid(
                "the mixer reads a coarser map too, but the orders carry none for it (`with_coarse`)",
            ));
        };
        expect_directions(coarse, self.directions)?;
        tape::note(
            "each direction of the coarse map begins with the state that the one before ended with, which is not shown",
        );
        let (mut sum, mut state): (Option<Tensor>, Option<Tensor>) = (None, None);
        for k in 0..self.directions {
            let [y, last] = scan(&coarse.part(k, 1), state.as_ref())?;
            sum = Some(sum.map_or_else(|| Ok(y.shallow_clone()), |sum| sum.f_add(&y))?);
            state = Some(last);
        }
        let Some(y) = sum else { return Err(Error::invalid("a coarse map of no direction")) };
        let (b, d) = (y.size()[0], y.size()[3]);
        let frames = y.size()[1] / (low[0] * low[1]).max(1);
        let map = y.f_view([b * frames, low[0], low[1], d])?.permute([0, 3, 1, 2]);
        let map = map.f_upsample_bilinear2d([*rows, *columns], false, None, None)?;
        Ok(map.permute([0, 2, 3, 1]).f_reshape([b, frames * rows * columns, 1, d])?)
    }
}
