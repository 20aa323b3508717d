//! The CUDA convolution, run on the emulator, against the equations in f64.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use common::{Compared, Draw, close};
use cuda::Buffer;
use device::{
    Rows, apart,
    conv::{Problem, shapes},
    elements, in_every_schedule, maybe, ptr, rounded, storing,
};
use ophidian_kernels::cuda::conv;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn kernels_are_the_equations(shape in shapes()) {
        let p = Problem::new(&shape);
        let found = in_every_schedule(|device| p.kernels(device));
        p.compared(&found).iter().for_each(Compared::check);
    }

    #[test]
    fn the_step_is_the_equations(
        element in elements(), batch in 1..3usize, tokens in 1..7usize, channels in 1..300usize, taps in 2..5usize,
        more in 0..4usize, flags in any::<[bool; 3]>(), apart in apart(), seed in any::<u64>(),
    ) {
        let [circular, silu, bias] = flags;
        let (mut draw, past) = (Draw(seed), taps - 1);
        let room = (past + more).max(1);
        let x = rounded(element, draw.vec(batch * tokens * channels, 2.0));
        let weight = draw.vec(channels * taps, 1.0);
        let bias = bias.then(|| draw.vec(channels, 1.0));
        let state = draw.vec(batch * channels * room, 1.0);
        // Also before its first token, as torch's remainder has it.
        let seen: Vec<i32> = (0..batch).map(|_| draw.below(3 * room) as i32 - room as i32).collect();
        let (mut want, mut left) = (vec![0f64; x.len()], common::wide(&state));
        for b in 0..batch {
            for d in 0..channels {
                let row = &mut left[(b * channels + d) * room..][..room];
                let start = if circular { seen[b].rem_euclid(room as i32) as usize } else { 0 };
                // The buffer from its oldest input on.
                row.rotate_left(start);
                let mut inputs = row.to_vec();
                for t in 0..tokens {
                    inputs.push(f64::from(x[(b * tokens + t) * channels + d]));
                    let taken = &inputs[inputs.len() - taps..];
                    let products = weight[d * taps..].iter().zip(taken).map(|(w, x)| f64::from(*w) * x);
                    let sum = products.sum::<f64>() + bias.as_ref().map_or(0.0, |bias| f64::from(bias[d]));
                    want[(b * tokens + t) * channels + d] = if silu { sum / (1.0 + (-sum).exp()) } else { sum };
                }
                row.copy_from_slice(&inputs[tokens..]);
                // And back to where a circular buffer has them.
                if circular {
                    row.rotate_right((start + tokens) % room);
                }
            }
        }
        let found = in_every_schedule(|device| {
            let (x, y) = (Rows::of(element, &x, channels, apart), Rows::new(element, batch * tokens, channels, apart));
            let (weight, bias) = (Buffer::of(&weight), maybe(bias.as_deref()));
            let (state, seen) = (Buffer::of(&state), circular.then(|| Buffer::of(&seen)));
            let strides = |rows: &Rows| [(rows.stride * tokens) as i64, rows.stride as i64];
            let arguments = conv::Step {
                x: x.ptr(),
                weight: weight.ptr(),
                bias: ptr(&bias),
                state: state.ptr(),
                seen: ptr(&seen),
                y: y.ptr(),
                x_strides: strides(&x),
                y_strides: strides(&y),
                batch: batch as i32,
                tokens: tokens as i32,
                channels: channels as i32,
                room: room as i32,
                silu: silu.into(),
            };
            let launch = conv::step_launch(batch, channels).unwrap();
            device.launch(&conv::variant(element, taps).unwrap(), "causal_conv1d_step", arguments, launch);
            vec![y.values(), state.read()]
        });
        close("y", &found[0], &want, 3e-6 + storing(element));
        close("state", &found[1], &left, 0.0);
    }
}
