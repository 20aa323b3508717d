//! Runs a plan: what is done already is left alone, the rest is run, and a report is written.

use std::{
    path::{Path, PathBuf},
    time::Instant,
};

use ophidian_core::adapter::Adapter;

use super::{
    Draw, Plan,
    folder::SweepFolder,
    jobs::{self, At, Done, Event, Job, Pool},
};
use crate::{
    Ending, Progress, Result, interrupt,
    progress::duration,
    records::Summary,
    report::{self, Files},
};

/// Units of [`Clock`] in a second of runs whose length seconds decide.
const TENTHS: f64 = 10.0;

/// What is asked for.
pub struct Request<'a> {
    /// The sweep.
    pub plan: Plan<'a>,
    /// Its folder.
    pub output: &'a Path,
    /// Runs at the same time.
    pub jobs: usize,
    /// Threads of each run.
    pub threads: usize,
    /// This program.
    pub program: &'a Path,
    /// The command that asks for it, for the report.
    pub command: String,
    /// Every adapter.
    pub adapters: &'a [&'a dyn Adapter],
}

/// How a sweep ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The reports.
    pub report: Files,
    /// Runs that finished, now or before.
    pub finished: usize,
    /// Arm, seed and fold, and error of those that failed.
    pub failed: Vec<(String, Draw, String)>,
    /// Runs that are left, since the sweep was interrupted.
    pub left: usize,
}

/// Runs the sweep, or what is left of it.
///
/// # Errors
/// [`Error::Folder`](crate::Error::Folder) if the folder holds another sweep; a file error. A run that fails is no error.
pub fn run(request: Request, mut progress: Progress) -> Result<Ended> {
    let mut folder = SweepFolder::open(request.output, &request.plan, &request.command, request.threads)?;
    let pool = Pool { program: request.program, jobs: request.jobs.max(1), threads: request.threads.max(1) };
    let plan = &request.plan;
    folder.list(plan)?;
    let ended = train(plan, &mut folder, &pool, &mut progress)?;
    let root = folder.root.clone();
    drop(folder);
    let report = report::write(&report::study(&[&root], request.adapters, None)?, &root)?;
    Ok(Ended { report, ..ended })
}

/// Whether the run in `folder` took all its steps, or stopped early as it was told to. One whose summary is damaged is
/// gone on with, which writes it anew.
fn is_done(folder: &Path) -> bool {
    report::read_summary(folder)
        .ok()
        .flatten()
        .is_some_and(|Summary { ending, .. }| ending != Ending::Interrupted)
}

/// Runs what is not done yet.
fn train(plan: &Plan, folder: &mut SweepFolder, pool: &Pool, progress: &mut Progress) -> Result<Ended> {
    let runs: Vec<(usize, Draw)> = plan.runs().collect();
    let path = |(arm, draw): &(usize, Draw)| -> PathBuf { folder.run(*arm, draw) };
    let open: Vec<_> = runs.iter().enumerate().filter(|(_, run)| !is_done(&path(run))).collect();
    let (mut finished, count) = (runs.len() - open.len(), runs.len());
    let jobs: Vec<Job> = open
        .into_iter()
        .map(|(id, run)| Job { id, folder: path(run), config: plan.arms[run.0].config_of(&run.1).to_toml() })
        .collect();
    if finished > 0 {
        progress.note(format!("{finished} of {count} runs are done already"));
    }
    let mut clock = Clock::new(plan, &runs, &jobs);
    progress.begin(format!("{} of all runs", clock.unit()), clock.total, 0);
    let mut failed = Vec::new();
    let label = |id: usize| {
        let (arm, draw) = &runs[id];
        format!("arm {} of {}, {}, {draw}", arm + 1, plan.arms.len(), plan.arms[*arm].name)
    };
    pool.run(jobs, |event| {
        match event {
            Event::Begun(job) => {
                progress.note(format!("run {} of {count}: {}{}", job.id + 1, label(job.id), clock.left()));
            }
            Event::Waiting(job) => {
                progress.note(format!("{}: waiting for another process to leave its folder", label(job.id)));
            }
            Event::Progress(job, at) => {
                let more = clock.see(job.id, at);
                progress.advance(more, || format!("{}{}", label(job.id), clock.left()));
            }
            Event::Ended(job, done) => {
                let (arm, draw) = &runs[job.id];
                match done {
                    Done::Finished => {
                        finished += 1;
                        let accuracy = report::accuracy(&job.folder).map_or_else(String::new, |accuracy| {
                            format!(": accuracy {:.2}%", 100.0 * accuracy)
                        });
                        progress.note(format!("  {}{accuracy}", label(job.id)));
                    }
                    Done::Stopped => progress.note(format!("  {}: saved and stopped", label(job.id))),
                    Done::Failed(error) => {
                        progress.note(format!("  {} failed: {error}", label(job.id)));
                        folder.fail(*arm, draw, error.clone())?;
                        failed.push((plan.arms[*arm].name.clone(), draw.clone(), error));
                    }
                }
                let left = clock.end(job.id);
                progress.advance(left, String::new);
            }
        }
        Ok(())
    })?;
    progress.end();
    let left = if interrupt::asked() { count - finished - failed.len() } else { 0 };
    Ok(Ended { report: Files::default(), finished, failed, left })
}

/// Steps done and to do (tenths of seconds where the runs' length is in seconds), and what they have cost so far.
struct Clock {
    in_seconds: bool,
    total: u64,
    done: u64,
    begun: Instant,
    /// Of each run: what has been seen of it, and the whole.
    runs: Vec<[u64; 2]>,
}

impl Clock {
    fn new(plan: &Plan, runs: &[(usize, Draw)], jobs: &[Job]) -> Self {
        let in_seconds = plan.arms.iter().all(|arm| arm.steps().is_none());
        let (begun, places) = (Instant::now(), vec![[0; 2]; runs.len()]);
        let mut clock = Clock { in_seconds, total: 0, done: 0, begun, runs: places };
        for job in jobs {
            let (arm, draw) = &runs[job.id];
            let arm = &plan.arms[*arm];
            // Beside arms of some steps, one of some seconds counts for nothing.
            let steps = arm.steps().map_or(0, |_| arm.course(draw).steps);
            let at = At { steps, seconds: arm.config().train.max_seconds };
            let whole = clock.units(at);
            let before = clock.units(jobs::progress(&job.folder)).min(whole);
            clock.runs[job.id] = [before, whole];
            clock.total += whole - before;
        }
        clock
    }

    fn units(&self, at: At) -> u64 {
        if self.in_seconds { (TENTHS * at.seconds).round() as u64 } else { at.steps }
    }

    fn unit(&self) -> &'static str {
        if self.in_seconds { "tenths of seconds" } else { "steps" }
    }

    /// Run `id` has come as far as `at`; gives how much further that is than before.
    fn see(&mut self, id: usize, at: At) -> u64 {
        self.come(id, self.units(at))
    }

    fn come(&mut self, id: usize, units: u64) -> u64 {
        let [seen, whole] = &mut self.runs[id];
        let more = units.min(*whole).saturating_sub(*seen);
        *seen += more;
        self.done += more;
        more
    }

    /// Run `id` takes no more steps.
    fn end(&mut self, id: usize) -> u64 {
        self.come(id, u64::MAX)
    }

    /// ", about 3 min left", once that can be said.
    fn left(&self) -> String {
        if self.done == 0 || self.begun.elapsed().as_secs_f64() < 1.0 {
            return String::new();
        }
        let each = self.begun.elapsed().as_secs_f64() / self.done as f64;
        format!(", about {} left", duration(each * self.total.saturating_sub(self.done) as f64))
    }
}
