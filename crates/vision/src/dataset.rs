//! Images as the model sees them: of one size, normalised, channel by channel.

use ophidian_core::{
    Result,
    data::{Dataset, Sample},
    rng::Rng,
};

use crate::{
    augment::Augment,
    config::Data,
    pixels::{Fit, Pixels},
    source::{Labelled, no_image},
};

/// A labelled data set of images.
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
        Ok(Prepare { height, width, channels, fit: data.fit, tables, augment: data.augment.clone() })
    }

    /// (channels, height, width)
    pub fn shape(&self) -> [usize; 3] {
        [self.channels, self.height, self.width]
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
        self.prepare.shape().map(|side| side as i64).to_vec()
    }

    fn classes(&self) -> &[String] {
        &self.classes
    }

    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> Result<Sample> {
        let (at, label) = self.images.items.get(index).ok_or_else(|| no_image(index, self.len()))?;
        let image = self.images.source.pixels(*at as usize)?;
        Ok(Sample { input: self.prepare.input(image, augment), label: i64::from(*label) })
    }

    fn name_of(&self, index: usize) -> String {
        match self.images.items.get(index) {
            Some((at, _)) => self.images.source.name_of(*at as usize),
            None => format!("#{index}"),
        }
    }
}
