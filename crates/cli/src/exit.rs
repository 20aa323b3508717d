//! Exit codes: 0 done, 1 failed, 2 the command line, the config or the pattern is wrong, 130 interrupted by Ctrl-C (a
//! training run has then saved and can be resumed).

use std::process::ExitCode;

use crate::printer::Printer;

/// The user's command line is at fault.
#[derive(Debug)]
pub struct Usage(pub String);

impl std::fmt::Display for Usage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Usage {}

/// Prints `error` with its causes and returns the exit code it stands for.
pub fn report(error: &anyhow::Error, printer: &Printer) -> ExitCode {
    // A closed pipe (`ophidian … | head`) is nobody's failure.
    let closed = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    if closed.into_iter().any(|io| io.kind() == std::io::ErrorKind::BrokenPipe) {
        return ExitCode::SUCCESS;
    }
    printer.error(error);
    if error.chain().any(is_usage) { ExitCode::from(2) } else { ExitCode::FAILURE }
}

fn is_usage(cause: &(dyn std::error::Error + 'static)) -> bool {
    let core = |error: &ophidian_core::Error| match error {
        ophidian_core::Error::Config(_) => true,
        ophidian_core::Error::Scan(scan) => scan.is_usage(),
        _ => false,
    };
    cause.is::<Usage>()
        || cause.downcast_ref().is_some_and(core)
        || cause.downcast_ref().is_some_and(ophidian_scan::Error::is_usage)
        || cause.downcast_ref().is_some_and(ophidian_train::Error::is_usage)
}
