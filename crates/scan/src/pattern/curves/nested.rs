//! Curves that part a cube into b^N smaller ones, each walked likewise: Hilbert, Morton, Peano.
//!
//! On a grid that is no such cube, the order is that of the smallest cube around the grid, with the cells outside left
//! out. Smaller cubes that lie outside as a whole are never entered, so a thin grid costs no more than its tokens times
//! the number of levels.

use super::{Sides, one};
use crate::geometry::Geometry;
use crate::{Error, Plan, Result};

/// Most bits per axis of a cube.
pub(super) const MOST_BITS: u32 = 31;

/// How a curve parts a cube: a state is what the levels above have done to the levels below.
trait Nested<const N: usize>: Copy {
    /// Parts per axis.
    const BASE: usize;

    /// Where on each axis (0 to BASE - 1) the part lies that is visited `rank`-th, and the state inside it.
    fn part(self, rank: usize) -> ([usize; N], Self);
}

/// Walks the part of the cube at `corner` that lies in the grid; recurses once per level.
fn visit<const N: usize, C: Nested<N>>(
    state: C,
    corner: [usize; N],
    side: usize,
    sizes: &[usize; N],
    index: &mut Vec<i32>,
) {
    if side == 1 {
        index.push(corner.iter().zip(sizes).fold(0, |token, (at, size)| token * size + at) as i32);
        return;
    }
    let side = side / C::BASE;
    for rank in 0..C::BASE.pow(N as u32) {
        let (place, inside) = state.part(rank);
        let corner: [usize; N] = std::array::from_fn(|axis| corner[axis] + place[axis] * side);
        if corner.iter().zip(sizes).all(|(at, size)| at < size) {
            visit(inside, corner, side, sizes, index);
        }
    }
}

/// The walk over the grid of `sizes` inside the smallest cube around it, or one of at least `levels` levels.
fn walk<const N: usize, C: Nested<N>>(state: C, sizes: [usize; N], levels: u32) -> Result<Plan> {
    let tokens = sizes.iter().product();
    let mut side = C::BASE.pow(levels);
    while sizes.iter().any(|size| *size > side) {
        side *= C::BASE;
    }
    let mut index = Vec::with_capacity(tokens);
    visit(state, [0; N], side, &sizes, &mut index);
    one(index, tokens)
}

/// Z-order: one bit of each axis per level, the first axis the most significant.
#[derive(Clone, Copy)]
struct Morton;

impl<const N: usize> Nested<N> for Morton {
    const BASE: usize = 2;

    fn part(self, rank: usize) -> ([usize; N], Morton) {
        (std::array::from_fn(|axis| rank >> (N - 1 - axis) & 1), Morton)
    }
}

pub(super) fn morton(geometry: &Geometry) -> Result<Plan> {
    match Sides::of(geometry, "morton")? {
        Sides::Two(sizes) => walk(Morton, sizes, 0),
        Sides::Three(sizes) => walk(Morton, sizes, 0),
    }
}

/// Skilling's transform ("Programming the Hilbert curve", AIP 2004) one level at a time, from the top: what it does to
/// the lower bits of the coordinates is to exchange axes and to invert some, and what Gray decoding does to the lower
/// bits of the code is to invert all of them.
#[derive(Clone, Copy)]
struct Hilbert<const N: usize> {
    /// Which coordinate stands in each place, and whether its bits are inverted.
    axes: [(usize, bool); N],
    /// Whether the bits of the code are inverted.
    code: bool,
}

impl<const N: usize> Nested<N> for Hilbert<N> {
    const BASE: usize = 2;

    fn part(mut self, rank: usize) -> ([usize; N], Self) {
        let mut place = [0; N];
        let (axes, code) = (self.axes, self.code);
        let mut before = false;
        for (i, (axis, inverted)) in axes.into_iter().enumerate() {
            let gray = (rank >> (N - 1 - i) & 1 == 1) != code;
            let bit = gray != before;
            before = gray;
            place[axis] = usize::from(bit != inverted);
            if bit {
                self.axes[0].1 = !self.axes[0].1;
            } else {
                self.axes.swap(0, i);
            }
        }
        self.code = code != before;
        (place, self)
    }
}

/// The first axis is the most significant. `bits` forces the cube's side to 2^bits (0: the smallest that holds the
/// grid): the order changes with it, with a period of as many bits as there are axes.
pub(super) fn hilbert(geometry: &Geometry, bits: u32) -> Result<Plan> {
    fn order<const N: usize>(sizes: [usize; N], bits: u32) -> Result<Plan> {
        let longest = sizes.iter().copied().max().unwrap_or(1);
        if bits > 0 && longest > 1 << bits {
            let message = format!(
                "`hilbert(bits={bits})` fits sides of at most {}, but one is {longest}: leave `bits` out, or give at least {}",
                1u64 << bits,
                longest.next_power_of_two().trailing_zeros()
            );
            return Err(Error::Plan(message));
        }
        let axes = std::array::from_fn(|axis| (axis, false));
        walk(Hilbert { axes, code: false }, sizes, bits)
    }
    match Sides::of(geometry, "hilbert")? {
        Sides::Two(sizes) => order(sizes, bits),
        Sides::Three(sizes) => order(sizes, bits),
    }
}

/// Peano's own curve (1890): a digit of base 3 per axis and level, the first axis the most significant, mirrored if
/// the digits of the other axes before it have an odd sum.
#[derive(Clone, Copy)]
struct Peano<const N: usize> {
    /// Whether the digits of each axis so far have an odd sum.
    odd: [bool; N],
}

impl<const N: usize> Nested<N> for Peano<N> {
    const BASE: usize = 3;

    fn part(mut self, rank: usize) -> ([usize; N], Self) {
        let place = std::array::from_fn(|axis| {
            let digit = rank / 3usize.pow((N - 1 - axis) as u32) % 3;
            let others = self.odd.iter().enumerate().filter(|(other, odd)| **odd && *other != axis).count();
            self.odd[axis] ^= digit == 1;
            if others % 2 == 1 { 2 - digit } else { digit }
        });
        (place, self)
    }
}

pub(super) fn peano(geometry: &Geometry) -> Result<Plan> {
    match Sides::of(geometry, "peano")? {
        Sides::Two(sizes) => walk(Peano { odd: [false; 2] }, sizes, 0),
        Sides::Three(sizes) => walk(Peano { odd: [false; 3] }, sizes, 0),
    }
}
