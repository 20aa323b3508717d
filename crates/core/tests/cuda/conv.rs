//! `causal_conv1d` and its update.

use ophidian_core::ops::{ConvInput, causal_conv1d, causal_conv1d_update};
use proptest::prelude::*;
use tch::{Kind, Tensor};

use crate::{
    case::{Draw, Dtypes, Input, compare, randn},
    emulator::Emulated,
};

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, ..ProptestConfig::default() })]

    #[test]
    fn the_convolution_is_that_of_the_cpu(
        (b, k, l, d, w) in (1i64..3, 1i64..4, 0i64..70, 1i64..40, 2i64..5),
        dtypes in Dtypes::strategy(),
        // Bias, initial state, SiLU, x shared by the directions, wild orders, orders per sample.
        flags in any::<[bool; 6]>(),
        processors in prop_oneof![Just(1u32), Just(40)],
        seed: u64,
    ) {
        let [has_bias, has_initial, silu, shared, wild, per_sample] = flags;
        let mut draw = Draw(seed);
        tch::manual_seed(seed as i64);
        let orders = draw.orders(b, k, l, wild, per_sample);
        let emulator = Emulated::new(processors, draw.below(9) as u64);
        let x = if shared { vec![b, l, d] } else { vec![b, l, k, d] };
        let mut inputs = vec![
            Input::new("x", randn(&x), dtypes.of(0)),
            Input::new("weight", randn(&[k, d, w]), Kind::Float),
        ];
        if has_bias {
            inputs.push(Input::new("bias", randn(&[k, d]), Kind::Float));
        }
        if has_initial {
            inputs.push(Input::new("initial_state", randn(&[b, k, d, w - 1]), Kind::Float));
        }
        compare(&emulator, &inputs, &mut draw, 0.0, |list| {
            let mut rest = list[2..].iter();
            let [bias, initial_state] = [has_bias, has_initial].map(|has| if has { rest.next() } else { None });
            let (x, weight) = (&list[0], &list[1]);
            let out = causal_conv1d(&ConvInput { x, weight, bias, silu, initial_state, orders: &orders }).unwrap();
            vec![out.y, out.final_state]
        });
        assert!(l == 0 || emulator.ran("causal_conv1d_forward") && emulator.ran("causal_conv1d_backward"));
    }

    #[test]
    fn the_update_is_that_of_the_cpu(
        (b, l, d, w, more) in (1i64..3, 1i64..6, 1i64..40, 2i64..5, 0i64..3),
        dtypes in Dtypes::strategy(),
        // Bias, SiLU, a circular buffer, gradients wanted.
        flags in any::<[bool; 4]>(),
        seed: u64,
    ) {
        let [has_bias, silu, circular, learned] = flags;
        let mut draw = Draw(seed);
        tch::manual_seed(seed as i64);
        let emulator = Emulated::new(1, draw.below(9) as u64);
        let room = w - 1 + more;
        let seen: Vec<i64> = (0..b).map(|_| draw.below(3 * room)).collect();
        let seen = circular.then(|| Tensor::from_slice(&seen));
        // More tokens than a circular buffer has room for would be written over each other in no order.
        let l = if circular { l.min(room) } else { l };
        let mut inputs = vec![
            Input::new("x", randn(&[b, l, d]), dtypes.of(0)),
            Input::new("weight", randn(&[d, w]), Kind::Float),
            Input::new("conv_state", randn(&[b, d, room]), Kind::Float),
        ];
        if has_bias {
            inputs.push(Input::new("bias", randn(&[d]), Kind::Float));
        }
        compare(&emulator, &inputs, &mut draw, 0.0, |list| {
            let update = || {
                let bias = list.get(3);
                let seen = seen.as_ref();
                let (y, after) = causal_conv1d_update(&list[0], &list[2], &list[1], bias, silu, seen).unwrap();
                vec![y, after]
            };
            if learned {
                return update();
            }
            tch::no_grad(update).into_iter().map(|t| t.set_requires_grad(true) * 1.0).collect()
        });
        assert_eq!(emulator.ran("causal_conv1d_step"), !learned);
    }
}
