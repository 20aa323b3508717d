//! Labels and probabilities for inputs that have none.

use std::sync::Arc;

use ophidian_core::{adapter::Model, data::Dataset};

use crate::{
    Result,
    measure::{Reading, likeliest, log_probabilities},
};

/// What the model makes of one input.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Where the input comes from.
    pub input: String,
    /// The likeliest class.
    pub class: usize,
    /// Probability of each class.
    pub probabilities: Vec<f32>,
}

/// What came out of [`predict`].
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Predictions {
    /// In the order of the inputs.
    pub found: Vec<Prediction>,
    /// Messages about inputs that could not be read.
    pub skipped: Vec<String>,
}

/// Runs `model` over `inputs`; `progress` hears of the inputs as they are done.
///
/// # Errors
/// An input cannot be read (unless `reading` skips those), or the model's output is not finite.
pub fn predict(
    model: &dyn Model,
    inputs: &Arc<dyn Dataset>,
    classes: usize,
    reading: &Reading,
    mut progress: impl FnMut(u64),
) -> Result<Predictions> {
    let mut predictions = Predictions::default();
    for batch in reading.loader(model, inputs.clone(), None)? {
        let batch = batch?;
        predictions.skipped.extend(batch.skipped.iter().cloned());
        if batch.is_empty() {
            continue;
        }
        let rows = log_probabilities(model, &batch, classes, reading)?;
        for (row, index) in rows.chunks_exact(classes).zip(&batch.indices) {
            predictions.found.push(Prediction {
                input: inputs.name_of(*index),
                class: likeliest(row),
                probabilities: row.iter().map(|value| value.exp()).collect(),
            });
        }
        progress(batch.len() as u64);
    }
    Ok(predictions)
}
