//! Bytes of files, packed or not, within bounds.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ophidian_core::{Error, Result};
use zip::ZipArchive;

/// Largest file that is read, unpacked (1 GiB).
const MAX_BYTES: u64 = 1 << 30;

/// Text of numbers packs to a tenth, a file of zeros to a thousandth: what grows more than this is no data.
const MOST_GROWTH: u64 = 200;

/// A small file may grow to this whatever its size.
const ALWAYS: u64 = 1 << 20;

/// The bytes of the file at `path`.
pub(super) fn read(path: &Path) -> Result<Vec<u8>> {
    // A device or a pipe might never end.
    let found = std::fs::metadata(path).map_err(|error| Error::file(path, error))?;
    if !found.is_file() {
        return Err(Error::file(path, "is not a regular file"));
    }
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    at_most(file, MAX_BYTES, "the file").map_err(|reason| Error::file(path, reason))
}

/// What a gzip file holds.
pub(super) fn gunzip(bytes: &[u8]) -> std::result::Result<Vec<u8>, String> {
    let unpacked = at_most(flate2::read::MultiGzDecoder::new(bytes), growth(bytes.len() as u64), "it")
        .map_err(|reason| format!("cannot be unpacked: {reason} ({} bytes of gzip)", bytes.len()))?;
    Ok(unpacked)
}

/// How much may become of `packed` bytes.
fn growth(packed: u64) -> u64 {
    packed.saturating_mul(MOST_GROWTH).clamp(ALWAYS, MAX_BYTES)
}

/// All of `reader`, which is `what`, if it is at most `limit` bytes.
fn at_most(reader: impl Read, limit: u64, what: &str) -> std::result::Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    reader.take(limit + 1).read_to_end(&mut bytes).map_err(|error| error.to_string())?;
    if bytes.len() as u64 > limit {
        return Err(format!("{what} holds more than {limit} bytes, the most that is read"));
    }
    Ok(bytes)
}

/// A zip archive, whose files are read one at a time.
pub struct Archive {
    path: PathBuf,
    zip: Mutex<ZipArchive<File>>,
}

impl Archive {
    /// Opens the archive at `path`.
    ///
    /// # Errors
    /// [`Error::File`] if it is none.
    pub fn open(path: &Path) -> Result<Archive> {
        let file = File::open(path).map_err(|error| Error::file(path, error))?;
        let zip = ZipArchive::new(file).map_err(|error| Error::file(path, error))?;
        Ok(Archive { path: path.to_path_buf(), zip: Mutex::new(zip) })
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of its files, sorted.
    ///
    /// # Errors
    /// [`Error::File`] if one cannot be read.
    pub fn names(&self) -> Result<Vec<String>> {
        let zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        let names = zip.file_names().map(|name| name.map(|name| name.into_owned()));
        let mut names = names
            .collect::<std::result::Result<Vec<String>, _>>()
            .map_err(|error| Error::file(&self.path, error))?;
        names.retain(|name| !name.ends_with('/'));
        names.sort();
        Ok(names)
    }

    /// The content of its file `name`.
    ///
    /// # Errors
    /// [`Error::File`] naming the file in the archive: it is not there, damaged, or too large.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let wrong = |reason: String| Error::file(self.path.join(name), reason);
        let mut zip = self.zip.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = zip.by_name(name).map_err(|error| wrong(error.to_string()))?;
        let limit = growth(entry.compressed_size());
        at_most(entry, limit, "it").map_err(wrong)
    }
}
