//! What all pictures share: a canvas in memory, a font, and a file that is written whole.

use std::{path::Path, sync::Once};

use image::{ExtendedColorType, ImageEncoder, codecs::png::PngEncoder};
use ophidian_core::files::write_whole;
use plotters::{
    coord::Shift,
    prelude::{BitMapBackend, DrawingArea, IntoDrawingArea, Rectangle},
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

/// (height, width, RGB bytes row by row).
pub type Pixels = (u32, u32, Vec<u8>);

/// Draws a picture of `width` by `height` pixels on white and writes it to `path`.
///
/// # Errors
/// It cannot be drawn or written.
pub fn draw(path: &Path, width: u32, height: u32, paint: impl FnOnce(&Area) -> Drawn) -> Result<()> {
    let wrong = |error: Box<dyn std::error::Error>| Error::file(path, format!("cannot be drawn: {error}"));
    let png = drawn(width, height, paint).map_err(wrong)?;
    Ok(write_whole(path, |file| std::io::Write::write_all(file, &png))?)
}

/// The same as a PNG in memory.
///
/// # Errors
/// It cannot be drawn.
pub fn drawn(
    width: u32,
    height: u32,
    paint: impl FnOnce(&Area) -> Drawn,
) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        for style in [FontStyle::Normal, FontStyle::Bold] {
            // Fails only for a font that does not parse, which shows in the tests.
            let _ = register_font(FONT, style, epaint_default_fonts::HACK_REGULAR);
        }
    });
    let mut pixels = vec![255u8; width as usize * height as usize * 3];
    {
        let area = BitMapBackend::with_buffer(&mut pixels, (width, height)).into_drawing_area();
        area.fill(&RGBColor(255, 255, 255).to_rgba()).map_err(|error| error.to_string())?;
        paint(&area)?;
        area.present().map_err(|error| error.to_string())?;
    }
    png(&(height, width, pixels))
}

/// Pixels as a PNG.
///
/// # Errors
/// They are not as many as the sizes say.
pub fn png((height, width, pixels): &Pixels) -> std::result::Result<Vec<u8>, Box<dyn std::error::Error>> {
    let expected = u64::from(*height) * u64::from(*width) * 3;
    if pixels.len() as u64 != expected {
        return Err(format!("{} bytes of pixels, expected {expected}", pixels.len()).into());
    }
    let mut png = Vec::new();
    PngEncoder::new(&mut png).write_image(pixels, *width, *height, ExtendedColorType::Rgb8)?;
    Ok(png)
}

/// `pixels`, not none, scaled by nearest neighbour to fit a square of `side` at `corner`, with a frame.
///
/// # Errors
/// It cannot be drawn.
pub fn paint(area: &Area, corner: (i32, i32), side: i32, (rows, columns, rgb): &Pixels) -> Drawn {
    let scale = f64::from(side) / f64::from(*rows.max(columns));
    let (high, wide) =
        ((f64::from(*rows) * scale).max(1.0) as i32, (f64::from(*columns) * scale).max(1.0) as i32);
    let (x, y) = (corner.0 + (side - wide) / 2, corner.1 + (side - high) / 2);
    for down in 0..high {
        let row = (down as usize * *rows as usize) / high as usize;
        for across in 0..wide {
            let column = (across as usize * *columns as usize) / wide as usize;
            let at = 3 * (row * *columns as usize + column);
            area.draw_pixel((x + across, y + down), &RGBColor(rgb[at], rgb[at + 1], rgb[at + 2]))?;
        }
    }
    let frame = RGBColor(190, 195, 202).stroke_width(1);
    area.draw(&Rectangle::new([(x - 1, y - 1), (x + wide, y + high)], frame))?;
    Ok(())
}

/// `text` cut to at most `most` characters.
pub fn short(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}
