//! The Python that has torch, or whose pip brings it.

use std::{
    env,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use super::tools;

/// Tells about a Python without importing torch, which takes seconds.
const PROBE: &str = "
import ctypes, importlib.util, json, os, sys

def folder(name):
    try:
        return os.path.dirname(importlib.util.find_spec(name).origin)
    except Exception:
        return None

def driver():
    try:
        ctypes.CDLL('libcuda.so.1')
        return True
    except OSError:
        return os.path.exists('/proc/driver/nvidia/version')

print(json.dumps({
    'version': sys.version_info[:2],
    'executable': sys.executable,
    'torch': folder('torch'),
    'pip': folder('pip'),
    'driver': driver(),
}))
";

/// A Python 3.
pub struct Python {
    /// The program.
    pub executable: PathBuf,
    /// Major and minor.
    version: (u64, u64),
    /// Folder of its torch, of whatever version.
    pub torch: Option<PathBuf>,
    pip: bool,
    /// Whether the machine has an NVIDIA driver.
    pub driver: bool,
}

impl Python {
    /// The first Python in PATH that serves.
    pub fn find() -> Result<Self> {
        let names: &[&str] = if env::var_os("VIRTUAL_ENV").is_some() {
            &["python", "python3"]
        } else {
            &["python3", "python"]
        };
        let mut refused = None;
        for name in names.iter().filter_map(|name| tools::find(name)) {
            match Self::probe(name) {
                Ok(python) => return Ok(python),
                Err(error) => refused = refused.or(Some(error)),
            }
        }
        match refused {
            Some(error) => Err(error),
            None => bail!(
                "there is no python3 in PATH, whose pip would bring libtorch; install it (Debian, Ubuntu: \
                 `apt install python3-pip`, Fedora: `dnf install python3-pip`, macOS: `xcode-select --install`), or \
                 set LIBTORCH to a libtorch of your own, and run again"
            ),
        }
    }

    /// The Python that torch-sys asks under `LIBTORCH_USE_PYTORCH`.
    pub fn of_torch_sys() -> Result<Self> {
        let name = if env::var_os("VIRTUAL_ENV").is_some() { "python" } else { "python3" };
        let Some(path) = tools::find(name) else {
            bail!("LIBTORCH_USE_PYTORCH is set, but there is no {name} in PATH");
        };
        Self::probe(path)
    }

    fn probe(program: PathBuf) -> Result<Self> {
        let shown = program.display().to_string();
        let output = Command::new(&program)
            .args(["-c", PROBE])
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("{shown} cannot be started"))?;
        let Ok(told) = serde_json::from_slice::<serde_json::Value>(&output.stdout) else {
            let complaint = String::from_utf8_lossy(&output.stderr);
            bail!(
                "{shown} does not run a Python 3: {}",
                complaint.trim().lines().last().unwrap_or("no output")
            );
        };
        let path = |key: &str| told[key].as_str().map(PathBuf::from);
        let number = |at: usize| told["version"][at].as_u64().unwrap_or(0);
        Ok(Self {
            executable: path("executable").filter(|path| path.is_absolute()).unwrap_or(program),
            version: (number(0), number(1)),
            torch: path("torch"),
            pip: path("pip").is_some(),
            driver: told["driver"].as_bool().unwrap_or(false),
        })
    }

    /// Makes sure that this Python can install.
    pub fn needs_pip(&self) -> Result<()> {
        let (shown, (major, minor)) = (self.executable.display(), self.version);
        if self.version < (3, 8) {
            bail!(
                "{shown} is Python {major}.{minor}; put Python 3.8 or newer in PATH as python3 and run again"
            );
        }
        if !self.pip {
            bail!(
                "{shown} has no pip, which brings what is missing; install it (Debian, Ubuntu: `apt install python3-pip`, \
                 Fedora: `dnf install python3-pip`, elsewhere: `{shown} -m ensurepip`) and run again"
            );
        }
        Ok(())
    }
}
