//! The ops as they run on a GPU, on the emulator of CUDA: the code that makes arguments of tensors and launches the kernels,
//! and the kernels themselves, against the ops of the CPU in f64.
#![allow(missing_docs)]

mod case;
mod conv;
mod emulator;
mod golden;
#[path = "../support/goldens.rs"]
mod goldens;
mod model;
mod norm;
mod scan;
mod ssd;
