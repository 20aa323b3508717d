//! Folders of WAV files, `class/…/clip.wav` or `split/class/…/clip.wav`.

use std::path::{Path, PathBuf};

use ophidian_core::{Error, Result, files::entries};

use super::{Entry, Found, Role, is_wav, split};

/// How deep folders may lie in each other: links may go in circles.
const MAX_DEPTH: usize = 16;

/// The WAV files below `root`, sorted by their names; hidden files and folders are passed over.
///
/// # Errors
/// A folder that cannot be read, or too many in each other.
pub fn walk(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    visit(root, MAX_DEPTH, &mut found)?;
    found.sort_unstable();
    Ok(found)
}

fn visit(folder: &Path, depth: usize, found: &mut Vec<PathBuf>) -> Result<()> {
    if depth == 0 {
        return Err(Error::file(folder, format!("lies more than {MAX_DEPTH} folders deep")));
    }
    for entry in entries(folder)? {
        let path = entry.map_err(|error| Error::file(folder, error))?.path();
        if path.file_name().is_none_or(|name| name.to_string_lossy().starts_with('.')) {
            continue;
        }
        if path.is_dir() {
            visit(&path, depth - 1, found)?;
        } else if is_wav(&path) {
            found.push(path);
        }
    }
    Ok(())
}

/// The data set in the folder `root`. `names` are its classes if there are any.
///
/// # Errors
/// There are no WAV files, one lies in no class's folder, or a class is not among `names`.
pub fn open(root: &Path, names: &[String]) -> Result<Found> {
    let entry = |file: PathBuf| {
        let within = file.strip_prefix(root).unwrap_or(&file);
        let mut folders: Vec<String> =
            within.iter().map(|part| part.to_string_lossy().into_owned()).collect();
        folders.pop();
        let role = folders.first().and_then(|folder| Role::of(folder));
        let class = folders.into_iter().nth(usize::from(role.is_some()));
        match class {
            Some(class) => Ok(Entry { file, class, role }),
            None => Err(Error::file(
                &file,
                "has no label: it lies in no class's folder; expected `class/clip.wav` or `split/class/clip.wav`, or a \
                 .csv of paths and labels as `data.path`",
            )),
        }
    };
    let entries = walk(root)?.into_iter().map(entry).collect::<Result<Vec<Entry>>>()?;
    if let (Some(with), Some(without)) =
        (entries.iter().find(|entry| entry.role.is_some()), entries.iter().find(|entry| entry.role.is_none()))
    {
        let reason = format!("belongs to a split, but {} to none", without.file.display());
        return Err(Error::file(&with.file, reason));
    }
    split(root, entries, names)
}
