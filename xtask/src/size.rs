//! The size report: lines of code per crate, so that growth is seen.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

/// Files longer than this are listed.
const LONG: usize = 500;

/// Extensions of code.
const CODE: &[&str] = &["rs", "cpp", "cu", "py"];

/// Prints lines per crate, the program's and the tests' apart, and the long files.
pub fn report(root: &Path) -> Result<()> {
    let crates = root.join("crates");
    let mut folders: Vec<PathBuf> = fs::read_dir(&crates)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>())
        .with_context(|| format!("{} cannot be read", crates.display()))?;
    folders.sort();
    folders.push(root.join("xtask"));
    let mut long = Vec::new();
    let mut sum = (0, 0);
    println!("{:<10} {:>8} {:>8}", "lines", "source", "tests");
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        let mut files = Vec::new();
        count(folder, &mut files).with_context(|| format!("{} cannot be read", folder.display()))?;
        let (mut source, mut tests) = (0, 0);
        for (path, lines) in files {
            let inner = path.strip_prefix(folder).unwrap_or(&path);
            let aside = ["tests", "benches", "examples"].iter().any(|aside| inner.starts_with(aside));
            *(if aside { &mut tests } else { &mut source }) += lines;
            if lines > LONG {
                long.push((path.strip_prefix(root).unwrap_or(&path).to_path_buf(), lines));
            }
        }
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        println!("{name:<10} {source:>8} {tests:>8}");
        sum = (sum.0 + source, sum.1 + tests);
    }
    println!("{:<10} {:>8} {:>8}", "sum", sum.0, sum.1);
    for (path, lines) in long {
        println!("over {LONG} lines: {} ({lines})", path.display());
    }
    Ok(())
}

/// Adds every code file under `folder` with its number of lines, in the order of names.
fn count(folder: &Path, files: &mut Vec<(PathBuf, usize)>) -> io::Result<()> {
    let mut entries = fs::read_dir(folder)?.collect::<io::Result<Vec<_>>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            count(&path, files)?;
        } else if path.extension().is_some_and(|it| CODE.iter().any(|known| it == *known)) {
            let lines = fs::read(&path)?.iter().filter(|&&byte| byte == b'\n').count();
            files.push((path, lines));
        }
    }
    Ok(())
}
