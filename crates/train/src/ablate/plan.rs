//! From a sweep to the runs that it takes, every config resolved and checked before any training starts.

use std::collections::BTreeMap;

use ophidian_core::{adapter::Adapter, config::nearest, init::without_values};
use sha2::{Digest, Sha256};
use tch::{Device, nn::VarStore};

use super::{
    Sweep,
    budget::{Budget, step_flops},
};
use crate::{Config, Error, Result, course::Course};

/// A sweep that can be run.
pub struct Plan<'a> {
    /// What was asked for.
    pub sweep: Sweep,
    /// What it comes to.
    pub arms: Vec<Arm<'a>>,
    /// The arm that the others are held against.
    pub baseline: usize,
}

/// A config that is run with every seed.
pub struct Arm<'a> {
    /// What it is called.
    pub name: String,
    /// Keys and values that make it what it is.
    pub settings: Vec<(String, String)>,
    /// Its resolved config, with the first seed.
    pub config: Config,
    /// The adapter that it names.
    pub adapter: &'a dyn Adapter,
    /// Trainable numbers.
    pub parameters: i64,
    /// Operations of a forward pass over one input, if they are counted.
    pub flops: Option<f64>,
    /// Its lengths as its config says; for a budget of seconds, the lengths before timing.
    pub(crate) course: Course,
    /// `train.max_steps` before a budget changed it.
    asked_steps: u64,
}

/// What a data set is to a model.
#[derive(Clone)]
struct Data {
    examples: usize,
    classes: i64,
    input_shape: Vec<i64>,
}

impl<'a> Plan<'a> {
    /// Resolves and checks every arm: its config, its data, its model, its length.
    ///
    /// # Errors
    /// [`ophidian_core::Error::Config`] naming the arm and the key; two arms that are equal; a baseline that names no
    /// arm; data that cannot be opened.
    pub fn new(sweep: Sweep, adapters: &[&'a dyn Adapter]) -> Result<Self> {
        let mut data = BTreeMap::new();
        let mut arms = Vec::new();
        for wanted in sweep.arms()? {
            let mut table = wanted.table;
            // Their number is checked with those of a config.
            table.insert("seed".to_owned(), toml::Value::Integer(seed(&sweep, 0)?));
            let name = wanted.name;
            let arm = arm(name.clone(), wanted.settings, table, sweep.budget, adapters, &mut data);
            arms.push(arm.map_err(|error| within(&name, error))?);
        }
        for number in 1..sweep.seeds.len() {
            seed(&sweep, number)?;
        }
        let baseline = baseline(&sweep, &arms)?;
        let mut plan = Plan { sweep, arms, baseline };
        plan.spend_flops()?;
        plan.tell_apart()?;
        Ok(plan)
    }

    /// Turns a budget of operations into steps.
    fn spend_flops(&mut self) -> Result<()> {
        let counted = |arm: &Arm| {
            let flops = arm.flops.ok_or_else(|| {
                Error::config(format!(
                    "`budget.flops`: the adapter \"{}\" counts no operations",
                    arm.config.adapter
                ))
            })?;
            let course = &arm.course;
            Ok::<f64, Error>(step_flops(flops, course.samples as f64 / course.steps_per_epoch as f64))
        };
        let total = match self.sweep.budget {
            Budget::Flops(flops) => flops,
            Budget::FlopsOfBaseline => {
                let arm = &self.arms[self.baseline];
                counted(arm)? * arm.course.steps as f64
            }
            _ => return Ok(()),
        };
        for arm in &mut self.arms {
            let steps = (total / counted(arm)?).round();
            if steps < 1.0 {
                return Err(Error::config(format!(
                    "`budget.flops` is {total:e}, less than one step of the arm `{}` takes ({:e})",
                    arm.name,
                    counted(arm)?
                )));
            }
            arm.set_steps(steps as u64)?;
        }
        Ok(())
    }

    /// Refuses two arms that are the same, or are called the same.
    fn tell_apart(&self) -> Result<()> {
        let (mut hashes, mut names) = (BTreeMap::new(), BTreeMap::new());
        for arm in &self.arms {
            if let Some(other) = hashes.insert(arm.config.fingerprint(), &arm.name) {
                return Err(Error::config(format!(
                    "the arms `{other}` and `{}` are equal: their resolved configs are the same",
                    arm.name
                )));
            }
            if names.insert(&arm.name, ()).is_some() {
                return Err(Error::config(format!("two arms are called `{}`; give them labels", arm.name)));
            }
        }
        Ok(())
    }

    /// Runs in the order in which they are begun: all arms with the first seed, then all with the next.
    pub fn runs(&self) -> impl Iterator<Item = (usize, u64)> + '_ {
        self.sweep.seeds.iter().flat_map(|seed| (0..self.arms.len()).map(|arm| (arm, *seed)))
    }

    /// Where the run of arm `arm` with `seed` lies, in the folder of the sweep: it ends in a hash of all that decides
    /// the run.
    pub fn folder(&self, arm: usize, seed: u64) -> String {
        let (name, hash) = (slug(&self.arms[arm].name), self.hash(arm, seed));
        format!("runs/{name}-seed{seed}-{hash}")
    }

    /// Twelve hexadecimal digits of all that decides the run of arm `arm` with `seed`. With a budget of seconds that is
    /// the budget, and not the steps that it turned into when the arm was timed.
    pub(super) fn hash(&self, arm: usize, seed: u64) -> String {
        let arm = &self.arms[arm];
        let mut config = Config { seed, ..arm.config.clone() };
        let mut text = String::new();
        if let Budget::Seconds(seconds) = self.sweep.budget {
            config.train.max_steps = arm.asked_steps;
            text = format!(" in {seconds} s");
        }
        let hash = Sha256::digest(config.fingerprint() + &text);
        hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Has each arm take as many steps as its budget of seconds turned out to be; `steps` are by [`hash`](Plan::hash) with
    /// seed 0, so that they hold for every seed.
    pub(super) fn set_steps(&mut self, steps: &BTreeMap<String, u64>) -> Result<()> {
        let hashes: Vec<String> = (0..self.arms.len()).map(|arm| self.hash(arm, 0)).collect();
        for (arm, hash) in self.arms.iter_mut().zip(hashes) {
            if let Some(steps) = steps.get(&hash) {
                arm.set_steps(*steps)?;
            }
        }
        Ok(())
    }
}

impl Arm<'_> {
    /// Steps of each of its runs.
    pub fn steps(&self) -> u64 {
        self.course.steps
    }

    /// Has the arm take `steps` steps.
    ///
    /// # Errors
    /// There are no such runs.
    fn set_steps(&mut self, steps: u64) -> Result<()> {
        self.config.train.max_steps = steps;
        self.course = Course::new(&self.config.train, self.course.samples as usize)?;
        Ok(())
    }
}

/// The seed number `number`, as a config holds it.
fn seed(sweep: &Sweep, number: usize) -> Result<i64> {
    let seed = sweep.seeds.get(number).copied().unwrap_or_default();
    i64::try_from(seed)
        .map_err(|_| Error::config(format!("`seeds` holds {seed}, expected at most {}", i64::MAX)))
}

fn arm<'a>(
    name: String,
    settings: Vec<(String, String)>,
    table: toml::Table,
    budget: Budget,
    adapters: &[&'a dyn Adapter],
    opened: &mut BTreeMap<String, Data>,
) -> Result<Arm<'a>> {
    let (mut config, adapter) = Config::resolve(table, adapters)?;
    budget.apply(&mut config.train);
    let key = format!("{}\n{}", config.adapter, config.data);
    let data = match opened.get(&key) {
        Some(data) => data.clone(),
        None => {
            let splits = adapter.open(&config.data)?;
            let data = Data {
                examples: splits.train.len(),
                classes: splits.train.classes().len() as i64,
                input_shape: splits.train.input_shape(),
            };
            opened.insert(key, data.clone());
            data
        }
    };
    let course = Course::new(&config.train, data.examples)?;
    let vs = VarStore::new(Device::Cpu);
    // Shows that it can be made at all.
    without_values(|| adapter.model(&config.model, &data.input_shape, data.classes, vs.root()))?;
    let parameters = vs.trainable_variables().iter().map(|variable| variable.numel() as i64).sum();
    let flops = adapter.describe(&config.model, &data.input_shape, data.classes)?.flops;
    let asked_steps = config.train.max_steps;
    Ok(Arm { name, settings, config, adapter, parameters, flops, course, asked_steps })
}

fn within(arm: &str, error: Error) -> Error {
    match error {
        Error::Core(ophidian_core::Error::Config(reason)) => Error::config(format!("arm `{arm}`: {reason}")),
        // A model that cannot be made is the config's fault, since the data was opened.
        Error::Core(ophidian_core::Error::Scan(error)) => Error::config(format!("arm `{arm}`: {error}")),
        other => other,
    }
}

fn baseline(sweep: &Sweep, arms: &[Arm]) -> Result<usize> {
    let Some(name) = &sweep.baseline else { return Ok(0) };
    arms.iter().position(|arm| arm.name == *name).ok_or_else(|| {
        let names = || arms.iter().map(|arm| arm.name.as_str());
        let hint = match nearest(name, names()) {
            Some(near) => format!("; did you mean `{near}`?"),
            None => format!(
                "; the arms are {}",
                names().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
            ),
        };
        Error::config(format!("`baseline` is `{name}`, which names no arm{hint}"))
    })
}

/// `name` as a part of a file name.
pub(super) fn slug(name: &str) -> String {
    let mut slug = String::new();
    for c in name.chars().flat_map(char::to_lowercase) {
        if c.is_ascii_alphanumeric() || c == '.' {
            slug.push(c);
        } else if !slug.ends_with('-') {
            slug.push('-');
        }
        if slug.len() >= 40 {
            break;
        }
    }
    slug.trim_matches(['-', '.']).to_owned()
}
