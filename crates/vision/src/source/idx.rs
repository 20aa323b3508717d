//! IDX files, the format of MNIST and its descendants, plain or gzipped.
//!
//! An IDX file is a big-endian header (two zero bytes, the element type, the number of dimensions, each dimension as
//! u32) and the elements. Images are u8 (n, height, width), labels u8 (n).

use std::{
    fs::File,
    io::{BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};

use flate2::read::GzDecoder;
use ophidian_core::{Error, Result, files::entries};

use super::{Found, Labelled, Memory, Role};

/// Deflate cannot shrink below this: a gzip file that claims more is lying.
pub(crate) const MAX_DEFLATE_RATIO: u64 = 1032;

/// The element type of every file that is read: unsigned bytes.
const UNSIGNED_BYTES: u8 = 8;

/// The images and labels of one split.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// `…images-idx3-ubyte[.gz]`
    pub images: PathBuf,
    /// `…labels-idx1-ubyte[.gz]`
    pub labels: PathBuf,
}

/// The pairs of files in a folder.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pairs {
    /// The files to train on.
    pub train: Option<Pair>,
    /// The files to evaluate on (`t10k-` or `test-`).
    pub eval: Option<Pair>,
}

/// Finds the IDX files of a folder by their customary names (`train-images-idx3-ubyte.gz`, `t10k-labels.idx1-ubyte` …).
///
/// # Errors
/// The folder cannot be read, holds two data sets, or images without labels.
pub fn find(folder: &Path) -> Result<Pairs> {
    let mut names = Vec::new();
    for entry in entries(folder)? {
        let name = entry.map_err(|error| Error::file(folder, error))?.file_name();
        names.extend(name.into_string());
    }
    names.sort();
    let mut pairs = Pairs::default();
    for name in &names {
        let Some(role) = images_role(name) else { continue };
        // A plain file sorts before its gzipped twin and wins.
        let twin = name.strip_suffix(".gz").is_some_and(|plain| names.iter().any(|other| other == plain));
        if twin {
            continue;
        }
        let labels = name.replace("images", "labels").replace("idx3", "idx1");
        let plain = labels.trim_end_matches(".gz").to_owned();
        let Some(labels) =
            [plain.clone(), format!("{plain}.gz")].into_iter().find(|wanted| names.contains(wanted))
        else {
            return Err(Error::file(
                folder.join(name),
                format!("has no labels beside it; expected `{labels}`"),
            ));
        };
        let slot = if role == Role::Train { &mut pairs.train } else { &mut pairs.eval };
        if let Some(other) = slot {
            return Err(Error::file(
                folder,
                format!(
                    "holds more than one data set: `{}` and `{name}`; keep each in a folder of its own",
                    other.images.file_name().unwrap_or_default().to_string_lossy()
                ),
            ));
        }
        *slot = Some(Pair { images: folder.join(name), labels: folder.join(labels) });
    }
    Ok(pairs)
}

/// What the file name says if it is one of IDX images.
fn images_role(name: &str) -> Option<Role> {
    let stem = name.strip_suffix(".gz").unwrap_or(name);
    let stem = stem.strip_suffix("-idx3-ubyte").or_else(|| stem.strip_suffix(".idx3-ubyte"))?;
    let prefix = stem.strip_suffix("images")?.trim_end_matches(['-', '_', '.']);
    Role::of_words(prefix).or(Some(Role::Train))
}

/// Opens the IDX files of a folder. `names` are the classes, if they are known.
///
/// # Errors
/// A file is missing, malformed, or a label has no class.
pub fn open(folder: &Path, names: &[String]) -> Result<Found> {
    let pairs = find(folder)?;
    let read = |pair: &Pair| -> Result<(Memory, Vec<u8>)> {
        let images = read_images(&pair.images)?;
        let labels = read_labels(&pair.labels)?;
        if super::Source::len(&images) != labels.len() {
            return Err(Error::file(
                &pair.labels,
                format!(
                    "has {} labels, but {} has {} images",
                    labels.len(),
                    pair.images.display(),
                    super::Source::len(&images)
                ),
            ));
        }
        Ok((images, labels))
    };
    let train = pairs.train.as_ref().map(read).transpose()?;
    let eval = pairs.eval.as_ref().map(read).transpose()?;
    let Some(guide) = train.as_ref().or(eval.as_ref()) else {
        return Err(Error::file(
            folder,
            "holds no IDX images; expected `train-images-idx3-ubyte` and `t10k-images-idx3-ubyte` (or `.gz`) with their labels",
        ));
    };
    let classes = if names.is_empty() { numbered(&guide.1) } else { names.to_vec() };
    let labelled = |read: Option<(Memory, Vec<u8>)>, pair: &Option<Pair>| -> Result<Option<Labelled>> {
        let (Some((images, labels)), Some(pair)) = (read, pair) else { return Ok(None) };
        if let Some(at) = labels.iter().position(|label| usize::from(*label) >= classes.len()) {
            return Err(Error::file(
                &pair.labels,
                format!(
                    "label #{at} is {}, out of range: there are {} classes (0 to {})",
                    labels[at],
                    classes.len(),
                    classes.len().saturating_sub(1)
                ),
            ));
        }
        let items = labels.iter().zip(0..).map(|(label, index)| (index, u32::from(*label))).collect();
        Ok(Some(Labelled { source: Arc::new(images), items }))
    };
    let train = labelled(train, &pairs.train)?;
    let eval = labelled(eval, &pairs.eval)?;
    Ok(Found { classes, train, eval, set_aside: 0 })
}

/// The classes of a folder of IDX files, from the largest label of its training split: "0", "1", …
///
/// # Errors
/// As [`open`].
pub fn classes(folder: &Path) -> Result<Vec<String>> {
    let pairs = find(folder)?;
    match pairs.train.or(pairs.eval) {
        Some(pair) => Ok(numbered(&read_labels(&pair.labels)?)),
        None => Err(Error::file(folder, "holds no IDX files (`train-images-idx3-ubyte` …)")),
    }
}

/// Height and width of the images in a folder, from the header of one file.
///
/// # Errors
/// As [`open`].
pub fn size(folder: &Path) -> Result<(usize, usize)> {
    let pairs = find(folder)?;
    let Some(pair) = pairs.train.or(pairs.eval) else {
        return Err(Error::file(folder, "holds no IDX files (`train-images-idx3-ubyte` …)"));
    };
    let (dims, _) = open_checked(&pair.images, 3)?;
    Ok((dims[1], dims[2]))
}

fn numbered(labels: &[u8]) -> Vec<String> {
    let classes = labels.iter().max().map_or(0, |max| usize::from(*max) + 1);
    (0..classes).map(|class| class.to_string()).collect()
}

/// Reads a file of images.
///
/// # Errors
/// [`Error::File`]: what was found and what was expected.
pub fn read_images(path: &Path) -> Result<Memory> {
    let (dims, data) = read(path, 3)?;
    let mut memory = Memory::new(dims[1], dims[2], 1);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    memory.push(name, data);
    Ok(memory)
}

/// Reads a file of labels.
///
/// # Errors
/// [`Error::File`]: what was found and what was expected.
pub fn read_labels(path: &Path) -> Result<Vec<u8>> {
    Ok(read(path, 1)?.1)
}

/// Reads the whole file: dimensions and elements.
fn read(path: &Path, rank: usize) -> Result<(Vec<usize>, Vec<u8>)> {
    let (dims, mut reader) = open_checked(path, rank)?;
    // Cannot overflow or be absurd: `open_checked` held it against the size of the file.
    let expected: usize = dims.iter().product();
    let mut data = Vec::new();
    data.try_reserve_exact(expected).map_err(|_| {
        Error::file(path, format!("needs {expected} bytes of memory, which are not to be had"))
    })?;
    // One byte more than expected tells a file that goes on from one that ends.
    let read = (&mut reader).take(expected as u64).read_to_end(&mut data);
    let found = read.map_err(|error| Error::file(path, format!("is truncated or corrupt: {error}")))?;
    if found < expected {
        return Err(Error::file(
            path,
            format!(
                "is truncated: {found} bytes of data, but its header promises {expected} ({})",
                product(&dims)
            ),
        ));
    }
    let rest = reader.read(&mut [0]).map_err(|error| Error::file(path, format!("is corrupt: {error}")))?;
    if rest > 0 {
        return Err(Error::file(
            path,
            format!("goes on after the {expected} bytes that its header promises ({})", product(&dims)),
        ));
    }
    Ok((dims, data))
}

/// Opens the file, reads its header and checks that the file can hold what the header claims.
fn open_checked(path: &Path, rank: usize) -> Result<(Vec<usize>, Box<dyn Read>)> {
    let fail = |reason: String| Error::file(path, reason);
    let file = File::open(path).map_err(|error| Error::file(path, error))?;
    let size = file.metadata().map_err(|error| Error::file(path, error))?.len();
    let mut buffered = BufReader::with_capacity(1 << 16, file);
    let gzipped = std::io::BufRead::fill_buf(&mut buffered)
        .map_err(|error| Error::file(path, error))?
        .starts_with(&[0x1f, 0x8b]);
    let mut reader: Box<dyn Read> =
        if gzipped { Box::new(GzDecoder::new(buffered)) } else { Box::new(buffered) };

    let mut header = vec![0; 4 + 4 * rank];
    reader.read_exact(&mut header).map_err(|error| {
        fail(format!("is no IDX file: its header of {} bytes cannot be read ({error})", 4 + 4 * rank))
    })?;
    let expected = [0, 0, UNSIGNED_BYTES, rank as u8];
    if header[..4] != expected {
        return Err(fail(format!(
            "is not IDX {}: it starts with {:02x?}, expected {expected:02x?}",
            if rank == 3 { "images" } else { "labels" },
            &header[..4],
        )));
    }
    let dims: Vec<usize> = header[4..]
        .chunks_exact(4)
        .map(|bytes| u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize)
        .collect();
    if dims.contains(&0) {
        return Err(fail(format!("is empty: its header says {}", product(&dims))));
    }
    let claimed = dims.iter().try_fold(1u64, |size, dim| size.checked_mul(*dim as u64));
    let possible = if gzipped {
        size.saturating_mul(MAX_DEFLATE_RATIO)
    } else {
        size.saturating_sub(header.len() as u64)
    };
    if claimed.is_none_or(|claimed| claimed > possible) {
        return Err(fail(format!(
            "is truncated or hostile: its header promises {} bytes, but a file of {size} bytes holds at most {possible}",
            product(&dims)
        )));
    }
    Ok((dims, reader))
}

fn product(dims: &[usize]) -> String {
    dims.iter().map(ToString::to_string).collect::<Vec<_>>().join("x")
}
