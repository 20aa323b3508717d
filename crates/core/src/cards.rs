//! Data set cards: what a data set is, whose it is, where it comes from and how its files are told to be whole. They
//! lie in `datasets/` and are part of the program.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Error, Result, config};

/// A data set.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Card {
    /// Name on the command line.
    pub name: String,
    /// Name as its authors write it.
    pub title: String,
    /// One line.
    pub what: String,
    /// The `format` of a config.
    pub format: String,
    /// Under which terms it may be used.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// Where it is described.
    pub homepage: String,
    /// Prefixes of the files' addresses, tried in order. None for a generator, or where `notes` say how to get it.
    pub sources: Vec<String>,
    /// Number of examples in each split.
    pub splits: BTreeMap<String, usize>,
    /// Class names in the order of their labels; none if they are too many to list.
    pub classes: Vec<String>,
    /// Mean of the training examples, of images of each channel and between 0 and 1.
    pub mean: Vec<f64>,
    /// Standard deviation, likewise.
    pub std: Vec<f64>,
    /// Test accuracies of others, to hold one's own against.
    pub anchors: Vec<String>,
    /// What else one should know.
    pub notes: String,
    /// The files as published.
    pub files: Vec<CardFile>,
}

/// A file of a data set.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CardFile {
    /// Its name.
    pub name: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// Its SHA-256, in lower-case hexadecimal.
    pub sha256: String,
}

/// The cards of `texts`.
///
/// # Errors
/// [`Error::Config`]: none for the cards that are part of the program, as tests make sure.
pub fn read(texts: &[&str]) -> Result<Vec<Card>> {
    let card = |text: &&str| {
        let table = text.parse().map_err(|error| Error::Config(format!("data set card: {error}")))?;
        config::from_table(table, "")
    };
    texts.iter().map(card).collect()
}

/// The one of `cards` called `name`.
///
/// # Errors
/// [`Error::Config`] naming the nearest card.
pub fn find(cards: Vec<Card>, name: &str) -> Result<Card> {
    let names: Vec<String> = cards.iter().map(|card| card.name.clone()).collect();
    cards.into_iter().find(|card| card.name == name).ok_or_else(|| {
        let hint = config::nearest(name, names.iter().map(String::as_str)).map_or_else(
            || format!("there are {}", names.join(", ")),
            |near| format!("did you mean `{near}`?"),
        );
        Error::Config(format!("there is no data set `{name}`; {hint}"))
    })
}
