//! A plan as text: box-drawing lines along the walk, and step numbers where they fit.

use std::fmt::Write;

use super::{Layout, Leg, Visit, visits};
use crate::{Geometry, Order, Plan, Result};

/// Widest line that is filled, in characters.
const WIDTH: usize = 110;
/// Largest side of a grid that is drawn.
const MAX_SIDE: usize = 64;
/// Most tokens that are numbered.
const MAX_NUMBERED: usize = 512;
/// Most directions that are drawn.
const MAX_DRAWN: usize = 16;
/// Most steps that a list of them names.
const MAX_LISTED: usize = 8;

const UP: u8 = 1;
const RIGHT: u8 = 2;
const DOWN: u8 = 4;
const LEFT: u8 = 8;

/// Box-drawing character by the arms it has.
const GLYPHS: [char; 16] = ['•', '╵', '╶', '└', '╷', '│', '┌', '├', '╴', '┘', '─', '┴', '┐', '┤', '┬', '┼'];

/// `plan` over `geometry` as text, one direction after another.
///
/// `○` is the first token and `●` the last. Lines join tokens that are visited one after the other; an arrowhead says
/// that the walk goes on elsewhere, a half line that it came from elsewhere, `•` both, and `·` marks tokens that are
/// never visited. Beside it stand the steps at which small grids are visited, with `+` where a token is visited again.
///
/// # Errors
/// The plan is over another number of tokens than the geometry.
pub fn text(plan: &Plan, geometry: &Geometry) -> Result<String> {
    let layout = Layout::of(plan, geometry)?;
    let mut out = String::new();
    for (k, order) in plan.orders().iter().enumerate().take(MAX_DRAWN) {
        let _ = writeln!(out, "{}order.{k}  {}", if k == 0 { "" } else { "\n" }, order.summary());
        direction(&mut out, order, &layout);
    }
    if plan.directions() > MAX_DRAWN {
        let _ = writeln!(out, "\n… and {} more directions", plan.directions() - MAX_DRAWN);
    }
    Ok(out)
}

fn direction(out: &mut String, order: &Order, layout: &Layout) {
    let visits = visits(order, layout);
    if layout.rows > MAX_SIDE || layout.columns > MAX_SIDE {
        let _ = writeln!(out, "  a {}x{} grid is too large to draw as text", layout.rows, layout.columns);
    } else {
        let path = path(&visits, order.tokens(), layout);
        let numbers = numbers(order, layout);
        let width = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let beside = 2 + width(&path) + 4 + width(&numbers) <= WIDTH;
        for (i, line) in path.iter().enumerate() {
            match numbers.get(i).filter(|_| beside) {
                Some(numbers) => {
                    let gap = " ".repeat(width(&path) - line.chars().count() + 4);
                    let _ = writeln!(out, "  {}", format!("{line}{gap}{numbers}").trim_end());
                }
                None => {
                    let _ = writeln!(out, "  {}", line.trim_end());
                }
            }
        }
        if !beside {
            for line in numbers {
                let _ = writeln!(out, "  {}", line.trim_end());
            }
        }
    }
    let jumps = visits.iter().filter(|visit| matches!(visit.from, Some((_, Leg::Jump))));
    list(out, "jumps to steps", jumps.map(|visit| visit.step));
    list(out, "blank at steps", (0..order.len()).filter(|&t| order.index()[t] < 0));
    list(out, "state afresh at steps", (0..order.len()).filter(|&t| order.resets()[t]));
}

/// `what` with its steps as ranges, cut short if they are many; nothing if there are none.
fn list(out: &mut String, what: &str, steps: impl Iterator<Item = usize>) {
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    let mut count = 0;
    for step in steps {
        count += 1;
        match ranges.last_mut() {
            Some(last) if last.1 + 1 == step => last.1 = step,
            _ => ranges.push((step, step)),
        }
    }
    if count == 0 {
        return;
    }
    let shown = ranges.iter().take(MAX_LISTED).map(|&(first, last)| match last - first {
        0 => first.to_string(),
        _ => format!("{first}-{last}"),
    });
    let more = if ranges.len() > MAX_LISTED { format!(", … ({count} in all)") } else { String::new() };
    let _ = writeln!(out, "  {what} {}{more}", shown.collect::<Vec<_>>().join(", "));
}

/// The walk, one line of text per row, one character per token and one between.
fn path(visits: &[Visit], tokens: usize, layout: &Layout) -> Vec<String> {
    let mut arms = vec![0u8; layout.rows * layout.columns];
    let mut arrow = vec![None; arms.len()];
    let mut seen = vec![0u32; arms.len()];
    for (i, visit) in visits.iter().enumerate() {
        seen[visit.token] += 1;
        let heading = match visit.from {
            Some((from, Leg::Line)) => Some(line(&mut arms, from, visit.token, layout)),
            _ => None,
        };
        if visits.get(i + 1).is_some_and(|next| !matches!(next.from, Some((_, Leg::Line)))) {
            arrow[visit.token] = heading;
        }
    }
    let mut glyphs: Vec<char> = (0..arms.len())
        .map(|token| match (seen[token], arms[token]) {
            _ if token >= tokens => ' ',
            (0, 0) => '·',
            (1, _) => arrow[token].unwrap_or(GLYPHS[arms[token] as usize]),
            (_, arms) => GLYPHS[arms as usize],
        })
        .collect();
    if let (Some(first), Some(last)) = (visits.first(), visits.last()) {
        glyphs[first.token] = '○';
        glyphs[last.token] = if first.token == last.token { '◉' } else { '●' };
    }
    let row = |r: usize| {
        let cells = (r * layout.columns..(r + 1) * layout.columns).flat_map(|token| {
            let joined = arms[token] & RIGHT != 0;
            [glyphs[token], if joined { '─' } else { ' ' }]
        });
        let mut row: String = cells.collect();
        row.pop();
        row
    };
    (0..layout.rows).map(row).collect()
}

/// Draws the arms of a straight line and returns the arrowhead of its direction.
fn line(arms: &mut [u8], from: usize, to: usize, layout: &Layout) -> char {
    let (low, high) = (from.min(to), from.max(to));
    let across = layout.place(from).0 == layout.place(to).0;
    let (stride, ahead, back) = if across { (1, RIGHT, LEFT) } else { (layout.columns, DOWN, UP) };
    for token in (low..high).step_by(stride) {
        arms[token] |= ahead;
        arms[token + stride] |= back;
    }
    match (across, from < to) {
        (true, true) => '▸',
        (true, false) => '◂',
        (false, true) => '▾',
        (false, false) => '▴',
    }
}

/// The step at which each token is first visited, one line of text per row; empty if the grid is too large.
fn numbers(order: &Order, layout: &Layout) -> Vec<String> {
    if order.tokens() > MAX_NUMBERED {
        return Vec::new();
    }
    let seen = order.visits();
    let mut first = vec![None; order.tokens()];
    for (step, &token) in order.index().iter().enumerate().rev() {
        if let Ok(token) = usize::try_from(token) {
            first[token] = Some(step);
        }
    }
    let text = |token: usize| match first.get(token) {
        None => String::new(),
        Some(None) => "·".to_string(),
        Some(Some(step)) => format!("{step}{}", if seen[token] > 1 { "+" } else { "" }),
    };
    let cells: Vec<String> = (0..layout.rows * layout.columns).map(text).collect();
    let width = cells.iter().map(|cell| cell.chars().count()).max().unwrap_or(0);
    if layout.columns * (width + 1) > WIDTH {
        return Vec::new();
    }
    let row =
        |cells: &[String]| cells.iter().map(|cell| format!("{cell:>width$}")).collect::<Vec<_>>().join(" ");
    cells.chunks(layout.columns).map(row).collect()
}
