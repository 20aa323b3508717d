//! Layers that act token by token, or on the map that tokens lie on.

mod batch_norm;
mod grid;
mod linear;
mod mlp;
mod norm;
mod path;

pub use batch_norm::BatchNorm;
pub use grid::{Conv2d, Downsample, DownsampleConfig, DownsampleKind, Kernel, LocalConv, to_map, to_tokens};
pub use linear::Linear;
pub use mlp::{Mlp, MlpKind};
pub use norm::{GatedNorm, GatedRmsNorm, Norm, NormKind, gated_rms_norm};
pub use path::DropPath;
