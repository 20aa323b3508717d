//! Vision backbones, and published vision models as configs and key maps.

mod classifier;
mod config;
mod count;
mod embed;
mod family;
mod official;
mod plainmamba;
mod rope;
mod run;
mod stem;
mod vim;
mod vmamba;

use ophidian_core::{Error, Result, adapter::Model, config::KeyDoc, published::Family};
use tch::nn;

pub use classifier::Classifier;
pub use config::{ModelConfig, PerStage, Scans, Size};
pub use count::{Part, StageCount, Summary};
pub use embed::{Pool, resize_positions};
pub use family::{Classifiers, Translated};
pub use official::{Official, names, official};
pub use plainmamba::PLAINMAMBA;
pub use rope::Rope;
pub use stem::StemKind;
pub use vim::VIM;
pub use vmamba::VMAMBA;

/// The families whose models are a [`ModelConfig`].
pub const CLASSIFIERS: &[&Classifiers] = &[&VIM, &VMAMBA, &PLAINMAMBA];

/// Every family of published vision models.
pub const FAMILIES: &[&dyn Family] = &[&VIM, &VMAMBA, &PLAINMAMBA];

/// Every key of `[model]` with its default and what it means.
pub fn keys() -> Vec<KeyDoc> {
    let base = KeyDoc {
        key: "base".into(),
        default: None,
        meaning: "A published model (`ophidian models list`) whose values the other keys replace.".into(),
    };
    let mut keys = vec![base];
    keys.extend(KeyDoc::of(&ModelConfig::default(), ModelConfig::DOCS));
    keys
}

/// Checks a `[model]` table and fills in every default.
///
/// # Errors
/// [`Error::Config`] naming the key that is unknown or wrong.
pub fn resolve(table: toml::Table) -> Result<toml::Table> {
    let config = ModelConfig::read(table)?;
    toml::Table::try_from(&config).map_err(|error| Error::Config(format!("[model]: {error}")))
}

/// Builds the model of a resolved `[model]` table for images of `input_shape` = (channels, height, width).
///
/// # Errors
/// [`Error::Config`] if the table is wrong, or the patch does not divide the image.
pub fn build(table: &toml::Table, input_shape: &[i64], classes: i64, vs: nn::Path) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(table.clone())?;
    let [channels, height, width] = input_shape[..] else {
        return Err(Error::Config(format!(
            "inputs have shape {input_shape:?}, expected images of (channels, height, width)"
        )));
    };
    if config.pool == Pool::All {
        let text = "`model.pool` is \"all\", which gives logits for every token; to classify images choose a class \
                    token (\"middle\", \"head\", \"end\", \"both\") or \"mean\", \"last\" or \"max\"";
        return Err(Error::Config(text.into()));
    }
    config.tile([height, width])?;
    Ok(Box::new(Classifier::new(&vs, &config, [channels, height, width], classes)?))
}
