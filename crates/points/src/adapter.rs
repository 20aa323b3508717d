//! The points adapter: `adapter = "points"`.

use std::{path::Path, sync::Arc};

use ophidian_core::{
    Result,
    adapter::{Adapter, Description, Laid, Model, Splits},
    cards::Card,
    config::KeyDoc,
    data::Dataset,
    inspect::{Progress, Report},
    rng::Rng,
};
use tch::{Tensor, nn};

use crate::{
    cards,
    config::Data,
    dataset::PointSet,
    inspect, list,
    models::{self, ModelConfig},
    open::{self, Opened},
    picture,
};

/// Clouds, meshes and clouds over time.
pub struct PointClouds;

impl Adapter for PointClouds {
    fn name(&self) -> &'static str {
        "points"
    }

    fn resolve_data(&self, data: toml::Table) -> Result<toml::Table> {
        open::resolve(Data::read(data)?)?.to_table()
    }

    fn resolve_model(&self, model: toml::Table) -> Result<toml::Table> {
        models::resolve(model)
    }

    fn check(&self, data: &toml::Table, model: &toml::Table) -> Result<()> {
        let data = Data::read(data.clone())?;
        let shape: Vec<i64> = data.shape().into_iter().map(|side| side as i64).collect();
        ModelConfig::read(model.clone())?.check_input(models::Input::try_from(&shape[..])?)
    }

    fn notes(&self, model: &toml::Table) -> Vec<String> {
        ModelConfig::read(model.clone()).map_or(Vec::new(), |model| model.notes())
    }

    fn data_keys(&self) -> Vec<KeyDoc> {
        Data::keys()
    }

    fn model_keys(&self) -> Vec<KeyDoc> {
        models::keys()
    }

    fn open(&self, data: &toml::Table) -> Result<Splits> {
        let data = Data::read(data.clone())?;
        let Opened { train, eval, .. } = open::open(&data)?;
        let set = |source| Arc::new(PointSet::new(source, data.clone())) as Arc<dyn Dataset>;
        Ok(Splits { train: set(train), eval: set(eval) })
    }

    /// Every file is read, whether `check` asks for it or not.
    fn inspect(&self, data: toml::Table, _check: bool, _progress: &Progress<'_>) -> Result<Report> {
        inspect::inspect(Data::read(data)?)
    }

    fn cards(&self) -> Result<Vec<Card>> {
        cards::all()
    }

    /// Examples carry the label 0, which means nothing.
    fn open_inputs(&self, data: &toml::Table, inputs: &[&Path]) -> Result<Arc<dyn Dataset>> {
        let data = Data::read(data.clone())?;
        let source = open::load(&data, &list::inputs(inputs)?)?;
        Ok(Arc::new(PointSet::new(source, data)))
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

    fn canonical(&self, model: &toml::Table, input_shape: &[i64], _: i64) -> Result<toml::Table> {
        models::canonical(model, input_shape)
    }

    /// Clouds are not mixed.
    fn mix(&self, _: &toml::Table, input: Tensor, target: Tensor, _: &mut Rng) -> Result<(Tensor, Tensor)> {
        Ok((input, target))
    }

    fn picture(&self, _: &toml::Table, input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
        picture::picture(input, shape)
    }

    fn reading(&self, shape: &[i64]) -> Option<String> {
        picture::reading(shape)
    }

    /// The groups, seen as in the picture.
    fn lay_out(&self, input: &[f32], shape: &[i64], values: &[f32], _: &[i64]) -> Option<Laid> {
        picture::groups(input, shape, values)
    }
}
