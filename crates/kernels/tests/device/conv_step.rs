//! The convolution's step on a buffer of past inputs, circular or not: random problems, their equations in f64, its launch.

use ophidian_kernels::cuda::{Element, conv};
use proptest::prelude::*;

use super::{Device, Rows, apart, elements, maybe, ptr, rounded, storing};
use crate::{
    common::{Compared, Draw, wide},
    cuda::Buffer,
};

#[derive(Debug, Clone)]
pub struct Shape {
    pub element: Element,
    pub batch: usize,
    pub tokens: usize,
    pub channels: usize,
    pub taps: usize,
    /// Inputs that the buffer holds for a channel.
    pub room: usize,
    pub circular: bool,
    pub silu: bool,
    pub bias: bool,
    pub apart: [usize; 2],
    pub seed: u64,
}

pub fn shapes() -> impl Strategy<Value = Shape> {
    let sizes = (1..3usize, 1..7usize, 1..300usize, 2..5usize, 0..4usize);
    (elements(), sizes, any::<[bool; 3]>(), apart(), any::<u64>()).prop_map(
        |(element, (batch, tokens, channels, taps, more), [circular, silu, bias], apart, seed)| {
            let room = (taps - 1 + more).max(1);
            Shape { element, batch, tokens, channels, taps, room, circular, silu, bias, apart, seed }
        },
    )
}

pub struct Problem {
    pub s: Shape,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    state: Vec<f32>,
    /// Tokens that a sample has seen; where its circular buffer begins follows from it.
    seen: Vec<i32>,
}

impl Problem {
    pub fn new(s: &Shape) -> Problem {
        let mut draw = Draw(s.seed);
        Problem {
            x: rounded(s.element, draw.vec(s.batch * s.tokens * s.channels, 2.0)),
            weight: draw.vec(s.channels * s.taps, 1.0),
            bias: s.bias.then(|| draw.vec(s.channels, 1.0)),
            state: draw.vec(s.batch * s.channels * s.room, 1.0),
            // Also before its first token, as torch's remainder has it.
            seen: (0..s.batch).map(|_| draw.below(3 * s.room) as i32 - s.room as i32).collect(),
            s: s.clone(),
        }
    }

    /// y, and the buffer afterwards.
    pub fn equations(&self) -> [Vec<f64>; 2] {
        let Shape { batch, tokens, channels, taps, room, circular, silu, .. } = self.s;
        let (mut y, mut left) = (vec![0f64; self.x.len()], wide(&self.state));
        for b in 0..batch {
            for d in 0..channels {
                let row = &mut left[(b * channels + d) * room..][..room];
                let start = if circular { self.seen[b].rem_euclid(room as i32) as usize } else { 0 };
                // The buffer from its oldest input on.
                row.rotate_left(start);
                let mut inputs = row.to_vec();
                for t in 0..tokens {
                    inputs.push(f64::from(self.x[(b * tokens + t) * channels + d]));
                    let taken = &inputs[inputs.len() - taps..];
                    let products = self.weight[d * taps..].iter().zip(taken).map(|(w, x)| f64::from(*w) * x);
                    let sum =
                        products.sum::<f64>() + self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[d]));
                    y[(b * tokens + t) * channels + d] = if silu { sum / (1.0 + (-sum).exp()) } else { sum };
                }
                row.copy_from_slice(&inputs[tokens..]);
                // And back to where a circular buffer has them.
                if circular {
                    row.rotate_right((start + tokens) % room);
                }
            }
        }
        [y, left]
    }

    pub fn kernels(&self, device: Device) -> Vec<Vec<f32>> {
        let Shape { element, batch, tokens, channels, taps, room, circular, silu, apart, .. } = self.s;
        let x = Rows::of(element, &self.x, channels, apart);
        let y = Rows::new(element, batch * tokens, channels, apart);
        let (weight, bias) = (Buffer::of(&self.weight), maybe(self.bias.as_deref()));
        let (state, seen) = (Buffer::of(&self.state), circular.then(|| Buffer::of(&self.seen)));
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
    }

    /// What the kernel gave beside the equations.
    pub fn compared(&self, found: &[Vec<f32>]) -> Vec<Compared> {
        let [y, left] = self.equations();
        vec![
            Compared::new("y", &found[0], &y, 3e-6 + storing(self.s.element), 1e-3),
            Compared::new("state", &found[1], &left, 0.0, 1e-3),
        ]
    }
}
