//! Walks over each part of a grid as a smaller grid of its own.

use super::turns::turned;
use super::{concatenated, longest, per_axis, sized, volume};
use crate::geometry::{Geometry, check_size, too_many};
use crate::{Error, Modifier, Order, Plan, Result, Rule};

/// `size` is [frames, height, width].
pub(super) fn window(source: &dyn Rule, geometry: &Geometry, size: [usize; 3], reset: bool) -> Result<Plan> {
    let size = per_axis("window", geometry, size, 1)?;
    let (frames, rows, columns) = geometry.sizes();
    windows("window", source, geometry, [frames, rows, columns], size, reset)
}

/// As many windows along each axis as `count` says (fewer if there are not so many tokens), as large as they must be.
/// QuadMamba pads rows and columns to multiples of 4 first, so that the last windows may hold nothing but blanks.
pub(super) fn tiles(
    source: &dyn Rule,
    geometry: &Geometry,
    count: [usize; 3],
    pad: usize,
    reset: bool,
) -> Result<Plan> {
    let [through, down, right] = per_axis("tiles", geometry, count, 1)?;
    let (frames, rows, columns) = geometry.sizes();
    let padded = |size: usize| size.checked_next_multiple_of(pad);
    let (Some(rows), Some(columns)) = (padded(rows), padded(columns)) else {
        return Err(too_many("`tiles`".into()));
    };
    let size = [frames.div_ceil(through), rows.div_ceil(down), columns.div_ceil(right)];
    windows("tiles", source, geometry, [frames, rows, columns], size, reset)
}

/// Windows of `size` over a grid that is padded at its ends to `sides`, both [frames, height, width].
fn windows(
    name: &str,
    source: &dyn Rule,
    geometry: &Geometry,
    sides: [usize; 3],
    size: [usize; 3],
    reset: bool,
) -> Result<Plan> {
    let (frames, rows, columns) = geometry.sizes();
    let tokens = geometry.tokens()?;
    let [depth, height, width] = size;
    let inner = sized(geometry, size);
    let count = (0..3).map(|axis| sides[axis].div_ceil(size[axis])).try_fold(1, usize::checked_mul);
    let each = inner.tokens()?;
    check_size(name, 1, count.and_then(|count| count.checked_mul(each)))?;
    let plan = source.plan(&inner)?;
    check_size(name, plan.directions(), count.and_then(|count| count.checked_mul(longest(&plan))))?;
    let places = || {
        let firsts = (0..sides[0]).step_by(depth);
        let tops = firsts.flat_map(|first| (0..sides[1]).step_by(height).map(move |top| (first, top)));
        tops.flat_map(|(first, top)| (0..sides[2]).step_by(width).map(move |left| (first, top, left)))
    };
    let along = |order: &Order| {
        concatenated(
            places().map(|(first, top, left)| {
                order.renumbered(tokens, |i| {
                    let line = i / width;
                    let (frame, row, column) = (first + line / height, top + line % height, left + i % width);
                    (frame < frames && row < rows && column < columns)
                        .then_some((frame * rows + row) * columns + column)
                })
            }),
            reset,
        )
    };
    Plan::new(plan.orders().iter().map(along).collect::<Result<_>>()?)
}

/// Each frame walked as a 2-D grid, one after another; `alternate` walks every other frame from its end to its start,
/// so that the walk goes on where it was.
pub(super) fn frames(source: &dyn Rule, geometry: &Geometry, alternate: bool, reset: bool) -> Result<Plan> {
    let (frames, height, width) = volume(geometry, "frames")?;
    let plan = source.plan(&Geometry::Grid2 { height, width })?;
    check_size("frames", plan.directions(), longest(&plan).checked_mul(frames))?;
    let along = |order: &Order| {
        let back = order.reversed();
        let one = |frame: usize| {
            let order = if alternate && frame % 2 == 1 { &back } else { order };
            order.renumbered(frames * height * width, |i| Some(frame * height * width + i))
        };
        concatenated((0..frames).map(one), reset)
    };
    Plan::new(plan.orders().iter().map(along).collect::<Result<_>>()?)
}

/// EfficientVMamba's ES2D: the tokens fall into step^2 classes by their row and column modulo `step`, each walked as a
/// smaller grid of its own. Class k holds rows `k % step` and columns `k / step`; all have the size of the largest,
/// with blanks at bottom and right. Frames stay together.
pub(super) struct Atrous {
    pub(super) step: usize,
    pub(super) joined: bool,
    pub(super) alternate: bool,
    pub(super) reset: bool,
    /// As the released code: four classes whatever the step, so that a step above 2 leaves tokens out.
    pub(super) compat: bool,
}

impl Modifier for Atrous {
    fn plan(&self, source: &dyn Rule, geometry: &Geometry) -> Result<Plan> {
        let [_, down, right] = per_axis("atrous", geometry, [1, self.step, self.step], 1)?;
        let (frames, rows, columns) = geometry.sizes();
        let (height, width) = (rows.div_ceil(down), columns.div_ceil(right));
        let inner = sized(geometry, [frames, height, width]);
        let most = if self.compat { 2 } else { usize::MAX };
        let (over_rows, over_columns) = (down.min(most), right.min(most));
        let classes = over_rows.saturating_mul(over_columns);
        let (walks, parts) = if self.joined { (1, classes) } else { (classes, 1) };
        check_size("atrous", walks, parts.checked_mul(inner.tokens()?))?;
        let plan = source.plan(&inner)?;
        check_size("atrous", plan.directions().saturating_mul(walks), longest(&plan).checked_mul(parts))?;
        let turned = match inner {
            Geometry::Sequence { .. } => None,
            _ if self.alternate && classes > 1 => Some(turned(source, &plan, &inner)?),
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
            plan.orders()[d].renumbered(frames * rows * columns, |i| {
                let line = i / width;
                let row = k % over_rows + line % height * down;
                let column = k / over_rows + i % width * right;
                (row < rows && column < columns).then_some((line / height * rows + row) * columns + column)
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
