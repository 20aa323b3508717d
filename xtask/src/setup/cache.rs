//! The user's cache, shared by clones.

use std::{
    env,
    fs::{self, File, TryLockError},
    io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

/// `$OPHIDIAN_CACHE`, or `ophidian` in the platform's cache folder.
pub fn folder() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    if let Some(path) = set("OPHIDIAN_CACHE") {
        return std::path::absolute(&path).with_context(|| format!("OPHIDIAN_CACHE is `{}`", path.display()));
    }
    if cfg!(not(target_os = "macos"))
        && let Some(path) = set("XDG_CACHE_HOME").filter(|path| path.is_absolute())
    {
        return Ok(path.join("ophidian"));
    }
    match set("HOME") {
        Some(home) if cfg!(target_os = "macos") => Ok(home.join("Library/Caches/ophidian")),
        Some(home) => Ok(home.join(".cache/ophidian")),
        None => bail!("there is no HOME; set OPHIDIAN_CACHE to the folder where libtorch shall be installed"),
    }
}

/// Makes the cache this process's own until the returned file, and every copy of its handle, is closed. Waits for
/// another set-up that is at work.
pub fn lock(cache: &Path) -> Result<File> {
    let advice = "set OPHIDIAN_CACHE to a folder that can be written";
    fs::create_dir_all(cache).with_context(|| format!("{} cannot be made; {advice}", cache.display()))?;
    let path = cache.join("lock");
    let file = File::options()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("{} cannot be written; {advice}", path.display()))?;
    let locked = match file.try_lock() {
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another set-up that is at work in {}", cache.display());
            file.lock()
        }
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Ok(()),
    };
    match locked {
        // Some network file systems know no locks; then two set-ups must not run at once.
        Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(file),
        other => {
            other.map(|()| file).with_context(|| format!("{} cannot be locked; {advice}", path.display()))
        }
    }
}
