//! The CUDA norms, run on the emulator, against the equations in f64.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use common::Compared;
use device::{
    in_every_schedule,
    norm::{add, gated},
};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn the_gated_norm_is_the_equations(shape in gated()) {
        let inputs = shape.inputs();
        let found = in_every_schedule(|device| shape.kernels(&inputs, device));
        shape.compared(&inputs, &found).iter().for_each(Compared::check);
    }

    #[test]
    fn the_addition_and_norm_are_the_equations(shape in add()) {
        let inputs = shape.inputs();
        let found = in_every_schedule(|device| shape.kernels(&inputs, device));
        shape.compared(&inputs, &found).iter().for_each(Compared::check);
    }
}
