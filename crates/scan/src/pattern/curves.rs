//! The curves: walks over a geometry that everything else is composed of.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Args, Entry, Param, Rule};
use crate::geometry::Geometry;
use crate::{Error, Order, Plan, Result};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::curve("row", "row by row, left to right: the tokens as they are numbered", plain(row)),
        Entry::curve("column", "column by column, top to bottom", plain(column)).on("grid"),
        Entry::curve(
            "serpentine",
            "row by row, every other row right to left (PlainMamba)",
            plain(serpentine),
        )
        .on("grid"),
        Entry::curve("random", "a random order, the same for the same seed: a control", |args: &Args| {
            let seed = args.int("seed")?.unsigned_abs();
            Ok(Arc::new(move |geometry: &Geometry| random(geometry, seed)))
        })
        .params([Param::seed()]),
        Entry::curve("file", "your own index file: .json, .npy or .safetensors", |args: &Args| {
            let (path, strict) = (PathBuf::from(args.text("path")?), args.flag("strict")?);
            Ok(Arc::new(move |geometry: &Geometry| {
                let plan = Plan::read(&path, Some(geometry.tokens()?))?;
                if strict { plan.permutations().map_err(|error| Error::file(&path, error)) } else { Ok(plan) }
            }))
        })
        .params([Param::text("path"), Param::flag("strict", false)])
        .on("that of the file")
        .directed("of the file"),
    ]
}

/// A curve without arguments.
fn plain(plan: fn(&Geometry) -> Result<Plan>) -> impl Fn(&Args) -> Result<Arc<dyn Rule>> + Send + Sync {
    move |_| Ok(Arc::new(plan))
}

/// One direction that visits token `token(t)` at step t.
fn walk(tokens: usize, token: impl Fn(usize) -> usize) -> Result<Plan> {
    Plan::new(vec![Order::new((0..tokens).map(|t| token(t) as i32).collect(), tokens)?])
}

fn row(geometry: &Geometry) -> Result<Plan> {
    walk(geometry.tokens()?, |t| t)
}

fn column(geometry: &Geometry) -> Result<Plan> {
    let (height, width) = geometry.need_grid("column")?;
    walk(height * width, |t| (t % height) * width + t / height)
}

fn serpentine(geometry: &Geometry) -> Result<Plan> {
    let (height, width) = geometry.need_grid("serpentine")?;
    walk(height * width, |t| {
        let (row, column) = (t / width, t % width);
        row * width + if row % 2 == 0 { column } else { width - 1 - column }
    })
}

/// Fisher-Yates over SplitMix64: written out here because a seed must mean the same order in every later version.
fn random(geometry: &Geometry, seed: u64) -> Result<Plan> {
    let tokens = geometry.tokens()?;
    let mut index: Vec<i32> = (0..tokens as i32).collect();
    let mut state = seed;
    let mut below = |n: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        // The high word of a 128-bit product: at most MAX_STEPS / 2^64 away from uniform.
        ((u128::from(z ^ (z >> 31)) * n as u128) >> 64) as usize
    };
    for i in (1..tokens).rev() {
        index.swap(i, below(i + 1));
    }
    Plan::new(vec![Order::new(index, tokens)?])
}
