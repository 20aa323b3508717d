//! The confusion matrix.

use std::path::Path;

use plotters::{
    prelude::{Rectangle, Text},
    style::{
        Color, FontTransform, IntoFont, RGBColor,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::canvas::{FONT, INK, PALE, draw, short};
use crate::{Result, measure::Measurement};

/// Characters of a class name.
const NAME: usize = 14;

/// Draws how often each class (row) was taken for each (column); colours are shares of a row.
///
/// # Errors
/// The picture cannot be drawn or written.
pub fn confusion(found: &Measurement, classes: &[String], title: &str, path: &Path) -> Result<()> {
    let count = classes.len();
    // Numbers need room; without them cells shrink until a thousand classes fit on a screen.
    let numbers = count <= 24;
    let cell: i32 = if numbers { 52 } else { (1000 / count.max(1)).clamp(1, 24) as i32 };
    let named = cell >= 12;
    let longest = classes.iter().map(|name| name.chars().count().min(NAME)).max().unwrap_or(0) as i32;
    let label = if named { 16 + 9 * longest } else { 16 };
    let (left, top) = (40 + label, 64);
    let side = cell * count as i32;
    let heading = format!("Confusion: {title}");
    // A letter of the heading takes 12 pixels.
    let width = (left + side + 24).max(12 * heading.chars().count() as i32 + 32);
    let height = top + side + label + 44;
    draw(path, width as u32, height as u32, |area| {
        let text = |size: i32, color: RGBColor, h: HPos, v: VPos| {
            (FONT, size).into_font().color(&color).pos(Pos::new(h, v))
        };
        area.draw(&Text::new(heading, (16, 28), text(20, INK, HPos::Left, VPos::Center)))?;
        for (row, counts) in found.confusion.iter().enumerate() {
            let total = counts.iter().sum::<u64>().max(1);
            let y = top + row as i32 * cell;
            for (column, examples) in counts.iter().enumerate() {
                let x = left + column as i32 * cell;
                let share = *examples as f64 / total as f64;
                let color = shade(share, row == column);
                area.draw(&Rectangle::new([(x, y), (x + cell, y + cell)], color.filled()))?;
                if numbers && *examples > 0 {
                    let ink = if share > 0.55 { RGBColor(255, 255, 255) } else { INK };
                    let style = text(16, ink, HPos::Center, VPos::Center);
                    area.draw(&Text::new(examples.to_string(), (x + cell / 2, y + cell / 2), style))?;
                }
            }
            if named {
                let size = (cell - 2).min(17);
                let name = short(&classes[row], NAME);
                let at = (left - 8, y + cell / 2);
                area.draw(&Text::new(name.clone(), at, text(size, INK, HPos::Right, VPos::Center)))?;
                let turned = (FONT, size).into_font().transform(FontTransform::Rotate270).color(&INK);
                let turned = turned.pos(Pos::new(HPos::Right, VPos::Center));
                let at = (left + row as i32 * cell + cell / 2, top + side + 8);
                area.draw(&Text::new(name, at, turned))?;
            }
        }
        area.draw(&Rectangle::new([(left, top), (left + side, top + side)], PALE.stroke_width(1)))?;
        let axis = text(17, INK, HPos::Center, VPos::Center);
        area.draw(&Text::new("predicted class", (left + side / 2, height - 18), axis))?;
        let axis = (FONT, 17).into_font().transform(FontTransform::Rotate270).color(&INK);
        let axis = axis.pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new("true class", (18, top + side / 2), axis))?;
        Ok(())
    })
}

/// White to blue on the diagonal, white to red beside it.
fn shade(share: f64, right: bool) -> RGBColor {
    // Small shares must still show.
    let strength = share.clamp(0.0, 1.0).sqrt();
    let full = if right { [33.0, 102.0, 172.0] } else { [200.0, 60.0, 40.0] };
    let mix = |channel: f64| (255.0 + (channel - 255.0) * strength) as u8;
    RGBColor(mix(full[0]), mix(full[1]), mix(full[2]))
}
