//! How long a run is, and which batches go into which step.

use crate::{Error, Result, config::TrainConfig, schedule::Schedule};

/// Steps that no run takes.
pub const ENDLESS: u64 = 1 << 40;

/// The lengths of a run.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Course {
    /// Examples to train on.
    pub samples: u64,
    /// Batches in an epoch; the last may be smaller.
    pub batches_per_epoch: u64,
    /// Steps in an epoch; the last may average fewer batches.
    pub steps_per_epoch: u64,
    /// Steps of the run; [`ENDLESS`] while seconds decide and are not spent.
    pub steps: u64,
    batch_size: u64,
    accumulate: u64,
}

impl Course {
    /// The course of `config` over `samples` examples.
    ///
    /// # Errors
    /// There are no examples, or fewer than a batch.
    pub fn new(config: &TrainConfig, samples: usize) -> Result<Self> {
        if samples == 0 {
            return Err(ophidian_core::Error::invalid("there is no example to train on").into());
        }
        if config.batch_size > samples {
            return Err(Error::config(format!(
                "`train.batch_size` is {}, but there are only {samples} examples to train on; use at most {samples}",
                config.batch_size
            )));
        }
        let (samples, batch_size, accumulate) =
            (samples as u64, config.batch_size as u64, config.accumulate as u64);
        let batches_per_epoch = samples.div_ceil(batch_size);
        let steps_per_epoch = batches_per_epoch.div_ceil(accumulate);
        let steps = match config.max_steps {
            _ if config.max_seconds > 0.0 => ENDLESS,
            0 => config.epochs * steps_per_epoch,
            steps => steps,
        };
        Ok(Course { samples, batches_per_epoch, steps_per_epoch, steps, batch_size, accumulate })
    }

    /// Epochs of the run, the last perhaps not whole.
    pub fn epochs(&self) -> u64 {
        self.steps.div_ceil(self.steps_per_epoch)
    }

    /// Epoch in which step `step` (counted from 0) lies, counted from 0.
    pub fn epoch_of(&self, step: u64) -> u64 {
        step / self.steps_per_epoch
    }

    /// The batches of step `step`, counted over all epochs.
    pub fn batches(&self, step: u64) -> std::ops::Range<u64> {
        let epoch = self.epoch_of(step) * self.batches_per_epoch;
        let start = step % self.steps_per_epoch * self.accumulate;
        epoch + start..epoch + (start + self.accumulate).min(self.batches_per_epoch)
    }

    /// Examples of its epoch that lie before step `step`.
    pub fn samples_before(&self, step: u64) -> u64 {
        (step % self.steps_per_epoch * self.accumulate * self.batch_size).min(self.samples)
    }

    /// Epochs that end at or before step `step` (steps taken); the end of the run ends its last epoch.
    pub fn epochs_ended(&self, step: u64) -> u64 {
        if step >= self.steps { self.epochs() } else { step / self.steps_per_epoch }
    }

    /// The learning rates of the run.
    pub fn schedule(&self, config: &TrainConfig) -> Schedule {
        Schedule {
            peak: config.learning_rate,
            end: config.min_learning_rate,
            warmup: (config.warmup_epochs * self.steps_per_epoch as f64).round() as u64,
            total: self.steps,
            seconds: (config.max_seconds > 0.0).then_some(config.max_seconds),
        }
    }

    /// Whether seconds decide the length, and some are left.
    pub fn is_endless(&self) -> bool {
        self.steps == ENDLESS
    }

    /// Ends the run at step `step` if the `most` seconds of training steps that it may take come out closest so:
    /// `spent` seconds went into those steps. At least one is taken.
    pub fn end_in_time(&mut self, step: u64, spent: f64, most: f64) {
        let each = spent / step.max(1) as f64;
        if self.is_endless() && step > 0 && spent + 0.5 * each >= most {
            self.steps = step;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(batch_size: usize, accumulate: usize, max_steps: u64) -> Course {
        let config = TrainConfig { batch_size, accumulate, max_steps, epochs: 3, ..TrainConfig::default() };
        Course::new(&config, 23).unwrap()
    }

    #[test]
    fn every_batch_belongs_to_one_step() {
        for (batch, accumulate) in [(4, 1), (4, 2), (4, 4), (5, 3), (23, 1), (1, 7), (4, 100)] {
            let course = course(batch, accumulate, 0);
            let batches: Vec<u64> = (0..course.steps).flat_map(|step| course.batches(step)).collect();
            assert_eq!(
                batches,
                (0..3 * course.batches_per_epoch).collect::<Vec<_>>(),
                "{batch} {accumulate}"
            );
            assert_eq!(course.epochs(), 3);
        }
    }

    #[test]
    fn a_run_may_end_within_an_epoch() {
        let course = course(4, 1, 8);
        assert_eq!((course.steps_per_epoch, course.epochs()), (6, 2));
        assert_eq!([5, 6, 7, 8].map(|step| course.epochs_ended(step)), [0, 1, 1, 2]);
        assert_eq!(course.samples_before(8), 8);
    }

    #[test]
    fn seconds_end_a_run_at_the_closest_step() {
        let config = TrainConfig { batch_size: 4, max_seconds: 2.0, ..TrainConfig::default() };
        let ends = |each: f64| {
            let mut course = Course::new(&config, 23).unwrap();
            let ends = |step: &u64| {
                course.end_in_time(*step, *step as f64 * each, config.max_seconds);
                !course.is_endless()
            };
            (0..100).find(ends).unwrap()
        };
        assert_eq!([0.1, 0.3, 0.8, 1.9, 60.0].map(ends), [20, 7, 2, 1, 1]);
        let mut course = Course::new(&config, 23).unwrap();
        course.end_in_time(12, 5.0, 2.0);
        // At the end of an epoch, that one is the last.
        assert_eq!((course.epochs(), course.epochs_ended(12)), (2, 2));
    }

    #[test]
    fn data_smaller_than_a_batch_is_an_error() {
        let message = |samples| Course::new(&TrainConfig::default(), samples).unwrap_err().to_string();
        assert_eq!(message(0), "there is no example to train on");
        assert!(message(10).contains("there are only 10 examples to train on; use at most 10"));
    }
}
