//! A plan as text: box-drawing lines along the walk, and step numbers where they fit.

use std::fmt::Write;

use super::layout::{Cells, tokens};
use super::{Layout, Leg, View, Visit, visits};
use crate::graph::Neighbours;
use crate::{Geometry, Order, Plan, Points, Result};

/// Widest line that is filled, in characters.
const WIDTH: usize = 110;
/// Largest side of a grid that is drawn, and most tokens of a 3-D one.
const MAX_SIDE: usize = 64;
const MAX_CELLS: usize = MAX_SIDE * MAX_SIDE;
/// Most tokens that are numbered.
const MAX_NUMBERED: usize = 512;
/// Most directions that are drawn.
const MAX_DRAWN: usize = 16;
/// Most steps that a list of them names.
const MAX_LISTED: usize = 8;
/// Most steps of a walk over points or nodes that are written out.
const MAX_WRITTEN: usize = 12;

const UP: u8 = 1;
const RIGHT: u8 = 2;
const DOWN: u8 = 4;
const LEFT: u8 = 8;

/// Box-drawing character by the arms it has.
const GLYPHS: [char; 16] = ['•', '╵', '╶', '└', '╷', '│', '┌', '├', '╴', '┘', '─', '┴', '┐', '┤', '┬', '┼'];

/// Writes what one order looks like.
type Draw<'a> = Box<dyn Fn(&mut String, &Order) + 'a>;

/// `plan` over `geometry` as text, one direction after another.
///
/// `○` is the first token and `●` the last. Lines join tokens that are visited one after the other; an arrowhead says
/// that the walk goes on elsewhere, a half line that it came from elsewhere, `•` both, and `·` marks tokens that are
/// never visited. Beside it stand the steps at which small grids are visited, with `+` where a token is visited again.
/// The frames of a 3-D grid stand side by side. Of points and nodes, the first steps are listed.
///
/// # Errors
/// The plan is over another number of tokens than the geometry.
pub fn text(plan: &Plan, geometry: &Geometry) -> Result<String> {
    let tokens = tokens(plan, geometry)?;
    let draw: Draw<'_> = match geometry {
        Geometry::Points(points) => Box::new(|out, order| point_list(out, order, points)),
        Geometry::Graph(graph) => {
            let (degrees, links) = (graph.degrees(), graph.undirected());
            Box::new(move |out, order| node_list(out, order, &degrees, &links))
        }
        _ => {
            // A token takes two characters, and so does the gap between frames.
            let layout = Layout::of(tokens, geometry, View::Slices, |_, _, width| WIDTH / 2 / (width + 1));
            Box::new(move |out, order| {
                if let Layout::Cells(cells) = &layout {
                    direction(out, order, &layout, cells);
                }
            })
        }
    };
    let mut out = String::new();
    for (k, order) in plan.orders().iter().enumerate().take(MAX_DRAWN) {
        let _ = writeln!(out, "{}order.{k}  {}", if k == 0 { "" } else { "\n" }, order.summary());
        draw(&mut out, order);
    }
    if plan.directions() > MAX_DRAWN {
        let _ = writeln!(out, "\n… and {} more directions", plan.directions() - MAX_DRAWN);
    }
    Ok(out)
}

fn direction(out: &mut String, order: &Order, layout: &Layout, cells: &Cells) {
    let visits = visits(order, layout);
    let flat = cells.frames == 1;
    if cells.height > MAX_SIDE || cells.width > MAX_SIDE || !flat && cells.tokens > MAX_CELLS {
        let frames = if flat { String::new() } else { format!("{}x", cells.frames) };
        let _ =
            writeln!(out, "  a {frames}{}x{} grid is too large to draw as text", cells.height, cells.width);
    } else {
        let path = path(&visits, cells);
        let numbers = numbers(order, cells);
        let width = |lines: &[String]| lines.iter().map(|line| line.chars().count()).max().unwrap_or(0);
        let beside = 2 + width(&path) + 4 + width(&numbers) <= WIDTH;
        for (i, line) in path.iter().enumerate() {
            match numbers.get(i).filter(|_| beside) {
                Some(numbers) => {
                    let gap = " ".repeat(width(&path) - line.chars().count() + 4);
                    let _ = writeln!(out, "{}", format!("  {line}{gap}{numbers}").trim_end());
                }
                None => {
                    let _ = writeln!(out, "{}", format!("  {line}").trim_end());
                }
            }
        }
        if !beside {
            for line in numbers {
                let _ = writeln!(out, "{}", format!("  {line}").trim_end());
            }
        }
    }
    let jumps = visits.iter().filter(|visit| matches!(visit.from, Some((_, Leg::Jump))));
    list(out, "jumps to steps", jumps.map(|visit| visit.step));
    steps(out, order);
}

/// The steps that are blank, those at which the state starts afresh, and those that are silent.
fn steps(out: &mut String, order: &Order) {
    list(out, "blank at steps", (0..order.len()).filter(|&t| order.index()[t] < 0));
    list(out, "state afresh at steps", (0..order.len()).filter(|&t| order.resets()[t]));
    list(out, "silent at steps", (0..order.len()).filter(|&t| order.silent()[t]));
}

/// The first steps of a walk over points: which, where, and how far from the one before.
fn point_list(out: &mut String, order: &Order, points: &Points) {
    let _ = writeln!(
        out,
        "  {:>6}  {:>8}  {:>10} {:>10} {:>10}  {:>10}",
        "step", "point", "x", "y", "z", "distance"
    );
    let mut last: Option<[f32; 3]> = None;
    for (step, &token) in order.index().iter().enumerate().take(MAX_WRITTEN) {
        let point = usize::try_from(token).ok().and_then(|token| points.xyz().get(token));
        let Some(&[x, y, z]) = point else {
            let _ = writeln!(out, "  {step:>6}  {:>8}", "blank");
            continue;
        };
        let apart = last.filter(|_| !order.resets()[step]).map_or(String::new(), |from| {
            let square = from.iter().zip([x, y, z]).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
            format!("{:.4}", square.sqrt())
        });
        let line = format!("  {step:>6}  {token:>8}  {x:>10.4} {y:>10.4} {z:>10.4}  {apart:>10}");
        let _ = writeln!(out, "{}", line.trim_end());
        last = Some([x, y, z]);
    }
    more(out, order.len());
    steps(out, order);
}

/// The first nodes of a walk over a graph, with how many edges leave each, and whether an edge joins it to the node before.
fn node_list(out: &mut String, order: &Order, degrees: &[u32], links: &Neighbours) {
    let mut last: Option<u32> = None;
    for (step, &token) in order.index().iter().enumerate().take(MAX_WRITTEN) {
        let Ok(node) = u32::try_from(token) else {
            let _ = writeln!(out, "  {step:>6}  blank");
            continue;
        };
        let joined = |last: u32| links.of_node(last as usize).binary_search(&node).is_ok();
        let joined = !order.resets()[step] && last.is_some_and(joined);
        let way = if joined { "along an edge" } else { "" };
        let degree = degrees.get(node as usize).copied().unwrap_or(0);
        let line = format!("  {step:>6}  node {node:<7} of degree {degree:<5} {way}");
        let _ = writeln!(out, "{}", line.trim_end());
        last = Some(node);
    }
    more(out, order.len());
    steps(out, order);
}

fn more(out: &mut String, steps: usize) {
    if steps > MAX_WRITTEN {
        let _ = writeln!(out, "  … and {} more steps", steps - MAX_WRITTEN);
    }
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

/// The token in each cell of the picture, row by row; none in the gaps between frames.
fn tokens_of(cells: &Cells) -> Vec<Option<usize>> {
    let mut tokens = vec![None; cells.rows() * cells.columns()];
    for token in 0..cells.tokens {
        let (row, column) = cells.place(token);
        tokens[row * cells.columns() + column] = Some(token);
    }
    tokens
}

/// The walk, one line of text per row, one character per token and one between.
fn path(visits: &[Visit], cells: &Cells) -> Vec<String> {
    let mut arms = vec![0u8; cells.tokens];
    let mut arrow = vec![None; arms.len()];
    let mut seen = vec![0u32; arms.len()];
    for (i, visit) in visits.iter().enumerate() {
        seen[visit.token] += 1;
        let heading = match visit.from {
            Some((from, Leg::Line)) => Some(line(&mut arms, from, visit.token, cells)),
            _ => None,
        };
        if visits.get(i + 1).is_some_and(|next| !matches!(next.from, Some((_, Leg::Line)))) {
            arrow[visit.token] = heading;
        }
    }
    let mut glyphs: Vec<char> = (0..arms.len())
        .map(|token| match (seen[token], arms[token]) {
            (0, 0) => '·',
            (1, _) => arrow[token].unwrap_or(GLYPHS[arms[token] as usize]),
            (_, arms) => GLYPHS[arms as usize],
        })
        .collect();
    if let (Some(first), Some(last)) = (visits.first(), visits.last()) {
        glyphs[first.token] = '○';
        glyphs[last.token] = if first.token == last.token { '◉' } else { '●' };
    }
    let row = |tokens: &[Option<usize>]| {
        let cells = tokens.iter().flat_map(|token| match *token {
            Some(token) => [glyphs[token], if arms[token] & RIGHT != 0 { '─' } else { ' ' }],
            None => [' ', ' '],
        });
        let mut row: String = cells.collect();
        row.pop();
        row
    };
    tokens_of(cells).chunks(cells.columns()).map(row).collect()
}

/// Draws the arms of a straight line and returns the arrowhead of its direction.
fn line(arms: &mut [u8], from: usize, to: usize, cells: &Cells) -> char {
    let (low, high) = (from.min(to), from.max(to));
    let across = cells.place(from).0 == cells.place(to).0;
    let (stride, ahead, back) = if across { (1, RIGHT, LEFT) } else { (cells.width, DOWN, UP) };
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
fn numbers(order: &Order, cells: &Cells) -> Vec<String> {
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
    let text = |token: &Option<usize>| match token.map(|token| (first[token], seen[token])) {
        None => String::new(),
        Some((None, _)) => "·".to_string(),
        Some((Some(step), seen)) => format!("{step}{}", if seen > 1 { "+" } else { "" }),
    };
    let numbers: Vec<String> = tokens_of(cells).iter().map(text).collect();
    let width = numbers.iter().map(|number| number.chars().count()).max().unwrap_or(0);
    if cells.columns() * (width + 1) > WIDTH {
        return Vec::new();
    }
    let row =
        |row: &[String]| row.iter().map(|number| format!("{number:>width$}")).collect::<Vec<_>>().join(" ");
    numbers.chunks(cells.columns()).map(row).collect()
}
