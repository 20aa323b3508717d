//! Attention within a map, as SegFormer has it (Xie et al., arXiv 2105.15203, section 3.1): keys and values are those of a
//! coarser map.

use tch::{Tensor, nn};

use super::{Mixer, map_of};
use crate::{
    Error, Result,
    init::Start,
    layers::{Conv2d, Kernel, Linear, Norm, NormKind, to_map, to_tokens},
    ops::Orders,
};

/// Sizes of an [`Attention`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AttentionConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// Heads, which split the channels.
    pub heads: i64,
    /// Rows and columns of tokens that make one key and one value; 1 for none.
    pub reduction: i64,
    /// Where weights start from.
    pub start: Start,
}

/// Each token looks at all of its map, in several heads: `query`, `key`, `value`, `out`, and `reduce` and `norm` of the
/// coarser map.
pub struct Attention {
    heads: i64,
    query: Linear,
    key: Linear,
    value: Linear,
    out: Linear,
    reduce: Option<(Conv2d, Norm)>,
}

impl Attention {
    /// A fresh one; the values come from libtorch's generator.
    ///
    /// # Errors
    /// [`Error::Config`] if the heads do not split the channels, or a reduction below 1.
    pub fn new(vs: &nn::Path, config: &AttentionConfig) -> Result<Attention> {
        let AttentionConfig { d_model, heads, reduction, start } = *config;
        if heads < 1 || d_model % heads != 0 {
            return Err(Error::Config(format!(
                "`heads` is {heads}, expected a number that divides {d_model} channels"
            )));
        }
        if !(1..=4096).contains(&reduction) {
            return Err(Error::Config(format!("`reduction` is {reduction}, expected 1 to 4096")));
        }
        let linear = |name: &str| Linear::new(&(vs / name), d_model, d_model, true, start.linear());
        let sides = [reduction; 2];
        let reduce = || {
            let kernel = Kernel::patches(d_model, d_model, sides, sides);
            let norm = Norm::new(&(vs / "norm"), NormKind::Layer, d_model, 1e-5);
            (Conv2d::new(&(vs / "reduce"), &kernel, true, None), norm)
        };
        Ok(Attention {
            heads,
            query: linear("query"),
            key: linear("key"),
            value: linear("value"),
            out: linear("out"),
            reduce: (reduction > 1).then(reduce),
        })
    }

    /// (B, L, C) as (B, heads, L, C / heads).
    fn split(&self, x: &Tensor) -> Result<Tensor> {
        Ok(x.f_unflatten(2, [self.heads, -1])?.f_transpose(1, 2)?)
    }
}

impl Mixer for Attention {
    /// The orders tell of the map alone: nothing is walked.
    fn forward(&self, x: &Tensor, orders: &Orders) -> Result<Tensor> {
        let coarse = match &self.reduce {
            Some((conv, norm)) => {
                let map = conv.forward(&to_map(x, map_of(orders)?)?)?; // (B, C, h / R, w / R)
                norm.forward(&to_tokens(&map)?)?
            }
            None => x.shallow_clone(),
        };
        let query = self.split(&self.query.forward(x)?)?;
        let key = self.split(&self.key.forward(&coarse)?)?;
        let value = self.split(&self.value.forward(&coarse)?)?;
        let seen = Tensor::f_scaled_dot_product_attention(
            &query,
            &key,
            &value,
            None::<&Tensor>,
            0.0,
            false,
            None::<f64>,
            false,
        )?; // (B, heads, L, C / heads)
        self.out.forward(&seen.f_transpose(1, 2)?.f_flatten(2, 3)?)
    }
}
