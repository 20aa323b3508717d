//! Random streams without state to save: every draw of a run comes from a stream keyed by what it is for
//! (seed, epoch, sample …), so a resumed run draws what the uninterrupted one would have drawn.

use rand::SeedableRng;

/// The generator of every random choice outside libtorch.
pub type Rng = rand_chacha::ChaCha8Rng;

/// The stream for `keys` (for example `[seed, epoch, sample]`): equal keys, equal draws.
pub fn stream(keys: &[u64]) -> Rng {
    Rng::seed_from_u64(hash(keys))
}

/// 64 well-mixed bits of `keys` (SplitMix64 finaliser over a running sum).
pub fn hash(keys: &[u64]) -> u64 {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    for key in keys {
        state = state.wrapping_add(*key).wrapping_add(0x9E37_79B9_7F4A_7C15);
        state = (state ^ (state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        state ^= state >> 31;
    }
    state
}
