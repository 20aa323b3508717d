//! The gated RMS norm and the residual addition with its norm.

use ophidian_core::layers::{GatedRmsNorm, Norm, NormKind, gated_rms_norm};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn};

use crate::{
    case::{Draw, Dtypes, Input, compare, randn},
    emulator::Emulated,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_gated_norm_is_that_of_the_cpu(
        (b, l, k, groups, group) in (1i64..3, 0i64..6, 1i64..4, 1i64..4, 1i64..40),
        dtypes in Dtypes::strategy(),
        // z, one z for the directions, bias, the norm before the gate.
        flags in any::<[bool; 4]>(),
        seed: u64,
    ) {
        let [has_z, shared, has_bias, norm_before_gate] = flags;
        let mut draw = Draw(seed);
        tch::manual_seed(seed as i64);
        let emulator = Emulated::new(2, draw.below(9) as u64);
        let channels = groups * group;
        let mut inputs = vec![
            Input::new("x", randn(&[b, l, k, channels]), dtypes.of(0)),
            Input::new("weight", randn(&[channels]), Kind::Float),
        ];
        if has_z {
            let z = if shared { 1 } else { k };
            inputs.push(Input::new("z", randn(&[b, l, z, channels]), dtypes.of(1)));
        }
        if has_bias {
            inputs.push(Input::new("bias", randn(&[channels]), Kind::Float));
        }
        // What comes out is stored in the dtype of the rows first.
        let stored = if dtypes == Dtypes::F32 { 0.0 } else { dtypes_loss(dtypes) };
        compare(&emulator, &inputs, &mut draw, stored, |list| {
            let mut rest = list[2..].iter();
            let [z, bias] = [has_z, has_bias].map(|has| if has { rest.next() } else { None });
            let (x, weight) = (&list[0], &list[1]);
            let eps = 1e-2;
            vec![gated_rms_norm(&GatedRmsNorm { x, z, weight, bias, group, eps, norm_before_gate }).unwrap()]
        });
        assert!(l == 0 || emulator.ran("gated_rms_norm_forward") && emulator.ran("gated_rms_norm_backward"));
    }

    #[test]
    fn the_norm_of_a_stream_is_that_of_the_cpu(
        (b, l, channels) in (1i64..3, 0i64..6, 1i64..70),
        dtypes in Dtypes::strategy(),
        layer: bool,
        seed: u64,
    ) {
        let mut draw = Draw(seed);
        tch::manual_seed(seed as i64);
        let emulator = Emulated::new(2, draw.below(9) as u64);
        let inputs = [
            Input::new("x", randn(&[b, l, channels]), dtypes.of(0)),
            Input::new("residual", randn(&[b, l, channels]), Kind::Float),
        ];
        let store = nn::VarStore::new(Device::Cpu);
        let kind = if layer { NormKind::Layer } else { NormKind::Rms };
        let norm = Norm::new(&store.root(), kind, channels, 1e-2);
        for mut parameter in store.variables().into_values() {
            tch::no_grad(|| parameter.copy_(&(randn(&parameter.size()) + 0.5)));
        }
        compare(&emulator, &inputs, &mut draw, dtypes_loss(dtypes), |list| {
            let [y, sum] = norm.add(&list[0], &list[1]).unwrap();
            vec![y, sum]
        });
        assert!(l == 0 || emulator.ran("add_norm_forward") && emulator.ran("add_norm_backward"));
    }
}

fn dtypes_loss(dtypes: Dtypes) -> f64 {
    match dtypes.of(0) {
        Kind::BFloat16 => 1.0 / 128.0,
        Kind::Half => 1.0 / 1024.0,
        _ => 0.0,
    }
}

/// Gradients of the norm's own parameters, which the test above leaves out.
#[test]
fn parameters_of_the_norm_of_a_stream() {
    for kind in [NormKind::Rms, NormKind::Layer] {
        tch::manual_seed(1);
        let (x, residual) = (randn(&[2, 5, 24]), randn(&[2, 5, 24]));
        let cotangent = randn(&[2, 5, 24]).to_kind(Kind::Float);
        let emulator = Emulated::new(2, 0);
        let gradients = |emulate: bool| -> Vec<Tensor> {
            let store = nn::VarStore::new(Device::Cpu);
            let norm = Norm::new(&store.root(), kind, 24, 1e-2);
            let given = [&x, &residual].map(|t| t.to_kind(Kind::Float));
            let add = || norm.add(&given[0], &given[1]).unwrap();
            let [y, sum] =
                if emulate { ophidian_core::ops::cuda::emulated(emulator.clone(), add) } else { add() };
            ((y * &cotangent).sum(Kind::Double) + sum.sum(Kind::Double)).backward();
            let mut named: Vec<_> = store.variables().into_iter().collect();
            named.sort_by(|a, b| a.0.cmp(&b.0));
            named.into_iter().map(|(_, parameter)| parameter.grad()).collect()
        };
        for (got, want) in gradients(true).iter().zip(gradients(false)) {
            let error = (got - want).abs().max().double_value(&[]);
            assert!(error < 1e-4, "{kind:?}: off by {error:.1e}");
        }
    }
}
