//! Strided views of what a kernel reads and writes.

use crate::{Error, Result};

/// Element type of a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtype {
    /// 32-bit float.
    F32,
    /// bfloat16, read only.
    Bf16,
    /// 64-bit float, for the wide reference kernels only.
    F64,
}

impl Dtype {
    /// Bytes of an element.
    pub(crate) fn size(self) -> usize {
        match self {
            Dtype::Bf16 => 2,
            Dtype::F32 => 4,
            Dtype::F64 => 8,
        }
    }
}

/// Distance in elements from one index to the next, per axis. The last axis (channels, states) is contiguous.
/// A direction stride of 0 shares the data among all directions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strides {
    /// From one sample to the next.
    pub batch: usize,
    /// From one token to the next.
    pub token: usize,
    /// From one direction to the next.
    pub direction: usize,
    /// From one group to the next (B and C only).
    pub group: usize,
}

impl Strides {
    /// Contiguous (batch, tokens, directions, groups, width).
    pub fn contiguous(tokens: usize, directions: usize, groups: usize, width: usize) -> Self {
        Strides {
            batch: tokens * directions * groups * width,
            token: directions * groups * width,
            direction: groups * width,
            group: width,
        }
    }

    /// Contiguous (batch, tokens, width), the same for every direction.
    pub fn shared(tokens: usize, width: usize) -> Self {
        Strides { batch: tokens * width, token: width, direction: 0, group: 0 }
    }
}

/// Logical extent of a view: batch, tokens, directions, groups, width.
pub(crate) type Extent = [usize; 5];

/// Something a kernel reads.
#[derive(Clone, Copy)]
pub struct View<'a> {
    ptr: *const u8,
    dtype: Dtype,
    len: usize,
    strides: Strides,
    of: std::marker::PhantomData<&'a ()>,
}

// Safety: a view is a borrow of plain numbers; the kernels' tasks write disjoint parts of a mutable one.
unsafe impl Send for View<'_> {}
unsafe impl Sync for View<'_> {}

/// Something a kernel writes. Tasks write disjoint parts.
pub struct ViewMut<'a> {
    view: View<'a>,
}

macro_rules! constructors {
    ($($name:ident, $type:ty, $dtype:ident;)*) => {$(
        #[doc = concat!("A view of `", stringify!($type), "`.")]
        pub fn $name(data: &'a [$type], strides: Strides) -> Self {
            // Safety: the slice is borrowed for 'a.
            unsafe { Self::from_raw(data.as_ptr().cast(), Dtype::$dtype, data.len(), strides) }
        }
    )*};
}

impl<'a> View<'a> {
    constructors! { f32, f32, F32; bf16, half::bf16, Bf16; f64, f64, F64; }

    /// A view of `len` elements at `ptr`.
    ///
    /// # Safety
    /// `len` elements of `dtype` at `ptr` stay readable and unchanged for `'a`.
    pub unsafe fn from_raw(ptr: *const u8, dtype: Dtype, len: usize, strides: Strides) -> Self {
        View { ptr, dtype, len, strides, of: std::marker::PhantomData }
    }

    /// Element type.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Fails unless every index below `extent` lies inside the data.
    pub(crate) fn check(&self, name: &'static str, extent: Extent) -> Result<()> {
        if extent.contains(&0) {
            return Ok(());
        }
        let steps = [self.strides.batch, self.strides.token, self.strides.direction, self.strides.group, 1];
        let last = extent.iter().zip(steps).try_fold(0usize, |sum, (n, step)| {
            (n - 1).checked_mul(step).and_then(|offset| sum.checked_add(offset))
        });
        match last {
            Some(last) if last < self.len => Ok(()),
            _ => Err(Error::OutOfBounds { name, extent, strides: self.strides, len: self.len }),
        }
    }

    #[inline(always)]
    pub(crate) fn offset(&self, b: usize, token: usize, k: usize, g: usize) -> usize {
        let s = &self.strides;
        b * s.batch + token * s.token + k * s.direction + g * s.group
    }

    #[inline(always)]
    pub(crate) fn ptr(&self) -> *const u8 {
        self.ptr
    }

    /// One element as f64.
    #[inline(always)]
    pub(crate) fn get(&self, offset: usize) -> f64 {
        // Safety: `check` was called with the extent that `offset` lies in.
        unsafe {
            match self.dtype {
                Dtype::F32 => f64::from(*self.ptr.cast::<f32>().add(offset)),
                Dtype::Bf16 => (*self.ptr.cast::<half::bf16>().add(offset)).to_f64(),
                Dtype::F64 => *self.ptr.cast::<f64>().add(offset),
            }
        }
    }
}

impl<'a> ViewMut<'a> {
    /// A view of `f32`.
    pub fn f32(data: &'a mut [f32], strides: Strides) -> Self {
        // Safety: the slice is borrowed mutably for 'a.
        unsafe { Self::from_raw(data.as_mut_ptr().cast(), Dtype::F32, data.len(), strides) }
    }

    /// A view of `f64`.
    pub fn f64(data: &'a mut [f64], strides: Strides) -> Self {
        // Safety: the slice is borrowed mutably for 'a.
        unsafe { Self::from_raw(data.as_mut_ptr().cast(), Dtype::F64, data.len(), strides) }
    }

    /// A view of `len` elements at `ptr`.
    ///
    /// # Safety
    /// `len` elements of `dtype` at `ptr` stay readable, writable and free of other users for `'a`.
    pub unsafe fn from_raw(ptr: *mut u8, dtype: Dtype, len: usize, strides: Strides) -> Self {
        // Safety: passed on.
        ViewMut { view: unsafe { View::from_raw(ptr, dtype, len, strides) } }
    }

    pub(crate) fn check(&self, name: &'static str, extent: Extent, dtype: Dtype) -> Result<()> {
        if self.view.dtype != dtype {
            return Err(Error::Dtype { name, found: self.view.dtype, expected: dtype });
        }
        self.view.check(name, extent)?;
        // Tasks write their parts at once: no two indices may be one element, but for directions that share all.
        let s = self.view.strides;
        let mut axes =
            [(s.batch, extent[0]), (s.token, extent[1]), (s.direction, extent[2]), (s.group, extent[3])];
        if s.direction == 0 {
            axes[2].1 = 1;
        }
        axes.sort_unstable();
        let mut reach = extent[4];
        for (stride, n) in axes.into_iter().filter(|(_, n)| *n > 1) {
            if stride < reach && !extent.contains(&0) {
                return Err(Error::Shape(format!(
                    "`{name}` overlaps itself: strides {s:?} for extent {extent:?}"
                )));
            }
            reach += stride * (n - 1);
        }
        Ok(())
    }

    /// What it covers, for kernels that write it through raw pointers.
    pub(crate) fn view(&self) -> &View<'a> {
        &self.view
    }

    #[inline(always)]
    pub(crate) fn offset(&self, b: usize, token: usize, k: usize, g: usize) -> usize {
        self.view.offset(b, token, k, g)
    }

    #[inline(always)]
    pub(crate) fn ptr<T>(&self) -> *mut T {
        self.view.ptr as *mut T
    }

    /// Sets the whole extent to zero, whatever the strides.
    pub(crate) fn zero(&self, extent: Extent) {
        let [batch, tokens, directions, groups, width] = extent;
        let size = if self.view.dtype == Dtype::F64 { 8 } else { 4 };
        for b in 0..batch {
            for k in 0..directions {
                for t in 0..tokens {
                    for g in 0..groups {
                        let at = self.offset(b, t, k, g) * size;
                        // Safety: checked extent; zero bytes are the number zero.
                        unsafe { std::ptr::write_bytes(self.ptr::<u8>().add(at), 0, width * size) }
                    }
                }
            }
        }
    }
}
