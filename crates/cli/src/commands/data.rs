//! `ophidian data`: which data sets there are, what is in one, fetching one.

use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
    time::Instant,
};

use anyhow::Result;
use clap::Subcommand;
use ophidian_core::{
    adapter::Adapter,
    cards::{self, Card},
    config,
    inspect::{Report, Split},
};
use ophidian_train::{config::find, progress::count};
use ophidian_vision::fetch;

use super::setup::ADAPTERS;
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
    /// A folder, an archive, a list, a config (its `[data]`) or the name of a generator.
    #[arg(value_name = "PATH|CONFIG.toml")]
    what: PathBuf,
    /// Read every example and name all corrupt files; exit code 1 if there is one.
    #[arg(long)]
    check: bool,
    /// Whose data it is, where no config says so: "vision", "audio", "points".
    #[arg(long, default_value = "vision")]
    adapter: String,
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
    for card in all_cards()? {
        if args.json {
            printer.json(&card)?;
            continue;
        }
        let size = match card.files.iter().map(|file| file.bytes).sum::<u64>() {
            0 if card.homepage.is_empty() => "generated".to_owned(),
            0 => "elsewhere".to_owned(),
            bytes => megabytes(bytes),
        };
        let examples = |split: &str| card.splits.get(split).copied().unwrap_or(0);
        printer.line(format_args!(
            "{:<16} {:>9}  {:>6} + {:<6} {}",
            card.name,
            size,
            examples("train"),
            examples("test"),
            card.what
        ))?;
        printer.line(format_args!("{:34}licence: {}", "", card.licence))?;
    }
    Ok(())
}

fn inspect(args: &Inspect, printer: &Printer) -> Result<()> {
    let (adapter, data) = table(args)?;
    let terminal = std::io::stderr().is_terminal();
    let shown = AtomicUsize::new(0);
    let progress = |done: usize, total: usize| {
        let percent = done * 100 / total.max(1);
        if terminal && shown.fetch_max(percent, Ordering::Relaxed) < percent {
            printer.status(format_args!("reading {percent}%"));
        }
    };
    let report = adapter.inspect(data, args.check, &progress)?;
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
        anyhow::bail!("{problems} {} cannot be read", report.unit);
    }
    Ok(())
}

/// The adapter and the `[data]` table that are meant.
fn table(args: &Inspect) -> Result<(&'static dyn Adapter, toml::Table)> {
    let what = &args.what;
    let mut root = if what.extension().is_some_and(|ending| ending == "toml") {
        config::read(what)?
    } else {
        let name = what.display().to_string();
        let generated = |adapter: &&&dyn Adapter| {
            let mut cards = adapter.cards().unwrap_or_default().into_iter();
            cards.any(|card| card.name == name && card.files.is_empty() && card.homepage.is_empty())
        };
        let generator = ADAPTERS.iter().find(generated).filter(|_| !what.exists());
        let key = if generator.is_some() { "format" } else { "path" };
        let adapter = generator.map_or(args.adapter.clone(), |adapter| adapter.name().to_owned());
        let data = toml::Table::from_iter([(key.to_owned(), toml::Value::String(name))]);
        toml::Table::from_iter([
            ("adapter".to_owned(), toml::Value::String(adapter)),
            ("data".to_owned(), toml::Value::Table(data)),
        ])
    };
    for assignment in &args.set {
        config::set(&mut root, assignment)?;
    }
    let name = root.get("adapter").and_then(toml::Value::as_str).unwrap_or(&args.adapter);
    let adapter = find(&ADAPTERS, name)?;
    match root.remove("data") {
        Some(toml::Value::Table(data)) => Ok((adapter, data)),
        _ => Err(Usage(format!("{} has no table [data]", what.display())).into()),
    }
}

/// The cards of every adapter.
fn all_cards() -> Result<Vec<Card>> {
    let cards: ophidian_core::Result<Vec<Vec<Card>>> =
        ADAPTERS.iter().map(|adapter| adapter.cards()).collect();
    Ok(cards?.concat())
}

fn show(report: &Report, check: bool, printer: &Printer) -> Result<()> {
    printer.line(format_args!("format      {}", report.format))?;
    let unit = report.unit.strip_suffix('s').unwrap_or(report.unit);
    for split in &report.splits {
        let from = if split.name == "eval" { format!(" ({})", report.eval_from) } else { String::new() };
        let examples = count(split.examples, unit);
        printer.line(format_args!("{:<11} {examples}{from}", split.name))?;
        for (size, count) in split.sizes.iter().take(4) {
            printer.line(format_args!("{:12}{size} ({}): {count}", "", report.sizes_are))?;
        }
        if split.sizes.len() > 4 {
            printer.line(format_args!("{:12}and {} other sizes", "", split.sizes.len() - 4))?;
        }
        for note in &split.notes {
            printer.line(format_args!("{:12}{note}", ""))?;
        }
        if split.read < split.examples {
            printer.line(format_args!("{:12}({} of them read; --check reads all)", "", split.read))?;
        }
    }
    if report.set_aside > 0 {
        printer.line(format_args!(
            "set aside   {} of a test split beside the validation split",
            count(report.set_aside, unit)
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
    let card = cards::find(all_cards()?, &args.name)?;
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
