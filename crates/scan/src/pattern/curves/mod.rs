//! The curves: walks over a geometry that everything else is composed of.

mod gilbert;
mod lines;
mod nested;

use std::path::PathBuf;
use std::sync::Arc;

use super::{Args, Entry, Param, PointCurve, Rule, Serialization, Value, points};
use crate::geometry::Geometry;
use crate::{Error, Order, Plan, Result};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::curve("row", "row by row, left to right: the tokens as they are numbered", plain(lines::row)),
        Entry::curve("column", "column by column, top to bottom, frame after frame", plain(lines::column))
            .on("grid"),
        Entry::curve(
            "serpentine",
            "row by row, every other row right to left (PlainMamba); frames likewise",
            plain(lines::serpentine),
        )
        .on("grid"),
        Entry::curve(
            "temporal",
            "each pixel through all frames (VideoMamba's temporal-first, Vivim)",
            plain(lines::temporal),
        )
        .on("frames x pixels, 3-D grid"),
        Entry::curve(
            "diagonal",
            "anti-diagonals from the top left, each from its top right",
            |args: &Args| {
                let alternate = args.flag("alternate")?;
                Ok(Arc::new(move |geometry: &Geometry| lines::diagonal(geometry, alternate)))
            },
        )
        .params([Param::flag("alternate", false)])
        .on("2-D grid"),
        Entry::curve("spiral", "clockwise from the top left, from outside inwards", plain(lines::spiral))
            .on("2-D grid"),
        Entry::curve(
            "zigzag",
            "ZigMa's 8 snakes: corner k / 2, along rows if k is even, columns if odd",
            |args: &Args| {
                let k = within("zigzag", "k", args.int("k")?, 7)?;
                Ok(Arc::new(move |geometry: &Geometry| lines::zigzag(geometry, k)))
            },
        )
        .params([Param::count("k")])
        .on("2-D grid"),
        Entry::curve(
            "hilbert",
            "Hilbert's curve in the 2^bits cube around the grid or the points' cells",
            |args: &Args| {
                let bits = within("hilbert", "bits", args.int("bits")?, nested::MOST_BITS as usize)? as u32;
                let depth = (bits > 0).then_some(bits);
                let cells = cells(PointCurve::Hilbert, args, depth)?;
                Ok(Arc::new(move |geometry: &Geometry| match geometry {
                    Geometry::Points(points) => cells.plan(points),
                    _ => nested::hilbert(geometry, bits),
                }))
            },
        )
        .params([Param::count("bits").or(Value::Int(0)), points::grid()])
        .on("grid, points"),
        Entry::curve(
            "morton",
            "Z-order in the 2^bits cube around the grid or the points' cells",
            |args: &Args| {
                let cells = cells(PointCurve::Z, args, None)?;
                Ok(Arc::new(move |geometry: &Geometry| match geometry {
                    Geometry::Points(points) => cells.plan(points),
                    _ => nested::morton(geometry),
                }))
            },
        )
        .params([points::grid()])
        .on("grid, points"),
        Entry::curve("peano", "Peano's curve in the 3^digits cube around the grid", plain(nested::peano))
            .on("grid"),
        Entry::curve(
            "gilbert",
            "Hilbert's curve generalised to any rectangle and box",
            plain(gilbert::gilbert),
        )
        .on("grid"),
        Entry::curve("random", "a random order, the same for the same seed: a control", |args: &Args| {
            let seed = args.int("seed")?.unsigned_abs();
            Ok(Arc::new(move |geometry: &Geometry| lines::random(geometry, seed)))
        })
        .params([Param::seed()]),
        Entry::curve("file", "your own index file: .json, .npy or .safetensors", |args: &Args| {
            let (path, strict) = (PathBuf::from(args.text("path")?), args.flag("strict")?);
            Ok(Arc::new(move |geometry: &Geometry| {
                let plan = Plan::read(&path, Some(geometry.tokens()?))?;
                if !strict {
                    return Ok(plan);
                }
                plan.each_once().map_err(|error| {
                    let text = path.display().to_string();
                    Error::file(
                        &path,
                        format!("{error}; if it is meant so, write `file({text:?}, strict=false)`"),
                    )
                })
            }))
        })
        .params([Param::text("path"), Param::flag("strict", true)])
        .on("that of the file")
        .directed("of the file"),
    ]
}

/// A curve through those cells.
fn cells(curve: PointCurve, args: &Args, depth: Option<u32>) -> Result<Serialization> {
    Ok(Serialization { grid: args.real("grid")? as f32, depth, ..Serialization::new(curve) })
}

/// A curve without arguments.
fn plain(plan: fn(&Geometry) -> Result<Plan>) -> impl Fn(&Args) -> Result<Arc<dyn Rule>> + Send + Sync {
    move |_| Ok(Arc::new(plan))
}

/// `found` if it is one of 0 to `most`.
fn within(curve: &str, param: &str, found: i64, most: usize) -> Result<usize> {
    usize::try_from(found).ok().filter(|n| *n <= most).ok_or_else(|| {
        Error::Plan(format!("`{param}` of `{curve}` must be a whole number from 0 to {most}, found {found}"))
    })
}

/// One direction that visits these tokens.
fn one(index: Vec<i32>, tokens: usize) -> Result<Plan> {
    Plan::new(vec![Order::new(index, tokens)?])
}

/// (frames, rows, columns) of a grid of two or three axes, or an error that says what `name` needs.
pub(super) fn grid(geometry: &Geometry, name: &str) -> Result<(usize, usize, usize)> {
    geometry.tokens()?;
    match geometry {
        Geometry::Grid3 { .. } => Ok(geometry.sizes()),
        _ => geometry.need_grid(name).map(|(height, width)| (1, height, width)),
    }
}

/// (rows, columns) of a 2-D grid, or an error that says what `curve` needs and how to have it on a 3-D one.
fn plane(geometry: &Geometry, curve: &str) -> Result<(usize, usize)> {
    match geometry {
        Geometry::Grid3 { .. } => Err(geometry.unfit(
            curve,
            "a grid of rows and columns",
            &format!("`{curve} | frames` walks each frame so, or give a shape such as 7x9"),
        )),
        _ => geometry.need_grid(curve),
    }
}

/// Sizes of a grid of two or three axes, the slowest in the numbering first.
enum Sides {
    Two([usize; 2]),
    Three([usize; 3]),
}

impl Sides {
    /// Those of `geometry`, or an error that says what `curve` needs.
    fn of(geometry: &Geometry, curve: &str) -> Result<Sides> {
        let (frames, height, width) = grid(geometry, curve)?;
        Ok(match geometry {
            Geometry::Grid3 { .. } => Sides::Three([frames, height, width]),
            _ => Sides::Two([height, width]),
        })
    }
}
