//! Reading WAV files, whole and damaged ones.

use std::path::Path;

use ophidian_audio::wav::{self, Wave};
use proptest::prelude::*;

use crate::{Spec, error, put, says, tone, wav_bytes};

fn decode(bytes: &[u8]) -> Result<Wave, ophidian_core::Error> {
    wav::decode(Path::new("a.wav"), bytes)
}

#[test]
fn every_kind_of_sample_is_read() {
    let samples = [0.0, 0.5, -0.25, -1.0, 0.125, 0.75];
    for (bits, float) in [(8, false), (16, false), (24, false), (32, false), (32, true)] {
        for channels in [1u16, 2, 3] {
            let wave = decode(&wav_bytes((22_050, channels, bits, float), &samples)).unwrap();
            assert_eq!((wave.rate, wave.channels.len()), (22_050, usize::from(channels)));
            for (c, channel) in wave.channels.iter().enumerate() {
                let wanted: Vec<f32> =
                    samples.iter().skip(c).step_by(usize::from(channels)).map(|x| *x as f32).collect();
                assert_eq!(channel, &wanted, "{bits} bits, {channels} channels, float: {float}");
            }
        }
    }
}

/// Where the data chunk's length stands in a file of hound's.
fn length_at(bytes: &[u8]) -> usize {
    bytes.windows(4).position(|four| four == b"data").unwrap() + 4
}

/// `bytes` with the length of the whole as it is.
fn close(mut bytes: Vec<u8>) -> Vec<u8> {
    let length = (bytes.len() as u32 - 8).to_le_bytes();
    bytes[4..8].copy_from_slice(&length);
    bytes
}

/// A chunk, with its byte of padding if it is of odd length.
fn chunk(id: &[u8; 4], content: &[u8]) -> Vec<u8> {
    let mut bytes = id.to_vec();
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(2), 0);
    bytes
}

#[test]
fn what_real_writers_do_is_read() {
    let samples = tone(101, 0.1);
    let plain = wav_bytes((8000, 1, 8, false), &samples);
    let wanted = decode(&plain).unwrap();
    let at = length_at(&plain);
    let (head, data) = (&plain[..at - 4], &plain[at + 4..at + 4 + 101]);
    let odd = |sizes: &[&[u8]]| close(sizes.concat());
    let padded = chunk(b"data", data);
    let list = chunk(b"LIST", b"INFOISFT\x05\0\0\0odd!!");
    let cases = [
        ("an odd chunk before", odd(&[head, &list, &padded])),
        ("an odd chunk behind", odd(&[head, &padded, &list])),
        ("a tag behind", odd(&[head, &padded, &chunk(b"id3 ", &[7; 30])])),
        ("padding that is not there", odd(&[head, &padded[..padded.len() - 1]])),
        ("padding that is not counted", {
            let mut bytes = odd(&[head, &padded]);
            bytes[4] -= 1;
            bytes
        }),
        ("a stream", {
            let mut bytes = odd(&[head, &padded[..padded.len() - 1]]);
            bytes[4..8].fill(0xff);
            bytes[at..at + 4].fill(0xff);
            bytes
        }),
    ];
    for (name, bytes) in cases {
        assert_eq!(decode(&bytes).unwrap_or_else(|error| panic!("{name}: {error}")), wanted, "{name}");
    }
    // A stream of two bytes a sample that ends within one.
    let mut stream = wav_bytes((8000, 1, 16, false), &samples);
    let at = length_at(&stream);
    stream[4..8].fill(0xff);
    stream[at..at + 4].fill(0xff);
    stream.push(9);
    assert_eq!(decode(&stream).unwrap().channels[0].len(), 101);
}

#[test]
fn bits_that_fill_no_byte_are_the_upper_ones() {
    let samples = [0.0, 0.5, -0.25, -1.0, 0.125, 0.75];
    for (bits, room) in [(9u16, 16u16), (12, 16), (20, 24), (20, 32), (31, 32)] {
        let mut plain = wav_bytes((8000, 2, room.min(24), false), &samples);
        let at = length_at(&plain);
        if room == 32 {
            // The same in one byte more.
            let data: Vec<u8> = plain[at + 4..].chunks(3).flat_map(|three| [&[0], three].concat()).collect();
            plain.truncate(at - 4);
            plain.extend(chunk(b"data", &data));
        }
        let data = plain[plain.windows(4).position(|four| four == b"data").unwrap()..].to_vec();
        let format = |kind: u16, room: u16, bits: u16| {
            let frame = 2 * bits.div_ceil(8).max(room / 8);
            let mut bytes = Vec::new();
            for field in [kind, 2] {
                bytes.extend(field.to_le_bytes());
            }
            bytes.extend(8000u32.to_le_bytes());
            bytes.extend((8000 * u32::from(frame)).to_le_bytes());
            for field in [frame, if kind == 1 { bits } else { room }] {
                bytes.extend(field.to_le_bytes());
            }
            if kind != 1 {
                for field in [22, bits, 3, 0, 1, 0] {
                    bytes.extend(u16::to_le_bytes(field));
                }
                bytes.extend(*b"\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71");
            }
            bytes
        };
        for kind in [1, 0xfffe] {
            let file =
                [b"RIFF\0\0\0\0WAVE".to_vec(), chunk(b"fmt ", &format(kind, room, bits)), data.clone()];
            let file = close(file.concat());
            let wave = decode(&file).unwrap_or_else(|error| panic!("{bits} in {room}, {kind}: {error}"));
            assert_eq!(wave.channels, [[0.0, -0.25, 0.125], [0.5, -1.0, 0.75]], "{bits} in {room}, {kind}");
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(wav::header(&put(folder.path(), "a.wav", &file)).unwrap().bits, bits);
        }
    }
}

#[test]
fn broken_files_say_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let good = wav_bytes((8000, 1, 16, false), &tone(100, 0.1));
    let at = length_at(&good);
    let with = |place: usize, value: &[u8]| {
        let mut bytes = good.clone();
        bytes[place..place + value.len()].copy_from_slice(value);
        bytes
    };
    let nan = {
        let mut bytes = wav_bytes((8000, 1, 32, true), &tone(100, 0.1));
        let end = bytes.len();
        bytes[end - 8..end - 4].copy_from_slice(&f32::NAN.to_le_bytes());
        bytes
    };
    let whole = |head: &[u8], length: u32, samples: &[u8]| {
        let mut bytes = head[..at].to_vec();
        bytes.extend(length.to_le_bytes());
        bytes.extend(samples);
        close(bytes)
    };
    let cases: [(&str, Vec<u8>, &[&str]); 16] = [
        ("empty", vec![], &["is empty", "expected a WAV file"]),
        (
            "text",
            b"not a sound at all, but long enough for a header of one".to_vec(),
            &["no RIFF tag", "expected"],
        ),
        ("header alone", good[..30].to_vec(), &["ends within its header"]),
        ("cut", good[..good.len() - 50].to_vec(), &["is cut short", "200 bytes of samples", "150 bytes do"]),
        ("no samples", wav_bytes((8000, 1, 16, false), &[]), &["holds no samples"]),
        // A claim of 4 GB allocates nothing.
        ("lies", with(at, &0xffff_fffeu32.to_le_bytes()), &["is cut short", "4294967294 bytes of samples"]),
        ("too few", with(at, &100u32.to_le_bytes()), &["has 100 bytes of samples", "100 bytes are behind"]),
        ("none", with(at, &0u32.to_le_bytes()), &["has 0 bytes of samples", "200 bytes are behind"]),
        ("short whole", with(4, &100u32.to_le_bytes()), &["says that it has 108 bytes", "but has 244"]),
        ("long whole", with(4, &1000u32.to_le_bytes()), &["says that it has 1008 bytes", "but has 244"]),
        ("no whole", with(4, &[0; 4]), &["says that it has 8 bytes", "but has 244"]),
        ("odd", whole(&good[..at + 7], 3, &good[at + 4..at + 7]), &["not a multiple of sample size"]),
        ("no channels", with(22, &0u16.to_le_bytes()), &["zero channels"]),
        ("slow", wav_bytes((10, 1, 16, false), &tone(100, 0.1)), &["10 samples a second", "expected 1000"]),
        ("no number", nan.clone(), &["sample 98 is NaN", "expected a number"]),
        ("adpcm", with(20, &2u16.to_le_bytes()), &["of a kind that is not read", "integers of 8 to 32 bits"]),
    ];
    for (name, bytes, parts) in cases {
        let name = format!("{name}.wav");
        let path = put(folder.path(), &name, &bytes);
        let said = error(wav::read(&path));
        says(&said, &[&name]);
        says(&said, parts);
        if !name.starts_with("no number") {
            assert_eq!(error(wav::header(&path)), said, "a look at the header tells as much");
        }
    }
    assert!(wav::header(&put(folder.path(), "nan.wav", &nan)).unwrap().float);
    says(&error(wav::read(&folder.path().join("absent.wav"))), &["absent.wav", "does not exist"]);
    says(&error(wav::read(folder.path())), &["not a regular file"]);
}

/// Numbers that are no numbers do not get past.
fn finite(wave: &Wave) -> bool {
    let len = wave.channels[0].len();
    wave.channels.iter().all(|channel| channel.len() == len && channel.iter().all(|x| x.is_finite()))
}

fn spec() -> impl Strategy<Value = Spec> {
    let kinds = prop_oneof![
        Just((8u16, false)),
        Just((16, false)),
        Just((24, false)),
        Just((32, false)),
        Just((32, true))
    ];
    (1000u32..96_000, 1u16..4, kinds)
        .prop_map(|(rate, channels, (bits, float))| (rate, channels, bits, float))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn what_is_written_is_read(spec in spec(), frames in 1usize..200) {
        let samples = tone(frames * usize::from(spec.1), 0.37);
        let wave = decode(&wav_bytes(spec, &samples)).unwrap();
        let step = if spec.3 { 1e-7 } else { f64::from(1 - i32::from(spec.2)).exp2() };
        for (i, sample) in samples.iter().enumerate() {
            let (frame, channel) = (i / usize::from(spec.1), i % usize::from(spec.1));
            let found = f64::from(wave.channels[channel][frame]);
            prop_assert!((found - sample).abs() <= 0.5 * step + 1e-7, "{found} for {sample}");
        }
    }

    #[test]
    fn damaged_bytes_are_read_or_refused(
        spec in spec(),
        frames in 0usize..50,
        damage in proptest::collection::vec((0usize..64, any::<u8>()), 0..8),
        cut in proptest::option::of(0usize..300),
    ) {
        let mut bytes = wav_bytes(spec, &tone(frames * usize::from(spec.1), 0.2));
        for (at, value) in damage {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = value;
            }
        }
        bytes.truncate(cut.unwrap_or(usize::MAX));
        if let Ok(wave) = decode(&bytes) {
            let held: usize = wave.channels.iter().map(Vec::len).sum();
            prop_assert!(finite(&wave) && held > 0 && held <= bytes.len());
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(wave) = decode(&bytes) {
            prop_assert!(finite(&wave));
        }
    }
}
