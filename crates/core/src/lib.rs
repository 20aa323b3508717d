//! Tensors, ops with autograd, layers, mixers and blocks.

pub mod adapter;
pub mod authors;
pub mod config;
pub mod data;
pub mod error;
pub mod files;
pub mod ops;
pub mod rng;
pub mod tensors;
pub mod torch;

pub use error::{Error, Result};
