//! Random problems of the SSD and the equations in f64: the recurrence with its gradients, and the quadratic dual form.

use ophidian_kernels::{Strides, View, ssd::Ssd};
use proptest::prelude::*;

use super::{Draw, Kind, Table, kinds, wide as to_wide};

/// A problem that owns its data. (K directions share x, z and y if `shared`.)
pub struct Problem {
    pub batch: usize,
    pub tokens: usize,
    pub directions: usize,
    pub groups: usize,
    pub heads: usize,
    pub headdim: usize,
    pub states: usize,
    pub shared: bool,
    pub softplus: bool,
    pub limits: [f32; 2],
    pub table: Table,
    pub x: Vec<f32>,
    pub dt: Vec<f32>,
    pub a: Vec<f32>,
    pub b: Vec<f32>,
    pub c: Vec<f32>,
    pub d: Option<Vec<f32>>,
    pub z: Option<Vec<f32>>,
    pub bias: Option<Vec<f32>>,
    pub initial: Option<Vec<f32>>,
    pub dy: Vec<f32>,
    pub dfinal: Vec<f32>,
}

#[derive(Debug, Clone)]
pub struct Shape {
    pub batch: usize,
    pub tokens: usize,
    pub directions: usize,
    pub groups: usize,
    pub per_group: usize,
    pub headdim: usize,
    pub states: usize,
    pub flags: u8,
    pub kind: Kind,
    pub seed: u64,
}

pub fn shapes(tokens: usize, headdim: usize, states: usize) -> impl Strategy<Value = Shape> {
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
pub struct Answer<T> {
    pub y: Vec<T>,
    pub last: Vec<T>,
    pub grads: Vec<Vec<T>>,
}

/// How kernels sum, for [`Problem::sizes`].
#[derive(Debug, Clone, Copy)]
pub struct Summing {
    /// Steps of a chunk.
    pub chunk: usize,
    /// Whether a chunk ends where the state starts afresh.
    pub at_resets: bool,
    /// What pairs of steps that cancel within a chunk cost, of what a size costs.
    pub cancelling: f64,
}

pub const NAMES: [&str; 9] = ["dx", "ddt", "dA", "dB", "dC", "dD", "dz", "ddt_bias", "dinitial"];

impl Problem {
    pub fn new(s: &Shape) -> Problem {
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

    pub fn channel_strides(&self) -> Strides {
        let channels = self.heads * self.headdim;
        if self.shared {
            Strides::shared(self.tokens, channels)
        } else {
            Strides::contiguous(self.tokens, self.directions, 1, channels)
        }
    }

    pub fn head_strides(&self) -> Strides {
        Strides::contiguous(self.tokens, self.directions, 1, self.heads)
    }

    pub fn coefficient_strides(&self) -> Strides {
        Strides::contiguous(self.tokens, self.directions, self.groups, self.states)
    }

    pub fn ssd(&self) -> Ssd<'_> {
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

    pub fn leaves(&self) -> Vec<Vec<f64>> {
        let maybe = |v: &Option<Vec<f32>>| v.as_deref().map(to_wide).unwrap_or_default();
        let mut all: Vec<_> = [&self.x, &self.dt, &self.a, &self.b, &self.c].map(|v| to_wide(v)).into();
        all.extend([&self.d, &self.z, &self.bias, &self.initial].map(maybe));
        all
    }

    /// Where the values of a step lie: of x, y and z, of dt, of B and C.
    pub fn at(&self, s: usize, k: usize, h: usize, token: i32) -> [usize; 3] {
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

    /// dt + bias after softplus, and its derivative.
    fn unlimited(&self, raw: f64) -> (f64, f64) {
        if self.softplus {
            (if raw > 30.0 { raw } else { raw.exp().ln_1p() }, 1.0 / (1.0 + (-raw).exp()))
        } else {
            (raw, 1.0)
        }
    }

    /// Whether a step size is that close to a limit, where it has no derivative.
    fn at_a_limit(&self, raw: f64, margin: f64) -> bool {
        let (dt, _) = self.unlimited(raw);
        self.limits.iter().any(|limit| (dt - f64::from(*limit)).abs() < margin)
    }

    /// Whether any is.
    pub fn any_at_a_limit(&self, margin: f64) -> bool {
        let bias = self.bias.as_deref().unwrap_or(&[]);
        let of = |(i, dt): (usize, &f32)| {
            let parameter = i / self.heads % self.directions * self.heads + i % self.heads;
            f64::from(*dt) + f64::from(bias.get(parameter).copied().unwrap_or(0.0))
        };
        // A blank step has nothing but the bias.
        let blanks = bias.iter().map(|bias| f64::from(*bias));
        self.dt.iter().enumerate().map(of).chain(blanks).any(|raw| self.at_a_limit(raw, margin))
    }

    /// The step size, and its derivative by what it is made of.
    pub fn step_size(&self, raw: f64) -> (f64, f64) {
        let ((dt, slope), [lo, hi]) = (self.unlimited(raw), self.limits.map(f64::from));
        (dt.clamp(lo, hi), if dt < lo || dt > hi { 0.0 } else { slope })
    }

    /// The recurrence, one number at a time, on `v` in the order of `leaves`.
    pub fn reference(&self, v: &[Vec<f64>]) -> Answer<f64> {
        self.recurrence(v, None)
    }

    /// Of every value of the answer, the sum of the sizes of what it is a sum of: what errors of rounding are relative to.
    ///
    /// A decay is counted as if its exponent were 5% nearer to 0, because its error grows with its exponent. The gradient of
    /// a decay is that of all pairs of steps on either side of it; kernels take it from sums over all later pairs of its
    /// chunk, most of which cancel: these count `cancelling` times. Where f32 may be on another side of a limit of dt than
    /// f64, the gradient has no bound.
    pub fn sizes(&self, summing: Summing) -> Answer<f64> {
        let mut v = self.leaves();
        for i in [0, 3, 4, 5, 8] {
            v[i].iter_mut().for_each(|v| *v = v.abs());
        }
        self.recurrence(&v, Some(summing))
    }

    fn recurrence(&self, v: &[Vec<f64>], sizes: Option<Summing>) -> Answer<f64> {
        let [x, dt, a, b, c, d, z, bias, initial] = v else { panic!("nine inputs") };
        let sized = |v: f64| if sizes.is_some() { v.abs() } else { v };
        let mut y = vec![0.0; x.len()];
        let mut last = vec![0.0; self.ssd().state_len()];
        let mut grads: Vec<Vec<f64>> = v.iter().map(|v| vec![0.0; v.len()]).collect();
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
            let gate = |z: f64| sized(z / (1.0 + (-z).exp()));
            let raw = |token: i32, ds: usize| {
                (if token < 0 { 0.0 } else { dt[ds] }) + bias.get(param).copied().unwrap_or(0.0)
            };
            let rate = a[param] * if sizes.is_some() { 0.95 } else { 1.0 };
            let decays = |step: f64, reset: bool| if reset { 0.0 } else { (step * rate).exp() };
            let mut outs = Vec::new();
            for &(token, reset, written) in &path {
                let [xs, ds, cs] = self.at(s, k, h, token);
                let read = |v: &[f64], at: usize| if token < 0 { 0.0 } else { v[at] };
                let (step, _) = self.step_size(raw(token, ds));
                let (decay, step) = (decays(step, reset), sized(step));
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
            let dfinal = &self.dfinal[row * size..(row + 1) * size];
            let mut g: Vec<f64> = dfinal.iter().map(|v| sized(f64::from(*v))).collect();
            // Where chunks begin.
            let mut taken = 0;
            let mut begins = |reset: bool, Summing { chunk, at_resets, .. }: Summing| {
                let begins = taken == chunk || at_resets && reset;
                taken = if begins { 1 } else { taken + 1 };
                begins
            };
            let begins: Vec<bool> =
                path.iter().map(|step| sizes.is_some_and(|summing| begins(step.1, summing))).collect();
            // What y of later steps of the chunk has of its states, times its gradient.
            let mut later = 0.0;
            for (t, &(token, reset, written)) in path.iter().enumerate().rev() {
                let [xs, ds, cs] = self.at(s, k, h, token);
                let read = |v: &[f64], at: usize| if token < 0 { 0.0 } else { v[at] };
                let (step, slope) = self.step_size(raw(token, ds));
                let (decay, step) = (decays(step, reset), sized(step));
                if begins.get(t + 1) == Some(&true) {
                    later = 0.0;
                }
                let mut dstep = 0.0;
                for p in 0..p_all {
                    let mut dy = if written >= 0 { sized(f64::from(self.dy[xs + p])) } else { 0.0 };
                    if let Some(z) = z.get(xs + p).filter(|_| token >= 0) {
                        let sigmoid = 1.0 / (1.0 + (-z).exp());
                        grads[6][xs + p] +=
                            dy * outs[t * p_all + p] * sigmoid * (1.0 + sized(*z) * (1.0 - sigmoid));
                        dy *= gate(*z);
                    }
                    let input = read(x, xs + p);
                    let mut dx = 0.0;
                    if let Some(d) = d.get(param * p_all + p) {
                        grads[5][param * p_all + p] += dy * input;
                        dx += d * dy;
                    }
                    for n in 0..n_all {
                        let at = p * n_all + n;
                        let (before, after) = (states[t][at], states[t + 1][at]);
                        g[at] += dy * read(c, cs + n);
                        later += dy * after * read(c, cs + n);
                        if token >= 0 {
                            grads[4][cs + n] += dy * after;
                            grads[3][cs + n] += g[at] * step * input;
                        }
                        dx += g[at] * step * read(b, cs + n);
                        dstep += g[at] * (input * read(b, cs + n) + decay * sized(a[param]) * before);
                        grads[2][param] += g[at] * decay * step * before;
                        g[at] *= decay;
                    }
                    if token >= 0 {
                        grads[0][xs + p] += dx;
                    }
                }
                let mut dt = dstep * slope;
                if let Some(Summing { cancelling, .. }) = sizes {
                    grads[2][param] += step * cancelling * later;
                    dt += slope * sized(a[param]) * cancelling * later;
                    if self.at_a_limit(raw(token, ds), 1e-6) {
                        dt = f64::INFINITY;
                    }
                }
                if token >= 0 {
                    grads[1][ds] += dt;
                }
                if !bias.is_empty() {
                    grads[7][param] += dt;
                }
            }
            if !initial.is_empty() {
                grads[8][row * size..(row + 1) * size].copy_from_slice(&g);
            }
        }
        Answer { y, last, grads }
    }

    /// The quadratic dual form (section 5 of the paper): y of each step as a masked sum over all earlier ones.
    pub fn dual(&self) -> Vec<f64> {
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
}
