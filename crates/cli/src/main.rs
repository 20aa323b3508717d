//! The `ophidian` program: parse, call, print.

use std::process::ExitCode;

use clap::Parser;

mod commands;
mod exit;
mod printer;

fn main() -> ExitCode {
    let printer = printer::Printer::new();
    ophidian_core::torch::keep_freed_memory(true);
    ophidian_core::torch::register_cuda();
    ophidian_points::scans::register_scans();
    match commands::Cli::parse().run(&printer) {
        Ok(code) => code,
        Err(error) => exit::report(&error, &printer),
    }
}
