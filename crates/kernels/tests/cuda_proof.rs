//! The program that proves the kernels on a GPU (`tests/gpu` at the root), on a machine without one: over a driver and an NVRTC
//! that emulate (`cuda/fake.cc`), and without any.
#![allow(missing_docs)]

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;
use tempfile::TempDir;

/// `cargo test` builds examples, `cargo test --test` does not.
fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let program = tests.parent().unwrap().parent().unwrap().join("examples/gpu");
    if program.is_file() {
        return Some(program);
    }
    tell(format_args!("SKIPPED: no {}; `cargo build --release --example gpu` makes it\n", program.display()));
    None
}

/// Past the test harness, which keeps what is printed to itself.
fn tell(text: std::fmt::Arguments) {
    let _ = std::io::Write::write_fmt(&mut std::io::stderr(), text);
}

/// A folder with the libraries that emulate.
fn fakes() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cuda");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".into());
    let mut command = Command::new(&compiler);
    command.args(["-std=c++17", "-O1", "-shared", "-fPIC"]);
    #[cfg(target_arch = "x86_64")]
    if std::is_x86_feature_detected!("fma") {
        command.arg("-mfma");
    }
    command.arg(format!("-DEMULATOR=\"{}\"", here.join("emulate.hpp").display()));
    let driver = folder.path().join("libcuda.so.1");
    let status = command.arg(here.join("fake.cc")).args(["-ldl", "-o"]).arg(&driver).status();
    let status = status.unwrap_or_else(|error| panic!("{compiler} (a C++ compiler): {error}"));
    assert!(status.success());
    std::fs::copy(&driver, folder.path().join("libnvrtc.so.13")).unwrap();
    folder
}

fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("LD_LIBRARY_PATH", folder)
        .env("OPHIDIAN_NVRTC", folder.join("libnvrtc.so.13"))
        .env("OPHIDIAN_CACHE", folder.join("cache"))
        .env("OPHIDIAN_SHARED", folder);
    command
}

fn run(program: &Path, folder: &Path, arguments: &[&str]) -> Output {
    command(program, folder, arguments).output().unwrap()
}

fn lines(output: &Output) -> Vec<Value> {
    let out = String::from_utf8_lossy(&output.stdout);
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
}

/// Parity passes and benchmarks run, each kernel a line; then all kernels come from the cache.
#[test]
fn everything_but_the_gpu() {
    let Some(program) = program() else { return };
    let folder = fakes();
    let output = run(&program, folder.path(), &["parity", "--cases", "1", "--seed", "3"]);
    let told = lines(&output);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let failed: Vec<_> = told.iter().filter(|line| line["pass"] == false).collect();
    assert!(output.status.success() && failed.is_empty(), "{failed:#?}\n{stderr}");
    assert_eq!(told[0]["device"], "Emulated GPU");
    let parity = told.iter().find(|line| line["parity"].is_object()).unwrap();
    assert_eq!(parity["parity"]["passed"], 8);
    let graphs = told.iter().find(|line| line["test"] == "graphs").unwrap();
    for kernel in ["gated_rms_norm_forward", "selective_scan_step"] {
        assert!(graphs["captured"].to_string().contains(kernel), "{graphs}");
    }
    assert!(told.iter().any(|line| line["skipped"].to_string().contains("golden")), "{told:?}");

    let output = run(&program, folder.path(), &["bench", "--quick"]);
    let told = lines(&output);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told:#?}\n{stderr}");
    for kernel in [
        "copy",
        "selective_scan_forward",
        "selective_scan_backward",
        "ssd_forward",
        "ssd_forward_to_train",
        "ssd_backward",
        "causal_conv1d_forward",
        "causal_conv1d_backward",
        "add_rms_norm_forward",
        "add_rms_norm_backward",
        "gated_rms_norm_forward",
        "gated_rms_norm_backward",
    ] {
        assert!(told.iter().any(|line| line["bench"] == kernel), "no time of {kernel}: {told:#?}");
    }
    assert!(told.iter().any(|line| line["order"] == "cross" && line["of_identity"].is_number()));
}

/// A kernel that touches what is not its own takes the context with it: the case that met it fails, the others are counted.
#[test]
fn a_fault_ends_the_proof() {
    let Some(program) = program() else { return };
    let folder = fakes();
    let mut command = command(&program, folder.path(), &["parity", "--cases", "1", "--seed", "3"]);
    let output = command.env("FAKE_FAULT", "4").output().unwrap();
    let told = lines(&output);
    assert_eq!(output.status.code(), Some(1));
    let failed: Vec<_> = told.iter().filter(|line| line["pass"] == false).collect();
    assert_eq!(failed.len(), 1, "{told:#?}");
    let error = failed[0]["error"].as_str().unwrap();
    assert!(error.contains("an illegal address (700)"), "{error}");
    let parity = &told.iter().find(|line| line["parity"].is_object()).unwrap()["parity"];
    assert!(parity["context_lost"] == true && parity["not_run"].as_u64() > Some(3), "{parity}");
}

/// One sentence, and exit status 1.
#[test]
fn without_a_driver() {
    let Some(program) = program() else { return };
    // Safety: the driver sets nothing up before it is asked to.
    if unsafe { libloading::Library::new("libcuda.so.1") }.is_ok() {
        tell(format_args!("SKIPPED: there is a driver\n"));
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for command in ["parity", "bench"] {
        let output = run(&program, folder.path(), &[command]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("error: no NVIDIA driver: ") && said.trim_end().lines().count() == 1,
            "{said}"
        );
        assert!(output.stdout.is_empty());
    }
    let output = run(&program, folder.path(), &["prove"]);
    assert!(String::from_utf8_lossy(&output.stderr).starts_with("error: usage: gpu parity"));
}
