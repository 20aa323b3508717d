//! What every arm may spend.

use ophidian_core::config::from_table;
use toml::{Table, Value};

use crate::{Error, Result, config::TrainConfig, progress::count};

/// How long the arms train.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Budget {
    /// As their configs say.
    Base,
    /// So many passes over the data.
    Epochs(u64),
    /// So many seconds of training steps on this machine.
    Seconds(f64),
    /// So many operations in training steps.
    Flops(f64),
    /// As many operations as the baseline takes for what its config says.
    FlopsOfBaseline,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    epochs: Option<u64>,
    seconds: Option<f64>,
    flops: Option<Value>,
}

/// A training step takes a forward pass, and about twice that for the gradients of inputs and weights.
const PASSES: f64 = 3.0;

impl Budget {
    /// Reads `[budget]`.
    ///
    /// # Errors
    /// An unknown budget, more than one, or one that is no positive number.
    pub fn read(table: Table) -> Result<Self> {
        let asked: Asked = from_table(table, "budget")?;
        let positive = |key: &str, value: f64, most: f64| {
            if value > 0.0 && value <= most {
                return Ok(value);
            }
            Err(Error::config(format!(
                "`budget.{key}` is {value:?}, expected a number above 0, at most {most:e}"
            )))
        };
        match (asked.epochs, asked.seconds, asked.flops) {
            (None, None, None) => Ok(Budget::Base),
            (Some(epochs), None, None) => {
                if !(1..=1_000_000).contains(&epochs) {
                    return Err(Error::config(format!("`budget.epochs` is {epochs}, expected 1 to 1000000")));
                }
                Ok(Budget::Epochs(epochs))
            }
            (None, Some(seconds), None) => Ok(Budget::Seconds(positive("seconds", seconds, 1e9)?)),
            (None, None, Some(Value::String(text))) if text == "baseline" => Ok(Budget::FlopsOfBaseline),
            (None, None, Some(flops)) => {
                let number = flops.as_float().or_else(|| flops.as_integer().map(|flops| flops as f64));
                let number = number.ok_or_else(|| {
                    Error::config(format!(
                        "`budget.flops` is {flops}, expected a number, or \"baseline\" for as many as the baseline \
                         takes"
                    ))
                })?;
                Ok(Budget::Flops(positive("flops", number, f64::MAX)?))
            }
            _ => Err(Error::config("`budget` has more than one of `epochs`, `seconds` and `flops`")),
        }
    }

    /// The key of the budget that decides what the axis `key` would decide, if one does.
    pub fn contradicts(self, key: &str) -> Option<&'static str> {
        let budget = match self {
            Budget::Base => return None,
            Budget::Epochs(_) => "epochs",
            Budget::Seconds(_) => "seconds",
            Budget::Flops(_) | Budget::FlopsOfBaseline => "flops",
        };
        matches!(key, "train.epochs" | "train.max_steps" | "train.max_seconds").then_some(budget)
    }

    /// Changes what a config says about its length, as far as that does not depend on the arm.
    pub fn apply(self, train: &mut TrainConfig) {
        if self != Budget::Base && self != Budget::FlopsOfBaseline {
            (train.max_steps, train.max_seconds) = (0, 0.0);
        }
        match self {
            Budget::Epochs(epochs) => train.epochs = epochs,
            Budget::Seconds(seconds) => train.max_seconds = seconds,
            _ => {}
        }
    }

    /// The budget in words, for the report; also what tells the folders of two sweeps apart.
    pub fn describe(self) -> String {
        match self {
            Budget::Base => "as long as its config says".to_owned(),
            Budget::Epochs(epochs) => format!("for {}", count(epochs, "epoch")),
            Budget::Seconds(seconds) => format!("for {seconds} s of training steps, by the clock"),
            Budget::Flops(flops) => format!("for {flops:e} operations"),
            Budget::FlopsOfBaseline => "for as many operations as the baseline takes".to_owned(),
        }
    }
}

/// Operations of a training step over `examples` examples, each of which takes `flops` forward.
pub(super) fn step_flops(flops: f64, examples: f64) -> f64 {
    PASSES * flops * examples
}
