//! Drawings as files.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, anyhow};
use resvg::{tiny_skia, usvg};

use crate::exit::Usage;

/// Makes the bytes of a picture of an SVG.
pub type Encode = fn(String) -> Result<Vec<u8>>;

/// How a picture is encoded, by the ending of its name.
pub fn encoder(path: &Path) -> Result<Encode> {
    match path.extension().map(|ending| ending.to_ascii_lowercase()) {
        Some(ending) if ending == "svg" => Ok(|svg| Ok(svg.into_bytes())),
        Some(ending) if ending == "png" => Ok(|svg| png(&svg)),
        _ => Err(Usage(format!("{}: a picture ends in .svg or .png", path.display())).into()),
    }
}

/// Twice the size of the SVG where that is not too much, with a font of the program's own.
fn png(svg: &str) -> Result<Vec<u8>> {
    const MAX_PIXELS: f32 = 4e7;
    let mut options = usvg::Options::default();
    let fonts = Arc::make_mut(&mut options.fontdb);
    fonts.load_font_data(epaint_default_fonts::UBUNTU_LIGHT.to_vec());
    let family = fonts.faces().next().and_then(|face| face.families.first()).map(|(name, _)| name.clone());
    if let Some(family) = family {
        fonts.set_sans_serif_family(family);
    }
    let tree = usvg::Tree::from_str(svg, &options)?;
    let size = tree.size();
    let scale = (MAX_PIXELS / (size.width() * size.height())).sqrt().min(2.0);
    let pixels = |length: f32| (length * scale).ceil() as u32;
    let (width, height) = (pixels(size.width()), pixels(size.height()));
    let mut image = tiny_skia::Pixmap::new(width, height)
        .ok_or_else(|| anyhow!("a picture of {width} x {height} pixels is too large; write .svg instead"))?;
    resvg::render(&tree, tiny_skia::Transform::from_scale(scale, scale), &mut image.as_mut());
    Ok(image.encode_png()?)
}
