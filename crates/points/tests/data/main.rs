//! The data side of the points adapter: readers, sampling, augmentation, generator, and what hostile files do.

#![allow(clippy::print_stderr)] // a test says what it skipped

mod adapter;
mod common;
mod formats;
mod fuzz;
mod geometry;
mod real;
mod sample;
mod solids;
