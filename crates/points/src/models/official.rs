//! Published models by name: their configs in our words and in the authors'.

use ophidian_core::{Error, Result, config};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Input, ModelConfig};

/// Name and text of every file of `configs/models` that is a model of points.
macro_rules! files {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../../../configs/models/", $name, ".toml")))),+]
    };
}

const FILES: &[(&str, &str)] = files! {
    "pointmamba_modelnet40"
    "pointmamba_scanobjectnn"
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
    /// Points of a cloud.
    pub points: i64,
    /// What it reads.
    pub input: Input,
    /// Its classes.
    pub classes: i64,
    /// Its config.
    pub model: ModelConfig,
    /// The `model` table of the authors' config, which `ophidian forward` reads as `config.json`.
    pub authors: Table,
}

/// A file of `configs/models`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    family: String,
    paper: String,
    weights: String,
    points: i64,
    groups: i64,
    group_size: i64,
    classes: i64,
    model: Table,
    authors: Table,
}

/// The names of all published models.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

/// The published model `name`.
///
/// # Errors
/// [`Error::Config`] if there is none, with the nearest name.
pub fn official(name: &str) -> Result<Official> {
    let (name, table) = find(name)?;
    let file: File = config::from_table(table, name)?;
    Ok(Official {
        name,
        family: file.family,
        paper: file.paper,
        weights: file.weights,
        points: file.points,
        input: Input { frames: None, groups: file.groups, size: file.group_size, channels: 3 },
        classes: file.classes,
        model: ModelConfig::read(file.model)?,
        authors: file.authors,
    })
}

/// A `[model]` table whose `base`, if it has one, is filled in.
pub(super) fn with_base(mut table: Table) -> Result<Table> {
    let name = match table.remove("base") {
        None => return Ok(table),
        Some(Value::String(name)) => name,
        Some(other) => {
            return Err(Error::Config(format!("`model.base` is {other}, expected the name of a model")));
        }
    };
    let (_, base) = find(&name)?;
    let mut model = match base.get("model") {
        Some(Value::Table(model)) => model.clone(),
        _ => Table::new(),
    };
    model.extend(table);
    Ok(model)
}

fn find(name: &str) -> Result<(&'static str, Table)> {
    let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        let hint = config::nearest(name, names()).map(|near| format!("; did you mean `{near}`?"));
        return Err(Error::Config(format!(
            "there is no published model of points `{name}`{}",
            hint.unwrap_or_else(|| "; `ophidian models list` shows them".into())
        )));
    };
    let table = text.parse().map_err(|error| Error::Config(format!("internal error: {name}: {error}")))?;
    Ok((name, table))
}
