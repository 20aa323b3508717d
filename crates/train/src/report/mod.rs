//! What came out of many runs, for people: one HTML file that needs nothing else, and the same as tables and JSON.
//!
//! ```text
//! run folders, or that of a sweep ──study──► Study ──compare──► Ranked arms ──write──► report.html report.json
//!                                                                                      runs.csv ranking.csv costs.csv
//! ```

mod charts;
mod compare;
pub(crate) mod page;
mod sections;
mod stats;
mod study;
mod tables;
mod warnings;

use std::path::{Path, PathBuf};

pub use compare::{Basis, Difference, Ranked, compare};
pub use stats::{Interval, Spread, bootstrap, mean, quantile, standard_deviation};
pub use study::{Arm, Point, Run, Status, Study, accuracy, read_summary, study};

use crate::{Result, folder::write_text};

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
