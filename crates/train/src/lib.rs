//! From a config to a run: training, checkpoints that resume to the bit, measurements, predictions and pictures.
//!
//! A modality comes in as an [`ophidian_core::adapter::Adapter`]; nothing here knows one by name.
//!
//! ```text
//! Config ──resolve──► train ──► run folder: config.toml environment.json metrics.jsonl events.out.tfevents…
//!                                           checkpoints/{last,best}.safetensors curves.png confusion.png …
//!                                 │
//!                     Checkpoint ◄┘──model──► measure, predict
//! ```
//!
//! # Resuming to the bit
//! Every random choice is keyed by the seed and by what it is for ([`keys`]): the order of an epoch, the augmentation
//! of an example, the mixing and the drop path of a batch. A checkpoint's random state is therefore (seed, step), and a
//! run that goes on from a checkpoint does what the uninterrupted run did, on the same machine with the same number of
//! threads.

pub mod ablate;
pub mod checkpoint;
pub mod config;
mod course;
mod diagnose;
mod drawings;
pub mod environment;
mod error;
mod events;
pub mod explain;
pub mod folder;
pub mod interrupt;
pub mod keys;
pub mod loader;
pub mod measure;
mod optimizer;
pub mod pictures;
pub mod predict;
pub mod progress;
pub mod records;
pub mod report;
mod schedule;
mod step;
mod trainer;

pub use checkpoint::Checkpoint;
pub use config::Config;
pub use error::{Error, Result};
pub use folder::Mode;
pub use progress::Progress;
pub use trainer::{Ending, Outcome, Request, train};
