//! What runs must have in common to be ranked: the modality, the classes and the examples that they were measured on.

use std::{fmt::Debug, path::Path};

use toml::Value;

use super::study::Run;
use crate::{Config, Error, Result, records::Evaluation};

/// Keys of `[data]` that say where data come from; the others may well be what is studied.
const SOURCE: [&str; 2] = ["format", "path"];

/// Holds `runs` against each other; those of different folds are measured on other examples by design.
///
/// # Errors
/// Two runs of a fold whose adapters, sources, classes or eval examples differ: names them, and what differs.
pub(super) fn check<'a>(runs: impl Iterator<Item = (&'a Run, Option<&'a Config>)>) -> Result<()> {
    let mut firsts: Vec<(&Run, Option<&Config>)> = Vec::new();
    for (run, config) in runs {
        match firsts.iter_mut().find(|(first, _)| first.draw.fold == run.draw.fold) {
            None => firsts.push((run, config)),
            Some(place) => {
                let (first, of_first) = *place;
                let wrong = |what: String| refused(&first.folder, &run.folder, &what);
                if let (Some(a), Some(b)) = (of_first, config) {
                    same_source(a, b).map_err(wrong)?;
                }
                match (&first.evaluation, &run.evaluation) {
                    (Some(a), Some(b)) => same_examples(a, b).map_err(wrong)?,
                    // The next is held against one that was measured.
                    (None, Some(_)) => *place = (run, config),
                    _ => {}
                }
            }
        }
    }
    Ok(())
}

/// What differs in where the data of two configs come from.
pub(crate) fn same_source(a: &Config, b: &Config) -> std::result::Result<(), String> {
    same("`adapter`", &a.adapter, &b.adapter)?;
    for key in SOURCE {
        let (a, b) = (a.data.get(key), b.data.get(key));
        let place = |value: Option<&Value>| Path::new(value?.as_str()?).canonicalize().ok();
        // The same folder, called from two places.
        if key == "path" && place(a).is_some() && place(a) == place(b) {
            continue;
        }
        if a != b {
            let show = |value: Option<&Value>| {
                value.map_or("nothing".to_owned(), |value| super::brief(&value.to_string(), 60))
            };
            return Err(format!("`data.{key}`, {} and {}", show(a), show(b)));
        }
    }
    Ok(())
}

fn same_examples(a: &Evaluation, b: &Evaluation) -> std::result::Result<(), String> {
    same("the classes", &a.classes, &b.classes)?;
    same("the number of eval examples", &a.labels.len(), &b.labels.len())?;
    if a.examples == b.examples && a.labels == b.labels {
        return Ok(());
    }
    Err("the eval examples: as many, but of other classes".to_owned())
}

fn same<T: PartialEq + Debug>(what: &str, a: &T, b: &T) -> std::result::Result<(), String> {
    if a == b {
        return Ok(());
    }
    let show = |value: &T| super::brief(&format!("{value:?}"), 60);
    Err(format!("{what}, {} and {}", show(a), show(b)))
}

fn refused(first: &Path, other: &Path, what: &str) -> Error {
    Error::config(format!(
        "{} and {} cannot be ranked against each other, since they differ in {what}; make a report of each",
        first.display(),
        other.display()
    ))
}
