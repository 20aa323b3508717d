//! Timing the ops as a user calls them: on tensors, through libtorch's autograd, outputs allocated anew each time.

mod inference;
mod mixers;
mod orders;

use std::{str::FromStr, time::Instant};

use cpu_time::ProcessTime;
use ophidian_kernels::{Isa, probe};
use ophidian_scan::{Geometry, Pattern, Plan};
use serde::Serialize;
use tch::{Device, Kind, Tensor};

use crate::{
    Error, Result,
    ops::{ConvInput, Merge, Orders, ScanInput, SsdInput, TorchPool, causal_conv1d, selective_scan, ssd},
    torch::keep_freed_memory,
};

pub use inference::{InferenceCase, InferenceRow, infer};
pub use mixers::{MixerCase, MixerRow, compare_mixers};
pub use orders::{OrderRow, compare, compare_trees, random_geometries};

/// An op that can be timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// [`selective_scan`] with D, delta bias and softplus, directions summed.
    SelectiveScan,
    /// [`ssd`] with D, dt bias and softplus, directions summed.
    Ssd,
    /// [`causal_conv1d`] with bias and SiLU.
    CausalConv1d,
}

impl Op {
    /// In the names of measurements.
    fn label(self) -> &'static str {
        match self {
            Op::SelectiveScan => "scan",
            Op::Ssd => "ssd",
            Op::CausalConv1d => "conv",
        }
    }
}

impl FromStr for Op {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "selective-scan" => Ok(Op::SelectiveScan),
            "ssd" => Ok(Op::Ssd),
            "causal-conv1d" => Ok(Op::CausalConv1d),
            _ => Err(Error::Config(format!(
                "no op `{text}` to time; there are selective-scan, ssd, causal-conv1d"
            ))),
        }
    }
}

/// Sizes of a case, written `B1,D1536,L512,N16`, `B8,D192,L56x56,N16,W4` or, of an SSD, `B1,D1536,P64,L512,N128`; what is
/// left out is 1 (N 16, W 4, P 64).
#[derive(Debug, Clone, PartialEq)]
pub struct Shape {
    /// B.
    pub batch: i64,
    /// D.
    pub channels: i64,
    /// P: channels of a head, of an SSD.
    pub headdim: i64,
    /// Where the L tokens lie.
    pub geometry: Geometry,
    /// N.
    pub states: i64,
    /// W.
    pub taps: i64,
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let geometry = Geometry::Sequence { len: 1 };
        let mut shape = Shape { batch: 1, channels: 1, headdim: 64, geometry, states: 16, taps: 4 };
        for part in text.split([',', ' ']).filter(|part| !part.is_empty()) {
            let wrong = || {
                Error::Config(format!(
                    "`{part}` in shape `{text}`: expected a letter and a size of at least 1, as in B1,D1536,L512,N16 \
                     (B batch, D channels, P channels of a head, L length or HxW, N states, W taps)"
                ))
            };
            let (Some(letter), Some(value)) = (part.get(..1), part.get(1..)) else { return Err(wrong()) };
            if letter == "L" {
                shape.geometry = value.parse()?;
                continue;
            }
            // Bounded so that a typo is an error and not an allocation.
            let size = value.parse().ok().filter(|size| (1..=1 << 20).contains(size)).ok_or_else(wrong)?;
            match letter {
                "B" => shape.batch = size,
                "D" => shape.channels = size,
                "P" => shape.headdim = size,
                "N" => shape.states = size,
                "W" => shape.taps = size,
                _ => return Err(wrong()),
            }
        }
        shape.checked()
    }
}

impl Shape {
    /// The shape itself if it can be timed.
    ///
    /// # Errors
    /// A size below 1, or sizes that are too large together.
    pub fn checked(self) -> Result<Shape> {
        let Shape { batch, channels, headdim, ref geometry, states, taps } = self;
        let tokens = geometry.tokens()? as i64;
        let sizes = [batch, channels, states, taps, headdim];
        let all = sizes[..2].iter().fold(tokens, |all, size| all.saturating_mul(*size));
        if sizes.iter().any(|size| *size < 1) || all.saturating_mul(states.max(taps)) > 1 << 34 {
            return Err(Error::Config(format!(
                "B{batch} D{channels} L{geometry} N{states} W{taps} cannot be timed: sizes are at least 1, and B L D N at \
                 most 2^34"
            )));
        }
        Ok(self)
    }
}

/// What to time.
#[derive(Debug, Clone)]
pub struct Case {
    /// The op.
    pub op: Op,
    /// Its sizes.
    pub shape: Shape,
    /// The visiting orders.
    pub pattern: Pattern,
    /// `Float` or `BFloat16`.
    pub kind: Kind,
    /// Where it runs.
    pub device: Device,
}

/// How often to run a case.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Runs before the clock starts.
    pub warmup: usize,
    /// Runs that count.
    pub runs: usize,
}

/// What was measured, as one JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// `scan_fwd/ophidian`, `scan_fwdbwd/ophidian`, `ssd_fwd/…`, `conv_fwd/…` and so on.
    pub name: String,
    /// `B1 D1536 L512 N16 K1`.
    pub shape: String,
    /// The visiting orders.
    pub pattern: String,
    /// `f32` or `bf16`.
    pub dtype: &'static str,
    /// `avx512`, `avx2` or `portable`, or `cuda`.
    pub simd: &'static str,
    /// Threads of libtorch's pool.
    pub threads: i32,
    /// Median wall-clock seconds of a run.
    pub median_s: f64,
    /// Fastest run.
    pub min_s: f64,
    /// Median process CPU seconds of a run.
    pub cpu_s: f64,
    /// Runs measured.
    pub runs: usize,
    /// State updates (B K L D N), or multiply-adds (B K L D W), per second of the median run.
    pub updates_per_s: f64,
    /// The higher of the two floors, in seconds; on a GPU that of the bytes.
    pub floor_s: f64,
    /// `bytes` (inputs and outputs once over the copy bandwidth) or `flops` (operations over the rate of fused
    /// multiply-adds); both rates measured just before, on the same threads.
    pub floor: &'static str,
    /// floor_s / median_s.
    pub floor_share: f64,
    /// Peak memory of one run beyond its inputs, bytes (Linux).
    pub extra_bytes: Option<u64>,
    /// The same in units of one activation (B L D f32 values).
    pub extra_activations: Option<f64>,
}

/// Times forward, and forward with backward, of a case.
///
/// # Errors
/// A pattern that does not fit the geometry, sizes that do not fit each other, or a dtype other than f32 and bf16.
pub fn measure(case: &Case, effort: Effort) -> Result<[Row; 2]> {
    let prepared = Prepared::new(case)?;
    let machine = Machine::of(case.device)?;
    let forward = || tch::no_grad(|| prepared.forward()).map(|_| wait(case.device));
    let both = || prepared.forward_backward().map(|()| wait(case.device));
    // Before anything is timed: freed memory that a run could take again would make it look frugal.
    let extra = match case.device {
        Device::Cpu => [extra_memory(forward)?, extra_memory(both)?],
        _ => [None, None],
    };
    Ok([
        prepared.row("fwd", &machine, effort, extra[0], forward)?,
        prepared.row("fwdbwd", &machine, effort, extra[1], both)?,
    ])
}

struct Machine {
    flops: f64,
    bandwidth: f64,
}

impl Machine {
    /// Measured on `device`; of a GPU only the bandwidth of a copy.
    fn of(device: Device) -> Result<Machine> {
        if device == Device::Cpu {
            let flops = probe::flops(Isa::detect(), &TorchPool);
            return Ok(Machine { flops, bandwidth: probe::bandwidth(&TorchPool) });
        }
        let from = Tensor::f_zeros([1 << 28], (Kind::Float, device))?;
        let mut to = from.f_empty_like()?;
        let mut copy = || -> Result<f64> {
            wait(device);
            let start = Instant::now();
            for _ in 0..10 {
                to.f_copy_(&from)?;
            }
            wait(device);
            Ok(start.elapsed().as_secs_f64() / 10.0)
        };
        copy()?;
        Ok(Machine { flops: f64::INFINITY, bandwidth: (2 << 30) as f64 / copy()? })
    }
}

/// Until all that was asked of a device is done.
fn wait(device: Device) {
    if let Device::Cuda(index) = device {
        tch::Cuda::synchronize(index as i64);
    }
}

/// A case with its tensors.
pub struct Prepared<'a> {
    case: &'a Case,
    orders: Orders,
    length: i64,
    /// u, delta, A, B, C, D, delta_bias; x, dt, A, B, C, D, dt_bias; or x, weight, bias.
    inputs: Vec<Tensor>,
    cotangent: Tensor,
}

impl<'a> Prepared<'a> {
    /// Makes the orders and random tensors of `case`.
    ///
    /// # Errors
    /// As [`measure`].
    pub fn new(case: &'a Case) -> Result<Self> {
        Self::along(case, &case.pattern.plan(&case.shape.geometry)?)
    }

    /// [`Prepared::new`] along the orders of `plan`.
    fn along(case: &'a Case, plan: &Plan) -> Result<Self> {
        if !matches!(case.kind, Kind::Float | Kind::BFloat16) {
            return Err(Error::Config(format!("dtype {:?} is not timed; f32 and bf16 are", case.kind)));
        }
        let (l, k) = (plan.tokens() as i64, plan.orders().len() as i64);
        let Shape { batch: b, channels: d, headdim: p, states: n, taps: w, .. } = case.shape;
        if case.op == Op::Ssd && d % p != 0 {
            return Err(Error::Config(format!("D{d} channels do not divide into heads of P{p}")));
        }
        let h = d / p;
        let float = (Kind::Float, Device::Cpu);
        let leaf = |tensor: Tensor, kind| {
            tensor.to_device(case.device).to_kind(kind).detach().set_requires_grad(true)
        };
        let normal = |shape: &[i64]| leaf(Tensor::randn(shape, float), case.kind);
        let exact = |tensor| leaf(tensor, Kind::Float);
        tch::manual_seed(0);
        let inputs = match case.op {
            Op::SelectiveScan => vec![
                normal(&[b, l, d]),
                leaf(Tensor::randn([b, l, k, d], float) * 0.5, case.kind),
                exact(-Tensor::arange_start(1, n + 1, float).expand([k, d, n], false)),
                normal(&[b, l, k, n]),
                normal(&[b, l, k, n]),
                exact(Tensor::ones([k, d], float)),
                exact(Tensor::full([k, d], -4.0, float)),
            ],
            Op::Ssd => vec![
                normal(&[b, l, h, p]),
                leaf(Tensor::randn([b, l, k, h], float) * 0.5, case.kind),
                exact(-Tensor::rand([k, h], float).exp()),
                normal(&[b, l, k, n]),
                normal(&[b, l, k, n]),
                exact(Tensor::ones([k, h], float)),
                exact(Tensor::full([k, h], -4.0, float)),
            ],
            Op::CausalConv1d => vec![
                normal(&[b, l, d]),
                exact(Tensor::randn([k, d, w], float) * 0.5),
                exact(Tensor::randn([k, d], float)),
            ],
        };
        let out: &[i64] = match case.op {
            Op::SelectiveScan => &[b, l, d],
            Op::Ssd => &[b, l, h, p],
            Op::CausalConv1d => &[b, l, k, d],
        };
        let cotangent = Tensor::ones(out, (case.kind, case.device));
        Ok(Prepared { case, orders: Orders::new(plan), length: l, inputs, cotangent })
    }

    /// The same tensors along other orders, as many and over as many tokens.
    fn with_orders(&self, plan: &Plan) -> Self {
        let inputs = self.inputs.iter().map(Tensor::shallow_clone).collect();
        let cotangent = self.cotangent.shallow_clone();
        Prepared { case: self.case, orders: Orders::new(plan), length: self.length, inputs, cotangent }
    }

    /// Runs the op.
    ///
    /// # Errors
    /// The op's.
    pub fn forward(&self) -> Result<Tensor> {
        match (&self.inputs[..], self.case.op) {
            ([x, dt, a, b, c, d, bias], Op::Ssd) => {
                let input = SsdInput {
                    x,
                    dt,
                    a,
                    b,
                    c,
                    d: Some(d),
                    z: None,
                    dt_bias: Some(bias),
                    dt_softplus: true,
                    dt_limits: (0.0, f64::INFINITY),
                    initial_state: None,
                    orders: &self.orders,
                    merge: Merge::Sum,
                };
                Ok(ssd(&input)?.y)
            }
            ([u, delta, a, b, c, d, bias], _) => {
                let input = ScanInput {
                    u,
                    delta,
                    a,
                    b,
                    c,
                    d: Some(d),
                    z: None,
                    delta_bias: Some(bias),
                    delta_softplus: true,
                    initial_state: None,
                    orders: &self.orders,
                    merge: Merge::Sum,
                };
                Ok(selective_scan(&input)?.y)
            }
            ([x, weight, bias], _) => {
                let (orders, bias) = (&self.orders, Some(bias));
                let input = ConvInput { x, weight, bias, silu: true, initial_state: None, orders };
                Ok(causal_conv1d(&input)?.y)
            }
            _ => Err(Error::invalid("internal error: a case has three or seven inputs")),
        }
    }

    /// Runs the op and its backward; the gradients are dropped.
    ///
    /// # Errors
    /// The op's.
    pub fn forward_backward(&self) -> Result<()> {
        let y = self.forward()?;
        Tensor::f_run_backward(&[(y * &self.cotangent).f_sum(Kind::Float)?], &self.inputs, false, false)?;
        Ok(())
    }

    fn row(
        &self,
        pass: &str,
        machine: &Machine,
        effort: Effort,
        extra_bytes: Option<u64>,
        run: impl Fn() -> Result<()>,
    ) -> Result<Row> {
        for _ in 0..effort.warmup {
            run()?;
        }
        let (mut wall, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..effort.runs.max(1) {
            let (start, used) = (Instant::now(), ProcessTime::now());
            run()?;
            wall.push(start.elapsed().as_secs_f64());
            cpu.push(used.elapsed().as_secs_f64());
        }
        wall.sort_by(f64::total_cmp);
        cpu.sort_by(f64::total_cmp);
        let median = wall[wall.len() / 2];
        let backward = pass == "fwdbwd";
        let Shape { batch: b, channels: d, headdim: p, states: n, taps: w, .. } = self.case.shape;
        let (k, op) = (self.orders.directions(), self.case.op);
        let updates = (b * k * self.length * d * if op == Op::CausalConv1d { w } else { n }) as f64;
        let per_update = match (op, backward) {
            // Forward 16 for the decay and 5 for state and output; backward those again and 10 products.
            (Op::SelectiveScan, false) => 21.0,
            (Op::SelectiveScan, true) => 57.0,
            // Multiply-adds of the matrix products: two of P N a step for the state and four for its gradients. What
            // the steps of a chunk do to each other depends on how long a chunk is, and is no floor.
            (Op::Ssd, false) => 4.0,
            (Op::Ssd, true) => 12.0,
            (Op::CausalConv1d, false) => 2.0,
            (Op::CausalConv1d, true) => 8.0,
        };
        // Inputs once and outputs once; the backward reads the inputs and the cotangent and writes the gradients.
        let size = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as f64;
        let inputs: f64 = self.inputs.iter().map(size).sum();
        let out = size(&self.cotangent);
        let bytes = if backward { 3.0 * inputs + 2.0 * out } else { inputs + out };
        let floors = [("flops", updates * per_update / machine.flops), ("bytes", bytes / machine.bandwidth)];
        let (floor, floor_s) = floors.into_iter().fold(("", 0.0), |a, b| if b.1 > a.1 { b } else { a });
        let sizes = match op {
            Op::SelectiveScan => format!("N{n}"),
            Op::Ssd => format!("P{p} N{n}"),
            Op::CausalConv1d => format!("W{w}"),
        };
        let activation = (b * self.length * d * 4) as f64;
        Ok(Row {
            name: format!("{}_{pass}/ophidian", op.label()),
            shape: format!("B{b} D{d} L{} {sizes} K{k}", self.length),
            pattern: self.case.pattern.to_string(),
            dtype: if self.case.kind == Kind::Float { "f32" } else { "bf16" },
            simd: if self.case.device == Device::Cpu { Isa::detect().name() } else { "cuda" },
            threads: tch::get_num_threads(),
            median_s: median,
            min_s: wall[0],
            cpu_s: cpu[cpu.len() / 2],
            runs: wall.len(),
            updates_per_s: updates / median,
            floor_s,
            floor,
            floor_share: floor_s / median,
            extra_bytes,
            extra_activations: extra_bytes.map(|bytes| bytes as f64 / activation),
        })
    }
}

/// Peak resident memory of `run` beyond what was resident before it, the least of three runs; none where the system does
/// not say.
fn extra_memory(run: impl Fn() -> Result<()>) -> Result<Option<u64>> {
    let status = |key: &str| -> Option<u64> {
        let text = std::fs::read_to_string("/proc/self/status").ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(key))?;
        Some(line.split_whitespace().nth(1)?.parse::<u64>().ok()? * 1024)
    };
    let mut least: Option<u64> = None;
    for _ in 0..3 {
        // What is free already must not pass for what the run needs, nor holes that do not fit for what it takes.
        keep_freed_memory(false);
        // 5 resets the peak to what is resident now.
        let reset = std::fs::write("/proc/self/clear_refs", "5").is_ok();
        let before = status("VmRSS");
        run()?;
        let peak = status("VmHWM");
        keep_freed_memory(true);
        let extra = before.zip(peak).filter(|_| reset).map(|(before, peak)| peak.saturating_sub(before));
        least = least.map_or(extra, |least| extra.map(|extra| extra.min(least)));
    }
    Ok(least)
}
