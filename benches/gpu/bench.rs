//! Times at the shapes of models, beside the floors: the fewest bytes over the copy bandwidth that is measured first, and the
//! exponentials over what the card makes of them (16 a clock of a multiprocessor, at its highest clock).

use std::time::Instant;

use ophidian_kernels::{
    cuda::{Device, Element, Result as Answer, scan::Elements},
    scan::cuda::Sizes,
    ssd::cuda::{Cut, Sizes as SsdSizes, Tiling},
};
use serde_json::{Map, Value, json};

use crate::{
    Asked, caught,
    common::{Draw, Kind},
    compile,
    cuda::{Buffer, Schedule, noted},
    device::{self, Rows, conv, encode, norm, scan, ssd},
    layers::{Layer, Mixer, layers, orders},
    line,
};

struct Bench {
    device: &'static Device<'static>,
    /// Bytes a millisecond.
    bandwidth: f64,
    /// Exponentials a millisecond.
    exponentials: f64,
    drawn: Vec<f32>,
    until: Instant,
    /// One run is enough.
    quick: bool,
}

/// What is measured of a layer, with the kernels of a warm-up noted only if the schedule says so.
type Work = fn(&Bench, Layer, Element);

/// Runs all, or those of the layers named `only`; whether all ran that had room and time.
///
/// # Errors
/// The driver does not answer any more.
pub fn run(device: &'static Device<'static>, asked: &Asked) -> Result<bool, String> {
    // As much as is free, up to what no cache holds many times over.
    let mut measured = bandwidth(device, if asked.quick { 1 << 20 } else { 2 << 30 });
    for half in [512 << 20, 128 << 20] {
        measured = measured.or_else(|_| bandwidth(device, half));
    }
    let bandwidth = measured.map_err(|error| error.to_string())?;
    line(&json!({ "bench": "copy", "gb_per_s": bandwidth / 1e6 }));
    let per_ms = 16.0 * f64::from(device.card().multiprocessors) * f64::from(device.clock());
    let drawn = Draw(1).vec(1_000_003, 1.0);
    let bench =
        Bench { device, bandwidth, exponentials: per_ms, drawn, until: asked.until, quick: asked.quick };
    let layers: Vec<Layer> = layers(asked.quick)
        .into_iter()
        .filter(|layer| asked.only.as_ref().is_none_or(|only| layer.name == only))
        .collect();
    // f32 where it is trained or checked in; the long ones would say the same once more.
    let small = |layer: &&Layer| layer.batch * layer.tokens <= 64 * 197 || layer.side > 0;
    let wide = layers.iter().filter(small).map(|layer| (*layer, Element::F32));
    let all: Vec<_> = layers.iter().map(|layer| (*layer, Element::Bf16)).chain(wide).collect();

    let of = |layer: Layer| -> Vec<Work> {
        match layer.mixer {
            Mixer::Scan => vec![Bench::scan, Bench::conv, Bench::norms],
            Mixer::Ssd => vec![Bench::ssd],
        }
    };
    // The kernels are those of small problems: of few tokens of one sample.
    for (layer, element) in &all {
        let side = layer.side.min(2);
        let few = Layer { batch: 1, side, tokens: if side > 0 { side * side } else { 2 }, ..*layer };
        for work in of(*layer) {
            let _ = caught(|| {
                work(&Bench { until: Instant::now(), drawn: bench.drawn.clone(), ..bench }, few, *element)
            });
        }
    }
    let mut good = compile(&noted());
    let (mut skipped, mut late) = (0, 0);
    for (layer, element) in all {
        for work in of(layer) {
            if Instant::now() > asked.until {
                late += 1;
                continue;
            }
            let Err(error) = caught(|| work(&bench, layer, element)) else { continue };
            line(&json!({
                "skipped": layer.name, "tokens": layer.tokens, "dtype": dtype(element), "why": error,
            }));
            good &= error.contains("out of memory");
            skipped += 1;
            // After an error that is the context's, nothing more can be measured.
            device.synchronise().map_err(|error| error.to_string())?;
        }
    }
    line(&json!({ "benched": true, "skipped": skipped, "out_of_time": late }));
    Ok(good && late == 0)
}

/// Of a copy within the card's memory, counting what is read and what is written.
fn bandwidth(device: &Device<'static>, half: usize) -> Answer<f64> {
    let memory = device.allocate(2 * half)?;
    memory.fill(1)?;
    let copy = || memory.copy_within(half, half);
    copy()?;
    device.synchronise()?;
    let mut times = Vec::new();
    for _ in 0..5 {
        times.push(f64::from(device.time(|| (0..4).try_for_each(|_| copy()))?) / 4.0);
    }
    Ok(2.0 * half as f64 / median(times))
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

fn dtype(element: Element) -> &'static str {
    match element {
        Element::F32 => "f32",
        Element::Bf16 => "bf16",
        Element::F16 => "f16",
    }
}

/// What a measurement is set beside.
#[derive(Default)]
struct Floors {
    bytes: usize,
    exponentials: usize,
    /// Multiply-adds of matrix products, twice.
    flops: usize,
}

impl Bench {
    /// Whether kernels are only to be noted.
    fn noting(&self) -> bool {
        Instant::now() > self.until
    }

    /// Milliseconds: the median of five batches of launches, each long enough to hide the host.
    fn measure(&self, work: impl Fn(device::Device)) -> f64 {
        let device = device::Device(Schedule::Streamed);
        let time = |count: usize| {
            let timed = self.device.time(|| {
                (0..count).for_each(|_| work(device));
                Ok(())
            });
            f64::from(timed.unwrap_or_else(|error| panic!("{error}"))) / count as f64
        };
        if self.quick {
            return time(1);
        }
        time(1);
        let count = (10.0 / time(1).max(1e-3)).clamp(1.0, 200.0) as usize;
        median((0..5).map(|_| time(count)).collect())
    }

    /// Numbers in (-1, 1).
    fn rows(&self, element: Element, len: usize) -> Buffer<u8> {
        Buffer::repeated(&encode(element, &self.drawn), len * element.size())
    }

    fn floats(&self, len: usize, map: impl Fn(f32) -> f32) -> Buffer<f32> {
        Buffer::repeated(&self.drawn.iter().map(|v| map(*v)).collect::<Vec<_>>(), len)
    }

    /// Measures and prints a piece of work, and gives its time.
    fn report(
        &self,
        what: &str,
        (layer, dtype): (Layer, &str),
        floors: Floors,
        more: Value,
        identity: Option<f64>,
        work: impl Fn(device::Device),
    ) -> f64 {
        if self.noting() {
            work(device::Device(Schedule::Noted));
            return 0.0;
        }
        let ms = self.measure(work);
        let Floors { bytes, exponentials, flops } = floors;
        let (by_bytes, by_exps) =
            (bytes as f64 / self.bandwidth, exponentials as f64 / self.exponentials.max(1.0));
        let mut value = json!({
            "bench": what,
            "layer": layer.name,
            "shape": format!("B{} L{} K{} D{} N{}", layer.batch, layer.tokens, layer.directions, layer.channels, layer.states),
            "dtype": dtype,
            "ms": ms,
            "bytes": bytes,
            "bytes_floor_ms": by_bytes,
            "exp_floor_ms": by_exps,
            "share_of_bytes": by_bytes / ms,
            "share_of_floor": by_bytes.max(by_exps) / ms,
        });
        let mut extra = Map::new();
        if flops > 0 {
            extra.insert("tflops".into(), json!(flops as f64 / ms / 1e9));
        }
        if let Some(identity) = identity {
            extra.insert("of_identity".into(), json!(ms / identity));
        }
        if let (Value::Object(to), Value::Object(from)) = (&mut value, more) {
            to.extend(from.into_iter().chain(extra));
        }
        line(&value);
        ms
    }

    /// With delta as the other rows, and as autocast leaves it.
    fn scan(&self, layer: Layer, element: Element) {
        self.scan_of(layer, Elements::of(element), dtype(element));
        if element == Element::Bf16 {
            self.scan_of(layer, Elements { rows: element, delta: Element::F32 }, "bf16, delta f32");
        }
    }

    fn scan_of(&self, layer: Layer, elements: Elements, dtype: &str) {
        let Layer { batch, side, tokens, directions, channels, states, .. } = layer;
        let sizes = Sizes { batch, tokens, directions, channels, groups: 1, states, steps: tokens };
        let shared = side > 0;
        let form = scan::Form::new(sizes, elements, true, shared);
        let [once, each, coefficients] = form.lengths();
        // VMamba gates outside of the scan, if at all.
        let gated = !shared;
        let processors = self.device.card().multiprocessors as usize;
        let columns = directions * channels;
        let mut identity = None;
        for (order, table) in orders(layer) {
            let rows = |len: usize| self.rows(elements.rows, len);
            let operands = scan::Operands {
                u: rows(once),
                delta: self.rows(elements.delta, each),
                b: rows(coefficients),
                c: rows(coefficients),
                dy: rows(once),
                z: gated.then(|| rows(once)),
                a: self.floats(columns * states, |v| -8.5 + 7.5 * v),
                d: Some(self.floats(columns, |v| v)),
                bias: Some(self.floats(columns, |v| v - 3.0)),
                initial: None,
                dfinal: None,
            };
            let cut = |sizes: &Sizes| [sizes.cut(processors, false), sizes.cut(processors, true)];
            let spans = cut(&sizes).map(|cut| cut.spans);
            let run = scan::Run::new(form, &table, operands, cut);
            let gates = if gated { once } else { 0 };
            let [size, delta] = [elements.rows.size(), each * elements.delta.size()];
            let bytes = [
                (2 * once + gates + 2 * coefficients) * size + delta,
                (3 * once + 2 * gates + 4 * coefficients) * size + 2 * delta,
            ];
            // Of the states; of softplus and, if there is one, of the gate.
            let extra = |softplus: usize, gate: usize| softplus + if gated { gate } else { 0 };
            let exps = [each * (states + extra(2, 1)), each * (2 * states + extra(3, 2))];
            let floors = |i: usize| Floors { bytes: bytes[i], exponentials: exps[i], ..Floors::default() };
            let of = |i: usize| identity.map(|times: [f64; 2]| times[i]);
            let more = |i: usize| json!({ "order": order, "spans": spans[i] });
            let what = (layer, dtype);
            let times = [
                self.report("selective_scan_forward", what, floors(0), more(0), of(0), |d| run.forward(d)),
                self.report("selective_scan_backward", what, floors(1), more(1), of(1), |d| run.backward(d)),
            ];
            identity = identity.or(Some(times));
        }
    }

    fn ssd(&self, layer: Layer, element: Element) {
        let Layer { batch, tokens, directions, channels, states, .. } = layer;
        let (headdim, card) = (64, self.device.card());
        let heads = channels / headdim;
        let sizes = SsdSizes { batch, tokens, directions, heads, headdim, groups: 1, states, steps: tokens };
        let tiling =
            Tiling::new(element, &sizes, card.shared, true).unwrap_or_else(|error| panic!("{error}"));
        let form = ssd::Form::new(sizes, tiling, false);
        let [once, each, coefficients] = form.lengths();
        let mut identity = None;
        for (order, table) in orders(layer) {
            let operands = ssd::Operands {
                x: self.rows(element, once),
                dt: self.rows(element, each),
                b: self.rows(element, coefficients),
                c: self.rows(element, coefficients),
                dy: self.rows(element, once),
                z: Some(self.rows(element, once)),
                a: self.floats(directions * heads, |v| -8.5 + 7.5 * v),
                d: Some(self.floats(directions * heads, |v| v)),
                bias: Some(self.floats(directions * heads, |v| v - 3.0)),
                initial: None,
                dfinal: None,
            };
            let cut = |sizes: &SsdSizes| [Cut::new(sizes, &tiling, card); 2];
            let spans = cut(&sizes)[0].spans;
            let run = ssd::Run::new(form, &table, operands, cut);
            let bytes = [3 * once + each + 2 * coefficients, 5 * once + 2 * each + 4 * coefficients];
            // Multiply-adds of a step and head, as the sources count them, half a chunk being masked.
            let (p, n, q) = (headdim, states, tiling.chunk * 5 / 8);
            let adds = [2 * n * p + q * (n + p), 4 * n * p + 2 * q * p];
            let floors = |i: usize| Floors {
                bytes: bytes[i] * element.size(),
                exponentials: once,
                flops: 2 * adds[i] * batch * tokens * directions * heads,
            };
            let of = |i: usize| identity.map(|times: [f64; 3]| times[i]);
            let more = || {
                json!({
                    "order": order, "spans": spans, "chunk": tiling.chunk, "width": tiling.width,
                })
            };
            let what = (layer, dtype(element));
            // The training forward leaves checkpoints, and y before the gate.
            let times = [
                self.report("ssd_forward", what, floors(0), more(), of(0), |d| run.inference(d)),
                self.report("ssd_forward_to_train", what, floors(0), more(), of(1), |d| run.forward(d)),
                self.report("ssd_backward", what, floors(1), more(), of(2), |d| run.backward(d)),
            ];
            identity = identity.or(Some(times));
        }
    }

    fn conv(&self, layer: Layer, element: Element) {
        let Layer { batch, tokens, directions, channels, .. } = layer;
        // VMamba's convolution is over the grid.
        if layer.side > 0 {
            return;
        }
        let mut identity = None;
        for (order, table) in orders(layer) {
            let shape = conv::Shape {
                element,
                card: self.device.card(),
                batch,
                tokens,
                directions,
                channels,
                taps: 4,
                shared: directions > 1,
                bias: true,
                initial: false,
                silu: true,
                dfinal: false,
                apart: [0, 0],
                kind: Kind::Identity,
                seed: 0,
            };
            let once = batch * tokens;
            let rows = |count: usize| {
                Rows::on(self.rows(element, count * channels), element, count, channels, [0, 0])
            };
            let operands = conv::Operands {
                x: rows(if shape.shared { once } else { once * directions }),
                weight: self.floats(directions * channels * 4, |v| v),
                bias: Some(self.floats(directions * channels, |v| v)),
                initial: None,
                dy: rows(once * directions),
                dfinal: None,
            };
            let x = once * channels * if shape.shared { 1 } else { directions };
            let y = once * channels * directions;
            let run = conv::Run::new(&shape, &table, operands);
            let floors = |values: usize| Floors {
                bytes: values * element.size(),
                exponentials: y,
                ..Floors::default()
            };
            let of = |i: usize| identity.map(|times: [f64; 2]| times[i]);
            let (what, more) = ((layer, dtype(element)), || json!({ "order": order }));
            let names = ["causal_conv1d_forward", "causal_conv1d_backward"];
            let times = [
                self.report(names[0], what, floors(x + y), more(), of(0), |d| run.forward(d)),
                self.report(names[1], what, floors(2 * x + y), more(), of(1), |d| run.backward(d)),
            ];
            identity = identity.or(Some(times));
        }
    }

    /// Of a block's residual stream, half as wide as its scan, and of what a Mamba-2 block norms.
    fn norms(&self, layer: Layer, element: Element) {
        let (count, channels, card) = (layer.batch * layer.tokens, layer.channels / 2, self.device.card());
        let rows =
            |of: Element, width: usize| Rows::on(self.rows(of, count * width), of, count, width, [0, 0]);
        let (bias, seed, apart) = (false, 0, [0, 0]);
        let add = norm::Add {
            element,
            card,
            rows: count,
            channels,
            layer: false,
            stream_f32: true,
            residual: true,
            scale: false,
            bias,
            prenorm: true,
            apart,
            seed,
        };
        let operands = norm::AddOperands {
            x: rows(element, channels),
            residual: Some(rows(Element::F32, channels)),
            scale: None,
            weight: self.floats(channels, |v| v),
            bias: None,
            dy: rows(element, channels),
            dsum: Some(rows(Element::F32, channels)),
        };
        let run = norm::AddRun::new(&add, operands);
        let (of_element, of_stream) = (count * channels * element.size(), count * channels * 4);
        let bytes = |bytes: usize| Floors { bytes, ..Floors::default() };
        let what = (layer, dtype(element));
        let report = |name: &str, floors: Floors, work: &dyn Fn(device::Device)| {
            self.report(name, what, floors, json!({}), None, work)
        };
        report("add_rms_norm_forward", bytes(2 * of_element + 2 * of_stream), &|d| run.forward(d));
        report("add_rms_norm_backward", bytes(2 * of_element + 3 * of_stream), &|d| run.backward(d));
        drop(run);
        let group = layer.channels;
        let gated = norm::Gated {
            element,
            card,
            rows: count,
            groups: 1,
            group,
            repeat: 1,
            bias,
            norm_before_gate: false,
            eps: 1e-5,
            apart,
            seed,
        };
        let operands = norm::GatedOperands {
            x: rows(element, group),
            z: Some(rows(element, group)),
            weight: self.floats(group, |v| v),
            bias: None,
            dy: rows(element, group),
        };
        let run = norm::GatedRun::new(&gated, operands);
        let values = count * group * element.size();
        report("gated_rms_norm_forward", bytes(3 * values), &|d| run.forward(d));
        report("gated_rms_norm_backward", bytes(5 * values), &|d| run.backward(d));
    }
}
