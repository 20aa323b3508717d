//! Elementary functions over [`Simd`] vectors.
//!
//! | function | error bound against f64, all finite arguments |
//! | --- | --- |
//! | [`Simd::exp2`] | 2 units in the last place; results below 2^-126: 2 steps of 2^-149 |
//! | [`Simd::exp`] | 3 units in the last place |
//! | [`Simd::decay`] | 3 units in the last place between 2^-126 and 2^127; 0 or the value below, infinity or the value above |
//! | [`sigmoid`], [`softplus`] | 6 units in the last place; results below 2^-126 may be 0 |
//!
//! Infinities give the limits (to 2^-126), NaN gives NaN.

#![allow(clippy::excessive_precision)] // constants as they were computed

use super::Simd;

/// Minimax polynomial of 2^f on [0, 1), degree 6, relative error 1.9e-9.
pub(crate) const EXP2_UNIT: [f32; 7] = [
    1.000_000_001_855_8,
    0.693_146_983_840_618_6,
    0.240_229_836_273_981_34,
    0.055_483_341_984_453_725,
    0.009_678_840_996_385_846,
    0.001_243_968_782_467_296_5,
    0.000_217_022_554_692_855_51,
];

/// Minimax polynomial of 2^f on [-1/2, 1/2], degree 6, relative error 1.9e-9.
pub(crate) const EXP2_HALF: [f32; 7] = [
    1.000_000_000_554_166_5,
    0.693_147_205_737_268_3,
    0.240_226_468_906_341_44,
    0.055_503_287_769_646_42,
    0.009_618_488_957_117_245,
    0.001_339_993_122_130_536_9,
    0.000_153_458_120_005_759_38,
];

/// Minimax polynomial of 2^f on [-1/2, 1/2], degree 5 with 2^0 = 1 exactly, relative error 9.2e-8.
pub(crate) const DECAY: [f32; 6] = [
    1.0,
    0.693_146_977_598_721_6,
    0.240_222_420_848_199_9,
    0.055_507_337_437_012_7,
    0.009_671_512_673_816_18,
    0.001_326_472_714_849_97,
];

/// Minimax polynomial of 2 atanh(s) / s - 2 in q = s^2 on [0, 1/9] without its constant, relative error 4.5e-9.
const ATANH: [f32; 4] = [0.666_664_16, 0.400_215_27, 0.280_018_05, 0.280_119_88];

/// log2(e) in two parts: the second carries what f32 cannot hold of the first.
const LOG2_E: f32 = std::f32::consts::LOG2_E;
const LOG2_E_REST: f32 = 1.925_963_033_500_9e-8;

/// Beyond these e^x is 0 or infinite.
pub(super) const EXP_RANGE: [f32; 2] = [-105.0, 90.0];

/// e^x through `power` (2^x), with the rounding error of x log2(e) carried along so that the bound holds for large |x|
/// too; `lo` and `hi` bound x to what `power` takes, and keep infinities out of the sums. For instruction sets with a
/// fused multiply-add.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub(super) unsafe fn exp_fused<S: Simd>(x: S::V, [lo, hi]: [f32; 2], power: unsafe fn(S::V) -> S::V) -> S::V {
    unsafe {
        let x = S::at_most(S::at_least(x, S::splat(lo)), S::splat(hi));
        let scale = S::splat(LOG2_E);
        let t = S::mul(x, scale);
        let rest = S::fma(x, S::splat(LOG2_E_REST), S::fma(x, scale, S::neg(t)));
        // A product, not `power + power rest`: an infinite power stays infinite whatever the sign of the rest.
        S::mul(power(t), S::fma(rest, S::splat(std::f32::consts::LN_2), S::splat(1.0)))
    }
}

/// 1 / (1 + e^-x).
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn sigmoid<S: Simd>(x: S::V) -> S::V {
    unsafe {
        let one = S::splat(1.0);
        S::div(one, S::add(one, S::exp_flushed(S::neg(x))))
    }
}

/// ln(1 + e^x) = max(x, 0) + ln(1 + e^-|x|), the last term as 2 atanh(y / (2 + y)).
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn softplus<S: Simd>(x: S::V) -> S::V {
    unsafe { softplus_sigmoid::<S>(x).0 }
}

/// [`softplus`] and its derivative [`sigmoid`] for the price of one exponential.
///
/// # Safety
/// As for [`Simd`].
#[inline(always)]
pub unsafe fn softplus_sigmoid<S: Simd>(x: S::V) -> (S::V, S::V) {
    unsafe {
        let y = S::exp_flushed(S::neg(S::abs(x)));
        let s = S::div(y, S::add(y, S::splat(2.0)));
        let q = S::mul(s, s);
        let [c1, c2, c3, c4] = ATANH;
        let q2 = S::mul(q, q);
        let low = S::fma(S::splat(c1), q, S::splat(2.0));
        let high = S::fma(S::fma(S::splat(c4), q, S::splat(c3)), q, S::splat(c2));
        let log = S::mul(s, S::fma(high, q2, low));
        let one = S::splat(1.0);
        // sigmoid(|x|) = 1 / (1 + y), sigmoid(-|x|) = y / (1 + y).
        let slope = S::div(S::select_positive(x, one, y), S::add(one, y));
        (S::add(log, S::at_least(x, S::splat(0.0))), slope)
    }
}
