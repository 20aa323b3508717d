//! The rotary position embedding of vision transformers (EVA-02, arXiv 2303.11331, as Vim uses it): channels
//! are rotated in pairs, half of them by the row and half by the column of a patch.

use serde::{Deserialize, Serialize};
use tch::{Device, Kind, Tensor, nn};

use crate::{Error, Result, backbone::Between};

/// What is rotated before every block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rope {
    /// Nothing.
    #[default]
    None,
    /// The last block's output.
    Hidden,
    /// That and the residual stream.
    Residual,
}

/// Tables of cosines and sines, (patches, channels); they travel in checkpoints but are not trained.
pub(super) struct Rotary {
    cos: Tensor,
    sin: Tensor,
    residual: bool,
}

impl Rotary {
    /// For a grid of (rows, columns) patches. Positions are stretched so that `base` patches make up a side
    /// (0 for the grid's own), which keeps the angles that a model saw at another image size.
    ///
    /// # Errors
    /// `channels` is no multiple of 4.
    pub fn new(vs: &nn::Path, grid: [i64; 2], base: i64, channels: i64, residual: bool) -> Result<Rotary> {
        if channels % 4 != 0 {
            return Err(Error::Config(format!(
                "`rope` rotates pairs of channels by row and by column: `d_model` is {channels}, expected a multiple of 4"
            )));
        }
        let half = channels / 2;
        let options = (Kind::Float, Device::Cpu);
        let exponents = Tensor::arange_start_step(0, half, 2, options) / half as f64;
        let frequencies = (exponents * -(1e4f64.ln())).exp(); // (half / 2)
        let angles = |n: i64| {
            let side = if base > 0 { base } else { n };
            let positions = Tensor::arange(n, options) / n as f64 * side as f64;
            positions.outer(&frequencies).repeat_interleave_self_int(2, 1, None) // (n, half)
        };
        let [h, w] = grid;
        let rows = angles(h).unsqueeze(1).expand([h, w, half], false);
        let columns = angles(w).unsqueeze(0).expand([h, w, half], false);
        let table = Tensor::cat(&[rows, columns], 2).reshape([h * w, channels]);
        Ok(Rotary {
            cos: vs.add("freqs_cos", table.cos().to_device(vs.device()), false),
            sin: vs.add("freqs_sin", table.sin().to_device(vs.device()), false),
            residual,
        })
    }

    /// Checks that the tokens are the patches, and at most one more.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, tokens: i64) -> Result<()> {
        let patches = self.cos.size()[0];
        if tokens == patches || (tokens == patches + 1 && tokens % 2 == 1) {
            return Ok(());
        }
        Err(Error::Config(format!(
            "`rope` rotates patches, and one token more is left alone if that makes their number odd: there are \
             {patches} patches, but {tokens} tokens; use an even grid with at most one class token, or none"
        )))
    }

    /// (B, L, channels); of one token more than patches the first is left alone, wherever the class token is, as
    /// released.
    fn rotate(&self, x: &Tensor) -> Result<Tensor> {
        let patches = self.cos.size()[0];
        let alone = x.size()[1] - patches;
        let spatial = x.f_narrow(1, alone, patches)?;
        let pairs = spatial.f_unflatten(2, [-1, 2])?; // (B, L, channels / 2, 2)
        let turned = Tensor::stack(&[-pairs.select(3, 1), pairs.select(3, 0)], 3).flatten(2, 3);
        let rotated = spatial.f_mul(&self.cos)?.f_add(&turned.f_mul(&self.sin)?)?;
        Ok(if alone == 0 { rotated } else { Tensor::f_cat(&[x.f_narrow(1, 0, alone)?, rotated], 1)? })
    }
}

impl Between for Rotary {
    fn hidden(&self, hidden: Tensor) -> Result<Tensor> {
        self.rotate(&hidden)
    }

    fn residual(&self, residual: Tensor) -> Result<Tensor> {
        if self.residual { self.rotate(&residual) } else { Ok(residual) }
    }
}
