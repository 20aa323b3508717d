//! AVX2 and FMA: 8 lanes.

use std::arch::x86_64::*;

use super::{
    Simd,
    math::{DECAY, EXP2_HALF},
};

/// See [`Simd`].
#[derive(Clone, Copy)]
pub struct Avx2;

impl Simd for Avx2 {
    type V = __m256;
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> __m256 {
        unsafe { _mm256_set1_ps(x) }
    }
    #[inline(always)]
    unsafe fn load(p: *const f32) -> __m256 {
        unsafe { _mm256_loadu_ps(p) }
    }
    #[inline(always)]
    unsafe fn store(p: *mut f32, v: __m256) {
        unsafe { _mm256_storeu_ps(p, v) }
    }
    #[inline(always)]
    unsafe fn load_bf16(p: *const u16) -> __m256 {
        unsafe {
            let wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast()));
            _mm256_castsi256_ps(_mm256_slli_epi32::<16>(wide))
        }
    }
    #[inline(always)]
    unsafe fn add(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_add_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn sub(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_sub_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn mul(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_mul_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn div(a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_div_ps(a, b) }
    }
    #[inline(always)]
    unsafe fn fma(a: __m256, b: __m256, c: __m256) -> __m256 {
        unsafe { _mm256_fmadd_ps(a, b, c) }
    }
    #[inline(always)]
    unsafe fn at_least(x: __m256, lo: __m256) -> __m256 {
        // The second operand is returned when either is NaN.
        unsafe { _mm256_max_ps(lo, x) }
    }
    #[inline(always)]
    unsafe fn at_most(x: __m256, hi: __m256) -> __m256 {
        unsafe { _mm256_min_ps(hi, x) }
    }
    #[inline(always)]
    unsafe fn abs(x: __m256) -> __m256 {
        unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), x) }
    }
    #[inline(always)]
    unsafe fn neg(x: __m256) -> __m256 {
        unsafe { _mm256_xor_ps(x, _mm256_set1_ps(-0.0)) }
    }
    #[inline(always)]
    unsafe fn select_positive(x: __m256, a: __m256, b: __m256) -> __m256 {
        unsafe { _mm256_blendv_ps(a, b, x) }
    }
    #[inline(always)]
    unsafe fn exp2(x: __m256) -> __m256 {
        unsafe {
            // Clamped where the result is 0 or infinite anyway, so that the exponent fits; NaN passes.
            let x = _mm256_max_ps(_mm256_set1_ps(-152.0), _mm256_min_ps(_mm256_set1_ps(129.0), x));
            let k = _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(x);
            let f = _mm256_sub_ps(x, k);
            let [c0, c1, c2, c3, c4, c5, c6] = EXP2_HALF;
            let mut p = _mm256_set1_ps(c6);
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c5));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c4));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c3));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c2));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c1));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c0));
            // 2^k in two factors: one alone overflows at 128 and cannot make a denormal.
            let k = _mm256_cvtps_epi32(k);
            let half = _mm256_srai_epi32::<1>(k);
            let rest = _mm256_sub_epi32(k, half);
            let bias = _mm256_set1_epi32(127);
            let a = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(half, bias)));
            let b = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(rest, bias)));
            _mm256_mul_ps(_mm256_mul_ps(p, a), b)
        }
    }
    #[inline(always)]
    unsafe fn exp(x: __m256) -> __m256 {
        unsafe { super::math::exp_fused::<Self>(x, super::math::EXP_RANGE, Self::exp2) }
    }
    #[inline(always)]
    unsafe fn exp_flushed(x: __m256) -> __m256 {
        unsafe { super::math::exp_fused::<Self>(x, [-88.0, 90.0], Self::decay_up_to) }
    }
    #[inline(always)]
    unsafe fn decay(x: __m256) -> __m256 {
        unsafe {
            Self::decay_within(_mm256_max_ps(_mm256_set1_ps(-127.0), _mm256_min_ps(_mm256_set1_ps(128.0), x)))
        }
    }
    #[inline(always)]
    unsafe fn decay_below_one(x: __m256) -> __m256 {
        unsafe { Self::decay_within(_mm256_max_ps(_mm256_set1_ps(-127.0), x)) }
    }
    #[inline(always)]
    unsafe fn sum(v: __m256) -> f32 {
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_shuffle_ps::<1>(two, two)))
        }
    }
    #[inline(always)]
    unsafe fn sums(v: [__m256; 8]) -> [f32; 8] {
        unsafe {
            let pair = |i: usize| _mm256_hadd_ps(v[i], v[i + 1]);
            let low = _mm256_hadd_ps(pair(0), pair(2));
            let high = _mm256_hadd_ps(pair(4), pair(6));
            let sums = _mm256_add_ps(
                _mm256_permute2f128_ps::<0x20>(low, high),
                _mm256_permute2f128_ps::<0x31>(low, high),
            );
            std::mem::transmute(sums)
        }
    }
    #[inline(always)]
    unsafe fn transpose(from: *const f32, stride: usize, to: *mut f32, to_stride: usize) {
        unsafe {
            // Halves of rows r and r + 4 side by side: then four columns are a transpose within each half.
            for half in 0..2 {
                let mut v = [_mm256_setzero_ps(); 4];
                for (r, v) in v.iter_mut().enumerate() {
                    let at = from.add(r * stride + 4 * half);
                    let low = _mm256_castps128_ps256(_mm_loadu_ps(at));
                    *v = _mm256_insertf128_ps::<1>(low, _mm_loadu_ps(at.add(4 * stride)));
                }
                let (a, b) = (_mm256_unpacklo_ps(v[0], v[1]), _mm256_unpacklo_ps(v[2], v[3]));
                let (c, d) = (_mm256_unpackhi_ps(v[0], v[1]), _mm256_unpackhi_ps(v[2], v[3]));
                let to = to.add(4 * half * to_stride);
                _mm256_storeu_ps(to, _mm256_shuffle_ps::<0x44>(a, b));
                _mm256_storeu_ps(to.add(to_stride), _mm256_shuffle_ps::<0xee>(a, b));
                _mm256_storeu_ps(to.add(2 * to_stride), _mm256_shuffle_ps::<0x44>(c, d));
                _mm256_storeu_ps(to.add(3 * to_stride), _mm256_shuffle_ps::<0xee>(c, d));
            }
        }
    }
    #[inline(always)]
    unsafe fn prefetch(p: *const u8) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(p.cast()) }
    }
}

impl Avx2 {
    /// 2^x for -127 <= x or NaN.
    #[inline(always)]
    unsafe fn decay_up_to(x: __m256) -> __m256 {
        unsafe { Self::decay_within(_mm256_min_ps(_mm256_set1_ps(128.0), x)) }
    }

    /// 2^x for -127 <= x <= 128 or NaN.
    #[inline(always)]
    unsafe fn decay_within(x: __m256) -> __m256 {
        unsafe {
            // Adding 1.5 2^23 rounds to an integer k, which then stands in the low bits.
            let magic = _mm256_set1_ps(12_582_912.0);
            let t = _mm256_add_ps(x, magic);
            let f = _mm256_sub_ps(x, _mm256_sub_ps(t, magic));
            let [c0, c1, c2, c3, c4, c5] = DECAY;
            let mut p = _mm256_fmadd_ps(_mm256_set1_ps(c5), f, _mm256_set1_ps(c4));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c3));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c2));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c1));
            p = _mm256_fmadd_ps(p, f, _mm256_set1_ps(c0));
            // p 2^k by adding k to the exponent of p: 0 for x = -127, infinity for 128. A NaN stays one: those that
            // arithmetic makes have no low bits for the shift to bring up.
            let k = _mm256_slli_epi32::<23>(_mm256_castps_si256(t));
            _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(p), k))
        }
    }
}
