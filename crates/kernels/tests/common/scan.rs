//! A selective scan that owns its data, its equations in f64, and the kernels of the CPU on it.

use super::{Draw, Kind, Table, Two, kinds, wide as to_wide};
use ophidian_kernels::{
    Isa, Strides, View, ViewMut,
    scan::{self, Backward, Forward, Scan, wide},
};
use proptest::prelude::*;

/// A problem that owns its data. (K directions share u, z and y if `shared`.)
pub struct Problem {
    pub batch: usize,
    pub tokens: usize,
    pub directions: usize,
    pub groups: usize,
    pub channels: usize,
    pub states: usize,
    pub shared: bool,
    pub softplus: bool,
    pub table: Table,
    pub u: Vec<f32>,
    pub delta: Vec<f32>,
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
    pub states: usize,
    pub flags: u8,
    pub kind: Kind,
    pub seed: u64,
}

pub fn shapes(tokens: usize, channels: usize, states: usize) -> impl Strategy<Value = Shape> {
    (
        (0..3usize, 0..tokens, 1..4usize),
        (1..3usize, 1..channels, 1..states),
        (any::<u8>(), kinds(), any::<u64>()),
    )
        .prop_map(|((batch, tokens, directions), (groups, per_group, states), (flags, kind, seed))| {
            Shape { batch, tokens, directions, groups, per_group, states, flags, kind, seed }
        })
}

impl Problem {
    pub fn new(s: &Shape) -> Problem {
        let mut draw = Draw(s.seed);
        let (channels, shared) = (s.groups * s.per_group, s.flags & 1 != 0);
        let rows = s.batch * s.tokens * s.directions;
        let once = if shared { s.batch * s.tokens } else { rows };
        let state = s.batch * s.directions * channels * s.states;
        let per_channel = s.directions * channels;
        // Without softplus a negative step would make the state grow without bound.
        let softplus = s.flags & 32 != 0;
        let steps =
            |v: Vec<f32>| v.into_iter().map(|v| if softplus { v } else { v.abs() }).collect::<Vec<_>>();
        let mut maybe = |bit: u8, len: usize, scale: f64| (s.flags & bit != 0).then(|| draw.vec(len, scale));
        let (d, z) = (maybe(2, per_channel, 1.0), maybe(4, once * channels, 2.0));
        let (bias, initial) = (maybe(8, per_channel, 1.0), maybe(16, state, 1.0));
        Problem {
            batch: s.batch,
            tokens: s.tokens,
            directions: s.directions,
            groups: s.groups,
            channels,
            states: s.states,
            shared,
            softplus,
            table: Table::new(s.kind, s.batch, s.directions, s.tokens, &mut draw),
            u: draw.vec(once * channels, 1.0),
            delta: steps(draw.vec(rows * channels, 0.5)),
            a: draw.vec(per_channel * s.states, 1.0).iter().map(|v| v - 1.05).collect(),
            b: draw.vec(rows * s.groups * s.states, 1.0),
            c: draw.vec(rows * s.groups * s.states, 1.0),
            dy: draw.vec(once * channels, 1.0),
            dfinal: draw.vec(state, 1.0),
            d,
            z,
            bias: bias.map(steps),
            initial,
        }
    }

    pub fn channel_strides(&self) -> Strides {
        Strides::contiguous(self.tokens, self.directions, 1, self.channels)
    }

    pub fn once_strides(&self) -> Strides {
        if self.shared { Strides::shared(self.tokens, self.channels) } else { self.channel_strides() }
    }

    pub fn coefficient_strides(&self) -> Strides {
        Strides::contiguous(self.tokens, self.directions, self.groups, self.states)
    }

    pub fn scan(&self) -> Scan<'_> {
        Scan {
            batch: self.batch,
            tokens: self.tokens,
            directions: self.directions,
            channels: self.channels,
            groups: self.groups,
            states: self.states,
            orders: self.table.orders(),
            u: View::f32(&self.u, self.once_strides()),
            delta: View::f32(&self.delta, self.channel_strides()),
            a: &self.a,
            b: View::f32(&self.b, self.coefficient_strides()),
            c: View::f32(&self.c, self.coefficient_strides()),
            d: self.d.as_deref(),
            z: self.z.as_ref().map(|z| View::f32(z, self.once_strides())),
            delta_bias: self.bias.as_deref(),
            softplus: self.softplus,
            initial_state: self.initial.as_deref(),
        }
    }

    /// The equations, one number at a time: y (shape of u) and the final state. `x` overrides the inputs in the order
    /// of `leaves`.
    pub fn naive(&self, x: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
        let [u, delta, a, b, c, d, z, bias, initial] = x else { panic!("nine inputs") };
        let (k_all, ch, n_all) = (self.directions, self.channels, self.states);
        let mut y = vec![0.0; u.len()];
        let mut last = vec![0.0; self.batch * k_all * ch * n_all];
        for s in 0..self.batch {
            for k in 0..k_all {
                for i in 0..ch {
                    let row = (s * k_all + k) * ch + i;
                    let param = k * ch + i;
                    let g = i / (ch / self.groups);
                    let mut h: Vec<f64> =
                        (0..n_all).map(|n| initial.get(row * n_all + n).copied().unwrap_or(0.0)).collect();
                    for (token, reset, written) in self.table.path(k_all, s, k) {
                        if reset {
                            h.fill(0.0);
                        }
                        let blank = token < 0;
                        let p = token.max(0) as usize;
                        let once =
                            if self.shared { s * self.tokens + p } else { (s * self.tokens + p) * k_all + k };
                        let own = (s * self.tokens + p) * k_all + k;
                        let read = |v: &Vec<f64>, at: usize| if blank { 0.0 } else { v[at] };
                        let mut dt = read(delta, own * ch + i) + bias.get(param).copied().unwrap_or(0.0);
                        if self.softplus {
                            dt = if dt > 20.0 { dt } else { dt.exp().ln_1p() };
                        }
                        let input = read(u, once * ch + i);
                        let mut out = d.get(param).copied().unwrap_or(0.0) * input;
                        for n in 0..n_all {
                            let coefficient = (own * self.groups + g) * n_all + n;
                            h[n] =
                                (dt * a[param * n_all + n]).exp() * h[n] + dt * read(b, coefficient) * input;
                            out += read(c, coefficient) * h[n];
                        }
                        if written >= 0 {
                            let gate = z.get(once * ch + i).map_or(1.0, |z| z / (1.0 + (-z).exp()));
                            y[once * ch + i] += out * gate;
                        }
                    }
                    last[row * n_all..(row + 1) * n_all].copy_from_slice(&h);
                }
            }
        }
        (y, last)
    }

    pub fn leaves(&self) -> Vec<Vec<f64>> {
        let maybe = |v: &Option<Vec<f32>>| v.as_deref().map(to_wide).unwrap_or_default();
        let w = |v: &Vec<f32>| to_wide(v);
        vec![
            w(&self.u),
            w(&self.delta),
            w(&self.a),
            w(&self.b),
            w(&self.c),
            maybe(&self.d),
            maybe(&self.z),
            maybe(&self.bias),
            maybe(&self.initial),
        ]
    }

    /// Runs the f64 kernels: (y, final state, gradients in the order of `leaves`).
    pub fn wide(&self) -> (Vec<f64>, Vec<f64>, Vec<Vec<f64>>) {
        let x = self.leaves();
        let given = |i: usize, present: bool| present.then_some(x[i].as_slice());
        let scan = wide::Wide {
            batch: self.batch,
            tokens: self.tokens,
            directions: self.directions,
            channels: self.channels,
            groups: self.groups,
            states: self.states,
            complex: false,
            orders: self.table.orders(),
            u: View::f64(&x[0], self.once_strides()),
            delta: View::f64(&x[1], self.channel_strides()),
            a: &x[2],
            b: wide::Coefficient::Varying(View::f64(&x[3], self.coefficient_strides())),
            c: wide::Coefficient::Varying(View::f64(&x[4], self.coefficient_strides())),
            d: given(5, self.d.is_some()),
            z: given(6, self.z.is_some()).map(|z| View::f64(z, self.once_strides())),
            delta_bias: given(7, self.bias.is_some()),
            softplus: self.softplus,
            initial_state: given(8, self.initial.is_some()),
        };
        let mut y = vec![f64::NAN; self.u.len()];
        let mut last = vec![f64::NAN; scan.state_len()];
        wide::forward(&scan, &ViewMut::f64(&mut y, self.once_strides()), Some(&mut last), &Two).unwrap();
        let mut g: Vec<Vec<f64>> = x.iter().map(|v| vec![f64::NAN; v.len()]).collect();
        let mut initial = vec![f64::NAN; scan.state_len()];
        let (dy, dfinal) = (to_wide(&self.dy), to_wide(&self.dfinal));
        let [du, ddelta, da, db, dc, dd, dz, dbias, _] = &mut g[..] else { unreachable!() };
        let out = wide::WideBackward {
            dy: View::f64(&dy, self.once_strides()),
            dfinal: Some(&dfinal),
            du: ViewMut::f64(du, self.once_strides()),
            ddelta: ViewMut::f64(ddelta, self.channel_strides()),
            dz: self.z.is_some().then(|| ViewMut::f64(dz, self.once_strides())),
            db: wide::CoefficientGrad::Varying(ViewMut::f64(db, self.coefficient_strides())),
            dc: wide::CoefficientGrad::Varying(ViewMut::f64(dc, self.coefficient_strides())),
            da,
            dd: self.d.is_some().then_some(dd.as_mut_slice()),
            ddelta_bias: self.bias.is_some().then_some(dbias.as_mut_slice()),
            dinitial: Some(&mut initial),
        };
        wide::backward(&scan, out, &Two).unwrap();
        if self.initial.is_some() {
            g[8] = initial;
        }
        (y, last, g)
    }

    /// Runs the fast kernels, as `wide`.
    pub fn fast(&self, isa: Isa, pool: &dyn ophidian_kernels::Pool) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>) {
        let scan = self.scan();
        let mut y = vec![f32::NAN; self.u.len()];
        let mut last = vec![f32::NAN; scan.state_len()];
        let mut checkpoints = vec![f32::NAN; scan::checkpoint_len(&scan, isa).unwrap()];
        let out = Forward {
            y: ViewMut::f32(&mut y, self.once_strides()),
            final_state: Some(&mut last),
            checkpoints: Some(&mut checkpoints),
        };
        scan::forward(&scan, out, isa, pool).unwrap();
        let mut g: Vec<Vec<f32>> = self.leaves().iter().map(|v| vec![f32::NAN; v.len()]).collect();
        let mut initial = vec![f32::NAN; scan.state_len()];
        let [du, ddelta, da, db, dc, dd, dz, dbias, _] = &mut g[..] else { unreachable!() };
        let out = Backward {
            dy: View::f32(&self.dy, self.once_strides()),
            dfinal: Some(&self.dfinal),
            checkpoints: &checkpoints,
            du: ViewMut::f32(du, self.once_strides()),
            ddelta: ViewMut::f32(ddelta, self.channel_strides()),
            dz: self.z.is_some().then(|| ViewMut::f32(dz, self.once_strides())),
            db: ViewMut::f32(db, self.coefficient_strides()),
            dc: ViewMut::f32(dc, self.coefficient_strides()),
            da,
            dd: self.d.is_some().then_some(dd.as_mut_slice()),
            ddelta_bias: self.bias.is_some().then_some(dbias.as_mut_slice()),
            dinitial: Some(&mut initial),
        };
        scan::backward(&scan, out, isa, pool).unwrap();
        if self.initial.is_some() {
            g[8] = initial;
        }
        (y, last, g)
    }
}

pub const NAMES: [&str; 9] = ["du", "ddelta", "dA", "dB", "dC", "dD", "dz", "ddelta_bias", "dinitial"];
