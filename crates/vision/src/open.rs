//! From a `[data]` table to data sets: what is there, which defaults it has, how it is split.

use std::{path::Path, sync::Arc};

use ophidian_core::{Error, Result, data};

use crate::{
    config::{Data, Format, Size},
    shapes::{self, Shapes, Stream},
    source::{Found, Labelled, Source, archive, cifar, folder, idx},
    video::{
        clips,
        motions::{self, Motions},
    },
};

/// Looks at what lies at `path`.
///
/// # Errors
/// [`Error::File`] if nothing is there, nothing is known, or more than one data set is.
pub fn detect(path: &Path) -> Result<Format> {
    if !path.exists() {
        return Err(Error::file(path, "does not exist; expected the folder or archive of a data set"));
    }
    let mut found = Vec::new();
    for (format, kind) in [(Format::Cifar10, cifar::Kind::Cifar10), (Format::Cifar100, cifar::Kind::Cifar100)]
    {
        if cifar::find(path, kind).is_some() {
            found.push(format);
        }
    }
    if path.is_dir() {
        let pairs = idx::find(path)?;
        if pairs.train.is_some() || pairs.eval.is_some() {
            found.push(Format::Idx);
        }
        let packed = archive::find(path)?;
        if packed.iter().any(|file| {
            cifar::find(file, cifar::Kind::Cifar10).is_none()
                && cifar::find(file, cifar::Kind::Cifar100).is_none()
        }) {
            found.push(Format::Tar);
        }
        if !folder::walk(path)?.is_empty() {
            found.push(Format::Folder);
        }
    } else if found.is_empty() && archive::is_archive_name(path) {
        found.push(Format::Tar);
    }
    match found[..] {
        [format] => Ok(format),
        [] => Err(Error::file(
            path,
            "holds no data set that is known: expected IDX files (`train-images-idx3-ubyte.gz` …), CIFAR files \
             (`data_batch_1.bin` …), folders of images named by class, or a .tar, .tar.gz, .tgz or .zip of such",
        )),
        _ => {
            let names: Vec<_> = found.iter().map(|format| format!("\"{}\"", format.name())).collect();
            Err(Error::file(
                path,
                format!("holds more than one data set; set `data.format` to {}", names.join(" or ")),
            ))
        }
    }
}

/// Fills in every default. Files are looked at only where a default depends on them, so a table with `format`,
/// `image_size` and `class_names` resolves on a machine that lacks the data.
///
/// # Errors
/// [`Error::Config`] naming the key, [`Error::File`] naming the file.
pub fn resolve(mut data: Data) -> Result<Data> {
    if data.format == Format::Auto {
        data.format = detect(&path(&data)?)?;
    }
    if data.coarse && data.format != Format::Cifar100 {
        return Err(Error::Config("`data.coarse` is for format \"cifar100\" only".to_owned()));
    }
    if data.format.is_video() {
        data.video.get_or_insert_default();
    }
    if data.image_size.is_none() {
        let (height, width) = match data.format {
            Format::Idx => idx::size(&path(&data)?)?,
            Format::Cifar10 | Format::Cifar100 => (32, 32),
            Format::Shapes => (28, 28),
            Format::Motions => (32, 32),
            Format::Auto | Format::Folder | Format::Tar | Format::Video => (64, 64),
        };
        data.image_size = Some(Size::of(height, width));
    }
    let grey = data.format == Format::Idx || data.format.is_generated();
    let default_channels = if grey { 1 } else { 3 };
    let channels = *data.channels.get_or_insert(default_channels);
    let (mean, std) = mean_std(data.format, channels);
    for (values, default) in [(&mut data.mean, mean), (&mut data.std, std)] {
        if values.is_empty() {
            *values = default;
        } else if values.len() == 1 && channels == 3 {
            *values = vec![values[0]; 3];
        }
    }
    if data.class_names.is_empty() {
        data.class_names = match data.format {
            Format::Idx => idx::classes(&path(&data)?)?,
            Format::Cifar10 | Format::Cifar100 => cifar_kind(&data).classes(),
            Format::Folder | Format::Tar | Format::Video => read(&data, &path(&data)?)?.classes,
            Format::Motions => motions::classes(),
            Format::Shapes | Format::Auto => shapes::classes(),
        };
    } else if let Some(own) = own_classes(data.format)
        && data.class_names != own
    {
        return Err(Error::Config(format!(
            "`data.class_names`: format \"{}\" has its own names ({}); leave the key out",
            data.format.name(),
            own.join(", ")
        )));
    }
    // The lengths of mean and std can only be judged now that the channels are known.
    Data::read(data.to_table()?)
}

/// The classes of a generator.
fn own_classes(format: Format) -> Option<Vec<String>> {
    match format {
        Format::Shapes => Some(shapes::classes()),
        Format::Motions => Some(motions::classes()),
        _ => None,
    }
}

/// The splits of a data set, before any preparation.
pub struct Opened {
    /// Images to train on.
    pub train: Labelled,
    /// Images to evaluate on.
    pub eval: Labelled,
    /// Where the evaluation split comes from, in words.
    pub eval_from: &'static str,
    /// Images of a test split that lies beside a validation split, and is left alone.
    pub set_aside: usize,
}

/// The splits of a resolved `[data]`.
///
/// # Errors
/// A file is missing, malformed or holds classes that are not in `class_names`; a split is empty.
pub fn open(data: &Data) -> Result<Opened> {
    let (train, eval, eval_from, set_aside) = if data.format.is_generated() {
        (generated(data, Stream::Train)?, generated(data, Stream::Eval)?, "the generator", 0)
    } else {
        let path = path(data)?;
        let found = read(data, &path)?;
        match (&data.eval_path, found.train, found.eval) {
            // Without a training split (a test folder given for both) all of it may be trained on.
            (Some(eval_path), Some(train), _) | (Some(eval_path), None, Some(train)) => {
                (train, evaluation(data, eval_path)?, "`eval_path`", 0)
            }
            (None, Some(train), Some(eval)) => (train, eval, "the split of the data set", found.set_aside),
            (None, Some(all), None) => {
                let (train, eval) = hold_out(all, data.val_fraction, &path)?;
                (train, eval, "held out of the training images by name", 0)
            }
            (None, None, Some(_)) => {
                let reason = "holds images to evaluate on but none to train on; expected a training split";
                return Err(Error::file(path, reason));
            }
            (_, None, None) => return Err(Error::file(path, "holds no images")),
        }
    };
    let limited = |set: Labelled, limit| Labelled { items: data::limited(set.items, limit), ..set };
    let (train, eval) = (limited(train, data.limit_train), limited(eval, data.limit_eval));
    Ok(Opened { train, eval, eval_from, set_aside })
}

/// What lies at `path`, which must be of the format of `data`. Its `class_names` are the classes unless there are none.
///
/// # Errors
/// As [`open`].
pub fn read(data: &Data, path: &Path) -> Result<Found> {
    if !path.exists() {
        return Err(Error::file(
            path,
            "does not exist (`data.path`); expected the folder or archive of a data set",
        ));
    }
    let names = &data.class_names;
    match data.format {
        Format::Idx => idx::open(path, names),
        Format::Cifar10 | Format::Cifar100 => cifar::open(path, cifar_kind(data), names),
        Format::Folder => folder::open(path, names),
        Format::Tar => archive::open(path, names),
        Format::Video => clips::open(path, &data.video.clone().unwrap_or_default(), names),
        Format::Auto => read(&Data { format: detect(path)?, ..data.clone() }, path),
        Format::Shapes | Format::Motions => {
            Err(Error::Config(format!("format \"{}\" reads no files", data.format.name())))
        }
    }
}

/// The CIFAR data set that `format` and `coarse` mean.
pub fn cifar_kind(data: &Data) -> cifar::Kind {
    match (data.format, data.coarse) {
        (Format::Cifar100, true) => cifar::Kind::Cifar100Coarse,
        (Format::Cifar100, false) => cifar::Kind::Cifar100,
        _ => cifar::Kind::Cifar10,
    }
}

fn evaluation(data: &Data, path: &Path) -> Result<Labelled> {
    if !path.exists() {
        return Err(Error::file(path, "does not exist (`data.eval_path`)"));
    }
    // Clips are never evaluated on images.
    let format = if data.format.is_video() { data.format } else { detect(path)? };
    let found = read(&Data { format, ..data.clone() }, path)?;
    found.eval.or(found.train).ok_or_else(|| Error::file(path, "holds no images"))
}

fn generated(data: &Data, stream: Stream) -> Result<Labelled> {
    let (height, width) = data.input_size()?;
    let channels = data.input_channels()?;
    let len = if stream == Stream::Train { data.train } else { data.eval };
    let seed = data.seed;
    let (source, label): (Arc<dyn Source>, fn(usize) -> u32) = match &data.video {
        Some(video) => {
            // Long enough for what is looked at, and no longer.
            let frames = video.span();
            (Arc::new(Motions { len, frames, height, width, channels, seed, stream }), motions::label)
        }
        None => (Arc::new(Shapes { len, height, width, channels, seed, stream }), shapes::label),
    };
    let items = (0..len).map(|index| (index as u32, label(index))).collect();
    Ok(Labelled { source, items })
}

/// Holds out images by their names within `path`.
fn hold_out(all: Labelled, fraction: f64, path: &Path) -> Result<(Labelled, Labelled)> {
    let root = path.display().to_string();
    let name = |at: u32| {
        let name = all.source.name_of(at as usize);
        name.strip_prefix(&root).map_or(name.clone(), str::to_owned)
    };
    let [train, eval] =
        data::hold_out(&all.items, fraction, name).map_err(|reason| Error::file(path, reason))?;
    let part = |items| Labelled { source: all.source.clone(), items };
    Ok((part(train), part(eval)))
}

fn path(data: &Data) -> Result<std::path::PathBuf> {
    data.path.clone().ok_or_else(|| Error::Config("missing key `data.path`".to_owned()))
}

/// Customary normalisation. For IDX files, which may hold anything, values go from -1 to 1.
fn mean_std(format: Format, channels: usize) -> (Vec<f64>, Vec<f64>) {
    match (format, channels) {
        (Format::Cifar10, 3) => (vec![0.4914, 0.4822, 0.4465], vec![0.247, 0.2435, 0.2616]),
        (Format::Cifar10, _) => (vec![0.481], vec![0.239]),
        (Format::Cifar100, 3) => (vec![0.5071, 0.4865, 0.4409], vec![0.2673, 0.2564, 0.2762]),
        (Format::Cifar100, _) => (vec![0.488], vec![0.251]),
        (Format::Folder | Format::Tar | Format::Video, 3) => {
            (vec![0.485, 0.456, 0.406], vec![0.229, 0.224, 0.225])
        }
        (Format::Folder | Format::Tar | Format::Video, _) => (vec![0.449], vec![0.226]),
        (Format::Shapes | Format::Motions, channels) => {
            (vec![shapes::MEAN_STD.0; channels], vec![shapes::MEAN_STD.1; channels])
        }
        (Format::Auto | Format::Idx, channels) => (vec![0.5; channels], vec![0.5; channels]),
    }
}
