//! The launches of the selective scan's kernels on the emulator, from a problem of the tests.

use ophidian_kernels::{
    Strides,
    scan::cuda::{Arguments, CoefficientArguments, Launch, Output, Rows, Sizes, Tiling},
};

use crate::{
    common::scan::{NAMES, Problem},
    cuda::{self, Buffer, Module, Schedule, module},
};

/// Element type of the activations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Element {
    F32,
    Bf16,
    F16,
}

impl Element {
    pub fn encode(self, values: &[f32]) -> Vec<u8> {
        values
            .iter()
            .flat_map(|v| match self {
                Element::F32 => v.to_le_bytes().to_vec(),
                Element::Bf16 => half::bf16::from_f32(*v).to_le_bytes().to_vec(),
                Element::F16 => half::f16::from_f32(*v).to_le_bytes().to_vec(),
            })
            .collect()
    }

    pub fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Element::F32 => bytes.chunks(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect(),
            Element::Bf16 => {
                bytes.chunks(2).map(|b| half::bf16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
            Element::F16 => {
                bytes.chunks(2).map(|b| half::f16::from_le_bytes(b.try_into().unwrap()).to_f32()).collect()
            }
        }
    }

    pub fn size(self) -> usize {
        if self == Element::F32 { 4 } else { 2 }
    }

    /// What rounding a result to this type may cost.
    pub fn rounding(self) -> f64 {
        match self {
            Element::F32 => 0.0,
            Element::Bf16 => 4e-3,
            Element::F16 => 5e-4,
        }
    }
}

/// The orders as the kernels read them: (orders, steps).
struct Tables {
    read: Buffer<i32>,
    written: Buffer<i32>,
    resets: Buffer<u8>,
    steps: usize,
    /// Every order reads, or writes, each token once.
    reads_once: bool,
    writes_once: bool,
    /// Of the tokens that are read: per order, where a token's steps begin, and the steps.
    starts: Buffer<i32>,
    visits: Buffer<i32>,
}

impl Tables {
    fn new(p: &Problem) -> Tables {
        let k = p.directions;
        let count = if p.table.per_sample { p.batch * k } else { k };
        let paths: Vec<_> = (0..count).map(|i| p.table.path(k, i / k, i % k)).collect();
        let steps = paths.iter().map(Vec::len).max().unwrap_or(0);
        let (mut read, mut written, mut resets) =
            (vec![-2; count * steps], vec![-1; count * steps], vec![0u8; count * steps]);
        let (mut starts, mut visits) = (Vec::new(), vec![-1; count * steps]);
        for (i, path) in paths.iter().enumerate() {
            for (t, (token, reset, to)) in path.iter().enumerate() {
                read[i * steps + t] = *token;
                written[i * steps + t] = *to;
                resets[i * steps + t] = u8::from(*reset);
            }
            let mut listed = 0;
            for token in 0..p.tokens as i32 {
                starts.push(listed);
                for t in (0..path.len()).filter(|t| path[*t].0 == token) {
                    visits[i * steps + listed as usize] = t as i32;
                    listed += 1;
                }
            }
            starts.push(listed);
        }
        let once = |table: &[i32]| {
            (0..count).all(|i| {
                let mut row: Vec<i32> =
                    table[i * steps..(i + 1) * steps].iter().filter(|t| **t >= 0).copied().collect();
                row.sort_unstable();
                row == (0..p.tokens as i32).collect::<Vec<_>>()
            })
        };
        Tables {
            reads_once: once(&read),
            writes_once: once(&written),
            read: Buffer::of(&read),
            written: Buffer::of(&written),
            resets: Buffer::of(&resets),
            starts: Buffer::of(&starts),
            visits: Buffer::of(&visits),
            steps,
        }
    }
}

pub fn address<T: Copy>(buffer: &Buffer<T>) -> u64 {
    buffer.ptr() as u64
}

pub fn maybe<T: Copy>(buffer: Option<&Buffer<T>>) -> u64 {
    buffer.map_or(0, address)
}

/// Rows that a kernel writes.
struct Target {
    rows: Option<Buffer<u8>>,
    steps: Option<Buffer<f32>>,
    strides: Strides,
    len: usize,
}

impl Target {
    fn new(
        p: &Problem,
        tables: &Tables,
        element: Element,
        strides: Strides,
        len: usize,
        once: bool,
    ) -> Target {
        let shared = strides.direction == 0 && p.directions > 1;
        let by_token = once && !shared;
        Target {
            rows: by_token.then(|| Buffer::poisoned(len * element.size())),
            steps: (!by_token).then(|| Buffer::poisoned(p.batch * p.directions * tables.steps * p.channels)),
            strides,
            len,
        }
    }

    fn output(&self, element: Element) -> Output {
        let Strides { batch, token, direction, .. } = self.strides;
        Output {
            rows: maybe(self.rows.as_ref()),
            steps: maybe(self.steps.as_ref()),
            batch: batch as i64,
            direction: direction as i64,
            token_bytes: (token * element.size()) as i32,
        }
    }

    /// The rows, and what they may be off by beyond f32; those by step are summed by token.
    fn collect(&self, p: &Problem, tables: &Tables, element: Element, table: &[i32]) -> (Vec<f32>, f64) {
        let Some(steps) = &self.steps else {
            return (element.decode(self.rows.as_ref().unwrap()), element.rounding());
        };
        let mut out = vec![0f32; self.len];
        for b in 0..p.batch {
            for k in 0..p.directions {
                let order = if p.table.per_sample { b * p.directions + k } else { k };
                for t in 0..tables.steps {
                    let Ok(token) = usize::try_from(table[order * tables.steps + t]) else { continue };
                    let from = ((b * p.directions + k) * tables.steps + t) * p.channels;
                    let to = b * self.strides.batch + token * self.strides.token + k * self.strides.direction;
                    for c in 0..p.channels {
                        out[to + c] += steps[from + c];
                    }
                }
            }
        }
        (out, 0.0)
    }
}

/// Everything that the kernels computed: by name, with what rounding may have cost.
pub type Results = Vec<(&'static str, Vec<f32>, f64)>;

pub fn macros(tiling: &Tiling, element: Element) -> Vec<(&'static str, i64)> {
    tiling.macros(element as u32).into_iter().map(|(name, value)| (name, value.into())).collect()
}

pub fn run<A: Copy>(module: &Module, launch: &Launch, arguments: A, schedule: Schedule) {
    // A launch has at least one block.
    if launch.grid == 0 {
        return;
    }
    let shape = cuda::Launch {
        grid: [launch.grid as u32, 1, 1],
        block: [launch.threads as u32, 1, 1],
        shared: launch.shared,
    };
    module
        .launch(launch.kernel, arguments, shape, schedule)
        .unwrap_or_else(|e| panic!("{}: {e}", launch.kernel));
}

/// The forward and the backward, cut into about `spans`.
pub fn emulate(p: &Problem, element: Element, spans: [usize; 2], schedule: Schedule) -> Results {
    let tables = Tables::new(p);
    let sizes = Sizes {
        batch: p.batch,
        tokens: p.tokens,
        directions: p.directions,
        channels: p.channels,
        groups: p.groups,
        states: p.states,
        steps: tables.steps,
    };
    let rows = |values: &[f32], s: Strides| {
        let buffer = Buffer::of(&element.encode(values));
        let [batch, direction, group] = [s.batch, s.direction, s.group].map(|s| s as i64);
        let token_bytes = (s.token * element.size()) as i32;
        (Rows { data: address(&buffer), batch, direction, group, token_bytes }, buffer)
    };
    let (channel, once, coefficient) = (p.channel_strides(), p.once_strides(), p.coefficient_strides());
    let (u, _u) = rows(&p.u, once);
    let (delta, _delta) = rows(&p.delta, channel);
    let (b, _b) = rows(&p.b, coefficient);
    let (c, _c) = rows(&p.c, coefficient);
    let (dy, _dy) = rows(&p.dy, once);
    let z = p.z.as_ref().map(|z| rows(z, once));
    let a = Buffer::of(&p.a);
    let of = |values: &Option<Vec<f32>>| values.as_deref().map(Buffer::of);
    let (d, bias, initial) = (of(&p.d), of(&p.bias), of(&p.initial));
    let dfinal = Buffer::of(&p.dfinal);

    let cut = sizes.cut_into(spans[0]);
    let per_state = p.channels * p.states;
    let sequences = p.batch * p.directions;
    let y = Target::new(p, &tables, element, once, p.u.len(), tables.writes_once);
    let last = Buffer::<f32>::poisoned(sequences * per_state);
    let checkpoints = Buffer::<f32>::poisoned(sequences * cut.chunks * per_state);
    let reach = Buffer::<f32>::poisoned(sequences * cut.chunks * p.channels);
    let forward = Arguments {
        u,
        delta,
        z: z.as_ref().map(|z| z.0).unwrap_or_default(),
        b,
        c,
        dy,
        a: address(&a),
        d: maybe(d.as_ref()),
        bias: maybe(bias.as_ref()),
        initial: maybe(initial.as_ref()),
        read: address(&tables.read),
        written: if tables.written[..] == tables.read[..] { 0 } else { address(&tables.written) },
        resets: if tables.resets.iter().all(|r| *r == 0) { 0 } else { address(&tables.resets) },
        y: y.output(element),
        final_state: address(&last),
        checkpoints: address(&checkpoints),
        reach: address(&reach),
        per_sample: p.table.per_sample.into(),
        softplus: p.softplus.into(),
        ..Arguments::new(&sizes, &cut)
    };
    let tiling = Tiling::forward(p.states);
    let kernels = module("selective_scan_forward.cu", &macros(&tiling, element));
    for launch in sizes.forward(&cut) {
        run(&kernels, &launch, forward, schedule);
    }

    let cut = sizes.cut_into(spans[1]);
    let carry = Buffer::<f32>::poisoned(sequences * cut.spans * per_state);
    let reach = Buffer::<f32>::poisoned(sequences * cut.spans * p.channels);
    let du = Target::new(p, &tables, element, once, p.u.len(), tables.reads_once);
    let ddelta = Target::new(p, &tables, element, channel, p.delta.len(), tables.reads_once);
    let dz = z.is_some().then(|| Target::new(p, &tables, element, once, p.u.len(), tables.reads_once));
    let line = if tables.reads_once { p.tokens } else { tables.steps };
    let parts = || Buffer::<f32>::poisoned(sequences * line * p.groups * sizes.parts() * p.states);
    let (db_parts, dc_parts) = (parts(), parts());
    let columns = p.directions * p.channels;
    let sums = |width: usize| Buffer::<f32>::poisoned(p.batch * cut.spans * width);
    let da_parts = sums(columns * p.states);
    let (dd_parts, dbias_parts) = (d.as_ref().map(|_| sums(columns)), bias.as_ref().map(|_| sums(columns)));
    let dinitial = Buffer::<f32>::poisoned(sequences * per_state);
    let backward = Arguments {
        spans: cut.spans as i32,
        span_chunks: cut.span_chunks as i32,
        reach: address(&reach),
        dfinal: address(&dfinal),
        carry: address(&carry),
        du: du.output(element),
        ddelta: ddelta.output(element),
        dz: dz.as_ref().map(|dz| dz.output(element)).unwrap_or_default(),
        db_parts: address(&db_parts),
        dc_parts: address(&dc_parts),
        da_parts: address(&da_parts),
        dd_parts: maybe(dd_parts.as_ref()),
        dbias_parts: maybe(dbias_parts.as_ref()),
        dinitial: address(&dinitial),
        coefficients_by_token: tables.reads_once.into(),
        ..forward
    };
    let tiling = Tiling::backward(p.states);
    let kernels = module("selective_scan_backward.cu", &macros(&tiling, element));
    for launch in sizes.backward(&cut) {
        run(&kernels, &launch, backward, schedule);
    }
    let coefficients = |parts: &Buffer<f32>| {
        let out = Buffer::<u8>::poisoned(p.b.len() * element.size());
        let arguments = CoefficientArguments {
            parts: address(parts),
            starts: if tables.reads_once { 0 } else { address(&tables.starts) },
            visits: address(&tables.visits),
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
            part_count: sizes.parts() as i32,
            per_sample: p.table.per_sample.into(),
        };
        run(&kernels, &sizes.coefficients(), arguments, schedule);
        (element.decode(&out), element.rounding())
    };
    let folded = |parts: Option<&Buffer<f32>>, width: usize| {
        let mut sum = vec![0f32; if parts.is_some() { width } else { 0 }];
        for part in parts.iter().flat_map(|parts| parts.chunks(width.max(1))) {
            sum.iter_mut().zip(part).for_each(|(sum, part)| *sum += part);
        }
        (sum, 0.0)
    };
    let mut results =
        vec![("y", y.collect(p, &tables, element, &tables.written)), ("final_state", (last.to_vec(), 0.0))];
    let read = &tables.read;
    results.extend([
        (NAMES[0], du.collect(p, &tables, element, read)),
        (NAMES[1], ddelta.collect(p, &tables, element, read)),
        (NAMES[2], folded(Some(&da_parts), columns * p.states)),
        (NAMES[3], coefficients(&db_parts)),
        (NAMES[4], coefficients(&dc_parts)),
        (NAMES[5], folded(dd_parts.as_ref(), columns)),
        (NAMES[6], dz.map(|dz| dz.collect(p, &tables, element, read)).unwrap_or_default()),
        (NAMES[7], folded(dbias_parts.as_ref(), columns)),
        (NAMES[8], (if initial.is_some() { dinitial.to_vec() } else { Vec::new() }, 0.0)),
    ]);
    results.into_iter().map(|(name, (values, rounding))| (name, values, rounding)).collect()
}
