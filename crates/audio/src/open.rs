//! From a `[data]` table to data sets: what is there, which defaults it has, how it is split, whether it can be read.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use ophidian_core::{Error, Result, data};
use rayon::prelude::*;

use crate::{
    config::{Data, Features, Format},
    fbank::Fbank,
    source::{
        Found, Labelled, Source, folder, fsdd, list,
        tones::{self, Tones},
    },
    wav::{self, Header},
};

/// Samples a second of the generator.
const TONES_RATE: u32 = 8000;

/// Mean and standard deviation of AudioSet's filter banks (Gong et al., arXiv 2104.01778).
const AUDIOSET: (f64, f64) = (-4.2677393, 4.5689974);

/// The same of the generator's, as `ophidian data inspect tones` measures them.
pub const TONES: (f64, f64) = (-5.7, 3.7);

/// About what waveforms of speech and music deviate by.
const WAVEFORM: (f64, f64) = (0.0, 0.1);

/// Looks at what lies at `path`.
///
/// # Errors
/// [`Error::File`] if nothing is there or nothing is known.
pub fn detect(path: &Path) -> Result<Format> {
    if path.is_file() && list::is_list(path) {
        return Ok(Format::List);
    }
    if !path.is_dir() {
        let found = if path.exists() { "is no folder and no .csv or .tsv" } else { "does not exist" };
        return Err(Error::file(
            path,
            format!("{found} (`data.path`); expected the folder or list of a data set"),
        ));
    }
    if fsdd::find(path).is_some() {
        return Ok(Format::Fsdd);
    }
    if folder::walk(path)?.is_empty() {
        return Err(Error::file(
            path,
            "holds no WAV files; expected folders of them named by class, `class/clip.wav` or `split/class/clip.wav`, or \
             the spoken digits, `recordings/7_jackson_32.wav`",
        ));
    }
    Ok(Format::Folder)
}

/// Fills in every default. Files are looked at only where a default depends on them, so a table with `format`,
/// `sample_rate`, `channels` and `class_names` resolves on a machine that lacks the data.
///
/// # Errors
/// [`Error::Config`] naming the key, [`Error::File`] naming the file.
pub fn resolve(mut data: Data) -> Result<Data> {
    if data.format == Format::Auto {
        data.format = detect(&path(&data)?)?;
    }
    if data.format == Format::Tones {
        data.sample_rate.get_or_insert(TONES_RATE);
        data.channels.get_or_insert(1);
    }
    let own = match data.format {
        Format::Tones => Some(tones::classes()),
        Format::Fsdd => Some(fsdd::classes()),
        _ => None,
    };
    if data.class_names.is_empty() {
        data.class_names = match own {
            Some(own) => own,
            None => read(&data, &path(&data)?)?.classes,
        };
    } else if own.is_some_and(|own| own != data.class_names) {
        return Err(Error::Config(format!(
            "`data.class_names`: format \"{}\" has its own names; leave the key out",
            data.format.name()
        )));
    }
    if data.sample_rate.is_none() || data.channels.is_none() {
        let files = files(&data)?;
        let headers = headers(&files)?;
        let rate = |header: &Header| header.rate as usize;
        let found = agreed(&data, &files, &headers, rate, "samples a second", "sample_rate")?;
        data.sample_rate.get_or_insert(u32::try_from(found.unwrap_or(0)).unwrap_or(0));
        let found = agreed(&data, &files, &headers, |header| header.channels, "channels", "channels")?;
        data.channels.get_or_insert(found.unwrap_or(1));
    }
    let (mean, std) = match (data.features, data.format) {
        (Features::Waveform, _) => WAVEFORM,
        (Features::Fbank, Format::Tones) => TONES,
        (Features::Fbank, _) => AUDIOSET,
    };
    data.mean.get_or_insert(mean);
    data.std.get_or_insert(std);
    // What a rate rules out can only be judged now that it is known.
    Data::read(data.to_table()?)
}

/// What all headers say, unless the table does.
fn agreed(
    data: &Data,
    files: &[PathBuf],
    headers: &[Header],
    of: impl Fn(&Header) -> usize,
    unit: &str,
    key: &str,
) -> Result<Option<usize>> {
    let set = if key == "channels" { data.channels.is_some() } else { data.sample_rate.is_some() };
    let Some((first, header)) = files.first().zip(headers.first()).filter(|_| !set) else { return Ok(None) };
    match files.iter().zip(headers).find(|(_, other)| of(other) != of(header)) {
        None => Ok(Some(of(header))),
        Some((other, unlike)) => {
            let (is, was) = (of(unlike), of(header));
            let example = if key == "channels" { 1 } else { is.min(was) };
            let reason = format!(
                "has {is} {unit}, but {} has {was}; set `data.{key}`, for example to {example}, to bring all to the same",
                first.display()
            );
            Err(Error::file(other, reason))
        }
    }
}

/// The splits of a data set, before any preparation.
pub struct Opened {
    /// Clips to train on.
    pub train: Labelled,
    /// Clips to evaluate on.
    pub eval: Labelled,
    /// Where the evaluation split comes from, in words.
    pub eval_from: &'static str,
    /// Clips of a test split that lies beside a validation split, and is left alone.
    pub set_aside: usize,
}

/// The splits of a resolved `[data]`.
///
/// # Errors
/// A file is missing, malformed or of a class that is not in `class_names`; a split is empty.
pub fn open(data: &Data) -> Result<Opened> {
    let opened = splits(data)?;
    if data.check {
        for set in [&opened.train, &opened.eval] {
            check(data, set)?;
        }
    }
    Ok(opened)
}

/// As [`open`], without a look into the files.
pub(crate) fn splits(data: &Data) -> Result<Opened> {
    let (train, eval, eval_from, set_aside) = if data.format == Format::Tones {
        (generated(data, false)?, generated(data, true)?, "the generator", 0)
    } else {
        let path = path(data)?;
        let found = read(data, &path)?;
        match (&data.eval_path, found.train, found.eval) {
            (Some(eval_path), Some(train), _) | (Some(eval_path), None, Some(train)) => {
                let other = Data { format: detect(eval_path)?, ..data.clone() };
                let found = read(&other, eval_path)?;
                let eval =
                    found.eval.or(found.train).ok_or_else(|| Error::file(eval_path, "holds no clips"))?;
                (train, eval, "`eval_path`", 0)
            }
            (None, Some(train), Some(eval)) => {
                let from = if data.speaker.is_some() {
                    "all clips of a speaker"
                } else {
                    "the split of the data set"
                };
                (train, eval, from, found.set_aside)
            }
            (None, Some(all), None) => {
                let (train, eval) = hold_out(all, data.val_fraction, &path)?;
                (train, eval, "held out of the training clips by name", 0)
            }
            (None, None, Some(_)) => {
                return Err(Error::file(path, "holds clips to evaluate on but none to train on"));
            }
            (_, None, None) => return Err(Error::file(path, "holds no clips")),
        }
    };
    let limited = |set: Labelled, limit| Labelled { items: data::limited(set.items, limit), ..set };
    let (train, eval) = (limited(train, data.limit_train), limited(eval, data.limit_eval));
    Ok(Opened { train, eval, eval_from, set_aside })
}

/// What lies at `path`, which must be of the format of `data`.
fn read(data: &Data, path: &Path) -> Result<Found> {
    if !path.exists() {
        return Err(Error::file(
            path,
            "does not exist (`data.path`); expected the folder or list of a data set",
        ));
    }
    match data.format {
        Format::Fsdd => fsdd::open(path, data.speaker.as_deref()),
        Format::Folder => folder::open(path, &data.class_names),
        Format::List => list::open(path, &data.class_names),
        Format::Auto => read(&Data { format: detect(path)?, ..data.clone() }, path),
        Format::Tones => Err(Error::Config("format \"tones\" reads no files".to_owned())),
    }
}

fn generated(data: &Data, eval: bool) -> Result<Labelled> {
    let (rate, len) = (data.rate()?, if eval { data.eval } else { data.train });
    let tones = Tones {
        len,
        rate,
        channels: data.shape()?[0],
        // A frame more than the input has, so that its last column is whole.
        samples: ((data.seconds + data.fbank.frame_length / 1000.0) * f64::from(rate)).ceil() as usize,
        seed: data.seed,
        eval,
    };
    let items = (0..len).map(|index| (index as u32, tones::label(index))).collect();
    Ok(Labelled { source: Arc::new(Source::Tones(tones)), items })
}

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

/// The files of both splits.
fn files(data: &Data) -> Result<Vec<PathBuf>> {
    let Opened { train, eval, .. } = splits(data)?;
    let of = |set: &Labelled| match &*set.source {
        Source::Files(files) => {
            set.items.iter().filter_map(|(at, _)| files.get(*at as usize).cloned()).collect()
        }
        Source::Tones(_) => Vec::new(),
    };
    Ok([of(&train), of(&eval)].concat())
}

/// The headers of all files; the first file that is wrong is the error, whatever the threads.
fn headers(files: &[PathBuf]) -> Result<Vec<Header>> {
    let headers: Vec<Result<Header>> = files.par_iter().map(|file| wav::header(file)).collect();
    headers.into_iter().collect()
}

/// Checks every file of a set, as far as can be told without decoding integers, which are always numbers.
///
/// # Errors
/// The first file that is wrong.
pub fn check(data: &Data, set: &Labelled) -> Result<()> {
    let Source::Files(files) = &*set.source else { return Ok(()) };
    let (rate, [channels, ..]) = (data.rate()?, data.shape()?);
    let frame = if data.features == Features::Fbank { Fbank::new(&data.fbank, rate)?.frame() } else { 1 };
    let one = |(at, _): &(u32, u32)| match files.get(*at as usize) {
        Some(file) => check_file(file, rate, channels, frame),
        None => Ok(()),
    };
    let found: Vec<Result<()>> = set.items.par_iter().map(one).collect();
    found.into_iter().collect()
}

fn check_file(file: &Path, rate: u32, channels: usize, frame: usize) -> Result<()> {
    let header = wav::header(file)?;
    if channels > 1 && header.channels != channels && header.channels != 1 {
        return Err(channels_differ(file, header.channels, channels));
    }
    let len = header.len as u128 * u128::from(rate) / u128::from(header.rate.max(1));
    if len < frame as u128 {
        let milliseconds = 1000.0 * header.len as f64 / f64::from(header.rate);
        return Err(Error::file(
            file,
            format!(
                "lasts {milliseconds:.1} ms, which is shorter than a frame; expected at least {:.1} ms",
                1000.0 * frame as f64 / f64::from(rate)
            ),
        ));
    }
    if header.float { wav::read(file).map(drop) } else { Ok(()) }
}

/// The error of a file that cannot be brought to `wanted` channels.
pub(crate) fn channels_differ(file: &Path, found: usize, wanted: usize) -> Error {
    Error::file(
        file,
        format!("has {found} channels, expected {wanted} or 1 (`data.channels`; 1 is the mean of all)"),
    )
}

fn path(data: &Data) -> Result<PathBuf> {
    data.path.clone().ok_or_else(|| Error::Config("missing key `data.path`".to_owned()))
}
