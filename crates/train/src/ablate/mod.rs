//! Sweeps: many runs that differ in named keys, fair to each other, one report.
//!
//! ```text
//! Sweep (TOML) ──arms──► Plan: resolved configs, checked ──run──► runs/NAME-seedS-HASH/ …, sweep.json
//!                                                                        └──► report.html, .json, .csv
//! ```
//!
//! # What is fair
//! Runs of the same seed see the same examples in the same order with the same augmentation, since those streams are keyed
//! by the seed alone ([`crate::keys`]), and a parameter of the same name, shape and rule starts from the same values
//! ([`ophidian_core::init::keyed`]). What a model draws as it runs (drop path, dropout) is the same where its layers draw
//! as many numbers in the same order. Every run is a child process, `ophidian train` on a config that lies in its folder:
//! run alone with as many threads, that config gives the same weights to the bit.

mod axes;
mod budget;
mod folder;
mod jobs;
mod plan;
mod run;
mod sweep;

pub use folder::{ArmEntry, Draw, RunEntry, SweepFile, sweep_file};
pub use plan::{Arm, Plan};
pub use run::{Ended, Request, run};
pub use sweep::Sweep;
