//! `ophidian models`: published models, their configs and what they cost.

use anyhow::Result;
use clap::Subcommand;
use ophidian_core::{
    Error,
    config::{self, nearest},
    grid::{Catalogue, ModelConfig, Official, Summary},
};
use ophidian_points::models as points;
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
        /// Change a key of its config, for example `model.mixer=mamba2`. May be repeated.
        #[arg(long = "set", value_name = "KEY=VALUE")]
        set: Vec<String>,
    },
}

/// How operations are counted, in one sentence.
const COUNTED: &str = "a multiply-add of a matrix product or convolution is two operations, a scan 9 L D N \
                       (Mamba-2 and Hydra 5 L D N) and a skip or gate L D (L steps, D channels, N states); norms, \
                       activations and sums are not counted";

/// The published models of every adapter.
const CATALOGUES: [(&str, &Catalogue); 2] =
    [("vision", &ophidian_vision::models::CATALOGUE), ("audio", &ophidian_audio::models::CATALOGUE)];

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::List => list(printer),
        Command::Show { name, set } => show(&name, &set, printer),
    }
}

fn list(printer: &Printer) -> Result<()> {
    let mut rows = Vec::new();
    for (catalogue, name) in names() {
        let model = catalogue.official(name)?;
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
    for name in points::CATALOGUE.names() {
        let model = points::official(name)?;
        let input = model.input.input();
        let summary = model.model.count(input, model.classes)?;
        rows.push([
            name.to_owned(),
            model.family,
            grouped(summary.parameters),
            format!("{:.2}", summary.flops / 1e9),
            input.to_string(),
            model.model.scan_name(),
            model.paper,
        ]);
    }
    printer.table(["name", "family", "parameters", "GFLOPs", "input", "scan", "paper"], &rows, 2..4)?;
    printer.line(format_args!("\nFLOPs of one input: {COUNTED}."))?;
    Ok(())
}

/// Every published model.
fn names() -> impl Iterator<Item = (&'static Catalogue, &'static str)> {
    CATALOGUES.into_iter().flat_map(|(_, catalogue)| catalogue.names().map(move |name| (catalogue, name)))
}

/// The `[model]` table over the published model `name` that overrides make; none without any.
fn changed(name: &str, set: &[String]) -> Result<Option<Table>> {
    if set.is_empty() {
        return Ok(None);
    }
    let model = Table::from_iter([("base".to_owned(), Value::from(name))]);
    let mut table = Table::from_iter([("model".to_owned(), model.into())]);
    for assignment in set {
        config::set(&mut table, assignment)?;
    }
    if let Some(key) = table.keys().find(|key| *key != "model") {
        let text =
            format!("`{key}` cannot be set here; expected keys of `model`, such as `model.mixer=mamba2`");
        return Err(Error::Config(text).into());
    }
    match table.remove("model") {
        Some(Value::Table(model)) => Ok(Some(model)),
        _ => {
            Err(Error::Config("`model` is no table; set its keys, such as `model.mixer=mamba2`".into())
                .into())
        }
    }
}

/// The published model `name` of what lies on a grid: an image, a clip or a spectrogram.
pub fn official(name: &str) -> Result<Official> {
    Ok(found(name)?.2)
}

/// The same, with its adapter and the catalogue that has it.
fn found(name: &str) -> Result<(&'static str, &'static Catalogue, Official)> {
    let holds = |(_, catalogue): &(&str, &Catalogue)| catalogue.names().any(|known| known == name);
    let Some((adapter, catalogue)) = CATALOGUES.into_iter().find(holds) else {
        let known = names().map(|(_, known)| known).chain(points::CATALOGUE.names());
        let hint = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        let hint = hint.unwrap_or_else(|| "`ophidian models list` shows them".to_owned());
        return Err(Error::Config(format!("there is no published model `{name}`; {hint}")).into());
    };
    Ok((adapter, catalogue, catalogue.official(name)?))
}

fn show(name: &str, set: &[String], printer: &Printer) -> Result<()> {
    let changed = changed(name, set)?;
    if points::CATALOGUE.names().any(|known| known == name) {
        let mut model = points::official(name)?;
        if let Some(table) = changed {
            model.model = points::ModelConfig::read(table)?;
        }
        return show_points(&model, set, printer);
    }
    let (adapter, catalogue, mut model) = found(name)?;
    if let Some(table) = changed {
        model.model = catalogue.read(table)?;
    }
    let summary = model.model.count(model.input, model.classes)?;
    for line in about(&model, set, &summary)? {
        printer.line(format!("# {line}").trim_end())?;
    }
    let (channels, [height, width]) = (model.input.channels, model.input.image);
    let size = if height == width { Value::Integer(height) } else { Value::from(vec![height, width]) };
    let mut data =
        Table::from_iter([("image_size".to_owned(), size), ("channels".to_owned(), channels.into())]);
    if !model.data.is_empty() {
        data = model.data.clone();
    }
    if let Some(frames) = model.input.frames {
        data.insert("format".to_owned(), "video".into());
        data.insert(
            "video".to_owned(),
            Table::from_iter([("frames".to_owned(), Value::from(frames))]).into(),
        );
    }
    let config = Table::from_iter([
        ("adapter".to_owned(), Value::from(adapter)),
        ("data".to_owned(), Value::Table(data)),
        ("model".to_owned(), Value::Table(Table::try_from(&model.model)?)),
    ]);
    printer.line(toml::to_string(&config)?.trim_end())?;
    Ok(())
}

fn show_points(model: &points::Official, set: &[String], printer: &Printer) -> Result<()> {
    let sizes = model.input;
    let summary = model.model.count(sizes.input(), model.classes)?;
    let mut lines = vec![format!("{}: {}", model.name, model.paper), String::new()];
    lines.push(format!(
        "{} points in {} groups of {}: {} tokens of {} channels, {} blocks",
        sizes.points, sizes.groups, sizes.group_size, summary.tokens, model.model.d_model, model.model.depth
    ));
    lines.push(format!("parameters: {}", grouped(summary.parameters)));
    lines.extend(summary.parts.iter().map(|(name, count)| format!("{:>14}  {name}", grouped(*count))));
    lines.push(format!("FLOPs of one cloud: {:.2} G", summary.flops / 1e9));
    lines.push(format!("({COUNTED})"));
    lines.push(String::new());
    lines.extend(uses(model, set)?);
    for line in lines {
        printer.line(format!("# {line}").trim_end())?;
    }
    let number = |key: &str, value: i64| (key.to_owned(), Value::Integer(value));
    let data = Table::from_iter([
        number("points", sizes.points),
        number("groups", sizes.groups),
        number("group_size", sizes.group_size),
    ]);
    let config = Table::from_iter([
        ("adapter".to_owned(), Value::from("points")),
        ("data".to_owned(), Value::Table(data)),
        ("model".to_owned(), Value::Table(Table::try_from(&model.model)?)),
    ]);
    printer.line(toml::to_string(&config)?.trim_end())?;
    Ok(())
}

/// How to run released weights, unless the model is changed by `set`, and how to train it from the start.
fn uses<M, I>(model: &Official<M, I>, set: &[String]) -> Result<Vec<String>> {
    let Official { name, weights, authors, family, .. } = model;
    let mut lines = Vec::new();
    if !set.is_empty() {
        lines.extend([format!("Changed: {}", set.join(", ")), String::new()]);
    } else if authors.is_empty() {
        // Authors who have no such model have no arguments for one.
        return Ok(vec![format!("Released weights: {weights}.")]);
    } else {
        lines.extend([
            format!("Released weights: {weights}. To run them, put this into a folder as DIR/config.json:"),
            format!("  {}", serde_json::to_string(authors)?),
            "and type:".into(),
            format!(
                "  ophidian forward --family {family} --model DIR --weights FILE.pth --input IN.safetensors \
                 --output OUT.safetensors"
            ),
            String::new(),
        ]);
    }
    lines.extend([
        "To train it from the start, save this as a file and type:".into(),
        "  ophidian train FILE.toml --output RUN --set data.path=DATA".into(),
        format!("or write `base = \"{name}\"` under [model] of a config of your own."),
        String::new(),
    ]);
    Ok(lines)
}

/// What stands above the config.
fn about(model: &Official, set: &[String], summary: &Summary) -> Result<Vec<String>> {
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
    lines.extend(uses(model, set)?);
    Ok(lines)
}

/// The pattern, or how many patterns the blocks take in turn.
fn scan_name(model: &ModelConfig) -> String {
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
