//! Data set cards of points: what a data set is, whose it is, where it comes from and how its files are told to be whole.
//! They lie in `datasets/` and are part of the program.

use std::collections::BTreeMap;

use ophidian_core::{Error, Result, config};
use serde::{Deserialize, Serialize};

use crate::config::Format;

const TEXTS: [&str; 3] = [
    include_str!("../../../datasets/solids.toml"),
    include_str!("../../../datasets/geometric-shapes.toml"),
    include_str!("../../../datasets/radhar.toml"),
];

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
    pub format: Format,
    /// Under which terms it may be used.
    pub licence: String,
    /// What to cite.
    pub citation: String,
    /// Where it is described.
    pub homepage: String,
    /// Prefixes of the files' addresses, tried in order. None where there is nothing to fetch file by file.
    pub sources: Vec<String>,
    /// Number of clouds or recordings in each split.
    pub splits: BTreeMap<String, usize>,
    /// Class names in the order of their labels; none if they are too many to list.
    pub classes: Vec<String>,
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

/// All cards.
///
/// # Errors
/// None for the cards that are part of the program, as a test makes sure.
pub fn all() -> Result<Vec<Card>> {
    let card = |text: &&str| {
        let table = text.parse().map_err(|error| Error::Config(format!("data set card: {error}")))?;
        config::from_table(table, "")
    };
    TEXTS.iter().map(card).collect()
}
