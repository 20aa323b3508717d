//! Images and video: readers, augmentation, data sets and models.
//!
//! [`Vision`] is the adapter that the trainer sees. Below it lie, from files to tensors: [`source`] (files of many
//! formats as bytes), [`video`] (clips of frames), [`shapes`] (a generator), [`mod@open`] (which data set, which split), [`augment`], [`dataset`]
//! (normalised inputs), [`models`].

pub mod adapter;
pub mod augment;
pub mod cards;
pub mod config;
pub mod dataset;
pub mod fetch;
pub mod inspect;
pub mod models;
pub mod open;
pub mod pixels;
pub mod shapes;
pub mod source;
pub mod video;

pub use adapter::Vision;
