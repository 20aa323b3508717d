//! Norms on a GPU: arguments and launches of `cuda/gated_norm.cu` and `cuda/add_norm.cu`, which say what each means.

use std::ffi::c_void;

use super::{
    Card, Element, Launch, Source, Variant,
    launch::{MOST, blocks, int},
};
use crate::{Error, Result};

/// The gated RMS norm.
pub static GATED: Source = Source {
    name: "gated_norm.cu",
    text: include_str!("../../cuda/gated_norm.cu"),
    kernels: &["gated_rms_norm_forward", "gated_rms_norm_backward"],
};

/// The residual addition with its norm.
pub static ADD: Source = Source {
    name: "add_norm.cu",
    text: include_str!("../../cuda/add_norm.cu"),
    kernels: &["add_norm_forward", "add_norm_backward"],
};

/// Threads of a block.
const THREADS: usize = 256;

/// Room that a kernel takes in shared memory besides what it asks for at its launch, and more.
const STATIC: usize = 1 << 10;

/// The kernels of the gated RMS norm.
pub fn gated(element: Element) -> Variant {
    Variant { source: &GATED, macros: vec![("DTYPE", element as u32)] }
}

/// The kernels of the addition and norm: LayerNorm if `layer`, else RMS; with a residual stream of f32 or of `element`.
pub fn add(element: Element, layer: bool, stream_f32: bool) -> Variant {
    let stream = u32::from(stream_f32 && element != Element::F32);
    let macros = vec![("DTYPE", element as u32), ("LAYER", u32::from(layer)), ("STREAM_F32", stream)];
    Variant { source: &ADD, macros }
}

/// Arguments of `gated_rms_norm_forward`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct GatedForward {
    pub x: *const c_void,
    pub z: *const c_void,
    pub weight: *const f32,
    pub bias: *const f32,
    pub y: *mut c_void,
    pub rstd: *mut f32,
    pub x_row: i64,
    pub z_row: i64,
    pub y_row: i64,
    pub rows: i64,
    pub channels: i32,
    pub group: i32,
    pub z_repeat: i32,
    pub lanes: i32,
    pub eps: f32,
    pub norm_before_gate: i32,
    pub aligned: i32,
}

/// Arguments of `gated_rms_norm_backward`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct GatedBackward {
    pub x: *const c_void,
    pub z: *const c_void,
    pub weight: *const f32,
    pub bias: *const f32,
    pub rstd: *const f32,
    pub dy: *const c_void,
    pub dx: *mut c_void,
    pub dz: *mut c_void,
    pub parts: *mut f32,
    pub x_row: i64,
    pub z_row: i64,
    pub dy_row: i64,
    pub dx_row: i64,
    pub dz_row: i64,
    pub rows: i64,
    pub channels: i32,
    pub group: i32,
    pub z_repeat: i32,
    pub lanes: i32,
    pub norm_before_gate: i32,
    pub aligned: i32,
    pub roomy: i32,
}

/// Arguments of `add_norm_forward`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct AddForward {
    pub x: *const c_void,
    pub residual: *const c_void,
    pub scale: *const f32,
    pub weight: *const f32,
    pub bias: *const f32,
    pub y: *mut c_void,
    pub sum: *mut c_void,
    pub mean: *mut f32,
    pub rstd: *mut f32,
    pub x_row: i64,
    pub residual_row: i64,
    pub y_row: i64,
    pub sum_row: i64,
    pub rows: i64,
    pub channels: i32,
    pub lanes: i32,
    pub eps: f32,
    pub aligned: i32,
}

/// Arguments of `add_norm_backward`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct AddBackward {
    pub sum: *const c_void,
    pub scale: *const f32,
    pub weight: *const f32,
    pub mean: *const f32,
    pub rstd: *const f32,
    pub dy: *const c_void,
    pub dsum: *const c_void,
    pub dx: *mut c_void,
    pub dresidual: *mut c_void,
    pub parts: *mut f32,
    pub sum_row: i64,
    pub dy_row: i64,
    pub dsum_row: i64,
    pub dx_row: i64,
    pub dresidual_row: i64,
    pub rows: i64,
    pub channels: i32,
    pub lanes: i32,
    pub aligned: i32,
    pub roomy: i32,
}

/// How a norm is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// The launch.
    pub launch: Launch,
    /// Argument `lanes`.
    pub lanes: i32,
    /// Argument `roomy` of a backward.
    pub roomy: i32,
    /// Shares of the gradients that a backward makes: its `parts` is (parts, 2, channels).
    pub parts: usize,
}

impl Plan {
    /// Of a forward over `rows` rows of `groups` groups of `group` channels (1 group in `add_norm`).
    ///
    /// # Errors
    /// Too large for a launch.
    pub fn forward(element: Element, rows: usize, groups: usize, group: usize) -> Result<Plan> {
        int("the number of channels", groups.saturating_mul(group))?;
        let lanes = lanes(element, group);
        let grid = [blocks((rows * groups).div_ceil(THREADS / lanes))?, 1, 1];
        let launch = Launch { grid, block: [THREADS as u32, 1, 1], shared: 0 };
        Ok(Plan { launch, lanes: lanes as i32, roomy: 0, parts: 0 })
    }

    /// Of a backward, likewise. A team has the sums of its group in shared memory: where teams are many for that, fewer
    /// are put in a block, and where not even one has room, the sums are in the card's memory.
    ///
    /// # Errors
    /// Too large for a launch.
    pub fn backward(element: Element, rows: usize, groups: usize, group: usize, card: Card) -> Result<Plan> {
        int("the number of channels", groups.saturating_mul(group))?;
        if groups > MOST {
            return Err(Error::Shape(format!("{groups} groups; a GPU takes up to {MOST}")));
        }
        let (mut lanes, each) = (lanes(element, group), 8 * group);
        // A quarter of what there is lets four blocks run beside each other.
        while lanes < THREADS && THREADS / lanes * each > card.shared / 4 {
            lanes *= 2;
        }
        let teams = THREADS / lanes;
        let roomy = teams * each + STATIC <= card.shared;
        let wanted = (card.multiprocessors as usize * 4).div_ceil(groups.max(1));
        let parts = rows.div_ceil(teams).clamp(1, wanted.max(1));
        let launch = Launch {
            grid: [blocks(parts)?, blocks(groups.max(1))?, 1],
            block: [THREADS as u32, 1, 1],
            shared: if roomy { teams * each } else { 0 },
        };
        Ok(Plan { launch, lanes: lanes as i32, roomy: roomy.into(), parts })
    }
}

/// Threads of a team: a power of two, from a warp to a block, with two vectors each where there are so many.
fn lanes(element: Element, group: usize) -> usize {
    let vectors = group.div_ceil(16 / element.size());
    vectors.div_ceil(2).next_power_of_two().clamp(32, THREADS)
}
