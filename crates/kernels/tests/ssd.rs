//! SSD against the equations: the recurrence and its gradients in f64, finite differences of it, the quadratic dual form,
//! and the kernels of every instruction set over random shapes, orders and options.

mod common;

use common::{
    Compared, Draw, Kind, Two,
    ssd::{Answer, NAMES, Problem, Shape, Summing, shapes},
};
use ophidian_kernels::{
    Isa, View, ViewMut,
    pool::Serial,
    ssd::{self, Backward, Forward, Ssd},
};
use proptest::prelude::*;

impl Problem {
    /// Runs the kernels.
    fn run(&self, isa: Isa, pool: &dyn ophidian_kernels::Pool) -> Answer<f32> {
        let ssd = self.ssd();
        let mut y = vec![f32::NAN; self.x.len()];
        let mut last = vec![f32::NAN; ssd.state_len()];
        let mut checkpoints = vec![f32::NAN; ssd::checkpoint_len(&ssd).unwrap()];
        let out = Forward {
            y: ViewMut::f32(&mut y, self.channel_strides()),
            final_state: Some(&mut last),
            checkpoints: Some(&mut checkpoints),
        };
        ssd::forward(&ssd, out, isa, pool).unwrap();
        let mut grads: Vec<Vec<f32>> = self.leaves().iter().map(|v| vec![f32::NAN; v.len()]).collect();
        let mut initial = vec![f32::NAN; ssd.state_len()];
        let [dx, ddt, da, db, dc, dd, dz, dbias, _] = &mut grads[..] else { unreachable!() };
        let out = Backward {
            dy: View::f32(&self.dy, self.channel_strides()),
            dfinal: Some(&self.dfinal),
            checkpoints: &checkpoints,
            dx: ViewMut::f32(dx, self.channel_strides()),
            ddt: ViewMut::f32(ddt, self.head_strides()),
            dz: self.z.is_some().then(|| ViewMut::f32(dz, self.channel_strides())),
            db: ViewMut::f32(db, self.coefficient_strides()),
            dc: ViewMut::f32(dc, self.coefficient_strides()),
            da,
            dd: self.d.is_some().then_some(dd.as_mut_slice()),
            ddt_bias: self.bias.is_some().then_some(dbias.as_mut_slice()),
            dinitial: Some(&mut initial),
        };
        ssd::backward(&ssd, out, isa, pool).unwrap();
        if self.initial.is_some() {
            grads[8] = initial;
        }
        Answer { y, last, grads }
    }

    fn check(&self, pool: &dyn ophidian_kernels::Pool) {
        let want = self.reference(&self.leaves());
        let sizes = self.sizes(Summing { chunk: 64, at_resets: true, cancelling: 1.0 });
        for isa in common::isas() {
            let got = self.run(isa, pool);
            let compare = |name: &str, got: &[f32], want: &[f64], sizes: &[f64]| {
                Compared::within(name, got, want, |i| 1e-5 * sizes[i] + 1e-30).check();
            };
            compare("y", &got.y, &want.y, &sizes.y);
            compare("final_state", &got.last, &want.last, &sizes.last);
            for (i, name) in NAMES.into_iter().enumerate() {
                compare(name, &got.grads[i], &want.grads[i], &sizes.grads[i]);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    /// The gradients of the reference are finite differences of the recurrence, and its values the dual form's.
    #[test]
    fn the_reference_is_the_equations(shape in shapes(7, 3, 4)) {
        let p = Problem::new(&shape);
        let x = p.leaves();
        let Answer { y, grads, .. } = p.reference(&x);
        for (dual, y) in p.dual().iter().zip(&y) {
            prop_assert!((dual - y).abs() < 1e-11, "{dual} {y}");
        }
        let loss = |x: &[Vec<f64>]| {
            let Answer { y, last, .. } = p.reference(x);
            let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
            dot(&y, &p.dy) + dot(&last, &p.dfinal)
        };
        let mut draw = Draw(shape.seed ^ 1);
        let kinked = p.any_at_a_limit(1e-4);
        for (i, grad) in grads.iter().enumerate() {
            if kinked && matches!(NAMES[i], "ddt" | "ddt_bias") {
                continue;
            }
            for _ in 0..grad.len().min(6) {
                let j = draw.below(grad.len());
                let mut moved = x.clone();
                let h = 1e-5;
                moved[i][j] = x[i][j] + h;
                let up = loss(&moved);
                moved[i][j] = x[i][j] - h;
                let want = (up - loss(&moved)) / (2.0 * h);
                let error = (grad[j] - want).abs() / want.abs().max(1.0);
                prop_assert!(error < 1e-6, "{}[{j}]: got {}, want {want}", NAMES[i], grad[j]);
            }
        }
    }

    /// The kernels are the reference, whatever the instruction set.
    #[test]
    fn kernels_are_the_reference(shape in shapes(150, 40, 40)) {
        Problem::new(&shape).check(&Two);
    }

    /// The bits do not depend on who runs the tasks.
    #[test]
    fn threads_do_not_matter(shape in shapes(150, 40, 20)) {
        let p = Problem::new(&shape);
        let bits = |answer: Answer<f32>| {
            let all = [vec![answer.y, answer.last], answer.grads].concat().concat();
            all.iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        let isa = Isa::detect();
        prop_assert_eq!(bits(p.run(isa, &Serial)), bits(p.run(isa, &Two)));
    }
}

fn plain(tokens: usize, heads: usize, headdim: usize, states: usize, flags: u8, kind: Kind) -> Shape {
    Shape {
        batch: 1,
        tokens,
        directions: 1,
        groups: 1,
        per_group: heads,
        headdim,
        states,
        flags,
        kind,
        seed: 5,
    }
}

/// Sizes of released models, over several chunks.
#[test]
fn sizes_of_mamba2() {
    for (tokens, states, kind) in
        [(64, 64, Kind::Identity), (200, 128, Kind::Permutation), (129, 128, Kind::Wild)]
    {
        Problem::new(&plain(tokens, 3, 64, states, 0xbf, kind)).check(&Two);
    }
}

/// Decays that take the state below what f32 holds within a chunk, and steps of size zero.
#[test]
fn strong_and_absent_decays() {
    let mut p = Problem::new(&plain(150, 2, 8, 8, 2 + 16, Kind::Identity));
    p.a = vec![-40.0, -0.001];
    for (i, dt) in p.dt.iter_mut().enumerate() {
        *dt = if i % 5 == 0 { 0.0 } else { dt.abs() * 3.0 };
    }
    p.check(&Serial);
}

/// The gradient of A, which the pairs of near steps make where decays are strong, does not suffer from how long the chunk
/// has lasted before them.
#[test]
fn strong_decays_have_exact_gradients() {
    let mut p = Problem::new(&plain(192, 4, 16, 16, 0, Kind::Identity));
    p.a = vec![-4.0, -8.0, -16.0, -32.0];
    p.dt.iter_mut().for_each(|dt| *dt = 0.3 + dt.abs());
    let want = p.reference(&p.leaves());
    let sizes = p.sizes(Summing { chunk: 64, at_resets: true, cancelling: 0.0 });
    for isa in common::isas() {
        let got = p.run(isa, &Serial);
        Compared::within("dA", &got.grads[2], &want.grads[2], |i| 1e-8 * sizes.grads[2][i]).check();
    }
}

/// One NaN stays in its own channel and its own future, and does not pass a reset.
#[test]
fn nan_is_passed_on_not_spread() {
    let mut p = Problem::new(&plain(100, 2, 10, 16, 32, Kind::Identity));
    p.x[10 * 20 + 3] = f32::NAN;
    let mut resets = vec![0u8; 100];
    resets[30] = 1;
    p.table.resets = Some(resets);
    for isa in common::isas() {
        for (at, value) in p.run(isa, &Serial).y.iter().enumerate() {
            let (token, channel) = (at / 20, at % 20);
            assert_eq!(
                value.is_nan(),
                channel == 3 && (10..30).contains(&token),
                "{isa:?} token {token} channel {channel}"
            );
        }
    }
}

/// bf16 inputs are the same numbers widened.
#[test]
fn bf16_is_widened() {
    let mut p = Problem::new(&plain(90, 2, 20, 12, 0xbf, Kind::Permutation));
    let narrow = |v: &mut Vec<f32>| -> Vec<half::bf16> {
        let short: Vec<_> = v.iter().map(|v| half::bf16::from_f32(*v)).collect();
        *v = short.iter().map(|v| v.to_f32()).collect();
        short
    };
    let (x, dt, b, c) = (narrow(&mut p.x), narrow(&mut p.dt), narrow(&mut p.b), narrow(&mut p.c));
    let z = p.z.as_mut().map(narrow);
    for isa in common::isas() {
        let want = p.run(isa, &Serial).y;
        let mut ssd = p.ssd();
        ssd.x = View::bf16(&x, p.channel_strides());
        ssd.dt = View::bf16(&dt, p.head_strides());
        ssd.b = View::bf16(&b, p.coefficient_strides());
        ssd.c = View::bf16(&c, p.coefficient_strides());
        ssd.z = z.as_ref().map(|z| View::bf16(z, p.channel_strides()));
        let mut y = vec![f32::NAN; want.len()];
        let out =
            Forward { y: ViewMut::f32(&mut y, p.channel_strides()), final_state: None, checkpoints: None };
        ssd::forward(&ssd, out, isa, &Serial).unwrap();
        assert_eq!(y, want);
    }
}

/// Wrong shapes and orders are refused before anything is written.
#[test]
fn bad_arguments_are_refused() {
    let p = Problem::new(&Shape { batch: 2, directions: 2, ..plain(5, 3, 4, 2, 0xff, Kind::Identity) });
    let refuse = |change: &dyn Fn(&mut Ssd), expected: &str| {
        let mut ssd = p.ssd();
        change(&mut ssd);
        let mut y = vec![7f32; p.x.len()];
        let out =
            Forward { y: ViewMut::f32(&mut y, p.channel_strides()), final_state: None, checkpoints: None };
        let error = ssd::forward(&ssd, out, Isa::detect(), &Serial).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(y.iter().all(|v| *v == 7.0));
    };
    refuse(&|s| s.tokens = 6, "too few");
    refuse(&|s| s.a = &s.a[1..], "`A` holds");
    refuse(&|s| s.groups = 2, "do not divide");
    refuse(&|s| s.orders.steps = 4, "`orders` holds");
    refuse(&|s| s.dt_limits = [1.0, f32::NAN], "between 1 and NaN");
    let doubles = vec![0f64; p.x.len()];
    refuse(
        &|s| {
            s.x =
                unsafe { std::mem::transmute::<View<'_>, View<'_>>(View::f64(&doubles, p.channel_strides())) }
        },
        "`x` is F64",
    );
}
