//! Visiting orders as the kernels read them.

use crate::{Error, Result};

/// A step that feeds nothing: the state decays with a zero input, as an author's zero padding does.
pub const BLANK: i32 = -1;
/// A step that does not happen: fills the table up where orders differ in length.
pub const SKIP: i32 = -2;

/// K orders (or B times K, one set per sample) over the same tokens.
#[derive(Clone, Copy)]
pub struct Orders<'a> {
    /// Token visited at each step, [`BLANK`] or [`SKIP`]: (K, steps) or (B, K, steps), row-major.
    pub table: &'a [i32],
    /// Nonzero where the state starts afresh *at* that step; same shape as `table`.
    pub resets: Option<&'a [u8]>,
    /// Nonzero where the token is read but not written: nothing comes out of that step. Same shape as `table`.
    pub silent: Option<&'a [u8]>,
    /// Steps per order (T).
    pub steps: usize,
    /// True if every sample has its own K orders.
    pub per_sample: bool,
}

/// What the kernels need to know of one order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Path {
    /// Token of each step that happens, or [`BLANK`].
    pub tokens: Vec<i32>,
    /// Where the state starts afresh; empty if nowhere.
    pub resets: Vec<bool>,
    /// Token that each step writes to, or [`BLANK`]; empty if it is the one that is read.
    written: Vec<i32>,
    /// Every token is read and written exactly once: outputs can be stored instead of added.
    pub permutation: bool,
}

impl Path {
    pub fn reset(&self, step: usize) -> bool {
        self.resets.get(step).copied().unwrap_or(false)
    }

    /// Token that each step writes to, or [`BLANK`].
    pub fn written(&self) -> &[i32] {
        if self.written.is_empty() { &self.tokens } else { &self.written }
    }
}

/// The checked paths of a call.
pub(crate) struct Paths {
    paths: Vec<Path>,
    directions: usize,
    per_sample: bool,
    /// Most steps of any path.
    pub longest: usize,
}

impl Paths {
    pub fn get(&self, b: usize, k: usize) -> &Path {
        &self.paths[if self.per_sample { b * self.directions + k } else { k }]
    }

    /// True if direction k of every sample visits each token exactly once.
    pub fn covers(&self, k: usize) -> bool {
        self.paths.iter().skip(k).step_by(self.directions.max(1)).all(|path| path.permutation)
    }
}

impl Orders<'_> {
    /// Checks every entry and drops the skipped steps. A reset on a skipped step holds for the next step that happens.
    pub(crate) fn paths(&self, batch: usize, tokens: usize, directions: usize) -> Result<Paths> {
        if directions == 0 {
            return Err(Error::Shape("no direction: at least one order is needed".into()));
        }
        let count = if self.per_sample { batch * directions } else { directions };
        let expected = count * self.steps;
        if self.table.len() != expected {
            return Err(Error::Length { name: "orders", found: self.table.len(), expected });
        }
        for (name, marks) in [("resets", self.resets), ("silent", self.silent)] {
            if let Some(marks) = marks
                && marks.len() != expected
            {
                return Err(Error::Length { name, found: marks.len(), expected });
            }
        }
        let mut paths = Vec::with_capacity(count);
        let mut seen = vec![0u32; tokens];
        for order in 0..count {
            let row = order * self.steps..(order + 1) * self.steps;
            let resets = self.resets.map(|resets| &resets[row.clone()]);
            let silent =
                self.silent.map(|silent| &silent[row.clone()]).filter(|row| row.iter().any(|s| *s != 0));
            let mut path = Path { permutation: true, ..Path::default() };
            path.tokens.reserve(self.steps);
            let mut pending = false;
            for (step, &token) in self.table[row].iter().enumerate() {
                pending |= resets.is_some_and(|resets| resets[step] != 0);
                if token == SKIP {
                    continue;
                }
                if token < SKIP || token >= 0 && token as usize >= tokens {
                    return Err(Error::Token { order, step, token, tokens });
                }
                if token >= 0 {
                    let mark = &mut seen[token as usize];
                    path.permutation &= *mark != order as u32 + 1;
                    *mark = order as u32 + 1;
                }
                if pending && path.resets.is_empty() {
                    path.resets.resize(path.tokens.len(), false);
                }
                if pending || !path.resets.is_empty() {
                    path.resets.push(pending);
                }
                pending = false;
                path.tokens.push(token);
                if let Some(silent) = silent {
                    path.written.push(if silent[step] == 0 { token } else { BLANK });
                }
            }
            path.permutation &= silent.is_none();
            path.permutation &= seen.iter().all(|mark| *mark == order as u32 + 1);
            paths.push(path);
        }
        let longest = paths.iter().map(|path| path.tokens.len()).max().unwrap_or(0);
        Ok(Paths { paths, directions, per_sample: self.per_sample, longest })
    }
}

/// The table of `directions` plain left-to-right orders.
pub fn identity(tokens: usize, directions: usize) -> Vec<i32> {
    (0..directions).flat_map(|_| 0..tokens as i32).collect()
}
