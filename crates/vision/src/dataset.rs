//! Images and clips as the model sees them: of one size, normalised, channel by channel.

use ophidian_core::{
    Result,
    data::{Dataset, Sample},
    rng::{self, Rng},
};
use rand::Rng as _;

use crate::{
    augment::Augment,
    config::Data,
    pixels::{Fit, Pixels},
    source::{Labelled, Source, no_image},
    video::Video,
};

/// A labelled data set of images or clips.
pub struct ImageSet {
    images: Labelled,
    classes: Vec<String>,
    prepare: Prepare,
}

/// How an image becomes an input.
pub struct Prepare {
    height: usize,
    width: usize,
    channels: usize,
    fit: Fit,
    /// The normalised value of each byte, by channel.
    tables: Vec<[f32; 256]>,
    augment: Augment,
    /// Which frames are seen, if the examples are clips.
    video: Option<Video>,
}

impl Prepare {
    /// The preparation that a resolved `[data]` describes.
    ///
    /// # Errors
    /// The table was not resolved.
    pub fn new(data: &Data) -> Result<Self> {
        let (height, width) = data.input_size()?;
        let channels = data.input_channels()?;
        let table = |channel: usize| {
            let mean = data.mean.get(channel).copied().unwrap_or(0.0);
            let std = data.std.get(channel).copied().unwrap_or(1.0);
            std::array::from_fn(|value| ((value as f64 / 255.0 - mean) / std) as f32)
        };
        let tables = (0..channels).map(table).collect();
        Ok(Prepare {
            height,
            width,
            channels,
            fit: data.fit,
            tables,
            augment: data.augment.clone(),
            video: data.video.clone(),
        })
    }

    /// (channels, height, width), of clips (channels, frames, height, width).
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = vec![self.channels, self.height, self.width];
        if let Some(video) = &self.video {
            shape.insert(1, video.frames);
        }
        shape
    }

    /// The image at its final size, with random changes if a stream is given.
    fn picture(&self, image: Pixels, augment: Option<&mut Rng>) -> Pixels {
        let image = image.with_channels(self.channels);
        let Some(rng) = augment else {
            return image.fit(self.height, self.width, self.fit);
        };
        let image = match self.augment.random_rect(image.bounds(), rng) {
            Some(rect) => image.crop_resize(rect, self.height, self.width),
            None => image.fit(self.height, self.width, self.fit),
        };
        self.augment.apply(image, rng)
    }

    /// The normalised input, (channels, height, width) in row-major order.
    pub fn input(&self, image: Pixels, mut augment: Option<&mut Rng>) -> Vec<f32> {
        let image = self.picture(image, augment.as_deref_mut());
        let mut input = Vec::with_capacity(image.data.len());
        for (channel, table) in self.tables.iter().enumerate() {
            let values = image.data.iter().skip(channel).step_by(self.channels);
            input.extend(values.map(|value| table[usize::from(*value)]));
        }
        if let Some(rng) = augment {
            self.augment.erase(&mut input, self.height, self.width, rng);
        }
        input
    }
}

impl Prepare {
    /// The normalised clip `at` of `source`, (channels, frames, height, width) in row-major order. Which frames are seen
    /// is random if a stream is given; the random changes are the same for all of them.
    fn clip(
        &self,
        source: &dyn Source,
        at: usize,
        video: &Video,
        augment: Option<&mut Rng>,
    ) -> Result<Vec<f32>> {
        let (area, frames) = (self.height * self.width, video.frames);
        let mut input = vec![0.0; self.channels * frames * area];
        let mut picks = None;
        let same = augment.map(|random| {
            picks = Some(rng::stream(&[random.next_u64()]));
            random.clone()
        });
        let mut frame = 0;
        source.clip(at, &mut |len| video.choose(len, picks.as_mut()), &mut |pixels| {
            let values = self.input(pixels, same.clone().as_mut());
            for (channel, values) in values.chunks_exact(area).enumerate() {
                let from = (channel * frames + frame) * area;
                if let Some(place) = input.get_mut(from..from + area) {
                    place.copy_from_slice(values);
                }
            }
            frame += 1;
            Ok(())
        })?;
        Ok(input)
    }
}

impl ImageSet {
    /// `images` prepared by `prepare`; their labels index into `classes`.
    pub fn new(images: Labelled, classes: Vec<String>, prepare: Prepare) -> Self {
        ImageSet { images, classes, prepare }
    }
}

impl Dataset for ImageSet {
    fn len(&self) -> usize {
        self.images.items.len()
    }

    fn input_shape(&self) -> Vec<i64> {
        self.prepare.shape().into_iter().map(|side| side as i64).collect()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> Result<Sample> {
        let (at, label) = self.images.items.get(index).ok_or_else(|| no_image(index, self.len()))?;
        let (source, at) = (&*self.images.source, *at as usize);
        let input = match &self.prepare.video {
            Some(video) => self.prepare.clip(source, at, video, augment)?,
            None => self.prepare.input(source.pixels(at)?, augment),
        };
        Ok(Sample { input, label: i64::from(*label) })
    }

    fn name_of(&self, index: usize) -> String {
        match self.images.items.get(index) {
            Some((at, _)) => self.images.source.name_of(*at as usize),
            None => format!("#{index}"),
        }
    }
}
