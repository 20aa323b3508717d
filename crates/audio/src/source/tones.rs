//! A generator of sounds of eight kinds, so that everything can be tried without data: each at a random pitch, loudness and
//! time, with its overtones, among noise.

use std::f64::consts::TAU;

use ophidian_core::{
    Result,
    rng::{self, Rng},
};
use rand::RngExt;

use super::no_clip;
use crate::wav::Wave;

/// What is drawn.
const CLASSES: [&str; 8] = ["steady", "rising", "falling", "vibrato", "tremolo", "pulses", "chord", "noise"];

/// Semitones between 150 and 600 Hz, where pitches lie.
const SEMITONES: f64 = 24.0;

/// Class names in the order of their labels.
pub fn classes() -> Vec<String> {
    CLASSES.map(str::to_owned).to_vec()
}

/// The kind of sound `index`.
pub fn label(index: usize) -> u32 {
    (index % CLASSES.len()) as u32
}

/// A data set of drawn sounds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tones {
    /// How many.
    pub len: usize,
    /// Samples a second.
    pub rate: u32,
    /// Channels, all alike.
    pub channels: usize,
    /// Samples of a clip.
    pub samples: usize,
    /// Draws differ by it.
    pub seed: u64,
    /// Draws of the split that is trained on and of that evaluated on differ.
    pub eval: bool,
}

impl Tones {
    /// Sound `index`, the same whenever it is asked for.
    ///
    /// # Errors
    /// There is none.
    pub fn wave(&self, index: usize) -> Result<Wave> {
        if index >= self.len {
            return Err(no_clip(index, self.len));
        }
        // "ton": a stream of its own among all that a seed is used for.
        let mut rng = rng::stream(&[0x74_6f_6e, self.seed, u64::from(self.eval), index as u64]);
        let signal = self.signal(label(index), &mut rng);
        Ok(Wave { rate: self.rate, channels: vec![signal; self.channels] })
    }

    fn signal(&self, kind: u32, rng: &mut Rng) -> Vec<f32> {
        let seconds = self.samples as f64 / f64::from(self.rate);
        let pitch = 150.0 * (rng.random_range(0.0..SEMITONES) / 12.0).exp2();
        let length = seconds * rng.random_range(0.5..0.9);
        let start = rng.random_range(0.0..(seconds - length).max(1e-9));
        let level = 10f64.powf(rng.random_range(-30.0..-10.0) / 20.0);
        let hiss = level * 10f64.powf(rng.random_range(-30.0..-15.0) / 20.0);
        let overtones: Vec<f64> = (1..=4).map(|n| rng.random_range(0.2..1.0) / f64::from(n)).collect();
        let slide = rng.random_range(0.7..1.2) / length;
        let wobble = rng.random_range(5.0..9.0);
        let mut phase = rng.random_range(0.0..1.0);
        let mut walk = 0.0;
        let sample = |i: usize| {
            let time = i as f64 / f64::from(self.rate) - start;
            let white = rng.random_range(-1.0..1.0);
            let frequency = pitch
                * match kind {
                    1 => (slide * time).exp2(),
                    2 => (-slide * time).exp2(),
                    3 => (0.12 * (TAU * wobble * time).sin()).exp2(),
                    _ => 1.0,
                };
            phase += frequency / f64::from(self.rate);
            let tone = |ratio: f64| -> f64 {
                overtones
                    .iter()
                    .zip(1u32..)
                    .map(|(a, n)| a * (TAU * f64::from(n) * ratio * phase).sin())
                    .sum()
            };
            walk = 0.7 * walk + white;
            let sound = match kind {
                4 => tone(1.0) * (0.55 + 0.45 * (TAU * wobble * time).sin()),
                5 => tone(1.0) * f64::from(u8::from((wobble * time).rem_euclid(1.0) < 0.35)),
                6 => (tone(1.0) + tone(1.25) + tone(1.5)) / 2.0,
                7 => walk,
                _ => tone(1.0),
            };
            // In and out over a hundredth of a second.
            let envelope = (time.min(length - time) / 0.01).clamp(0.0, 1.0);
            ((level * envelope * sound + hiss * white) as f32).clamp(-1.0, 1.0)
        };
        (0..self.samples).map(sample).collect()
    }
}
