//! Point models: against the authors' own numbers, and as a config describes them.
#![allow(clippy::print_stderr)] // a test that is skipped says so

mod config;
mod pointmamba;
mod walks;

use std::path::PathBuf;

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

fn table(text: &str) -> toml::Table {
    text.parse().unwrap()
}

/// Largest difference, relative to the largest value.
fn relative(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    let scale = want.abs().max().double_value(&[]).max(1e-6);
    (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]) / scale
}
