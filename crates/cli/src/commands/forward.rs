//! `ophidian forward`: a published model on tensors from a file.

use std::path::PathBuf;

use anyhow::Result;
use ophidian_core::{
    config::nearest,
    device::Place,
    published::{self, Family},
    tensors,
};

use crate::{exit::Usage, printer::Printer};

#[derive(clap::Args)]
pub struct Args {
    /// The family that the model belongs to, for example vim.
    #[arg(long, value_name = "NAME")]
    family: String,
    /// The model as its authors publish it: a folder with `config.json` and `model.safetensors` (or `pytorch_model.bin`).
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Other weights than the folder's: safetensors, or a checkpoint as PyTorch saves it (a dict of tensors, or one under
    /// `model`, `state_dict` …). It is read as data; no code in it is run.
    #[arg(long, value_name = "FILE.safetensors|pth|bin")]
    weights: Option<PathBuf>,
    /// Where the model runs: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
    /// Tensors `in.*`: what the model reads, and `in.labels` (hydra: `in.ct`, a cotangent of `out.y`) if gradients are
    /// wanted.
    #[arg(long, value_name = "FILE.safetensors")]
    input: PathBuf,
    /// Where `out.*` go, and `grad.*` under the authors' parameter names if gradients are wanted.
    #[arg(long, value_name = "FILE.safetensors", value_parser = super::safetensors)]
    output: PathBuf,
}

/// The families of every adapter.
pub fn families() -> impl Iterator<Item = &'static dyn Family> {
    use {ophidian_audio as audio, ophidian_points as points, ophidian_vision as vision};
    let vision = vision::models::CLASSIFIERS.iter().map(|family| *family as &dyn Family);
    vision.chain([published::FAMILIES, audio::models::FAMILIES, points::models::FAMILIES].concat())
}

/// The family called `name`.
pub fn family(name: &str) -> Result<&'static dyn Family> {
    let found = families().find(|family| family.name() == name);
    found.ok_or_else(|| {
        let known: Vec<&str> = families().map(|family| family.name()).collect();
        let hint = nearest(name, known.iter().copied());
        let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
        let known = known.join(", ");
        Usage(format!("there is no family `{name}`; there is {known}{hint}")).into()
    })
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let family = family(&args.family)?;
    let device = args.device.open()?;
    let input = tensors::read(&args.input)?;
    let results = published::run_with(family, &args.model, args.weights.as_deref(), &input, device)
        .map_err(|error| error.of_file(&args.input))?;
    tensors::write(&args.output, &results)?;
    for (name, count) in tensors::non_finite(&results) {
        printer.note(format_args!("warning: {name} holds {count} values that are not finite"));
    }
    for (name, tensor) in results.iter().filter(|(name, _)| name.starts_with("out.")) {
        printer.line(format_args!("{name} {:?} {:?}", tensor.size(), tensor.kind()))?;
    }
    let gradients = results.keys().filter(|name| name.starts_with("grad.")).count();
    if gradients > 0 {
        printer.line(format_args!("grad.* of {gradients} parameters"))?;
    }
    Ok(())
}
