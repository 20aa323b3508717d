//! The CUDA kernels of the selective scan, executed by the emulator, against the f64 kernels: random shapes, orders and
//! options, every element type, cut into spans or not, with the threads of a block in several orders.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use common::{Compared, Kind, scan::Shape};
use device::{
    in_every_schedule,
    scan::{Case, cases, kernels, step_by_step, step_cases},
};
use ophidian_kernels::cuda::{Element, scan::Elements};
use proptest::prelude::*;

fn check(case: &Case) {
    let p = case.problem();
    let found = in_every_schedule(|device| kernels(&p, case.elements, case.spans, device));
    case.compared(&p, &found).iter().for_each(Compared::check);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn emulated_is_wide(case in cases()) {
        check(&case);
    }
}

/// Many states, and several blocks of channels that add into one part.
#[test]
fn many_states() {
    for (states, per_group, element) in [(150, 9, Element::F16), (256, 5, Element::F32)] {
        let elements = Elements::of(element);
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
            check(&Case { shape, elements, spans: [2, 3] });
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// A token after the other, in place on the state, is the scan of one direction.
    #[test]
    fn steps_are_the_scan(case in step_cases(), aligned: bool) {
        let p = case.problem();
        let found = in_every_schedule(|device| step_by_step(&p, case.elements, aligned, device));
        case.steps_compared(&p, &found).iter().for_each(Compared::check);
    }
}
