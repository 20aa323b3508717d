//! Points and graphs from the files that data sets and models leave behind: safetensors and npy.

use std::path::Path;

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Format, bytes, npy};
use crate::{Error, Graph, MAX_STEPS, Points, Result};

/// Real coordinates, by name.
const REAL: [&str; 4] = ["pos", "xyz", "points", "center"];

/// Whole coordinates of voxels, by name.
const WHOLE: [&str; 3] = ["grid", "coords", "coors"];

impl Points {
    /// The points in a `.safetensors` or `.npy` file.
    ///
    /// In a safetensors file the first of these tensors that has a fitting type and shape is taken, and all others are
    /// left alone:
    /// - `pos`, `xyz`, `points` or `center`: float32 or float64, (N, 3) as x, y, z, or (B, N, 3) for B samples;
    /// - `grid` or `coords`: int32 or int64 cells of voxels, (N, 3) as x, y, z, (N, 4) with the sample's number before
    ///   them (MinkowskiEngine), or (B, N, 3);
    /// - `coors`: the same as spconv has it, (N, 3) as z, y, x or (N, 4) as batch, z, y, x.
    ///
    /// `batch`, int32 or int64 (N), numbers the sample of each point where the tensor itself does not; the points of a
    /// sample lie together. A npy file holds (N, 3) or (B, N, 3) of real coordinates.
    ///
    /// # Errors
    /// [`Error::Format`] for another ending, [`Error::Io`] if the file cannot be read, and [`Error::File`] for a file
    /// that holds no such tensor (what it holds is listed), samples that do not lie together, and what
    /// [`Points::packed`] and [`Points::voxels`] refuse.
    pub fn read(path: &Path) -> Result<Points> {
        let points = match Format::of(path) {
            Some(Format::Safetensors) => {
                let bytes = bytes(path)?;
                Tensors::of(&bytes).and_then(|file| file.points())
            }
            Some(Format::Npy) => npy_points(&bytes(path)?),
            _ => return Err(Error::format(path, "a file of points ends in .safetensors or .npy")),
        };
        points.map_err(|reason| Error::file(path, reason))
    }
}

impl Graph {
    /// The graph in a `.safetensors` file, as PyTorch Geometric lays it out: `edge_index`, int64 or int32 (2, E), sources
    /// then targets.
    ///
    /// How many nodes there are is said by `batch`, int64 or int32 (N), the number of each node's graph; by `num_nodes`,
    /// one number; or by `x`, (N, features). Those that are there must agree; without any of them it is one more than
    /// the greatest node of an edge. The nodes of a graph lie together. All other tensors are left alone.
    ///
    /// # Errors
    /// [`Error::Format`] for another ending, [`Error::Io`] if the file cannot be read, and [`Error::File`] for a missing
    /// `edge_index`, a tensor of another type or shape, counts that disagree, graphs whose nodes do not lie together,
    /// and what [`Graph::packed`] refuses.
    pub fn read(path: &Path) -> Result<Graph> {
        let graph = match Format::of(path) {
            Some(Format::Safetensors) => {
                let bytes = bytes(path)?;
                Tensors::of(&bytes).and_then(|file| file.graph())
            }
            _ => return Err(Error::format(path, "a file of a graph ends in .safetensors")),
        };
        graph.map_err(|reason| Error::file(path, reason))
    }
}

type Read<T> = std::result::Result<T, String>;

/// A safetensors file.
struct Tensors<'a>(SafeTensors<'a>);

impl<'a> Tensors<'a> {
    fn of(bytes: &'a [u8]) -> Read<Tensors<'a>> {
        let file = SafeTensors::deserialize(bytes);
        Ok(Tensors(file.map_err(|error| format!("is not a whole safetensors file: {error}"))?))
    }

    fn get(&self, name: &str) -> Option<TensorView<'a>> {
        self.0.tensor(name).ok()
    }

    /// The whole numbers of `name`, which must have the shape that `fits` says in words.
    fn whole(&self, name: &str, fits: impl Fn(&[usize]) -> bool, shape: &str) -> Read<Option<Vec<i64>>> {
        let Some(view) = self.get(name) else { return Ok(None) };
        let wrong = || format!("tensor {}, expected int64 or int32 {shape}", describe(name, &view));
        if !fits(view.shape()) {
            return Err(wrong());
        }
        whole(&view).map(Some).ok_or_else(wrong)
    }

    /// Sample numbers of `count` tokens, if the file has them.
    fn batch(&self, count: Option<usize>) -> Read<Option<Vec<i64>>> {
        let fits = |shape: &[usize]| matches!(*shape, [n] if count.is_none_or(|count| n == count));
        self.whole("batch", fits, &count.map_or("(N)".into(), |count| format!("({count})")))
    }

    fn points(&self) -> Read<Points> {
        let found = |names: &[&'static str], fits: fn(&TensorView<'_>) -> bool| {
            names.iter().find_map(|&name| self.get(name).filter(fits).map(|view| (name, view)))
        };
        if let Some((_, view)) = found(&REAL, |view| is_real(view) && three(view.shape()).is_some()) {
            let (samples, count) = three(view.shape()).unwrap_or_default();
            let starts = self.sample_starts(samples, count, None)?;
            let xyz = real(&view).chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
            return Points::packed(xyz, starts).map_err(|error| error.to_string());
        }
        let fits = |view: &TensorView<'_>| {
            is_whole(view) && (three(view.shape()).is_some() || matches!(*view.shape(), [_, 4]))
        };
        let Some((name, view)) = found(&WHOLE, fits) else { return Err(self.no_points()) };
        let (samples, count) = three(view.shape()).unwrap_or((1, view.shape()[0]));
        let width = view.shape().last().copied().unwrap_or(3);
        let numbers = whole(&view).unwrap_or_default();
        let batch = (width == 4).then(|| numbers.chunks_exact(4).map(|row| row[0]).collect());
        let starts = self.sample_starts(samples, count, batch)?;
        let cell = |row: &[i64]| match row[width - 3..] {
            [z, y, x] if name == "coors" => [x, y, z],
            [x, y, z] => [x, y, z],
            _ => [0; 3], // rows have 3 or 4 numbers
        };
        let cells: Vec<[i64; 3]> = numbers.chunks_exact(width).map(cell).collect();
        Points::voxels(&cells, starts).map_err(|error| format!("tensor {name}: {error}"))
    }

    /// Bounds of `samples` samples of `count` points, or of those that the numbers `own` or `batch` name.
    fn sample_starts(&self, samples: usize, count: usize, own: Option<Vec<i64>>) -> Read<Vec<usize>> {
        if count == 0 {
            return Ok(vec![0]); // refused as no point, and not as this many empty samples
        }
        let beside = |says: &str| match self.get("batch") {
            Some(view) => {
                Err(format!("{} beside points whose {says} the sample", describe("tensor batch", &view)))
            }
            None => Ok(()),
        };
        if samples > 1 {
            beside("first axis is")?;
            return Ok((0..=samples).map(|sample| sample * count).collect());
        }
        let numbers = match own {
            Some(own) => {
                beside("first number is")?;
                Some(own)
            }
            None => self.batch(Some(count))?,
        };
        numbers.map_or(Ok(vec![0, count]), |numbers| starts(&numbers, "point"))
    }

    /// What is there instead of points.
    fn no_points(&self) -> String {
        let known = REAL.iter().chain(&WHOLE);
        let found: Vec<String> =
            known.filter_map(|name| self.get(name).map(|view| describe(name, &view))).collect();
        let expected = format!(
            "expected {} as float32 or float64 (N, 3) or (B, N, 3), or {} as int32 or int64 (N, 3), (N, 4) or (B, N, 3)",
            REAL.join(", "),
            WHOLE.join(", ")
        );
        if found.is_empty() {
            let mut names = self.0.names();
            names.sort_unstable();
            let more = if names.len() > 12 { ", …" } else { "" };
            names.truncate(12);
            let names = if names.is_empty() { "no tensor".to_owned() } else { names.join(", ") };
            return format!("holds no points: it has {names}{more}; {expected}");
        }
        format!("holds no points: {}; {expected}", found.join("; "))
    }

    fn graph(&self) -> Read<Graph> {
        let edges = self.whole("edge_index", |shape| matches!(shape, [2, _]), "(2, E)")?;
        let edges = edges.ok_or("holds no tensor edge_index, expected int64 or int32 (2, E)")?;
        let batch = self.batch(None)?;
        let number = |numbers: Vec<i64>| match numbers[..] {
            [n] => usize::try_from(n).map_err(|_| format!("num_nodes is {n}, expected at least 1")),
            _ => Err("num_nodes holds no number".into()),
        };
        let one = |shape: &[usize]| shape.iter().product::<usize>() == 1;
        let said = self.whole("num_nodes", one, "() or (1)")?.map(number).transpose()?;
        let features = self.get("x").and_then(|view| view.shape().first().copied());
        let counts = [("batch", batch.as_ref().map(Vec::len)), ("num_nodes", said), ("x", features)];
        let mut counts = counts.into_iter().filter_map(|(name, count)| Some((name, count?)));
        let (sources, targets) = edges.split_at(edges.len() / 2);
        let nodes = match counts.next() {
            Some((name, nodes)) => match counts.find(|(_, count)| *count != nodes) {
                None => nodes,
                Some((other, count)) => {
                    return Err(format!("{name} says that there are {nodes} nodes, {other} says {count}"));
                }
            },
            None => edges.iter().max().map_or(0, |&node| usize::try_from(node).unwrap_or(0) + 1),
        };
        let node = |node: i64, i: usize| {
            let wrong =
                || format!("edge_index names node {node} in edge {i}, expected 0 to {}", MAX_STEPS - 1);
            u32::try_from(node).map_err(|_| wrong())
        };
        let edges = sources.iter().zip(targets).enumerate();
        let edges = edges.map(|(i, (&from, &to))| Ok([node(from, i)?, node(to, i)?])).collect::<Read<_>>()?;
        let graph = match batch {
            Some(batch) => Graph::packed(edges, starts(&batch, "node")?),
            None => Graph::new(nodes, edges),
        };
        graph.map_err(|error| error.to_string())
    }
}

/// (B, N) of (N, 3) or (B, N, 3).
fn three(shape: &[usize]) -> Option<(usize, usize)> {
    match *shape {
        [count, 3] => Some((1, count)),
        [samples, count, 3] => Some((samples, count)),
        _ => None,
    }
}

/// Where the samples start that these numbers name, and the end.
fn starts(numbers: &[i64], what: &str) -> Read<Vec<usize>> {
    let mut starts = vec![0];
    for (i, pair) in numbers.windows(2).enumerate() {
        if pair[1] < pair[0] {
            return Err(format!(
                "{what} {} belongs to sample {}, but the one before to sample {}: the {what}s of a sample must lie \
                 together, in ascending samples",
                i + 1,
                pair[1],
                pair[0]
            ));
        }
        if pair[1] > pair[0] {
            starts.push(i + 1);
        }
    }
    starts.push(numbers.len());
    Ok(starts)
}

fn describe(name: &str, view: &TensorView<'_>) -> String {
    format!("{name} is {:?} of shape {:?}", view.dtype(), view.shape())
}

fn is_real(view: &TensorView<'_>) -> bool {
    matches!(view.dtype(), Dtype::F32 | Dtype::F64)
}

fn is_whole(view: &TensorView<'_>) -> bool {
    matches!(view.dtype(), Dtype::I32 | Dtype::I64)
}

fn real(view: &TensorView<'_>) -> Vec<f32> {
    match view.dtype() {
        Dtype::F64 => numbers(view.data(), |bytes| f64::from_le_bytes(bytes) as f32),
        _ => numbers(view.data(), f32::from_le_bytes),
    }
}

fn whole(view: &TensorView<'_>) -> Option<Vec<i64>> {
    match view.dtype() {
        Dtype::I64 => Some(numbers(view.data(), i64::from_le_bytes)),
        Dtype::I32 => Some(numbers(view.data(), |bytes| i64::from(i32::from_le_bytes(bytes)))),
        _ => None,
    }
}

fn numbers<const N: usize, T>(data: &[u8], number: impl Fn([u8; N]) -> T) -> Vec<T> {
    data.as_chunks::<N>().0.iter().map(|&bytes| number(bytes)).collect()
}

fn npy_points(bytes: &[u8]) -> Read<Points> {
    let array = npy::Array::of(bytes)?;
    let wrong = || {
        format!(
            "holds `{}` of shape {:?}{}, expected float32 (`<f4`) or float64 (`<f8`) of shape (N, 3) or (B, N, 3)",
            array.descr,
            array.shape,
            if array.columns_first { " in Fortran order" } else { "" }
        )
    };
    let (samples, count) = three(&array.shape).filter(|_| !array.columns_first).ok_or_else(wrong)?;
    let (size, values): (usize, Vec<f32>) = match array.descr {
        "<f4" => (4, numbers(array.data, f32::from_le_bytes)),
        "<f8" => (8, numbers(array.data, |bytes| f64::from_le_bytes(bytes) as f32)),
        _ => return Err(wrong()),
    };
    if samples.checked_mul(count).and_then(|n| n.checked_mul(3 * size)) != Some(array.data.len()) {
        let found = array.data.len();
        return Err(format!("its shape {:?} does not fit its {found} bytes of entries", array.shape));
    }
    let xyz = values.chunks_exact(3).map(|p| [p[0], p[1], p[2]]).collect();
    let samples = if count == 0 { 0 } else { samples }; // no point, and not this many empty samples
    let starts = (0..=samples).map(|sample| sample * count).collect();
    Points::packed(xyz, starts).map_err(|error| error.to_string())
}
