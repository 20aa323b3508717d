//! Modifiers and sets: what makes new walks of given ones.

use std::sync::Arc;

use super::{Args, Entry, Modifier, Param, Rule};
use crate::geometry::{Geometry, check_size};
use crate::{Blank, Error, Order, Plan, Result};

pub(super) fn entries() -> Vec<Entry> {
    vec![
        Entry::modifier("bidirectional", "each direction, then each reversed (Vim)", plain(bidirectional))
            .as_set()
            .directed("2x"),
        Entry::modifier("cross", "each, transposed, and both reversed (VMamba's cross2d)", plain(cross))
            .as_set()
            .on("grid")
            .directed("4x"),
        Entry::modifier(
            "reverse",
            "from the end to the start",
            plain(|source, geometry| Ok(source.plan(geometry)?.reversed())),
        ),
        Entry::modifier("transpose", "rows and columns exchanged", plain(transpose)).on("grid"),
        Entry::modifier(
            "window",
            "inside each window, windows row by row, blanks at bottom and right (LocalMamba)",
            |args| {
                let (size, reset) = ((args.size("height")?, args.size("width")?), args.flag("reset")?);
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    window(source, geometry, size, reset)
                }))
            },
        )
        .params([
            Param::size("height"),
            Param::size("width").or_previous(),
            Param::flag("reset", false),
        ]),
        Entry::modifier(
            "atrous",
            "each class of tokens `step` apart, odd classes transposed (EfficientVMamba)",
            |args| {
                let atrous = Atrous {
                    step: args.size("step")?,
                    joined: args.flag("joined")?,
                    alternate: args.flag("alternate")?,
                    reset: args.flag("reset")?,
                };
                if atrous.reset && !atrous.joined {
                    return Err(Error::Plan(
                        "`reset` parts the classes of one joined order: it needs joined=true".into(),
                    ));
                }
                Ok(Arc::new(atrous))
            },
        )
        .params([
            Param::size("step"),
            Param::flag("joined", false),
            Param::flag("alternate", true),
            Param::flag("reset", false),
        ])
        .directed("step^2 x"),
        Entry::modifier(
            "shift",
            "the walk moved down and right, around the edges (negative: up, left)",
            |args| {
                let by = (args.int("down")?, args.int("right")?);
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| shift(source, geometry, by)))
            },
        )
        .params([Param::int("down"), Param::int("right").or_previous()]),
        Entry::modifier(
            "blanks",
            "what blank steps do: zero input, skip, or drop them from the walk",
            |args| {
                let change: fn(&Order) -> Order = match args.text("kind")? {
                    "zero" => |order| order.clone().with_blank(Blank::Zero),
                    "skip" => |order| order.clone().with_blank(Blank::Skip),
                    _ => Order::without_blanks,
                };
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    Plan::new(source.plan(geometry)?.orders().iter().map(change).collect())
                }))
            },
        )
        .params([Param::word("kind", &["zero", "skip", "drop"])]),
    ]
}

/// A modifier without arguments.
fn plain(
    plan: fn(&dyn Rule, &Geometry) -> Result<Plan>,
) -> impl Fn(&Args) -> Result<Arc<dyn Modifier>> + Send + Sync {
    move |_| Ok(Arc::new(plan))
}

/// Refuses `parts` times as many directions as `plan` has before they are made.
fn check_directions(name: &str, parts: usize, plan: &Plan) -> Result<()> {
    let longest = plan.orders().iter().map(Order::len).max();
    check_size(name, plan.directions().saturating_mul(parts), longest)
}

fn bidirectional(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    let plan = source.plan(geometry)?;
    check_directions("bidirectional", 2, &plan)?;
    let back = plan.reversed();
    plan.joined(back)
}

fn cross(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    let (height, width) = geometry.need_grid("cross")?;
    let plan = source.plan(geometry)?;
    check_directions("cross", 4, &plan)?;
    let turned = turned(source, &plan, height, width)?;
    let both = plan.joined(turned)?;
    let back = both.reversed();
    both.joined(back)
}

fn transpose(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    let (height, width) = geometry.need_grid("transpose")?;
    transposed(&source.plan(&Geometry::Grid2 { height: width, width: height })?, height, width)
}

/// [`transpose`] where `source`'s plan over the grid itself is known: that of a square is not made again, so that a
/// chain of these does not double the work with every link.
fn turned(source: &dyn Rule, plan: &Plan, height: usize, width: usize) -> Result<Plan> {
    if height == width {
        return transposed(plan, height, width);
    }
    transposed(&source.plan(&Geometry::Grid2 { height: width, width: height })?, height, width)
}

/// A plan over a grid of `width` rows and `height` columns as one over `height` rows and `width` columns.
fn transposed(plan: &Plan, height: usize, width: usize) -> Result<Plan> {
    let number = |i: usize| Some((i % height) * width + i / height);
    Plan::new(plan.orders().iter().map(|order| order.renumbered(height * width, number)).collect())
}

/// (rows, columns) of one size or shift per axis: a sequence takes the one that both share.
fn per_axis<T: Copy + PartialEq>(name: &str, geometry: &Geometry, pair: (T, T), none: T) -> Result<(T, T)> {
    match geometry {
        Geometry::Grid2 { .. } => Ok(pair),
        Geometry::Sequence { .. } if pair.0 == pair.1 => Ok((none, pair.1)),
        _ => Err(geometry.unfit(
            name,
            "a grid when it is given two different numbers",
            "give one number, or a shape such as 7x9",
        )),
    }
}

/// A geometry of the same kind as `like` with this many rows and columns.
fn sized(like: &Geometry, height: usize, width: usize) -> Geometry {
    match like {
        Geometry::Grid2 { .. } => Geometry::Grid2 { height, width },
        _ => Geometry::Sequence { len: width },
    }
}

fn window(source: &dyn Rule, geometry: &Geometry, size: (usize, usize), reset: bool) -> Result<Plan> {
    let (_, rows, columns) = geometry.sizes();
    let (height, width) = per_axis("window", geometry, size, 1)?;
    let inner = sized(geometry, height, width);
    let windows = rows.div_ceil(height) * columns.div_ceil(width);
    check_size("window", 1, windows.checked_mul(inner.tokens()?))?;
    let plan = source.plan(&inner)?;
    let longest = plan.orders().iter().map(Order::len).max().unwrap_or(0);
    check_size("window", plan.directions(), longest.checked_mul(windows))?;
    let places = (0..rows).step_by(height).flat_map(|r| (0..columns).step_by(width).map(move |c| (r, c)));
    let places: Vec<_> = places.collect();
    let along = |order: &Order| {
        concatenated(
            places.iter().map(|&(top, left)| {
                order.renumbered(rows * columns, |i| {
                    let (row, column) = (top + i / width, left + i % width);
                    (row < rows && column < columns).then_some(row * columns + column)
                })
            }),
            reset,
        )
    };
    Plan::new(plan.orders().iter().map(along).collect::<Result<_>>()?)
}

/// One walk of several over the same tokens, one after another; `reset` starts the state afresh at each but the first.
fn concatenated(parts: impl Iterator<Item = Order>, reset: bool) -> Result<Order> {
    let (mut index, mut resets, mut tokens, mut blank) = (Vec::new(), Vec::new(), 0, Blank::default());
    for part in parts {
        let start = resets.len();
        index.extend_from_slice(part.index());
        resets.extend_from_slice(part.resets());
        resets[start] |= reset && start > 0;
        (tokens, blank) = (part.tokens(), part.blank());
    }
    Order::new(index, tokens)?.with_blank(blank).with_resets(resets)
}

/// EfficientVMamba's ES2D: the tokens fall into step^2 classes by their row and column modulo `step`, each walked as a
/// smaller grid of its own. Class k holds rows `k % step` and columns `k / step`; all have the size of the largest,
/// with blanks at bottom and right.
struct Atrous {
    step: usize,
    joined: bool,
    alternate: bool,
    reset: bool,
}

impl Modifier for Atrous {
    fn plan(&self, source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
        let (_, rows, columns) = geometry.sizes();
        let (down, right) = per_axis("atrous", geometry, (self.step, self.step), 1)?;
        let (height, width) = (rows.div_ceil(down), columns.div_ceil(right));
        let inner = sized(geometry, height, width);
        let classes = down.saturating_mul(right);
        let (walks, parts) = if self.joined { (1, classes) } else { (classes, 1) };
        check_size("atrous", walks, parts.checked_mul(height * width))?;
        let plan = source.plan(&inner)?;
        let longest = plan.orders().iter().map(Order::len).max().unwrap_or(0);
        check_size("atrous", plan.directions().saturating_mul(walks), longest.checked_mul(parts))?;
        let turned = match inner {
            Geometry::Grid2 { .. } if self.alternate && classes > 1 => {
                Some(turned(source, &plan, height, width)?)
            }
            _ => None,
        };
        let directions = plan.directions();
        if let Some(turned) = turned.as_ref().filter(|turned| turned.directions() != directions) {
            let message = format!(
                "`atrous` needs as many directions of the transposed grid as of the grid, found {} and {directions}",
                turned.directions()
            );
            return Err(Error::Plan(message));
        }
        let walk = |k: usize, d: usize| {
            let plan = turned.as_ref().filter(|_| k % 2 == 1).unwrap_or(&plan);
            plan.orders()[d].renumbered(rows * columns, |i| {
                let (row, column) = (k % down + i / width * down, k / down + i % width * right);
                (row < rows && column < columns).then_some(row * columns + column)
            })
        };
        if self.joined {
            let joined = |d| concatenated((0..classes).map(|k| walk(k, d)), self.reset);
            return Plan::new((0..directions).map(joined).collect::<Result<_>>()?);
        }
        Plan::new(
            (0..classes)
                .flat_map(|k| (0..directions).map(move |d| (k, d)))
                .map(|(k, d)| walk(k, d))
                .collect(),
        )
    }
}

fn shift(source: &dyn Rule, geometry: &Geometry, by: (i64, i64)) -> Result<Plan> {
    let (_, rows, columns) = geometry.sizes();
    let by = per_axis("shift", geometry, by, 0)?;
    let wrap = |by: i64, size: usize| by.rem_euclid(size as i64) as usize;
    let plan = source.plan(geometry)?;
    let (down, right) = (wrap(by.0, rows), wrap(by.1, columns));
    let number = |i: usize| Some((i / columns + down) % rows * columns + (i % columns + right) % columns);
    Plan::new(plan.orders().iter().map(|order| order.renumbered(rows * columns, number)).collect())
}
