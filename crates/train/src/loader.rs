//! Batches from a data set, read ahead on threads of their own and handed out in order.
//!
//! What is in a batch depends on its number alone, never on the threads: the same batches come with one worker or ten,
//! and from a loader that starts in the middle.

use std::{
    collections::BTreeMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
};

use ophidian_core::{
    adapter::Planner,
    data::{Dataset, Sample},
    ops::Orders,
    rng::{self, Rng},
};
use rand::seq::SliceRandom;
use tch::Tensor;

use crate::{Error, Result, config::OnCorrupt, keys};

/// One batch. It is smaller than asked for where examples were skipped, and may be empty.
pub struct Batch {
    /// Inputs (batch, …input shape), f32.
    pub input: Tensor,
    /// Orders of the model's [`Planner`], one for each plan that it makes of an example; none without one.
    pub orders: Vec<Orders>,
    /// Classes.
    pub labels: Vec<i64>,
    /// Where the examples stand in the data set.
    pub indices: Vec<usize>,
    /// One message for each example that could not be read.
    pub skipped: Vec<String>,
}

impl Batch {
    /// Examples in the batch.
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// True if every example was skipped.
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }
}

/// Which examples make up which batch.
#[derive(Debug, Clone, Copy)]
pub enum Sampling {
    /// In the order of the data set, once, without augmentation.
    Sequential,
    /// Anew for each epoch, shuffled and augmented by streams keyed with this seed.
    Shuffled {
        /// The run's seed.
        seed: u64,
    },
}

/// What a loader reads, and how.
pub struct Plan {
    /// The data.
    pub dataset: Arc<dyn Dataset>,
    /// Which examples go into which batch.
    pub sampling: Sampling,
    /// Examples in a batch.
    pub batch_size: usize,
    /// The batches that are read, counted on from epoch to epoch.
    pub batches: std::ops::Range<u64>,
    /// Reading threads.
    pub workers: usize,
    /// Batches that may wait for the reader.
    pub prefetch: usize,
    /// What to do about an example that cannot be read.
    pub on_corrupt: OnCorrupt,
    /// Number of classes, or none if labels mean nothing (prediction).
    pub classes: Option<i64>,
    /// Makes the scan plans of each example, if they differ.
    pub planner: Option<Arc<dyn Planner>>,
}

impl Plan {
    /// Batches in an epoch.
    pub fn batches_per_epoch(&self) -> u64 {
        (self.dataset.len() as u64).div_ceil(self.batch_size as u64)
    }
}

/// Hands out batches in order. Dropping it stops its threads.
pub struct Loader {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    end: u64,
}

struct Shared {
    plan: Plan,
    queue: Mutex<Queue>,
    changed: Condvar,
    /// The shuffled order of the epoch that was asked for last, and of the one before.
    orders: Mutex<Vec<(u64, Arc<Vec<u32>>)>>,
}

struct Queue {
    /// Next batch that a worker takes.
    next: u64,
    /// Next batch that is handed out.
    wanted: u64,
    ready: BTreeMap<u64, Result<Batch>>,
    stopped: bool,
}

impl Loader {
    /// Starts reading.
    ///
    /// # Errors
    /// No thread can be started.
    pub fn start(plan: Plan) -> Result<Self> {
        let range = plan.batches.clone();
        let workers = plan.workers.clamp(1, (range.end.saturating_sub(range.start)).clamp(1, 256) as usize);
        let shared = Arc::new(Shared {
            plan,
            queue: Mutex::new(Queue {
                next: range.start,
                wanted: range.start,
                ready: BTreeMap::new(),
                stopped: false,
            }),
            changed: Condvar::new(),
            orders: Mutex::new(Vec::new()),
        });
        let mut loader = Loader { shared, workers: Vec::new(), end: range.end };
        for number in 0..workers {
            let shared = loader.shared.clone();
            let thread = std::thread::Builder::new()
                .name(format!("loader-{number}"))
                .spawn(move || shared.work())
                .map_err(|error| {
                    Error::Core(ophidian_core::Error::invalid(format!(
                        "no thread can be started to read data: {error}"
                    )))
                })?;
            loader.workers.push(thread);
        }
        Ok(loader)
    }
}

impl Iterator for Loader {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut queue = self.shared.lock();
        let number = queue.wanted;
        if number >= self.end {
            return None;
        }
        let batch = loop {
            if let Some(batch) = queue.ready.remove(&number) {
                break batch;
            }
            queue = self.shared.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        };
        queue.wanted += 1;
        self.shared.changed.notify_all();
        Some(batch)
    }
}

impl Drop for Loader {
    fn drop(&mut self) {
        self.shared.lock().stopped = true;
        self.shared.changed.notify_all();
        for worker in self.workers.drain(..) {
            // A worker catches its own panics.
            let _ = worker.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A worker's life: take the next batch as soon as there is room for it, read it, put it down.
    fn work(&self) {
        loop {
            let mut queue = self.lock();
            while !queue.stopped
                && queue.next < self.plan.batches.end
                && queue.next >= queue.wanted + self.plan.prefetch.max(1) as u64
            {
                queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
            }
            if queue.stopped || queue.next >= self.plan.batches.end {
                return;
            }
            let number = queue.next;
            queue.next += 1;
            drop(queue);
            // A reader that panics must not leave the trainer waiting.
            let batch = catch_unwind(AssertUnwindSafe(|| self.read(number))).unwrap_or_else(|_| {
                Err(Error::Core(ophidian_core::Error::invalid(format!(
                    "reading batch {number} of the data panicked"
                ))))
            });
            self.lock().ready.insert(number, batch);
            self.changed.notify_all();
        }
    }

    fn read(&self, number: u64) -> Result<Batch> {
        let plan = &self.plan;
        let (epoch, within) = (number / plan.batches_per_epoch(), number % plan.batches_per_epoch());
        let start = within as usize * plan.batch_size;
        let chosen = start..(start + plan.batch_size).min(plan.dataset.len());
        let shape = plan.dataset.input_shape();
        let size = shape.iter().product::<i64>() as usize;
        let mut values = Vec::with_capacity(size * chosen.len());
        let mut batch = Batch {
            input: Tensor::new(),
            orders: Vec::new(),
            labels: Vec::new(),
            indices: Vec::new(),
            skipped: Vec::new(),
        };
        // By plan, then by example.
        let mut plans: Vec<Vec<ophidian_scan::Plan>> = Vec::new();
        let order = match plan.sampling {
            Sampling::Sequential => None,
            Sampling::Shuffled { seed } => Some((seed, self.order(seed, epoch))),
        };
        for position in chosen {
            let (index, mut stream) = match &order {
                None => (position, None),
                Some((seed, order)) => {
                    let index = order[position] as usize;
                    (index, Some(rng::stream(&[*seed, keys::AUGMENT, epoch, index as u64])))
                }
            };
            let seed = order.as_ref().map_or(0, |(seed, _)| *seed);
            let key = [seed, keys::PLAN, if order.is_some() { epoch } else { 0 }, index as u64];
            let read = self.sample(index, size, stream.as_mut()).and_then(|sample| {
                let plans = self.plan.planner.as_ref().map(|p| p.plans(&sample, &mut rng::stream(&key)));
                Ok((sample, plans.transpose()?.unwrap_or_default()))
            });
            match read {
                Ok((sample, made)) => {
                    values.extend_from_slice(&sample.input);
                    batch.labels.push(sample.label);
                    batch.indices.push(index);
                    plans.resize_with(made.len(), Vec::new);
                    plans.iter_mut().zip(made).for_each(|(all, one)| all.push(one));
                }
                Err(error) if plan.on_corrupt == OnCorrupt::Fail => return Err(error.into()),
                Err(error) => batch.skipped.push(error.to_string()),
            }
        }
        let full: Vec<i64> = [batch.len() as i64].into_iter().chain(shape).collect();
        batch.orders =
            plans.iter().map(|all| Orders::per_sample(all)).collect::<ophidian_core::Result<_>>()?;
        batch.input = Tensor::f_from_slice(&values)?.f_view(full.as_slice())?;
        Ok(batch)
    }

    /// Reads one example and holds it to what the data set promised.
    fn sample(&self, index: usize, size: usize, augment: Option<&mut Rng>) -> ophidian_core::Result<Sample> {
        let dataset = &self.plan.dataset;
        let sample = dataset.sample(index, augment)?;
        let wrong =
            |reason: String| ophidian_core::Error::invalid(format!("{}: {reason}", dataset.name_of(index)));
        if sample.input.len() != size {
            return Err(wrong(format!("holds {} values, expected {size}", sample.input.len())));
        }
        if let Some(classes) = self.plan.classes.filter(|classes| !(0..*classes).contains(&sample.label)) {
            return Err(wrong(format!(
                "label {} is out of range, expected 0 to {}",
                sample.label,
                classes - 1
            )));
        }
        Ok(sample)
    }

    /// The order of `epoch`. Workers may stand on both sides of an epoch's end, so two orders are kept.
    fn order(&self, seed: u64, epoch: u64) -> Arc<Vec<u32>> {
        let mut orders = self.orders.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, order)) = orders.iter().find(|(known, _)| *known == epoch) {
            return order.clone();
        }
        let mut order: Vec<u32> = (0..self.plan.dataset.len() as u32).collect();
        order.shuffle(&mut rng::stream(&[seed, keys::SHUFFLE, epoch]));
        let order = Arc::new(order);
        orders.push((epoch, order.clone()));
        if orders.len() > 2 {
            orders.remove(0);
        }
        order
    }
}

#[cfg(test)]
#[path = "loader_tests.rs"]
mod tests;
