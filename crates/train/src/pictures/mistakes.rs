//! The mistakes that a model was surest of.

use std::path::Path;

use plotters::{
    prelude::Text,
    style::{
        IntoFont, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::canvas::{FONT, INK, Pixels, draw, paint, short};
use crate::{
    Result,
    measure::{Measurement, Mistake},
};

/// Pictures in a row.
const COLUMNS: usize = 6;
/// Pixels: side of a picture, height of its caption, space between pictures, height of the title.
const SIDE: i32 = 150;
const CAPTION: i32 = 48;
const GAP: i32 = 18;
const TOP: i32 = 64;

/// Draws the kept mistakes of `found`; `picture` gives that of an example, or none.
/// Nothing is drawn if no example has one.
///
/// # Errors
/// The picture cannot be drawn or written.
pub fn mistakes(
    found: &Measurement,
    classes: &[String],
    title: &str,
    picture: impl Fn(usize) -> Option<Pixels>,
    path: &Path,
) -> Result<()> {
    let shown: Vec<(&Mistake, Pixels)> = found
        .mistakes
        .iter()
        .filter_map(|mistake| Some((mistake, picture(mistake.index)?)))
        .filter(|(_, (height, width, rgb))| {
            let pixels = u64::from(*height) * u64::from(*width);
            pixels > 0 && rgb.len() as u64 == 3 * pixels
        })
        .collect();
    if shown.is_empty() {
        return Ok(());
    }
    let rows = shown.len().div_ceil(COLUMNS) as i32;
    let columns = COLUMNS.min(shown.len().max(4)) as i32;
    let (width, height) = (GAP + columns * (SIDE + GAP), TOP + rows * (SIDE + CAPTION + GAP));
    draw(path, width as u32, height as u32, |area| {
        let text = |size: i32, color: RGBColor, h: HPos| {
            (FONT, size).into_font().color(&color).pos(Pos::new(h, VPos::Center))
        };
        let heading = format!("Mistakes, surest first: {title}");
        area.draw(&Text::new(heading, (GAP, 28), text(22, INK, HPos::Left)))?;
        for (place, (mistake, pixels)) in shown.iter().enumerate() {
            let x = GAP + (place % COLUMNS) as i32 * (SIDE + GAP);
            let y = TOP + (place / COLUMNS) as i32 * (SIDE + CAPTION + GAP);
            paint(area, (x, y), SIDE, pixels)?;
            let name = |class: usize| short(classes.get(class).map_or("?", String::as_str), 12);
            let middle = x + SIDE / 2;
            let truth = format!("is {}", name(mistake.label));
            area.draw(&Text::new(truth, (middle, y + SIDE + 14), text(17, INK, HPos::Center)))?;
            let taken = format!("not {} {:.0}%", name(mistake.predicted), 100.0 * mistake.probability);
            let red = RGBColor(178, 34, 34);
            area.draw(&Text::new(taken, (middle, y + SIDE + 34), text(14, red, HPos::Center)))?;
        }
        Ok(())
    })
}
