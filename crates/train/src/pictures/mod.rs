//! Pictures of a run, as PNG, drawn with a font of our own so that they look the same everywhere.

pub(crate) mod canvas;
mod confusion;
mod curves;
mod mistakes;

pub use confusion::confusion;
pub use curves::curves;
pub use mistakes::mistakes;
