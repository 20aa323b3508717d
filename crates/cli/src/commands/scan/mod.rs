//! `ophidian scan`: list, draw, measure and export scan patterns, and run tensors along them.

pub mod features;
mod list;
mod picture;
mod roundtrip;
mod searched;
mod stats;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Result;
use clap::ValueEnum;
use ophidian_core::{Error, files::write_whole, grid::reseeded};
use ophidian_scan::{Geometry, Graph, Oddity, OddityKind, Pattern, Plan, Points, draw};

use self::features::Features;
use crate::{exit::Usage, printer::Printer};

#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    /// List the scans of papers and the names that a pattern may use.
    List {
        /// Only those whose name, system or words hold this text, for example "vmamba" or "volume".
        filter: Option<String>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Draw the orders of a pattern, in the terminal or as a picture.
    Show {
        #[command(flatten)]
        what: What,
        /// A picture to write instead: .svg or .png.
        #[arg(long, value_name = "FILE.svg|png")]
        output: Option<PathBuf>,
        /// How a picture shows frames or slices.
        #[arg(long, value_enum, default_value_t = View::Slices, requires = "output")]
        view: View,
    },
    /// Write the orders of a pattern as index maps: `scanned[t] = x[order[t]]`, -1 a blank step.
    ///
    /// `.json` and `.safetensors` hold `order.0` to `order.K-1` (int64), and where the state starts afresh or blank
    /// steps are skipped. `.npy` holds one int64 array (K, T), for plans that need no more.
    Export {
        #[command(flatten)]
        what: What,
        /// The file to write: .json, .npy or .safetensors.
        #[arg(long, value_name = "FILE.json|npy|safetensors")]
        output: PathBuf,
    },
    Roundtrip(roundtrip::Args),
    Stats(stats::Args),
    Searched(searched::Args),
}

#[derive(Clone, Copy, ValueEnum)]
enum View {
    /// Side by side.
    Slices,
    /// As one walk through space.
    Isometric,
}

#[derive(clap::Args)]
struct What {
    /// The pattern, for example "vmamba/cross2d", "serpentine | bidirectional", "window(7) of row", "[row, column]",
    /// or an index file. What a config draws for every sample (`random(seed=sample)`) is drawn with seed 0.
    pattern: String,
    #[command(flatten)]
    at: Where,
}

/// Where the tokens lie, and what they are where a scan goes by that.
#[derive(clap::Args)]
struct Where {
    #[command(flatten)]
    place: Place,
    /// Which sample of the features [default: 0].
    #[arg(long, value_name = "NUMBER")]
    sample: Option<usize>,
    #[command(flatten)]
    odd: Odd,
}

/// What is refused of a file of points or a graph.
#[derive(clap::Args)]
struct Odd {
    /// What points and graphs may hold and be put in order all the same; anything else of these is an error [default: none,
    /// but nodes without edges of a graph with `batch`, which names every node].
    #[arg(long, value_name = "KINDS", value_enum, value_delimiter = ',')]
    allow: Option<Vec<Allow>>,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Allow {
    /// Graphs: nodes without edges.
    Isolated,
    /// Graphs: edges from a node to itself.
    Loops,
    /// Points: some at the place of another of their sample; they keep their numbering.
    Equal,
    /// Points: samples of one point.
    Single,
    /// None of these.
    None,
}

impl Odd {
    fn check(&self, oddities: Vec<Oddity>, unless_said: &[Allow], path: &Path) -> Result<()> {
        let allowed = self.allow.as_deref().unwrap_or(unless_said);
        for odd in oddities {
            let (allow, name) = match odd.kind {
                OddityKind::Isolated => (Allow::Isolated, "isolated"),
                OddityKind::Loops => (Allow::Loops, "loops"),
                OddityKind::Equal => (Allow::Equal, "equal"),
                OddityKind::Single => (Allow::Single, "single"),
            };
            if !allowed.contains(&allow) {
                let reason = format!("has {odd}; `--allow {name}` puts them in order all the same");
                return Err(Error::file(path, reason).into());
            }
        }
        Ok(())
    }
}

impl Where {
    fn read(&self, printer: &Printer) -> Result<(Geometry, Option<Features>)> {
        match &self.place.features {
            Some(path) => {
                let features = Features::read(path, self.sample.unwrap_or(0))?;
                Ok((features.geometry.clone(), Some(features)))
            }
            None if self.sample.is_some() => {
                Err(Usage("`--sample` is one of the samples of `--features`, which is missing".into()).into())
            }
            None => Ok((self.place.geometry(&self.odd, printer)?, None)),
        }
    }
}

/// Where the tokens lie.
#[derive(clap::Args)]
#[group(id = "place", required = true, multiple = false)]
struct Place {
    /// A grid or a sequence: 49 (a sequence), 7x9 (rows x columns) or 4x7x9 (frames x rows x columns).
    #[arg(long, allow_hyphen_values = true)]
    shape: Option<String>,
    /// Points: `pos` (N, 3) or (B, N, 3), or voxels `coors`, with `batch` (N) where samples are packed.
    #[arg(long, value_name = "FILE.safetensors|npy")]
    points: Option<PathBuf>,
    /// A graph: `edge_index` (2, E), with `batch` (N) where graphs are packed, or `num_nodes`.
    #[arg(long, value_name = "FILE.safetensors")]
    graph: Option<PathBuf>,
    /// Features of the tokens, for a scan that they choose (`grootv/treescan`, `grootl/block`, `defmamba/deform_path`,
    /// `mambairv2/semantic_sort`): `x` (batch, channels, then L, or H, W), and where the scan has weights or classes of its
    /// own, `param.*` or `label` by the authors' names.
    #[arg(long, value_name = "FILE.safetensors")]
    features: Option<PathBuf>,
}

impl Place {
    fn geometry(&self, odd: &Odd, printer: &Printer) -> Result<Geometry> {
        match read(self.points.as_deref(), self.graph.as_deref(), odd, printer)? {
            Some(geometry) => Ok(geometry),
            None => Ok(self.shape.as_deref().unwrap_or_default().parse()?),
        }
    }
}

/// The points or the graph of a file, if one is given, and what it holds as a note.
fn read(
    points: Option<&Path>,
    graph: Option<&Path>,
    odd: &Odd,
    printer: &Printer,
) -> Result<Option<Geometry>> {
    let (path, geometry, summary) = match (points, graph) {
        (Some(path), _) => {
            let points = Points::read(path)?;
            let summary = points.summary();
            odd.check(points.oddities(&summary), &[], path)?;
            (path, Geometry::Points(Arc::new(points)), summary.to_string())
        }
        (_, Some(path)) => {
            let graph = Graph::read(path)?;
            let summary = graph.summary();
            let unless_said: &[Allow] = if graph.batched() { &[Allow::Isolated] } else { &[] };
            odd.check(graph.oddities(&summary), unless_said, path)?;
            (path, Geometry::Graph(Arc::new(graph)), summary.to_string())
        }
        _ => return Ok(None),
    };
    printer.note(format_args!("{}: {summary}", path.display()));
    Ok(Some(geometry))
}

/// The pattern of `text`. Where a model draws it anew for every sample (`seed=sample`), the draw with seed 0.
fn pattern(text: &str, printer: &Printer) -> Result<Pattern> {
    let Some(drawn) = reseeded(text, 0) else { return Ok(text.parse()?) };
    let pattern: Pattern = drawn.parse()?;
    printer
        .note(format_args!("{text}: a model draws it anew for every sample; this is the draw with seed 0"));
    Ok(pattern)
}

/// The plan of `text` over `geometry` and what to call it. A scan whose order the features choose is that of the given
/// ones, else of made-up ones.
fn planned(
    text: &str,
    geometry: &Geometry,
    features: Option<&Features>,
    printer: &Printer,
) -> Result<(String, Plan)> {
    if let Some(scan) = features::find(text) {
        return features::walk(scan, geometry, features);
    }
    if features.is_some() {
        printer.note(format_args!("{text}: the same whatever the features are; their shape alone is read"));
    }
    let pattern = pattern(text, printer)?;
    let plan = pattern.plan(geometry)?;
    if pattern.is_file() {
        faults(&plan, printer);
    }
    Ok((pattern.to_string(), plan))
}

impl What {
    fn plan(&self, printer: &Printer) -> Result<(String, Geometry, Plan)> {
        let (geometry, features) = self.at.read(printer)?;
        let (name, plan) = planned(&self.pattern, &geometry, features.as_ref(), printer)?;
        Ok((name, geometry, plan))
    }
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    match args.command {
        Command::List { filter, json } => list::run(filter.as_deref(), json, printer),
        Command::Roundtrip(args) => roundtrip::run(args, printer),
        Command::Searched(args) => searched::run(args, printer),
        Command::Stats(args) => stats::run(args, printer),
        Command::Show { what, output: None, .. } => {
            let (name, geometry, plan) = what.plan(printer)?;
            printer.line(format_args!("{name} over {}\n", geometry.describe()))?;
            printer.line(draw::text(&plan, &geometry)?.trim_end())?;
            list::beside(&what.pattern, printer);
            Ok(())
        }
        Command::Show { what, output: Some(path), view } => {
            let encode = picture::encoder(&path)?;
            let (name, geometry, plan) = what.plan(printer)?;
            let view = match view {
                View::Slices => draw::View::Slices,
                View::Isometric => draw::View::Isometric,
            };
            let svg = draw::svg(&plan, &geometry, view, &name)?;
            save(&path, &encode(svg)?, &plan, printer)
        }
        Command::Export { what, output } => {
            let (_, _, plan) = what.plan(printer)?;
            save(&output, &plan.encode(&output)?, &plan, printer)
        }
    }
}

fn save(path: &Path, bytes: &[u8], plan: &Plan, printer: &Printer) -> Result<()> {
    write_whole(path, |file| file.write_all(bytes))?;
    for (k, order) in plan.orders().iter().enumerate() {
        printer.line(format_args!("order.{k}  {}", order.summary()))?;
    }
    printer.note(format_args!("wrote {}", path.display()));
    Ok(())
}

/// What an index file that need not visit every token once (`strict=false`) does instead.
fn faults(plan: &Plan, printer: &Printer) {
    for (k, order) in plan.orders().iter().enumerate() {
        if let Some(faults) = order.faults() {
            printer.note(format_args!("order.{k} does not visit every token once: {faults}"));
        }
    }
}
