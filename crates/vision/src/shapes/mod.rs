//! A built-in generator of labelled images: one figure of ten at a random place, size, angle and contrast, half hidden
//! now and then, among clutter and noise. Image `index` of a seed is always the same image.
//!
//! Neither the mean brightness nor any pixel tells the class (figures are as often darker as lighter than what is
//! behind them), so a linear classifier stays near chance; a small network learns the figures within minutes.

mod sdf;

use std::f32::consts::TAU;

use ophidian_core::{Result, rng};
use rand::{Rng as _, RngExt};

pub use sdf::Figure;

use crate::{
    pixels::Pixels,
    source::{Source, no_image},
};

/// Mean and standard deviation of the generated values, between 0 and 1 (measured over 10,000 images).
pub const MEAN_STD: (f64, f64) = (0.5, 0.25);

/// The least difference between figure and background, of 255.
const CONTRAST: f32 = 70.0;

/// Which of the generator's endless images a set draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Images to train on.
    Train,
    /// Images to evaluate on: none of them is among the training images.
    Eval,
}

/// `len` generated images.
#[derive(Debug, Clone)]
pub struct Shapes {
    /// Number of images.
    pub len: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 or 3.
    pub channels: usize,
    /// Equal seeds, equal images.
    pub seed: u64,
    /// Training or evaluation images.
    pub stream: Stream,
}

/// The class names, in the order of their labels.
pub fn classes() -> Vec<String> {
    Figure::ALL.iter().map(|figure| figure.name().to_owned()).collect()
}

/// The label of image `index`: classes take turns, so every set is balanced.
pub fn label(index: usize) -> u32 {
    (index % Figure::ALL.len()) as u32
}

impl Source for Shapes {
    fn len(&self) -> usize {
        self.len
    }

    fn pixels(&self, index: usize) -> Result<Pixels> {
        if index >= self.len {
            return Err(no_image(index, self.len));
        }
        let mut random = rng::stream(&[self.seed, self.stream as u64, index as u64]);
        Ok(draw(Figure::ALL[label(index) as usize], self.height, self.width, self.channels, &mut random))
    }

    fn name_of(&self, index: usize) -> String {
        let stream = if self.stream == Stream::Train { "train" } else { "eval" };
        format!("shapes {stream} #{index}")
    }

    fn fixed_size(&self) -> Option<(usize, usize, usize)> {
        Some((self.height, self.width, self.channels))
    }
}

/// A canvas of f32 values, painted over from back to front.
#[derive(Clone)]
pub(crate) struct Canvas {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<f32>,
}

pub(crate) type Colour = [f32; 3];

fn draw(figure: Figure, height: usize, width: usize, channels: usize, random: &mut rng::Rng) -> Pixels {
    let mut canvas = Canvas::new(height, width, channels);
    let side = height.min(width) as f32;
    let back = colour(random, channels);
    canvas.background(back, random);

    let radius = side * random.random_range(0.28..0.42);
    let within = |length: usize, random: &mut rng::Rng| {
        let margin = (radius * 0.9).min(length as f32 / 2.0 - 0.5);
        random.random_range(margin..=length as f32 - margin)
    };
    let (x, y) = (within(width, random), within(height, random));
    let fore = contrasting(back, random, channels);

    // Clutter behind the figure: thin strokes and specks of any colour.
    for _ in 0..random.random_range(0..=2) {
        let stroke = Stroke::random(height, width, side * 0.02, random);
        let paint = colour(random, channels);
        canvas.paint(&|x, y| stroke.distance(x, y), paint, 0.6);
    }

    // Turned by up to 45 degrees either way.
    let (sin, cos) = random.random_range(-TAU / 8.0..TAU / 8.0).sin_cos();
    // Wider or higher by up to a fifth, before it is turned.
    let stretch: f32 = random.random_range(0.85..1.18);
    let (sx, sy) = (radius * stretch, radius / stretch);
    canvas.paint(
        &|px, py| {
            let (dx, dy) = (px - x, py - y);
            figure.distance((cos * dx + sin * dy) / sx, (cos * dy - sin * dx) / sy) * sx.min(sy)
        },
        fore,
        1.0,
    );

    // A stroke in front of it, in the colour of the background: the figure may be cut, never covered.
    if random.random_bool(0.3) {
        let mut stroke = Stroke::random(height, width, side * 0.035, random);
        (stroke.x, stroke.y) =
            (x + random.random_range(-0.6..0.6) * radius, y + random.random_range(-0.6..0.6) * radius);
        canvas.paint(&|x, y| stroke.distance(x, y), back, 1.0);
    }
    canvas.noise(random.random_range(3.0..12.0), random)
}

impl Canvas {
    /// All black.
    pub(crate) fn new(height: usize, width: usize, channels: usize) -> Canvas {
        Canvas { height, width, channels, data: vec![0.0; height * width * channels] }
    }

    /// A gradient from `colour`, 25 to either side at most.
    pub(crate) fn background(&mut self, colour: Colour, random: &mut rng::Rng) {
        let (sin, cos) = random.random_range(0.0..TAU).sin_cos();
        let slope = random.random_range(0.0..50.0) / self.height.max(self.width) as f32;
        let (cx, cy) = (self.width as f32 / 2.0, self.height as f32 / 2.0);
        for y in 0..self.height {
            for x in 0..self.width {
                let shift = slope * (cos * (x as f32 - cx) + sin * (y as f32 - cy));
                let at = (y * self.width + x) * self.channels;
                for (value, base) in self.data[at..at + self.channels].iter_mut().zip(colour) {
                    *value = base + shift;
                }
            }
        }
    }

    /// Paints where `distance`, in pixels, is negative; the edge is one pixel soft.
    pub(crate) fn paint(&mut self, distance: &dyn Fn(f32, f32) -> f32, colour: Colour, opacity: f32) {
        for y in 0..self.height {
            for x in 0..self.width {
                let cover = (0.5 - distance(x as f32 + 0.5, y as f32 + 0.5)).clamp(0.0, 1.0) * opacity;
                if cover > 0.0 {
                    let at = (y * self.width + x) * self.channels;
                    for (value, paint) in self.data[at..at + self.channels].iter_mut().zip(colour) {
                        *value += (paint - *value) * cover;
                    }
                }
            }
        }
    }

    /// The finished image with noise of standard deviation `sigma`: a sum of four bytes is near enough to a bell.
    pub(crate) fn noise(self, sigma: f32, random: &mut rng::Rng) -> Pixels {
        let scale = sigma / (4.0f32 * (256.0 * 256.0 - 1.0) / 12.0).sqrt();
        let value = |value: f32| {
            let sum: u32 = random.next_u32().to_le_bytes().iter().map(|byte| u32::from(*byte)).sum();
            (value + (sum as f32 - 510.0) * scale).round().clamp(0.0, 255.0) as u8
        };
        let data = self.data.into_iter().map(value).collect();
        Pixels { height: self.height, width: self.width, channels: self.channels, data }
    }
}

/// A straight stroke through a point.
pub(crate) struct Stroke {
    x: f32,
    y: f32,
    sin: f32,
    cos: f32,
    half_length: f32,
    half_width: f32,
}

impl Stroke {
    pub(crate) fn random(height: usize, width: usize, half_width: f32, random: &mut rng::Rng) -> Self {
        let (sin, cos) = random.random_range(0.0..TAU).sin_cos();
        Stroke {
            x: random.random_range(0.0..width as f32),
            y: random.random_range(0.0..height as f32),
            sin,
            cos,
            half_length: height.min(width) as f32 * random.random_range(0.05..0.5),
            half_width: half_width * random.random_range(1.0..2.0),
        }
    }

    pub(crate) fn distance(&self, x: f32, y: f32) -> f32 {
        let (dx, dy) = (x - self.x, y - self.y);
        let along = (self.cos * dx + self.sin * dy).abs() - self.half_length;
        let across = (self.cos * dy - self.sin * dx).abs() - self.half_width;
        along.max(across)
    }
}

pub(crate) fn colour(random: &mut rng::Rng, channels: usize) -> Colour {
    let mut colour = [random.random_range(20.0..235.0); 3];
    if channels == 3 {
        colour = colour.map(|grey: f32| (grey + random.random_range(-60.0..60.0)).clamp(0.0, 255.0));
    }
    colour
}

/// A colour lighter or darker than `other` by at least [`CONTRAST`] in each channel, either as often as the other
/// where both are possible.
pub(crate) fn contrasting(other: Colour, random: &mut rng::Rng, channels: usize) -> Colour {
    let (low, high) =
        other[..channels].iter().fold((255.0f32, 0.0f32), |(low, high), v| (low.min(*v), high.max(*v)));
    let (darker, lighter) = (low >= CONTRAST, high <= 255.0 - CONTRAST);
    let up =
        if darker && lighter { random.random_bool(0.5) } else { lighter || !darker && 255.0 - high > low };
    let step = random.random_range(CONTRAST..2.0 * CONTRAST);
    other.map(|value| (if up { value + step } else { value - step }).clamp(0.0, 255.0))
}
