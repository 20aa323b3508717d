//! `ophidian models`: published models, their configs and what they cost.

use anyhow::Result;
use clap::Subcommand;
use ophidian_vision::models::{self, Official, Summary};
use toml::{Table, Value};

use crate::printer::Printer;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List published models with their parameters and operations for one image of their size.
    List,
    /// Print a model's config as `train` takes it, with its stages, parameters and operations above it as comments.
    Show {
        /// Name of the model, as `ophidian models list` prints it.
        name: String,
    },
}

/// How operations are counted, in one sentence.
const COUNTED: &str = "a multiply-add of a matrix product or convolution is two operations, a scan 9 L D N and a skip \
                       or gate L D (L steps, D channels, N states); norms, activations and sums are not counted";

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::List => list(printer),
        Command::Show { name } => show(&name, printer),
    }
}

fn list(printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    for name in models::names() {
        let model = models::official(name)?;
        let summary = model.model.count(model.input, model.classes)?;
        rows.push([
            name.to_owned(),
            model.family,
            grouped(summary.parameters),
            format!("{:.2}", summary.flops() / 1e9),
            model.input.to_string(),
            scan_name(&model.model),
            model.paper,
        ]);
    }
    printer.table(["name", "family", "parameters", "GFLOPs", "input", "scan", "paper"], &rows, 2..4)?;
    printer.line(format_args!("\nFLOPs of one input: {COUNTED}."))?;
    Ok(())
}

fn show(name: &str, printer: &Printer) -> Result<()> {
    let model = models::official(name)?;
    let summary = model.model.count(model.input, model.classes)?;
    for line in about(&model, &summary)? {
        printer.line(format!("# {line}").trim_end())?;
    }
    let (channels, [height, width]) = (model.input.channels, model.input.image);
    let size = if height == width { Value::Integer(height) } else { Value::from(vec![height, width]) };
    let mut data =
        Table::from_iter([("image_size".to_owned(), size), ("channels".to_owned(), channels.into())]);
    if let Some(frames) = model.input.frames {
        data.insert("format".to_owned(), "video".into());
        data.insert(
            "video".to_owned(),
            Table::from_iter([("frames".to_owned(), Value::from(frames))]).into(),
        );
    }
    let config = Table::from_iter([
        ("adapter".to_owned(), Value::from("vision")),
        ("data".to_owned(), Value::Table(data)),
        ("model".to_owned(), Value::Table(Table::try_from(&model.model)?)),
    ]);
    printer.line(toml::to_string(&config)?.trim_end())?;
    Ok(())
}

/// What stands above the config.
fn about(model: &Official, summary: &Summary) -> Result<Vec<String>> {
    let mut lines = vec![format!("{}: {}", model.name, model.paper), String::new()];
    lines.push(format!("{:>5}  {:>9}  {:>6}  {:>8}  {:>6}", "stage", "grid", "tokens", "channels", "blocks"));
    for (i, stage) in summary.stages.iter().enumerate() {
        let times = stage.times.map_or(String::new(), |times| format!("{times}x"));
        let grid = format!("{times}{}x{}", stage.grid[0], stage.grid[1]);
        let (tokens, channels, blocks) = (stage.tokens, stage.channels, stage.blocks);
        lines.push(format!("{i:>5}  {grid:>9}  {tokens:>6}  {channels:>8}  {blocks:>6}"));
    }
    lines.push(String::new());
    lines.push(format!("parameters: {}", grouped(summary.parameters)));
    for part in &summary.parts {
        lines.push(format!("{:>14}  {}", grouped(part.parameters), part.name));
    }
    lines.push(String::new());
    lines.push(format!(
        "FLOPs of one input of {}: {:.2} G; {:.2} G as papers count, a multiply-add as one",
        model.input,
        summary.flops() / 1e9,
        summary.flops_of_papers() / 1e9
    ));
    lines.push(format!("({COUNTED})"));
    lines.push(String::new());
    if !models::FAMILIES.iter().any(|family| family.name() == model.family) {
        lines.push(format!("Released weights: {}.", model.weights));
        return Ok(lines);
    }
    let kept = ["plainmamba", "localvim", "localvmamba", "efficientvmamba", "rsmamba", "mamband"];
    let entry = if kept.contains(&model.family.as_str()) { "state_dict" } else { "model" };
    lines.push(format!(
        "Released weights: {}. To run them, turn the checkpoint into safetensors:",
        model.weights
    ));
    lines.push(format!(
        "  python3 -c \"import torch, safetensors.torch as s; s.save_file({{k: v.contiguous() for k, v in \
         torch.load('FILE.pth', map_location='cpu')['{entry}'].items()}}, 'DIR/model.safetensors')\""
    ));
    lines.push("put this beside it as DIR/config.json:".into());
    lines.push(format!("  {}", serde_json::to_string(&model.authors)?));
    lines.push("and type:".into());
    lines.push(format!(
        "  ophidian forward --family {} --model DIR --input IN.safetensors --output OUT.safetensors",
        model.family
    ));
    lines.push(String::new());
    lines.push("To train it from the start, save this as a file and type:".into());
    lines.push("  ophidian train FILE.toml --output RUN --set data.path=IMAGES".into());
    lines.push(format!("or write `base = \"{}\"` under [model] of a config of your own.", model.name));
    lines.push(String::new());
    Ok(lines)
}

/// The pattern, or how many patterns the blocks take in turn.
fn scan_name(model: &models::ModelConfig) -> String {
    match model.scan.texts() {
        [one] if one.starts_with('[') => format!("{} directions", one.split(',').count()),
        [one] => one.clone(),
        several => format!("{} in turn", several.len()),
    }
}

/// Digits in groups of three.
fn grouped(number: i64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
