//! What a forward pass leaves on the tape, and the implicit attention that follows from it, against the equations.

use ophidian_core::{
    mixer::{Compat, ConvPlace, Mamba1, Mamba1Config, Merge},
    ops::{self, Orders, ScanInput, SsdInput, selective_scan, ssd},
    tape::{self, Ground, Layout, Places, Scan},
};
use ophidian_scan::{Blank, Order, Plan};
use proptest::prelude::*;
use tch::{Device, Kind, Tensor, nn::VarStore};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Sizes, orders that may skip, repeat, pad and reset, and the seed of the numbers.
#[derive(Debug, Clone)]
struct Case {
    b: i64,
    groups: i64,
    per_group: i64,
    n: i64,
    l: i64,
    shared: bool,
    softplus: bool,
    /// (token or -1, reset) of every step, for each direction; and what a blank does.
    orders: Vec<(Vec<(i32, bool)>, bool)>,
    seed: i64,
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (1i64..3, 1i64..3, 1i64..4, 1i64..4, 1i64..9);
    (sizes, any::<[bool; 2]>(), 0i64..1 << 30).prop_flat_map(
        |((b, groups, per_group, n, l), [shared, softplus], seed)| {
            let step = (-1..l as i32, prop::bool::weighted(0.2));
            let order = (prop::collection::vec(step, 1..2 * l as usize + 2), any::<bool>());
            prop::collection::vec(order, 1..4).prop_map(move |orders| Case {
                b,
                groups,
                per_group,
                n,
                l,
                shared,
                softplus,
                orders,
                seed,
            })
        },
    )
}

impl Case {
    fn plan(&self) -> Plan {
        let order = |(steps, zero): &(Vec<(i32, bool)>, bool)| {
            let (index, resets) = steps.iter().copied().unzip();
            let order = Order::new(index, self.l as usize).unwrap().with_resets(resets).unwrap();
            order.with_blank(if *zero { Blank::Zero } else { Blank::Skip })
        };
        Plan::new(self.orders.iter().map(order).collect()).unwrap()
    }
}

/// The inputs of a case: u, delta, A, B, C, D, delta bias.
fn inputs(case: &Case) -> [Tensor; 7] {
    tch::manual_seed(case.seed);
    let Case { b, groups: g, per_group, n, l, .. } = *case;
    let (k, d) = (case.orders.len() as i64, g * per_group);
    let randn = |shape: &[i64]| Tensor::randn(shape, F64);
    [
        if case.shared { randn(&[b, l, d]) } else { randn(&[b, l, k, d]) },
        randn(&[b, l, k, d]).abs() * 0.5,
        -(randn(&[k, d, n]).abs() + 0.1),
        randn(&[b, l, k, g, n]),
        randn(&[b, l, k, g, n]),
        randn(&[k, d]),
        randn(&[k, d]).abs() * 0.2,
    ]
}

/// Alpha (B, K, L, L, D) written out: the state as a function of each u_s alone, step by step.
fn alpha(case: &Case, plan: &Plan, [_, delta, a, b, c, _, bias]: &[Tensor; 7]) -> Tensor {
    let (l, d) = (case.l, case.groups * case.per_group);
    let spread = |t: &Tensor| t.repeat_interleave_self_int(case.per_group, 3, d); // (B, L, K, D, N)
    let (b, c) = (spread(b), spread(c));
    let steps = delta + bias;
    let steps = if case.softplus { steps.softplus() } else { steps };
    let direction = |(k, order): (i64, &Order)| {
        let of = |t: &Tensor, token: i32| t.select(2, k).select(1, i64::from(token)); // (B, …)
        let mut state = Tensor::zeros([case.b, l, d, case.n], F64);
        let rows = Tensor::zeros([case.b, l, l, d], F64);
        let mut pending = false;
        for (token, reset) in order.index().iter().zip(order.resets()) {
            pending |= reset;
            if *token < 0 && order.blank() == Blank::Skip {
                continue;
            }
            if std::mem::take(&mut pending) {
                state = state.zeros_like();
            }
            let dt = if *token < 0 {
                let own = bias.select(0, k).expand([case.b, d], false);
                if case.softplus { own.softplus() } else { own }
            } else {
                of(&steps, *token)
            };
            state *= (dt.unsqueeze(2) * a.select(0, k)).exp().unsqueeze(1);
            if *token >= 0 {
                let _ = state.select(1, i64::from(*token)).g_add_(&(dt.unsqueeze(2) * of(&b, *token)));
                let read = (&state * of(&c, *token).unsqueeze(1)).sum_dim_intlist(3, false, Kind::Double);
                let _ = rows.select(1, i64::from(*token)).g_add_(&read);
            }
        }
        rows
    };
    Tensor::stack(&(0..).zip(plan.orders()).map(direction).collect::<Vec<_>>(), 1)
}

fn gap(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    (got.to_kind(Kind::Double) - want).abs().max().double_value(&[])
        / want.abs().max().double_value(&[]).max(1.0)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// Row by row alpha is the equations', and alpha u + D u is what the scan puts out; f64 to rounding, f32 to its own.
    #[test]
    fn the_attention_of_a_scan_is_the_equations(case in cases()) {
        let (plan, all) = (case.plan(), inputs(&case));
        let (k, l, orders) = (case.orders.len() as i64, case.l, Orders::new(&plan));
        let want = alpha(&case, &plan, &all);
        for kind in [Kind::Double, Kind::Float] {
            let [u, delta, a, b, c, d, bias] = &all.each_ref().map(|tensor| tensor.to_kind(kind));
            let input = ScanInput {
                u, delta, a, b, c, d: Some(d), z: None, delta_bias: Some(bias), delta_softplus: case.softplus,
                initial_state: None, orders: &orders, merge: ops::Merge::Apart,
            };
            let scan = Scan::new(&input, None);
            let row = |token| scan.attention(&[token]).unwrap(); // (B, K, L, D)
            let got = Tensor::stack(&(0..l).map(row).collect::<Vec<_>>(), 2);
            let tolerance = if kind == Kind::Double { 1e-12 } else { 2e-4 };
            prop_assert!(gap(&got, &want) < tolerance, "{kind:?}: alpha is off by {:.1e}", gap(&got, &want));
            if kind == Kind::Double {
                let y = selective_scan(&input).unwrap().y;
                let u = if case.shared { u.unsqueeze(2) } else { u.shallow_clone() }.expand([-1, -1, k, -1], false);
                let made = (&got * u.permute([0, 2, 1, 3]).unsqueeze(2)).sum_dim_intlist(3, false, kind);
                // D adds u once for every visit.
                let mut visits = Tensor::zeros([l, k], F64);
                for (direction, order) in (0..).zip(plan.orders()) {
                    let counts: Vec<f64> = order.visits().into_iter().map(f64::from).collect();
                    visits.select(1, direction).copy_(&Tensor::from_slice(&counts));
                }
                visits = visits.unsqueeze(2);
                let made = made.permute([0, 2, 1, 3]) + u * d * visits;
                prop_assert!(gap(&made, &y) < 1e-12, "alpha u + D u is off by {:.1e}", gap(&made, &y));
            }
            // Two tokens at once are the sum, and the map is the mean over channels of what is absolute.
            let both = scan.attention(&[0, l - 1]).unwrap();
            prop_assert!(gap(&both, &(row(0) + row(l - 1)).to_kind(Kind::Double)) < tolerance);
            let map = scan.map(&[0]).unwrap();
            prop_assert!(gap(&map, &row(0).to_kind(Kind::Double).abs().mean_dim(3, false, Kind::Double)) < 1e-12);
            prop_assert!(scan.attention(&[l]).unwrap_err().to_string().contains("there is no token"));
        }
    }
}

/// Of an SSD, alpha of a head x is what every channel of the head puts out, but for D; all limits of dt counted.
#[test]
fn the_attention_of_heads_is_that_of_their_channels() {
    let (b, l, k, g, h, p, n) = (2, 7, 2, 2, 4, 3, 5);
    let walks = [vec![3, 1, 4, 0, 6, 5, 2], vec![5, 0, 2, 6, 1, 3, 4]];
    let walks = walks.map(|walk| Order::new(walk, l as usize).unwrap());
    let orders = Orders::new(&Plan::new(walks.to_vec()).unwrap());
    for (seed, dt_limits) in [(0, (0.0, f64::INFINITY)), (1, (0.3, 0.9))] {
        tch::manual_seed(seed);
        let randn = |shape: &[i64]| Tensor::randn(shape, F64);
        let (x, dt) = (randn(&[b, l, h, p]), randn(&[b, l, k, h]));
        let (a, bias) = (-(randn(&[h]).abs() + 0.1), randn(&[k, h]));
        let input = SsdInput {
            x: &x,
            dt: &dt,
            a: &a,
            b: &randn(&[b, l, k, g, n]),
            c: &randn(&[b, l, k, g, n]),
            d: None,
            z: None,
            dt_bias: Some(&bias),
            dt_softplus: true,
            dt_limits,
            initial_state: None,
            orders: &orders,
            merge: ops::Merge::Apart,
        };
        let y = ssd(&input).unwrap().y; // (B, L, K, H, P)
        let scan = Scan::of_heads(&input, None).unwrap();
        for token in 0..l {
            let alpha = scan.attention(&[token]).unwrap(); // (B, K, L, H)
            let made = (alpha.unsqueeze(4) * x.unsqueeze(1)).sum_dim_intlist(2, false, Kind::Double);
            let error = gap(&made, &y.select(1, token));
            assert!(error < 1e-12, "dt within {dt_limits:?}, token {token}: off by {error:.1e}");
        }
    }
}

/// Whatever the mixer does to tokens around its scan (gathers them, writes them elsewhere, pads them), alpha goes from
/// token to token: alpha u + D u is what the mixer's core puts out.
#[test]
fn the_attention_of_a_mixer_goes_from_token_to_token() {
    let line = |tokens: &[i32], blank: bool| {
        let index = tokens.iter().copied().chain(blank.then_some(-1)).collect();
        Order::new(index, 6).unwrap().with_blank(Blank::Zero)
    };
    let (walks, others) =
        ([[3, 1, 4, 0, 5, 2], [5, 0, 2, 1, 3, 4]], [[1, 2, 3, 4, 5, 0], [0, 2, 1, 3, 5, 4]]);
    let orders = |walks: &[[i32; 6]; 2], blank: bool| {
        Orders::new(&Plan::new(walks.iter().map(|walk| line(walk, blank)).collect()).unwrap())
    };
    let released = Compat { unordered_coefficients: true, ..Compat::default() };
    for seed in 0..3 {
        let written = orders(&walks, false).written_as(&orders(&others, false)).unwrap();
        for (name, compat, orders, to) in [
            ("plain", Compat::default(), orders(&walks, false), &walks),
            ("padded", Compat::default(), orders(&walks, true), &walks),
            ("gathered", released, orders(&walks, false), &walks),
            ("written elsewhere", Compat::default(), written, &others),
        ] {
            tch::manual_seed(seed);
            let vs = VarStore::new(Device::Cpu);
            let config = Mamba1Config {
                d_model: 4,
                directions: 2,
                d_state: 3,
                merge: Merge::Sum,
                gate: false,
                conv: ConvPlace::None,
                compat,
                ..Mamba1Config::default()
            };
            let mixer = Mamba1::new(&vs.root(), &config).unwrap();
            let u = Tensor::randn([1, 6, 1, config.d_inner()], (Kind::Float, Device::Cpu));
            let (y, tape) = tape::record(|| {
                tape::layer([1, 6], &u);
                tch::no_grad(|| mixer.core(&u, None, &orders).unwrap()) // (B, L, 1, D)
            });
            let [scan] = &tape.layers[0].scans[..] else {
                panic!("{name}: {} scans", tape.layers[0].scans.len())
            };
            let skip = &vs.variables()["D"]; // (K, D)
            let tokens = u.squeeze_dim(2).unsqueeze(1); // (B, 1, L, D)
            for token in 0..6 {
                let row = scan.attention(&[token]).unwrap() * &tokens;
                let mut made = row.sum_dim_intlist([1i64, 2].as_slice(), false, Kind::Float);
                for (k, (walk, to)) in (0..).zip(walks.iter().zip(to)) {
                    // D's part is of the token that is read where this one is written.
                    let step = to.iter().position(|other| i64::from(*other) == token).unwrap();
                    made += tokens.select(1, 0).select(1, i64::from(walk[step])) * skip.select(0, k);
                }
                let error = gap(&made, &y.select(1, token).squeeze_dim(1).to_kind(Kind::Double));
                assert!(error < 1e-5, "{name}, token {token}: off by {error:.1e}");
            }
        }
    }
}

#[test]
fn a_tape_hears_of_what_happens_within_it_alone() {
    let tokens = Tensor::zeros([1, 6, 2], F64);
    tape::layer([2, 3], &tokens);
    let ((), outer) = tape::record(|| {
        let (number, inner) = tape::record(|| {
            tape::layer([2, 3], &tokens);
            7
        });
        assert_eq!((number, inner.layers.len()), (7, 1));
        tape::layer([2, 3], &tokens);
        tape::layer([2, 3], &tokens);
        tape::tokens(&tokens, [2, 3]);
    });
    assert_eq!(outer.layers.len(), 2);
    assert!(outer.tokens.is_some() && outer.layers[0].scans.is_empty());
    let panicked = std::panic::catch_unwind(|| tape::record(|| -> () { panic!("as a test does") }));
    assert!(panicked.is_err());
    tape::layer([2, 3], &tokens);
    assert_eq!(tape::record(|| ()).1.layers.len(), 0);
}

fn places(layout: Layout, grid: [i64; 2], tokens: i64) -> Places {
    let run = || {
        tape::lay(|| layout);
        tape::tokens(&Tensor::zeros([1, tokens, 1], F64), grid);
    };
    tape::record(run).1.tokens.unwrap().1
}

#[test]
fn tokens_lie_where_the_model_says() {
    let class_token = Layout { class_tokens: vec![2], ..Layout::default() };
    let on_grid = places(class_token, [2, 2], 5);
    assert_eq!(on_grid.sizes, [2, 2]);
    assert_eq!(on_grid.of, [Some(0), Some(1), None, Some(2), Some(3)]);
    assert_eq!((on_grid.tokens(Some(2)), on_grid.tokens(None)), (vec![3], vec![2]));

    let ground = Ground::Grid { frames: Some(2) };
    assert_eq!(places(Layout { ground, class_tokens: vec![] }, [6, 4], 24).sizes, [2, 3, 4]);

    // Three places, twice each, and a class token behind them.
    let joined = Layout { ground: Ground::Loose { places: 3 }, class_tokens: vec![6] };
    let joined = places(joined, [1, 7], 7);
    assert_eq!((joined.sizes.as_slice(), joined.tokens(Some(1)), joined.count()), (&[3][..], vec![1, 4], 3));

    // The middle of a coarse cell lies in this fine one, and the other way round.
    let [coarse, fine] =
        [[2, 2], [6, 4]].map(|[rows, columns]| places(Layout::default(), [rows, columns], rows * columns));
    assert_eq!([0, 1, 2, 3].map(|place| fine.nearest(&coarse, place)), [5, 7, 17, 19]);
    assert_eq!([5, 7, 17, 19].map(|place| coarse.nearest(&fine, place)), [0, 1, 2, 3]);
    assert_eq!(fine.nearest(&fine, 13), 13);
}
