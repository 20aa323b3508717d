//! What a run writes down as it goes: `metrics.jsonl` and TensorBoard's file, both cut back to the last checkpoint when
//! the run resumes, so that they read as if it had never stopped; `evaluation.json` and `summary.json`, which are written
//! anew.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    Ending, Error, Result,
    checkpoint::{State, Sums},
    environment::{peak_memory_mib, seconds_since_epoch},
    events,
    folder::{Log, RunFolder, write_text},
    measure::Measurement,
};

/// `evaluation.json`: the last measurement of a run, answer by answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    /// Epoch after which it was taken, counted from 1.
    pub epoch: u64,
    /// Share of examples classified correctly.
    pub accuracy: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Names of the classes.
    pub classes: Vec<String>,
    /// Place of each example in the eval split.
    pub examples: Vec<usize>,
    /// Class of each.
    pub labels: Vec<usize>,
    /// Class that the model took each for.
    pub predicted: Vec<usize>,
}

impl Evaluation {
    /// Of a measurement after `epoch`.
    pub(crate) fn of(found: &Measurement, epoch: u64, classes: &[String]) -> Self {
        Evaluation {
            epoch,
            accuracy: found.accuracy,
            loss: found.loss,
            classes: classes.to_vec(),
            examples: found.answers.iter().map(|answer| answer.index).collect(),
            labels: found.answers.iter().map(|answer| answer.label).collect(),
            predicted: found.answers.iter().map(|answer| answer.predicted).collect(),
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }
}

/// `summary.json`: how a run ended, and what was trained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Summary {
    /// How it ended.
    pub ending: Ending,
    /// Steps taken.
    pub step: u64,
    /// Steps of the whole run; those taken, if it was interrupted and seconds decide its length.
    pub steps: u64,
    /// Whole epochs.
    pub epochs: u64,
    /// Accuracy of the best measurement.
    pub best_accuracy: Option<f64>,
    /// Trainable numbers.
    pub parameters: i64,
    /// Operations of a forward pass over one input, a multiply-add being two, if they are counted.
    pub flops: Option<f64>,
    /// Shape of one input.
    pub input_shape: Vec<i64>,
    /// Number of classes.
    pub classes: usize,
    /// Examples of an epoch.
    pub training_examples: u64,
    /// Seconds that the run took, measurements included.
    pub seconds: f64,
    /// Of these, seconds in training steps; none in runs of before this was written down.
    #[serde(default)]
    pub training_seconds: Option<f64>,
    /// Seconds in training steps that it was to take, if they decided its length.
    #[serde(default)]
    pub max_seconds: Option<f64>,
}

impl Summary {
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        write_json(path, self)
    }
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let text = serde_json::to_string(value).map_err(|error| Error::file(path, error))?;
    write_text(path, &format!("{text}\n"))
}

/// Names and values of a line, in the order in which they are written.
type Line = Vec<(&'static str, Value)>;

/// The two logs of a run.
pub struct Records {
    metrics: Log,
    events: Log,
}

impl Records {
    /// Opens the logs with what belongs to the run up to `state`.
    ///
    /// # Errors
    /// They cannot be opened or written.
    pub fn open(folder: &RunFolder, state: &State) -> Result<Self> {
        let metrics = Log::open(&folder.metrics(), state.metrics_bytes)?;
        let mut events = Log::open(&folder.events(), state.events_bytes)?;
        if events.bytes() == 0 {
            events.append(&events::version(seconds_since_epoch()))?;
        }
        Ok(Records { metrics, events })
    }

    /// Notes in `state` how much of the logs belongs to it, and makes them survive a power cut.
    ///
    /// # Errors
    /// The disk failed.
    pub fn settle(&self, state: &mut State) -> Result<()> {
        self.metrics.sync()?;
        self.events.sync()?;
        (state.metrics_bytes, state.events_bytes) = (self.metrics.bytes(), self.events.bytes());
        Ok(())
    }

    /// The means since the last such line.
    ///
    /// # Errors
    /// The logs cannot be written.
    pub fn interval(&mut self, state: &State, epoch: u64, learning_rate: f64) -> Result<()> {
        let mut line = means(&state.interval);
        line.push(("learning_rate", json!(learning_rate)));
        self.write("step", "train", state, epoch, line)
    }

    /// The means of the epoch.
    ///
    /// # Errors
    /// The logs cannot be written.
    pub fn epoch(&mut self, state: &State, epoch: u64) -> Result<()> {
        let mut line = means(&state.epoch);
        line.push(("corrupt_samples", json!(state.corrupt_samples)));
        line.push(("skipped_steps", json!(state.skipped_steps)));
        self.write("epoch", "epoch", state, epoch, line)
    }

    /// A measurement of the weights (`kind` "eval") or of their average ("ema").
    ///
    /// # Errors
    /// The logs cannot be written.
    pub fn measurement(&mut self, kind: &str, state: &State, epoch: u64, found: &Measurement) -> Result<()> {
        let mut line: Line = vec![("loss", json!(found.loss)), ("accuracy", json!(found.accuracy))];
        if let Some(top5) = found.top5 {
            line.push(("top5", json!(top5)));
        }
        line.push(("samples", json!(found.samples)));
        self.write(kind, kind, state, epoch, line)
    }

    /// Writes a line and, for its numbers, a TensorBoard event.
    fn write(&mut self, kind: &str, tag: &str, state: &State, epoch: u64, values: Line) -> Result<()> {
        let scalars: Vec<(String, f64)> = values
            .iter()
            .filter_map(|(name, value)| Some((format!("{tag}/{name}"), value.as_f64()?)))
            .collect();
        let mut line: Line =
            vec![("kind", json!(kind)), ("step", json!(state.step)), ("epoch", json!(epoch))];
        line.extend(values);
        line.push(("seconds", json!(rounded(state.seconds, 3))));
        line.push(("training_seconds", json!(rounded(state.training_seconds, 3))));
        line.extend(peak_memory_mib().map(|memory| ("peak_memory_mib", json!(rounded(memory, 1)))));
        let line: Vec<String> = line.iter().map(|(name, value)| format!("\"{name}\":{value}")).collect();
        self.metrics.append(format!("{{{}}}\n", line.join(",")).as_bytes())?;
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.events.append(&events::scalars(seconds_since_epoch(), state.step, &scalars))
    }
}

fn means(sums: &Sums) -> Line {
    let mut line = Line::new();
    if sums.samples > 0 {
        line.push(("loss", json!(sums.loss / sums.samples as f64)));
    }
    if sums.steps > 0 {
        line.push(("grad_norm", json!(sums.grad_norm / sums.steps as f64)));
    }
    if sums.seconds > 0.0 {
        line.push(("samples_per_second", json!(rounded(sums.samples as f64 / sums.seconds, 1))));
        line.push(("data_wait", json!(rounded(sums.waited / sums.seconds, 4))));
    }
    line
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
