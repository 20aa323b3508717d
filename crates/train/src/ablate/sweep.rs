//! The file that asks for a sweep.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use ophidian_core::config::{self, from_table};
use toml::{Table, Value};

use super::{
    axes::{self, Axis, MOST},
    budget::Budget,
    folder::Draw,
};
use crate::{Error, Result};

/// A sweep as it is asked for.
#[derive(Debug, Clone, PartialEq)]
pub struct Sweep {
    /// What it is called.
    pub name: String,
    /// The file that asks for it, for errors.
    pub file: Option<PathBuf>,
    /// The training config that every arm begins with.
    pub base: Table,
    /// Every arm is run with each.
    pub seeds: Vec<u64>,
    /// Name of the arm that the others are held against; the first if none.
    pub baseline: Option<String>,
    pub(super) budget: Budget,
    pub(super) axes: Vec<Axis>,
    /// Every arm is run on each of its points, which are averaged over and not compared: cross-validation.
    folds: Option<Axis>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    name: Option<String>,
    base: Value,
    #[serde(default = "one_seed")]
    seeds: Vec<u64>,
    baseline: Option<String>,
    #[serde(default)]
    budget: Table,
    #[serde(default)]
    axes: Table,
    #[serde(default)]
    zip: Vec<Table>,
    #[serde(default)]
    folds: Table,
}

fn one_seed() -> Vec<u64> {
    vec![0]
}

/// An arm as it is asked for.
pub(super) struct Wanted {
    pub name: String,
    /// Keys and values that make it what it is.
    pub settings: Vec<(String, String)>,
    /// Of these keys, those with a range that gives numbers which are not whole.
    pub fractions: Vec<String>,
    /// Its config on each fold; one where there are no folds.
    pub folds: Vec<Table>,
}

impl Sweep {
    /// Reads the sweep at `path`; `overrides` (`key=value`) change its base.
    ///
    /// # Errors
    /// The file or that of its base cannot be read; [`ophidian_core::Error::Config`] naming the key that is wrong.
    pub fn read(path: &Path, overrides: &[String]) -> Result<Self> {
        let stem =
            path.file_stem().map_or_else(|| "sweep".into(), |stem| stem.to_string_lossy().into_owned());
        let folder = path.parent().unwrap_or(Path::new("."));
        let sweep =
            Sweep::of(config::read(path)?, &stem, folder, overrides).map_err(|error| match error {
                Error::Core(ophidian_core::Error::Config(reason)) => {
                    Error::config(format!("{}: {reason}", path.display()))
                }
                other => other,
            })?;
        Ok(Sweep { file: Some(path.to_path_buf()), ..sweep })
    }

    fn of(table: Table, stem: &str, folder: &Path, overrides: &[String]) -> Result<Self> {
        let asked: Asked = from_table(table, "")?;
        let mut base = match asked.base {
            Value::Table(base) => base,
            Value::String(path) => config::read(&folder.join(path))?,
            other => {
                return Err(Error::config(format!(
                    "`base` is {other}, expected the path of a training config, or its tables"
                )));
            }
        };
        for assignment in overrides {
            config::set(&mut base, assignment)?;
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = asked.seeds.iter().find(|seed| !seen.insert(**seed)) {
            return Err(Error::config(format!("`seeds` holds {twice} twice; each seed is run once")));
        }
        if asked.seeds.is_empty() {
            return Err(Error::config("`seeds` is empty, expected at least one, for example [0, 1, 2]"));
        }
        let mut axes = Vec::new();
        for (number, table) in asked.zip.into_iter().enumerate() {
            axes.push(axes::zipped(table, &format!("zip.{number}"))?);
        }
        axes.extend(axes::crossed(asked.axes)?);
        let folds = if asked.folds.is_empty() { None } else { Some(axes::zipped(asked.folds, "folds")?) };
        let budget = Budget::read(asked.budget)?;
        let sweep = Sweep {
            name: asked.name.unwrap_or_else(|| stem.to_owned()),
            file: None,
            base,
            seeds: asked.seeds,
            baseline: asked.baseline,
            budget,
            axes,
            folds,
        };
        sweep.check()?;
        Ok(sweep)
    }

    fn check(&self) -> Result<()> {
        if self.axes.iter().all(|axis| axis.keys.is_empty()) {
            return Err(Error::config(
                "the sweep has no arms: list what varies under [axes], for example \
                 `model.scan = [\"row\", \"bidirectional\"]`",
            ));
        }
        let mut seen = BTreeSet::new();
        for key in self.axes.iter().chain(&self.folds).flat_map(|axis| &axis.keys) {
            if !seen.insert(key) {
                return Err(Error::config(format!("two axes set `{key}`")));
            }
            if key == "seed" {
                return Err(Error::config("the seed is no axis: list seeds under `seeds`"));
            }
            if let Some(budget) = self.budget.contradicts(key) {
                return Err(Error::config(format!("the axis `{key}` contradicts `budget.{budget}`")));
            }
        }
        let arms = self.axes.iter().try_fold(1usize, |arms, axis| arms.checked_mul(axis.points.len()));
        let folds = self.folds.as_ref().map_or(1, |folds| folds.points.len());
        if folds == 0 {
            return Err(Error::config("`folds` has no values, expected at least one for each key"));
        }
        if self.folds().into_iter().collect::<BTreeSet<_>>().len() < folds {
            return Err(Error::config("two of `folds` are equal, or have the same label"));
        }
        let runs = arms.and_then(|arms| arms.checked_mul(self.seeds.len())?.checked_mul(folds));
        match runs {
            Some(0) => Err(Error::config("the sweep has no arms: an axis has no values")),
            Some(1..=MOST) => Ok(()),
            _ => Err(Error::config(format!("the sweep has more than {MOST} runs"))),
        }
    }

    /// What the folds are called; one without a name where there are no folds.
    pub(super) fn folds(&self) -> Vec<Option<String>> {
        match &self.folds {
            Some(folds) => (0..folds.points.len()).map(|at| Some(folds.label(at))).collect(),
            None => vec![None],
        }
    }

    /// What each arm is run with: all folds with the first seed, then all with the next.
    pub fn draws(&self) -> Vec<Draw> {
        let labels = self.folds();
        self.seeds
            .iter()
            .flat_map(|seed| labels.iter().map(|fold| Draw { seed: *seed, fold: fold.clone() }))
            .collect()
    }

    /// `table` on each fold.
    fn on_folds(&self, table: Table) -> Result<Vec<Table>> {
        let Some(folds) = &self.folds else { return Ok(vec![table]) };
        let mut tables = vec![table; folds.points.len()];
        for (table, point) in tables.iter_mut().zip(&folds.points) {
            for (key, value) in folds.keys.iter().zip(point) {
                config::insert(table, key, value.clone())
                    .map_err(|error| Error::config(format!("`folds.{key}`: {error}")))?;
            }
        }
        Ok(tables)
    }

    /// All arms: the axes crossed, the first one slowest.
    ///
    /// # Errors
    /// An axis names something that is no key.
    pub(super) fn arms(&self) -> Result<Vec<Wanted>> {
        let keys: Vec<&String> = self.axes.iter().flat_map(|axis| &axis.keys).collect();
        let last = |key: &str| key.rsplit('.').next().unwrap_or_default().to_owned();
        let short = |key: &str| {
            let alike = keys.iter().filter(|other| last(other) == last(key)).count();
            if alike > 1 { key.to_owned() } else { last(key) }
        };
        let alone = keys.len() == 1;
        let count = self.axes.iter().map(|axis| axis.points.len()).product::<usize>();
        let mut arms = Vec::with_capacity(count);
        for number in 0..count {
            let mut names = Vec::new();
            let (mut settings, mut table) = (Vec::new(), self.base.clone());
            let mut left = count;
            for axis in &self.axes {
                left /= axis.points.len();
                let at = number / left % axis.points.len();
                let label = axis.labels.as_ref().and_then(|labels| labels.get(at));
                names.extend(label.cloned());
                for (key, value) in axis.keys.iter().zip(&axis.points[at]) {
                    config::insert(&mut table, key, value.clone())
                        .map_err(|error| Error::config(format!("the axis `{key}`: {error}")))?;
                    let value = axes::text(value);
                    if label.is_none() {
                        names.push(if alone { value.clone() } else { format!("{}={value}", short(key)) });
                    }
                    settings.push((key.clone(), value));
                }
            }
            let fractions = self.axes.iter().flat_map(|axis| axis.fractions.clone()).collect();
            arms.push(Wanted { name: names.join(", "), settings, fractions, folds: self.on_folds(table)? });
        }
        Ok(arms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(text: &str) -> Result<Sweep> {
        Sweep::of(format!("base = {{}}\n{text}").parse().unwrap(), "stem", Path::new("."), &[])
    }

    fn fails(text: &str) -> String {
        sweep(text).map(|_| ()).unwrap_err().to_string()
    }

    #[test]
    fn axes_are_crossed_and_zipped_ones_go_together() {
        let text =
            "[axes]\nmodel.scan = ['row', 'cross']\n[[zip]]\nmodel.width = [8, 16]\nmodel.depth = [2, 1]";
        let names = |text: &str| {
            sweep(text).unwrap().arms().unwrap().into_iter().map(|arm| arm.name).collect::<Vec<_>>()
        };
        assert_eq!(
            names(text),
            [
                "depth=2, width=8, scan=row",
                "depth=2, width=8, scan=cross",
                "depth=1, width=16, scan=row",
                "depth=1, width=16, scan=cross"
            ]
        );
        assert_eq!(names("axes.\"model.scan\" = ['row', 'cross']"), ["row", "cross"]);
        assert_eq!(names("[[zip]]\nlabel = ['small', 'large']\nmodel.width = [8, 16]"), ["small", "large"]);
        assert_eq!(names("axes.a.x = [1, 2]\naxes.b.x = [3]"), ["a.x=1, b.x=3", "a.x=2, b.x=3"]);
    }

    #[test]
    fn folds_multiply_runs_and_not_arms() {
        let text = "seeds = [3, 4]\naxes.x = [1, 2]\n[folds]\ndata.speaker = ['theo', 'lucas']";
        let sweep = sweep(text).unwrap();
        let draws: Vec<String> = sweep.draws().iter().map(Draw::to_string).collect();
        assert_eq!(draws, ["seed 3, theo", "seed 3, lucas", "seed 4, theo", "seed 4, lucas"]);
        let arms = sweep.arms().unwrap();
        assert_eq!(arms.iter().map(|arm| arm.name.as_str()).collect::<Vec<_>>(), ["1", "2"]);
        let speakers = |arm: &Wanted| {
            let of = |table: &Table| table["data"]["speaker"].as_str().unwrap().to_owned();
            arm.folds.iter().map(of).collect::<Vec<_>>()
        };
        assert!(arms.iter().all(|arm| speakers(arm) == ["theo", "lucas"]));
    }

    #[test]
    fn what_cannot_be_run_is_refused() {
        assert!(fails("").contains("the sweep has no arms"));
        assert!(fails("axes.x = []").contains("no arms"));
        assert!(fails("[[zip]]").contains("no arms"));
        let message = fails("[[zip]]\na = [1, 2]\nb = [1, 2, 3]");
        assert!(message.contains("`a` has 2, `b` has 3"), "{message}");
        assert!(fails("[[zip]]\na = [1, 2]\nlabel = ['one']").contains("`label` has 1"));
        assert!(fails("axes.x = [1]\nseeds = [3, 1, 3]").contains("`seeds` holds 3 twice"));
        assert!(fails("axes.x = [1]\nseeds = []").contains("`seeds` is empty"));
        assert!(fails("axes.x = [1]\nseeds = [-1]").contains("`seeds"));
        assert!(fails("axes.seed = [1]").contains("list seeds under `seeds`"));
        assert!(fails("axes.x = [1]\n[[zip]]\nx = [2]").contains("two axes set `x`"));
        assert!(fails("axes.x = [1]\nbudget.moons = 3").contains("unknown key `budget.moons`"));
        assert!(fails("axes.x = [1]\nbudget = { epochs = 1, seconds = 2 }").contains("one of"));
        assert!(fails("axes.train.epochs = [1]\nbudget.epochs = 3").contains("contradicts `budget.epochs`"));
        assert!(fails("axes.x = [1]\nbaselin = 'x'").contains("did you mean `baseline`?"));
        assert!(fails("axes.x = [1]\n[folds]\nx = [2]").contains("two axes set `x`"));
        assert!(fails("axes.x = [1]\n[folds]\ny = []").contains("`folds.y` is an empty list"));
        assert!(fails("axes.x = [1]\n[folds]\nlabel = ['a']").contains("`folds` has no values"));
        assert!(fails("axes.x = [1]\n[folds]\ny = [2, 2]").contains("two of `folds` are equal"));
        assert!(fails("axes.x = [1]\n[folds]\nseed = [2, 3]").contains("list seeds under `seeds`"));
        let many = "{ from = 1, to = 200, step = 1 }";
        assert!(fails(&format!("axes.x = {many}\naxes.y = {many}")).contains("more than 10000 runs"));
        let arms = sweep("axes.\"a..b\" = [1]").unwrap().arms().map(|_| ()).unwrap_err().to_string();
        assert!(arms.contains("the axis `a..b`: `a..b` is not a key"), "{arms}");
    }
}
