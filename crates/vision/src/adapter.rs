//! The vision adapter: `adapter = "vision"`.

use std::{path::Path, sync::Arc};

use ophidian_core::{
    Error, Result,
    adapter::{Adapter, Description, Laid, Model, Splits},
    cards::Card,
    config::KeyDoc,
    data::Dataset,
    inspect::{Progress, Report},
    rng::Rng,
};
use tch::{Tensor, nn};

use crate::{
    augment::mix,
    cards,
    config::Data,
    dataset::{ImageSet, Prepare},
    inspect, models,
    open::{self, Opened},
    source::{Labelled, Source, inputs},
    video::clips,
};

/// Most frames of a clip in a picture.
const SHOWN: usize = 9;

/// Images and clips of frames.
pub struct Vision;

impl Adapter for Vision {
    fn name(&self) -> &'static str {
        "vision"
    }

    fn resolve_data(&self, data: toml::Table) -> Result<toml::Table> {
        open::resolve(Data::read(data)?)?.to_table()
    }

    fn resolve_model(&self, model: toml::Table) -> Result<toml::Table> {
        models::CATALOGUE.resolve(model)
    }

    fn check(&self, data: &toml::Table, model: &toml::Table) -> Result<()> {
        let (data, model) = (Data::read(data.clone())?, models::CATALOGUE.read(model.clone())?);
        let (height, width) = data.input_size()?;
        let sizes = "rows and columns are the height and width that `data.image_size` sets";
        model.tile([height as i64, width as i64]).map_err(|error| error.with_hint(sizes))?;
        match &data.video {
            Some(video) if data.format.is_video() => model.tile_frames(video.frames as i64),
            _ => Ok(()),
        }
    }

    fn notes(&self, model: &toml::Table) -> Vec<String> {
        models::CATALOGUE.read(model.clone()).map_or(Vec::new(), |model| model.notes())
    }

    fn data_keys(&self) -> Vec<KeyDoc> {
        Data::keys()
    }

    fn model_keys(&self) -> Vec<KeyDoc> {
        models::CATALOGUE.keys()
    }

    fn open(&self, data: &toml::Table) -> Result<Splits> {
        let data = Data::read(data.clone())?;
        let Opened { train, eval, .. } = open::open(&data)?;
        let set = |images| -> Result<Arc<dyn Dataset>> {
            Ok(Arc::new(ImageSet::new(images, data.class_names.clone(), Prepare::new(&data)?)))
        };
        Ok(Splits { train: set(train)?, eval: set(eval)? })
    }

    fn inspect(&self, data: toml::Table, check: bool, progress: &Progress<'_>) -> Result<Report> {
        inspect::inspect(Data::read(data)?, check, progress)
    }

    fn cards(&self) -> Result<Vec<Card>> {
        cards::all()
    }

    /// Examples carry the label 0, which means nothing.
    fn open_inputs(&self, data: &toml::Table, inputs: &[&Path]) -> Result<Arc<dyn Dataset>> {
        let data = Data::read(data.clone())?;
        let source = if data.format.is_video() { clips::inputs(inputs)? } else { inputs::open(inputs)? };
        let len = u32::try_from(source.len())
            .map_err(|_| Error::invalid(format!("{} images are more than can be numbered", source.len())))?;
        let items = (0..len).map(|index| (index, 0)).collect();
        let images = Labelled { source: Arc::new(source), items };
        Ok(Arc::new(ImageSet::new(images, data.class_names.clone(), Prepare::new(&data)?)))
    }

    fn model(
        &self,
        model: &toml::Table,
        input_shape: &[i64],
        classes: i64,
        vs: nn::Path,
    ) -> Result<Box<dyn Model>> {
        models::build(model, input_shape, classes, vs)
    }

    fn describe(&self, model: &toml::Table, input_shape: &[i64], classes: i64) -> Result<Description> {
        models::describe(model, input_shape, classes)
    }

    fn canonical(&self, model: &toml::Table, input_shape: &[i64], classes: i64) -> Result<toml::Table> {
        ophidian_core::grid::canonical(model, input_shape, classes)
    }

    fn mix(
        &self,
        data: &toml::Table,
        input: Tensor,
        target: Tensor,
        rng: &mut Rng,
    ) -> Result<(Tensor, Tensor)> {
        mix::mix(&Data::read(data.clone())?.augment, input, target, rng)
    }

    fn picture(&self, data: &toml::Table, input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
        let data = Data::read(data.clone()).ok()?;
        let (channels, frames, height, width) = match *shape {
            [channels, height, width] => (channels, 1, height, width),
            [channels, frames, height, width] => (channels, frames, height, width),
            _ => return None,
        };
        let [channels, frames, height, width] =
            [channels, frames, height, width].map(|side| usize::try_from(side).unwrap_or(0));
        if !matches!(channels, 1 | 3) || input.len() != channels * frames * height * width {
            return None;
        }
        let mosaic = Mosaic::new(frames, height, width);
        let byte = |channel: usize, value: f32| {
            let mean = data.mean.get(channel).copied().unwrap_or(0.0);
            let std = data.std.get(channel).copied().unwrap_or(1.0);
            ((f64::from(value) * std + mean) * 255.0).round().clamp(0.0, 255.0) as u8
        };
        let rgb = |frame: usize, y: usize, x: usize| {
            std::array::from_fn::<u8, 3, _>(|channel| {
                let channel = channel.min(channels - 1);
                byte(channel, input[((channel * frames + frame) * height + y) * width + x])
            })
        };
        let at = |cell: Option<[usize; 3]>| cell.map_or([255; 3], |[frame, y, x]| rgb(frame, y, x));
        let pixels = mosaic.cells().flat_map(at).collect();
        let [high, wide] = mosaic.sides();
        Some((u32::try_from(high).ok()?, u32::try_from(wide).ok()?, pixels))
    }

    fn lay_out(&self, _: &[f32], _: &[i64], values: &[f32], sizes: &[i64]) -> Option<Laid> {
        let [frames @ .., height, width] = sizes else { return None };
        let [frames, height, width] =
            [frames.iter().product(), *height, *width].map(|side: i64| usize::try_from(side).unwrap_or(0));
        if values.is_empty() || values.len() != frames * height * width {
            return None;
        }
        let mosaic = Mosaic::new(frames, height, width);
        let at = |[frame, y, x]: [usize; 3]| values[(frame * height + y) * width + x];
        let [rows, columns] = mosaic.sides();
        Laid::new(rows, columns, mosaic.cells().map(|cell| cell.map_or(f32::NAN, at)).collect())
    }
}

/// How a clip is shown: as rows of frames, as many of them as make the picture nearest to a square.
struct Mosaic {
    frames: usize,
    height: usize,
    width: usize,
    shown: usize,
    columns: usize,
}

impl Mosaic {
    /// Of frames of a size that is not zero.
    fn new(frames: usize, height: usize, width: usize) -> Mosaic {
        let shown = frames.min(SHOWN);
        Mosaic { frames, height, width, shown, columns: columns(shown, height, width) }
    }

    /// Height and width of the picture.
    fn sides(&self) -> [usize; 2] {
        [self.shown.div_ceil(self.columns) * self.height, self.columns * self.width]
    }

    /// What its cells show, row by row: the frame, and the row and the column in it.
    fn cells(&self) -> impl Iterator<Item = Option<[usize; 3]>> {
        let Mosaic { frames, height, width, shown, columns } = *self;
        let [high, wide] = self.sides();
        (0..high).flat_map(move |y| (0..wide).map(move |x| (y, x))).map(move |(y, x)| {
            let frame = y / height * columns + x / width;
            (frame < shown).then(|| [frame * frames / shown, y % height, x % width])
        })
    }
}

/// Columns of a mosaic of `count` pictures of height x width that is nearest to a square; of several alike the one with
/// the fewest places left empty.
fn columns(count: usize, height: usize, width: usize) -> usize {
    let shape = |columns: usize| {
        let rows = count.div_ceil(columns);
        let (high, wide) = ((rows * height) as f64, (columns * width) as f64);
        (high.max(wide) / high.min(wide).max(1.0), rows * columns - count)
    };
    let nearer = |a: &usize, b: &usize| {
        let ((a, empty_a), (b, empty_b)) = (shape(*a), shape(*b));
        a.total_cmp(&b).then(empty_a.cmp(&empty_b))
    };
    (1..=count).min_by(nearer).unwrap_or(1)
}
