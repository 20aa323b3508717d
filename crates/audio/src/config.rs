//! The table `[data]` of a config.

use std::path::PathBuf;

use ophidian_core::{Error, Result, config, config::KeyDoc, documented};
use serde::{Deserialize, Serialize};

use crate::{
    augment::Augment,
    fbank::{Fbank, Settings},
    wav::RATES,
};

/// The most channels of an input.
const MAX_CHANNELS: usize = 64;

/// The most values of an input.
const MAX_VALUES: f64 = (1u64 << 27) as f64;

/// What the files of a data set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Whatever is found at `path`.
    #[default]
    Auto,
    /// The Free Spoken Digit Dataset as published.
    Fsdd,
    /// A folder of WAV files, `class/clip.wav` or `split/class/clip.wav`.
    Folder,
    /// A .csv or .tsv of paths and labels.
    List,
    /// The built-in generator of eight kinds of sounds; needs no files.
    Tones,
}

impl Format {
    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Fsdd => "fsdd",
            Format::Folder => "folder",
            Format::List => "list",
            Format::Tones => "tones",
        }
    }
}

/// What the model reads of a clip.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Features {
    /// Log-mel filter banks: (channels, mels, frames).
    #[default]
    Fbank,
    /// The samples themselves: (channels, 1, samples).
    Waveform,
}

/// What stands where a clip has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pad {
    /// `mean`, which is 0 once normalised.
    #[default]
    Mean,
    /// 0 before normalisation, as AST and AuM have it.
    Zero,
}

documented! {
/// The table `[data]` of the audio adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// What the files are: "auto", "fsdd", "folder", "list" or "tones". "auto" looks at `path`.
    pub format: Format,
    /// The folder of the data set, or its list (.csv or .tsv). Relative paths start at the working folder. Not for the
    /// generator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A folder or list to evaluate on instead of what `path` holds for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_path: Option<PathBuf>,
    /// "fsdd": evaluate on all recordings of this speaker and train on the others, instead of the authors' split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub speaker: Option<String>,
    /// Share of each class that is held out for evaluation where neither a split nor `eval_path` tells. The same clips
    /// every time: chosen by their names.
    pub val_fraction: f64,
    /// "tones": number of training clips.
    pub train: usize,
    /// "tones": number of clips to evaluate on.
    pub eval: usize,
    /// "tones": the seed.
    pub seed: u64,
    /// Use this many training clips at most, the same ones every time (0 = all).
    pub limit_train: usize,
    /// Evaluate on this many clips at most, the same ones every time (0 = all).
    pub limit_eval: usize,
    /// Look at every file before anything starts: at its header, and at the samples of files of floats. Without, a file
    /// that cannot be read is found when its turn comes.
    pub check: bool,
    /// Samples a second that the model sees; files of other rates are resampled. By default that of the files, which must
    /// then have the same one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sample_rate: Option<u32>,
    /// Channels that the model sees; 1 is the mean of all. By default those of the files, which must then have as many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Length of the model's input. A longer clip is cut, at a random place in training and else from its beginning.
    pub seconds: f64,
    /// What stands behind a clip that is shorter: "mean" (0 once normalised) or "zero" (0 before, as AST and AuM).
    pub pad: Pad,
    /// What the model reads: "fbank" (log-mel filter banks) or "waveform".
    pub features: Features,
    /// The filter banks.
    pub fbank: Settings,
    /// Subtracted from every value. By default that of AudioSet's filter banks, or 0 for waveforms.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mean: Option<f64>,
    /// Every value is then divided by it. `ophidian data inspect` measures both.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub std: Option<f64>,
    /// Class names in the order of their labels. By default folder names, the labels of the list, or the digits.
    pub class_names: Vec<String>,
    /// Random changes of training clips.
    pub augment: Augment,
}
}

impl Default for Data {
    fn default() -> Self {
        Data {
            format: Format::Auto,
            path: None,
            eval_path: None,
            speaker: None,
            val_fraction: 0.1,
            train: 4096,
            eval: 1024,
            seed: 0,
            limit_train: 0,
            limit_eval: 0,
            check: true,
            sample_rate: None,
            channels: None,
            seconds: 1.0,
            pad: Pad::Mean,
            features: Features::Fbank,
            fbank: Settings::default(),
            mean: None,
            std: None,
            class_names: Vec::new(),
            augment: Augment::default(),
        }
    }
}

impl Data {
    /// Reads `[data]`.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is unknown, of the wrong type or out of range.
    pub fn read(table: toml::Table) -> Result<Self> {
        let data: Data = config::from_table(table, "data")?;
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
        keys.retain(|key| key.key != "augment" && key.key != "fbank");
        keys.extend(KeyDoc::within("fbank", KeyDoc::of(&Settings::default(), Settings::DOCS)));
        keys.extend(KeyDoc::within("augment", KeyDoc::of(&Augment::default(), Augment::DOCS)));
        keys
    }

    /// Samples a second of the model's input.
    ///
    /// # Errors
    /// [`Error::Config`] if the table was not resolved.
    pub fn rate(&self) -> Result<u32> {
        self.sample_rate.ok_or_else(|| Error::Config("missing key `data.sample_rate`".to_owned()))
    }

    /// (channels, rows, columns) of the model's input.
    ///
    /// # Errors
    /// [`Error::Config`] if the table was not resolved.
    pub fn shape(&self) -> Result<[usize; 3]> {
        let channels =
            self.channels.ok_or_else(|| Error::Config("missing key `data.channels`".to_owned()))?;
        Ok([channels, self.rows(), self.columns(f64::from(self.rate()?)) as usize])
    }

    fn rows(&self) -> usize {
        if self.features == Features::Fbank { self.fbank.mels } else { 1 }
    }

    fn columns(&self, rate: f64) -> f64 {
        match self.features {
            Features::Fbank => (self.seconds * 1000.0 / self.fbank.frame_shift).round(),
            Features::Waveform => (self.seconds * rate).round(),
        }
    }

    fn validate(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::Config(reason));
        if !(self.val_fraction > 0.0 && self.val_fraction < 1.0) {
            let found = self.val_fraction;
            return fail(format!("`data.val_fraction` is {found}, expected more than 0 and less than 1"));
        }
        if let Some(rate) = self.sample_rate
            && !RATES.contains(&rate)
        {
            let (low, high) = (RATES.start(), RATES.end());
            return fail(format!("`data.sample_rate` is {rate}, expected {low} to {high} Hz"));
        }
        if let Some(channels) = self.channels
            && !(1..=MAX_CHANNELS).contains(&channels)
        {
            return fail(format!(
                "`data.channels` is {channels}, expected 1 (the mean of all) to {MAX_CHANNELS}"
            ));
        }
        if !(self.seconds > 0.0 && self.seconds <= 36_000.0) {
            return fail(format!(
                "`data.seconds` is {}, expected more than 0 and at most 36000",
                self.seconds
            ));
        }
        for (key, value) in [("mean", self.mean), ("std", self.std)] {
            if value.is_some_and(|value| !value.is_finite()) {
                return fail(format!("`data.{key}` is not finite, expected a number"));
            }
        }
        if let Some(std) = self.std
            && std < 1e-6
        {
            return fail(format!("`data.std` is {std}, expected a value above 0"));
        }
        self.fbank.validate()?;
        self.augment.validate()?;
        self.validate_source()?;
        let rate = self.sample_rate.unwrap_or(*RATES.start());
        let columns = self.columns(f64::from(rate));
        if columns < 1.0 {
            return fail(format!(
                "`data.seconds` is {}, which is less than one column of the input",
                self.seconds
            ));
        }
        let values = self.channels.unwrap_or(1) as f64 * self.rows() as f64 * columns;
        if values > MAX_VALUES {
            return fail(format!(
                "`data.seconds` is {}: an input has {values} values, expected at most {MAX_VALUES}",
                self.seconds
            ));
        }
        if self.features == Features::Waveform && self.augment.frequency_masks > 0 {
            return fail(
                "`data.augment.frequency_masks` masks bands of a spectrogram, but `data.features` is \"waveform\""
                    .to_owned(),
            );
        }
        if let (Features::Fbank, Some(rate)) = (self.features, self.sample_rate) {
            Fbank::new(&self.fbank, rate)?;
        }
        Ok(())
    }

    fn validate_source(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::Config(reason));
        if self.speaker.is_some() && !matches!(self.format, Format::Fsdd | Format::Auto) {
            return fail(format!(
                "`data.speaker` is for format \"fsdd\", but `data.format` is \"{}\"",
                self.format.name()
            ));
        }
        if self.speaker.is_some() && self.eval_path.is_some() {
            return fail(
                "`data.speaker` and `data.eval_path` both say what to evaluate on; leave one out".to_owned(),
            );
        }
        if self.format == Format::Tones {
            for (key, count) in [("train", self.train), ("eval", self.eval)] {
                if count == 0 || u32::try_from(count).is_err() {
                    let most = u32::MAX;
                    return fail(format!(
                        "`data.{key}` is {count}, expected a number of clips from 1 to {most}"
                    ));
                }
            }
            for (key, path) in [("path", &self.path), ("eval_path", &self.eval_path)] {
                if let Some(path) = path {
                    let path = path.display();
                    return fail(format!("`data.{key}` is {path}, but format \"tones\" reads no files"));
                }
            }
        } else if self.path.is_none() {
            return fail(
                "missing key `data.path`: the folder or list of the data set (or set format = \"tones\")"
                    .to_owned(),
            );
        }
        let mut names: Vec<&String> = self.class_names.iter().collect();
        names.sort();
        if let Some(pair) = names.windows(2).find(|pair| pair.first() == pair.last()) {
            return fail(format!(
                "`data.class_names` has \"{}\" twice",
                pair.first().map_or("", |name| name)
            ));
        }
        Ok(())
    }
}
