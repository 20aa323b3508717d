//! Finds or installs libtorch, and makes `.libtorch` in the workspace point to it; `.cargo/config.toml` tells cargo
//! to look there.

mod cache;
mod install;
mod libtorch;
pub mod nvrtc;
mod python;
mod tools;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use libtorch::{Libtorch, VERSION};
use python::Python;

/// Which libtorch is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// What is there; else what suits the machine.
    Any,
    /// The CPU parts, even beside an NVIDIA driver.
    Cpu,
    /// With CUDA, even without a driver.
    Cuda,
}

impl Wish {
    /// From the command's arguments.
    pub fn parse(arguments: &[String]) -> Result<Self> {
        match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
            [] => Ok(Self::Any),
            ["--cpu"] => Ok(Self::Cpu),
            ["--cuda"] => Ok(Self::Cuda),
            _ => bail!("`setup` takes --cpu, --cuda, --nvrtc or nothing, found `{}`", arguments.join(" ")),
        }
    }

    /// Whether `found` will do.
    fn accepts(self, found: &Libtorch) -> bool {
        match self {
            Self::Any => true,
            Self::Cpu => !found.cuda,
            Self::Cuda => found.cuda,
        }
    }
}

/// Sets libtorch up. Says in one line what is used. Quick if there is nothing to do.
pub fn run(root: &Path, wish: Wish) -> Result<()> {
    tools::cpp()?;
    if let Some(found) = chosen_by_user(root)? {
        eprintln!("{found}, as the environment says");
        return Ok(());
    }
    let link = root.join(".libtorch");
    if let Ok(found) = Libtorch::at(&link)
        && wish.accepts(&found)
    {
        eprintln!("{found}");
        return Ok(());
    }
    // A real folder there is somebody's work.
    if fs::symlink_metadata(&link).is_ok_and(|what| what.is_dir()) {
        Libtorch::at(&link)?;
        bail!("{} is a folder, not the link that set-up makes; remove it and run again", link.display());
    }
    let python = Python::find()?;
    let found = match python.torch.as_deref().map(Libtorch::at) {
        Some(Ok(found)) if wish.accepts(&found) => found,
        _ => install::run(&python, wish)?,
    };
    point(&link, &found.path)?;
    eprintln!("{found}");
    Ok(())
}

/// What `LIBTORCH` or `LIBTORCH_USE_PYTORCH` names, checked; torch-sys reads the same variables.
fn chosen_by_user(root: &Path) -> Result<Option<Libtorch>> {
    if env::var_os("LIBTORCH_USE_PYTORCH").is_some() {
        let python = Python::of_torch_sys()?;
        let Some(torch) = &python.torch else {
            bail!(
                "LIBTORCH_USE_PYTORCH is set, but {} has no torch; install torch=={VERSION} there or unset the variable",
                python.executable.display()
            );
        };
        return Libtorch::at(torch)
            .context("LIBTORCH_USE_PYTORCH is set, but its torch does not serve")
            .map(Some);
    }
    let Some(path) = env::var_os("LIBTORCH").map(PathBuf::from).filter(|path| !is_default(path, root)) else {
        return Ok(None);
    };
    if !path.is_absolute() {
        bail!("LIBTORCH is `{}`, expected a path from the root (/...)", path.display());
    }
    Libtorch::at(&path)
        .with_context(|| {
            format!("LIBTORCH is set, but does not serve; point it to a libtorch {VERSION} or unset it")
        })
        .map(Some)
}

/// Whether `path` is the `.libtorch` that `.cargo/config.toml` sets for everybody.
fn is_default(path: &Path, root: &Path) -> bool {
    let same = |a: &Path, b: &Path| matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b);
    path.as_os_str().is_empty()
        || path.file_name().is_some_and(|name| name == ".libtorch")
            && path.parent().is_some_and(|parent| same(parent, root))
}

/// Makes `link` a symbolic link to `target`, in one step.
fn point(link: &Path, target: &Path) -> Result<()> {
    let new = link.with_file_name(format!(".libtorch.{}", std::process::id()));
    symlink(target, &new)
        .and_then(|()| fs::rename(&new, link))
        .with_context(|| format!("{} cannot be made", link.display()))
}

#[cfg(unix)]
fn symlink(target: &Path, link: &Path) -> std::io::Result<()> {
    std::os::unix::fs::symlink(target, link)
}

#[cfg(not(unix))]
fn symlink(_: &Path, _: &Path) -> std::io::Result<()> {
    Err(std::io::Error::other("this system has no symbolic links; set LIBTORCH instead"))
}
