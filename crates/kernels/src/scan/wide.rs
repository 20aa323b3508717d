//! The selective scan in f64, plainly: complex A, constant or varying B and C, and whatever else the fast kernels
//! leave out. One channel at a time; a channel's states are kept for its own backward and dropped after it.

use std::ops::{Add, AddAssign, Mul};

use crate::{Dtype, Error, Orders, Pool, Result, View, ViewMut, orders::Path};

/// B or C.
#[derive(Clone, Copy)]
pub enum Coefficient<'a> {
    /// (B, L, K, G, N): one row per token and group.
    Varying(View<'a>),
    /// (K, D, N): the same at every token, per channel.
    Constant(&'a [f64]),
}

/// As [`super::Scan`], in f64. With `complex`, A, B, C and the states hold (re, im) pairs: their last axis is 2 N
/// long, and y = 2 Re(sum_n C_n h_n).
#[derive(Clone, Copy)]
#[allow(missing_docs)]
pub struct Wide<'a> {
    pub batch: usize,
    pub tokens: usize,
    pub directions: usize,
    pub channels: usize,
    pub groups: usize,
    pub states: usize,
    pub complex: bool,
    pub orders: Orders<'a>,
    pub u: View<'a>,
    pub delta: View<'a>,
    pub a: &'a [f64],
    pub b: Coefficient<'a>,
    pub c: Coefficient<'a>,
    pub d: Option<&'a [f64]>,
    pub z: Option<View<'a>>,
    pub delta_bias: Option<&'a [f64]>,
    pub softplus: bool,
    pub initial_state: Option<&'a [f64]>,
}

/// Where the gradient of B or C goes.
pub enum CoefficientGrad<'a> {
    /// (B, L, K, G, N).
    Varying(ViewMut<'a>),
    /// (K, D, N).
    Constant(&'a mut [f64]),
}

/// As [`super::Backward`], in f64; no checkpoints are needed.
#[allow(missing_docs)]
pub struct WideBackward<'a> {
    pub dy: View<'a>,
    pub dfinal: Option<&'a [f64]>,
    pub du: ViewMut<'a>,
    pub ddelta: ViewMut<'a>,
    pub dz: Option<ViewMut<'a>>,
    pub db: CoefficientGrad<'a>,
    pub dc: CoefficientGrad<'a>,
    pub da: &'a mut [f64],
    pub dd: Option<&'a mut [f64]>,
    pub ddelta_bias: Option<&'a mut [f64]>,
    pub dinitial: Option<&'a mut [f64]>,
}

/// A complex number; real problems leave `im` at 0.
#[derive(Clone, Copy, Default)]
struct C64 {
    re: f64,
    im: f64,
}

impl C64 {
    fn conj(self) -> C64 {
        C64 { re: self.re, im: -self.im }
    }
    fn exp(self) -> C64 {
        let r = self.re.exp();
        if self.im == 0.0 {
            C64 { re: r, im: 0.0 }
        } else {
            C64 { re: r * self.im.cos(), im: r * self.im.sin() }
        }
    }
    fn scale(self, x: f64) -> C64 {
        C64 { re: self.re * x, im: self.im * x }
    }
}

impl Mul for C64 {
    type Output = C64;
    fn mul(self, o: C64) -> C64 {
        C64 { re: self.re * o.re - self.im * o.im, im: self.re * o.im + self.im * o.re }
    }
}

impl Add for C64 {
    type Output = C64;
    fn add(self, o: C64) -> C64 {
        C64 { re: self.re + o.re, im: self.im + o.im }
    }
}

impl AddAssign for C64 {
    fn add_assign(&mut self, o: C64) {
        *self = *self + o;
    }
}

fn softplus(x: f64) -> f64 {
    x.max(0.0) + (-x.abs()).exp().ln_1p()
}

fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

impl Wide<'_> {
    /// f64 values per state: 1 or 2.
    pub fn parts(&self) -> usize {
        if self.complex { 2 } else { 1 }
    }

    /// Values of the final and the initial state.
    pub fn state_len(&self) -> usize {
        self.batch * self.directions * self.channels * self.states * self.parts()
    }

    fn channel_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, 1, self.channels]
    }

    fn coefficient_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, self.groups, self.states * self.parts()]
    }

    fn check(&self) -> Result<crate::orders::Paths> {
        if self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            return Err(Error::Shape(format!(
                "{} channels do not divide into {} groups",
                self.channels, self.groups
            )));
        }
        for (name, view) in [("u", Some(self.u)), ("delta", Some(self.delta)), ("z", self.z)] {
            view.map_or(Ok(()), |view| view.check(name, self.channel_extent()))?;
        }
        let per_channel = self.directions * self.channels;
        let wide = per_channel * self.states * self.parts();
        for (name, coefficient) in [("B", self.b), ("C", self.c)] {
            match coefficient {
                Coefficient::Varying(view) => view.check(name, self.coefficient_extent())?,
                Coefficient::Constant(values) => super::length(name, values, wide)?,
            }
        }
        super::length("A", self.a, wide)?;
        for (name, slice) in [("D", self.d), ("delta_bias", self.delta_bias)] {
            slice.map_or(Ok(()), |slice| super::length(name, slice, per_channel))?;
        }
        self.initial_state.map_or(Ok(()), |s| super::length("initial_state", s, self.state_len()))?;
        self.orders.paths(self.batch, self.tokens, self.directions)
    }

    fn number(&self, values: &[f64], index: usize) -> C64 {
        if self.complex {
            C64 { re: values[2 * index], im: values[2 * index + 1] }
        } else {
            C64 { re: values[index], im: 0.0 }
        }
    }

    /// Coefficient n of channel `d` at a token (zero at a blank).
    fn coefficient(&self, of: &Coefficient, at: &Spot, token: i32, n: usize) -> C64 {
        match of {
            Coefficient::Constant(values) => self.number(values, at.row * self.states + n),
            Coefficient::Varying(_) if token < 0 => C64::default(),
            Coefficient::Varying(view) => {
                let offset = view.offset(at.b, token as usize, at.k, at.group) + n * self.parts();
                C64 { re: view.get(offset), im: if self.complex { view.get(offset + 1) } else { 0.0 } }
            }
        }
    }

    fn input(&self, view: &View, at: &Spot, token: i32) -> f64 {
        if token < 0 { 0.0 } else { view.get(view.offset(at.b, token as usize, at.k, 0) + at.channel) }
    }

    /// delta before and after softplus at a step.
    fn delta(&self, at: &Spot, token: i32) -> (f64, f64) {
        let raw = self.input(&self.delta, at, token) + self.delta_bias.map_or(0.0, |bias| bias[at.row]);
        (raw, if self.softplus { softplus(raw) } else { raw })
    }

    fn initial(&self, at: &Spot) -> Vec<C64> {
        let first = (at.b * self.directions * self.channels + at.row) * self.states;
        (0..self.states)
            .map(|n| self.initial_state.map_or(C64::default(), |state| self.number(state, first + n)))
            .collect()
    }

    /// One step: the new states, and y before the gate.
    fn advance(&self, at: &Spot, token: i32, reset: bool, before: &[C64], after: &mut [C64]) -> f64 {
        let (_, dt) = self.delta(at, token);
        let u = self.input(&self.u, at, token);
        let mut y = 0.0;
        for n in 0..self.states {
            let a = self.number(self.a, at.row * self.states + n);
            let carried = if reset { C64::default() } else { a.scale(dt).exp() * before[n] };
            after[n] = carried + self.coefficient(&self.b, at, token, n).scale(dt * u);
            y += (self.coefficient(&self.c, at, token, n) * after[n]).re;
        }
        self.parts() as f64 * y + self.d.map_or(0.0, |d| d[at.row] * u)
    }
}

/// A channel of a direction of a sample.
struct Spot {
    b: usize,
    k: usize,
    channel: usize,
    group: usize,
    /// k D + channel.
    row: usize,
}

impl Spot {
    fn new(scan: &Wide, b: usize, k: usize, channel: usize) -> Self {
        let group = channel / (scan.channels / scan.groups);
        Spot { b, k, channel, group, row: k * scan.channels + channel }
    }
}

/// The forward: y (B, L, K, D) f64, a shared direction stride sums; the final state (B, K, D, N).
///
/// # Errors
/// Shapes that do not fit, or an order that points outside; nothing is written then.
pub fn forward(scan: &Wide, y: &ViewMut, final_state: Option<&mut [f64]>, pool: &dyn Pool) -> Result<()> {
    let paths = scan.check()?;
    y.check("y", scan.channel_extent(), Dtype::F64)?;
    if let Some(state) = &final_state {
        super::length("final_state", state, scan.state_len())?;
    }
    y.zero(scan.channel_extent());
    let last = Shared(final_state.map(|state| state.as_mut_ptr()));
    pool.run(scan.batch * scan.channels, &|task| {
        let (b, channel) = (task / scan.channels, task % scan.channels);
        for k in 0..scan.directions {
            let (at, path) = (Spot::new(scan, b, k, channel), paths.get(b, k));
            let mut before = scan.initial(&at);
            let mut after = before.clone();
            for (t, &token) in path.tokens.iter().enumerate() {
                let mut value = scan.advance(&at, token, path.reset(t), &before, &mut after);
                std::mem::swap(&mut before, &mut after);
                if path.written()[t] >= 0 {
                    if let Some(z) = &scan.z {
                        let z = scan.input(z, &at, token);
                        value *= z * sigmoid(z);
                    }
                    // Safety: checked extent; a task owns its channel.
                    unsafe { *y.ptr::<f64>().add(y.offset(b, token as usize, k, 0) + channel) += value };
                }
            }
            last.put(scan, &at, &before);
        }
    });
    Ok(())
}

/// A (B, K, D, N) output that tasks write disjoint parts of.
struct Shared(Option<*mut f64>);

// Safety: a task owns its channel.
unsafe impl Sync for Shared {}

impl Shared {
    fn put(&self, scan: &Wide, at: &Spot, state: &[C64]) {
        let Some(to) = self.0 else { return };
        let first = (at.b * scan.directions * scan.channels + at.row) * scan.states * scan.parts();
        for (n, h) in state.iter().enumerate() {
            // Safety: checked length.
            unsafe {
                *to.add(first + n * scan.parts()) = h.re;
                if scan.complex {
                    *to.add(first + 2 * n + 1) = h.im;
                }
            }
        }
    }
}

/// Every gradient. Complex ones are dL/dRe + i dL/dIm.
///
/// # Errors
/// As [`forward`].
pub fn backward(scan: &Wide, mut out: WideBackward, pool: &dyn Pool) -> Result<()> {
    let paths = scan.check()?;
    check_outputs(scan, &out)?;
    for view in [Some(&out.du), Some(&out.ddelta), out.dz.as_ref()].into_iter().flatten() {
        view.zero(scan.channel_extent());
    }
    for grad in [&out.db, &out.dc] {
        if let CoefficientGrad::Varying(view) = grad {
            view.zero(scan.coefficient_extent());
        }
    }

    // dB and dC sum over the channels of a group, so a task is a (sample, group); its parameter gradients are kept
    // apart and added in order.
    let per_group = scan.channels / scan.groups;
    let slots: Vec<_> = (0..scan.batch * scan.groups).map(|_| std::sync::Mutex::new(Vec::new())).collect();
    let initial = Shared(out.dinitial.take().map(|state| state.as_mut_ptr()));
    pool.run(slots.len(), &|task| {
        let (b, group) = (task / scan.groups, task % scan.groups);
        let mut found = Vec::new();
        for channel in group * per_group..(group + 1) * per_group {
            for k in 0..scan.directions {
                let at = Spot::new(scan, b, k, channel);
                let sums = channel_backward(scan, &at, paths.get(b, k), &out, &initial);
                found.push((at.row, sums));
            }
        }
        if let Ok(mut slot) = slots[task].lock() {
            *slot = found;
        }
    });

    let WideBackward { mut db, mut dc, da, mut dd, mut ddelta_bias, .. } = out;
    da.fill(0.0);
    dd.iter_mut().for_each(|dd| dd.fill(0.0));
    ddelta_bias.iter_mut().for_each(|dbias| dbias.fill(0.0));
    for grad in [&mut db, &mut dc] {
        if let CoefficientGrad::Constant(values) = grad {
            values.fill(0.0);
        }
    }
    for (row, sums) in slots.into_iter().flat_map(|slot| slot.into_inner().unwrap_or_default()) {
        let add = |to: &mut [f64], from: &[C64]| {
            for (n, value) in from.iter().enumerate() {
                let at = (row * scan.states + n) * scan.parts();
                to[at] += value.re;
                if scan.complex {
                    to[at + 1] += value.im;
                }
            }
        };
        add(da, &sums.a);
        for (grad, from) in [(&mut db, &sums.b), (&mut dc, &sums.c)] {
            if let CoefficientGrad::Constant(values) = grad {
                add(values, from);
            }
        }
        dd.iter_mut().for_each(|dd| dd[row] += sums.d);
        ddelta_bias.iter_mut().for_each(|dbias| dbias[row] += sums.bias);
    }
    Ok(())
}

fn check_outputs(scan: &Wide, out: &WideBackward) -> Result<()> {
    out.dy.check("dy", scan.channel_extent())?;
    for (name, view) in [("du", Some(&out.du)), ("ddelta", Some(&out.ddelta)), ("dz", out.dz.as_ref())] {
        view.map_or(Ok(()), |view| view.check(name, scan.channel_extent(), Dtype::F64))?;
    }
    let per_channel = scan.directions * scan.channels;
    let wide = per_channel * scan.states * scan.parts();
    for (name, grad) in [("dB", &out.db), ("dC", &out.dc)] {
        match grad {
            CoefficientGrad::Varying(view) => view.check(name, scan.coefficient_extent(), Dtype::F64)?,
            CoefficientGrad::Constant(values) => super::length(name, values, wide)?,
        }
    }
    super::length("dA", out.da, wide)?;
    for (name, have, given) in [
        ("dz", out.dz.is_some(), scan.z.is_some()),
        ("dD", out.dd.is_some(), scan.d.is_some()),
        ("ddelta_bias", out.ddelta_bias.is_some(), scan.delta_bias.is_some()),
    ] {
        if have != given {
            return Err(Error::Shape(format!("`{name}` must be given exactly if its argument is")));
        }
    }
    for (name, slice) in [("dD", out.dd.as_deref()), ("ddelta_bias", out.ddelta_bias.as_deref())] {
        slice.map_or(Ok(()), |slice| super::length(name, slice, per_channel))?;
    }
    for (name, state) in [("dfinal", out.dfinal), ("dinitial", out.dinitial.as_deref())] {
        state.map_or(Ok(()), |state| super::length(name, state, scan.state_len()))?;
    }
    Ok(())
}

/// Parameter gradients of one channel of one sample.
struct Sums {
    a: Vec<C64>,
    b: Vec<C64>,
    c: Vec<C64>,
    d: f64,
    bias: f64,
}

fn channel_backward(scan: &Wide, at: &Spot, path: &Path, out: &WideBackward, initial: &Shared) -> Sums {
    let n_states = scan.states;
    let mut states = vec![C64::default(); (path.tokens.len() + 1) * n_states];
    states[..n_states].copy_from_slice(&scan.initial(at));
    let mut ys = Vec::with_capacity(path.tokens.len());
    for (t, &token) in path.tokens.iter().enumerate() {
        let (before, after) = states[t * n_states..(t + 2) * n_states].split_at_mut(n_states);
        ys.push(scan.advance(at, token, path.reset(t), before, after));
    }
    let first = (at.b * scan.directions * scan.channels + at.row) * n_states;
    let mut g: Vec<C64> =
        (0..n_states).map(|n| out.dfinal.map_or(C64::default(), |d| scan.number(d, first + n))).collect();
    let zeros = || vec![C64::default(); n_states];
    let mut sums = Sums { a: zeros(), b: zeros(), c: zeros(), d: 0.0, bias: 0.0 };
    // Safety of the writes below: checked extents; the task owns the channel, and the group of B and C.
    let add = |view: &ViewMut, token: i32, value: f64| unsafe {
        *view.ptr::<f64>().add(view.offset(at.b, token as usize, at.k, 0) + at.channel) += value;
    };
    let add_coefficient = |grad: &CoefficientGrad, sum: &mut C64, token: i32, n: usize, value: C64| match grad
    {
        CoefficientGrad::Constant(_) => *sum += value,
        CoefficientGrad::Varying(_) if token < 0 => {}
        CoefficientGrad::Varying(view) => unsafe {
            let to =
                view.ptr::<f64>().add(view.offset(at.b, token as usize, at.k, at.group) + n * scan.parts());
            *to += value.re;
            if scan.complex {
                *to.add(1) += value.im;
            }
        },
    };
    for (t, &token) in path.tokens.iter().enumerate().rev() {
        let u = scan.input(&scan.u, at, token);
        let (raw, dt) = scan.delta(at, token);
        let mut dy = scan.input(&out.dy, at, path.written()[t]);
        if let (Some(z), Some(dz)) = (&scan.z, &out.dz)
            && token >= 0
        {
            let z = scan.input(z, at, token);
            let s = sigmoid(z);
            add(dz, token, dy * ys[t] * s * (1.0 + z * (1.0 - s)));
            dy *= z * s;
        }
        let through_y = dy * scan.parts() as f64;
        let (mut dx, mut ddt) = (0.0, 0.0);
        for n in 0..n_states {
            let (before, after) = (states[t * n_states + n], states[(t + 1) * n_states + n]);
            let (b, c) = (scan.coefficient(&scan.b, at, token, n), scan.coefficient(&scan.c, at, token, n));
            let total = g[n] + c.conj().scale(through_y);
            add_coefficient(&out.dc, &mut sums.c[n], token, n, after.conj().scale(through_y));
            add_coefficient(&out.db, &mut sums.b[n], token, n, total.scale(dt * u));
            dx += (total * b.conj()).re;
            g[n] = C64::default();
            if !path.reset(t) {
                let a = scan.number(scan.a, at.row * n_states + n);
                let e = a.scale(dt).exp();
                g[n] = total * e.conj();
                // Gradient of w = dt A, where e = exp(w).
                let w = g[n] * before.conj();
                sums.a[n] += w.scale(dt);
                ddt += (w * a.conj()).re;
            }
        }
        let skip = scan.d.map_or(0.0, |d| d[at.row]);
        let ddelta = (ddt + dx * u) * if scan.softplus { sigmoid(raw) } else { 1.0 };
        sums.bias += ddelta;
        sums.d += dy * u;
        if token >= 0 {
            add(&out.du, token, dx * dt + dy * skip);
            add(&out.ddelta, token, ddelta);
        }
    }
    initial.put(scan, at, &g);
    sums
}
