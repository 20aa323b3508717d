//! Files of meshes, clouds and recordings of clouds.
//!
//! No reader trusts a header: a count is held against the bytes that are there before anything is allocated for it. Every
//! coordinate that comes out is finite.

mod bytes;
mod npy;
mod off;
mod ply;
mod radar;
mod text;

use std::path::Path;

use ophidian_core::{Error, Result};

use crate::cloud::{Cloud, Mesh};

pub use bytes::Archive;

/// What a file holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Shape {
    /// A surface, from which points are drawn.
    Mesh(Mesh),
    /// Points.
    Cloud(Cloud),
    /// Points at one time after another.
    Frames(Vec<Cloud>),
}

/// A format of files, by the ending of their names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Meshes (Geomview), ModelNet's.
    Off,
    /// Meshes and clouds (Stanford), as text or binary of either byte order.
    Ply,
    /// A point a line: `.xyz`, `.pts`, `.asc`, `.csv`, `.txt`.
    Text,
    /// An array (N, 3 or more).
    Npy,
}

impl Kind {
    /// The format of the file called `name`, which may end in `.gz` besides.
    pub fn of(name: &str) -> Option<Kind> {
        let name = name.to_ascii_lowercase();
        let name = name.strip_suffix(".gz").unwrap_or(&name);
        match name.rsplit_once('.')?.1 {
            "off" => Some(Kind::Off),
            "ply" => Some(Kind::Ply),
            "xyz" | "pts" | "asc" | "csv" | "txt" => Some(Kind::Text),
            "npy" => Some(Kind::Npy),
            _ => None,
        }
    }
}

/// Every ending, for messages.
pub const ENDINGS: &str = ".off, .ply, .xyz, .pts, .asc, .csv, .txt or .npy, plain or with .gz";

/// Reads the file at `path`.
///
/// # Errors
/// [`Error::File`] naming the file, and the line if it is text: what was found and what was expected.
pub fn read(path: &Path) -> Result<Shape> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let bytes = bytes::read(path)?;
    parse(&name, &bytes).map_err(|reason| Error::file(path, reason))
}

/// Reads `bytes`, the content of a file called `name`.
///
/// # Errors
/// What was found, where, and what was expected.
pub fn parse(name: &str, bytes: &[u8]) -> std::result::Result<Shape, String> {
    let Some(kind) = Kind::of(name) else {
        return Err(format!("its name ends in no format that is known; expected {ENDINGS}"));
    };
    let unpacked;
    let bytes = if name.to_ascii_lowercase().ends_with(".gz") {
        unpacked = bytes::gunzip(bytes)?;
        &unpacked
    } else {
        bytes
    };
    if bytes.is_empty() {
        return Err("is empty".into());
    }
    match kind {
        Kind::Off => off::parse(bytes).map(Shape::Mesh),
        Kind::Ply => ply::parse(bytes),
        Kind::Text if radar::is_radar(bytes) => radar::parse(bytes).map(Shape::Frames),
        Kind::Text => text::parse(bytes).map(Shape::Cloud),
        Kind::Npy => npy::parse(bytes).map(Shape::Cloud),
    }
}

/// The finite number of a word of text.
fn number(word: &str, what: &str) -> std::result::Result<f32, String> {
    match word.parse::<f32>() {
        Ok(number) if number.is_finite() => Ok(number),
        Ok(_) => Err(format!("{what} is {}, expected a finite number", shown(word))),
        Err(_) => Err(format!("{what} is {}, expected a number", shown(word))),
    }
}

/// A word of a file for a message: no more of it than a line holds, and no control characters.
fn shown(word: &str) -> String {
    const MOST: usize = 24;
    let short: String = word.chars().take(MOST).flat_map(char::escape_default).collect();
    format!("`{short}{}`", if word.chars().nth(MOST).is_some() { "…" } else { "" })
}

/// The lines of a text with their numbers from 1 on; a line that is no UTF-8 is an error.
fn lines(bytes: &[u8]) -> impl Iterator<Item = std::result::Result<(usize, &str), String>> {
    bytes.split(|byte| *byte == b'\n').zip(1..).map(|(line, number)| match std::str::from_utf8(line) {
        Ok(line) => Ok((number, line.trim())),
        Err(_) => Err(format!("line {number} is no text")),
    })
}
