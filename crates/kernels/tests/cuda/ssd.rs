//! A problem of the SSD through all its kernels on the emulator.
#![allow(missing_docs)]

use ophidian_kernels::{
    Strides,
    cuda::{Element, Tables},
    ssd::cuda::{self as kernels, Arguments, Cut, Output, Rows, Sizes, Tiling},
};

use crate::{
    common::ssd::Problem,
    cuda::Buffer,
    device::{Device, Parts, Target, address, encoded, folded, given, launch, maybe},
};

pub fn output(target: &Target) -> Output {
    let [batch, token, direction] = target.strides();
    let [rows, steps] = target.addresses();
    Output { rows, steps, batch, token, direction }
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
    let (bias, initial, dfinal) =
        (maybe(p.bias.as_deref()), maybe(p.initial.as_deref()), Buffer::of(&p.dfinal));
    let [read, written] = [Some(&tables.read), tables.written.as_ref()].map(|t| t.map(|t| Buffer::of(t)));
    let resets = tables.resets.as_deref().map(Buffer::of);

    let channels = p.heads * p.headdim;
    let sequences = p.batch * p.directions;
    let states = sequences * channels * p.states;
    let first = cut(run.spans[0]);
    let slabs = || Buffer::<u8>::poisoned(first.checkpoint_len(&sizes, &tiling) * tiling.operand());
    let (checkpoints, behind) = (slabs(), slabs());
    let y = Target::new(p.batch, &tables, element, channel, channels, p.x.len());
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
        d: given(&d),
        bias: given(&bias),
        initial: given(&initial),
        read: given(&read),
        written: given(&written),
        resets: given(&resets),
        y: output(&y),
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
    let dx = Target::new(p.batch, &tables, element, channel, channels, p.x.len());
    let ddt = Target::new(p.batch, &tables, element, head, p.heads, p.dt.len());
    let dz = z.is_some().then(|| Target::new(p.batch, &tables, element, channel, channels, p.x.len()));
    let line = if tables.permutations { p.tokens } else { tables.steps };
    let unsummed = || Buffer::<f32>::poisoned(sequences * line * p.groups * second.parts * p.states);
    let (db_parts, dc_parts) = (unsummed(), unsummed());
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
        dx: output(&dx),
        ddt: output(&ddt),
        dz: dz.as_ref().map(output).unwrap_or_default(),
        db_parts: address(&db_parts),
        dc_parts: address(&dc_parts),
        da_parts: given(&da_parts),
        dd_parts: given(&dd_parts),
        dbias_parts: given(&dbias_parts),
        dinitial: address(&dinitial),
        coefficients_by_token: tables.permutations.into(),
        spans: second.spans as i32,
        span_chunks: second.span_chunks as i32,
        ..forward
    };
    backward.align(element, p.headdim, p.states);
    launch(device, &backward_variant, &kernels::backward(&sizes, &tiling, &second).unwrap(), backward);

    let parts =
        Parts { element, strides: coefficient, tables: &tables, count: second.parts, states: p.states };
    let sum = |of: &Buffer<f32>| parts.sum(of, [p.batch, p.groups], p.b.len(), device);
    vec![
        y.collect(p.batch, &tables, true),
        last.to_vec(),
        dx.collect(p.batch, &tables, false),
        ddt.collect(p.batch, &tables, false),
        folded(&da_parts, per_head),
        sum(&db_parts),
        sum(&dc_parts),
        folded(&dd_parts, skips),
        dz.map(|dz| dz.collect(p.batch, &tables, false)).unwrap_or_default(),
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
