//! `ophidian scan searched`.

use std::path::PathBuf;

use anyhow::Result;
use ophidian_core::grid::search;

use crate::{
    commands::setup::{self, Which},
    exit::Usage,
    printer::Printer,
};

/// Print which directions a run with `model.merge = "search"` found, and the `scan` of a model that keeps the best.
#[derive(clap::Args)]
#[command(after_help = "Example:
  ophidian train configs/demo.toml --output runs/search --set model.merge=search \\
      --set 'model.scan=\"[row, row | reverse, column, column | reverse, window(2), window(2) | reverse]\"'
  ophidian scan searched runs/search --keep 4")]
pub struct Args {
    /// A run folder, or a checkpoint of one.
    #[arg(value_name = "RUN|CHECKPOINT")]
    run: PathBuf,
    /// How many directions each block keeps.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..))]
    keep: u16,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let (checkpoint, adapter) = setup::checkpoint(&args.run, Which::Best.name(), &[])?;
    let about = &checkpoint.about;
    let (variables, _) = checkpoint.model(adapter, tch::Device::Cpu)?;
    let found = search::shares(&about.config.model, &about.input_shape, &variables.variables())?;
    for (block, shares) in found.iter().enumerate() {
        let shares: Vec<String> =
            shares.iter().map(|(pattern, share)| format!("{pattern} {:.1}%", 100.0 * share)).collect();
        printer.note(format_args!("block {block}  {}", shares.join("  ")));
    }
    let fewest = found.iter().map(Vec::len).min().unwrap_or(0);
    if usize::from(args.keep) > fewest {
        return Err(
            Usage(format!("`--keep {}`: a block searched among {fewest} directions", args.keep)).into()
        );
    }
    let kept = search::kept(&found, usize::from(args.keep));
    let list = toml::Value::from(kept.texts().to_vec());
    printer.line("# the [model] table of the searched model")?;
    printer.line(format_args!("scan = {list}"))?;
    Ok(printer.line("merge = \"channel-gate\"")?)
}
