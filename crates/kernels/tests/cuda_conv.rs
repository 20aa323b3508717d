//! The CUDA convolution, run on the emulator, against the equations in f64.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use common::Compared;
use device::{conv, conv_step, in_every_schedule};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn kernels_are_the_equations(shape in conv::shapes()) {
        let p = conv::Problem::new(&shape);
        let found = in_every_schedule(|device| p.kernels(device));
        p.compared(&found).iter().for_each(Compared::check);
    }

    #[test]
    fn the_step_is_the_equations(shape in conv_step::shapes()) {
        let p = conv_step::Problem::new(&shape);
        let found = in_every_schedule(|device| p.kernels(device));
        p.compared(&found).iter().for_each(Compared::check);
    }
}
