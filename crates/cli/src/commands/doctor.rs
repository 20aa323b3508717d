//! `ophidian doctor`: what this machine offers.

use anyhow::Result;
use ophidian_core::{device, torch::libtorch};
use ophidian_kernels::Isa;

use crate::printer::Printer;

#[derive(clap::Args)]
pub struct Args {}

pub fn run(_: Args, printer: &Printer) -> Result<()> {
    let (version, path) = libtorch();
    let isas: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let rows = [
        ("ophidian", env!("CARGO_PKG_VERSION").to_owned()),
        ("system", format!("{} {}", std::env::consts::OS, std::env::consts::ARCH)),
        ("libtorch", format!("{version}, {}", path.as_deref().unwrap_or("linked in"))),
        ("SIMD", format!("{} of {} (OPHIDIAN_SIMD chooses)", Isa::detect().name(), isas.join(", "))),
        (
            "threads",
            format!("{} of {cores} cores, libtorch's pool (OMP_NUM_THREADS chooses)", tch::get_num_threads()),
        ),
    ];
    for (what, found) in rows.into_iter().chain(device::report()) {
        printer.line(format_args!("{what:<9} {found}"))?;
    }
    Ok(())
}
