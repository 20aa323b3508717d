//! State space duality of Mamba-2 (Dao & Gu 2024, arXiv 2405.21060, sections 6 and 7) along K orders: a scalar decay per
//! head.
//!
//! For direction k, head h and step t that visits token p:
//!
//! ```text
//! dt = clamp(softplus(dt[p, h] + dt_bias_h))          (softplus optional)
//! S  = exp(dt A_h) S + dt x[p, h] B[p]^T              S is P x N
//! y  = (S C[p] + D_h x[p, h]) silu(z[p, h])           (D and z optional)
//! ```
//!
//! y is written to row p: summed over the directions if they share the output (direction stride 0), else apart.
//! A blank step decays the state with a zero input; a reset clears the state before the step.
//!
//! The steps of an order are taken in chunks (section 6): inside a chunk y is a masked matrix product, (C B^T o L) x with
//! L the decays from step to step; from chunk to chunk the state is carried. A chunk ends where the state starts afresh,
//! so no product reaches over a reset. f32 or bf16 in, f32 arithmetic and outputs. One token of the recurrence is a scan
//! of one step from the initial state to the final one.
//!
//! NaN and infinity: on the CPU one of x, B, C or dt reaches later steps only, of its channel (x) or its heads, and nothing
//! behind a reset. On a GPU ([`cuda`]) a mask is a product with 0, and 0 NaN is NaN: there it may also reach the other
//! steps of its chunk (at most 128), earlier ones and those behind a reset among them, and if it is one of B or dt, by way
//! of the state, steps behind that chunk up to the next chunk with a reset. Other heads (of dt), groups (of B and C),
//! samples and directions never see it. Where a sequence may hold NaN and its neighbours count, do not pack them.

mod backward;
mod blocks;
mod chunks;
pub mod cuda;
mod forward;
mod products;
mod retrace;
mod steps;
mod tiles;

pub use backward::{Backward, backward};
pub use forward::{Forward, checkpoint_len, forward};

use crate::{
    Dtype, Error, Orders, Result, View,
    orders::Paths,
    scan::{length, not_f64},
};

/// An SSD: shapes and inputs. (B batch, L tokens, K directions, H heads of P channels, G groups, N states.)
#[derive(Clone, Copy)]
pub struct Ssd<'a> {
    /// B.
    pub batch: usize,
    /// L.
    pub tokens: usize,
    /// K.
    pub directions: usize,
    /// H.
    pub heads: usize,
    /// P.
    pub headdim: usize,
    /// G: heads `[g H/G, (g+1) H/G)` read group g of B and C.
    pub groups: usize,
    /// N.
    pub states: usize,
    /// K orders over the L tokens.
    pub orders: Orders<'a>,
    /// (B, L, K, H P), f32 or bf16.
    pub x: View<'a>,
    /// (B, L, K, H), f32 or bf16.
    pub dt: View<'a>,
    /// (K, H).
    pub a: &'a [f32],
    /// (B, L, K, G, N), f32 or bf16.
    pub b: View<'a>,
    /// (B, L, K, G, N), f32 or bf16.
    pub c: View<'a>,
    /// (K, H P).
    pub d: Option<&'a [f32]>,
    /// (B, L, K, H P), f32 or bf16.
    pub z: Option<View<'a>>,
    /// (K, H).
    pub dt_bias: Option<&'a [f32]>,
    /// Whether softplus is applied to dt + dt_bias.
    pub softplus: bool,
    /// dt is kept between these.
    pub dt_limits: [f32; 2],
    /// (B, K, H, P, N).
    pub initial_state: Option<&'a [f32]>,
}

impl Ssd<'_> {
    /// Values of the final and the initial state: B K H P N.
    pub fn state_len(&self) -> usize {
        self.batch * self.directions * self.heads * self.headdim * self.states
    }

    /// H P.
    fn channels(&self) -> usize {
        self.heads * self.headdim
    }

    /// Group that a head reads.
    fn group(&self, head: usize) -> usize {
        head / (self.heads / self.groups)
    }

    fn channel_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, 1, self.channels()]
    }

    fn head_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, 1, self.heads]
    }

    fn coefficient_extent(&self) -> [usize; 5] {
        [self.batch, self.tokens, self.directions, self.groups, self.states]
    }

    /// Checks every shape, and the orders.
    fn check(&self) -> Result<Paths> {
        if self.groups == 0 || !self.heads.is_multiple_of(self.groups) {
            return Err(Error::Shape(format!(
                "{} heads do not divide into {} groups",
                self.heads, self.groups
            )));
        }
        let [lo, hi] = self.dt_limits;
        if lo.is_nan() || hi.is_nan() || lo > hi {
            return Err(Error::Shape(format!("dt cannot be kept between {lo} and {hi}")));
        }
        for (name, view, extent) in [
            ("x", Some(self.x), self.channel_extent()),
            ("dt", Some(self.dt), self.head_extent()),
            ("z", self.z, self.channel_extent()),
            ("B", Some(self.b), self.coefficient_extent()),
            ("C", Some(self.c), self.coefficient_extent()),
        ] {
            if let Some(view) = view {
                view.check(name, extent)?;
                not_f64(name, &view)?;
            }
        }
        let per_head = self.directions * self.heads;
        length("A", self.a, per_head)?;
        self.d.map_or(Ok(()), |d| length("D", d, per_head * self.headdim))?;
        self.dt_bias.map_or(Ok(()), |bias| length("dt_bias", bias, per_head))?;
        self.initial_state.map_or(Ok(()), |state| length("initial_state", state, self.state_len()))?;
        self.orders.paths(self.batch, self.tokens, self.directions)
    }

    /// One number of a view, in f32.
    ///
    /// # Safety
    /// `check` was called with an extent that `offset` lies in.
    #[inline(always)]
    unsafe fn number(view: &View, offset: usize) -> f32 {
        unsafe {
            match view.dtype() {
                Dtype::Bf16 => (*view.ptr().cast::<half::bf16>().add(offset)).to_f32(),
                _ => *view.ptr().cast::<f32>().add(offset),
            }
        }
    }
}
