//! The CUDA norms, run on the emulator, against the equations in f64.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use std::ptr::{null, null_mut};

use common::{Draw, close, close_to, wide};
use cuda::Buffer;
use device::{Device, Rows, apart, cards, elements, in_every_schedule, maybe, ptr, rounded, storing};
use ophidian_kernels::cuda::{
    Card, Element, aligned,
    norm::{self, Plan},
    sums,
};
use proptest::prelude::*;

const EPS: f32 = 1e-5;

/// Values large enough for a square to count beside eps, in the element type.
fn draw_rows(draw: &mut Draw, element: Element, n: usize) -> Vec<f32> {
    rounded(element, draw.vec(n, 2.0))
}

/// The (2, channels) gradients of weight and bias out of their shares.
fn sum_parts(device: Device, parts: &Buffer<f32>, count: usize, channels: usize) -> Vec<f32> {
    let out = Buffer::<f32>::poisoned(2 * channels);
    let (count, columns) = (count as i32, 2 * channels as i32);
    let arguments = sums::Parts { parts: parts.ptr(), out: out.ptr(), count, columns };
    let launch = sums::parts_launch(2 * channels).unwrap();
    device.launch(&sums::variant(Element::F32), "sum_parts", arguments, launch);
    out.to_vec()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// n = v rstd, and the gradient of v out of that of n: (n, dv).
fn rms(v: &[f64], dn: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = v.len() as f64;
    let rstd = 1.0 / (v.iter().map(|v| v * v).sum::<f64>() / count + f64::from(EPS)).sqrt();
    // d rstd / dv_j = -rstd^3 v_j / count.
    let dot: f64 = v.iter().zip(dn).map(|(v, dn)| v * dn).sum();
    let dv = v.iter().zip(dn).map(|(v, dn)| rstd * dn - rstd.powi(3) / count * dot * v).collect();
    (v.iter().map(|v| v * rstd).collect(), dv)
}

/// The same of the centred row.
fn layer(v: &[f64], dn: &[f64]) -> (Vec<f64>, Vec<f64>) {
    let count = v.len() as f64;
    let mean = v.iter().sum::<f64>() / count;
    let (n, dcentred) = rms(&v.iter().map(|v| v - mean).collect::<Vec<_>>(), dn);
    let dmean = dcentred.iter().sum::<f64>() / count;
    (n, dcentred.into_iter().map(|dv| dv - dmean).collect())
}

#[derive(Debug, Clone)]
struct Gated {
    element: Element,
    card: Card,
    rows: usize,
    groups: usize,
    group: usize,
    /// Rows that share one of z; 0: there is no z.
    repeat: usize,
    bias: bool,
    norm_before_gate: bool,
    apart: [usize; 2],
    seed: u64,
}

fn gated() -> impl Strategy<Value = Gated> {
    let group = prop_oneof![1..40usize, Just(64), 500..540usize, Just(2100)];
    let sizes = (0..12usize, 1..4usize, group, 0..3usize);
    (elements(), cards(), sizes, any::<[bool; 2]>(), apart(), any::<u64>()).prop_map(
        |(element, card, (rows, groups, group, repeat), [bias, norm_before_gate], apart, seed)| {
            let rows = rows * repeat.max(1);
            Gated { element, card, rows, groups, group, repeat, bias, norm_before_gate, apart, seed }
        },
    )
}

impl Gated {
    fn channels(&self) -> usize {
        self.groups * self.group
    }

    /// y, dx, dz, dweight, dbias.
    fn equations(&self, inputs: &[Vec<f32>; 5]) -> [Vec<f64>; 5] {
        let [x, z, weight, bias, dy] = inputs.each_ref().map(|values| wide(values));
        let channels = self.channels();
        let mut out = [
            vec![0.0; x.len()],
            vec![0.0; x.len()],
            vec![0.0; x.len()],
            vec![0.0; channels],
            vec![0.0; channels],
        ];
        let [y, dx, dz, dweight, dbias] = &mut out;
        let has_z = self.repeat > 0;
        for row in 0..self.rows {
            for g in 0..self.groups {
                let at = |i: usize| row * channels + g * self.group + i;
                let gate_input = |i: usize| {
                    if has_z { z[row / self.repeat * channels + g * self.group + i] } else { 0.0 }
                };
                let gate = |i: usize| if has_z { gate_input(i) * sigmoid(gate_input(i)) } else { 1.0 };
                let slope = |i: usize| {
                    let s = sigmoid(gate_input(i));
                    s * (1.0 + gate_input(i) * (1.0 - s))
                };
                let first = has_z && !self.norm_before_gate;
                let each = 0..self.group;
                let v: Vec<f64> =
                    each.clone().map(|i| if first { x[at(i)] * gate(i) } else { x[at(i)] }).collect();
                let outer = |i: usize| if first { 1.0 } else { gate(i) };
                let dnormed = |i: usize| dy[at(i)] * outer(i);
                let parameter = |i: usize| g * self.group + i;
                let dn: Vec<f64> = each.clone().map(|i| dnormed(i) * weight[parameter(i)]).collect();
                let (n, dv) = rms(&v, &dn);
                for i in each {
                    let normed = n[i] * weight[parameter(i)] + bias.get(parameter(i)).unwrap_or(&0.0);
                    y[at(i)] = normed * outer(i);
                    dweight[parameter(i)] += dnormed(i) * n[i];
                    dbias[parameter(i)] += dnormed(i);
                    dx[at(i)] = if first { dv[i] * gate(i) } else { dv[i] };
                    if has_z {
                        dz[at(i)] = if first { dv[i] * x[at(i)] } else { dy[at(i)] * normed } * slope(i);
                    }
                }
            }
        }
        out
    }

    fn kernels(&self, [x, z, weight, bias, dy]: &[Vec<f32>; 5], device: Device) -> Vec<Vec<f32>> {
        let Gated { element, card, rows, groups, group, repeat, apart, .. } = *self;
        let (channels, variant) = (self.channels(), norm::gated(element));
        let of = |values: &[f32]| Rows::of(element, values, channels, apart);
        let (x, dy) = (of(x), of(dy));
        let z = (repeat > 0).then(|| of(z));
        let z_at = z.as_ref().map_or(null(), |z| z.ptr().cast_const());
        let (weight, bias) = (Buffer::of(weight), maybe(self.bias.then_some(bias.as_slice())));
        let new = || Rows::new(element, rows, channels, apart);
        let (y, dx, dz) = (new(), new(), (repeat > 0).then(new));
        let rstd = Buffer::<f32>::poisoned(rows * groups);
        let all: Vec<_> =
            [&x, &y, &dy, &dx].into_iter().chain(&z).chain(&dz).flat_map(|rows| rows.bytes()).collect();
        let lone = if groups > 1 { group * element.size() } else { 0 };
        let parameters = weight.ptr() as usize | bias.as_ref().map_or(0, |bias| bias.ptr() as usize);
        let aligned = aligned(&[all, vec![lone, parameters]].concat());
        let stride = |rows: &Rows| rows.stride as i64;
        let plan = Plan::forward(element, rows, groups, group).unwrap();
        let forward = norm::GatedForward {
            x: x.ptr(),
            z: z_at,
            weight: weight.ptr(),
            bias: ptr(&bias),
            y: y.ptr(),
            rstd: rstd.ptr(),
            x_row: stride(&x),
            z_row: z.as_ref().map_or(0, stride),
            y_row: stride(&y),
            rows: rows as i64,
            channels: channels as i32,
            group: group as i32,
            z_repeat: repeat.max(1) as i32,
            lanes: plan.lanes,
            eps: EPS,
            norm_before_gate: self.norm_before_gate.into(),
            aligned,
        };
        device.launch(&variant, "gated_rms_norm_forward", forward, plan.launch);
        let plan = Plan::backward(element, rows, groups, group, card).unwrap();
        let parts = Buffer::<f32>::poisoned(plan.parts * 2 * channels);
        let backward = norm::GatedBackward {
            x: x.ptr(),
            z: z_at,
            weight: weight.ptr(),
            bias: ptr(&bias),
            rstd: rstd.ptr(),
            dy: dy.ptr(),
            dx: dx.ptr(),
            dz: dz.as_ref().map_or(null_mut(), |dz| dz.ptr()),
            parts: parts.ptr(),
            x_row: stride(&x),
            z_row: z.as_ref().map_or(0, stride),
            dy_row: stride(&dy),
            dx_row: stride(&dx),
            dz_row: dz.as_ref().map_or(0, stride),
            rows: rows as i64,
            channels: channels as i32,
            group: group as i32,
            z_repeat: repeat.max(1) as i32,
            lanes: plan.lanes,
            norm_before_gate: self.norm_before_gate.into(),
            aligned,
            roomy: plan.roomy,
        };
        device.launch(&variant, "gated_rms_norm_backward", backward, plan.launch);
        let gradients = sum_parts(device, &parts, plan.parts, channels);
        let (dweight, dbias) = gradients.split_at(channels);
        let dz = dz.map_or(Vec::new(), |dz| dz.values());
        vec![y.values(), dx.values(), dz, dweight.to_vec(), dbias.to_vec()]
    }
}

#[derive(Debug, Clone)]
struct Add {
    element: Element,
    card: Card,
    rows: usize,
    channels: usize,
    layer: bool,
    stream_f32: bool,
    residual: bool,
    scale: bool,
    bias: bool,
    /// The sum is used elsewhere.
    prenorm: bool,
    apart: [usize; 2],
    seed: u64,
}

fn add() -> impl Strategy<Value = Add> {
    let channels = prop_oneof![1..40usize, Just(64), 500..540usize, Just(2100)];
    (elements(), cards(), (0..20usize, channels), any::<[bool; 6]>(), apart(), any::<u64>()).prop_map(
        |(
            element,
            card,
            (rows, channels),
            [layer, stream_f32, residual, scale, bias, prenorm],
            apart,
            seed,
        )| Add {
            element,
            card,
            rows,
            channels,
            layer,
            stream_f32,
            residual,
            scale,
            bias,
            prenorm,
            apart,
            seed,
        },
    )
}

impl Add {
    fn stream(&self) -> Element {
        if self.stream_f32 { Element::F32 } else { self.element }
    }

    /// y, s, dx, dresidual, dweight, dbias. The backward starts from the s that was stored.
    fn equations(&self, inputs: &[Vec<f32>; 7], stored: &[f32]) -> [Vec<f64>; 6] {
        let [x, residual, scale, weight, bias, dy, dsum] = inputs.each_ref().map(|values| wide(values));
        let channels = self.channels;
        let zeros = |n: usize| vec![0f64; n];
        let mut out = [
            zeros(x.len()),
            zeros(x.len()),
            zeros(x.len()),
            zeros(x.len()),
            zeros(channels),
            zeros(channels),
        ];
        let [y, s, dx, dresidual, dweight, dbias] = &mut out;
        let norm = if self.layer { layer } else { rms };
        for row in 0..self.rows {
            let scale = if self.scale { scale[row] } else { 1.0 };
            let at = |i: usize| row * channels + i;
            let sums: Vec<f64> = (0..channels)
                .map(|i| x[at(i)] * scale + if self.residual { residual[at(i)] } else { 0.0 })
                .collect();
            let dn: Vec<f64> = (0..channels).map(|i| dy[at(i)] * weight[i]).collect();
            let (n, _) = norm(&sums, &dn);
            let (kept, ds) = norm(&wide(&stored[at(0)..at(channels)]), &dn);
            for i in 0..channels {
                s[at(i)] = sums[i];
                y[at(i)] = n[i] * weight[i] + if self.bias { bias[i] } else { 0.0 };
                dresidual[at(i)] = ds[i] + if self.prenorm { dsum[at(i)] } else { 0.0 };
                dx[at(i)] = dresidual[at(i)] * scale;
                dweight[i] += dy[at(i)] * kept[i];
                dbias[i] += dy[at(i)];
            }
        }
        out
    }

    fn kernels(&self, inputs: &[Vec<f32>; 7], device: Device) -> Vec<Vec<f32>> {
        let [x, residual, scale, weight, bias, dy, dsum] = inputs;
        let Add { element, card, rows, channels, apart, .. } = *self;
        let variant = norm::add(element, self.layer, self.stream_f32);
        let (x, dy) = (Rows::of(element, x, channels, apart), Rows::of(element, dy, channels, apart));
        let stream = |values: &[f32]| Rows::of(self.stream(), values, channels, apart);
        let residual = self.residual.then(|| stream(residual));
        let dsum = self.prenorm.then(|| stream(dsum));
        let scale = maybe(self.scale.then_some(scale.as_slice()));
        let (weight, bias) = (Buffer::of(weight), maybe(self.bias.then_some(bias.as_slice())));
        let (y, dx) = (Rows::new(element, rows, channels, apart), Rows::new(element, rows, channels, apart));
        let sum = Rows::new(self.stream(), rows, channels, apart);
        let dresidual = self.residual.then(|| Rows::new(self.stream(), rows, channels, apart));
        let (mean, rstd) = (Buffer::<f32>::poisoned(rows), Buffer::<f32>::poisoned(rows));
        let every = [&x, &dy, &y, &dx, &sum].into_iter().chain(&residual).chain(&dsum).chain(&dresidual);
        let parameters = weight.ptr() as usize | bias.as_ref().map_or(0, |bias| bias.ptr() as usize);
        let aligned = aligned(&every.flat_map(|rows| rows.bytes()).chain([parameters]).collect::<Vec<_>>());
        let at = |rows: &Option<Rows>| rows.as_ref().map_or(null_mut(), |rows| rows.ptr());
        let stride = |rows: &Option<Rows>| rows.as_ref().map_or(0, |rows| rows.stride as i64);
        let plan = Plan::forward(element, rows, 1, channels).unwrap();
        let forward = norm::AddForward {
            x: x.ptr(),
            residual: at(&residual),
            scale: ptr(&scale),
            weight: weight.ptr(),
            bias: ptr(&bias),
            y: y.ptr(),
            sum: sum.ptr(),
            mean: mean.ptr(),
            rstd: rstd.ptr(),
            x_row: x.stride as i64,
            residual_row: stride(&residual),
            y_row: y.stride as i64,
            sum_row: sum.stride as i64,
            rows: rows as i64,
            channels: channels as i32,
            lanes: plan.lanes,
            eps: EPS,
            aligned,
        };
        device.launch(&variant, "add_norm_forward", forward, plan.launch);
        let plan = Plan::backward(element, rows, 1, channels, card).unwrap();
        let parts = Buffer::<f32>::poisoned(plan.parts * 2 * channels);
        let backward = norm::AddBackward {
            sum: sum.ptr(),
            scale: ptr(&scale),
            weight: weight.ptr(),
            mean: mean.ptr(),
            rstd: rstd.ptr(),
            dy: dy.ptr(),
            dsum: at(&dsum),
            dx: dx.ptr(),
            dresidual: at(&dresidual),
            parts: parts.ptr(),
            sum_row: sum.stride as i64,
            dy_row: dy.stride as i64,
            dsum_row: stride(&dsum),
            dx_row: dx.stride as i64,
            dresidual_row: stride(&dresidual),
            rows: rows as i64,
            channels: channels as i32,
            lanes: plan.lanes,
            aligned,
            roomy: plan.roomy,
        };
        device.launch(&variant, "add_norm_backward", backward, plan.launch);
        let gradients = sum_parts(device, &parts, plan.parts, channels);
        let (dweight, dbias) = gradients.split_at(channels);
        let dresidual = dresidual.map_or(Vec::new(), |rows| rows.values());
        vec![y.values(), sum.values(), dx.values(), dresidual, dweight.to_vec(), dbias.to_vec()]
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_gated_norm_is_the_equations(shape in gated()) {
        let (mut draw, channels) = (Draw(shape.seed), shape.channels());
        let n = shape.rows * channels;
        let inputs = [
            draw_rows(&mut draw, shape.element, n),
            draw_rows(&mut draw, shape.element, n.checked_div(shape.repeat).unwrap_or(0)),
            draw.vec(channels, 2.0),
            draw.vec(if shape.bias { channels } else { 0 }, 1.0),
            draw_rows(&mut draw, shape.element, n),
        ];
        let found = in_every_schedule(|device| shape.kernels(&inputs, device));
        let [y, dx, dz, dweight, dbias] = shape.equations(&inputs);
        // Where a group is one channel, or of small numbers, its gradient is what is left of terms that cancel: relative
        // to these. They grow as 1 / sqrt(mean square) does.
        let smallest = smallest(&inputs[0], &inputs[1], &shape);
        let stored = storing(shape.element);
        close("y", &found[0], &y, 2e-6 + stored);
        close_to("dx", &found[1], &dx, 1e-5 + stored, 4.0 / smallest);
        if shape.repeat > 0 {
            close_to("dz", &found[2], &dz, 1e-5 + stored, 4.0 / smallest);
        }
        close_to("dweight", &found[3], &dweight, 1e-5, 1.0);
        close_to("dbias", &found[4], &dbias, 1e-5, 1.0);
    }

    #[test]
    fn the_addition_and_norm_are_the_equations(shape in add()) {
        let (mut draw, n) = (Draw(shape.seed), shape.rows * shape.channels);
        let inputs = [
            draw_rows(&mut draw, shape.element, n),
            draw_rows(&mut draw, shape.stream(), n),
            draw.vec(shape.rows, 1.0),
            draw.vec(shape.channels, 2.0),
            draw.vec(shape.channels, 1.0),
            draw_rows(&mut draw, shape.element, n),
            draw_rows(&mut draw, shape.stream(), n),
        ];
        let found = in_every_schedule(|device| shape.kernels(&inputs, device));
        let [y, s, dx, dresidual, dweight, dbias] = shape.equations(&inputs, &found[1]);
        let (stored, stream) = (storing(shape.element), storing(shape.stream()));
        close("s", &found[1], &s, 2e-7 + stream);
        let spread = spread(&s, &shape);
        close_to("y", &found[0], &y, 2e-6 + stored, 1.0 / spread);
        // The statistics are those of s before it was stored, and what is lost when it is centred is lost before the
        // division by the spread.
        close_to("dx", &found[2], &dx, 1e-5 + stored + 4.0 * stream, 4.0 / spread.powi(2));
        if shape.residual {
            close_to("dresidual", &found[3], &dresidual, 1e-5 + 5.0 * stream, 4.0 / spread.powi(2));
        }
        close_to("dweight", &found[4], &dweight, 1e-5 + 16.0 * stream, 1.0 / spread);
        close_to("dbias", &found[5], &dbias, 1e-5, 1.0);
    }
}

/// The smallest root mean square of what is normed.
fn smallest(x: &[f32], z: &[f32], shape: &Gated) -> f64 {
    let mut smallest = 1.0f64;
    for (i, group) in x.chunks(shape.group).enumerate() {
        let (row, g) = (i / shape.groups, i % shape.groups);
        let value = |(i, x): (usize, &f32)| {
            if shape.repeat == 0 || shape.norm_before_gate {
                return f64::from(*x);
            }
            let z = f64::from(z[(row / shape.repeat * shape.groups + g) * shape.group + i]);
            f64::from(*x) * z * sigmoid(z)
        };
        let squares = group.iter().enumerate().map(|v| value(v).powi(2)).sum::<f64>();
        smallest = smallest.min((squares / group.len() as f64 + f64::from(EPS)).sqrt());
    }
    smallest
}

/// The same of rows, centred in a layer norm.
fn spread(s: &[f64], shape: &Add) -> f64 {
    let mut smallest = 1.0f64;
    for row in s.chunks(shape.channels) {
        let mean = if shape.layer { row.iter().sum::<f64>() / row.len() as f64 } else { 0.0 };
        let squares = row.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / row.len() as f64;
        smallest = smallest.min((squares + f64::from(EPS)).sqrt());
    }
    smallest
}
