//! Images inside .tar, .tar.gz, .tgz and .zip files. An archive is gone through once; nothing is ever unpacked to disk.
//!
//! Of a plain tar or a zip the place of each image is kept, of a gzipped tar its encoded bytes.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::{
    Crc,
    read::{DeflateDecoder, MultiGzDecoder},
};
use ophidian_core::{Error, Result, files::entries};

use super::{Encoded, Found, Labelled, Role, Source, layout::layout, no_image};
use crate::pixels::{self, MAX_ENCODED, Pixels};

/// A gzipped archive may unpack to this much whatever its size …
const UNPACKED_BASE: u64 = 64 << 20;
/// … and to this many times its size: images hardly compress, a bomb does nothing else.
const UNPACKED_RATIO: u64 = 100;
/// Tar's unit.
const BLOCK: u64 = 512;
/// The longest path of an entry, in bytes.
const MAX_PATH: usize = 4096;

/// The images of some archives.
pub struct Archive {
    files: Vec<PathBuf>,
    entries: Vec<Entry>,
}

struct Entry {
    file: usize,
    name: String,
    size: u64,
    blob: Blob,
}

enum Blob {
    Bytes(Box<[u8]>),
    At(Place),
}

/// Where the bytes of an entry lie in the archive's file.
#[derive(Clone, Copy)]
pub(crate) struct Place {
    offset: u64,
    /// So many bytes lie there.
    len: u64,
    /// What a zip says of the entry.
    zip: Option<Zipped>,
}

#[derive(Clone, Copy)]
struct Zipped {
    deflated: bool,
    /// Its checksum.
    crc: u32,
}

/// Endings of archives that are read.
const ENDINGS: [&str; 4] = [".tar", ".tar.gz", ".tgz", ".zip"];

/// True if `path` is named like an archive that is read.
pub fn is_archive_name(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    ending(&name).is_some()
}

/// The ending of an archive's name, if it is one that is read.
pub fn ending(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    ENDINGS.into_iter().find(|ending| name.ends_with(ending))
}

/// The archives at `path`: itself, or those in the folder, sorted.
///
/// # Errors
/// The folder cannot be read.
pub fn find(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_path_buf()]);
    }
    let mut files = Vec::new();
    for entry in entries(path)? {
        let file = entry.map_err(|error| Error::file(path, error))?.path();
        if is_archive_name(&file) && file.is_file() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}

/// Opens the archives at `path` as labelled images: `[split/]class/image` within, the split also from an archive's
/// name. `names` are the classes, if they are known.
///
/// # Errors
/// An archive is corrupt or hostile, holds no images, or an image lies in no class folder.
pub fn open(path: &Path, names: &[String]) -> Result<Found> {
    let archive = Archive::open(find(path)?)?;
    let paths: Vec<(Option<Role>, &str)> = archive.paths().map(|(_, role, name)| (role, name)).collect();
    let found = layout(&paths, names, "IMAGE").map_err(|reason| Error::file(path, reason))?;
    let source: Arc<dyn Source> = Arc::new(archive);
    let labelled = |items| Labelled { source: source.clone(), items };
    Ok(Found {
        classes: found.classes,
        train: found.train.map(labelled),
        eval: found.eval.map(labelled),
        set_aside: found.set_aside,
    })
}

impl Archive {
    /// Goes through `files` and keeps the images.
    ///
    /// # Errors
    /// An archive is corrupt or hostile.
    pub fn open(files: Vec<PathBuf>) -> Result<Self> {
        let mut entries = Vec::new();
        for (file, path) in files.iter().enumerate() {
            visit(path, &mut |found, reader| {
                if !is_image_entry(&found.name) {
                    return Ok(());
                }
                let blob = match found.place {
                    Some(place) => Blob::At(place),
                    None => Blob::Bytes(read_entry(path, found, reader)?.into_boxed_slice()),
                };
                entries.push(Entry { file, name: found.name.clone(), size: found.size, blob });
                Ok(())
            })?;
        }
        Ok(Archive { files, entries })
    }
}

impl Archive {
    /// Of each image, which archive it lies in, the split that the archive's name tells, and its path within.
    pub fn paths(&self) -> impl Iterator<Item = (usize, Option<Role>, &str)> {
        let role = |file: &PathBuf| {
            let name = file.file_name()?.to_str()?;
            Role::of_words(name.split(".t").next()?.split(".zip").next()?)
        };
        let roles: Vec<Option<Role>> = self.files.iter().map(role).collect();
        self.entries.iter().map(move |entry| (entry.file, roles[entry.file], entry.name.as_str()))
    }
}

impl Source for Archive {
    fn len(&self) -> usize {
        self.entries.len()
    }

    fn pixels(&self, index: usize) -> Result<Pixels> {
        pixels::decode(&self.bytes(index)?).map_err(|reason| Error::file(self.name_of(index), reason))
    }

    fn name_of(&self, index: usize) -> String {
        match self.entries.get(index) {
            Some(entry) => format!("{}/{}", self.files[entry.file].display(), entry.name),
            None => format!("#{index}"),
        }
    }
}

impl Encoded for Archive {
    fn bytes(&self, index: usize) -> Result<Vec<u8>> {
        let entry = self.entries.get(index).ok_or_else(|| no_image(index, self.len()))?;
        let path = &self.files[entry.file];
        match &entry.blob {
            Blob::Bytes(bytes) => Ok(bytes.to_vec()),
            Blob::At(place) => {
                let wrong = |error| Error::file(format!("{}/{}", path.display(), entry.name), error);
                read_at(path, place, entry.size).map_err(wrong)
            }
        }
    }
}

/// The `size` bytes of the entry that lies at `place`.
fn read_at(path: &Path, place: &Place, size: u64) -> io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(place.offset))?;
    let (mut bytes, file) = (Vec::new(), file.take(place.len));
    // Grows with what is there, and by no more than the entry's own size.
    match place.zip {
        Some(Zipped { deflated: true, .. }) => {
            DeflateDecoder::new(file).take(size + 1).read_to_end(&mut bytes)?
        }
        _ => file.take(size).read_to_end(&mut bytes)?,
    };
    if bytes.len() as u64 != size {
        return Err(io::Error::other(format!("does not have the {size} bytes that the archive says")));
    }
    if let Some(Zipped { crc, .. }) = place.zip {
        let mut found = Crc::new();
        found.update(&bytes);
        if found.sum() != crc {
            return Err(io::Error::other("does not have the checksum that the archive says"));
        }
    }
    Ok(bytes)
}

/// Hidden files and what macOS adds to archives are no images of the data set.
fn is_image_entry(name: &str) -> bool {
    let hidden = |part: &str| (part.starts_with('.') && part != ".") || part == "__MACOSX";
    pixels::is_image_name(name) && !name.split('/').any(hidden)
}

/// A regular file in an archive.
pub(crate) struct Header {
    /// Its path within the archive.
    pub name: String,
    /// Its size, at most [`MAX_ENCODED`].
    pub size: u64,
    /// Where its bytes lie, unless the archive as a whole is compressed.
    pub place: Option<Place>,
}

/// All bytes of the entry that `reader` stands at.
pub(crate) fn read_entry(path: &Path, entry: &Header, reader: &mut dyn Read) -> Result<Vec<u8>> {
    // Grows with what is there, not with what the header claims.
    let mut bytes = Vec::new();
    reader.take(entry.size).read_to_end(&mut bytes).map_err(|error| corrupt(path, &error))?;
    if bytes.len() as u64 == entry.size {
        return Ok(bytes);
    }
    let reason = format!("is truncated: `{}` has {} of {} bytes", entry.name, bytes.len(), entry.size);
    Err(Error::file(path, reason))
}

/// Calls `visit` with each regular file of the archive at `path` and a reader of its bytes.
pub(crate) fn visit(path: &Path, visit: &mut dyn FnMut(&Header, &mut dyn Read) -> Result<()>) -> Result<()> {
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let size = file.metadata().map_err(|error| Error::file(path, error))?.len();
    let mut buffered = BufReader::with_capacity(1 << 16, file);
    let start = buffered.fill_buf().map_err(|error| Error::file(path, error))?;
    if start.is_empty() {
        return Err(Error::file(path, "is empty, expected a tar or zip archive"));
    }
    if start.starts_with(b"PK\x03\x04") || start.starts_with(b"PK\x05\x06") {
        zipped(path, buffered, size, visit)
    } else if start.starts_with(&[0x1f, 0x8b]) {
        let limit = UNPACKED_BASE.saturating_add(size.saturating_mul(UNPACKED_RATIO));
        let mut bounded = Bounded { inner: MultiGzDecoder::new(buffered), left: limit };
        let mut archive = tar::Archive::new(&mut bounded);
        let entries = archive.entries().map_err(|error| corrupt(path, &error))?;
        each(path, entries, None, visit)?;
        // What follows the archive's end mark is read too: only then is the checksum seen.
        io::copy(&mut bounded, &mut io::sink()).map_err(|error| corrupt(path, &error))?;
        Ok(())
    } else {
        let mut archive = tar::Archive::new(buffered);
        let entries = archive.entries_with_seek().map_err(|error| corrupt(path, &error))?;
        each(path, entries, Some(size), visit)
    }
}

/// `plain` is the size of an archive that is not compressed.
fn each<R: Read>(
    path: &Path,
    entries: tar::Entries<'_, R>,
    plain: Option<u64>,
    visit: &mut dyn FnMut(&Header, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let mut end = 0;
    for entry in entries {
        let mut entry = entry.map_err(|error| corrupt(path, &error))?;
        end = entry.raw_file_position().saturating_add(entry.size());
        let bytes = entry.path_bytes();
        check_path(path, bytes.len())?;
        let name = String::from_utf8_lossy(&bytes).into_owned();
        let kind = entry.header().entry_type();
        if kind.is_gnu_sparse() {
            return Err(Error::file(path, format!("`{name}` is a sparse entry, which is not read")));
        }
        if !kind.is_file() && !kind.is_contiguous() {
            continue;
        }
        let (size, offset) = (entry.size(), entry.raw_file_position());
        check(path, &name, size)?;
        if let Some(whole) = plain
            && offset.checked_add(size).is_none_or(|end| end > whole)
        {
            let reason =
                format!("is truncated: `{name}` should end at byte {}, the file at {whole}", offset + size);
            return Err(Error::file(path, reason));
        }
        let place = plain.map(|_| Place { offset, len: size, zip: None });
        visit(&Header { name, size, place }, &mut entry)?;
    }
    // A tar ends with blocks of zeros: without them, a file cut between two entries would pass for whole.
    match plain {
        Some(whole) if end.saturating_add(BLOCK) > whole => {
            Err(Error::file(path, format!("is truncated: no end mark after the last entry, at byte {end}")))
        }
        _ => Ok(()),
    }
}

/// Refuses paths too long to be one.
fn check_path(path: &Path, len: usize) -> Result<()> {
    if len > MAX_PATH {
        let reason = format!("is hostile: an entry's path has {len} bytes, at most {MAX_PATH} are read");
        return Err(Error::file(path, reason));
    }
    Ok(())
}

/// Refuses entries that point outside the archive or are larger than any image.
fn check(path: &Path, name: &str, size: u64) -> Result<()> {
    if name.starts_with('/') || name.split('/').any(|part| part == "..") {
        let reason = format!("`{name}` points outside the archive; such an archive is not read");
        return Err(Error::file(path, reason));
    }
    if size > MAX_ENCODED {
        let reason = format!("`{name}` claims {size} bytes; files of at most {MAX_ENCODED} bytes are read");
        return Err(Error::file(path, reason));
    }
    Ok(())
}

/// The files of a zip archive of `whole` bytes.
fn zipped(
    path: &Path,
    file: BufReader<File>,
    whole: u64,
    visit: &mut dyn FnMut(&Header, &mut dyn Read) -> Result<()>,
) -> Result<()> {
    let corrupt =
        |error: zip::result::ZipError| Error::file(path, format!("is no whole zip archive: {error}"));
    let mut archive = zip::ZipArchive::new(file).map_err(corrupt)?;
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(corrupt)?;
        // Some programs part folders as Windows does.
        let name = entry.name().map_err(corrupt)?.replace('\\', "/");
        check_path(path, name.len())?;
        if entry.is_dir() || entry.is_symlink() || name.ends_with('/') {
            continue;
        }
        let (size, len, crc) = (entry.size(), entry.compressed_size(), entry.crc32());
        check(path, &name, size)?;
        if entry.encrypted() {
            return Err(Error::file(path, format!("`{name}` is encrypted, which is not read")));
        }
        let deflated = match entry.compression() {
            zip::CompressionMethod::Stored => false,
            zip::CompressionMethod::Deflated => true,
            other => {
                let reason = format!("`{name}` is compressed by {other}; stored and deflated files are read");
                return Err(Error::file(path, reason));
            }
        };
        let offset = entry.data_start().unwrap_or(whole);
        if offset.checked_add(len).is_none_or(|end| end > whole) || !deflated && len != size {
            let reason =
                format!("is truncated: `{name}` claims {len} bytes from byte {offset} on, of {whole}");
            return Err(Error::file(path, reason));
        }
        let place = Some(Place { offset, len, zip: Some(Zipped { deflated, crc }) });
        let header = Header { name, size, place };
        if deflated {
            visit(&header, &mut DeflateDecoder::new(entry))?;
        } else {
            visit(&header, &mut { entry })?;
        }
    }
    Ok(())
}

fn corrupt(path: &Path, error: &io::Error) -> Error {
    Error::file(path, format!("is no whole tar archive: {error}"))
}

/// A reader that fails when more than `left` bytes come out of it.
struct Bounded<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(read as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it unpacks to more than {UNPACKED_RATIO} times its size, which images do not; unpack it by hand if it is sound"
            ))
        })?;
        Ok(read)
    }
}
