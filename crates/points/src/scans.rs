//! The scans natural to clouds over time, by name in every pattern: `spatial-first` and `temporal-first`.
//!
//! Their geometry is packed points, one sample for each frame.

use std::{
    collections::BTreeMap,
    sync::{Arc, Once},
};

use ophidian_scan::{
    Args, Entry, Error, Geometry, Modifier, Order, Param, Plan, Points, Real, Result, Rule, Value, register,
};

/// Makes the scans of this crate usable in pattern strings.
pub fn register_scans() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        for entry in entries() {
            // A user's crate may have taken the name before.
            let _ = register(entry);
        }
    });
}

fn entries() -> [Entry; 2] {
    let spatial = |args: &Args| -> Result<Arc<dyn Modifier>> {
        let reset = args.flag("reset")?;
        Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| spatial_first(source, geometry, reset)))
    };
    let temporal = |args: &Args| -> Result<Arc<dyn Modifier>> {
        let (cell, reset) = (args.real("cell")? as f32, args.flag("reset")?);
        Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
            temporal_first(source, geometry, cell, reset)
        }))
    };
    let cell = Real::new(0.25).map_or(Value::Int(1), Value::Real);
    [
        Entry::modifier(
            "spatial-first",
            "frame after frame of a cloud over time, each along the walk; the state runs on unless reset=true",
            spatial,
        )
        .params([Param::flag("reset", false)])
        .on("points"),
        Entry::modifier(
            "temporal-first",
            "cell after cell along the walk, each through all frames of a cloud over time before the next",
            temporal,
        )
        .params([Param::positive("cell").or(cell), Param::flag("reset", false)])
        .on("points"),
    ]
}

fn points(geometry: &Geometry) -> Result<&Points> {
    match geometry {
        Geometry::Points(points) => Ok(points),
        _ => Err(Error::Plan(format!("a scan over frames of points was given {}", geometry.describe()))),
    }
}

/// The walk of `source` in each frame, frame after frame.
fn spatial_first(source: &dyn Rule, geometry: &Geometry, reset: bool) -> Result<Plan> {
    let points = points(geometry)?;
    let starts = points.starts();
    let frame = |token: i32| {
        usize::try_from(token).map_or(0, |token| starts.partition_point(|start| *start <= token))
    };
    // A walk over packed points visits sample after sample and starts afresh at each.
    let run = |order: &Order| {
        let pairs = order.index().windows(2).map(|pair| frame(pair[0]) != frame(pair[1]));
        let bounds: Vec<bool> = std::iter::once(false).chain(pairs).collect();
        let resets = order.resets().iter().zip(&bounds).map(|(own, bound)| if *bound { reset } else { *own });
        let resets = resets.collect();
        order.clone().with_resets(resets)
    };
    Plan::new(source.plan(geometry)?.orders().iter().map(run).collect::<Result<_>>()?)
}

/// The walk of `source` over cells of edge `cell` (all frames together), in each cell from the first frame to the last.
fn temporal_first(source: &dyn Rule, geometry: &Geometry, cell: f32, reset: bool) -> Result<Plan> {
    let points = points(geometry)?;
    // Tokens of each cell in their numbering, which is by frame.
    let mut cells: BTreeMap<[i64; 3], Vec<i32>> = BTreeMap::new();
    for (token, place) in (0i32..).zip(points.xyz()) {
        cells.entry(place.map(|x| (x / cell).floor() as i64)).or_default().push(token);
    }
    let middles = cells.keys().map(|at| at.map(|x| (x as f32 + 0.5) * cell)).collect();
    let plan = source.plan(&Geometry::Points(Arc::new(Points::new(middles)?)))?;
    let members: Vec<&Vec<i32>> = cells.values().collect();
    let tokens = points.len();
    let expand = |order: &Order| {
        let (mut index, mut resets) = (Vec::with_capacity(tokens), Vec::with_capacity(tokens));
        for (cell, own) in order.index().iter().zip(order.resets()) {
            let Some(members) = usize::try_from(*cell).ok().and_then(|cell| members.get(cell)) else {
                continue;
            };
            for (at, token) in members.iter().enumerate() {
                resets.push(at == 0 && !index.is_empty() && (reset || *own));
                index.push(*token);
            }
        }
        Order::new(index, tokens)?.with_blank(order.blank()).with_resets(resets)
    };
    Plan::new(plan.orders().iter().map(expand).collect::<Result<_>>()?)
}
