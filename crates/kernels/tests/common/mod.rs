//! Random problems and the comparison of answers, shared by the kernel tests.
#![allow(dead_code, missing_docs)]

pub mod scan;
pub mod ssd;

use ophidian_kernels::{Isa, Orders, Pool};
use proptest::prelude::*;

/// Numbers of a reproducible stream.
pub struct Draw(pub u64);

impl Draw {
    pub fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
    pub fn below(&mut self, n: usize) -> usize {
        ((self.unit() * n as f64) as usize).min(n.saturating_sub(1))
    }
    /// `len` values in (-scale, scale).
    pub fn vec(&mut self, len: usize, scale: f64) -> Vec<f32> {
        (0..len).map(|_| ((2.0 * self.unit() - 1.0) * scale) as f32).collect()
    }
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}

/// A table of orders of some kind.
pub struct Table {
    pub table: Vec<i32>,
    pub resets: Option<Vec<u8>>,
    pub silent: Option<Vec<u8>>,
    pub steps: usize,
    pub per_sample: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Kind {
    Identity,
    Permutation,
    /// A permutation some of whose steps are silent.
    Silent,
    /// Blanks, skips, repeated and missing tokens, resets, silent steps.
    Wild,
    /// As `Wild`, one set per sample.
    PerSample,
}

pub fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![
        Just(Kind::Identity),
        Just(Kind::Permutation),
        Just(Kind::Silent),
        Just(Kind::Wild),
        Just(Kind::PerSample)
    ]
}

impl Table {
    pub fn new(kind: Kind, batch: usize, directions: usize, tokens: usize, draw: &mut Draw) -> Table {
        let per_sample = matches!(kind, Kind::PerSample);
        let count = if per_sample { batch * directions } else { directions };
        let steps = match kind {
            Kind::Identity | Kind::Permutation | Kind::Silent => tokens,
            _ => draw.below(2 * tokens + 3),
        };
        let mut table = Vec::new();
        for _ in 0..count {
            let mut order: Vec<i32> = (0..tokens as i32).collect();
            match kind {
                Kind::Identity => {}
                Kind::Permutation | Kind::Silent => {
                    for i in (1..tokens).rev() {
                        order.swap(i, draw.below(i + 1));
                    }
                }
                _ => {
                    order = (0..steps)
                        .map(|_| if tokens == 0 { -1 } else { draw.below(tokens + 2) as i32 - 2 })
                        .collect();
                }
            }
            table.extend(order);
        }
        let wild = matches!(kind, Kind::Wild | Kind::PerSample);
        let resets = wild.then(|| (0..table.len()).map(|_| u8::from(draw.unit() < 0.1)).collect());
        let often = if matches!(kind, Kind::Silent) || wild && draw.unit() < 0.5 { 0.3 } else { 0.0 };
        let silent = (often > 0.0).then(|| (0..table.len()).map(|_| u8::from(draw.unit() < often)).collect());
        Table { table, resets, silent, steps, per_sample }
    }

    pub fn orders(&self) -> Orders<'_> {
        Orders {
            table: &self.table,
            resets: self.resets.as_deref(),
            silent: self.silent.as_deref(),
            steps: self.steps,
            per_sample: self.per_sample,
        }
    }

    /// The steps of one order that happen: token (-1 blank), whether the state starts afresh there, and the token that is
    /// written (-1 none).
    pub fn path(&self, directions: usize, b: usize, k: usize) -> Vec<(i32, bool, i32)> {
        let order = if self.per_sample { b * directions + k } else { k };
        let mut pending = false;
        let mut path = Vec::new();
        for at in order * self.steps..(order + 1) * self.steps {
            pending |= self.resets.as_ref().is_some_and(|r| r[at] != 0);
            if self.table[at] != -2 {
                let silent = self.silent.as_ref().is_some_and(|s| s[at] != 0);
                let written = if silent { -1 } else { self.table[at] };
                path.push((self.table[at], std::mem::take(&mut pending), written));
            }
        }
        path
    }
}

/// Largest difference relative to the largest value of `want`.
pub fn close(name: &str, got: &[f32], want: &[f64], tolerance: f64) {
    close_to(name, got, want, tolerance, 1e-3);
}

/// Largest difference relative to the largest value of `want`, or to `size` where that is larger: of sums that cancel, the
/// size of what was summed.
pub fn close_to(name: &str, got: &[f32], want: &[f64], tolerance: f64, size: f64) {
    Compared::new(name, got, want, tolerance, size).check();
}

/// How far an answer is from what it should be, in some unit.
pub struct Compared {
    pub name: String,
    pub error: f64,
    pub tolerance: f64,
    /// Where it is farthest: the index, what was got and what was wanted.
    at: (usize, f32, f64),
}

impl Compared {
    /// As `close_to` has it.
    pub fn new(name: &str, got: &[f32], want: &[f64], tolerance: f64, size: f64) -> Compared {
        assert_eq!(got.len(), want.len(), "{name}");
        let scale = want.iter().fold(size, |m, v| m.max(v.abs()));
        let mut worst = Compared { name: name.into(), error: 0.0, tolerance, at: (0, 0.0, 0.0) };
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(*g) - w).abs() / scale;
            // What is no number is as far as can be.
            let error = if error.is_nan() { f64::INFINITY } else { error };
            if error > worst.error {
                (worst.error, worst.at) = (error, (i, *g, *w));
            }
        }
        worst
    }

    /// Each value of its own allowance; the error is a share of it.
    pub fn within(name: &str, got: &[f32], want: &[f64], allowed: impl Fn(usize) -> f64) -> Compared {
        assert_eq!(got.len(), want.len(), "{name}");
        let mut worst = Compared { name: name.into(), error: 0.0, tolerance: 1.0, at: (0, 0.0, 0.0) };
        for (i, (g, w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(*g) - w).abs() / allowed(i);
            // What is no number is as far as can be.
            let error = if g.is_finite() { error } else { f64::INFINITY };
            if error > worst.error {
                (worst.error, worst.at) = (error, (i, *g, *w));
            }
        }
        worst
    }

    pub fn passes(&self) -> bool {
        self.error <= self.tolerance
    }

    pub fn check(&self) {
        let Compared { name, error, tolerance, at: (i, got, want) } = self;
        assert!(
            self.passes(),
            "{name}[{i}]: got {got}, want {want}, error {error:.2e}, allowed {tolerance:.2e}"
        );
    }
}

/// A pool of two threads whose tasks really run at the same time.
pub struct Two;

impl Pool for Two {
    fn threads(&self) -> usize {
        2
    }
    fn broadcast(&self, worker: &(dyn Fn() + Sync)) {
        std::thread::scope(|scope| {
            scope.spawn(worker);
            worker();
        });
    }
}

pub fn isas() -> Vec<Isa> {
    Isa::available()
}
