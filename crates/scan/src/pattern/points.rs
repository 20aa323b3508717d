//! Orders of points in space: space-filling curves and traverses over the grid cells that the points lie in.

use std::str::FromStr;
use std::sync::Arc;

use rayon::prelude::*;

use super::{Args, Entry, Param, Real, Rule, Value, samples};
use crate::{Error, Geometry, Plan, Points, Result, hilbert_key, key_bits, morton_key};

/// Edge of a grid cell if none is given: PointMamba's and PCM's, for clouds in the unit ball.
const GRID: f32 = 0.02;

/// A curve through the cells of a grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PointCurve {
    /// The Hilbert curve, x the most significant axis ([`hilbert_key`]).
    Hilbert,
    /// The same with x and y exchanged (PointMamba's trans-Hilbert).
    HilbertTrans,
    /// Z-order, the order of octree nodes ([`morton_key`]).
    Z,
    /// The same with x and y exchanged.
    ZTrans,
    /// PCM's consistent traverse: back and forth along the first axis, line after line along the second, plane after
    /// plane along the third. Each plane is walked backwards after the one before, so that the walk never jumps. `xyz`
    /// is `[0, 1, 2]`.
    Traverse([usize; 3]),
}

/// Every curve and its name, as PCM and PointMamba call it.
const CURVES: [(&str, PointCurve); 10] = [
    ("hilbert", PointCurve::Hilbert),
    ("hilbert-trans", PointCurve::HilbertTrans),
    ("z", PointCurve::Z),
    ("z-trans", PointCurve::ZTrans),
    ("xyz", PointCurve::Traverse([0, 1, 2])),
    ("xzy", PointCurve::Traverse([0, 2, 1])),
    ("yxz", PointCurve::Traverse([1, 0, 2])),
    ("yzx", PointCurve::Traverse([1, 2, 0])),
    ("zxy", PointCurve::Traverse([2, 0, 1])),
    ("zyx", PointCurve::Traverse([2, 1, 0])),
];

const CURVE_NAMES: [&str; CURVES.len()] = {
    let mut names = [""; CURVES.len()];
    let mut i = 0;
    while i < names.len() {
        names[i] = CURVES[i].0;
        i += 1;
    }
    names
};

impl FromStr for PointCurve {
    type Err = Error;

    fn from_str(name: &str) -> Result<PointCurve> {
        let found = CURVES.iter().find(|(known, _)| *known == name).map(|&(_, curve)| curve);
        let names = CURVE_NAMES.join(", ");
        found.ok_or_else(|| Error::Plan(format!("there is no curve of points `{name}`: expected {names}")))
    }
}

/// Released code that deviates from its paper.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum PointCompat {
    /// None: as the papers mean it.
    #[default]
    None,
    /// PCM's traverses as released: the second and third axis enter with their greatest coordinate over the whole set
    /// instead of the point's own, so that only the first axis orders points, forwards or backwards; and where the set
    /// is flat, points of different samples are mixed.
    Pcm,
    /// Point-Mamba (octree) as released: the state runs on from one sample into the next.
    PointMambaOctree,
}

/// How points become keys to sort by: the serialisation of PointMamba, PCM and Point Transformer V3.
///
/// A grid of cells is laid through each sample, from its least coordinates on, and a curve is drawn through the cells.
/// Points in one cell keep their numbering. Voxels ([`Points::voxels`]) are their own cells.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Serialization {
    /// The curve.
    pub curve: PointCurve,
    /// Edge of a cell.
    pub grid: f32,
    /// The curve goes through the cube of 2^depth cells a side; None is the least that holds the whole set, as the
    /// authors have it. The Hilbert order of a sample depends on the depth (with period 3), so that without one it
    /// depends on which samples it is packed with.
    pub depth: Option<u32>,
    /// Whose deviations to follow.
    pub compat: PointCompat,
}

impl Serialization {
    /// Along `curve`, through cells of 0.02, at the least depth.
    pub fn new(curve: PointCurve) -> Serialization {
        Serialization { curve, grid: GRID, depth: None, compat: PointCompat::None }
    }

    /// The code of each point: the place of its cell on the curve, and in the bits above these 3 x depth the number of
    /// its sample: (L). PCM's released traverses have codes of their own.
    ///
    /// # Errors
    /// The cells do not fit ([`Serialization::plan`]), or the codes do not fit 63 bits.
    pub fn codes(&self, points: &Points) -> Result<Vec<i64>> {
        let cells = self.cells(points)?;
        if let (PointCompat::Pcm, PointCurve::Traverse(axes)) = (self.compat, self.curve) {
            return Ok(released_traverse(&cells, points, axes));
        }
        let depth = self.fitting_depth(&cells)?;
        let samples = points.starts().len() - 1;
        let sample_bits = usize::BITS - (samples - 1).leading_zeros();
        if 3 * depth + sample_bits > 63 {
            let message = format!(
                "codes of depth {depth} over {samples} samples need {} bits: at most 63; use a larger grid",
                3 * depth + sample_bits
            );
            return Err(Error::Plan(message));
        }
        let mut codes = Vec::with_capacity(points.len());
        for (sample, range) in points.samples().enumerate() {
            let code = |&cell: &[u32; 3]| ((sample as u64) << (3 * depth) | self.key(cell, depth)) as i64;
            codes.extend(cells[range].iter().map(code));
        }
        Ok(codes)
    }

    /// One order, sample after sample, each along the curve; the state starts afresh at each sample.
    ///
    /// # Errors
    /// A grid that is not above zero, more than 2^21 cells along an axis, or a cell outside the depth; the point is
    /// named.
    pub fn plan(&self, points: &Points) -> Result<Plan> {
        let cells = self.cells(points)?;
        if let (PointCompat::Pcm, PointCurve::Traverse(axes)) = (self.compat, self.curve) {
            // The authors sort all samples at once and cut the result into samples.
            let tokens = points.len();
            let all = samples::sorted(&[0, tokens], &released_traverse(&cells, points, axes))?;
            let index = all.orders()[0].index().to_vec();
            return Plan::new(vec![samples::walk(index, tokens, points.starts())?]);
        }
        let depth = self.fitting_depth(&cells)?;
        let keys: Vec<u64> = cells.par_iter().map(|&cell| self.key(cell, depth)).collect();
        let plan = samples::sorted(points.starts(), &keys)?;
        if self.compat != PointCompat::PointMambaOctree {
            return Ok(plan);
        }
        let run_on = |order: &crate::Order| order.clone().with_resets(vec![false; order.len()]);
        Plan::new(plan.orders().iter().map(run_on).collect::<Result<_>>()?)
    }

    /// Place of a cell on the curve at this depth.
    fn key(&self, cell: [u32; 3], depth: u32) -> u64 {
        let [x, y, z] = cell;
        match self.curve {
            PointCurve::Hilbert => hilbert_key(cell, depth),
            PointCurve::HilbertTrans => hilbert_key([y, x, z], depth),
            PointCurve::Z => morton_key(cell, depth),
            PointCurve::ZTrans => morton_key([y, x, z], depth),
            PointCurve::Traverse(axes) => {
                let [first, second, third] = axes.map(|axis| u64::from(cell.get(axis).copied().unwrap_or(0)));
                // Where the coordinate above is odd, everything below runs backwards.
                let back = |above: u64, below: u64, bits: u32| {
                    above << bits | if above & 1 == 1 { !below & ((1 << bits) - 1) } else { below }
                };
                back(third, back(second, first, depth), 2 * depth)
            }
        }
    }

    /// The cell of each point: (L, 3).
    fn cells(&self, points: &Points) -> Result<Vec<[u32; 3]>> {
        if points.are_voxels() {
            return Ok(points.xyz().par_iter().map(|point| point.map(|x| x as u32)).collect());
        }
        let grid = self.grid;
        if !(grid > 0.0 && grid.is_finite()) {
            return Err(Error::Plan(format!(
                "a grid of {grid} in single precision cannot be laid through points: expected above 0"
            )));
        }
        let mut cells = Vec::with_capacity(points.len());
        for sample in points.samples() {
            let start = sample.start;
            // As the authors do it: in single precision, rounded down, the least one of the sample taken off.
            let floor = |point: &[f32; 3]| point.map(|x| (x / grid).floor());
            let min = |a: [f32; 3], b: [f32; 3]| std::array::from_fn(|axis| a[axis].min(b[axis]));
            let sample = &points.xyz()[sample];
            let least = sample.par_iter().map(floor).reduce(|| [f32::INFINITY; 3], min);
            let cell = |(i, point): (usize, &[f32; 3])| {
                let cell: [f64; 3] =
                    std::array::from_fn(|axis| f64::from(floor(point)[axis]) - f64::from(least[axis]));
                // What overflowed is infinite or no number here.
                match cell.iter().all(|x| (0.0..f64::from(1u32 << key_bits::<3>())).contains(x)) {
                    true => Ok(cell.map(|x| x as u32)),
                    false => Err(Error::Plan(format!(
                        "point {} at {point:?} lies too far from the least coordinates of its sample for a grid of \
                         {grid}, which has at most 2^{} cells along an axis; use a larger grid, or scale the points down",
                        start + i,
                        key_bits::<3>()
                    ))),
                }
            };
            cells.extend(samples::try_map(sample, cell)?);
        }
        Ok(cells)
    }

    /// The depth asked for, which must hold the cells, or the least that does.
    fn fitting_depth(&self, cells: &[[u32; 3]]) -> Result<u32> {
        let greatest = cells.par_iter().map(|cell| cell.iter().copied().max().unwrap_or(0)).max();
        let least = u32::BITS - greatest.unwrap_or(0).leading_zeros();
        let depth = self.depth.unwrap_or(least);
        if depth > key_bits::<3>() {
            return Err(Error::Plan(format!("a depth of {depth} is too great: at most {}", key_bits::<3>())));
        }
        if least <= depth {
            return Ok(depth);
        }
        let beyond = |cell: &[u32; 3]| cell.iter().any(|x| x >> depth > 0);
        let i = cells.par_iter().position_first(beyond).unwrap_or(0);
        Err(Error::Plan(format!(
            "point {i} lies in cell {:?}, but a depth of {depth} holds {} cells along an axis: use {least}, or a \
             larger grid",
            cells[i],
            1u32 << depth
        )))
    }
}

/// PCM's `encode_cts` as released, in 64-bit arithmetic that wraps around.
fn released_traverse(cells: &[[u32; 3]], points: &Points, axes: [usize; 3]) -> Vec<i64> {
    let coordinate = |cell: &[u32; 3], axis: usize| i64::from(cell.get(axis).copied().unwrap_or(0));
    let greatest = axes.map(|axis| cells.iter().map(|cell| coordinate(cell, axis)).max().unwrap_or(0));
    let mut codes = Vec::with_capacity(cells.len());
    for (sample, range) in points.samples().enumerate() {
        for cell in &cells[range] {
            let (mut low, mut base) = (coordinate(cell, axes[0]), greatest[0]);
            for max in [greatest[1], greatest[2]] {
                let (odd, sign) = (max % 2, 1 - 2 * (max % 2));
                low = (max + odd).wrapping_mul(base).wrapping_add(sign * low);
                base = base.wrapping_mul(max);
            }
            codes.push((sample as i64).wrapping_mul(base).wrapping_add(low));
        }
    }
    codes
}

/// The points of `geometry`, or an error that says what `pattern` needs.
fn need_points<'a>(geometry: &'a Geometry, pattern: &str) -> Result<&'a Points> {
    match geometry {
        Geometry::Points(points) => Ok(points),
        _ => Err(geometry.unfit(pattern, "points", "give points, or a pattern for grids such as `hilbert`")),
    }
}

/// By one coordinate as it is, ascending.
fn by_axis(points: &Points, axis: usize) -> Result<Plan> {
    let key = |point: &[f32; 3]| ascending(f64::from(point.get(axis).copied().unwrap_or(0.0)));
    samples::sorted(points.starts(), &points.xyz().par_iter().map(key).collect::<Vec<_>>())
}

/// An integer that orders as the number does.
pub(super) fn ascending(number: f64) -> u64 {
    let bits = (number + 0.0).to_bits();
    if bits >> 63 == 1 { !bits } else { bits | 1 << 63 }
}

/// Voxel Mamba's order: by the Hilbert rank of the voxel (z, y, x), looked up in a template of 2^bits voxels a side.
struct Template {
    bits: u32,
    /// Slices along z that the template keeps; None keeps all.
    slices: Option<usize>,
    /// Added to each coordinate before the look-up. At the end of a row, column or slice it spills into the next one, as
    /// the authors' flat index does.
    shift: u64,
    /// Pillars: rank of (y, x) alone.
    flat: bool,
}

impl Template {
    fn plan(&self, points: &Points) -> Result<Plan> {
        let unfit = |message: String| Error::Plan(format!("`voxel-hilbert`: {message}"));
        if !points.are_voxels() {
            return Err(unfit("the points are no voxels: expected whole coordinates in a tensor `coors`, `coords` or `grid`".into()));
        }
        let most = key_bits::<3>();
        if self.bits == 0 || self.bits > most {
            return Err(unfit(format!("bits = {}, expected 1 to {most}", self.bits)));
        }
        let side = 1u64 << self.bits;
        let slices = if self.flat { 1 } else { self.slices.map_or(side, |slices| slices as u64) };
        if slices > side {
            return Err(unfit(format!("slices = {slices}, but a template of {} bits has {side}", self.bits)));
        }
        if self.shift >= side {
            return Err(unfit(format!("shift = {}, expected less than {side}", self.shift)));
        }
        let outside = |i: usize, point: &[f32; 3]| {
            let (shift, [x, y, z]) = (self.shift, point);
            unfit(format!(
                "voxel {i} is at z {z}, y {y}, x {x}: with a shift of {shift} it lies outside the {slices} slices"
            ))
        };
        let key = |(i, point): (usize, &[f32; 3])| {
            let [x, y, z] = point.map(|x| x as u64);
            if x >= side || y >= side || (!self.flat && z >= slices) {
                let holds =
                    if self.flat { format!("{side}x{side}") } else { format!("{slices}x{side}x{side}") };
                return Err(unfit(format!(
                    "voxel {i} is at z {z}, y {y}, x {x}: the template holds {holds}"
                )));
            }
            let z = if self.flat { 0 } else { z + self.shift };
            if z >= slices {
                return Err(outside(i, point));
            }
            let flat = (z * side + y + self.shift) * side + x + self.shift;
            let [x, y, z] = [flat % side, flat / side % side, flat / side / side];
            if z >= slices {
                return Err(outside(i, point));
            }
            let [x, y, z] = [x as u32, y as u32, z as u32];
            Ok(if self.flat { hilbert_key([y, x], self.bits) } else { hilbert_key([z, y, x], self.bits) })
        };
        samples::sorted(points.starts(), &samples::try_map(points.xyz(), key)?)
    }
}

/// 0 stands for "as the data needs".
fn unless_zero(args: &Args, name: &str) -> Result<Option<u32>> {
    let number = u32::try_from(args.int(name)?).unwrap_or(u32::MAX);
    Ok((number > 0).then_some(number))
}

/// Edge of the cells of a grid that is laid through points. 0.02 as a pattern writes it, which [`GRID`] is in single
/// precision.
pub(super) fn grid() -> Param {
    Param::positive("grid").or(Real::new(0.02).map_or(Value::Int(1), Value::Real))
}

pub(super) fn entries() -> Vec<Entry> {
    const COMPAT: &[&str] = &["none", "pcm", "point-mamba-octree"];
    let zero = || Value::Int(0);
    vec![
        Entry::curve(
            "serialize",
            "points along a curve through grid cells (PointMamba, PCM)",
            |args: &Args| {
                let serialization = Serialization {
                    curve: args.text("curve")?.parse()?,
                    grid: args.real("grid")? as f32,
                    depth: unless_zero(args, "depth")?,
                    compat: match args.text("compat")? {
                        "pcm" => PointCompat::Pcm,
                        "point-mamba-octree" => PointCompat::PointMambaOctree,
                        _ => PointCompat::None,
                    },
                };
                Ok(Arc::new(move |geometry: &Geometry| {
                    serialization.plan(need_points(geometry, "serialize")?)
                }))
            },
        )
        .params([
            Param::word("curve", &CURVE_NAMES),
            grid(),
            Param::count("depth").or(zero()),
            Param::word("compat", COMPAT).or(Value::Text("none".into())),
        ])
        .on("points"),
        Entry::curve("axis", "points by one coordinate, ascending", |args: &Args| {
            let axis = match args.text("axis")? {
                "x" => 0,
                "y" => 1,
                _ => 2,
            };
            Ok(Arc::new(move |geometry: &Geometry| by_axis(need_points(geometry, "axis")?, axis)))
        })
        .params([Param::word("axis", &["x", "y", "z"])])
        .on("points"),
        Entry::curve(
            "voxel-hilbert",
            "voxels by Hilbert rank in a cube of 2^bits a side (Voxel Mamba)",
            |args: &Args| {
                let template = Template {
                    bits: u32::try_from(args.int("bits")?).unwrap_or(u32::MAX),
                    slices: unless_zero(args, "slices")?.map(|slices| slices as usize),
                    shift: u64::from(u32::try_from(args.int("shift")?).unwrap_or(u32::MAX)),
                    flat: args.flag("flat")?,
                };
                Ok(
                    Arc::new(move |geometry: &Geometry| {
                        template.plan(need_points(geometry, "voxel-hilbert")?)
                    }) as Arc<dyn Rule>,
                )
            },
        )
        .params([
            Param::size("bits"),
            Param::count("slices").or(zero()),
            Param::count("shift").or(zero()),
            Param::flag("flat", false),
        ])
        .on("voxels"),
    ]
}
