//! The error bounds that `simd::math` states, over the whole range of f32.
#![allow(missing_docs)]

use ophidian_kernels::simd::{Isa, Portable, Simd, math};

/// Every 257th bit pattern of f32 and the special ones: all exponents, both signs, denormals, infinities, NaN.
fn arguments() -> Vec<f32> {
    let special = [0, 1, 0x007f_ffff, 0x0080_0000, 0x7f7f_ffff, 0x7f80_0000, 0x7f80_0001, 0x7fc0_0000];
    let near = (0..400_000u32).map(|i| (f64::from(i) / 400_000.0 * 420.0 - 210.0) as f32);
    (0..=u32::MAX / 257)
        .map(|i| i * 257)
        .chain(special.iter().flat_map(|b| [*b, *b | 0x8000_0000]))
        .map(f32::from_bits)
        .chain(near)
        .collect()
}

type Function = unsafe fn(&[f32], &mut [f32]);

macro_rules! functions {
    ($isa:ident, $features:literal) => {{
        #[target_feature(enable = $features)]
        unsafe fn exp2(x: &[f32], y: &mut [f32]) {
            unsafe { each::<$isa>(x, y, |v| $isa::exp2(v)) }
        }
        #[target_feature(enable = $features)]
        unsafe fn exp(x: &[f32], y: &mut [f32]) {
            unsafe { each::<$isa>(x, y, |v| $isa::exp(v)) }
        }
        #[target_feature(enable = $features)]
        unsafe fn sigmoid(x: &[f32], y: &mut [f32]) {
            unsafe { each::<$isa>(x, y, |v| math::sigmoid::<$isa>(v)) }
        }
        #[target_feature(enable = $features)]
        unsafe fn softplus(x: &[f32], y: &mut [f32]) {
            unsafe { each::<$isa>(x, y, |v| math::softplus::<$isa>(v)) }
        }
        #[target_feature(enable = $features)]
        unsafe fn slope(x: &[f32], y: &mut [f32]) {
            unsafe { each::<$isa>(x, y, |v| math::softplus_sigmoid::<$isa>(v).1) }
        }
        #[target_feature(enable = $features)]
        unsafe fn decay(x: &[f32], y: &mut [f32]) {
            unsafe { each::<$isa>(x, y, |v| $isa::decay(v)) }
        }
        [exp2 as Function, exp, sigmoid, softplus, slope, decay]
    }};
}

#[inline(always)]
unsafe fn each<S: Simd>(x: &[f32], y: &mut [f32], f: impl Fn(S::V) -> S::V) {
    for (x, y) in x.chunks(S::LANES).zip(y.chunks_mut(S::LANES)) {
        unsafe {
            let v =
                f(if x.len() == S::LANES { S::load(x.as_ptr()) } else { S::load_part(x.as_ptr(), x.len()) });
            if y.len() == S::LANES {
                S::store(y.as_mut_ptr(), v);
            } else {
                S::store_part(y.as_mut_ptr(), v, y.len());
            }
        }
    }
}

fn for_isa(isa: Isa) -> [Function; 6] {
    #[cfg(target_arch = "x86_64")]
    {
        use ophidian_kernels::simd::{Avx2, Avx512};
        match isa {
            Isa::Avx512 { .. } => return functions!(Avx512, "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"),
            Isa::Avx2 { .. } => return functions!(Avx2, "avx2,fma"),
            Isa::Portable => {}
        }
    }
    let _ = isa;
    #[cfg(target_arch = "x86_64")]
    return functions!(Portable, "sse2");
    #[cfg(not(target_arch = "x86_64"))]
    return functions!(Portable, "neon");
}

/// Units in the last place between `got` and the f64 truth; below the normal range, steps of 2^-149.
fn ulps(got: f32, want: f64) -> f64 {
    let rounded = want as f32;
    if rounded.is_infinite() || got.is_infinite() {
        // Either side of the overflow threshold is one step.
        return if got == rounded || want.abs() > f64::from(f32::MAX) * (1.0 - 1e-6) {
            0.0
        } else {
            f64::INFINITY
        };
    }
    let exponent = if want == 0.0 { -126 } else { want.abs().log2().floor().max(-126.0) as i32 };
    (f64::from(got) - want).abs() / 2f64.powi(exponent - 23)
}

#[test]
fn stated_bounds_hold_over_all_of_f32() {
    let x = arguments();
    let mut y = vec![0f32; x.len()];
    // x sigmoid(x) must not grow again far below zero.
    for isa in Isa::available() {
        let (low, mut none) = ([-1e38f32; 16], [f32::NAN; 16]);
        unsafe { for_isa(isa)[2](&low, &mut none) };
        assert_eq!(none, [0.0; 16], "{isa:?}");
    }
    // A decay of 1 must stay 1 over any number of steps.
    for isa in Isa::available() {
        let (zeros, mut ones) = ([0f32; 16], [f32::NAN; 16]);
        unsafe { for_isa(isa)[5](&zeros, &mut ones) };
        assert_eq!(ones, [1.0; 16], "{isa:?}");
    }
    type Truth = fn(f64) -> f64;
    let truth: [(&str, Truth, f64); 6] = [
        ("exp2", f64::exp2, 2.0),
        ("exp", f64::exp, 3.0),
        ("sigmoid", |x| 1.0 / (1.0 + (-x).exp()), 6.0),
        ("softplus", |x| x.max(0.0) + (-x.abs()).exp().ln_1p(), 6.0),
        ("softplus'", |x| 1.0 / (1.0 + (-x).exp()), 6.0),
        ("decay", f64::exp2, 3.0),
    ];
    for isa in Isa::available() {
        for ((name, want, bound), function) in truth.iter().zip(for_isa(isa)) {
            unsafe { function(&x, &mut y) };
            let mut worst = (0.0, 0f32);
            for (x, y) in x.iter().zip(&y) {
                // `decay` promises to keep only the NaNs that arithmetic makes.
                if *name == "decay" && x.is_nan() && x.to_bits() & 0x1ff != 0 {
                    continue;
                }
                if x.is_nan() {
                    assert!(y.is_nan(), "{name}({x}) = {y} on {isa:?}");
                    continue;
                }
                let want = want(f64::from(*x));
                if *name == "decay" && want >= 2f64.powi(127) {
                    assert!(*y == f32::INFINITY || ulps(*y, want) <= *bound, "{name}({x}) = {y} on {isa:?}");
                    continue;
                }
                if *bound != 2.0 && *name != "exp" && want < f64::from(f32::MIN_POSITIVE) {
                    assert!((0.0..=f32::MIN_POSITIVE).contains(y), "{name}({x}) = {y} on {isa:?}");
                    continue;
                }
                let error = ulps(*y, want);
                assert!(error.is_finite(), "{name}({x}) = {y} on {isa:?}");
                if error > worst.0 {
                    worst = (error, *x);
                }
            }
            assert!(
                worst.0 <= *bound,
                "{name} on {isa:?}: {:.2} ulp at {}, stated {bound}",
                worst.0,
                worst.1
            );
        }
    }
}
