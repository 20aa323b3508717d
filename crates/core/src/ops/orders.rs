//! Scan plans as the ops take them.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ophidian_kernels::orders::{BLANK, SKIP, identity};
use ophidian_scan::{Blank, Order, Plan};

use tch::Tensor;

use super::cuda::{Launcher, Tables};
use crate::{Error, Result};

/// K visiting orders over L tokens, static or one set per sample, and what a mixer may need to know beside them. Cheap
/// to clone.
#[derive(Debug, Clone)]
pub struct Orders {
    table: Arc<Table>,
    grid: Option<Arc<[i64]>>,
    coarse: Option<Arc<Orders>>,
    written: Option<Arc<Table>>,
    /// Of orders [`in_place`](Orders::in_place): the token that each position was filled with.
    gathered: Option<Arc<Table>>,
    /// The most steps of an order that visit no token but decay; counted once, since every forward pass asks.
    decaying: usize,
}

#[derive(Debug)]
struct Table {
    table: Vec<i32>,
    resets: Option<Vec<u8>>,
    silent: Option<Vec<u8>>,
    steps: usize,
    directions: usize,
    tokens: usize,
    /// How many of the tokens, the last ones, are blank steps of their own.
    blanks: usize,
    /// Samples, if every sample has its own orders.
    samples: Option<usize>,
    kept: Kept,
}

/// What was made of a table before, for the next time that it is asked for: every forward pass asks for the same.
#[derive(Debug, Default)]
struct Kept {
    /// It on devices.
    placed: Mutex<Vec<(Launcher, Arc<Tables>)>>,
    derived: Mutex<Vec<(Derived, Arc<Table>)>>,
}

/// A table that follows from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Derived {
    /// So many directions from one on.
    Part(usize, usize),
    /// With blank steps as tokens.
    Filled,
    /// From the first token to the last.
    InPlace,
}

/// What a lock guards is whole even if a thread panicked: it is only added to.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Orders {
    /// The orders of a static plan.
    pub fn new(plan: &Plan) -> Orders {
        Self::build(&[plan], None)
    }

    /// One plan per sample.
    ///
    /// # Errors
    /// No plan, or plans that differ in their number of tokens or directions.
    pub fn per_sample(plans: &[Plan]) -> Result<Orders> {
        let Some(first) = plans.first() else {
            return Err(Error::invalid("per-sample orders need at least one plan"));
        };
        let shape = |plan: &Plan| (plan.tokens(), plan.orders().len());
        if let Some(i) = plans.iter().position(|plan| shape(plan) != shape(first)) {
            return Err(Error::invalid(format!(
                "plan {i} has (tokens, directions) = {:?}, plan 0 has {:?}",
                shape(&plans[i]),
                shape(first)
            )));
        }
        Ok(Self::build(&plans.iter().collect::<Vec<_>>(), Some(plans.len())))
    }

    /// `directions` plain left-to-right orders.
    pub fn identity(tokens: i64, directions: i64) -> Orders {
        let (tokens, directions) = (tokens.max(0) as usize, directions.max(0) as usize);
        let table = identity(tokens, directions);
        Table {
            table,
            resets: None,
            silent: None,
            steps: tokens,
            directions,
            tokens,
            blanks: 0,
            samples: None,
            kept: Kept::default(),
        }
        .into()
    }

    /// Left-to-right orders over packed sequences: `ids` (B, L) names the sequence of each token. The state starts
    /// afresh where the id changes; tokens with a negative id are skipped (and what follows them is another sequence).
    pub fn packed(ids: &[i64], batch: i64, tokens: i64) -> Orders {
        let (batch, tokens) = (batch.max(0) as usize, tokens.max(0) as usize);
        let ids = &ids[..ids.len().min(batch * tokens)];
        let table =
            ids.iter().enumerate().map(|(i, id)| if *id < 0 { SKIP } else { (i % tokens) as i32 }).collect();
        let resets =
            ids.iter().enumerate().map(|(i, id)| u8::from(i % tokens > 0 && ids[i - 1] != *id)).collect();
        let samples = Some(batch);
        let resets = Some(resets);
        let kept = Kept::default();
        Table { table, resets, silent: None, steps: tokens, directions: 1, tokens, blanks: 0, samples, kept }
            .into()
    }

    fn build(plans: &[&Plan], samples: Option<usize>) -> Orders {
        let orders: Vec<&Order> = plans.iter().flat_map(|plan| plan.orders()).collect();
        let steps = orders.iter().map(|order| order.len()).max().unwrap_or(0);
        let mut table = vec![SKIP; orders.len() * steps];
        let mut resets = vec![0u8; table.len()];
        let mut silent = vec![0u8; table.len()];
        for (i, order) in orders.iter().enumerate() {
            let blank = if order.blank() == Blank::Zero { BLANK } else { SKIP };
            for (t, token) in order.index().iter().enumerate() {
                table[i * steps + t] = if *token < 0 { blank } else { *token };
                resets[i * steps + t] = u8::from(order.resets().get(t).copied().unwrap_or(false));
                silent[i * steps + t] = u8::from(order.silent().get(t).copied().unwrap_or(false));
            }
        }
        let resets = resets.contains(&1).then_some(resets);
        let silent = silent.contains(&1).then_some(silent);
        let (tokens, directions) = plans.first().map_or((0, 0), |plan| (plan.tokens(), plan.orders().len()));
        let kept = Kept::default();
        Table { table, resets, silent, steps, directions, tokens, blanks: 0, samples, kept }.into()
    }

    /// The same orders, told that the tokens lie on a grid, row by row: `[rows, columns]`, or `[frames, rows, columns]`
    /// frame by frame.
    pub fn on_grid<const N: usize>(mut self, sizes: [i64; N]) -> Orders {
        self.grid = Some(Arc::from(sizes.as_slice()));
        self
    }

    /// The same orders, with those of a coarser map of the same tokens for the mixers that read two.
    pub fn with_coarse(mut self, coarse: Orders) -> Orders {
        self.coarse = Some(Arc::new(coarse));
        self
    }

    /// The same orders, but what a step makes goes to the token that `other` visits at that step, not to the one it
    /// was read from: some released code puts the tokens back by another rule than the one it took them by.
    ///
    /// # Errors
    /// Orders or samples of their own that do not visit every token once, or of different numbers.
    pub fn written_as(mut self, other: &Orders) -> Result<Orders> {
        let (ours, theirs) = (&*self.table, &*other.table);
        let shape = |table: &Table| (table.tokens, table.directions, table.steps);
        if shape(ours) != shape(theirs) || ours.samples.or(theirs.samples).is_some() {
            return Err(Error::invalid(format!(
                "orders of (tokens, directions, steps) = {:?} cannot be written as orders of {:?}, or one per sample",
                shape(ours),
                shape(theirs)
            )));
        }
        if !(ours.permutes() && theirs.permutes()) {
            return Err(Error::invalid("orders are written as others only if each visits every token once"));
        }
        self.written = Some(Arc::clone(&other.table));
        Ok(self)
    }

    /// Sizes of the grid, if they were told.
    pub fn grid(&self) -> Option<&[i64]> {
        self.grid.as_deref()
    }

    /// The orders of the coarser map, if they were told.
    pub fn coarse(&self) -> Option<&Orders> {
        self.coarse.as_deref()
    }

    /// K.
    pub fn directions(&self) -> i64 {
        self.table.directions as i64
    }

    /// The first direction alone.
    pub fn first(&self) -> Orders {
        self.part(0, 1)
    }

    /// `count` directions from number `first` on, as many of them as there are.
    pub fn part(&self, first: i64, count: i64) -> Orders {
        if (first, count) == (0, self.directions()) {
            return self.clone();
        }
        let (first, count) = (first.max(0) as usize, count.max(0) as usize);
        Orders {
            grid: self.grid.clone(),
            coarse: self.coarse.clone(),
            written: self.written.as_ref().map(|table| table.part(first, count)),
            ..self.table.part(first, count).into()
        }
    }

    /// Orders in which every blank step that decays visits a token of its own behind the others; none without blanks.
    pub(crate) fn with_blanks_as_tokens(&self) -> Option<Orders> {
        let (table, blanks) = (&*self.table, self.decaying);
        if blanks == 0 {
            return None;
        }
        let filled = table.derived(Derived::Filled, || {
            let mut filled = table.table.clone();
            for order in filled.chunks_mut(table.steps) {
                let blank = order.iter_mut().filter(|token| **token == BLANK);
                blank.zip(table.tokens as i32..).for_each(|(token, own)| *token = own);
            }
            let tokens = table.tokens + blanks;
            let (resets, silent) = (table.resets.clone(), table.silent.clone());
            Table { table: filled, resets, silent, tokens, blanks, kept: Kept::default(), ..*table }
        });
        Some(Orders { table: filled, decaying: 0, ..self.clone() })
    }

    /// How many of the tokens, the last ones, are such blank steps.
    pub(crate) fn blank_tokens(&self) -> i64 {
        self.table.blanks as i64
    }

    /// Which way in the plane each step goes: 0 start, 1 right, 2 left, 3 up, 4 down, the longer way first if it goes
    /// aslant. By token, (K, L), or (B, K, L) for orders per sample; 0 for a token that is not visited or a blank step.
    ///
    /// # Errors
    /// No grid of L tokens, or a token that an order visits twice.
    pub(crate) fn ways(&self) -> Result<Tensor> {
        let table = &*self.table;
        let columns = *self.plane()?.last().unwrap_or(&1);
        let mut ways = vec![0i64; table.rows() * table.tokens];
        let mut seen = vec![false; ways.len()];
        for (k, order) in table.table.chunks(table.steps.max(1)).enumerate() {
            let (mut last, mut starts) = (None, false);
            for (t, token) in order.iter().enumerate() {
                starts |= table.resets.as_ref().is_some_and(|resets| resets[k * table.steps + t] > 0);
                let Some(token) = usize::try_from(*token).ok().filter(|t| *t < table.tokens - table.blanks)
                else {
                    continue;
                };
                let at = k * table.tokens + token;
                if std::mem::replace(&mut seen[at], true) {
                    return Err(Error::invalid(format!(
                        "direction {} visits token {token} twice; a step embedding needs orders that do not",
                        k % table.directions.max(1)
                    )));
                }
                let last = last.replace(token as i64).filter(|_| !starts);
                starts = false;
                ways[at] = last.map_or(0, |last| way(last, token as i64, columns));
            }
        }
        let shape = match table.samples {
            Some(samples) => vec![samples as i64, table.directions as i64, table.tokens as i64],
            None => vec![table.directions as i64, table.tokens as i64],
        };
        Ok(Tensor::from_slice(&ways).f_view(&shape[..])?)
    }

    /// Orders that visit the tokens from the first to the last, starting afresh at the same steps as these.
    pub(crate) fn in_place(&self) -> Orders {
        let table = &*self.table;
        let in_place = table.derived(Derived::InPlace, || {
            let steps = identity(table.tokens, table.rows());
            let (resets, silent) = (table.resets.clone(), table.silent.clone());
            Table { table: steps, resets, silent, kept: Kept::default(), ..*table }
        });
        let gathered = Some(self.table.clone());
        Orders { table: in_place, gathered, decaying: 0, ..self.clone() }
    }

    /// The token that each step of direction `k` visits, (L) int64, of orders that visit every token once.
    ///
    /// # Errors
    /// Orders per sample, or an order that is no permutation.
    pub(crate) fn index(&self, k: usize) -> Result<Tensor> {
        self.table.index(k)
    }

    /// Whether they are [`written_as`](Orders::written_as) others.
    pub(crate) fn is_written_elsewhere(&self) -> bool {
        self.written.is_some()
    }

    /// For direction `k` of orders that are [`written_as`](Orders::written_as) others: which token's result each token
    /// gets, (L) int64.
    ///
    /// # Errors
    /// As [`index`](Orders::index).
    pub(crate) fn source(&self, k: usize) -> Result<Option<Tensor>> {
        let Some(written) = &self.written else { return Ok(None) };
        Ok(Some(self.table.index(k)?.f_index_select(0, &written.index(k)?.f_argsort(0, false)?)?))
    }

    /// For direction `k`: where the scan finds each token's input, and where it leaves each token's result, (L) int64
    /// each; none if at the token's own position.
    ///
    /// # Errors
    /// As [`index`](Orders::index).
    pub(crate) fn read_and_written(&self, k: usize) -> Result<[Option<Tensor>; 2]> {
        let Some(gathered) = &self.gathered else { return Ok([None, self.source(k)?]) };
        let position = gathered.index(k)?.f_argsort(0, false)?;
        Ok([Some(position.shallow_clone()), Some(position)])
    }

    /// [frames …, rows, columns] of the grid, checked against the tokens.
    ///
    /// # Errors
    /// There is none, or it holds another number of tokens.
    pub(crate) fn plane(&self) -> Result<&[i64]> {
        let Some(grid) = self.grid() else {
            return Err(Error::invalid(
                "the mixer needs to know the grid that the tokens lie on, but the orders carry none",
            ));
        };
        let tokens = self.tokens() - self.table.blanks as i64;
        if grid.len() < 2 || grid.iter().product::<i64>() != tokens {
            return Err(Error::invalid(format!("a grid of {grid:?} does not hold {tokens} tokens")));
        }
        Ok(grid)
    }

    /// The tokens visited at step `step` of all samples and directions, in this order; negative for none.
    pub fn visited(&self, step: usize) -> Vec<i32> {
        self.table.table.iter().skip(step).step_by(self.table.steps.max(1)).copied().collect()
    }

    /// L.
    pub fn tokens(&self) -> i64 {
        self.table.tokens as i64
    }

    /// How many samples it is for, if every sample has its own orders.
    pub fn samples(&self) -> Option<i64> {
        self.table.samples.map(|n| n as i64)
    }

    /// Whether there is one token, and nothing to do but to visit it.
    pub(super) fn is_one_token(&self) -> bool {
        let Table { table, resets, silent, tokens, samples, .. } = &*self.table;
        *tokens == 1 && **table == [0] && resets.is_none() && silent.is_none() && samples.is_none()
    }

    /// The orders where the kernels of a GPU read them: put there once, and kept for as long as these orders are.
    pub(super) fn on(&self, launcher: &Launcher) -> Result<Arc<Tables>> {
        let mut placed = lock(&self.table.kept.placed);
        if let Some((_, tables)) = placed.iter().find(|(known, _)| known.is(launcher)) {
            return Ok(tables.clone());
        }
        let Table { samples, tokens, directions, .. } = *self.table;
        let sizes = [samples.unwrap_or(1), tokens, directions];
        let tables = Arc::new(Tables::new(&self.kernel(), sizes, launcher)?);
        placed.push((launcher.clone(), tables.clone()));
        Ok(tables)
    }

    pub(crate) fn kernel(&self) -> ophidian_kernels::Orders<'_> {
        ophidian_kernels::Orders {
            table: &self.table.table,
            resets: self.table.resets.as_deref(),
            silent: self.table.silent.as_deref(),
            steps: self.table.steps,
            per_sample: self.table.samples.is_some(),
        }
    }
}

impl From<Table> for Orders {
    fn from(table: Table) -> Orders {
        Arc::new(table).into()
    }
}

impl From<Arc<Table>> for Orders {
    fn from(table: Arc<Table>) -> Orders {
        let count = |order: &[i32]| order.iter().filter(|token| **token == BLANK).count();
        let decaying = table.table.chunks(table.steps.max(1)).map(count).max().unwrap_or(0);
        Orders { table, grid: None, coarse: None, written: None, gathered: None, decaying }
    }
}

impl Table {
    /// Orders of all samples.
    fn rows(&self) -> usize {
        self.directions * self.samples.unwrap_or(1)
    }

    /// The table that follows from this one in the way of `key`, which `make` makes if nobody has.
    fn derived(&self, key: Derived, make: impl FnOnce() -> Table) -> Arc<Table> {
        let mut derived = lock(&self.kept.derived);
        if let Some((_, table)) = derived.iter().find(|(known, _)| *known == key) {
            return table.clone();
        }
        let table = Arc::new(make());
        derived.push((key, table.clone()));
        table
    }

    fn part(&self, first: usize, count: usize) -> Arc<Table> {
        self.derived(Derived::Part(first, count), || self.cut(first, count))
    }

    fn cut(&self, first: usize, count: usize) -> Table {
        let Table { ref table, ref resets, ref silent, steps, directions, tokens, blanks, samples, .. } =
            *self;
        let first = first.min(directions);
        let count = count.min(directions - first);
        let (sample, range) = ((steps * directions).max(1), first * steps..(first + count) * steps);
        let table = table.chunks(sample).flat_map(|all| &all[range.clone()]).copied().collect();
        let marks = |marks: &Option<Vec<u8>>| {
            let rows = marks.as_ref()?.chunks(sample);
            Some(rows.flat_map(|all| &all[range.clone()]).copied().collect())
        };
        let (resets, silent) = (marks(resets), marks(silent));
        let kept = Kept::default();
        Table { table, resets, silent, steps, directions: count, tokens, blanks, samples, kept }
    }

    /// Whether every order visits every token once and does nothing else.
    fn permutes(&self) -> bool {
        self.steps == self.tokens
            && self.silent.is_none()
            && self.table.chunks(self.steps.max(1)).all(|order| {
                let mut seen = vec![false; self.tokens];
                order.iter().all(|token| {
                    usize::try_from(*token).is_ok_and(|token| !std::mem::replace(&mut seen[token], true))
                })
            })
    }

    fn index(&self, k: usize) -> Result<Tensor> {
        let order = self.table.chunks(self.steps.max(1)).nth(k);
        match order {
            Some(order) if self.samples.is_none() && self.permutes() => {
                Ok(Tensor::from_slice(order).to_kind(tch::Kind::Int64))
            }
            _ => Err(Error::invalid("expected orders that visit every token once, the same for all samples")),
        }
    }
}

/// 1 right, 2 left, 3 up, 4 down (0: nowhere).
fn way(from: i64, to: i64, columns: i64) -> i64 {
    let columns = columns.max(1);
    let (right, down) = (to % columns - from % columns, to / columns - from / columns);
    match (right.abs() >= down.abs(), right.signum(), down.signum()) {
        (_, 0, 0) => 0,
        (true, 1, _) => 1,
        (true, _, _) => 2,
        (false, _, -1) => 3,
        (false, _, _) => 4,
    }
}
