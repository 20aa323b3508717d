//! Reading run folders.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use ophidian_core::{
    adapter::{Adapter, Description},
    config::{self, nearest},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use toml::Table;

use super::{NAME, VALUE, brief, comparable};
use crate::{
    Config, Ending, Error, Result,
    ablate::{Draw, SweepFile, sweep_file},
    config::find,
    records::{Evaluation, Summary},
};

/// Runs, gathered into arms.
pub struct Study {
    /// What heads the report.
    pub title: String,
    /// In the order of the sweep, or in that of the folders.
    pub arms: Vec<Arm>,
    /// The arm that the others are held against.
    pub baseline: usize,
    /// The sweep that made the runs, if one did.
    pub sweep: Option<SweepFile>,
}

/// Runs that differ only in their seed and fold.
pub struct Arm {
    /// What it is called.
    pub name: String,
    /// Keys and values that make it what it is.
    pub settings: Vec<(String, String)>,
    /// By seed and fold.
    pub runs: Vec<Run>,
    /// Its scans, if its adapter draws them.
    pub description: Description,
}

/// A run folder.
pub struct Run {
    /// Where it lies.
    pub folder: PathBuf,
    /// Its seed and fold.
    pub draw: Draw,
    /// How far it got.
    pub status: Status,
    /// Why it failed.
    pub error: Option<String>,
    /// Its measurements, those of the averaged weights where the run kept an average.
    pub curve: Vec<Point>,
    /// The last one, answer by answer.
    pub evaluation: Option<Evaluation>,
    /// What it wrote when it ended.
    pub summary: Option<Summary>,
    /// Training examples per second: the median over its epochs.
    pub samples_per_second: Option<f64>,
    /// The same in each epoch, from slow to fast.
    pub speeds: Vec<f64>,
    /// Most memory of its process.
    pub peak_memory_mib: Option<f64>,
}

/// How far a run got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// To its end.
    Finished,
    /// It was interrupted, or is still running.
    Unfinished,
    /// It ended with an error.
    Failed,
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Point {
    /// Epoch after which it was taken, as a fraction where the run ends within one.
    pub epoch: f64,
    /// Seconds since the run began.
    pub seconds: f64,
    /// Mean cross-entropy.
    pub loss: f64,
    /// Share of examples classified correctly.
    pub accuracy: f64,
}

impl Run {
    /// After its last epoch; none unless it finished.
    pub fn accuracy(&self) -> Option<f64> {
        let last = self.curve.last().map(|point| point.accuracy);
        last.filter(|_| self.status == Status::Finished)
    }
}

/// Reads `folders`: run folders, or folders of sweeps. `baseline` names the arm that the others are held against; without
/// it, it is that of the sweep, or the first.
///
/// # Errors
/// A folder holds no run, or one that cannot be read; a baseline that names no arm.
pub fn study(folders: &[&Path], adapters: &[&dyn Adapter], baseline: Option<&str>) -> Result<Study> {
    let sweep = match folders {
        [folder] => sweep_file(folder)?.map(|file| (*folder, file)),
        _ => None,
    };
    let mut study = match sweep {
        Some((root, file)) => of_sweep(root, file, adapters)?,
        None => of_runs(folders, adapters)?,
    };
    if let Some(name) = baseline {
        let names = || study.arms.iter().map(|arm| arm.name.as_str());
        let shown = brief(name, NAME);
        study.baseline = names().position(|arm| arm == name || arm == shown).ok_or_else(|| {
            let hint = match nearest(name, names()) {
                Some(near) => format!("; did you mean `{near}`?"),
                None => format!("; the arms are: {}", names().collect::<Vec<_>>().join(" · ")),
            };
            Error::config(format!("the baseline `{name}` names no arm{hint}"))
        })?;
    }
    Ok(study)
}

fn of_sweep(root: &Path, file: SweepFile, adapters: &[&dyn Adapter]) -> Result<Study> {
    let mut arms = Vec::new();
    let mut names = Names::default();
    for entry in &file.arms {
        let mut runs = Vec::new();
        for run in &entry.runs {
            runs.push(read(&root.join(&run.folder), run.draw.clone(), run.error.clone())?);
        }
        let description = describe(&runs, adapters);
        let name = names.of(brief(&entry.name, NAME));
        arms.push(Arm { name, settings: entry.settings.clone(), runs, description });
    }
    let baseline = file.arms.iter().position(|arm| arm.name == file.baseline).unwrap_or(0);
    comparable::check(arms.iter().flat_map(|arm| &arm.runs).map(|run| (run, None)))?;
    Ok(Study { title: file.name.clone(), arms, baseline, sweep: Some(file) })
}

/// Gathers runs into arms by their configs, which differ in what the arms are called.
fn of_runs(folders: &[&Path], adapters: &[&dyn Adapter]) -> Result<Study> {
    let mut groups: Vec<(String, BTreeMap<String, String>, Vec<Run>)> = Vec::new();
    let mut all = Vec::new();
    for folder in folders {
        match sweep_file(folder)? {
            Some(file) => {
                let runs = file.arms.into_iter().flat_map(|arm| arm.runs);
                // A run that was never begun has no folder yet.
                all.extend(
                    runs.map(|run| (folder.join(run.folder), run.error)).filter(|(path, _)| path.exists()),
                );
            }
            None => all.push((folder.to_path_buf(), None)),
        }
    }
    let mut seen = BTreeSet::new();
    let mut configs = Vec::new();
    for (folder, error) in all {
        if !seen.insert(fs::canonicalize(&folder).unwrap_or_else(|_| folder.clone())) {
            return Err(Error::Folder(format!("{} is named twice", folder.display())));
        }
        let config = config_of(&folder)?;
        let draw = Draw { seed: config.seed, fold: None };
        let hash = Config { seed: 0, ..config.clone() }.fingerprint();
        let run = read(&folder, draw, error)?;
        configs.push((folder, config.clone()));
        match groups.iter_mut().find(|(other, ..)| *other == hash) {
            Some((_, _, runs)) => runs.push(run),
            None => {
                let table = Table::try_from(&config).unwrap_or_default();
                let mut leaves = BTreeMap::new();
                flatten("", &table, &mut leaves);
                groups.push((hash, leaves, vec![run]));
            }
        }
    }
    let config =
        |run: &Run| configs.iter().find(|(folder, _)| *folder == run.folder).map(|(_, config)| config);
    comparable::check(groups.iter().flat_map(|(_, _, runs)| runs).map(|run| (run, config(run))))?;
    let keys: BTreeSet<String> = groups.iter().flat_map(|(_, leaves, _)| leaves.keys().cloned()).collect();
    let differ = |key: &&String| {
        *key != "seed" && groups.windows(2).any(|pair| pair[0].1.get(*key) != pair[1].1.get(*key))
    };
    let keys: Vec<&String> = keys.iter().filter(differ).collect();
    let mut arms = Vec::new();
    let (mut names, mut named) = (Names::default(), Vec::new());
    for (_, leaves, runs) in &groups {
        let value = |key: &String| leaves.get(key).cloned().unwrap_or_else(|| "not set".to_owned());
        let settings: Vec<(String, String)> = keys.iter().map(|key| ((*key).clone(), value(key))).collect();
        let name = match settings.as_slice() {
            [] => runs.first().map(|run| run.folder.display().to_string()).unwrap_or_default(),
            [(_, value)] => brief(value, NAME),
            several => {
                let short = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
                let parts =
                    several.iter().map(|(key, value)| format!("{}={}", short(key), brief(value, VALUE)));
                brief(&parts.collect::<Vec<_>>().join(", "), NAME)
            }
        };
        named.push((names.of(name), settings));
    }
    for ((_, _, mut runs), (name, settings)) in groups.into_iter().zip(named) {
        runs.sort_by_key(|run| run.draw.seed);
        let description = describe(&runs, adapters);
        arms.push(Arm { name, settings, runs, description });
    }
    Ok(Study { title: "Runs".to_owned(), arms, baseline: 0, sweep: None })
}

/// Names that were given, each once: cut short, two may be the same.
#[derive(Default)]
struct Names(BTreeSet<String>);

impl Names {
    fn of(&mut self, name: String) -> String {
        let numbered = (2..).map(|number| format!("{name} ({number})"));
        let free = std::iter::once(name.clone()).chain(numbered).find(|name| !self.0.contains(name));
        let name = free.unwrap_or(name.clone());
        self.0.insert(name.clone());
        name
    }
}

/// Values by full key, as text.
fn flatten(prefix: &str, table: &Table, leaves: &mut BTreeMap<String, String>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        match value {
            toml::Value::Table(inner) => flatten(&path, inner, leaves),
            toml::Value::String(text) => {
                leaves.insert(path, text.clone());
            }
            other => {
                leaves.insert(path, other.to_string());
            }
        }
    }
}

fn config_of(folder: &Path) -> Result<Config> {
    let path = folder.join("config.toml");
    if !path.is_file() {
        let show = folder.display();
        return Err(Error::Folder(format!(
            "{show} is no run folder and no folder of a sweep: it holds no config.toml"
        )));
    }
    Config::resolved(config::read(&path)?)
}

/// What the adapter has to say about the model of some run; nothing if it cannot say it, which is no reason to do without
/// a report.
fn describe(runs: &[Run], adapters: &[&dyn Adapter]) -> Description {
    let described = runs.iter().find_map(|run| {
        let (summary, config) = (run.summary.as_ref()?, config_of(&run.folder).ok()?);
        let adapter = find(adapters, &config.adapter).ok()?;
        adapter.describe(&config.model, &summary.input_shape, summary.classes as i64).ok()
    });
    described.unwrap_or_default()
}

fn read(folder: &Path, draw: Draw, error: Option<String>) -> Result<Run> {
    let lines = metrics(folder)?;
    // Steps of an epoch, to place a run that ends within one.
    let per_epoch = lines
        .iter()
        .filter(|line| line["kind"] == "epoch")
        .find_map(|line| Some(line["step"].as_f64()? / line["epoch"].as_f64()?).filter(|steps| *steps > 0.0));
    let kind = if lines.iter().any(|line| line["kind"] == "ema") { "ema" } else { "eval" };
    let point = |line: &Value| {
        let epoch = line["epoch"].as_f64()?;
        let epoch = per_epoch.map_or(epoch, |steps| line["step"].as_f64().unwrap_or(0.0) / steps);
        let number = |key: &str| line[key].as_f64();
        Some(Point {
            epoch,
            seconds: number("seconds")?,
            loss: number("loss")?,
            accuracy: number("accuracy")?,
        })
    };
    let curve: Vec<Point> = lines.iter().filter(|line| line["kind"] == kind).filter_map(point).collect();
    let of_epochs = |key: &str| {
        lines
            .iter()
            .filter(|line| line["kind"] == "epoch")
            .filter_map(|line| line[key].as_f64())
            .collect::<Vec<f64>>()
    };
    let mut speeds = of_epochs("samples_per_second");
    speeds.sort_by(f64::total_cmp);
    let summary = read_summary(folder)?;
    let finished = summary.as_ref().is_some_and(|summary| summary.ending != Ending::Interrupted);
    let status = match (&error, finished) {
        (_, true) => Status::Finished,
        (Some(_), false) => Status::Failed,
        (None, false) => Status::Unfinished,
    };
    let memory = lines
        .iter()
        .filter_map(|line| line["peak_memory_mib"].as_f64())
        .fold(None, |most: Option<f64>, x| Some(most.map_or(x, |most| most.max(x))));
    let path = folder.join("evaluation.json");
    let evaluation: Option<Evaluation> = json_of(&path)?;
    if evaluation.as_ref().is_some_and(|found| !is_whole(found)) {
        return Err(Error::file(
            &path,
            "is damaged: its lists are of different lengths, or name classes that are not there",
        ));
    }
    Ok(Run {
        folder: folder.to_path_buf(),
        draw,
        status,
        error: error.filter(|_| status == Status::Failed),
        curve,
        evaluation,
        summary,
        samples_per_second: super::quantile(&speeds, 0.5),
        speeds,
        peak_memory_mib: memory,
    })
}

/// The lines of metrics.jsonl; none if the run has not come so far. A last line that is being written is left out.
fn metrics(folder: &Path) -> Result<Vec<Value>> {
    let path = folder.join("metrics.jsonl");
    match fs::read_to_string(&path) {
        Ok(text) => Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::file(&path, error)),
    }
}

/// Whether an evaluation holds what it claims.
fn is_whole(found: &Evaluation) -> bool {
    let classes = found.classes.len();
    let within = |list: &[usize]| list.iter().all(|class| *class < classes);
    found.labels.len() == found.predicted.len()
        && found.labels.len() == found.examples.len()
        && within(&found.labels)
        && within(&found.predicted)
}

/// The `summary.json` of the run in `folder`, once it has ended.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn read_summary(folder: &Path) -> Result<Option<Summary>> {
    json_of(&folder.join("summary.json"))
}

/// What a run wrote to `path`; none if it has not come so far.
fn json_of<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    match fs::read_to_string(path) {
        Ok(text) => serde_json::from_str(&text).map(Some).map_err(|error| {
            let reason = format!("is damaged: {error}; `ophidian train --resume` on its run writes it anew");
            Error::file(path, reason)
        }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::file(path, error)),
    }
}

/// Accuracy of the run in `folder` after its last epoch.
pub fn accuracy(folder: &Path) -> Option<f64> {
    read(folder, Draw { seed: 0, fold: None }, None).ok()?.accuracy()
}
