//! `ssd` and its step.

use ophidian_core::ops::{Merge, Orders, SsdInput, ssd, ssd_step};
use proptest::{prelude::*, test_runner::RngSeed};
use tch::{Kind, Tensor};

use crate::{
    case::{Draw, Dtypes, Input, compare, randn},
    emulator::Emulated,
};

#[derive(Debug, Clone)]
struct Case {
    b: i64,
    k: i64,
    l: i64,
    groups: i64,
    per_group: i64,
    p: i64,
    n: i64,
    dtypes: Dtypes,
    /// Bits: D, z, dt bias, initial state, softplus, x and z shared by the directions, directions summed, wild orders,
    /// orders per sample, D per channel, limits of dt.
    flags: u32,
    processors: u32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    // Of each element type one size, to be compiled.
    let sizes = prop_oneof![
        Just((16i64, 16i64, Dtypes::F32)),
        Just((16, 16, Dtypes::Mixed)),
        Just((8, 24, Dtypes::Bf16)),
        Just((20, 17, Dtypes::F16)),
    ];
    let processors = prop_oneof![Just(1u32), Just(40)];
    ((1i64..3, 1i64..3, 0i64..90, 1i64..3, 1i64..3), sizes, 0u32..1 << 11, processors, any::<u64>()).prop_map(
        |((b, k, l, groups, per_group), (p, n, dtypes), flags, processors, seed)| Case {
            b,
            k,
            l,
            groups,
            per_group,
            p,
            n,
            dtypes,
            flags,
            processors,
            seed,
        },
    )
}

impl Case {
    fn has(&self, bit: u32) -> bool {
        self.flags >> bit & 1 == 1
    }

    fn inputs(&self) -> Vec<Input> {
        tch::manual_seed(self.seed as i64);
        let Case { b, k, l, groups: g, p, n, dtypes, .. } = *self;
        let h = g * self.per_group;
        let once: Vec<i64> = if self.has(5) { vec![b, l, h, p] } else { vec![b, l, k, h, p] };
        let dt = randn(&[b, l, k, h]);
        let mut inputs = vec![
            Input::new("x", randn(&once), dtypes.of(0)),
            Input::new("dt", if self.has(4) { dt } else { dt.abs() * 0.3 }, dtypes.of(1)),
            Input::new("A", -(randn(&[k, h]).abs() + 0.1), Kind::Float),
            Input::new("B", randn(&[b, l, k, g, n]), dtypes.of(3)),
            Input::new("C", randn(&[b, l, k, g, n]), dtypes.of(4)),
        ];
        if self.has(0) {
            let shape = if self.has(9) { vec![k, h, p] } else { vec![k, h] };
            inputs.push(Input::new("D", randn(&shape), Kind::Float));
        }
        if self.has(1) {
            inputs.push(Input::new("z", randn(&once), dtypes.of(6)));
        }
        if self.has(2) {
            let bias = randn(&[k, h]);
            inputs.push(Input::new(
                "dt_bias",
                if self.has(4) { bias } else { bias.abs() * 0.1 },
                Kind::Float,
            ));
        }
        if self.has(3) {
            inputs.push(Input::new("initial_state", randn(&[b, k, h, p, n]), Kind::Float));
        }
        inputs
    }

    fn input<'a>(&self, list: &'a [Tensor], orders: &'a Orders) -> SsdInput<'a> {
        let mut rest = list[5..].iter();
        let [d, z, dt_bias, initial_state] =
            [0, 1, 2, 3].map(|bit| if self.has(bit) { rest.next() } else { None });
        SsdInput {
            x: &list[0],
            dt: &list[1],
            a: &list[2],
            b: &list[3],
            c: &list[4],
            d,
            z,
            dt_bias,
            dt_softplus: self.has(4),
            dt_limits: if self.has(10) { (0.05, 1.5) } else { (0.0, f64::INFINITY) },
            initial_state,
            orders,
            merge: if self.has(6) { Merge::Sum } else { Merge::Apart },
        }
    }

    /// What rounding between two matrix products may cost, relative to the largest value.
    fn between(&self) -> f64 {
        match self.dtypes {
            Dtypes::Bf16 => 1.6e-2,
            Dtypes::F16 => 2e-3,
            Dtypes::F32 | Dtypes::Mixed | Dtypes::MixedF16 => 1e-4,
        }
    }
}

proptest! {
    // The same draws every time, as in the kernels' own test: what cancels within a chunk is in no bound.
    #![proptest_config(ProptestConfig { cases: 24, rng_seed: RngSeed::Fixed(3), ..ProptestConfig::default() })]

    #[test]
    fn the_ssd_is_that_of_the_cpu(case in cases()) {
        let mut draw = Draw(case.seed);
        let orders = draw.orders(case.b, case.k, case.l, case.has(7), case.has(8));
        let emulator = Emulated::new(case.processors, draw.below(9) as u64);
        compare(&emulator, &case.inputs(), &mut draw, case.between(), |list| {
            let out = ssd(&case.input(list, &orders)).unwrap();
            vec![out.y, out.final_state]
        });
        assert!(case.l == 0 || emulator.ran("ssd_forward") && emulator.ran("ssd_backward"));
    }

    #[test]
    fn the_step_is_that_of_the_cpu(case in cases(), learned: bool) {
        let case = Case { k: 1, l: 1, flags: case.flags | 1 << 3, ..case };
        let mut draw = Draw(case.seed);
        let emulator = Emulated::new(case.processors, draw.below(9) as u64);
        let orders = Orders::identity(1, 1);
        compare(&emulator, &case.inputs(), &mut draw, case.between(), |list| {
            let step = || {
                let input = case.input(list, &orders);
                let mut state = input.initial_state.unwrap().shallow_clone();
                let y = ssd_step(&SsdInput { initial_state: None, ..input }, &mut state).unwrap();
                vec![y, state]
            };
            if learned {
                return step();
            }
            tch::no_grad(step).into_iter().map(|t| t.set_requires_grad(true) * 1.0).collect()
        });
        assert_eq!(emulator.ran("ssd_step"), !learned);
        assert_eq!(emulator.ran("ssd_forward"), learned);
    }
}
