//! Where clips come from: WAV files by class, by a list or by the names of the Free Spoken Digit Dataset, and a generator.

pub mod folder;
pub mod fsdd;
pub mod list;
pub mod tones;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ophidian_core::{Error, Result};

use self::tones::Tones;
use crate::wav::{self, Wave};

/// Clips that can be read in any order from any thread.
pub enum Source {
    /// WAV files.
    Files(Vec<PathBuf>),
    /// Made up as they are asked for.
    Tones(Tones),
}

impl Source {
    /// Number of clips.
    pub fn len(&self) -> usize {
        match self {
            Source::Files(files) => files.len(),
            Source::Tones(tones) => tones.len,
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads clip `index`.
    ///
    /// # Errors
    /// There is none, or its file cannot be read.
    pub fn wave(&self, index: usize) -> Result<Wave> {
        match self {
            Source::Files(files) => wav::read(files.get(index).ok_or_else(|| no_clip(index, files.len()))?),
            Source::Tones(tones) => tones.wave(index),
        }
    }

    /// The file of clip `index`, or its number.
    pub fn name_of(&self, index: usize) -> String {
        match self {
            Source::Files(files) => {
                files.get(index).map_or_else(|| format!("#{index}"), |file| file.display().to_string())
            }
            Source::Tones(_) => format!("tones #{index}"),
        }
    }
}

/// Clips of a source with their labels.
#[derive(Clone)]
pub struct Labelled {
    /// Where they come from.
    pub source: Arc<Source>,
    /// (index of the clip in the source, label).
    pub items: Vec<(u32, u32)>,
}

/// What was found at a path.
pub struct Found {
    /// Class names in the order of their labels.
    pub classes: Vec<String>,
    /// Clips to train on, or all of them where there is no split.
    pub train: Option<Labelled>,
    /// Clips to evaluate on: validation if there is one, else test.
    pub eval: Option<Labelled>,
    /// Test clips left alone because there is a validation split.
    pub set_aside: usize,
}

/// What a clip is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// `train`, `training`.
    Train,
    /// `val`, `valid`, `validation`, `eval`, `dev`.
    Validation,
    /// `test`, `testing`.
    Test,
}

impl Role {
    /// The role that a name stands for.
    pub fn of(name: &str) -> Option<Role> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Role::Train),
            "val" | "valid" | "validation" | "eval" | "dev" => Some(Role::Validation),
            "test" | "testing" => Some(Role::Test),
            _ => None,
        }
    }
}

/// A file with its class and what it is for; all are for training where nothing says so.
pub(crate) struct Entry {
    pub file: PathBuf,
    pub class: String,
    pub role: Option<Role>,
}

/// The splits of `entries`, found at `path`. If `names` is not empty, it lists the classes in their order.
pub(crate) fn split(path: &Path, entries: Vec<Entry>, names: &[String]) -> Result<Found> {
    if entries.is_empty() {
        return Err(Error::file(path, "holds no WAV files"));
    }
    if u32::try_from(entries.len()).is_err() {
        return Err(Error::file(path, format!("holds {} clips, more than can be numbered", entries.len())));
    }
    let classes = if names.is_empty() {
        let mut classes: Vec<String> = entries.iter().map(|entry| entry.class.clone()).collect();
        classes.sort_unstable();
        classes.dedup();
        classes
    } else {
        names.to_vec()
    };
    let validated = entries.iter().any(|entry| entry.role == Some(Role::Validation));
    let (mut files, mut train, mut eval, mut set_aside) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (index, entry) in entries.into_iter().enumerate() {
        let Some(label) = classes.iter().position(|class| *class == entry.class) else {
            let known = classes.join(", ");
            return Err(Error::file(
                &entry.file,
                format!("is of class \"{}\", expected one of `data.class_names`: {known}", entry.class),
            ));
        };
        let item = (index as u32, label as u32);
        match entry.role {
            Some(Role::Test) if validated => set_aside += 1,
            Some(Role::Test | Role::Validation) => eval.push(item),
            Some(Role::Train) | None => train.push(item),
        }
        files.push(entry.file);
    }
    let source = Arc::new(Source::Files(files));
    let part =
        |items: Vec<(u32, u32)>| (!items.is_empty()).then(|| Labelled { source: source.clone(), items });
    Ok(Found { classes, train: part(train), eval: part(eval), set_aside })
}

/// Whether a file is to be read by its name.
pub(crate) fn is_wav(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("wav") || ending.eq_ignore_ascii_case("wave"))
}

/// The error of a clip that is not there.
pub(crate) fn no_clip(index: usize, len: usize) -> Error {
    Error::invalid(format!("there is no clip {index}: there are {len}"))
}
