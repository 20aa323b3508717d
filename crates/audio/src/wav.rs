//! WAV files: integers of 8 to 32 bits or 32-bit floats, any rate, one channel or several.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read, Seek},
    path::Path,
};

use hound::{SampleFormat, WavReader};
use ophidian_core::{Error, Result};

/// Sample rates that are believed, in Hz.
pub const RATES: std::ops::RangeInclusive<u32> = 1000..=768_000;

/// The most channels of a file.
pub const MAX_CHANNELS: u16 = 64;

/// The largest sample of a float file: what 32-bit integers written as floats reach.
const MAX_SAMPLE: f32 = 2_147_483_648.0;

/// What the header of a file says, held against the file's size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Samples a second.
    pub rate: u32,
    /// Channels.
    pub channels: usize,
    /// Samples of each channel, at least 1.
    pub len: usize,
    /// Bits of a sample.
    pub bits: u16,
    /// Samples are floats, which need not be numbers.
    pub float: bool,
}

/// The samples of a file: integers between -1 and 1, floats as they are.
#[derive(Debug, Clone, PartialEq)]
pub struct Wave {
    /// Samples a second.
    pub rate: u32,
    /// The samples of each channel, all as many.
    pub channels: Vec<Vec<f32>>,
}

/// Reads the header of the file at `path` alone.
///
/// # Errors
/// [`Error::File`] if the file is no WAV file, holds no samples, or fewer than its header says.
pub fn header(path: &Path) -> Result<Header> {
    let (file, size) = open(path)?;
    parse(path, BufReader::new(file), size)
}

/// Reads the file at `path`.
///
/// # Errors
/// As [`header`], and if a sample is not a number.
pub fn read(path: &Path) -> Result<Wave> {
    let (mut file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| Error::file(path, error))?;
    decode(path, &bytes)
}

/// Reads the bytes of a file; errors call it `path`.
///
/// # Errors
/// As [`read`].
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Wave> {
    if bytes.is_empty() {
        return Err(empty(path));
    }
    let header = parse(path, Cursor::new(bytes), bytes.len() as u64)?;
    let mut reader = WavReader::new(bytes).map_err(|error| wrong(path, &error))?;
    let mut channels = vec![Vec::with_capacity(header.len); header.channels];
    let mut put = |at: usize, sample: f32| {
        if let Some(channel) = channels.get_mut(at % header.channels) {
            channel.push(sample);
        }
    };
    if header.float {
        for (at, sample) in reader.samples::<f32>().enumerate() {
            let sample = sample.map_err(|error| wrong(path, &error))?;
            if sample.is_nan() || sample.abs() > MAX_SAMPLE {
                let reason = format!("sample {} is {sample}, expected a number", at / header.channels);
                return Err(Error::file(path, reason));
            }
            put(at, sample);
        }
    } else {
        let scale = (1.0 / f64::from(header.bits - 1).exp2()) as f32;
        for (at, sample) in reader.samples::<i32>().enumerate() {
            put(at, sample.map_err(|error| wrong(path, &error))? as f32 * scale);
        }
    }
    Ok(Wave { rate: header.rate, channels })
}

/// The file and its size.
fn open(path: &Path) -> Result<(File, u64)> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::file(path, "does not exist; expected a WAV file"),
        _ => Error::file(path, error),
    })?;
    let about = file.metadata().map_err(|error| Error::file(path, error))?;
    // A device or a pipe might never end.
    if !about.is_file() {
        return Err(Error::file(path, "is not a regular file; expected a WAV file"));
    }
    if about.len() == 0 {
        return Err(empty(path));
    }
    Ok((file, about.len()))
}

/// The header.
fn parse(path: &Path, reader: impl Read + Seek, size: u64) -> Result<Header> {
    let reader = WavReader::new(reader).map_err(|error| wrong(path, &error))?;
    let (format, samples) = (reader.spec(), u64::from(reader.len()));
    let start = reader.into_inner().stream_position().map_err(|error| Error::file(path, error))?;
    let fail = |reason: String| Err(Error::file(path, reason));
    if samples == 0 {
        return fail("holds no samples; expected at least one".to_owned());
    }
    if !RATES.contains(&format.sample_rate) {
        return fail(format!(
            "says that it has {} samples a second, expected {} to {}",
            format.sample_rate,
            RATES.start(),
            RATES.end()
        ));
    }
    if !(1..=MAX_CHANNELS).contains(&format.channels) {
        return fail(format!("says that it has {} channels, expected 1 to {MAX_CHANNELS}", format.channels));
    }
    if !(8..=32).contains(&format.bits_per_sample) {
        return fail(format!("has samples of {} bits, expected 8 to 32", format.bits_per_sample));
    }
    // Samples may take more room than their bits, but never less.
    let (bytes, left) = (u64::from(format.bits_per_sample).div_ceil(8), size.saturating_sub(start));
    if samples * bytes > left {
        return fail(format!(
            "is cut short: its header says that {samples} samples of {bytes} bytes follow, but {left} bytes do"
        ));
    }
    Ok(Header {
        rate: format.sample_rate,
        channels: usize::from(format.channels),
        len: usize::try_from(samples / u64::from(format.channels)).unwrap_or(usize::MAX),
        bits: format.bits_per_sample,
        float: format.sample_format == SampleFormat::Float,
    })
}

fn empty(path: &Path) -> Error {
    Error::file(path, "is empty; expected a WAV file")
}

fn wrong(path: &Path, error: &hound::Error) -> Error {
    let reason = match error {
        hound::Error::IoError(_) => "the file ends within its header or samples".to_owned(),
        other => other.to_string().trim_end_matches('.').to_owned(),
    };
    let expected = "integers of 8 to 32 bits or 32-bit floats";
    Error::file(path, format!("is not a whole WAV file: {reason}; expected {expected}"))
}
