//! The mistakes that a model was surest of.

use std::path::Path;

use plotters::{
    prelude::{Rectangle, Text},
    style::{
        Color, IntoFont, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::canvas::{FONT, INK, draw, short};
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

/// (height, width, RGB bytes row by row).
type Pixels = (u32, u32, Vec<u8>);

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
        for (place, (mistake, (rows, columns, rgb))) in shown.iter().enumerate() {
            let x = GAP + (place % COLUMNS) as i32 * (SIDE + GAP);
            let y = TOP + (place / COLUMNS) as i32 * (SIDE + CAPTION + GAP);
            paint(area, (x, y), *rows, *columns, rgb)?;
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

/// An image scaled to fit a square at `corner`, by nearest neighbour.
fn paint(
    area: &super::canvas::Area,
    corner: (i32, i32),
    rows: u32,
    columns: u32,
    rgb: &[u8],
) -> super::canvas::Drawn {
    let scale = f64::from(SIDE) / f64::from(rows.max(columns));
    let (high, wide) =
        ((f64::from(rows) * scale).max(1.0) as i32, (f64::from(columns) * scale).max(1.0) as i32);
    let (x, y) = (corner.0 + (SIDE - wide) / 2, corner.1 + (SIDE - high) / 2);
    for down in 0..high {
        let row = (down as usize * rows as usize) / high as usize;
        for across in 0..wide {
            let column = (across as usize * columns as usize) / wide as usize;
            let at = 3 * (row * columns as usize + column);
            area.draw_pixel((x + across, y + down), &RGBColor(rgb[at], rgb[at + 1], rgb[at + 2]))?;
        }
    }
    let frame = RGBColor(190, 195, 202).stroke_width(1);
    area.draw(&Rectangle::new([(x - 1, y - 1), (x + wide, y + high)], frame))?;
    Ok(())
}
