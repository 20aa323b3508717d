//! What all pictures share: a canvas in memory, a font, and a file that is written whole.

use std::{path::Path, sync::Once};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use ophidian_core::files::write_whole;
use plotters::{
    coord::Shift,
    prelude::{BitMapBackend, DrawingArea, IntoDrawingArea},
    style::{Color, FontStyle, RGBColor, register_font},
};

use crate::{Error, Result};

/// The name under which the font is known to plotters.
pub const FONT: &str = "sans-serif";
/// Text.
pub const INK: RGBColor = RGBColor(40, 44, 52);
/// Lines of a grid.
pub const PALE: RGBColor = RGBColor(226, 229, 234);
/// First data colour.
pub const BLUE: RGBColor = RGBColor(33, 102, 172);
/// Second data colour.
pub const ORANGE: RGBColor = RGBColor(217, 95, 2);
/// Third data colour.
pub const GREEN: RGBColor = RGBColor(27, 140, 90);

/// An area to draw on.
pub type Area<'a> = DrawingArea<BitMapBackend<'a>, Shift>;

/// What plotters returns.
pub type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Draws a picture of `width` by `height` pixels on white and writes it to `path`.
///
/// # Errors
/// It cannot be drawn or written.
pub fn draw(path: &Path, width: u32, height: u32, paint: impl FnOnce(&Area) -> Drawn) -> Result<()> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            // Fails only for a font that does not parse, which shows in the tests.
            let _ = register_font(FONT, style, epaint_default_fonts::HACK_REGULAR);
        }
    });
    let mut pixels = vec![255u8; width as usize * height as usize * 3];
    let wrong = |error: &dyn std::fmt::Display| Error::file(path, format!("cannot be drawn: {error}"));
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&RGBColor(255, 255, 255).to_rgba()).map_err(|error| wrong(&error))?;
        paint(&area).map_err(|error| wrong(&error))?;
        area.present().map_err(|error| wrong(&error))?;
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png)
        .write_image(&pixels, width, height, ExtendedColorType::Rgb8)
        .map_err(|error| wrong(&error))?;
    Ok(write_whole(path, |file| std::io::Write::write_all(file, &png))?)
}

/// `text` cut to at most `most` characters.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
