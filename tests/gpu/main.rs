//! The kernels on a GPU: `gpu parity` runs the problems of the emulator's tests on the card, `gpu bench` times the kernels at
//! the shapes of models. One JSON line per case, as soon as it is known; the exit status is 1 if any fails. Needs libcuda
//! and NVRTC, not libtorch: it is built on a machine without a GPU and carried. `benches/gpu/run.py` does all of that.

#[path = "../../benches/gpu/bench.rs"]
mod bench;
#[path = "../../crates/kernels/tests/common/mod.rs"]
mod common;
mod cuda;
#[path = "../../crates/kernels/tests/device/mod.rs"]
mod device;
#[path = "../../benches/gpu/layers.rs"]
mod layers;
mod parity;

use std::{
    io::Write,
    panic::{AssertUnwindSafe, catch_unwind},
    process::ExitCode,
    time::{Duration, Instant, SystemTime},
};

use ophidian_kernels::cuda::{Nvrtc, Variant};
use rayon::prelude::*;
use serde_json::{Value, json};

const USAGE: &str = "usage: gpu parity [--cases N] [--seed N] [--seconds N] | gpu bench [--only NAME] [--quick] [--seconds N]";

/// What is asked for.
struct Asked {
    command: String,
    cases: u32,
    seed: u64,
    only: Option<String>,
    quick: bool,
    /// No case is begun after it.
    until: Instant,
}

fn asked() -> Result<Asked, String> {
    let mut words = std::env::args().skip(1);
    let command = words.next().filter(|word| ["parity", "bench"].contains(&word.as_str())).ok_or(USAGE)?;
    let clock = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |t| t.as_secs());
    let later = |seconds| Instant::now() + Duration::from_secs(seconds);
    let mut asked = Asked { command, cases: 40, seed: clock, only: None, quick: false, until: later(86_400) };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value; {USAGE}"));
        let number =
            |value: String| value.parse::<u64>().map_err(|_| format!("`{value}` is not a number; {USAGE}"));
        match word.as_str() {
            "--cases" => asked.cases = number(value()?)?.try_into().unwrap_or(u32::MAX),
            "--seed" => asked.seed = number(value()?)?,
            "--seconds" => asked.until = later(number(value()?)?.min(86_400)),
            "--only" => asked.only = Some(value()?),
            "--quick" => asked.quick = true,
            _ => return Err(format!("`{word}` is not known; {USAGE}")),
        }
    }
    Ok(asked)
}

/// One line. A reader that is gone is no error.
fn line(value: &Value) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{value}").and_then(|()| out.flush());
}

/// What `work` gives, or the text of its panic: problems panic where a device fails.
fn caught<R>(work: impl FnOnce() -> R) -> Result<R, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).into())).unwrap_or_default()
    })
}

/// Compiles on all cores at once, so that no case waits for its kernels. One that does not compile fails its cases, too.
fn compile(variants: &[Variant]) -> bool {
    let started = Instant::now();
    let failed: Vec<String> = variants
        .par_iter()
        .filter_map(|variant| cuda::prepare(variant, |_| Ok(())).err().map(|e| format!("{variant}: {e}")))
        .collect();
    line(&json!({
        "compiled": variants.len() - failed.len(),
        "seconds": started.elapsed().as_secs_f64(),
        "failed": failed,
    }));
    failed.is_empty()
}

fn run(asked: &Asked) -> Result<bool, String> {
    let device = cuda::open().map_err(|error| error.to_string())?;
    let nvrtc = Nvrtc::get().map_err(|error| error.to_string())?;
    let card = device.card();
    line(&json!({
        "device": device.name(),
        "capability": device.capability(),
        "multiprocessors": card.multiprocessors,
        "shared": card.shared,
        "clock_khz": device.clock(),
        "nvrtc": [nvrtc.version().0, nvrtc.version().1],
        "nvrtc_path": nvrtc.path(),
        "seed": asked.seed,
    }));
    if asked.command == "parity" { parity::run(device, asked) } else { bench::run(device, asked) }
}

fn main() -> ExitCode {
    let asked = asked();
    // From here on a panic is a line of the report.
    std::panic::set_hook(Box::new(|_| {}));
    match asked.and_then(|asked| caught(|| run(&asked)).and_then(|done| done)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error}");
            ExitCode::FAILURE
        }
    }
}
