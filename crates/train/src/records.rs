//! What a run writes down as it goes: `metrics.jsonl` and TensorBoard's file, both cut back to the last checkpoint when
//! the run resumes, so that they read as if it had never stopped.

use serde_json::{Map, Value, json};

use crate::{
    Result,
    checkpoint::{State, Sums},
    environment::{peak_memory_mib, seconds_since_epoch},
    events,
    folder::{Log, RunFolder},
    measure::Measurement,
};

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
        line.insert("learning_rate".into(), json!(learning_rate));
        self.write("step", "train", state, epoch, line)
    }

    /// The means of the epoch.
    ///
    /// # Errors
    /// The logs cannot be written.
    pub fn epoch(&mut self, state: &State, epoch: u64) -> Result<()> {
        let mut line = means(&state.epoch);
        line.insert("corrupt_samples".into(), json!(state.corrupt_samples));
        line.insert("skipped_steps".into(), json!(state.skipped_steps));
        self.write("epoch", "epoch", state, epoch, line)
    }

    /// A measurement of the weights (`kind` "eval") or of their average ("ema").
    ///
    /// # Errors
    /// The logs cannot be written.
    pub fn measurement(&mut self, kind: &str, state: &State, epoch: u64, found: &Measurement) -> Result<()> {
        let mut line = Map::new();
        line.insert("loss".into(), json!(found.loss));
        line.insert("accuracy".into(), json!(found.accuracy));
        if let Some(top5) = found.top5 {
            line.insert("top5".into(), json!(top5));
        }
        line.insert("samples".into(), json!(found.samples));
        self.write(kind, kind, state, epoch, line)
    }

    /// Writes a line and, for its numbers, a TensorBoard event.
    fn write(
        &mut self,
        kind: &str,
        tag: &str,
        state: &State,
        epoch: u64,
        values: Map<String, Value>,
    ) -> Result<()> {
        let scalars: Vec<(String, f64)> = values
            .iter()
            .filter_map(|(name, value)| Some((format!("{tag}/{name}"), value.as_f64()?)))
            .collect();
        let mut line = Map::new();
        line.insert("kind".into(), json!(kind));
        line.insert("step".into(), json!(state.step));
        line.insert("epoch".into(), json!(epoch));
        line.extend(values);
        line.insert("seconds".into(), json!(rounded(state.seconds, 3)));
        if let Some(memory) = peak_memory_mib() {
            line.insert("peak_memory_mib".into(), json!(rounded(memory, 1)));
        }
        self.metrics.append(format!("{}\n", Value::Object(line)).as_bytes())?;
        let scalars: Vec<(&str, f64)> = scalars.iter().map(|(tag, value)| (tag.as_str(), *value)).collect();
        self.events.append(&events::scalars(seconds_since_epoch(), state.step, &scalars))
    }
}

fn means(sums: &Sums) -> Map<String, Value> {
    let mut line = Map::new();
    if sums.samples > 0 {
        line.insert("loss".into(), json!(sums.loss / sums.samples as f64));
    }
    if sums.steps > 0 {
        line.insert("grad_norm".into(), json!(sums.grad_norm / sums.steps as f64));
    }
    if sums.seconds > 0.0 {
        line.insert("samples_per_second".into(), json!(rounded(sums.samples as f64 / sums.seconds, 1)));
        line.insert("data_wait".into(), json!(rounded(sums.waited / sums.seconds, 4)));
    }
    line
}

fn rounded(value: f64, digits: i32) -> f64 {
    let scale = 10f64.powi(digits);
    (value * scale).round() / scale
}
