//! What came out of many runs, for people: one HTML file that needs nothing else, and the same as tables and JSON.
//!
//! ```text
//! run folders, or that of a sweep ──study──► Study ──compare──► Ranked arms ──write──► report.html report.json
//!                                                                                      runs.csv ranking.csv costs.csv
//! ```

mod charts;
pub(crate) mod comparable;
mod compare;
mod configs;
pub(crate) mod page;
mod sections;
mod stats;
mod study;
mod tables;
mod warnings;

use std::path::{Path, PathBuf};

pub use compare::{Basis, Difference, Ranked, compare};
pub use stats::{Interval, Spread, bootstrap, bootstrap_folds, mean, quantile, standard_deviation};
pub use study::{Arm, Point, Run, Status, Study, accuracy, read_summary, study};

use crate::{Result, folder::write_text};

/// Most characters of an arm's name that are shown, and of a value in it.
pub(crate) const NAME: usize = 80;
const VALUE: usize = 40;

/// `text` cut in the middle to `most` characters.
pub(crate) fn brief(text: &str, most: usize) -> String {
    let count = text.chars().count();
    if count <= most {
        return text.to_owned();
    }
    // Rather more of the beginning.
    let (head, tail) = (most * 3 / 5, most - most * 3 / 5 - 1);
    let part = |from: usize, to: usize| text.chars().skip(from).take(to - from).collect::<String>();
    format!("{}…{}", part(0, head), part(count - tail, count))
}

/// The files of a report.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// For a browser.
    pub html: PathBuf,
    /// Everything, for programs.
    pub json: PathBuf,
    /// For a spreadsheet.
    pub tables: Vec<PathBuf>,
    /// What the reader must know who compares the numbers; also in the report.
    pub warnings: Vec<String>,
}

/// Writes the report of `study` into `folder`.
///
/// # Errors
/// A file cannot be written.
pub fn write(study: &Study, folder: &Path) -> Result<Files> {
    let ranking = compare(study);
    std::fs::create_dir_all(folder).map_err(|error| crate::Error::file(folder, error))?;
    let mut files = Files {
        html: folder.join("report.html"),
        json: folder.join("report.json"),
        tables: Vec::new(),
        warnings: warnings::warnings(study, &ranking),
    };
    for (name, text) in tables::csv(study, &ranking) {
        let path = folder.join(name);
        write_text(&path, &text)?;
        files.tables.push(path);
    }
    write_text(&files.json, &tables::json(study, &ranking, &files.warnings))?;
    write_text(&files.html, &page::html(study, &ranking, &files.warnings))?;
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_lose_their_middle() {
        assert_eq!(brief("hilbert", 7), "hilbert");
        assert_eq!(brief("hilbert | bidirectional", 11), "hilber…onal");
        let long = brief(&"é".repeat(300), NAME);
        assert_eq!((long.chars().count(), long.chars().filter(|c| *c == '…').count()), (NAME, 1));
    }
}
