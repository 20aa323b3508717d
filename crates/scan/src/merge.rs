//! How the directions of a scan become one again, over plain rows of numbers.
//!
//! The ops of a mixer do this on the fly and without a copy; here it is written out, to hold a scan against any other
//! implementation.

use std::fmt;

use serde::Serialize;

use crate::{Error, Order, Plan, Result};

/// How the K scanned sequences, each back in token order, become one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Merge {
    /// There is one direction, or one per layer: each is put back by itself.
    Alone,
    /// y = sum over k.
    Sum,
    /// y = sum over k / K.
    Mean,
    /// A weighted sum; the weights are learned. Without them, all are 1 / K.
    Gate,
    /// The channels fall into K groups, and direction k walks group k.
    Channels,
    /// Every token belongs to one direction at most.
    Interleave,
    /// The K sequences are scanned as one, one after another, and pooled; token by token, their mean.
    Length,
}

impl fmt::Display for Merge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Merge::Alone => "-",
            Merge::Sum => "sum",
            Merge::Mean => "mean",
            Merge::Gate => "gate",
            Merge::Channels => "channels",
            Merge::Interleave => "interleave",
            Merge::Length => "length",
        })
    }
}

impl Merge {
    /// The merged rows (N, L) of `scanned`, whose k-th is (N, T) along order k of `plan`: a step adds its value to the
    /// token it visits, blank and silent steps to none, and a token that no step visits is 0. Row n is of channel `n % channels`.
    ///
    /// # Errors
    /// Another number of sequences than directions, or rows of another length than the order.
    pub fn merged(self, plan: &Plan, scanned: &[Vec<f64>], channels: usize) -> Result<Vec<f64>> {
        let (tokens, directions) = (plan.tokens(), plan.directions());
        if scanned.len() != directions {
            let message = format!("{} sequences were given for {directions} directions", scanned.len());
            return Err(Error::Plan(message));
        }
        let rows = scanned.first().map_or(0, Vec::len) / plan.orders().first().map_or(1, Order::len);
        let mut merged = vec![0.0; rows * tokens];
        for (k, (order, scanned)) in plan.orders().iter().zip(scanned).enumerate() {
            if scanned.len() != rows * order.len() {
                let message = format!(
                    "sequence {k} has {} values, expected {rows} rows of {}",
                    scanned.len(),
                    order.len()
                );
                return Err(Error::Plan(message));
            }
            let pairs = merged.chunks_exact_mut(tokens).zip(scanned.chunks_exact(order.len()));
            for (n, (row, values)) in pairs.enumerate() {
                let group = n % channels.max(1) * directions / channels.max(1);
                if self == Merge::Channels && group != k {
                    continue;
                }
                for ((&token, value), &silent) in order.index().iter().zip(values).zip(order.silent()) {
                    if silent {
                        continue;
                    }
                    if let Some(sum) = usize::try_from(token).ok().and_then(|token| row.get_mut(token)) {
                        *sum += value;
                    }
                }
            }
        }
        if matches!(self, Merge::Alone | Merge::Mean | Merge::Gate | Merge::Length) {
            merged.iter_mut().for_each(|value| *value /= directions as f64);
        }
        Ok(merged)
    }
}

impl Plan {
    /// The rows (N, L) of `x` along each order: (N, T), a blank step being 0.
    ///
    /// # Errors
    /// `x` is not whole rows of L values.
    pub fn scanned(&self, x: &[f64]) -> Result<Vec<Vec<f64>>> {
        let tokens = self.tokens();
        if !x.len().is_multiple_of(tokens) {
            return Err(Error::Plan(format!("{} values are not whole rows of {tokens} tokens", x.len())));
        }
        let along = |order: &Order| {
            let row = |row| order.index().iter().map(move |&token| value(row, token));
            x.chunks_exact(tokens).flat_map(row).collect()
        };
        Ok(self.orders().iter().map(along).collect())
    }
}

fn value(row: &[f64], token: i32) -> f64 {
    usize::try_from(token).ok().and_then(|token| row.get(token)).copied().unwrap_or(0.0)
}
