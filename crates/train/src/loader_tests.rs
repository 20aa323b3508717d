//! The loader against a data set that notes what is asked of it.

use std::sync::atomic::{AtomicUsize, Ordering};

use ophidian_core::data::Sample;
use rand::RngExt;

use super::*;

struct Numbers {
    len: usize,
    corrupt: Option<usize>,
    panics: bool,
    reads: AtomicUsize,
}

impl Dataset for Numbers {
    fn len(&self) -> usize {
        self.len
    }
    fn input_shape(&self) -> Vec<i64> {
        vec![2]
    }
    fn classes(&self) -> &[String] {
        &[]
    }
    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> ophidian_core::Result<Sample> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        assert!(!self.panics, "a reader's bug");
        if self.corrupt == Some(index) {
            return Err(ophidian_core::Error::file(self.name_of(index), "is corrupt"));
        }
        // Uneven work, so that workers finish out of order.
        std::thread::sleep(std::time::Duration::from_micros((index % 7) as u64 * 50));
        let drawn = augment.map_or(0.0, |rng| rng.random::<f32>());
        Ok(Sample { input: vec![index as f32, drawn], label: (index % 3) as i64 })
    }
    fn name_of(&self, index: usize) -> String {
        format!("number {index}")
    }
}

fn numbers(len: usize, corrupt: Option<usize>) -> Arc<Numbers> {
    Arc::new(Numbers { len, corrupt, panics: false, reads: AtomicUsize::new(0) })
}

fn plan(dataset: Arc<Numbers>, workers: usize, batches: std::ops::Range<u64>) -> Plan {
    Plan {
        dataset,
        sampling: Sampling::Shuffled { seed: 3 },
        batch_size: 4,
        batches,
        workers,
        prefetch: 3,
        on_corrupt: OnCorrupt::Fail,
        classes: Some(3),
        planner: None,
    }
}

/// Two plans of each example: one drawn, one from its values.
struct Draws;

impl Planner for Draws {
    fn plans(&self, sample: &Sample, random: &mut Rng) -> ophidian_core::Result<Vec<ophidian_scan::Plan>> {
        let drawn = ophidian_scan::Order::new(vec![random.random_range(0..1000)], 1000)?;
        let read = ophidian_scan::Order::new(vec![sample.input[0] as i32], 1000)?;
        let plan = |order| ophidian_scan::Plan::new(vec![order]);
        Ok(vec![plan(drawn)?, plan(read)?])
    }
}

fn read(plan: Plan) -> Vec<(Vec<usize>, Vec<f32>)> {
    let loader = Loader::start(plan).unwrap();
    loader
        .map(|batch| {
            let batch = batch.unwrap();
            let values: Vec<f32> = Vec::try_from(batch.input.view(-1)).unwrap();
            (batch.indices, values)
        })
        .collect()
}

#[test]
fn batches_do_not_depend_on_workers_or_on_where_it_starts() {
    let all = read(plan(numbers(18, None), 1, 0..15));
    assert_eq!(all.len(), 15);
    assert_eq!(read(plan(numbers(18, None), 5, 0..15)), all);
    for start in [1, 4, 5, 9] {
        assert_eq!(read(plan(numbers(18, None), 3, start..15)), all[start as usize..]);
    }
}

/// What the planner drew for each example (by epoch), and whether the other plan is the example's.
fn planned(workers: usize, batches: std::ops::Range<u64>, sampling: Sampling) -> Vec<Vec<(usize, i32)>> {
    let plan =
        Plan { planner: Some(Arc::new(Draws)), sampling, ..plan(numbers(18, Some(4)), workers, batches) };
    let plan = Plan { on_corrupt: OnCorrupt::Skip, ..plan };
    let batch = |batch: Result<Batch>| {
        let batch = batch.unwrap();
        assert_eq!(batch.orders.len(), 2);
        let [drawn, read] = [0, 1].map(|at| batch.orders[at].visited(0));
        assert_eq!(read, batch.indices.iter().map(|index| *index as i32).collect::<Vec<_>>());
        batch.indices.into_iter().zip(drawn).collect::<Vec<_>>()
    };
    Loader::start(plan).unwrap().map(batch).collect()
}

#[test]
fn plans_are_drawn_by_epoch_and_example_alone() {
    let shuffled = Sampling::Shuffled { seed: 3 };
    let all = planned(1, 0..15, shuffled);
    assert_eq!(planned(5, 0..15, shuffled), all);
    for start in [1, 5, 9] {
        assert_eq!(planned(3, start..15, shuffled), all[start as usize..], "from {start}");
    }
    let epoch = |batches: &[Vec<(usize, i32)>]| {
        let mut examples: Vec<_> = batches.iter().flatten().copied().collect();
        examples.sort_unstable();
        examples
    };
    assert_ne!(epoch(&all[..5]), epoch(&all[5..10]), "fresh in every epoch");
    let drawn: std::collections::BTreeSet<i32> = all[..5].iter().flatten().map(|(_, drawn)| *drawn).collect();
    assert!(drawn.len() > 12, "{drawn:?}");
    // Evaluation draws the same whenever it is done.
    let once = planned(2, 0..5, Sampling::Sequential);
    assert_eq!(epoch(&once), epoch(&planned(1, 5..10, Sampling::Sequential)));
}

#[test]
fn an_epoch_holds_every_example_once_in_an_order_of_its_own() {
    let all = read(plan(numbers(18, None), 2, 0..15));
    let epochs: Vec<Vec<usize>> =
        all.chunks(5).map(|epoch| epoch.iter().flat_map(|batch| batch.0.clone()).collect()).collect();
    for epoch in &epochs {
        let mut sorted = epoch.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..18).collect::<Vec<_>>());
    }
    assert_ne!(epochs[0], epochs[1]);
    // Augmentation differs between epochs too.
    let drawn = |epoch: usize, index: usize| {
        let batch = all[epoch * 5..].iter().find(|batch| batch.0.contains(&index)).unwrap();
        batch.1[2 * batch.0.iter().position(|found| *found == index).unwrap() + 1]
    };
    assert_ne!(drawn(0, 7), drawn(1, 7));
}

#[test]
fn a_corrupt_example_fails_by_name_or_is_left_out() {
    let failed = Loader::start(plan(numbers(18, Some(5)), 2, 0..5)).unwrap().find_map(Result::err);
    assert_eq!(failed.unwrap().to_string(), "number 5: is corrupt");

    let plan = Plan { on_corrupt: OnCorrupt::Skip, ..plan(numbers(18, Some(5)), 2, 0..5) };
    let batches: Vec<Batch> = Loader::start(plan).unwrap().map(Result::unwrap).collect();
    assert_eq!(batches.iter().map(Batch::len).sum::<usize>(), 17);
    let skipped: Vec<&String> = batches.iter().flat_map(|batch| &batch.skipped).collect();
    assert_eq!(skipped, ["number 5: is corrupt"]);
}

#[test]
fn a_label_out_of_range_is_named() {
    let plan = Plan { classes: Some(2), ..plan(numbers(18, None), 1, 0..5) };
    let message = Loader::start(plan).unwrap().find_map(Result::err).unwrap().to_string();
    assert!(message.ends_with(": label 2 is out of range, expected 0 to 1"), "{message}");
}

#[test]
fn reading_ahead_is_bounded() {
    let dataset = numbers(400, None);
    let loader = Loader::start(plan(dataset.clone(), 2, 0..100)).unwrap();
    std::thread::sleep(std::time::Duration::from_millis(100));
    assert!(dataset.reads.load(Ordering::SeqCst) <= 3 * 4);
    drop(loader);
}

#[test]
fn a_reader_that_panics_is_an_error() {
    let dataset = Arc::new(Numbers { len: 8, corrupt: None, panics: true, reads: AtomicUsize::new(0) });
    let error = Loader::start(plan(dataset, 1, 0..2)).unwrap().next().unwrap().err().unwrap();
    assert!(error.to_string().contains("panicked"), "{error}");
}
