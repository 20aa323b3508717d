//! The chunks of a RIFF file, held against each other and against the file's size: what `hound` leaves to its caller.

use std::{
    io::{Read, Seek, SeekFrom},
    ops::Range,
};

/// The most bytes of a `fmt ` chunk, and the most chunks of a file.
const FORMAT: u32 = 4096;
const CHUNKS: usize = 10_000;
/// What a writer leaves as a length that did not know it, and could not go back: a pipe, a stream.
const UNKNOWN: u32 = u32::MAX;
/// Bytes of a chunk's id and length.
const HEAD: u64 = 8;

/// Where the parts of a WAV file lie.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    /// What the `fmt ` chunk holds.
    pub format: Vec<u8>,
    /// The bytes of the samples, from the start of the file.
    pub data: Range<u64>,
    /// Its length was not known to the writer.
    pub streamed: bool,
}

type Step<T> = std::result::Result<T, String>;

/// Walks over all chunks of a file of `size` bytes. Whatever the header says of lengths has to be so, but for two things
/// that writers do: a byte of padding may be missing or uncounted at the end, and a stream has lengths of 0xFFFFFFFF,
/// which mean the rest of the file.
///
/// # Errors
/// In words, what is wrong; nothing larger than [`FORMAT`] is allocated.
pub(crate) fn walk(reader: &mut (impl Read + Seek), size: u64) -> Step<Layout> {
    let mut head = [0; 12];
    read(reader, &mut head[..size.min(4) as usize])?;
    if &head[..4] != b"RIFF" {
        return Err("is no WAV file: no RIFF tag found".to_owned());
    }
    read(reader, &mut head[4..])?;
    if &head[8..] != b"WAVE" {
        return Err("is no WAV file: a RIFF file, but of another kind (no WAVE tag)".to_owned());
    }
    let riff = length(&head[4..8]);
    let (mut format, mut data, mut streamed) = (None, None, false);
    let mut at = 12u64;
    for _ in 0..CHUNKS {
        // A byte may be left where the last chunk is of odd length.
        if data.is_some() && at + 1 >= size {
            let format = format.ok_or_else(|| "has no `fmt ` chunk before its samples".to_owned())?;
            let data: Range<u64> = data.unwrap_or_default();
            closes(riff, size, streamed)?;
            return Ok(Layout { format, data, streamed });
        }
        reader.seek(SeekFrom::Start(at)).map_err(|error| error.to_string())?;
        let mut chunk = [0; HEAD as usize];
        let (known, left) = (data.clone(), size - at);
        let behind = |data: Range<u64>| {
            format!(
                "says that it has {} bytes of samples, but {left} bytes are behind them that are no chunk",
                data.end - data.start
            )
        };
        if left < HEAD {
            return Err(known.map_or_else(|| "the file ends within its header".to_owned(), behind));
        }
        read(reader, &mut chunk)?;
        let (id, length) = (&chunk[..4], length(&chunk[4..]));
        let (start, room) = (at + HEAD, left - HEAD);
        let whole = u64::from(length) <= room;
        match id {
            b"fmt " if format.is_none() => {
                if length > FORMAT {
                    return Err(format!("has a `fmt ` chunk of {length} bytes, expected 16 to 40"));
                }
                let mut bytes = vec![0; length as usize];
                read(reader, &mut bytes)?;
                format = Some(bytes);
            }
            b"data" if data.is_none() => {
                if length == UNKNOWN {
                    (data, streamed) = (Some(start..size), true);
                    at = size;
                    continue;
                }
                if !whole {
                    return Err(format!(
                        "is cut short: its header says that {length} bytes of samples follow, but {room} bytes do"
                    ));
                }
                data = Some(start..start + u64::from(length));
            }
            id if !id.iter().all(|byte| (b' '..=b'~').contains(byte)) || !whole => {
                return Err(known.map_or_else(
                    || {
                        let name = String::from_utf8_lossy(id).escape_debug().to_string();
                        format!("has a chunk `{name}` of {length} bytes before its samples, but {room} bytes follow")
                    },
                    behind,
                ));
            }
            _ => {}
        }
        // Chunks begin at even places: behind one of odd length lies a byte of padding.
        at = start + u64::from(length) + u64::from(length % 2);
    }
    Err(format!("has more than {CHUNKS} chunks"))
}

/// Holds the length of the whole against the file's size.
fn closes(riff: u32, size: u64, streamed: bool) -> Step<()> {
    let said = u64::from(riff) + HEAD;
    // A byte of padding may be there and not be counted, or the other way round.
    if streamed && riff == UNKNOWN || said.abs_diff(size) <= 1 {
        return Ok(());
    }
    Err(format!("says that it has {said} bytes, but has {size}"))
}

fn length(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

fn read(reader: &mut impl Read, bytes: &mut [u8]) -> Step<()> {
    reader.read_exact(bytes).map_err(|error| match error.kind() {
        std::io::ErrorKind::UnexpectedEof => "the file ends within its header".to_owned(),
        _ => error.to_string(),
    })
}
