//! Plans as files of indices (JSON, safetensors, npy), and the data that orders are made from.

mod data;
mod json;
mod npy;
mod tensors;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use crate::geometry::MAX_DIRECTIONS;
use crate::{Blank, Error, Order, Plan, Result};

/// Largest file that is read: no plan, set of points or graph within the crate's limits needs more.
const MAX_BYTES: u64 = 1 << 30;

/// Format of an index file, by the ending of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Npy,
    Safetensors,
}

impl Format {
    pub(crate) fn of(path: &Path) -> Option<Format> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "json" => Some(Format::Json),
            "npy" => Some(Format::Npy),
            "safetensors" => Some(Format::Safetensors),
            _ => None,
        }
    }

    fn needed(path: &Path) -> Result<Format> {
        let reason = "an index file ends in .json, .npy or .safetensors";
        Format::of(path).ok_or_else(|| Error::format(path, reason))
    }
}

impl Plan {
    /// The bytes of an index file named `path`, which is not written; its ending chooses the format.
    ///
    /// - `.json`: an object of `"order.<k>"`, each a list of T entries, and `"tokens"`; `"resets.<k>"` lists the steps
    ///   at which the state starts afresh, `"silent.<k>"` those that read their token without writing to it, and
    ///   `"blank.<k>"` is `"skip"` where blank steps do nothing.
    /// - `.safetensors`: int64 tensors `order.<k>` (T), `resets.<k>` and `silent.<k>`; `tokens` and `blank.<k>` are metadata.
    /// - `.npy`: one int64 array (K, T).
    ///
    /// Each is a gather map: `scanned[t] = x[order[t]]`, -1 a blank step.
    ///
    /// # Errors
    /// [`Error::Format`] for another ending, and where npy cannot hold the plan: orders of different lengths, resets,
    /// silent steps, or blank steps that are skipped.
    pub fn encode(&self, path: &Path) -> Result<Vec<u8>> {
        match Format::needed(path)? {
            Format::Json => json::encode(self).map_err(|error| Error::format(path, error)),
            Format::Npy => npy::encode(self).map_err(|error| Error::format(path, error)),
            Format::Safetensors => tensors::encode(self).map_err(|error| Error::format(path, error)),
        }
    }

    /// The plan in the `bytes` of an index file named `path`, as [`encode`](Plan::encode) makes them. A file written by
    /// hand may also be a JSON list of entries (one direction) or of such lists, or a npy array (T) or (K, T) of 32-bit
    /// or 64-bit signed integers.
    ///
    /// `tokens` is how many tokens the orders are over (L). Without it the file says so, or else one more than the
    /// greatest entry.
    ///
    /// # Errors
    /// [`Error::Format`] for another ending; [`Error::File`] for bytes that are not such a file, entries outside the
    /// tokens (the first is named), or a file that says another number of tokens.
    pub fn decode(path: &Path, bytes: &[u8], tokens: Option<usize>) -> Result<Plan> {
        let raw = match Format::needed(path)? {
            Format::Json => json::decode(bytes),
            Format::Npy => npy::decode(bytes),
            Format::Safetensors => tensors::decode(bytes),
        };
        raw.and_then(|raw| raw.into_plan(tokens)).map_err(|reason| Error::file(path, reason))
    }

    /// The plan in the index file at `path`; see [`decode`](Plan::decode).
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be read, else as [`decode`](Plan::decode).
    pub fn read(path: &Path, tokens: Option<usize>) -> Result<Plan> {
        Format::needed(path)?;
        Plan::decode(path, &bytes(path)?, tokens)
    }
}

/// The bytes of a file that is no larger than anything within the crate's limits.
fn bytes(path: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    // A pipe or a device might never end.
    if std::fs::metadata(path).is_ok_and(|found| !found.is_file()) {
        return Err(Error::file(path, "is not a regular file"));
    }
    let file = std::fs::File::open(path).map_err(|source| Error::io(path, source))?;
    file.take(MAX_BYTES + 1).read_to_end(&mut bytes).map_err(|source| Error::io(path, source))?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(Error::file(path, format!("larger than {MAX_BYTES} bytes, the most that is read")));
    }
    Ok(bytes)
}

/// What an index file holds, before it is checked.
#[derive(Default)]
struct Raw {
    tokens: Option<usize>,
    orders: BTreeMap<usize, Vec<i64>>,
    resets: BTreeMap<usize, Vec<i64>>,
    silent: BTreeMap<usize, Vec<i64>>,
    blanks: BTreeMap<usize, Blank>,
}

/// A key of an index file.
enum Key {
    Tokens,
    Order(usize),
    Resets(usize),
    Silent(usize),
    Blank(usize),
}

impl Key {
    fn of(text: &str) -> std::result::Result<Key, String> {
        let unknown = || {
            format!("unknown key `{text}`: expected order.<k>, resets.<k>, silent.<k>, blank.<k> or tokens")
        };
        if text == "tokens" {
            return Ok(Key::Tokens);
        }
        let (name, number) = text.split_once('.').ok_or_else(unknown)?;
        let k: usize = number.parse().map_err(|_| unknown())?;
        if k.to_string() != number {
            return Err(unknown());
        }
        if k >= MAX_DIRECTIONS {
            return Err(format!("`{text}` is one direction too many: at most {MAX_DIRECTIONS}"));
        }
        match name {
            "order" => Ok(Key::Order(k)),
            "resets" => Ok(Key::Resets(k)),
            "silent" => Ok(Key::Silent(k)),
            "blank" => Ok(Key::Blank(k)),
            _ => Err(unknown()),
        }
    }
}

impl Raw {
    /// Orders numbered as they come.
    fn of_orders(orders: Vec<Vec<i64>>) -> Raw {
        Raw { orders: orders.into_iter().enumerate().collect(), ..Raw::default() }
    }

    fn into_plan(mut self, expected: Option<usize>) -> std::result::Result<Plan, String> {
        if let (Some(found), Some(expected)) = (self.tokens, expected)
            && found != expected
        {
            return Err(format!("its orders are over {found} tokens, expected {expected}"));
        }
        let greatest = || self.orders.values().flatten().max().copied().unwrap_or(0);
        let tokens = expected.or(self.tokens).unwrap_or_else(|| greatest().max(0) as usize + 1);
        let directions = self.orders.len();
        if directions == 0 {
            return Err("it holds no order.0".into());
        }
        if let Some((&k, _)) = self.orders.last_key_value().filter(|(k, _)| **k != directions - 1) {
            return Err(format!(
                "it holds {directions} orders, the last one order.{k}: one before it is missing"
            ));
        }
        if let Some(k) =
            self.resets.keys().chain(self.silent.keys()).chain(self.blanks.keys()).find(|k| **k >= directions)
        {
            return Err(format!("it says something about direction {k}, but there is no order.{k}"));
        }
        let build = |(k, index): (usize, Vec<i64>)| {
            let order = Order::from_i64(&index, tokens).map_err(|error| {
                let within = |i: i64| (-1..tokens as i64).contains(&i);
                let outside = index.iter().filter(|&&i| !within(i)).count();
                let more =
                    if outside > 1 { format!("; {outside} entries lie outside") } else { String::new() };
                // Of the others what would be told if they were all.
                let others: Vec<i64> = index.iter().map(|&i| if within(i) { i } else { -1 }).collect();
                let faults = Order::from_i64(&others, tokens).ok().and_then(|order| order.faults());
                let faults = faults.map_or(String::new(), |faults| format!("; of the others {faults}"));
                format!("{}{more}{faults}", error.in_direction(k))
            })?;
            let order = order.with_blank(self.blanks.remove(&k).unwrap_or_default());
            let marks = |name: &str, steps: Option<Vec<i64>>| {
                let mut marks = vec![false; order.len()];
                for step in steps.unwrap_or_default() {
                    let mark = usize::try_from(step).ok().and_then(|step| marks.get_mut(step));
                    *mark.ok_or_else(|| {
                        format!("{name}.{k} names step {step}, but order.{k} has {} steps", order.len())
                    })? = true;
                }
                Ok::<_, String>(marks)
            };
            let (resets, silent) =
                (marks("resets", self.resets.remove(&k))?, marks("silent", self.silent.remove(&k))?);
            let order = order.with_resets(resets).and_then(|order| order.with_silent(silent));
            order.map_err(|error| error.to_string())
        };
        let orders = std::mem::take(&mut self.orders);
        let orders = orders.into_iter().map(build).collect::<std::result::Result<_, String>>()?;
        Plan::new(orders).map_err(|error| error.to_string())
    }
}

/// The steps that are marked.
fn marked(marks: &[bool]) -> Vec<i64> {
    marks.iter().enumerate().filter(|(_, mark)| **mark).map(|(step, _)| step as i64).collect()
}
