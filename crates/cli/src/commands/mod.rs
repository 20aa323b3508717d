//! One module per command.

mod ablate;
mod bench;
mod block;
mod config;
mod data;
mod doctor;
mod eval;
mod explain;
mod forward;
mod models;
mod op;
mod predict;
mod report;
mod scan;
mod setup;
mod train;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::printer::Printer;

/// A file to write that holds what its ending says.
fn safetensors(path: &str) -> std::result::Result<PathBuf, String> {
    let ending = Path::new(path).extension().is_some_and(|ending| ending.eq_ignore_ascii_case("safetensors"));
    if ending { Ok(path.into()) } else { Err("expected a file that ends in .safetensors".into()) }
}

/// State-space sequence models (the Mamba family) with pluggable scan patterns.
#[derive(Parser)]
#[command(name = "ophidian", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Args),
    Eval(eval::Args),
    Predict(predict::Args),
    Explain(explain::Args),
    Ablate(ablate::Args),
    Report(report::Args),
    /// Check configs, print them whole, explain their keys.
    Config(config::Args),
    /// Run one op on tensors from a file, to hold it against any other implementation.
    Op(op::Args),
    /// Run a published model (their folder, their parameter names) on tensors from a file, with gradients.
    Forward(forward::Args),
    /// Run a published block (its authors' parameter names) on tensors from a file, with gradients; list them all.
    Block(block::Args),
    /// List published models; print one's config, sizes and costs.
    Models(models::Args),
    /// List, draw and export scan patterns.
    Scan(scan::Args),
    /// List, inspect and fetch data sets.
    Data(data::Args),
    /// Time the ops.
    Bench(bench::Args),
    /// Say what this machine offers: libtorch, SIMD, threads, GPU.
    Doctor(doctor::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self, printer: &Printer) -> Result<ExitCode> {
        match self.command {
            Command::Train(args) => return train::run(args, printer),
            Command::Ablate(args) => return ablate::run(args, printer),
            Command::Report(args) => report::run(args, printer)?,
            Command::Eval(args) => eval::run(args, printer)?,
            Command::Predict(args) => predict::run(args, printer)?,
            Command::Explain(args) => explain::run(args, printer)?,
            Command::Config(args) => config::run(args, printer)?,
            Command::Op(args) => op::run(args, printer)?,
            Command::Forward(args) => forward::run(args, printer)?,
            Command::Block(args) => block::run(args, printer)?,
            Command::Models(args) => models::run(args, printer)?,
            Command::Scan(args) => scan::run(args, printer)?,
            Command::Data(args) => data::run(args, printer)?,
            Command::Bench(args) => bench::run(args, printer)?,
            Command::Doctor(args) => doctor::run(args, printer)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
