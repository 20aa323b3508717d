//! What a run ran on, for `environment.json`.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use crate::{Result, folder::write_text};

/// Adds this session to the list in the file at `path`, or begins the list unless the run `resumes`.
///
/// # Errors
/// The file cannot be written.
pub fn append_session(path: &Path, resumes: bool, step: u64, program: &[(String, String)]) -> Result<()> {
    let before = if resumes { fs::read_to_string(path).ok() } else { None };
    // A list that does not read is begun anew: it is a note, not a part of the run.
    let mut sessions: Vec<Value> =
        before.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    sessions.push(describe(step, program));
    write_text(path, &format!("{:#}\n", Value::Array(sessions)))
}

/// Describes this machine and program. `program` holds what only the program knows (its SIMD, its version …).
fn describe(step: u64, program: &[(String, String)]) -> Value {
    let mut about = json!({
        "from_step": step,
        "ophidian": env!("CARGO_PKG_VERSION"),
        "rustc": command("rustc", &["--version"]),
        "os": std::env::consts::OS,
        "architecture": std::env::consts::ARCH,
        "cpu": cpu_model(),
        "cores": std::thread::available_parallelism().map(|cores| cores.get()).ok(),
        "threads": tch::get_num_threads(),
        "git_commit": git_commit(),
        "command_line": std::env::args().collect::<Vec<_>>(),
        "started": seconds_since_epoch() as u64,
    });
    for (key, value) in program {
        about[key] = json!(value);
    }
    about
}

/// Seconds since 1970.
pub fn seconds_since_epoch() -> f64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0.0, |duration| duration.as_secs_f64())
}

/// The most memory this process has held so far, in MiB, where the system tells.
pub fn peak_memory_mib() -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
    line.split_whitespace().nth(1)?.parse::<f64>().ok().map(|kib| kib / 1024.0)
}

/// The commit that the working folder stands at, with `-dirty` if files differ from it; none outside a repository.
fn git_commit() -> Option<String> {
    command("git", &["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"])
}

fn cpu_model() -> Option<String> {
    match fs::read_to_string("/proc/cpuinfo") {
        Ok(text) => {
            let line = text.lines().find(|line| line.starts_with("model name"))?;
            Some(line.split_once(':')?.1.trim().to_owned())
        }
        Err(_) => command("sysctl", &["-n", "machdep.cpu.brand_string"]),
    }
}

fn command(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(std::process::Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    (output.status.success() && !text.trim().is_empty()).then(|| text.trim().to_owned())
}
