//! `ophidian scan roundtrip`.

use std::path::{Path, PathBuf};

use anyhow::Result;
use ophidian_core::{
    Error, keymap,
    mixer::{self, Merger},
    published::blocks::{Author, channel_gate},
    tensors::{self, Tensors},
};
use ophidian_scan::{Geometry, Merge, Plan};
use tch::{Device, Kind, Tensor, nn::VarStore};

use crate::printer::Printer;

/// Run a tensor along the orders of a pattern and back, to hold a scan against any other implementation.
///
/// x is (batch, channels, then the geometry): L for a sequence, points or a graph, H, W for a grid, T, H, W for a volume. The
/// output holds `scanned.0` to `scanned.K-1` (batch, channels, steps), a blank step being 0, and `merged`, of x's shape:
/// the sequences put back in token order and merged as `ophidian scan list` says, by sum where the pattern is no published
/// scan. "gate" takes equal weights, and scans of one direction, of one per layer, or that pool one long sequence take the
/// mean of the directions. "channels" takes group k of the channels from direction k.
///
/// A scan whose order the features choose (`grootv/treescan`) follows x's own: the output holds `index` (batch, steps), what
/// else it needs is `param.*` or `label` of the input by the authors' names.
///
/// Where the input also holds `ys` (batch, K, channels, …) or `scanned.k`, those are merged in the place of x's own: the
/// sequences that a mixer made of them.
#[derive(clap::Args)]
pub struct Args {
    /// The pattern, for example "vmamba/cross2d".
    pattern: String,
    /// The file with x: float32, float64, float16 or bfloat16.
    #[arg(long, value_name = "FILE.safetensors")]
    input: PathBuf,
    /// The name of x in it; needless if the file holds an `x`, or one tensor alone.
    #[arg(long)]
    tensor: Option<String>,
    /// The points that x's tokens are.
    #[arg(long, value_name = "FILE.safetensors|npy", conflicts_with = "graph")]
    points: Option<PathBuf>,
    /// The graph whose nodes x's tokens are.
    #[arg(long, value_name = "FILE.safetensors")]
    graph: Option<PathBuf>,
    #[command(flatten)]
    odd: super::Odd,
    /// Where the results go; without it, only their shapes are printed.
    #[arg(long, value_name = "FILE.safetensors", value_parser = crate::commands::safetensors)]
    output: Option<PathBuf>,
}

pub fn run(args: Args, printer: &Printer) -> Result<()> {
    let features = super::features::find(&args.pattern);
    let pattern = features.is_none().then(|| super::pattern(&args.pattern, printer)).transpose()?;
    let input = tensors::read(&args.input)?;
    let wrong = |reason: String| Error::file(&args.input, reason);
    let (name, x) = pick(&input, args.tensor.as_deref()).map_err(wrong)?;
    let shape = x.size();
    if !x.is_floating_point() || shape.len() < 3 || x.numel() == 0 {
        let found = format!("tensor `{name}` is {:?} {shape:?}", x.kind());
        return Err(wrong(format!("{found}, expected (batch, channels, geometry …) of floats")).into());
    }
    let Some(pattern) = pattern else {
        super::features::finite(name, x).map_err(wrong)?;
        let output = features.map(|scan| super::features::roundtrip(scan, &input, x, &args.input));
        return finish(
            args.output.as_deref(),
            &output.transpose()?.unwrap_or_default(),
            "of one direction",
            printer,
        );
    };
    let geometry = match super::read(args.points.as_deref(), args.graph.as_deref(), &args.odd, printer)? {
        Some(geometry) => geometry,
        None => {
            place(&shape[2..]).map_err(|reason| wrong(format!("tensor `{name}` is {shape:?}: {reason}")))?
        }
    };
    let tokens = geometry.tokens()?;
    if shape[2..].iter().product::<i64>() != tokens as i64 {
        let message =
            format!("tensor `{name}` is {shape:?}, but there are {tokens} tokens: {}", geometry.describe());
        return Err(wrong(message).into());
    }
    let plan = pattern.plan(&geometry)?;
    let merge = pattern.published().map_or(Merge::Sum, |scan| scan.merge());
    let (batch, channels) = (shape[0], shape[1]);
    let directions = plan.directions() as i64;
    if merge == Merge::Channels && channels % directions != 0 {
        printer.note(format_args!(
            "warning: the {channels} channels of `{name}` do not divide into {directions} groups of one size"
        ));
    }
    let mut scanned = plan.scanned(&values(x)?)?;
    let mut output = Tensors::new();
    for (k, (order, rows)) in plan.orders().iter().zip(&scanned).enumerate() {
        let along = tensor(rows, &[batch, channels, order.len() as i64], x.kind())?;
        output.insert(format!("scanned.{k}"), along);
    }
    if let Some(given) = given(&input, &plan, batch, channels).map_err(wrong)? {
        scanned = given;
    }
    let gated =
        gated(&input, &plan, &scanned, [batch, channels]).map_err(|error| error.of_file(&args.input))?;
    let merged = match &gated {
        Some(merged) => merged.f_view(&shape[..])?.f_to_kind(x.kind())?,
        None => tensor(&merge.merged(&plan, &scanned, channels as usize)?, &shape, x.kind())?,
    };
    output.insert("merged".into(), merged);
    for (name, count) in tensors::non_finite(&output) {
        printer.note(format_args!("warning: {name} holds {count} values that are not finite"));
    }
    let merge =
        if gated.is_some() { "sum behind the channel gate `param.attn.*`".into() } else { merge.to_string() };
    finish(args.output.as_deref(), &output, &merge, printer)
}

/// Writes the results and says what they are.
fn finish(path: Option<&Path>, output: &Tensors, merge: &str, printer: &Printer) -> Result<()> {
    if let Some(path) = path {
        tensors::write(path, output)?;
    }
    for (name, tensor) in output {
        printer.line(format_args!("{name} {:?} {:?}", tensor.size(), tensor.kind()))?;
    }
    match path {
        Some(path) => printer.note(format_args!("wrote {} (merge: {merge})", path.display())),
        None => printer.note(format_args!("merge: {merge}; nothing was written without --output")),
    }
    Ok(())
}

/// The directions behind LocalMamba's gate, summed: (B, C, L), if the file holds the gate's parameters `param.attn.*`.
fn gated(
    input: &Tensors,
    plan: &Plan,
    scanned: &[Vec<f64>],
    [batch, channels]: [i64; 2],
) -> ophidian_core::Result<Option<Tensor>> {
    let named =
        |(name, t): (&String, &Tensor)| Some((name.strip_prefix("param.")?.to_owned(), t.shallow_clone()));
    let parameters: Tensors =
        input.iter().filter_map(named).filter(|(name, _)| name.starts_with("attn.")).collect();
    if parameters.is_empty() {
        return Ok(None);
    }
    let (tokens, directions) = (plan.tokens() as i64, plan.directions() as i64);
    let mut each = Vec::new();
    for (order, rows) in plan.orders().iter().zip(scanned) {
        let one = Plan::new(vec![order.clone()])?;
        let placed = Merge::Sum.merged(&one, std::slice::from_ref(rows), channels as usize)?;
        each.push(Tensor::f_from_slice(&placed)?.f_view([batch, channels, tokens])?.f_transpose(1, 2)?);
    }
    let each = Tensor::f_stack(&each, 2)?.f_to_kind(Kind::Float)?; // (B, L, K, C)
    let vs = VarStore::new(Device::Cpu);
    let merger = Merger::new(&vs.root(), mixer::Merge::ChannelGate, directions, channels, channels);
    let options = toml::Table::new();
    let keys = channel_gate(&Author::new(&options, &parameters, &[]));
    let variables = vs.variables();
    keymap::load(&keymap::fitted(&keys, &variables)?, &parameters, &variables)?;
    let merged = tch::no_grad(|| merger.forward(&each, |y| Ok(y.shallow_clone())))?.squeeze_dim(2);
    Ok(Some(merged.f_transpose(1, 2)?.f_contiguous()?))
}

/// The tensor to run: the one named, `x`, or the only one.
fn pick<'a>(input: &'a Tensors, name: Option<&str>) -> std::result::Result<(&'a str, &'a Tensor), String> {
    let names = || input.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
    let only = || if input.len() == 1 { input.keys().next().map(String::as_str) } else { None };
    let wanted = name.or_else(|| input.contains_key("x").then_some("x")).or_else(only);
    if input.is_empty() {
        return Err("holds no tensor".into());
    }
    let wanted =
        wanted.ok_or_else(|| format!("name one of its tensors with --tensor: it holds {}", names()))?;
    let found = input.get_key_value(wanted);
    found
        .map(|(name, x)| (name.as_str(), x))
        .ok_or_else(|| format!("no tensor `{wanted}`: it holds {}", names()))
}

/// The geometry of the axes after batch and channels.
pub fn place(axes: &[i64]) -> std::result::Result<Geometry, String> {
    let size = |axis: i64| axis as usize;
    match *axes {
        [len] => Ok(Geometry::Sequence { len: size(len) }),
        [height, width] => Ok(Geometry::Grid2 { height: size(height), width: size(width) }),
        [frames, height, width] => {
            Ok(Geometry::Grid3 { frames: size(frames), height: size(height), width: size(width) })
        }
        _ => Err("expected one to three axes after batch and channels".into()),
    }
}

/// What a mixer made of each direction, if the file holds it.
fn given(
    input: &Tensors,
    plan: &Plan,
    batch: i64,
    channels: i64,
) -> std::result::Result<Option<Vec<Vec<f64>>>, String> {
    let directions = plan.directions();
    let longest = plan.orders().iter().map(|order| order.len() as i64).max().unwrap_or(0);
    let sequence = |k: usize, tensor: &Tensor, name: &str| {
        // Where directions are of unequal length, authors pad them at the end to the longest.
        let padded = tensor.dim() == 3 && tensor.size()[2] == longest;
        let tensor =
            &if padded { tensor.narrow(2, 0, plan.orders()[k].len() as i64) } else { tensor.shallow_clone() };
        let expected = [batch, channels, plan.orders()[k].len() as i64];
        if tensor.numel() as i64 != expected.iter().product::<i64>() || tensor.size()[..2] != expected[..2] {
            let found = tensor.size();
            return Err(format!("{name} is {found:?}, expected {expected:?} (batch, channels, steps)"));
        }
        values(tensor).map_err(|error| format!("{name}: {error}"))
    };
    if let Some(ys) = input.get("ys") {
        let found = ys.size();
        if found.len() < 4 || found[..3] != [batch, directions as i64, channels] {
            let expected = format!("({batch}, {directions}, {channels}, steps)");
            return Err(format!("tensor `ys` is {found:?}, expected {expected}"));
        }
        return (0..directions)
            .map(|k| sequence(k, &ys.select(1, k as i64), &format!("direction {k} of `ys`")))
            .collect::<std::result::Result<_, _>>()
            .map(Some);
    }
    let number = |name: &String| name.strip_prefix("scanned.")?.parse::<usize>().ok();
    if let Some(beyond) = input.keys().filter_map(number).find(|k| *k >= directions) {
        return Err(format!(
            "holds a tensor `scanned.{beyond}`, but there are {directions} directions, from 0 on"
        ));
    }
    if !input.keys().any(|name| number(name).is_some()) {
        return Ok(None);
    }
    let named = |k: usize| {
        let name = format!("scanned.{k}");
        let tensor = input.get(&name).ok_or_else(|| format!("no tensor `{name}` of {directions}"))?;
        if tensor.dim() < 3 {
            return Err(format!("tensor `{name}` is {:?}, expected (batch, channels, steps)", tensor.size()));
        }
        sequence(k, tensor, &format!("tensor `{name}`"))
    };
    (0..directions).map(named).collect::<std::result::Result<_, _>>().map(Some)
}

fn values(tensor: &Tensor) -> Result<Vec<f64>> {
    Ok(Vec::try_from(tensor.f_to_kind(Kind::Double)?.f_contiguous()?.f_view([-1])?)?)
}

fn tensor(values: &[f64], shape: &[i64], kind: Kind) -> Result<Tensor> {
    Ok(Tensor::f_from_slice(values)?.f_view(shape)?.f_to_kind(kind)?)
}
