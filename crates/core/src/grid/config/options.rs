//! What only some mixers are told.

use crate::{
    documented,
    mixer::{GrootLConfig, HydraConfig, InvertedConfig, SemanticCompat, SemanticConfig},
};
use serde::{Deserialize, Serialize};

use super::PerStage;

documented! {
/// What `mixer = "hydra"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HydraOptions {
    /// Channels of a head.
    pub headdim: i64,
    /// Groups of heads that share B and C.
    pub ngroups: i64,
}
}

impl Default for HydraOptions {
    fn default() -> Self {
        let HydraConfig { headdim, ngroups, .. } = HydraConfig::default();
        HydraOptions { headdim, ngroups }
    }
}

documented! {
/// What `mixer = "grootl"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GrootLOptions {
    /// How many tokens at the start may hang below others than the next: up to three on.
    pub context: i64,
    /// Factor of the tree's part.
    pub scale: f64,
}
}

impl Default for GrootLOptions {
    fn default() -> Self {
        let GrootLConfig { context, scale, .. } = GrootLConfig::default();
        GrootLOptions { context, scale }
    }
}

documented! {
/// What `mixer = "defmamba"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DefMambaOptions {
    /// Taps of the offset network's convolution, in each axis: [9, 7, 5, 3] by stage in the paper.
    pub taps: PerStage,
    /// As released: tokens without an offset are read half a cell below and to the right of their places.
    pub half_cell: bool,
}
}

impl Default for DefMambaOptions {
    fn default() -> Self {
        DefMambaOptions { taps: PerStage::One(5), half_cell: false }
    }
}

documented! {
/// What `mixer = "semantic"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticOptions {
    /// Classes that tokens are sorted by.
    pub classes: i64,
    /// Rank of the classes' prompts.
    pub rank: i64,
    /// As released: the tokens are sorted but not their prompts.
    pub unsorted_prompts: bool,
    /// As released: classes are chosen at random at inference too.
    pub random_inference: bool,
}
}

impl Default for SemanticOptions {
    fn default() -> Self {
        let SemanticConfig { classes, rank, compat, .. } = SemanticConfig::default();
        let SemanticCompat { unsorted_prompts, random_inference } = compat;
        SemanticOptions { classes, rank, unsorted_prompts, random_inference }
    }
}

documented! {
/// What `mixer = "inverted"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct InvertedOptions {
    /// Channels inside, per channel of a token.
    pub expand: i64,
    /// Channels inside, per channel of the squeezed gate.
    pub squeeze: i64,
}
}

impl Default for InvertedOptions {
    fn default() -> Self {
        let InvertedConfig { expand, squeeze, .. } = InvertedConfig::default();
        InvertedOptions { expand, squeeze }
    }
}
