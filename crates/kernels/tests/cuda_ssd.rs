//! The CUDA kernels of the SSD, executed by the emulator, against the equations in f64: random shapes, orders and options,
//! every element type, cut into spans and parts or not, with the threads of a block in several orders.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use common::{
    Compared, Kind,
    ssd::{Problem, Shape},
};
use device::{
    in_every_schedule,
    ssd::{Allowed, Case, How, cases, kernels, run, step_by_step, step_cases},
};
use ophidian_kernels::{
    cuda::{Card, Element},
    ssd::cuda::{Cut, Sizes, Tiling},
};
use proptest::prelude::*;

fn check(shape: Shape, how: How) {
    let case = Case { shape, how };
    check_problem(&case.problem(), &how);
}

fn check_problem(p: &Problem, how: &How) {
    let found = in_every_schedule(|device| kernels(p, how, device));
    how.compared(p, &found).iter().for_each(Compared::check);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 16, ..ProptestConfig::default() })]

    #[test]
    fn emulated_is_the_equations(case in cases()) {
        check(case.shape, case.how);
    }
}

/// Of one sample, direction and group.
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
        let how = How { element, chunk: 64, width: 64, spans: [2, 1], parts: 2, d_per_head: false };
        check(plain(tokens, heads, 64, states, 0xbf, kind), how);
    }
}

/// Three heads in slabs of two: the last slab of each group holds one.
#[test]
fn heads_that_leave_a_slab_half_empty() {
    for element in [Element::F32, Element::Bf16] {
        let how = How { element, chunk: 32, width: 32, spans: [2, 2], parts: 2, d_per_head: true };
        let shape = Shape { groups: 2, ..plain(70, 3, 16, 16, 0xff, Kind::Wild) };
        check(shape, how);
    }
}

/// What the op says of a NaN: that of x stays in its channel and in its future but for its chunk, and no reset behind the
/// chunk lets it through.
#[test]
fn a_nan_stays_in_its_channel() {
    let how = How { element: Element::F32, chunk: 32, width: 32, spans: [1, 1], parts: 1, d_per_head: false };
    let mut p = Problem::new(&plain(128, 2, 16, 16, 32, Kind::Identity));
    let (channels, at, reset) = (32, 40, 100);
    p.x[at * channels + 3] = f32::NAN;
    let mut resets = vec![0u8; p.tokens];
    resets[reset] = 1;
    p.table.resets = Some(resets);
    let results = in_every_schedule(|device| {
        let run = run(&p, &how);
        run.inference(device);
        vec![run.y().iter().map(|y| f32::from(u8::from(y.is_nan()))).collect()]
    });
    for (i, nan) in results[0].iter().enumerate() {
        let (token, channel) = (i / channels, i % channels);
        let first = at / how.chunk * how.chunk;
        // Up to the reset, whose chunk the state enters.
        let reached = channel == 3 && (first..reset).contains(&token);
        assert_eq!(*nan == 1.0, reached, "token {token} channel {channel}");
    }
}

/// Chunks of 128 steps, which the forward alone takes, and no checkpoints.
#[test]
fn long_chunks_without_checkpoints() {
    let how =
        How { element: Element::Bf16, chunk: 128, width: 48, spans: [2, 1], parts: 1, d_per_head: false };
    let p = how.prepared(Problem::new(&plain(300, 1, 40, 20, 0xbb, Kind::Wild)));
    assert!(p.table.steps > 256, "{} steps: several chunks", p.table.steps);
    let results = in_every_schedule(|device| {
        let run = run(&p, &how);
        run.inference(device);
        vec![run.y()]
    });
    let want = p.reference(&p.leaves()).y;
    Allowed::new(&p, how.element, how.chunk).compared(0, &results[0], &want, 1).check();
}

/// Decays that take the state below what f32 holds within a chunk, and steps of size zero.
#[test]
fn strong_and_absent_decays() {
    let how = How { element: Element::F32, chunk: 32, width: 32, spans: [2, 2], parts: 1, d_per_head: false };
    let mut p = Problem::new(&plain(100, 2, 16, 16, 2 + 16, Kind::Identity));
    p.a = vec![-40.0, -0.001];
    for (i, dt) in p.dt.iter_mut().enumerate() {
        *dt = if i % 5 == 0 { 0.0 } else { dt.abs() * 3.0 };
    }
    check_problem(&p, &how);
}

/// An order without steps leaves the initial state and gives it the gradient of the final one.
#[test]
fn no_step_at_all() {
    let how = How { element: Element::F32, chunk: 32, width: 32, spans: [1, 1], parts: 1, d_per_head: false };
    let mut p = Problem::new(&plain(3, 2, 16, 16, 0xff, Kind::Wild));
    (p.table.table, p.table.steps, p.table.resets, p.table.silent) = (Vec::new(), 0, None, None);
    check_problem(&p, &how);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, ..ProptestConfig::default() })]

    /// Tokens one by one are the recurrence: y of each, and the state that they leave.
    #[test]
    fn steps_are_the_recurrence(case in step_cases()) {
        let p = case.problem();
        let found = in_every_schedule(|device| step_by_step(&p, &case.how, device));
        case.steps_compared(&p, &found).iter().for_each(Compared::check);
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
