//! Point backbones, and published point models as configs and key maps.

mod classifier;
mod config;
mod count;
mod encoder;
mod official;
mod pointmamba;
mod walks;

use std::fmt;

use ophidian_core::{
    Error, Result, adapter::Model, config::KeyDoc, grid::Catalogue, mixer::Mamba2Options, published::Family,
};
use tch::nn;

pub use classifier::Classifier;
pub use config::{Mixer, ModelConfig, Pool};
pub use count::{Summary, canonical, describe};
pub use official::{CATALOGUE, Official, Sizes, official};
pub use pointmamba::{POINTMAMBA, PointMamba};

/// Every family of published point models.
pub const FAMILIES: &[&dyn Family] = &[&POINTMAMBA];

/// What a model reads: groups of points around centres, or one set of them for each frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Frames of a sequence (F); none for clouds.
    pub frames: Option<i64>,
    /// Groups, of each frame (G).
    pub groups: i64,
    /// Points of a group (M).
    pub size: i64,
    /// Numbers of a point: x, y, z and its features.
    pub channels: i64,
}

impl TryFrom<&[i64]> for Input {
    type Error = Error;

    fn try_from(shape: &[i64]) -> Result<Input> {
        let (frames, groups, rows, channels) = match *shape {
            [groups, rows, channels] => (None, groups, rows, channels),
            [frames, groups, rows, channels] => (Some(frames), groups, rows, channels),
            _ => (None, 0, 0, 0),
        };
        if frames == Some(0) || groups < 1 || rows < 2 || channels < 3 {
            return Err(Error::Config(format!(
                "inputs have shape {shape:?}, expected (groups, 1 + points, 3 + features) or (frames, groups, …)"
            )));
        }
        Ok(Input { frames, groups, size: rows - 1, channels })
    }
}

impl Input {
    /// Groups of all frames.
    pub fn tokens(&self) -> i64 {
        self.frames.unwrap_or(1) * self.groups
    }

    /// Sizes of an input.
    pub fn shape(&self) -> Vec<i64> {
        self.frames.into_iter().chain([self.groups, 1 + self.size, self.channels]).collect()
    }
}

impl fmt::Display for Input {
    /// `64x32 points`, with frames `12x64x32 points`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(frames) = self.frames {
            write!(f, "{frames}x")?;
        }
        write!(f, "{}x{} points", self.groups, self.size)
    }
}

/// Every key of `[model]` with its default and what it means.
pub fn keys() -> Vec<KeyDoc> {
    let own = KeyDoc::of(&ModelConfig::default(), ModelConfig::DOCS);
    let mamba2 = KeyDoc::of(&Mamba2Options::default(), Mamba2Options::DOCS);
    [vec![Catalogue::base_key()], own, KeyDoc::within("mamba2", mamba2).collect()].concat()
}

/// Checks a `[model]` table and fills in every default.
///
/// # Errors
/// [`Error::Config`] naming the key that is unknown or wrong.
pub fn resolve(table: toml::Table) -> Result<toml::Table> {
    ophidian_core::config::to_table(&ModelConfig::read(table)?, "model")
}

/// Builds the model of a resolved `[model]` table for inputs of `input_shape`.
///
/// # Errors
/// [`Error::Config`] if the table is wrong, or a scan does not suit points.
pub fn build(table: &toml::Table, input_shape: &[i64], classes: i64, vs: nn::Path) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(table.clone())?;
    Ok(Box::new(Classifier::new(&vs, &config, Input::try_from(input_shape)?, classes)?))
}
