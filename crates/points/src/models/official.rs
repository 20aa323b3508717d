//! Published models by name: their configs in our words and in the authors'.

use ophidian_core::{
    Result, catalogue,
    grid::{self, Catalogue},
};
use serde::Deserialize;

use super::{Input, ModelConfig};

/// The published models.
pub const CATALOGUE: Catalogue = catalogue! {
    "pointmamba_modelnet40"
    "pointmamba_scanobjectnn"
};

/// A published model.
pub type Official = grid::Official<ModelConfig, Sizes>;

/// What a published model reads: groups of the points of a cloud.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// Points of a cloud.
    pub points: i64,
    /// Groups of it.
    pub groups: i64,
    /// Points of a group.
    pub group_size: i64,
}

impl Sizes {
    /// The same as the model sees it.
    pub fn input(self) -> Input {
        Input { frames: None, groups: self.groups, size: self.group_size, channels: 3 }
    }
}

/// The published model `name`.
///
/// # Errors
/// [`ophidian_core::Error::Config`] if there is none, with the nearest name.
pub fn official(name: &str) -> Result<Official> {
    let file = CATALOGUE.read_file::<Sizes>(name)?;
    let grid::Official { name, family, paper, weights, input, classes, model, data, authors } = file;
    let model = ModelConfig::read(model)?;
    Ok(grid::Official { name, family, paper, weights, input, classes, model, data, authors })
}
