//! The table `[data]` of a config.

use std::path::PathBuf;

use ophidian_core::{Error, Result, config, config::KeyDoc, documented};
use serde::{Deserialize, Serialize};

use crate::geometry::{Augment, Normalise};

/// Most values of an input.
const MAX_INPUT: usize = 1 << 26;

/// What the files of a data set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Meshes and clouds in folders by class: `class/file`, `split/class/file` or `class/split/file` (ModelNet), in a
    /// folder or a .zip.
    #[default]
    Folder,
    /// A text file that names a file and its class in each line.
    List,
    /// Recordings of frames in folders by class (RadHAR), of which windows of frames are examples.
    Frames,
    /// The built-in generator of ten solids; needs no files.
    Solids,
}

impl Format {
    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Format::Folder => "folder",
            Format::List => "list",
            Format::Frames => "frames",
            Format::Solids => "solids",
        }
    }
}

/// Which points of a cloud that has more than are asked for are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Choose {
    /// Random ones: others in every epoch of training, the same ones in evaluation.
    #[default]
    Random,
    /// By farthest point sampling.
    Farthest,
    /// The first ones.
    First,
}

/// What becomes of a cloud that has fewer points than are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Short {
    /// An error before training starts.
    #[default]
    Fail,
    /// Its points are taken more than once.
    Repeat,
}

documented! {
/// The table `[data.sequence]`: which frames of a recording make up an example.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Sequence {
    /// Steps in time (F); each has its own groups.
    pub frames: usize,
    /// Frames of the recording that are one step: their points together.
    pub merge: usize,
    /// Frames from one example to the next.
    pub stride: usize,
}
}

impl Default for Sequence {
    fn default() -> Self {
        Sequence { frames: 12, merge: 5, stride: 10 }
    }
}

impl Sequence {
    /// Frames of the recording that an example spans.
    pub fn span(&self) -> usize {
        self.frames * self.merge
    }
}

documented! {
/// The table `[data]` of the points adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// What the files are: "folder" (meshes and clouds by class), "list" (a text file of names and classes), "frames"
    /// (recordings by class) or "solids" (a generator). "folder" if there is a `path`, else "solids".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub format: Option<Format>,
    /// The folder, .zip or list of the data set. Relative paths start at the working folder. Not for the generator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A folder, .zip or list to evaluate on instead of what `path` holds for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_path: Option<PathBuf>,
    /// Share of each class's files that is held out for evaluation where neither a split nor `eval_path` tells. The same
    /// files every time: chosen by their names. A recording is held out as a whole.
    pub val_fraction: f64,
    /// Generator: number of training examples.
    pub train: usize,
    /// Generator: number of examples to evaluate on.
    pub eval: usize,
    /// The seed of the generator, and of the points drawn from meshes.
    pub seed: u64,
    /// Points of an example, of a sequence those of each step.
    pub points: usize,
    /// Groups of them, which become the tokens: their centres by farthest point sampling.
    pub groups: usize,
    /// Points of a group: those nearest to its centre.
    pub group_size: usize,
    /// Points that are drawn from each mesh once, by area, and most that are kept of a cloud; examples take theirs of
    /// these.
    pub pool: usize,
    /// Which of them an example takes: "random", "farthest" or "first".
    pub choose: Choose,
    /// A cloud of fewer points than `points`: "fail", or "repeat" some of them. By default "repeat" for "frames".
    #[serde(skip_serializing_if = "Option::is_none")]
    pub short: Option<Short>,
    /// "sphere" (mean to the origin, farthest point to distance 1), "centre" (mean to the origin) or "none". A sequence
    /// is moved and scaled as a whole.
    pub normalise: Normalise,
    /// Further columns of the files that groups read beside x, y and z: properties of PLY files, "velocity",
    /// "intensity" … of radar recordings, numbers of columns ("4") elsewhere.
    pub features: Vec<String>,
    /// What is subtracted from each feature; one number for each, or none for 0.
    pub feature_mean: Vec<f64>,
    /// What each is then divided by; one number for each, or none for 1.
    pub feature_std: Vec<f64>,
    /// Class names in the order of their labels. By default folder names, or those of the list, sorted.
    pub class_names: Vec<String>,
    /// Random changes of training examples.
    pub augment: Augment,
    /// For "frames" alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
}
}

impl Default for Data {
    fn default() -> Self {
        Data {
            format: None,
            path: None,
            eval_path: None,
            val_fraction: 0.1,
            train: 4096,
            eval: 1024,
            seed: 0,
            points: 1024,
            groups: 64,
            group_size: 32,
            pool: 8192,
            choose: Choose::Random,
            short: None,
            normalise: Normalise::Sphere,
            features: Vec::new(),
            feature_mean: Vec::new(),
            feature_std: Vec::new(),
            class_names: Vec::new(),
            augment: Augment::default(),
            sequence: None,
        }
    }
}

impl Data {
    /// Reads `[data]`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is unknown, of the wrong type or out of range.
    pub fn read(table: toml::Table) -> Result<Self> {
        let mut data: Data = config::from_table(table, "data")?;
        let format = data.format();
        data.format = Some(format);
        if format == Format::Frames {
            data.sequence.get_or_insert_default();
        }
        let short = if format == Format::Frames { Short::Repeat } else { Short::Fail };
        data.short.get_or_insert(short);
        data.validate()?;
        Ok(data)
    }

    /// The table with every key.
    ///
    /// # Errors
    /// [`Error::Config`] if a value does not fit TOML's numbers.
    pub fn to_table(&self) -> Result<toml::Table> {
        config::to_table(self, "data")
    }

    /// Every key with its default and what it means.
    pub fn keys() -> Vec<KeyDoc> {
        let mut keys = KeyDoc::of(&Data::default(), Data::DOCS);
        keys.retain(|key| key.key != "augment" && key.key != "sequence");
        keys.extend(KeyDoc::within("augment", KeyDoc::of(&Augment::default(), Augment::DOCS)));
        keys.extend(KeyDoc::within("sequence", KeyDoc::of(&Sequence::default(), Sequence::DOCS)));
        keys
    }

    /// What the files are.
    pub fn format(&self) -> Format {
        self.format.unwrap_or(if self.path.is_some() { Format::Folder } else { Format::Solids })
    }

    /// Shape of an input: (groups, 1 + group_size, 3 + features), its centre first in each group, of sequences
    /// (frames, groups, …).
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = vec![self.groups, 1 + self.group_size, 3 + self.features.len()];
        if let Some(sequence) = &self.sequence {
            shape.insert(0, sequence.frames);
        }
        shape
    }

    fn validate(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::Config(reason));
        let format = self.format();
        if !(self.val_fraction > 0.0 && self.val_fraction < 1.0) {
            return fail(format!(
                "`data.val_fraction` is {}, expected more than 0 and less than 1",
                self.val_fraction
            ));
        }
        for (key, found, most) in [
            ("points", self.points, 1 << 20),
            ("groups", self.groups, self.points),
            ("group_size", self.group_size, self.points),
        ] {
            if !(1..=most).contains(&found) {
                let of = if key == "points" { "" } else { " (`data.points`)" };
                return fail(format!("`data.{key}` is {found}, expected 1 to {most}{of}"));
            }
        }
        if !(self.points..=1 << 24).contains(&self.pool) {
            let (pool, points) = (self.pool, self.points);
            return fail(format!("`data.pool` is {pool}, expected {points} (`data.points`) to {}", 1 << 24));
        }
        for (key, count) in [("train", self.train), ("eval", self.eval)] {
            if count == 0 || u32::try_from(count).is_err() {
                return fail(format!(
                    "`data.{key}` is {count}, expected a number of examples from 1 to {}",
                    u32::MAX
                ));
            }
        }
        match (&self.path, format) {
            (Some(path), Format::Solids) => {
                return fail(format!(
                    "`data.path` is {}, but format \"solids\" reads no files",
                    path.display()
                ));
            }
            (None, Format::Folder | Format::List | Format::Frames) => {
                return fail("missing key `data.path`: the folder, .zip or list of the data set".to_owned());
            }
            _ => {}
        }
        if format == Format::Solids && (self.eval_path.is_some() || !self.features.is_empty()) {
            let key = if self.eval_path.is_some() { "eval_path" } else { "features" };
            return fail(format!("`data.{key}`: format \"solids\" makes points alone, without files"));
        }
        for (key, values) in [("feature_mean", &self.feature_mean), ("feature_std", &self.feature_std)] {
            let fits = values.is_empty() || values.len() == self.features.len();
            let std = key == "feature_std";
            if !fits || values.iter().any(|value| !value.is_finite() || (std && *value <= 0.0)) {
                let above = if std { " above 0" } else { "" };
                return fail(format!(
                    "`data.{key}` is {values:?}, expected a number{above} for each of {} features",
                    self.features.len()
                ));
            }
        }
        for (key, names) in [("features", &self.features), ("class_names", &self.class_names)] {
            let mut sorted: Vec<&String> = names.iter().collect();
            sorted.sort();
            if let Some(twice) = sorted.windows(2).find(|pair| pair[0] == pair[1]) {
                return fail(format!("`data.{key}` has \"{}\" twice", twice[0]));
            }
        }
        match &self.sequence {
            Some(_) if format != Format::Frames => {
                return fail(format!(
                    "`data.sequence` is for recordings, but `data.format` is \"{}\"; expected \"frames\"",
                    format.name()
                ));
            }
            Some(sequence) => {
                for (key, found) in
                    [("frames", sequence.frames), ("merge", sequence.merge), ("stride", sequence.stride)]
                {
                    if !(1..=1 << 16).contains(&found) {
                        return fail(format!("`data.sequence.{key}` is {found}, expected 1 to {}", 1 << 16));
                    }
                }
            }
            None => {}
        }
        let values = self.shape().iter().try_fold(1usize, |all, side| all.checked_mul(*side));
        if values.is_none_or(|values| values > MAX_INPUT) {
            return fail(format!(
                "`data.groups` and `data.group_size` make inputs of shape {:?}, expected at most {MAX_INPUT} values",
                self.shape()
            ));
        }
        self.augment.validate()
    }
}
