//! Published models by name: their configs in our words and in the authors'.

use serde::{Deserialize, de::DeserializeOwned};
use toml::{Table, Value};

use super::{
    Input, ModelConfig, Size,
    config::{with_implied, without_unread},
};
use crate::{
    Error, Result,
    config::{self, KeyDoc},
    documented,
};

/// A published model of config `M` that reads inputs of `I`.
pub struct Official<M = ModelConfig, I = Input> {
    /// Its name.
    pub name: &'static str,
    /// The family that reads its weights.
    pub family: String,
    /// The paper.
    pub paper: String,
    /// Where its weights are published.
    pub weights: String,
    /// What it reads.
    pub input: I,
    /// Its classes.
    pub classes: i64,
    /// Its config.
    pub model: M,
    /// What it reads as a `[data]` table, where the sizes do not say it.
    pub data: Table,
    /// The arguments of the authors' constructor, which `ophidian forward` reads as `config.json`.
    pub authors: Table,
}

documented! {
/// What every file of `configs/models` holds, bases filled in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// See [`Official`], as what follows.
    pub family: String,
    /// The paper.
    pub paper: String,
    /// Where weights are.
    pub weights: String,
    /// Classes.
    pub classes: i64,
    /// The `[model]` table.
    pub model: Table,
    /// The `[data]` table.
    #[serde(default)]
    pub data: Table,
    /// The authors' arguments.
    pub authors: Table,
}
}

/// The other keys of such a file: sizes of an image, a spectrogram or a clip.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Sizes {
    #[serde(alias = "spectrogram_size")]
    image_size: Size,
    /// Of clips.
    frames: Option<i64>,
    channels: i64,
}

/// The published models of a modality: name and text of every file, as in `configs/models`.
pub struct Catalogue(pub &'static [(&'static str, &'static str)]);

/// The [`Catalogue`] of the files of `configs/models` with these names.
#[macro_export]
macro_rules! catalogue {
    ($($name:literal)+) => {
        $crate::grid::Catalogue(&[
            $(($name, include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/../../configs/models/", $name, ".toml")))),+
        ])
    };
}

impl Catalogue {
    /// The names of all of them.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        self.0.iter().map(|(name, _)| *name)
    }

    /// The published model `name`.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none, with the nearest name.
    pub fn official(&self, name: &str) -> Result<Official> {
        let Official { name, family, paper, weights, input, classes, model, data, authors } =
            self.read_file::<Sizes>(name)?;
        let image = input.image_size.sides();
        let input = Input { channels: input.channels, frames: input.frames, image };
        let model = ModelConfig::read(model)?;
        Ok(Official { name, family, paper, weights, input, classes, model, data, authors })
    }

    /// The file called `name`, with sizes as its modality has them and its `[model]` table as it is.
    ///
    /// # Errors
    /// [`Error::Config`] if there is none, with the nearest name.
    pub fn read_file<S: DeserializeOwned>(&self, name: &str) -> Result<Official<Table, S>> {
        let (name, table) = self.find(name)?;
        let (file, input) = config::from_shared::<Entry, S>(table, name, &config::names(Entry::DOCS))?;
        let Entry { family, paper, weights, classes, model, data, authors } = file;
        Ok(Official { name, family, paper, weights, input, classes, model, data, authors })
    }

    /// The key `base` of a `[model]` table.
    pub fn base_key() -> KeyDoc {
        KeyDoc {
            key: "base".into(),
            default: None,
            meaning: "A published model (`ophidian models list`) whose values the other keys replace.".into(),
        }
    }

    /// Every key of `[model]` with its default and what it means.
    pub fn keys(&self) -> Vec<KeyDoc> {
        [vec![Catalogue::base_key()], ModelConfig::keys()].concat()
    }

    /// Reads and checks a `[model]` table as [`ModelConfig::read`] does. A key `base` names a published model, whose
    /// values the others replace.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key (`model.…`) that is unknown or wrong.
    pub fn read(&self, table: Table) -> Result<ModelConfig> {
        let named = table.contains_key("mixer");
        let read = ModelConfig::read(self.with_base(table)?)?;
        if !named {
            read.expect_present()?;
        }
        Ok(read)
    }

    /// Checks a `[model]` table and fills in every default.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is unknown or wrong.
    pub fn resolve(&self, table: Table) -> Result<Table> {
        config::to_table(&self.read(table)?, "model")
    }

    /// A `[model]` table whose `base`, if it has one, is filled in. Where the table names another mixer, what only that of
    /// the base reads is left out.
    ///
    /// # Errors
    /// [`Error::Config`] if there is no such model, with the nearest name.
    pub fn with_base(&self, mut table: Table) -> Result<Table> {
        let name = match table.remove("base") {
            None => return Ok(table),
            Some(Value::String(name)) => name,
            Some(other) => {
                return Err(Error::Config(format!("`model.base` is {other}, expected the name of a model")));
            }
        };
        let (_, base) = self.find(&name)?;
        let mut model = match base.get("model") {
            Some(Value::Table(model)) => model.clone(),
            _ => Table::new(),
        };
        // A stride that follows from the patch does not outlive it.
        if table.contains_key("patch_size") && !table.contains_key("stride") {
            model.remove("stride");
        }
        without_unread(&mut model, &table);
        merge(&mut model, with_implied(table));
        Ok(model)
    }

    /// The file called `name`, with what it takes from its base.
    fn find(&self, name: &str) -> Result<(&'static str, Table)> {
        let Some((name, text)) = self.0.iter().find(|(known, _)| *known == name) else {
            let hint = config::nearest(name, self.names()).map(|near| format!("; did you mean `{near}`?"));
            return Err(Error::Config(format!(
                "there is no published model `{name}`{}",
                hint.unwrap_or_else(|| "; `ophidian models list` shows them".into())
            )));
        };
        let mut table: Table =
            text.parse().map_err(|error| Error::Config(format!("internal error: {name}: {error}")))?;
        match table.remove("base") {
            Some(Value::String(base)) if base != *name => {
                let (_, mut whole) = self.find(&base)?;
                merge(&mut whole, table);
                Ok((name, whole))
            }
            _ => Ok((name, table)),
        }
    }
}

/// Puts the values of `over` in the place of those of `table`.
fn merge(table: &mut Table, over: Table) {
    for (key, value) in over {
        match (table.get_mut(&key), value) {
            (Some(Value::Table(inner)), Value::Table(over)) => merge(inner, over),
            (_, value) => {
                table.insert(key, value);
            }
        }
    }
}
