//! The launches of the selective scan's kernels on the emulator, from a problem of the tests.

use ophidian_kernels::{
    Strides,
    cuda::{Element, Tables, scan as variants},
    scan::cuda::{Arguments, Output, Rows, Sizes},
};

use crate::{
    common::scan::{NAMES, Problem},
    cuda::Buffer,
    device::{Device, Parts, Target, address, encoded, folded, given, launch, maybe, storing},
};

fn output(target: &Target, element: Element) -> Output {
    let [batch, token, direction] = target.strides();
    let [rows, steps] = target.addresses();
    Output { rows, steps, batch, direction, token_bytes: token as i32 * element.size() as i32 }
}

/// Everything that the kernels computed: by name, with what rounding may have cost.
pub type Results = Vec<(&'static str, Vec<f32>, f64)>;

/// The forward and the backward, cut into about `spans`.
pub fn emulate(p: &Problem, element: Element, spans: [usize; 2], device: Device) -> Results {
    let tables = Tables::new(&p.table.orders(), p.batch, p.tokens, p.directions).unwrap();
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
        let buffer = encoded(element, values);
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
    let (d, bias, initial) = (maybe(p.d.as_deref()), maybe(p.bias.as_deref()), maybe(p.initial.as_deref()));
    let dfinal = Buffer::of(&p.dfinal);
    let [read, written] = [Some(&tables.read), tables.written.as_ref()].map(|t| t.map(|t| Buffer::of(t)));
    let resets = tables.resets.as_deref().map(Buffer::of);

    let cut = sizes.cut_into(spans[0]);
    let per_state = p.channels * p.states;
    let sequences = p.batch * p.directions;
    let y = Target::new(p.batch, &tables, element, once, p.channels, p.u.len());
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
        d: given(&d),
        bias: given(&bias),
        initial: given(&initial),
        read: given(&read),
        written: given(&written),
        resets: given(&resets),
        y: output(&y, element),
        final_state: address(&last),
        checkpoints: address(&checkpoints),
        reach: address(&reach),
        per_sample: tables.per_sample.into(),
        softplus: p.softplus.into(),
        ..Arguments::new(&sizes, &cut)
    };
    launch(device, &variants::forward(element, p.states), &sizes.forward(&cut).unwrap(), forward);

    let cut = sizes.cut_into(spans[1]);
    let carry = Buffer::<f32>::poisoned(sequences * cut.spans * per_state);
    let reach = Buffer::<f32>::poisoned(sequences * cut.spans * p.channels);
    let target = |strides, len| Target::new(p.batch, &tables, element, strides, p.channels, len);
    let (du, ddelta) = (target(once, p.u.len()), target(channel, p.delta.len()));
    let dz = z.is_some().then(|| target(once, p.u.len()));
    let line = if tables.permutations { p.tokens } else { tables.steps };
    let unsummed = || Buffer::<f32>::poisoned(sequences * line * p.groups * sizes.parts() * p.states);
    let (db_parts, dc_parts) = (unsummed(), unsummed());
    let columns = p.directions * p.channels;
    let sums = |width: usize| Some(Buffer::<f32>::poisoned(p.batch * cut.spans * width));
    let da_parts = sums(columns * p.states);
    let (dd_parts, dbias_parts) =
        (d.as_ref().and_then(|_| sums(columns)), bias.as_ref().and_then(|_| sums(columns)));
    let dinitial = Buffer::<f32>::poisoned(sequences * per_state);
    let backward = Arguments {
        spans: cut.spans as i32,
        span_chunks: cut.span_chunks as i32,
        reach: address(&reach),
        dfinal: address(&dfinal),
        carry: address(&carry),
        du: output(&du, element),
        ddelta: output(&ddelta, element),
        dz: dz.as_ref().map(|dz| output(dz, element)).unwrap_or_default(),
        db_parts: address(&db_parts),
        dc_parts: address(&dc_parts),
        da_parts: given(&da_parts),
        dd_parts: given(&dd_parts),
        dbias_parts: given(&dbias_parts),
        dinitial: address(&dinitial),
        coefficients_by_token: tables.permutations.into(),
        ..forward
    };
    launch(device, &variants::backward(element, p.states), &sizes.backward(&cut).unwrap(), backward);

    let parts =
        Parts { element, strides: coefficient, tables: &tables, count: sizes.parts(), states: p.states };
    let sum = |of: &Buffer<f32>| parts.sum(of, [p.batch, p.groups], p.b.len(), device);
    let rows = |target: &Target, written| (target.collect(p.batch, &tables, written), target.storing());
    let results = [
        ("y", rows(&y, true)),
        ("final_state", (last.to_vec(), 0.0)),
        (NAMES[0], rows(&du, false)),
        (NAMES[1], rows(&ddelta, false)),
        (NAMES[2], (folded(&da_parts, columns * p.states), 0.0)),
        (NAMES[3], (sum(&db_parts), storing(element))),
        (NAMES[4], (sum(&dc_parts), storing(element))),
        (NAMES[5], (folded(&dd_parts, columns), 0.0)),
        (NAMES[6], dz.map(|dz| rows(&dz, false)).unwrap_or_default()),
        (NAMES[7], (folded(&dbias_parts, columns), 0.0)),
        (NAMES[8], (if initial.is_some() { dinitial.to_vec() } else { Vec::new() }, 0.0)),
    ];
    results.into_iter().map(|(name, (values, rounding))| (name, values, rounding)).collect()
}
