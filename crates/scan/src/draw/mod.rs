//! Plans as pictures: [`text`] for a terminal, [`svg`] for a document.

mod svg;
mod text;

pub use svg::svg;
pub use text::text;

use crate::{Error, Geometry, Order, Plan, Result};

/// Sequences longer than this are drawn in several rows.
const FOLD: usize = 32;

/// Where each token is drawn.
struct Layout {
    rows: usize,
    columns: usize,
    /// A sequence: tokens on both sides of a fold are neighbours, tokens above each other are not.
    folded: bool,
}

impl Layout {
    /// The layout of `geometry`, if `plan` is over its tokens.
    fn of(plan: &Plan, geometry: &Geometry) -> Result<Layout> {
        let tokens = geometry.tokens()?;
        if plan.tokens() != tokens {
            let found = plan.tokens();
            return Err(Error::Plan(format!(
                "a plan over {found} tokens cannot be drawn on {} ({tokens} tokens)",
                geometry.describe()
            )));
        }
        Ok(match *geometry {
            Geometry::Grid2 { height, width } => Layout { rows: height, columns: width, folded: false },
            Geometry::Grid3 { frames, height, width } => {
                Layout { rows: frames * height, columns: width, folded: false }
            }
            _ => Layout { rows: tokens.div_ceil(FOLD), columns: tokens.min(FOLD), folded: true },
        })
    }

    /// (row, column).
    fn place(&self, token: usize) -> (usize, usize) {
        (token / self.columns, token % self.columns)
    }
}

/// How the walk comes from one token to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// A straight line over tokens that this order leaves out, if any.
    Line,
    /// From the end of a row of a folded sequence to the start of the next, or back: no jump, but not drawn as a line.
    Fold,
    /// Anything farther.
    Jump,
    /// Over blank steps.
    OverBlanks,
    /// The state does not come along: it starts afresh.
    Reset,
}

/// One visited step, and how the walk came to it.
#[derive(Debug, Clone, Copy)]
struct Visit {
    step: usize,
    token: usize,
    /// The token before and the way from there; none for the first.
    from: Option<(usize, Leg)>,
}

/// The visited steps of `order`, blank ones left out.
fn visits(order: &Order, layout: &Layout) -> Vec<Visit> {
    let seen = order.visits();
    let straight = |from: usize, to: usize| {
        let ((r, c), (s, d)) = (layout.place(from), layout.place(to));
        let stride = match (r == s, c == d) {
            (true, false) => 1,
            (false, true) if !layout.folded => layout.columns,
            _ => return false,
        };
        let (low, high) = (from.min(to), from.max(to));
        (low..high).step_by(stride).skip(1).all(|between| seen[between] == 0)
    };
    let mut visits: Vec<Visit> = Vec::with_capacity(order.len());
    let (mut blanks, mut reset) = (false, false);
    for (step, &token) in order.index().iter().enumerate() {
        reset |= order.resets()[step];
        let Ok(token) = usize::try_from(token) else {
            blanks = true;
            continue;
        };
        let from = visits.last().map(|last| {
            let leg = match (reset, blanks) {
                (true, _) => Leg::Reset,
                (false, true) => Leg::OverBlanks,
                _ if straight(last.token, token) => Leg::Line,
                _ if layout.folded && last.token.abs_diff(token) == 1 => Leg::Fold,
                _ => Leg::Jump,
            };
            (last.token, leg)
        });
        visits.push(Visit { step, token, from });
        (blanks, reset) = (false, false);
    }
    visits
}
