//! The same walk over a grid that is turned, mirrored, moved or laid out otherwise.

use super::{grid, per_axis, renumbered, sized, volume};
use crate::geometry::Geometry;
use crate::{Plan, Result, Rule};

pub(super) fn transpose(source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
    let (frames, height, width) = grid(geometry, "transpose")?;
    transposed(&source.plan(&sized(geometry, [frames, width, height]))?, geometry)
}

/// [`transpose`] where `source`'s plan over the grid itself is known: that of a square is not made again, so that a
/// chain of these does not double the work with every link.
pub(super) fn turned(source: &dyn Rule, plan: &Plan, geometry: &Geometry) -> Result<Plan> {
    let (_, height, width) = geometry.sizes();
    if height == width { transposed(plan, geometry) } else { transpose(source, geometry) }
}

/// A plan over frames of `width` rows and `height` columns as one over frames of `height` rows and `width` columns.
fn transposed(plan: &Plan, geometry: &Geometry) -> Result<Plan> {
    let (frames, height, width) = geometry.sizes();
    let frame = height * width;
    renumbered(plan, frames * frame, |i| i / frame * frame + i % height * width + i % frame / height)
}

/// Each frame turned clockwise: what stood in the top row stands in the right column after one quarter. So the row
/// order turned by k quarters reads an image that was turned back by k, which is VMamba's `rot90(x, k)`.
pub(super) fn rotate(source: &dyn Rule, geometry: &Geometry, quarters: i64) -> Result<Plan> {
    let (frames, height, width) = grid(geometry, "rotate")?;
    let (frame, quarters) = (height * width, quarters.rem_euclid(4));
    let odd = quarters % 2 == 1;
    let plan =
        if odd { source.plan(&sized(geometry, [frames, width, height]))? } else { source.plan(geometry)? };
    renumbered(&plan, frames * frame, |i| {
        let (start, i) = (i / frame * frame, i % frame);
        start
            + match quarters {
                0 => i,
                1 => i % height * width + width - 1 - i / height,
                2 => frame - 1 - i,
                _ => (height - 1 - i % height) * width + i / height,
            }
    })
}

/// `axis` is `rows` (upside down), `columns` (left and right) or `frames` (last first).
pub(super) fn mirror(source: &dyn Rule, geometry: &Geometry, axis: &str) -> Result<Plan> {
    let sizes = if axis == "frames" { volume(geometry, "mirror(frames)") } else { grid(geometry, "mirror") };
    let (frames, height, width) = sizes?;
    // The tokens that one step along the axis is apart, and how many steps there are.
    let (stride, size) = match axis {
        "columns" => (1, width),
        "rows" => (width, height),
        _ => (height * width, frames),
    };
    renumbered(&source.plan(geometry)?, frames * height * width, |i| {
        let at = i / stride % size;
        i - at * stride + (size - 1 - at) * stride
    })
}

/// `order` names the axes of the grid that `source` walks, the slowest first: its rows are `geometry`'s frames if the
/// second letter is `t`, and so on.
pub(super) fn axes(source: &dyn Rule, geometry: &Geometry, order: &str) -> Result<Plan> {
    let (frames, height, width) = volume(geometry, "axes")?;
    let (mut sizes, mut strides) = ([1; 3], [0; 3]);
    for (place, axis) in order.chars().take(3).enumerate() {
        (sizes[place], strides[place]) = match axis {
            't' => (frames, height * width),
            'h' => (height, width),
            _ => (width, 1),
        };
    }
    let [_, rows, columns] = sizes;
    renumbered(&source.plan(&sized(geometry, sizes))?, frames * height * width, |i| {
        i / (rows * columns) * strides[0] + i / columns % rows * strides[1] + i % columns * strides[2]
    })
}

/// `by` is [frames, down, right].
pub(super) fn shift(source: &dyn Rule, geometry: &Geometry, by: [i64; 3]) -> Result<Plan> {
    let by = per_axis("shift", geometry, by, 0)?;
    let plan = source.plan(geometry)?;
    let (frames, rows, columns) = geometry.sizes();
    let wrap = |by: i64, size: usize| by.rem_euclid(size as i64) as usize;
    let (on, down, right) = (wrap(by[0], frames), wrap(by[1], rows), wrap(by[2], columns));
    renumbered(&plan, frames * rows * columns, |i| {
        let (frame, row, column) = (i / columns / rows, i / columns % rows, i % columns);
        ((frame + on) % frames * rows + (row + down) % rows) * columns + (column + right) % columns
    })
}

/// The walk over one image that holds all frames: H x FW with the frames side by side or column w of each frame before
/// column w + 1 of any, or FH x W with the frames below each other. `count` frames, or any number if that is 0.
pub(super) fn montage(source: &dyn Rule, geometry: &Geometry, layout: &str, count: usize) -> Result<Plan> {
    let (frames, height, width) = volume(geometry, "montage")?;
    if count != 0 && frames != count {
        let needed = format!("{count} frames");
        return Err(geometry.unfit("montage", &needed, &format!("such a shape is {count}x{height}x{width}")));
    }
    let (rows, columns) = match layout {
        "below" => (frames * height, width),
        _ => (height, frames * width),
    };
    let plan = source.plan(&Geometry::Grid2 { height: rows, width: columns })?;
    renumbered(&plan, frames * height * width, |i| {
        let (row, column) = (i / columns, i % columns);
        match layout {
            "below" => i,
            "beside" => (column / width * height + row) * width + column % width,
            _ => (column % frames * height + row) * width + column / frames,
        }
    })
}
