//! The CUDA kernels of the selective scan, executed by the emulator, against the f64 kernels: random shapes, orders and
//! options, every element type, cut into spans or not, with the threads of a block in several orders.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;
#[path = "cuda/scan.rs"]
mod emulated;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use common::{
    Draw, Kind, Table, close_to,
    scan::{NAMES, Problem, Shape, shapes},
};
use cuda::{Buffer, SCHEDULES};
use device::{Device, address, decoded, encoded, given, in_every_schedule, launch, maybe, storing};
use emulated::{Results, emulate};
use ophidian_kernels::{
    cuda::{Element, scan as variants},
    scan::cuda::{self as plan, StepArguments},
};
use proptest::prelude::*;

/// Rounds what the kernels read as `element` to it.
fn rounded(mut p: Problem, element: Element) -> Problem {
    let round = |v: &mut Vec<f32>| *v = device::rounded(element, std::mem::take(v));
    [&mut p.u, &mut p.delta, &mut p.b, &mut p.c, &mut p.dy].into_iter().for_each(round);
    p.z.iter_mut().for_each(round);
    p
}

fn check(shape: &Shape, element: Element, spans: [usize; 2]) {
    let p = rounded(Problem::new(shape), element);
    let (y, last, grads) = p.wide();
    let mut want = vec![y, last];
    want.extend(grads);
    let results = emulate(&p, element, spans, Device(SCHEDULES[0]));
    for ((name, got, rounding), want) in results.iter().zip(&want) {
        let tolerance = if matches!(*name, "y" | "final_state") { 1e-5 } else { 3e-5 };
        // Of D and the bias: sums over samples and steps, which cancel.
        let size = if matches!(*name, "dD" | "ddelta_bias") { 5e-2 } else { 1e-3 };
        close_to(name, got, want, tolerance + rounding, size);
    }
    let bits = |results: &Results| -> Vec<Vec<u32>> {
        results.iter().map(|(_, v, _)| v.iter().map(|v| v.to_bits()).collect()).collect()
    };
    for schedule in &SCHEDULES[1..] {
        assert_eq!(bits(&results), bits(&emulate(&p, element, spans, Device(*schedule))), "{schedule:?}");
    }
}

/// States and element types that are compiled for the random problems.
const VARIANTS: [(usize, Element); 6] = [
    (16, Element::F32),
    (16, Element::Bf16),
    (16, Element::F16),
    (1, Element::F32),
    (3, Element::Bf16),
    (40, Element::F32),
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn emulated_is_wide(
        shape in shapes(50, 40, 2),
        variant in 0..VARIANTS.len(),
        forward_spans in 1..5usize,
        backward_spans in 1..5usize,
    ) {
        let (states, element) = VARIANTS[variant];
        check(&Shape { states, ..shape }, element, [forward_spans, backward_spans]);
    }
}

/// Many states, and several blocks of channels that add into one part.
#[test]
fn many_states() {
    for (states, per_group, element) in [(150, 9, Element::F16), (256, 5, Element::F32)] {
        for kind in [Kind::Permutation, Kind::Wild] {
            let shape = Shape {
                batch: 1,
                tokens: 45,
                directions: 2,
                groups: 1,
                per_group,
                states,
                flags: 0xff,
                kind,
                seed: 5,
            };
            check(&shape, element, [2, 3]);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A token after the other, in place on the state, is the scan of one direction.
    #[test]
    fn steps_are_the_scan(shape in shapes(5, 40, 2), variant in 0..VARIANTS.len(), aligned: bool) {
        let (states, element) = VARIANTS[variant];
        let shape = Shape { states, directions: 1, kind: Kind::Identity, flags: shape.flags | 16, ..shape };
        let p = rounded(Problem::new(&shape), element);
        let (want, last, _) = p.wide();
        let results = in_every_schedule(|device| step_by_step(&p, element, aligned, device));
        close_to("y", &results[0], &want, 1e-5 + storing(element), 1e-3);
        close_to("state", &results[1], &last, 1e-5, 1e-3);
    }
}

/// y of all tokens, and the state.
fn step_by_step(p: &Problem, element: Element, aligned: bool, device: Device) -> Vec<Vec<f32>> {
    let encoded = |values: &[f32]| encoded(element, values);
    let (u, delta, b, c) = (encoded(&p.u), encoded(&p.delta), encoded(&p.b), encoded(&p.c));
    let z = p.z.as_deref().map(encoded);
    let a = Buffer::of(&p.a);
    let (d, bias) = (maybe(p.d.as_deref()), maybe(p.bias.as_deref()));
    let state = Buffer::of(p.initial.as_ref().unwrap());
    let y = Buffer::<u8>::poisoned(p.u.len() * element.size());
    let variant = variants::step(element, p.states);
    for token in 0..p.tokens {
        let at =
            |buffer: &Buffer<u8>, width: usize| address(buffer) + (token * width * element.size()) as u64;
        let coefficients = p.groups * p.states;
        let rows = (p.tokens * p.channels) as i64;
        let arguments = StepArguments {
            u: at(&u, p.channels),
            delta: at(&delta, p.channels),
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
    vec![decoded(element, &y), state.to_vec()]
}

/// A case of the authors' own numbers: values as f64 with their shape.
type Golden = BTreeMap<String, (Vec<f64>, Vec<usize>)>;

fn read_golden(path: &Path) -> Golden {
    let bytes = std::fs::read(path).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let values = |view: &safetensors::tensor::TensorView| -> Vec<f64> {
        match view.dtype() {
            safetensors::Dtype::F32 => {
                view.data().chunks(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect()
            }
            _ => view.data().chunks(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        }
    };
    file.iter().map(|(name, view)| (name.to_owned(), (values(&view), view.shape().to_vec()))).collect()
}

/// (B, X, L) to (B, L, X).
fn channel_last(values: &[f64], shape: &[usize]) -> Vec<f64> {
    let (batch, length) = (shape[0], *shape.last().unwrap());
    let width = shape[1..shape.len() - 1].iter().product::<usize>();
    let at = |i: usize| (i / (length * width) * width + i % width) * length + i / width % length;
    (0..batch * length * width).map(|i| values[at(i)]).collect()
}

/// The scan of a case, in one direction, tokens in order.
fn golden_problem(golden: &Golden, softplus: bool) -> Problem {
    let narrow = |values: Vec<f64>| values.into_iter().map(|v| v as f32).collect::<Vec<_>>();
    let given = |name: &str| golden.get(name).map(|(values, _)| narrow(values.clone()));
    let rows = |name: &str| golden.get(name).map(|(values, shape)| narrow(channel_last(values, shape)));
    let shape = |name: &str| golden[name].1.clone();
    let (u, b) = (shape("in.u"), shape("in.B"));
    let state = u[0] * u[1] * shape("in.A")[1];
    Problem {
        batch: u[0],
        tokens: u[2],
        directions: 1,
        groups: if b.len() == 4 { b[1] } else { 1 },
        channels: u[1],
        states: shape("in.A")[1],
        shared: false,
        softplus,
        table: Table::new(Kind::Identity, u[0], 1, u[2], &mut Draw(0)),
        u: rows("in.u").unwrap(),
        delta: rows("in.delta").unwrap(),
        a: given("in.A").unwrap(),
        b: rows("in.B").unwrap(),
        c: rows("in.C").unwrap(),
        d: given("in.D"),
        z: rows("in.z"),
        bias: given("in.delta_bias"),
        initial: None,
        dy: rows("ct.y").unwrap(),
        dfinal: given("ct.last_state").unwrap_or_else(|| vec![0.0; state]),
    }
}

/// The authors' vectors, of real A, and B and C of the same groups that vary along the sequence.
#[test]
fn goldens() {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    for (op, least) in [("selective_scan", 20), ("vmamba_selective_scan", 4)] {
        let folder = shared.join("golden/ops").join(op);
        let Ok(index) = std::fs::read(folder.join("index.json")) else {
            let told = format_args!("SKIPPED: no goldens at {}\n", folder.display());
            let _ = std::io::Write::write_fmt(&mut std::io::stderr(), told);
            continue;
        };
        let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
        let mut compared = 0;
        for case in index["cases"].as_array().unwrap() {
            let (file, options) = (case["file"].as_str().unwrap(), &case["options"]);
            if options["complex_A"] == true || options["B"] == "const" || options["B"] != options["C"] {
                continue;
            }
            let golden = read_golden(&folder.join(file));
            let p = golden_problem(&golden, options["delta_softplus"] == true);
            let results = emulate(&p, Element::F32, [3, 3], Device(SCHEDULES[2]));
            for (name, key, by_row) in [
                ("y", "out64.y", true),
                ("final_state", "out64.last_state", false),
                (NAMES[0], "grad64.u", true),
                (NAMES[1], "grad64.delta", true),
                (NAMES[2], "grad64.A", false),
                (NAMES[3], "grad64.B", true),
                (NAMES[4], "grad64.C", true),
                (NAMES[5], "grad64.D", false),
                (NAMES[6], "grad64.z", true),
                (NAMES[7], "grad64.delta_bias", false),
            ] {
                let Some((want, shape)) = golden.get(key) else { continue };
                let want = if by_row { channel_last(want, shape) } else { want.clone() };
                let (_, got, _) = results.iter().find(|result| result.0 == name).unwrap();
                let scale = want.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
                // Where numbers cancel, as far as the authors' own code in f32 is from itself in f64.
                let own = &case["err32_vs_64"][key.replacen("64.", ".", 1)]["max_abs"];
                let tolerance = f64::max(3e-5, 2.0 * own.as_f64().unwrap_or(0.0) / scale);
                close_to(&format!("{op}/{file} {name}"), got, &want, tolerance, 1e-6);
            }
            compared += 1;
        }
        assert!(compared >= least, "{op}: {compared} cases compared");
    }
}
