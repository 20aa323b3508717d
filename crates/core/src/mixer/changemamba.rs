//! Two images of a place (ChangeMamba, Chen et al. 2024, arXiv 2404.03425; the arrangements are those of the released
//! `ChangeDecoder`): their tokens are laid out as one map in three ways, each map passes a block of VMamba of its own,
//! and a 1x1 convolution brings the three together.
//!
//! ```text
//! stacked       (rows, columns)       both images' channels at a place
//! interleaved   (rows, 2 columns)     column w of the first image, then column w of the second
//! beside        (rows, 2 columns)     the first image, then the second
//! y_m   = block_m(conv_m(map_m))      conv 1x1; y = x + SS2D(norm(x)), then y + MLP(norm(y))
//! fused = fuse([y_s, y_i of the first image, y_i of the second, y_b of the first, y_b of the second])
//! ```
//!
//! A layout is a copy of the tokens: the convolution of an SS2D runs over the map that it makes.

use tch::{Tensor, nn};

use super::{ConvPlace, Mamba1, Mamba1Config, Mixer, map_of};
use crate::{
    Error, Result,
    block::{Block, BlockConfig, add},
    layers::{BatchNorm, Linear},
    ops::Orders,
    tape,
};

/// Sizes and options of a [`ChangeMamba`].
#[derive(Debug, Clone, PartialEq)]
pub struct ChangeMambaConfig {
    /// The mixers of the three blocks.
    pub mamba: Mamba1Config,
    /// What stands around them; `d_model` is that of the mixers.
    pub block: BlockConfig,
    /// A batch norm and a ReLU behind the last convolution, as released.
    pub activated: bool,
}

/// `stacked`, `interleaved` and `beside` hold `conv` and `block.*` each; `fuse` and, if it is activated, `fuse_norm`.
pub struct ChangeMamba {
    stacked: Arrangement,
    interleaved: Arrangement,
    beside: Arrangement,
    fuse: Linear,
    fuse_norm: Option<BatchNorm>,
    d_model: i64,
}

/// A 1x1 convolution and a block.
struct Arrangement {
    conv: Linear,
    block: Block,
}

impl Arrangement {
    fn new(vs: &nn::Path, inputs: i64, config: &ChangeMambaConfig) -> Result<Arrangement> {
        let block = vs / "block";
        let mixer = Mamba1::new(&(&block / "mixer"), &config.mamba)?;
        let start = config.mamba.start.linear();
        Ok(Arrangement {
            conv: Linear::new(&(vs / "conv"), inputs, config.mamba.d_model, true, start),
            block: Block::new(&block, &config.block, Box::new(mixer)),
        })
    }

    /// A map's tokens (B, L, inputs) to (B, L, d_model).
    fn forward(&self, map: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        let (branch, stream) = self.block.forward(&self.conv.forward(map)?, None, orders, train)?;
        add(&branch, Some(&stream))
    }
}

impl ChangeMamba {
    /// A fresh one; the values come from libtorch's generator.
    ///
    /// # Errors
    /// Those of [`Mamba1::new`], or mixers that do not convolve over the map.
    pub fn new(vs: &nn::Path, config: &ChangeMambaConfig) -> Result<ChangeMamba> {
        if config.mamba.conv == ConvPlace::Along || config.mamba.coarse.is_some() {
            let text = "`conv` is \"along\" or `coarse` is set, expected `conv = \"grid\"` or \"none\" and no `coarse` \
                        for the blocks of ChangeMamba";
            return Err(Error::Config(text.into()));
        }
        let d_model = config.mamba.d_model;
        let arrangement = |name: &str, images| Arrangement::new(&(vs / name), images * d_model, config);
        Ok(ChangeMamba {
            stacked: arrangement("stacked", 2)?,
            interleaved: arrangement("interleaved", 1)?,
            beside: arrangement("beside", 1)?,
            fuse: Linear::new(&(vs / "fuse"), 5 * d_model, d_model, true, config.mamba.start.linear()),
            fuse_norm: config.activated.then(|| BatchNorm::new(&(vs / "fuse_norm"), d_model)),
            d_model,
        })
    }

    /// `x` (B, 2 rows columns, C), the tokens of the first image and then those of the second, to one map (B, rows columns,
    /// C). `orders` are those over a map of `[rows, 2 columns]`; their [`coarse`](Orders::coarse) ones those over
    /// `[rows, columns]`.
    ///
    /// # Errors
    /// Tokens of another shape, or orders without the two maps.
    pub fn fused(&self, x: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        let Some(single) = orders.coarse() else {
            return Err(Error::invalid(
                "two images need orders over a map of both and over one of a single image",
            ));
        };
        let ([rows, wide], [_, columns]) = (map_of(orders)?, map_of(single)?);
        let (shape, expected) = (x.size(), [2 * rows * columns, self.d_model]);
        if shape.len() != 3 || shape[1..] != expected || wide != 2 * columns {
            return Err(Error::invalid(format!(
                "two images' tokens have shape {shape:?}, expected (batch, {}, {}) for maps of {rows}x{columns} side by \
                 side on {rows}x{wide}",
                expected[0], expected[1]
            )));
        }
        // What the scans read are tokens of a map, not of the layer.
        tape::note("ChangeMamba's scans run over three arrangements of the tokens, which are not shown");
        tape::unheard(|| {
            let pair = x.f_unflatten(1, [2, rows, columns])?; // (B, 2, h, w, C)
            let stacked = pair.f_permute([0, 2, 3, 1, 4])?.f_flatten(3, 4)?.f_flatten(1, 2)?; // (B, h w, 2 C)
            let stacked = self.stacked.forward(&stacked, single, train)?;
            let interleaved = pair.f_permute([0, 2, 3, 1, 4])?.f_flatten(1, 3)?; // (B, h 2w, C)
            let interleaved = self.interleaved.forward(&interleaved, orders, train)?;
            let beside = pair.f_permute([0, 2, 1, 3, 4])?.f_flatten(1, 3)?;
            let beside = self.beside.forward(&beside, orders, train)?.f_unflatten(1, [rows, 2, columns])?;
            let image = |i: i64| Ok::<_, Error>(beside.f_select(2, i)?.f_flatten(1, 2)?);
            // The images' channels at a place lie side by side already.
            let interleaved = interleaved.f_reshape([-1, rows * columns, 2 * self.d_model])?;
            let all = Tensor::f_cat(&[stacked, interleaved, image(0)?, image(1)?], 2)?; // (B, h w, 5 C)
            let fused = self.fuse.forward(&all)?;
            let Some(norm) = &self.fuse_norm else { return Ok(fused) };
            Ok(norm.forward(&fused.f_transpose(1, 2)?, train)?.f_relu()?.f_transpose(1, 2)?)
        })
    }
}

impl Mixer for ChangeMamba {
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.forward_t(x, orders, false)
    }

    /// [`fused`](ChangeMamba::fused), which both images' tokens are given: in the paper one map goes on to a decoder.
    fn forward_t(&self, x: &Tensor, orders: &Orders, train: bool) -> Result<Tensor> {
        let fused = self.fused(x, orders, train)?;
        Ok(Tensor::f_cat(&[&fused, &fused], 1)?)
    }
}
