//! A problem of the SSD through all its kernels on the emulator.
#![allow(missing_docs)]

use ophidian_kernels::{
    Strides,
    cuda::{Element, Tables, Variant},
    ssd::cuda::{self as kernels, Arguments, CoefficientArguments, Cut, Output, Pass, Rows, Sizes, Tiling},
};

use crate::{common::ssd::Problem, cuda::Buffer, device::Device};

pub fn address<T: Copy>(buffer: &Buffer<T>) -> u64 {
    buffer.ptr() as u64
}

pub fn maybe<T: Copy>(buffer: &Option<Buffer<T>>) -> u64 {
    buffer.as_ref().map_or(0, address)
}

pub fn copied(values: &Option<Vec<f32>>) -> Option<Buffer<f32>> {
    values.as_deref().map(Buffer::of)
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

/// What products of rounded operands may cost, relative to the largest value: those of bf16 and f16 round what stands
/// between two products.
pub fn between(element: Element) -> f64 {
    match element {
        Element::F32 => 0.0,
        Element::Bf16 => 8e-3,
        Element::F16 => 1e-3,
    }
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
        p: &Problem,
        tables: &Tables,
        element: Element,
        strides: Strides,
        width: usize,
        len: usize,
    ) -> Target {
        let shared = strides.direction == 0 && p.directions > 1;
        let by_token = tables.permutations && !shared;
        Target {
            element,
            width,
            rows: by_token.then(|| Buffer::poisoned(len * element.size())),
            steps: (!by_token).then(|| Buffer::poisoned(p.batch * p.directions * tables.steps * width)),
            strides,
            len,
        }
    }

    pub fn output(&self) -> Output {
        let [batch, token, direction] =
            [self.strides.batch, self.strides.token, self.strides.direction].map(|s| s as i64);
        Output { rows: maybe(&self.rows), steps: maybe(&self.steps), batch, token, direction }
    }

    /// The rows; those by step are summed by token, as `sum_visits` does.
    pub fn collect(&self, p: &Problem, tables: &Tables, written: bool) -> Vec<f32> {
        let Some(steps) = &self.steps else { return decoded(self.element, self.rows.as_ref().unwrap()) };
        let table = tables.written.as_ref().filter(|_| written).unwrap_or(&tables.read);
        let mut out = vec![0f32; self.len];
        for sequence in 0..p.batch * p.directions {
            let (b, k) = (sequence / p.directions, sequence % p.directions);
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

/// How a problem is run.
#[derive(Debug, Clone, Copy)]
pub struct Run {
    pub element: Element,
    /// Tiling: most steps of a chunk and channels of a slab.
    pub chunk: usize,
    pub width: usize,
    pub spans: [usize; 2],
    pub parts: usize,
    pub d_per_head: bool,
}

pub fn launch<A: Copy>(device: Device, variant: &Variant, passes: &[Pass], arguments: A) {
    for (kernel, launch) in passes {
        device.launch(variant, kernel, arguments, *launch);
    }
}

pub fn folded(parts: &Option<Buffer<f32>>, columns: usize) -> Vec<f32> {
    let mut sum = vec![0f32; if parts.is_some() { columns } else { 0 }];
    for part in parts.iter().flat_map(|parts| parts.chunks(columns.max(1))) {
        sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
    }
    sum
}

/// y, the final state and the gradients, in the order of `NAMES`.
pub fn emulate(p: &Problem, run: &Run, device: Device) -> Vec<Vec<f32>> {
    let element = run.element;
    let tables = Tables::new(&p.table.orders(), p.batch, p.tokens, p.directions).unwrap();
    let sizes = Sizes {
        batch: p.batch,
        tokens: p.tokens,
        directions: p.directions,
        heads: p.heads,
        headdim: p.headdim,
        groups: p.groups,
        states: p.states,
        steps: tables.steps,
    };
    let tiling = Tiling { chunk: run.chunk, ..tiling(element, &sizes, run.width) };
    let (forward_variant, backward_variant) = (tiling.forward(), tiling.backward());
    let cut = |spans| Cut::into(&sizes, &tiling, spans, run.parts);
    let rows = |values: &[f32], s: Strides| {
        let buffer = encoded(element, values);
        let [batch, token, direction, group] = [s.batch, s.token, s.direction, s.group].map(|s| s as i64);
        (Rows { data: address(&buffer), batch, token, direction, group }, buffer)
    };
    let (channel, head, coefficient) = (p.channel_strides(), p.head_strides(), p.coefficient_strides());
    let (x, _x) = rows(&p.x, channel);
    let (dt, _dt) = rows(&p.dt, head);
    let (b, _b) = rows(&p.b, coefficient);
    let (c, _c) = rows(&p.c, coefficient);
    let (dy, _dy) = rows(&p.dy, channel);
    let z = p.z.as_ref().map(|z| rows(z, channel));
    let a = Buffer::of(&p.a);
    let d = p.d.as_ref().map(|d| match run.d_per_head {
        true => Buffer::of(&d.iter().step_by(p.headdim).copied().collect::<Vec<_>>()),
        false => Buffer::of(d),
    });
    let (bias, initial, dfinal) = (copied(&p.bias), copied(&p.initial), Buffer::of(&p.dfinal));
    let [read, written] = [Some(&tables.read), tables.written.as_ref()].map(|t| t.map(|t| Buffer::of(t)));
    let resets = tables.resets.as_deref().map(Buffer::of);

    let channels = p.heads * p.headdim;
    let sequences = p.batch * p.directions;
    let states = sequences * channels * p.states;
    let first = cut(run.spans[0]);
    let slabs = || Buffer::<u8>::poisoned(first.checkpoint_len(&sizes, &tiling) * tiling.operand());
    let (checkpoints, behind) = (slabs(), slabs());
    let y = Target::new(p, &tables, element, channel, channels, p.x.len());
    let last = Buffer::<f32>::poisoned(states);
    let ungated = Buffer::<u8>::poisoned(sequences * tables.steps * channels * element.size());
    let carry = Buffer::<f32>::poisoned(first.carry_len(&sizes, &tiling));
    let reach = Buffer::<f32>::poisoned(sequences * first.spans * p.heads);
    let mut forward = Arguments {
        x,
        dt,
        z: z.as_ref().map(|z| z.0).unwrap_or_default(),
        b,
        c,
        dy,
        a: address(&a),
        d: maybe(&d),
        bias: maybe(&bias),
        initial: maybe(&initial),
        read: maybe(&read),
        written: maybe(&written),
        resets: maybe(&resets),
        y: y.output(),
        ungated: if z.is_some() { address(&ungated) } else { 0 },
        final_state: address(&last),
        checkpoints: address(&checkpoints),
        carry: address(&carry),
        reach: address(&reach),
        low: p.limits[0],
        high: p.limits[1],
        per_sample: tables.per_sample.into(),
        softplus: p.softplus.into(),
        d_per_head: run.d_per_head.into(),
        ..Arguments::new(&sizes, &first)
    };
    forward.align(element, p.headdim, p.states);
    launch(device, &forward_variant, &kernels::forward(&sizes, &tiling, &first).unwrap(), forward);

    let second = cut(run.spans[1]);
    let carry = Buffer::<f32>::poisoned(second.carry_len(&sizes, &tiling));
    let reach = Buffer::<f32>::poisoned(sequences * second.spans * p.heads);
    let dx = Target::new(p, &tables, element, channel, channels, p.x.len());
    let ddt = Target::new(p, &tables, element, head, p.heads, p.dt.len());
    let dz = z.is_some().then(|| Target::new(p, &tables, element, channel, channels, p.x.len()));
    let line = if tables.permutations { p.tokens } else { tables.steps };
    let parts = || Buffer::<f32>::poisoned(sequences * line * p.groups * second.parts * p.states);
    let (db_parts, dc_parts) = (parts(), parts());
    let per_head = p.directions * p.heads;
    let sums = |columns: usize| Some(Buffer::<f32>::poisoned(p.batch * second.chunks * columns));
    let skips = if run.d_per_head { per_head } else { p.directions * channels };
    let da_parts = sums(per_head);
    let dd_parts = d.as_ref().and_then(|_| sums(skips));
    let dbias_parts = bias.as_ref().and_then(|_| sums(per_head));
    let dinitial = Buffer::<f32>::poisoned(states);
    let mut backward = Arguments {
        dfinal: address(&dfinal),
        behind: address(&behind),
        carry: address(&carry),
        reach: address(&reach),
        dx: dx.output(),
        ddt: ddt.output(),
        dz: dz.as_ref().map(Target::output).unwrap_or_default(),
        db_parts: address(&db_parts),
        dc_parts: address(&dc_parts),
        da_parts: maybe(&da_parts),
        dd_parts: maybe(&dd_parts),
        dbias_parts: maybe(&dbias_parts),
        dinitial: address(&dinitial),
        coefficients_by_token: tables.permutations.into(),
        spans: second.spans as i32,
        span_chunks: second.span_chunks as i32,
        ..forward
    };
    backward.align(element, p.headdim, p.states);
    launch(device, &backward_variant, &kernels::backward(&sizes, &tiling, &second).unwrap(), backward);

    let visits = tables.visits(false, false);
    let (starts, listed) = (Buffer::of(&visits.starts), Buffer::of(&visits.steps));
    let coefficients = |parts: &Buffer<f32>| {
        let out = Buffer::<u8>::poisoned(p.b.len() * element.size());
        let arguments = CoefficientArguments {
            parts: address(parts),
            starts: if tables.permutations { 0 } else { address(&starts) },
            visits: address(&listed),
            out: address(&out),
            batch_stride: coefficient.batch as i64,
            token_stride: coefficient.token as i64,
            direction_stride: coefficient.direction as i64,
            group_stride: coefficient.group as i64,
            batch: p.batch as i32,
            tokens: p.tokens as i32,
            directions: p.directions as i32,
            groups: p.groups as i32,
            rows: line as i32,
            part_count: second.parts as i32,
            per_sample: tables.per_sample.into(),
        };
        launch(device, &backward_variant, &[kernels::coefficients(&sizes, &tiling).unwrap()], arguments);
        decoded(element, &out)
    };
    vec![
        y.collect(p, &tables, true),
        last.to_vec(),
        dx.collect(p, &tables, false),
        ddt.collect(p, &tables, false),
        folded(&da_parts, per_head),
        coefficients(&db_parts),
        coefficients(&dc_parts),
        folded(&dd_parts, skips),
        dz.map(|dz| dz.collect(p, &tables, false)).unwrap_or_default(),
        folded(&dbias_parts, per_head),
        if initial.is_some() { dinitial.to_vec() } else { Vec::new() },
    ]
}

/// As a card with room for slabs of `width` channels and no more would have it.
pub fn tiling(element: Element, sizes: &Sizes, width: usize) -> Tiling {
    let mut tiling = Tiling::new(element, sizes, 227 << 10, true).unwrap();
    for kilobytes in (0..227).rev() {
        if tiling.width <= width {
            break;
        }
        let Ok(smaller) = Tiling::new(element, sizes, kilobytes << 10, true) else { break };
        tiling = smaller;
    }
    tiling
}
