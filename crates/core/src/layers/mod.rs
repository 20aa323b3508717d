//! Layers that act token by token.

mod linear;
mod mlp;
mod norm;
mod path;

pub use linear::Linear;
pub use mlp::Mlp;
pub use norm::{Norm, NormKind};
pub use path::DropPath;
