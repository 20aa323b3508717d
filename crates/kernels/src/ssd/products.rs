//! Products of small matrices that lie in tiles: rows times vectors of columns, a block of both in registers.
//!
//! The left matrix is read number by number at any strides, so it is never packed or transposed for a product; the right
//! one row by row in whole vectors. What is done with a block is a [`Block`]; [`sweep`] runs it over all of them.

// Loops over rows index several register arrays at once.
#![allow(clippy::needless_range_loop)]

use std::ops::Range;

use crate::simd::Simd;

/// Left factor: element (r, k) lies at r `row` + k `step`.
#[derive(Clone, Copy)]
pub(super) struct Left {
    pub at: *const f32,
    pub row: usize,
    pub step: usize,
}

/// Right factor: row k, of whole vectors, lies at k `step`.
#[derive(Clone, Copy)]
pub(super) struct Right {
    pub at: *const f32,
    pub step: usize,
}

/// R rows of V vectors in registers.
pub(super) type Registers<S, const R: usize, const V: usize> = [[<S as Simd>::V; V]; R];

/// Work on R rows from `row` on and V vectors of columns from column `column` on.
pub(super) trait Block {
    /// # Safety
    /// As for [`Simd`]; the tiles reach as far as the block does.
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize);
}

/// Runs `block` over `rows` rows and `columns` columns (counted up to whole vectors).
///
/// # Safety
/// As [`Block::run`].
#[inline(always)]
pub(super) unsafe fn sweep<S: Simd>(rows: usize, columns: usize, block: &impl Block) {
    let mut column = 0;
    unsafe {
        while column + S::LANES < columns {
            down::<S, 2>(rows, column, block);
            column += 2 * S::LANES;
        }
        if column < columns {
            down::<S, 1>(rows, column, block);
        }
    }
}

#[inline(always)]
unsafe fn down<S: Simd, const V: usize>(rows: usize, column: usize, block: &impl Block) {
    let mut row = 0;
    unsafe {
        if S::REGISTERS >= 32 {
            while row + 8 <= rows {
                block.run::<S, 8, V>(row, column);
                row += 8;
            }
        } else {
            while row + 6 <= rows {
                block.run::<S, 6, V>(row, column);
                row += 6;
            }
        }
        while row + 4 <= rows {
            block.run::<S, 4, V>(row, column);
            row += 4;
        }
        while row < rows {
            block.run::<S, 1, V>(row, column);
            row += 1;
        }
    }
}

/// Zeros.
#[inline(always)]
pub(super) unsafe fn zeros<S: Simd, const R: usize, const V: usize>() -> Registers<S, R, V> {
    unsafe { [[S::splat(0.0); V]; R] }
}

/// Adds the product of rows `row`.. of `left` and columns `column`.. of `right` over `steps`.
#[inline(always)]
pub(super) unsafe fn add<S: Simd, const R: usize, const V: usize>(
    sums: &mut Registers<S, R, V>,
    left: Left,
    right: Right,
    [row, column]: [usize; 2],
    steps: Range<usize>,
) {
    unsafe {
        let mut from = left.at.add(row * left.row + steps.start * left.step);
        let mut vectors = right.at.add(column + steps.start * right.step);
        let mut k = steps.start;
        while k < steps.end {
            add_step::<S, R, V>(sums, from, left.row, vectors, 0..R);
            from = from.wrapping_add(left.step);
            vectors = vectors.wrapping_add(right.step);
            k += 1;
        }
    }
}

/// One step of [`add`] for some of the rows.
#[inline(always)]
pub(super) unsafe fn add_step<S: Simd, const R: usize, const V: usize>(
    sums: &mut Registers<S, R, V>,
    left: *const f32,
    stride: usize,
    right: *const f32,
    rows: Range<usize>,
) {
    unsafe {
        let mut vectors = [S::splat(0.0); V];
        for v in 0..V {
            vectors[v] = S::load(right.add(v * S::LANES));
        }
        for r in 0..R {
            if !rows.contains(&r) {
                continue;
            }
            let value = S::splat(*left.add(r * stride));
            for v in 0..V {
                sums[r][v] = S::fma(value, vectors[v], sums[r][v]);
            }
        }
    }
}

/// Times one number per row.
#[inline(always)]
pub(super) unsafe fn scale_rows<S: Simd, const R: usize, const V: usize>(
    sums: &mut Registers<S, R, V>,
    factors: *const f32,
) {
    unsafe {
        for r in 0..R {
            let factor = S::splat(*factors.add(r));
            for v in 0..V {
                sums[r][v] = S::mul(sums[r][v], factor);
            }
        }
    }
}

/// What a block of an output matrix is, and how it is written.
#[derive(Clone, Copy)]
pub(super) struct Output {
    pub at: *mut f32,
    /// From one row to the next.
    pub row: usize,
}

impl Output {
    #[inline(always)]
    pub unsafe fn load<S: Simd, const R: usize, const V: usize>(
        self,
        row: usize,
        column: usize,
    ) -> Registers<S, R, V> {
        unsafe {
            let mut sums = zeros::<S, R, V>();
            for r in 0..R {
                for v in 0..V {
                    sums[r][v] = S::load(self.at.add((row + r) * self.row + column + v * S::LANES));
                }
            }
            sums
        }
    }

    #[inline(always)]
    pub unsafe fn store<S: Simd, const R: usize, const V: usize>(
        self,
        row: usize,
        column: usize,
        sums: &Registers<S, R, V>,
    ) {
        unsafe {
            for r in 0..R {
                for v in 0..V {
                    S::store(self.at.add((row + r) * self.row + column + v * S::LANES), sums[r][v]);
                }
            }
        }
    }
}

/// `out = decay out + left right`.
pub(super) struct Decayed {
    pub left: Left,
    pub right: Right,
    pub depth: usize,
    pub decay: f32,
    /// What is there counts for nothing, whatever it is.
    pub fresh: bool,
    pub out: Output,
}

impl Block for Decayed {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        unsafe {
            let mut sums = zeros::<S, R, V>();
            if !self.fresh {
                sums = self.out.load::<S, R, V>(row, column);
                scale_rows::<S, R, V>(&mut sums, [self.decay; R].as_ptr());
            }
            add::<S, R, V>(&mut sums, self.left, self.right, [row, column], 0..self.depth);
            self.out.store::<S, R, V>(row, column, &sums);
        }
    }
}

/// `out = left right` in the blocks that a triangle reaches.
pub(super) struct Triangle {
    pub left: Left,
    pub right: Right,
    pub depth: usize,
    /// Columns up to the row's number, else from it on.
    pub lower: bool,
    pub out: Output,
}

impl Triangle {
    /// Whether the triangle reaches a block.
    #[inline(always)]
    pub fn reaches(lower: bool, [row, rows]: [usize; 2], [column, columns]: [usize; 2]) -> bool {
        if lower { column < row + rows } else { column + columns > row }
    }
}

impl Block for Triangle {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        if !Self::reaches(self.lower, [row, R], [column, V * S::LANES]) {
            return;
        }
        unsafe {
            let mut sums = zeros::<S, R, V>();
            add::<S, R, V>(&mut sums, self.left, self.right, [row, column], 0..self.depth);
            self.out.store::<S, R, V>(row, column, &sums);
        }
    }
}

/// `out = scale_r (left right) + triangle inner`, where row r of the triangle has steps up to r (lower) or from r on. The
/// numbers on the other side of the diagonal are not read: a NaN does not reach a step that it may not.
pub(super) struct Masked {
    /// None if it is zero.
    pub outer: Option<(Left, Right, usize)>,
    pub scale: *const f32,
    pub triangle: Left,
    pub inner: Right,
    pub lower: bool,
    pub steps: usize,
    pub out: Output,
}

impl Block for Masked {
    #[inline(always)]
    unsafe fn run<S: Simd, const R: usize, const V: usize>(&self, row: usize, column: usize) {
        unsafe {
            let mut sums = zeros::<S, R, V>();
            if let Some((left, right, depth)) = self.outer {
                add::<S, R, V>(&mut sums, left, right, [row, column], 0..depth);
                scale_rows::<S, R, V>(&mut sums, self.scale.add(row));
            }
            let (left, right) = (self.triangle, self.inner);
            let whole = if self.lower { 0..row } else { row + R..self.steps };
            add::<S, R, V>(&mut sums, left, right, [row, column], whole);
            for k in 0..R {
                let rows = if self.lower { k..R } else { 0..k + 1 };
                let (l, r) = ((row + k) * left.step + row * left.row, (row + k) * right.step + column);
                add_step::<S, R, V>(&mut sums, left.at.add(l), left.row, right.at.add(r), rows);
            }
            self.out.store::<S, R, V>(row, column, &sums);
        }
    }
}
