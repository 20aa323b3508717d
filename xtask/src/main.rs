//! Set-up and checks: finds or installs libtorch and runs cargo with it.

// Talking to the person at the terminal is this program's work.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod ci;
mod layers;
mod run;
mod setup;
mod size;

use std::{
    env,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context, Result, bail};

const HELP: &str = "\
Set-up and checks of Ophidian

Usage: cargo xtask COMMAND [ARGUMENTS]

Commands:
  setup [--cpu|--cuda]  Find or install libtorch, once; the other commands begin with this
  setup --nvrtc         Find or install NVRTC, which `ci` compiles the CUDA sources with; prints where it lies
  demo [ARGUMENTS]      Train the demo classifier; ARGUMENTS go to `ophidian train`
  test [ARGUMENTS]      Run every test; ARGUMENTS go to `cargo test`
  ci                    What must hold besides the tests: format, lints, docs, the dependency rule, that the CUDA
                        sources compile and what they take of a GPU; and a size report
  help                  Print this

Environment:
  LIBTORCH              A libtorch of your own (the folder that holds include/ and lib/)
  LIBTORCH_USE_PYTORCH  Take the libtorch of the python3 in PATH, whatever is found elsewhere
  OPHIDIAN_NVRTC        An NVRTC of your own: its file, or the folder that holds it
  OPHIDIAN_CACHE        Where libtorch is installed, for all clones (default: ophidian/ in the user's cache folder)
";

fn main() -> ExitCode {
    match dispatch() {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn dispatch() -> Result<ExitCode> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (command, rest) = match arguments.split_first() {
        Some((command, rest)) => (command.as_str(), rest),
        None => ("help", &[][..]),
    };
    let root = root()?;
    match command {
        "setup" if rest == ["--nvrtc"] => {
            println!("{}", setup::nvrtc::run()?.display());
            Ok(ExitCode::SUCCESS)
        }
        "setup" => setup::run(&root, setup::Wish::parse(rest)?).map(|()| ExitCode::SUCCESS),
        "demo" => run::demo(&root, rest),
        "test" => run::test(&root, rest),
        "ci" if rest.is_empty() => ci::run(&root),
        "help" | "--help" | "-h" => {
            print!("{HELP}");
            Ok(ExitCode::SUCCESS)
        }
        "ci" => bail!("`ci` takes no arguments"),
        other => bail!("no command `{other}`; `cargo xtask help` lists them"),
    }
}

/// The workspace's folder: the one above this crate's. Cargo names this crate's where it runs it.
fn root() -> Result<PathBuf> {
    let here = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    let root = Path::new(&here).parent().context("xtask lies in no workspace")?;
    Ok(root.to_path_buf())
}
