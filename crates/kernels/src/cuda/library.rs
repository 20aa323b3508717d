//! Shared libraries that are opened at run time, and where they may lie.

use std::{
    env,
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use libloading::Library;

use super::{Error, Result};

/// Folders of NVIDIA's wheels under a site-packages: those of CUDA 13, of CUDA 12, and of torch itself.
const WHEELS: [&str; 3] = ["nvidia/cu13/lib", "nvidia/cuda_nvrtc/lib", "torch/lib"];

/// Opens the library at `path`, or of that name on the loader's own path.
///
/// # Errors
/// What the loader says.
pub fn open(path: &Path) -> std::result::Result<Library, String> {
    // Safety: NVIDIA's libraries only set themselves up when loaded; whoever names another file answers for it.
    unsafe { Library::new(path) }.map_err(|error| error.to_string())
}

/// The function `name` of `library`, of type `F`.
///
/// # Errors
/// The library has none.
///
/// # Safety
/// The function is of that type, and not called once the library is closed.
pub unsafe fn function<F: Copy>(library: &Library, path: &Path, what: &'static str, name: &str) -> Result<F> {
    // Safety: passed on.
    match unsafe { library.get::<F>(name.as_bytes()) } {
        Ok(found) => Ok(*found),
        Err(_) => Err(Error::Library { path: path.into(), what, reason: format!("it has no `{name}`") }),
    }
}

/// Folders where CUDA's libraries lie on a machine without its toolkit, the likeliest first: beside the libtorch that
/// this process has loaded, or will; in the environment that is active; the toolkit's; then what `python3` says, asked
/// only when the others are exhausted, since it takes a while.
pub fn folders() -> impl Iterator<Item = PathBuf> {
    let site = |folder: PathBuf| WHEELS.map(|inner| folder.join(inner));
    let environment = ["VIRTUAL_ENV", "CONDA_PREFIX"]
        .iter()
        .filter_map(env::var_os)
        .flat_map(|root| site_packages(Path::new(&root)));
    beside_libtorch()
        .chain(environment)
        .flat_map(site)
        .chain([PathBuf::from("/usr/local/cuda/lib64")])
        .chain(std::iter::once_with(pythons).flatten().flat_map(site))
        .filter(|folder| folder.is_dir())
}

/// The site-packages that torch lies in, as its libraries lie in torch/lib: of those loaded, and of `LIBTORCH`.
fn beside_libtorch() -> impl Iterator<Item = PathBuf> {
    let loaded = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let mut libraries: Vec<PathBuf> = loaded
        .lines()
        .filter_map(|line| line.find('/').map(|at| PathBuf::from(&line[at..])))
        .filter(|path| {
            path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with("libtorch"))
        })
        .collect();
    libraries.dedup();
    let torch = libraries.into_iter().filter_map(|path| Some(path.parent()?.parent()?.to_path_buf()));
    let torch = torch.chain(env::var_os("LIBTORCH").and_then(|path| Path::new(&path).canonicalize().ok()));
    torch.filter_map(|torch| torch.parent().map(Path::to_path_buf))
}

/// `lib/python3.*/site-packages` of a Python installation.
fn site_packages(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(root.join("lib")) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path().join("site-packages")))
        .filter(|it| it.is_dir())
        .collect();
    found.sort();
    found
}

/// The folders that `python3` imports from.
fn pythons() -> Vec<PathBuf> {
    let asked = Command::new("python3")
        .args(["-c", "import sys; print('\\n'.join(sys.path))"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output();
    let told = asked.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    told.lines().map(PathBuf::from).filter(|path| path.is_absolute()).collect()
}
