//! `ophidian bench`: timings of the ops.

use anyhow::Result;
use ophidian_core::bench::{Case, Effort, Op, Shape, measure};
use ophidian_scan::Pattern;
use tch::Kind;

use crate::{exit::Usage, printer::Printer};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    /// Time an op, forward and with its backward: one JSON line each.
    Op(OpArgs),
}

#[derive(clap::Args)]
struct OpArgs {
    /// The op: selective-scan or causal-conv1d.
    name: String,
    /// Sizes: B batch, D channels, L length or HxW, N states, W taps. May be repeated.
    #[arg(long, value_name = "B1,D1536,L512,N16", default_value = "B1,D1536,L512,N16")]
    shape: Vec<String>,
    /// Scan pattern: how many directions, and in which orders. May be repeated.
    #[arg(long, default_value = "row")]
    pattern: Vec<String>,
    /// f32 or bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Threads [default: as libtorch chooses].
    #[arg(long)]
    threads: Option<u16>,
    /// Runs that are measured.
    #[arg(long, default_value_t = 11)]
    runs: usize,
    /// Runs before them.
    #[arg(long, default_value_t = 3)]
    warmup: usize,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let What::Op(args) = args.what;
    let op: Op = args.name.parse()?;
    let kind = match args.dtype.as_str() {
        "f32" => Kind::Float,
        "bf16" => Kind::BFloat16,
        other => return Err(Usage(format!("--dtype {other}: expected f32 or bf16")).into()),
    };
    match args.threads {
        Some(0) => return Err(Usage("--threads 0: at least 1 is needed".into()).into()),
        Some(threads) => tch::set_num_threads(i32::from(threads)),
        None => {}
    }
    // Every shape and pattern is read before anything is timed.
    let shapes = args.shape.iter().map(|text| text.parse()).collect::<Result<Vec<Shape>, _>>()?;
    let patterns = args.pattern.iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>, _>>()?;
    for shape in &shapes {
        for pattern in &patterns {
            let case = Case { op, shape: shape.clone(), pattern: pattern.clone(), kind };
            for row in measure(&case, Effort { warmup: args.warmup, runs: args.runs })? {
                printer.json(&row)?;
            }
        }
    }
    Ok(())
}
