//! Curves along lines of the grid, and the random order.

use super::super::samples;
use super::{grid, one, plane};
use crate::geometry::Geometry;
use crate::{Plan, Result};

/// One direction that visits token `token(t)` at step t.
fn walk(tokens: usize, token: impl Fn(usize) -> usize) -> Result<Plan> {
    one((0..tokens).map(|t| token(t) as i32).collect(), tokens)
}

/// Tokens as they are numbered; samples that are packed together are walked each by itself.
pub(super) fn row(geometry: &Geometry) -> Result<Plan> {
    let tokens = geometry.tokens()?;
    Plan::new(vec![samples::walk((0..tokens as i32).collect(), tokens, &samples::starts(geometry)?)?])
}

pub(super) fn column(geometry: &Geometry) -> Result<Plan> {
    let (frames, height, width) = grid(geometry, "column")?;
    let frame = height * width;
    walk(frames * frame, |t| t / frame * frame + t % height * width + t % frame / height)
}

/// Every step to a neighbour: a row that comes second after another one is walked backwards, and so is a frame.
pub(super) fn serpentine(geometry: &Geometry) -> Result<Plan> {
    let (frames, height, width) = grid(geometry, "serpentine")?;
    let turned = |at: usize, line: usize, size: usize| if line % 2 == 1 { size - 1 - at } else { at };
    walk(frames * height * width, |t| {
        let line = t / width;
        let frame = line / height;
        (frame * height + turned(line % height, frame, height)) * width + turned(t % width, line, width)
    })
}

/// Frames fastest, then pixels in row order: `m[t] = (t mod F) P + t div F` for F frames of P pixels.
///
/// VideoMamba (arXiv 2403.06977, section 3) also crosses it with the spatial-first order, `row`: half of both, which we
/// read as `[row, temporal | reverse]`, and all of both, `[row, temporal] | bidirectional`.
pub(super) fn temporal(geometry: &Geometry) -> Result<Plan> {
    geometry.tokens()?;
    let (frames, pixels) = match *geometry {
        Geometry::Grid3 { frames, height, width } => (frames, height * width),
        Geometry::Grid2 { height, width } => (height, width),
        _ => {
            return Err(geometry.unfit(
                "temporal",
                "a grid of frames",
                "give frames x rows x columns such as 4x7x9, or frames x pixels such as 4x63",
            ));
        }
    };
    walk(frames * pixels, |t| t % frames * pixels + t / frames)
}

/// Tokens of equal row + column, the nearest to the top left first; `alternate` walks every other anti-diagonal
/// upwards, beginning with the first, so that each starts beside the end of the one before.
pub(super) fn diagonal(geometry: &Geometry, alternate: bool) -> Result<Plan> {
    let (height, width) = plane(geometry, "diagonal")?;
    let mut index = Vec::with_capacity(height * width);
    for sum in 0..height + width - 1 {
        let start = index.len();
        let rows = sum.saturating_sub(width - 1)..=sum.min(height - 1);
        index.extend(rows.map(|row| (row * width + sum - row) as i32));
        if alternate && sum % 2 == 0 {
            index[start..].reverse();
        }
    }
    one(index, height * width)
}

pub(super) fn spiral(geometry: &Geometry) -> Result<Plan> {
    let (height, width) = plane(geometry, "spiral")?;
    let mut index = Vec::with_capacity(height * width);
    // Rows and columns that are left, the ends excluded.
    let (mut top, mut bottom, mut left, mut right) = (0, height, 0, width);
    while top < bottom && left < right {
        let token = |row: usize, column: usize| (row * width + column) as i32;
        index.extend((left..right).map(|column| token(top, column)));
        top += 1;
        right -= 1;
        index.extend((top..bottom).map(|row| token(row, right)));
        if top < bottom {
            bottom -= 1;
            index.extend((left..right).rev().map(|column| token(bottom, column)));
        }
        if left < right {
            index.extend((top..bottom).rev().map(|row| token(row, left)));
            left += 1;
        }
    }
    one(index, height * width)
}

/// ZigMa's scheme (arXiv 2403.13802, section 3): from the top left, top right, bottom left or bottom right corner.
pub(super) fn zigzag(geometry: &Geometry, k: usize) -> Result<Plan> {
    let (height, width) = plane(geometry, "zigzag")?;
    let (up, leftwards, by_column) = (k & 4 != 0, k & 2 != 0, k & 1 != 0);
    walk(height * width, |t| {
        let along = if by_column { height } else { width };
        let (line, place) = (t / along, t % along);
        let place = if line % 2 == 1 { along - 1 - place } else { place };
        let (row, column) = if by_column { (place, line) } else { (line, place) };
        let row = if up { height - 1 - row } else { row };
        row * width + if leftwards { width - 1 - column } else { column }
    })
}

/// The same order for the same seed, in every version; samples that are packed together are shuffled each by itself.
pub(super) fn random(geometry: &Geometry, seed: u64) -> Result<Plan> {
    samples::shuffled(&samples::starts(geometry)?, seed)
}
