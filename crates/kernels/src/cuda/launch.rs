//! How work is cut for a card.

/// Shape of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Launch {
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of dynamic shared memory of a block.
    pub shared: usize,
}

/// A kernel and its launch.
pub type Pass = (&'static str, Launch);

/// An address on the device; 0 for what is not given.
pub type Address = u64;

/// What a launch has to know of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Most bytes of shared memory that a block may have.
    pub shared: usize,
}

/// Whether rows may be read 16 bytes at once (the argument `aligned`): their addresses and the distances between them, in
/// bytes, are all multiples of that.
pub fn aligned(bytes: &[usize]) -> i32 {
    bytes.iter().all(|bytes| bytes % 16 == 0).into()
}

/// Most blocks along the second and third axis of a grid.
pub(super) const MOST: usize = 65535;

/// `n` as the kernels take sizes.
///
/// # Errors
/// It is too large.
pub(super) fn int(name: &str, n: usize) -> crate::Result<i32> {
    i32::try_from(n).map_err(|_| crate::Error::Shape(format!("{name} is {n}, expected less than 2^31")))
}

/// Blocks along the first axis.
pub(super) fn blocks(n: usize) -> crate::Result<u32> {
    Ok(int("the number of blocks", n)?.unsigned_abs())
}

/// `count` blocks of `threads` threads side by side.
///
/// # Errors
/// Too many.
pub(crate) fn line(count: usize, threads: usize, shared: usize) -> crate::Result<Launch> {
    Ok(Launch { grid: [blocks(count)?, 1, 1], block: [threads as u32, 1, 1], shared })
}
