//! Launches of the crate's CUDA kernels on the emulator, and rows of any element type.
#![allow(dead_code, missing_docs)]

use std::ffi::c_void;

use half::{bf16, f16};
use ophidian_kernels::{
    Strides,
    cuda::{Card, Element, Launch, Pass, Tables, Variant, sums},
};
use proptest::prelude::*;

use crate::cuda::{self, Buffer, SCHEDULES, Schedule};

/// A device of one schedule.
#[derive(Clone, Copy)]
pub struct Device(pub Schedule);

impl Device {
    /// Runs a kernel; fails the test where the emulator finds an error.
    pub fn launch<A: Copy>(&self, variant: &Variant, kernel: &str, arguments: A, launch: Launch) {
        if launch.grid.contains(&0) {
            return;
        }
        assert!(variant.source.kernels.contains(&kernel), "{kernel}");
        let macros: Vec<_> = variant.macros.iter().map(|(name, value)| (*name, i64::from(*value))).collect();
        let module = cuda::module(variant.source.name, &macros);
        let shape = cuda::Launch { grid: launch.grid, block: launch.block, shared: launch.shared };
        if let Err(error) = module.launch(kernel, arguments, shape, self.0) {
            panic!("{variant}, {kernel}, {launch:?}, {:?}: {error}", self.0);
        }
    }
}

/// What `run` gives, which must be the same to the bit in every schedule.
pub fn in_every_schedule(run: impl Fn(Device) -> Vec<Vec<f32>>) -> Vec<Vec<f32>> {
    let first = run(Device(SCHEDULES[0]));
    for schedule in &SCHEDULES[1..] {
        let other = run(Device(*schedule));
        for (i, (a, b)) in first.iter().zip(&other).enumerate() {
            let differs = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
            assert_eq!(differs, None, "output {i} depends on the order of the threads ({schedule:?})");
        }
    }
    first
}

/// Rows of an element type in the device's memory, `pad` elements apart, from element `shift` on.
pub struct Rows {
    bytes: Buffer<u8>,
    element: Element,
    width: usize,
    pub stride: usize,
    shift: usize,
    count: usize,
}

impl Rows {
    /// `count` rows of NaN.
    pub fn new(element: Element, count: usize, width: usize, [pad, shift]: [usize; 2]) -> Rows {
        let stride = width + pad;
        // The last row ends where memory ends.
        let len = shift + if count == 0 { 0 } else { (count - 1) * stride + width };
        let bytes = Buffer::new(len * element.size(), true);
        Rows { bytes, element, width, stride, shift, count }
    }

    pub fn of(element: Element, values: &[f32], width: usize, apart: [usize; 2]) -> Rows {
        let mut rows = Rows::new(element, values.len() / width.max(1), width, apart);
        for (i, value) in values.iter().enumerate() {
            let at = rows.at(i) * element.size();
            match element {
                Element::F32 => rows.bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes()),
                Element::Bf16 => {
                    rows.bytes[at..at + 2].copy_from_slice(&bf16::from_f32(*value).to_ne_bytes())
                }
                Element::F16 => rows.bytes[at..at + 2].copy_from_slice(&f16::from_f32(*value).to_ne_bytes()),
            }
        }
        rows
    }

    fn at(&self, i: usize) -> usize {
        self.shift + i / self.width * self.stride + i % self.width
    }

    pub fn values(&self) -> Vec<f32> {
        let value = |i| {
            let at = self.at(i) * self.element.size();
            let two = || [self.bytes[at], self.bytes[at + 1]];
            match self.element {
                Element::F32 => f32::from_ne_bytes(self.bytes[at..at + 4].try_into().unwrap()),
                Element::Bf16 => bf16::from_ne_bytes(two()).to_f32(),
                Element::F16 => f16::from_ne_bytes(two()).to_f32(),
            }
        };
        (0..self.count * self.width).map(value).collect()
    }

    pub fn ptr(&self) -> *mut c_void {
        self.bytes.ptr().wrapping_add(self.shift * self.element.size()).cast()
    }

    /// Address and distance of rows in bytes.
    pub fn bytes(&self) -> [usize; 2] {
        [self.ptr() as usize, self.stride * self.element.size()]
    }
}

/// A device's copy of what may be absent.
pub fn maybe<T: Copy>(values: Option<&[T]>) -> Option<Buffer<T>> {
    values.map(Buffer::of)
}

/// Its address, or null.
pub fn ptr<T: Copy>(buffer: &Option<Buffer<T>>) -> *mut T {
    buffer.as_ref().map_or(std::ptr::null_mut(), |buffer| buffer.ptr())
}

/// `values` as the element type holds them.
pub fn rounded(element: Element, values: Vec<f32>) -> Vec<f32> {
    let round = |v: f32| match element {
        Element::F32 => v,
        Element::Bf16 => bf16::from_f32(v).to_f32(),
        Element::F16 => f16::from_f32(v).to_f32(),
    };
    values.into_iter().map(round).collect()
}

/// What storing in the element type may add to an error, relative to the largest value.
pub fn storing(element: Element) -> f64 {
    match element {
        Element::F32 => 0.0,
        Element::Bf16 => 1.0 / 256.0,
        Element::F16 => 1.0 / 2048.0,
    }
}

pub fn elements() -> impl Strategy<Value = Element> {
    prop_oneof![Just(Element::F32), Just(Element::Bf16), Just(Element::F16)]
}

/// Cards large and small.
pub fn cards() -> impl Strategy<Value = Card> {
    (1..6u32, prop_oneof![Just(0usize), Just(2048), Just(100 << 10)])
        .prop_map(|(multiprocessors, shared)| Card { multiprocessors, shared })
}

/// Rows that lie close or apart, aligned or not.
pub fn apart() -> impl Strategy<Value = [usize; 2]> {
    prop_oneof![
        Just([0, 0]),
        Just([8, 16]),
        Just([4, 8]),
        (0..5usize, 0..3usize).prop_map(|(pad, shift)| [pad, shift])
    ]
}

/// Its address.
pub fn address<T: Copy>(buffer: &Buffer<T>) -> u64 {
    buffer.ptr() as u64
}

/// Likewise, or 0.
pub fn given<T: Copy>(buffer: &Option<Buffer<T>>) -> u64 {
    ptr(buffer) as u64
}

/// Values in an element type.
pub fn encoded(element: Element, values: &[f32]) -> Buffer<u8> {
    let bytes = |v: &f32| match element {
        Element::F32 => v.to_le_bytes().to_vec(),
        Element::Bf16 => half::bf16::from_f32(*v).to_le_bytes().to_vec(),
        Element::F16 => half::f16::from_f32(*v).to_le_bytes().to_vec(),
    };
    Buffer::of(&values.iter().flat_map(bytes).collect::<Vec<u8>>())
}

pub fn decoded(element: Element, bytes: &[u8]) -> Vec<f32> {
    let value = |b: &[u8]| match element {
        Element::F32 => f32::from_le_bytes(b.try_into().unwrap()),
        Element::Bf16 => half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32(),
        Element::F16 => half::f16::from_le_bytes(b.try_into().unwrap()).to_f32(),
    };
    bytes.chunks(element.size()).map(value).collect()
}

/// Rows of `width` values that a kernel writes.
pub struct Target {
    element: Element,
    width: usize,
    rows: Option<Buffer<u8>>,
    steps: Option<Buffer<f32>>,
    strides: Strides,
    len: usize,
}

impl Target {
    pub fn new(
        batch: usize,
        tables: &Tables,
        element: Element,
        strides: Strides,
        width: usize,
        len: usize,
    ) -> Target {
        let shared = strides.direction == 0 && tables.directions > 1;
        let by_token = tables.permutations && !shared;
        Target {
            element,
            width,
            rows: by_token.then(|| Buffer::poisoned(len * element.size())),
            steps: (!by_token).then(|| Buffer::poisoned(batch * tables.directions * tables.steps * width)),
            strides,
            len,
        }
    }

    /// Of the rows and of the steps: one of them is 0.
    pub fn addresses(&self) -> [u64; 2] {
        [given(&self.rows), given(&self.steps)]
    }

    /// From sample to sample, token to token and direction to direction, in elements.
    pub fn strides(&self) -> [i64; 3] {
        [self.strides.batch, self.strides.token, self.strides.direction].map(|s| s as i64)
    }

    /// What storing may add to an error: sums over steps are left in f32.
    pub fn storing(&self) -> f64 {
        if self.rows.is_some() { storing(self.element) } else { 0.0 }
    }

    /// The rows; those by step are summed by token, as `sum_visits` does.
    pub fn collect(&self, batch: usize, tables: &Tables, written: bool) -> Vec<f32> {
        let Some(steps) = &self.steps else { return decoded(self.element, self.rows.as_ref().unwrap()) };
        let table = tables.written.as_ref().filter(|_| written).unwrap_or(&tables.read);
        let mut out = vec![0f32; self.len];
        for sequence in 0..batch * tables.directions {
            let (b, k) = (sequence / tables.directions, sequence % tables.directions);
            let order = if tables.per_sample { sequence } else { k };
            for t in 0..tables.steps {
                let Ok(token) = usize::try_from(table[order * tables.steps + t]) else { continue };
                let from = (sequence * tables.steps + t) * self.width;
                let to = b * self.strides.batch + token * self.strides.token + k * self.strides.direction;
                for c in 0..self.width {
                    out[to + c] += steps[from + c];
                }
            }
        }
        out
    }
}

/// Parts of dB or dC as the backward leaves them, by token or by step.
pub struct Parts<'a> {
    pub element: Element,
    /// Of the sum.
    pub strides: Strides,
    pub tables: &'a Tables,
    /// Of a row.
    pub count: usize,
    pub states: usize,
}

impl Parts<'_> {
    /// Their sums: `len` values.
    pub fn sum(
        &self,
        parts: &Buffer<f32>,
        [batch, groups]: [usize; 2],
        len: usize,
        device: Device,
    ) -> Vec<f32> {
        let Tables { tokens, directions, steps, permutations, per_sample, .. } = *self.tables;
        let visits = self.tables.visits(false, false);
        let (starts, listed) = (Buffer::of(&visits.starts), Buffer::of(&visits.steps));
        let out = Buffer::<u8>::poisoned(len * self.element.size());
        let Strides { batch: b, token, direction, group, .. } = self.strides;
        let arguments = sums::Coefficients {
            parts: address(parts),
            starts: if permutations { 0 } else { address(&starts) },
            visits: address(&listed),
            out: address(&out),
            out_strides: [b, token, direction, group].map(|s| s as i64),
            batch: batch as i32,
            tokens: tokens as i32,
            directions: directions as i32,
            groups: groups as i32,
            states: self.states as i32,
            rows: if permutations { tokens } else { steps } as i32,
            count: self.count as i32,
            per_sample: per_sample.into(),
        };
        let values = batch * directions * tokens * groups * self.states;
        let shape = sums::coefficients_launch(values).unwrap();
        device.launch(&sums::variant(self.element), "sum_coefficients", arguments, shape);
        decoded(self.element, &out)
    }
}

/// Launches in order.
pub fn launch<A: Copy>(device: Device, variant: &Variant, passes: &[Pass], arguments: A) {
    for (kernel, launch) in passes {
        device.launch(variant, kernel, arguments, *launch);
    }
}

/// Sums of parts, of `columns` each.
pub fn folded(parts: &Option<Buffer<f32>>, columns: usize) -> Vec<f32> {
    let mut sum = vec![0f32; if parts.is_some() { columns } else { 0 }];
    for part in parts.iter().flat_map(|parts| parts.chunks(columns.max(1))) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}
