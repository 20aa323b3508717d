//! A plan as SVG.

use std::fmt::{self, Write};

use super::layout::tokens;
use super::panel::Panel;
use super::{Layout, Leg, View, Visit, visits};
use crate::{Error, Geometry, Order, Plan, Result};

/// Most steps that one picture holds; most tokens and edges too, counted again in every panel.
const MAX_DRAWN: usize = 1 << 19;
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
/// A 3-D grid is drawn as `view` says, points as they look from a corner (x to the lower right, y to the lower left, z
/// up), a graph with its edges in grey and its neighbours near each other.
///
/// # Errors
/// The plan is over another number of tokens than the geometry, or there are more than 2^19 steps, or tokens or edges
/// times directions.
pub fn svg(plan: &Plan, geometry: &Geometry, view: View, title: &str) -> Result<String> {
    let tokens = tokens(plan, geometry)?;
    let steps: usize = plan.orders().iter().map(Order::len).sum();
    let edges = if let Geometry::Graph(graph) = geometry { graph.edges().len() } else { 0 };
    // Every panel holds the tokens that its order does not visit, and all edges.
    for (count, what) in [
        (steps, "steps"),
        (tokens.saturating_mul(plan.directions()), "tokens over all directions"),
        (edges.saturating_mul(plan.directions()), "edges over all directions"),
    ] {
        if count > MAX_DRAWN {
            let what = format!("a picture of {count} {what}");
            return Err(Error::TooLarge { what, limit: MAX_DRAWN.to_string() });
        }
    }
    let layout = Layout::of(tokens, geometry, view, side_by_side);
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let tokens = match geometry {
        Geometry::Sequence { .. } => "a sequence of ".to_string() + &count(plan.tokens(), "token"),
        Geometry::Points(_) => count(plan.tokens(), "point"),
        Geometry::Graph(_) => geometry.describe(),
        _ => format!("{}, {}", geometry.describe(), count(plan.tokens(), "token")),
    };
    let subtitle = format!("{tokens}, {}", count(plan.directions(), "direction"));
    let mut out = String::new();
    document(&mut out, plan, &layout, title, &subtitle).map_err(|error| Error::Plan(error.to_string()))?;
    Ok(out)
}

/// So many frames side by side that the picture is about twice as wide as high.
fn side_by_side(frames: usize, height: usize, width: usize) -> usize {
    (frames as f64 * (height + 1) as f64 * 1.9 / (width + 1) as f64).sqrt().ceil() as usize
}

fn document(out: &mut String, plan: &Plan, layout: &Layout, title: &str, subtitle: &str) -> fmt::Result {
    let walks: Vec<Vec<Visit>> = plan.orders().iter().map(|order| visits(order, layout)).collect();
    let legend = Legend::of(plan, &walks);
    let (cell, (grid_width, grid_height)) = match layout {
        Layout::Cells(cells) => {
            let (rows, columns) = (cells.rows() as f64, cells.columns() as f64);
            let cell = (340.0 / rows).min(640.0 / columns).clamp(2.0, 34.0);
            (cell, (cell * columns, cell * rows))
        }
        Layout::Cloud(cloud) => (cloud.spacing.min(34.0), (cloud.width, cloud.height)),
    };
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
pub(super) fn colour(shade: f64) -> String {
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
