//! Classifiers of what lies on a grid of rows and columns (images, spectrograms) or of frames, rows and columns (clips):
//! patches, blocks along scans of the grid, pooling, head. Published models of the kind are configs and key maps.

pub mod bimamba;
mod classifier;
mod clip;
mod config;
mod count;
mod drawn;
mod embed;
pub mod family;
mod input;
mod official;
mod rope;
mod run;
pub mod search;
mod stem;
pub mod visionmamba;

pub use classifier::{Classifier, build};
pub use config::{
    AttentionOptions, MixerKind, Mixers, ModelConfig, PerStage, Scans, Size, pattern, published_with,
    reseeded,
};
pub use count::{Part, StageCount, Summary, canonical, describe, shortest, spelt};
pub use embed::{Pool, resize_positions};
pub use family::{Classifiers, Translated};
pub use input::{Input, geometry};
pub use official::{Catalogue, Official};
pub use rope::Rope;
pub use run::{Maps, Report, loss};
pub use stem::StemKind;
