//! The data side of the vision adapter: readers, generator, augmentation, downloads, and what hostile files do.

#![allow(clippy::print_stdout, clippy::print_stderr)] // a test says what it skipped and what it measured

mod adapter;
mod animations;
mod archive;
mod augment;
mod cards;
mod cifar;
mod common;
mod fetch;
mod folder;
mod fuzz;
mod idx;
mod motions;
mod real;
mod shapes;
mod video;
