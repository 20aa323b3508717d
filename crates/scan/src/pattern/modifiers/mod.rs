//! Modifiers and sets: what makes new walks of given ones.

mod segments;
mod sets;
mod turns;
mod windows;

use std::sync::Arc;

use super::curves::grid;
use super::{Args, Entry, Modifier, Param, Rule, Value};
use crate::geometry::{Geometry, check_size};
use crate::{Blank, Error, Order, Plan, Result};

pub(super) fn entries() -> Vec<Entry> {
    [sets(), turned(), parted(), stepped()].into_iter().flatten().collect()
}

/// What makes several directions of each, or one of several.
fn sets() -> Vec<Entry> {
    vec![
        Entry::modifier(
            "bidirectional",
            "each direction, then each reversed (Vim)",
            plain(sets::bidirectional),
        )
        .as_set()
        .directed("2x"),
        Entry::modifier(
            "cross",
            "each, transposed, and both reversed (VMamba's cross2d)",
            plain(sets::cross),
        )
        .as_set()
        .on("grid")
        .directed("4x"),
        Entry::modifier(
            "rotations",
            "each, turned clockwise by 0, 1, 2 and 3 quarters (VMamba's rot90)",
            plain(sets::rotations),
        )
        .as_set()
        .on("grid")
        .directed("4x"),
        Entry::modifier("repeat", "all directions, `times` times over", |args| {
            let times = args.size("times")?;
            Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| sets::repeat(source, geometry, times)))
        })
        .params([Param::size("times")])
        .directed("times x"),
        Entry::modifier(
            "concat",
            "all directions one after another as a single one (MSVMamba, PointMamba)",
            |args| {
                let reset = args.flag("reset")?;
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    sets::concat(source, geometry, reset)
                }))
            },
        )
        .params([Param::flag("reset", false)])
        .directed("1 of all"),
    ]
}

/// What walks the same way over a grid that is turned, mirrored, moved or laid out otherwise.
fn turned() -> Vec<Entry> {
    vec![
        Entry::modifier(
            "reverse",
            "from the end to the start",
            plain(|source, geometry| Ok(source.plan(geometry)?.reversed())),
        ),
        Entry::modifier("transpose", "rows and columns exchanged", plain(turns::transpose)).on("grid"),
        Entry::modifier("rotate", "the walk turned clockwise by `quarters` quarters", |args| {
            let quarters = args.int("quarters")?;
            Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                turns::rotate(source, geometry, quarters)
            }))
        })
        .params([Param::int("quarters")])
        .on("grid"),
        Entry::modifier("mirror", "the walk mirrored: rows, columns or frames count from the other end", |args| {
            let axis = args.text("axis")?.to_string();
            Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                turns::mirror(source, geometry, &axis)
            }))
        })
        .params([Param::word("axis", &["rows", "columns", "frames"])])
        .on("grid"),
        Entry::modifier(
            "axes",
            "frames (t), rows (h) and columns (w) exchanged: `axes(hwt)` has t fastest (Mamba-ND)",
            |args| {
                let order = args.text("order")?.to_string();
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    turns::axes(source, geometry, &order)
                }))
            },
        )
        .params([Param::word("order", &["thw", "twh", "htw", "hwt", "wth", "wht"])])
        .on("3-D grid"),
        Entry::modifier(
            "shift",
            "the walk moved down, right and on, around the edges (negative: up, left and back)",
            |args| {
                let by = [args.int("frames")?, args.int("down")?, args.int("right")?];
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    turns::shift(source, geometry, by)
                }))
            },
        )
        .params([Param::int("down"), Param::int("right").or_previous(), Param::int("frames").or(Value::Int(0))]),
        Entry::modifier(
            "montage",
            "the frames (0: any number) as one image, side by side, below each other or column by column (ChangeMamba)",
            |args| {
                let (layout, frames) = (args.text("layout")?.to_string(), args.size("frames")?);
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    turns::montage(source, geometry, &layout, frames)
                }))
            },
        )
        .params([
            Param::word("layout", &["beside", "below", "interleaved"]),
            Param::count("frames").or(Value::Int(0)),
        ])
        .on("3-D grid"),
    ]
}

/// What walks each part of a grid as a smaller grid of its own.
fn parted() -> Vec<Entry> {
    vec![
        Entry::modifier(
            "window",
            "inside each window, windows row by row, blanks at bottom and right (LocalMamba)",
            |args| {
                let size = [args.size("frames")?, args.size("height")?, args.size("width")?];
                let reset = args.flag("reset")?;
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    windows::window(source, geometry, size, reset)
                }))
            },
        )
        .params([
            Param::size("height"),
            Param::size("width").or_previous(),
            Param::flag("reset", false),
            Param::size("frames").or(Value::Int(1)),
        ]),
        Entry::modifier(
            "tiles",
            "windows by their number, sides padded to multiples of `pad` before (QuadMamba's quadrants)",
            |args| {
                let count = [args.size("frames")?, args.size("down")?, args.size("right")?];
                let (reset, pad) = (args.flag("reset")?, args.size("pad")?);
                Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                    windows::tiles(source, geometry, count, pad, reset)
                }))
            },
        )
        .params([
            Param::size("down"),
            Param::size("right").or_previous(),
            Param::flag("reset", false),
            Param::size("pad").or(Value::Int(1)),
            Param::size("frames").or(Value::Int(1)),
        ]),
        Entry::modifier("frames", "each frame as a grid of its own, one after another", |args| {
            let (alternate, reset) = (args.flag("alternate")?, args.flag("reset")?);
            Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                windows::frames(source, geometry, alternate, reset)
            }))
        })
        .params([Param::flag("alternate", false), Param::flag("reset", false)])
        .on("3-D grid"),
        Entry::modifier(
            "atrous",
            "each class of tokens `step` apart, odd classes transposed (EfficientVMamba)",
            |args| {
                let atrous = windows::Atrous {
                    step: args.size("step")?,
                    joined: args.flag("joined")?,
                    alternate: args.flag("alternate")?,
                    reset: args.flag("reset")?,
                    compat: args.text("compat")? == "four-classes",
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
            Param::word("compat", &["none", "four-classes"]).or(Value::Text("none".into())),
        ])
        .directed("step^2 x"),
    ]
}

/// What changes the steps of a walk and not where they lead.
fn stepped() -> Vec<Entry> {
    vec![
        Entry::modifier("segment", "the state starts afresh at each row, column, frame or pixel", |args| {
            let by = args.text("by")?.to_string();
            Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                segments::segment(source, geometry, &by)
            }))
        })
        .params([Param::word("by", &["row", "column", "frame", "pixel"])])
        .on("grid"),
        Entry::modifier("chunk", "the state starts afresh after every `steps` steps", |args| {
            let steps = args.size("steps")?;
            Ok(Arc::new(move |source: &dyn Rule, geometry: &Geometry| {
                segments::chunk(source, geometry, steps)
            }))
        })
        .params([Param::size("steps")]),
        Entry::modifier(
            "inverse",
            "the step at which each token is visited, taken for an order (as ZigMa's code does)",
            plain(segments::inverse),
        ),
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
    check_size(name, plan.directions().saturating_mul(parts), Some(longest(plan)))
}

/// Steps of the longest direction.
fn longest(plan: &Plan) -> usize {
    plan.orders().iter().map(Order::len).max().unwrap_or(0)
}

/// (frames, rows, columns) of a grid of three axes, or an error that says what `name` needs.
fn volume(geometry: &Geometry, name: &str) -> Result<(usize, usize, usize)> {
    geometry.tokens()?;
    match geometry {
        Geometry::Grid3 { .. } => Ok(geometry.sizes()),
        _ => Err(geometry.unfit(
            name,
            "a grid of frames, rows and columns",
            "give a shape such as 4x7x9, or leave the modifier out",
        )),
    }
}

/// [frames, rows, columns] of one size or shift per axis: a sequence takes the one that rows and columns share, and
/// only a grid of frames takes another for them than `none`.
fn per_axis<T: Copy + PartialEq>(name: &str, geometry: &Geometry, given: [T; 3], none: T) -> Result<[T; 3]> {
    let [frames, down, right] = given;
    match geometry {
        Geometry::Grid3 { .. } => Ok(given),
        Geometry::Grid2 { .. } if frames == none => Ok(given),
        Geometry::Grid2 { .. } => Err(geometry.unfit(
            name,
            "a grid of frames when it is given a number for them",
            "leave `frames` out, or give a shape such as 4x7x9",
        )),
        Geometry::Sequence { .. } if frames == none && down == right => Ok([none, none, right]),
        Geometry::Sequence { .. } => Err(geometry.unfit(
            name,
            "a grid when it is given different numbers for its axes",
            "give one number, or a shape such as 7x9",
        )),
        _ => Err(geometry.unfit(
            name,
            "a sequence or a grid",
            "use `chunk` to part a walk over such tokens by its steps",
        )),
    }
}

/// A geometry of the same kind as `like` with these sizes.
fn sized(like: &Geometry, [frames, height, width]: [usize; 3]) -> Geometry {
    match like {
        Geometry::Grid3 { .. } => Geometry::Grid3 { frames, height, width },
        Geometry::Grid2 { .. } => Geometry::Grid2 { height, width },
        _ => Geometry::Sequence { len: width },
    }
}

/// `plan` with its tokens renumbered among `tokens` others; see [`Order::renumbered`].
fn renumbered(plan: &Plan, tokens: usize, number: impl Fn(usize) -> usize) -> Result<Plan> {
    let renumber = |order: &Order| order.renumbered(tokens, |i| Some(number(i)));
    Plan::new(plan.orders().iter().map(renumber).collect())
}

/// One walk of several over the same tokens, one after another; `reset` starts the state afresh at each but the first.
fn concatenated(parts: impl Iterator<Item = Order>, reset: bool) -> Result<Order> {
    let (mut index, mut resets, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    let (mut tokens, mut blank) = (0, Blank::default());
    for part in parts {
        let start = resets.len();
        index.extend_from_slice(part.index());
        resets.extend_from_slice(part.resets());
        silent.extend_from_slice(part.silent());
        resets[start] |= reset && start > 0;
        (tokens, blank) = (part.tokens(), part.blank());
    }
    Order::new(index, tokens)?.with_blank(blank).with_resets(resets)?.with_silent(silent)
}
