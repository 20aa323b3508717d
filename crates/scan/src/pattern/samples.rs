//! Walks over data that is packed: several samples one after another, each walked by itself.

use rayon::prelude::*;

use crate::{Geometry, Order, Plan, Result};

/// Where each sample of `geometry` starts, and the end. A geometry that is not packed is one sample.
pub(super) fn starts(geometry: &Geometry) -> Result<Vec<usize>> {
    let tokens = geometry.tokens()?;
    Ok(match geometry {
        Geometry::Points(points) => points.starts().to_vec(),
        Geometry::Graph(graph) => graph.starts().to_vec(),
        _ => vec![0, tokens],
    })
}

/// `f` of every item and its number, on all cores; or the error of the first that has one, whichever thread met one
/// first.
pub(super) fn try_map<T: Sync, U: Send>(
    items: &[T],
    f: impl Fn((usize, &T)) -> Result<U> + Sync,
) -> Result<Vec<U>> {
    let found: Result<Vec<U>> = items.par_iter().enumerate().map(&f).collect();
    found.or_else(|_| items.iter().enumerate().map(&f).collect())
}

/// One direction that visits sample after sample, each by ascending key, tokens of equal keys by their number. The
/// state starts afresh at every sample.
pub(super) fn sorted<K: Ord + Copy + Send + Sync>(starts: &[usize], keys: &[K]) -> Result<Plan> {
    let mut pairs: Vec<(K, i32)> =
        keys.par_iter().enumerate().map(|(token, &key)| (key, token as i32)).collect();
    let mut rest = &mut pairs[..];
    let mut samples = Vec::new();
    for pair in starts.windows(2) {
        let (sample, others) = rest.split_at_mut((pair[1] - pair[0]).min(rest.len()));
        samples.push(sample);
        rest = others;
    }
    samples.into_par_iter().for_each(|sample| sample.par_sort_unstable());
    let index = pairs.into_par_iter().map(|(_, token)| token).collect();
    Plan::new(vec![walk(index, keys.len(), starts)?])
}

/// The order `index` over `tokens` tokens whose state starts afresh at the steps `starts` (step 0 and the end do not
/// count).
pub(super) fn walk(index: Vec<i32>, tokens: usize, starts: &[usize]) -> Result<Order> {
    let mut resets = vec![false; index.len()];
    for &start in starts.iter().filter(|&&start| start > 0) {
        if let Some(reset) = resets.get_mut(start) {
            *reset = true;
        }
    }
    Order::new(index, tokens)?.with_resets(resets)
}

/// All directions of `plan` as one walk, sample by sample: each sample is walked in every direction before the next one
/// starts, the state starting afresh there. From one direction of a sample into the next it runs on unless `reset`.
pub(super) fn joined(plan: &Plan, starts: &[usize], reset: bool) -> Result<Order> {
    let mut steps = Vec::new();
    for (k, order) in plan.orders().iter().enumerate() {
        // A blank step belongs to the sample that is being walked.
        let of =
            |&token: &i32| usize::try_from(token).ok().map(|token| starts.partition_point(|&s| s <= token));
        let mut sample = order.index().iter().find_map(of).unwrap_or(0);
        for (step, token) in order.index().iter().enumerate() {
            sample = of(token).unwrap_or(sample);
            steps.push((sample, k, *token, order.resets()[step], order.silent()[step]));
        }
    }
    steps.sort_by_key(|&(sample, k, ..)| (sample, k));
    let afresh = steps.windows(2).map(|pair| {
        let [(sample, k, ..), (next_sample, next_k, _, own, _)] = [pair[0], pair[1]];
        match (sample == next_sample, k == next_k) {
            (false, _) => true,
            (true, false) => reset,
            (true, true) => own,
        }
    });
    let resets = std::iter::once(false).chain(afresh).collect();
    let index = steps.iter().map(|step| step.2).collect();
    let silent = steps.iter().map(|step| step.4).collect();
    Order::new(index, plan.tokens())?.with_resets(resets)?.with_silent(silent)
}

/// Every sample in a random order of its own, the same for the same seed.
pub(super) fn shuffled(starts: &[usize], seed: u64) -> Result<Plan> {
    let tokens = starts.last().copied().unwrap_or(0);
    let mut index: Vec<i32> = (0..tokens as i32).collect();
    let mut random = Random::new(seed);
    for pair in starts.windows(2) {
        random.shuffle(&mut index[pair[0]..pair[1]]);
    }
    Plan::new(vec![walk(index, tokens, starts)?])
}

/// SplitMix64: written out here because a seed must mean the same order in every later version.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Random {
        Random(seed)
    }

    pub(super) fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`: the high word of a 128-bit product, at most n / 2^64 away from uniform.
    pub(super) fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.bits()) * n as u128) >> 64) as usize
    }

    /// A number from 0 to 1, 1 left out.
    pub(super) fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1u64 << 53) as f64
    }

    /// A number of mean 0 and variance 1. The sum of twelve uniform ones is normal for every purpose of an order, and
    /// unlike a logarithm it is the same on every machine.
    pub(super) fn normal(&mut self) -> f64 {
        (0..12).map(|_| self.unit()).sum::<f64>() - 6.0
    }

    /// Fisher and Yates, from the end.
    pub(super) fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}
