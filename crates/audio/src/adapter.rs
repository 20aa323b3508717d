//! The audio adapter: `adapter = "audio"`.

use std::{path::Path, sync::Arc};

use ophidian_core::{
    Error, Result,
    adapter::{Adapter, Description, Laid, Model, Splits},
    cards::Card,
    config::KeyDoc,
    data::Dataset,
    grid,
    inspect::{Progress, Report},
    rng::Rng,
};
use tch::{Tensor, nn};

use crate::{
    cards,
    config::{Data, Features},
    dataset::{ClipSet, Prepare},
    inspect, models,
    open::{self, Opened},
    picture,
    source::{Labelled, Source, folder, is_wav},
};

/// Sounds.
pub struct Audio;

impl Adapter for Audio {
    fn name(&self) -> &'static str {
        "audio"
    }

    fn resolve_data(&self, data: toml::Table) -> Result<toml::Table> {
        open::resolve(Data::read(data)?)?.to_table()
    }

    fn resolve_model(&self, model: toml::Table) -> Result<toml::Table> {
        models::CATALOGUE.resolve(model)
    }

    fn check(&self, data: &toml::Table, model: &toml::Table) -> Result<()> {
        let (data, model) = (Data::read(data.clone())?, models::CATALOGUE.read(model.clone())?);
        let [_, rows, columns] = data.shape()?;
        let sizes = match data.features {
            Features::Fbank => {
                "rows are `data.fbank.mels`, columns are frames: `data.seconds` by `data.fbank.frame_shift`"
            }
            Features::Waveform => "columns are samples: `data.seconds` by `data.sample_rate`",
        };
        model.tile([rows as i64, columns as i64]).map_err(|error| error.with_hint(sizes)).map(drop)
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
        let set = |clips| -> Result<Arc<dyn Dataset>> {
            Ok(Arc::new(ClipSet::new(clips, data.class_names.clone(), Prepare::new(&data)?)))
        };
        Ok(Splits { train: set(train)?, eval: set(eval)? })
    }

    fn inspect(&self, data: toml::Table, check: bool, progress: &Progress<'_>) -> Result<Report> {
        inspect::inspect(Data::read(data)?, check, progress)
    }

    fn cards(&self) -> Result<Vec<Card>> {
        cards::all()
    }

    /// Clips carry the label 0, which means nothing.
    fn open_inputs(&self, data: &toml::Table, inputs: &[&Path]) -> Result<Arc<dyn Dataset>> {
        let data = Data::read(data.clone())?;
        let mut files = Vec::new();
        for input in inputs {
            if input.is_dir() {
                let found = folder::walk(input)?;
                if found.is_empty() {
                    return Err(Error::file(input, "holds no WAV files"));
                }
                files.extend(found);
            } else if is_wav(input) || !input.exists() {
                files.push(input.to_path_buf());
            } else {
                return Err(Error::file(
                    input,
                    "is no WAV file by its name; expected .wav, or a folder of such",
                ));
            }
        }
        let len = u32::try_from(files.len())
            .map_err(|_| Error::invalid(format!("{} clips are more than can be numbered", files.len())))?;
        let items = (0..len).map(|index| (index, 0)).collect();
        let clips = Labelled { source: Arc::new(Source::Files(files)), items };
        Ok(Arc::new(ClipSet::new(clips, data.class_names.clone(), Prepare::new(&data)?)))
    }

    fn model(
        &self,
        model: &toml::Table,
        input_shape: &[i64],
        classes: i64,
        vs: nn::Path,
    ) -> Result<Box<dyn Model>> {
        grid::build(model, input_shape, classes, vs)
    }

    fn describe(&self, model: &toml::Table, input_shape: &[i64], classes: i64) -> Result<Description> {
        grid::describe(model, input_shape, classes)
    }

    fn canonical(&self, model: &toml::Table, input_shape: &[i64], classes: i64) -> Result<toml::Table> {
        grid::canonical(model, input_shape, classes)
    }

    fn mix(
        &self,
        data: &toml::Table,
        input: Tensor,
        target: Tensor,
        rng: &mut Rng,
    ) -> Result<(Tensor, Tensor)> {
        Data::read(data.clone())?.augment.mix(input, target, rng)
    }

    fn picture(&self, _: &toml::Table, input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
        picture::draw(input, shape)
    }

    fn reading(&self, shape: &[i64]) -> Option<String> {
        let [_, rows, _] = *shape else { return None };
        let upwards = if rows == 1 { "amplitude" } else { "frequency (mel bands, low ones below)" };
        Some(format!("time to the right, {upwards} upwards"))
    }

    /// Low frequencies below, as in the picture.
    fn lay_out(&self, _: &[f32], _: &[i64], values: &[f32], sizes: &[i64]) -> Option<Laid> {
        let [rows, columns] = *sizes else { return None };
        let [rows, columns] = [rows, columns].map(|side| usize::try_from(side).unwrap_or(0));
        let turned = values.rchunks(columns.max(1)).flatten().copied().collect();
        Laid::new(rows, columns, turned)
    }
}
