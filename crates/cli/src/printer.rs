//! Everything the program says goes through here.

use std::io::{self, Write};
use std::ops::Range;

/// Writes results to standard output, messages to standard error.
pub struct Printer;

impl Printer {
    /// The program's printer.
    pub fn new() -> Self {
        Printer
    }

    /// One line of a result.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn line(&self, text: impl std::fmt::Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// A table as a result: columns as wide as they need to be, those numbered in `right` flush right.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn table<const N: usize>(
        &self,
        heads: [&str; N],
        rows: &[[String; N]],
        right: Range<usize>,
    ) -> io::Result<()> {
        let heads = heads.map(str::to_owned);
        let mut widths = [0; N];
        for row in [&heads].into_iter().chain(rows) {
            for (width, text) in widths.iter_mut().zip(row) {
                *width = text.chars().count().max(*width);
            }
        }
        for row in [&heads].into_iter().chain(rows) {
            let cell = |(column, (text, &width)): (usize, (&String, &usize))| {
                if right.contains(&column) { format!("{text:>width$}") } else { format!("{text:width$}") }
            };
            let cells: Vec<String> = row.iter().zip(&widths).enumerate().map(cell).collect();
            self.line(cells.join("  ").trim_end())?;
        }
        Ok(())
    }

    /// One JSON line of a result.
    ///
    /// # Errors
    /// Standard output is closed.
    pub fn json(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        Ok(self.line(serde_json::to_string(value)?)?)
    }

    /// A message beside the result.
    pub fn note(&self, text: impl std::fmt::Display) {
        // Nothing can be done if standard error is closed too.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    /// A message on a terminal that the next one replaces; an empty one clears the line.
    pub fn status(&self, text: impl std::fmt::Display) {
        let mut terminal = io::stderr().lock();
        let _ = write!(terminal, "\r\x1b[K{text}").and_then(|()| terminal.flush());
    }

    /// An error and what caused it.
    pub fn error(&self, error: &anyhow::Error) {
        let mut text = format!("error: {error}");
        let mut last = error.to_string();
        for cause in error.chain().skip(1) {
            let cause = cause.to_string();
            if !last.contains(&cause) {
                text.push_str(&format!(": {cause}"));
            }
            last = cause;
        }
        self.note(text);
    }
}
