//! The audio adapter: files, features, data sets, models, and what is said about those that are wrong.
#![allow(clippy::print_stderr)] // a test that is skipped says so

mod adapter;
mod augment;
mod fbank;
mod models;
mod real;
mod sources;
#[path = "../../../core/tests/support/mod.rs"]
mod support;
mod wav;

use std::path::{Path, PathBuf};

use ophidian_core::Error;

use support::{shared, table};

/// The message of what must fail.
fn error<T>(result: Result<T, Error>) -> String {
    match result {
        Ok(_) => panic!("no error"),
        Err(error) => error.to_string(),
    }
}

fn says(message: &str, parts: &[&str]) {
    for part in parts {
        assert!(message.contains(part), "`{message}` does not say `{part}`");
    }
}

/// The format of a WAV file: (rate, channels, bits, float).
type Spec = (u32, u16, u16, bool);

/// A WAV file of `samples`, between -1 and 1, channels in turn.
fn wav_bytes((rate, channels, bits, float): Spec, samples: &[f64]) -> Vec<u8> {
    let sample_format = if float { hound::SampleFormat::Float } else { hound::SampleFormat::Int };
    let spec = hound::WavSpec { channels, sample_rate: rate, bits_per_sample: bits, sample_format };
    let mut bytes = std::io::Cursor::new(Vec::new());
    let mut writer = hound::WavWriter::new(&mut bytes, spec).unwrap();
    for sample in samples {
        if float {
            writer.write_sample(*sample as f32).unwrap();
        } else {
            let full = f64::from(bits - 1).exp2();
            writer.write_sample((sample * full).round().clamp(-full, full - 1.0) as i32).unwrap();
        }
    }
    writer.finalize().unwrap();
    bytes.into_inner()
}

fn put(folder: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(&path, bytes).unwrap();
    path
}

/// `len` samples of a tone.
fn tone(len: usize, step: f64) -> Vec<f64> {
    (0..len).map(|i| 0.5 * (i as f64 * step).sin()).collect()
}

/// A mono file of 8000 samples a second.
fn put_tone(folder: &Path, name: &str, len: usize, step: f64) -> PathBuf {
    put(folder, name, &wav_bytes((8000, 1, 16, false), &tone(len, step)))
}
