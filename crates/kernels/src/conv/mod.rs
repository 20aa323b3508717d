//! Depthwise causal convolution along K orders (Dao-AILab's `causal_conv1d`).
//!
//! For direction k and step t of its order, with x_t the row of the token visited at t:
//!
//! ```text
//! y_t = act(bias + sum_w weight[w] x_{t - W + 1 + w}),   act = SiLU or identity
//! ```
//!
//! written to that token's row. Before the first step stand the W - 1 rows of the initial state (or zeros); a reset
//! puts zeros there. A blank step feeds a zero row.

mod backward;
mod forward;
pub mod wide;

pub use backward::{Backward, backward};
pub use forward::forward;

use crate::{Dtype, Error, Orders, Result, View, orders::Paths, scan::length};

/// A convolution: shapes and inputs. (B batch, L tokens, K directions, D channels, W taps.) Parameters are `T`: f32,
/// or f64 for [`wide`].
#[derive(Clone, Copy)]
pub struct Conv<'a, T = f32> {
    /// B.
    pub batch: usize,
    /// L.
    pub tokens: usize,
    /// K.
    pub directions: usize,
    /// D.
    pub channels: usize,
    /// W, at least 1.
    pub taps: usize,
    /// K orders over the L tokens.
    pub orders: Orders<'a>,
    /// (B, L, K, D), f32 or bf16 (f64 for [`wide`]).
    pub x: View<'a>,
    /// (K, D, W); tap W - 1 multiplies the current step.
    pub weight: &'a [T],
    /// (K, D).
    pub bias: Option<&'a [T]>,
    /// SiLU behind the convolution.
    pub silu: bool,
    /// (B, K, D, W - 1): the inputs before the first step, oldest first.
    pub initial_state: Option<&'a [T]>,
}

impl<T> Conv<'_, T> {
    /// Values of the initial and the final state: B K D (W - 1).
    pub fn state_len(&self) -> usize {
        self.batch * self.directions * self.channels * self.taps.saturating_sub(1)
    }

    fn extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, 1, self.channels]
    }

    fn check(&self) -> Result<Paths> {
        if self.taps == 0 {
            return Err(Error::Shape("a convolution needs at least one tap".into()));
        }
        self.x.check("x", self.extent())?;
        let wide = size_of::<T>() == 8;
        if wide != (self.x.dtype() == Dtype::F64) {
            let expected = if wide { Dtype::F64 } else { Dtype::F32 };
            return Err(Error::Dtype { name: "x", found: self.x.dtype(), expected });
        }
        let per_channel = self.directions * self.channels;
        length("weight", self.weight, per_channel * self.taps)?;
        self.bias.map_or(Ok(()), |bias| length("bias", bias, per_channel))?;
        self.initial_state.map_or(Ok(()), |state| length("initial_state", state, self.state_len()))?;
        self.orders.paths(self.batch, self.tokens, self.directions)
    }

    /// Index into a state: direction k of sample b, channel, row `i` of the W - 1.
    fn state_at(&self, b: usize, k: usize, channel: usize, i: usize) -> usize {
        ((b * self.directions + k) * self.channels + channel) * (self.taps - 1) + i
    }
}

impl Conv<'_> {
    /// (K, D, W) to (K, W, D): a tap's weights side by side.
    fn taps_outer(&self) -> Vec<f32> {
        let mut out = vec![0.0; self.weight.len()];
        for k in 0..self.directions {
            for d in 0..self.channels {
                for w in 0..self.taps {
                    out[(k * self.taps + w) * self.channels + d] =
                        self.weight[(k * self.channels + d) * self.taps + w];
                }
            }
        }
        out
    }
}
