//! Why a step went wrong, as far as can be told.

use crate::config::{Precision, TrainConfig};

/// What is known about a step whose loss or gradient is not finite.
pub struct Symptoms<'a> {
    /// The step, counted from 1.
    pub step: u64,
    /// The epoch, counted from 1.
    pub epoch: u64,
    /// Learning rate of the step.
    pub learning_rate: f64,
    /// Its loss.
    pub loss: f64,
    /// Norm of its gradient.
    pub grad_norm: f64,
    /// The first parameter with a gradient that is not finite.
    pub first: Option<&'a str>,
    /// How many there are.
    pub count: usize,
    /// An example whose input is not finite.
    pub bad_input: Option<String>,
    /// Steps of the warm-up.
    pub warmup: u64,
}

impl Symptoms<'_> {
    /// What happened, where and why that is likely; no full stop.
    pub fn describe(&self, config: &TrainConfig) -> String {
        let mut text = format!(
            "step {} (epoch {}, learning rate {:.3e}): the loss is {}, the gradient norm {}",
            self.step, self.epoch, self.learning_rate, self.loss, self.grad_norm
        );
        if let Some(first) = self.first {
            let more = self.count - 1;
            text.push_str(&format!("; first gradient that is not finite: `{first}`"));
            if more > 0 {
                text.push_str(&format!(" and {more} more"));
            }
        }
        text.push_str("; likely cause: ");
        text.push_str(&self.cause(config));
        text
    }

    fn cause(&self, config: &TrainConfig) -> String {
        if let Some(name) = &self.bad_input {
            return format!("the input {name} holds values that are not finite");
        }
        if self.loss.is_finite() && self.first.is_none() {
            return format!(
                "finite gradients too large to add up; lower `train.learning_rate` (peak {})",
                config.learning_rate
            );
        }
        if self.step == 1 {
            return "the model's initial weights or this batch, since nothing was learned yet".to_owned();
        }
        if config.clip_grad_norm == 0.0 {
            return "gradients are not clipped; set `train.clip_grad_norm` to 1.0".to_owned();
        }
        if self.loss.is_finite() && config.precision == Precision::Bf16 {
            return "the backward pass overflowed in bf16; try `train.precision=f32`".to_owned();
        }
        if self.step <= self.warmup.max(1) || self.learning_rate > 2e-3 {
            return format!(
                "the learning rate is too high; lower `train.learning_rate` (peak {}) or lengthen `train.warmup_epochs`",
                config.learning_rate
            );
        }
        format!(
            "training became unstable; lower `train.learning_rate` (peak {}){}",
            config.learning_rate,
            if config.precision == Precision::Bf16 { " or try `train.precision=f32`" } else { "" }
        )
    }
}
