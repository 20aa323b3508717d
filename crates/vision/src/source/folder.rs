//! Folders of image files: `[split/]class/image`.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ophidian_core::{Error, Result, files::entries};

use super::{Encoded, Found, Labelled, Source, layout::layout, no_image};
use crate::pixels::{self, MAX_ENCODED, Pixels};

/// How many folders may lie within each other.
const MAX_DEPTH: usize = 16;

/// Image files, read when they are asked for.
pub struct Files {
    paths: Vec<PathBuf>,
}

impl Files {
    /// The files at `paths`, as they are.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Files { paths }
    }
}

impl Source for Files {
    fn len(&self) -> usize {
        self.paths.len()
    }

    fn pixels(&self, index: usize) -> Result<Pixels> {
        pixels::decode(&self.bytes(index)?).map_err(|reason| Error::file(self.name_of(index), reason))
    }

    fn name_of(&self, index: usize) -> String {
        self.paths.get(index).map_or_else(|| format!("#{index}"), |path| path.display().to_string())
    }
}

impl Encoded for Files {
    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let path = self.paths.get(index).ok_or_else(|| no_image(index, self.len()))?;
        let size = fs::metadata(path).map_err(|error| Error::file(path, error))?.len();
        if size > MAX_ENCODED {
            let reason = format!("has {size} bytes; image files of at most {MAX_ENCODED} bytes are read");
            return Err(Error::file(path, reason));
        }
        fs::read(path).map_err(|error| Error::file(path, error))
    }
}

/// Opens a folder of labelled images. `names` are the classes, if they are known.
///
/// # Errors
/// The folder cannot be read, holds no images, or an image lies in no class folder.
pub fn open(root: &Path, names: &[String]) -> Result<Found> {
    let files = walk(root)?;
    let paths: Vec<_> = files.iter().map(|(name, _)| (None, name.as_str())).collect();
    let found = layout(&paths, names, "IMAGE").map_err(|reason| Error::file(root, reason))?;
    let source: Arc<dyn Source> = Arc::new(Files::new(files.into_iter().map(|(_, path)| path).collect()));
    let labelled = |items| Labelled { source: source.clone(), items };
    Ok(Found {
        classes: found.classes,
        train: found.train.map(labelled),
        eval: found.eval.map(labelled),
        set_aside: found.set_aside,
    })
}

/// All image files below `root` as (path from the root with `/`, path), sorted. Hidden files are passed over.
///
/// # Errors
/// A folder cannot be read, or folders lie too deep (which is how a link that points back shows).
pub fn walk(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    files(root, &pixels::is_image_name)
}

/// The same of all files whose name `wanted` takes.
///
/// # Errors
/// As [`walk`].
pub fn files(root: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<(String, PathBuf)>> {
    let mut found = Vec::new();
    descend(root, "", 0, wanted, &mut found)?;
    found.sort();
    Ok(found)
}

fn descend(
    folder: &Path,
    prefix: &str,
    depth: usize,
    wanted: &dyn Fn(&str) -> bool,
    found: &mut Vec<(String, PathBuf)>,
) -> Result<()> {
    if depth > MAX_DEPTH {
        let reason = format!("lies more than {MAX_DEPTH} folders deep; is there a link that points back?");
        return Err(Error::file(folder, reason));
    }
    for entry in entries(folder)? {
        let entry = entry.map_err(|error| Error::file(folder, error))?;
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "__MACOSX" {
            continue;
        }
        // Follows links; one that points nowhere is an error when it is named like an image.
        let is_folder = fs::metadata(&path).is_ok_and(|meta| meta.is_dir());
        let name = format!("{prefix}{name}");
        if is_folder {
            descend(&path, &format!("{name}/"), depth + 1, wanted, found)?;
        } else if wanted(&name) {
            found.push((name, path));
        }
    }
    Ok(())
}
