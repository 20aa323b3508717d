//! WAV files: integers of 8 to 32 bits or 32-bit floats, any rate, one channel or several.
//!
//! A header has to tell the truth about lengths: of the file, of the samples, and of the chunks around them. What real
//! writers do passes: chunks of odd length with their byte of padding, tags and lists before or behind the samples, and
//! lengths of 0xFFFFFFFF, which a stream has in place of those that its writer did not know (then the rest of the file is
//! samples). Samples of 12 or 20 bits and the like lie in the upper bits of whole bytes.

use std::{
    fs::File,
    io::{BufReader, Cursor, Read, Seek},
    ops::Range,
    path::Path,
};

use hound::{SampleFormat, WavReader};
use ophidian_core::{Error, Result};

use crate::riff::{self, Layout};

/// Kinds of samples in a `fmt ` chunk: integers, and what is said further on.
const PCM: u16 = 1;
const EXTENSIBLE: u16 = 0xFFFE;

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
    Ok(parse(path, BufReader::new(file), size)?.0)
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
    let (header, parts) = parse(path, Cursor::new(bytes), bytes.len() as u64)?;
    let data = bytes.get(parts.data.start as usize..parts.data.end as usize).unwrap_or_default();
    let mut reader = WavReader::new(parts.head.chain(data)).map_err(|error| wrong(path, &error))?;
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
        let scale = (1.0 / f64::from(reader.spec().bits_per_sample - 1).exp2()) as f32;
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

/// The header, and where the samples lie.
fn parse(path: &Path, mut reader: impl Read + Seek, size: u64) -> Result<(Header, Parts)> {
    let fail = |reason: String| Err(Error::file(path, reason));
    let layout = match riff::walk(&mut reader, size) {
        Ok(layout) => layout,
        Err(reason) => return fail(format!("{reason}; expected a whole WAV file")),
    };
    let parts = Parts::of(&layout);
    let bits = parts.bits;
    let reader = WavReader::new(parts.head.as_slice()).map_err(|error| wrong(path, &error))?;
    let (format, samples) = (reader.spec(), u64::from(reader.len()));
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
    if !(8..=32).contains(&bits) {
        return fail(format!("has samples of {bits} bits, expected 8 to 32"));
    }
    let header = Header {
        rate: format.sample_rate,
        channels: usize::from(format.channels),
        len: usize::try_from(samples / u64::from(format.channels)).unwrap_or(usize::MAX),
        bits,
        float: format.sample_format == SampleFormat::Float,
    };
    Ok((header, parts))
}

/// A file as `hound` reads it.
struct Parts {
    /// A header without what `hound` makes nothing of: other chunks, lengths of streams, bits that fill no byte.
    head: Vec<u8>,
    /// The bytes of the samples, from the start of the file.
    data: Range<u64>,
    /// Bits of a sample, as the file has them.
    bits: u16,
}

impl Parts {
    fn of(layout: &Layout) -> Self {
        let field = |at: usize| {
            let bytes = layout.format.get(at..at + 2).unwrap_or(&[0, 0]);
            u16::from_le_bytes([bytes[0], bytes[1]])
        };
        let (kind, channels, frame, room, valid) = (field(0), field(2), field(12), field(14), field(18));
        let integers = kind == PCM || kind == EXTENSIBLE && field(24) == PCM;
        let bits = if kind == EXTENSIBLE && valid > 0 { valid } else { room };
        let mut format = layout.format.clone();
        // Twelve bits lie in the upper ones of sixteen, and twenty in those of twenty-four: they are read as such.
        let container = frame.checked_div(channels).unwrap_or(0).saturating_mul(8);
        if integers && !bits.is_multiple_of(8) && (9..=container.min(32)).contains(&bits) {
            format.truncate(16);
            format[..2].copy_from_slice(&PCM.to_le_bytes());
            format[14..].copy_from_slice(&container.to_le_bytes());
        }
        let mut data = layout.data.clone();
        // A stream may end within a frame.
        if layout.streamed && frame > 0 {
            data.end -= (data.end - data.start) % u64::from(frame);
        }
        let length = |bytes: u64| u32::try_from(bytes).unwrap_or(u32::MAX).to_le_bytes();
        let mut head = b"RIFF".to_vec();
        head.extend(length(28 + format.len() as u64 + data.end - data.start));
        head.extend(b"WAVEfmt ");
        head.extend(length(format.len() as u64));
        head.extend(format);
        head.extend(b"data");
        head.extend(length(data.end - data.start));
        Parts { head, data, bits }
    }
}

fn empty(path: &Path) -> Error {
    Error::file(path, "is empty; expected a WAV file")
}

fn wrong(path: &Path, error: &hound::Error) -> Error {
    let reason = match error {
        hound::Error::IoError(_) => "the file ends within its header or samples".to_owned(),
        hound::Error::Unsupported => "its samples are of a kind that is not read".to_owned(),
        other => other.to_string().trim_end_matches('.').to_owned(),
    };
    let expected = "integers of 8 to 32 bits or 32-bit floats";
    Error::file(path, format!("cannot be read: {reason}; expected {expected}"))
}
