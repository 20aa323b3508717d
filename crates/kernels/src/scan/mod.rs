//! The selective scan of Mamba (Gu & Dao 2023, arXiv 2312.00752, eq. 2 and algorithm 2) along K orders.
//!
//! For direction k, channel d and step t that visits token p:
//!
//! ```text
//! dt  = softplus(delta[p] + delta_bias)            (softplus optional)
//! h_n = exp(dt A_n) h_n + dt B_n[p] u[p]           for each state n
//! y   = (sum_n C_n[p] h_n + D u[p]) silu(z[p])     (D and z optional)
//! ```
//!
//! y is written to row p: summed over the directions if they share the output (direction stride 0), else apart.
//! A blank step decays the state with a zero input; a reset clears the state before the step.
//!
//! [`forward`] and [`backward`] are the fast kernels: f32 or bf16 in, f32 arithmetic and outputs, real A, B and C that
//! vary along the sequence. [`wide`] does everything (complex A, constant B and C) in f64, plainly. One
//! token of the recurrence is a scan of one step from the initial state to the final one.

mod aligned;
mod backward;
pub mod cuda;
mod forward;
mod layout;
mod retrace;
mod rows;
mod scratch;
pub mod wide;

pub(crate) use backward::fold_splits;
pub use backward::{Backward, backward};
pub use forward::{Forward, checkpoint_len, forward};

use crate::{Error, Orders, Result, View, orders::Paths};
pub(crate) use aligned::Aligned;
pub(crate) use layout::{Layout, load_row};
pub(crate) use rows::{Rows, per_channel, prefetch_row, put};

/// A selective scan: shapes and inputs. (B batch, L tokens, K directions, D channels, G groups, N states.)
#[derive(Clone, Copy)]
pub struct Scan<'a> {
    /// B.
    pub batch: usize,
    /// L.
    pub tokens: usize,
    /// K.
    pub directions: usize,
    /// D.
    pub channels: usize,
    /// G: channels `[g D/G, (g+1) D/G)` read group g of B and C.
    pub groups: usize,
    /// N.
    pub states: usize,
    /// K orders over the L tokens.
    pub orders: Orders<'a>,
    /// (B, L, K, D), f32 or bf16.
    pub u: View<'a>,
    /// (B, L, K, D), f32 or bf16.
    pub delta: View<'a>,
    /// (K, D, N).
    pub a: &'a [f32],
    /// (B, L, K, G, N), f32 or bf16.
    pub b: View<'a>,
    /// (B, L, K, G, N), f32 or bf16.
    pub c: View<'a>,
    /// (K, D).
    pub d: Option<&'a [f32]>,
    /// (B, L, K, D), f32 or bf16.
    pub z: Option<View<'a>>,
    /// (K, D).
    pub delta_bias: Option<&'a [f32]>,
    /// Whether softplus is applied to delta + delta_bias.
    pub softplus: bool,
    /// (B, K, D, N).
    pub initial_state: Option<&'a [f32]>,
}

impl Scan<'_> {
    /// Values of the final and the initial state: B K D N.
    pub fn state_len(&self) -> usize {
        self.batch * self.directions * self.channels * self.states
    }

    /// True if exp(dt A) cannot exceed 1: softplus makes dt >= 0, and no A is above 0.
    fn decays_below_one(&self) -> bool {
        self.softplus && !self.a.iter().any(|a| *a > 0.0)
    }

    fn channel_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, 1, self.channels]
    }

    fn coefficient_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, self.groups, self.states]
    }

    /// Checks every shape, and the orders.
    fn check(&self) -> Result<Paths> {
        if self.groups == 0 || !self.channels.is_multiple_of(self.groups) {
            return Err(Error::Shape(format!(
                "{} channels do not divide into {} groups",
                self.channels, self.groups
            )));
        }
        for (name, view) in [("u", Some(self.u)), ("delta", Some(self.delta)), ("z", self.z)] {
            if let Some(view) = view {
                view.check(name, self.channel_extent())?;
                not_f64(name, &view)?;
            }
        }
        for (name, view) in [("B", self.b), ("C", self.c)] {
            view.check(name, self.coefficient_extent())?;
            not_f64(name, &view)?;
        }
        let per_channel = self.directions * self.channels;
        length("A", self.a, per_channel * self.states)?;
        for (name, slice) in [("D", self.d), ("delta_bias", self.delta_bias)] {
            slice.map_or(Ok(()), |slice| length(name, slice, per_channel))?;
        }
        self.initial_state.map_or(Ok(()), |state| length("initial_state", state, self.state_len()))?;
        self.orders.paths(self.batch, self.tokens, self.directions)
    }
}

pub(crate) fn not_f64(name: &'static str, view: &View) -> Result<()> {
    if view.dtype() == crate::Dtype::F64 {
        return Err(Error::Dtype { name, found: view.dtype(), expected: crate::Dtype::F32 });
    }
    Ok(())
}

pub(crate) fn length<T>(name: &'static str, slice: &[T], expected: usize) -> Result<()> {
    if slice.len() != expected {
        return Err(Error::Length { name, found: slice.len(), expected });
    }
    Ok(())
}
