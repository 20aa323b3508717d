//! Cards of the data sets of images and clips.

use ophidian_core::{Result, cards};

pub use cards::{Card, CardFile};

const TEXTS: [&str; 6] = [
    include_str!("../../../datasets/mnist.toml"),
    include_str!("../../../datasets/fashion-mnist.toml"),
    include_str!("../../../datasets/cifar10.toml"),
    include_str!("../../../datasets/cifar100.toml"),
    include_str!("../../../datasets/shapes.toml"),
    include_str!("../../../datasets/motions.toml"),
];

/// All cards.
///
/// # Errors
/// None for the cards that are part of the program, as a test makes sure.
pub fn all() -> Result<Vec<Card>> {
    cards::read(&TEXTS)
}

/// The card called `name`.
///
/// # Errors
/// [`Error::Config`](ophidian_core::Error::Config) naming the nearest card.
pub fn named(name: &str) -> Result<Card> {
    cards::find(all()?, name)
}
