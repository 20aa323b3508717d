//! The arms held against the baseline.

use std::collections::BTreeSet;

use serde::Serialize;

use super::{Interval, Run, Spread, Study, bootstrap, bootstrap_folds, mean, standard_deviation, study::Arm};
use crate::{ablate::Draw, records::Evaluation};

/// Fewer folds than these are not drawn by the bootstrap: they would say little about other folds.
const FOLDS: usize = 5;

/// What an arm comes to.
#[derive(Debug, Clone, Serialize)]
pub struct Ranked {
    /// Its place in the study.
    #[serde(skip)]
    pub arm: usize,
    /// Its name.
    pub name: String,
    /// Runs that finished, of the seeds and folds that all arms finished.
    pub runs: usize,
    /// Mean accuracy over them, after the last epoch.
    pub mean: Option<f64>,
    /// Standard deviation between them (n - 1).
    pub deviation: Option<f64>,
    /// Mean of the best accuracies, which were picked by the split that they were measured on.
    pub best: Option<f64>,
    /// Against the baseline; none for the baseline itself.
    pub difference: Option<Difference>,
    /// Trainable numbers.
    pub parameters: Option<i64>,
    /// Operations of a forward pass over one input.
    pub flops: Option<f64>,
    /// Steps of a run, the mean over its runs.
    pub steps: Option<u64>,
    /// Seconds of its runs in training steps.
    pub training_seconds: Option<Spread>,
    /// Training examples per second, the mean over its runs.
    pub samples_per_second: Option<f64>,
    /// The same over all epochs of all its runs.
    pub speed: Option<Spread>,
    /// Most memory of a run.
    pub peak_memory_mib: Option<f64>,
    /// Share of each class that is recognised, the mean over runs.
    pub recall: Vec<f64>,
}

/// An arm minus the baseline.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Of accuracies, the mean over the seeds and folds that both finished.
    pub mean: f64,
    /// Where it lies with a confidence of 95%, if that can be said.
    pub interval: Option<Interval>,
    /// What the interval pairs.
    pub basis: Basis,
    /// Seeds and folds that both finished.
    pub pairs: usize,
}

/// What was paired and drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Basis {
    /// Runs of the same seed, and their answers to the same examples.
    SeedsAndExamples,
    /// Answers to the same examples, of one seed: what another seed would have changed is not in it.
    Examples,
    /// Within each fold, answers to the same examples, of runs of the same seed; and folds, of which there are enough.
    FoldsAndExamples,
    /// The same, but the folds stay as they are: what other folds would have changed is not in it.
    ExamplesWithinFolds,
    /// Runs of the same seed and fold.
    Seeds,
    /// Nothing: one seed, and no answers.
    Nothing,
}

/// The seeds and folds that all arms finished, those aside that finished nothing: only over them means are of the same
/// things. Empty if there are none; then each arm's figures are over what it has.
pub(super) fn shared(study: &Study) -> BTreeSet<&Draw> {
    let finished = |arm| finished(arm).map(|run| &run.draw).collect::<BTreeSet<_>>();
    let arms = study.arms.iter().map(finished).filter(|draws| !draws.is_empty());
    arms.reduce(|all, draws| &all & &draws).unwrap_or_default()
}

/// The runs of an arm that have an accuracy.
pub(super) fn finished(arm: &Arm) -> impl Iterator<Item = &Run> {
    arm.runs.iter().filter(|run| run.accuracy().is_some())
}

/// Ranks the arms by their mean accuracy, those without one last.
pub fn compare(study: &Study) -> Vec<Ranked> {
    let baseline = study.arms.get(study.baseline);
    let shared = shared(study);
    let counts = |run: &&Run| shared.is_empty() || shared.contains(&run.draw);
    let of = |(number, arm): (usize, &Arm)| {
        let finished: Vec<&Run> = finished(arm).filter(counts).collect();
        let values = |value: &dyn Fn(&Run) -> Option<f64>| -> Vec<f64> {
            finished.iter().filter_map(|run| value(run)).collect()
        };
        let accuracies = values(&Run::accuracy);
        let summary = arm.runs.iter().find_map(|run| run.summary.as_ref());
        let difference =
            baseline.filter(|_| number != study.baseline).and_then(|other| difference(&finished, other));
        Ranked {
            arm: number,
            name: arm.name.clone(),
            runs: finished.len(),
            mean: mean(&accuracies),
            deviation: standard_deviation(&accuracies),
            best: mean(&values(&|run| run.summary.as_ref()?.best_accuracy)),
            difference,
            parameters: summary.map(|summary| summary.parameters),
            flops: summary.and_then(|summary| summary.flops),
            steps: mean(&values(&|run| Some(run.summary.as_ref()?.steps as f64)))
                .map(|steps| steps.round() as u64)
                .or(summary.map(|summary| summary.steps)),
            training_seconds: Spread::of(&values(&|run| run.summary.as_ref()?.training_seconds)),
            samples_per_second: mean(&values(&|run| run.samples_per_second)),
            speed: Spread::of(
                &finished.iter().flat_map(|run| run.speeds.iter().copied()).collect::<Vec<_>>(),
            ),
            peak_memory_mib: values(&|run| run.peak_memory_mib).into_iter().reduce(f64::max),
            recall: recall(&finished),
        }
    };
    let mut ranked: Vec<Ranked> = study.arms.iter().enumerate().map(of).collect();
    let key = |one: &Ranked| one.mean.unwrap_or(f64::NEG_INFINITY);
    ranked.sort_by(|a, b| key(b).total_cmp(&key(a)));
    ranked
}

/// `runs` minus those of `baseline`, over the seeds and folds that both finished; none if there is none.
fn difference(runs: &[&Run], baseline: &Arm) -> Option<Difference> {
    let pairs: Vec<(&Run, &Run)> = runs
        .iter()
        .filter_map(|&run| {
            let other = baseline.runs.iter().find(|other| other.draw == run.draw)?;
            run.accuracy().and(other.accuracy())?;
            Some((run, other))
        })
        .collect();
    let gaps: Vec<f64> =
        pairs.iter().filter_map(|(run, other)| Some(run.accuracy()? - other.accuracy()?)).collect();
    let (basis, interval) = match answers(&pairs) {
        Some(folds) => {
            let (drawn, rows) = (folds.len() >= FOLDS, folds.iter().map(Vec::as_slice).collect::<Vec<_>>());
            let basis = match (folds.len(), pairs.len()) {
                (1, 1) => Basis::Examples,
                (1, _) => Basis::SeedsAndExamples,
                _ if drawn => Basis::FoldsAndExamples,
                _ => Basis::ExamplesWithinFolds,
            };
            (basis, bootstrap_folds(&rows, drawn))
        }
        None => {
            let basis = if pairs.len() > 1 { Basis::Seeds } else { Basis::Nothing };
            (basis, bootstrap(&gaps.iter().map(|gap| vec![*gap as f32]).collect::<Vec<_>>()))
        }
    };
    Some(Difference { mean: mean(&gaps)?, interval, basis, pairs: gaps.len() })
}

/// For each fold, pair of it, and example: 1 if only the first is right, -1 if only the second is, else 0. None unless all
/// runs of a fold answered the same examples; those of two folds are others, whatever they are called.
fn answers(pairs: &[(&Run, &Run)]) -> Option<Vec<Vec<Vec<f32>>>> {
    let right = |found: &Evaluation, at: usize| f32::from(u8::from(found.predicted[at] == found.labels[at]));
    let mut folds: Vec<(&Run, Vec<Vec<f32>>)> = Vec::new();
    for (run, other) in pairs {
        let (ours, theirs) = (run.evaluation.as_ref()?, other.evaluation.as_ref()?);
        let place = folds.iter().position(|(first, _)| first.draw.fold == run.draw.fold);
        let first = place.map_or(*run, |place| folds[place].0).evaluation.as_ref()?;
        let same = |found: &Evaluation| found.examples == first.examples && found.labels == first.labels;
        if !same(ours) || !same(theirs) {
            return None;
        }
        let row = (0..ours.labels.len()).map(|at| right(ours, at) - right(theirs, at)).collect();
        match place {
            Some(place) => folds[place].1.push(row),
            None => folds.push((run, vec![row])),
        }
    }
    (!folds.is_empty()).then(|| folds.into_iter().map(|(_, rows)| rows).collect())
}

/// By class, the mean over runs; nothing unless all have the same classes.
fn recall(runs: &[&Run]) -> Vec<f64> {
    let evaluations: Vec<&Evaluation> = runs.iter().filter_map(|run| run.evaluation.as_ref()).collect();
    let Some(first) = evaluations.first() else { return Vec::new() };
    if evaluations.iter().any(|found| found.classes != first.classes) {
        return Vec::new();
    }
    let mut sums = vec![0.0; first.classes.len()];
    for found in &evaluations {
        let mut counts = vec![(0u64, 0u64); first.classes.len()];
        for (label, predicted) in found.labels.iter().zip(&found.predicted) {
            if let Some((right, all)) = counts.get_mut(*label) {
                *right += u64::from(label == predicted);
                *all += 1;
            }
        }
        for (sum, (right, all)) in sums.iter_mut().zip(counts) {
            *sum += right as f64 / all.max(1) as f64 / evaluations.len() as f64;
        }
    }
    sums
}
