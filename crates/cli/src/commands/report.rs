//! `ophidian report`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ophidian_train::report;

use super::setup;
use crate::printer::Printer;

/// Compare runs: an HTML report, and the same as CSV and JSON.
///
/// Runs whose configs differ only in the seed are one arm. All have to be of one modality and measured on the same examples of
/// the same classes. The report ranks the arms, with a confidence interval for each
/// one's difference to the baseline, and shows curves, costs, scans, classes and the commands that made the runs.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  ophidian report runs/scans
  ophidian report runs/row-0 runs/row-1 runs/cross-0 runs/cross-1 --baseline row --output report")]
pub struct Args {
    /// Run folders, or the folder of a sweep.
    #[arg(value_name = "DIR", required = true)]
    folders: Vec<PathBuf>,
    /// The arm that the others are held against [default: that of the sweep, or the first].
    #[arg(long, value_name = "ARM")]
    baseline: Option<String>,
    /// Where the report goes [default: the folder of the sweep, or `report`].
    #[arg(short, long, value_name = "DIR")]
    output: Option<PathBuf>,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let folders: Vec<&Path> = args.folders.iter().map(PathBuf::as_path).collect();
    let study = report::study(&folders, &setup::ADAPTERS, args.baseline.as_deref())?;
    let own = study.sweep.as_ref().and(folders.first());
    let output = args.output.as_deref().or(own.copied()).unwrap_or(Path::new("report"));
    let files = report::write(&study, output)?;
    for path in [&files.html, &files.json].into_iter().chain(&files.tables) {
        printer.line(path.display())?;
    }
    for warning in &files.warnings {
        printer.note(format_args!("beware: {warning}"));
    }
    Ok(())
}
