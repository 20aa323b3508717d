//! One step: forward, loss, backward, clip, update.

use std::{ops::Range, time::Instant};

use ophidian_core::{
    device::send,
    rng::{hash, stream},
    torch::autocast,
};
use tch::{Kind, Tensor};

use crate::{
    Error, Result,
    config::{OnNonFinite, Precision},
    diagnose::Symptoms,
    keys,
    loader::{Batch, Loader},
    measure::check_logits,
    progress::duration,
    trainer::Trainer,
};

/// Steps that may be skipped in a row before the run is given up.
const MOST_SKIPPED: u64 = 25;

impl Trainer<'_> {
    /// Takes one step on the batches numbered `numbers`, the next of `loader`.
    pub(crate) fn step(&mut self, loader: &mut Loader, numbers: Range<u64>) -> Result<()> {
        let begun = Instant::now();
        let batches = loader.take((numbers.end - numbers.start) as usize).collect::<Result<Vec<Batch>>>()?;
        let waited = begun.elapsed().as_secs_f64();
        for message in batches.iter().flat_map(|batch| &batch.skipped) {
            self.progress.note(format!("skipped: {message}"));
            self.about.state.corrupt_samples += 1;
        }
        let samples: usize = batches.iter().map(Batch::len).sum();
        let rate = self.schedule.learning_rate(self.about.state.step, self.about.state.training_seconds);
        self.about.state.step += 1;
        if samples > 0 {
            self.learn(&batches, numbers, samples, rate)?;
        }
        let seconds = begun.elapsed().as_secs_f64();
        for sums in [&mut self.about.state.interval, &mut self.about.state.epoch] {
            sums.seconds += seconds;
            sums.waited += waited;
        }
        self.about.state.training_seconds += seconds;
        self.session.rate = rate;
        self.session.samples += samples as u64;
        self.session.seconds += seconds;
        self.session.waited += waited;
        self.show(samples as u64, rate);
        Ok(())
    }

    fn show(&mut self, samples: u64, rate: f64) {
        let sums = &self.about.state.epoch;
        let loss = sums.loss / sums.samples.max(1) as f64;
        let speed = self.session.samples as f64 / self.session.seconds.max(1e-9);
        let left = match self.schedule.seconds {
            Some(most) => most - self.about.state.training_seconds,
            None => self.samples_left() as f64 / speed.max(1e-9),
        };
        self.progress.advance(samples, || {
            format!("loss {loss:.3} lr {rate:.1e} {speed:.0} samples/s, run ends in {}", duration(left))
        });
    }

    /// Forward and backward over `batches` (together `samples` examples), then one update of the weights.
    fn learn(&mut self, batches: &[Batch], numbers: Range<u64>, samples: usize, rate: f64) -> Result<()> {
        self.optimizer.zero_grad();
        let mut loss = 0.0;
        for (batch, number) in batches.iter().zip(numbers).filter(|(batch, _)| !batch.is_empty()) {
            // Each batch weighs as many examples as it holds, so that accumulation equals one large batch.
            let part = self.loss(batch, number)? * (batch.len() as f64 / samples as f64);
            loss += part.f_double_value(&[])?;
            part.f_backward()?;
        }
        let norm = self.optimizer.gradient_norm()?;
        if !loss.is_finite() || !norm.is_finite() {
            return self.refuse(batches, rate, loss, norm);
        }
        let train = &self.about.config.train;
        if train.clip_grad_norm > 0.0 && norm > train.clip_grad_norm {
            self.optimizer.scale_gradients(train.clip_grad_norm / norm)?;
        }
        self.optimizer.step(rate)?;
        let state = &mut self.about.state;
        state.updates += 1;
        state.skipped_in_a_row = 0;
        for sums in [&mut state.interval, &mut state.epoch] {
            sums.loss += loss * samples as f64;
            sums.samples += samples as u64;
            sums.grad_norm += norm;
            sums.steps += 1;
        }
        if let Some(average) = &mut self.average {
            average.update(state.updates)?;
        }
        Ok(())
    }

    /// Mean cross-entropy of batch `number` against smoothed and perhaps mixed targets, f32.
    fn loss(&self, batch: &Batch, number: u64) -> Result<Tensor> {
        let config = &self.about.config;
        let classes = self.about.classes.len();
        tch::manual_seed(hash(&[config.seed, keys::TORCH, number]) as i64);
        let smoothing = config.train.label_smoothing;
        let labels = Tensor::f_from_slice(&batch.labels)?;
        let target = labels.f_one_hot(classes as i64)?.f_to_kind(Kind::Float)?;
        let target = target * (1.0 - smoothing) + smoothing / classes as f64;
        let mut random = stream(&[config.seed, keys::MIX, number]);
        let [input, target] = [&batch.input, &target].map(|tensor| send(tensor, self.vs.device()));
        let (input, target) = self.adapter.mix(&config.data, input?, target?, &mut random)?;
        let logits = autocast(config.train.precision == Precision::Bf16, || {
            self.model.forward_along(&input, &batch.orders, true)
        })?;
        check_logits(&logits, batch.len() as i64, classes)?;
        let scores = logits.f_to_kind(Kind::Float)?.f_log_softmax(-1, Kind::Float)?; // (batch, classes)
        let summed = (target * scores).f_sum_dim_intlist([-1i64].as_slice(), false, Kind::Float)?; // (batch)
        Ok(summed.f_mean(Kind::Float)?.f_neg()?)
    }

    /// The loss or a gradient is not finite: the weights stay as they are, and the run stops or goes on as configured.
    fn refuse(&mut self, batches: &[Batch], learning_rate: f64, loss: f64, grad_norm: f64) -> Result<()> {
        let (first, count) = self.optimizer.non_finite_gradients()?;
        let symptoms = Symptoms {
            step: self.about.state.step,
            epoch: self.epoch(),
            learning_rate,
            loss,
            grad_norm,
            first: first.as_deref(),
            count,
            bad_input: self.bad_input(batches)?,
            warmup: self.schedule.warmup,
        };
        let text = symptoms.describe(&self.about.config.train);
        let state = &mut self.about.state;
        state.skipped_steps += 1;
        state.skipped_in_a_row += 1;
        if self.about.config.train.on_non_finite == OnNonFinite::Stop {
            return Err(Error::NonFinite(format!(
                "{text} (the last checkpoint is untouched; `train.on_non_finite=skip` passes over such steps)"
            )));
        }
        if state.skipped_in_a_row >= MOST_SKIPPED {
            return Err(Error::NonFinite(format!(
                "{MOST_SKIPPED} steps in a row were skipped, the last: {text}"
            )));
        }
        self.progress.note(format!("skipped: {text}"));
        Ok(())
    }

    /// The first example of `batches` whose input is not finite.
    fn bad_input(&self, batches: &[Batch]) -> Result<Option<String>> {
        for batch in batches.iter().filter(|batch| !batch.is_empty()) {
            let rows = batch.input.f_isfinite()?.f_view([batch.len() as i64, -1])?;
            let finite: Vec<bool> = Vec::try_from(rows.f_all_dim(1, false)?)?;
            if let Some(row) = finite.iter().position(|finite| !finite) {
                return Ok(Some(self.name_of(batch.indices[row])));
            }
        }
        Ok(None)
    }
}
