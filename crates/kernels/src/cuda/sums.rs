//! Sums in a fixed order on a GPU: arguments and launches of `cuda/sums.cu`, which says what each means.

use std::ffi::c_void;

use super::{
    Address, Element, Launch, Source, Variant,
    launch::{MOST, blocks, int, line},
};
use crate::{Error, Result};

/// The kernels.
pub static SOURCE: Source = Source {
    name: "sums.cu",
    text: include_str!("../../cuda/sums.cu"),
    kernels: &["sum_parts", "sum_visits", "sum_coefficients"],
};

/// Threads of a block.
const THREADS: usize = 256;
/// Columns of a block of `sum_parts`.
const COLUMNS: usize = 32;

/// The kernels.
pub fn variant(element: Element) -> Variant {
    Variant { source: &SOURCE, macros: vec![("DTYPE", element as u32)] }
}

/// Arguments of `sum_parts`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct Parts {
    pub parts: *const f32,
    pub out: *mut f32,
    pub count: i32,
    pub columns: i32,
}

/// Arguments of `sum_visits`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct VisitSums {
    pub rows: *const f32,
    pub starts: *const i32,
    pub visits: *const i32,
    pub out: *mut c_void,
    pub out_strides: [i64; 3],
    pub batch: i32,
    pub tokens: i32,
    pub groups: i32,
    pub channels: i32,
    pub visited: i32,
    pub listed: i32,
    pub per_sample: i32,
    pub aligned: i32,
}

/// Arguments of `sum_coefficients`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
#[allow(missing_docs)] // in the source
pub struct Coefficients {
    pub parts: Address,
    pub starts: Address,
    pub visits: Address,
    pub out: Address,
    pub out_strides: [i64; 4],
    pub batch: i32,
    pub tokens: i32,
    pub directions: i32,
    pub groups: i32,
    pub states: i32,
    pub rows: i32,
    pub count: i32,
    pub per_sample: i32,
}

/// Launch of `sum_parts`.
///
/// # Errors
/// Too large for a launch.
pub fn parts_launch(columns: usize) -> Result<Launch> {
    int("the number of parameters", columns)?;
    line(columns.div_ceil(COLUMNS), THREADS, 0)
}

/// Launch of `sum_visits`.
///
/// # Errors
/// Too large for a launch.
pub fn visits_launch(element: Element, [batch, tokens, groups, channels]: [usize; 4]) -> Result<Launch> {
    if groups > MOST {
        return Err(Error::Shape(format!("{groups} directions; a GPU takes up to {MOST}")));
    }
    let threads = tokens * channels.div_ceil(16 / element.size());
    let grid = [blocks(threads.div_ceil(THREADS))?, blocks(groups)?, blocks(batch.min(MOST))?];
    Ok(Launch { grid, block: [THREADS as u32, 1, 1], shared: 0 })
}

/// Launch of `sum_coefficients` for B K L G N values.
///
/// # Errors
/// Too large for a launch.
pub fn coefficients_launch(values: usize) -> Result<Launch> {
    line(values.div_ceil(THREADS), THREADS, 0)
}
