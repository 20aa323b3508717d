//! Vectors made by the authors' own code (`golden/ops`), through the kernels in f32.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ophidian_kernels::cuda::{Card, Element, scan::Elements};
use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde_json::Value;

use super::{Device, conv, norm, scan, ssd};
use crate::{
    common::{Compared, Draw, Kind, Table, scan::Problem as Scan, ssd::Problem as Ssd},
    cuda,
};

/// Tensors by name: values and shape.
pub type Golden = BTreeMap<String, (Vec<f64>, Vec<usize>)>;

/// Tensors by name, in the authors' layout.
type Found = Vec<(&'static str, Vec<f32>)>;

/// An op of the authors: its name, how many cases there are at least that the kernels take, and what they give for one;
/// None for what they do not take.
pub struct Op {
    pub name: &'static str,
    pub least: usize,
    run: fn(&Golden, &Value, Device) -> Option<Found>,
}

pub const OPS: [Op; 7] = [
    Op { name: "selective_scan", least: 20, run: selective_scan },
    Op { name: "vmamba_selective_scan", least: 4, run: selective_scan },
    Op { name: "causal_conv1d", least: 40, run: causal_conv1d },
    Op { name: "rmsnorm_gated", least: 16, run: rmsnorm_gated },
    Op { name: "ssd_combined", least: 35, run: ssd_combined },
    Op { name: "ssd_chunk_scan_ref", least: 5, run: ssd_combined },
    Op { name: "ssd_minimal_discrete", least: 6, run: ssd_minimal_discrete },
];

/// Where the goldens of an op lie: in the folder that `OPHIDIAN_SHARED` names, or in `shared` beside the clone.
pub fn folder(op: &str) -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    let shared = std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from);
    shared.join("golden/ops").join(op)
}

/// A case of an op.
pub struct Case {
    pub name: String,
    path: PathBuf,
    told: Value,
}

/// All of them; None if `folder` holds no goldens.
pub fn cases(folder: &Path) -> Option<Vec<Case>> {
    let index: Value = serde_json::from_slice(&std::fs::read(folder.join("index.json")).ok()?).unwrap();
    let case = |told: &Value| {
        let file = told["file"].as_str().unwrap();
        Case { name: file.into(), path: folder.join(file), told: told.clone() }
    };
    Some(index["cases"].as_array().unwrap().iter().map(case).collect())
}

impl Case {
    /// What the kernels give beside what the authors' code gives in f64; None if the kernels do not take such a case.
    pub fn compared(&self, op: &Op, device: Device) -> Option<Vec<Compared>> {
        let golden = read(&self.path);
        let found = (op.run)(&golden, &self.told["options"], device)?;
        let compare = |(key, got): &(&str, Vec<f32>)| {
            let (want, _) = golden.get(*key).filter(|(want, _)| !want.is_empty())?;
            let scale = want.iter().fold(1e-6f64, |m, v| m.max(v.abs()));
            // Where numbers cancel, as far as the authors' own code in f32 is from itself in f64.
            let own = &self.told["err32_vs_64"][key.replacen("64.", ".", 1)]["max_abs"];
            let tolerance = f64::max(3e-5, 2.0 * own.as_f64().unwrap_or(0.0) / scale);
            Some(Compared::new(&format!("{}/{} {key}", op.name, self.name), got, want, tolerance, 1e-6))
        };
        let compared: Vec<_> = found.iter().filter_map(compare).collect();
        assert!(!compared.is_empty(), "{}/{}: nothing to compare", op.name, self.name);
        Some(compared)
    }
}

fn read(path: &Path) -> Golden {
    let bytes = std::fs::read(path).unwrap();
    let values = |view: &TensorView| -> Vec<f64> {
        let four = || view.data().chunks_exact(4).map(|b| [b[0], b[1], b[2], b[3]]);
        match view.dtype() {
            Dtype::F32 => four().map(|b| f64::from(f32::from_le_bytes(b))).collect(),
            Dtype::I32 => four().map(|b| f64::from(i32::from_le_bytes(b))).collect(),
            Dtype::F64 => {
                view.data().chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect()
            }
            // What only cases that are not taken have.
            _ => Vec::new(),
        }
    };
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter().map(|(name, view)| (name.to_owned(), (values(&view), view.shape().to_vec()))).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|v| *v as f32).collect()
}

fn given(golden: &Golden, name: &str) -> Option<Vec<f32>> {
    golden.get(name).map(|(values, _)| narrow(values))
}

/// (B, X, L) to (B, L, X), X all axes between.
fn channels_last<T: Copy>(values: &[T], shape: &[usize]) -> Vec<T> {
    let (batch, length) = (shape[0], shape[shape.len() - 1]);
    let width = shape[1..shape.len() - 1].iter().product::<usize>();
    let at = |i: usize| (i / (length * width) * width + i % width) * length + i / width % length;
    (0..batch * length * width).map(|i| values[at(i)]).collect()
}

/// And back, to the shape of `golden`'s `name`.
fn channels_first(golden: &Golden, name: &str, values: &[f32]) -> Vec<f32> {
    let Some((_, shape)) = golden.get(name) else { return Vec::new() };
    let length = shape[shape.len() - 1];
    let width = shape[1..shape.len() - 1].iter().product();
    channels_last(values, &[shape[0], length, width])
}

/// Left to right over each sequence of `in.seq_idx` (B, L), or over all. Tokens of a negative one are skipped.
fn table(golden: &Golden, batch: usize, tokens: usize) -> Table {
    let Some((ids, _)) = golden.get("in.seq_idx") else {
        return Table::new(Kind::Identity, batch, 1, tokens, &mut Draw(0));
    };
    let each = || ids.iter().enumerate();
    Table {
        table: each().map(|(i, id)| if *id < 0.0 { -2 } else { (i % tokens) as i32 }).collect(),
        resets: Some(each().map(|(i, id)| u8::from(i % tokens > 0 && ids[i - 1] != *id)).collect()),
        silent: None,
        steps: tokens,
        per_sample: true,
    }
}

/// Of real A, and B and C of the same groups that vary along the sequence.
fn selective_scan(golden: &Golden, options: &Value, device: Device) -> Option<Found> {
    if options["complex_A"] == true || options["B"] == "const" || options["B"] != options["C"] {
        return None;
    }
    let rows = |name: &str| golden.get(name).map(|(values, shape)| narrow(&channels_last(values, shape)));
    let shape = |name: &str| golden[name].1.clone();
    let (u, b) = (shape("in.u"), shape("in.B"));
    let states = shape("in.A")[1];
    let p = Scan {
        batch: u[0],
        tokens: u[2],
        directions: 1,
        groups: if b.len() == 4 { b[1] } else { 1 },
        channels: u[1],
        states,
        shared: false,
        softplus: options["delta_softplus"] == true,
        table: table(golden, u[0], u[2]),
        u: rows("in.u").unwrap(),
        delta: rows("in.delta").unwrap(),
        a: given(golden, "in.A").unwrap(),
        b: rows("in.B").unwrap(),
        c: rows("in.C").unwrap(),
        d: given(golden, "in.D"),
        z: rows("in.z"),
        bias: given(golden, "in.delta_bias"),
        initial: None,
        dy: rows("ct.y").unwrap(),
        dfinal: given(golden, "ct.last_state").unwrap_or_else(|| vec![0.0; u[0] * u[1] * states]),
    };
    let keys = [
        "out64.y",
        "out64.last_state",
        "grad64.u",
        "grad64.delta",
        "grad64.A",
        "grad64.B",
        "grad64.C",
        "grad64.D",
        "grad64.z",
        "grad64.delta_bias",
    ];
    let found = keys.into_iter().zip(scan::kernels(&p, Elements::of(Element::F32), [3, 3], device));
    let along = ["out64.y", "grad64.u", "grad64.delta", "grad64.B", "grad64.C", "grad64.z"];
    let laid = |(key, values): (&'static str, Vec<f32>)| match along.contains(&key) {
        true => (key, channels_first(golden, key, &values)),
        false => (key, values),
    };
    Some(found.map(laid).collect())
}

fn causal_conv1d(golden: &Golden, options: &Value, device: Device) -> Option<Found> {
    let rows = |name: &str| golden.get(name).map(|(values, shape)| narrow(&channels_last(values, shape)));
    let (x, taps) = (&golden["in.x"].1, golden["in.weight"].1[1]);
    let [batch, channels, tokens] = [x[0], x[1], x[2]];
    let initial = given(golden, "in.initial_states");
    let dfinal = given(golden, "ct.final_states");
    let p = conv::Problem {
        s: conv::Shape {
            element: Element::F32,
            card: Card { multiprocessors: 4, shared: 0 },
            batch,
            tokens,
            directions: 1,
            channels,
            taps,
            shared: false,
            bias: golden.contains_key("in.bias"),
            initial: initial.is_some(),
            silu: options["activation"] == "silu",
            dfinal: dfinal.is_some(),
            apart: [0, 0],
            kind: Kind::Identity,
            seed: 0,
        },
        table: table(golden, batch, tokens),
        x: rows("in.x").unwrap(),
        weight: given(golden, "in.weight").unwrap(),
        bias: given(golden, "in.bias"),
        initial,
        dy: rows("ct.y").unwrap(),
        dfinal,
    };
    let [y, last, dx, dweight, dbias, dinitial] = p.kernels(device).try_into().unwrap();
    Some(vec![
        ("out64.y", channels_first(golden, "out64.y", &y)),
        ("out64.final_states", last),
        ("grad64.x", channels_first(golden, "grad64.x", &dx)),
        ("grad64.weight", dweight),
        ("grad64.bias", dbias),
        ("grad64.initial_states", dinitial),
    ])
}

fn rmsnorm_gated(golden: &Golden, options: &Value, device: Device) -> Option<Found> {
    let (x, shape) = &golden["in.x"];
    let channels = shape[shape.len() - 1];
    let group = options["group_size"].as_u64().map_or(channels, |size| size as usize);
    let s = norm::Gated {
        element: Element::F32,
        card: Card { multiprocessors: 4, shared: 100 << 10 },
        rows: x.len() / channels,
        groups: channels / group,
        group,
        repeat: usize::from(golden.contains_key("in.z")),
        bias: golden.contains_key("in.bias"),
        norm_before_gate: options["norm_before_gate"] == true,
        eps: options["eps"].as_f64().unwrap() as f32,
        apart: [0, 0],
        seed: 0,
    };
    let inputs = ["in.x", "in.z", "in.weight", "in.bias", "ct.y"];
    let inputs = inputs.map(|name| given(golden, name).unwrap_or_default());
    let keys = ["out64.y", "grad64.x", "grad64.z", "grad64.weight", "grad64.bias"];
    Some(keys.into_iter().zip(s.kernels(&inputs, device)).collect())
}

/// How the authors' problems are run: in chunks that suit the device, cut into spans and parts where they are long enough.
fn how(d_per_head: bool) -> ssd::How {
    let [chunk, width] = cuda::GOLDEN_TILING;
    ssd::How { element: Element::F32, chunk, width, spans: [2, 2], parts: 2, d_per_head }
}

fn ssd_combined(golden: &Golden, options: &Value, device: Device) -> Option<Found> {
    let [x, b] = ["in.x", "in.B"].map(|name| golden[name].1.clone());
    let [batch, tokens, heads, headdim] = x[..] else { panic!("x is {x:?}") };
    let (groups, states, state) = (b[2], b[3], heads * headdim * b[3]);
    let d_per_head = options["D"] == "h";
    let each = if d_per_head { headdim } else { 1 };
    let limits = |i: usize| {
        let limit = &options["dt_limit"][i];
        limit.as_f64().map_or([0.0, f32::INFINITY][i], |limit| limit as f32)
    };
    // A state before the first sequence is that of sequence 0.
    let own = |sample: usize| golden.get("in.seq_idx").is_none_or(|(ids, _)| ids[sample * tokens] == 0.0);
    let of_own = |mut values: Vec<f32>| {
        let others = values.chunks_mut(state.max(1)).enumerate().filter(|(sample, _)| !own(*sample));
        others.for_each(|(_, values)| values.fill(0.0));
        values
    };
    let p = Ssd {
        batch,
        tokens,
        directions: 1,
        groups,
        heads,
        headdim,
        states,
        shared: false,
        softplus: options["dt_softplus"] == true,
        limits: [limits(0), limits(1)],
        table: table(golden, batch, tokens),
        x: given(golden, "in.x").unwrap(),
        dt: given(golden, "in.dt").unwrap(),
        a: given(golden, "in.A").unwrap(),
        b: given(golden, "in.B").unwrap(),
        c: given(golden, "in.C").unwrap(),
        d: given(golden, "in.D").map(|d| d.iter().flat_map(|d| vec![*d; each]).collect()),
        z: given(golden, "in.z"),
        bias: given(golden, "in.dt_bias"),
        initial: given(golden, "in.initial_states").map(of_own),
        dy: given(golden, "ct.y").unwrap(),
        dfinal: given(golden, "ct.final_states").unwrap_or_else(|| vec![0.0; batch * state]),
    };
    let keys = [
        "out64.y",
        "out64.final_states",
        "grad64.x",
        "grad64.dt",
        "grad64.A",
        "grad64.B",
        "grad64.C",
        "grad64.D",
        "grad64.z",
        "grad64.dt_bias",
    ];
    let found = ssd::kernels(&p, &how(d_per_head), device);
    let dinitial = of_own(found[10].clone());
    Some(keys.into_iter().zip(found).chain([("grad64.initial_states", dinitial)]).collect())
}

/// X is x dt already and A the exponent of each step: a step of size -A with decay -1. The gradient of A is then a
/// difference of large numbers, which f32 does not hold: it is left out, the others have that of dt.
fn ssd_minimal_discrete(golden: &Golden, _: &Value, device: Device) -> Option<Found> {
    let [x, b] = ["in.X", "in.B"].map(|name| golden[name].1.clone());
    let [batch, tokens, heads, headdim] = x[..] else { panic!("X is {x:?}") };
    let (groups, states) = (b[2], b[3]);
    let dt: Vec<f32> = given(golden, "in.A").unwrap().iter().map(|v| -v).collect();
    let divided = |values: Vec<f32>| -> Vec<f32> {
        values.iter().enumerate().map(|(i, v)| v / dt[i / headdim]).collect()
    };
    let p = Ssd {
        batch,
        tokens,
        directions: 1,
        groups,
        heads,
        headdim,
        states,
        shared: false,
        softplus: false,
        limits: [0.0, f32::INFINITY],
        table: table(golden, batch, tokens),
        x: divided(given(golden, "in.X").unwrap()),
        a: vec![-1.0; heads],
        b: given(golden, "in.B").unwrap(),
        c: given(golden, "in.C").unwrap(),
        d: None,
        z: None,
        bias: None,
        initial: given(golden, "in.initial_states"),
        dy: given(golden, "ct.Y").unwrap(),
        dfinal: given(golden, "ct.final_state")
            .unwrap_or_else(|| vec![0.0; batch * heads * headdim * states]),
        dt: dt.clone(),
    };
    let found = ssd::kernels(&p, &how(false), device);
    Some(vec![
        ("out64.Y", found[0].clone()),
        ("out64.final_state", found[1].clone()),
        ("grad64.X", divided(found[2].clone())),
        ("grad64.B", found[5].clone()),
        ("grad64.C", found[6].clone()),
        ("grad64.initial_states", found[10].clone()),
    ])
}
