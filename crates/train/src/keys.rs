//! What each random stream of a run is for. A stream is keyed by (seed, purpose, …), so a checkpoint needs no state of
//! any generator: seed and step are the whole of it.

/// Order of the training examples: (seed, SHUFFLE, epoch).
pub const SHUFFLE: u64 = 1;
/// Augmentation of one example: (seed, AUGMENT, epoch, index).
pub const AUGMENT: u64 = 2;
/// Mixing of one batch: (seed, MIX, batch).
pub const MIX: u64 = 3;
/// libtorch's own generator (drop path, dropout), set anew for every batch: (seed, TORCH, batch).
pub const TORCH: u64 = 4;
/// Initial weights: (seed, INIT), then the name of the parameter.
pub const INIT: u64 = 5;
/// Scan plans of one example: (seed, PLAN, epoch, index); in evaluation (0, PLAN, 0, index).
pub const PLAN: u64 = 6;
/// Projections of a token's features: (EXPLAIN, number).
pub const EXPLAIN: u64 = 7;
