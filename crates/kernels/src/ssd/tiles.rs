//! Between rows in token order and tiles in step order. A tile holds the rows of a chunk as f32, both sides counted up to
//! whole vectors of the widest kind and filled up with zeros.

use super::chunks::padded;
use crate::{
    View, ViewMut,
    scan::{Rows, load_row, put},
    simd::Simd,
};

/// Copies `width` values from `first` on of every row into `tile` (step, padded width).
///
/// # Safety
/// The rows were found in `view`, which was checked for all its tokens and channels; `tile` has room.
#[inline(always)]
pub(super) unsafe fn gather<S: Simd>(view: &View, rows: &Rows, first: usize, width: usize, tile: *mut f32) {
    let stride = padded(width);
    unsafe {
        for (q, &row) in rows.all().iter().enumerate() {
            let to = tile.add(q * stride);
            for at in (0..stride).step_by(S::LANES) {
                let value = if row == usize::MAX || at >= width {
                    S::splat(0.0)
                } else {
                    load_row::<S>(view, row + first + at, S::LANES.min(width - at))
                };
                S::store(to.add(at), value);
            }
        }
        let steps = rows.all().len();
        tile.add(steps * stride).write_bytes(0, (padded(steps) - steps) * stride);
    }
}

/// Writes (`store`) or adds `width` values of `tile` to every row of `view`, from `first` on.
///
/// # Safety
/// As [`gather`]; nobody else writes these values.
#[inline(always)]
pub(super) unsafe fn scatter<S: Simd>(
    view: &ViewMut,
    rows: &Rows,
    [first, width]: [usize; 2],
    tile: *const f32,
    store: bool,
) {
    let stride = padded(width);
    unsafe {
        for (q, row) in rows.iter() {
            let to = view.ptr::<f32>().add(row + first);
            for at in (0..width).step_by(S::LANES) {
                let value = S::load(tile.add(q * stride + at));
                put::<S>(to.add(at), value, S::LANES.min(width - at), store);
            }
        }
    }
}

/// Asks for the lines of `width` values from `first` on of every row: along an arbitrary order no hardware prefetcher
/// guesses them.
#[inline(always)]
pub(super) unsafe fn prefetch<S: Simd>(
    base: *const u8,
    size: usize,
    rows: &Rows,
    first: usize,
    width: usize,
) {
    for (_, row) in rows.iter() {
        let from = base.wrapping_add((row + first) * size);
        for at in (0..width * size).step_by(64) {
            // Safety: a prefetch may name any address.
            unsafe { S::prefetch(from.wrapping_add(at)) }
        }
    }
}

/// `to` (columns, rows) becomes `from` (rows, columns), both sides whole vectors.
///
/// # Safety
/// Both tiles have room for that; rows of `from` lie `stride` apart, those of `to` `to_stride`.
#[inline(always)]
pub(super) unsafe fn transpose<S: Simd>(
    from: *const f32,
    stride: usize,
    [rows, columns]: [usize; 2],
    to: *mut f32,
    to_stride: usize,
) {
    let mut row = 0;
    while row < rows {
        let mut column = 0;
        while column < columns {
            unsafe {
                let (from, to) = (from.add(row * stride + column), to.add(column * to_stride + row));
                S::transpose(from, stride, to, to_stride);
            }
            column += S::LANES;
        }
        row += S::LANES;
    }
}

/// Multiplies each of the first `steps` rows of a tile, `width` apart, by a number of its own.
///
/// # Safety
/// The tile and the factors reach that far; rows are whole vectors.
#[inline(always)]
pub(super) unsafe fn scale_rows<S: Simd>(tile: *mut f32, width: usize, factors: &[f32], steps: usize) {
    for (row, factor) in factors.iter().enumerate().take(steps) {
        for at in (row * width..(row + 1) * width).step_by(S::LANES) {
            unsafe {
                let at = tile.add(at);
                S::store(at, S::mul(S::load(at), S::splat(*factor)));
            }
        }
    }
}
