//! Who runs the tasks of a kernel.

use std::{
    ops::Range,
    sync::atomic::{AtomicUsize, Ordering},
};

/// A pool of threads. Kernels cut their work into tasks by shape alone and take results together in a fixed order,
/// so a pool of any size gives the same bits.
pub trait Pool: Sync {
    /// Threads that may work at the same time.
    fn threads(&self) -> usize;

    /// Calls `worker` up to [`Pool::threads`] times, possibly at once, and returns when all calls have returned.
    fn broadcast(&self, worker: &(dyn Fn() + Sync));
}

impl dyn Pool + '_ {
    /// Runs `task(0)`, … `task(tasks - 1)`, each once; threads take the next one as they become free.
    ///
    /// Tasks that run at the same time are as far apart as can be. Threads that walk two neighbouring samples of a batch in
    /// step meet in memory where a walk takes even strides, as one along the frames of a clip does: up to 1.5 times the time.
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        let threads = self.threads();
        if tasks <= 1 || threads <= 1 {
            (0..tasks).for_each(task);
            return;
        }
        let next = AtomicUsize::new(0);
        self.broadcast(&|| {
            loop {
                let i = next.fetch_add(1, Ordering::Relaxed);
                if i >= tasks {
                    return;
                }
                task(apart(i, tasks, threads));
            }
        });
    }
}

/// The `i`th of `n` where every one of `threads` equal parts of them (the first ones longer by one) gives one in turn.
fn apart(i: usize, n: usize, threads: usize) -> usize {
    let (each, longer) = (n / threads, n % threads);
    let (round, part) = (i / threads, i % threads);
    part * each + part.min(longer) + round
}

/// Cuts `n` pieces of each of `batch` samples into the number of ranges that leaves the slowest of `threads` the least to
/// do. For sums that do not depend on the cut.
pub(crate) fn shares(batch: usize, n: usize, threads: usize) -> Vec<Range<usize>> {
    // Looking up where a chunk's tokens lie costs a task about half of what it does for a piece.
    let work = |count: usize| (batch * count).div_ceil(threads.max(1)) * (2 * n.div_ceil(count) + 1);
    ranges(n, (1..=n).min_by_key(|count| work(*count)).unwrap_or(1))
}

/// `0..n` in `count` ranges as equal as can be; no more of them than `n`, no fewer than one.
pub(crate) fn ranges(n: usize, count: usize) -> Vec<Range<usize>> {
    let count = count.clamp(1, n.max(1));
    (0..count).map(|i| i * n / count..(i + 1) * n / count).collect()
}

/// Everything on the calling thread.
pub struct Serial;

impl Pool for Serial {
    fn threads(&self) -> usize {
        1
    }
    fn broadcast(&self, worker: &(dyn Fn() + Sync)) {
        worker();
    }
}

/// Rayon's pool: for programs that have no libtorch.
pub struct Rayon;

impl Pool for Rayon {
    fn threads(&self) -> usize {
        rayon::current_num_threads()
    }
    fn broadcast(&self, worker: &(dyn Fn() + Sync)) {
        rayon::broadcast(|_| worker());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tasks_at_the_same_time_are_apart_and_each_is_run_once() {
        assert_eq!((0..8).map(|i| apart(i, 8, 2)).collect::<Vec<_>>(), [0, 4, 1, 5, 2, 6, 3, 7]);
        assert_eq!((0..5).map(|i| apart(i, 5, 3)).collect::<Vec<_>>(), [0, 2, 4, 1, 3]);
        for (n, threads) in (1..40).flat_map(|n| (1..20).map(move |threads| (n, threads))) {
            let mut all: Vec<usize> = (0..n).map(|i| apart(i, n, threads)).collect();
            all.sort_unstable();
            assert!(all.into_iter().eq(0..n), "{n} tasks, {threads} threads");
        }
    }

    #[test]
    fn as_few_ranges_as_keep_every_thread_busy() {
        let count = |batch, n, threads| shares(batch, n, threads).len();
        assert_eq!(count(1, 12, 1), 1);
        assert_eq!(count(1, 12, 2), 2);
        assert_eq!(count(8, 12, 2), 1);
        assert_eq!(count(3, 12, 2), 2);
        assert_eq!(count(1, 12, 64), 12);
        assert_eq!((count(0, 0, 0), count(1, 0, 4), count(4, 1, 3)), (1, 1, 1));
        assert_eq!(shares(1, 5, 2), [0..2, 2..5]);
    }
}
