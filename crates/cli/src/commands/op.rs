//! `ophidian op`: one op on tensors from a file.

use std::path::PathBuf;

use anyhow::Result;
use ophidian_core::authors::{self, Options};

use crate::{exit::Usage, printer::Printer};

#[derive(clap::Args)]
pub struct Args {
    /// The op, as its authors call it: selective_scan, vmamba_selective_scan, selective_state_update, causal_conv1d,
    /// causal_conv1d_update, causal_conv1d_varlen_states, mamba_inner, ssd_combined, ssd_chunk_scan_ref,
    /// ssd_minimal_discrete, mamba2_split_conv1d_scan, rmsnorm_gated.
    name: String,
    /// Tensors `in.*` (and cotangents `ct.*`) in the authors' layout; complex ones as (re, im) pairs on a last axis of 2.
    #[arg(long, value_name = "FILE.safetensors")]
    input: PathBuf,
    /// Where `out.*` (and `grad.*`) go.
    #[arg(long, value_name = "FILE.safetensors", value_parser = super::safetensors)]
    output: PathBuf,
    /// An option of the op, for example `delta_softplus=true` (scans), `dt_softplus=true` (selective_state_update),
    /// `activation=silu` (convolutions), `B=const`, `C=const` (what (D, N) cannot tell alone),
    /// `dt_limit=[0,inf]` (SSD), `headdim=64` (mamba2_split_conv1d_scan). One that the tensors contradict is refused. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let mut options = Options::new();
    for assignment in &args.set {
        let Some((key, value)) = assignment.split_once('=') else {
            return Err(Usage(format!("--set {assignment}: expected KEY=VALUE")).into());
        };
        options.insert(key.trim().to_owned(), value.trim().to_owned());
    }
    let tensors = ophidian_core::tensors::read(&args.input)?;
    let results = authors::run(&args.name, &tensors, &options).map_err(|error| error.of_file(&args.input))?;
    ophidian_core::tensors::write(&args.output, &results)?;
    for (name, count) in ophidian_core::tensors::non_finite(&results) {
        printer.note(format_args!("warning: {name} holds {count} values that are not finite"));
    }
    for (name, tensor) in &results {
        printer.line(format_args!("{name} {:?} {:?}", tensor.size(), tensor.kind()))?;
    }
    Ok(())
}
