//! The CUDA convolution, run on the emulator, against the equations in f64: each input of a step is traced to where it
//! came from.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use std::ptr::null_mut;

use common::{Draw, Kind, Table, close, kinds};
use cuda::Buffer;
use device::{Device, Rows, apart, cards, elements, in_every_schedule, maybe, ptr, rounded, storing};
use ophidian_kernels::cuda::{Card, Element, Tables, aligned, conv, sums};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Shape {
    element: Element,
    card: Card,
    batch: usize,
    tokens: usize,
    directions: usize,
    channels: usize,
    taps: usize,
    /// x is one for all directions; bias; initial state; SiLU; dfinal.
    shared: bool,
    bias: bool,
    initial: bool,
    silu: bool,
    dfinal: bool,
    apart: [usize; 2],
    kind: Kind,
    seed: u64,
}

fn shapes() -> impl Strategy<Value = Shape> {
    let channels = prop_oneof![1..40usize, Just(12), Just(32), Just(44), Just(48), 250..270usize];
    let sizes = (1..4usize, 0..90usize, 1..4usize, channels, 2..5usize);
    let flags = any::<[bool; 5]>();
    (elements(), cards(), sizes, flags, apart(), kinds(), any::<u64>()).prop_map(
        |(element, card, (batch, tokens, directions, channels, taps), flags, apart, kind, seed)| {
            let [shared, bias, initial, silu, dfinal] = flags;
            // The emulator is slow: many channels, few steps.
            let (tokens, batch) = if channels > 100 { (tokens % 40, 1) } else { (tokens, batch) };
            Shape {
                element,
                card,
                batch,
                tokens,
                directions,
                channels,
                taps,
                shared,
                bias,
                initial,
                silu,
                dfinal,
                apart,
                kind,
                seed,
            }
        },
    )
}

struct Problem {
    s: Shape,
    table: Table,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    initial: Option<Vec<f32>>,
    dy: Vec<f32>,
    dfinal: Option<Vec<f32>>,
}

/// Where an input of a step came from.
#[derive(Clone, Copy)]
enum From {
    Nowhere,
    X(usize),
    Initial(usize),
}

impl Problem {
    fn new(s: &Shape) -> Problem {
        let mut draw = Draw(s.seed);
        let per_channel = s.directions * s.channels;
        let state = s.batch * per_channel * (s.taps - 1);
        let once = s.batch * s.tokens * if s.shared { 1 } else { s.directions };
        Problem {
            table: Table::new(s.kind, s.batch, s.directions, s.tokens, &mut draw),
            x: rounded(s.element, draw.vec(once * s.channels, 2.0)),
            weight: draw.vec(per_channel * s.taps, 1.0),
            bias: s.bias.then(|| draw.vec(per_channel, 1.0)),
            initial: s.initial.then(|| draw.vec(state, 1.0)),
            dy: rounded(s.element, draw.vec(s.batch * s.tokens * per_channel, 1.0)),
            dfinal: s.dfinal.then(|| draw.vec(state, 1.0)),
            s: s.clone(),
        }
    }

    /// y, final state, dx, dweight, dbias, dinitial.
    fn equations(&self) -> [Vec<f64>; 6] {
        let Shape { batch, tokens, directions, channels, taps, .. } = self.s;
        let past = taps - 1;
        let state = batch * directions * channels * past;
        let zeros = |n: usize| vec![0f64; n];
        let mut out = [
            zeros(self.dy.len()),
            zeros(state),
            zeros(self.x.len()),
            zeros(self.weight.len()),
            zeros(directions * channels),
            zeros(state),
        ];
        let [y, last, dx, dweight, dbias, dinitial] = &mut out;
        let value = |from: From| match from {
            From::Nowhere => 0.0,
            From::X(at) => f64::from(self.x[at]),
            From::Initial(at) => self.initial.as_ref().map_or(0.0, |initial| f64::from(initial[at])),
        };
        let mut give = |from: From, gradient: f64| match from {
            From::Nowhere => {}
            From::X(at) => dx[at] += gradient,
            From::Initial(at) => dinitial[at] += gradient,
        };
        for b in 0..batch {
            for k in 0..directions {
                for d in 0..channels {
                    let (row, param) = ((b * directions + k) * channels + d, k * channels + d);
                    let mut inputs: Vec<From> = (0..past).map(|i| From::Initial(row * past + i)).collect();
                    for (token, reset, written) in self.table.path(directions, b, k) {
                        if reset {
                            inputs.fill(From::Nowhere);
                        }
                        let shared = b * tokens + token.max(0) as usize;
                        let at = if self.s.shared { shared } else { shared * directions + k } * channels + d;
                        inputs.push(if token < 0 { From::Nowhere } else { From::X(at) });
                        if written >= 0 {
                            let weight = &self.weight[param * taps..(param + 1) * taps];
                            let products = weight.iter().zip(&inputs).map(|(w, x)| f64::from(*w) * value(*x));
                            let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[param]));
                            let sum = bias + products.sum::<f64>();
                            let to = ((b * tokens + written as usize) * directions + k) * channels + d;
                            let gate = 1.0 / (1.0 + (-sum).exp());
                            let (act, slope) = if self.s.silu {
                                (sum * gate, gate * (1.0 + sum * (1.0 - gate)))
                            } else {
                                (sum, 1.0)
                            };
                            y[to] += act;
                            let ds = f64::from(self.dy[to]) * slope;
                            dbias[param] += ds;
                            for w in 0..taps {
                                dweight[param * taps + w] += ds * value(inputs[w]);
                                give(inputs[w], ds * f64::from(weight[w]));
                            }
                        }
                        inputs.remove(0);
                    }
                    for (i, from) in inputs.into_iter().enumerate() {
                        last[row * past + i] = value(from);
                        give(
                            from,
                            self.dfinal.as_ref().map_or(0.0, |dfinal| f64::from(dfinal[row * past + i])),
                        );
                    }
                }
            }
        }
        out
    }

    /// The same, by the kernels.
    fn kernels(&self, device: Device) -> Vec<Vec<f32>> {
        let Shape { element, card, batch, tokens, directions, channels, taps, shared, apart, .. } = self.s;
        let (past, silu) = (taps - 1, i32::from(self.s.silu));
        let variant = conv::variant(element, taps).unwrap();
        let sum_variant = sums::variant(element);
        let tables = Tables::new(&self.table.orders(), batch, tokens, directions).unwrap();
        let sizes = [batch, directions, channels, tables.steps];
        let (read, written, resets) =
            (Buffer::of(&tables.read), maybe(tables.written.as_deref()), maybe(tables.resets.as_deref()));
        let rows = |k: usize| Rows::new(element, batch * tokens * k, channels, apart);
        let strides = |rows: &Rows, k: usize, own: bool| {
            let [token, direction] = [rows.stride * k, if own { rows.stride } else { 0 }];
            [(token * tokens) as i64, token as i64, direction as i64]
        };
        let weight = Buffer::of(&self.weight);
        let (bias, initial) = (maybe(self.bias.as_deref()), maybe(self.initial.as_deref()));
        let x = Rows::of(element, &self.x, channels, apart);
        let x_directions = if shared { 1 } else { directions };
        let x_strides = strides(&x, x_directions, !shared);
        let state = batch * directions * channels * past;
        let steps = batch * directions * tables.steps * channels;

        // Sums over the visits of each token of what the kernels stored step by step.
        let sum = |from: &Option<Buffer<f32>>, out: &Rows, written: bool, summed: bool| {
            let Some(from) = from else { return };
            let visits = tables.visits(written, summed);
            let (starts, list) = (Buffer::of(&visits.starts), Buffer::of(&visits.steps));
            let arguments = sums::VisitSums {
                rows: from.ptr(),
                starts: starts.ptr(),
                visits: list.ptr(),
                out: out.ptr(),
                out_strides: strides(out, visits.groups, visits.groups > 1),
                batch: batch as i32,
                tokens: tokens as i32,
                groups: visits.groups as i32,
                channels: channels as i32,
                visited: (tables.steps * directions) as i32,
                listed: visits.listed as i32,
                per_sample: tables.per_sample.into(),
                aligned: aligned(&[out.bytes()[0], out.bytes()[1], channels * 4]),
            };
            let launch = sums::visits_launch(element, [batch, tokens, visits.groups, channels]).unwrap();
            device.launch(&sum_variant, "sum_visits", arguments, launch);
        };

        let y = rows(directions);
        let y_steps = (!tables.permutations).then(|| Buffer::<f32>::poisoned(steps));
        let last = Buffer::<f32>::poisoned(state);
        let plan = conv::Plan::forward(element, sizes, card).unwrap();
        let bytes = |more: &[&Rows]| {
            let rows = more.iter().flat_map(|rows| rows.bytes());
            aligned(&rows.chain(x.bytes()).chain([channels * 4]).collect::<Vec<_>>())
        };
        let forward = conv::Forward {
            x: x.ptr(),
            weight: weight.ptr(),
            bias: ptr(&bias),
            initial: ptr(&initial),
            read: read.ptr(),
            written: ptr(&written),
            resets: ptr(&resets),
            y: y.ptr(),
            y_steps: ptr(&y_steps),
            final_state: last.ptr(),
            x_strides,
            y_strides: strides(&y, directions, true),
            batch: batch as i32,
            directions: directions as i32,
            channels: channels as i32,
            steps: tables.steps as i32,
            span: plan.span,
            lanes: plan.lanes,
            per_sample: tables.per_sample.into(),
            silu,
            aligned: bytes(&[&y]),
        };
        device.launch(&variant, "causal_conv1d_forward", forward, plan.launch);
        sum(&y_steps, &y, true, false);

        let dy = Rows::of(element, &self.dy, channels, apart);
        let dx = rows(x_directions);
        let summed = shared && directions > 1;
        let dx_steps = (summed || !tables.permutations).then(|| Buffer::<f32>::poisoned(steps));
        let plan = conv::Plan::backward(sizes, card).unwrap();
        let columns = directions * (taps + 1) * channels;
        let parts = Buffer::<f32>::poisoned(plan.parts * columns);
        let dfinal = maybe(self.dfinal.as_deref());
        let dinitial = self.s.initial.then(|| Buffer::<f32>::poisoned(state));
        let backward = conv::Backward {
            x: x.ptr(),
            weight: weight.ptr(),
            bias: ptr(&bias),
            initial: ptr(&initial),
            read: read.ptr(),
            written: ptr(&written),
            resets: ptr(&resets),
            dy: dy.ptr(),
            dfinal: ptr(&dfinal),
            dx: if dx_steps.is_some() { null_mut() } else { dx.ptr() },
            dx_steps: ptr(&dx_steps),
            parts: parts.ptr(),
            dinitial: ptr(&dinitial),
            x_strides,
            dy_strides: strides(&dy, directions, true),
            dx_strides: strides(&dx, x_directions, !shared),
            batch: batch as i32,
            directions: directions as i32,
            channels: channels as i32,
            steps: tables.steps as i32,
            span: plan.span,
            lanes: plan.lanes,
            per_sample: tables.per_sample.into(),
            silu,
            aligned: bytes(&[&dy, &dx]),
        };
        device.launch(&variant, "causal_conv1d_backward", backward, plan.launch);
        sum(&dx_steps, &dx, false, summed);
        let gradients = Buffer::<f32>::poisoned(columns);
        let arguments = sums::Parts {
            parts: parts.ptr(),
            out: gradients.ptr(),
            count: plan.parts as i32,
            columns: columns as i32,
        };
        device.launch(&sum_variant, "sum_parts", arguments, sums::parts_launch(columns).unwrap());

        // (K, W + 1, D) to the taps (K, D, W) and the bias (K, D).
        let gradient = |k: usize, d: usize, w: usize| gradients[(k * (taps + 1) + w) * channels + d];
        let each = || (0..directions).flat_map(|k| (0..channels).map(move |d| (k, d)));
        let dweight = each().flat_map(|(k, d)| (0..taps).map(move |w| gradient(k, d, w))).collect();
        let dbias = each().map(|(k, d)| gradient(k, d, taps)).collect();
        let dinitial = dinitial.map_or(Vec::new(), |dinitial| dinitial.to_vec());
        vec![y.values(), last.to_vec(), dx.values(), dweight, dbias, dinitial]
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn kernels_are_the_equations(shape in shapes()) {
        let p = Problem::new(&shape);
        let found = in_every_schedule(|device| p.kernels(device));
        let [y, last, dx, dweight, dbias, dinitial] = p.equations();
        let stored = storing(shape.element);
        close("y", &found[0], &y, 3e-6 + stored);
        close("final_state", &found[1], &last, 0.0);
        close("dx", &found[2], &dx, 3e-6 + stored);
        close("dweight", &found[3], &dweight, 1e-5);
        close("dbias", &found[4], &dbias, 1e-5);
        if shape.initial {
            close("dinitial", &found[5], &dinitial, 3e-6);
        }
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
            vec![y.values(), state.to_vec()]
        });
        close("y", &found[0], &want, 3e-6 + storing(element));
        close("state", &found[1], &left, 0.0);
    }
}
