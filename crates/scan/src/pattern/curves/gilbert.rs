//! Červený's generalised Hilbert curve (<https://github.com/jakubcerveny/gilbert>).
//!
//! A box is known by its start corner and three edges, the first of which leads to the end corner. It is parted into
//! smaller boxes whose start and end corners touch, halves of even length if they can be, until they are lines.

use std::array::from_fn;

use super::{Sides, one};
use crate::geometry::Geometry;
use crate::{Plan, Result};

/// A vector along one axis of the grid, or the sum of such.
type Vector = [i32; 3];

fn plus(a: Vector, b: Vector) -> Vector {
    from_fn(|axis| a[axis] + b[axis])
}

fn minus(a: Vector, b: Vector) -> Vector {
    from_fn(|axis| a[axis] - b[axis])
}

fn negative(a: Vector) -> Vector {
    a.map(|x| -x)
}

/// Its length, as it lies along one axis.
fn length(a: Vector) -> i32 {
    a.iter().sum::<i32>().abs()
}

/// One step in its direction.
fn unit(a: Vector) -> Vector {
    a.map(i32::signum)
}

/// Half of it, rounded down (not towards zero, as the published curve has it) and then made even where there is room.
fn half(a: Vector) -> Vector {
    let half = a.map(|x| x.div_euclid(2));
    if length(half) % 2 == 1 && length(a) > 2 { plus(half, unit(a)) } else { half }
}

struct Walk {
    /// What a step along each axis adds to the token's number.
    strides: [i32; 3],
    index: Vec<i32>,
}

impl Walk {
    /// All cells from `at` along one edge.
    fn line(&mut self, at: Vector, edge: Vector) {
        let number = |v: Vector| v.iter().zip(self.strides).map(|(x, stride)| x * stride).sum::<i32>();
        let (start, step) = (number(at), number(unit(edge)));
        self.index.extend((0..length(edge)).map(|i| start + i * step));
    }

    /// A rectangle from `at` to the end of `a`; recurses as often as its sides can be halved.
    fn rectangle(&mut self, at: Vector, a: Vector, b: Vector) {
        if length(b) == 1 {
            return self.line(at, a);
        }
        if length(a) == 1 {
            return self.line(at, b);
        }
        if 2 * length(a) > 3 * length(b) {
            let a2 = half(a);
            self.rectangle(at, a2, b);
            self.rectangle(plus(at, a2), minus(a, a2), b);
            return;
        }
        // Up, along, and down again.
        let (a2, b2) = (a.map(|x| x.div_euclid(2)), half(b));
        self.rectangle(at, b2, a2);
        self.rectangle(plus(at, b2), a, minus(b, b2));
        let back = plus(minus(a, unit(a)), minus(b2, unit(b)));
        self.rectangle(plus(at, back), negative(b2), negative(minus(a, a2)));
    }

    /// A box from `at` to the end of `a`; recurses as often as its sides can be halved.
    fn cuboid(&mut self, at: Vector, a: Vector, b: Vector, c: Vector) {
        let (width, height, depth) = (length(a), length(b), length(c));
        match (width, height, depth) {
            (_, 1, 1) => return self.line(at, a),
            (1, _, 1) => return self.line(at, b),
            (1, 1, _) => return self.line(at, c),
            _ => {}
        }
        let (a2, b2, c2) = (half(a), half(b), half(c));
        // The corner at the end of `a`, and what is left of it behind the halves.
        let (end, rest) = (minus(a, unit(a)), negative(minus(a, a2)));
        if 2 * width > 3 * height && 2 * width > 3 * depth {
            self.cuboid(at, a2, b, c);
            self.cuboid(plus(at, a2), minus(a, a2), b, c);
        } else if 3 * height > 4 * depth {
            self.cuboid(at, b2, c, a2);
            self.cuboid(plus(at, b2), a, minus(b, b2), c);
            self.cuboid(plus(at, plus(end, minus(b2, unit(b)))), negative(b2), c, rest);
        } else if 3 * depth > 4 * height {
            self.cuboid(at, c2, a2, b);
            self.cuboid(plus(at, c2), a, b, minus(c, c2));
            self.cuboid(plus(at, plus(end, minus(c2, unit(c)))), negative(c2), rest, b);
        } else {
            let (low, far) = (minus(b2, unit(b)), minus(c, unit(c)));
            self.cuboid(at, b2, c2, a2);
            self.cuboid(plus(at, b2), c, a2, minus(b, b2));
            self.cuboid(plus(at, plus(low, far)), a, negative(b2), negative(minus(c, c2)));
            self.cuboid(plus(at, plus(end, plus(b2, far))), negative(c), rest, minus(b, b2));
            self.cuboid(plus(at, plus(end, low)), negative(b2), c2, rest);
        }
    }
}

/// From the first token to the other end of the longest side (the first of the longest ones). Every step leads to a
/// neighbour, but for a single diagonal one over a rectangle whose long side is odd and whose short side is even, and
/// some over boxes with odd sides.
pub(super) fn gilbert(geometry: &Geometry) -> Result<Plan> {
    let sides = Sides::of(geometry, "gilbert")?;
    let tokens = geometry.tokens()?;
    let edge = |axis: usize, size: usize| -> Vector { from_fn(|i| if i == axis { size as i32 } else { 0 }) };
    let mut walk = Walk { strides: [0; 3], index: Vec::with_capacity(tokens) };
    match sides {
        Sides::Two([height, width]) => {
            walk.strides = [width as i32, 1, 0];
            let (down, right) = (edge(0, height), edge(1, width));
            if height >= width {
                walk.rectangle([0; 3], down, right);
            } else {
                walk.rectangle([0; 3], right, down);
            }
        }
        Sides::Three([frames, height, width]) => {
            walk.strides = [(height * width) as i32, width as i32, 1];
            let (through, down, right) = (edge(0, frames), edge(1, height), edge(2, width));
            if frames >= height && frames >= width {
                walk.cuboid([0; 3], through, down, right);
            } else if height >= width {
                walk.cuboid([0; 3], down, through, right);
            } else {
                walk.cuboid([0; 3], right, through, down);
            }
        }
    }
    one(walk.index, tokens)
}
