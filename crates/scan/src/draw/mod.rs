//! Plans as pictures: [`text`] for a terminal, [`svg`] for a document.

mod cloud;
mod layout;
mod panel;
mod svg;
mod text;

pub use svg::svg;
pub use text::text;

use crate::Order;
use layout::Layout;

/// How a 3-D grid is drawn; others have one view.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum View {
    /// The frames or slices side by side.
    #[default]
    Slices,
    /// A walk through space, columns to the lower right, frames to the lower left, rows down.
    Isometric,
}

/// How the walk comes from one token to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leg {
    /// A straight line over tokens that this order leaves out, if any.
    Line,
    /// To a neighbour that is drawn elsewhere: over the fold of a sequence, or to the same place of the next frame.
    Apart,
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
                _ => layout.leg(last.token, token, &seen),
            };
            (last.token, leg)
        });
        visits.push(Visit { step, token, from });
        (blanks, reset) = (false, false);
    }
    visits
}
