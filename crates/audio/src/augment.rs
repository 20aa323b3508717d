//! Random changes of training clips, drawn from the stream that is given and from nothing else.

use ophidian_core::{Error, Result, documented, rng::Rng};
use rand::{RngExt, seq::SliceRandom};
use rand_distr::{Beta, Distribution, StandardNormal};
use serde::{Deserialize, Serialize};
use tch::Tensor;

documented! {
/// The table `[data.augment]`: how training clips are changed at random. Everything is off by default.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Louder or softer by up to this many decibels (0 = off).
    pub gain: f64,
    /// A clip shorter than `seconds` begins up to this many seconds late (0 = at once). A longer one begins anywhere.
    pub shift: f64,
    /// White noise is added, this far below the clip: [least, most] decibels, as [10, 40]; none if absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub noise: Option<[f64; 2]>,
    /// SpecAugment (arXiv 1904.08779): how many stretches of time are masked (0 = off; 2 is customary).
    pub time_masks: usize,
    /// The most frames of each (of a waveform: samples).
    pub time_mask: usize,
    /// SpecAugment: how many bands of frequencies are masked (0 = off; 2 is customary).
    pub frequency_masks: usize,
    /// The most filters of each.
    pub frequency_mask: usize,
    /// Mixup: two clips are blended with weights from Beta(mixup, mixup) (0 = off; 0.2 and 0.5 are customary).
    pub mixup: f64,
}
}

impl Augment {
    /// # Errors
    /// [`Error::Config`] naming the key whose value is out of range.
    pub fn validate(&self) -> Result<()> {
        for (key, value, most) in
            [("gain", self.gain, 120.0), ("shift", self.shift, 3600.0), ("mixup", self.mixup, 1e3)]
        {
            if !(0.0..=most).contains(&value) {
                return Err(Error::Config(format!("`data.augment.{key}` is {value}, expected 0 to {most}")));
            }
        }
        if let Some([least, most]) = self.noise
            && !(-100.0 <= least && least <= most && most <= 200.0)
        {
            return Err(Error::Config(format!(
                "`data.augment.noise` is [{least}, {most}], expected the least and the most decibels, -100 to 200"
            )));
        }
        for (key, count) in [("time_masks", self.time_masks), ("frequency_masks", self.frequency_masks)] {
            if count > 1000 {
                return Err(Error::Config(format!("`data.augment.{key}` is {count}, expected 0 to 1000")));
            }
        }
        Ok(())
    }

    /// Loudness and noise of a clip of one channel or several; all draws are made whatever the settings.
    pub fn apply(&self, channels: &mut [Vec<f32>], rng: &mut Rng) {
        let gain = 10f64.powf(self.gain * rng.random_range(-1.0..=1.0) / 20.0);
        let below: f64 = rng.random_range(0.0..=1.0);
        for channel in channels.iter_mut() {
            channel.iter_mut().for_each(|sample| *sample = (f64::from(*sample) * gain) as f32);
        }
        let Some([least, most]) = self.noise else { return };
        for channel in channels {
            let power =
                channel.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>() / channel.len().max(1) as f64;
            let level = power.sqrt() * 10f64.powf(-(least + below * (most - least)) / 20.0);
            for sample in channel {
                let white: f64 = StandardNormal.sample(rng);
                *sample += (level * white) as f32;
            }
        }
    }

    /// Sets bands and stretches of an input (channels, rows, columns) to `value`, the same ones in every channel.
    pub fn mask(&self, input: &mut [f32], [rows, columns]: [usize; 2], value: f32, rng: &mut Rng) {
        if rows * columns == 0 {
            return;
        }
        for _ in 0..self.frequency_masks {
            let (first, count) = stretch(self.frequency_mask, rows, rng);
            for map in input.chunks_exact_mut(rows * columns) {
                map.chunks_exact_mut(columns).skip(first).take(count).for_each(|row| row.fill(value));
            }
        }
        for _ in 0..self.time_masks {
            let (first, count) = stretch(self.time_mask, columns, rng);
            for row in input.chunks_exact_mut(columns) {
                row.iter_mut().skip(first).take(count).for_each(|cell| *cell = value);
            }
        }
    }

    /// Mixup (Zhang et al., arXiv 1710.09412): a batch (batch, …) and its targets (batch, classes) blended with themselves
    /// in another order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if there are not as many targets as inputs; libtorch's errors.
    pub fn mix(&self, input: Tensor, target: Tensor, rng: &mut Rng) -> Result<(Tensor, Tensor)> {
        if self.mixup <= 0.0 {
            return Ok((input, target));
        }
        let batch = input.size().first().copied().unwrap_or(0);
        if target.size().len() != 2 || target.size().first() != Some(&batch) {
            return Err(Error::invalid(format!(
                "targets are {:?}, expected ({batch}, classes)",
                target.size()
            )));
        }
        let mut order: Vec<i64> = (0..batch).collect();
        order.shuffle(rng);
        let order = Tensor::from_slice(&order).to_device(input.device());
        let keep = Beta::new(self.mixup, self.mixup)
            .map_err(|error| Error::Config(format!("`data.augment.mixup` is {}: {error}", self.mixup)))?
            .sample(rng);
        let blend = |all: &Tensor| -> Result<Tensor> {
            let other = all.f_index_select(0, &order)?;
            Ok(all.f_mul_scalar(keep)?.f_add(&other.f_mul_scalar(1.0 - keep)?)?)
        };
        Ok((blend(&input)?, blend(&target)?))
    }
}

/// A stretch of 0 to `most` of `length`, anywhere: (first, count), as SpecAugment draws it.
fn stretch(most: usize, length: usize, rng: &mut Rng) -> (usize, usize) {
    let count = rng.random_range(0..=most.min(length));
    (rng.random_range(0..=length - count), count)
}
