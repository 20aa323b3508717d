//! Where each token is drawn.

use super::cloud::Cloud;
use super::{Leg, View};
use crate::{Error, Geometry, Plan, Result};

/// Sequences longer than this are drawn in several rows.
const FOLD: usize = 32;

/// Where each token is drawn, and which are neighbours there.
pub(super) enum Layout {
    /// In cells of a grid.
    Cells(Cells),
    /// At any place.
    Cloud(Cloud),
}

/// The number of tokens, if `plan` is over those of `geometry`.
pub(super) fn tokens(plan: &Plan, geometry: &Geometry) -> Result<usize> {
    let tokens = geometry.tokens()?;
    if plan.tokens() == tokens {
        return Ok(tokens);
    }
    let (found, place) = (plan.tokens(), geometry.describe());
    Err(Error::Plan(format!("a plan over {found} tokens cannot be drawn on {place} ({tokens} tokens)")))
}

impl Layout {
    /// The layout of the tokens of `geometry`. `per_row` says how many of so many frames of height x width cells stand
    /// side by side.
    pub(super) fn of(
        tokens: usize,
        geometry: &Geometry,
        view: View,
        per_row: fn(usize, usize, usize) -> usize,
    ) -> Layout {
        match *geometry {
            Geometry::Grid2 { height, width } => Layout::Cells(Cells::plane(tokens, height, width, false)),
            Geometry::Grid3 { frames, height, width } if view == View::Isometric => {
                Layout::Cloud(Cloud::volume(frames, height, width))
            }
            Geometry::Grid3 { frames, height, width } => {
                let per_row = per_row(frames, height, width).clamp(1, frames);
                Layout::Cells(Cells { tokens, frames, height, width, per_row, folded: false })
            }
            Geometry::Points(ref points) => Layout::Cloud(Cloud::points(points)),
            Geometry::Graph(ref graph) => Layout::Cloud(Cloud::graph(graph)),
            Geometry::Sequence { .. } => {
                Layout::Cells(Cells::plane(tokens, tokens.div_ceil(FOLD), tokens.min(FOLD), true))
            }
        }
    }

    /// How a walk goes from token `from` to token `to`; `seen` is how often it visits each.
    pub(super) fn leg(&self, from: usize, to: usize, seen: &[u32]) -> Leg {
        match self {
            Layout::Cells(cells) if cells.straight(from, to, seen) => Leg::Line,
            Layout::Cells(cells) if cells.apart(from, to) => Leg::Apart,
            Layout::Cloud(cloud) if cloud.near(from, to) => Leg::Line,
            _ => Leg::Jump,
        }
    }
}

/// Frames of rows of cells, some frames side by side with a gap of one cell between.
pub(super) struct Cells {
    pub(super) tokens: usize,
    pub(super) frames: usize,
    pub(super) height: usize,
    pub(super) width: usize,
    /// Frames side by side.
    per_row: usize,
    /// A sequence: tokens on both sides of a fold are neighbours, tokens above each other are not.
    folded: bool,
}

impl Cells {
    fn plane(tokens: usize, height: usize, width: usize, folded: bool) -> Cells {
        Cells { tokens, frames: 1, height, width, per_row: 1, folded }
    }

    /// Rows of cells in the whole picture.
    pub(super) fn rows(&self) -> usize {
        self.frames.div_ceil(self.per_row) * (self.height + 1) - 1
    }

    /// Columns of cells in the whole picture.
    pub(super) fn columns(&self) -> usize {
        self.per_row * (self.width + 1) - 1
    }

    /// (row, column) of a frame's first cell.
    pub(super) fn corner(&self, frame: usize) -> (usize, usize) {
        (frame / self.per_row * (self.height + 1), frame % self.per_row * (self.width + 1))
    }

    /// (row, column) in the picture.
    pub(super) fn place(&self, token: usize) -> (usize, usize) {
        let (frame, row, column) = self.split(token);
        let (top, left) = self.corner(frame);
        (top + row, left + column)
    }

    /// (frame, row, column).
    fn split(&self, token: usize) -> (usize, usize, usize) {
        (token / (self.height * self.width), token / self.width % self.height, token % self.width)
    }

    /// True if a line can be drawn between them: over tokens that are never visited, if any.
    fn straight(&self, from: usize, to: usize, seen: &[u32]) -> bool {
        let ((f, r, c), (g, s, d)) = (self.split(from), self.split(to));
        let stride = match (f == g, r == s, c == d) {
            (true, true, false) => 1,
            (true, false, true) if !self.folded => self.width,
            _ => return false,
        };
        let (low, high) = (from.min(to), from.max(to));
        (low..high).step_by(stride).skip(1).all(|between| seen[between] == 0)
    }

    /// True if they are neighbours that are drawn apart.
    fn apart(&self, from: usize, to: usize) -> bool {
        let distance = from.abs_diff(to);
        if self.folded { distance == 1 } else { self.frames > 1 && distance == self.height * self.width }
    }
}
