//! Checkpoints: everything a run needs to go on as if it had not stopped, in one safetensors file.
//!
//! Tensors `model.*`, `optimizer.exp_avg.*`, `optimizer.exp_avg_sq.*` and, with an average, `ema.*`; as metadata the
//! [`State`], the resolved config, the class names and the input shape, so that a checkpoint alone is enough to
//! evaluate and predict. Random generators and the loader need no state: their streams are keyed by seed and step.

use std::path::{Path, PathBuf};

use ophidian_core::{
    adapter::{Adapter, Model},
    device::move_to,
    init::keyed,
    rng::hash,
    tensors::{self, Metadata, Tensors},
};
use tch::{Device, Kind, Tensor, nn};

use crate::{Config, Error, Result, keys, optimizer::variables};

const FORMAT: &str = "ophidian checkpoint 1";

/// Where a run stands, besides its tensors.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Steps taken, including skipped ones. Schedule, loader and random streams follow from it.
    pub step: u64,
    /// Updates of the optimiser: steps that were not skipped.
    pub updates: u64,
    /// Epochs whose end has been dealt with (measured if due).
    pub epochs_done: u64,
    /// Steps skipped for a loss or gradient that was not finite.
    pub skipped_steps: u64,
    /// Of these, the last ones in a row.
    pub skipped_in_a_row: u64,
    /// Examples skipped because they could not be read.
    pub corrupt_samples: u64,
    /// The best measurement so far.
    pub best: Option<Best>,
    /// Sums since the last line of metrics.jsonl.
    pub interval: Sums,
    /// Sums since the epoch began.
    pub epoch: Sums,
    /// Bytes of metrics.jsonl that belong to the run up to here.
    pub metrics_bytes: u64,
    /// Bytes of the TensorBoard file that belong to the run up to here.
    pub events_bytes: u64,
    /// Seconds spent so far.
    pub seconds: f64,
    /// Of these, seconds in training steps.
    #[serde(default)]
    pub training_seconds: f64,
}

/// The best measurement of a run.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Best {
    /// Epoch after which it was taken, counted from 1.
    pub epoch: u64,
    /// Share of examples classified correctly.
    pub accuracy: f64,
    /// Mean cross-entropy.
    pub loss: f64,
}

/// Sums that make the means of a log line.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sums {
    /// Loss times examples.
    pub loss: f64,
    /// Examples.
    pub samples: u64,
    /// Gradient norms before clipping.
    pub grad_norm: f64,
    /// Steps that went into `grad_norm`.
    pub steps: u64,
    /// Seconds.
    pub seconds: f64,
    /// Of these, seconds spent waiting for data.
    pub waited: f64,
}

/// What a checkpoint says about the run it belongs to.
#[derive(Debug, Clone, PartialEq)]
pub struct About {
    /// The resolved config.
    pub config: Config,
    /// Class names.
    pub classes: Vec<String>,
    /// Shape of one input.
    pub input_shape: Vec<i64>,
    /// Where the run stood.
    pub state: State,
}

/// A checkpoint in memory.
pub struct Checkpoint {
    /// Where it was read from.
    pub path: PathBuf,
    /// What it says about its run.
    pub about: About,
    /// All its tensors.
    pub tensors: Tensors,
}

impl Checkpoint {
    /// Reads the checkpoint at `path`, holding its metadata to its format.
    ///
    /// # Errors
    /// The file is missing, truncated, damaged or not a checkpoint, or its config has keys that are not known here.
    pub fn read(path: &Path) -> Result<Self> {
        let (tensors, metadata) = tensors::read_with_metadata(path)?;
        let wrong = |reason: String| Error::Checkpoint { path: path.to_path_buf(), reason };
        let text = |key: &str| {
            metadata.get(key).ok_or_else(|| {
                wrong(format!("is not a checkpoint of a run: its metadata has no `{key}` (for weights alone, see `ophidian forward`)"))
            })
        };
        let format = text("format")?;
        if format != FORMAT {
            return Err(wrong(format!("has format \"{format}\", expected \"{FORMAT}\"")));
        }
        let damaged = |key: &str, error: &dyn std::fmt::Display| {
            wrong(format!("has damaged metadata: `{key}`: {error}"))
        };
        let table = text("config")?.parse().map_err(|error| damaged("config", &error))?;
        let config = Config::resolved(table).map_err(|error| damaged("config", &error))?;
        let state: State = serde_json::from_str(text("state")?).map_err(|error| damaged("state", &error))?;
        let classes: Vec<String> =
            serde_json::from_str(text("classes")?).map_err(|error| damaged("classes", &error))?;
        let input_shape: Vec<i64> =
            serde_json::from_str(text("input_shape")?).map_err(|error| damaged("input_shape", &error))?;
        let size = input_shape.iter().try_fold(1i64, |size, n| size.checked_mul(*n));
        if classes.is_empty() || input_shape.iter().any(|n| *n < 1) || size.is_none_or(|size| size > 1 << 31)
        {
            return Err(wrong(format!(
                "has damaged metadata: {} classes, input shape {input_shape:?}",
                classes.len()
            )));
        }
        let path = path.to_path_buf();
        Ok(Checkpoint { path, about: About { config, classes, input_shape, state }, tensors })
    }

    /// Fills `targets` (name and tensor) from the checkpoint. Nothing is filled unless everything fits.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] listing every tensor that is missing, has another shape or dtype, or holds a value that is
    /// not finite, and every tensor under one of `prefixes` that nothing asked for.
    pub fn fill(&self, targets: &[(String, Tensor)], prefixes: &[&str]) -> Result<()> {
        let mut problems = Vec::new();
        for (name, target) in targets {
            let Some(found) = self.tensors.get(name) else {
                problems.push(format!("`{name}` {:?} is missing", target.size()));
                continue;
            };
            if found.size() != target.size() || found.kind() != target.kind() {
                problems.push(format!(
                    "`{name}` is {:?} {:?}, expected {:?} {:?}",
                    found.size(),
                    found.kind(),
                    target.size(),
                    target.kind()
                ));
            } else if !is_finite(found)? {
                problems.push(format!("`{name}` holds values that are not finite"));
            }
        }
        let wanted: std::collections::HashSet<&str> = targets.iter().map(|(name, _)| name.as_str()).collect();
        for (name, found) in &self.tensors {
            if prefixes.iter().any(|prefix| name.starts_with(prefix)) && !wanted.contains(name.as_str()) {
                problems.push(format!("`{name}` {:?} is not part of the model", found.size()));
            }
        }
        if !problems.is_empty() {
            return Err(Error::Checkpoint {
                path: self.path.clone(),
                reason: format!("does not fit the model of the config:\n  {}", problems.join("\n  ")),
            });
        }
        for (name, target) in targets {
            target.detach().f_copy_(&self.tensors[name])?;
        }
        Ok(())
    }

    /// The model as it should be used, on `device`: with the averaged weights where the run kept an average.
    ///
    /// # Errors
    /// As [`Checkpoint::fill`].
    pub fn model(&self, adapter: &dyn Adapter, device: Device) -> Result<(nn::VarStore, Box<dyn Model>)> {
        let averaged = self.tensors.keys().any(|name| name.starts_with("ema."));
        let prefix = if averaged { "ema." } else { "model." };
        let (vs, model) = build(&self.about, adapter, device)?;
        let targets: Vec<(String, Tensor)> = variables(&vs)
            .into_iter()
            .map(|(name, variable)| (format!("{prefix}{name}"), variable))
            .collect();
        self.fill(&targets, &[prefix])?;
        Ok((vs, model))
    }
}

/// The freshly initialised model of a run, on `device`: with the same values wherever that is.
///
/// # Errors
/// The adapter refuses the config for that input.
pub fn build(about: &About, adapter: &dyn Adapter, device: Device) -> Result<(nn::VarStore, Box<dyn Model>)> {
    let seed = hash(&[about.config.seed, keys::INIT]);
    // For what an adapter draws without a name.
    tch::manual_seed(seed as i64);
    let mut vs = nn::VarStore::new(Device::Cpu);
    let classes = about.classes.len() as i64;
    let model = keyed(seed, || adapter.model(&about.config.model, &about.input_shape, classes, vs.root()))?;
    move_to(&mut vs, device)?;
    Ok((vs, model))
}

/// Writes a checkpoint to `path`, whole or not at all.
///
/// # Errors
/// The folder is read-only, the disk is full …; or a tensor is not finite, which is never written.
pub fn write(path: &Path, about: &About, tensors: &Tensors) -> Result<()> {
    for (name, tensor) in tensors {
        if !is_finite(tensor)? {
            return Err(Error::NonFinite(format!(
                "`{name}` holds values that are not finite after step {}; {} is left as it was",
                about.state.step,
                path.display()
            )));
        }
    }
    let metadata = Metadata::from([
        ("format".to_owned(), FORMAT.to_owned()),
        ("config".to_owned(), about.config.to_toml()),
        ("state".to_owned(), json(&about.state)?),
        ("classes".to_owned(), json(&about.classes)?),
        ("input_shape".to_owned(), json(&about.input_shape)?),
    ]);
    Ok(tensors::write_with_metadata(path, tensors, metadata)?)
}

fn json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value)
        .map_err(|error| ophidian_core::Error::invalid(format!("cannot be written as JSON: {error}")).into())
}

fn is_finite(tensor: &Tensor) -> Result<bool> {
    if !matches!(tensor.kind(), Kind::Float | Kind::Double | Kind::Half | Kind::BFloat16) {
        return Ok(true);
    }
    Ok(tensor.f_isfinite()?.f_all()?.f_int64_value(&[])? != 0)
}
