//! The recurrences of state-space models as functions over slices, for the CPU, and as CUDA sources that are
//! compiled at run time. No tensors, no libtorch.
//!
//! A token's channels are contiguous and an order is an index table the kernels read, so visiting tokens in any order
//! costs a different row address and nothing else: no permuted copy of an activation is made in either direction.
//!
//! Short names, as in the papers: B batch · L tokens · T steps of an order · K directions · D channels ·
//! N states per channel · G groups · W taps of a convolution · H heads of P channels.

pub mod conv;
pub mod cuda;
mod error;
pub mod orders;
pub mod pool;
pub mod probe;
pub mod scan;
pub mod shift;
pub mod simd;
pub mod ssd;
pub mod tree;
pub mod view;

pub use error::{Error, Result};
pub use orders::Orders;
pub use pool::Pool;
pub use simd::Isa;
pub use view::{Dtype, Strides, View, ViewMut};
