//! `ophidian block`: a published block on tensors from a file.

use std::path::PathBuf;

use anyhow::Result;
use ophidian_core::{
    config,
    published::blocks::{BLOCKS, run as run_block},
    tensors,
};

use crate::{exit::Usage, printer::Printer};

#[derive(clap::Args)]
pub struct Args {
    /// The block as `system/pattern`, for example vmamba/ss2d_v05; all are listed without it.
    #[arg(requires = "input", requires = "output")]
    name: Option<String>,
    /// The input `x`, the parameters `param.*` by their authors' names, and `ct.y` if gradients are wanted.
    #[arg(long, value_name = "FILE.safetensors", requires = "name")]
    input: Option<PathBuf>,
    /// Where `y` goes, and `grad.x` and `grad.*` of the parameters if there is a cotangent.
    #[arg(long, value_name = "FILE.safetensors", requires = "name", value_parser = super::safetensors)]
    output: Option<PathBuf>,
    /// A keyword argument of the authors, for example `H=4`, `nframes=3`, `directions=["h", "w2"]`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", requires = "name")]
    set: Vec<String>,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let (Some(name), Some(input), Some(output)) = (args.name, args.input, args.output) else {
        let width = BLOCKS.iter().map(|block| block.name.len()).max().unwrap_or(0);
        for block in BLOCKS {
            printer.line(format_args!("{:width$}  {}", block.name, block.about))?;
        }
        return Ok(());
    };
    let mut options = toml::Table::new();
    for assignment in &args.set {
        config::set(&mut options, assignment).map_err(|error| Usage(format!("--set {error}")))?;
    }
    let (results, unread) =
        run_block(&name, &tensors::read(&input)?, &options).map_err(|error| error.of_file(&input))?;
    for argument in unread {
        printer.note(format_args!("--set {argument}"));
    }
    tensors::write(&output, &results)?;
    for (name, count) in tensors::non_finite(&results) {
        printer.note(format_args!("warning: {name} holds {count} values that are not finite"));
    }
    for (name, tensor) in &results {
        printer.line(format_args!("{name} {:?} {:?}", tensor.size(), tensor.kind()))?;
    }
    Ok(())
}
