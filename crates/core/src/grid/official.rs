//! Published models by name: their configs in our words and in the authors'.

use serde::Deserialize;
use toml::{Table, Value};

use super::{Input, ModelConfig, Size, config::with_implied};
use crate::{
    Error, Result,
    config::{self, KeyDoc},
};

/// A published model.
pub struct Official {
    /// Its name.
    pub name: &'static str,
    /// The family that reads its weights.
    pub family: String,
    /// The paper.
    pub paper: String,
    /// Where its weights are published.
    pub weights: String,
    /// What it reads.
    pub input: Input,
    /// Its classes.
    pub classes: i64,
    /// Its config.
    pub model: ModelConfig,
    /// What it reads as a `[data]` table, where the sizes do not say it.
    pub data: Table,
    /// The arguments of the authors' constructor, which `ophidian forward` reads as `config.json`.
    pub authors: Table,
}

/// A file of `configs/models`, bases filled in.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: String,
    paper: String,
    weights: String,
    #[serde(alias = "spectrogram_size")]
    image_size: Size,
    /// Of clips.
    frames: Option<i64>,
    channels: i64,
    classes: i64,
    model: Table,
    #[serde(default)]
    data: Table,
    authors: Table,
}

/// The published models of a modality: name and text of every file, as in `configs/models`.
pub struct Catalogue(pub &'static [(&'static str, &'static str)]);

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
        let (name, table) = self.find(name)?;
        let file: File = config::from_table(table, name)?;
        let [height, width] = file.image_size.sides();
        Ok(Official {
            name,
            family: file.family,
            paper: file.paper,
            weights: file.weights,
            input: Input { channels: file.channels, frames: file.frames, image: [height, width] },
            classes: file.classes,
            model: ModelConfig::read(file.model)?,
            data: file.data,
            authors: file.authors,
        })
    }

    /// Every key of `[model]` with its default and what it means.
    pub fn keys(&self) -> Vec<KeyDoc> {
        let base = KeyDoc {
            key: "base".into(),
            default: None,
            meaning: "A published model (`ophidian models list`) whose values the other keys replace.".into(),
        };
        let mut keys = vec![base];
        keys.extend(ModelConfig::keys());
        keys
    }

    /// Reads and checks a `[model]` table as [`ModelConfig::read`] does. A key `base` names a published model, whose
    /// values the others replace.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key (`model.…`) that is unknown or wrong.
    pub fn read(&self, table: Table) -> Result<ModelConfig> {
        ModelConfig::read(self.with_base(table)?)
    }

    /// Checks a `[model]` table and fills in every default.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is unknown or wrong.
    pub fn resolve(&self, table: Table) -> Result<Table> {
        let config = self.read(table)?;
        Table::try_from(&config).map_err(|error| Error::Config(format!("[model]: {error}")))
    }

    /// A `[model]` table whose `base`, if it has one, is filled in.
    fn with_base(&self, mut table: Table) -> Result<Table> {
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
