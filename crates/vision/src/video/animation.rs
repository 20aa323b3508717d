//! Animations: GIF, WebP and APNG files as clips.

use std::io::Cursor;

use image::{
    AnimationDecoder, DynamicImage, Frames, ImageDecoder, ImageFormat,
    codecs::{gif::GifDecoder, png::PngDecoder, webp::WebPDecoder},
};

use crate::pixels::{MAX_DECODED, Pixels, check_size, limits};

/// Most frames of one animation.
const MAX_FRAMES: usize = 1 << 16;

/// Endings of files that may be animations, in lower case.
const EXTENSIONS: [&str; 3] = ["gif", "webp", "apng"];

/// True if `name` ends like a file that may be an animation.
pub fn may_be(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, ending)| EXTENSIONS.contains(&&*ending.to_ascii_lowercase()))
}

/// True if `bytes` hold more than one picture. A file that is broken holds none.
pub fn is_one(bytes: &[u8]) -> bool {
    match image::guess_format(bytes) {
        Ok(ImageFormat::Gif) => GifDecoder::new(Cursor::new(bytes)).is_ok_and(|mut gif| {
            check_size(ImageFormat::Gif, &gif).is_ok()
                && gif.set_limits(limits()).is_ok()
                && gif.into_frames().take(2).flatten().count() > 1
        }),
        Ok(ImageFormat::WebP) => WebPDecoder::new(Cursor::new(bytes)).is_ok_and(|webp| webp.has_animation()),
        Ok(ImageFormat::Png) => {
            PngDecoder::new(Cursor::new(bytes)).is_ok_and(|png| png.is_apng().unwrap_or(false))
        }
        _ => false,
    }
}

/// All frames, transparency laid over white.
///
/// # Errors
/// What is wrong with the bytes; the caller knows the file's name. The frames together are bounded as one image is.
pub fn decode(bytes: &[u8]) -> Result<Vec<Pixels>, String> {
    let format = image::guess_format(bytes).map_err(|_| "is no animation (GIF, WebP or APNG)".to_owned())?;
    let broken = |error: image::ImageError| format!("broken {format:?} animation: {error}");
    let reader = Cursor::new(bytes);
    let frames: Frames<'_> = match format {
        ImageFormat::Gif => {
            let mut gif = GifDecoder::new(reader).map_err(broken)?;
            check_size(format, &gif)?;
            gif.set_limits(limits()).map_err(broken)?;
            gif.into_frames()
        }
        ImageFormat::WebP => {
            let mut webp = WebPDecoder::new(reader).map_err(broken)?;
            check_size(format, &webp)?;
            webp.set_limits(limits()).map_err(broken)?;
            if !webp.has_animation() {
                return Err("holds one picture, expected an animation".to_owned());
            }
            webp.into_frames()
        }
        ImageFormat::Png => {
            let png = PngDecoder::with_limits(reader, limits()).map_err(broken)?;
            check_size(format, &png)?;
            if !png.is_apng().map_err(broken)? {
                return Err("holds one picture, expected an animation".to_owned());
            }
            png.apng().map_err(broken)?.into_frames()
        }
        _ => return Err(format!("is a {format:?} image, expected an animation (GIF, WebP or APNG)")),
    };
    let (mut found, mut left) = (Vec::new(), MAX_DECODED);
    for frame in frames {
        let frame = Pixels::from_image(DynamicImage::from(frame.map_err(broken)?.into_buffer()));
        left = left.saturating_sub(frame.data.len() as u64);
        if left == 0 || found.len() == MAX_FRAMES {
            return Err(format!(
                "{format:?} animation of more than {MAX_DECODED} bytes or {MAX_FRAMES} frames; unpack it into a folder of \
                 frames"
            ));
        }
        found.push(frame);
    }
    if found.len() < 2 {
        return Err(format!("holds {} picture(s), expected an animation", found.len()));
    }
    Ok(found)
}
