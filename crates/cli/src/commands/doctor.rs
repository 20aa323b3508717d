//! `ophidian doctor`.

use anyhow::Result;

use crate::printer::Printer;

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args, printer: &Printer) -> Result<()> {
    let isas: Vec<_> = ophidian_kernels::Isa::available().iter().map(|isa| isa.name()).collect();
    printer.line(format_args!("ophidian   {}", env!("CARGO_PKG_VERSION")))?;
    printer.line(format_args!(
        "SIMD       {} (of {})",
        ophidian_kernels::Isa::detect().name(),
        isas.join(", ")
    ))?;
    printer.line(format_args!(
        "threads    {} (libtorch's pool, shared by the kernels)",
        tch::get_num_threads()
    ))?;
    printer
        .line(format_args!("CUDA       {}", if tch::Cuda::is_available() { "available" } else { "none" }))?;
    Ok(())
}
