//! How good a model is on a data set.

use std::sync::Arc;

use ophidian_core::{adapter::Model, data::Dataset, device::send, torch::autocast};
use tch::{Device, Kind, Tensor};

use crate::{
    Error, Result,
    config::{OnCorrupt, Precision, TrainConfig},
    interrupt,
    loader::{Batch, Loader, Plan, Sampling},
};

/// Mistakes that a [`Measurement`] keeps for the picture.
const MISTAKES: usize = 24;

/// What was measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Measurement {
    /// Examples.
    pub samples: u64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of examples whose likeliest class is the true one.
    pub accuracy: f64,
    /// Share of examples whose true class is among the five likeliest, if there are more than five classes.
    pub top5: Option<f64>,
    /// Examples by true class (row) and predicted class (column).
    pub confusion: Vec<Vec<u64>>,
    /// The mistakes the model was surest of, surest first.
    pub mistakes: Vec<Mistake>,
    /// What the model said to each example, in their order.
    pub answers: Vec<Answer>,
    /// Messages about examples that could not be read.
    pub skipped: Vec<String>,
}

/// An example and the class that the model took it for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Answer {
    /// Where it stands in the data set.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// The likeliest class.
    pub predicted: usize,
}

/// An example that was classified wrongly.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mistake {
    /// Where it stands in the data set.
    pub index: usize,
    /// Its class.
    pub label: usize,
    /// What the model took it for.
    pub predicted: usize,
    /// The probability that the model gave to that.
    pub probability: f32,
}

/// How data is read and the model is run, apart from training.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    /// Examples in a batch.
    pub batch_size: usize,
    /// Reading threads.
    pub workers: usize,
    /// Batches that may wait.
    pub prefetch: usize,
    /// What to do about an example that cannot be read.
    pub on_corrupt: OnCorrupt,
    /// Precision of the forward pass.
    pub precision: Precision,
    /// Where the model is.
    pub device: Device,
}

impl Reading {
    /// As the config of a run says, of a model on `device`.
    pub fn of(config: &TrainConfig, device: Device) -> Self {
        Reading {
            batch_size: config.eval_batch_size,
            workers: config.worker_threads(),
            prefetch: config.prefetch,
            on_corrupt: config.on_corrupt,
            precision: config.precision,
            device,
        }
    }

    /// Reads all of `dataset` once, in order, for `model`.
    ///
    /// # Errors
    /// No thread can be started.
    pub(crate) fn loader(
        &self,
        model: &dyn Model,
        dataset: Arc<dyn Dataset>,
        classes: Option<i64>,
    ) -> Result<Loader> {
        let mut plan = Plan {
            dataset,
            sampling: Sampling::Sequential,
            batch_size: self.batch_size,
            batches: 0..0,
            workers: self.workers,
            prefetch: self.prefetch,
            on_corrupt: self.on_corrupt,
            classes,
            planner: model.planner(),
        };
        plan.batches = 0..plan.batches_per_epoch();
        Loader::start(plan)
    }
}

/// Measures `model` on `dataset`; `progress` hears of the examples as they are done. None if the program was
/// interrupted meanwhile.
///
/// # Errors
/// The data set is empty or corrupt, or the model's output is not finite.
pub fn measure(
    model: &dyn Model,
    dataset: &Arc<dyn Dataset>,
    classes: usize,
    reading: &Reading,
    mut progress: impl FnMut(u64),
) -> Result<Option<Measurement>> {
    let mut seen = Measurement {
        samples: 0,
        loss: 0.0,
        accuracy: 0.0,
        top5: None,
        confusion: vec![vec![0; classes]; classes],
        mistakes: Vec::new(),
        answers: Vec::new(),
        skipped: Vec::new(),
    };
    let mut among_five = 0u64;
    for batch in reading.loader(model, dataset.clone(), Some(classes as i64))? {
        if interrupt::asked() {
            return Ok(None);
        }
        let batch = batch?;
        seen.skipped.extend(batch.skipped.iter().cloned());
        if batch.is_empty() {
            continue;
        }
        let rows = log_probabilities(model, &batch, classes, reading)?;
        for ((row, label), index) in rows.chunks_exact(classes).zip(&batch.labels).zip(&batch.indices) {
            let label = *label as usize;
            let predicted = likeliest(row);
            seen.samples += 1;
            seen.loss -= f64::from(row[label]);
            seen.confusion[label][predicted] += 1;
            seen.answers.push(Answer { index: *index, label, predicted });
            among_five += u64::from(row.iter().filter(|other| **other > row[label]).count() < 5);
            if predicted != label {
                let probability = row[predicted].exp();
                let place = seen.mistakes.partition_point(|mistake| mistake.probability >= probability);
                if place < MISTAKES {
                    seen.mistakes.insert(place, Mistake { index: *index, label, predicted, probability });
                    seen.mistakes.truncate(MISTAKES);
                }
            }
        }
        progress(batch.len() as u64);
    }
    if seen.samples == 0 {
        return Err(ophidian_core::Error::invalid(match seen.skipped.first() {
            None => "there is no example to measure on".to_owned(),
            Some(first) => format!("every example to measure on is corrupt; the first: {first}"),
        })
        .into());
    }
    let samples = seen.samples as f64;
    let right: u64 = (0..classes).map(|class| seen.confusion[class][class]).sum();
    seen.loss /= samples;
    seen.accuracy = right as f64 / samples;
    seen.top5 = (classes > 5).then_some(among_five as f64 / samples);
    Ok(Some(seen))
}

/// Logarithms of the class probabilities of a batch, row by row.
///
/// # Errors
/// The model fails, gives another shape than (batch, classes), or values that are not finite.
pub fn log_probabilities(
    model: &dyn Model,
    batch: &Batch,
    classes: usize,
    reading: &Reading,
) -> Result<Vec<f32>> {
    let rows = tch::no_grad(|| -> Result<Tensor> {
        let input = send(&batch.input, reading.device)?;
        let logits = autocast(reading.precision == Precision::Bf16, || {
            model.forward_along(&input, &batch.orders, false)
        })?;
        check_logits(&logits, batch.len() as i64, classes)?;
        Ok(logits.f_to_kind(Kind::Float)?.f_log_softmax(-1, Kind::Float)?)
    })?;
    let rows: Vec<f32> = Vec::try_from(rows.f_contiguous()?.f_view([-1])?)?;
    // A class may be impossible (-inf); a row of NaN comes of outputs that are not finite.
    if rows.iter().any(|value| value.is_nan()) {
        return Err(Error::NonFinite(
            "the model's output is not finite on the eval split; its weights or its input may be damaged"
                .to_owned(),
        ));
    }
    Ok(rows)
}

/// Holds a model to its promise.
pub(crate) fn check_logits(logits: &Tensor, batch: i64, classes: usize) -> Result<()> {
    if logits.size() != [batch, classes as i64] {
        return Err(ophidian_core::Error::invalid(format!(
            "the model gave {:?}, expected logits {:?} (batch, classes)",
            logits.size(),
            [batch, classes as i64]
        ))
        .into());
    }
    Ok(())
}

/// Index of the largest value, the first of equals.
pub fn likeliest(row: &[f32]) -> usize {
    let mut best = 0;
    for (i, value) in row.iter().enumerate() {
        if *value > row[best] {
            best = i;
        }
    }
    best
}

impl Measurement {
    /// What heads a picture of it.
    pub fn title(&self) -> String {
        format!("accuracy {:.2}% on {} examples", 100.0 * self.accuracy, self.samples)
    }

    /// By class: examples, share recognised (recall), and share of its predictions that are right (precision).
    pub fn per_class(&self) -> Vec<(u64, f64, f64)> {
        let share = |part: u64, whole: u64| if whole == 0 { 0.0 } else { part as f64 / whole as f64 };
        (0..self.confusion.len())
            .map(|class| {
                let right = self.confusion[class][class];
                let examples = self.confusion[class].iter().sum();
                let predicted = self.confusion.iter().map(|row| row[class]).sum();
                (examples, share(right, examples), share(right, predicted))
            })
            .collect()
    }
}
