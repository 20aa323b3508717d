//! Vision backbones, and published vision models as configs and key maps.

mod classifier;
mod config;
mod embed;
mod rope;
mod videomamba;
mod vim;

use ophidian_core::{Error, Result, adapter::Model, published::Family};
use tch::nn;

pub use classifier::Classifier;
pub use config::{ModelConfig, Scans, Size, Start};
pub use embed::{Pool, resize_positions};
pub use rope::Rope;

/// Every family of published vision models.
pub const FAMILIES: &[&dyn Family] = &[&vim::Vim, &videomamba::VideoMamba];

/// Checks a `[model]` table and fills in every default.
///
/// # Errors
/// [`Error::Config`] naming the key that is unknown or wrong.
pub fn resolve(table: toml::Table) -> Result<toml::Table> {
    let config = ModelConfig::read(table)?;
    toml::Table::try_from(&config).map_err(|error| Error::Config(format!("[model]: {error}")))
}

/// Builds the model of a resolved `[model]` table for images of `input_shape` = (channels, height, width), or clips of
/// (channels, frames, height, width).
///
/// # Errors
/// [`Error::Config`] if the table is wrong, or the patch does not divide the inputs.
pub fn build(table: &toml::Table, input_shape: &[i64], classes: i64, vs: nn::Path) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(table.clone())?;
    if config.pool == Pool::All {
        let text = "`model.pool` is \"all\", which gives logits for every token; to classify images choose a class \
                    token (\"middle\", \"head\", \"end\", \"both\") or \"mean\", \"last\" or \"max\"";
        return Err(Error::Config(text.into()));
    }
    match *input_shape {
        [_, height, width] => config.tile([height, width], None)?,
        [_, frames, height, width] => config.tile([height, width], Some(frames))?,
        // Refused below.
        _ => [0; 2],
    };
    Ok(Box::new(Classifier::new(&vs, &config, input_shape, classes)?))
}
