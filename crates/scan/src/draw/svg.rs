//! A plan as SVG.

use std::fmt::{self, Write};

use super::{Layout, Leg, Visit, visits};
use crate::{Error, Geometry, Order, Plan, Result};

/// Most steps that one picture holds.
const MAX_DRAWN: usize = 1 << 19;
/// Shades from the first step to the last.
const SHADES: usize = 64;
/// Colours of the first step, of the last, and between.
const COLOURS: [[f64; 3]; 4] =
    [[30.0, 99.0, 181.0], [122.0, 71.0, 178.0], [212.0, 62.0, 98.0], [240.0, 138.0, 28.0]];

const MARGIN: f64 = 24.0;
const GAP: f64 = 28.0;
/// Height of the title and the line under it.
const TITLE: f64 = 56.0;
/// Height of a panel's heading, and of each line of its summary.
const HEADING: f64 = 22.0;
const SUMMARY_LINE: f64 = 15.0;
const LEGEND: f64 = 34.0;
/// Panels are at least this wide, so that their text fits, and a row of them about this wide at most.
const MIN_PANEL: f64 = 250.0;
const MAX_ROW: f64 = 1240.0;

/// `plan` over `geometry` as an SVG document under the heading `title`: one panel per direction.
///
/// The walk goes from an open circle to a filled one and from blue to orange. A thick line joins neighbours, a thin
/// one is a jump, a dashed one passes over blank steps; where the state starts afresh, there is no line but a ring.
/// Tokens that are never visited are grey. The text needs some sans-serif font; nothing else comes from outside.
///
/// # Errors
/// The plan is over another number of tokens than the geometry, or has more than 2^19 steps.
pub fn svg(plan: &Plan, geometry: &Geometry, title: &str) -> Result<String> {
    let layout = Layout::of(plan, geometry)?;
    let steps: usize = plan.orders().iter().map(Order::len).sum();
    if steps > MAX_DRAWN {
        let what = format!("a picture of {steps} steps");
        return Err(Error::TooLarge { what, limit: format!("{MAX_DRAWN} steps") });
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let tokens = match geometry {
        Geometry::Sequence { .. } => "a sequence of ".to_string(),
        _ => format!("{}, ", geometry.describe()),
    } + &count(plan.tokens(), "token");
    let subtitle = format!("{tokens}, {}", count(plan.directions(), "direction"));
    let mut out = String::new();
    document(&mut out, plan, &layout, title, &subtitle).map_err(|error| Error::Plan(error.to_string()))?;
    Ok(out)
}

fn document(out: &mut String, plan: &Plan, layout: &Layout, title: &str, subtitle: &str) -> fmt::Result {
    let walks: Vec<Vec<Visit>> = plan.orders().iter().map(|order| visits(order, layout)).collect();
    let legend = Legend::of(plan, &walks);
    let cell = (340.0 / layout.rows as f64).min(640.0 / layout.columns as f64).clamp(2.0, 34.0);
    let (grid_width, grid_height) = (cell * layout.columns as f64, cell * layout.rows as f64);
    let panel_width = grid_width.max(MIN_PANEL);
    let characters = (panel_width / 5.6) as usize;
    let summaries: Vec<Vec<String>> =
        plan.orders().iter().map(|order| wrapped(&order.summary().to_string(), characters)).collect();
    let lines = summaries.iter().map(Vec::len).max().unwrap_or(0);
    let panel_height = HEADING + SUMMARY_LINE * lines as f64 + grid_height;

    // As many panels in a row as fit, then spread evenly over the rows.
    let fit = (((MAX_ROW + GAP) / (panel_width + GAP)) as usize).max(1);
    let columns = plan.directions().div_ceil(plan.directions().div_ceil(fit));
    let rows = plan.directions().div_ceil(columns);
    let width = (2.0 * MARGIN + columns as f64 * (panel_width + GAP) - GAP).max(legend.width());
    let height = 2.0 * MARGIN + TITLE + rows as f64 * (panel_height + GAP) - GAP + LEGEND;

    writeln!(
        out,
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0}" height="{height:.0}" viewBox="0 0 {width:.0} {height:.0}" font-family="sans-serif">"#
    )?;
    writeln!(out, r##"<rect width="100%" height="100%" fill="#ffffff"/>"##)?;
    let title = shortened(title, ((width - 2.0 * MARGIN) / 10.5) as usize);
    writeln!(
        out,
        r##"<text x="{MARGIN}" y="{:.1}" font-size="19" fill="#14181f">{}</text>"##,
        MARGIN + 16.0,
        escaped(&title)
    )?;
    writeln!(
        out,
        r##"<text x="{MARGIN}" y="{:.1}" font-size="12" fill="#5b6472">{}</text>"##,
        MARGIN + 35.0,
        escaped(subtitle)
    )?;
    for (k, (order, walk)) in plan.orders().iter().zip(&walks).enumerate() {
        let x = MARGIN + (k % columns) as f64 * (panel_width + GAP);
        let y = MARGIN + TITLE + (k / columns) as f64 * (panel_height + GAP);
        writeln!(out, r#"<g transform="translate({x:.1} {y:.1})">"#)?;
        writeln!(out, r##"<text y="13" font-size="14" fill="#14181f">order.{k}</text>"##)?;
        for (i, line) in summaries[k].iter().enumerate() {
            let y = HEADING + SUMMARY_LINE * i as f64 + 6.0;
            writeln!(out, r##"<text y="{y:.1}" font-size="11" fill="#5b6472">{}</text>"##, escaped(line))?;
        }
        let top = HEADING + SUMMARY_LINE * lines as f64;
        writeln!(out, r#"<g transform="translate(0 {top:.1})">"#)?;
        Panel { order, walk, layout, cell }.draw(out)?;
        writeln!(out, "</g>\n</g>")?;
    }
    legend.draw(out, height - MARGIN)?;
    writeln!(out, "</svg>")
}

/// One direction.
struct Panel<'a> {
    order: &'a Order,
    walk: &'a [Visit],
    layout: &'a Layout,
    cell: f64,
}

impl Panel<'_> {
    fn draw(&self, out: &mut String) -> fmt::Result {
        self.tokens(out)?;
        self.lines(out)?;
        self.numbers(out)?;
        self.marks(out)
    }

    /// Middle of a token's cell.
    fn at(&self, token: usize) -> (f64, f64) {
        let (row, column) = self.layout.place(token);
        ((column as f64 + 0.5) * self.cell, (row as f64 + 0.5) * self.cell)
    }

    /// The cells: white, or grey where the order never comes, with lines between.
    fn tokens(&self, out: &mut String) -> fmt::Result {
        let (cell, columns) = (self.cell, self.layout.columns);
        let mut unvisited = String::new();
        for (token, _) in self.order.visits().iter().enumerate().filter(|(_, n)| **n == 0) {
            let (row, column) = self.layout.place(token);
            write!(
                unvisited,
                "M{:.1} {:.1}h{cell:.1}v{cell:.1}h-{cell:.1}z",
                column as f64 * cell,
                row as f64 * cell
            )?;
        }
        if !unvisited.is_empty() {
            writeln!(out, r##"<path d="{unvisited}" fill="#e4e7ec"/>"##)?;
        }
        let mut grid = String::new();
        // The last row of a folded sequence may be shorter.
        let tokens = self.order.tokens();
        let length = |row: usize| tokens.saturating_sub(row * columns).min(columns) as f64 * cell;
        for line in 0..=self.layout.rows {
            let length = length(line).max(line.checked_sub(1).map_or(0.0, length));
            write!(grid, "M0 {:.1}h{length:.1}", line as f64 * cell)?;
        }
        for line in 0..=columns {
            let rows = (tokens + columns - line.max(1)) / columns;
            write!(grid, "M{:.1} 0v{:.1}", line as f64 * cell, rows as f64 * cell)?;
        }
        let width = if cell < 6.0 { 0.4 } else { 1.0 };
        writeln!(out, r##"<path d="{grid}" fill="none" stroke="#e4e7ec" stroke-width="{width}"/>"##)
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
        if size < 6.0 {
            return Ok(());
        }
        writeln!(
            out,
            r##"<g font-size="{size:.1}" fill="#6b7484" stroke="#ffffff" stroke-width="2" paint-order="stroke">"##
        )?;
        for (token, label) in labels {
            let (row, column) = self.layout.place(token);
            let (x, y) = (column as f64 * self.cell + 2.5, row as f64 * self.cell + 9.0);
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
                    Some((from, Leg::Jump | Leg::Fold)) => self.jump(&mut jumps, from, visit.token)?,
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
        let bow = if (dx == 0.0) != (dy == 0.0) { (self.cell / dx.hypot(dy)).min(0.14) } else { 0.0 };
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

/// What the picture holds, explained under it.
struct Legend(Vec<(&'static str, &'static str)>);

impl Legend {
    const STARTS: f64 = 318.0;

    /// Room for a mark and its text.
    fn room(text: &str) -> f64 {
        50.0 + 6.0 * text.len() as f64
    }

    fn of(plan: &Plan, walks: &[Vec<Visit>]) -> Legend {
        let any =
            |leg: Leg| walks.iter().flatten().any(|visit| visit.from.is_some_and(|(_, found)| found == leg));
        let unvisited = plan.orders().iter().any(|order| !order.covers_all());
        let mut entries = Vec::new();
        if any(Leg::Jump) {
            entries.push((r##"<path d="M0 0h22" stroke="#5b6472" stroke-width="1.1"/>"##, "jump"));
        }
        if any(Leg::OverBlanks) {
            let dashes =
                r##"<path d="M0 0h22" stroke="#5b6472" stroke-width="1.1" stroke-dasharray="2.5 3.5"/>"##;
            entries.push((dashes, "over blank steps"));
        }
        if any(Leg::Reset) {
            let ring = r##"<circle cx="16" r="3.3" fill="#ffffff" stroke="#5b6472" stroke-width="1.3"/>"##;
            entries.push((ring, "state starts afresh"));
        }
        if unvisited {
            entries
                .push((r##"<rect x="8" y="-6" width="12" height="12" fill="#e4e7ec"/>"##, "never visited"));
        }
        Legend(entries)
    }

    fn width(&self) -> f64 {
        2.0 * MARGIN + Legend::STARTS + self.0.iter().map(|(_, text)| Legend::room(text)).sum::<f64>()
    }

    fn draw(&self, out: &mut String, y: f64) -> fmt::Result {
        let (first, last) = (colour(0.0), colour(1.0));
        writeln!(
            out,
            r##"<g transform="translate({MARGIN} {:.1})" font-size="11" fill="#5b6472">"##,
            y - 6.0
        )?;
        writeln!(out, r##"<circle cx="6" r="5" fill="#ffffff" stroke="{first}" stroke-width="2"/>"##)?;
        writeln!(out, r#"<text x="17" y="4">first step</text>"#)?;
        let bar = 12;
        for i in 0..bar {
            let shade = colour(f64::from(i) / f64::from(bar - 1));
            writeln!(out, r#"<rect x="{}" y="-2" width="12.4" height="4" fill="{shade}"/>"#, 78 + 12 * i)?;
        }
        writeln!(out, r#"<circle cx="240" r="5" fill="{last}"/>"#)?;
        writeln!(out, r#"<text x="251" y="4">last step</text>"#)?;
        let mut x = Legend::STARTS;
        for (mark, text) in &self.0 {
            writeln!(
                out,
                r#"<g transform="translate({x:.1} 0)">{mark}<text x="29" y="4">{text}</text></g>"#
            )?;
            x += Legend::room(text);
        }
        writeln!(out, "</g>")
    }
}

/// Colour at `shade` of the way from the first step (0) to the last (1).
fn colour(shade: f64) -> String {
    let scaled = shade.clamp(0.0, 1.0) * (COLOURS.len() - 1) as f64;
    let below = (scaled as usize).min(COLOURS.len() - 2);
    let part = scaled - below as f64;
    let mix = |i: usize| (COLOURS[below][i] * (1.0 - part) + COLOURS[below + 1][i] * part).round() as u8;
    format!("#{:02x}{:02x}{:02x}", mix(0), mix(1), mix(2))
}

/// `text` in lines of about `width` characters, broken at spaces.
fn wrapped(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_string()),
        }
    }
    lines
}

/// `text` cut to `width` characters.
fn shortened(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_string();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// `text` for the inside of an element; characters that XML has no place for become spaces.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => escaped.push(' '),
            c => escaped.push(c),
        }
    }
    escaped
}
