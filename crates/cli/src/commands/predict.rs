//! `ophidian predict`.

use std::{io::Write, path::PathBuf};

use anyhow::Result;
use ophidian_core::{device::Place, files::write_whole};
use ophidian_train::{
    Progress,
    config::OnCorrupt,
    measure::Reading,
    predict::{Prediction, predict},
};
use serde_json::json;

use super::setup::{self, Which};
use crate::{exit::Usage, printer::Printer};

/// Label files with a trained model.
///
/// Inputs are prepared as the eval split was. Where the run kept an average of the weights, the average is used.
/// Without --output, one line per input is printed: input, class, probability.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ophidian predict runs/demo cat.png dog.png
  ophidian predict runs/demo photos/ --output predictions.csv")]
pub struct Args {
    /// A run folder, or a checkpoint of one.
    #[arg(value_name = "RUN|CHECKPOINT")]
    run: PathBuf,
    /// Files or folders.
    #[arg(required = true)]
    inputs: Vec<PathBuf>,
    /// A table of all classes' probabilities: .csv, .json or .jsonl.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Which checkpoint of the run folder.
    #[arg(long, value_enum, default_value = "best")]
    checkpoint: Which,
    /// Leave out inputs that cannot be read, instead of failing at the first.
    #[arg(long)]
    skip_corrupt: bool,
    /// Where the model runs, wherever it was trained: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
    /// Override a key of the run's config, for example `train.eval_batch_size=64`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

/// How a table is written.
#[derive(Clone, Copy)]
enum Format {
    Csv,
    Json,
    JsonLines,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    // A wrong extension is told before the work, not after.
    let output = args.output.as_deref().map(|path| Ok::<_, Usage>((path, format_of(path)?))).transpose()?;
    let (checkpoint, adapter) = setup::checkpoint(&args.run, args.checkpoint.name(), &args.set)?;
    let about = &checkpoint.about;
    let device = args.device.open()?;
    let (_variables, model) = checkpoint.model(adapter, device)?;
    let paths: Vec<_> = args.inputs.iter().map(PathBuf::as_path).collect();
    let inputs = adapter.open_inputs(&about.config.data, &paths)?;
    if inputs.input_shape() != about.input_shape {
        let (found, known) = (inputs.input_shape(), &about.input_shape);
        return Err(Usage(format!("the inputs become {found:?}, the model was trained on {known:?}")).into());
    }
    let mut reading = Reading::of(&about.config.train, device);
    reading.on_corrupt = if args.skip_corrupt { OnCorrupt::Skip } else { OnCorrupt::Fail };
    let mut progress = Progress::auto();
    progress.begin("predicting".to_owned(), inputs.len() as u64, 0);
    let found =
        predict(&*model, &inputs, about.classes.len(), &reading, |n| progress.advance(n, String::new))?;
    progress.end();
    for message in &found.skipped {
        printer.note(format!("skipped: {message}"));
    }
    let Some((path, format)) = output else {
        for prediction in &found.found {
            let Prediction { input, class, probabilities } = prediction;
            let percent = 100.0 * probabilities[*class];
            printer.line(format_args!("{input}\t{}\t{percent:.1}%", about.classes[*class]))?;
        }
        return Ok(());
    };
    let text = match format {
        Format::Csv => csv(&found.found, &about.classes),
        Format::Json => format!("{:#}\n", json!(objects(&found.found, &about.classes))),
        Format::JsonLines => {
            objects(&found.found, &about.classes).iter().map(|object| format!("{object}\n")).collect()
        }
    };
    write_whole(path, |file| file.write_all(text.as_bytes()))?;
    printer.note(format!("{} predictions are in {}", found.found.len(), path.display()));
    Ok(())
}

fn format_of(path: &std::path::Path) -> Result<Format, Usage> {
    match path.extension().and_then(|extension| extension.to_str()) {
        Some("csv") => Ok(Format::Csv),
        Some("json") => Ok(Format::Json),
        Some("jsonl") => Ok(Format::JsonLines),
        _ => Err(Usage(format!(
            "--output {}: expected a name that ends in .csv, .json or .jsonl",
            path.display()
        ))),
    }
}

/// input, label, probability, then one column per class.
fn csv(found: &[Prediction], classes: &[String]) -> String {
    let mut table = String::from("input,label,probability");
    for class in classes {
        table.push(',');
        table.push_str(&quoted(class));
    }
    table.push('\n');
    for Prediction { input, class, probabilities } in found {
        table.push_str(&format!(
            "{},{},{:.6}",
            quoted(input),
            quoted(&classes[*class]),
            probabilities[*class]
        ));
        for probability in probabilities {
            table.push_str(&format!(",{probability:.6}"));
        }
        table.push('\n');
    }
    table
}

/// A field of a CSV line (RFC 4180).
fn quoted(field: &str) -> String {
    if field.contains(['"', ',', '\n', '\r']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}

fn objects(found: &[Prediction], classes: &[String]) -> Vec<serde_json::Value> {
    found
        .iter()
        .map(|Prediction { input, class, probabilities }| {
            let all: serde_json::Map<_, _> =
                classes.iter().cloned().zip(probabilities.iter().map(|value| json!(value))).collect();
            json!({"input": input, "label": classes[*class], "probability": probabilities[*class], "probabilities": all})
        })
        .collect()
}
