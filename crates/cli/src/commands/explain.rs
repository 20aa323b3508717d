//! `ophidian explain`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ophidian_core::{adapter::Adapter, data::Dataset, published};
use ophidian_train::{
    Progress,
    explain::{self, Example, Explanation, Options, Subject, Token},
};
use ophidian_vision::Vision;

use super::{
    forward,
    setup::{self, Which},
};
use crate::{exit::Usage, printer::Printer};

/// Show what a model looks at: how far a token's features reach, and where each direction of a scan attends.
///
/// Of a trained run, or of a published model's folder (images). Written are explain.html, which needs nothing else,
/// field.png, attention.png, the figures as explain.json and the raw maps as maps.safetensors.
///
/// The effective receptive field is the gradient of the token's features behind the last layer with respect to the input.
/// The implicit attention of a selective scan, C_t (prod A) delta_s B_s, is exact, layer by layer and direction by
/// direction; layers that have another mixer say so.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ophidian explain runs/demo
  ophidian explain runs/demo --image cat.png --token 3,4 --samples 32 --output cat
  ophidian explain --family vim --model vim-tiny/ --image cat.png --token class --output cat.html")]
pub struct Args {
    /// A run folder, or a checkpoint of one.
    #[arg(value_name = "RUN|CHECKPOINT", required_unless_present = "model", conflicts_with_all = ["model", "family"])]
    run: Option<PathBuf>,
    /// A file to look at (for a run over sounds or points, one of those), prepared as the eval split was.
    #[arg(
        long,
        visible_alias = "file",
        value_name = "FILE",
        conflicts_with = "sample",
        required_unless_present = "run"
    )]
    image: Option<PathBuf>,
    /// Which sample of the eval split to look at instead, counted from 0.
    #[arg(long, value_name = "N", default_value_t = 0)]
    sample: usize,
    /// Average the receptive field over so many samples of the eval split, evenly spread, beside that of the one input. Not for
    /// points, whose places differ from sample to sample.
    #[arg(long, value_name = "N", default_value_t = 0, conflicts_with = "model")]
    samples: usize,
    /// The token of the last layer: centre, class (the class token), a number row by row, or ROW,COLUMN (FRAME,ROW,COLUMN
    /// of a clip), counted from 0.
    #[arg(long, value_name = "TOKEN", default_value = "centre", allow_hyphen_values = true)]
    token: Token,
    /// Random projections of the token's features that a receptive field is the mean over.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    projections: u16,
    /// A folder for the files, or the name of the page alone, which ends in .html.
    #[arg(short, long, value_name = "DIR|FILE.html", default_value = "explain")]
    output: PathBuf,
    /// Which checkpoint of the run folder.
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: Which,
    /// Override a key of the run's config, for example `data.path="photos"`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", conflicts_with = "model")]
    set: Vec<String>,
    /// The family of a published model, for example vim.
    #[arg(long, value_name = "NAME", requires = "model")]
    family: Option<String>,
    /// A published model: a folder as `ophidian forward` reads it.
    #[arg(long, value_name = "DIR", requires = "family")]
    model: Option<PathBuf>,
    /// Other weights than the folder's, as `ophidian forward` reads them.
    #[arg(long, value_name = "FILE.safetensors|pth|bin", requires = "model")]
    weights: Option<PathBuf>,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match (&args.run, &args.family, &args.model) {
        (Some(run), ..) => of_run(run, &args, printer),
        (None, Some(family), Some(model)) => of_published(family, model, &args, printer),
        _ => Err(Usage("expected a run, or --family and --model".to_owned()).into()),
    }
}

fn of_run(run: &Path, args: &Args, printer: &Printer) -> Result<()> {
    let (checkpoint, adapter) = setup::checkpoint(run, args.checkpoint.name(), &args.set)?;
    let about = &checkpoint.about;
    let (_variables, model) = checkpoint.model(adapter, tch::Device::Cpu)?;
    let data = &about.config.data;
    let eval = (args.image.is_none() || args.samples > 0).then(|| adapter.open(data)).transpose()?;
    let eval = eval.map(|splits| splits.eval);
    let subject =
        Subject { model: &*model, adapter, data, shape: &about.input_shape, classes: &about.classes };
    let example = match (&args.image, &eval) {
        (Some(path), _) => of_file(&subject, path)?,
        (None, Some(eval)) => Example::of(&**eval, args.sample)?,
        (None, None) => return Err(Usage("expected --image or --sample".to_owned()).into()),
    };
    finish(&subject, example, eval.as_deref(), args, printer)
}

fn of_published(family: &str, folder: &Path, args: &Args, printer: &Printer) -> Result<()> {
    let published = published::open(forward::family(family)?, folder, args.weights.as_deref())?;
    let told =
        |what: &str| Usage(format!("--family {family}: {what}; train or convert it, and explain the run"));
    let Some((model, shape)) = published.model.model() else {
        return Err(told("its models do not read images").into());
    };
    let [channels @ (1 | 3), height, width] = shape[..] else {
        return Err(told(&format!("the model reads {shape:?}, no images of 1 or 3 channels")).into());
    };
    // What preparing an image asks of a data set, which is never opened; mean and deviation are ImageNet's.
    let data = toml::Table::from_iter([
        ("format".to_owned(), "folder".into()),
        ("path".to_owned(), ".".into()),
        ("image_size".to_owned(), vec![height, width].into()),
        ("channels".to_owned(), channels.into()),
        ("class_names".to_owned(), vec!["none"].into()),
    ]);
    let data = Vision.resolve_data(data)?;
    let subject = Subject { model, adapter: &Vision, data: &data, shape: &shape, classes: &[] };
    let Some(image) = &args.image else { return Err(Usage("expected --image".to_owned()).into()) };
    let example = of_file(&subject, image)?;
    finish(&subject, example, None, args, printer)
}

/// The only input in `path`.
fn of_file(subject: &Subject, path: &Path) -> Result<Example> {
    let inputs = subject.adapter.open_inputs(subject.data, &[path])?;
    if inputs.input_shape() != subject.shape {
        let (found, known) = (inputs.input_shape(), subject.shape);
        return Err(Usage(format!("{} becomes {found:?}, the model reads {known:?}", path.display())).into());
    }
    if inputs.len() != 1 {
        let (path, count) = (path.display(), inputs.len());
        return Err(Usage(format!("{path} holds {count} inputs, expected the name of one")).into());
    }
    // Its label means nothing.
    Ok(Example { label: None, ..Example::of(&*inputs, 0)? })
}

fn finish(
    subject: &Subject,
    example: Example,
    others: Option<&dyn Dataset>,
    args: &Args,
    printer: &Printer,
) -> Result<()> {
    let options = Options {
        token: args.token.clone(),
        projections: usize::from(args.projections),
        samples: args.samples,
    };
    let mut progress = Progress::auto();
    let count = 1 + others.map_or(0, |others| args.samples.min(others.len()));
    progress.begin("explaining".to_owned(), count as u64, 0);
    let found = explain::explain(subject, example, others, &options, |n| progress.advance(n, String::new))?;
    progress.end();
    let files = explain::write(subject, &found, &command(), &args.output)?;
    print(&found, printer)?;
    for path in [&files.html].into_iter().chain(&files.others) {
        printer.line(path.display())?;
    }
    Ok(())
}

fn print(found: &Explanation, printer: &Printer) -> Result<()> {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let mut rows = Vec::new();
    let fields = std::iter::once(("this input".to_owned(), &found.field))
        .chain(found.mean.as_ref().map(|(count, field)| (format!("mean of {count}"), field)));
    for (name, field) in fields {
        if field.shares.is_empty() {
            printer.note(format!("receptive field, {name}: the token does not depend on the input at all"));
        }
        for share in &field.shares {
            let square = share.square.map_or_else(|| "–".to_owned(), percent);
            rows.push([name.clone(), format!("{:.0}%", 100.0 * share.part), percent(share.area), square]);
        }
    }
    printer.table(["receptive field", "part", "cells", "square"], &rows, 1..4)?;
    let without = found.layers.iter().zip(1..).filter(|(layer, _)| layer.maps.is_empty());
    for (layer, number) in without {
        printer.note(format!("layer {number} has no implicit attention: {}", layer.notes.join("; ")));
    }
    Ok(())
}

/// What was typed.
fn command() -> String {
    let arguments = std::env::args_os().skip(1);
    let quoted = arguments.map(|argument| setup::quoted(&argument.to_string_lossy()));
    std::iter::once("ophidian".to_owned()).chain(quoted).collect::<Vec<_>>().join(" ")
}
