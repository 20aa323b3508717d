//! `ophidian scan stats`.

use anyhow::Result;
use ophidian_scan::{Pattern, Spread, Stats, published, stats};
use serde_json::json;

use super::Where;
use crate::{exit::Usage, printer::Printer};

/// Measure what tells orders apart.
///
/// Neighbours are tokens that share a side of a grid, the 6 nearest points, or the ends of an edge. "scan" is how many steps
/// lie between neighbours in space, "space" how far apart the tokens of two successive steps are, each as mean and 95th
/// percentile; "adjacent" is the share of successive steps between neighbours, and "overlap" the share of pairs of
/// successive tokens that two directions have in common, with and without regard to which comes first.
#[derive(clap::Args)]
pub struct Args {
    /// The patterns.
    #[arg(required_unless_present = "all")]
    patterns: Vec<String>,
    /// All published scans that know the geometry, after the patterns.
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    at: Where,
    /// Print one line of JSON per pattern.
    #[arg(long)]
    json: bool,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let (geometry, features) = args.at.read(printer)?;
    let mut found: Vec<(String, Stats)> = Vec::new();
    for text in &args.patterns {
        let (name, plan) = super::planned(text, &geometry, features.as_ref(), printer)?;
        found.push((name, stats(&plan, &geometry)?));
    }
    if args.all {
        // Those that need features do not parse, those for other shapes make no plan.
        for scan in published().iter().filter(|scan| scan.needs().is_none()) {
            let pattern: Pattern = scan.example().parse()?;
            if let Ok(plan) = pattern.plan(&geometry) {
                found.push((pattern.to_string(), stats(&plan, &geometry)?));
            }
        }
        if found.is_empty() {
            return Err(Usage(format!("no published scan knows {}", geometry.describe())).into());
        }
    }
    if args.json {
        for (pattern, stats) in &found {
            let mut line = serde_json::to_value(stats)?;
            if let Some(line) = line.as_object_mut() {
                line.insert("pattern".into(), json!(pattern));
                line.insert("geometry".into(), json!(geometry.to_string()));
            }
            printer.json(&line)?;
        }
        return Ok(());
    }
    printer.line(format_args!("over {}\n", geometry.describe()))?;
    let heads = [
        "pattern",
        "K",
        "scan mean",
        "p95",
        "space mean",
        "p95",
        "adjacent",
        "overlap",
        "either way",
        "blanks",
        "resets",
        "repeats",
        "left out",
    ];
    let rows: Vec<[String; 13]> = found.iter().map(|(pattern, stats)| row(pattern, stats)).collect();
    Ok(printer.table(heads, &rows, 1..13)?)
}

fn row(pattern: &str, stats: &Stats) -> [String; 13] {
    let spread = |spread: Option<Spread>| match spread {
        Some(Spread { mean, p95 }) => [number(mean), number(p95)],
        None => ["-".to_string(), "-".to_string()],
    };
    let share = |share: Option<f64>| share.map_or("-".to_string(), |share| format!("{:.1}%", 100.0 * share));
    let ([scan, scan95], [space, space95]) = (spread(stats.step_distance), spread(stats.space_distance));
    [
        pattern.to_string(),
        stats.directions.to_string(),
        scan,
        scan95,
        space,
        space95,
        share(stats.adjacent),
        share(stats.overlap_directed),
        share(stats.overlap_undirected),
        stats.blanks.to_string(),
        stats.resets.to_string(),
        stats.repeats.to_string(),
        stats.unvisited.to_string(),
    ]
}

/// Four digits that count.
fn number(value: f64) -> String {
    match value.abs() {
        v if v == 0.0 || v >= 1000.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 => format!("{value:.3}"),
        _ => format!("{value:.3e}"),
    }
}
