//! Filter banks: torchaudio's own numbers, and a reference from the definition in f64. Resampling.

use std::f64::consts::PI;

use ophidian_audio::{
    fbank::{Fbank, Settings, Window},
    resample::Resampler,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::{error, says};

/// Numbers of torchaudio's `compliance.kaldi.fbank`, whose settings have other names.
#[test]
fn torchaudio_has_the_same_numbers() {
    let file: Value = serde_json::from_str(include_str!("../data/fbank.json")).unwrap();
    let numbers = |value: &Value| -> Vec<f64> {
        value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
    };
    let samples: Vec<f32> = numbers(&file["samples"]).iter().map(|x| (x / 32768.0) as f32).collect();
    for case in file["cases"].as_array().unwrap() {
        let (theirs, ours) = (&case["settings"], Settings::default());
        let number = |key: &str, default: f64| theirs[key].as_f64().unwrap_or(default);
        let settings = Settings {
            mels: theirs["num_mel_bins"].as_u64().unwrap() as usize,
            frame_length: number("frame_length", ours.frame_length),
            frame_shift: number("frame_shift", ours.frame_shift),
            window: serde_json::from_value(theirs["window_type"].clone()).unwrap(),
            preemphasis: number("preemphasis_coefficient", ours.preemphasis),
            low: number("low_freq", ours.low),
            high: number("high_freq", ours.high),
        };
        let fbank = Fbank::new(&settings, theirs["sample_frequency"].as_u64().unwrap() as u32).unwrap();
        let (bands, frames) = fbank.compute(&samples, usize::MAX).unwrap();
        assert_eq!(frames as u64, case["frames"].as_u64().unwrap());
        let wanted = numbers(&case["bands"]);
        assert_eq!(bands.len(), wanted.len());
        for (found, wanted) in bands.iter().zip(wanted) {
            assert!((f64::from(*found) - wanted).abs() < 1e-3, "{settings:?}: {found} for {wanted}");
        }
    }
}

/// The definition, by a discrete Fourier transform as it is written.
fn reference(s: &Settings, rate: f64, signal: &[f32]) -> Vec<Vec<f64>> {
    let (length, shift) =
        ((rate * s.frame_length / 1000.0) as usize, (rate * s.frame_shift / 1000.0) as usize);
    let padded = length.next_power_of_two();
    let mel = |f: f64| 1127.0 * (1.0 + f / 700.0).ln();
    let high = if s.high > 0.0 { s.high } else { rate / 2.0 + s.high };
    let step = (mel(high) - mel(s.low)) / (s.mels as f64 + 1.0);
    let mut frames = Vec::new();
    let mut start = 0;
    while start + length <= signal.len() {
        let frame: Vec<f64> = signal[start..start + length].iter().map(|x| f64::from(*x)).collect();
        let mean = frame.iter().sum::<f64>() / length as f64;
        let clean: Vec<f64> = frame.iter().map(|x| x - mean).collect();
        let windowed: Vec<f64> = (0..length)
            .map(|i| {
                let a = 2.0 * PI * i as f64 / (length as f64 - 1.0);
                let window = match s.window {
                    Window::Hanning => 0.5 - 0.5 * a.cos(),
                    Window::Povey => (0.5 - 0.5 * a.cos()).powf(0.85),
                    Window::Hamming => 0.54 - 0.46 * a.cos(),
                    Window::Blackman => 0.42 - 0.5 * a.cos() + 0.08 * (2.0 * a).cos(),
                    Window::Rectangular => 1.0,
                };
                (clean[i] - s.preemphasis * clean[i.max(1) - 1]) * window
            })
            .collect();
        let power: Vec<f64> = (0..padded / 2)
            .map(|k| {
                let turn = |i: usize| 2.0 * PI * ((k * i) % padded) as f64 / padded as f64;
                let re: f64 = windowed.iter().enumerate().map(|(i, x)| x * turn(i).cos()).sum();
                let im: f64 = windowed.iter().enumerate().map(|(i, x)| x * turn(i).sin()).sum();
                re * re + im * im
            })
            .collect();
        let band = |m: usize| {
            let (left, centre, right) = (
                mel(s.low) + m as f64 * step,
                mel(s.low) + (m + 1) as f64 * step,
                mel(s.low) + (m + 2) as f64 * step,
            );
            let weight = |k: usize| {
                let at = mel(k as f64 * rate / padded as f64);
                ((at - left) / (centre - left)).min((right - at) / (right - centre)).max(0.0)
            };
            (0..padded / 2).map(|k| weight(k) * power[k]).sum::<f64>().max(f64::from(f32::EPSILON)).ln()
        };
        frames.push((0..s.mels).map(band).collect());
        start += shift;
    }
    frames
}

fn settings() -> impl Strategy<Value = (Settings, u32)> {
    let window = prop_oneof![
        Just(Window::Hanning),
        Just(Window::Povey),
        Just(Window::Hamming),
        Just(Window::Blackman),
        Just(Window::Rectangular)
    ];
    (
        1usize..40,
        5.0..30.0f64,
        2.0..30.0f64,
        window,
        0.0..1.0f64,
        0.0..300.0f64,
        -500.0..1400.0f64,
        4000u32..12_000,
    )
        .prop_map(|(mels, frame_length, frame_shift, window, preemphasis, low, high, rate)| {
            let high = if (0.0..=low + 50.0).contains(&high) { 0.0 } else { high };
            (Settings { mels, frame_length, frame_shift, window, preemphasis, low, high }, rate)
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn every_setting_computes_its_definition((settings, rate) in settings(), more in 0usize..600, level in -4.0..0.0f64) {
        let fbank = Fbank::new(&settings, rate).unwrap();
        let mut noise = 1u64;
        let signal: Vec<f32> = (0..fbank.frame() + more)
            .map(|i| {
                noise = noise.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                let white = (noise >> 40) as f64 / f64::from(1 << 24) - 0.5;
                (10f64.powf(level) * (white + (0.3 * i as f64).sin()) + 0.1) as f32
            })
            .collect();
        let (bands, frames) = fbank.compute(&signal, usize::MAX).unwrap();
        let wanted = reference(&settings, f64::from(rate), &signal);
        prop_assert_eq!(frames, wanted.len());
        prop_assert_eq!(fbank.frames(signal.len()), frames);
        for (t, frame) in wanted.iter().enumerate() {
            for (m, wanted) in frame.iter().enumerate() {
                let found = f64::from(bands[m * frames + t]);
                prop_assert!((found - wanted).abs() < 1e-4 * (1.0 + wanted.abs()), "{found} for {wanted}");
            }
        }
        // Frames are those of the part that they reach over.
        let (few, count) = fbank.compute(&signal[..fbank.span(1)], 7).unwrap();
        prop_assert_eq!(count, 1);
        prop_assert_eq!(few[0], bands[0]);
    }
}

#[test]
fn settings_that_cannot_be_say_so() {
    let wrong: [(Settings, u32, &[&str]); 6] = [
        (Settings { mels: 0, ..Settings::default() }, 8000, &["`data.fbank.mels` is 0"]),
        (Settings { frame_length: f64::NAN, ..Settings::default() }, 8000, &["frame_length"]),
        (Settings { low: 5000.0, ..Settings::default() }, 8000, &["`low` 5000", "4000 Hz"]),
        (Settings { high: 4001.0, ..Settings::default() }, 8000, &["`high` 4001"]),
        (Settings { frame_length: 0.1, ..Settings::default() }, 8000, &["0 samples", "at least 2"]),
        (Settings { preemphasis: 1.5, ..Settings::default() }, 8000, &["preemphasis"]),
    ];
    for (settings, rate, parts) in wrong {
        says(&error(Fbank::new(&settings, rate)), parts);
    }
    let fbank = Fbank::new(&Settings::default(), 8000).unwrap();
    says(&error(fbank.compute(&[0.0; 199], 10)), &["199 samples", "a frame of 200"]);
}

/// A tone below both halves of the rates is the same tone, at its time, whatever was resampled before.
#[test]
fn resampling_keeps_a_tone_and_its_time() {
    for (from, to) in [(44_100, 16_000), (8000, 16_000), (16_000, 8000), (48_000, 44_100), (11_025, 8000)] {
        let resampler = Resampler::new(to);
        let signal = |rate: u32, len: usize| -> Vec<f32> {
            (0..len).map(|i| (2.0 * PI * 440.0 * i as f64 / f64::from(rate)).sin() as f32).collect()
        };
        let first = resampler.run(signal(from, from as usize), from).unwrap();
        resampler.run(vec![1.0; 777], from).unwrap();
        let again = resampler.run(signal(from, from as usize), from).unwrap();
        assert_eq!(first, again, "nothing is left of a clip");
        assert!(first.len().abs_diff(to as usize) <= 1, "{} of {to}", first.len());
        // Within the clip: at its ends silence is assumed beyond.
        for (i, (found, wanted)) in first.iter().zip(signal(to, to as usize)).enumerate() {
            let inside = i > to as usize / 20 && i < to as usize * 19 / 20;
            assert!(!inside || (found - wanted).abs() < 1e-3, "{from} to {to}, {i}: {found} for {wanted}");
        }
    }
    let same = Resampler::new(8000);
    assert_eq!(same.run(vec![1.0, 2.0], 8000).unwrap(), [1.0, 2.0]);
    assert_eq!((same.before(10, 16_000), same.before(1, 44_100)), (20, 6));
}
