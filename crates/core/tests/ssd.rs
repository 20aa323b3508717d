//! The SSD over tensors, against its equations in f64, and how the Mamba-2 mixer starts.

use ophidian_core::{
    init::Start,
    mixer::{Mamba2, Mamba2Config, Mamba2Options},
    ops::{self, Orders, SsdInput, ssd, ssd_step},
};
use ophidian_scan::{Geometry, Pattern};
use tch::{Device, Kind, Tensor, nn::VarStore};

const F64: (Kind, Device) = (Kind::Double, Device::Cpu);

/// Largest difference relative to the largest value of `want`.
fn difference(got: &Tensor, want: &Tensor) -> f64 {
    assert_eq!(got.size(), want.size());
    if want.numel() == 0 {
        return 0.0;
    }
    let error = (got.to_kind(Kind::Double) - want.to_kind(Kind::Double)).abs().max().double_value(&[]);
    error / want.abs().max().double_value(&[]).max(1e-3)
}

fn orders(pattern: &str, geometry: &Geometry) -> Orders {
    Orders::new(&pattern.parse::<Pattern>().unwrap().plan(geometry).unwrap())
}

/// Tensors of a call with every option: x, dt, A, B, C, D, z, dt_bias, initial state.
fn leaves([b, l, k, h, p, g, n]: [i64; 7], kind: Kind) -> Vec<Tensor> {
    let normal = |shape: &[i64]| Tensor::randn(shape, F64);
    let rows = |t: Tensor| t.to_kind(kind).to_kind(Kind::Double);
    vec![
        rows(normal(&[b, l, h, p])),
        rows(normal(&[b, l, k, h])),
        -normal(&[k, h]).exp(),
        rows(normal(&[b, l, k, g, n])),
        rows(normal(&[b, l, k, g, n])),
        normal(&[k, h, p]),
        rows(normal(&[b, l, h, p])),
        normal(&[k, h]),
        normal(&[b, k, h, p, n]),
    ]
}

/// y, the final state and the gradients of the leaves.
fn run(leaves: &[Tensor], kind: Kind, orders: &Orders, limits: (f64, f64)) -> Vec<Tensor> {
    let v: Vec<Tensor> = leaves.iter().map(|t| t.to_kind(kind).detach().set_requires_grad(true)).collect();
    let out = ssd(&SsdInput {
        x: &v[0],
        dt: &v[1],
        a: &v[2],
        b: &v[3],
        c: &v[4],
        d: Some(&v[5]),
        z: Some(&v[6]),
        dt_bias: Some(&v[7]),
        dt_softplus: true,
        dt_limits: limits,
        initial_state: Some(&v[8]),
        orders,
        merge: ops::Merge::Sum,
    })
    .unwrap();
    let weights = |t: &Tensor| Tensor::arange(t.numel() as i64, F64).sin().view_as(t);
    let loss = (out.y.to_kind(Kind::Double) * weights(&out.y)).sum(Kind::Double)
        + (out.final_state.to_kind(Kind::Double) * weights(&out.final_state)).sum(Kind::Double);
    let grads = Tensor::run_backward(&[loss], &v, false, false);
    [vec![out.y, out.final_state], grads].concat_tensors()
}

/// Lists of tensors, which cannot be cloned, as one.
trait ConcatTensors {
    fn concat_tensors(self) -> Vec<Tensor>;
}

impl ConcatTensors for [Vec<Tensor>; 2] {
    fn concat_tensors(self) -> Vec<Tensor> {
        self.into_iter().flatten().collect()
    }
}

/// The fast kernels (f32) and the plain ones (f64) agree along any orders, with every option: blank steps, resets, orders
/// that skip tokens or visit them twice.
#[test]
fn fast_is_plain() {
    let grid = Geometry::Grid2 { height: 7, width: 10 };
    for (seed, pattern, limits) in [
        (0, "row", (0.0, f64::INFINITY)),
        (1, "cross", (0.0, 0.8)),
        (2, "window(4,4) of row | bidirectional", (0.3, f64::INFINITY)),
        (3, "atrous(2) of row", (0.0, f64::INFINITY)),
    ] {
        tch::manual_seed(seed);
        let orders = orders(pattern, &grid);
        let leaves = leaves([2, 70, orders.directions(), 4, 6, 2, 5], Kind::Float);
        let want = run(&leaves, Kind::Double, &orders, limits);
        for (i, (got, want)) in run(&leaves, Kind::Float, &orders, limits).iter().zip(&want).enumerate() {
            let error = difference(got, want);
            assert!(error < 3e-5, "{pattern}: output or gradient {i} is {error:.1e} off");
        }
    }
}

/// bf16 inputs give what their widened values give, rounded.
#[test]
fn bf16_is_close() {
    tch::manual_seed(1);
    let orders = Orders::identity(40, 1);
    let leaves = leaves([1, 40, 1, 2, 8, 1, 4], Kind::BFloat16);
    let want = run(&leaves, Kind::Double, &orders, (0.0, f64::INFINITY));
    let got = run(&leaves, Kind::BFloat16, &orders, (0.0, f64::INFINITY));
    assert_eq!(got[0].kind(), Kind::BFloat16);
    // A, D, the bias and the state are rounded too, and the results.
    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
        let error = difference(got, want);
        assert!(error < 5e-2, "output or gradient {i} is {error:.1e} off");
    }
}

/// A step at a time is the whole.
#[test]
fn steps_are_the_whole() {
    tch::manual_seed(2);
    let leaves = leaves([2, 9, 1, 3, 4, 1, 6], Kind::Float);
    let v: Vec<Tensor> = leaves.iter().map(|t| t.to_kind(Kind::Float)).collect();
    let call = |first: i64, length: i64, state: &mut Tensor, step: bool| {
        let part = |t: &Tensor| t.narrow(1, first, length);
        let input = SsdInput {
            x: &part(&v[0]),
            dt: &part(&v[1]),
            a: &v[2],
            b: &part(&v[3]),
            c: &part(&v[4]),
            d: Some(&v[5]),
            z: Some(&part(&v[6])),
            dt_bias: Some(&v[7]),
            dt_softplus: true,
            dt_limits: (0.0, 0.7),
            initial_state: None,
            orders: &Orders::identity(length, 1),
            merge: ops::Merge::Sum,
        };
        if step {
            return ssd_step(&input, state).unwrap();
        }
        let out = ssd(&SsdInput { initial_state: Some(&state.shallow_clone()), ..input }).unwrap();
        *state = out.final_state;
        out.y
    };
    let (mut state, mut last) = (v[8].shallow_clone(), v[8].shallow_clone());
    let whole = call(0, 9, &mut last, false);
    let steps: Vec<Tensor> = (0..9).map(|t| call(t, 1, &mut state, true)).collect();
    assert!(difference(&Tensor::cat(&steps, 1), &whole) < 1e-5);
    assert!(difference(&state, &last) < 1e-5);
}

/// What does not fit is named.
#[test]
fn misfits_are_errors() {
    let v: Vec<Tensor> =
        leaves([1, 5, 1, 2, 3, 1, 4], Kind::Float).iter().map(|t| t.to_kind(Kind::Float)).collect();
    let orders = Orders::identity(5, 1);
    let input = SsdInput {
        x: &v[0],
        dt: &v[1],
        a: &v[2],
        b: &v[3],
        c: &v[4],
        d: None,
        z: None,
        dt_bias: None,
        dt_softplus: false,
        dt_limits: (0.0, f64::INFINITY),
        initial_state: None,
        orders: &orders,
        merge: ops::Merge::Sum,
    };
    let refuse = |input: SsdInput, expected: &str| {
        let text = ssd(&input).unwrap_err().to_string();
        assert!(text.contains(expected), "{text}");
    };
    refuse(SsdInput { dt: &v[0], ..input }, "`dt` has shape [1, 5, 2, 3]");
    refuse(SsdInput { x: &v[2], ..input }, "`x` has shape");
    refuse(SsdInput { a: &v[5], ..input }, "`A` has shape");
    refuse(SsdInput { c: &v[3].narrow(4, 0, 2), ..input }, "`C` has shape");
    refuse(SsdInput { b: &v[2], ..input }, "`B` has shape");
    refuse(SsdInput { orders: &Orders::identity(6, 1), ..input }, "visit 6 tokens");
    refuse(SsdInput { dt_limits: (1.0, 0.0), ..input }, "`dt_limits`");
    refuse(SsdInput { a: &v[2].to_kind(Kind::Int64), ..input }, "dtype Int64");
}

/// The mixer starts as its authors' does, and says what it cannot be.
#[test]
fn the_mixer_starts_as_published() {
    tch::manual_seed(0);
    let vs = VarStore::new(Device::Cpu);
    let config = Mamba2Config { d_model: 64, residuals: 4, start: Start::FanIn, ..Mamba2Config::default() };
    Mamba2::new(&vs.root(), &config).unwrap();
    let v = vs.variables();
    let range = |name: &str| [v[name].min().double_value(&[]), v[name].max().double_value(&[])];
    let mut shapes: Vec<_> = v.iter().map(|(name, t)| (name.as_str(), t.size())).collect();
    shapes.sort();
    let expected = [
        ("A_log", vec![1, 2]),
        ("D", vec![1, 2]),
        ("conv1d.bias", vec![1, 384]),
        ("conv1d.weight", vec![1, 384, 4]),
        ("dt_bias", vec![1, 2]),
        ("in_proj.weight", vec![514, 64]),
        ("norm.weight", vec![128]),
        ("out_proj.weight", vec![64, 128]),
    ];
    assert_eq!(shapes, expected);
    let [low, high] = range("A_log");
    assert!(low >= 0.0 && high <= 16f64.ln() + 1e-6);
    assert_eq!((range("D"), range("norm.weight")), ([1.0; 2], [1.0; 2]));
    let steps = v["dt_bias"].softplus();
    assert!(steps.min().double_value(&[]) >= 9e-4 && steps.max().double_value(&[]) <= 0.101);
    let bound = 0.5 / 128f64.sqrt();
    assert!(range("out_proj.weight")[1] <= bound && range("out_proj.weight")[1] > 0.9 * bound);
    for (options, expected) in [
        (Mamba2Options { headdim: 48, ..Mamba2Options::default() }, "`headdim` is 48"),
        (Mamba2Options { ngroups: 3, ..Mamba2Options::default() }, "`ngroups` is 3"),
        (Mamba2Options { dt_limit: [0.5, 0.1], ..Mamba2Options::default() }, "`dt_limit`"),
        (Mamba2Options { a_init_range: [0.0, 1.0], ..Mamba2Options::default() }, "`a_init_range`"),
    ] {
        let error =
            Mamba2::new(&vs.root(), &Mamba2Config { options, ..config.clone() }).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}
