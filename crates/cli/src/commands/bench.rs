//! `ophidian bench`: timings of the ops and of models.

use anyhow::Result;
use ophidian_core::{
    bench::{
        Case, Effort, InferenceCase, MixerCase, Op, OrderRow, Shape, compare, compare_mixers, compare_trees,
        infer, measure, random_geometries,
    },
    device::Place,
    ops::{Sweep, Trees},
};
use ophidian_scan::{Geometry, Pattern, Plan, Published, published};
use tch::{Device, Kind};

use super::{models, scan::features};
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
    /// Time the selective scan along each pattern beside as many left-to-right scans: what the order itself costs.
    ///
    /// A table of: directions, steps per token and direction, rounds, seconds and their ratio to left-to-right scans (median
    /// and quartiles of the rounds), forward and with the backward, and the memory that the order takes beyond theirs (in
    /// activations).
    Scans(ScansArgs),
    /// Time a forward and backward of the Mamba-1 mixer beside the Mamba-2 mixer, or a step of training of a backbone of
    /// either, by the number of states: a table.
    Mixers(MixersArgs),
    /// Time the forward of a published model with drawn weights, and the memory that its tensors take: one JSON line.
    Model(ModelArgs),
}

#[derive(clap::Args)]
struct ModelArgs {
    /// The model, as `ophidian models list` prints it.
    name: String,
    /// Height and width of the inputs [default: those of the model].
    #[arg(long)]
    side: Option<i64>,
    /// Inputs of a batch. May be repeated.
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    batch: Vec<i64>,
    /// f32, or bf16 for libtorch's autocast.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Where it runs: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
    /// Threads [default: as libtorch chooses].
    #[arg(long)]
    threads: Option<u16>,
    /// Runs that are measured.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// Runs before them.
    #[arg(long, default_value_t = 2)]
    warmup: usize,
}

#[derive(clap::Args)]
struct MixersArgs {
    /// Samples of a batch.
    #[arg(long, default_value_t = 1)]
    batch: i64,
    /// Channels of a token (d_model).
    #[arg(long, default_value_t = 768)]
    channels: i64,
    /// Blocks of a backbone that is trained for a step: forward, backward and AdamW [default: the mixer alone, forward and
    /// backward].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    layers: Option<u16>,
    /// States per channel (d_state).
    #[arg(long, value_delimiter = ',', default_values_t = [16, 32, 64, 128])]
    states: Vec<i64>,
    /// A length, rows x columns or frames x rows x columns.
    #[arg(long, default_value = "512")]
    shape: String,
    /// Scan pattern: how many directions, and in which orders.
    #[arg(long, default_value = "row")]
    pattern: String,
    /// Where the mixers run: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
    /// Threads [default: as libtorch chooses].
    #[arg(long)]
    threads: Option<u16>,
    /// Runs that are measured.
    #[arg(long, default_value_t = 7)]
    runs: usize,
    /// JSON lines instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct ScansArgs {
    /// Patterns [default: every published scan]. Where features choose the order, made-up ones do; a scan over a tree is
    /// timed beside one over a chain.
    patterns: Vec<String>,
    /// Samples of a batch.
    #[arg(long, default_value_t = 8)]
    batch: i64,
    /// Channels (d_inner).
    #[arg(long, default_value_t = 192)]
    channels: i64,
    /// States per channel (d_state).
    #[arg(long, default_value_t = 16)]
    states: i64,
    /// Shapes, the first that suits a pattern is taken: a length, rows x columns or frames x rows x columns.
    #[arg(long, default_values = ["56x56", "8x20x20", "3136", "2x40x40"])]
    shape: Vec<String>,
    /// How many random points, and nodes of a random graph, where a pattern needs them.
    #[arg(long, default_value_t = 3136)]
    points: usize,
    /// Threads [default: as libtorch chooses].
    #[arg(long)]
    threads: Option<u16>,
    /// Runs that are measured, in each pass.
    #[arg(long, default_value_t = 4)]
    runs: usize,
    /// How often to go over all patterns at least: what slows the machine for a while, or where tensors happen to lie, then
    /// does not hit a pattern's runs all at once.
    #[arg(long, default_value_t = 3)]
    passes: usize,
    /// Standard error, as a share, to which the median ratios are to be known: further passes go over the patterns of
    /// which they are not.
    #[arg(long, default_value_t = 0.01)]
    precision: f64,
    /// How often to go over a pattern at most.
    #[arg(long, default_value_t = 15)]
    most_passes: usize,
    /// JSON lines instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(clap::Args)]
struct OpArgs {
    /// The op: selective-scan, ssd or causal-conv1d.
    name: String,
    /// Sizes: B batch, D channels, P channels of a head (ssd), L length or HxW, N states, W taps. May be repeated.
    #[arg(long, value_name = "B1,D1536,L512,N16", default_value = "B1,D1536,L512,N16")]
    shape: Vec<String>,
    /// Scan pattern: how many directions, and in which orders. May be repeated.
    #[arg(long, default_value = "row")]
    pattern: Vec<String>,
    /// f32 or bf16.
    #[arg(long, default_value = "f32")]
    dtype: String,
    /// Where the op runs: cpu, cuda (the first GPU) or cuda:N.
    #[arg(long, value_name = "DEVICE", default_value = "cpu")]
    device: Place,
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
    match args.what {
        What::Op(args) => time_op(args, printer),
        What::Scans(args) => time_scans(args, printer),
        What::Mixers(args) => time_mixers(args, printer),
        What::Model(args) => time_model(args, printer),
    }
}

fn use_threads(threads: Option<u16>) -> Result<()> {
    match threads {
        Some(0) => return Err(Usage("--threads 0: at least 1 is needed".into()).into()),
        Some(threads) => tch::set_num_threads(i32::from(threads)),
        None => {}
    }
    Ok(())
}

/// The shapes that were asked for, then random points and a random graph.
fn geometries(args: &ScansArgs) -> Result<Vec<Geometry>> {
    let n = args.points;
    if !(2..=1 << 20).contains(&n) {
        return Err(Usage(format!("--points {n}: expected 2 to {}", 1 << 20)).into());
    }
    let shapes = args.shape.iter().map(|text| text.parse()).collect::<Result<Vec<Geometry>, _>>()?;
    Ok(shapes.into_iter().chain(random_geometries(n)?).collect())
}

fn time_scans(args: ScansArgs, printer: &Printer) -> Result<()> {
    use_threads(args.threads)?;
    let precision = args.precision;
    if precision.is_nan() || precision <= 0.0 {
        return Err(Usage(format!("--precision {precision}: expected a share above 0")).into());
    }
    let all = || published().iter().map(|scan| scan.example()).collect();
    let named: Vec<String> = if args.patterns.is_empty() { all() } else { args.patterns.clone() };
    let geometries = geometries(&args)?;
    // Every pattern meets its shape before anything is timed.
    let mut cases = Vec::new();
    for text in &named {
        match Walk::first(text, &geometries) {
            Ok(found) => cases.push(found),
            Err(error) if args.patterns.is_empty() => {
                printer.note(format_args!("{text} is left out: {error}"))
            }
            Err(error) => return Err(error),
        }
    }
    let mut rows: Vec<Option<OrderRow>> = vec![None; cases.len()];
    for pass in 0..args.most_passes.max(args.passes).max(1) {
        // Whatever the ratio is: a row is measured again for how well it is known alone. Quartiles of fewer than four rounds
        // do not tell.
        let known = |row: &OrderRow| pass >= args.passes && row.rounds >= 4 && row.error <= precision;
        let again = |row: &Option<OrderRow>| !row.as_ref().is_some_and(known);
        let left = rows.iter().filter(|row| again(row)).count();
        if left == 0 {
            break;
        }
        printer.note(format_args!("pass {}: {left} of {} scans", pass + 1, rows.len()));
        for (row, (walk, geometry)) in rows.iter_mut().zip(&cases).filter(|(row, _)| again(row)) {
            let more = walk.time(geometry.clone(), &args)?;
            *row = Some(match row.take() {
                Some(before) => before.joined(more),
                None => more,
            });
        }
    }
    show(rows.iter().flatten(), args.json, printer)
}

/// What a scan walks along.
enum Walk {
    Orders(String, Plan),
    /// A scan over a tree, and how it goes.
    Trees(&'static Published, Trees, Sweep),
}

impl Walk {
    /// The walk of `text` over the first of the geometries that it suits. Where the features choose, made-up ones do.
    fn first(text: &str, geometries: &[Geometry]) -> Result<(Walk, Geometry)> {
        let mut first = None;
        for geometry in geometries {
            match Walk::of(text, geometry) {
                Ok(walk) => return Ok((walk, geometry.clone())),
                Err(error) => drop(first.get_or_insert(error)),
            }
        }
        Err(first.unwrap_or_else(|| Usage("there is no shape".into()).into()))
    }

    fn of(text: &str, geometry: &Geometry) -> Result<Walk> {
        let Some(scan) = features::find(text) else {
            let pattern: Pattern = text.parse()?;
            return Ok(Walk::Orders(pattern.to_string(), pattern.plan(geometry)?));
        };
        Ok(match features::made_up_walk(scan, geometry)? {
            (_, Some((trees, sweep))) => Walk::Trees(scan, trees, sweep),
            (plan, None) => Walk::Orders(scan.name().to_owned(), plan),
        })
    }

    fn time(&self, geometry: Geometry, args: &ScansArgs) -> Result<OrderRow> {
        let &ScansArgs { batch, channels, states, runs, .. } = args;
        let effort = Effort { warmup: 1, runs };
        let shape = Shape { batch, channels, headdim: channels, geometry, states, taps: 4 }.checked()?;
        Ok(match self {
            Walk::Trees(scan, trees, sweep) => compare_trees(&shape, scan.name(), trees, *sweep, effort)?,
            Walk::Orders(name, plan) => {
                let (op, pattern) = (Op::SelectiveScan, "row".parse()?);
                let case = Case { op, shape, pattern, kind: Kind::Float, device: Device::Cpu };
                compare(&case, name, plan, effort)?
            }
        })
    }
}

fn show<'a>(rows: impl Iterator<Item = &'a OrderRow>, json: bool, printer: &Printer) -> Result<()> {
    if !json {
        let heads = "| scan | geometry | K | steps | rounds | forward | ratio | with backward | ratio | more memory |";
        printer.line(heads)?;
        printer.line("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")?;
    }
    let ratio = |[low, median, high]: [f64; 3]| format!("{median:.2} ({low:.2} to {high:.2})");
    for row in rows {
        if json {
            printer.json(row)?;
            continue;
        }
        printer.line(format_args!(
            "| {} | {} | {} | {:.2} | {} | {:.4} s | {} | {:.4} s | {} | {:+.2} |",
            row.pattern.replace('|', "\\|"),
            row.geometry,
            row.directions,
            row.steps,
            row.rounds,
            row.forward_s,
            ratio(row.forward_ratio),
            row.both_s,
            ratio(row.both_ratio),
            row.more_activations
        ))?;
    }
    Ok(())
}

fn kind(dtype: &str) -> Result<Kind> {
    match dtype {
        "f32" => Ok(Kind::Float),
        "bf16" => Ok(Kind::BFloat16),
        other => Err(Usage(format!("--dtype {other}: expected f32 or bf16")).into()),
    }
}

fn time_model(args: ModelArgs, printer: &Printer) -> Result<()> {
    let bf16 = kind(&args.dtype)? == Kind::BFloat16;
    use_threads(args.threads)?;
    let device = args.device.open()?;
    for batch in args.batch {
        let official = models::official(&args.name)?;
        let case = InferenceCase { official, side: args.side, batch, bf16, device };
        printer.json(&infer(&case, Effort { warmup: args.warmup, runs: args.runs })?)?;
    }
    Ok(())
}

fn time_op(args: OpArgs, printer: &Printer) -> Result<()> {
    let op: Op = args.name.parse()?;
    let kind = kind(&args.dtype)?;
    use_threads(args.threads)?;
    let device = args.device.open()?;
    // Every shape and pattern is read before anything is timed.
    let shapes = args.shape.iter().map(|text| text.parse()).collect::<Result<Vec<Shape>, _>>()?;
    let patterns = args.pattern.iter().map(|text| text.parse()).collect::<Result<Vec<Pattern>, _>>()?;
    for shape in &shapes {
        for pattern in &patterns {
            let case = Case { op, shape: shape.clone(), pattern: pattern.clone(), kind, device };
            for row in measure(&case, Effort { warmup: args.warmup, runs: args.runs })? {
                printer.json(&row)?;
            }
        }
    }
    Ok(())
}

fn time_mixers(args: MixersArgs, printer: &Printer) -> Result<()> {
    use_threads(args.threads)?;
    if !(1..=1 << 16).contains(&args.batch) {
        return Err(Usage(format!("--batch {}: expected 1 to 65536", args.batch)).into());
    }
    let case = MixerCase {
        batch: args.batch,
        d_model: args.channels,
        layers: args.layers.map(i64::from),
        geometry: args.shape.parse()?,
        pattern: args.pattern.parse()?,
        device: args.device.open()?,
    };
    if !args.json {
        printer.line("| d_state | Mamba-1 | Mamba-2 | ratio |")?;
        printer.line("| --- | --- | --- | --- |")?;
    }
    for states in args.states {
        let effort = Effort { warmup: 2, runs: args.runs };
        let row = compare_mixers(&case, states, effort)?;
        if args.json {
            printer.json(&row)?;
            continue;
        }
        printer.line(format_args!(
            "| {} | {:.4} s | {:.4} s | {:.2}x |",
            row.d_state, row.mamba1_s, row.mamba2_s, row.ratio
        ))?;
    }
    Ok(())
}
