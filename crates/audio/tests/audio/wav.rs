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
    let cases: [(&str, Vec<u8>, &[&str]); 11] = [
        ("empty", vec![], &["is empty", "expected a WAV file"]),
        (
            "text",
            b"not a sound at all, but long enough for a header of one".to_vec(),
            &["no RIFF tag", "expected"],
        ),
        ("header alone", good[..30].to_vec(), &["ends within its header"]),
        (
            "cut",
            good[..good.len() - 50].to_vec(),
            &["is cut short", "100 samples of 2 bytes", "150 bytes do"],
        ),
        ("no samples", wav_bytes((8000, 1, 16, false), &[]), &["holds no samples"]),
        // A claim of 4 GB allocates nothing.
        ("lies", with(at, &0xffff_fffeu32.to_le_bytes()), &["is cut short", "2147483647 samples"]),
        ("odd", with(at, &0x7fu32.to_le_bytes()), &["not a multiple of sample size"]),
        ("no channels", with(22, &0u16.to_le_bytes()), &["zero channels"]),
        ("slow", wav_bytes((10, 1, 16, false), &tone(100, 0.1)), &["10 samples a second", "expected 1000"]),
        ("no number", nan.clone(), &["sample 98 is NaN", "expected a number"]),
        ("adpcm", with(20, &2u16.to_le_bytes()), &["not supported", "integers of 8 to 32 bits"]),
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
