//! Who runs the tasks of a kernel.

use std::sync::atomic::{AtomicUsize, Ordering};

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
    pub(crate) fn run(&self, tasks: usize, task: &(dyn Fn(usize) + Sync)) {
        if tasks <= 1 || self.threads() <= 1 {
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
                task(i);
            }
        });
    }
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
