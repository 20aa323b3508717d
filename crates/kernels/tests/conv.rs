//! The causal convolution against the equations and their finite differences.

mod common;

use common::{Draw, Kind, Table, Two, close, kinds, wide};
use ophidian_kernels::{
    Isa, Pool, Strides, View, ViewMut,
    conv::{self, Backward, Conv},
    pool::Serial,
};
use proptest::prelude::*;

#[derive(Debug, Clone)]
struct Shape {
    batch: usize,
    tokens: usize,
    directions: usize,
    channels: usize,
    taps: usize,
    flags: u8,
    kind: Kind,
    seed: u64,
}

fn shapes(tokens: usize, channels: usize) -> impl Strategy<Value = Shape> {
    (0..3usize, 0..tokens, 1..4usize, 1..channels, 1..7usize, any::<u8>(), kinds(), any::<u64>()).prop_map(
        |(batch, tokens, directions, channels, taps, flags, kind, seed)| Shape {
            batch,
            tokens,
            directions,
            channels,
            taps,
            flags,
            kind,
            seed,
        },
    )
}

struct Problem {
    s: Shape,
    table: Table,
    x: Vec<f32>,
    weight: Vec<f32>,
    bias: Option<Vec<f32>>,
    initial: Option<Vec<f32>>,
    dy: Vec<f32>,
    dfinal: Vec<f32>,
}

impl Problem {
    fn new(s: &Shape) -> Problem {
        let mut draw = Draw(s.seed);
        let per_channel = s.directions * s.channels;
        let state = s.batch * per_channel * (s.taps - 1);
        let once = s.batch * s.tokens * if s.flags & 1 != 0 { 1 } else { s.directions };
        Problem {
            table: Table::new(s.kind, s.batch, s.directions, s.tokens, &mut draw),
            x: draw.vec(once * s.channels, 2.0),
            weight: draw.vec(per_channel * s.taps, 1.0),
            bias: (s.flags & 2 != 0).then(|| draw.vec(per_channel, 1.0)),
            initial: (s.flags & 4 != 0).then(|| draw.vec(state, 1.0)),
            dy: draw.vec(s.batch * s.tokens * per_channel, 1.0),
            dfinal: draw.vec(state, 1.0),
            s: s.clone(),
        }
    }

    fn silu(&self) -> bool {
        self.s.flags & 8 != 0
    }

    fn x_strides(&self) -> Strides {
        if self.s.flags & 1 != 0 { Strides::shared(self.s.tokens, self.s.channels) } else { self.y_strides() }
    }

    fn y_strides(&self) -> Strides {
        Strides::contiguous(self.s.tokens, self.s.directions, 1, self.s.channels)
    }

    fn leaves(&self) -> Vec<Vec<f64>> {
        let maybe = |v: &Option<Vec<f32>>| v.as_deref().map(wide).unwrap_or_default();
        vec![wide(&self.x), wide(&self.weight), maybe(&self.bias), maybe(&self.initial)]
    }

    fn naive(&self, leaves: &[Vec<f64>]) -> (Vec<f64>, Vec<f64>) {
        let [x, weight, bias, initial] = leaves else { panic!("four inputs") };
        let Shape { batch, tokens, directions, channels, taps, .. } = self.s;
        let mut y = vec![0.0; batch * tokens * directions * channels];
        let mut last = vec![0.0; batch * directions * channels * (taps - 1)];
        for b in 0..batch {
            for k in 0..directions {
                for d in 0..channels {
                    let (row, param) = ((b * directions + k) * channels + d, k * channels + d);
                    let mut past: Vec<f64> = (0..taps - 1)
                        .map(|i| initial.get(row * (taps - 1) + i).copied().unwrap_or(0.0))
                        .collect();
                    for (token, reset, written) in self.table.path(directions, b, k) {
                        if reset {
                            past.fill(0.0);
                        }
                        let p = token.max(0) as usize;
                        let own = (b * tokens + p) * directions + k;
                        let at = if self.s.flags & 1 != 0 { b * tokens + p } else { own };
                        past.push(if token < 0 { 0.0 } else { x[at * channels + d] });
                        let mut sum = bias.get(param).copied().unwrap_or(0.0);
                        for w in 0..taps {
                            sum += weight[param * taps + w] * past[w];
                        }
                        past.remove(0);
                        if written >= 0 {
                            y[own * channels + d] +=
                                if self.silu() { sum / (1.0 + (-sum).exp()) } else { sum };
                        }
                    }
                    last[row * (taps - 1)..(row + 1) * (taps - 1)].copy_from_slice(&past);
                }
            }
        }
        (y, last)
    }

    fn fast(&self, isa: Isa, pool: &dyn Pool) -> (Vec<f32>, Vec<f32>, Vec<Vec<f32>>) {
        let Shape { batch, tokens, directions, channels, taps, .. } = self.s;
        let conv = Conv {
            batch,
            tokens,
            directions,
            channels,
            taps,
            orders: self.table.orders(),
            x: View::f32(&self.x, self.x_strides()),
            weight: &self.weight,
            bias: self.bias.as_deref(),
            silu: self.silu(),
            initial_state: self.initial.as_deref(),
        };
        let mut y = vec![f32::NAN; self.dy.len()];
        let mut last = vec![f32::NAN; conv.state_len()];
        conv::forward(&conv, &ViewMut::f32(&mut y, self.y_strides()), Some(&mut last), isa, pool).unwrap();
        let mut g: Vec<Vec<f32>> = self.leaves().iter().map(|v| vec![f32::NAN; v.len()]).collect();
        let mut initial = vec![f32::NAN; conv.state_len()];
        let [dx, dweight, dbias, _] = &mut g[..] else { unreachable!() };
        let out = Backward {
            dy: View::f32(&self.dy, self.y_strides()),
            dfinal: Some(&self.dfinal),
            dx: ViewMut::f32(dx, self.x_strides()),
            dweight,
            dbias: self.bias.is_some().then_some(dbias.as_mut_slice()),
            dinitial: Some(&mut initial),
        };
        conv::backward(&conv, out, isa, pool).unwrap();
        if self.initial.is_some() {
            g[3] = initial;
        }
        (y, last, g)
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 80, ..ProptestConfig::default() })]

    #[test]
    fn kernel_is_the_equations(shape in shapes(80, 40)) {
        let p = Problem::new(&shape);
        let leaves = p.leaves();
        let (y, last) = p.naive(&leaves);
        let loss = |leaves: &[Vec<f64>]| {
            let (y, last) = p.naive(leaves);
            let dot = |a: &[f64], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * f64::from(*b)).sum::<f64>();
            dot(&y, &p.dy) + dot(&last, &p.dfinal)
        };
        for isa in common::isas() {
            let (fast_y, fast_last, grads) = p.fast(isa, &Two);
            close("y", &fast_y, &y, 1e-6);
            close("final_state", &fast_last, &last, 0.0);
            let mut draw = Draw(shape.seed ^ 1);
            for (i, grad) in grads.iter().enumerate() {
                let largest = grad.iter().fold(1.0f32, |m, v| m.max(v.abs()));
                for _ in 0..grad.len().min(4) {
                    let j = draw.below(grad.len());
                    let mut moved = leaves.clone();
                    moved[i][j] += 1e-5;
                    let up = loss(&moved);
                    moved[i][j] -= 2e-5;
                    let want = (up - loss(&moved)) / 2e-5;
                    let error = (f64::from(grad[j]) - want).abs() / f64::from(largest);
                    prop_assert!(error < 1e-5, "{isa:?} input {i}[{j}]: got {}, want {want}", grad[j]);
                }
            }
        }
    }

    #[test]
    fn threads_do_not_matter(shape in shapes(80, 100)) {
        let p = Problem::new(&shape);
        let bits = |(y, last, g): (Vec<f32>, Vec<f32>, Vec<Vec<f32>>)| {
            [vec![y, last], g].concat().concat().iter().map(|v| v.to_bits()).collect::<Vec<_>>()
        };
        prop_assert_eq!(bits(p.fast(Isa::detect(), &Serial)), bits(p.fast(Isa::detect(), &Two)));
    }
}
