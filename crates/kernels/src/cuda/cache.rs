//! Compiled kernels on disk, shared by every process of the user.
//!
//! An entry's name is a hash of all that its content depends on, so an entry is never out of date and is written once,
//! whole: to a file beside it that is then renamed. It begins with its own checksum; one that does not fit (cut short,
//! damaged) counts as not there and is written anew. No process waits for another: two that miss at once both compile,
//! and either's entry is right.

use std::{
    env, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

use sha2::{Digest, Sha256};

use super::{
    Nvrtc, Result,
    source::{HEADERS, Variant},
};

/// First bytes of an entry; another form of entry gets another number.
const MAGIC: &[u8] = b"ophidian cubin 1\n";

/// A folder of compiled kernels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cache {
    folder: Option<PathBuf>,
}

/// What the cache gives.
#[derive(Debug)]
pub struct Kept {
    /// The machine code.
    pub image: Vec<u8>,
    /// How it came.
    pub origin: Origin,
}

/// How a cache came by what it gave.
#[derive(Debug)]
pub enum Origin {
    /// It was on disk.
    Disk,
    /// It was compiled, and is on disk now.
    Compiled,
    /// It was compiled, and could not be kept: every process will compile again.
    Unkept(io::Error),
}

impl Cache {
    /// `cuda/` in `$OPHIDIAN_CACHE`, or in `ophidian` in the user's cache folder. Keeps nothing where there is no home.
    pub fn user() -> Cache {
        let set =
            |name: &str| env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
        let folder = set("OPHIDIAN_CACHE")
            .or_else(|| Some(set("XDG_CACHE_HOME").filter(|path| path.is_absolute())?.join("ophidian")))
            .or_else(|| Some(set("HOME")?.join(".cache/ophidian")));
        Cache { folder: folder.map(|folder| folder.join("cuda")) }
    }

    /// In `folder`, which is made when it is first needed.
    pub fn at(folder: &Path) -> Cache {
        Cache { folder: Some(folder.into()) }
    }

    /// `variant` for architecture `arch`, from disk or compiled by `nvrtc`. `driver` is the driver's version, or 0.
    ///
    /// # Errors
    /// It does not compile. That nothing can be kept is no error.
    pub fn cubin(&self, nvrtc: &Nvrtc, variant: &Variant, arch: u32, driver: i32) -> Result<Kept> {
        self.get(&key(variant, &Nvrtc::options(variant, arch), nvrtc.version(), driver), || {
            Ok(nvrtc.compile(variant, arch)?.image)
        })
    }

    /// The entry named `key`, or what `build` makes, kept under that name.
    ///
    /// # Errors
    /// Those of `build`.
    pub fn get(&self, key: &str, build: impl FnOnce() -> Result<Vec<u8>>) -> Result<Kept> {
        let path = self.folder.as_ref().map(|folder| folder.join(format!("{key}.cubin")));
        if let Some(image) = path.as_ref().and_then(|path| image(fs::read(path).ok()?)) {
            return Ok(Kept { image, origin: Origin::Disk });
        }
        let image = build()?;
        let written = match &path {
            Some(path) => write(path, &image),
            None => Err(io::Error::new(io::ErrorKind::NotFound, "no HOME; set OPHIDIAN_CACHE")),
        };
        let origin = written.map_or_else(Origin::Unkept, |()| Origin::Compiled);
        Ok(Kept { image, origin })
    }
}

/// Hash of everything that machine code depends on. The driver is in it because what it loads may come to depend on it,
/// and a compilation costs less than an entry that a newer driver refuses.
pub fn key(variant: &Variant, options: &[String], nvrtc: (i32, i32), driver: i32) -> String {
    let mut hash = Sha256::new();
    // With its length in front, no text can pass for the end of one and the start of another.
    let mut add = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    };
    for (name, text) in [(variant.source.name, variant.source.text)].iter().chain(HEADERS) {
        add(name);
        add(text);
    }
    options.iter().for_each(|option| add(option));
    add(&format!("{}.{} {driver}", nvrtc.0, nvrtc.1));
    hex(&hash.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The image in an entry, if the entry is whole.
fn image(entry: Vec<u8>) -> Option<Vec<u8>> {
    let (sum, image) = entry.strip_prefix(MAGIC)?.split_at_checked(32)?;
    (Sha256::digest(image).as_slice() == sum).then(|| image.to_vec())
}

fn write(path: &Path, image: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new(""));
    fs::create_dir_all(folder)?;
    // In the same folder, so that the rename is one step; gone again if anything fails.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    for part in [MAGIC, &Sha256::digest(image), image] {
        file.write_all(part)?;
    }
    file.persist(path)?;
    Ok(())
}
