//! Random problems, and an op on the emulator beside the same op on the CPU in f64.

use std::sync::Arc;

use ophidian_core::ops::{Orders, cuda::emulated};
use ophidian_scan::{Blank, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::emulator::Emulated;

/// Numbers from a seed.
pub struct Draw(pub u64);

impl Draw {
    pub fn below(&mut self, n: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as i64).rem_euclid(n.max(1))
    }

    pub fn flip(&mut self) -> bool {
        self.below(2) == 1
    }

    /// K orders over L tokens: permutations, or else anything that is legal; for all samples or for each.
    pub fn orders(&mut self, batch: i64, k: i64, l: i64, wild: bool, per_sample: bool) -> Orders {
        if l == 0 {
            return Orders::identity(0, k);
        }
        let plans: Vec<Plan> = (0..batch).map(|_| self.plan(k, l, wild)).collect();
        if per_sample { Orders::per_sample(&plans).unwrap() } else { Orders::new(&plans[0]) }
    }

    fn plan(&mut self, k: i64, l: i64, wild: bool) -> Plan {
        let orders = (0..k).map(|_| {
            let mut index: Vec<i32> = (0..l as i32).collect();
            for i in (1..index.len()).rev() {
                index.swap(i, self.below(i as i64 + 1) as usize);
            }
            if wild {
                let steps = self.below(l + 4) + 1;
                index = (0..steps).map(|_| self.below(l + 1) as i32 - 1).collect();
            }
            let resets = index.iter().map(|_| self.below(9) == 0).collect();
            let silent: Vec<bool> =
                index.iter().map(|token| *token >= 0 && wild && self.below(7) == 0).collect();
            let blank = if self.flip() { Blank::Skip } else { Blank::Zero };
            let order = Order::new(index, l as usize).unwrap().with_blank(blank).with_resets(resets).unwrap();
            if silent.contains(&true) { order.with_silent(silent).unwrap() } else { order }
        });
        Plan::new(orders.collect()).unwrap()
    }
}

/// Dtypes of what lies along the tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dtypes {
    F32,
    Bf16,
    F16,
    /// bf16, but the second input in f32, as autocast leaves it.
    Mixed,
    /// Likewise beside f16.
    MixedF16,
}

impl Dtypes {
    pub fn strategy() -> impl Strategy<Value = Dtypes> {
        prop_oneof![
            Just(Dtypes::F32),
            Just(Dtypes::Bf16),
            Just(Dtypes::F16),
            Just(Dtypes::Mixed),
            Just(Dtypes::MixedF16),
        ]
    }

    pub fn of(self, input: usize) -> Kind {
        match self {
            Dtypes::F32 => Kind::Float,
            Dtypes::Bf16 => Kind::BFloat16,
            Dtypes::F16 => Kind::Half,
            Dtypes::Mixed | Dtypes::MixedF16 if input == 1 => Kind::Float,
            Dtypes::Mixed => Kind::BFloat16,
            Dtypes::MixedF16 => Kind::Half,
        }
    }
}

/// What storing in a dtype may add to an error, relative to the largest value.
fn storing(kind: Kind) -> f64 {
    match kind {
        Kind::BFloat16 => 1.0 / 128.0,
        Kind::Half => 1.0 / 1024.0,
        _ => 0.0,
    }
}

/// An input of an op: values in f64 that its dtype holds.
pub struct Input {
    pub name: &'static str,
    values: Tensor,
    kind: Kind,
    /// How many directions share it, if it is (B, L, 1, D) and they may.
    directions: Option<i64>,
}

impl Input {
    pub fn new(name: &'static str, values: Tensor, kind: Kind) -> Input {
        Input { name, values: values.to_kind(kind).to_kind(Kind::Double), kind, directions: None }
    }

    /// Expanded over `directions`, each of which gives a gradient of its own.
    pub fn shared(self, directions: i64) -> Input {
        Input { directions: Some(directions), ..self }
    }

    fn expanded(&self, tensor: &Tensor) -> Tensor {
        match self.directions {
            Some(directions) => tensor.expand([-1, -1, directions, -1], false),
            None => tensor.shallow_clone(),
        }
    }

    /// A leaf of its dtype, and what the op is given of it: the leaf, some of a wider tensor from an even or an odd place on,
    /// or the transpose of a copy.
    fn laid_out(&self, emulator: &Emulated, layout: i64) -> (Tensor, Tensor) {
        let leaf = emulator.copy(&self.values.to_kind(self.kind)).set_requires_grad(true);
        let dims = self.values.dim() as i64;
        let width = self.values.size().last().copied().unwrap_or(0);
        let wider = |from: i64| {
            let rest = leaf.detach();
            let all = if from == 0 { [&leaf, &rest, &rest] } else { [&rest, &leaf, &rest] };
            Tensor::cat(&all, -1).narrow(-1, if from == 0 { 0 } else { width }, width)
        };
        let given = match layout {
            1 if dims > 2 => wider(0),
            2 if dims > 2 => leaf.transpose(1, -1).contiguous().transpose(1, -1),
            3 if dims > 2 => wider(width),
            _ => leaf.shallow_clone(),
        };
        (leaf, self.expanded(&given))
    }
}

pub fn randn(shape: &[i64]) -> Tensor {
    Tensor::randn(shape, (Kind::Double, Device::Cpu))
}

/// Inputs whose gradient is a sum over samples and steps.
const SUMMED: [&str; 6] = ["A", "D", "delta_bias", "dt_bias", "weight", "bias"];

/// `least`: the size of what was added up, where it may have cancelled.
fn close(name: &str, got: &Tensor, want: &Tensor, tolerance: f64, least: f64) {
    assert_eq!(got.size(), want.size(), "{name}");
    if want.numel() == 0 {
        return;
    }
    let error = (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]);
    let scale = want.abs().max().double_value(&[]).max(least);
    // Not NaN either.
    assert!(
        error <= tolerance * scale,
        "{name}: off by {error:.2e} of {scale:.2e}, tolerance {tolerance:.1e}"
    );
}

/// Runs `op` on the emulator and in f64 on the CPU, and holds outputs and all gradients against each other. `between`:
/// what rounding inside the kernels may cost, relative to the largest value.
pub fn compare(
    emulator: &Arc<Emulated>,
    inputs: &[Input],
    layouts: &mut Draw,
    between: f64,
    op: impl Fn(&[Tensor]) -> Vec<Tensor>,
) {
    let leaf = |input: &Input| input.expanded(&input.values).copy().set_requires_grad(true);
    let exact: Vec<Tensor> = inputs.iter().map(leaf).collect();
    let want = op(&exact);
    let (leaves, given): (Vec<Tensor>, Vec<Tensor>) =
        inputs.iter().map(|input| input.laid_out(emulator, layouts.below(4))).unzip();
    let got = emulated(emulator.clone(), || op(&given));
    assert_eq!(got.len(), want.len());
    // What the graphs are given is held by the coarsest dtype: rounding it is nothing that an op does.
    let coarse = |kind: &Kind| matches!(kind, Kind::BFloat16 | Kind::Half);
    let coarsest = inputs.iter().map(|input| input.kind).find(coarse).unwrap_or(Kind::Float);
    let cotangents: Vec<Tensor> = got.iter().map(|got| randn(&got.size()).to_kind(coarsest)).collect();
    // Not every output is used, but one is.
    let unused = layouts.below(8) as usize;
    let used = (0..got.len()).map(|i| i != unused || got.len() == 1).collect::<Vec<_>>();
    let strided = layouts.flip();
    let gradients = |outputs: &[Tensor], leaves: &[Tensor]| {
        let mut loss = leaves.iter().fold(Tensor::from(0.0), |sum, leaf| sum + leaf.sum(Kind::Double) * 0.0);
        for ((output, cotangent), used) in outputs.iter().zip(&cotangents).zip(&used) {
            if !used {
                continue;
            }
            let cotangent = cotangent.to_kind(output.kind());
            // The gradient that the op is given is then some of a wider tensor, from an odd place on.
            let (output, cotangent) = if strided && output.dim() > 2 && output.numel() > 0 {
                let beside = |t: &Tensor| Tensor::cat(&[&t.detach().narrow(-1, 0, 1), t], -1);
                (beside(output), beside(&cotangent))
            } else {
                (output.shallow_clone(), cotangent)
            };
            loss += (output * cotangent).sum(Kind::Double);
        }
        Tensor::run_backward(&[loss], leaves, false, false)
    };
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        close(&format!("output {i}"), got, want, 2e-5 + storing(got.kind()) + between, 1.0);
    }
    // Between a kernel and a leaf stand rows of the kernels' dtype, at the coarsest that of the leaf.
    let found = gradients(&got, &leaves);
    for ((input, got), mut want) in inputs.iter().zip(&found).zip(gradients(&want, &exact)) {
        let tolerance = 1e-4 + storing(input.kind) + between;
        let rows: i64 = inputs[0].values.size()[..2].iter().product();
        let mut least = if SUMMED.contains(&input.name) { (0.1 * rows as f64).max(3.0) } else { 1.0 };
        // Each direction's share is rounded before they are added up, where they may cancel.
        if input.directions.is_some() {
            let sum = |t: &Tensor| t.sum_dim_intlist(2, true, Kind::Double);
            let sizes = sum(&want.abs());
            least = if sizes.numel() == 0 { least } else { sizes.max().double_value(&[]).max(least) };
            want = sum(&want);
        }
        close(&format!("gradient of {}", input.name), got, &want, tolerance, least);
    }
}
