//! Vision backbones, and published vision models as configs and key maps.

mod classifier;
mod clip;
mod config;
mod count;
mod drawn;
mod embed;
mod family;
mod input;
mod official;
mod plainmamba;
mod rope;
mod run;
pub mod search;
mod stem;
mod videomamba;
mod vim;
mod vmamba;

use ophidian_core::{
    Error, Result,
    adapter::{Description, Model, Walk},
    config::KeyDoc,
    mixer::{Coarse, Compat},
    published::Family,
};
use tch::nn;

pub use classifier::Classifier;
pub use config::{ModelConfig, PerStage, Scans, Size};
pub use count::{Part, StageCount, Summary};
pub use embed::{Pool, resize_positions};
pub use family::{Classifiers, Translated};
pub use input::Input;
pub use official::{Official, names, official};
pub use plainmamba::PLAINMAMBA;
pub use rope::Rope;
pub use stem::StemKind;
pub use videomamba::VIDEOMAMBA;
pub use vim::VIM;
pub use vmamba::VMAMBA;

/// The families whose models are a [`ModelConfig`].
pub const CLASSIFIERS: &[&Classifiers] = &[&VIM, &VMAMBA, &PLAINMAMBA, &VIDEOMAMBA];

/// Every family of published vision models.
pub const FAMILIES: &[&dyn Family] = &[&VIM, &VMAMBA, &PLAINMAMBA, &VIDEOMAMBA];

/// Every key of `[model]` with its default and what it means.
pub fn keys() -> Vec<KeyDoc> {
    let base = KeyDoc {
        key: "base".into(),
        default: None,
        meaning: "A published model (`ophidian models list`) whose values the other keys replace.".into(),
    };
    let mut keys = vec![base];
    keys.extend(KeyDoc::of(&ModelConfig::default(), ModelConfig::DOCS));
    keys.extend(KeyDoc::within("compat", KeyDoc::of(&Compat::default(), Compat::DOCS)));
    // It is absent by default, so its keys have none.
    keys.extend(KeyDoc::within("coarse", KeyDoc::of(&toml::Table::new(), Coarse::DOCS)));
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

/// Builds the model of a resolved `[model]` table for images of `input_shape` = (channels, height, width), or clips of
/// (channels, frames, height, width).
///
/// # Errors
/// [`Error::Config`] if the table is wrong, or the patch does not divide the inputs.
pub fn build(table: &toml::Table, input_shape: &[i64], classes: i64, vs: nn::Path) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(table.clone())?;
    let input = Input::try_from(input_shape)?;
    if config.pool == Pool::All {
        let text = "`model.pool` is \"all\", which gives logits for every token; to classify images choose a class \
                    token (\"middle\", \"head\", \"end\", \"both\") or \"mean\", \"last\" or \"max\"";
        return Err(Error::Config(text.into()));
    }
    config.tile(input.image)?;
    input.frames.map_or(Ok(()), |frames| config.tile_frames(frames))?;
    Ok(Box::new(Classifier::new(&vs, &config, input, classes)?))
}

/// What the model of a resolved `[model]` table costs for one input of `input_shape`, and its scans over the patches of
/// the first stage, class tokens left out.
///
/// # Errors
/// As [`build`].
pub fn describe(table: &toml::Table, input_shape: &[i64], classes: i64) -> Result<Description> {
    let config = ModelConfig::read(table.clone())?;
    let input = Input::try_from(input_shape)?;
    let counted = config.count(input, classes)?;
    let Some(stage) = counted.stages.first() else { return Ok(Description::default()) };
    let geometry = input::geometry(stage.times, stage.grid);
    let plans = config.scan.plans(&geometry, &[])?;
    let walk = |(name, plan): (&String, _)| Walk { name: name.clone(), plan, geometry: geometry.clone() };
    let scans = config.scan.texts().iter().zip(plans).map(walk).collect();
    Ok(Description { flops: Some(counted.flops()), scans })
}
