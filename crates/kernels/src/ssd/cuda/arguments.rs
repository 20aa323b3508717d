//! What the kernels take, as they lie in C: `cuda/ssd.cuh` and the sources say what each is.
#![allow(missing_docs)]

use super::{Cut, Sizes};
use crate::cuda::{Address, Element};

/// `View` in `ssd.cuh`. Strides in elements.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Rows {
    pub data: Address,
    pub batch: i64,
    pub token: i64,
    pub direction: i64,
    pub group: i64,
}

impl Rows {
    /// Whether every row begins at a multiple of 16 bytes, `width` elements after another within it too.
    pub fn aligned(&self, element: Element, width: usize) -> bool {
        let bytes = |stride: i64| stride.unsigned_abs() as usize * element.size();
        let strides = [self.batch, self.token, self.direction, self.group].map(bytes);
        self.data.is_multiple_of(16)
            && strides.iter().chain([&(width * element.size())]).all(|bytes| bytes.is_multiple_of(16))
    }
}

/// `Output` in `ssd.cuh`: rows by token, or else by step.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Output {
    pub rows: Address,
    pub steps: Address,
    pub batch: i64,
    pub token: i64,
    pub direction: i64,
}

/// `Arguments` in `ssd.cuh`, which says what each is.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct Arguments {
    pub x: Rows,
    pub dt: Rows,
    pub z: Rows,
    pub b: Rows,
    pub c: Rows,
    pub dy: Rows,
    pub a: Address,
    pub d: Address,
    pub bias: Address,
    pub initial: Address,
    pub read: Address,
    pub written: Address,
    pub resets: Address,
    pub y: Output,
    pub ungated: Address,
    pub final_state: Address,
    pub checkpoints: Address,
    pub carry: Address,
    pub reach: Address,
    pub dfinal: Address,
    pub behind: Address,
    pub dx: Output,
    pub ddt: Output,
    pub dz: Output,
    pub db_parts: Address,
    pub dc_parts: Address,
    pub da_parts: Address,
    pub dd_parts: Address,
    pub dbias_parts: Address,
    pub dinitial: Address,
    pub low: f32,
    pub high: f32,
    pub batch: i32,
    pub directions: i32,
    pub heads: i32,
    pub groups: i32,
    pub tokens: i32,
    pub steps: i32,
    pub per_sample: i32,
    pub softplus: i32,
    pub d_per_head: i32,
    pub aligned: i32,
    pub chunks: i32,
    pub spans: i32,
    pub span_chunks: i32,
    pub slabs: i32,
    pub parts: i32,
    pub strip: i32,
    pub coefficients_by_token: i32,
}

impl Arguments {
    /// With the sizes and the cut filled in.
    pub fn new(sizes: &Sizes, cut: &Cut) -> Arguments {
        Arguments {
            batch: sizes.batch as i32,
            directions: sizes.directions as i32,
            heads: sizes.heads as i32,
            groups: sizes.groups as i32,
            tokens: sizes.tokens as i32,
            steps: sizes.steps as i32,
            chunks: cut.chunks as i32,
            spans: cut.spans as i32,
            span_chunks: cut.span_chunks as i32,
            slabs: cut.slabs as i32,
            parts: cut.parts as i32,
            strip: cut.strip as i32,
            ..Arguments::default()
        }
    }

    /// Says what may be read and written 16 bytes at once, from the rows and outputs that are set.
    pub fn align(&mut self, element: Element, headdim: usize, states: usize) {
        let of = |rows: &Output| Rows {
            data: rows.rows,
            batch: rows.batch,
            token: rows.token,
            direction: rows.direction,
            group: 0,
        };
        let channels = [self.x, self.z, self.dy, of(&self.y), of(&self.dx), of(&self.dz)];
        let channels = channels.iter().all(|rows| rows.aligned(element, headdim));
        let coefficients = [self.b, self.c].iter().all(|rows| rows.aligned(element, states));
        self.aligned = i32::from(channels) | i32::from(coefficients) << 1;
    }
}

/// `StepArguments` in `ssd_step.cu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub struct StepArguments {
    pub x: Address,
    pub dt: Address,
    pub a: Address,
    pub b: Address,
    pub c: Address,
    pub d: Address,
    pub z: Address,
    pub bias: Address,
    pub state: Address,
    pub y: Address,
    pub x_row: i64,
    pub dt_row: i64,
    pub b_row: i64,
    pub b_group: i64,
    pub c_row: i64,
    pub c_group: i64,
    pub z_row: i64,
    pub y_row: i64,
    pub low: f32,
    pub high: f32,
    pub batch: i32,
    pub heads: i32,
    pub groups: i32,
    pub softplus: i32,
    pub d_per_head: i32,
}
