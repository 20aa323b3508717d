//! The convolution: random problems, their equations in f64 (each input of a step is traced to where it came from), and the
//! launches.

use std::ptr::null_mut;

use ophidian_kernels::cuda::{Card, Element, Launch, Tables, Variant, aligned, conv};
use proptest::prelude::*;

use super::{Device, PartSum, Rows, VisitSum, apart, cards, elements, maybe, ptr, rounded, storing};
use crate::{
    common::{Compared, Draw, Kind, Table, kinds},
    cuda::Buffer,
};

#[derive(Debug, Clone)]
pub struct Shape {
    pub element: Element,
    pub card: Card,
    pub batch: usize,
    pub tokens: usize,
    pub directions: usize,
    pub channels: usize,
    pub taps: usize,
    /// x is one for all directions; bias; initial state; SiLU; dfinal.
    pub shared: bool,
    pub bias: bool,
    pub initial: bool,
    pub silu: bool,
    pub dfinal: bool,
    pub apart: [usize; 2],
    pub kind: Kind,
    pub seed: u64,
}

pub fn shapes() -> impl Strategy<Value = Shape> {
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

pub struct Problem {
    pub s: Shape,
    pub table: Table,
    pub x: Vec<f32>,
    pub weight: Vec<f32>,
    pub bias: Option<Vec<f32>>,
    pub initial: Option<Vec<f32>>,
    pub dy: Vec<f32>,
    pub dfinal: Option<Vec<f32>>,
}

/// Where an input of a step came from.
#[derive(Clone, Copy)]
enum From {
    Nowhere,
    X(usize),
    Initial(usize),
}

impl Problem {
    pub fn new(s: &Shape) -> Problem {
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
    pub fn equations(&self) -> [Vec<f64>; 6] {
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
    pub fn kernels(&self, device: Device) -> Vec<Vec<f32>> {
        let Shape { element, channels, apart, .. } = self.s;
        let operands = Operands {
            x: Rows::of(element, &self.x, channels, apart),
            weight: Buffer::of(&self.weight),
            bias: maybe(self.bias.as_deref()),
            initial: maybe(self.initial.as_deref()),
            dy: Rows::of(element, &self.dy, channels, apart),
            dfinal: maybe(self.dfinal.as_deref()),
        };
        let run = Run::new(&self.s, &self.table, operands);
        run.forward(device);
        run.backward(device);
        run.results()
    }

    /// What the kernels gave beside the equations.
    pub fn compared(&self, found: &[Vec<f32>]) -> Vec<Compared> {
        let [y, last, dx, dweight, dbias, dinitial] = self.equations();
        let stored = storing(self.s.element);
        let close = |name, got, want, tolerance| Compared::new(name, got, want, tolerance, 1e-3);
        let mut compared = vec![
            close("y", &found[0], &y, 3e-6 + stored),
            close("final_state", &found[1], &last, 0.0),
            close("dx", &found[2], &dx, 3e-6 + stored),
            close("dweight", &found[3], &dweight, 1e-5),
            close("dbias", &found[4], &dbias, 1e-5),
        ];
        if self.s.initial {
            compared.push(close("dinitial", &found[5], &dinitial, 3e-6));
        }
        compared
    }
}

/// What the kernels are given.
pub struct Operands {
    pub x: Rows,
    pub weight: Buffer<f32>,
    pub bias: Option<Buffer<f32>>,
    pub initial: Option<Buffer<f32>>,
    pub dy: Rows,
    pub dfinal: Option<Buffer<f32>>,
}

/// The kernels on a device's memory.
pub struct Run {
    shape: Shape,
    forward: (conv::Forward, Launch),
    backward: (conv::Backward, Launch),
    sum_y: Option<VisitSum>,
    sum_dx: Option<VisitSum>,
    gradients: PartSum,
    y: Rows,
    last: Buffer<f32>,
    dx: Rows,
    dinitial: Option<Buffer<f32>>,
    _operands: Operands,
    _orders: (Buffer<i32>, Option<Buffer<i32>>, Option<Buffer<u8>>),
    _steps: (Option<Buffer<f32>>, Option<Buffer<f32>>, Buffer<f32>),
}

impl Run {
    pub fn new(s: &Shape, table: &Table, operands: Operands) -> Run {
        let Shape { element, card, batch, tokens, directions, channels, taps, shared, apart, .. } = *s;
        let (past, silu) = (taps - 1, i32::from(s.silu));
        let tables = Tables::new(&table.orders(), batch, tokens, directions).unwrap();
        let sizes = [batch, directions, channels, tables.steps];
        let (read, written, resets) =
            (Buffer::of(&tables.read), maybe(tables.written.as_deref()), maybe(tables.resets.as_deref()));
        let rows = |k: usize| Rows::new(element, batch * tokens * k, channels, apart);
        let strides = |rows: &Rows, k: usize, own: bool| {
            let [token, direction] = [rows.stride * k, if own { rows.stride } else { 0 }];
            [(token * tokens) as i64, token as i64, direction as i64]
        };
        let Operands { x, weight, bias, initial, dy, dfinal } = &operands;
        let x_directions = if shared { 1 } else { directions };
        let x_strides = strides(x, x_directions, !shared);
        let state = batch * directions * channels * past;
        let steps = batch * directions * tables.steps * channels;
        let bytes = |more: &[&Rows]| {
            let rows = more.iter().flat_map(|rows| rows.bytes());
            aligned(&rows.chain(x.bytes()).chain([channels * 4]).collect::<Vec<_>>())
        };

        let y = rows(directions);
        let y_steps = (!tables.permutations).then(|| Buffer::<f32>::poisoned(steps));
        let last = Buffer::<f32>::poisoned(state);
        let plan = conv::Plan::forward(element, sizes, card).unwrap();
        let forward = conv::Forward {
            x: x.ptr(),
            weight: weight.ptr(),
            bias: ptr(bias),
            initial: ptr(initial),
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
        let forward = (forward, plan.launch);
        let sum = |from: &Option<Buffer<f32>>, out: &Rows, k: usize, own: bool, how: [bool; 2]| {
            let out = (out.ptr(), strides(out, k, own));
            from.as_ref().map(|from| VisitSum::new(&tables, element, [batch, channels], from, out, how))
        };
        let sum_y = sum(&y_steps, &y, directions, directions > 1, [true, false]);

        let dx = rows(x_directions);
        let summed = shared && directions > 1;
        let dx_steps = (summed || !tables.permutations).then(|| Buffer::<f32>::poisoned(steps));
        let plan = conv::Plan::backward(sizes, card).unwrap();
        let columns = directions * (taps + 1) * channels;
        let parts = Buffer::<f32>::poisoned(plan.parts * columns);
        let dinitial = s.initial.then(|| Buffer::<f32>::poisoned(state));
        let backward = conv::Backward {
            x: x.ptr(),
            weight: weight.ptr(),
            bias: ptr(bias),
            initial: ptr(initial),
            read: read.ptr(),
            written: ptr(&written),
            resets: ptr(&resets),
            dy: dy.ptr(),
            dfinal: ptr(dfinal),
            dx: if dx_steps.is_some() { null_mut() } else { dx.ptr() },
            dx_steps: ptr(&dx_steps),
            parts: parts.ptr(),
            dinitial: ptr(&dinitial),
            x_strides,
            dy_strides: strides(dy, directions, true),
            dx_strides: strides(&dx, x_directions, !shared),
            batch: batch as i32,
            directions: directions as i32,
            channels: channels as i32,
            steps: tables.steps as i32,
            span: plan.span,
            lanes: plan.lanes,
            per_sample: tables.per_sample.into(),
            silu,
            aligned: bytes(&[dy, &dx]),
        };
        let sum_dx = sum(&dx_steps, &dx, x_directions, x_directions > 1, [false, summed]);
        Run {
            shape: s.clone(),
            forward,
            backward: (backward, plan.launch),
            sum_y,
            sum_dx,
            gradients: PartSum::new(&parts, plan.parts, columns),
            y,
            last,
            dx,
            dinitial,
            _operands: operands,
            _orders: (read, written, resets),
            _steps: (y_steps, dx_steps, parts),
        }
    }

    fn variant(&self) -> Variant {
        conv::variant(self.shape.element, self.shape.taps).unwrap()
    }

    pub fn forward(&self, device: Device) {
        device.launch(&self.variant(), "causal_conv1d_forward", self.forward.0, self.forward.1);
        self.sum_y.iter().for_each(|sum| sum.run(device, self.shape.element));
    }

    pub fn backward(&self, device: Device) {
        device.launch(&self.variant(), "causal_conv1d_backward", self.backward.0, self.backward.1);
        self.sum_dx.iter().for_each(|sum| sum.run(device, self.shape.element));
        self.gradients.run(device);
    }

    /// In the order of the equations.
    pub fn results(&self) -> Vec<Vec<f32>> {
        let Shape { directions, channels, taps, .. } = self.shape;
        let gradients = self.gradients.out.read();
        // (K, W + 1, D) to the taps (K, D, W) and the bias (K, D).
        let gradient = |k: usize, d: usize, w: usize| gradients[(k * (taps + 1) + w) * channels + d];
        let each = || (0..directions).flat_map(|k| (0..channels).map(move |d| (k, d)));
        let dweight = each().flat_map(|(k, d)| (0..taps).map(move |w| (k, d, w)));
        let dweight = dweight.map(|(k, d, w)| gradient(k, d, w)).collect();
        let dbias = each().map(|(k, d)| gradient(k, d, taps)).collect();
        let dinitial = self.dinitial.as_ref().map_or(Vec::new(), Buffer::read);
        vec![self.y.values(), self.last.read(), self.dx.values(), dweight, dbias, dinitial]
    }
}
