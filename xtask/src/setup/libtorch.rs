//! What a folder must hold to serve as libtorch.

use std::{
    env::consts::{DLL_EXTENSION, DLL_PREFIX},
    fmt, fs,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// The release that this workspace's tch binds.
pub const VERSION: &str = "2.11.0";

/// A libtorch of the right version.
#[derive(Debug)]
pub struct Libtorch {
    /// The folder that holds include/ and lib/, links resolved.
    pub path: PathBuf,
    /// Whether it has CUDA.
    pub cuda: bool,
}

impl Libtorch {
    /// Looks at `folder`.
    ///
    /// # Errors
    /// There is no libtorch, parts of it are missing, or it is of another version.
    pub fn at(folder: &Path) -> Result<Self> {
        let Ok(path) = folder.canonicalize() else {
            bail!("there is no {}", folder.display());
        };
        let file = |name: &str| path.join("lib").join(format!("{DLL_PREFIX}{name}.{DLL_EXTENSION}"));
        for name in ["torch_cpu", "torch", "c10"] {
            if !file(name).is_file() {
                bail!("{} holds no libtorch: there is no {}", folder.display(), file(name).display());
            }
        }
        match version(&path) {
            Some(found) if found == VERSION => Ok(Self { cuda: file("torch_cuda").is_file(), path }),
            Some(found) => bail!("{} holds libtorch {found}, expected {VERSION}", folder.display()),
            None => bail!(
                "{} does not tell its version, neither in build-version nor in include/: expected libtorch {VERSION}",
                folder.display()
            ),
        }
    }
}

impl fmt::Display for Libtorch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.cuda { "with CUDA" } else { "CPU" };
        write!(f, "libtorch {VERSION} ({kind}): {}", self.path.display())
    }
}

/// The version a libtorch says it has. The headers win over `build-version`: they are what gets compiled.
fn version(path: &Path) -> Option<String> {
    let headers = ["include/torch/headeronly/version.h", "include/torch/csrc/api/include/torch/version.h"];
    let from_header = headers.iter().find_map(|name| {
        let text = fs::read_to_string(path.join(name)).ok()?;
        let number = |part| {
            let line =
                text.lines().find_map(|line| line.strip_prefix(&format!("#define TORCH_VERSION_{part} ")))?;
            line.trim().parse::<u32>().ok()
        };
        Some(format!("{}.{}.{}", number("MAJOR")?, number("MINOR")?, number("PATCH")?))
    });
    from_header.or_else(|| {
        let text = fs::read_to_string(path.join("build-version")).ok()?;
        // As in 2.11.0+cpu.
        text.trim().split('+').next().map(str::to_owned)
    })
}
