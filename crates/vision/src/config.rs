//! The table `[data]` of a config.

use std::path::PathBuf;

use ophidian_core::{Error, Result, config, config::KeyDoc, documented};
use serde::{Deserialize, Serialize};

use crate::{augment::Augment, pixels::Fit, video::Video};

/// The largest `image_size`.
const MAX_IMAGE_SIZE: usize = 4096;

/// The most values of a clip, as the model sees it.
const MAX_CLIP: usize = 1 << 27;

/// What the files of a data set are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Whatever is found at `path`.
    #[default]
    Auto,
    /// IDX files as of MNIST: `train-images-idx3-ubyte`, `t10k-labels-idx1-ubyte` …, plain or `.gz`.
    Idx,
    /// The binary CIFAR-10 files, in a folder or as published (`cifar-10-binary.tar.gz`).
    Cifar10,
    /// The binary CIFAR-100 files, in a folder or as published (`cifar-100-binary.tar.gz`).
    Cifar100,
    /// A folder of images, `class/image` or `split/class/image`.
    Folder,
    /// The same inside one or several .tar, .tar.gz, .tgz or .zip files.
    Tar,
    /// Clips: folders of frames or animations, `class/clip/frame` or `split/class/clip/frame`, in a folder or in .tar,
    /// .tar.gz, .tgz or .zip files.
    Video,
    /// The built-in generator of ten figures; needs no files.
    Shapes,
    /// The built-in generator of clips of moving figures; needs no files.
    Motions,
}

impl Format {
    /// The name in a config.
    pub fn name(self) -> &'static str {
        match self {
            Format::Auto => "auto",
            Format::Idx => "idx",
            Format::Cifar10 => "cifar10",
            Format::Cifar100 => "cifar100",
            Format::Folder => "folder",
            Format::Tar => "tar",
            Format::Video => "video",
            Format::Shapes => "shapes",
            Format::Motions => "motions",
        }
    }

    /// Whether its examples are clips.
    pub fn is_video(self) -> bool {
        matches!(self, Format::Video | Format::Motions)
    }

    /// Whether its examples are made up as they are asked for.
    pub fn is_generated(self) -> bool {
        matches!(self, Format::Shapes | Format::Motions)
    }
}

/// Height and width, written as one number (`28`) or two (`[28, 56]`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "expected a number of pixels or [height, width]")]
pub enum Size {
    /// Square.
    Square(usize),
    /// Height and width.
    Sides([usize; 2]),
}

impl Size {
    /// (height, width)
    pub fn sides(self) -> (usize, usize) {
        match self {
            Size::Square(side) => (side, side),
            Size::Sides([height, width]) => (height, width),
        }
    }

    /// The shorter way to write a height and a width.
    pub fn of(height: usize, width: usize) -> Self {
        if height == width { Size::Square(height) } else { Size::Sides([height, width]) }
    }
}

documented! {
/// The table `[data]` of the vision adapter.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Data {
    /// What the files are: "auto", "idx", "cifar10", "cifar100", "folder", "tar", "video", "shapes" or "motions". "auto"
    /// looks at `path` and knows all that are images.
    pub format: Format,
    /// The folder or archive of the data set. Relative paths start at the working folder. Not for generators.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A folder or archive to evaluate on instead of what `path` holds for it, of any format.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_path: Option<PathBuf>,
    /// Share of each class that is held out for evaluation where neither a split nor `eval_path` tells. The same images
    /// every time: chosen by their names.
    pub val_fraction: f64,
    /// Generators: number of training examples.
    pub train: usize,
    /// Generators: number of examples to evaluate on.
    pub eval: usize,
    /// Generators: the seed.
    pub seed: u64,
    /// Use this many training images at most, the same ones every time (0 = all).
    pub limit_train: usize,
    /// Evaluate on this many images at most, the same ones every time (0 = all).
    pub limit_eval: usize,
    /// Height and width of the model's input: a number or [height, width]. By default as stored for "idx" and CIFAR, 28
    /// for "shapes", 32 for "motions" and 64 for images of many sizes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_size: Option<Size>,
    /// How images of other proportions are brought to `image_size`: "crop" (the middle), "stretch" or "pad".
    pub fit: Fit,
    /// 1 (grey) or 3 (RGB). By default 1 for "idx" and generators, else 3.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub channels: Option<usize>,
    /// Mean of each channel between 0 and 1 (or one for all), subtracted from the values.
    pub mean: Vec<f64>,
    /// Standard deviation of each channel (or one for all), by which they are then divided. `ophidian data inspect`
    /// measures both.
    pub std: Vec<f64>,
    /// Class names in the order of their labels. By default folder names, the authors' names, or numbers.
    pub class_names: Vec<String>,
    /// "cifar100": use the 20 superclasses.
    pub coarse: bool,
    /// Random changes of training images. All frames of a clip are changed alike.
    pub augment: Augment,
    /// Which frames of a clip the model sees. For "video" and "motions" alone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video: Option<Video>,
}
}

impl Default for Data {
    fn default() -> Self {
        Data {
            format: Format::Auto,
            path: None,
            eval_path: None,
            val_fraction: 0.1,
            train: 8192,
            eval: 2048,
            seed: 0,
            limit_train: 0,
            limit_eval: 0,
            image_size: None,
            fit: Fit::Crop,
            channels: None,
            mean: Vec::new(),
            std: Vec::new(),
            class_names: Vec::new(),
            coarse: false,
            augment: Augment::default(),
            video: None,
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
        keys.retain(|key| key.key != "augment" && key.key != "video");
        keys.extend(KeyDoc::within("augment", KeyDoc::of(&Augment::default(), Augment::DOCS)));
        keys.extend(KeyDoc::within("video", KeyDoc::of(&Video::default(), Video::DOCS)));
        keys
    }

    /// (height, width) of the model's input.
    ///
    /// # Errors
    /// [`Error::Config`] if the table was not resolved.
    pub fn input_size(&self) -> Result<(usize, usize)> {
        self.image_size
            .map(Size::sides)
            .ok_or_else(|| Error::Config("missing key `data.image_size`".to_owned()))
    }

    /// Channels of the model's input.
    ///
    /// # Errors
    /// [`Error::Config`] if the table was not resolved.
    pub fn input_channels(&self) -> Result<usize> {
        self.channels.ok_or_else(|| Error::Config("missing key `data.channels`".to_owned()))
    }

    fn validate_video(&self, video: &Video) -> Result<()> {
        let fail = |reason: String| Err(Error::Config(reason));
        if !self.format.is_video() {
            return fail(format!(
                "`data.video` is for clips, but `data.format` is \"{}\"; expected \"video\" or \"motions\"",
                self.format.name()
            ));
        }
        if self.format == Format::Motions && video.train_list.is_some() {
            return fail("`data.video.train_list`: format \"motions\" reads no files".to_owned());
        }
        if self.eval_path.is_some() && video.train_list.is_some() {
            return fail("`data.eval_path` and `data.video.train_list` are both set; name the clips to evaluate on in \
                         `data.video.eval_list`".to_owned());
        }
        let (height, width) = self.image_size.map_or((1, 1), Size::sides);
        let values = video.frames * height * width * self.channels.unwrap_or(1);
        if values > MAX_CLIP {
            return fail(format!(
                "`data.video.frames` is {}: a clip of that many frames of {height}x{width} pixels has {values} values, \
                 expected at most {MAX_CLIP}",
                video.frames
            ));
        }
        video.validate()
    }

    fn validate(&self) -> Result<()> {
        let fail = |reason: String| Err(Error::Config(reason));
        if !(self.val_fraction > 0.0 && self.val_fraction < 1.0) {
            return fail(format!(
                "`data.val_fraction` is {}, expected more than 0 and less than 1",
                self.val_fraction
            ));
        }
        if let Some(size) = self.image_size {
            let (height, width) = size.sides();
            if !(1..=MAX_IMAGE_SIZE).contains(&height) || !(1..=MAX_IMAGE_SIZE).contains(&width) {
                return fail(format!(
                    "`data.image_size` is {height}x{width}, expected 1 to {MAX_IMAGE_SIZE} a side"
                ));
            }
        }
        if let Some(channels) = self.channels
            && channels != 1
            && channels != 3
        {
            return fail(format!("`data.channels` is {channels}, expected 1 (grey) or 3 (RGB)"));
        }
        for (key, values) in [("mean", &self.mean), ("std", &self.std)] {
            if let Some(channels) = self.channels
                && values.len() > 1
                && values.len() != channels
            {
                return fail(format!(
                    "`data.{key}` has {} values, expected one for each of {channels} channels",
                    values.len()
                ));
            }
            if !matches!(values.len(), 0 | 1 | 3) || values.iter().any(|value| !value.is_finite()) {
                return fail(format!("`data.{key}` is {values:?}, expected 1 or 3 numbers"));
            }
        }
        if let Some(value) = self.std.iter().find(|value| **value < 1e-6) {
            return fail(format!("`data.std` has {value}, expected values above 0 (of 1)"));
        }
        if self.format.is_generated() {
            for (key, count) in [("train", self.train), ("eval", self.eval)] {
                if count == 0 || u32::try_from(count).is_err() {
                    return fail(format!(
                        "`data.{key}` is {count}, expected a number of examples from 1 to {}",
                        u32::MAX
                    ));
                }
            }
            if let Some(path) = &self.path {
                return fail(format!(
                    "`data.path` is {}, but format \"{}\" reads no files",
                    path.display(),
                    self.format.name()
                ));
            }
        } else if self.path.is_none() {
            return fail(
                "missing key `data.path`: the folder or archive of the data set (or set format = \"shapes\")"
                    .to_owned(),
            );
        }
        if let Some(video) = &self.video {
            self.validate_video(video)?;
        }
        let mut names: Vec<&String> = self.class_names.iter().collect();
        names.sort();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return fail(format!("`data.class_names` has \"{}\" twice", twice[0]));
        }
        self.augment.validate()
    }
}
