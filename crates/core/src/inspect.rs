//! What is in a data set: counts, sizes, statistics, files that cannot be read.

use serde::Serialize;

/// What was found in a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// The format that was found or given.
    pub format: String,
    /// What an example is called: "images", "clips".
    pub unit: &'static str,
    /// What [`Split::sizes`] are: "height x width x channels".
    pub sizes_are: &'static str,
    /// Class names in the order of their labels.
    pub classes: Vec<String>,
    /// The splits as they would be used.
    pub splits: Vec<Split>,
    /// Where the evaluation split comes from.
    pub eval_from: &'static str,
    /// Test examples left alone because there is a validation split.
    pub set_aside: usize,
    /// Mean of the values of the training examples that were read, as `mean` in `[data]` takes it.
    pub mean: Vec<f64>,
    /// Their standard deviation.
    pub std: Vec<f64>,
}

/// A split of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Split {
    /// "train" or "eval".
    pub name: &'static str,
    /// Number of examples.
    pub examples: usize,
    /// Number of examples of each class.
    pub per_class: Vec<usize>,
    /// Number of examples that were read.
    pub read: usize,
    /// Sizes of those with their number; the most frequent first.
    pub sizes: Vec<(String, usize)>,
    /// What else there is to say about those.
    pub notes: Vec<String>,
    /// Examples that cannot be read, with the reason.
    pub problems: Vec<String>,
}

/// Called with the number of examples read so far and the number to read, from any thread.
pub type Progress<'a> = dyn Fn(usize, usize) + Sync + 'a;

/// Mean and standard deviation of values that arrive piece by piece.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sums {
    count: f64,
    sum: f64,
    squares: f64,
}

impl Sums {
    /// One value more.
    pub fn push(&mut self, value: f64) {
        self.count += 1.0;
        self.sum += value;
        self.squares += value * value;
    }

    /// Those of `other` too.
    pub fn add(&mut self, other: &Sums) {
        self.count += other.count;
        self.sum += other.sum;
        self.squares += other.squares;
    }

    /// The mean; 0 of nothing.
    pub fn mean(&self) -> f64 {
        self.sum / self.count.max(1.0)
    }

    /// The standard deviation; 0 of nothing.
    pub fn std(&self) -> f64 {
        (self.squares / self.count.max(1.0) - self.mean().powi(2)).max(0.0).sqrt()
    }
}
