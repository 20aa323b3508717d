//! Signals at another sample rate.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ophidian_core::{Error, Result};
use rubato::{
    Fft, FixedSync, Resampler as _, ResamplerConstructionError,
    audioadapter_buffers::direct::SequentialSliceOfVecs,
};

/// About how many frames are turned at once, on the side of the lower rate.
const CHUNK: u32 = 1024;

/// Resamplers to one rate, made once for every rate that occurs and used again by whichever thread needs one.
pub struct Resampler {
    rate: u32,
    idle: Mutex<HashMap<u32, Vec<Fft<f32>>>>,
}

impl Resampler {
    /// To `rate` samples a second.
    pub fn new(rate: u32) -> Resampler {
        Resampler { rate, idle: Mutex::default() }
    }

    /// The rate.
    pub fn rate(&self) -> u32 {
        self.rate
    }

    /// How many samples at `from` a second last as long as `len` of ours, rounded up.
    pub fn before(&self, len: usize, from: u32) -> usize {
        (len as u128 * u128::from(from)).div_ceil(u128::from(self.rate.max(1))) as usize
    }

    /// Blocks are of even lengths on both sides: the delay of others is half a sample more than what is cut off for it.
    fn resampler(&self, from: u32) -> std::result::Result<Fft<f32>, ResamplerConstructionError> {
        let (before, after) = (from / gcd(from, self.rate), self.rate / gcd(from, self.rate));
        let blocks = CHUNK.div_ceil(before.min(after)).next_multiple_of(2);
        let chunk = before as usize * blocks as usize;
        Fft::new(from as usize, self.rate as usize, chunk, 1, FixedSync::Both)
    }

    /// `signal` of `from` samples a second.
    ///
    /// # Errors
    /// None for rates that the reader lets pass.
    pub fn run(&self, signal: Vec<f32>, from: u32) -> Result<Vec<f32>> {
        if from == self.rate || signal.is_empty() {
            return Ok(signal);
        }
        let pool = || self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let idle = pool().get_mut(&from).and_then(Vec::pop);
        let fail = |error: String| {
            Error::invalid(format!("cannot be brought from {from} to {} Hz: {error}", self.rate))
        };
        let mut resampler = match idle {
            Some(resampler) => resampler,
            None => self.resampler(from).map_err(|error| fail(error.to_string()))?,
        };
        let len = signal.len();
        let signal = [signal];
        let input = SequentialSliceOfVecs::new(&signal, 1, len).map_err(|error| fail(error.to_string()))?;
        // Begins afresh whatever it did before.
        let output = resampler.process_all(&input, len, None).map_err(|error| fail(error.to_string()))?;
        pool().entry(from).or_default().push(resampler);
        Ok(output.take_data())
    }
}

/// The greatest number that divides both, at least 1.
fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a.max(1) } else { gcd(b, a % b) }
}
