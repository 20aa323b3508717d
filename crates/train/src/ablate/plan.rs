//! From a sweep to the runs that it takes, every config resolved and checked before any training starts.

use std::collections::BTreeMap;

use ophidian_core::{adapter::Adapter, config::nearest, init::without_values};
use sha2::{Digest, Sha256};
use tch::{Device, nn::VarStore};

use super::{
    Draw, Sweep,
    budget::{Budget, step_flops},
    sweep::Wanted,
};
use crate::{
    Config, Error, Result,
    course::{Course, ENDLESS},
    report::comparable::same_source,
};

/// A sweep that can be run.
pub struct Plan<'a> {
    /// What was asked for.
    pub sweep: Sweep,
    /// What it comes to.
    pub arms: Vec<Arm<'a>>,
    /// The arm that the others are held against.
    pub baseline: usize,
}

/// A config that is run with every seed, on every fold.
pub struct Arm<'a> {
    /// What it is called.
    pub name: String,
    /// Keys and values that make it what it is.
    pub settings: Vec<(String, String)>,
    /// Its resolved config with the first seed, on each fold; one where there are no folds.
    folds: Vec<Fold>,
    /// The adapter that it names.
    pub adapter: &'a dyn Adapter,
    /// Two arms with the same do the same, however their scans are written.
    canonical: String,
    /// Trainable numbers.
    pub parameters: i64,
    /// Operations of a forward pass over one input, if they are counted.
    pub flops: Option<f64>,
}

/// What an arm is on a fold.
struct Fold {
    label: Option<String>,
    config: Config,
    /// Its lengths as its config says.
    course: Course,
    data: Data,
}

/// What a data set is to a model, and to a report.
#[derive(Clone, PartialEq)]
struct Data {
    examples: usize,
    eval_examples: usize,
    classes: Vec<String>,
    input_shape: Vec<i64>,
}

impl<'a> Plan<'a> {
    /// Resolves and checks every arm: its config, its data, its model, its length.
    ///
    /// # Errors
    /// [`ophidian_core::Error::Config`] naming the arm and the key; two arms that are equal; a baseline that names no
    /// arm; data that cannot be opened.
    pub fn new(sweep: Sweep, adapters: &[&'a dyn Adapter]) -> Result<Self> {
        let file = sweep.file.clone();
        Plan::checked(sweep, adapters).map_err(|error| match (file, error) {
            (Some(file), Error::Core(ophidian_core::Error::Config(reason))) => {
                Error::config(format!("{}: {reason}", file.display()))
            }
            (_, other) => other,
        })
    }

    fn checked(sweep: Sweep, adapters: &[&'a dyn Adapter]) -> Result<Self> {
        let mut data = BTreeMap::new();
        let mut arms = Vec::new();
        for wanted in sweep.arms()? {
            let (name, fractions, seed) = (wanted.name.clone(), wanted.fractions.clone(), seed(&sweep, 0)?);
            let arm = arm(wanted, seed, &sweep, adapters, &mut data);
            arms.push(arm.map_err(|error| within(&name, &fractions, error))?);
        }
        for number in 1..sweep.seeds.len() {
            seed(&sweep, number)?;
        }
        let baseline = baseline(&sweep, &arms)?;
        let mut plan = Plan { sweep, arms, baseline };
        plan.spend_flops()?;
        plan.tell_apart()?;
        plan.hold_together()?;
        Ok(plan)
    }

    /// Turns a budget of operations into steps.
    fn spend_flops(&mut self) -> Result<()> {
        let counted = |arm: &Arm| {
            let flops = arm.flops.ok_or_else(|| {
                Error::config(format!(
                    "`budget.flops`: the adapter \"{}\" counts no operations",
                    arm.config().adapter
                ))
            })?;
            let course = arm.first_course();
            Ok::<f64, Error>(step_flops(flops, course.samples as f64 / course.steps_per_epoch as f64))
        };
        let total = match self.sweep.budget {
            Budget::Flops(flops) => flops,
            Budget::FlopsOfBaseline => {
                let arm = &self.arms[self.baseline];
                if arm.first_course().is_endless() {
                    return Err(Error::config(
                        "`budget.flops` is \"baseline\", but the baseline trains for `train.max_seconds`, which is no \
                         number of operations",
                    ));
                }
                counted(arm)? * arm.first_course().steps as f64
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
            if steps > ENDLESS as f64 {
                return Err(Error::config(format!(
                    "`budget.flops` is {total:e}, which takes the arm `{}` {steps:e} steps, expected at most {ENDLESS}",
                    arm.name
                )));
            }
            arm.set_steps(steps as u64)?;
        }
        Ok(())
    }

    /// Refuses two arms that are the same, or are called the same.
    fn tell_apart(&self) -> Result<()> {
        let (mut hashes, mut canonical, mut names) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for arm in &self.arms {
            if let Some(other) = hashes.insert(arm.config().fingerprint(), &arm.name) {
                return Err(Error::config(format!(
                    "the arms `{other}` and `{}` are equal: their resolved configs are the same",
                    arm.name
                )));
            }
            if let Some(other) = canonical.insert(&arm.canonical, &arm.name) {
                return Err(Error::config(format!(
                    "the arms `{other}` and `{}` are equal: their scans are written differently, but visit the tokens in the \
                     same orders, and all else is the same",
                    arm.name
                )));
            }
            if names.insert(&arm.name, ()).is_some() {
                return Err(Error::config(format!("two arms are called `{}`; give them labels", arm.name)));
            }
        }
        Ok(())
    }

    /// Refuses arms that no report could rank, since they are measured on different data.
    fn hold_together(&self) -> Result<()> {
        let Some((first, others)) = self.arms.split_first() else { return Ok(()) };
        for arm in others {
            for (a, b) in first.folds.iter().zip(&arm.folds) {
                let differ = |what: String| {
                    Error::config(format!(
                        "the arms `{}` and `{}` cannot be ranked against each other, since they differ in {what}; give each \
                         its own sweep",
                        first.name, arm.name
                    ))
                };
                same_source(&a.config, &b.config).map_err(differ)?;
                if a.data.classes != b.data.classes {
                    return Err(differ("the classes of their data".to_owned()));
                }
                let counts = (a.data.eval_examples, b.data.eval_examples);
                if counts.0 != counts.1 {
                    return Err(differ(format!("their eval examples, {} and {}", counts.0, counts.1)));
                }
            }
        }
        Ok(())
    }

    /// Runs in the order in which they are begun: all arms with the first seed and fold, then all with the next.
    pub fn runs(&self) -> impl Iterator<Item = (usize, Draw)> + '_ {
        let arms = self.arms.len();
        self.sweep.draws().into_iter().flat_map(move |draw| (0..arms).map(move |arm| (arm, draw.clone())))
    }

    /// Where the run of arm `arm` with `draw` lies, in the folder of the sweep: it ends in a hash of all that decides
    /// the run.
    pub fn folder(&self, arm: usize, draw: &Draw) -> String {
        let fold = draw.fold.as_ref().map_or_else(String::new, |fold| format!("-{}", slug(fold)));
        format!("runs/{}{fold}{}", slug(&self.arms[arm].name), self.ending(arm, draw))
    }

    /// How the name of that folder ends, whatever the arm is called.
    pub fn ending(&self, arm: usize, draw: &Draw) -> String {
        format!("-seed{}-{}", draw.seed, self.hash(arm, draw))
    }

    /// Twelve hexadecimal digits of all that decides the run of arm `arm` with `draw`.
    fn hash(&self, arm: usize, draw: &Draw) -> String {
        let hash = Sha256::digest(self.arms[arm].config_of(draw).fingerprint());
        hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

impl Arm<'_> {
    /// Its resolved config, with the first seed on the first fold.
    pub fn config(&self) -> &Config {
        &self.folds[0].config
    }

    /// Its lengths on the first fold.
    pub(super) fn first_course(&self) -> &Course {
        &self.folds[0].course
    }

    /// Steps of its runs, if they and not seconds decide their length; on the first fold, where data of other folds are
    /// more or fewer.
    pub fn steps(&self) -> Option<u64> {
        let course = self.first_course();
        (!course.is_endless()).then_some(course.steps)
    }

    fn fold(&self, draw: &Draw) -> &Fold {
        self.folds.iter().find(|fold| fold.label == draw.fold).unwrap_or(&self.folds[0])
    }

    /// The config of its run with `draw`.
    pub(super) fn config_of(&self, draw: &Draw) -> Config {
        Config { seed: draw.seed, ..self.fold(draw).config.clone() }
    }

    /// The lengths of its run with `draw`.
    pub(super) fn course(&self, draw: &Draw) -> &Course {
        &self.fold(draw).course
    }

    /// Has the arm take `steps` steps.
    ///
    /// # Errors
    /// There are no such runs.
    fn set_steps(&mut self, steps: u64) -> Result<()> {
        for Fold { config, course, .. } in &mut self.folds {
            (config.train.max_steps, config.train.max_seconds) = (steps, 0.0);
            *course = Course::new(&config.train, course.samples as usize)?;
        }
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
    wanted: Wanted,
    seed: i64,
    sweep: &Sweep,
    adapters: &[&'a dyn Adapter],
    opened: &mut BTreeMap<String, Data>,
) -> Result<Arm<'a>> {
    let mut folds = Vec::new();
    let mut first = None;
    for (mut table, label) in wanted.folds.into_iter().zip(sweep.folds()) {
        // Its number is checked with those of a config.
        table.insert("seed".to_owned(), toml::Value::Integer(seed));
        let (mut config, adapter) = Config::resolve(table, adapters)?;
        sweep.budget.apply(&mut config.train);
        let data = open(&config, adapter, opened)?;
        let course = Course::new(&config.train, data.examples)?;
        first.get_or_insert(adapter);
        folds.push(Fold { label, config, course, data });
    }
    let (Some(adapter), Some(Fold { config, data, .. })) = (first, folds.first()) else {
        return Err(Error::config("there are no folds"));
    };
    let classes = data.classes.len() as i64;
    let vs = VarStore::new(Device::Cpu);
    // Shows that it can be made at all.
    without_values(|| adapter.model(&config.model, &data.input_shape, classes, vs.root()))?;
    let parameters = vs.trainable_variables().iter().map(|variable| variable.numel() as i64).sum();
    let flops = adapter.describe(&config.model, &data.input_shape, classes)?.flops;
    let model = adapter.canonical(&config.model, &data.input_shape, classes)?;
    let canonical = Config { model, ..config.clone() }.fingerprint();
    Ok(Arm { name: wanted.name, settings: wanted.settings, folds, adapter, canonical, parameters, flops })
}

/// What the data of `config` are; those of many arms are the same, and opened once.
fn open(config: &Config, adapter: &dyn Adapter, opened: &mut BTreeMap<String, Data>) -> Result<Data> {
    let key = format!("{}\n{}", config.adapter, config.data);
    if let Some(data) = opened.get(&key) {
        return Ok(data.clone());
    }
    let splits = adapter.open(&config.data)?;
    let data = Data {
        examples: splits.train.len(),
        eval_examples: splits.eval.len(),
        classes: splits.train.classes().to_vec(),
        input_shape: splits.train.input_shape(),
    };
    opened.insert(key, data.clone());
    Ok(data)
}

/// `fractions` are the keys whose ranges give numbers that are not whole.
fn within(arm: &str, fractions: &[String], error: Error) -> Error {
    match error {
        Error::Core(ophidian_core::Error::Config(reason)) => {
            let named = |key: &&String| reason.contains(&format!("`{key}`"));
            let hint = fractions.iter().find(named).map_or_else(String::new, |key| {
                format!("; the range of `{key}` gives fractions: give it a whole `step`, or a `count` that divides it evenly")
            });
            Error::config(format!("arm `{arm}`: {reason}{hint}"))
        }
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
