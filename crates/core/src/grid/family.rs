//! What the families of such classifiers share: an author's config in our words, and the key map that follows.

use tch::{Device, nn::VarStore};

use super::{
    Classifier, Input, ModelConfig,
    run::{Images, Report},
};
use crate::{
    Error, Result,
    keymap::Key,
    published::{Family, Published},
    tensors::Tensors,
};

/// An author's config in our words.
pub struct Translated {
    /// The model.
    pub model: ModelConfig,
    /// What it reads.
    pub input: Input,
    /// Classes, 0 for features alone.
    pub classes: i64,
    /// Which of the author's tensors is which of ours.
    pub keys: Vec<Key>,
    /// What `ophidian forward` reads and tells.
    pub report: Report,
}

impl Translated {
    /// `model`, whose tensors are named by `keys`.
    pub fn new(
        model: ModelConfig,
        input: impl Into<Input>,
        classes: i64,
        report: Report,
        keys: impl FnOnce(&ModelConfig) -> Vec<Key>,
    ) -> Translated {
        // A config that is refused has no keys worth the room.
        let keys = if model.check().is_ok() { keys(&model) } else { Vec::new() };
        Translated { model, input: input.into(), classes, keys, report }
    }
}

/// A family whose models are all [`Classifier`]s.
pub struct Classifiers {
    /// Its name on the command line.
    pub name: &'static str,
    /// The paper, and what its inputs are.
    pub about: &'static str,
    /// Reads the author's config.
    pub read: fn(toml::Table) -> Result<Translated>,
    /// Our keys and what the author calls them, for errors.
    pub words: &'static [(&'static str, &'static str)],
    /// With the author's config, brings the tensors of older code under the names and shapes of the key map, and leaves out what no forward pass
    /// reads.
    pub adapt: fn(&toml::Table, Tensors) -> Result<Tensors>,
}

impl Classifiers {
    /// The author's config in our words.
    ///
    /// # Errors
    /// [`Error::Config`] naming the author's key that is unknown, wrong or not supported.
    pub fn translate(&self, table: toml::Table) -> Result<Translated> {
        let translated = (self.read)(table)?;
        translated.model.check().map_err(|error| self.in_their_words(error))?;
        let Input { channels, frames, image: [height, width] } = translated.input;
        if translated.input.sizes().iter().any(|size| !(1..=1 << 16).contains(size)) {
            let frames = frames.map_or(String::new(), |frames| format!(", `num_frames` {frames}"));
            let error = format!(
                "`img_size` is {height}x{width}{frames} and `channels` {channels}, expected 1 to {}",
                1 << 16
            );
            return Err(self.in_their_words(Error::Config(error)));
        }
        if !(0..=1 << 24).contains(&translated.classes) {
            return Err(Error::Config(format!(
                "`num_classes` is {}, expected 0 to {}",
                translated.classes,
                1 << 24
            )));
        }
        Ok(translated)
    }

    /// An error about one of our keys names the author's.
    fn in_their_words(&self, error: Error) -> Error {
        let Error::Config(mut text) = error else { return error };
        for (ours, theirs) in self.words {
            text = text.replace(&format!("`{ours}`"), &format!("`{theirs}`"));
        }
        Error::Config(text)
    }
}

impl Family for Classifiers {
    fn name(&self) -> &'static str {
        self.name
    }

    fn about(&self) -> &'static str {
        self.about
    }

    fn build(&self, table: toml::Table) -> Result<Published> {
        let Translated { model, input, classes, keys, report } = self.translate(table)?;
        let variables = VarStore::new(Device::Cpu);
        let model = Classifier::new(&variables.root(), &model, input, classes)
            .map_err(|error| self.in_their_words(error))?;
        Ok(Published { keys, variables, model: Box::new(Images { model, report }) })
    }

    fn convert(&self, config: &toml::Table, weights: Tensors) -> Result<Tensors> {
        (self.adapt)(config, weights)
    }
}

/// As [`Classifiers::adapt`]: without the counters of batch norms.
pub fn without_counters(_: &toml::Table, mut weights: Tensors) -> Result<Tensors> {
    weights.retain(|name, _| !name.ends_with("num_batches_tracked"));
    Ok(weights)
}

/// What a family without an argument for the image's size is given: RGB images of 224 pixels a side, which may have
/// another.
pub fn images(model: ModelConfig, classes: i64, keys: impl FnOnce(&ModelConfig) -> Vec<Key>) -> Translated {
    let report = Report { any_size: true, ..Report::default() };
    Translated::new(model, [3, 224, 224], classes, report, keys)
}

/// Adds the tensors of a batch norm over `channels` channels.
pub fn batch_norm(keys: &mut Vec<Key>, theirs: &str, ours: &str, channels: i64) {
    for part in ["weight", "bias", "running_mean", "running_var"] {
        keys.push(Key::new(format!("{theirs}.{part}"), format!("{ours}.{part}"), &[channels]));
    }
}

/// Adds `theirs.weight` and, if wanted, `theirs.bias` of a layer whose tensors have the same name in both.
pub fn layer(keys: &mut Vec<Key>, theirs: &str, ours: &str, weight: &[i64], bias: bool) {
    keys.push(Key::new(format!("{theirs}.weight"), format!("{ours}.weight"), weight));
    if bias {
        keys.push(Key::new(format!("{theirs}.bias"), format!("{ours}.bias"), &weight[..1]));
    }
}
