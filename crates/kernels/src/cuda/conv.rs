//! `causal_conv1d` on a GPU: arguments and launches of `cuda/causal_conv1d.cu`, which says what each means.

use std::ffi::c_void;

use super::{
    Card, Element, Launch, Source, Variant,
    launch::{MOST, blocks, int},
};
use crate::{Error, Result};

/// The kernels.
pub static SOURCE: Source = Source {
    name: "causal_conv1d.cu",
    text: include_str!("../../cuda/causal_conv1d.cu"),
    kernels: &["causal_conv1d_forward", "causal_conv1d_backward", "causal_conv1d_step"],
};

/// Threads of a block.
const THREADS: usize = 128;
/// Steps a thread walks at least, so that the rows before its span, which it reads too, are few beside its own.
const SHORTEST: usize = 32;
/// Threads that keep the memory of a multiprocessor busy.
const BUSY: usize = 512;

/// The kernels for `taps` taps (W).
///
/// # Errors
/// Fewer than 2 taps, or more than 8.
pub fn variant(element: Element, taps: usize) -> Result<Variant> {
    if !(2..=8).contains(&taps) {
        return Err(Error::Shape(format!("a convolution of {taps} taps; a GPU takes 2 to 8")));
    }
    Ok(Variant { source: &SOURCE, macros: vec![("DTYPE", element as u32), ("WIDTH", taps as u32)] })
}

/// Arguments of `causal_conv1d_forward`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct Forward {
    pub x: *const c_void,
    pub weight: *const f32,
    pub bias: *const f32,
    pub initial: *const f32,
    pub read: *const i32,
    pub written: *const i32,
    pub resets: *const u8,
    pub y: *mut c_void,
    pub y_steps: *mut f32,
    pub final_state: *mut f32,
    pub x_strides: [i64; 3],
    pub y_strides: [i64; 3],
    pub batch: i32,
    pub directions: i32,
    pub channels: i32,
    pub steps: i32,
    pub span: i32,
    pub lanes: i32,
    pub per_sample: i32,
    pub silu: i32,
    pub aligned: i32,
}

/// Arguments of `causal_conv1d_backward`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct Backward {
    pub x: *const c_void,
    pub weight: *const f32,
    pub bias: *const f32,
    pub initial: *const f32,
    pub read: *const i32,
    pub written: *const i32,
    pub resets: *const u8,
    pub dy: *const c_void,
    pub dfinal: *const f32,
    pub dx: *mut c_void,
    pub dx_steps: *mut f32,
    pub parts: *mut f32,
    pub dinitial: *mut f32,
    pub x_strides: [i64; 3],
    pub dy_strides: [i64; 3],
    pub dx_strides: [i64; 3],
    pub batch: i32,
    pub directions: i32,
    pub channels: i32,
    pub steps: i32,
    pub span: i32,
    pub lanes: i32,
    pub per_sample: i32,
    pub silu: i32,
    pub aligned: i32,
}

/// Arguments of `causal_conv1d_step`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct Step {
    pub x: *const c_void,
    pub weight: *const f32,
    pub bias: *const f32,
    pub state: *mut f32,
    pub seen: *const i32,
    pub y: *mut c_void,
    pub x_strides: [i64; 2],
    pub y_strides: [i64; 2],
    pub batch: i32,
    pub tokens: i32,
    pub channels: i32,
    pub room: i32,
    pub silu: i32,
}

/// How a convolution is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The launch.
    pub launch: Launch,
    /// Argument `span`.
    pub span: i32,
    /// Argument `lanes`.
    pub lanes: i32,
    /// Shares of the gradients that the backward makes: its `parts` is (parts, K, W + 1, D).
    pub parts: usize,
}

impl Plan {
    /// Of the forward: B `batch`, K `directions`, D `channels`, T `steps`.
    ///
    /// # Errors
    /// Too large for a launch.
    pub fn forward(
        element: Element,
        [batch, directions, channels, steps]: [usize; 4],
        card: Card,
    ) -> Result<Plan> {
        plan(16 / element.size(), [batch, directions, channels, steps], card)
    }

    /// Of the backward, likewise.
    ///
    /// # Errors
    /// Too large for a launch.
    pub fn backward([batch, directions, channels, steps]: [usize; 4], card: Card) -> Result<Plan> {
        plan(4, [batch, directions, channels, steps], card)
    }
}

/// `each` channels a thread.
fn plan(each: usize, [batch, directions, channels, steps]: [usize; 4], card: Card) -> Result<Plan> {
    for (name, n) in
        [("the batch", batch), ("the number of channels", channels), ("the number of steps", steps)]
    {
        int(name, n)?;
    }
    if directions > MOST {
        return Err(Error::Shape(format!("{directions} directions; a GPU takes up to {MOST}")));
    }
    // Threads side by side are a warp's at most, and as few blocks as that allows: the rest lie one span further.
    let vectors = channels.div_ceil(each).max(1);
    let across = vectors.div_ceil(32);
    let lanes = vectors.div_ceil(across);
    let rows = THREADS / lanes;
    // Short enough for every multiprocessor to be busy; a multiple of the steps that are read at once.
    let walkers = (vectors * directions * batch).max(1);
    let spans = (card.multiprocessors as usize * BUSY).div_ceil(walkers);
    let span = steps.div_ceil(spans).max(SHORTEST).next_multiple_of(4);
    let groups = steps.div_ceil(span).div_ceil(rows).max(1);
    // Samples beyond what keeps the card busy take turns, so that the backward's shares of gradients are few.
    let turns =
        (card.multiprocessors as usize * BUSY / THREADS * 2).div_ceil(across * groups * directions.max(1));
    let samples = batch.min(turns.max(1)).clamp(1, MOST);
    Ok(Plan {
        launch: Launch {
            grid: [blocks(across * groups)?, blocks(directions.max(1))?, blocks(samples)?],
            block: [THREADS as u32, 1, 1],
            shared: 0,
        },
        span: int("the span", span)?,
        lanes: lanes as i32,
        parts: groups * samples,
    })
}

/// Launch of the step.
///
/// # Errors
/// Too large for a launch.
pub fn step_launch(batch: usize, channels: usize) -> Result<Launch> {
    let grid = [blocks(channels.div_ceil(THREADS))?, blocks(batch.min(MOST))?, 1];
    Ok(Launch { grid, block: [THREADS as u32, 1, 1], shared: 0 })
}
