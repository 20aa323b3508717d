//! The folder of a sweep: `sweep.json`, which says what it holds, and who may write to it.

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
};

use ophidian_core::adapter::Adapter;
use serde::{Deserialize, Serialize};
use toml::Table;

use super::Plan;
use crate::{
    Config, Error, Result,
    config::differences,
    folder::{lock, write_text},
};

const FORMAT: &str = "ophidian sweep 1";
const FILE: &str = "sweep.json";

/// What `sweep.json` holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SweepFile {
    format: String,
    /// What the sweep is called.
    pub name: String,
    /// The base that every arm begins with, as TOML.
    pub base: String,
    /// How long every arm trains.
    pub budget: String,
    /// Command that made it.
    pub command: String,
    /// Threads of each run.
    pub threads: usize,
    /// Name of the arm that the others are held against.
    pub baseline: String,
    /// The arms of the sweep.
    pub arms: Vec<ArmEntry>,
}

/// An arm of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ArmEntry {
    /// What it is called.
    pub name: String,
    /// Keys and values that make it what it is.
    pub settings: Vec<(String, String)>,
    /// Its runs, one for each seed and fold.
    pub runs: Vec<RunEntry>,
}

/// What runs of two arms have in common that are held against each other.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Draw {
    /// The seed.
    pub seed: u64,
    /// What the fold is called, where the sweep has folds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fold: Option<String>,
}

impl fmt::Display for Draw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}", self.seed)?;
        self.fold.as_ref().map_or(Ok(()), |fold| write!(f, ", {fold}"))
    }
}

/// A run of an arm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEntry {
    /// Its seed and fold.
    #[serde(flatten)]
    pub draw: Draw,
    /// Its folder, from that of the sweep.
    pub folder: String,
    /// Why it failed, if it did.
    #[serde(default)]
    pub error: Option<String>,
}

/// A folder that this process alone writes to.
pub(super) struct SweepFolder {
    pub root: PathBuf,
    pub file: SweepFile,
    _lock: File,
}

/// Reads the `sweep.json` of `root`; none if there is none.
///
/// # Errors
/// It cannot be read, or is something else.
pub fn sweep_file(root: &Path) -> Result<Option<SweepFile>> {
    let path = root.join(FILE);
    let text = match fs::read_to_string(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(|error| Error::file(&path, error))?,
    };
    let file: SweepFile = serde_json::from_str(&text)
        .map_err(|error| Error::file(&path, format!("does not say what sweep it is: {error}")))?;
    if file.format != FORMAT {
        let reason = format!("has format \"{}\", expected \"{FORMAT}\"", file.format);
        return Err(Error::file(&path, reason));
    }
    Ok(Some(file))
}

impl SweepFolder {
    /// Opens `root` for `plan`, anew or to go on. Arms and seeds may have changed since; base and budget may not.
    ///
    /// # Errors
    /// [`Error::Folder`] if the folder holds another sweep or something else, or if another process is at work there.
    pub fn open(root: &Path, plan: &Plan, command: &str, threads: usize) -> Result<Self> {
        let show = root.display();
        if root.exists() && !root.is_dir() {
            return Err(Error::Folder(format!("{show} is a file, expected a folder for the sweep")));
        }
        let file = SweepFile {
            format: FORMAT.to_owned(),
            name: plan.sweep.name.clone(),
            base: toml::to_string(&plan.sweep.base).unwrap_or_default(),
            budget: plan.sweep.budget.describe(),
            command: command.to_owned(),
            threads,
            baseline: plan.arms.get(plan.baseline).map(|arm| arm.name.clone()).unwrap_or_default(),
            arms: Vec::new(),
        };
        match sweep_file(root)? {
            Some(before) => agrees(root, &before, &file, plan.arms.first().map(|arm| arm.adapter))?,
            None if holds_anything(root)? => {
                return Err(Error::Folder(format!(
                    "{show} is not empty and holds no sweep; name a new or empty folder with --output"
                )));
            }
            None => {}
        }
        let runs = root.join("runs");
        fs::create_dir_all(&runs).map_err(|error| Error::file(&runs, format!("cannot be made: {error}")))?;
        let lock = lock(root)?;
        let folder = SweepFolder { root: root.to_path_buf(), file, _lock: lock };
        folder.save()?;
        Ok(folder)
    }

    /// Writes `sweep.json`.
    pub fn save(&self) -> Result<()> {
        let path = self.root.join(FILE);
        let text = serde_json::to_string_pretty(&self.file).map_err(|error| Error::file(&path, error))?;
        write_text(&path, &format!("{text}\n"))
    }

    /// Lists the arms of `plan`, whose lengths are known now. A run that is there already is known by its hash, whatever
    /// its arm was called.
    pub fn list(&mut self, plan: &Plan) -> Result<()> {
        let there = runs_in(&self.root)?;
        let entry = |number: usize| {
            let run = |draw: Draw| {
                let own = plan.folder(number, &draw);
                let ending = plan.ending(number, &draw);
                let other = there.iter().find(|folder| folder.ends_with(&ending));
                let folder = if there.contains(&own) { own } else { other.cloned().unwrap_or(own) };
                RunEntry { folder, draw, error: None }
            };
            let arm = &plan.arms[number];
            ArmEntry {
                name: arm.name.clone(),
                settings: arm.settings.clone(),
                runs: plan.sweep.draws().into_iter().map(run).collect(),
            }
        };
        self.file.arms = (0..plan.arms.len()).map(entry).collect();
        self.save()
    }

    /// Where the run of arm `arm` with `draw` lies.
    pub fn run(&self, arm: usize, draw: &Draw) -> PathBuf {
        let mut runs = self.file.arms.get(arm).into_iter().flat_map(|arm| &arm.runs);
        self.root.join(runs.find(|run| run.draw == *draw).map_or("runs", |run| &run.folder))
    }

    /// Notes how the run of arm `arm` with `draw` failed.
    pub fn fail(&mut self, arm: usize, draw: &Draw, error: String) -> Result<()> {
        let runs = self.file.arms.get_mut(arm).into_iter().flat_map(|arm| &mut arm.runs);
        for run in runs.filter(|run| run.draw == *draw) {
            run.error = Some(error.clone());
        }
        self.save()
    }
}

/// The folders of runs in `root`, from there and in order.
fn runs_in(root: &Path) -> Result<Vec<String>> {
    let path = root.join("runs");
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(|error| Error::file(&path, error))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(|error| Error::file(&path, error))?;
        found.extend(entry.file_name().to_str().map(|name| format!("runs/{name}")));
    }
    found.sort();
    Ok(found)
}

/// Refuses to mix the runs of two sweeps.
fn agrees(root: &Path, before: &SweepFile, now: &SweepFile, adapter: Option<&dyn Adapter>) -> Result<()> {
    let table = |file: &SweepFile| file.base.parse::<Table>().unwrap_or_default();
    // What a base leaves out and what it has as the default are the same.
    let resolved = |file: &SweepFile| {
        let (config, _) = Config::resolve(table(file), adapter.as_slice()).ok()?;
        config.to_toml().parse::<Table>().ok()
    };
    let (there, here) = match (resolved(before), resolved(now)) {
        (Some(there), Some(here)) => (there, here),
        _ => (table(before), table(now)),
    };
    let mut found: Vec<String> = differences(&there, &here)
        .into_iter()
        .map(|difference| difference.replace("the run has", "the sweep there has"))
        .collect();
    if before.budget != now.budget {
        found.push(format!("budget: there every arm trains {}, now {}", before.budget, now.budget));
    }
    if found.is_empty() {
        return Ok(());
    }
    Err(Error::Folder(format!(
        "{} holds another sweep; name another folder with --output:\n  {}",
        root.display(),
        found.join("\n  ")
    )))
}

fn holds_anything(root: &Path) -> Result<bool> {
    if !root.exists() {
        return Ok(false);
    }
    let entries = fs::read_dir(root).map_err(|error| Error::file(root, error))?;
    // What a sweep leaves that was killed before it wrote down what it is.
    Ok(entries.flatten().any(|entry| {
        let name = entry.file_name();
        let empty = || fs::read_dir(entry.path()).is_ok_and(|mut inner| inner.next().is_none());
        let temporary = name.to_string_lossy().starts_with(".ophidian-");
        !(name == ".lock" || temporary || name == "runs" && empty())
    }))
}
