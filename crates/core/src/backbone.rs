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
    /// Blocks that each frame of a clip passes by itself, in front of the others.
    pub within: Vec<Block>,
    /// The blocks in their order.
    pub blocks: Vec<Block>,
    /// Local convolutions on the sum behind a block, by its number in the stage.
    pub local: BTreeMap<usize, LocalConv>,
    /// Behind the last block.
    pub norm: Option<Norm>,
    /// Behind that; absent in the last stage.
    pub downsample: Option<Downsample>,
}

/// Where a [`Tap`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// The blocks of this stage.
    Blocks(usize),
    /// This stage, the step to the next included.
    Stage(usize),
}

/// Hears of the tokens at each such place and what they lie on: [frames, rows, columns].
pub type Tap<'a> = dyn FnMut(Behind, &Tensor, [i64; 3]) + 'a;

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
        let line = [1, 1, tokens.size().get(1).copied().unwrap_or(0)];
        self.forward_on(tokens, line, orders, between, train, &mut |_, _, _| {})
    }

    /// As [`forward`](Backbone::forward), for tokens on `place` = [frames, rows, columns]: (B, L, channels of the first
    /// stage) to (B, L', channels of the last stage). `tap` hears of the tokens, before the last norm.
    ///
    /// # Errors
    /// Another number of orders, tokens that do not lie on `place`, or those of the blocks.
    pub fn forward_on(
        &self,
        tokens: &Tensor,
        place: [i64; 3],
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
        let [frames, mut grid @ ..] = place;
        for (number, stage) in self.stages.iter().enumerate() {
            let orders = if orders.len() == 1 { orders } else { &orders[first..first + stage.blocks.len()] };
            first += stage.blocks.len();
            if !stage.within.is_empty() {
                let apart = within(&stage.within, &parted(&tokens, frames)?, grid, train)?;
                tokens = joined(&apart, frames)?;
            }
            tokens = self.stage(stage, tokens, [frames, grid[0], grid[1]], orders, between, train)?;
            tap(Behind::Blocks(number), &tokens, [frames, grid[0], grid[1]]);
            if let Some(norm) = &stage.norm {
                tokens = norm.forward(&tokens)?;
            }
            if let Some(downsample) = &stage.downsample {
                let (apart, smaller) = downsample.forward(&parted(&tokens, frames)?, grid, train)?;
                (tokens, grid) = (joined(&apart, frames)?, smaller);
            }
            tap(Behind::Stage(number), &tokens, [frames, grid[0], grid[1]]);
        }
        let tokens = self.norm.forward(&tokens)?;
        tape::tokens(&tokens, plane([frames, grid[0], grid[1]]));
        Ok(tokens)
    }

    /// The blocks of a stage, their sum in f32.
    fn stage(
        &self,
        stage: &Stage,
        tokens: Tensor,
        place: [i64; 3],
        orders: &[Orders],
        between: Option<&dyn Between>,
        train: bool,
    ) -> Result<Tensor> {
        let run = |i: usize, hidden: &Tensor, residual: Option<&Tensor>| {
            tape::layer(plane(place), hidden);
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
                hidden = local.forward(&add(&hidden, residual.as_ref())?, plane(place), train)?;
                residual = None;
            }
        }
        add(&hidden, residual.as_ref())
    }
}

/// The grid on which the frames lie one below another.
fn plane([frames, rows, columns]: [i64; 3]) -> [i64; 2] {
    [frames * rows, columns]
}

/// Clips (B, frames L, C) as their frames (B frames, L, C).
fn parted(tokens: &Tensor, frames: i64) -> Result<Tensor> {
    if frames == 1 {
        return Ok(tokens.shallow_clone());
    }
    Ok(tokens.f_unflatten(1, [frames, -1])?.f_flatten(0, 1)?)
}

/// Frames as the clips that they make up.
fn joined(tokens: &Tensor, frames: i64) -> Result<Tensor> {
    if frames == 1 {
        return Ok(tokens.shallow_clone());
    }
    Ok(tokens.f_unflatten(0, [-1, frames])?.f_flatten(1, 2)?)
}

/// `blocks` one after another, on maps of `grid`; f32.
fn within(blocks: &[Block], tokens: &Tensor, grid: [i64; 2], train: bool) -> Result<Tensor> {
    let orders = Orders::identity(grid[0] * grid[1], 1).on_grid(grid);
    let (mut hidden, mut residual) = (tokens.shallow_clone(), None);
    for block in blocks {
        let (branch, stream) = block.forward(&hidden, residual.as_ref(), &orders, train)?;
        (hidden, residual) = (branch, Some(stream));
    }
    add(&hidden, residual.as_ref())
}
