//! Cargo with libtorch in place: the demo and the tests.

use std::{
    env,
    path::Path,
    process::{Command, ExitCode},
};

use anyhow::{Context, Result};

use crate::setup::{self, Wish};

/// Where the demo's run lies.
const DEMO: &str = "runs/demo";

/// Cargo, to be run in the workspace.
pub fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    command
}

/// Runs to the end and hands on the exit status.
fn finish(mut command: Command) -> Result<ExitCode> {
    let status =
        command.status().with_context(|| format!("{:?} cannot be started", command.get_program()))?;
    Ok(match status.code() {
        Some(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        None => ExitCode::FAILURE,
    })
}

/// Trains the demo classifier. An earlier demo makes way, unless `more` says what to do with it.
pub fn demo(root: &Path, more: &[String]) -> Result<ExitCode> {
    setup::run(root, Wish::Any)?;
    eprintln!("building the program (minutes, the first time), then training");
    finish(demo_command(root, more))
}

fn demo_command(root: &Path, more: &[String]) -> Command {
    let says =
        |flags: &[&str]| more.iter().any(|given| flags.contains(&given.split('=').next().unwrap_or("")));
    let mut command = cargo(root);
    // Not `--package ophidian`: the features of the whole workspace, as the tests have them, so that both share
    // what is built.
    command.args(["run", "--release", "--bin", "ophidian", "--", "train", "configs/demo.toml"]);
    if !says(&["--output", "-o"]) {
        command.args(["--output", DEMO]);
        if root.join(DEMO).exists() && !says(&["--resume", "--force"]) {
            command.arg("--force");
        }
    }
    command.args(more);
    command
}

/// Runs every test of the workspace.
pub fn test(root: &Path, more: &[String]) -> Result<ExitCode> {
    setup::run(root, Wish::Any)?;
    let mut command = cargo(root);
    command.args(["test", "--release", "--workspace"]).args(more);
    finish(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_demo_makes_way_unless_told_otherwise() {
        let root = tempfile::tempdir().unwrap();
        let line = |more: &[&str]| {
            let more: Vec<_> = more.iter().map(|&it| it.to_owned()).collect();
            let command = demo_command(root.path(), &more);
            let arguments: Vec<_> = command.get_args().map(|it| it.to_string_lossy().into_owned()).collect();
            arguments[6..].join(" ")
        };
        assert_eq!(line(&["--set", "seed=1"]), "configs/demo.toml --output runs/demo --set seed=1");
        std::fs::create_dir_all(root.path().join(DEMO)).unwrap();
        assert_eq!(line(&[]), "configs/demo.toml --output runs/demo --force");
        assert_eq!(line(&["--resume"]), "configs/demo.toml --output runs/demo --resume");
        assert_eq!(line(&["--output=mine"]), "configs/demo.toml --output=mine");
    }
}
