//! The binary CIFAR formats: records of one label byte (CIFAR-100: two) and 3 x 32 x 32 bytes, channel by channel.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use ophidian_core::{Error, Result, files::entries};

use super::{Found, Labelled, Memory, Source, archive};
use crate::pixels::MAX_ENCODED;

const SIDE: usize = 32;
const AREA: usize = SIDE * SIDE;

/// Which of the CIFAR data sets, and which of its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// 10 classes; `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`.
    Cifar10,
    /// 100 classes; `train.bin` and `test.bin`.
    Cifar100,
    /// The 20 superclasses of CIFAR-100.
    Cifar100Coarse,
}

impl Kind {
    /// Label bytes before the pixels of a record.
    fn labels(self) -> usize {
        if self == Kind::Cifar10 { 1 } else { 2 }
    }

    /// Which of the label bytes counts.
    fn label_at(self) -> usize {
        usize::from(self == Kind::Cifar100)
    }

    fn is_train(self, name: &str) -> bool {
        match self {
            Kind::Cifar10 => name.starts_with("data_batch_") && name.ends_with(".bin"),
            _ => name == "train.bin",
        }
    }

    fn is_test(self, name: &str) -> bool {
        name == if self == Kind::Cifar10 { "test_batch.bin" } else { "test.bin" }
    }

    /// The folder and the archive that the authors publish.
    fn published(self) -> (&'static str, &'static str) {
        match self {
            Kind::Cifar10 => ("cifar-10-batches-bin", "cifar-10-binary.tar.gz"),
            _ => ("cifar-100-binary", "cifar-100-binary.tar.gz"),
        }
    }

    fn expected(self) -> &'static str {
        match self {
            Kind::Cifar10 => "`data_batch_1.bin` … and `test_batch.bin`",
            _ => "`train.bin` and `test.bin`",
        }
    }

    /// The authors' class names.
    pub fn classes(self) -> Vec<String> {
        let names: &[&str] = match self {
            Kind::Cifar10 => &CIFAR10,
            Kind::Cifar100 => &CIFAR100,
            Kind::Cifar100Coarse => &CIFAR100_COARSE,
        };
        names.iter().map(|name| (*name).to_owned()).collect()
    }
}

/// Where the files of `kind` lie at `path`: the folder itself, the authors' folder or archive within it, or the
/// archive.
pub fn find(path: &Path, kind: Kind) -> Option<PathBuf> {
    let (folder, archive) = kind.published();
    let holds = |folder: &Path| {
        fs::read_dir(folder).is_ok_and(|entries| {
            entries.flatten().any(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                kind.is_train(&name) || kind.is_test(&name)
            })
        })
    };
    if path.is_dir() {
        let inner = path.join(folder);
        let packed = path.join(archive);
        if holds(path) {
            Some(path.to_path_buf())
        } else if holds(&inner) {
            Some(inner)
        } else {
            packed.is_file().then_some(packed)
        }
    } else {
        (path.file_name()? == archive && path.is_file()).then(|| path.to_path_buf())
    }
}

/// Opens the files of `kind` at `path`. `names` are the classes, if other names than the authors' are wanted.
///
/// # Errors
/// No such files, a file that is no whole number of records, a label out of range.
pub fn open(path: &Path, kind: Kind, names: &[String]) -> Result<Found> {
    let at = if archive::is_archive_name(path) && path.is_file() {
        Some(path.to_path_buf())
    } else {
        find(path, kind)
    };
    let Some(at) = at else {
        let reason = if path.exists() { "holds no CIFAR files" } else { "does not exist" };
        return Err(Error::file(path, format!("{reason}; expected a folder with {}", kind.expected())));
    };
    let files = if at.is_dir() { from_folder(&at, kind)? } else { from_archive(&at, kind)? };
    let classes = if names.is_empty() { kind.classes() } else { names.to_vec() };
    let split = |wanted: &dyn Fn(&str) -> bool| -> Result<Option<Labelled>> {
        let mut memory = Memory::new(SIDE, SIDE, 3);
        let mut items = Vec::new();
        for (name, bytes) in files.iter().filter(|(name, _)| wanted(name)) {
            let file = at.join(name);
            let (labels, pixels) = records(&file, bytes, kind, classes.len())?;
            items.extend((memory.len() as u32..).zip(labels));
            memory.push(name.clone(), pixels);
        }
        Ok((!items.is_empty()).then(|| Labelled { source: Arc::new(memory), items }))
    };
    let train = split(&|name| kind.is_train(name))?;
    let eval = split(&|name| kind.is_test(name))?;
    if train.is_none() && eval.is_none() {
        return Err(Error::file(at, format!("holds no CIFAR files; expected {}", kind.expected())));
    }
    Ok(Found { classes, train, eval, set_aside: 0 })
}

/// Labels and pixels, (height, width, channels) in order, of one file.
fn records(file: &Path, bytes: &[u8], kind: Kind, classes: usize) -> Result<(Vec<u32>, Vec<u8>)> {
    let record = kind.labels() + 3 * AREA;
    if bytes.is_empty() || !bytes.len().is_multiple_of(record) {
        let reason =
            format!("has {} bytes, expected records of {record} bytes each; is it truncated?", bytes.len());
        return Err(Error::file(file, reason));
    }
    let mut labels = Vec::with_capacity(bytes.len() / record);
    let mut pixels = Vec::with_capacity(bytes.len());
    for (index, record) in bytes.chunks_exact(record).enumerate() {
        let label = record[kind.label_at()];
        if usize::from(label) >= classes {
            let reason = format!("label #{index} is {label}, out of range: there are {classes} classes");
            return Err(Error::file(file, reason));
        }
        labels.push(u32::from(label));
        let planes = &record[kind.labels()..];
        pixels.extend((0..AREA).flat_map(|at| [planes[at], planes[AREA + at], planes[2 * AREA + at]]));
    }
    Ok((labels, pixels))
}

fn from_folder(folder: &Path, kind: Kind) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    for entry in entries(folder)? {
        let entry = entry.map_err(|error| Error::file(folder, error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !kind.is_train(&name) && !kind.is_test(&name) {
            continue;
        }
        let size = entry.metadata().map_err(|error| Error::file(entry.path(), error))?.len();
        if size > MAX_ENCODED {
            let reason = format!("has {size} bytes; CIFAR files of at most {MAX_ENCODED} bytes are read");
            return Err(Error::file(entry.path(), reason));
        }
        files.push((name, fs::read(entry.path()).map_err(|error| Error::file(entry.path(), error))?));
    }
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

fn from_archive(path: &Path, kind: Kind) -> Result<Vec<(String, Vec<u8>)>> {
    let mut files = Vec::new();
    archive::visit(path, &mut |entry, reader| {
        let name = entry.name.rsplit('/').next().unwrap_or_default();
        if kind.is_train(name) || kind.is_test(name) {
            files.push((name.to_owned(), archive::read_entry(path, entry, reader)?));
        }
        Ok(())
    })?;
    files.sort_by(|a, b| a.0.cmp(&b.0));
    Ok(files)
}

const CIFAR10: [&str; 10] =
    ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];

#[rustfmt::skip]
const CIFAR100: [&str; 100] = [
    "apple", "aquarium_fish", "baby", "bear", "beaver", "bed", "bee", "beetle", "bicycle", "bottle",
    "bowl", "boy", "bridge", "bus", "butterfly", "camel", "can", "castle", "caterpillar", "cattle",
    "chair", "chimpanzee", "clock", "cloud", "cockroach", "couch", "crab", "crocodile", "cup", "dinosaur",
    "dolphin", "elephant", "flatfish", "forest", "fox", "girl", "hamster", "house", "kangaroo", "keyboard",
    "lamp", "lawn_mower", "leopard", "lion", "lizard", "lobster", "man", "maple_tree", "motorcycle", "mountain",
    "mouse", "mushroom", "oak_tree", "orange", "orchid", "otter", "palm_tree", "pear", "pickup_truck", "pine_tree",
    "plain", "plate", "poppy", "porcupine", "possum", "rabbit", "raccoon", "ray", "road", "rocket",
    "rose", "sea", "seal", "shark", "shrew", "skunk", "skyscraper", "snail", "snake", "spider",
    "squirrel", "streetcar", "sunflower", "sweet_pepper", "table", "tank", "telephone", "television", "tiger", "tractor",
    "train", "trout", "tulip", "turtle", "wardrobe", "whale", "willow_tree", "wolf", "woman", "worm",
];

#[rustfmt::skip]
const CIFAR100_COARSE: [&str; 20] = [
    "aquatic_mammals", "fish", "flowers", "food_containers", "fruit_and_vegetables", "household_electrical_devices",
    "household_furniture", "insects", "large_carnivores", "large_man-made_outdoor_things",
    "large_natural_outdoor_scenes", "large_omnivores_and_herbivores", "medium_mammals", "non-insect_invertebrates",
    "people", "reptiles", "small_mammals", "trees", "vehicles_1", "vehicles_2",
];
