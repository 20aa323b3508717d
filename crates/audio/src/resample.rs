//! Signals at another sample rate.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use ophidian_core::{Error, Result};
use rubato::{Fft, FixedSync, Resampler as _, audioadapter_buffers::direct::SequentialSliceOfVecs};

/// Frames that are turned at once.
const CHUNK: usize = 1024;

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
            None => Fft::new(from as usize, self.rate as usize, CHUNK, 1, FixedSync::Both)
                .map_err(|error| fail(error.to_string()))?,
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
