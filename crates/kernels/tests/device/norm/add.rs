//! The addition to a residual stream and the norm of the sum.

use std::ptr::null_mut;

use ophidian_kernels::cuda::{
    Card, Element, Launch, Variant, aligned,
    norm::{self, Plan},
};
use proptest::prelude::*;

use super::{
    super::{Device, PartSum, Rows, apart, cards, elements, maybe, ptr, storing},
    EPS, draw_rows, layer, rms,
};
use crate::{
    common::{Compared, Draw, wide},
    cuda::Buffer,
};

#[derive(Debug, Clone)]
pub struct Add {
    pub element: Element,
    pub card: Card,
    pub rows: usize,
    pub channels: usize,
    pub layer: bool,
    pub stream_f32: bool,
    pub residual: bool,
    pub scale: bool,
    pub bias: bool,
    /// The sum is used elsewhere.
    pub prenorm: bool,
    pub apart: [usize; 2],
    pub seed: u64,
}

pub fn add() -> impl Strategy<Value = Add> {
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
    pub fn stream(&self) -> Element {
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
            let (n, _) = norm(&sums, &dn, EPS);
            let (kept, ds) = norm(&wide(&stored[at(0)..at(channels)]), &dn, EPS);
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

    pub fn inputs(&self) -> [Vec<f32>; 7] {
        let (mut draw, n) = (Draw(self.seed), self.rows * self.channels);
        [
            draw_rows(&mut draw, self.element, n),
            draw_rows(&mut draw, self.stream(), n),
            draw.vec(self.rows, 1.0),
            draw.vec(self.channels, 2.0),
            draw.vec(self.channels, 1.0),
            draw_rows(&mut draw, self.element, n),
            draw_rows(&mut draw, self.stream(), n),
        ]
    }

    /// What the kernels gave beside the equations.
    pub fn compared(&self, inputs: &[Vec<f32>; 7], found: &[Vec<f32>]) -> Vec<Compared> {
        let [y, s, dx, dresidual, dweight, dbias] = self.equations(inputs, &found[1]);
        let (stored, stream) = (storing(self.element), storing(self.stream()));
        let spread = spread(&s, self);
        // The statistics are those of s before it was stored, and what is lost when it is centred is lost before the
        // division by the spread.
        let large = 4.0 / spread.powi(2);
        let mut compared = vec![
            Compared::new("s", &found[1], &s, 2e-7 + stream, 1e-3),
            Compared::new("y", &found[0], &y, 2e-6 + stored, 1.0 / spread),
            Compared::new("dx", &found[2], &dx, 1e-5 + stored + 4.0 * stream, large),
            Compared::new("dweight", &found[4], &dweight, 1e-5 + 16.0 * stream, 1.0 / spread),
            Compared::new("dbias", &found[5], &dbias, 1e-5, 1.0),
        ];
        if self.residual {
            compared.push(Compared::new("dresidual", &found[3], &dresidual, 1e-5 + 5.0 * stream, large));
        }
        compared
    }

    pub fn kernels(&self, inputs: &[Vec<f32>; 7], device: Device) -> Vec<Vec<f32>> {
        let [x, residual, scale, weight, bias, dy, dsum] = inputs;
        let rows = |element, values: &[f32]| Rows::of(element, values, self.channels, self.apart);
        let operands = AddOperands {
            x: rows(self.element, x),
            residual: self.residual.then(|| rows(self.stream(), residual)),
            scale: maybe(self.scale.then_some(scale.as_slice())),
            weight: Buffer::of(weight),
            bias: maybe(self.bias.then_some(bias.as_slice())),
            dy: rows(self.element, dy),
            dsum: self.prenorm.then(|| rows(self.stream(), dsum)),
        };
        let run = AddRun::new(self, operands);
        run.forward(device);
        run.backward(device);
        run.results()
    }
}

/// What the addition and norm is given.
pub struct AddOperands {
    pub x: Rows,
    pub residual: Option<Rows>,
    pub scale: Option<Buffer<f32>>,
    pub weight: Buffer<f32>,
    pub bias: Option<Buffer<f32>>,
    pub dy: Rows,
    pub dsum: Option<Rows>,
}

/// Its kernels on a device's memory.
pub struct AddRun {
    variant: Variant,
    forward: (norm::AddForward, Launch),
    backward: (norm::AddBackward, Launch),
    gradients: PartSum,
    y: Rows,
    sum: Rows,
    dx: Rows,
    dresidual: Option<Rows>,
    _operands: AddOperands,
    _scratch: [Buffer<f32>; 3],
}

impl AddRun {
    pub fn new(s: &Add, operands: AddOperands) -> AddRun {
        let Add { element, card, rows, channels, apart, .. } = *s;
        let AddOperands { x, residual, scale, weight, bias, dy, dsum } = &operands;
        let (y, dx) = (Rows::new(element, rows, channels, apart), Rows::new(element, rows, channels, apart));
        let sum = Rows::new(s.stream(), rows, channels, apart);
        let dresidual = s.residual.then(|| Rows::new(s.stream(), rows, channels, apart));
        let (mean, rstd) = (Buffer::<f32>::poisoned(rows), Buffer::<f32>::poisoned(rows));
        let every = [x, dy, &y, &dx, &sum].into_iter().chain(residual).chain(dsum).chain(&dresidual);
        let parameters = weight.ptr() as usize | bias.as_ref().map_or(0, |bias| bias.ptr() as usize);
        let aligned = aligned(&every.flat_map(|rows| rows.bytes()).chain([parameters]).collect::<Vec<_>>());
        let at = |rows: &Option<Rows>| rows.as_ref().map_or(null_mut(), |rows| rows.ptr());
        let stride = |rows: &Option<Rows>| rows.as_ref().map_or(0, |rows| rows.stride as i64);
        let plan = Plan::forward(element, rows, 1, channels).unwrap();
        let forward = norm::AddForward {
            x: x.ptr(),
            residual: at(residual),
            scale: ptr(scale),
            weight: weight.ptr(),
            bias: ptr(bias),
            y: y.ptr(),
            sum: sum.ptr(),
            mean: mean.ptr(),
            rstd: rstd.ptr(),
            x_row: x.stride as i64,
            residual_row: stride(residual),
            y_row: y.stride as i64,
            sum_row: sum.stride as i64,
            rows: rows as i64,
            channels: channels as i32,
            lanes: plan.lanes,
            eps: EPS,
            aligned,
        };
        let forward = (forward, plan.launch);
        let plan = Plan::backward(element, rows, 1, channels, card).unwrap();
        let parts = Buffer::<f32>::poisoned(plan.parts * 2 * channels);
        let backward = norm::AddBackward {
            sum: sum.ptr(),
            scale: ptr(scale),
            weight: weight.ptr(),
            mean: mean.ptr(),
            rstd: rstd.ptr(),
            dy: dy.ptr(),
            dsum: at(dsum),
            dx: dx.ptr(),
            dresidual: at(&dresidual),
            parts: parts.ptr(),
            sum_row: sum.stride as i64,
            dy_row: dy.stride as i64,
            dsum_row: stride(dsum),
            dx_row: dx.stride as i64,
            dresidual_row: stride(&dresidual),
            rows: rows as i64,
            channels: channels as i32,
            lanes: plan.lanes,
            aligned,
            roomy: plan.roomy,
        };
        AddRun {
            variant: norm::add(element, s.layer, s.stream_f32),
            forward,
            backward: (backward, plan.launch),
            gradients: PartSum::new(&parts, plan.parts, 2 * channels),
            y,
            sum,
            dx,
            dresidual,
            _operands: operands,
            _scratch: [mean, rstd, parts],
        }
    }

    pub fn forward(&self, device: Device) {
        device.launch(&self.variant, "add_norm_forward", self.forward.0, self.forward.1);
    }

    pub fn backward(&self, device: Device) {
        device.launch(&self.variant, "add_norm_backward", self.backward.0, self.backward.1);
        self.gradients.run(device);
    }

    /// In the order of the equations.
    pub fn results(&self) -> Vec<Vec<f32>> {
        let gradients = self.gradients.out.read();
        let (dweight, dbias) = gradients.split_at(gradients.len() / 2);
        let dresidual = self.dresidual.as_ref().map_or(Vec::new(), Rows::values);
        let rows = [&self.y, &self.sum, &self.dx].map(Rows::values);
        rows.into_iter().chain([dresidual, dweight.to_vec(), dbias.to_vec()]).collect()
    }
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
