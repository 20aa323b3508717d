//! Visiting orders as the CUDA kernels read them.

use crate::{
    Orders, Result,
    orders::{BLANK, SKIP},
};

/// Checked orders, ready to be copied to a GPU. Skipped steps are dropped; behind the last step of an order its row is
/// filled up with [`SKIP`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tables {
    /// Token that each step reads, or [`BLANK`]: (K, steps) or (B, K, steps).
    pub read: Vec<i32>,
    /// Token that each step writes, or [`BLANK`]; likewise. None if always the one that is read.
    pub written: Option<Vec<i32>>,
    /// 1 where the state starts afresh; likewise. None if nowhere.
    pub resets: Option<Vec<u8>>,
    /// T: steps of the longest order.
    pub steps: usize,
    /// K.
    pub directions: usize,
    /// L.
    pub tokens: usize,
    /// Whether every sample has its own K orders.
    pub per_sample: bool,
    /// B, or 1 if all samples have the same orders.
    pub samples: usize,
    /// Whether every order reads and writes each token exactly once: its outputs can be stored where they belong.
    pub permutations: bool,
}

/// The steps that visit each token, for sums over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Visits {
    /// Where a token's steps begin in `steps`: (B or 1, groups, L + 1).
    pub starts: Vec<i32>,
    /// Steps, k T + t, those of a token side by side and ascending: (B or 1, `listed`).
    pub steps: Vec<i32>,
    /// Entries of `steps` of a sample.
    pub listed: usize,
    /// K, or 1 if directions are summed.
    pub groups: usize,
}

impl Tables {
    /// The tables of `orders` over `tokens` tokens of `batch` samples.
    ///
    /// # Errors
    /// An order that points outside, or lengths that do not fit.
    pub fn new(orders: &Orders, batch: usize, tokens: usize, directions: usize) -> Result<Tables> {
        let paths = orders.paths(batch, tokens, directions)?;
        let samples = if orders.per_sample { batch } else { 1 };
        let (steps, count) = (paths.longest, samples * directions);
        let mut read = vec![SKIP; count * steps];
        let mut written = vec![BLANK; count * steps];
        let mut resets = vec![0u8; count * steps];
        for i in 0..count {
            let path = paths.get(i / directions, i % directions);
            let row = i * steps..i * steps + path.tokens.len();
            read[row.clone()].copy_from_slice(&path.tokens);
            written[row.clone()].copy_from_slice(path.written());
            resets[row].iter_mut().enumerate().for_each(|(t, reset)| *reset = u8::from(path.reset(t)));
        }
        let same = read.iter().zip(&written).all(|(read, written)| read.max(&BLANK) == written);
        Ok(Tables {
            written: (!same).then_some(written),
            resets: resets.contains(&1).then_some(resets),
            permutations: (0..directions).all(|k| paths.covers(k)),
            read,
            steps,
            directions,
            tokens,
            per_sample: orders.per_sample,
            samples,
        })
    }

    /// The steps that write each token, or that read it if not `written`; all directions together if `summed`.
    pub fn visits(&self, written: bool, summed: bool) -> Visits {
        let table = self.written.as_ref().filter(|_| written).unwrap_or(&self.read);
        let per_sample = self.steps * self.directions;
        let groups = if summed { 1 } else { self.directions };
        let mut visits = Visits { starts: Vec::new(), steps: Vec::new(), listed: per_sample, groups };
        for sample in 0..self.samples {
            let sample = &table[sample * per_sample..(sample + 1) * per_sample];
            let first = visits.steps.len();
            for group in 0..groups {
                let mut of_token = vec![Vec::new(); self.tokens];
                let range = group * per_sample / groups..(group + 1) * per_sample / groups;
                for (at, token) in range.clone().zip(&sample[range]) {
                    if let Ok(token) = usize::try_from(*token) {
                        of_token[token].push(at as i32);
                    }
                }
                for steps in of_token {
                    visits.starts.push((visits.steps.len() - first) as i32);
                    visits.steps.extend(steps);
                }
                visits.starts.push((visits.steps.len() - first) as i32);
            }
            // Every sample's list is of one length.
            visits.steps.resize(first + per_sample, SKIP);
        }
        visits
    }
}
