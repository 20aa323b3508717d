//! Cards of the data sets of points.

use ophidian_core::{Result, cards};

pub use cards::Card;

const TEXTS: [&str; 3] = [
    include_str!("../../../datasets/solids.toml"),
    include_str!("../../../datasets/geometric-shapes.toml"),
    include_str!("../../../datasets/radhar.toml"),
];

/// All cards.
///
/// # Errors
/// None for the cards that are part of the program, as a test makes sure.
pub fn all() -> Result<Vec<Card>> {
    cards::read(&TEXTS)
}
