//! Pictures as bytes: decoding, channels and size.

use std::io::Cursor;

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Limits, Luma, Pixel, Rgb, Rgba,
    imageops::{self, FilterType},
    metadata::Orientation,
};
use serde::{Deserialize, Serialize};

/// The widest and highest image that is decoded, in pixels.
pub const MAX_SIDE: u32 = 16_384;

/// The most memory that one decoded image may take, in bytes.
pub const MAX_DECODED: u64 = 256 << 20;

/// The largest encoded image file that is read, in bytes.
pub const MAX_ENCODED: u64 = 256 << 20;

/// Extensions of the image files that are read, in lower case.
pub const EXTENSIONS: [&str; 9] = ["png", "jpg", "jpeg", "bmp", "gif", "webp", "tif", "tiff", "apng"];

/// An image of u8 values in (height, width, channels) order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pixels {
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// 1 (grey) or 3 (red, green, blue).
    pub channels: usize,
    /// `height * width * channels` values, row by row.
    pub data: Vec<u8>,
}

/// How an image is brought to another size when its proportions differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Fit {
    /// The largest centred part of the right proportions is used.
    #[default]
    Crop,
    /// Height and width are scaled apart.
    Stretch,
    /// The whole image is used, with black beside it.
    Pad,
}

/// A rectangle within an image, in pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rect {
    /// First row.
    pub top: usize,
    /// First column.
    pub left: usize,
    /// Rows, at least 1.
    pub height: usize,
    /// Columns, at least 1.
    pub width: usize,
}

/// True if `name` ends like an image file.
pub fn is_image_name(name: &str) -> bool {
    name.rsplit_once('.')
        .is_some_and(|(stem, ending)| !stem.is_empty() && EXTENSIONS.contains(&&*ending.to_ascii_lowercase()))
}

/// Decodes an image file, upright (as its EXIF orientation says), transparency laid over white. Of an animation, the
/// first frame.
///
/// # Errors
/// What is wrong with the bytes; the caller knows the file's name.
pub fn decode(bytes: &[u8]) -> Result<Pixels, String> {
    if bytes.is_empty() {
        return Err("the file is empty, expected an image".to_owned());
    }
    let mut reader = ImageReader::new(Cursor::new(bytes))
        .with_guessed_format()
        .map_err(|error| format!("cannot be read: {error}"))?;
    let Some(format) = reader.format() else {
        return Err("is no image of a known kind (PNG, JPEG, BMP, GIF, WebP or TIFF)".to_owned());
    };
    let broken = |error: image::ImageError| format!("broken {format:?} image: {error}");
    reader.limits(limits());
    let mut decoder = reader.into_decoder().map_err(broken)?;
    check_size(format, &decoder)?;
    decoder.set_limits(limits()).map_err(broken)?;
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut image = DynamicImage::from_decoder(decoder).map_err(broken)?;
    image.apply_orientation(orientation);
    Ok(Pixels::from_image(image))
}

/// What a decoder is allowed.
pub(crate) fn limits() -> Limits {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_DECODED);
    limits
}

/// Refuses what `decoder` would decode if there is nothing in it or too much.
pub(crate) fn check_size(format: ImageFormat, decoder: &impl ImageDecoder) -> Result<(), String> {
    let (width, height) = decoder.dimensions();
    if width == 0 || height == 0 {
        return Err(format!("{format:?} image of {width}x{height} pixels has nothing in it"));
    }
    if width > MAX_SIDE || height > MAX_SIDE || decoder.total_bytes() > MAX_DECODED {
        return Err(format!(
            "{format:?} image claims {width}x{height} pixels ({} bytes); at most {MAX_SIDE}x{MAX_SIDE} and {MAX_DECODED} bytes \
             are decoded",
            decoder.total_bytes()
        ));
    }
    Ok(())
}

impl Pixels {
    /// An image of one value.
    pub fn filled(height: usize, width: usize, channels: usize, value: u8) -> Self {
        Pixels { height, width, channels, data: vec![value; height * width * channels] }
    }

    pub(crate) fn from_image(image: DynamicImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        let colour = image.color();
        let (channels, data) = match (colour.has_color(), colour.has_alpha()) {
            (false, false) => (1, image.into_luma8().into_raw()),
            (true, false) => (3, image.into_rgb8().into_raw()),
            (has_colour, true) => {
                let rgba = image.into_rgba8();
                let over_white = |pixel: &Rgba<u8>| {
                    let alpha = u32::from(pixel[3]);
                    pixel
                        .to_rgb()
                        .0
                        .map(|value| ((u32::from(value) * alpha + 255 * (255 - alpha)) / 255) as u8)
                };
                if has_colour {
                    (3, rgba.pixels().flat_map(over_white).collect())
                } else {
                    (1, rgba.pixels().map(|pixel| over_white(pixel)[0]).collect())
                }
            }
        };
        Pixels { height, width, channels, data }
    }

    /// The same image with `channels` channels: grey is repeated, colour is weighted as the eye does (ITU-R BT.601).
    pub fn with_channels(self, channels: usize) -> Self {
        let data = match (self.channels, channels) {
            (1, 3) => self.data.iter().flat_map(|value| [*value; 3]).collect(),
            (3, 1) => self
                .data
                .chunks_exact(3)
                .map(|rgb| {
                    let [r, g, b] = [u32::from(rgb[0]), u32::from(rgb[1]), u32::from(rgb[2])];
                    ((299 * r + 587 * g + 114 * b + 500) / 1000) as u8
                })
                .collect(),
            _ => return self,
        };
        Pixels { channels, data, ..self }
    }

    /// The whole image as a rectangle.
    pub fn bounds(&self) -> Rect {
        Rect { top: 0, left: 0, height: self.height, width: self.width }
    }

    /// The image at `height` x `width`.
    pub fn fit(self, height: usize, width: usize, fit: Fit) -> Self {
        if (self.height, self.width) == (height, width) {
            return self;
        }
        match fit {
            Fit::Stretch => self.crop_resize(self.bounds(), height, width),
            Fit::Crop => {
                // Integer arithmetic: the wider side is cut to the proportions of the target.
                let (h, w) = if self.width * height > self.height * width {
                    (self.height, (self.height * width / height).max(1))
                } else {
                    ((self.width * height / width).max(1), self.width)
                };
                let rect =
                    Rect { top: (self.height - h) / 2, left: (self.width - w) / 2, height: h, width: w };
                self.crop_resize(rect, height, width)
            }
            Fit::Pad => {
                let (h, w) = if self.width * height > self.height * width {
                    ((self.height * width / self.width).clamp(1, height), width)
                } else {
                    (height, (self.width * height / self.height).clamp(1, width))
                };
                let inner = self.crop_resize(self.bounds(), h, w);
                let mut padded = Pixels::filled(height, width, inner.channels, 0);
                padded.paste(&inner, (height - h) / 2, (width - w) / 2);
                padded
            }
        }
    }

    /// The part `rect` scaled to `height` x `width` (triangle filter, so that shrinking averages).
    pub fn crop_resize(&self, rect: Rect, height: usize, width: usize) -> Self {
        let part = self.crop(rect);
        if (part.height, part.width) == (height, width) {
            return part;
        }
        let Pixels { height: h, width: w, channels, data } = part;
        let data = if channels == 1 {
            resize::<Luma<u8>>(data, h, w, height, width)
        } else {
            resize::<Rgb<u8>>(data, h, w, height, width)
        };
        Pixels { height, width, channels, data }
    }

    /// Lays `part` at (`top`, `left`), where it must fit.
    fn paste(&mut self, part: &Pixels, top: usize, left: usize) {
        let row = part.width * part.channels;
        for y in 0..part.height {
            let at = ((top + y) * self.width + left) * self.channels;
            self.data[at..at + row].copy_from_slice(&part.data[y * row..(y + 1) * row]);
        }
    }

    fn crop(&self, rect: Rect) -> Self {
        let row = rect.width * self.channels;
        let mut data = Vec::with_capacity(rect.height * row);
        for y in rect.top..rect.top + rect.height {
            let at = (y * self.width + rect.left) * self.channels;
            data.extend_from_slice(&self.data[at..at + row]);
        }
        Pixels { height: rect.height, width: rect.width, channels: self.channels, data }
    }
}

fn resize<P: Pixel<Subpixel = u8> + 'static>(
    data: Vec<u8>,
    h: usize,
    w: usize,
    height: usize,
    width: usize,
) -> Vec<u8> {
    match ImageBuffer::<P, Vec<u8>>::from_raw(w as u32, h as u32, data) {
        Some(image) => imageops::resize(&image, width as u32, height as u32, FilterType::Triangle).into_raw(),
        // The buffer always has the size of the image; black of the right size is the harmless answer if not.
        None => vec![0; height * width * P::CHANNEL_COUNT as usize],
    }
}
