//! `ophidian eval`.

use std::path::PathBuf;

use anyhow::Result;
use ophidian_core::device::Place;
use ophidian_train::{
    Progress,
    folder::write_text,
    measure::{Measurement, Reading, measure},
    pictures,
};

use super::setup::{self, Which};
use crate::{exit::Usage, printer::Printer};

/// Measure a trained model: accuracy, loss, and how each class fares.
///
/// Without --data it is measured on the eval split that it was trained with. Where the run kept an average of the
/// weights, the average is used. With --output, evaluation.json, confusion.png and misclassified.png are written there.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ophidian eval runs/demo
  ophidian eval runs/demo --checkpoint last --output report
  ophidian eval runs/photos --data other-photos")]
pub struct Args {
    /// A run folder, or a checkpoint of one.
    #[arg(value_name = "RUN|CHECKPOINT")]
    run: PathBuf,
    /// Measure on this folder or archive instead (short for --set data.path, data.eval_path and data.format="auto").
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// Where the model runs, wherever it was trained: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
    /// Override a key of the run's config, for example `train.eval_batch_size=64`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Which checkpoint of the run folder.
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: Which,
    /// A folder for evaluation.json, confusion.png and misclassified.png.
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let mut overrides = Vec::new();
    if let Some(path) = &args.data {
        let path = path.to_str().ok_or_else(|| Usage("--data: the path is not UTF-8".to_owned()))?;
        let quoted = toml::Value::from(path);
        overrides.push("data.format=auto".to_owned());
        overrides.extend(["path", "eval_path"].map(|key| format!("data.{key}={quoted}")));
    }
    overrides.extend(args.set.iter().cloned());
    let (checkpoint, adapter) = setup::checkpoint(&args.run, args.checkpoint.name(), &overrides)?;
    let about = &checkpoint.about;
    let device = args.device.open()?;
    let (_variables, model) = checkpoint.model(adapter, device)?;
    let dataset = adapter.open(&about.config.data)?.eval;
    if dataset.classes() != about.classes || dataset.input_shape() != about.input_shape {
        let found = format!("{} classes and inputs {:?}", dataset.classes().len(), dataset.input_shape());
        let known = format!(
            "{} classes ({}) and inputs {:?}",
            about.classes.len(),
            about.classes.join(", "),
            about.input_shape
        );
        return Err(Usage(format!("the data has {found}, the model was trained on {known}")).into());
    }
    let mut progress = Progress::auto();
    progress.begin("measuring".to_owned(), dataset.len() as u64, 0);
    let reading = Reading::of(&about.config.train, device);
    let found =
        measure(&*model, &dataset, about.classes.len(), &reading, |n| progress.advance(n, String::new))?;
    progress.end();
    // Nothing listens for Ctrl-C here, so the measurement is never cut short.
    let Some(found) = found else { return Ok(()) };
    for message in &found.skipped {
        printer.note(format!("skipped: {message}"));
    }
    let report = report(&args, &checkpoint, &found);
    if args.json {
        printer.json(&report)?;
    } else {
        print(&found, &about.classes, printer)?;
    }
    if let Some(folder) = &args.output {
        std::fs::create_dir_all(folder).map_err(|error| ophidian_core::Error::file(folder, error))?;
        write_text(&folder.join("evaluation.json"), &format!("{report:#}\n"))?;
        let title = found.title();
        pictures::confusion(&found, &about.classes, &title, &folder.join("confusion.png"))?;
        let draw = |index: usize| {
            adapter.picture(&about.config.data, &dataset.sample(index, None).ok()?.input, &about.input_shape)
        };
        pictures::mistakes(&found, &about.classes, &title, draw, &folder.join("misclassified.png"))?;
        printer.note(format!("evaluation.json and pictures are in {}", folder.display()));
    }
    Ok(())
}

fn report(args: &Args, checkpoint: &ophidian_train::Checkpoint, found: &Measurement) -> serde_json::Value {
    let classes = &checkpoint.about.classes;
    let per_class: Vec<_> = classes
        .iter()
        .zip(found.per_class())
        .map(|(name, (examples, recall, precision))| {
            serde_json::json!({"class": name, "examples": examples, "recall": recall, "precision": precision})
        })
        .collect();
    serde_json::json!({
        "checkpoint": checkpoint.path,
        "step": checkpoint.about.state.step,
        "data": args.data,
        "examples": found.samples,
        "skipped": found.skipped.len(),
        "accuracy": found.accuracy,
        "top5": found.top5,
        "loss": found.loss,
        "per_class": per_class,
        "confusion": found.confusion,
    })
}

fn print(found: &Measurement, classes: &[String], printer: &Printer) -> Result<()> {
    printer.line(format_args!("accuracy  {:.2}% of {}", 100.0 * found.accuracy, found.samples))?;
    if let Some(top5) = found.top5 {
        printer.line(format_args!("top 5     {:.2}%", 100.0 * top5))?;
    }
    printer.line(format_args!("loss      {:.4}", found.loss))?;
    let width = classes.iter().map(|name| name.chars().count()).max().unwrap_or(0).max("class".len());
    printer.line(format_args!("\n{:width$}  examples  recall  precision", "class"))?;
    for (name, (examples, recall, precision)) in classes.iter().zip(found.per_class()) {
        let (recall, precision) = (100.0 * recall, 100.0 * precision);
        printer.line(format_args!("{name:width$}  {examples:8}  {recall:5.1}%  {precision:8.1}%"))?;
    }
    Ok(())
}
