//! Problems of the CUDA kernels, their equations in f64 and their launches, for any device: `crate::cuda` is the emulator in
//! the tests, and a GPU in `tests/gpu` at the root.
#![allow(dead_code, missing_docs, unused_imports)]

pub mod conv;
pub mod conv_step;
pub mod golden;
pub mod norm;
pub mod scan;
pub mod ssd;

use std::ffi::c_void;

use half::{bf16, f16};
use ophidian_kernels::{
    Strides,
    cuda::{Card, Element, Launch, Pass, Tables, Variant, aligned, sums},
};
use proptest::prelude::*;

use crate::cuda::{self, Buffer, SCHEDULES, Schedule};

/// A device of one schedule.
#[derive(Clone, Copy)]
pub struct Device(pub Schedule);

impl Device {
    /// Runs a kernel; fails the test where the device finds an error.
    pub fn launch<A: Copy>(&self, variant: &Variant, kernel: &str, arguments: A, launch: Launch) {
        if launch.grid.contains(&0) {
            return;
        }
        assert!(variant.source.kernels.contains(&kernel), "{kernel}");
        if let Err(error) = cuda::launch(variant, kernel, arguments, launch, self.0) {
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
        Rows::on(Buffer::poisoned(len * element.size()), element, count, width, [pad, shift])
    }

    /// Those in `bytes`.
    pub fn on(
        bytes: Buffer<u8>,
        element: Element,
        count: usize,
        width: usize,
        [pad, shift]: [usize; 2],
    ) -> Rows {
        Rows { bytes, element, width, stride: width + pad, shift, count }
    }

    pub fn of(element: Element, values: &[f32], width: usize, [pad, shift]: [usize; 2]) -> Rows {
        let (size, stride) = (element.size(), width + pad);
        let mut bytes = vec![0xff; shift * size];
        for row in encode(element, values).chunks(width.max(1) * size) {
            bytes.resize((bytes.len() - shift * size).next_multiple_of(stride * size) + shift * size, 0xff);
            bytes.extend(row);
        }
        Rows::on(Buffer::of(&bytes), element, values.len() / width.max(1), width, [pad, shift])
    }

    pub fn values(&self) -> Vec<f32> {
        let values = decode(self.element, &self.bytes.read());
        (0..self.count * self.width)
            .map(|i| values[self.shift + i / self.width * self.stride + i % self.width])
            .collect()
    }

    pub fn ptr(&self) -> *mut c_void {
        self.bytes.ptr().wrapping_add(self.shift * self.element.size()).cast()
    }

    /// Address and distance of rows in bytes.
    pub fn bytes(&self) -> [usize; 2] {
        [self.ptr() as usize, self.stride * self.element.size()]
    }
}

/// `values` as an element type has them in memory.
pub fn encode(element: Element, values: &[f32]) -> Vec<u8> {
    match element {
        Element::F32 => values.iter().flat_map(|v| v.to_ne_bytes()).collect(),
        Element::Bf16 => values.iter().flat_map(|v| bf16::from_f32(*v).to_ne_bytes()).collect(),
        Element::F16 => values.iter().flat_map(|v| f16::from_f32(*v).to_ne_bytes()).collect(),
    }
}

/// And back.
pub fn decode(element: Element, bytes: &[u8]) -> Vec<f32> {
    let pairs = || bytes.chunks_exact(2).map(|b| [b[0], b[1]]);
    match element {
        Element::F32 => bytes.chunks_exact(4).map(|b| f32::from_ne_bytes([b[0], b[1], b[2], b[3]])).collect(),
        Element::Bf16 => pairs().map(|b| bf16::from_ne_bytes(b).to_f32()).collect(),
        Element::F16 => pairs().map(|b| f16::from_ne_bytes(b).to_f32()).collect(),
    }
}

/// Sums, by token, of rows that a kernel stored by step.
pub struct VisitSum {
    arguments: sums::VisitSums,
    launch: Launch,
    _lists: [Buffer<i32>; 2],
}

impl VisitSum {
    /// Of `from` (B, K, T, D) into the rows at `out`; directions together if `summed`. Strides: sample, token, direction.
    pub fn new(
        tables: &Tables,
        element: Element,
        [batch, channels]: [usize; 2],
        from: &Buffer<f32>,
        (out, out_strides): (*mut c_void, [i64; 3]),
        [written, summed]: [bool; 2],
    ) -> VisitSum {
        let visits = tables.visits(written, summed);
        let lists = [Buffer::of(&visits.starts), Buffer::of(&visits.steps)];
        let distances = out_strides.map(|stride| stride as usize * element.size());
        let arguments = sums::VisitSums {
            rows: from.ptr(),
            starts: lists[0].ptr(),
            visits: lists[1].ptr(),
            out,
            out_strides,
            batch: batch as i32,
            tokens: tables.tokens as i32,
            groups: visits.groups as i32,
            channels: channels as i32,
            visited: (tables.steps * tables.directions) as i32,
            listed: visits.listed as i32,
            per_sample: tables.per_sample.into(),
            aligned: aligned(&[&distances[..], &[out as usize, from.ptr() as usize, channels * 4]].concat()),
        };
        let launch = sums::visits_launch(element, [batch, tables.tokens, visits.groups, channels]).unwrap();
        VisitSum { arguments, launch, _lists: lists }
    }

    pub fn run(&self, device: Device, element: Element) {
        device.launch(&sums::variant(element), "sum_visits", self.arguments, self.launch);
    }
}

/// The sums of `count` shares of `columns` gradients.
pub struct PartSum {
    pub out: Buffer<f32>,
    arguments: sums::Parts,
}

impl PartSum {
    pub fn new(parts: &Buffer<f32>, count: usize, columns: usize) -> PartSum {
        let out = Buffer::poisoned(columns);
        let (count, columns) = (count as i32, columns as i32);
        PartSum { arguments: sums::Parts { parts: parts.ptr(), out: out.ptr(), count, columns }, out }
    }

    pub fn run(&self, device: Device) {
        let launch = sums::parts_launch(self.arguments.columns as usize).unwrap();
        device.launch(&sums::variant(Element::F32), "sum_parts", self.arguments, launch);
    }
}

/// Rows of `width` values that a kernel writes: at their tokens, or by step, where they are summed by token afterwards.
pub struct Target {
    element: Element,
    rows: Buffer<u8>,
    steps: Option<(Buffer<f32>, VisitSum)>,
    strides: Strides,
}

impl Target {
    /// Of the tokens that steps write, or that they read if not `written`.
    pub fn new(
        tables: &Tables,
        element: Element,
        [batch, width]: [usize; 2],
        strides: Strides,
        written: bool,
    ) -> Target {
        let shared = strides.direction == 0;
        let directions = if shared { 1 } else { tables.directions };
        let rows = Buffer::<u8>::poisoned(batch * tables.tokens * directions * width * element.size());
        let by_token = tables.permutations && !(shared && tables.directions > 1);
        let steps = (!by_token).then(|| {
            let steps = Buffer::<f32>::poisoned(batch * tables.directions * tables.steps * width);
            let out_strides = [strides.batch, strides.token, strides.direction].map(|s| s as i64);
            let out = (rows.ptr().cast(), out_strides);
            let sum = VisitSum::new(tables, element, [batch, width], &steps, out, [written, shared]);
            (steps, sum)
        });
        Target { element, rows, steps, strides }
    }

    /// Of the rows and of the steps: one of them is 0.
    pub fn addresses(&self) -> [u64; 2] {
        match &self.steps {
            Some((steps, _)) => [0, address(steps)],
            None => [address(&self.rows), 0],
        }
    }

    /// From sample to sample, token to token and direction to direction, in elements.
    pub fn strides(&self) -> [i64; 3] {
        [self.strides.batch, self.strides.token, self.strides.direction].map(|s| s as i64)
    }

    /// Sums what was written by step.
    pub fn sum(&self, device: Device) {
        self.steps.iter().for_each(|(_, sum)| sum.run(device, self.element));
    }

    pub fn values(&self) -> Vec<f32> {
        decode(self.element, &self.rows.read())
    }
}

/// Sums of the parts of dB or dC that the backward left.
pub struct CoefficientSum {
    element: Element,
    out: Buffer<u8>,
    arguments: sums::Coefficients,
    values: usize,
    _lists: [Buffer<i32>; 2],
}

impl CoefficientSum {
    /// `parts` holds `count` parts of each row: by token if every order visits each once, else by step.
    pub fn new(
        tables: &Tables,
        element: Element,
        [batch, groups, states]: [usize; 3],
        (parts, count): (&Buffer<f32>, usize),
        strides: Strides,
    ) -> CoefficientSum {
        let Tables { tokens, directions, permutations, per_sample, .. } = *tables;
        let visits = tables.visits(false, false);
        let lists = [Buffer::of(&visits.starts), Buffer::of(&visits.steps)];
        let values = batch * directions * tokens * groups * states;
        let out = Buffer::<u8>::poisoned(values * element.size());
        let arguments = sums::Coefficients {
            parts: address(parts),
            starts: if permutations { 0 } else { address(&lists[0]) },
            visits: address(&lists[1]),
            out: address(&out),
            out_strides: [strides.batch, strides.token, strides.direction, strides.group].map(|s| s as i64),
            batch: batch as i32,
            tokens: tokens as i32,
            directions: directions as i32,
            groups: groups as i32,
            states: states as i32,
            rows: coefficient_rows(tables) as i32,
            count: count as i32,
            per_sample: per_sample.into(),
        };
        CoefficientSum { element, out, arguments, values, _lists: lists }
    }

    pub fn run(&self, device: Device) {
        let launch = sums::coefficients_launch(self.values).unwrap();
        device.launch(&sums::variant(self.element), "sum_coefficients", self.arguments, launch);
    }

    pub fn values(&self) -> Vec<f32> {
        decode(self.element, &self.out.read())
    }
}

/// Rows of parts of dB and dC, of a direction.
pub fn coefficient_rows(tables: &Tables) -> usize {
    if tables.permutations { tables.tokens } else { tables.steps }
}

/// Launches in order.
pub fn launch<A: Copy>(device: Device, variant: &Variant, passes: &[Pass], arguments: A) {
    for (kernel, launch) in passes {
        device.launch(variant, kernel, arguments, *launch);
    }
}

/// An address as some kernels take it.
pub fn address<T: Copy>(buffer: &Buffer<T>) -> u64 {
    buffer.ptr() as u64
}

/// Likewise, or 0.
pub fn given<T: Copy>(buffer: &Option<Buffer<T>>) -> u64 {
    buffer.as_ref().map_or(0, address)
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
    decode(element, &encode(element, &values))
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
