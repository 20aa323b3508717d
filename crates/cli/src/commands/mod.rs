//! One module per command.

mod doctor;
mod op;

use anyhow::Result;
use clap::{Parser, Subcommand};

use crate::printer::Printer;

/// State-space sequence models (the Mamba family) with pluggable scan patterns.
#[derive(Parser)]
#[command(name = "ophidian", version, about, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one op on tensors from a file, to hold it against any other implementation.
    Op(op::Args),
    /// Say what this machine offers: libtorch, SIMD, threads, GPU.
    Doctor(doctor::Args),
}

impl Cli {
    /// Runs the command.
    pub fn run(self, printer: &Printer) -> Result<()> {
        match self.command {
            Command::Op(args) => op::run(args, printer),
            Command::Doctor(args) => doctor::run(args, printer),
        }
    }
}
