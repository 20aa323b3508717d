//! What a loader sees of a data set, whatever the modality.

use crate::{Result, rng::Rng};

/// One example: the input in row-major order of [`Dataset::input_shape`], and its class.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Values, already normalised.
    pub input: Vec<f32>,
    /// Class index, `0 <= label < classes`.
    pub label: i64,
}

/// A data set that can be read at any index from any thread.
pub trait Dataset: Send + Sync {
    /// Number of examples.
    fn len(&self) -> usize;

    /// True if there is no example.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape of one input, for images (channels, height, width).
    fn input_shape(&self) -> Vec<i64>;

    /// Class names; their number is the number of classes.
    fn classes(&self) -> &[String];

    /// Reads example `index`. With `augment`, random augmentation is drawn from that stream and from nothing else.
    ///
    /// # Errors
    /// The file behind the example is corrupt; the error names it.
    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> Result<Sample>;

    /// Where example `index` comes from, for messages and prediction tables ("train-images.gz #17", "cat/3.png").
    fn name_of(&self, index: usize) -> String;
}
