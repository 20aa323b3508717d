//! Installs libtorch into the cache, from torch's wheels.

use std::{
    env,
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use super::{
    Wish, cache,
    libtorch::{Libtorch, VERSION},
    python::Python,
};

/// Finds wheels through pip and brings parts of them, resumable.
const FETCH: &str = include_str!("fetch.py");

/// Installs what `wish` and the machine ask for, unless the cache has it, and returns it.
pub fn run(python: &Python, wish: Wish) -> Result<Libtorch> {
    let cuda = match wish {
        Wish::Any => python.driver,
        Wish::Cpu => false,
        Wish::Cuda => true,
    };
    let cache = cache::folder()?;
    let target = cache.join(format!("libtorch-{VERSION}-{}", if cuda { "cuda" } else { "cpu" }));
    // Of the whole wheels, libtorch is a folder: its libraries find those of the other wheels beside it.
    let inner = if cuda { target.join("torch") } else { target.clone() };
    if let Ok(found) = Libtorch::at(&inner) {
        return Ok(found);
    }
    let platform = platform()?;
    python.needs_pip()?;
    let lock = cache::lock(&cache)?;
    if let Ok(found) = Libtorch::at(&inner) {
        return Ok(found);
    }
    if platform != "linux-x86_64" {
        eprintln!("{platform}: libtorch has been set up on linux-x86_64 only; this platform is untested");
    }
    if cuda {
        whole(python, &lock, &cache, &target)?;
    } else {
        parts(python, &lock, job(platform, &cache, &target))?;
    }
    Libtorch::at(&inner)
        .with_context(|| format!("the installation is not whole; remove {}", target.display()))
}

/// The platforms that have wheels.
fn platform() -> Result<&'static str> {
    match (env::consts::OS, env::consts::ARCH) {
        ("linux", "x86_64") => Ok("linux-x86_64"),
        ("linux", "aarch64") => Ok("linux-aarch64"),
        ("macos", "aarch64") => Ok("macos-arm64"),
        (os, architecture) => bail!(
            "there is no libtorch {VERSION} to install for {os} on {architecture}; build one, set LIBTORCH to it and \
             run again"
        ),
    }
}

/// What fetch.py shall do for the CPU parts: a tenth of the whole, of which CUDA's libraries are the rest.
fn job(platform: &str, cache: &Path, target: &Path) -> Value {
    let mut requirements = vec![format!("torch=={VERSION}")];
    let mut members = vec![vec!["torch/include/*"]];
    let mut texts = json!({"build-version": format!("{VERSION}+cpu\n")});
    let bytes: u64 = match platform {
        "macos-arm64" => {
            members[0].push("torch/lib/*.dylib");
            500_000_000
        }
        _ => {
            members[0].extend(["torch/lib/libtorch_cpu.so", "torch/lib/libc10.so", "torch/lib/libgomp.so.*"]);
            if platform == "linux-aarch64" {
                members[0].extend([
                    "torch/lib/libarm_compute*.so",
                    "torch/lib/libnvpl_*",
                    "torch/lib/libgfortran.so.*",
                ]);
            }
            // libtorch_cpu.so wants these two of CUDA, for the profiler; they load without a driver.
            requirements.push("nvidia-cuda-runtime==13.0.*".to_owned());
            requirements.push("nvidia-cuda-cupti==13.0.*".to_owned());
            members.push(vec!["*/libcudart.so.13"]);
            members.push(vec!["*/libcupti.so.13"]);
            // The wheel's libtorch.so asks for libtorch_cuda.so.
            texts["lib/libtorch.so"] = json!("INPUT(-ltorch_cpu)\n");
            1_100_000_000
        }
    };
    json!({
        "what": format!("libtorch {VERSION} (CPU)"),
        "instead": format!("Set LIBTORCH to a libtorch {VERSION} of your own"),
        "platform": platform,
        "requirements": requirements,
        "members": members,
        "texts": texts,
        "bytes": bytes,
        "downloads": cache.join("downloads"),
        "target": target,
        "parent": std::process::id(),
    })
}

/// The parts that `job` names.
pub fn parts(python: &Python, lock: &File, job: Value) -> Result<()> {
    let what = job["what"].as_str().unwrap_or_default();
    eprintln!("installing {what} with {}", python.executable.display());
    let output = Command::new(&python.executable)
        .args(["-c", FETCH, &job.to_string()])
        .stdin(handle(lock)?)
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("{} cannot be started", python.executable.display()))?;
    if output.status.success() {
        return Ok(());
    }
    match String::from_utf8_lossy(&output.stdout).trim() {
        "" => bail!("{what} was not installed; run the same command again: it goes on where it stopped"),
        sentence => bail!("{sentence}"),
    }
}

/// Torch and all that it depends on, by pip. Wheels that came whole before an interruption come from pip's cache.
fn whole(python: &Python, lock: &File, cache: &Path, target: &Path) -> Result<()> {
    eprintln!(
        "an NVIDIA driver is here or wished for: installing libtorch {VERSION} with CUDA (some 2.7 GB)"
    );
    let unfinished = cache.join(format!("libtorch-{VERSION}-cuda.unfinished"));
    let temporary = cache.join("tmp");
    let _ = fs::remove_dir_all(&unfinished);
    fs::create_dir_all(&temporary).with_context(|| format!("{} cannot be made", temporary.display()))?;
    let status = Command::new(&python.executable)
        .args(["-m", "pip", "install", "--only-binary=:all:", "--python-version", "3.11", "--target"])
        .arg(&unfinished)
        .arg(format!("torch=={VERSION}"))
        .env("PIP_USER", "0")
        // pip unpacks there before it moves; the system's temporary folder is often too small.
        .env("TMPDIR", &temporary)
        .stdin(handle(lock)?)
        .status()
        .with_context(|| format!("{} cannot be started", python.executable.display()))?;
    let _ = fs::remove_dir_all(&temporary);
    if !status.success() {
        bail!(
            "pip did not install torch (see above); run the same command again, or `cargo xtask setup --cpu` for the \
             CPU parts alone"
        );
    }
    let _ = fs::remove_dir_all(target);
    fs::rename(&unfinished, target).with_context(|| format!("{} cannot be made", target.display()))
}

/// The lock for a child: should this process be killed, the child holds it until it ends, too.
fn handle(lock: &File) -> Result<Stdio> {
    Ok(lock.try_clone().context("the lock cannot be handed on")?.into())
}
