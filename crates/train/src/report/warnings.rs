//! What a reader must know who compares the numbers.

use super::{Ranked, Study, study::Run};

/// Seconds of training that are this share from each other, or from what they were to be, are not equal.
const SLACK: f64 = 0.2;

/// In words, each a sentence or two; none if there is nothing to say.
pub(super) fn warnings(study: &Study, ranking: &[Ranked]) -> Vec<String> {
    [off_budget(study), unequal(study, ranking)].into_iter().flatten().collect()
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

/// The first few of `what`, and how many more there are; none of nothing.
fn listed(what: &[String]) -> Option<String> {
    let (first, more) = what.split_at(what.len().min(4));
    let more = if more.is_empty() { String::new() } else { format!("; and {} more", more.len()) };
    (!what.is_empty()).then(|| first.join("; ") + &more)
}
