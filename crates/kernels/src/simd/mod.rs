//! The few vector operations the kernels need, over three instruction sets chosen at run time.
//!
//! A kernel is written once, generic over [`Simd`] and `#[inline(always)]`; `dispatch!` instantiates it
//! inside a function that carries the instruction set's `target_feature`s.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
pub mod math;
mod portable;

#[cfg(target_arch = "x86_64")]
pub use avx2::Avx2;
#[cfg(target_arch = "x86_64")]
pub use avx512::Avx512;
pub use portable::Portable;

/// Vectors of f32 of one instruction set.
///
/// # Safety
/// Every method may only be called on a processor that has the instruction set; loads and stores follow the rules
/// of raw pointers (no alignment is asked for).
#[allow(clippy::missing_safety_doc, missing_docs)]
pub trait Simd: Copy + 'static {
    type V: Copy;
    /// f32 values in a vector.
    const LANES: usize;
    /// Vector registers: with 32, eight states, their decays and the polynomial of [`Simd::decay`] fit at once.
    const REGISTERS: usize = 16;

    unsafe fn splat(x: f32) -> Self::V;
    unsafe fn load(p: *const f32) -> Self::V;
    unsafe fn store(p: *mut f32, v: Self::V);
    /// bfloat16 widened to f32.
    unsafe fn load_bf16(p: *const u16) -> Self::V;
    unsafe fn add(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn sub(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn mul(a: Self::V, b: Self::V) -> Self::V;
    unsafe fn div(a: Self::V, b: Self::V) -> Self::V;
    /// a * b + c
    unsafe fn fma(a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `max(x, lo)`, NaN in `x` kept.
    unsafe fn at_least(x: Self::V, lo: Self::V) -> Self::V;
    /// `min(x, hi)`, NaN in `x` kept.
    unsafe fn at_most(x: Self::V, hi: Self::V) -> Self::V;
    unsafe fn abs(x: Self::V) -> Self::V;
    unsafe fn neg(x: Self::V) -> Self::V;
    /// `a` where the sign bit of `x` is clear, else `b`.
    unsafe fn select_positive(x: Self::V, a: Self::V, b: Self::V) -> Self::V;
    /// 2^x: see [`math`] for the bound.
    unsafe fn exp2(x: Self::V) -> Self::V;
    /// e^x: see [`math`] for the bound.
    unsafe fn exp(x: Self::V) -> Self::V;
    /// e^x with results below 2^-126 flushed to 0 where that is faster: see [`math`] for the bound.
    #[inline(always)]
    unsafe fn exp_flushed(x: Self::V) -> Self::V {
        unsafe { Self::exp(x) }
    }
    /// 2^x as the recurrences need it, faster where the instruction set has no help for exponents: 2^0 is exactly 1,
    /// results below 2^-126 may be 0 and from 2^127 on infinite. The NaNs that arithmetic makes stay NaN; one made by
    /// hand, with low bits set, may not. See [`math`] for the bound.
    #[inline(always)]
    unsafe fn decay(x: Self::V) -> Self::V {
        unsafe { Self::exp2(x) }
    }
    /// [`Simd::decay`] of x <= 0.
    #[inline(always)]
    unsafe fn decay_below_one(x: Self::V) -> Self::V {
        unsafe { Self::decay(x) }
    }
    /// Sum of the lanes in an order that depends on nothing but the vector's width.
    unsafe fn sum(v: Self::V) -> f32;
    /// [`Simd::sum`] of each of eight vectors; the order of the additions may differ from it.
    #[inline(always)]
    unsafe fn sums(v: [Self::V; 8]) -> [f32; 8] {
        v.map(|v| unsafe { Self::sum(v) })
    }
    /// `to` becomes the transpose of `from`, `LANES` rows of `LANES` values each; rows lie `stride` and `to_stride` apart.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        for r in 0..Self::LANES {
            for c in 0..Self::LANES {
                unsafe { *to.add(c * to_stride + r) = *from.add(r * stride + c) }
            }
        }
    }
    /// Brings the cache line at `p` into the first-level cache; any address is fine.
    unsafe fn prefetch(p: *const u8);
    /// The same into the second level alone: for what is needed later, and would displace what is needed now.
    #[inline(always)]
    unsafe fn prefetch_second(p: *const u8) {
        unsafe { Self::prefetch(p) }
    }

    /// The first `n < LANES` values at `p`, zeros behind them.
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> Self::V {
        let mut lanes = [0f32; 16];
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load(lanes.as_ptr())
        }
    }

    /// As [`Simd::load_part`], from bfloat16.
    #[inline(always)]
    unsafe fn load_part_bf16(p: *const u16, n: usize) -> Self::V {
        let mut lanes = [0u16; 16];
        unsafe {
            std::ptr::copy_nonoverlapping(p, lanes.as_mut_ptr(), n);
            Self::load_bf16(lanes.as_ptr())
        }
    }

    /// Writes the first `n < LANES` lanes.
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: Self::V, n: usize) {
        let mut lanes = [0f32; 16];
        unsafe {
            Self::store(lanes.as_mut_ptr(), v);
            std::ptr::copy_nonoverlapping(lanes.as_ptr(), p, n);
        }
    }
}

/// Instruction sets a kernel can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isa {
    /// AVX-512 F, BW, DQ and VL: 16 lanes. Only to be had from [`Isa::available`].
    #[non_exhaustive]
    Avx512,
    /// AVX2 and FMA: 8 lanes. Only to be had from [`Isa::available`].
    #[non_exhaustive]
    Avx2,
    /// Plain Rust, 8 lanes, vectorised by the compiler as far as the build target allows (NEON on aarch64).
    Portable,
}

impl Isa {
    /// The widest instruction set of this processor, or the one named by the environment variable
    /// `OPHIDIAN_SIMD` (`avx512`, `avx2`, `portable`) if the processor has it. Looked up once.
    pub fn detect() -> Isa {
        static ISA: std::sync::OnceLock<Isa> = std::sync::OnceLock::new();
        *ISA.get_or_init(|| {
            let wanted = std::env::var("OPHIDIAN_SIMD").unwrap_or_default();
            let have = Isa::available();
            have.iter().copied().find(|isa| isa.name() == wanted).unwrap_or(have[0])
        })
    }

    /// Every instruction set this processor can run, widest first.
    pub fn available() -> Vec<Isa> {
        let mut found = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            if avx2
                && is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
            {
                found.push(Isa::Avx512);
            }
            if avx2 {
                found.push(Isa::Avx2);
            }
        }
        found.push(Isa::Portable);
        found
    }

    /// `avx512`, `avx2` or `portable`.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Avx512 => "avx512",
            Isa::Avx2 => "avx2",
            Isa::Portable => "portable",
        }
    }

    /// f32 lanes of a vector.
    pub fn lanes(self) -> usize {
        match self {
            Isa::Avx512 => 16,
            Isa::Avx2 | Isa::Portable => 8,
        }
    }
}

/// `dispatch!(isa, kernel(args))` runs `unsafe fn kernel<S: Simd>(args)` compiled for `isa`.
macro_rules! dispatch {
    ($isa:expr, $kernel:ident ( $($name:ident : $type:ty),* ) ) => {{
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
        unsafe fn on_avx512($($name: $type),*) {
            unsafe { $kernel::<$crate::simd::Avx512>($($name),*) }
        }
        #[cfg(target_arch = "x86_64")]
        #[target_feature(enable = "avx2,fma")]
        unsafe fn on_avx2($($name: $type),*) {
            unsafe { $kernel::<$crate::simd::Avx2>($($name),*) }
        }
        unsafe fn on_portable($($name: $type),*) {
            unsafe { $kernel::<$crate::simd::Portable>($($name),*) }
        }
        // Safety: `Isa` values other than `Portable` come from `Isa::available` on this processor.
        unsafe {
            match $isa {
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx512 => on_avx512($($name),*),
                #[cfg(target_arch = "x86_64")]
                $crate::simd::Isa::Avx2 => on_avx2($($name),*),
                _ => on_portable($($name),*),
            }
        }
    }};
}
pub(crate) use dispatch;
