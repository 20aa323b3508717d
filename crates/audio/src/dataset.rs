//! Clips as the model sees them: of one length, as filter banks or samples, normalised.

use std::path::Path;

use ophidian_core::{
    Error, Result,
    data::{Dataset, Sample},
    rng::Rng,
};
use rand::RngExt;

use crate::{
    augment::Augment,
    config::{Data, Features, Pad},
    fbank::Fbank,
    open::channels_differ,
    resample::Resampler,
    source::{Labelled, no_clip},
    wav::Wave,
};

/// Samples beyond the end of a cut that a resampler may still want to see.
const MARGIN: usize = 4096;

/// A labelled data set of clips.
pub struct ClipSet {
    clips: Labelled,
    classes: Vec<String>,
    prepare: Prepare,
}

/// How a clip becomes an input. Plans of Fourier transforms, windows and filters are made here, once.
pub struct Prepare {
    shape: [usize; 3],
    resampler: Resampler,
    /// None for the samples themselves.
    fbank: Option<Fbank>,
    mean: f32,
    /// 1 / standard deviation.
    scale: f32,
    /// Of what stands where there is no clip, normalised.
    blank: f32,
    /// The most columns by which a clip begins late.
    shift: usize,
    augment: Augment,
}

impl Prepare {
    /// The preparation that a resolved `[data]` describes.
    ///
    /// # Errors
    /// The table was not resolved, or its filter banks do not suit its rate.
    pub fn new(data: &Data) -> Result<Self> {
        let rate = data.rate()?;
        let fbank = match data.features {
            Features::Fbank => Some(Fbank::new(&data.fbank, rate)?),
            Features::Waveform => None,
        };
        let (mean, std) = (data.mean.unwrap_or(0.0), data.std.unwrap_or(1.0));
        let step = fbank.as_ref().map_or(1, Fbank::shift) as f64 / f64::from(rate);
        Ok(Prepare {
            shape: data.shape()?,
            resampler: Resampler::new(rate),
            fbank,
            mean: mean as f32,
            scale: (1.0 / std) as f32,
            blank: if data.pad == Pad::Zero { (-mean / std) as f32 } else { 0.0 },
            shift: (data.augment.shift / step) as usize,
            augment: data.augment.clone(),
        })
    }

    /// (channels, rows, columns).
    pub fn shape(&self) -> [usize; 3] {
        self.shape
    }

    /// The values of a clip before normalisation, (channels, rows, columns) with as many columns as it has, at most those
    /// of the input. A part at random is taken if a stream is given, else the beginning. `file` names it in errors.
    ///
    /// # Errors
    /// [`Error::File`] if the clip is too short or of other channels.
    pub fn features(&self, wave: Wave, file: &str, augment: Option<&mut Rng>) -> Result<(Vec<f32>, usize)> {
        let [_, rows, columns] = self.shape;
        let signal = self.signal(wave, file, augment)?;
        let mut values = Vec::with_capacity(self.shape.iter().product());
        let mut count = 0;
        for channel in signal {
            match &self.fbank {
                Some(fbank) => {
                    let (bands, frames) =
                        fbank.compute(&channel, columns).map_err(|error| Error::file(file, error))?;
                    count = frames;
                    values.extend(bands);
                }
                None => {
                    count = channel.len();
                    values.extend(channel);
                }
            }
        }
        debug_assert_eq!(values.len(), self.shape[0] * rows * count);
        Ok((values, count))
    }

    /// The samples of the input, at its rate and of its channels, randomly changed if a stream is given.
    fn signal(&self, wave: Wave, file: &str, mut augment: Option<&mut Rng>) -> Result<Vec<Vec<f32>>> {
        let [channels, _, columns] = self.shape;
        let span = self.fbank.as_ref().map_or(columns, |fbank| fbank.span(columns));
        let (rate, mut signal) = (wave.rate, mixed(wave.channels, channels, file)?);
        let len = signal.first().map_or(0, Vec::len);
        let wanted = self.resampler.before(span, rate);
        let first = match &mut augment {
            Some(rng) if len > wanted => rng.random_range(0..=len - wanted),
            _ => 0,
        };
        for channel in &mut signal {
            channel.truncate(first + wanted + MARGIN);
            channel.drain(..first.min(channel.len()));
            *channel = self
                .resampler
                .run(std::mem::take(channel), rate)
                .map_err(|error| Error::file(file, error))?;
            channel.truncate(span);
        }
        if signal.iter().any(Vec::is_empty) {
            return Err(Error::file(file, format!("has no sample left at {} Hz", self.resampler.rate())));
        }
        if let Some(rng) = augment {
            self.augment.apply(&mut signal, rng);
        }
        Ok(signal)
    }

    /// The normalised input, (channels, rows, columns) in row-major order.
    ///
    /// # Errors
    /// As [`features`](Prepare::features).
    pub fn input(&self, wave: Wave, file: &str, mut augment: Option<&mut Rng>) -> Result<Vec<f32>> {
        let [channels, rows, columns] = self.shape;
        let (values, count) = self.features(wave, file, augment.as_deref_mut())?;
        let late = match &mut augment {
            Some(rng) => rng.random_range(0..=self.shift.min(columns - count)),
            None => 0,
        };
        let mut input = vec![self.blank; channels * rows * columns];
        for (row, values) in input.chunks_exact_mut(columns).zip(values.chunks_exact(count)) {
            for (cell, value) in row.iter_mut().skip(late).zip(values) {
                *cell = (value - self.mean) * self.scale;
            }
        }
        if let Some(rng) = augment {
            self.augment.mask(&mut input, [rows, columns], 0.0, rng);
        }
        Ok(input)
    }
}

/// The channels of a clip as `wanted` channels: their mean, themselves, or one copied.
fn mixed(mut signal: Vec<Vec<f32>>, wanted: usize, file: &str) -> Result<Vec<Vec<f32>>> {
    match (signal.len(), wanted) {
        (found, wanted) if found == wanted => Ok(signal),
        (1, wanted) => {
            let one = signal.pop().unwrap_or_default();
            Ok(vec![one; wanted])
        }
        (found, 1) => {
            let mut sums: Vec<f64> = vec![0.0; signal.first().map_or(0, Vec::len)];
            for channel in &signal {
                sums.iter_mut().zip(channel).for_each(|(sum, sample)| *sum += f64::from(*sample));
            }
            Ok(vec![sums.into_iter().map(|sum| (sum / found as f64) as f32).collect()])
        }
        (found, wanted) => Err(channels_differ(Path::new(file), found, wanted)),
    }
}

impl ClipSet {
    /// `clips` prepared by `prepare`; their labels index into `classes`.
    pub fn new(clips: Labelled, classes: Vec<String>, prepare: Prepare) -> Self {
        ClipSet { clips, classes, prepare }
    }
}

impl Dataset for ClipSet {
    fn len(&self) -> usize {
        self.clips.items.len()
    }

    fn input_shape(&self) -> Vec<i64> {
        self.prepare.shape.iter().map(|side| *side as i64).collect()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> Result<Sample> {
        let (at, label) = self.clips.items.get(index).ok_or_else(|| no_clip(index, self.len()))?;
        let source = &*self.clips.source;
        let wave = source.wave(*at as usize)?;
        let input = self.prepare.input(wave, &source.name_of(*at as usize), augment)?;
        Ok(Sample { input, label: i64::from(*label) })
    }

    fn name_of(&self, index: usize) -> String {
        match self.clips.items.get(index) {
            Some((at, _)) => self.clips.source.name_of(*at as usize),
            None => format!("#{index}"),
        }
    }
}
