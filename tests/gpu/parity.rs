//! The problems of the emulator's tests on a card: the same strategies draw them, the same equations judge them. Each runs
//! four times, with and without waiting for every launch, and as a CUDA graph, and must give the same bits. Then the
//! authors' vectors.

use std::{collections::BTreeSet, fmt::Debug, time::Instant};

use ophidian_kernels::cuda::{Device as Card, Element, checked, scan::Elements};
use proptest::{
    strategy::{Strategy, ValueTree},
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Map, json};

use crate::{
    Asked, caught,
    common::{Compared, Kind, scan, ssd},
    compile,
    cuda::{Schedule, captured, noted},
    device::{
        self, Device, conv, conv_step,
        golden::{OPS, cases, folder},
        in_every_schedule, norm,
    },
    line,
};

/// A problem on a device; None if it was only run, and what came of it is not looked at.
type Work = Box<dyn Fn(Option<Device>) -> Option<Vec<Compared>>>;

/// A problem that was drawn.
struct Case {
    test: String,
    shape: String,
    work: Work,
}

/// What the kernels give for a problem beside what they should; on `only`, if that is given, for nothing but their launches.
fn judged<P>(
    p: &P,
    only: Option<Device>,
    kernels: impl Fn(&P, Device) -> Vec<Vec<f32>>,
    compared: impl Fn(&P, &[Vec<f32>]) -> Vec<Compared>,
) -> Option<Vec<Compared>> {
    if let Some(device) = only {
        kernels(p, device);
        return None;
    }
    Some(compared(p, &in_every_schedule(|device| kernels(p, device))))
}

fn conv_case(shape: &conv::Shape, only: Option<Device>) -> Option<Vec<Compared>> {
    let p = conv::Problem::new(shape);
    judged(&p, only, conv::Problem::kernels, |p, found| p.compared(found))
}

fn scan_case(case: &device::scan::Case, only: Option<Device>) -> Option<Vec<Compared>> {
    let kernels = |p: &scan::Problem, device| device::scan::kernels(p, case.elements, case.spans, device);
    judged(&case.problem(), only, kernels, |p, found| case.compared(p, found))
}

fn ssd_case(case: &device::ssd::Case, only: Option<Device>) -> Option<Vec<Compared>> {
    let kernels = |p: &ssd::Problem, device| device::ssd::kernels(p, &case.how, device);
    judged(&case.problem(), only, kernels, |p, found| case.compared(p, found))
}

struct Drawn {
    runner: TestRunner,
    cases: Vec<Case>,
}

impl Drawn {
    fn draw<S: Strategy>(&mut self, shapes: &S) -> S::Value {
        shapes.new_tree(&mut self.runner).unwrap_or_else(|why| panic!("no shape: {why}")).current()
    }

    fn add<T: Debug + 'static>(
        &mut self,
        test: &str,
        shape: T,
        work: impl Fn(&T, Option<Device>) -> Option<Vec<Compared>> + 'static,
    ) {
        let shown = format!("{shape:?}");
        self.cases.push(Case {
            test: test.into(),
            shape: shown,
            work: Box::new(move |only| work(&shape, only)),
        });
    }

    fn several<S: Strategy>(
        &mut self,
        test: &str,
        count: u32,
        shapes: S,
        work: impl Fn(&S::Value, Option<Device>) -> Option<Vec<Compared>> + Copy + 'static,
    ) where
        S::Value: 'static,
    {
        for _ in 0..count {
            let shape = self.draw(&shapes);
            self.add(test, shape, work);
        }
    }

    /// Longer than the emulator can: many blocks and spans, states beyond the caches of a block.
    fn large(&mut self, card: ophidian_kernels::cuda::Card) {
        let kinds = [Kind::Identity, Kind::Permutation, Kind::Silent, Kind::Wild, Kind::PerSample];
        for (i, kind) in kinds.into_iter().enumerate() {
            for element in Element::ALL {
                let drawn = self.draw(&conv::shapes());
                let (directions, flags, seed) = (1 + i % 3, [0xff, 0xfe][i % 2], drawn.seed);
                let sizes = conv::Shape {
                    element,
                    card,
                    kind,
                    directions,
                    batch: 2,
                    tokens: 1500,
                    channels: 384,
                    ..drawn
                };
                self.add("causal_conv1d_large", sizes, conv_case);
                let shape = scan::Shape {
                    batch: 2,
                    tokens: 1100 + 37 * i,
                    directions,
                    groups: 1 + i % 2,
                    per_group: 100 + 3 * i,
                    states: 16,
                    flags,
                    kind,
                    seed,
                };
                for elements in Elements::ALL.into_iter().filter(|elements| elements.rows == element) {
                    let case = device::scan::Case { shape: shape.clone(), elements, spans: [1 + 12 * i, 20] };
                    self.add("selective_scan_large", case, scan_case);
                }
                // As in Mamba-2, and in pieces of a head.
                let shape = ssd::Shape {
                    batch: 1,
                    // The equations are slow.
                    tokens: 160 + 37 * i,
                    directions: directions.min(2),
                    groups: 1 + i % 2,
                    per_group: 2,
                    headdim: [64, 96][i % 2],
                    states: [128, 64][i % 2],
                    flags,
                    kind,
                    seed,
                };
                let how = device::ssd::How {
                    element,
                    chunk: if element == Element::Bf16 { 64 } else { 32 },
                    width: 64,
                    spans: [1 + 2 * i, 3],
                    parts: 2,
                    d_per_head: i % 2 == 0,
                };
                self.add("ssd_large", device::ssd::Case { shape, how }, ssd_case);
            }
        }
    }
}

/// Runs all; whether all pass.
///
/// # Errors
/// The driver does not answer any more.
pub fn run(card: &Card<'static>, asked: &Asked) -> Result<bool, String> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&asked.seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut drawn = Drawn { runner: TestRunner::new_with_rng(Config::default(), rng), cases: Vec::new() };
    let count = asked.cases;
    drawn.several("causal_conv1d", count, conv::shapes(), conv_case);
    drawn.several("causal_conv1d_step", count, conv_step::shapes(), |shape, only| {
        let p = conv_step::Problem::new(shape);
        judged(&p, only, conv_step::Problem::kernels, |p, found| p.compared(found))
    });
    drawn.several("gated_norm", count, norm::gated(), |shape, only| {
        judged(
            &shape.inputs(),
            only,
            |inputs, device| shape.kernels(inputs, device),
            |i, f| shape.compared(i, f),
        )
    });
    drawn.several("add_norm", count, norm::add(), |shape, only| {
        judged(
            &shape.inputs(),
            only,
            |inputs, device| shape.kernels(inputs, device),
            |i, f| shape.compared(i, f),
        )
    });
    drawn.several("selective_scan", count, device::scan::cases(), scan_case);
    drawn.several("selective_scan_step", count, device::scan::step_cases(), |case, only| {
        let kernels = |p: &scan::Problem, device| device::scan::step_by_step(p, case.elements, true, device);
        judged(&case.problem(), only, kernels, |p, found| case.steps_compared(p, found))
    });
    drawn.several("ssd", count, device::ssd::cases(), ssd_case);
    drawn.several("ssd_step", count, device::ssd::step_cases(), |case, only| {
        let kernels = |p: &ssd::Problem, device| device::ssd::step_by_step(p, &case.how, device);
        judged(&case.problem(), only, kernels, |p, found| case.steps_compared(p, found))
    });
    for op in &OPS {
        let folder = folder(op.name);
        let Some(cases) = cases(&folder) else {
            line(
                &json!({ "skipped": format!("golden {}", op.name), "why": format!("no goldens at {}", folder.display()) }),
            );
            continue;
        };
        // All of them, or a few for a sanitizer.
        for case in cases.into_iter().take(if count >= 10 { usize::MAX } else { 2 }) {
            let name = case.name.clone();
            let work = move |_: &String, only: Option<Device>| {
                let compared = case.compared(op, only.unwrap_or(Device(Schedule::Waited)));
                if only.is_some() { None } else { Some(compared.unwrap_or_default()) }
            };
            drawn.add(&format!("golden {}", op.name), name, work);
        }
    }
    if count >= 10 {
        drawn.large(card.card());
    }
    // What is noted of a problem does not depend on its values: failures are told when it runs.
    for case in &drawn.cases {
        let _ = caught(|| (case.work)(Some(Device(Schedule::Noted))));
    }
    let compiled = compile(&noted());
    let good = judge(card, &drawn.cases, asked.until);
    Ok(compiled && good & every_kernel_was_captured(count))
}

/// Whether every kernel ran in a CUDA graph; of a few cases each, only which ones did is told.
fn every_kernel_was_captured(count: u32) -> bool {
    let captured = captured();
    let all: BTreeSet<&str> = checked().iter().flat_map(|variant| variant.source.kernels).copied().collect();
    let missing: Vec<_> = all.iter().filter(|kernel| !captured.contains(**kernel)).collect();
    let pass = count < 10 || missing.is_empty();
    line(&json!({ "test": "graphs", "pass": pass, "captured": captured, "missing": missing }));
    pass
}

fn judge(card: &Card<'static>, cases: &[Case], until: Instant) -> bool {
    let (mut passed, mut failed, mut left) = (0, 0, 0);
    // Set when the context is gone: a kernel touched memory that is not its own.
    let mut lost = false;
    for Case { test, shape, work } in cases {
        if lost || Instant::now() > until {
            left += 1;
            continue;
        }
        let pass = match caught(|| work(None)) {
            Ok(compared) => {
                let compared = compared.unwrap_or_default();
                let pass = compared.iter().all(Compared::passes);
                // Infinity, which JSON has not, is null.
                let errors = |of: fn(&Compared) -> f64| -> Map<_, _> {
                    compared.iter().map(|c| (c.name.clone(), json!(of(c)))).collect()
                };
                let (largest, allowed) = (errors(|c| c.error), errors(|c| c.tolerance));
                line(&json!({
                    "test": test, "pass": pass, "errors": largest, "allowed": allowed, "shape": shape,
                }));
                pass
            }
            Err(error) => {
                lost = card.synchronise().is_err();
                line(&json!({ "test": test, "pass": false, "error": error, "shape": shape }));
                false
            }
        };
        if pass { passed += 1 } else { failed += 1 }
    }
    line(&json!({
        "parity": {
            "passed": passed, "failed": failed, "not_run": left, "context_lost": lost,
        },
    }));
    failed == 0 && left == 0
}
