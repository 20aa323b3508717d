//! All blocks, and the norm behind the last.

use tch::{Tensor, nn};

use crate::{
    Error, Result,
    block::{Block, add},
    layers::{Norm, NormKind},
    ops::Orders,
};

/// What is done to the tokens between the blocks, for example a rotary position embedding.
pub trait Between {
    /// The branch that the last block returned, or the tokens before the first.
    ///
    /// # Errors
    /// A shape that does not fit.
    fn hidden(&self, hidden: Tensor) -> Result<Tensor>;

    /// The stream that it will be added to.
    ///
    /// # Errors
    /// A shape that does not fit.
    fn residual(&self, residual: Tensor) -> Result<Tensor>;
}

/// A stack of blocks.
pub struct Backbone {
    blocks: Vec<Block>,
    norm: Norm,
    pairs: bool,
}

impl Backbone {
    /// `blocks` followed by a norm named `norm_f`. With `pairs`, blocks 2i and 2i + 1 read the same tokens
    /// and their results are added up (Vim's `if_bidirectional`); a last block without a partner is left
    /// out, as there.
    pub fn new(
        vs: &nn::Path,
        blocks: Vec<Block>,
        pairs: bool,
        norm: NormKind,
        channels: i64,
        eps: f64,
    ) -> Backbone {
        Backbone { blocks, norm: Norm::new(&(vs / "norm_f"), norm, channels, eps), pairs }
    }

    /// (B, L, d_model) to the same, normalised, f32. `orders` holds one entry for all blocks or one for each.
    ///
    /// # Errors
    /// Another number of orders, or those of the blocks.
    pub fn forward(
        &self,
        tokens: &Tensor,
        orders: &[Orders],
        between: Option<&dyn Between>,
        train: bool,
    ) -> Result<Tensor> {
        if orders.len() != self.blocks.len() && orders.len() != 1 {
            return Err(Error::invalid(format!(
                "{} plans were given for {} blocks, expected one for all or one for each",
                orders.len(),
                self.blocks.len()
            )));
        }
        let run = |i: usize, hidden: &Tensor, residual: Option<&Tensor>| {
            self.blocks[i].forward(hidden, residual, &orders[i.min(orders.len() - 1)], train)
        };
        let (mut hidden, mut residual) = (tokens.shallow_clone(), None);
        let step = if self.pairs { 2 } else { 1 };
        for i in (0..self.blocks.len() / step).map(|pair| pair * step) {
            if let Some(between) = between {
                hidden = between.hidden(hidden)?;
                residual = residual.map(|stream| between.residual(stream)).transpose()?;
            }
            let (mut branch, mut stream) = run(i, &hidden, residual.as_ref())?;
            if self.pairs {
                let (other, other_stream) = run(i + 1, &hidden, residual.as_ref())?;
                branch = branch.f_add(&other)?;
                stream = stream.f_add(&other_stream)?;
            }
            (hidden, residual) = (branch, Some(stream));
        }
        self.norm.forward(&add(&hidden, residual.as_ref())?)
    }
}
