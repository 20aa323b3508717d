//! The shift along orders against its definition.
#![allow(missing_docs)]

mod common;

use common::{Draw, Table, Two, kinds};
use ophidian_kernels::{
    Error, Isa, Strides, View, ViewMut,
    pool::Serial,
    shift::{Shift, backward, forward},
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn kernel_is_the_definition(
        kind in kinds(), batch in 1..4usize, tokens in 0..20usize, k in 1..4usize, d in 1..140usize, seed in any::<u64>(),
    ) {
        let mut draw = Draw(seed);
        let table = Table::new(kind, batch, k, tokens, &mut draw);
        let (apart, sum) = (Strides::contiguous(tokens, k, 1, d), Strides::shared(tokens, d));
        let y = draw.vec(batch * tokens * k * d, 1.0);
        let dout = draw.vec(batch * tokens * d, 1.0);
        let (mut want, mut want_dy) = (vec![0f32; dout.len()], vec![0f32; y.len()]);
        for b in 0..batch {
            for direction in 0..k {
                for pair in table.path(k, b, direction).windows(2) {
                    let ((.., token), (_, fresh, next)) = (pair[0], pair[1]);
                    if token < 0 || next < 0 || fresh {
                        continue;
                    }
                    for c in 0..d {
                        let from = ((b * tokens + token as usize) * k + direction) * d + c;
                        let to = (b * tokens + next as usize) * d + c;
                        want[to] += y[from];
                        want_dy[from] += dout[to];
                    }
                }
            }
        }
        let shift = Shift { batch, tokens, directions: k, channels: d, orders: table.orders() };
        for isa in common::isas() {
            let (mut out, mut dy) = (vec![f32::NAN; want.len()], vec![f32::NAN; y.len()]);
            forward(&shift, &View::f32(&y, apart), &ViewMut::f32(&mut out, sum), isa, &Two).unwrap();
            backward(&shift, &View::f32(&dout, sum), &ViewMut::f32(&mut dy, apart), isa, &Serial).unwrap();
            prop_assert_eq!(&out, &want);
            prop_assert_eq!(&dy, &want_dy);
        }
        let wide = common::wide(&y);
        let mut out = vec![f64::NAN; want.len()];
        forward(&shift, &View::f64(&wide, apart), &ViewMut::f64(&mut out, sum), Isa::detect(), &Two).unwrap();
        for (found, want) in out.iter().zip(&want) {
            prop_assert!((found - f64::from(*want)).abs() < 1e-6);
        }
    }
}

#[test]
fn misfits_are_refused() {
    let table = Table { table: vec![0, 1, 5], resets: None, silent: None, steps: 3, per_sample: false };
    let shift = Shift { batch: 1, tokens: 3, directions: 1, channels: 2, orders: table.orders() };
    let (y, mut out, mut wide) = (vec![0f32; 6], vec![7f32; 6], vec![0f64; 6]);
    let strides = Strides::shared(3, 2);
    let view = View::f32(&y, strides);
    let error = forward(&shift, &view, &ViewMut::f32(&mut out, strides), Isa::detect(), &Serial);
    assert!(matches!(error, Err(Error::Token { step: 2, token: 5, .. })));
    let error = forward(&shift, &view, &ViewMut::f64(&mut wide, strides), Isa::detect(), &Serial);
    assert!(matches!(error, Err(Error::Dtype { .. })));
    let error = forward(
        &shift,
        &View::f32(&y[1..], strides),
        &ViewMut::f32(&mut out, strides),
        Isa::detect(),
        &Serial,
    );
    assert!(matches!(error, Err(Error::OutOfBounds { .. })));
    assert!(out.iter().all(|v| *v == 7.0));
}
