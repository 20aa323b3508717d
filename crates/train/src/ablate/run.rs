//! Runs a plan: what is done already is left alone, the rest is run, and a report is written.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use ophidian_core::adapter::Adapter;
use serde_json::Value;

use super::{
    Draw, Plan,
    budget::Budget,
    folder::SweepFolder,
    jobs::{Done, Event, Job, Pool, steps},
    plan::slug,
};
use crate::{
    Ending, Progress, Result, interrupt,
    progress::duration,
    records::Summary,
    report::{self, Files},
};

/// Steps that are timed for a budget of seconds; the first few are left out.
const TIMED: usize = 24;
const WARM: usize = 4;
/// Steps that no run takes.
const MANY: u64 = 1_000_000_000;

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
pub fn run(mut request: Request, mut progress: Progress) -> Result<Ended> {
    let mut folder = SweepFolder::open(request.output, &request.plan, &request.command, request.threads)?;
    let pool = Pool { program: request.program, jobs: request.jobs.max(1), threads: request.threads.max(1) };
    let mut broken = BTreeMap::new();
    if let Budget::Seconds(seconds) = request.plan.sweep.budget {
        broken = time(&mut request.plan, seconds, &mut folder, &pool, &mut progress)?;
    }
    let plan = &request.plan;
    folder.list(plan)?;
    let ended = train(plan, &broken, &mut folder, &pool, &mut progress)?;
    let root = folder.root.clone();
    drop(folder);
    let report = report::write(&report::study(&[&root], request.adapters, None)?, &root)?;
    Ok(Ended { report, ..ended })
}

/// Whether the run in `folder` took all its steps, or stopped early as it was told to.
fn is_done(folder: &Path) -> bool {
    report::read_summary(folder).is_some_and(|Summary { ending, .. }| ending != Ending::Interrupted)
}

/// Runs what is not done yet, but for the arms that are `broken`.
fn train(
    plan: &Plan,
    broken: &BTreeMap<usize, String>,
    folder: &mut SweepFolder,
    pool: &Pool,
    progress: &mut Progress,
) -> Result<Ended> {
    let runs: Vec<(usize, Draw)> = plan.runs().collect();
    let root = folder.root.clone();
    let path = |(arm, draw): &(usize, Draw)| -> PathBuf { root.join(plan.folder(*arm, draw)) };
    let open: Vec<_> = runs.iter().enumerate().filter(|(_, run)| !is_done(&path(run))).collect();
    let (mut finished, count) = (runs.len() - open.len(), runs.len());
    // A budget that was not turned into steps yet stands for no run.
    let begin = !(interrupt::asked() && matches!(plan.sweep.budget, Budget::Seconds(_)));
    let jobs: Vec<Job> = open
        .into_iter()
        .filter(|(_, (arm, _))| begin && !broken.contains_key(arm))
        .map(|(id, run)| Job {
            id,
            folder: path(run),
            config: plan.arms[run.0].config_of(&run.1).to_toml(),
            enough: None,
        })
        .collect();
    if finished > 0 {
        progress.note(format!("{finished} of {count} runs are done already"));
    }
    let mut clock = Clock::new(plan, &runs, &jobs);
    progress.begin("steps of all runs".to_owned(), clock.total, 0);
    let mut failed = Vec::new();
    for (arm, error) in broken {
        for draw in plan.sweep.draws() {
            folder.fail(*arm, &draw, error.clone())?;
            failed.push((plan.arms[*arm].name.clone(), draw, error.clone()));
        }
    }
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
            Event::Steps(job, steps) => {
                let steps = clock.see(job.id, steps);
                progress.advance(steps, || format!("{}{}", label(job.id), clock.left()));
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

/// Turns the budget into steps for every arm that has none yet: its first steps are timed, on as many threads and beside
/// as many others as its runs will have. Gives the arms that failed, and why.
fn time(
    plan: &mut Plan,
    seconds: f64,
    folder: &mut SweepFolder,
    pool: &Pool,
    progress: &mut Progress,
) -> Result<BTreeMap<usize, String>> {
    let place = folder.root.join("timing");
    let hashes = plan.timed();
    let mut jobs = Vec::new();
    for (id, (arm, hash)) in plan.arms.iter().zip(&hashes).enumerate() {
        if folder.file.timed.contains_key(hash) {
            continue;
        }
        let mut config = arm.config().clone();
        (config.train.max_steps, config.train.log_every_steps) = (MANY, 1);
        (config.train.eval_every_epochs, config.train.early_stop_epochs) = (MANY, 0);
        let folder = place.join(format!("{}-{hash}", slug(&arm.name)));
        // What an interrupted timing left.
        let _ = fs::remove_dir_all(&folder);
        let enough = |folder: &Path| speeds(folder).len() >= TIMED;
        jobs.push(Job { id, folder, config: config.to_toml(), enough: Some(enough) });
    }
    let (mut broken, mut found) = (BTreeMap::new(), Vec::new());
    pool.run(jobs, |event| {
        match event {
            Event::Begun(job) => progress.note(format!("timing {}", plan.arms[job.id].name)),
            Event::Ended(job, Done::Failed(error)) => {
                broken.insert(job.id, error);
            }
            Event::Ended(job, _) => found.push((job.id, median(speeds(&job.folder)))),
            _ => {}
        }
        Ok(())
    })?;
    if interrupt::asked() {
        return Ok(broken);
    }
    for (id, speed) in found {
        let course = plan.arms[id].first_course();
        let each = course.samples as f64 / course.steps_per_epoch as f64;
        let steps = speed.map_or(1.0, |speed| (seconds * speed / each).round().clamp(1.0, MANY as f64));
        folder.file.timed.insert(hashes[id].clone(), steps as u64);
    }
    folder.save()?;
    let _ = fs::remove_dir_all(&place);
    plan.set_steps(&folder.file.timed)?;
    Ok(broken)
}

/// Examples per second in each step of the run in `folder`, the first few left out.
fn speeds(folder: &Path) -> Vec<f64> {
    let text = fs::read_to_string(folder.join("metrics.jsonl")).unwrap_or_default();
    let lines = text.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let steps = lines.filter(|line| line["kind"] == "step");
    steps.filter_map(|line| line["samples_per_second"].as_f64()).skip(WARM).collect()
}

fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied()
}

/// Steps done and to do, and what they have cost so far.
struct Clock {
    total: u64,
    done: u64,
    begun: Instant,
    /// Of each run: steps when this process began, steps seen since, steps of the whole run.
    runs: Vec<[u64; 3]>,
}

impl Clock {
    fn new(plan: &Plan, runs: &[(usize, Draw)], jobs: &[Job]) -> Self {
        let mut clock = Clock { total: 0, done: 0, begun: Instant::now(), runs: vec![[0; 3]; runs.len()] };
        for job in jobs {
            let (arm, draw) = &runs[job.id];
            let (whole, before) = (plan.arms[*arm].course(draw).steps, steps(&job.folder));
            let before = before.min(whole);
            clock.runs[job.id] = [before, before, whole];
            clock.total += whole - before;
        }
        clock
    }

    /// Run `id` has taken `steps` steps; gives how many that are more than before.
    fn see(&mut self, id: usize, steps: u64) -> u64 {
        let [_, seen, whole] = &mut self.runs[id];
        let more = steps.min(*whole).saturating_sub(*seen);
        *seen += more;
        self.done += more;
        more
    }

    /// Run `id` takes no more steps.
    fn end(&mut self, id: usize) -> u64 {
        self.see(id, u64::MAX)
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
