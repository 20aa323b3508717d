//! The operations of RandAugment (Cubuk et al., 2019) with the customary ranges: magnitude 10 turns by 30 degrees,
//! shears by 0.3, moves by 45% of the side, changes brightness and contrast by 90%.

use ophidian_core::rng::Rng;
use rand::RngExt;
use rand_distr::{Distribution, StandardNormal};

use crate::pixels::Pixels;

/// How far the magnitude strays from image to image (standard deviation).
const MAGNITUDE_NOISE: f64 = 0.5;

/// An operation of RandAugment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// Turns the image about its centre.
    Rotate,
    /// Slants rows.
    ShearX,
    /// Slants columns.
    ShearY,
    /// Moves the image sideways.
    TranslateX,
    /// Moves the image up or down.
    TranslateY,
    /// Blends with black, or away from it.
    Brightness,
    /// Blends with its mean grey, or away from it.
    Contrast,
    /// Blends with its grey version, or away from it (nothing for grey images).
    Colour,
    /// Blends with a smoothed version, or away from it.
    Sharpness,
    /// Keeps fewer bits of each value.
    Posterize,
    /// Inverts the lightest values.
    Solarize,
    /// Spreads the values of each channel evenly.
    Equalize,
    /// Stretches the values of each channel to 0 to 255.
    AutoContrast,
}

impl Op {
    /// All operations; each is drawn as often as any other.
    pub const ALL: [Op; 13] = [
        Op::Rotate,
        Op::ShearX,
        Op::ShearY,
        Op::TranslateX,
        Op::TranslateY,
        Op::Brightness,
        Op::Contrast,
        Op::Colour,
        Op::Sharpness,
        Op::Posterize,
        Op::Solarize,
        Op::Equalize,
        Op::AutoContrast,
    ];

    /// Applies the operation; `strength` is between -1 and 1, its sign a direction where there is one.
    pub fn apply(self, image: Pixels, strength: f64) -> Pixels {
        let s = strength as f32;
        match self {
            Op::Rotate => {
                let (sin, cos) = (s * 30.0).to_radians().sin_cos();
                warp(&image, [[cos, -sin], [sin, cos]], [0.0, 0.0])
            }
            Op::ShearX => warp(&image, [[1.0, 0.3 * s], [0.0, 1.0]], [0.0, 0.0]),
            Op::ShearY => warp(&image, [[1.0, 0.0], [0.3 * s, 1.0]], [0.0, 0.0]),
            Op::TranslateX => warp(&image, IDENTITY, [0.45 * s * image.width as f32, 0.0]),
            Op::TranslateY => warp(&image, IDENTITY, [0.0, 0.45 * s * image.height as f32]),
            Op::Brightness => blend(image, s, |_| 0.0),
            Op::Contrast => {
                let mean =
                    image.data.iter().map(|v| f32::from(*v)).sum::<f32>() / image.data.len().max(1) as f32;
                blend(image, s, |_| mean.round())
            }
            Op::Colour if image.channels == 1 => image,
            Op::Colour => {
                let grey = image.clone().with_channels(1);
                blend(image, s, |at| f32::from(grey.data[at / 3]))
            }
            Op::Sharpness => {
                let smooth = smoothed(&image);
                blend(image, s, |at| f32::from(smooth[at]))
            }
            Op::Posterize => {
                // 8 bits down to 4.
                let dropped = (strength.abs() * 4.0).round() as u32;
                map(image, |_, value| value >> dropped << dropped)
            }
            Op::Solarize => {
                let threshold = 255.0 * (1.0 - strength.abs());
                map(image, |_, value| if f64::from(value) > threshold { 255 - value } else { value })
            }
            Op::Equalize => by_histogram(image, equalized),
            Op::AutoContrast => by_histogram(image, stretched),
        }
    }
}

const IDENTITY: [[f32; 2]; 2] = [[1.0, 0.0], [0.0, 1.0]];

/// Applies an operation of a random kind and direction, at about `magnitude` of 10.
pub fn random(image: Pixels, magnitude: f64, rng: &mut Rng) -> Pixels {
    let op = Op::ALL[rng.random_range(0..Op::ALL.len())];
    let noise: f64 = StandardNormal.sample(rng);
    let strength = ((magnitude + MAGNITUDE_NOISE * noise) / 10.0).clamp(0.0, 1.0);
    let sign = if rng.random_bool(0.5) { 1.0 } else { -1.0 };
    op.apply(image, sign * strength)
}

/// Samples the image at `matrix * (x, y) + shift` about its centre, bilinear; beyond the edge, the edge is repeated.
fn warp(image: &Pixels, matrix: [[f32; 2]; 2], shift: [f32; 2]) -> Pixels {
    let (cx, cy) = ((image.width as f32 - 1.0) / 2.0, (image.height as f32 - 1.0) / 2.0);
    let (right, bottom) = (image.width as f32 - 1.0, image.height as f32 - 1.0);
    let channels = image.channels;
    let mut data = Vec::with_capacity(image.data.len());
    for y in 0..image.height {
        for x in 0..image.width {
            let (dx, dy) = (x as f32 - cx, y as f32 - cy);
            let sx = (matrix[0][0] * dx + matrix[0][1] * dy + shift[0] + cx).clamp(0.0, right);
            let sy = (matrix[1][0] * dx + matrix[1][1] * dy + shift[1] + cy).clamp(0.0, bottom);
            let (x0, y0) = (sx as usize, sy as usize);
            let (x1, y1) = ((x0 + 1).min(image.width - 1), (y0 + 1).min(image.height - 1));
            let (fx, fy) = (sx - x0 as f32, sy - y0 as f32);
            for channel in 0..channels {
                let at =
                    |x: usize, y: usize| f32::from(image.data[(y * image.width + x) * channels + channel]);
                let top = at(x0, y0) * (1.0 - fx) + at(x1, y0) * fx;
                let bottom = at(x0, y1) * (1.0 - fx) + at(x1, y1) * fx;
                data.push((top * (1.0 - fy) + bottom * fy).round() as u8);
            }
        }
    }
    Pixels { data, ..*image }
}

/// Moves each value away from (`strength` > 0) or towards (< 0) `other`, by up to 90% of the difference.
fn blend(mut image: Pixels, strength: f32, other: impl Fn(usize) -> f32) -> Pixels {
    let factor = 1.0 + 0.9 * strength;
    for (at, value) in image.data.iter_mut().enumerate() {
        let other = other(at);
        *value = (other + factor * (f32::from(*value) - other)).round().clamp(0.0, 255.0) as u8;
    }
    image
}

fn map(mut image: Pixels, change: impl Fn(usize, u8) -> u8) -> Pixels {
    let channels = image.channels;
    for (at, value) in image.data.iter_mut().enumerate() {
        *value = change(at % channels, *value);
    }
    image
}

/// The 3x3 smoothing of the customary sharpness operation (weights 1, 5 in the middle); the border stays.
fn smoothed(image: &Pixels) -> Vec<u8> {
    let mut out = image.data.clone();
    let (row, channels) = (image.width * image.channels, image.channels);
    for y in 1..image.height.saturating_sub(1) {
        let (first, last) = (y * row + channels, (y + 1) * row - channels);
        for (at, value) in (first..last).zip(&mut out[first..]) {
            let mut sum = 4 * u32::from(image.data[at]);
            for line in [at - row, at, at + row] {
                sum += [line - channels, line, line + channels]
                    .map(|at| u32::from(image.data[at]))
                    .iter()
                    .sum::<u32>();
            }
            *value = ((sum + 6) / 13) as u8;
        }
    }
    out
}

/// Maps each channel by a table made from its histogram.
fn by_histogram(image: Pixels, table: impl Fn(&[u32; 256]) -> [u8; 256]) -> Pixels {
    let mut histograms = [[0u32; 256]; 3];
    for (at, value) in image.data.iter().enumerate() {
        histograms[at % image.channels][usize::from(*value)] += 1;
    }
    let tables = histograms.map(|histogram| table(&histogram));
    map(image, |channel, value| tables[channel][usize::from(value)])
}

fn equalized(histogram: &[u32; 256]) -> [u8; 256] {
    let total: u32 = histogram.iter().sum();
    let last = histogram.iter().rposition(|count| *count > 0).map_or(0, |last| histogram[last]);
    let step = (total - last) / 255;
    let mut below = step / 2;
    std::array::from_fn(|value| {
        let level = below.checked_div(step).map_or(value as u32, |level| level.min(255));
        below += histogram[value];
        level as u8
    })
}

fn stretched(histogram: &[u32; 256]) -> [u8; 256] {
    let low = histogram.iter().position(|count| *count > 0).unwrap_or(0);
    let high = histogram.iter().rposition(|count| *count > 0).unwrap_or(0);
    std::array::from_fn(|value| match high.checked_sub(low) {
        Some(range) if range > 0 => (value.clamp(low, high).saturating_sub(low) * 255 / range) as u8,
        _ => value as u8,
    })
}
