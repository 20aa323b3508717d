//! NVRTC for the checks: it compiles the CUDA sources on machines without a GPU. Users need none of this: theirs comes
//! with torch.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{cache, install, python::Python};

/// The release that torch's wheels bring. `limits.csv` of the kernels holds for it.
pub const VERSION: &str = "13.0.88";

/// Names an NVRTC of the user's own.
pub const VARIABLE: &str = "OPHIDIAN_NVRTC";

/// Its libraries: the second is opened by the first, from beside it.
const LIBRARIES: [&str; 2] = ["libnvrtc.so.13", "libnvrtc-builtins.so.13.0"];

/// The NVRTC that the user named, or the folder it is installed in, now if need be.
pub fn run() -> Result<PathBuf> {
    if let Some(chosen) = env::var_os(VARIABLE).filter(|path| !path.is_empty()) {
        return Ok(chosen.into());
    }
    let cache = cache::folder()?;
    let target = cache.join(format!("nvrtc-{VERSION}"));
    let lib = target.join("lib");
    let whole = || LIBRARIES.iter().all(|name| lib.join(name).is_file());
    if whole() {
        return Ok(lib);
    }
    let python = Python::find()?;
    python.needs_pip()?;
    let lock = cache::lock(&cache)?;
    if !whole() {
        install::parts(&python, &lock, job(&cache, &target)).context("NVRTC compiles the CUDA sources")?;
    }
    Ok(lib)
}

fn job(cache: &Path, target: &Path) -> Value {
    json!({
        "what": format!("NVRTC {VERSION}"),
        "instead": format!("Set {VARIABLE} to an NVRTC of your own"),
        "platform": format!("{}-{}", env::consts::OS, env::consts::ARCH),
        "requirements": [format!("nvidia-cuda-nvrtc=={VERSION}")],
        "members": [LIBRARIES.map(|name| format!("*/{name}"))],
        "texts": {},
        "bytes": 220_000_000u64,
        "downloads": cache.join("downloads"),
        "target": target,
        "parent": std::process::id(),
    })
}
