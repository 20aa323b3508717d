//! One direction of a plan in SVG.

use std::fmt::{self, Write};

use super::cloud::Cloud;
use super::layout::{Cells, Layout};
use super::svg::colour;
use super::{Leg, Visit};
use crate::Order;

/// Shades from the first step to the last.
const SHADES: usize = 64;

/// Most tokens of a cloud that are numbered: their places do not keep the numbers apart.
const MAX_NUMBERED: usize = 128;

/// One direction.
pub(super) struct Panel<'a> {
    pub(super) order: &'a Order,
    pub(super) walk: &'a [Visit],
    pub(super) layout: &'a Layout,
    /// Side of a cell, or what is typically between two tokens.
    pub(super) cell: f64,
}

impl Panel<'_> {
    pub(super) fn draw(&self, out: &mut String) -> fmt::Result {
        match self.layout {
            Layout::Cells(cells) => self.cells(out, cells)?,
            Layout::Cloud(cloud) => self.cloud(out, cloud)?,
        }
        self.lines(out)?;
        self.numbers(out)?;
        self.marks(out)
    }

    /// Middle of a token's cell.
    fn at(&self, token: usize) -> (f64, f64) {
        match self.layout {
            Layout::Cells(cells) => {
                let (row, column) = cells.place(token);
                ((column as f64 + 0.5) * self.cell, (row as f64 + 0.5) * self.cell)
            }
            Layout::Cloud(cloud) => cloud.at(token),
        }
    }

    /// The tokens that the order never visits.
    fn unvisited(&self) -> impl Iterator<Item = usize> {
        self.order.visits().into_iter().enumerate().filter(|(_, n)| *n == 0).map(|(token, _)| token)
    }

    /// The cells: white, or grey where the order never comes, with lines between.
    fn cells(&self, out: &mut String, cells: &Cells) -> fmt::Result {
        let cell = self.cell;
        let mut unvisited = String::new();
        for token in self.unvisited() {
            let (row, column) = cells.place(token);
            let (x, y) = (column as f64 * cell, row as f64 * cell);
            write!(unvisited, "M{x:.1} {y:.1}h{cell:.1}v{cell:.1}h-{cell:.1}z")?;
        }
        if !unvisited.is_empty() {
            writeln!(out, r##"<path d="{unvisited}" fill="#e4e7ec"/>"##)?;
        }
        let mut grid = String::new();
        let (height, columns) = (cells.height, cells.width);
        for frame in 0..cells.frames {
            let (top, left) = cells.corner(frame);
            let (x, y) = (left as f64 * cell, top as f64 * cell);
            // The last row of a folded sequence may be shorter.
            let tokens = cells.tokens.saturating_sub(frame * height * columns).min(height * columns);
            let length = |row: usize| tokens.saturating_sub(row * columns).min(columns) as f64 * cell;
            for line in 0..=height {
                let length = length(line).max(line.checked_sub(1).map_or(0.0, length));
                write!(grid, "M{x:.1} {:.1}h{length:.1}", y + line as f64 * cell)?;
            }
            for line in 0..=columns {
                let rows = (tokens + columns - line.max(1)) / columns;
                write!(grid, "M{:.1} {y:.1}v{:.1}", x + line as f64 * cell, rows as f64 * cell)?;
            }
        }
        let width = if cell < 6.0 { 0.4 } else { 1.0 };
        writeln!(out, r##"<path d="{grid}" fill="none" stroke="#e4e7ec" stroke-width="{width}"/>"##)
    }

    /// Edges or outlines, and grey dots where the order never comes.
    fn cloud(&self, out: &mut String, cloud: &Cloud) -> fmt::Result {
        let mut behind = String::new();
        for ((x, y), (to_x, to_y)) in &cloud.behind {
            write!(behind, "M{x:.1} {y:.1}L{to_x:.1} {to_y:.1}")?;
        }
        if !behind.is_empty() {
            writeln!(out, r##"<path d="{behind}" fill="none" stroke="#d5dae2" stroke-width="1"/>"##)?;
        }
        let mut unvisited = String::new();
        for token in self.unvisited() {
            let (x, y) = cloud.at(token);
            write!(unvisited, "M{x:.1} {y:.1}h0.01")?;
        }
        if unvisited.is_empty() {
            return Ok(());
        }
        let dot = (self.cell * 0.4).clamp(1.4, 12.0);
        writeln!(
            out,
            r##"<path d="{unvisited}" stroke="#c3cad5" stroke-linecap="round" stroke-width="{dot:.1}"/>"##
        )
    }

    /// The step at which each token is first visited, in the corner of its cell, where it fits beside the lines.
    fn numbers(&self, out: &mut String) -> fmt::Result {
        let seen = self.order.visits();
        let mut first = vec![true; seen.len()];
        let visits = self.walk.iter().filter(|visit| std::mem::replace(&mut first[visit.token], false));
        let label = |visit: &Visit| format!("{}{}", visit.step, if seen[visit.token] > 1 { "+" } else { "" });
        let labels: Vec<_> = visits.map(|visit| (visit.token, label(visit))).collect();
        let longest = labels.iter().map(|(_, label)| label.len()).max().unwrap_or(1);
        let size = ((self.cell / 2.0 - 4.5) / (0.57 * longest as f64)).min(8.0);
        let crowded = matches!(self.layout, Layout::Cloud(cloud) if cloud.len() > MAX_NUMBERED);
        if size < 6.0 || crowded {
            return Ok(());
        }
        writeln!(
            out,
            r##"<g font-size="{size:.1}" fill="#6b7484" stroke="#ffffff" stroke-width="2" paint-order="stroke">"##
        )?;
        for (token, label) in labels {
            let (x, y) = self.at(token);
            let (x, y) = match self.layout {
                Layout::Cells(_) => (x - self.cell / 2.0 + 2.5, y - self.cell / 2.0 + 9.0),
                Layout::Cloud(_) => (x + 4.0, y - 4.0),
            };
            writeln!(out, r#"<text x="{x:.1}" y="{y:.1}">{label}</text>"#)?;
        }
        writeln!(out, "</g>")
    }

    /// The walk, a few strokes for each shade.
    fn lines(&self, out: &mut String) -> fmt::Result {
        let thick = (self.cell * 0.12).clamp(0.7, 3.2);
        for (shade, visits) in self.shades() {
            let (mut lines, mut jumps, mut dashes, mut dots) =
                (String::new(), String::new(), String::new(), String::new());
            for visit in visits {
                let (x, y) = self.at(visit.token);
                match visit.from {
                    Some((from, Leg::Line)) => {
                        let (from_x, from_y) = self.at(from);
                        write!(lines, "M{from_x:.1} {from_y:.1}L{x:.1} {y:.1}")?;
                    }
                    Some((from, Leg::Jump | Leg::Apart)) => self.jump(&mut jumps, from, visit.token)?,
                    Some((from, Leg::OverBlanks)) => self.jump(&mut dashes, from, visit.token)?,
                    Some((_, Leg::Reset)) | None => {}
                }
                write!(dots, "M{x:.1} {y:.1}h0.01")?;
            }
            let colour = colour(shade);
            writeln!(out, r#"<g fill="none" stroke="{colour}" stroke-linecap="round">"#)?;
            for (d, width, more) in [
                (&jumps, thick * 0.4, r#" stroke-opacity="0.6""#),
                (
                    &dashes,
                    thick * 0.4,
                    &*format!(r#" stroke-opacity="0.8" stroke-dasharray="{:.1} {:.1}""#, thick, thick * 1.6),
                ),
                (&lines, thick, ""),
                (&dots, thick * 1.6, ""),
            ] {
                if !d.is_empty() {
                    writeln!(out, r#"<path d="{d}" stroke-width="{width:.2}"{more}/>"#)?;
                }
            }
            writeln!(out, "</g>")?;
        }
        Ok(())
    }

    /// The visits of each shade (0 at the first step, 1 at the last), in the walk's order.
    fn shades(&self) -> impl Iterator<Item = (f64, &[Visit])> {
        let last = self.order.len().max(2) - 1;
        let bin = move |visit: &Visit| visit.step * (SHADES - 1) / last;
        let shades = self.walk.chunk_by(move |a, b| bin(a) == bin(b));
        shades.map(move |visits| (visits.first().map_or(0, bin) as f64 / (SHADES - 1) as f64, visits))
    }

    /// A jump is bowed, by half a cell at most, where a straight one would run along a row or column and hide others.
    fn jump(&self, d: &mut String, from: usize, to: usize) -> fmt::Result {
        let ((x, y), (to_x, to_y)) = (self.at(from), self.at(to));
        let (dx, dy) = (to_x - x, to_y - y);
        // Half of it shows: the middle of the curve lies halfway to its control point.
        let along = matches!(self.layout, Layout::Cells(_)) && (dx == 0.0) != (dy == 0.0);
        let bow = if along { (self.cell / dx.hypot(dy)).min(0.14) } else { 0.0 };
        let (mid_x, mid_y) = ((x + to_x) / 2.0 - dy * bow, (y + to_y) / 2.0 + dx * bow);
        write!(d, "M{x:.1} {y:.1}Q{mid_x:.1} {mid_y:.1} {to_x:.1} {to_y:.1}")
    }

    /// Start, end, and rings where the state starts afresh.
    fn marks(&self, out: &mut String) -> fmt::Result {
        let radius = (self.cell * 0.2).clamp(1.4, 6.0);
        let steps = self.order.len().max(2) - 1;
        let mut circle = |visit: &Visit, radius: f64, filled: bool| {
            let ((x, y), colour) = (self.at(visit.token), colour(visit.step as f64 / steps as f64));
            let fill = if filled { colour.as_str() } else { "#ffffff" };
            let width = radius * 0.4;
            writeln!(
                out,
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="{radius:.1}" fill="{fill}" stroke="{colour}" stroke-width="{width:.1}"/>"#
            )
        };
        for visit in self.walk.iter().filter(|visit| matches!(visit.from, Some((_, Leg::Reset)))) {
            circle(visit, radius * 0.55, false)?;
        }
        if let (Some(first), Some(last)) = (self.walk.first(), self.walk.last()) {
            circle(last, radius, true)?;
            circle(first, if first.token == last.token { radius * 0.5 } else { radius }, false)?;
        }
        Ok(())
    }
}
