//! Vision models: against the authors' own numbers, shapes and starting values, and as a config describes
//! them.
#![allow(clippy::print_stderr)] // a test that is skipped says so

mod config;
mod init;
mod published;
mod reference;
mod videomamba;
mod vim;

use std::{
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use ophidian_core::published::Family;
use ophidian_vision::models::FAMILIES;
use tch::{Kind, Tensor};

/// A file or folder of the shared data, or a word about its absence.
fn shared(path: &str) -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let found = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from).join(path);
    if !found.exists() {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: nothing at {}\n", found.display()),
        );
        return None;
    }
    Some(found)
}

fn json(path: &std::path::Path) -> serde_json::Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn family(name: &str) -> &'static dyn Family {
    *FAMILIES.iter().find(|family| family.name() == name).unwrap()
}

fn vim() -> &'static dyn Family {
    family("vim")
}

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// Largest difference, relative to the largest value.
fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-6);
    (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]) / scale
}

/// Seeds libtorch's generator, which all tests of the process share, for as long as the guard lives.
fn seeded(seed: i64) -> MutexGuard<'static, ()> {
    static GENERATOR: Mutex<()> = Mutex::new(());
    let guard = GENERATOR.lock().unwrap_or_else(PoisonError::into_inner);
    tch::manual_seed(seed);
    guard
}
