//! The axes of a sweep: which keys take which values.

use ophidian_core::config::from_table;
use toml::{Table, Value};

use crate::{Error, Result};

/// Most values of a range, and most runs of a sweep.
pub(super) const MOST: usize = 10_000;

/// Keys that change together.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Axis {
    /// From the root of a training config, joined by dots.
    pub keys: Vec<String>,
    /// For each point of the axis, the value of each key.
    pub points: Vec<Vec<Value>>,
    /// What the points are called, if the sweep says so.
    pub labels: Option<Vec<String>>,
    /// Of the keys, those with a range that gives numbers which are not whole.
    pub fractions: Vec<String>,
}

impl Axis {
    /// What point `at` is called: its label, or its values.
    pub fn label(&self, at: usize) -> String {
        let label = self.labels.as_ref().and_then(|labels| labels.get(at)).cloned();
        let values = || self.points.get(at).into_iter().flatten().map(text).collect::<Vec<_>>();
        label.unwrap_or_else(|| values().join(", "))
    }
}

/// Equally spaced numbers, or numbers of equal ratio.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: Value,
    to: Value,
    step: Option<Value>,
    factor: Option<Value>,
    count: Option<usize>,
    #[serde(default)]
    scale: Scale,
}

#[derive(Default, Clone, Copy, PartialEq, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scale {
    #[default]
    Linear,
    Log,
}

/// The axes of `[axes]`, each a key of its own, in the order of their names.
///
/// # Errors
/// A value is neither a list nor a range, or a range is wrong.
pub(super) fn crossed(table: Table) -> Result<Vec<Axis>> {
    let mut leaves = Vec::new();
    flatten("", table, &mut leaves);
    leaves
        .into_iter()
        .map(|(key, value)| {
            let is_range = value.is_table();
            let found = values(&format!("axes.{key}"), value)?;
            let fractions = if is_range && has_fractions(&found) { vec![key.clone()] } else { Vec::new() };
            let points = found.into_iter().map(|value| vec![value]).collect();
            Ok(Axis { keys: vec![key], points, labels: None, fractions })
        })
        .collect()
}

/// The axis of a table `place`, of `[[zip]]` or `[folds]`: lists of equal length whose values are taken together.
///
/// # Errors
/// As [`crossed`]; lists of different lengths; labels that are not text, or as many as there are points.
pub(super) fn zipped(mut table: Table, place: &str) -> Result<Axis> {
    let labels: Option<Vec<String>> = match table.remove("label") {
        None => None,
        Some(Value::Array(labels)) if labels.iter().all(Value::is_str) => {
            Some(labels.iter().map(text).collect())
        }
        Some(other) => {
            return Err(Error::config(format!("`{place}.label` is {other}, expected a list of texts")));
        }
    };
    let mut leaves = Vec::new();
    flatten("", table, &mut leaves);
    let (mut columns, mut fractions) = (Vec::new(), Vec::new());
    for (key, value) in leaves {
        let is_range = value.is_table();
        let found = values(&format!("{place}.{key}"), value)?;
        if is_range && has_fractions(&found) {
            fractions.push(key.clone());
        }
        columns.push((key, found));
    }
    let lengths = columns.iter().map(|(key, values)| (key.as_str(), values.len()));
    let lengths: Vec<(&str, usize)> =
        lengths.chain(labels.iter().map(|labels| ("label", labels.len()))).collect();
    if lengths.windows(2).any(|pair| pair[0].1 != pair[1].1) {
        let found: Vec<String> = lengths.iter().map(|(key, len)| format!("`{key}` has {len}")).collect();
        return Err(Error::config(format!(
            "the lists of `{place}` differ in length: {}; zipped axes take their values together, so they need \
             equally many (to cross them, put them under [axes])",
            found.join(", ")
        )));
    }
    let count = columns.first().map_or(0, |(_, values)| values.len());
    let (keys, lists): (Vec<String>, Vec<Vec<Value>>) = columns.into_iter().unzip();
    let points = (0..count).map(|i| lists.iter().filter_map(|list| list.get(i).cloned()).collect()).collect();
    Ok(Axis { keys, points, labels, fractions })
}

/// The value as it stands in a name or a table: text without quotes, anything else as TOML.
pub(super) fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn has_fractions(values: &[Value]) -> bool {
    values.iter().any(|value| value.as_float().is_some_and(|number| number.fract() != 0.0))
}

/// The lists and ranges of `table`, with their full keys.
fn flatten(prefix: &str, table: Table, leaves: &mut Vec<(String, Value)>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key } else { format!("{prefix}.{key}") };
        match value {
            Value::Table(inner) if !inner.contains_key("from") => flatten(&path, inner, leaves),
            leaf => leaves.push((path, leaf)),
        }
    }
}

fn values(place: &str, value: Value) -> Result<Vec<Value>> {
    match value {
        Value::Array(values) if values.is_empty() => {
            Err(Error::config(format!("`{place}` is an empty list: the sweep has no arms")))
        }
        Value::Array(values) => Ok(values),
        Value::Table(range) => from_table::<Range>(range, place)?.values(place),
        other => Err(Error::config(format!(
            "`{place}` is {other}, expected a list, or a range such as {{ from = 1, to = 5, step = 2 }}"
        ))),
    }
}

impl Range {
    fn values(&self, place: &str) -> Result<Vec<Value>> {
        let wrong = |reason: String| Error::config(format!("`{place}`: {reason}"));
        let number = |key: &str, value: &Value| match value {
            Value::Integer(number) => Ok(*number as f64),
            Value::Float(number) if number.is_finite() => Ok(*number),
            other => Err(wrong(format!("`{key}` is {other}, expected a finite number"))),
        };
        let (from, to) = (number("from", &self.from)?, number("to", &self.to)?);
        let found = match (&self.step, &self.factor, self.count) {
            (Some(step), None, None) if self.scale == Scale::Linear => {
                let step = number("step", step)?;
                let steps = (to - from) / step;
                if step == 0.0 || steps < 0.0 {
                    return Err(wrong(format!("from {from} in steps of {step}, {to} is never reached")));
                }
                let count = length(steps).map_err(wrong)?;
                (0..count).map(|i| from + i as f64 * step).collect()
            }
            (None, Some(factor), None) => {
                let factor = number("factor", factor)?;
                positive(from, to).map_err(wrong)?;
                let steps = (to / from).ln() / factor.ln();
                if factor <= 0.0 || factor == 1.0 || steps < 0.0 {
                    return Err(wrong(format!("from {from} by factors of {factor}, {to} is never reached")));
                }
                let count = length(steps).map_err(wrong)?;
                (0..count).map(|i| from * factor.powi(i as i32)).collect()
            }
            (None, None, Some(count)) if (2..=MOST).contains(&count) => {
                if self.scale == Scale::Log {
                    positive(from, to).map_err(wrong)?;
                }
                let between = |share: f64| match self.scale {
                    Scale::Linear => from + (to - from) * share,
                    Scale::Log => from * (to / from).powf(share),
                };
                (0..count).map(|i| between(i as f64 / (count - 1) as f64)).collect()
            }
            (None, None, Some(count)) => {
                return Err(wrong(format!("`count` is {count}, expected 2 to {MOST}")));
            }
            _ => {
                return Err(wrong(
                    "a range has `from`, `to` and one of `step`, `factor` and `count` (with `scale` \"linear\" or \
                     \"log\")"
                        .to_owned(),
                ));
            }
        };
        Ok(self.typed(found))
    }

    /// Whole numbers stay whole if the range is written with such.
    fn typed(&self, found: Vec<f64>) -> Vec<Value> {
        let given = [Some(&self.from), Some(&self.to), self.step.as_ref(), self.factor.as_ref()];
        let found: Vec<f64> = found.into_iter().map(tidy).collect();
        let whole =
            given.into_iter().flatten().all(Value::is_integer) && found.iter().all(|v| v.fract() == 0.0);
        found.into_iter().map(|v| if whole { Value::Integer(v as i64) } else { Value::Float(v) }).collect()
    }
}

/// Without the last digits, which come of rounding: 0.1 + 2 * 0.1 is 0.3.
fn tidy(value: f64) -> f64 {
    format!("{value:.12e}").parse().unwrap_or(value)
}

/// Values of a range that takes `steps` steps, its end included.
fn length(steps: f64) -> std::result::Result<usize, String> {
    let count = (steps + 1e-9).floor() + 1.0;
    if count <= MOST as f64 {
        return Ok(count as usize);
    }
    Err(format!("the range has {count} values, expected at most {MOST}"))
}

fn positive(from: f64, to: f64) -> std::result::Result<(), String> {
    if from > 0.0 && to > 0.0 {
        return Ok(());
    }
    Err(format!("from {from} to {to} is no range of equal ratios; expected numbers above 0"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(text: &str) -> String {
        let table: Table = format!("x = {text}").parse().unwrap();
        match crossed(table) {
            Ok(axes) => axes[0].points.iter().map(|point| point[0].to_string()).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn ranges_count_linearly_and_by_factors() {
        assert_eq!(range("{ from = 1, to = 7, step = 2 }"), "1 3 5 7");
        assert_eq!(range("{ from = 7, to = 2, step = -2 }"), "7 5 3");
        assert_eq!(range("{ from = 0.1, to = 0.5, step = 0.1 }"), "0.1 0.2 0.3 0.4 0.5");
        assert_eq!(range("{ from = 16, to = 64, factor = 2 }"), "16 32 64");
        assert_eq!(range("{ from = 1e-4, to = 1e-2, count = 3, scale = 'log' }"), "0.0001 0.001 0.01");
        assert_eq!(range("{ from = 0, to = 1, count = 3 }"), "0.0 0.5 1.0");
        assert_eq!(range("[1, 'a', [2, 3]]"), "1 \"a\" [2, 3]");
    }

    #[test]
    fn ranges_that_never_end_are_refused() {
        for text in [
            "{ from = 1, to = 7, step = 0 }",
            "{ from = 1, to = 7, step = -1 }",
            "{ from = 1, to = 7, factor = 1 }",
            "{ from = 1, to = 7, factor = 0.5 }",
            "{ from = 1, to = 7, factor = -2 }",
        ] {
            assert!(range(text).contains("is never reached"), "{text}: {}", range(text));
        }
        assert!(range("{ from = 1, to = inf, step = 1 }").contains("`to` is inf, expected a finite number"));
        assert!(range("{ from = 1, to = nan, step = 1 }").contains("expected a finite number"));
        assert!(
            range("{ from = 0, to = 1e9, step = 1 }").contains("1000000001 values, expected at most 10000")
        );
        assert!(range("{ from = 0, to = 8, factor = 2 }").contains("expected numbers above 0"));
        assert!(range("{ from = 0, to = 8, count = 1 }").contains("`count` is 1"));
        assert!(range("{ from = 0, to = 8 }").contains("one of `step`, `factor` and `count`"));
        assert!(range("{ from = 0, to = 8, stp = 1 }").contains("unknown key `axes.x.stp`"));
        assert!(range("3").contains("`axes.x` is 3, expected a list, or a range"));
        assert!(range("[]").contains("no arms"));
    }
}
