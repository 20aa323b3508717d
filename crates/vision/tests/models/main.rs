//! Vision models: against the authors' own numbers, shapes and starting values, and as a config describes
//! them.
#![allow(clippy::print_stderr)] // a test that is skipped says so

mod config;
mod init;
mod mamba2;
mod published;
mod reference;
mod slopes;
#[path = "../../../core/tests/support/mod.rs"]
mod support;
mod timemamba;
mod videomamba;
mod vim;
mod whole;

use std::sync::{Mutex, MutexGuard, PoisonError};

use ophidian_core::published::Family;
use ophidian_vision::models::CLASSIFIERS;

use support::{json, relative, shared, table};

fn family(name: &str) -> &'static dyn Family {
    *CLASSIFIERS.iter().find(|family| family.name() == name).unwrap()
}

fn vim() -> &'static dyn Family {
    family("vim")
}

/// Seeds libtorch's generator, which all tests of the process share, for as long as the guard lives.
fn seeded(seed: i64) -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}
