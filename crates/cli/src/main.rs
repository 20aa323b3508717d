//! The `ophidian` program: parse, call, print.

use std::process::ExitCode;

use clap::Parser;
use ophidian_core::device::catch_out_of_memory;

mod commands;
mod exit;
mod printer;

fn main() -> ExitCode {
    ophidian_core::torch::keep_freed_memory(true);
    let printer = printer::Printer::new();
    ophidian_core::torch::register_cuda();
    ophidian_points::scans::register_scans();
    match catch_out_of_memory(|| Ok(commands::Cli::parse().run(&printer))) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => exit::report(&error, &printer),
        Err(error) => exit::report(&error.into(), &printer),
    }
}
