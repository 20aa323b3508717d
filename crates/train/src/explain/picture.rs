//! Maps as pictures.

use super::{Example, Explanation, Field, Map, Subject};
use crate::{
    Error, Result,
    pictures::canvas::{Area, Drawn, FONT, INK, Pixels, drawn, paint, png, short},
};
use plotters::{
    prelude::Text,
    style::{
        IntoFont,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// From low to high: dark violet, blue, green, yellow.
pub(super) const COLOURS: [[u8; 3]; 5] =
    [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
/// Around the chosen token.
const MARK: [u8; 3] = [226, 48, 48];
/// Fewest pixels of the longer side, most pixels of a side, and fewest of the shorter one.
const LEAST: usize = 112;
const MOST: usize = 448;
const STRIP: usize = 16;
/// Orders of magnitude that a logarithmic map spans.
pub(super) const DECADES: f64 = 4.0;

/// On paper: side of a map, space between them, height of a caption, width of a layer's name, height of the title.
const SIDE: i32 = 112;
const GAP: i32 = 14;
const CAPTION: i32 = 18;
const NAME: i32 = 150;
const TOP: i32 = 52;
/// Side of a map in the picture of receptive fields.
const LARGE: i32 = 260;

impl Subject<'_> {
    /// The input as its modality draws it.
    pub(super) fn input(&self, example: &Example) -> Option<Pixels> {
        let (height, width, pixels) = self.adapter.picture(self.data, &example.input, self.shape)?;
        // A page scales by pixels that are whole.
        let factor = LEAST.div_ceil(height.max(width).max(1) as usize);
        Some(enlarged(height as usize, width as usize, factor, &pixels))
    }

    /// A field on a logarithmic scale.
    pub(super) fn field(&self, found: &Explanation, field: &Field) -> Option<Pixels> {
        let most = field.values.iter().copied().fold(0.0, f64::max);
        let shade = |value: f64| 1.0 + (value / most).log10() / DECADES;
        // A clip's frames are laid out by their number, which is another for tokens of several frames.
        let marked = found.sizes.len() < 3 || found.sizes == field.sizes;
        let mark = found.place.filter(|_| marked).map(|place| (place, &found.sizes[..]));
        self.map(&found.example, &field.values, &field.sizes, shade, mark)
    }

    /// Where a direction attends; `most` is the brightest value, and brightness goes with the square root.
    pub(super) fn attention(&self, example: &Example, map: &Map, most: f64) -> Option<Pixels> {
        let shade = |value: f64| (value / most).sqrt();
        let mark = map.place.map(|place| (place, &map.sizes[..]));
        self.map(example, &map.values, &map.sizes, shade, mark)
    }

    fn map(
        &self,
        example: &Example,
        values: &[f64],
        sizes: &[i64],
        shade: impl Fn(f64) -> f64,
        mark: Option<(usize, &[i64])>,
    ) -> Option<Pixels> {
        let lay_out =
            |values: &[f32], sizes: &[i64]| self.adapter.lay_out(&example.input, self.shape, values, sizes);
        let shaded: Vec<f32> = values.iter().map(|value| shade(*value).clamp(0.0, 1.0) as f32).collect();
        let laid = lay_out(&shaded, sizes)?;
        // Of the input's proportions, but for the frames of a clip, which may be fewer.
        let drawn = self.adapter.picture(self.data, &example.input, self.shape).filter(|_| sizes.len() < 3);
        let (high, wide) =
            drawn.map_or((laid.rows, laid.columns), |(high, wide, _)| (high as usize, wide as usize));
        let (longest, cells) = (high.max(wide).max(1), if wide >= high { laid.columns } else { laid.rows });
        let pixels = (cells * LEAST.div_ceil(cells)).min(MOST);
        let side = |own: usize| (own * pixels / longest).clamp(STRIP, MOST);
        let (height, width) = (side(high), side(wide));
        let marked = mark.and_then(|(place, sizes)| {
            let mut alone = vec![0.0; usize::try_from(sizes.iter().product::<i64>()).ok()?];
            *alone.get_mut(place)? = 1.0;
            lay_out(&alone, sizes)
        });
        let is_marked = |y: usize, x: usize| {
            marked.as_ref().is_some_and(|laid| {
                laid.values[y * laid.rows / height * laid.columns + x * laid.columns / width] == 1.0
            })
        };
        // The outermost pixels of the token, two deep.
        let on_edge = |y: usize, x: usize| {
            let around =
                |by: usize| [(y.wrapping_sub(by), x), (y + by, x), (y, x.wrapping_sub(by)), (y, x + by)];
            let inside = |(y, x)| y < height && x < width && is_marked(y, x);
            is_marked(y, x) && !(1..3).flat_map(around).all(inside)
        };
        let mut pixels = Vec::with_capacity(height * width * 3);
        for y in 0..height {
            for x in 0..width {
                let pixel =
                    if on_edge(y, x) { MARK } else { colour(brightest(&laid, [y, x], [height, width])) };
                pixels.extend(pixel);
            }
        }
        Some((u32::try_from(height).ok()?, u32::try_from(width).ok()?, pixels))
    }
}

/// The largest of the cells under a pixel: a map larger than its picture loses no peak.
fn brightest(laid: &ophidian_core::adapter::Laid, pixel: [usize; 2], picture: [usize; 2]) -> f32 {
    let cells = [laid.rows, laid.columns];
    let [rows, columns] = [0, 1].map(|axis| {
        let first = pixel[axis] * cells[axis] / picture[axis];
        first..((pixel[axis] + 1) * cells[axis] / picture[axis]).max(first + 1)
    });
    let values =
        rows.flat_map(|row| columns.clone().map(move |column| laid.values[row * laid.columns + column]));
    values.fold(f32::NAN, f32::max)
}

/// White where nothing lies, grey on a line.
fn colour(share: f32) -> [u8; 3] {
    if share.is_nan() {
        return [255; 3];
    }
    if share.is_infinite() {
        return [205; 3];
    }
    let at = f64::from(share.clamp(0.0, 1.0)) * (COLOURS.len() - 1) as f64;
    let first = (at as usize).min(COLOURS.len() - 2);
    let (from, to, part) = (COLOURS[first], COLOURS[first + 1], at - first as f64);
    [0, 1, 2].map(|i| (f64::from(from[i]) + (f64::from(to[i]) - f64::from(from[i])) * part).round() as u8)
}

fn enlarged(height: usize, width: usize, factor: usize, pixels: &[u8]) -> Pixels {
    let rows = pixels.chunks(3 * width.max(1)).flat_map(|row| {
        let row: Vec<u8> = row.chunks(3).flat_map(|pixel| pixel.repeat(factor)).collect();
        row.repeat(factor)
    });
    ((height * factor) as u32, (width * factor) as u32, rows.collect())
}

/// The pictures of an explanation, as the page and the files show them.
pub(super) struct Pictures {
    /// The input.
    pub input: Option<Pixels>,
    /// The field of the example, then the mean one.
    pub fields: Vec<(String, Pixels)>,
    /// Of every layer, in the order of its maps; none where a map cannot be drawn.
    pub layers: Vec<Vec<Option<Pixels>>>,
    /// How they are to be read, if that is not plain to see.
    pub reading: Option<String>,
}

impl Pictures {
    pub fn new(subject: &Subject, found: &Explanation) -> Pictures {
        let mut fields = vec![("this input".to_owned(), &found.field)];
        fields.extend(found.mean.as_ref().map(|(count, field)| (format!("mean of {count} samples"), field)));
        let drawn = |(name, field): (String, &Field)| Some((name, subject.field(found, field)?));
        let layer = |layer: &super::Layer| {
            // Directions are comparable with each other; their sum is brighter than any.
            let most = |sum: bool| {
                let maps = layer.maps.iter().filter(|map| (map.name == "sum") == sum);
                maps.flat_map(|map| map.values.iter().copied()).fold(f64::MIN_POSITIVE, f64::max)
            };
            let [of_directions, of_sum] = [most(false), most(true)];
            let draw = |map: &Map| {
                subject.attention(&found.example, map, if map.name == "sum" { of_sum } else { of_directions })
            };
            layer.maps.iter().map(draw).collect()
        };
        Pictures {
            input: subject.input(&found.example),
            fields: fields.into_iter().filter_map(drawn).collect(),
            layers: found.layers.iter().map(layer).collect(),
            reading: subject.adapter.reading(subject.shape),
        }
    }

    /// A heading, and below it how the pictures are to be read.
    fn headed(&self, area: &Area, heading: &str) -> Drawn {
        area.draw(&Text::new(heading, (GAP, 20), text(19, HPos::Left)))?;
        if let Some(reading) = &self.reading {
            area.draw(&Text::new(short(reading, 84), (GAP, 41), text(12, HPos::Left)))?;
        }
        Ok(())
    }

    /// The input beside its fields, as a PNG; none if there is nothing to draw.
    pub fn fields(&self) -> Result<Option<Vec<u8>>> {
        if self.fields.is_empty() {
            return Ok(None);
        }
        let input = self.input.iter().map(|pixels| ("input", pixels));
        let all: Vec<(&str, &Pixels)> =
            input.chain(self.fields.iter().map(|(name, pixels)| (name.as_str(), pixels))).collect();
        let width = GAP + all.len() as i32 * (LARGE + GAP);
        let picture = drawn(width.max(700) as u32, (TOP + LARGE + CAPTION + 2 * GAP) as u32, |area| {
            self.headed(area, "Effective receptive field, logarithmic")?;
            for (place, (name, pixels)) in (0..).zip(&all) {
                let x = GAP + place * (LARGE + GAP);
                paint(area, (x, TOP), LARGE, pixels)?;
                area.draw(&Text::new(
                    (*name).to_owned(),
                    (x + LARGE / 2, TOP + LARGE + GAP),
                    text(16, HPos::Center),
                ))?;
            }
            Ok(())
        });
        picture.map(Some).map_err(|error| failed(&*error))
    }

    /// All layers in a grid, as a PNG; none if there is nothing to draw.
    pub fn attention(&self, found: &Explanation) -> Result<Option<Vec<u8>>> {
        let most = self.layers.iter().map(Vec::len).max().unwrap_or(0) as i32;
        if self.layers.iter().flatten().flatten().next().is_none() {
            return Ok(None);
        }
        let (width, row) = (NAME + most * (SIDE + GAP) + GAP, SIDE + CAPTION + GAP);
        let height = TOP + self.layers.len() as i32 * row + GAP;
        let picture = drawn(width.max(700) as u32, height as u32, |area| {
            self.headed(area, "Implicit attention, layer by layer")?;
            for (number, (layer, pictures)) in (0..).zip(found.layers.iter().zip(&self.layers)) {
                let y = TOP + number * row;
                let named = |line: i32| (GAP, y + 16 + 20 * line);
                area.draw(&Text::new(format!("layer {}", number + 1), named(0), text(16, HPos::Left)))?;
                area.draw(&Text::new(shown(&layer.sizes), named(1), text(14, HPos::Left)))?;
                if let (Some(note), true) = (layer.notes.first(), pictures.is_empty()) {
                    area.draw(&Text::new(short(note, 60), (NAME, y + 16), text(14, HPos::Left)))?;
                }
                for (place, (map, pixels)) in (0..).zip(layer.maps.iter().zip(pictures)) {
                    let x = NAME + place * (SIDE + GAP);
                    if let Some(pixels) = pixels {
                        paint(area, (x, y), SIDE, pixels)?;
                    }
                    let name = short(&map.name, 13);
                    area.draw(&Text::new(name, (x + SIDE / 2, y + SIDE + 10), text(13, HPos::Center)))?;
                }
            }
            Ok(())
        });
        picture.map(Some).map_err(|error| failed(&*error))
    }
}

fn text(size: i32, align: HPos) -> plotters::style::TextStyle<'static> {
    (FONT, size).into_font().color(&INK).pos(Pos::new(align, VPos::Center))
}

/// Sizes as people read them.
pub(super) fn shown(sizes: &[i64]) -> String {
    match sizes {
        [count] => format!("{count} places"),
        _ => sizes.iter().map(i64::to_string).collect::<Vec<_>>().join("x"),
    }
}

/// As an address that holds the picture itself.
pub(super) fn address(pixels: &Pixels) -> Result<String> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let png = png(pixels).map_err(|error| failed(&*error))?;
    Ok(format!("data:image/png;base64,{}", STANDARD.encode(png)))
}

fn failed(error: &dyn std::error::Error) -> Error {
    ophidian_core::Error::invalid(format!("a picture cannot be drawn: {error}")).into()
}
