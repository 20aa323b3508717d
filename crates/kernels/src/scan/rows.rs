//! Between rows in token order and tiles in step order.
//!
//! Where a chunk's rows lie is looked up once; every channel block of the chunk then copies its lanes from there.

use std::ops::Range;

use super::{layout::Block, load_row};
use crate::{Dtype, View, ViewMut, simd::Simd};

/// Where the rows of a chunk's steps lie in one view: element offsets of their first channel.
#[derive(Default)]
pub(crate) struct Rows(Vec<usize>);

impl Rows {
    /// Looks the rows of `tokens` up; a blank step has none.
    pub fn find(&mut self, tokens: &[i32], offset: impl Fn(usize) -> usize) {
        self.0.clear();
        self.0
            .extend(tokens.iter().map(|&token| if token < 0 { usize::MAX } else { offset(token as usize) }));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One for each step; `usize::MAX` for a blank one.
    #[inline(always)]
    pub fn all(&self) -> &[usize] {
        &self.0
    }

    /// (step, row) of those that there are.
    #[inline(always)]
    pub fn iter(&self) -> impl Iterator<Item = (usize, usize)> {
        self.0.iter().copied().enumerate().filter(|(_, row)| *row != usize::MAX)
    }
}

/// Blocks copied together: what they hold of a row is two lines of the widest vectors, and one of narrower ones.
pub(super) const TOGETHER: usize = 2;

/// Copies the lanes of `blocks` of every row into `tile` (block, step, lane), as f32; zeros for blank steps.
///
/// Two whole blocks are copied row by row: where rows lie a multiple of 4096 bytes apart few of their lines fit into the
/// first-level cache, and the second of a pair is read before the first is displaced.
///
/// # Safety
/// The rows were found in `view`, which was checked for all its tokens and channels; `tile` has room for every step.
#[inline(always)]
pub(super) unsafe fn gather<S: Simd>(view: &View, rows: &Rows, blocks: &[Block], tile: *mut f32) {
    let steps = rows.0.len();
    unsafe {
        if view.dtype() == Dtype::F32 && whole::<S>(blocks) {
            let from = view.ptr().cast::<f32>();
            for (q, &row) in rows.0.iter().enumerate() {
                for j in 0..TOGETHER {
                    let at = row.wrapping_add(blocks[0].channel + j * S::LANES);
                    let value = if row == usize::MAX { S::splat(0.0) } else { S::load(from.add(at)) };
                    S::store(tile.add((j * steps + q) * S::LANES), value);
                }
            }
        } else {
            for (j, block) in blocks.iter().enumerate() {
                gather_block::<S>(view, rows, *block, tile.add(j * steps * S::LANES));
            }
        }
    }
}

#[inline(always)]
unsafe fn gather_block<S: Simd>(view: &View, rows: &Rows, block: Block, tile: *mut f32) {
    let Block { channel, width, .. } = block;
    unsafe {
        if view.dtype() == Dtype::F32 && width == S::LANES {
            let from = view.ptr().cast::<f32>();
            for (q, &row) in rows.0.iter().enumerate() {
                let value = if row == usize::MAX { S::splat(0.0) } else { S::load(from.add(row + channel)) };
                S::store(tile.add(q * S::LANES), value);
            }
        } else {
            for (q, &row) in rows.0.iter().enumerate() {
                let blank = row == usize::MAX;
                let value = if blank { S::splat(0.0) } else { load_row::<S>(view, row + channel, width) };
                S::store(tile.add(q * S::LANES), value);
            }
        }
    }
}

/// Writes (`store`) or adds the lanes of `tile` (block, step, lane) to every row of `view`; as many whole ones as are copied together row by row.
///
/// # Safety
/// As [`gather`]; nobody else writes these channels.
#[inline(always)]
pub(super) unsafe fn scatter<S: Simd>(
    view: &ViewMut,
    rows: &Rows,
    blocks: &[Block],
    tile: *const f32,
    store: bool,
) {
    unsafe {
        let (to, steps) = (view.ptr::<f32>(), rows.0.len());
        if whole::<S>(blocks) {
            for (q, row) in rows.iter() {
                for j in 0..TOGETHER {
                    let value = S::load(tile.add((j * steps + q) * S::LANES));
                    put::<S>(to.add(row + blocks[0].channel + j * S::LANES), value, S::LANES, store);
                }
            }
        } else {
            for (j, block) in blocks.iter().enumerate() {
                for (q, row) in rows.iter() {
                    let value = S::load(tile.add((j * steps + q) * S::LANES));
                    put::<S>(to.add(row + block.channel), value, block.width, store);
                }
            }
        }
    }
}

/// Whether they are as many as are copied together, none of them a group's narrow last one. They are neighbours then.
#[inline(always)]
fn whole<S: Simd>(blocks: &[Block]) -> bool {
    blocks.len() == TOGETHER && blocks.iter().all(|block| block.width == S::LANES)
}

/// Stores a vector, or adds it to what is there.
#[inline(always)]
pub(crate) unsafe fn put<S: Simd>(to: *mut f32, value: S::V, width: usize, store: bool) {
    unsafe {
        let value = match (store, width == S::LANES) {
            (true, _) => value,
            (false, true) => S::add(S::load(to), value),
            (false, false) => S::add(S::load_part(to, width), value),
        };
        if width == S::LANES { S::store(to, value) } else { S::store_part(to, value, width) }
    }
}

/// The lines that hold some channels of every row: along an arbitrary order no hardware prefetcher guesses them.
#[derive(Clone, Copy)]
pub(super) struct Ahead<'a> {
    base: *const u8,
    size: usize,
    rows: &'a [usize],
    lines: usize,
}

static NOWHERE: [usize; 256] = [0; 256];

impl<'a> Ahead<'a> {
    /// One line that is always near, so that whoever has nothing to ask for asks as often as the others: a count that
    /// changes costs more than the question.
    pub const NONE: Self = Ahead { base: NOWHERE.as_ptr().cast(), size: 0, rows: &NOWHERE, lines: 1 };

    /// A line serves several blocks and is asked for once, with the block that enters it, or with the `first` of a task:
    /// `None` if these enter none.
    #[inline(always)]
    pub fn new(view: &View, rows: &'a Rows, channels: Range<usize>, first: bool) -> Option<Self> {
        let size = view.dtype().size();
        let start = if first { channels.start * size / 64 } else { (channels.start * size).div_ceil(64) };
        let lines = (channels.end * size).div_ceil(64) - start;
        let base = view.ptr().wrapping_add(start * 64);
        (lines > 0).then_some(Ahead { base, size, rows: &rows.0, lines })
    }

    /// Asks for the lines of one step's row: into the first-level cache, or into the second.
    #[inline(always)]
    pub fn ask<S: Simd, const SECOND: bool>(&self, step: usize) {
        if let Some(row) = self.rows.get(step) {
            let line = self.base.wrapping_add(row.wrapping_mul(self.size));
            // Safety: a prefetch may name any address.
            unsafe {
                if SECOND {
                    S::prefetch_second(line)
                } else {
                    S::prefetch(line)
                }
                if self.lines > 1 {
                    let line = line.wrapping_add(64);
                    if SECOND { S::prefetch_second(line) } else { S::prefetch(line) }
                }
            }
        }
    }

    /// Asks for all lines of one step's row, however many.
    #[inline(always)]
    pub fn ask_row<S: Simd>(&self, step: usize) {
        if let Some(row) = self.rows.get(step) {
            let first = self.base.wrapping_add(row.wrapping_mul(self.size));
            for line in 0..self.lines {
                // Safety: a prefetch may name any address.
                unsafe { S::prefetch(first.wrapping_add(64 * line)) }
            }
        }
    }

    /// Asks for the lines of all rows.
    #[inline(always)]
    pub fn ask_all<S: Simd>(&self) {
        for step in 0..self.rows.len() {
            self.ask::<S, false>(step);
        }
    }
}

/// Asks for the rows that [`coefficients`] will read, or that sums of their gradients are added to.
#[inline(always)]
pub(super) fn prefetch_coefficients<S: Simd>(
    base: *const u8,
    size: usize,
    tokens: &[i32],
    states: usize,
    offset: impl Fn(usize) -> usize,
) {
    for &token in tokens.iter().filter(|token| **token >= 0) {
        let row = base.wrapping_add(offset(token as usize) * size);
        for at in (0..states * size).step_by(64) {
            // Safety: a prefetch may name any address.
            unsafe { S::prefetch(row.wrapping_add(at)) }
        }
    }
}

/// Rows of B or C for the given tokens of one (sample, direction, group), as f32 (step, state); zeros for blanks.
///
/// # Safety
/// `view` was checked for every token, group and state; `tile` has room.
pub(super) fn coefficients(
    view: &View,
    tile: &mut [f32],
    tokens: &[i32],
    [b, k, g]: [usize; 3],
    states: usize,
) {
    for (row, &token) in tile.chunks_exact_mut(states.max(1)).zip(tokens) {
        if token < 0 {
            row.fill(0.0);
            continue;
        }
        let at = view.offset(b, token as usize, k, g);
        // Safety: see above.
        unsafe {
            if view.dtype() == Dtype::F32 {
                std::ptr::copy_nonoverlapping(view.ptr().cast::<f32>().add(at), row.as_mut_ptr(), states);
            } else {
                let from = view.ptr().cast::<half::bf16>().add(at);
                for (n, value) in row.iter_mut().enumerate() {
                    *value = (*from.add(n)).to_f32();
                }
            }
        }
    }
}

/// A vector of an optional (K, D) argument, zeros if it is absent.
#[inline(always)]
pub(crate) unsafe fn per_channel<S: Simd>(values: Option<&[f32]>, at: usize, width: usize) -> S::V {
    unsafe {
        match values {
            Some(values) if width == S::LANES => S::load(values.as_ptr().add(at)),
            Some(values) => S::load_part(values.as_ptr().add(at), width),
            None => S::splat(0.0),
        }
    }
}

/// Asks for the line at one channel of one row.
#[inline(always)]
pub(crate) unsafe fn prefetch_row<S: Simd>(view: &View, b: usize, token: usize, k: usize, channel: usize) {
    unsafe {
        S::prefetch(view.ptr().wrapping_add((view.offset(b, token, k, 0) + channel) * view.dtype().size()))
    }
}
