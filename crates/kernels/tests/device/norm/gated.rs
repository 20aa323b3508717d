//! The gated RMS norm.

use std::ptr::{null, null_mut};

use ophidian_kernels::cuda::{
    Card, Element, Launch, Variant, aligned,
    norm::{self, Plan},
};
use proptest::prelude::*;

use super::{
    super::{Device, PartSum, Rows, apart, cards, elements, maybe, ptr, storing},
    EPS, draw_rows, rms, sigmoid,
};
use crate::{
    common::{Compared, Draw, wide},
    cuda::Buffer,
};

#[derive(Debug, Clone)]
pub struct Gated {
    pub element: Element,
    pub card: Card,
    pub rows: usize,
    pub groups: usize,
    pub group: usize,
    /// Rows that share one of z; 0: there is no z.
    pub repeat: usize,
    pub bias: bool,
    pub norm_before_gate: bool,
    pub eps: f32,
    pub apart: [usize; 2],
    pub seed: u64,
}

pub fn gated() -> impl Strategy<Value = Gated> {
    let group = prop_oneof![1..40usize, Just(64), 500..540usize, Just(2100)];
    let sizes = (0..12usize, 1..4usize, group, 0..3usize);
    (elements(), cards(), sizes, any::<[bool; 2]>(), apart(), any::<u64>()).prop_map(
        |(element, card, (rows, groups, group, repeat), [bias, norm_before_gate], apart, seed)| {
            let rows = rows * repeat.max(1);
            Gated {
                element,
                card,
                rows,
                groups,
                group,
                repeat,
                bias,
                norm_before_gate,
                eps: EPS,
                apart,
                seed,
            }
        },
    )
}

impl Gated {
    pub fn channels(&self) -> usize {
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
                let (n, dv) = rms(&v, &dn, self.eps);
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

    pub fn inputs(&self) -> [Vec<f32>; 5] {
        let (mut draw, channels) = (Draw(self.seed), self.channels());
        let n = self.rows * channels;
        [
            draw_rows(&mut draw, self.element, n),
            draw_rows(&mut draw, self.element, n.checked_div(self.repeat).unwrap_or(0)),
            draw.vec(channels, 2.0),
            draw.vec(if self.bias { channels } else { 0 }, 1.0),
            draw_rows(&mut draw, self.element, n),
        ]
    }

    /// What the kernels gave beside the equations.
    pub fn compared(&self, inputs: &[Vec<f32>; 5], found: &[Vec<f32>]) -> Vec<Compared> {
        let [y, dx, dz, dweight, dbias] = self.equations(inputs);
        // Where a group is one channel, or of small numbers, its gradient is what is left of terms that cancel: relative
        // to these. They grow as 1 / sqrt(mean square) does.
        let smallest = smallest(&inputs[0], &inputs[1], self);
        let stored = storing(self.element);
        let mut compared = vec![
            Compared::new("y", &found[0], &y, 2e-6 + stored, 1e-3),
            Compared::new("dx", &found[1], &dx, 1e-5 + stored, 4.0 / smallest),
            Compared::new("dweight", &found[3], &dweight, 1e-5, 1.0),
            Compared::new("dbias", &found[4], &dbias, 1e-5, 1.0),
        ];
        if self.repeat > 0 {
            compared.push(Compared::new("dz", &found[2], &dz, 1e-5 + stored, 4.0 / smallest));
        }
        compared
    }

    pub fn kernels(&self, inputs: &[Vec<f32>; 5], device: Device) -> Vec<Vec<f32>> {
        let [x, z, weight, bias, dy] = inputs;
        let of = |values: &[f32]| Rows::of(self.element, values, self.channels(), self.apart);
        let operands = GatedOperands {
            x: of(x),
            z: (self.repeat > 0).then(|| of(z)),
            weight: Buffer::of(weight),
            bias: maybe(self.bias.then_some(bias.as_slice())),
            dy: of(dy),
        };
        let run = GatedRun::new(self, operands);
        run.forward(device);
        run.backward(device);
        run.results()
    }
}

/// What the gated norm is given.
pub struct GatedOperands {
    pub x: Rows,
    pub z: Option<Rows>,
    pub weight: Buffer<f32>,
    pub bias: Option<Buffer<f32>>,
    pub dy: Rows,
}

/// Its kernels on a device's memory.
pub struct GatedRun {
    variant: Variant,
    forward: (norm::GatedForward, Launch),
    backward: (norm::GatedBackward, Launch),
    gradients: PartSum,
    y: Rows,
    dx: Rows,
    dz: Option<Rows>,
    _operands: GatedOperands,
    _scratch: [Buffer<f32>; 2],
}

impl GatedRun {
    pub fn new(s: &Gated, operands: GatedOperands) -> GatedRun {
        let Gated { element, card, rows, groups, group, repeat, apart, .. } = *s;
        let channels = s.channels();
        let GatedOperands { x, z, weight, bias, dy } = &operands;
        let z_at = z.as_ref().map_or(null(), |z| z.ptr().cast_const());
        let new = || Rows::new(element, rows, channels, apart);
        let (y, dx, dz) = (new(), new(), (repeat > 0).then(new));
        let rstd = Buffer::<f32>::poisoned(rows * groups);
        let all: Vec<_> =
            [x, &y, dy, &dx].into_iter().chain(z).chain(&dz).flat_map(|rows| rows.bytes()).collect();
        let lone = if groups > 1 { group * element.size() } else { 0 };
        let parameters = weight.ptr() as usize | bias.as_ref().map_or(0, |bias| bias.ptr() as usize);
        let aligned = aligned(&[all, vec![lone, parameters]].concat());
        let stride = |rows: &Rows| rows.stride as i64;
        let plan = Plan::forward(element, rows, groups, group).unwrap();
        let forward = norm::GatedForward {
            x: x.ptr(),
            z: z_at,
            weight: weight.ptr(),
            bias: ptr(bias),
            y: y.ptr(),
            rstd: rstd.ptr(),
            x_row: stride(x),
            z_row: z.as_ref().map_or(0, stride),
            y_row: stride(&y),
            rows: rows as i64,
            channels: channels as i32,
            group: group as i32,
            z_repeat: repeat.max(1) as i32,
            lanes: plan.lanes,
            eps: s.eps,
            norm_before_gate: s.norm_before_gate.into(),
            aligned,
        };
        let forward = (forward, plan.launch);
        let plan = Plan::backward(element, rows, groups, group, card).unwrap();
        let parts = Buffer::<f32>::poisoned(plan.parts * 2 * channels);
        let backward = norm::GatedBackward {
            x: x.ptr(),
            z: z_at,
            weight: weight.ptr(),
            bias: ptr(bias),
            rstd: rstd.ptr(),
            dy: dy.ptr(),
            dx: dx.ptr(),
            dz: dz.as_ref().map_or(null_mut(), |dz| dz.ptr()),
            parts: parts.ptr(),
            x_row: stride(x),
            z_row: z.as_ref().map_or(0, stride),
            dy_row: stride(dy),
            dx_row: stride(&dx),
            dz_row: dz.as_ref().map_or(0, stride),
            rows: rows as i64,
            channels: channels as i32,
            group: group as i32,
            z_repeat: repeat.max(1) as i32,
            lanes: plan.lanes,
            norm_before_gate: s.norm_before_gate.into(),
            aligned,
            roomy: plan.roomy,
        };
        GatedRun {
            variant: norm::gated(element),
            forward,
            backward: (backward, plan.launch),
            gradients: PartSum::new(&parts, plan.parts, 2 * channels),
            y,
            dx,
            dz,
            _operands: operands,
            _scratch: [rstd, parts],
        }
    }

    pub fn forward(&self, device: Device) {
        device.launch(&self.variant, "gated_rms_norm_forward", self.forward.0, self.forward.1);
    }

    pub fn backward(&self, device: Device) {
        device.launch(&self.variant, "gated_rms_norm_backward", self.backward.0, self.backward.1);
        self.gradients.run(device);
    }

    /// In the order of the equations.
    pub fn results(&self) -> Vec<Vec<f32>> {
        let gradients = self.gradients.out.read();
        let (dweight, dbias) = gradients.split_at(gradients.len() / 2);
        let dz = self.dz.as_ref().map_or(Vec::new(), Rows::values);
        vec![self.y.values(), self.dx.values(), dz, dweight.to_vec(), dbias.to_vec()]
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
        smallest = smallest.min((squares / group.len() as f64 + f64::from(shape.eps)).sqrt());
    }
    smallest
}
