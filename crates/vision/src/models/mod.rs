//! Published vision models as configs and key maps. What they have in common is core's [`grid`].

mod plainmamba;
mod videomamba;
mod vim;
mod vmamba;

use ophidian_core::{grid, published::Family};

pub use grid::{
    Catalogue, Classifier, Classifiers, Input, MixerKind, ModelConfig, Official, Pool, Scans, build,
    resize_positions,
};
pub use plainmamba::PLAINMAMBA;
pub use videomamba::VIDEOMAMBA;
pub use vim::VIM;
pub use vmamba::VMAMBA;

/// The families whose models are a [`ModelConfig`].
pub const CLASSIFIERS: &[&Classifiers] = &[&VIM, &VMAMBA, &PLAINMAMBA, &VIDEOMAMBA];

/// Every family of published vision models.
pub const FAMILIES: &[&dyn Family] = &[&VIM, &VMAMBA, &PLAINMAMBA, &VIDEOMAMBA];

/// Name and text of every file of `configs/models`.
macro_rules! files {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../../../configs/models/", $name, ".toml")))),+]
    };
}

/// The published models.
pub const CATALOGUE: Catalogue = Catalogue(files! {
    "vim_tiny_patch16_224"
    "vim_small_patch16_224"
    "vim_base_patch16_224"
    "vim_tiny_patch16_stride8_224"
    "vim_small_patch16_stride8_224"
    "vanilla_vmamba_tiny"
    "vanilla_vmamba_small"
    "vanilla_vmamba_base"
    "vmamba_tiny_s1l8"
    "vmamba_small_s1l20"
    "vmamba_base_s1l20"
    "vmamba_tiny_s2l5"
    "vmamba_small_s2l15"
    "vmamba_base_s2l15"
    "plainmamba_l1"
    "plainmamba_l2"
    "plainmamba_l3"
    "videomamba_tiny_image"
    "videomamba_small_image"
    "videomamba_middle_image"
    "videomamba_tiny_video_f8_k400"
    "videomamba_small_video_f8_k400"
    "videomamba_middle_video_f8_k400"
});
