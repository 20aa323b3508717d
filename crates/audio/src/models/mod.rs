//! Published audio models as configs and key maps. What they have in common with others is core's [`grid`].

mod aum;

use ophidian_core::{catalogue, grid, published::Family};

pub use grid::Catalogue;

pub use aum::AUM;

/// Every family of published audio models.
pub const FAMILIES: &[&dyn Family] = &[&AUM];

/// The published models.
pub const CATALOGUE: Catalogue = catalogue! {
    "aum_base_fobi"
    "aum_base_bibi"
    "aum_small_bibi"
    "aum_tiny_bibi"
};
