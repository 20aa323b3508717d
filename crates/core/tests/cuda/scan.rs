//! `selective_scan` and its step.

use ophidian_core::ops::{Merge, Orders, ScanInput, cuda::emulated, selective_scan, selective_scan_step};
use proptest::prelude::*;
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
    n: i64,
    dtypes: Dtypes,
    /// Bits: D, z, delta bias, initial state, softplus, u and z shared by the directions, directions summed, wild orders,
    /// orders per sample, delta shared (expanded over the directions).
    flags: u32,
    processors: u32,
    seed: u64,
}

fn cases() -> impl Strategy<Value = Case> {
    let states = prop_oneof![Just(16i64), Just(3)];
    let processors = prop_oneof![Just(1u32), Just(40)];
    (
        (1i64..3, 1i64..4, 0i64..80, 1i64..3, 1i64..20, states),
        Dtypes::strategy(),
        0u32..1 << 10,
        processors,
        any::<u64>(),
    )
        .prop_map(|((b, k, l, groups, per_group, n), dtypes, flags, processors, seed)| Case {
            b,
            k,
            l,
            groups,
            per_group,
            n,
            dtypes,
            flags,
            processors,
            seed,
        })
}

impl Case {
    fn has(&self, bit: u32) -> bool {
        self.flags >> bit & 1 == 1
    }

    fn inputs(&self) -> Vec<Input> {
        tch::manual_seed(self.seed as i64);
        let Case { b, k, l, groups: g, n, dtypes, .. } = *self;
        let d = g * self.per_group;
        let once: Vec<i64> = if self.has(5) { vec![b, l, d] } else { vec![b, l, k, d] };
        let delta = randn(&[b, l, if self.has(9) { 1 } else { k }, d]);
        let delta = if self.has(4) { delta } else { delta.abs() * 0.3 };
        let delta = Input::new("delta", delta, dtypes.of(1));
        let mut inputs = vec![
            Input::new("u", randn(&once), dtypes.of(0)),
            if self.has(9) { delta.shared(k) } else { delta },
            Input::new("A", -(randn(&[k, d, n]).abs() + 0.1), Kind::Float),
            Input::new("B", randn(&[b, l, k, g, n]), dtypes.of(3)),
            Input::new("C", randn(&[b, l, k, g, n]), dtypes.of(4)),
        ];
        if self.has(0) {
            inputs.push(Input::new("D", randn(&[k, d]), Kind::Float));
        }
        if self.has(1) {
            inputs.push(Input::new("z", randn(&once), dtypes.of(6)));
        }
        if self.has(2) {
            let bias = randn(&[k, d]);
            let bias = if self.has(4) { bias } else { bias.abs() * 0.1 };
            inputs.push(Input::new("delta_bias", bias, Kind::Float));
        }
        if self.has(3) {
            inputs.push(Input::new("initial_state", randn(&[b, k, d, n]), Kind::Float));
        }
        inputs
    }

    /// Every kernel takes the rows as they are: nothing is converted on its way.
    fn expect_variants(&self, emulator: &Emulated) {
        let expected = match self.dtypes {
            Dtypes::F32 => " DTYPE=0 D_STATE",
            Dtypes::Bf16 => " DTYPE=1 D_STATE",
            Dtypes::F16 => " DTYPE=2 D_STATE",
            Dtypes::Mixed => " DTYPE=1 DELTA_F32=1 ",
            Dtypes::MixedF16 => " DTYPE=2 DELTA_F32=1 ",
        };
        for kernel in ["selective_scan_forward", "selective_scan_backward", "selective_scan_step"] {
            for variant in emulator.variants(kernel) {
                assert!(variant.contains(expected), "{kernel} of {variant}, expected{expected}");
            }
        }
    }

    fn optional<'a>(&self, list: &'a [Tensor]) -> [Option<&'a Tensor>; 4] {
        let mut rest = list[5..].iter();
        [0, 1, 2, 3].map(|bit| if self.has(bit) { rest.next() } else { None })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_scan_is_that_of_the_cpu(case in cases()) {
        let mut draw = Draw(case.seed);
        let orders = draw.orders(case.b, case.k, case.l, case.has(7), case.has(8));
        let emulator = Emulated::new(case.processors, draw.below(9) as u64);
        compare(&emulator, &case.inputs(), &mut draw, 0.0, |list| {
            let [d, z, delta_bias, initial_state] = case.optional(list);
            let out = selective_scan(&ScanInput {
                u: &list[0],
                delta: &list[1],
                a: &list[2],
                b: &list[3],
                c: &list[4],
                d,
                z,
                delta_bias,
                delta_softplus: case.has(4),
                initial_state,
                orders: &orders,
                merge: if case.has(6) { Merge::Sum } else { Merge::Apart },
            })
            .unwrap();
            vec![out.y, out.final_state]
        });
        assert!(case.l == 0 || emulator.ran("selective_scan_forward"));
        assert!(case.l == 0 || emulator.ran("selective_scan_backward"));
        case.expect_variants(&emulator);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// Token by token on a state that is kept: by the step's own kernel if no gradient is wanted.
    #[test]
    fn the_step_is_that_of_the_cpu(case in cases(), learned: bool) {
        let case = Case { k: 1, l: 1, flags: case.flags | 1 << 3, ..case };
        let mut draw = Draw(case.seed);
        let emulator = Emulated::new(case.processors, 0);
        let orders = Orders::identity(1, 1);
        let step = |list: &[Tensor]| {
            let [d, z, delta_bias, initial] = case.optional(list);
            let mut state = initial.unwrap().shallow_clone();
            let y = selective_scan_step(
                &ScanInput {
                    u: &list[0],
                    delta: &list[1],
                    a: &list[2],
                    b: &list[3],
                    c: &list[4],
                    d,
                    z,
                    delta_bias,
                    delta_softplus: case.has(4),
                    initial_state: None,
                    orders: &orders,
                    merge: if case.has(6) { Merge::Sum } else { Merge::Apart },
                },
                &mut state,
            )
            .unwrap();
            vec![y, state]
        };
        let run = |list: &[Tensor]| if learned { step(list) } else {
            // Leaves that require gradients, but are not asked for any.
            let sum = list.iter().fold(Tensor::from(0.0), |sum, leaf| sum + leaf.sum(Kind::Double) * 0.0);
            tch::no_grad(|| step(list)).into_iter().map(|t| &t + sum.to_kind(t.kind())).collect()
        };
        compare(&emulator, &case.inputs(), &mut draw, 0.0, run);
        assert_eq!(emulator.ran("selective_scan_step"), !learned);
        assert_eq!(emulator.ran("selective_scan_forward"), learned);
        case.expect_variants(&emulator);
    }
}

/// What has no kernel says so, and so does a state that no kernel takes.
#[test]
fn what_a_gpu_does_not_run() {
    let emulator = Emulated::new(1, 0);
    let scan = |u: &Tensor, a: &Tensor, n: i64| {
        let orders = Orders::identity(2, 1);
        let b = Tensor::zeros([1, 2, n], (u.kind(), tch::Device::Cpu));
        let input = ScanInput {
            u,
            delta: u,
            a,
            b: &b,
            c: &b,
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: false,
            initial_state: None,
            orders: &orders,
            merge: Merge::Sum,
        };
        emulated(emulator.clone(), || selective_scan(&input)).unwrap_err().to_string()
    };
    let zeros = |shape: &[i64], kind| Tensor::zeros(shape, (kind, tch::Device::Cpu));
    let said = scan(&zeros(&[1, 2, 3], Kind::Double), &zeros(&[3, 4], Kind::Double), 4);
    assert!(said.contains("f64 run on the CPU only"), "{said}");
    let said = scan(&zeros(&[1, 2, 3], Kind::Float), &zeros(&[3, 300], Kind::Float), 300);
    assert!(said.contains("`A` has 300 states; a GPU takes 1 to 256"), "{said}");
}

/// What orders come to on the device is made once for orders that stay, and for parts of them.
#[test]
fn orders_are_put_on_the_device_once() {
    let emulator = Emulated::new(1, 0);
    let orders = Draw(3).orders(1, 2, 20, true, false);
    let zeros = |shape: &[i64]| Tensor::zeros(shape, (Kind::Float, tch::Device::Cpu));
    let [u, delta, a, b] = [&[1, 20, 4][..], &[1, 20, 1, 4], &[1, 4, 3], &[1, 20, 1, 3]].map(zeros);
    // How many tensors a scan takes.
    let scan = || {
        let before = emulator.tensors();
        let input = ScanInput {
            u: &u,
            delta: &delta,
            a: &a,
            b: &b,
            c: &b,
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: false,
            initial_state: None,
            orders: &orders.part(1, 1),
            merge: Merge::Sum,
        };
        emulated(emulator.clone(), || selective_scan(&input)).unwrap();
        emulator.tensors() - before
    };
    let (first, second, third) = (scan(), scan(), scan());
    // y, by token and by step, and the state.
    assert!(first > second && second == third && third == 3, "{first}, {second}, {third}");
}
