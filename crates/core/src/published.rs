//! Published models, run as their authors publish them: a folder with `config.json` and `model.safetensors`.
//!
//! A family of models is one file that turns an author's config into our own model and a key map.

pub mod blocks;
mod hydra;

use std::path::Path;

use tch::{Device, nn::VarStore};

use crate::{
    Error, Result,
    adapter::Model,
    device::{move_to, send},
    keymap::{self, Key},
    tensors::{self, Tensors},
};

/// The families whose models are no matter of one modality.
pub const FAMILIES: &[&dyn Family] = &[&hydra::HydraFamily];

/// One family of published models, for example Vim.
pub trait Family: Sync {
    /// Name on the command line: `--family vim`.
    fn name(&self) -> &'static str;

    /// One line about it: the paper and what its inputs are.
    fn about(&self) -> &'static str;

    /// Builds the model of an author's config.
    ///
    /// # Errors
    /// [`Error::Config`] naming the key that is unknown, wrong or not supported.
    fn build(&self, config: toml::Table) -> Result<Published>;

    /// The tensors of a file as those that the model of `config` has: where the config asks for it, a related model's
    /// become its own. Otherwise they are what they are.
    ///
    /// # Errors
    /// A config that is wrong, or tensors that cannot be turned into the model's.
    fn convert(&self, _config: &toml::Table, weights: Tensors) -> Result<Tensors> {
        Ok(weights)
    }
}

/// A model built from an author's config, before its weights are loaded.
pub struct Published {
    /// Our parameters.
    pub variables: VarStore,
    /// Which of the author's tensors is which of ours.
    pub keys: Vec<Key>,
    /// What it computes.
    pub model: Box<dyn Run>,
}

/// A model as a function of named tensors.
pub trait Run {
    /// Whether these inputs define an output `loss`, whose gradients are then wanted.
    fn has_loss(&self, inputs: &Tensors) -> bool {
        inputs.contains_key("labels")
    }

    /// Inputs by name (without `in.`) to outputs by name (without `out.`).
    ///
    /// # Errors
    /// A missing, unknown or misshaped input, which is named.
    fn run(&self, inputs: &Tensors) -> Result<Tensors>;

    /// The same as a function of one tensor, with the shape of one input; none if it reads something else.
    fn model(&self) -> Option<(&dyn Model, Vec<i64>)> {
        None
    }
}

/// What a folder may call its weights, the first that is there.
const WEIGHTS: [&str; 2] = ["model.safetensors", "pytorch_model.bin"];

/// Runs the model in `folder` on the tensors `in.*` of `file`; other tensors of `file` are left alone.
/// Returns `out.*`, and `grad.<author's name>` if the inputs define a loss.
///
/// # Errors
/// A file of the folder that is missing or wrong, weights that do not fit the config (all listed), an input
/// that is missing or misshaped.
pub fn run(family: &dyn Family, folder: &Path, file: &Tensors) -> Result<Tensors> {
    run_with(family, folder, None, file, Device::Cpu)
}

/// As [`run`], on `device`, with the weights of another file than the folder's, if one is given.
///
/// # Errors
/// As [`run`].
pub fn run_with(
    family: &dyn Family,
    folder: &Path,
    weights: Option<&Path>,
    file: &Tensors,
    device: Device,
) -> Result<Tensors> {
    let mut published = open(family, folder, weights)?;
    move_to(&mut published.variables, device)?;
    let named = file.iter().filter_map(|(name, tensor)| Some((name.strip_prefix("in.")?, tensor)));
    let inputs: Tensors =
        named.map(|(name, tensor)| Ok((name.to_owned(), send(tensor, device)?))).collect::<Result<_>>()?;
    let outputs = if published.model.has_loss(&inputs) {
        published.model.run(&inputs)?
    } else {
        tch::no_grad(|| published.model.run(&inputs))?
    };
    let mut results = Tensors::new();
    if let Some(loss) = outputs.get("loss") {
        loss.f_sum(tch::Kind::Float)?.f_backward()?;
        results = keymap::gradients(&published.keys, &published.variables.variables())?;
    }
    for (name, tensor) in outputs {
        results.insert(format!("out.{name}"), tensor.detach().contiguous());
    }
    Ok(results)
}

/// Reads `config.json` and the weights of `folder` (`model.safetensors` or `pytorch_model.bin`), or those of the file
/// `weights` (safetensors, or a checkpoint as `torch.save` writes it), into a model.
///
/// # Errors
/// As [`run`].
pub fn open(family: &dyn Family, folder: &Path, weights: Option<&Path>) -> Result<Published> {
    if !folder.is_dir() {
        return Err(Error::Config(format!(
            "{}: expected a folder with `config.json` and `model.safetensors`",
            folder.display()
        )));
    }
    let path = folder.join("config.json");
    let config = read_config(&path)?;
    let published = family.build(config.clone()).map_err(|error| match error {
        Error::Config(text) => Error::Config(format!("{}: {text}", path.display())),
        other => other,
    })?;
    let path = weights.map(Path::to_path_buf).unwrap_or_else(|| {
        let there = WEIGHTS.iter().map(|name| folder.join(name)).find(|path| path.exists());
        there.unwrap_or_else(|| folder.join(WEIGHTS[0]))
    });
    let weights = family.convert(&config, tensors::read(&path)?)?;
    keymap::load(&published.keys, &weights, &published.variables.variables()).map_err(
        |error| match error {
            Error::Invalid(text) => Error::file(&path, text),
            other => other,
        },
    )?;
    Ok(published)
}

/// A JSON object as a table; a key that is null is as good as absent.
fn read_config(path: &Path) -> Result<toml::Table> {
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    // serde_json's message ends with the line and the column.
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::Config(format!("{}: not JSON: {error}", path.display())))?;
    match json {
        serde_json::Value::Object(_) => {
            toml::Table::try_from(without_nulls(json)).map_err(|error| Error::file(path, error))
        }
        _ => Err(Error::Config(format!("{}: expected a JSON object of config keys", path.display()))),
    }
}

fn without_nulls(json: serde_json::Value) -> serde_json::Value {
    use serde_json::Value;
    match json {
        Value::Object(map) => Value::Object(
            map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, without_nulls(v))).collect(),
        ),
        Value::Array(list) => {
            Value::Array(list.into_iter().filter(|v| !v.is_null()).map(without_nulls).collect())
        }
        other => other,
    }
}
