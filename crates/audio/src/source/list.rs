//! Lists of WAV files: a .csv or .tsv of paths and labels, and maybe of what each is for.

use std::path::{Path, PathBuf};

use csv::{ReaderBuilder, StringRecord};
use ophidian_core::{Error, Result};

use super::{Entry, Found, Role, split};

/// Names of the columns in a first line that names them.
const PATHS: [&str; 4] = ["path", "file", "filename", "wav"];
const LABELS: [&str; 4] = ["label", "class", "category", "target"];
const SPLITS: [&str; 3] = ["split", "subset", "fold"];

/// Which column is what.
struct Columns {
    path: usize,
    label: usize,
    split: Option<usize>,
}

/// Whether a file is a list by its name.
pub fn is_list(path: &Path) -> bool {
    path.extension()
        .is_some_and(|ending| ending.eq_ignore_ascii_case("csv") || ending.eq_ignore_ascii_case("tsv"))
}

/// The data set that the list at `path` names; paths start at its folder. Columns are path, label and maybe split
/// ("train", "val" or "test"), or as a first line names them. `names` are the classes if there are any.
///
/// # Errors
/// The list cannot be read; a line has no label or names a file that is not there.
pub fn open(path: &Path, names: &[String]) -> Result<Found> {
    let delimiter =
        if path.extension().is_some_and(|it| it.eq_ignore_ascii_case("tsv")) { b'\t' } else { b',' };
    let mut reader = ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .trim(csv::Trim::All)
        .from_path(path)
        .map_err(|error| Error::file(path, error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let (mut columns, mut entries) = (None, Vec::new());
    for record in reader.records() {
        let record = record.map_err(|error| Error::file(path, error))?;
        if record.iter().all(str::is_empty) {
            continue;
        }
        let line = record.position().map_or(0, csv::Position::line);
        let columns = match &columns {
            Some(columns) => columns,
            None => {
                let (named, first) = first(&record);
                let columns = columns.insert(first);
                if named {
                    continue;
                }
                columns
            }
        };
        let entry = entry(&record, columns, folder)
            .map_err(|reason| Error::file(path, format!("line {line}: {reason}")))?;
        entries.push(entry);
    }
    let splits = entries.iter().filter(|entry| entry.role.is_some()).count();
    if splits != 0 && splits != entries.len() {
        let without = entries.iter().find(|entry| entry.role.is_none());
        let name = without.map_or(String::new(), |entry| entry.file.display().to_string());
        return Err(Error::file(path, format!("gives a split to some clips, but none to {name}")));
    }
    split(path, entries, names)
}

/// The columns by the first line, and whether it names them.
fn first(record: &StringRecord) -> (bool, Columns) {
    let find = |names: &[&str]| {
        record.iter().position(|cell| names.iter().any(|name| cell.eq_ignore_ascii_case(name)))
    };
    match (find(&PATHS), find(&LABELS)) {
        (Some(path), Some(label)) => (true, Columns { path, label, split: find(&SPLITS) }),
        _ => (false, Columns { path: 0, label: 1, split: Some(2) }),
    }
}

fn entry(record: &StringRecord, columns: &Columns, folder: &Path) -> std::result::Result<Entry, String> {
    let cell = |at: usize| record.get(at).filter(|cell| !cell.is_empty());
    let Some(name) = cell(columns.path) else {
        return Err("names no file; expected a path and a label".into());
    };
    let Some(class) = cell(columns.label) else {
        return Err(format!("`{name}` has no label; expected a path and a label"));
    };
    let role =
        match columns.split.and_then(cell) {
            None => None,
            Some(word) => Some(Role::of(word).ok_or_else(|| {
                format!("`{name}` is for \"{word}\", expected \"train\", \"val\" or \"test\"")
            })?),
        };
    let file: PathBuf = folder.join(name);
    if !file.is_file() {
        return Err(format!("names the file {}, which is not there", file.display()));
    }
    Ok(Entry { file, class: class.to_owned(), role })
}
