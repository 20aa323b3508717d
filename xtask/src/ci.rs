//! What must hold besides the tests.

use std::{path::Path, process::ExitCode};

use anyhow::{Context, Result, bail};

use crate::{
    layers,
    run::cargo,
    setup::{self, Wish},
    size,
};

/// Runs every check, so that one run shows all that is wrong, and fails if one did.
pub fn run(root: &Path) -> Result<ExitCode> {
    setup::run(root, Wish::Any)?;
    let tool = |arguments: &[&str], rustdoc: &str| {
        let mut command = cargo(root);
        command.args(arguments);
        if !rustdoc.is_empty() {
            command.env("RUSTDOCFLAGS", rustdoc);
        }
        let status = command.status().context("cargo cannot be started")?;
        if !status.success() {
            bail!("cargo {} failed", arguments[0]);
        }
        Ok(())
    };
    // Lints and docs in the tests' profile: they share libtorch's bindings with them.
    let checks: [(&str, &dyn Fn() -> Result<()>); 6] = [
        ("format", &|| tool(&["fmt", "--all", "--check"], "")),
        ("dependency rule", &|| layers::check(root)),
        ("lints", &|| {
            tool(&["clippy", "--release", "--workspace", "--all-targets", "--", "-D", "warnings"], "")
        }),
        ("docs", &|| tool(&["doc", "--release", "--workspace", "--no-deps"], "-D warnings")),
        ("cuda", &|| cuda(root)),
        ("size", &|| size::report(root)),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        println!("--- {name}");
        if let Err(error) = check() {
            eprintln!("error: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("all checks hold");
    Ok(ExitCode::SUCCESS)
}

/// Compiles the CUDA sources with NVRTC, which it brings, prints what each kernel takes of a GPU and compares it with the
/// committed limits.
fn cuda(root: &Path) -> Result<()> {
    if !cfg!(target_os = "linux") {
        println!("SKIPPED: there is no NVRTC for this system");
        return Ok(());
    }
    let nvrtc = setup::nvrtc::run()?;
    // Of the whole workspace, so that nothing is built anew for other features.
    let arguments = ["test", "--release", "--workspace", "--test", "cuda_compile", "--", "--nocapture"];
    let status = cargo(root)
        .args(arguments)
        .env(setup::nvrtc::VARIABLE, nvrtc)
        .status()
        .context("cargo cannot be started")?;
    if !status.success() {
        bail!("the CUDA sources do not compile within their limits");
    }
    Ok(())
}
