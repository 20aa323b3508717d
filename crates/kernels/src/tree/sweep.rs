//! The sweeps over one sample's block of channels.

use std::{
    marker::PhantomData,
    ops::{Add, Mul, Range, Sub},
};

use super::order::Walk;
use crate::{View, ViewMut, simd::Simd};

/// An element type.
pub(super) trait Float: Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> {
    const ZERO: Self;
}

impl Float for f32 {
    const ZERO: f32 = 0.0;
}

impl Float for f64 {
    const ZERO: f64 = 0.0;
}

/// A block of channels of every node of a sample.
pub(super) struct Rows<'a, T> {
    at: *mut T,
    stride: usize,
    width: usize,
    of: PhantomData<&'a T>,
}

impl<T: Float> Rows<'_, T> {
    /// # Safety
    /// Rows of `width` elements every `stride` from `at` on, for every node that is asked for.
    #[inline(always)]
    pub unsafe fn at(at: *mut T, stride: usize, width: usize) -> Self {
        Rows { at, stride, width, of: PhantomData }
    }

    /// # Safety
    /// The view was checked, is of type T, and is only read.
    #[inline(always)]
    pub unsafe fn read(view: &View, b: usize, channels: Range<usize>) -> Self {
        let stride = view.offset(0, 1, 0, 0);
        let from = view.offset(b, 0, 0, 0) + channels.start;
        unsafe { Rows::at(view.ptr().cast::<T>().cast_mut().add(from), stride, channels.len()) }
    }

    /// # Safety
    /// The view was checked and is of type T; no other task has these channels.
    #[inline(always)]
    pub unsafe fn write(view: &ViewMut, b: usize, channels: Range<usize>) -> Self {
        let stride = view.offset(0, 1, 0, 0);
        let from = view.offset(b, 0, 0, 0) + channels.start;
        unsafe { Rows::at(view.ptr::<T>().add(from), stride, channels.len()) }
    }

    /// Copies every row, and asks for those of `soon`, which a sweep is to read: along memory here, which hardware helps
    /// with, and in the order of a tree there.
    ///
    /// # Safety
    /// Both have rows for `nodes` nodes, of the same width.
    #[inline(always)]
    pub unsafe fn copy_from<S: Simd>(&self, other: &Self, nodes: usize, soon: Option<&Self>) {
        for node in 0..nodes as u32 {
            unsafe {
                if let Some(rows) = soon {
                    let row = rows.row(node).cast::<u8>();
                    for byte in (0..self.width * size_of::<T>()).step_by(64) {
                        S::prefetch_second(row.wrapping_add(byte));
                    }
                }
                std::ptr::copy(other.row(node), self.row(node), self.width)
            }
        }
    }

    #[inline(always)]
    fn row(&self, node: u32) -> *mut T {
        self.at.wrapping_add(node as usize * self.stride)
    }
}

/// `to[i] = f(i)`, sixteen at a time: as many have a length that the compiler knows, and are read before they are written, so
/// that no alias stands in the way of vectors.
#[inline(always)]
unsafe fn fill<T: Float>(to: *mut T, width: usize, f: impl Fn(usize) -> T) {
    let whole = width / 16 * 16;
    for start in (0..whole).step_by(16) {
        let mut some = [T::ZERO; 16];
        for (i, value) in some.iter_mut().enumerate() {
            *value = f(start + i);
        }
        unsafe { to.add(start).cast::<[T; 16]>().write_unaligned(some) }
    }
    for i in whole..width {
        unsafe { *to.add(i) = f(i) }
    }
}

/// Adds every subtree up, in place: a_parent += d a.
#[inline(always)]
pub(super) unsafe fn up<T: Float>(walk: &Walk, decay: &Rows<T>, a: &Rows<T>) {
    for &(node, parent) in walk.steps[walk.roots..].iter().rev() {
        let (d, from, to) = (decay.row(node), a.row(node), a.row(parent));
        unsafe { fill(to, a.width, |i| *to.add(i) + *d.add(i) * *from.add(i)) }
    }
}

/// From sums of subtrees to sums of the tree, in place: a += d (a_parent - d a).
#[inline(always)]
pub(super) unsafe fn down<T: Float>(walk: &Walk, decay: &Rows<T>, a: &Rows<T>) {
    for &(node, parent) in &walk.steps[walk.roots..] {
        let (d, from, to) = (decay.row(node), a.row(parent), a.row(node));
        unsafe { fill(to, a.width, |i| *to.add(i) + *d.add(i) * (*from.add(i) - *d.add(i) * *to.add(i))) }
    }
}

/// The transpose of [`up`], in place: e += d e_parent.
#[inline(always)]
pub(super) unsafe fn spread<T: Float>(walk: &Walk, decay: &Rows<T>, e: &Rows<T>) {
    for &(node, parent) in &walk.steps[walk.roots..] {
        let (d, from, to) = (decay.row(node), e.row(parent), e.row(node));
        unsafe { fill(to, e.width, |i| *to.add(i) + *d.add(i) * *from.add(i)) }
    }
}

/// Gradient of the decays of [`up`]: a e_parent, 0 at roots. No node waits for another: they go by their numbers.
#[inline(always)]
pub(super) unsafe fn decays_up<T: Float>(walk: &Walk, a: &Rows<T>, e: &Rows<T>, out: &Rows<T>) {
    for (node, parent, root) in walk.nodes() {
        let (a, e, to) = (a.row(node), e.row(parent), out.row(node));
        unsafe { fill(to, out.width, |i| if root { T::ZERO } else { *a.add(i) * *e.add(i) }) }
    }
}

/// Gradient of the decays of [`up`] and [`down`]: g (y_parent - d a) + a (e_parent - d g), 0 at roots. As [`decays_up`].
#[inline(always)]
pub(super) unsafe fn decays<T: Float>(
    walk: &Walk,
    decay: &Rows<T>,
    [a, y, g, e]: [&Rows<T>; 4],
    out: &Rows<T>,
) {
    for (node, parent, root) in walk.nodes() {
        let (d, a, g) = (decay.row(node), a.row(node), g.row(node));
        let (y, e, to) = (y.row(parent), e.row(parent), out.row(node));
        unsafe {
            fill(to, out.width, |i| {
                let (d, a, g) = (*d.add(i), *a.add(i), *g.add(i));
                if root { T::ZERO } else { g * (*y.add(i) - d * a) + a * (*e.add(i) - d * g) }
            });
        }
    }
}
