//! Programs in PATH.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::{Result, bail};

/// The program `name`, or the path `name`, if it is there.
pub fn find(name: &str) -> Option<PathBuf> {
    if name.contains('/') {
        return Some(PathBuf::from(name)).filter(|path| is_program(path));
    }
    env::split_paths(&env::var_os("PATH")?).map(|folder| folder.join(name)).find(|path| is_program(path))
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    path.metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.with_extension(env::consts::EXE_EXTENSION).is_file()
}

/// Makes sure of a C++ compiler: libtorch's bindings and one file of `core` need it.
pub fn cpp() -> Result<()> {
    if let Ok(chosen) = env::var("CXX")
        && !chosen.trim().is_empty()
    {
        // May be `ccache g++` or hold flags.
        let program = chosen.split_whitespace().next().unwrap_or_default();
        if find(program).is_none() {
            bail!("CXX is `{chosen}`, but there is no program `{program}`; correct it or unset it");
        }
        return Ok(());
    }
    if find("c++").is_some() {
        return Ok(());
    }
    match ["g++", "clang++"].into_iter().find(|name| find(name).is_some()) {
        Some(name) => bail!("there is no `c++` in PATH, but `{name}`: set CXX={name} and run again"),
        None => bail!(
            "there is no C++ compiler in PATH; install one (Debian, Ubuntu: `apt install g++`, Fedora: \
             `dnf install gcc-c++`, macOS: `xcode-select --install`) and run again"
        ),
    }
}
