//! AVX-512: 16 lanes, masked tails.

use std::arch::x86_64::*;

use super::{Simd, math::EXP2_UNIT};

/// See [`Simd`].
#[derive(Clone, Copy)]
pub struct Avx512;

impl Simd for Avx512 {
    type V = __m512;
    const LANES: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m512 {
        unsafe { _mm512_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m512 {
        unsafe { _mm512_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m512) {
        unsafe { _mm512_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m512 {
        unsafe {
            let wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(p.cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn load_part(p: *const f32, n: usize) -> __m512 {
        unsafe { _mm512_maskz_loadu_ps(mask(n), p) }
    }
    #[inline(always)]
    unsafe fn store_part(p: *mut f32, v: __m512, n: usize) {
        unsafe { _mm512_mask_storeu_ps(p, mask(n), v) }
    }
    #[inline(always)]
    unsafe fn add(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m512, b: __m512, c: __m512) -> __m512 {
        unsafe { _mm512_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn at_least(x: __m512, lo: __m512) -> __m512 {
        // The second operand is returned when either is NaN.
        unsafe { _mm512_max_ps(lo, x) }
    }
    #[inline(always)]
    unsafe fn at_most(x: __m512, hi: __m512) -> __m512 {
        unsafe { _mm512_min_ps(hi, x) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m512) -> __m512 {
        unsafe { _mm512_abs_ps(x) }
    }
    #[inline(always)]
    unsafe fn neg(x: __m512) -> __m512 {
        unsafe { _mm512_xor_ps(x, _mm512_set1_ps(-0.0)) }
    }
    #[inline(always)]
    unsafe fn select_positive(x: __m512, a: __m512, b: __m512) -> __m512 {
        unsafe { _mm512_mask_blend_ps(_mm512_movepi32_mask(_mm512_castps_si512(x)), a, b) }
    }
    #[inline(always)]
    unsafe fn exp2(x: __m512) -> __m512 {
        // VREDUCEPS leaves x - floor(x) (0 for infinities), VSCALEFPS multiplies by 2^floor(x): together they
        // handle denormal results, overflow, infinities and NaN without a branch or a clamp.
        unsafe {
            let f = _mm512_reduce_ps::<0x09>(x);
            let [c0, c1, c2, c3, c4, c5, c6] = EXP2_UNIT;
            let mut p = _mm512_set1_ps(c6);
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c5));
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c4));
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c3));
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c2));
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c1));
            p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(c0));
            _mm512_scalef_ps(p, x)
        }
    }
    #[inline(always)]
    unsafe fn exp(x: __m512) -> __m512 {
        unsafe { super::math::exp_fused::<Self>(x, super::math::EXP_RANGE, Self::exp2) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m512) -> f32 {
        unsafe { _mm512_reduce_add_ps(v) }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        // In quarters: the shuffles of eight lanes cost half as much each as those of sixteen.
        for (row, column) in [(0, 0), (0, 8), (8, 0), (8, 8)] {
            unsafe {
                let (from, to) = (from.add(row * stride + column), to.add(column * to_stride + row));
                super::Avx2::transpose(from, stride, to, to_stride);
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
    #[inline(always)]
    unsafe fn prefetch_second(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.cast()) }
    }
}

#[inline(always)]
fn mask(n: usize) -> __mmask16 {
    ((1u32 << n) - 1) as __mmask16
}
