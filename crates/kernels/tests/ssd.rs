//! SSD against the equations: the recurrence and its gradients in f64, finite differences of it, the quadratic dual form,
//! and the kernels of every instruction set over random shapes, orders and options.

mod common;

use common::{Draw, Kind, Table, Two, close, close_to, kinds, wide as to_wide};
use ophidian_kernels::{
    Isa, Strides, View, ViewMut,
    pool::Serial,
    ssd::{self, Backward, Forward, Ssd},
};
use proptest::prelude::*;

/// A problem that owns its data. (K directions share x, z and y if `shared`.)
struct Problem {
    batch: usize,
    tokens: usize,
    directions: usize,
    groups: usize,
    heads: usize,
    headdim: usize,
    states: usize,
    shared: bool,
    softplus: bool,
    limits: [f32; 2],
    table: Table,
    x: Vec<f32>,
    dt: Vec<f32>,
    a: Vec<f32>,
    b: Vec<f32>,
    c: Vec<f32>,
    d: Option<Vec<f32>>,
    z: Option<Vec<f32>>,
    bias: Option<Vec<f32>>,
    initial: Option<Vec<f32>>,
    dy: Vec<f32>,
    dfinal: Vec<f32>,
}

#[derive(Debug, Clone)]
struct Shape {
    batch: usize,
    tokens: usize,
    directions: usize,
    groups: usize,
    per_group: usize,
    headdim: usize,
    states: usize,
    flags: u8,
    kind: Kind,
    seed: u64,
}

fn shapes(tokens: usize, headdim: usize, states: usize) -> impl Strategy<Value = Shape> {
    (
        (0..3usize, 0..tokens, 1..3usize),
        (1..3usize, 1..3usize, 1..headdim, 1..states),
        (any::<u8>(), kinds(), any::<u64>()),
    )
        .prop_map(
            |((batch, tokens, directions), (groups, per_group, headdim, states), (flags, kind, seed))| {
                Shape { batch, tokens, directions, groups, per_group, headdim, states, flags, kind, seed }
            },
        )
}

/// Values and gradients, the latter in the order of [`NAMES`].
struct Answer<T> {
    y: Vec<T>,
    last: Vec<T>,
    grads: Vec<Vec<T>>,
    /// Of the gradients of A, D and dt_bias: the largest sum of the sizes of what was summed, in the order of [`NAMES`].
    sizes: [f64; 9],
}

const NAMES: [&str; 9] = ["dx", "ddt", "dA", "dB", "dC", "dD", "dz", "ddt_bias", "dinitial"];

impl Problem {
    fn new(s: &Shape) -> Problem {
        let mut draw = Draw(s.seed);
        let (heads, shared) = (s.groups * s.per_group, s.flags & 1 != 0);
        let rows = s.batch * s.tokens * s.directions;
        let once = if shared { s.batch * s.tokens } else { rows };
        let state = s.batch * s.directions * heads * s.headdim * s.states;
        let (per_head, channels) = (s.directions * heads, heads * s.headdim);
        let mut maybe = |bit: u8, len: usize, scale: f64| (s.flags & bit != 0).then(|| draw.vec(len, scale));
        let (d, z) = (maybe(2, s.directions * channels, 1.0), maybe(4, once * channels, 2.0));
        let (bias, initial) = (maybe(8, per_head, 1.0), maybe(16, state, 1.0));
        Problem {
            batch: s.batch,
            tokens: s.tokens,
            directions: s.directions,
            groups: s.groups,
            heads,
            headdim: s.headdim,
            states: s.states,
            shared,
            softplus: s.flags & 32 != 0,
            limits: if s.flags & 64 != 0 { [0.2, 0.8] } else { [0.0, f32::INFINITY] },
            table: Table::new(s.kind, s.batch, s.directions, s.tokens, &mut draw),
            x: draw.vec(once * channels, 1.0),
            dt: draw.vec(rows * heads, 1.0),
            a: draw.vec(per_head, 1.0).iter().map(|v| v - 1.05).collect(),
            b: draw.vec(rows * s.groups * s.states, 1.0),
            c: draw.vec(rows * s.groups * s.states, 1.0),
            dy: draw.vec(once * channels, 1.0),
            dfinal: draw.vec(state, 1.0),
            d,
            z,
            bias,
            initial,
        }
    }

    fn channel_strides(&self) -> Strides {
        let channels = self.heads * self.headdim;
        if self.shared {
            Strides::shared(self.tokens, channels)
        } else {
            Strides::contiguous(self.tokens, self.directions, 1, channels)
        }
    }

    fn head_strides(&self) -> Strides {
        Strides::contiguous(self.tokens, self.directions, 1, self.heads)
    }

    fn coefficient_strides(&self) -> Strides {
        Strides::contiguous(self.tokens, self.directions, self.groups, self.states)
    }

    fn ssd(&self) -> Ssd<'_> {
        Ssd {
            batch: self.batch,
            tokens: self.tokens,
            directions: self.directions,
            heads: self.heads,
            headdim: self.headdim,
            groups: self.groups,
            states: self.states,
            orders: self.table.orders(),
            x: View::f32(&self.x, self.channel_strides()),
            dt: View::f32(&self.dt, self.head_strides()),
            a: &self.a,
            b: View::f32(&self.b, self.coefficient_strides()),
            c: View::f32(&self.c, self.coefficient_strides()),
            d: self.d.as_deref(),
            z: self.z.as_ref().map(|z| View::f32(z, self.channel_strides())),
            dt_bias: self.bias.as_deref(),
            softplus: self.softplus,
            dt_limits: self.limits,
            initial_state: self.initial.as_deref(),
        }
    }

    fn leaves(&self) -> Vec<Vec<f64>> {
        let maybe = |v: &Option<Vec<f32>>| v.as_deref().map(to_wide).unwrap_or_default();
        let mut all: Vec<_> = [&self.x, &self.dt, &self.a, &self.b, &self.c].map(|v| to_wide(v)).into();
        all.extend([&self.d, &self.z, &self.bias, &self.initial].map(maybe));
        all
    }

    /// Where the values of a step lie: of x, y and z, of dt, of B and C.
    fn at(&self, s: usize, k: usize, h: usize, token: i32) -> [usize; 3] {
        let p = s * self.tokens + token.max(0) as usize;
        let own = p * self.directions + k;
        let once = if self.shared { p } else { own };
        let group = h / (self.heads / self.groups);
        [
            (once * self.heads + h) * self.headdim,
            own * self.heads + h,
            (own * self.groups + group) * self.states,
        ]
    }

    /// The step size, and its derivative by what it is made of.
    fn step_size(&self, raw: f64) -> (f64, f64) {
        let (dt, slope) = if self.softplus {
            (if raw > 30.0 { raw } else { raw.exp().ln_1p() }, 1.0 / (1.0 + (-raw).exp()))
        } else {
            (raw, 1.0)
        };
        let [lo, hi] = self.limits.map(f64::from);
        (dt.clamp(lo, hi), if dt < lo || dt > hi { 0.0 } else { slope })
    }

    /// The recurrence, one number at a time, on `v` in the order of `leaves`.
    fn reference(&self, v: &[Vec<f64>]) -> Answer<f64> {
        let [x, dt, a, b, c, d, z, bias, initial] = v else { panic!("nine inputs") };
        let mut y = vec![0.0; x.len()];
        let mut last = vec![0.0; self.ssd().state_len()];
        let mut grads: Vec<Vec<f64>> = v.iter().map(|v| vec![0.0; v.len()]).collect();
        let mut sizes: Vec<Vec<f64>> = grads.clone();
        let (p_all, n_all) = (self.headdim, self.states);
        let orders = (0..self.batch).flat_map(|s| (0..self.directions).map(move |k| (s, k)));
        for (s, k, h) in orders.flat_map(|(s, k)| (0..self.heads).map(move |h| (s, k, h))) {
            let (param, row) = (k * self.heads + h, (s * self.directions + k) * self.heads + h);
            let size = p_all * n_all;
            let path = self.table.path(self.directions, s, k);
            let start: Vec<f64> = match initial.is_empty() {
                true => vec![0.0; size],
                false => initial[row * size..(row + 1) * size].to_vec(),
            };
            let mut states = vec![start];
            let gate = |z: f64| z / (1.0 + (-z).exp());
            let mut outs = Vec::new();
            for &(token, reset, written) in &path {
                let [xs, ds, cs] = self.at(s, k, h, token);
                let read = |v: &[f64], at: usize| if token < 0 { 0.0 } else { v[at] };
                let (step, _) = self.step_size(read(dt, ds) + bias.get(param).copied().unwrap_or(0.0));
                let decay = if reset { 0.0 } else { (step * a[param]).exp() };
                let mut state = states[states.len() - 1].clone();
                for p in 0..p_all {
                    let input = read(x, xs + p);
                    let mut out = d.get(param * p_all + p).copied().unwrap_or(0.0) * input;
                    for n in 0..n_all {
                        let at = p * n_all + n;
                        state[at] = decay * state[at] + step * input * read(b, cs + n);
                        out += state[at] * read(c, cs + n);
                    }
                    outs.push(out);
                    if written >= 0 {
                        y[xs + p] += out * z.get(xs + p).map_or(1.0, |z| gate(*z));
                    }
                }
                states.push(state);
            }
            last[row * size..(row + 1) * size].copy_from_slice(&states[path.len()]);
            let mut g: Vec<f64> = to_wide(&self.dfinal[row * size..(row + 1) * size]);
            for (t, &(token, reset, written)) in path.iter().enumerate().rev() {
                let [xs, ds, cs] = self.at(s, k, h, token);
                let read = |v: &[f64], at: usize| if token < 0 { 0.0 } else { v[at] };
                let (step, slope) = self.step_size(read(dt, ds) + bias.get(param).copied().unwrap_or(0.0));
                let decay = if reset { 0.0 } else { (step * a[param]).exp() };
                let mut dstep = 0.0;
                for p in 0..p_all {
                    let mut dy = if written >= 0 { f64::from(self.dy[xs + p]) } else { 0.0 };
                    if let Some(z) = z.get(xs + p).filter(|_| token >= 0) {
                        let sigmoid = 1.0 / (1.0 + (-z).exp());
                        grads[6][xs + p] += dy * outs[t * p_all + p] * sigmoid * (1.0 + z * (1.0 - sigmoid));
                        dy *= z * sigmoid;
                    }
                    let input = read(x, xs + p);
                    let mut dx = 0.0;
                    if let Some(d) = d.get(param * p_all + p) {
                        grads[5][param * p_all + p] += dy * input;
                        sizes[5][param * p_all + p] += (dy * input).abs();
                        dx += d * dy;
                    }
                    for n in 0..n_all {
                        let at = p * n_all + n;
                        let (before, after) = (states[t][at], states[t + 1][at]);
                        g[at] += dy * read(c, cs + n);
                        if token >= 0 {
                            grads[4][cs + n] += dy * after;
                            grads[3][cs + n] += g[at] * step * input;
                        }
                        dx += g[at] * step * read(b, cs + n);
                        dstep += g[at] * (input * read(b, cs + n) + decay * a[param] * before);
                        let exponent = g[at] * decay * step * before;
                        grads[2][param] += exponent;
                        sizes[2][param] += exponent.abs();
                        g[at] *= decay;
                    }
                    if token >= 0 {
                        grads[0][xs + p] += dx;
                    }
                }
                if token >= 0 {
                    grads[1][ds] += dstep * slope;
                }
                if !bias.is_empty() {
                    grads[7][param] += dstep * slope;
                    sizes[7][param] += (dstep * slope).abs();
                }
            }
            if !initial.is_empty() {
                grads[8][row * size..(row + 1) * size].copy_from_slice(&g);
            }
        }
        let sizes = std::array::from_fn(|i| sizes[i].iter().fold(0.0, |m: f64, v| m.max(*v)));
        Answer { y, last, grads, sizes }
    }

    /// The quadratic dual form (section 5 of the paper): y of each step as a masked sum over all earlier ones.
    fn dual(&self) -> Vec<f64> {
        let [x, dt, a, b, c, d, z, bias, initial] = &self.leaves()[..] else { panic!("nine inputs") };
        let mut y = vec![0.0; x.len()];
        for s in 0..self.batch {
            for k in 0..self.directions {
                for h in 0..self.heads {
                    let param = k * self.heads + h;
                    let row = ((s * self.directions + k) * self.heads + h) * self.headdim * self.states;
                    let path = self.table.path(self.directions, s, k);
                    let step = |token: i32| {
                        let raw = if token < 0 { 0.0 } else { dt[self.at(s, k, h, token)[1]] };
                        self.step_size(raw + bias.get(param).copied().unwrap_or(0.0)).0
                    };
                    for (q, &(token, _, written)) in path.iter().enumerate().filter(|(_, step)| step.2 >= 0) {
                        let [xq, _, cq] = self.at(s, k, h, token);
                        assert_eq!(token, written);
                        for p in 0..self.headdim {
                            let mut out = d.get(param * self.headdim + p).copied().unwrap_or(0.0) * x[xq + p];
                            // The log of the decay from step t to step q; nothing passes a reset.
                            let (mut exponent, mut passes) = (0.0, true);
                            for &(token, reset, _) in path[..=q].iter().rev() {
                                if token >= 0 && passes {
                                    let [xs, _, bs] = self.at(s, k, h, token);
                                    let score: f64 = (0..self.states).map(|n| c[cq + n] * b[bs + n]).sum();
                                    out += score * f64::exp(exponent) * step(token) * x[xs + p];
                                }
                                exponent += step(token) * a[param];
                                passes &= !reset;
                            }
                            if passes && !initial.is_empty() {
                                let start = &initial[row + p * self.states..row + (p + 1) * self.states];
                                let score: f64 = (0..self.states).map(|n| c[cq + n] * start[n]).sum();
                                out += score * f64::exp(exponent);
                            }
                            y[xq + p] += out * z.get(xq + p).map_or(1.0, |z| z / (1.0 + (-z).exp()));
                        }
                    }
                }
            }
        }
        y
    }

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
        Answer { y, last, grads, sizes: [0.0; 9] }
    }

    fn check(&self, pool: &dyn ophidian_kernels::Pool) {
        let want = self.reference(&self.leaves());
        for isa in common::isas() {
            let got = self.run(isa, pool);
            close("y", &got.y, &want.y, 1e-5);
            close("final_state", &got.last, &want.last, 1e-5);
            for (i, (got, grad)) in got.grads.iter().zip(&want.grads).enumerate() {
                // Sums over samples and steps cancel: 1e-6 of what was summed.
                close_to(NAMES[i], got, grad, 3e-5, (want.sizes[i] / 30.0).max(1e-3));
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
        for (i, grad) in grads.iter().enumerate() {
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
