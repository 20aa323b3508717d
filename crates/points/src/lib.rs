//! Points in space: readers of meshes, clouds and recordings, sampling, augmentation, data sets and models.
//!
//! [`PointClouds`] is the adapter that the trainer sees. Below it lie, from files to tensors: [`formats`] (files as
//! [`cloud`]s and meshes), [`solids`] (a generator), [`list`] and [`mod@open`] (which data set, which split),
//! [`geometry`] (normalisation and augmentation), [`sample`] (farthest points and neighbours), [`dataset`] (groups as the
//! model reads them), [`scans`] (orders of clouds over time), [`models`]. [`cards`] and [`inspect`] tell about data sets.

pub mod adapter;
pub mod cards;
pub mod cloud;
pub mod config;
pub mod dataset;
pub mod formats;
pub mod geometry;
pub mod inspect;
pub mod list;
pub mod models;
pub mod open;
pub mod picture;
pub mod sample;
pub mod scans;
pub mod solids;

pub use adapter::PointClouds;
