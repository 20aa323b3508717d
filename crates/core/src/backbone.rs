//! All blocks, in one stage or several, and the norm behind the last.

use std::collections::BTreeMap;

use tch::{Tensor, nn};

use crate::{
    Error, Result,
    block::{Block, add},
    layers::{Downsample, LocalConv, Norm, NormKind},
    ops::Orders,
    tape,
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

/// Blocks at one resolution, and the step to the next.
#[derive(Default)]
pub struct Stage {
    /// The blocks in their order.
    pub blocks: Vec<Block>,
    /// Local convolutions on the sum behind a block, by its number in the stage.
    pub local: BTreeMap<usize, LocalConv>,
    /// Behind the last block.
    pub norm: Option<Norm>,
    /// Behind that; absent in the last stage.
    pub downsample: Option<Downsample>,
}

/// Hears of the tokens behind each stage and the grid they lie on: (number of the stage, tokens, grid).
pub type Tap<'a> = dyn FnMut(usize, &Tensor, [i64; 2]) + 'a;

/// A stack of blocks, in one stage or several.
pub struct Backbone {
    stages: Vec<Stage>,
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
        let norm = Norm::new(&(vs / "norm_f"), norm, channels, eps);
        Backbone::staged(vec![Stage { blocks, ..Stage::default() }], pairs, norm)
    }

    /// As [`new`](Backbone::new), in stages.
    pub fn staged(stages: Vec<Stage>, pairs: bool, norm: Norm) -> Backbone {
        Backbone { stages, norm, pairs }
    }

    /// (B, L, d_model) to the same, normalised, f32. `orders` holds one entry for all blocks or one for each. For a
    /// backbone that does not need to know on which grid the tokens lie.
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
        let line = [1, tokens.size().get(1).copied().unwrap_or(0)];
        self.forward_on(tokens, line, orders, between, train, &mut |_, _, _| {})
    }

    /// As [`forward`](Backbone::forward), for tokens on a grid: (B, L, channels of the first stage) to (B, L', channels
    /// of the last stage). `tap` hears of the tokens behind each stage, before the last norm.
    ///
    /// # Errors
    /// Another number of orders, tokens that do not lie on `grid`, or those of the blocks.
    pub fn forward_on(
        &self,
        tokens: &Tensor,
        mut grid: [i64; 2],
        orders: &[Orders],
        between: Option<&dyn Between>,
        train: bool,
        tap: &mut Tap<'_>,
    ) -> Result<Tensor> {
        let blocks: usize = self.stages.iter().map(|stage| stage.blocks.len()).sum();
        if orders.len() != blocks && orders.len() != 1 {
            return Err(Error::invalid(format!(
                "{} plans were given for {blocks} blocks, expected one for all or one for each",
                orders.len()
            )));
        }
        let (mut tokens, mut first) = (tokens.shallow_clone(), 0);
        for (number, stage) in self.stages.iter().enumerate() {
            let orders = if orders.len() == 1 { orders } else { &orders[first..first + stage.blocks.len()] };
            first += stage.blocks.len();
            tokens = self.stage(stage, tokens, grid, orders, between, train)?;
            if let Some(norm) = &stage.norm {
                tokens = norm.forward(&tokens)?;
            }
            if let Some(downsample) = &stage.downsample {
                (tokens, grid) = downsample.forward(&tokens, grid, train)?;
            }
            tap(number, &tokens, grid);
        }
        let tokens = self.norm.forward(&tokens)?;
        tape::tokens(&tokens, grid);
        Ok(tokens)
    }

    /// The blocks of a stage, their sum in f32.
    fn stage(
        &self,
        stage: &Stage,
        tokens: Tensor,
        grid: [i64; 2],
        orders: &[Orders],
        between: Option<&dyn Between>,
        train: bool,
    ) -> Result<Tensor> {
        let run = |i: usize, hidden: &Tensor, residual: Option<&Tensor>| {
            tape::layer(grid, hidden);
            stage.blocks[i].forward(hidden, residual, &orders[i.min(orders.len() - 1)], train)
        };
        let (mut hidden, mut residual) = (tokens, None);
        let step = if self.pairs { 2 } else { 1 };
        for i in (0..stage.blocks.len() / step).map(|pair| pair * step) {
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
            if let Some(local) = stage.local.get(&(i + step - 1)) {
                hidden = local.forward(&add(&hidden, residual.as_ref())?, grid, train)?;
                residual = None;
            }
        }
        add(&hidden, residual.as_ref())
    }
}
