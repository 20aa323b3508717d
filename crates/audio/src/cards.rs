//! Cards of the data sets of audio.

use ophidian_core::{Result, cards};

pub use cards::Card;

const TEXTS: [&str; 2] =
    [include_str!("../../../datasets/fsdd.toml"), include_str!("../../../datasets/tones.toml")];

/// All cards.
///
/// # Errors
/// None for the cards that are part of the program, as a test makes sure.
pub fn all() -> Result<Vec<Card>> {
    cards::read(&TEXTS)
}
