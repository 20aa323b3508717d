//! Plain Rust over arrays of 8, for every other processor and as a check of the intrinsics.

use super::{Simd, math::EXP2_HALF};

/// See [`Simd`].
#[derive(Clone, Copy)]
pub struct Portable;

type V = [f32; 8];

#[inline(always)]
fn zip(a: V, b: V, f: impl Fn(f32, f32) -> f32) -> V {
    std::array::from_fn(|i| f(a[i], b[i]))
}

impl Simd for Portable {
    type V = V;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> V {
        [x; 8]
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> V {
        unsafe { p.cast::<V>().read_unaligned() }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: V) {
        unsafe { p.cast::<V>().write_unaligned(v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> V {
        let halves = unsafe { p.cast::<[u16; 8]>().read_unaligned() };
        halves.map(|h| f32::from_bits(u32::from(h) << 16))
    }
    #[inline(always)]
    unsafe fn add(a: V, b: V) -> V {
        zip(a, b, |a, b| a + b)
    }
    #[inline(always)]
    unsafe fn sub(a: V, b: V) -> V {
        zip(a, b, |a, b| a - b)
    }
    #[inline(always)]
    unsafe fn mul(a: V, b: V) -> V {
        zip(a, b, |a, b| a * b)
    }
    #[inline(always)]
    unsafe fn div(a: V, b: V) -> V {
        zip(a, b, |a, b| a / b)
    }
    #[inline(always)]
    unsafe fn fma(a: V, b: V, c: V) -> V {
        // Not `mul_add`: without a fused instruction that is a slow library call.
        std::array::from_fn(|i| a[i] * b[i] + c[i])
    }
    #[inline(always)]
    unsafe fn at_least(x: V, lo: V) -> V {
        zip(x, lo, |x, lo| if lo > x { lo } else { x })
    }
    #[inline(always)]
    unsafe fn at_most(x: V, hi: V) -> V {
        zip(x, hi, |x, hi| if hi < x { hi } else { x })
    }
    #[inline(always)]
    unsafe fn abs(x: V) -> V {
        x.map(f32::abs)
    }
    #[inline(always)]
    unsafe fn neg(x: V) -> V {
        x.map(|x| -x)
    }
    #[inline(always)]
    unsafe fn select_positive(x: V, a: V, b: V) -> V {
        std::array::from_fn(|i| if x[i].is_sign_positive() { a[i] } else { b[i] })
    }
    #[inline(always)]
    unsafe fn exp2(x: V) -> V {
        x.map(|x| {
            // Written so that NaN passes both clamps.
            let x = if x < -152.0 { -152.0 } else { x };
            let x = if x > 129.0 { 129.0 } else { x };
            // Adding 1.5 * 2^23 rounds to the nearest integer, which then stands in the low bits.
            const ROUND: f32 = 12_582_912.0;
            let shifted = x + ROUND;
            let f = x - (shifted - ROUND);
            let [c0, c1, c2, c3, c4, c5, c6] = EXP2_HALF;
            let p = c0 + f * (c1 + f * (c2 + f * (c3 + f * (c4 + f * (c5 + f * c6)))));
            let k = (shifted.to_bits() as i32).wrapping_sub(ROUND.to_bits() as i32);
            let half = k >> 1;
            let power = |k: i32| f32::from_bits((k.wrapping_add(127) as u32) << 23);
            p * power(half) * power(k.wrapping_sub(half))
        })
    }
    #[inline(always)]
    unsafe fn exp(x: V) -> V {
        // x log2(e) to f64 precision: there is no fused multiply-add to find its rounding error with.
        let exact = x.map(|x| {
            let x = if x < -105.0 { -105.0 } else { x };
            let x = if x > 90.0 { 90.0 } else { x };
            f64::from(x) * std::f64::consts::LOG2_E
        });
        let rest = exact.map(|t| (t - f64::from(t as f32)) as f32 * std::f32::consts::LN_2);
        let power = unsafe { Self::exp2(exact.map(|t| t as f32)) };
        zip(power, rest, |power, rest| power * (1.0 + rest))
    }
    #[inline(always)]
    unsafe fn sum(v: V) -> f32 {
        let four: [f32; 4] = std::array::from_fn(|i| v[i] + v[i + 4]);
        (four[0] + four[2]) + (four[1] + four[3])
    }
    #[inline(always)]
    unsafe fn prefetch(_: *const u8) {}
}
