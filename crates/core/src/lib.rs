//! Tensors, ops with autograd, layers, mixers and blocks.

pub mod adapter;
pub mod authors;
pub mod backbone;
pub mod bench;
pub mod block;
pub mod cards;
pub mod config;
pub mod data;
pub mod device;
pub mod error;
pub mod files;
pub mod grid;
pub mod init;
pub mod inspect;
pub mod keymap;
pub mod layers;
pub mod mixer;
pub mod ops;
mod pickle;
pub mod published;
pub mod rng;
pub mod tape;
pub mod tensors;
pub mod torch;

pub use error::{Error, Result};
