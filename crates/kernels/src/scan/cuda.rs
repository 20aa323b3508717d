//! What the CUDA kernels of the scan (`cuda/selective_scan*`) are launched with: their macros, grids and arguments. Only
//! arithmetic: nothing here needs a GPU.
//!
//! ```text
//! forward    [states, carry,] forward                     (the first two if the order is cut into spans)
//! backward   [states_backward, carry_backward,] backward
//! step       step                                         (one token, in place on a state)
//! ```
//!
//! Rows go to their tokens if every order visits each token once (`by_token`); else each step writes its own row in f32,
//! and a token's rows are summed afterwards. The parts of dA, dD and the bias are summed over (batch, spans), those of dB and
//! dC over their parts, by [`crate::cuda::sums`].

use crate::{
    Result,
    cuda::{Address, Launch, Pass, line},
};

/// `HELD` in `selective_scan_backward.cu`.
const HELD: usize = 4;

/// How a block divides its work; see `selective_scan.cuh`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    /// N.
    pub states: usize,
    /// Threads that share the states of a channel.
    pub split: usize,
    /// Threads of a block.
    pub threads: usize,
    /// Blocks of a multiprocessor: what the registers are bounded for.
    pub blocks: usize,
    /// Steps whose rows are in shared memory together.
    pub tile: usize,
    /// Tiles between two checkpoints, in the backward; 0 in the forward.
    pub subtiles: usize,
}

/// Threads that share `states`: four of them a thread, more if a warp is not enough.
fn split(states: usize) -> usize {
    states.div_ceil(4).next_power_of_two().min(32)
}

impl Tiling {
    /// Of the forward. N is 1 to 256.
    pub fn forward(states: usize) -> Tiling {
        let split = split(states);
        let tile = if split == 1 { 4 } else { 8 };
        // As many as leave the registers that are needed: 96 or 128.
        let blocks = match states {
            0..=2 | 9..=64 => 5,
            3..=128 => 4,
            _ => 3,
        };
        Tiling { states, split, threads: 128, blocks, tile, subtiles: 0 }
    }

    /// Of the backward. N is 1 to 256.
    pub fn backward(states: usize) -> Tiling {
        let split = split(states);
        let tile = if split == 1 || states > 128 { 4 } else { 8 };
        let blocks = if states == 1 || split >= 4 && states <= 128 { 4 } else { 3 };
        Tiling { states, split, threads: 128, blocks, tile, subtiles: chunk(states) / tile }
    }

    /// Channels of a block.
    pub fn channels(&self) -> usize {
        self.threads / self.split
    }

    /// Macros that say so.
    pub fn macros(&self) -> Vec<(&'static str, u32)> {
        let mut macros = vec![
            ("D_STATE", self.states as u32),
            ("SPLIT", self.split as u32),
            ("THREADS", self.threads as u32),
            ("BLOCKS", self.blocks as u32),
            ("TILE", self.tile as u32),
        ];
        if self.subtiles > 0 {
            macros.push(("SUBTILES", self.subtiles as u32));
        }
        macros
    }

    /// Bytes of dynamic shared memory of the backward: `Tile` in `selective_scan_backward.cu`.
    pub fn shared(&self) -> usize {
        let each = self.states.div_ceil(self.split);
        let padded = each * self.split;
        let rows = 7 * self.tile * self.channels() + 2 * self.tile * padded;
        let sums = self.threads / 32 * self.tile * 2 * padded;
        let before = self.subtiles * self.tile / HELD * each * self.threads;
        let steps = 2 * (2 * self.tile + 1);
        // Up to 16 bytes before B and C each, and behind all.
        4 * (rows + sums + before + steps) + 48
    }
}

/// Steps between two checkpoints: a checkpoint takes N / chunk of an activation in f32.
pub fn chunk(states: usize) -> usize {
    if states <= 16 || states > 128 { 32 } else { 64 }
}

/// Sizes of a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// B.
    pub batch: usize,
    /// L.
    pub tokens: usize,
    /// K.
    pub directions: usize,
    /// D.
    pub channels: usize,
    /// G.
    pub groups: usize,
    /// N.
    pub states: usize,
    /// T.
    pub steps: usize,
}

/// How the orders are cut so that the whole card works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Chunks of an order.
    pub chunks: usize,
    /// Parts that blocks work on at once.
    pub spans: usize,
    /// Chunks of each.
    pub span_chunks: usize,
}

impl Sizes {
    fn blocks_per_group(&self, tiling: &Tiling) -> usize {
        (self.channels / self.groups).div_ceil(tiling.channels())
    }

    /// Blocks of channels that the backward adds into one part of dB and dC: the parts take at most an activation in f32.
    pub fn strip(&self) -> usize {
        let tiling = Tiling::backward(self.states);
        (2 * self.states).div_ceil(tiling.channels()).min(self.blocks_per_group(&tiling)).max(1)
    }

    /// Parts of dB and dC of a group.
    pub fn parts(&self) -> usize {
        self.blocks_per_group(&Tiling::backward(self.states)).div_ceil(self.strip())
    }

    /// The cut for a card of `processors` multiprocessors. Spans cost a second pass over the inputs: a card that is half
    /// full is as fast without.
    pub fn cut(&self, processors: usize, backward: bool) -> Cut {
        let tiling = if backward { Tiling::backward(self.states) } else { Tiling::forward(self.states) };
        let across = if backward { self.parts() } else { self.blocks_per_group(&tiling) };
        let blocks = (self.batch * self.directions * self.groups * across).max(1);
        let room = processors * tiling.blocks;
        let wanted = if 2 * blocks >= room { 1 } else { room.div_ceil(blocks) };
        self.cut_into(wanted)
    }

    /// The cut into about `spans`.
    pub fn cut_into(&self, spans: usize) -> Cut {
        let chunks = self.steps.div_ceil(chunk(self.states)).max(1);
        let span_chunks = chunks.div_ceil(spans.clamp(1, chunks));
        Cut { chunks, spans: chunks.div_ceil(span_chunks), span_chunks }
    }

    fn per_state(&self, threads: usize) -> Result<Launch> {
        line((self.batch * self.directions * self.channels * self.states).div_ceil(threads), threads, 0)
    }

    /// Launches of the forward, in order.
    ///
    /// # Errors
    /// Too large for a launch.
    pub fn forward(&self, cut: &Cut) -> Result<Vec<Pass>> {
        let tiling = Tiling::forward(self.states);
        let blocks = self.batch * self.directions * cut.spans * self.groups * self.blocks_per_group(&tiling);
        let scan = line(blocks, tiling.threads, 0)?;
        let mut passes = Vec::new();
        if cut.spans > 1 {
            passes.push(("selective_scan_states", scan));
            passes.push(("selective_scan_carry", self.per_state(tiling.threads)?));
        }
        passes.push(("selective_scan_forward", scan));
        Ok(passes)
    }

    /// Launches of the backward, in order, without the sums of the parts.
    ///
    /// # Errors
    /// Too large for a launch.
    pub fn backward(&self, cut: &Cut) -> Result<Vec<Pass>> {
        let tiling = Tiling::backward(self.states);
        let (threads, shared) = (tiling.threads, tiling.shared());
        let sequences = self.batch * self.directions * cut.spans * self.groups;
        let mut passes = Vec::new();
        if cut.spans > 1 {
            let states = line(sequences * self.blocks_per_group(&tiling), threads, shared)?;
            passes.push(("selective_scan_states_backward", states));
            passes.push(("selective_scan_carry_backward", self.per_state(threads)?));
        }
        passes.push(("selective_scan_backward", line(sequences * self.parts(), threads, shared)?));
        Ok(passes)
    }
}

/// The launch of one token.
///
/// # Errors
/// Too large for a launch.
pub fn step(batch: usize, channels: usize, states: usize) -> Result<Pass> {
    let Tiling { split, threads, .. } = Tiling::forward(states);
    Ok(("selective_scan_step", line(batch * channels.div_ceil(threads / split), threads, 0)?))
}

/// `AnyView` in `selective_scan.cuh`. Strides in elements, from token to token in bytes.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Rows {
    pub data: Address,
    pub batch: i64,
    pub direction: i64,
    pub group: i64,
    pub token_bytes: i32,
}

/// `Output` in `selective_scan.cuh`: rows by token, or else by step.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Output {
    pub rows: Address,
    pub steps: Address,
    pub batch: i64,
    pub direction: i64,
    pub token_bytes: i32,
}

/// `Arguments` in `selective_scan.cuh`, which says what each is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct Arguments {
    pub u: Rows,
    pub delta: Rows,
    pub z: Rows,
    pub b: Rows,
    pub c: Rows,
    pub dy: Rows,
    pub a: Address,
    pub d: Address,
    pub bias: Address,
    pub initial: Address,
    pub read: Address,
    pub written: Address,
    pub resets: Address,
    pub y: Output,
    pub final_state: Address,
    pub checkpoints: Address,
    pub reach: Address,
    pub dfinal: Address,
    pub carry: Address,
    pub du: Output,
    pub ddelta: Output,
    pub dz: Output,
    pub db_parts: Address,
    pub dc_parts: Address,
    pub da_parts: Address,
    pub dd_parts: Address,
    pub dbias_parts: Address,
    pub dinitial: Address,
    pub batch: i32,
    pub directions: i32,
    pub channels: i32,
    pub groups: i32,
    pub tokens: i32,
    pub steps: i32,
    pub per_sample: i32,
    pub softplus: i32,
    pub chunk: i32,
    pub chunks: i32,
    pub spans: i32,
    pub span_chunks: i32,
    pub parts: i32,
    pub strip: i32,
    pub coefficients_by_token: i32,
}

impl Arguments {
    /// With the sizes and the cut filled in.
    pub fn new(sizes: &Sizes, cut: &Cut) -> Arguments {
        Arguments {
            batch: sizes.batch as i32,
            directions: sizes.directions as i32,
            channels: sizes.channels as i32,
            groups: sizes.groups as i32,
            tokens: sizes.tokens as i32,
            steps: sizes.steps as i32,
            chunk: chunk(sizes.states) as i32,
            chunks: cut.chunks as i32,
            spans: cut.spans as i32,
            span_chunks: cut.span_chunks as i32,
            parts: sizes.parts() as i32,
            strip: sizes.strip() as i32,
            ..Arguments::default()
        }
    }
}

/// `StepArguments` in `selective_scan_step.cu`, which says what each is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
#[allow(missing_docs)]
pub struct StepArguments {
    pub u: Address,
    pub delta: Address,
    pub z: Address,
    pub b: Address,
    pub c: Address,
    pub a: Address,
    pub d: Address,
    pub bias: Address,
    pub state: Address,
    pub y: Address,
    pub u_batch: i64,
    pub delta_batch: i64,
    pub z_batch: i64,
    pub b_batch: i64,
    pub b_group: i64,
    pub c_batch: i64,
    pub c_group: i64,
    pub y_batch: i64,
    pub batch: i32,
    pub channels: i32,
    pub groups: i32,
    pub softplus: i32,
    pub aligned: i32,
}
