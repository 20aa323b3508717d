//! Audio: readers, features, augmentation, data sets and models.
//!
//! [`Audio`] is the adapter that the trainer sees. Below it lie, from files to tensors: [`wav`] (files as samples),
//! [`source`] (data sets of files, and a generator), [`mod@open`] (which data set, which split), [`resample`], [`augment`],
//! [`fbank`] (filter banks), [`dataset`] (normalised inputs), [`models`].

pub mod adapter;
pub mod augment;
pub mod cards;
pub mod config;
pub mod dataset;
pub mod fbank;
pub mod inspect;
pub mod models;
pub mod open;
pub mod picture;
pub mod resample;
mod riff;
pub mod source;
pub mod wav;

pub use adapter::Audio;
