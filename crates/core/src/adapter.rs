//! The seam between the trainer and the modalities: a modality is an [`Adapter`], registered by name in the program.

use std::{path::Path, sync::Arc};

use ophidian_scan::{Geometry, Plan};
use tch::{Tensor, nn};

use crate::{
    Error, Result,
    cards::Card,
    config::KeyDoc,
    data::{Dataset, Sample},
    inspect::{Progress, Report},
    ops::Orders,
    rng::Rng,
};

/// A model that maps a batch of inputs (batch, …input shape) to logits (batch, classes).
pub trait Model {
    /// Logits (batch, classes), f32. `train` switches drop path and dropout on.
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor>;

    /// Makes the plans of each sample, if the model's scan depends on the sample or is drawn anew for it. The loader asks
    /// it on its threads.
    fn planner(&self) -> Option<Arc<dyn Planner>> {
        None
    }

    /// [`forward`](Model::forward) with the orders that the model's [`Planner`] made, one for each of its plans, over
    /// all samples of the batch; none stands for those that the model has of itself.
    ///
    /// # Errors
    /// Those of `forward`; orders that the model does not know what to do with.
    fn forward_along(&self, input: &Tensor, orders: &[Orders], train: bool) -> Result<Tensor> {
        if !orders.is_empty() {
            return Err(Error::invalid(format!(
                "{} plans were made for each sample, but the model takes none",
                orders.len()
            )));
        }
        self.forward(input, train)
    }

    /// True for parameters (by VarStore name) that weight decay must leave alone
    /// (biases, norms, A_log, D, dt biases, position embeddings, class tokens).
    fn no_weight_decay(&self, name: &str) -> bool;
}

/// Makes scan plans that differ from sample to sample: from its values (points, graphs) or at random.
pub trait Planner: Send + Sync {
    /// The plans of `sample`: always as many, and each over as many tokens and in as many directions as it is for every
    /// other sample. Draws only from `random`, whose stream is the sample's own in every epoch of training, and the same
    /// one whenever it is evaluated.
    ///
    /// # Errors
    /// The sample does not suit the scan.
    fn plans(&self, sample: &Sample, random: &mut Rng) -> Result<Vec<Plan>>;
}

/// What is known of a model before it runs.
#[derive(Debug, Default)]
pub struct Description {
    /// Operations of a forward pass over one input, a multiply-add being two; none if they are not counted.
    pub flops: Option<f64>,
    /// The scans of its layers, each once.
    pub scans: Vec<Walk>,
}

/// A scan with what it walks over.
#[derive(Debug)]
pub struct Walk {
    /// As a config has it.
    pub name: String,
    /// Its orders.
    pub plan: Plan,
    /// Where the tokens lie.
    pub geometry: Geometry,
}

/// The data sets of a run.
pub struct Splits {
    /// Trained on.
    pub train: Arc<dyn Dataset>,
    /// Measured on after every epoch and at the end.
    pub eval: Arc<dyn Dataset>,
}

/// One modality. Its `[data]` and `[model]` tables are its own: the trainer carries them and never looks inside.
pub trait Adapter: Sync {
    /// Name in a config: `adapter = "vision"`.
    fn name(&self) -> &'static str;

    /// Checks `[data]` and fills in every default. Errors name the key.
    fn resolve_data(&self, data: toml::Table) -> Result<toml::Table>;

    /// Checks `[model]` and fills in every default. Errors name the key.
    fn resolve_model(&self, model: toml::Table) -> Result<toml::Table>;

    /// Checks that a resolved `[model]` fits a resolved `[data]`, as far as both are known before data is read. Errors
    /// name the key.
    fn check(&self, data: &toml::Table, model: &toml::Table) -> Result<()> {
        let _ = (data, model);
        Ok(())
    }

    /// What a user should know of a resolved `[model]` before it is trained, line by line.
    fn notes(&self, model: &toml::Table) -> Vec<String> {
        let _ = model;
        Vec::new()
    }

    /// The keys of `[data]` and what they mean.
    fn data_keys(&self) -> Vec<KeyDoc> {
        Vec::new()
    }

    /// The keys of `[model]` and what they mean.
    fn model_keys(&self) -> Vec<KeyDoc> {
        Vec::new()
    }

    /// Opens the data sets of a resolved `[data]`.
    fn open(&self, data: &toml::Table) -> Result<Splits>;

    /// Says what is in the data set of a `[data]` that need not be resolved. With `check`, every example is read.
    ///
    /// # Errors
    /// The data set cannot be opened. Examples that cannot be read are problems in the report.
    fn inspect(&self, data: toml::Table, check: bool, progress: &Progress<'_>) -> Result<Report> {
        let _ = (data, check, progress);
        Err(Error::invalid(format!("adapter \"{}\" has no statistics of its data sets", self.name())))
    }

    /// The data sets that it knows.
    ///
    /// # Errors
    /// None for cards that are part of the program.
    fn cards(&self) -> Result<Vec<Card>> {
        Ok(Vec::new())
    }

    /// Opens files or folders without labels for prediction, prepared as the eval split of `data` would be.
    fn open_inputs(&self, data: &toml::Table, inputs: &[&Path]) -> Result<Arc<dyn Dataset>>;

    /// Builds the model of a resolved `[model]` for inputs of `input_shape` and `classes` classes.
    fn model(
        &self,
        model: &toml::Table,
        input_shape: &[i64],
        classes: i64,
        vs: nn::Path,
    ) -> Result<Box<dyn Model>>;

    /// Describes the model of a resolved `[model]` for reports, without making it. A scan that is made from the sample is
    /// left out, or shown for some sample.
    ///
    /// # Errors
    /// As [`model`](Adapter::model).
    fn describe(&self, model: &toml::Table, input_shape: &[i64], classes: i64) -> Result<Description> {
        let _ = (model, input_shape, classes);
        Ok(Description::default())
    }

    /// The resolved `[model]` with its scans spelt so that two models that do the same have equal tables, though their
    /// configs write it differently: by the orders that a scan comes to over inputs of `input_shape`, and where these
    /// depend on the sample by its pattern in its shortest form. Only for comparison: it need not be a `[model]` any more.
    ///
    /// # Errors
    /// As [`model`](Adapter::model).
    fn canonical(&self, model: &toml::Table, input_shape: &[i64], classes: i64) -> Result<toml::Table> {
        let _ = (input_shape, classes);
        Ok(model.clone())
    }

    /// Mixes a training batch (mixup, cutmix): inputs (batch, …) and soft targets (batch, classes) in, the same out.
    /// Draws only from `rng`.
    fn mix(
        &self,
        data: &toml::Table,
        input: Tensor,
        target: Tensor,
        rng: &mut Rng,
    ) -> Result<(Tensor, Tensor)>;

    /// A picture of an input for reports: (height, width, RGB bytes row by row), or none if it cannot be drawn.
    fn picture(&self, data: &toml::Table, input: &[f32], shape: &[i64]) -> Option<(u32, u32, Vec<u8>)>;

    /// How the pictures of inputs of `shape` are to be read, and the maps laid over them: what the axes are, or what lies
    /// side by side. None where that is plain to see.
    fn reading(&self, shape: &[i64]) -> Option<String> {
        let _ = shape;
        None
    }

    /// A map over an input, laid out as [`picture`](Adapter::picture) lays out the input, or none if that cannot be done.
    /// `values` lie on the grid `sizes` = (rows, columns), for a clip (frames, rows, columns), which may be coarser than
    /// the input; or they are one for each of the input's `sizes` = (places).
    fn lay_out(&self, input: &[f32], shape: &[i64], values: &[f32], sizes: &[i64]) -> Option<Laid> {
        let _ = (input, shape);
        let [.., rows, columns] = *sizes else { return None };
        let frames: i64 = sizes.iter().rev().skip(2).product();
        Laid::new(usize::try_from(frames * rows).ok()?, usize::try_from(columns).ok()?, values.to_vec())
    }
}

/// A map as a picture.
#[derive(Debug, Clone, PartialEq)]
pub struct Laid {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Row by row; NaN where nothing lies, infinite on a line between two parts of the picture.
    pub values: Vec<f32>,
}

impl Laid {
    /// None if there are not as many values as cells, or none.
    pub fn new(rows: usize, columns: usize, values: Vec<f32>) -> Option<Laid> {
        (!values.is_empty() && rows.checked_mul(columns) == Some(values.len())).then_some(Laid {
            rows,
            columns,
            values,
        })
    }
}
