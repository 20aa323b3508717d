//! The visiting order of one direction.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::geometry::{MAX_STEPS, too_many};
use crate::{Error, Result};

/// What a blank step does to the recurrence.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Blank {
    /// Nothing: the state passes through as if the step were not there.
    Skip,
    /// The state decays with a zero input, as an author's zero padding does.
    #[default]
    Zero,
}

/// Visiting order of one direction: which of the L tokens each of T steps visits.
///
/// A gather map: `scanned[t] = x[index[t]]`, where -1 is a blank step. An order may leave tokens out, visit them more
/// than once, or take blank steps; [`summary`](Order::summary) says which it does. It never points outside the tokens.
/// A *silent* step reads its token and moves the state on, but nothing is written to the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    index: Vec<i32>,
    resets: Vec<bool>,
    silent: Vec<bool>,
    tokens: usize,
    blank: Blank,
}

impl Order {
    /// An order over `tokens` tokens that visits `index[t]` at step t, -1 being a blank step.
    ///
    /// # Errors
    /// No token, no step, more steps than [`MAX_STEPS`], or an entry outside -1..tokens, which is named.
    pub fn new(index: Vec<i32>, tokens: usize) -> Result<Order> {
        let none = vec![false; index.len()];
        let order = Order { resets: none.clone(), silent: none, index, tokens, blank: Blank::Zero };
        order.validate()?;
        Ok(order)
    }

    /// The same from 64-bit entries, as files hold them.
    ///
    /// # Errors
    /// As [`Order::new`].
    pub fn from_i64(index: &[i64], tokens: usize) -> Result<Order> {
        let entry = |(step, &found): (usize, &i64)| {
            i32::try_from(found).map_err(|_| Error::Entry { direction: None, step, found, tokens })
        };
        Order::new(index.iter().enumerate().map(entry).collect::<Result<_>>()?, tokens)
    }

    /// Token 0, 1, … L-1.
    ///
    /// # Errors
    /// As [`Order::new`].
    pub fn identity(tokens: usize) -> Result<Order> {
        if tokens > MAX_STEPS {
            return Err(too_many(format!("an order of {tokens} tokens")));
        }
        Order::new((0..tokens as i32).collect(), tokens)
    }

    /// The same order with the state starting afresh *at* every step marked true.
    ///
    /// Step 0 need not be marked: it starts from the initial state.
    ///
    /// # Errors
    /// `resets` has another length than the order.
    pub fn with_resets(mut self, resets: Vec<bool>) -> Result<Order> {
        self.resets = resets;
        self.validate()?;
        Ok(self)
    }

    /// The same order with every step marked true silent: the token is read there and the state moves on, but the
    /// output goes nowhere, and no gradient comes from it.
    ///
    /// # Errors
    /// `silent` has another length than the order.
    pub fn with_silent(mut self, silent: Vec<bool>) -> Result<Order> {
        self.silent = silent;
        self.validate()?;
        Ok(self)
    }

    /// The same order with another meaning of its blank steps.
    pub fn with_blank(mut self, blank: Blank) -> Order {
        self.blank = blank;
        self
    }

    /// Checks what [`Order::new`], [`Order::with_resets`] and [`Order::with_silent`] check; an order that exists passes.
    ///
    /// # Errors
    /// See there.
    pub fn validate(&self) -> Result<()> {
        let (steps, tokens) = (self.index.len(), self.tokens);
        if tokens == 0 || steps == 0 {
            return Err(Error::Plan(format!(
                "an order of {steps} steps over {tokens} tokens visits nothing"
            )));
        }
        if steps > MAX_STEPS || tokens > MAX_STEPS {
            return Err(too_many(format!("an order of {steps} steps over {tokens} tokens")));
        }
        if self.resets.len() != steps {
            return Err(Error::Plan(format!("{} resets were given for {steps} steps", self.resets.len())));
        }
        if self.silent.len() != steps {
            let found = self.silent.len();
            return Err(Error::Plan(format!("{found} marks of silent steps were given for {steps} steps")));
        }
        match self.index.iter().position(|&i| i < -1 || i >= tokens as i32) {
            Some(step) => {
                Err(Error::Entry { direction: None, step, found: i64::from(self.index[step]), tokens })
            }
            None => Ok(()),
        }
    }

    /// How many steps it takes (T).
    #[allow(clippy::len_without_is_empty)] // an order has at least one step
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// How many tokens it is over (L).
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The token visited at each step, -1 for a blank step: (T).
    pub fn index(&self) -> &[i32] {
        &self.index
    }

    /// True where the state starts afresh at that step: (T).
    pub fn resets(&self) -> &[bool] {
        &self.resets
    }

    /// True where the token of that step is read but not written: (T).
    pub fn silent(&self) -> &[bool] {
        &self.silent
    }

    /// What its blank steps do.
    pub fn blank(&self) -> Blank {
        self.blank
    }

    /// How many steps are blank.
    pub fn blanks(&self) -> usize {
        self.index.iter().filter(|&&i| i < 0).count()
    }

    /// How often each token is visited: (L).
    pub fn visits(&self) -> Vec<u32> {
        let mut visits = vec![0; self.tokens];
        for &token in self.index.iter().filter(|&&i| i >= 0) {
            visits[token as usize] += 1;
        }
        visits
    }

    /// True if every token is visited exactly once and no step is blank or silent.
    pub fn is_permutation(&self) -> bool {
        self.len() == self.tokens && self.covers_all() && !self.silent.contains(&true)
    }

    /// True if every token is visited at least once.
    pub fn covers_all(&self) -> bool {
        self.visits().iter().all(|&n| n > 0)
    }

    /// The step at which each token is visited: an order of L steps over T "tokens", -1 for a token never visited. Silent
    /// steps, whose output goes nowhere, do not count.
    ///
    /// It reads a scanned sequence back: `y[p] = scanned[inverse[p]]`. The inverse of the inverse has the same index
    /// (resets and the kind of blank belong to the way there and are lost).
    ///
    /// # Errors
    /// A token is visited twice; it is named.
    pub fn inverse(&self) -> Result<Order> {
        let mut inverse = vec![-1; self.tokens];
        let written = |&(step, &i): &(usize, &i32)| i >= 0 && !self.silent[step];
        for (step, &token) in self.index.iter().enumerate().filter(written) {
            let seen = &mut inverse[token as usize];
            if *seen >= 0 {
                let message =
                    format!("no inverse: token {token} is visited at step {seen} and at step {step}");
                return Err(Error::Plan(message));
            }
            *seen = step as i32;
        }
        Order::new(inverse, self.len())
    }

    /// The same walk from its end to its start. Segments stay segments: a boundary between two steps stays between them.
    pub fn reversed(&self) -> Order {
        let steps = self.len();
        let mut order = self.clone();
        order.index.reverse();
        order.silent.reverse();
        for t in 1..steps {
            order.resets[t] = self.resets[steps - t];
        }
        order
    }

    /// The same order without its blank steps; a reset on a blank step moves to the next step that stays.
    ///
    /// An order of nothing but blanks keeps one of them, because an order has at least one step.
    pub fn without_blanks(&self) -> Order {
        let (mut index, mut resets, mut silent, mut pending) = (Vec::new(), Vec::new(), Vec::new(), false);
        for (step, &token) in self.index.iter().enumerate() {
            pending |= self.resets[step];
            if token >= 0 {
                index.push(token);
                silent.push(self.silent[step]);
                resets.push(std::mem::take(&mut pending));
            }
        }
        if index.is_empty() {
            (index, resets, silent) = (vec![-1], vec![pending], vec![false]);
        }
        Order { index, resets, silent, ..*self }
    }

    /// The same walk over renumbered tokens: `number(i)` is the new number of token i, or None for a blank step.
    pub(crate) fn renumbered(&self, tokens: usize, number: impl Fn(usize) -> Option<usize>) -> Order {
        let renumber = |&i: &i32| if i < 0 { -1 } else { number(i as usize).map_or(-1, |n| n as i32) };
        Order { index: self.index.iter().map(renumber).collect(), tokens, ..self.clone() }
    }

    /// The same walk with one more step, not a reset, before step `step`; `token` may be a new number below `tokens`.
    pub(crate) fn inserted(mut self, step: usize, token: usize, tokens: usize) -> Result<Order> {
        self.index.insert(step, token as i32);
        self.resets.insert(step, false);
        self.silent.insert(step, false);
        self.tokens = tokens;
        self.validate()?;
        Ok(self)
    }

    /// What keeps the order from visiting every token once, in words: how many tokens are repeated or missing and the
    /// first of each. None if there is nothing: blank steps visit no token, and silent ones are no visit of their own.
    ///
    /// All of it is legal for an order, but rarely what the author of an index file meant.
    pub fn faults(&self) -> Option<String> {
        let written = |step: usize| !self.silent[step];
        let mut visits = vec![0; self.tokens];
        for (_, &token) in self.index.iter().enumerate().filter(|&(step, &token)| token >= 0 && written(step))
        {
            visits[token as usize] += 1;
        }
        let tokens = |n: usize| if n == 1 { "1 token is".to_string() } else { format!("{n} tokens are") };
        let mut faults = Vec::new();
        let repeated = visits.iter().filter(|&&n| n > 1).count();
        if let Some(token) = visits.iter().position(|&n| n > 1) {
            let visit = |&step: &usize| self.index[step] == token as i32 && written(step);
            let steps: Vec<usize> = (0..self.len()).filter(visit).take(2).collect();
            let steps = steps.iter().map(usize::to_string).collect::<Vec<_>>().join(" and ");
            faults.push(format!("{} repeated (first {token}, at steps {steps})", tokens(repeated)));
        }
        let missing = visits.iter().filter(|&&n| n == 0).count();
        if let Some(token) = visits.iter().position(|&n| n == 0) {
            faults.push(format!("{} missing (first {token})", tokens(missing)));
        }
        (!faults.is_empty()).then(|| faults.join(", "))
    }

    /// What the order does, in numbers; its `Display` says it in words.
    pub fn summary(&self) -> Summary {
        let visits = self.visits();
        Summary {
            steps: self.len(),
            tokens: self.tokens,
            unvisited: visits.iter().filter(|&&n| n == 0).count(),
            repeated: visits.iter().filter(|&&n| n > 1).count(),
            blanks: self.blanks(),
            blank: self.blank,
            resets: self.resets.iter().filter(|&&r| r).count(),
            silent: self.silent.iter().filter(|&&s| s).count(),
        }
    }
}

/// What an order does: see [`Order::summary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Summary {
    /// Steps (T).
    pub steps: usize,
    /// Tokens (L).
    pub tokens: usize,
    /// Tokens that are never visited.
    pub unvisited: usize,
    /// Tokens that are visited more than once.
    pub repeated: usize,
    /// Blank steps.
    pub blanks: usize,
    /// What a blank step does.
    pub blank: Blank,
    /// Steps at which the state starts afresh.
    pub resets: usize,
    /// Steps whose output goes nowhere.
    pub silent: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let steps = if self.steps == 1 { "step" } else { "steps" };
        write!(f, "{} {steps}: ", self.steps)?;
        match (self.unvisited, self.repeated) {
            (0, 0) => write!(f, "every token once")?,
            (0, n) => write!(f, "every token, {n} of {} more than once", self.tokens)?,
            (n, 0) => write!(f, "{} of {} tokens once", self.tokens - n, self.tokens)?,
            (n, m) => write!(f, "{} of {} tokens, {m} more than once", self.tokens - n, self.tokens)?,
        }
        if self.blanks > 0 {
            let what = match self.blank {
                Blank::Skip => "skipped",
                Blank::Zero => "zero input",
            };
            write!(f, ", {} blank ({what})", self.blanks)?;
        }
        match self.resets {
            0 => {}
            1 => write!(f, ", state starts afresh once")?,
            n => write!(f, ", state starts afresh {n} times")?,
        }
        if self.silent > 0 {
            write!(f, ", {} silent (read, not written)", self.silent)?;
        }
        Ok(())
    }
}
