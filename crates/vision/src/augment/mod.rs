//! Random changes of training images, drawn from the stream that is given and from nothing else.

pub mod mix;
mod ops;

use ophidian_core::{Error, Result, documented, rng::Rng};
use rand::RngExt;
use serde::{Deserialize, Serialize};

use crate::pixels::{Pixels, Rect};

pub use ops::Op;

documented! {
/// The table `[data.augment]`: how training images are changed at random. Everything is off by default.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Augment {
    /// Probability that an image is mirrored left to right (0 = off). Not for digits and letters.
    pub flip: f64,
    /// Pixels added on each side, repeating the edge, before a crop of the original size at a random place (0 = off).
    pub crop_padding: usize,
    /// Smallest share of the image's area that a random crop, resized to `image_size`, keeps (0 = off; 0.08 and 0.35
    /// are customary). Replaces `fit` in training.
    pub resized_crop: f64,
    /// RandAugment: how many random operations are applied to each image (0 = off, 2 is customary).
    pub rand_ops: usize,
    /// RandAugment: how strong they are, from 0 to 10.
    pub rand_magnitude: f64,
    /// Probability that a random rectangle of an image is erased (0 = off).
    pub erase: f64,
    /// Mixup: two images are blended with weights from Beta(mixup, mixup) (0 = off; 0.2 and 0.8 are customary).
    pub mixup: f64,
    /// Cutmix: a rectangle is replaced by that of another image, its area from Beta(cutmix, cutmix) (0 = off, 1 is
    /// customary). If mixup is on too, each batch takes one of the two.
    pub cutmix: f64,
    /// Probability that a batch is mixed at all, where mixup or cutmix is on.
    pub mix_probability: f64,
}
}

impl Default for Augment {
    fn default() -> Self {
        Augment {
            flip: 0.0,
            crop_padding: 0,
            resized_crop: 0.0,
            rand_ops: 0,
            rand_magnitude: 9.0,
            erase: 0.0,
            mixup: 0.0,
            cutmix: 0.0,
            mix_probability: 1.0,
        }
    }
}

impl Augment {
    /// # Errors
    /// [`Error::Config`] naming the key whose value is out of range.
    pub fn validate(&self) -> Result<()> {
        let within = |key: &str, value: f64, most: f64| {
            if value.is_finite() && (0.0..=most).contains(&value) {
                return Ok(());
            }
            Err(Error::Config(format!("`data.augment.{key}` is {value}, expected 0 to {most}")))
        };
        within("flip", self.flip, 1.0)?;
        within("crop_padding", self.crop_padding as f64, 1024.0)?;
        within("resized_crop", self.resized_crop, 1.0)?;
        within("rand_ops", self.rand_ops as f64, 16.0)?;
        within("rand_magnitude", self.rand_magnitude, 10.0)?;
        within("erase", self.erase, 1.0)?;
        within("mixup", self.mixup, 100.0)?;
        within("cutmix", self.cutmix, 100.0)?;
        within("mix_probability", self.mix_probability, 1.0)
    }

    /// The rectangle of an image that a random resized crop keeps, if that is on: its area a share of the whole between
    /// `resized_crop` and 1, its proportions between 3:4 and 4:3.
    pub fn random_rect(&self, bounds: Rect, rng: &mut Rng) -> Option<Rect> {
        if self.resized_crop == 0.0 {
            return None;
        }
        let (height, width) = (bounds.height as f64, bounds.width as f64);
        // Ten tries, then the whole image, as is customary.
        for _ in 0..10 {
            let area = height * width * rng.random_range(self.resized_crop..=1.0);
            let ratio = rng.random_range(0.75f64.ln()..=(4.0f64 / 3.0).ln()).exp();
            let (h, w) = ((area / ratio).sqrt().round(), (area * ratio).sqrt().round());
            if (1.0..=height).contains(&h) && (1.0..=width).contains(&w) {
                let (h, w) = (h as usize, w as usize);
                let top = rng.random_range(0..=bounds.height - h);
                let left = rng.random_range(0..=bounds.width - w);
                return Some(Rect { top, left, height: h, width: w });
            }
        }
        Some(bounds)
    }

    /// Flip, padded crop and RandAugment, in this order, on an image of its final size.
    pub fn apply(&self, mut image: Pixels, rng: &mut Rng) -> Pixels {
        if self.flip > 0.0 && rng.random_bool(self.flip) {
            flip(&mut image);
        }
        if self.crop_padding > 0 {
            let mut shift =
                || rng.random_range(0..=2 * self.crop_padding) as isize - self.crop_padding as isize;
            let (dy, dx) = (shift(), shift());
            image = shifted(&image, dy, dx);
        }
        for _ in 0..self.rand_ops {
            image = ops::random(image, self.rand_magnitude, rng);
        }
        image
    }

    /// Random erasing: sets a rectangle of a normalised (channels, height, width) image to 0, which is the mean.
    /// Its area is 2% to 33% of the image, its proportions 3:10 to 10:3.
    pub fn erase(&self, input: &mut [f32], height: usize, width: usize, rng: &mut Rng) {
        if self.erase == 0.0 || !rng.random_bool(self.erase) {
            return;
        }
        for _ in 0..10 {
            let area = (height * width) as f64 * rng.random_range(0.02..=1.0 / 3.0);
            let ratio = rng.random_range(0.3f64.ln()..=(1.0f64 / 0.3).ln()).exp();
            let (h, w) = ((area / ratio).sqrt().round() as usize, (area * ratio).sqrt().round() as usize);
            if (1..height).contains(&h) && (1..width).contains(&w) {
                let (top, left) = (rng.random_range(0..=height - h), rng.random_range(0..=width - w));
                for plane in input.chunks_exact_mut(height * width) {
                    for row in plane.chunks_exact_mut(width).skip(top).take(h) {
                        row[left..left + w].fill(0.0);
                    }
                }
                return;
            }
        }
    }
}

fn flip(image: &mut Pixels) {
    let channels = image.channels;
    for row in image.data.chunks_exact_mut(image.width * channels) {
        for x in 0..image.width / 2 {
            for channel in 0..channels {
                row.swap(x * channels + channel, (image.width - 1 - x) * channels + channel);
            }
        }
    }
}

/// The image moved by whole pixels; the edge is repeated.
fn shifted(image: &Pixels, dy: isize, dx: isize) -> Pixels {
    let mut data = Vec::with_capacity(image.data.len());
    for y in 0..image.height {
        let from = y.saturating_add_signed(dy).min(image.height - 1);
        let row = &image.data[from * image.width * image.channels..];
        for x in 0..image.width {
            let from = x.saturating_add_signed(dx).min(image.width - 1);
            data.extend_from_slice(&row[from * image.channels..(from + 1) * image.channels]);
        }
    }
    Pixels { data, ..*image }
}
