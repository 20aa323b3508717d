//! What the commands around a run share: the adapters, and configs with overrides.

use std::path::Path;

use anyhow::Result;
use ophidian_audio::Audio;
use ophidian_core::{adapter::Adapter, config};
use ophidian_points::PointClouds;
use ophidian_train::{Checkpoint, folder::find_checkpoint};
use ophidian_vision::Vision;

/// The modalities of this program.
pub const ADAPTERS: [&dyn Adapter; 3] = [&Vision, &Audio, &PointClouds];

/// The config file at `path` with overrides.
pub fn table(path: &Path, overrides: &[String]) -> Result<toml::Table> {
    let mut table = config::read(path)?;
    for assignment in overrides {
        config::set(&mut table, assignment)?;
    }
    Ok(table)
}

/// The checkpoint that `run` stands for (a file, or `name` of a run folder) and its adapter; its config with overrides.
pub fn checkpoint(
    run: &Path,
    name: &str,
    overrides: &[String],
) -> Result<(Checkpoint, &'static dyn Adapter)> {
    let mut checkpoint = Checkpoint::read(&find_checkpoint(run, name)?)?;
    let about = &mut checkpoint.about;
    if !overrides.is_empty() {
        let mut table = toml::Table::try_from(&about.config)?;
        for assignment in overrides {
            config::set(&mut table, assignment)?;
        }
        about.config = ophidian_train::Config::resolve(table, &ADAPTERS)?.0;
    }
    let adapter = ophidian_train::config::find(&ADAPTERS, &about.config.adapter)?;
    Ok((checkpoint, adapter))
}

/// An argument as a shell takes it.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-=:,+".contains(c);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// What only the program knows about itself, for `environment.json`.
pub fn about_program() -> Vec<(String, String)> {
    let simd = ophidian_kernels::Isa::detect().name().to_owned();
    vec![("simd".to_owned(), simd), ("libtorch".to_owned(), ophidian_core::torch::libtorch().0.to_string())]
}

/// Which checkpoint of a run folder is meant.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    /// The one with the best measurement.
    Best,
    /// The latest one.
    Last,
}

impl Which {
    /// Its name in the run folder.
    pub fn name(self) -> &'static str {
        match self {
            Which::Best => "best",
            Which::Last => "last",
        }
    }
}
