//! Everything the program says goes through here.

use std::io::{self, Write};

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
