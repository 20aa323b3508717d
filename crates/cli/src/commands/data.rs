//! `ophidian data`: which data sets there are, what is in one, fetching one.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::Result;
use clap::Subcommand;
use ophidian_core::config;
use ophidian_points as points;
use ophidian_vision::{
    cards::{self, Card, CardFile},
    config::{Data, Format},
    fetch,
    inspect::{self, Report, Split},
};

use crate::{exit::Usage, printer::Printer};

/// How many problems are shown where not all are asked for.
const FIRST_PROBLEMS: usize = 5;

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// List the data sets that can be fetched or generated.
    List(List),
    /// Say what a folder, an archive or the data set of a config holds: format, splits, classes, sizes, mean and standard
    /// deviation, corrupt files.
    Inspect(Inspect),
    /// Download a data set, resume where it stopped, check its checksums.
    Fetch(Fetch),
}

#[derive(clap::Args)]
struct List {
    /// One JSON line a data set, with sources, checksums and all.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Inspect {
    /// A folder, an archive, a config (its `[data]`) or the name of a generator. Of clouds with `--set adapter=points`.
    #[arg(value_name = "PATH|CONFIG.toml")]
    what: PathBuf,
    /// Read every image and name all corrupt files; exit code 1 if there is one.
    #[arg(long)]
    check: bool,
    /// A key of `[data]`, for example `data.format=cifar10`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// One JSON line.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct Fetch {
    /// The data set, as `ophidian data list` names it.
    name: String,
    /// Where the files go [default: data/NAME].
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
    /// Fetch `URL-PREFIX/FILE` instead of the published addresses. Checksums are checked all the same.
    #[arg(long, value_name = "URL-PREFIX")]
    mirror: Option<String>,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::List(args) => list(&args, printer),
        Command::Inspect(args) => inspect(&args, printer),
        Command::Fetch(args) => fetch(args, printer),
    }
}

fn list(args: &List, printer: &Printer) -> Result<()> {
    for card in cards::all()? {
        if args.json {
            printer.json(&card)?;
            continue;
        }
        listed(&card, printer)?;
    }
    for card in points::cards::all()? {
        if args.json {
            printer.json(&card)?;
            continue;
        }
        listed(&fetched(card), printer)?;
    }
    Ok(())
}

fn listed(card: &Card, printer: &Printer) -> Result<()> {
    let size = match card.files.iter().map(|file| file.bytes).sum::<u64>() {
        0 if card.homepage.is_empty() => "generated".to_owned(),
        0 => "by hand".to_owned(),
        bytes => megabytes(bytes),
    };
    let images = |split: &str| card.splits.get(split).copied().unwrap_or(0);
    printer.line(format_args!(
        "{:<16} {:>9}  {:>6} + {:<6} {}",
        card.name,
        size,
        images("train"),
        images("test"),
        card.what
    ))?;
    printer.line(format_args!("{:34}licence: {}", "", card.licence))?;
    Ok(())
}

/// A card of points as what `fetch` takes; their formats are of no concern there.
fn fetched(card: points::cards::Card) -> Card {
    let file =
        |file: points::cards::CardFile| CardFile { name: file.name, bytes: file.bytes, sha256: file.sha256 };
    Card {
        name: card.name,
        title: card.title,
        what: card.what,
        format: Format::Folder,
        licence: card.licence,
        citation: card.citation,
        homepage: card.homepage,
        sources: card.sources,
        splits: card.splits,
        classes: card.classes,
        mean: Vec::new(),
        std: Vec::new(),
        anchors: card.anchors,
        notes: card.notes,
        files: card.files.into_iter().map(file).collect(),
    }
}

fn inspect(args: &Inspect, printer: &Printer) -> Result<()> {
    let (adapter, data) = table(&args.what, &args.set)?;
    if adapter == "points" {
        return inspect_points(data, args.json, printer);
    }
    let terminal = std::io::stderr().is_terminal();
    let shown = AtomicUsize::new(0);
    let progress = |done: usize, total: usize| {
        let percent = done * 100 / total.max(1);
        if terminal && shown.fetch_max(percent, Ordering::Relaxed) < percent {
            printer.status(format_args!("reading images {percent}%"));
        }
    };
    let report = inspect::inspect(Data::read(data)?, args.check, &progress)?;
    if terminal {
        printer.status("");
    }
    if args.json {
        printer.json(&report)?;
    } else {
        show(&report, args.check, printer)?;
    }
    let problems: usize = report.splits.iter().map(|split| split.problems.len()).sum();
    if args.check && problems > 0 {
        anyhow::bail!("{problems} image(s) cannot be read");
    }
    Ok(())
}

/// Of points every file is read anyway.
fn inspect_points(data: toml::Table, json: bool, printer: &Printer) -> Result<()> {
    let report = points::inspect::inspect(points::config::Data::read(data)?)?;
    if json {
        return printer.json(&report);
    }
    printer.line(format_args!("format      {}", report.format.name()))?;
    for split in &report.splits {
        let [least, most] = split.points;
        let files = if split.files > 0 { format!(" of {} files", split.files) } else { String::new() };
        printer.line(format_args!(
            "{:<11} {} examples{files}, {least} to {most} points",
            split.name, split.examples
        ))?;
    }
    printer.line(format_args!("classes     {}", report.classes.len()))?;
    let width = report.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (class, name) in report.classes.iter().enumerate() {
        let count = |split: &points::inspect::Split| split.per_class.get(class).copied().unwrap_or(0);
        let counts = report.splits.iter().map(|split| format!("{:>8} {}", count(split), split.name));
        printer.line(format_args!("{class:>11} {name:<width$}{}", counts.collect::<String>()))?;
    }
    if !report.feature_mean.is_empty() {
        printer.line(format_args!("feature_mean {}", numbers(&report.feature_mean)))?;
        printer.line(format_args!("feature_std  {}", numbers(&report.feature_std)))?;
    }
    Ok(())
}

/// The adapter (none: images) and the `[data]` table that `what` stands for.
fn table(what: &Path, set: &[String]) -> Result<(String, toml::Table)> {
    let mut root = if what.extension().is_some_and(|ending| ending == "toml") {
        config::read(what)?
    } else {
        let generator =
            ["shapes", "motions", "solids"].iter().any(|name| what.as_os_str() == *name) && !what.exists();
        let key = if generator { "format" } else { "path" };
        let value = toml::Value::String(what.display().to_string());
        let data = toml::Table::from_iter([(key.to_owned(), value)]);
        toml::Table::from_iter([("data".to_owned(), toml::Value::Table(data))])
    };
    for assignment in set {
        config::set(&mut root, assignment)?;
    }
    if what.as_os_str() == "solids" && !what.exists() {
        root.insert("adapter".to_owned(), "points".into());
    }
    let adapter = root.get("adapter").and_then(toml::Value::as_str).unwrap_or_default().to_owned();
    match root.remove("data") {
        Some(toml::Value::Table(data)) => Ok((adapter, data)),
        _ => Err(Usage(format!("{} has no table [data]", what.display())).into()),
    }
}

fn show(report: &Report, check: bool, printer: &Printer) -> Result<()> {
    printer.line(format_args!("format      {}", report.format.name()))?;
    let unit = if report.format.is_video() { "clips" } else { "images" };
    for split in &report.splits {
        let from = if split.name == "eval" { format!(" ({})", report.eval_from) } else { String::new() };
        printer.line(format_args!("{:<11} {} {unit}{from}", split.name, split.images))?;
        for (size, count) in split.sizes.iter().take(4) {
            printer.line(format_args!("{:12}{size} (height x width x channels): {count}", ""))?;
        }
        if split.sizes.len() > 4 {
            printer.line(format_args!("{:12}and {} other sizes", "", split.sizes.len() - 4))?;
        }
        if split.read < split.images {
            printer.line(format_args!("{:12}({} of them read; --check reads all)", "", split.read))?;
        }
    }
    if report.set_aside > 0 {
        printer.line(format_args!(
            "set aside   {} {unit} of a test split beside the validation split",
            report.set_aside
        ))?;
    }
    printer.line(format_args!("classes     {}", report.classes.len()))?;
    let width = report.classes.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    for (class, name) in report.classes.iter().enumerate() {
        let counts =
            report.splits.iter().map(|split| format!("{:>8} {}", split.per_class[class], split.name));
        printer.line(format_args!("{class:>11} {name:<width$}{}", counts.collect::<String>()))?;
    }
    printer.line(format_args!("mean        {}", numbers(&report.mean)))?;
    printer.line(format_args!("std         {}", numbers(&report.std)))?;
    for Split { problems, .. } in &report.splits {
        let most = if check { problems.len() } else { FIRST_PROBLEMS };
        for problem in problems.iter().take(most) {
            printer.line(format_args!("corrupt     {problem}"))?;
        }
        if problems.len() > most {
            printer
                .line(format_args!("            and {} more; --check lists all", problems.len() - most))?;
        }
    }
    Ok(())
}

fn numbers(values: &[f64]) -> String {
    let values: Vec<_> = values.iter().map(|value| format!("{value:.4}")).collect();
    format!("[{}]", values.join(", "))
}

fn fetch(args: Fetch, printer: &Printer) -> Result<()> {
    let of_points = points::cards::all()?.into_iter().find(|card| card.name == args.name);
    let card = of_points.map_or_else(|| cards::named(&args.name), |card| Ok(fetched(card)))?;
    if card.files.is_empty() && !card.homepage.is_empty() {
        return Err(Usage(format!(
            "`{}` is not fetched file by file. {}: {}",
            card.name, card.homepage, card.notes
        ))
        .into());
    }
    let folder = args.output.unwrap_or_else(|| Path::new("data").join(&card.name));
    let terminal = std::io::stderr().is_terminal();
    let total: u64 = card.files.iter().map(|file| file.bytes).sum();
    // What an earlier try left does not count for the speed.
    let (start, mut first, mut shown) = (Instant::now(), None, None);
    let files = fetch::fetch(&card, &folder, args.mirror.as_deref(), &mut |progress| {
        let before =
            card.files.iter().take_while(|file| file.name != progress.file.name).map(|file| file.bytes);
        let done = before.sum::<u64>() + progress.done;
        let percent = done * 100 / total.max(1);
        // A line changes by the percent, a log by tens of them.
        let mark = if terminal { percent } else { percent / 10 };
        if shown == Some(mark) {
            return;
        }
        shown = Some(mark);
        let rate = done.saturating_sub(*first.get_or_insert(done)) as f64
            / 1e6
            / start.elapsed().as_secs_f64().max(0.1);
        let line = format!("{percent:>3}% of {}  {rate:.1} MB/s  {}", megabytes(total), progress.file.name);
        if terminal { printer.status(line) } else { printer.note(line) }
    })?;
    if terminal {
        printer.status("");
    }
    for file in files {
        printer.line(format_args!("{}", file.display()))?;
    }
    printer.note(format_args!("checksums are right; next: ophidian data inspect {}", folder.display()));
    Ok(())
}

fn megabytes(bytes: u64) -> String {
    format!("{:.1} MB", bytes as f64 / 1e6)
}
