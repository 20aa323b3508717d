//! The selective scan against the equations: a naive f64 recurrence, its finite differences, and the fast kernels of
//! every instruction set over random shapes, orders and options.

mod common;

use common::{
    Draw, Kind, Two, close, close_to,
    scan::{NAMES, Problem, Shape, shapes},
};
use ophidian_kernels::{
    Isa, Strides, ViewMut,
    pool::Serial,
    scan::{self, Forward, Scan},
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The f64 kernels are the equations, and their gradients are finite differences of the equations.
    #[test]
    fn wide_is_the_equations(shape in shapes(7, 3, 4)) {
        let p = Problem::new(&shape);
        let x = p.leaves();
        let (y, last) = p.naive(&x);
        let (wide_y, wide_last, grads) = p.wide();
        for (got, want) in [(&wide_y, &y), (&wide_last, &last)] {
            for (g, w) in got.iter().zip(want) {
                prop_assert!((g - w).abs() < 1e-11, "{g} {w}");
            }
        }
        let loss = |x: &[Vec<f64>]| {
            let (y, last) = p.naive(x);
            let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
            dot(&y, &p.dy) + dot(&last, &p.dfinal)
        };
        let mut draw = Draw(shape.seed ^ 1);
        for (i, grad) in grads.iter().enumerate() {
            for _ in 0..grad.len().min(6) {
                let j = draw.below(grad.len());
                let mut moved = x.clone();
                let h = 1e-5;
                moved[i][j] = x[i][j] + h;
                let up = loss(&moved);
                moved[i][j] = x[i][j] - h;
                let want = (up - loss(&moved)) / (2.0 * h);
                let error = (grad[j] - want).abs() / want.abs().max(1.0);
                prop_assert!(error < 1e-6, "{}[{j}]: got {}, want {want}", NAMES[i], grad[j]);
            }
        }
    }

    /// The fast kernels are the f64 kernels, whatever the instruction set.
    #[test]
    fn fast_is_wide(shape in shapes(80, 40, 20)) {
        let p = Problem::new(&shape);
        let (y, last, grads) = p.wide();
        for isa in common::isas() {
            let (fast_y, fast_last, fast) = p.fast(isa, &Two);
            close("y", &fast_y, &y, 1e-5);
            close("final_state", &fast_last, &last, 1e-5);
            for (i, (got, want)) in fast.iter().zip(&grads).enumerate() {
                // Of D and the bias: sums over samples and steps, which cancel.
                let size = if matches!(NAMES[i], "dD" | "ddelta_bias") { 5e-2 } else { 1e-3 };
                close_to(NAMES[i], got, want, 3e-5, size);
            }
        }
    }

    /// The bits do not depend on who runs the tasks.
    #[test]
    fn threads_do_not_matter(shape in shapes(80, 100, 20)) {
        let p = Problem::new(&shape);
        let bits = |(y, last, g): (Vec<f32>, Vec<f32>, Vec<Vec<f32>>)| {
            [vec![y, last], g].concat().concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let isa = Isa::detect();
        prop_assert_eq!(bits(p.fast(isa, &Serial)), bits(p.fast(isa, &Two)));
    }
}

/// Many states: the backward takes them in tiles, with longer chunks.
#[test]
fn many_states_in_tiles() {
    for (states, tokens) in [(16, 70), (33, 140), (64, 300), (150, 300)] {
        let shape = Shape {
            batch: 1,
            tokens,
            directions: 2,
            groups: 1,
            per_group: 20,
            states,
            flags: 0xff,
            kind: Kind::Wild,
            seed: states as u64,
        };
        let p = Problem::new(&shape);
        let (y, _, grads) = p.wide();
        for isa in common::isas() {
            let (fast_y, _, fast) = p.fast(isa, &Two);
            close("y", &fast_y, &y, 1e-5);
            for (i, (got, want)) in fast.iter().zip(&grads).enumerate() {
                close(NAMES[i], got, want, 3e-5);
            }
        }
    }
}

/// One NaN stays in its own channel and its own future.
#[test]
fn nan_is_passed_on_not_spread() {
    let shape = Shape {
        batch: 1,
        tokens: 40,
        directions: 1,
        groups: 1,
        per_group: 20,
        states: 16,
        flags: 32,
        kind: Kind::Identity,
        seed: 5,
    };
    let mut p = Problem::new(&shape);
    p.u[10 * 20 + 3] = f32::NAN;
    for isa in common::isas() {
        let (y, ..) = p.fast(isa, &Serial);
        for (at, value) in y.iter().enumerate() {
            let (token, channel) = (at / 20, at % 20);
            assert_eq!(
                value.is_nan(),
                channel == 3 && token >= 10,
                "{isa:?} token {token} channel {channel}"
            );
        }
    }
}

/// Wrong shapes and orders are refused before anything is written.
#[test]
fn bad_arguments_are_refused() {
    let shape = Shape {
        batch: 2,
        tokens: 5,
        directions: 2,
        groups: 1,
        per_group: 3,
        states: 2,
        flags: 0xff,
        kind: Kind::Identity,
        seed: 1,
    };
    let p = Problem::new(&shape);
    let refuse = |change: &dyn Fn(&mut Scan), expected: &str| {
        let mut scan = p.scan();
        change(&mut scan);
        let mut y = vec![7f32; p.u.len()];
        let out = Forward { y: ViewMut::f32(&mut y, p.once_strides()), final_state: None, checkpoints: None };
        let error = scan::forward(&scan, out, Isa::detect(), &Serial).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(y.iter().all(|v| *v == 7.0));
    };
    refuse(&|s| s.tokens = 6, "too few");
    refuse(&|s| s.a = &s.a[1..], "`A` holds");
    refuse(&|s| s.groups = 2, "do not divide");
    refuse(&|s| s.orders.steps = 4, "`orders` holds");
    let mut outside = p.table.table.clone();
    outside[7] = 5;
    refuse(&|s| s.orders.table = unsafe { &*(&outside[..] as *const [i32]) }, "order 1, step 2: token 5");
}

/// What a direction leaves in the lanes beyond the last channel does not reach the next direction.
#[test]
fn directions_do_not_leak_through_padding() {
    let shape = Shape {
        batch: 1,
        tokens: 6,
        directions: 2,
        groups: 1,
        per_group: 5,
        states: 3,
        flags: 0xff,
        kind: Kind::Identity,
        seed: 3,
    };
    let mut p = Problem::new(&shape);
    // C of direction 0, all tokens: (token, direction, state).
    for token in 0..6 {
        p.c[token * 6] = f32::NAN;
        p.b[token * 6 + 1] = f32::INFINITY;
    }
    for isa in common::isas() {
        let (_, _, grads) = p.fast(isa, &Serial);
        for grad in [&grads[3], &grads[4]] {
            for token in 0..6 {
                let other = &grad[token * 6 + 3..token * 6 + 6];
                assert!(other.iter().all(|v| v.is_finite()), "{isa:?} {token}: {other:?}");
            }
        }
    }
}

/// Outputs that share memory where they may not, and scans without a direction, are refused.
#[test]
fn overlapping_outputs_are_refused() {
    let shape = Shape {
        batch: 2,
        tokens: 5,
        directions: 2,
        groups: 1,
        per_group: 3,
        states: 2,
        flags: 0,
        kind: Kind::Identity,
        seed: 1,
    };
    let p = Problem::new(&shape);
    let refuse = |strides: Strides, directions: usize, expected: &str| {
        let mut y = vec![0f32; 10 * p.u.len()];
        let a = if directions == 0 { &[][..] } else { &p.a };
        let scan = Scan { directions, a, ..p.scan() };
        let out = Forward { y: ViewMut::f32(&mut y, strides), final_state: None, checkpoints: None };
        let error = scan::forward(&scan, out, Isa::detect(), &Serial).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    };
    let good = Strides::contiguous(5, 2, 1, 3);
    refuse(Strides { batch: 0, ..good }, 2, "overlaps itself");
    refuse(Strides { direction: 1, ..good }, 2, "overlaps itself");
    refuse(Strides { token: 3, ..good }, 2, "overlaps itself");
    refuse(good, 0, "at least one order");
}
