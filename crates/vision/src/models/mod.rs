//! Published vision models as configs and key maps. What they have in common is core's [`grid`].

mod efficientvmamba;
mod grootv;
mod groupmamba;
mod localmamba;
mod mmpretrain;
mod msvmamba;
mod plainmamba;
mod spatialmamba;
mod videomamba;
mod vim;
mod vivim;
mod vmamba;
mod vssm;

use ophidian_core::{catalogue, grid};

pub use efficientvmamba::EFFICIENTVMAMBA;
pub use grid::{
    Catalogue, Classifier, Classifiers, Input, MixerKind, ModelConfig, Official, Pool, Scans, build,
    describe, resize_positions,
};
pub use grootv::GROOTV;
pub use groupmamba::GROUPMAMBA;
pub use localmamba::LOCALVMAMBA;
pub use mmpretrain::{MAMBAND, RSMAMBA};
pub use msvmamba::MSVMAMBA;
pub use plainmamba::PLAINMAMBA;
pub use spatialmamba::SPATIALMAMBA;
pub use videomamba::VIDEOMAMBA;
pub use vim::{LOCALVIM, VIM};
pub use vivim::VIVIM;
pub use vmamba::VMAMBA;

/// Every family of published vision models.
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
    &VIVIM,
];

/// The published models.
pub const CATALOGUE: Catalogue = catalogue! {
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
    "localvim_tiny"
    "localvim_tiny_midclstok"
    "localvim_small"
    "localvmamba_tiny"
    "localvmamba_small"
    "efficientvmamba_tiny"
    "efficientvmamba_small"
    "efficientvmamba_base"
    "msvmamba_nano"
    "msvmamba_micro"
    "msvmamba_tiny"
    "groupmamba_tiny"
    "groupmamba_small"
    "groupmamba_base"
    "spatialmamba_tiny"
    "spatialmamba_small"
    "spatialmamba_base"
    "grootv_tiny"
    "grootv_small"
    "grootv_base"
    "rsmamba_base"
    "rsmamba_large"
    "rsmamba_huge"
    "mamband_2d_small"
    "mamband_2d_base"
    "hydra_vit_base"
    "vivim_encoder"
};
