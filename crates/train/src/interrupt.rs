//! Ctrl-C: the first asks the run to finish its step and save, the second ends the program at once.

use std::sync::atomic::{AtomicBool, Ordering};

/// Exit code of a program that was interrupted: 128 + SIGINT.
pub const EXIT_CODE: i32 = 130;

static ASKED: AtomicBool = AtomicBool::new(false);

/// Listens for Ctrl-C (and SIGTERM, SIGHUP) from now on.
///
/// # Errors
/// The system refuses, or something else listens already.
pub fn install() -> crate::Result<()> {
    ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            end();
        }
    })
    .map_err(|error| ophidian_core::Error::invalid(format!("Ctrl-C cannot be listened for: {error}")).into())
}

/// Asks the run to stop, as Ctrl-C does, once standard input closes.
///
/// # Errors
/// No thread can be started.
pub fn when_input_closes() -> crate::Result<()> {
    let wait = || {
        // What is written there means nothing.
        let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
        ASKED.store(true, Ordering::SeqCst);
    };
    let thread = std::thread::Builder::new().name("input".to_owned()).spawn(wait);
    thread.map(drop).map_err(|error| {
        ophidian_core::Error::invalid(format!("standard input cannot be watched: {error}")).into()
    })
}

/// Ends the program from the thread that heard the second Ctrl-C. Not `std::process::exit`: that takes libtorch's statics
/// apart while the step is still using them, and the program would die of that instead.
fn end() -> ! {
    #[cfg(unix)]
    {
        unsafe extern "C" {
            fn _exit(code: i32) -> !;
        }
        // Safety: POSIX; ends the process without running anything else of it.
        unsafe { _exit(EXIT_CODE) }
    }
    #[cfg(not(unix))]
    std::process::exit(EXIT_CODE)
}

/// True once the run has been asked to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
