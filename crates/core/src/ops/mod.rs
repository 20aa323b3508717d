//! The ops: recurrences of the kernels floor as differentiable functions over tensors.
//!
//! | op | computes | along |
//! | --- | --- | --- |
//! | [`selective_scan`] | Mamba-1: h = exp(delta A) h + delta B u, y = C h + D u, gated by silu(z) | K orders |
//! | [`ssd`] | Mamba-2: S = exp(dt A) S + dt x B^T with a scalar decay per head, y = S C + D x, gated by silu(z) | K orders |
//! | [`causal_conv1d`] | depthwise causal convolution, optional SiLU | K orders |
//! | [`tree_scan`] | sums over a tree, decaying along its edges | a tree |
//! | [`shift`] | outputs moved one step on and added up | K orders |
//! | [`selective_scan_step`], [`ssd_step`], [`causal_conv1d_update`] | one or a few tokens, on a cache | time |
//!
//! Tensors are channel-last and in token order; only an op knows about visiting orders ([`Orders`]), and no permuted
//! copy of an activation is made in either direction. f32 and bf16 run on the fast kernels with f32 arithmetic, f64
//! scans (and complex A, constant B and C) on plain f64 ones; the convolution computes f64 as f32. A NaN in the input comes out where the equations put it.
//! On a CUDA device the same ops run the kernels of [`cuda`], but for trees, shifts, complex and f64 scans.
//! Using a graph twice, or for second derivatives, is an error.

mod args;
mod conv;
pub mod cuda;
mod custom;
mod orders;
mod scan;
mod scan_wide;
mod ssd;
mod tree;

pub use conv::{ConvInput, ConvOutput, causal_conv1d, causal_conv1d_update};
pub use custom::TorchPool;
pub use orders::Orders;
pub use scan::{Merge, ScanInput, ScanOutput, selective_scan, selective_scan_step};
pub use ssd::{SsdInput, SsdOutput, ssd, ssd_step};
pub use tree::{Sweep, Trees, shift, tree_scan};
