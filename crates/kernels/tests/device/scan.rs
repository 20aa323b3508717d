//! The selective scan: its launches, from a problem of the tests or from memory that is there.

use ophidian_kernels::{
    Strides,
    cuda::{
        Element, Tables,
        scan::{self as variants, Elements},
    },
    scan::cuda::{self as plan, Arguments, Cut, Output, Sizes, StepArguments},
};
use proptest::prelude::*;

use super::{
    CoefficientSum, Device, PartSum, Target, address, coefficient_rows, decode, encode, given, launch, maybe,
    rounded, storing,
};
use crate::{
    common::{
        Compared, Kind, Table,
        scan::{NAMES, Problem, Shape, shapes},
    },
    cuda::Buffer,
};

/// States and element types that are compiled for the random problems.
pub const VARIANTS: [(usize, Elements); 8] = [
    (16, Elements::of(Element::F32)),
    (16, Elements::of(Element::Bf16)),
    (16, Elements::of(Element::F16)),
    (16, Elements { rows: Element::Bf16, delta: Element::F32 }),
    (1, Elements::of(Element::F32)),
    (3, Elements::of(Element::Bf16)),
    (3, Elements { rows: Element::F16, delta: Element::F32 }),
    (40, Elements::of(Element::F32)),
];

/// A random problem, and about how many spans the forward and the backward are cut into.
#[derive(Debug, Clone)]
pub struct Case {
    pub shape: Shape,
    pub elements: Elements,
    pub spans: [usize; 2],
}

pub fn cases() -> impl Strategy<Value = Case> {
    (shapes(50, 40, 2), 0..VARIANTS.len(), 1..5usize, 1..5usize).prop_map(
        |(shape, variant, forward, backward)| {
            let (states, elements) = VARIANTS[variant];
            Case { shape: Shape { states, ..shape }, elements, spans: [forward, backward] }
        },
    )
}

/// One token after the other, in one direction.
pub fn step_cases() -> impl Strategy<Value = Case> {
    (shapes(5, 40, 2), 0..VARIANTS.len()).prop_map(|(shape, variant)| {
        let (states, elements) = VARIANTS[variant];
        let shape = Shape { states, directions: 1, kind: Kind::Identity, flags: shape.flags | 16, ..shape };
        Case { shape, elements, spans: [1, 1] }
    })
}

impl Case {
    /// Its problem; what the kernels read as an element type is rounded to it.
    pub fn problem(&self) -> Problem {
        let mut p = Problem::new(&self.shape);
        let round = |v: &mut Vec<f32>, element| *v = rounded(element, std::mem::take(v));
        let rows = [&mut p.u, &mut p.b, &mut p.c, &mut p.dy].into_iter().chain(&mut p.z);
        rows.for_each(|v| round(v, self.elements.rows));
        round(&mut p.delta, self.elements.delta);
        p
    }

    /// What the kernels gave beside the f64 kernels of the CPU.
    pub fn compared(&self, p: &Problem, found: &[Vec<f32>]) -> Vec<Compared> {
        let (y, last, gradients) = p.wide();
        let want = [y, last].into_iter().chain(gradients);
        let compare = |((name, got), want): ((&&'static str, &Vec<f32>), Vec<f64>)| {
            let tolerance = if matches!(*name, "y" | "final_state") { 1e-5 } else { 3e-5 };
            // Of D and the bias: sums over samples and steps, which cancel.
            let size = if matches!(*name, "dD" | "ddelta_bias") { 5e-2 } else { 1e-3 };
            let stored = storing(match *name {
                "final_state" | "dA" | "dD" | "ddelta_bias" | "dinitial" => Element::F32,
                "ddelta" => self.elements.delta,
                _ => self.elements.rows,
            });
            Compared::new(name, got, &want, tolerance + stored, size)
        };
        ["y", "final_state"].iter().chain(&NAMES).zip(found).zip(want).map(compare).collect()
    }

    /// The same, of the steps: y and the state.
    pub fn steps_compared(&self, p: &Problem, found: &[Vec<f32>]) -> Vec<Compared> {
        let (y, last, _) = p.wide();
        vec![
            Compared::new("y", &found[0], &y, 1e-5 + storing(self.elements.rows), 1e-3),
            Compared::new("state", &found[1], &last, 1e-5, 1e-3),
        ]
    }
}

/// Sizes, element types and strides of a scan.
#[derive(Clone, Copy)]
pub struct Form {
    pub sizes: Sizes,
    pub elements: Elements,
    pub softplus: bool,
    /// Of u, z, y; of delta; of B and C.
    pub once: Strides,
    pub channel: Strides,
    pub coefficient: Strides,
}

impl Form {
    /// Of contiguous rows; K directions have one u, z and y if `shared`.
    pub fn new(sizes: Sizes, elements: Elements, softplus: bool, shared: bool) -> Form {
        let Sizes { tokens, directions, channels, groups, states, .. } = sizes;
        let channel = Strides::contiguous(tokens, directions, 1, channels);
        let coefficient = Strides::contiguous(tokens, directions, groups, states);
        let once = if shared { Strides::shared(tokens, channels) } else { channel };
        Form { sizes, elements, softplus, once, channel, coefficient }
    }

    /// Elements of u, of delta, of B.
    pub fn lengths(&self) -> [usize; 3] {
        let Sizes { batch, tokens, directions, channels, groups, states, .. } = self.sizes;
        let rows = batch * tokens * directions;
        let once = if self.once.direction == 0 { batch * tokens } else { rows };
        [once * channels, rows * channels, rows * groups * states]
    }
}

/// What the kernels are given.
pub struct Operands {
    pub u: Buffer<u8>,
    pub delta: Buffer<u8>,
    pub b: Buffer<u8>,
    pub c: Buffer<u8>,
    pub dy: Buffer<u8>,
    pub z: Option<Buffer<u8>>,
    pub a: Buffer<f32>,
    pub d: Option<Buffer<f32>>,
    pub bias: Option<Buffer<f32>>,
    pub initial: Option<Buffer<f32>>,
    pub dfinal: Option<Buffer<f32>>,
}

impl Operands {
    pub fn of(p: &Problem, elements: Elements) -> Operands {
        let of = |values: &[f32]| Buffer::of(&encode(elements.rows, values));
        Operands {
            u: of(&p.u),
            delta: Buffer::of(&encode(elements.delta, &p.delta)),
            b: of(&p.b),
            c: of(&p.c),
            dy: of(&p.dy),
            z: p.z.as_deref().map(of),
            a: Buffer::of(&p.a),
            d: maybe(p.d.as_deref()),
            bias: maybe(p.bias.as_deref()),
            initial: maybe(p.initial.as_deref()),
            dfinal: Some(Buffer::of(&p.dfinal)),
        }
    }
}

fn output(target: &Target, element: Element) -> Output {
    let [batch, token, direction] = target.strides();
    let [rows, steps] = target.addresses();
    Output { rows, steps, batch, direction, token_bytes: token as i32 * element.size() as i32 }
}

/// The kernels on a device's memory.
pub struct Run {
    form: Form,
    cuts: [Cut; 2],
    forward: Arguments,
    backward: Arguments,
    coefficients: [CoefficientSum; 2],
    sums: [Option<PartSum>; 3],
    y: Target,
    last: Buffer<f32>,
    du: Target,
    ddelta: Target,
    dz: Option<Target>,
    dinitial: Buffer<f32>,
    operands: Operands,
    _orders: (Buffer<i32>, Option<Buffer<i32>>, Option<Buffer<u8>>),
    _scratch: Vec<Buffer<f32>>,
}

impl Run {
    /// `form.sizes.steps` is taken from the table. `cut` gives the cuts of the forward and the backward.
    pub fn new(mut form: Form, table: &Table, operands: Operands, cut: impl Fn(&Sizes) -> [Cut; 2]) -> Run {
        let Sizes { batch, tokens, directions, channels, groups, states, .. } = form.sizes;
        let tables = Tables::new(&table.orders(), batch, tokens, directions).unwrap();
        form.sizes.steps = tables.steps;
        let (Elements { rows: element, delta: delta_element }, sizes) = (form.elements, form.sizes);
        let cuts = cut(&sizes);
        let rows_of = |element: Element, buffer: &Buffer<u8>, s: Strides| plan::Rows {
            data: address(buffer),
            batch: s.batch as i64,
            direction: s.direction as i64,
            group: s.group as i64,
            token_bytes: (s.token * element.size()) as i32,
        };
        let rows = |buffer: &Buffer<u8>, s: Strides| rows_of(element, buffer, s);
        let read = Buffer::of(&tables.read);
        let (written, resets) = (maybe(tables.written.as_deref()), maybe(tables.resets.as_deref()));
        let mut scratch = Vec::new();
        // Memory that only kernels use.
        let mut kept = |len: usize| {
            scratch.push(Buffer::<f32>::poisoned(len));
            address(scratch.last().unwrap())
        };

        let per_state = channels * states;
        let sequences = batch * directions;
        let target =
            |element, strides, written| Target::new(&tables, element, [batch, channels], strides, written);
        let y = target(element, form.once, true);
        let last = Buffer::<f32>::poisoned(sequences * per_state);
        let o = &operands;
        let forward = Arguments {
            u: rows(&o.u, form.once),
            delta: rows_of(delta_element, &o.delta, form.channel),
            z: o.z.as_ref().map(|z| rows(z, form.once)).unwrap_or_default(),
            b: rows(&o.b, form.coefficient),
            c: rows(&o.c, form.coefficient),
            dy: rows(&o.dy, form.once),
            a: address(&o.a),
            d: given(&o.d),
            bias: given(&o.bias),
            initial: given(&o.initial),
            read: address(&read),
            written: given(&written),
            resets: given(&resets),
            y: output(&y, element),
            final_state: address(&last),
            checkpoints: kept(sequences * cuts[0].chunks * per_state),
            reach: kept(sequences * cuts[0].spans * channels),
            per_sample: tables.per_sample.into(),
            softplus: form.softplus.into(),
            ..Arguments::new(&sizes, &cuts[0])
        };

        let du = target(element, form.once, false);
        let ddelta = target(delta_element, form.channel, false);
        let dz = o.z.as_ref().map(|_| target(element, form.once, false));
        let unsummed = || {
            let rows = sequences * coefficient_rows(&tables) * groups;
            Buffer::<f32>::poisoned(rows * sizes.parts() * states)
        };
        let (db_parts, dc_parts) = (unsummed(), unsummed());
        let columns = directions * channels;
        let shares = batch * cuts[1].spans;
        let share = |present: bool, width: usize| {
            present.then(|| {
                let parts = Buffer::<f32>::poisoned(shares * width);
                let sum = PartSum::new(&parts, shares, width);
                (parts, sum)
            })
        };
        let [da, dd, dbias] =
            [share(true, columns * states), share(o.d.is_some(), columns), share(o.bias.is_some(), columns)];
        let at = |sum: &Option<(Buffer<f32>, PartSum)>| sum.as_ref().map_or(0, |sum| address(&sum.0));
        let dinitial = Buffer::<f32>::poisoned(sequences * per_state);
        let backward = Arguments {
            spans: cuts[1].spans as i32,
            span_chunks: cuts[1].span_chunks as i32,
            reach: kept(sequences * cuts[1].spans * channels),
            dfinal: given(&o.dfinal),
            carry: kept(sequences * cuts[1].spans * per_state),
            du: output(&du, element),
            ddelta: output(&ddelta, delta_element),
            dz: dz.as_ref().map(|dz| output(dz, element)).unwrap_or_default(),
            db_parts: address(&db_parts),
            dc_parts: address(&dc_parts),
            da_parts: at(&da),
            dd_parts: at(&dd),
            dbias_parts: at(&dbias),
            dinitial: address(&dinitial),
            coefficients_by_token: tables.permutations.into(),
            ..forward
        };
        let coefficients = [&db_parts, &dc_parts].map(|parts| {
            let (sizes, parts) = ([batch, groups, states], (parts, sizes.parts()));
            CoefficientSum::new(&tables, element, sizes, parts, form.coefficient)
        });
        scratch.extend([db_parts, dc_parts]);
        let sums = [da, dd, dbias].map(|sum| {
            let (parts, sum) = sum?;
            scratch.push(parts);
            Some(sum)
        });
        let orders = (read, written, resets);
        Run {
            form,
            cuts,
            forward,
            backward,
            coefficients,
            sums,
            y,
            last,
            du,
            ddelta,
            dz,
            dinitial,
            operands,
            _orders: orders,
            _scratch: scratch,
        }
    }

    pub fn forward(&self, device: Device) {
        let Form { sizes, elements, .. } = self.form;
        let variant = variants::forward(elements, sizes.states);
        launch(device, &variant, &sizes.forward(&self.cuts[0]).unwrap(), self.forward);
        self.y.sum(device);
    }

    pub fn backward(&self, device: Device) {
        let Form { sizes, elements, .. } = self.form;
        let variant = variants::backward(elements, sizes.states);
        launch(device, &variant, &sizes.backward(&self.cuts[1]).unwrap(), self.backward);
        self.coefficients.iter().for_each(|sum| sum.run(device));
        [&self.du, &self.ddelta].into_iter().chain(&self.dz).for_each(|target| target.sum(device));
        self.sums.iter().flatten().for_each(|sum| sum.run(device));
    }

    /// y, final state, and the gradients in the order of `NAMES`.
    pub fn results(&self) -> Vec<Vec<f32>> {
        let sum = |i: usize| self.sums[i].as_ref().map_or(Vec::new(), |sum| sum.out.read());
        vec![
            self.y.values(),
            self.last.read(),
            self.du.values(),
            self.ddelta.values(),
            sum(0),
            self.coefficients[0].values(),
            self.coefficients[1].values(),
            sum(1),
            self.dz.as_ref().map_or(Vec::new(), Target::values),
            sum(2),
            if self.operands.initial.is_some() { self.dinitial.read() } else { Vec::new() },
        ]
    }
}

/// Everything that the kernels compute, cut into about `spans`.
pub fn kernels(p: &Problem, elements: Elements, spans: [usize; 2], device: Device) -> Vec<Vec<f32>> {
    let sizes = Sizes {
        batch: p.batch,
        tokens: p.tokens,
        directions: p.directions,
        channels: p.channels,
        groups: p.groups,
        states: p.states,
        steps: 0,
    };
    let form = Form::new(sizes, elements, p.softplus, p.shared);
    let cut = |sizes: &Sizes| spans.map(|spans| sizes.cut_into(spans));
    let run = Run::new(form, &p.table, Operands::of(p, elements), cut);
    run.forward(device);
    run.backward(device);
    run.results()
}

/// One token after the other: y of all tokens, and the state.
pub fn step_by_step(p: &Problem, elements: Elements, aligned: bool, device: Device) -> Vec<Vec<f32>> {
    let Operands { u, delta, b, c, z, a, d, bias, initial, .. } = Operands::of(p, elements);
    let element = elements.rows;
    let state = initial.unwrap();
    let y = Buffer::<u8>::poisoned(p.u.len() * element.size());
    let variant = variants::step(elements, p.states);
    for token in 0..p.tokens {
        let at_of = |element: Element, buffer: &Buffer<u8>, width: usize| {
            address(buffer) + (token * width * element.size()) as u64
        };
        let at = |buffer: &Buffer<u8>, width: usize| at_of(element, buffer, width);
        let coefficients = p.groups * p.states;
        let rows = (p.tokens * p.channels) as i64;
        let arguments = StepArguments {
            u: at(&u, p.channels),
            delta: at_of(elements.delta, &delta, p.channels),
            z: z.as_ref().map_or(0, |z| at(z, p.channels)),
            b: at(&b, coefficients),
            c: at(&c, coefficients),
            a: address(&a),
            d: given(&d),
            bias: given(&bias),
            state: address(&state),
            y: at(&y, p.channels),
            u_batch: rows,
            delta_batch: rows,
            z_batch: rows,
            b_batch: (p.tokens * coefficients) as i64,
            b_group: p.states as i64,
            c_batch: (p.tokens * coefficients) as i64,
            c_group: p.states as i64,
            y_batch: rows,
            batch: p.batch as i32,
            channels: p.channels as i32,
            groups: p.groups as i32,
            softplus: p.softplus.into(),
            aligned: aligned.into(),
        };
        launch(device, &variant, &[plan::step(p.batch, p.channels, p.states).unwrap()], arguments);
    }
    vec![decode(element, &y.read()), state.read()]
}
