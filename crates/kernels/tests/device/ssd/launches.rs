//! The launches, from a problem of the tests or from memory that is there.

use ophidian_kernels::{
    Strides,
    cuda::{Element, Tables},
    ssd::cuda::{self as plan, Arguments, Cut, Output, Rows, Sizes, StepArguments, Tiling},
};

use super::{
    super::{
        CoefficientSum, Device, PartSum, Target, address, coefficient_rows, decode, encode, given, launch,
        maybe,
    },
    How,
};
use crate::{
    common::{Table, ssd::Problem},
    cuda::Buffer,
};

/// Sizes, tiling and strides of an SSD.
#[derive(Clone, Copy)]
pub struct Form {
    pub sizes: Sizes,
    pub tiling: Tiling,
    pub softplus: bool,
    pub limits: [f32; 2],
    pub d_per_head: bool,
    /// Of x, z, y; of dt; of B and C.
    pub channel: Strides,
    pub head: Strides,
    pub coefficient: Strides,
}

impl Form {
    /// Of contiguous rows; K directions have one x, z and y if `shared`.
    pub fn new(sizes: Sizes, tiling: Tiling, shared: bool) -> Form {
        let Sizes { tokens, directions, heads, headdim, groups, states, .. } = sizes;
        let own = Strides::contiguous(tokens, directions, 1, heads * headdim);
        Form {
            sizes,
            tiling,
            softplus: true,
            limits: [0.0, f32::INFINITY],
            d_per_head: true,
            channel: if shared { Strides::shared(tokens, heads * headdim) } else { own },
            head: Strides::contiguous(tokens, directions, 1, heads),
            coefficient: Strides::contiguous(tokens, directions, groups, states),
        }
    }

    /// Elements of x, of dt, of B.
    pub fn lengths(&self) -> [usize; 3] {
        let Sizes { batch, tokens, directions, heads, headdim, groups, states, .. } = self.sizes;
        let rows = batch * tokens * directions;
        let once = if self.channel.direction == 0 { batch * tokens } else { rows };
        [once * heads * headdim, rows * heads, rows * groups * states]
    }
}

/// What the kernels are given.
pub struct Operands {
    pub x: Buffer<u8>,
    pub dt: Buffer<u8>,
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
    pub fn of(p: &Problem, how: &How) -> Operands {
        let of = |values: &[f32]| Buffer::of(&encode(how.element, values));
        let each = if how.d_per_head { p.headdim } else { 1 };
        let d = p.d.as_ref().map(|d| d.iter().step_by(each).copied().collect::<Vec<_>>());
        Operands {
            x: of(&p.x),
            dt: of(&p.dt),
            b: of(&p.b),
            c: of(&p.c),
            dy: of(&p.dy),
            z: p.z.as_deref().map(of),
            a: Buffer::of(&p.a),
            d: maybe(d.as_deref()),
            bias: maybe(p.bias.as_deref()),
            initial: maybe(p.initial.as_deref()),
            dfinal: Some(Buffer::of(&p.dfinal)),
        }
    }
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
    dx: Target,
    ddt: Target,
    dz: Option<Target>,
    dinitial: Buffer<f32>,
    operands: Operands,
    _orders: (Buffer<i32>, Option<Buffer<i32>>, Option<Buffer<u8>>),
    _floats: Vec<Buffer<f32>>,
    _elements: [Buffer<u8>; 3],
}

fn output(target: &Target) -> Output {
    let [batch, token, direction] = target.strides();
    let [rows, steps] = target.addresses();
    Output { rows, steps, batch, token, direction }
}

impl Run {
    /// `form.sizes.steps` is taken from the table. `cut` gives the cuts of the forward and the backward.
    pub fn new(mut form: Form, table: &Table, operands: Operands, cut: impl Fn(&Sizes) -> [Cut; 2]) -> Run {
        let Sizes { batch, tokens, directions, heads, headdim, groups, states, .. } = form.sizes;
        let tables = Tables::new(&table.orders(), batch, tokens, directions).unwrap();
        form.sizes.steps = tables.steps;
        let Form { sizes, tiling, channel, head, coefficient, .. } = form;
        let (element, cuts) = (tiling.element, cut(&sizes));
        let rows = |buffer: &Buffer<u8>, s: Strides| {
            let [batch, token, direction, group] = [s.batch, s.token, s.direction, s.group].map(|s| s as i64);
            Rows { data: address(buffer), batch, token, direction, group }
        };
        let read = Buffer::of(&tables.read);
        let (written, resets) = (maybe(tables.written.as_deref()), maybe(tables.resets.as_deref()));
        let mut floats = Vec::new();
        // Memory that only kernels use.
        let mut kept = |len: usize| {
            floats.push(Buffer::<f32>::poisoned(len));
            address(floats.last().unwrap())
        };

        let (channels, sequences) = (heads * headdim, batch * directions);
        let slabs = || Buffer::<u8>::poisoned(cuts[0].checkpoint_len(&sizes, &tiling) * tiling.operand());
        let (checkpoints, behind) = (slabs(), slabs());
        let o = &operands;
        let ungated = Buffer::<u8>::poisoned(match o.z {
            Some(_) => sequences * tables.steps * channels * element.size(),
            None => 0,
        });
        let target =
            |width, strides, written| Target::new(&tables, element, [batch, width], strides, written);
        let y = target(channels, channel, true);
        let last = Buffer::<f32>::poisoned(sequences * channels * states);
        let mut forward = Arguments {
            x: rows(&o.x, channel),
            dt: rows(&o.dt, head),
            z: o.z.as_ref().map(|z| rows(z, channel)).unwrap_or_default(),
            b: rows(&o.b, coefficient),
            c: rows(&o.c, coefficient),
            dy: rows(&o.dy, channel),
            a: address(&o.a),
            d: given(&o.d),
            bias: given(&o.bias),
            initial: given(&o.initial),
            read: address(&read),
            written: given(&written),
            resets: given(&resets),
            y: output(&y),
            ungated: if o.z.is_some() { address(&ungated) } else { 0 },
            final_state: address(&last),
            checkpoints: address(&checkpoints),
            carry: kept(cuts[0].carry_len(&sizes, &tiling)),
            reach: kept(sequences * cuts[0].spans * heads),
            low: form.limits[0],
            high: form.limits[1],
            per_sample: tables.per_sample.into(),
            softplus: form.softplus.into(),
            d_per_head: form.d_per_head.into(),
            ..Arguments::new(&sizes, &cuts[0])
        };
        forward.align(element, headdim, states);

        let (dx, ddt) = (target(channels, channel, false), target(heads, head, false));
        let dz = o.z.as_ref().map(|_| target(channels, channel, false));
        let unsummed = || {
            let rows = sequences * coefficient_rows(&tables) * groups;
            Buffer::<f32>::poisoned(rows * cuts[1].parts * states)
        };
        let (db_parts, dc_parts) = (unsummed(), unsummed());
        let shares = batch * cuts[1].chunks;
        let share = |present: bool, width: usize| {
            present.then(|| {
                let parts = Buffer::<f32>::poisoned(shares * directions * width);
                let sum = PartSum::new(&parts, shares, directions * width);
                (parts, sum)
            })
        };
        let skips = if form.d_per_head { heads } else { channels };
        let sums = [share(true, heads), share(o.d.is_some(), skips), share(o.bias.is_some(), heads)];
        let at = |i: usize| sums[i].as_ref().map_or(0, |sum| address(&sum.0));
        let dinitial = Buffer::<f32>::poisoned(sequences * channels * states);
        let mut backward = Arguments {
            dfinal: given(&o.dfinal),
            behind: address(&behind),
            carry: kept(cuts[1].carry_len(&sizes, &tiling)),
            reach: kept(sequences * cuts[1].spans * heads),
            dx: output(&dx),
            ddt: output(&ddt),
            dz: dz.as_ref().map(output).unwrap_or_default(),
            db_parts: address(&db_parts),
            dc_parts: address(&dc_parts),
            da_parts: at(0),
            dd_parts: at(1),
            dbias_parts: at(2),
            dinitial: address(&dinitial),
            coefficients_by_token: tables.permutations.into(),
            spans: cuts[1].spans as i32,
            span_chunks: cuts[1].span_chunks as i32,
            ..forward
        };
        backward.align(element, headdim, states);
        let coefficients = [&db_parts, &dc_parts].map(|parts| {
            let (sizes, parts) = ([batch, groups, states], (parts, cuts[1].parts));
            CoefficientSum::new(&tables, element, sizes, parts, coefficient)
        });
        floats.extend([db_parts, dc_parts]);
        let sums = sums.map(|sum| {
            let (parts, sum) = sum?;
            floats.push(parts);
            Some(sum)
        });
        Run {
            form,
            cuts,
            forward,
            backward,
            coefficients,
            sums,
            y,
            last,
            dx,
            ddt,
            dz,
            dinitial,
            operands,
            _orders: (read, written, resets),
            _floats: floats,
            _elements: [checkpoints, behind, ungated],
        }
    }

    /// With what a backward needs.
    pub fn forward(&self, device: Device) {
        self.forward_with(device, self.forward);
    }

    /// Without.
    pub fn inference(&self, device: Device) {
        self.forward_with(device, Arguments { checkpoints: 0, ungated: 0, ..self.forward });
    }

    fn forward_with(&self, device: Device, arguments: Arguments) {
        let Form { sizes, tiling, .. } = &self.form;
        let passes = plan::forward(sizes, tiling, &self.cuts[0]).unwrap();
        launch(device, &tiling.forward(), &passes, arguments);
        self.y.sum(device);
    }

    pub fn backward(&self, device: Device) {
        let Form { sizes, tiling, .. } = &self.form;
        let passes = plan::backward(sizes, tiling, &self.cuts[1]).unwrap();
        launch(device, &tiling.backward(), &passes, self.backward);
        self.coefficients.iter().for_each(|sum| sum.run(device));
        [&self.dx, &self.ddt].into_iter().chain(&self.dz).for_each(|target| target.sum(device));
        self.sums.iter().flatten().for_each(|sum| sum.run(device));
    }

    pub fn y(&self) -> Vec<f32> {
        self.y.values()
    }

    /// y, final state, and the gradients in the order of `NAMES`.
    pub fn results(&self) -> Vec<Vec<f32>> {
        let sum = |i: usize| self.sums[i].as_ref().map_or(Vec::new(), |sum| sum.out.read());
        vec![
            self.y.values(),
            self.last.read(),
            self.dx.values(),
            self.ddt.values(),
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

/// A problem's run.
pub fn run(p: &Problem, how: &How) -> Run {
    let sizes = Sizes {
        batch: p.batch,
        tokens: p.tokens,
        directions: p.directions,
        heads: p.heads,
        headdim: p.headdim,
        groups: p.groups,
        states: p.states,
        steps: 0,
    };
    let tiling = Tiling { chunk: how.chunk, ..tiling(how.element, &sizes, how.width) };
    let form = Form {
        softplus: p.softplus,
        limits: p.limits,
        d_per_head: how.d_per_head,
        ..Form::new(sizes, tiling, p.shared)
    };
    let cut = |sizes: &Sizes| how.spans.map(|spans| Cut::into(sizes, &tiling, spans, how.parts));
    Run::new(form, &p.table, Operands::of(p, how), cut)
}

/// Everything that the kernels compute.
pub fn kernels(p: &Problem, how: &How, device: Device) -> Vec<Vec<f32>> {
    let run = run(p, how);
    run.forward(device);
    run.backward(device);
    run.results()
}

/// As a card with room for slabs of `width` channels and no more would have it.
fn tiling(element: Element, sizes: &Sizes, width: usize) -> Tiling {
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

/// One token after the other: y of all tokens, and the state.
pub fn step_by_step(p: &Problem, how: &How, device: Device) -> Vec<Vec<f32>> {
    let How { element, d_per_head, .. } = *how;
    let Operands { x, dt, b, c, z, a, d, bias, initial, .. } = Operands::of(p, how);
    let channels = p.heads * p.headdim;
    let zeros = || Buffer::of(&vec![0f32; p.batch * channels * p.states]);
    let (state, y) = (initial.unwrap_or_else(zeros), Buffer::<u8>::poisoned(p.x.len() * element.size()));
    let (per_head, coefficients) = (p.heads, p.groups * p.states);
    for token in 0..p.tokens {
        let at =
            |buffer: &Buffer<u8>, width: usize| address(buffer) + (token * width * element.size()) as u64;
        let row = |width: usize| (p.tokens * width) as i64;
        let arguments = StepArguments {
            x: at(&x, channels),
            dt: at(&dt, per_head),
            a: address(&a),
            b: at(&b, coefficients),
            c: at(&c, coefficients),
            d: given(&d),
            z: z.as_ref().map_or(0, |z| at(z, channels)),
            bias: given(&bias),
            state: address(&state),
            y: at(&y, channels),
            x_row: row(channels),
            dt_row: row(per_head),
            b_row: row(coefficients),
            b_group: p.states as i64,
            c_row: row(coefficients),
            c_group: p.states as i64,
            z_row: row(channels),
            y_row: row(channels),
            low: p.limits[0],
            high: p.limits[1],
            batch: p.batch as i32,
            heads: p.heads as i32,
            groups: p.groups as i32,
            softplus: p.softplus.into(),
            d_per_head: d_per_head.into(),
        };
        let pass = plan::step(p.batch, channels, p.states).unwrap();
        launch(device, &plan::step_variant(element, p.headdim, p.states), &[pass], arguments);
    }
    vec![decode(element, &y.read()), state.read()]
}
