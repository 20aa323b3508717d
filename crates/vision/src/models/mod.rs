//! Vision backbones, and published vision models as configs and key maps.

mod classifier;
mod clip;
mod config;
mod count;
mod drawn;
mod efficientvmamba;
mod embed;
mod family;
mod grootv;
mod groupmamba;
mod input;
mod localmamba;
mod mmpretrain;
mod msvmamba;
mod official;
mod plainmamba;
mod rope;
mod run;
pub mod search;
mod spatialmamba;
mod stem;
mod videomamba;
mod vim;
mod vmamba;

use ophidian_core::{
    Error, Result,
    adapter::Model,
    config::KeyDoc,
    mixer::{Coarse, Compat, QuadCompat},
    published::Family,
};
use tch::nn;

use self::config::{DefMambaOptions, GrootLOptions, HydraOptions, InvertedOptions, SemanticOptions};

pub use classifier::Classifier;
pub use config::{MixerKind, Mixers, ModelConfig, PerStage, Scans, Size};
pub use count::{Part, StageCount, Summary};
pub use efficientvmamba::EFFICIENTVMAMBA;
pub use embed::{Pool, resize_positions};
pub use family::{Classifiers, Translated};
pub use grootv::GROOTV;
pub use groupmamba::GROUPMAMBA;
pub use input::Input;
pub use localmamba::LOCALVMAMBA;
pub use mmpretrain::{MAMBAND, RSMAMBA};
pub use msvmamba::MSVMAMBA;
pub use official::{Official, names, official};
pub use plainmamba::PLAINMAMBA;
pub use rope::Rope;
pub use spatialmamba::SPATIALMAMBA;
pub use stem::StemKind;
pub use videomamba::VIDEOMAMBA;
pub use vim::{LOCALVIM, VIM};
pub use vmamba::VMAMBA;

/// The families whose models are a [`ModelConfig`].
pub const CLASSIFIERS: &[&Classifiers] = &[
    &VIM,
    &VMAMBA,
    &PLAINMAMBA,
    &VIDEOMAMBA,
    &LOCALVIM,
    &LOCALVMAMBA,
    &EFFICIENTVMAMBA,
    &MSVMAMBA,
    &GROUPMAMBA,
    &SPATIALMAMBA,
    &GROOTV,
    &RSMAMBA,
    &MAMBAND,
];

/// Every family of published vision models.
pub const FAMILIES: &[&dyn Family] = &[
    &VIM,
    &VMAMBA,
    &PLAINMAMBA,
    &VIDEOMAMBA,
    &LOCALVIM,
    &LOCALVMAMBA,
    &EFFICIENTVMAMBA,
    &MSVMAMBA,
    &GROUPMAMBA,
    &SPATIALMAMBA,
    &GROOTV,
    &RSMAMBA,
    &MAMBAND,
];

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
    keys.extend(KeyDoc::within("hydra", KeyDoc::of(&HydraOptions::default(), HydraOptions::DOCS)));
    keys.extend(KeyDoc::within("grootl", KeyDoc::of(&GrootLOptions::default(), GrootLOptions::DOCS)));
    keys.extend(KeyDoc::within("defmamba", KeyDoc::of(&DefMambaOptions::default(), DefMambaOptions::DOCS)));
    keys.extend(KeyDoc::within("quadmamba", KeyDoc::of(&QuadCompat::default(), QuadCompat::DOCS)));
    keys.extend(KeyDoc::within("semantic", KeyDoc::of(&SemanticOptions::default(), SemanticOptions::DOCS)));
    keys.extend(KeyDoc::within("inverted", KeyDoc::of(&InvertedOptions::default(), InvertedOptions::DOCS)));
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
