//! What a reader must know who compares the numbers.

use std::collections::BTreeSet;

use super::{
    Ranked, Study,
    compare::{finished, shared},
    study::Run,
};
use crate::progress::count;

/// Seconds of training that are this share from each other, or from what they were to be, are not equal.
const SLACK: f64 = 0.2;

/// In fewer steps than these, starting up and one hiccup make up much of the time.
const STEPS: u64 = 50;

/// In words, each a sentence or two; none if there is nothing to say.
pub(super) fn warnings(study: &Study, ranking: &[Ranked]) -> Vec<String> {
    let all =
        [incomplete(study), repeated(study), off_budget(study), unequal(study, ranking), too_short(ranking)];
    all.into_iter().flatten().collect()
}

/// Seeds and folds that some arm finished and another did not.
fn incomplete(study: &Study) -> Option<String> {
    let shared = shared(study);
    let draws = |arm| finished(arm).map(|run| &run.draw).collect::<BTreeSet<_>>();
    let all: BTreeSet<_> = study.arms.iter().flat_map(draws).collect();
    let missing: Vec<String> = study
        .arms
        .iter()
        .filter(|arm| !draws(arm).is_empty())
        .filter_map(|arm| {
            let lacks: Vec<String> = all.difference(&draws(arm)).map(ToString::to_string).collect();
            listed(&lacks).map(|lacks| format!("{} lacks {lacks}", arm.name))
        })
        .collect();
    let missing = missing.first().map(|first| match missing.len() {
        1 => first.clone(),
        several => format!("{first}; and {} more", count(several - 1, "arm")),
    })?;
    Some(match shared.len() {
        0 => format!(
            "No seed and fold was finished by all arms ({missing}): each mean is over other runs, and the ranking says little."
        ),
        some => format!(
            "Not all arms finished the same seeds and folds ({missing}). So that they are of the same things, figures are over \
             the {some} of {} that all finished.",
            all.len()
        ),
    })
}

/// Runs of an arm with the same seed and fold.
fn repeated(study: &Study) -> Option<String> {
    let mut twice = Vec::new();
    for arm in &study.arms {
        let mut seen = BTreeSet::new();
        let again = finished(arm).filter(|run| !seen.insert(&run.draw));
        twice.extend(again.map(|run| format!("{}, {}", arm.name, run.draw)));
    }
    listed(&twice).map(|twice| {
        format!("Runs of the same seed and fold are no two draws, but count as if they were ({twice}).")
    })
}

/// Seconds in training steps that a run was to take, and those that it took.
fn seconds(run: &Run) -> Option<(f64, f64)> {
    let summary = run.summary.as_ref()?;
    run.accuracy()?;
    Some((summary.max_seconds?, summary.training_seconds?))
}

fn off_budget(study: &Study) -> Option<String> {
    let runs = || study.arms.iter().flat_map(|arm| arm.runs.iter().map(move |run| (arm, run)));
    let off: Vec<String> = runs()
        .filter_map(|(arm, run)| {
            let (asked, taken) = seconds(run)?;
            let off = (taken / asked - 1.0).abs() > SLACK;
            off.then(|| format!("{}, {}: {taken:.1} s of {asked} s", arm.name, run.draw))
        })
        .collect();
    listed(&off).map(|off| {
        format!(
            "Some runs spent more than {:.0}% more or less time in training steps than they were to ({off}): a single step is \
             long beside the budget, or the run stopped early.",
            100.0 * SLACK
        )
    })
}

fn unequal(study: &Study, ranking: &[Ranked]) -> Option<String> {
    study.arms.iter().flat_map(|arm| &arm.runs).find_map(seconds)?;
    let taken = ranking.iter().filter_map(|one| Some((one.name.as_str(), one.training_seconds?.mean)));
    let least = taken.clone().min_by(|a, b| a.1.total_cmp(&b.1))?;
    let most = taken.max_by(|a, b| a.1.total_cmp(&b.1))?;
    (most.1 > (1.0 + SLACK) * least.1).then(|| {
        format!(
            "The arms did not train for equally long: {} for {:.1} s a run, {} for {:.1} s. Their accuracies are not those of \
             equal time.",
            most.0, most.1, least.0, least.1
        )
    })
}

fn too_short(ranking: &[Ranked]) -> Option<String> {
    let short = ranking.iter().filter(|one| one.runs > 0 && one.steps.is_some_and(|steps| steps < STEPS));
    let short: Vec<String> =
        short.map(|one| format!("{}: {}", one.name, count(one.steps.unwrap_or(0), "step"))).collect();
    listed(&short).map(|short| {
        format!("Runs of fewer than {STEPS} steps do not tell how fast an arm is ({short}): read no speed from them.")
    })
}

/// The first few of `what`, and how many more there are; none of nothing.
fn listed(what: &[String]) -> Option<String> {
    let (first, more) = what.split_at(what.len().min(4));
    let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
    (!what.is_empty()).then(|| first.join("; ") + &more)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Ending,
        ablate::Draw,
        records::Summary,
        report::{Arm, Point, Status, compare},
    };

    /// Arms "a", "b", … of runs that took so many seconds of two, and so many steps.
    fn study(arms: &[&[(f64, u64)]]) -> Study {
        let run = |(seed, (seconds, step)): (usize, &(f64, u64))| Run {
            folder: "run".into(),
            draw: Draw { seed: seed as u64, fold: None },
            status: Status::Finished,
            error: None,
            curve: vec![Point { epoch: 1.0, seconds: 1.0, loss: 1.0, accuracy: 0.5 }],
            evaluation: None,
            summary: Some(Summary {
                ending: Ending::Finished,
                step: *step,
                steps: *step,
                epochs: 1,
                best_accuracy: None,
                parameters: 1,
                flops: None,
                input_shape: vec![1],
                classes: 2,
                training_examples: 10,
                seconds: 9.0,
                training_seconds: Some(*seconds),
                max_seconds: Some(2.0),
            }),
            samples_per_second: None,
            speeds: Vec::new(),
            peak_memory_mib: None,
        };
        let arm = |(at, runs): (usize, &&[(f64, u64)])| Arm {
            name: ["a", "b", "c"][at].to_owned(),
            settings: Vec::new(),
            runs: runs.iter().enumerate().map(run).collect(),
            description: Default::default(),
        };
        Study {
            title: "t".into(),
            arms: arms.iter().enumerate().map(arm).collect(),
            baseline: 0,
            sweep: None,
        }
    }

    fn said(arms: &[&[(f64, u64)]]) -> String {
        let study = study(arms);
        warnings(&study, &compare(&study)).join("\n")
    }

    #[test]
    fn seconds_that_are_not_equal_are_said() {
        assert_eq!(said(&[&[(2.0, 90), (1.9, 80)], &[(2.2, 50), (2.0, 50)]]), "");
        let off = said(&[&[(2.0, 90), (1.5, 80)], &[(2.2, 50), (2.0, 50)]]);
        assert!(off.contains("a, seed 1: 1.5 s of 2 s") && !off.contains("seed 0"), "{off}");
        // Each within a fifth of the budget, and yet more than that from each other.
        let apart = said(&[&[(1.7, 90)], &[(2.3, 50)]]);
        assert!(apart.contains("b for 2.3 s a run, a for 1.7 s") && !apart.contains("Some runs"), "{apart}");
        let many = said(&[&[(9.0, 90); 7]]);
        assert!(many.contains("; and 3 more"), "{many}");
    }

    /// Arms of runs of these seeds and accuracies.
    fn seeded(arms: &[&[(u64, f64)]]) -> Study {
        let mut study = study(&arms.iter().map(|_| &[(2.0, 90); 4][..]).collect::<Vec<_>>());
        for (arm, runs) in study.arms.iter_mut().zip(arms) {
            arm.runs.truncate(runs.len());
            for (run, (seed, accuracy)) in arm.runs.iter_mut().zip(*runs) {
                run.draw.seed = *seed;
                run.curve[0].accuracy = *accuracy;
            }
        }
        study
    }

    /// An arm that lacks a hard seed is not ahead for it.
    #[test]
    fn arms_are_compared_over_what_all_finished() {
        let study = seeded(&[&[(1, 0.5), (2, 0.1)], &[(1, 0.4)], &[]]);
        let ranking = compare(&study);
        let figures: Vec<_> = ranking.iter().map(|one| (one.name.as_str(), one.runs, one.mean)).collect();
        assert_eq!(figures, [("a", 1, Some(0.5)), ("b", 1, Some(0.4)), ("c", 0, None)]);
        assert!((ranking[1].difference.unwrap().mean + 0.1).abs() < 1e-12);
        let said = warnings(&study, &ranking).join("\n");
        assert!(said.contains("(b lacks seed 2)") && said.contains("the 1 of 2 that all finished"), "{said}");
        let apart = seeded(&[&[(1, 0.5), (2, 0.1)], &[(3, 0.4)]]);
        let said = warnings(&apart, &compare(&apart)).join("\n");
        assert!(
            said.contains("No seed and fold was finished by all arms (a lacks seed 3; and 1 arm more)"),
            "{said}"
        );
        let whole = seeded(&[&[(1, 0.5), (2, 0.1)], &[(2, 0.4), (1, 0.3)]]);
        assert_eq!(warnings(&whole, &compare(&whole)), [""; 0]);
        let twice = seeded(&[&[(1, 0.5), (1, 0.5)], &[(1, 0.4)]]);
        let said = warnings(&twice, &compare(&twice)).join("\n");
        assert!(said.contains("no two draws") && said.contains("(a, seed 1)"), "{said}");
    }

    #[test]
    fn few_steps_do_not_tell_speed() {
        let few = said(&[&[(2.0, 49)], &[(2.0, 50)]]);
        assert!(few.contains("fewer than 50 steps") && few.contains("(a: 49 steps)"), "{few}");
    }
}
