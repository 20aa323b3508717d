//! The curves: walks over a geometry that everything else is composed of.

mod gilbert;
mod lines;
mod nested;

use std::path::PathBuf;
use std::sync::Arc;

use super::registry::Fallback;
use super::{Args, Entry, Param, Rule, Value};
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
        .params([counted("k", None)])
        .on("2-D grid"),
        Entry::curve("hilbert", "Hilbert's curve in the 2^bits cube around the grid", |args: &Args| {
            let bits = within("hilbert", "bits", args.int("bits")?, nested::MOST_BITS as usize)?;
            Ok(Arc::new(move |geometry: &Geometry| nested::hilbert(geometry, bits as u32)))
        })
        .params([counted("bits", Some(0))])
        .on("grid"),
        Entry::curve("morton", "Z-order in the 2^bits cube around the grid", plain(nested::morton))
            .on("grid"),
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
            let path = PathBuf::from(args.text("path")?);
            Ok(Arc::new(move |geometry: &Geometry| Plan::read(&path, Some(geometry.tokens()?))))
        })
        .params([Param::text("path")])
        .on("that of the file")
        .directed("of the file"),
    ]
}

/// A curve without arguments.
fn plain(plan: fn(&Geometry) -> Result<Plan>) -> impl Fn(&Args) -> Result<Arc<dyn Rule>> + Send + Sync {
    move |_| Ok(Arc::new(plan))
}

/// A whole number of at least 0.
fn counted(name: &'static str, default: Option<i64>) -> Param {
    let mut param = Param::seed();
    param.name = name;
    param.default = default.map_or(Fallback::None, |n| Fallback::Value(Value::Int(n)));
    param
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
    /// Those of `geometry`, or an error that says what `name` needs.
    fn of(geometry: &Geometry, name: &str) -> Result<Sides> {
        geometry.tokens()?;
        match *geometry {
            Geometry::Grid3 { frames, height, width } => Ok(Sides::Three([frames, height, width])),
            _ => geometry.need_grid(name).map(|(height, width)| Sides::Two([height, width])),
        }
    }
}
