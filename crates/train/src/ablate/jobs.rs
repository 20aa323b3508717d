//! Runs as child processes of the same program, some at a time.

use std::{
    collections::VecDeque,
    fs::{self, File},
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{Error, Result, folder::in_use, folder::write_text, interrupt};

/// Time between two looks at the children.
const PAUSE: Duration = Duration::from_millis(40);
/// Looks at the children between two looks at their metrics.
const LOOKS: u32 = 12;
/// Characters of a log that go into a report.
const TAIL: u64 = 4096;

/// How children are run.
pub(super) struct Pool<'a> {
    /// The program: `program train --output DIR --resume`.
    pub program: &'a Path,
    /// At the same time.
    pub jobs: usize,
    /// Threads of each.
    pub threads: usize,
}

/// A run to be made.
pub(super) struct Job {
    /// Which, to the caller.
    pub id: usize,
    /// Its run folder.
    pub folder: PathBuf,
    /// Its config, written there if there is none yet.
    pub config: String,
}

/// How a child ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Done {
    /// All is well.
    Finished,
    /// It saved and stopped, as asked.
    Stopped,
    /// It failed; says why.
    Failed(String),
}

/// What the caller hears.
pub(super) enum Event<'a> {
    /// A job begins.
    Begun(&'a Job),
    /// Another process is in its folder, and it waits.
    Waiting(&'a Job),
    /// How far it has come.
    Progress(&'a Job, At),
    /// A job ended.
    Ended(&'a Job, Done),
}

struct Running {
    job: Job,
    child: Child,
    asked: bool,
}

impl Drop for Running {
    /// An error in this process stops its children: their standard input closes, and they save.
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

impl Pool<'_> {
    /// Runs all of `jobs`; `hear` is told what happens. After Ctrl-C no job is begun, and those that run are asked to
    /// save and stop.
    pub fn run(&self, jobs: Vec<Job>, mut hear: impl FnMut(Event) -> Result<()>) -> Result<()> {
        let mut queue = VecDeque::from(jobs);
        let mut running: Vec<Running> = Vec::new();
        let (mut looks, mut waiting) = (0u32, Vec::new());
        while !(running.is_empty() && (queue.is_empty() || interrupt::asked())) {
            for _ in 0..queue.len() {
                if running.len() >= self.jobs || interrupt::asked() {
                    break;
                }
                let Some(job) = queue.pop_front() else { break };
                // A sweep that was killed leaves children that save and stop; they are waited for.
                if in_use(&job.folder) {
                    if !waiting.contains(&job.id) {
                        waiting.push(job.id);
                        hear(Event::Waiting(&job))?;
                    }
                    queue.push_back(job);
                    continue;
                }
                hear(Event::Begun(&job))?;
                match self.start(&job) {
                    Ok(child) => running.push(Running { job, child, asked: false }),
                    Err(error) => hear(Event::Ended(&job, Done::Failed(error.to_string())))?,
                }
            }
            looks += 1;
            let mut still = Vec::new();
            for mut one in running {
                let ended = one.child.try_wait().map_err(|error| Error::file(&one.job.folder, error))?;
                if let Some(status) = ended {
                    hear(Event::Ended(&one.job, how(&one, status)))?;
                    continue;
                }
                if looks.is_multiple_of(LOOKS) {
                    hear(Event::Progress(&one.job, progress(&one.job.folder)))?;
                }
                if !one.asked && interrupt::asked() {
                    one.asked = true;
                    drop(one.child.stdin.take());
                }
                still.push(one);
            }
            running = still;
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    fn start(&self, job: &Job) -> Result<Child> {
        let wrong = |error: std::io::Error| Error::file(&job.folder, error);
        fs::create_dir_all(&job.folder).map_err(wrong)?;
        let config = job.folder.join("config.toml");
        if !config.is_file() {
            write_text(&config, &job.config)?;
        }
        let log = File::create(job.folder.join("log.txt")).map_err(wrong)?;
        let threads = self.threads.to_string();
        let mut command = Command::new(self.program);
        command
            .args(["train", "--resume", "--until-input-closes", "--output"])
            .arg(&job.folder)
            // Of libtorch and of its matrix library.
            .env("OMP_NUM_THREADS", &threads)
            .env("MKL_NUM_THREADS", &threads)
            .stdin(Stdio::piped())
            .stdout(log.try_clone().map_err(wrong)?)
            .stderr(log);
        #[cfg(unix)]
        {
            // Ctrl-C is for this process, which passes it on.
            use std::os::unix::process::CommandExt;
            command.process_group(0);
        }
        command.spawn().map_err(|error| Error::file(self.program, format!("cannot be started: {error}")))
    }
}

fn how(one: &Running, status: ExitStatus) -> Done {
    match status.code() {
        Some(0) => Done::Finished,
        Some(interrupt::EXIT_CODE) if one.asked => Done::Stopped,
        _ => Done::Failed(why(&one.job.folder, status)),
    }
}

/// The error that the log of a run ends in.
fn why(folder: &Path, status: ExitStatus) -> String {
    let log = tail(&folder.join("log.txt"), TAIL);
    let lines: Vec<&str> = log.lines().collect();
    let from = lines.iter().rposition(|line| line.starts_with("error: "));
    match (from, status.code()) {
        (Some(from), _) => {
            let text = lines[from..].join("\n");
            text.trim_start_matches("error: ").to_owned()
        }
        (None, Some(code)) => {
            let last = lines.iter().rev().take(3).rev().copied().collect::<Vec<_>>().join("\n");
            format!("it ended with exit code {code}\n{last}").trim_end().to_owned()
        }
        (None, None) => format!("it was killed ({status}); was there enough memory?"),
    }
}

/// How far a run has come.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct At {
    /// Steps that it has taken.
    pub steps: u64,
    /// Seconds in these.
    pub seconds: f64,
}

/// How far the run in `folder` has come, as far as its metrics say.
pub(super) fn progress(folder: &Path) -> At {
    let text = tail(&folder.join("metrics.jsonl"), TAIL);
    let mut lines = text.lines().rev().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let at = |line: Value| {
        Some(At { steps: line["step"].as_u64()?, seconds: line["training_seconds"].as_f64().unwrap_or(0.0) })
    };
    lines.find_map(at).unwrap_or_default()
}

/// The last `most` bytes of a file; nothing if there is none.
fn tail(path: &Path, most: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(path)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(len.saturating_sub(most)))?;
        let mut bytes = Vec::new();
        file.take(most).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}
