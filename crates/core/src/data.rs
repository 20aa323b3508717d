//! What a loader sees of a data set, whatever the modality.

use std::collections::BTreeMap;

use crate::{
    Result,
    rng::{self, Rng},
};

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

/// Holds out `fraction` of each class of `items` (index, class), at least one, chosen by the hash of their names: adding
/// examples to a data set hardly changes which are held out. What is left, and what is held out.
///
/// # Errors
/// A class has too few examples, in words.
pub fn hold_out(
    items: &[(u32, u32)],
    fraction: f64,
    name: impl Fn(u32) -> String,
) -> std::result::Result<[Vec<(u32, u32)>; 2], String> {
    let mut by_class: BTreeMap<u32, Vec<(u64, u32)>> = BTreeMap::new();
    for (at, class) in items {
        let bytes: Vec<u64> = name(*at).bytes().map(u64::from).collect();
        by_class.entry(*class).or_default().push((rng::hash(&bytes), *at));
    }
    let [mut rest, mut held] = [Vec::new(), Vec::new()];
    for (class, mut members) in by_class {
        members.sort_unstable();
        let count = ((members.len() as f64 * fraction).round() as usize).clamp(1, members.len());
        if count == members.len() {
            return Err(format!(
                "has {count} example(s) of class {class}, too few to hold out {fraction} of them; give `eval_path` or a \
                 split"
            ));
        }
        let (first, last) = members.split_at(count);
        held.extend(first.iter().map(|(_, at)| (*at, class)));
        rest.extend(last.iter().map(|(_, at)| (*at, class)));
    }
    rest.sort_unstable();
    held.sort_unstable();
    Ok([rest, held])
}

/// At most `limit` of `items` (0 for all), spread over them at random but always the same.
pub fn limited(items: Vec<(u32, u32)>, limit: usize) -> Vec<(u32, u32)> {
    if limit == 0 || limit >= items.len() {
        return items;
    }
    let mut order: Vec<(u64, usize)> =
        (0..items.len()).map(|index| (rng::hash(&[index as u64]), index)).collect();
    order.sort_unstable();
    let mut kept: Vec<usize> = order.into_iter().take(limit).map(|(_, index)| index).collect();
    kept.sort_unstable();
    kept.into_iter().filter_map(|index| items.get(index).copied()).collect()
}
