//! Published models by name: their configs in our words and in the authors'.

use ophidian_core::{Error, Result, config};
use serde::Deserialize;
use toml::{Table, Value};

use super::{Input, ModelConfig, Size};

/// Name and text of every file of `configs/models`.
macro_rules! files {
    ($($name:literal)+) => {
        &[$(($name, include_str!(concat!("../../../../configs/models/", $name, ".toml")))),+]
    };
}

const FILES: &[(&str, &str)] = files! {
    "vim_tiny_patch16_224"
    "vim_small_patch16_224"
    "vim_base_patch16_224"
    "vim_tiny_patch16_stride8_224"
    "vim_small_patch16_stride8_224"
    "vanilla_vmamba_tiny"
    "vanilla_vmamba_small"
    "vanilla_vmamba_base"
    "vmamba_tiny_s1l8"
    "vmamba_small_s1l20"
    "vmamba_base_s1l20"
    "vmamba_tiny_s2l5"
    "vmamba_small_s2l15"
    "vmamba_base_s2l15"
    "plainmamba_l1"
    "plainmamba_l2"
    "plainmamba_l3"
    "videomamba_tiny_image"
    "videomamba_small_image"
    "videomamba_middle_image"
    "videomamba_tiny_video_f8_k400"
    "videomamba_small_video_f8_k400"
    "videomamba_middle_video_f8_k400"
    "localvim_tiny"
    "localvim_tiny_midclstok"
    "localvim_small"
    "localvmamba_tiny"
    "localvmamba_small"
    "efficientvmamba_tiny"
    "efficientvmamba_small"
    "efficientvmamba_base"
    "msvmamba_nano"
    "msvmamba_micro"
    "msvmamba_tiny"
    "groupmamba_tiny"
    "groupmamba_small"
    "groupmamba_base"
    "spatialmamba_tiny"
    "spatialmamba_small"
    "spatialmamba_base"
    "grootv_tiny"
    "grootv_small"
    "grootv_base"
    "rsmamba_base"
    "rsmamba_large"
    "rsmamba_huge"
    "mamband_2d_small"
    "mamband_2d_base"
    "hydra_vit_base"
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
    image_size: Size,
    /// Of clips.
    frames: Option<i64>,
    channels: i64,
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
    let [height, width] = file.image_size.sides();
    Ok(Official {
        name,
        family: file.family,
        paper: file.paper,
        weights: file.weights,
        input: Input { channels: file.channels, frames: file.frames, image: [height, width] },
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
    // A stride that follows from the patch does not outlive it.
    if table.contains_key("patch_size") && !table.contains_key("stride") {
        model.remove("stride");
    }
    merge(&mut model, table);
    Ok(model)
}

/// The file called `name`, with what it takes from its base.
fn find(name: &str) -> Result<(&'static str, Table)> {
    let Some((name, text)) = FILES.iter().find(|(known, _)| *known == name) else {
        let hint = config::nearest(name, names()).map(|near| format!("; did you mean `{near}`?"));
        return Err(Error::Config(format!(
            "there is no published model `{name}`{}",
            hint.unwrap_or_else(|| "; `ophidian models list` shows them".into())
        )));
    };
    let mut table: Table =
        text.parse().map_err(|error| Error::Config(format!("internal error: {name}: {error}")))?;
    match table.remove("base") {
        Some(Value::String(base)) if base != *name => {
            let (_, mut whole) = find(&base)?;
            merge(&mut whole, table);
            Ok((name, whole))
        }
        _ => Ok((name, table)),
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
