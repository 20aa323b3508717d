//! What only some mixers are told.

use crate::{
    documented,
    mixer::{GrootLConfig, HydraConfig, InvertedConfig, SemanticCompat, SemanticConfig},
};
use serde::{Deserialize, Serialize};

use super::PerStage;

documented! {
/// The blocks of attention in front of each stage's. What is around them is as around mixers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AttentionOptions {
    /// How many, or one number for each stage.
    pub depth: PerStage,
    /// Heads, which split the channels.
    pub heads: PerStage,
    /// Rows and columns of tokens that make one key and one value.
    pub reduction: PerStage,
}
}

impl Default for AttentionOptions {
    fn default() -> Self {
        let [depth, heads, reduction] = [2, 1, 1].map(PerStage::One);
        AttentionOptions { depth, heads, reduction }
    }
}

documented! {
/// What `mixer = "divided"` is told beside the other keys, which are those of Mamba along time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DividedOptions {
    /// Heads of the attention within frames.
    pub heads: i64,
    /// What time makes is multiplied by the tanh of a learned number that starts at 0.
    pub gate: bool,
    /// What time makes is a part of the result, and not of what space reads alone.
    pub keep_time: bool,
}
}

impl Default for DividedOptions {
    fn default() -> Self {
        DividedOptions { heads: 4, gate: true, keep_time: true }
    }
}

documented! {
/// What `mixer = "changemamba"` is told beside the other keys, which are those of the three blocks' Mamba.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ChangeMambaOptions {
    /// Channels inside the MLPs of the three blocks, per channel of a token; 0 for none.
    pub mlp_ratio: f64,
    /// A batch norm and a ReLU behind the convolution that brings the three together, as released.
    pub activated: bool,
}
}

impl Default for ChangeMambaOptions {
    fn default() -> Self {
        ChangeMambaOptions { mlp_ratio: 4.0, activated: false }
    }
}

documented! {
/// What `mixer = "hydra"` is told beside the other keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HydraOptions {
    /// Channels of a head; 0 for the largest divisor of the inner channels up to 64.
    pub headdim: i64,
    /// Groups of heads that share B and C.
    pub ngroups: i64,
}
}

impl Default for HydraOptions {
    fn default() -> Self {
        HydraOptions { headdim: 0, ngroups: HydraConfig::default().ngroups }
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
