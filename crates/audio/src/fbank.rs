//! Log-mel filter banks as Kaldi computes them (`compute-fbank-feats`, torchaudio's `compliance.kaldi.fbank`), without
//! dither and energy: frames inside the signal alone, their mean removed, pre-emphasis, window, power spectrum, triangular
//! filters on the mel scale 1127 ln(1 + f / 700), logarithm.

use std::sync::Arc;

use ophidian_core::{Error, Result, documented};
use realfft::{RealFftPlanner, RealToComplex, num_complex::Complex64};
use serde::{Deserialize, Serialize};

/// Energies below this count as this: the machine epsilon of f32, as there.
const FLOOR: f64 = f32::EPSILON as f64;

/// The window that a frame is multiplied by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    /// (1 - cos) / 2, as AST and AuM have it.
    #[default]
    Hanning,
    /// The same to the power of 0.85, Kaldi's own.
    Povey,
    /// 0.54 - 0.46 cos.
    Hamming,
    /// 0.42 - 0.5 cos + 0.08 cos of twice the angle.
    Blackman,
    /// 1.
    Rectangular,
}

impl Window {
    fn at(self, i: usize, len: usize) -> f64 {
        let angle = std::f64::consts::TAU * i as f64 / len.saturating_sub(1).max(1) as f64;
        let hann = 0.5 - 0.5 * angle.cos();
        match self {
            Window::Hanning => hann,
            Window::Povey => hann.powf(0.85),
            Window::Hamming => 0.54 - 0.46 * angle.cos(),
            Window::Blackman => 0.42 - 0.5 * angle.cos() + 0.08 * (2.0 * angle).cos(),
            Window::Rectangular => 1.0,
        }
    }
}

documented! {
/// The table `[data.fbank]`: log-mel filter banks, as Kaldi's.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Filters: the rows of a spectrogram, low frequencies first.
    pub mels: usize,
    /// Length of a frame in milliseconds.
    pub frame_length: f64,
    /// From frame to frame, in milliseconds.
    pub frame_shift: f64,
    /// "hanning", "povey", "hamming", "blackman" or "rectangular".
    pub window: Window,
    /// Each sample minus this times the one before.
    pub preemphasis: f64,
    /// Where the first filter begins, in Hz.
    pub low: f64,
    /// Where the last filter ends, in Hz; 0 or less is counted down from half the sample rate.
    pub high: f64,
}
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            mels: 64,
            frame_length: 25.0,
            frame_shift: 10.0,
            window: Window::default(),
            preemphasis: 0.97,
            low: 20.0,
            high: 0.0,
        }
    }
}

impl Settings {
    /// Checks what can be checked without a sample rate.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key.
    pub fn validate(&self) -> Result<()> {
        let fail = |key: &str, found: &dyn std::fmt::Display, expected: &str| {
            Err(Error::Config(format!("`data.fbank.{key}` is {found}, expected {expected}")))
        };
        if !(1..=1024).contains(&self.mels) {
            return fail("mels", &self.mels, "1 to 1024");
        }
        for (key, value) in [("frame_length", self.frame_length), ("frame_shift", self.frame_shift)] {
            if !(0.1..=10_000.0).contains(&value) {
                return fail(key, &value, "0.1 to 10000 milliseconds");
            }
        }
        if !(0.0..=1.0).contains(&self.preemphasis) {
            return fail("preemphasis", &self.preemphasis, "0 to 1");
        }
        if !(0.0..=400_000.0).contains(&self.low) {
            return fail("low", &self.low, "a frequency of at least 0");
        }
        if !self.high.is_finite() {
            return fail("high", &self.high, "a frequency, or 0 for half the sample rate");
        }
        Ok(())
    }

    /// Samples of a frame and from frame to frame at `rate`, rounded down as there.
    pub fn samples(&self, rate: u32) -> (usize, usize) {
        let samples = |milliseconds: f64| (f64::from(rate) * milliseconds * 0.001) as usize;
        (samples(self.frame_length), samples(self.frame_shift))
    }
}

/// Filter banks at one sample rate; the plan of the FFT, the window and the filters are made once.
pub struct Fbank {
    window: Vec<f64>,
    shift: usize,
    preemphasis: f64,
    fft: Arc<dyn RealToComplex<f64>>,
    filters: Vec<Filter>,
}

/// A triangle over the bins of a spectrum.
struct Filter {
    first: usize,
    weights: Vec<f64>,
}

impl Fbank {
    /// For signals of `rate` samples a second.
    ///
    /// # Errors
    /// [`Error::Config`] if a frame has no two samples, or the filters no room.
    pub fn new(settings: &Settings, rate: u32) -> Result<Fbank> {
        settings.validate()?;
        let (length, shift) = settings.samples(rate);
        if length < 2 || shift < 1 {
            return Err(Error::Config(format!(
                "`data.fbank`: at {rate} samples a second a frame has {length} samples and the next begins {shift} \
                 later, expected at least 2 and 1"
            )));
        }
        let padded = length.next_power_of_two();
        Ok(Fbank {
            window: (0..length).map(|i| settings.window.at(i, length)).collect(),
            shift,
            preemphasis: settings.preemphasis,
            fft: RealFftPlanner::new().plan_fft_forward(padded),
            filters: filters(settings, f64::from(rate), padded)?,
        })
    }

    /// Samples of a frame.
    pub fn frame(&self) -> usize {
        self.window.len()
    }

    /// Samples from frame to frame.
    pub fn shift(&self) -> usize {
        self.shift
    }

    /// Frames inside a signal of `samples` samples.
    pub fn frames(&self, samples: usize) -> usize {
        samples.checked_sub(self.frame()).map_or(0, |rest| 1 + rest / self.shift)
    }

    /// Samples that `frames` frames reach over.
    pub fn span(&self, frames: usize) -> usize {
        frames.saturating_sub(1) * self.shift + self.frame()
    }

    /// The filter banks of `signal`, at most `most` frames of them: (mels, frames) in row-major order, and the number of
    /// frames.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the signal is shorter than a frame.
    pub fn compute(&self, signal: &[f32], most: usize) -> Result<(Vec<f32>, usize)> {
        let frames = self.frames(signal.len()).min(most);
        if frames == 0 {
            return Err(Error::invalid(format!(
                "has {} samples, which is shorter than a frame of {}",
                signal.len(),
                self.frame()
            )));
        }
        let (mut frame, mut spectrum) = (self.fft.make_input_vec(), self.fft.make_output_vec());
        let mut scratch = self.fft.make_scratch_vec();
        let mut bands = vec![0.0; self.filters.len() * frames];
        let windows = signal.windows(self.frame()).step_by(self.shift);
        for (at, samples) in windows.take(frames).enumerate() {
            self.load(samples, &mut frame);
            self.fft
                .process_with_scratch(&mut frame, &mut spectrum, &mut scratch)
                .map_err(|error| Error::invalid(format!("internal error: FFT: {error}")))?;
            for (band, filter) in bands.chunks_exact_mut(frames).zip(&self.filters) {
                if let Some(value) = band.get_mut(at) {
                    *value = filter.energy(&spectrum).max(FLOOR).ln() as f32;
                }
            }
        }
        Ok((bands, frames))
    }

    /// Mean removed, pre-emphasised, windowed, zeros behind.
    fn load(&self, samples: &[f32], frame: &mut [f64]) {
        let mean = samples.iter().map(|x| f64::from(*x)).sum::<f64>() / samples.len() as f64;
        // Before the first sample stands itself.
        let mut last = samples.first().map_or(0.0, |x| f64::from(*x) - mean);
        for ((value, sample), window) in frame.iter_mut().zip(samples).zip(&self.window) {
            let sample = f64::from(*sample) - mean;
            *value = (sample - self.preemphasis * last) * window;
            last = sample;
        }
        frame.iter_mut().skip(samples.len()).for_each(|value| *value = 0.0);
    }
}

impl Filter {
    fn energy(&self, spectrum: &[Complex64]) -> f64 {
        spectrum.iter().skip(self.first).zip(&self.weights).map(|(bin, weight)| bin.norm_sqr() * weight).sum()
    }
}

/// Triangles, each from the middle of the one before to that of the one behind, over the bins of an FFT of `padded`
/// samples but that of half the rate. At low frequencies a triangle may lie between two bins and be empty, as there.
fn filters(settings: &Settings, rate: f64, padded: usize) -> Result<Vec<Filter>> {
    let nyquist = 0.5 * rate;
    let high = if settings.high > 0.0 { settings.high } else { nyquist + settings.high };
    let low = settings.low;
    if !(low < high && high <= nyquist) {
        return Err(Error::Config(format!(
            "`data.fbank`: filters from `low` {low} to `high` {high} Hz, expected a range within 0 to {nyquist} Hz, half \
             the sample rate"
        )));
    }
    let mel = |frequency: f64| 1127.0 * (1.0 + frequency / 700.0).ln();
    let (bottom, step) = (mel(low), (mel(high) - mel(low)) / (settings.mels + 1) as f64);
    let bins: Vec<f64> = (0..padded / 2).map(|bin| mel(rate / padded as f64 * bin as f64)).collect();
    let filter = |number: usize| {
        let left = bottom + number as f64 * step;
        let weight = |at: &f64| ((at - left) / step).min((left + 2.0 * step - at) / step).max(0.0);
        let first = bins.iter().position(|at| weight(at) > 0.0).unwrap_or(0);
        Filter {
            first,
            weights: bins.iter().skip(first).map(weight).take_while(|weight| *weight > 0.0).collect(),
        }
    };
    Ok((0..settings.mels).map(filter).collect())
}
