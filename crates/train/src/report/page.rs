//! The page: its frame, and what came out in words.

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{Basis, Ranked, Study, compare::shared, configs, sections, study::Status};
use crate::progress::count;

const STYLE: &str = include_str!("style.css");

/// The whole report.
pub(super) fn html(study: &Study, ranking: &[Ranked], warnings: &[String]) -> String {
    frame(
        &study.title,
        &html! {
            h1 { (study.title) }
            (lead(study))
            @for warning in warnings { p.box.warning { strong { "Beware: " } (warning) } }
            (conclusions(study, ranking))
            (sections::ranking(study, ranking))
            (sections::curves(study, ranking))
            (sections::costs(study, ranking))
            (sections::scans(study))
            (sections::classes(study, ranking))
            (configs::section(study, ranking))
            (sections::runs(study))
            (sections::commands(study))
        },
    )
}

/// A page around `body` that asks for nothing from outside and runs no script.
pub(crate) fn frame(title: &str, body: &Markup) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                title { (title) " · Ophidian" }
                // Browsers ask for an icon otherwise.
                link rel="icon" href="data:,";
                style { (PreEscaped(STYLE)) }
            }
            body { main { (body) } }
        }
    };
    page.into_string()
}

/// Accuracies as people read them.
pub(crate) fn percent(share: f64) -> String {
    format!("{:.2}%", 100.0 * share)
}

/// A difference of accuracies, in points of a per cent.
pub(super) fn points(difference: f64) -> String {
    signed(100.0 * difference, 2)
}

/// With a sign, as print has it, and so many digits.
pub(super) fn signed(value: f64, digits: usize) -> String {
    format!("{value:+.digits$}").replace('-', "−")
}

fn lead(study: &Study) -> Markup {
    let runs = || study.arms.iter().flat_map(|arm| &arm.runs);
    let of = |status: Status| runs().filter(|run| run.status == status).count();
    let (finished, failed, open) = (of(Status::Finished), of(Status::Failed), of(Status::Unfinished));
    // Those of a fold are the same for all arms; folds may differ.
    let examples = || runs().filter_map(|run| Some(run.evaluation.as_ref()?.labels.len()));
    let (least, most) = (examples().min(), examples().max());
    html! {
        p.lead {
            (count(study.arms.len(), "arm")) ", " (count(runs().count(), "run")) ": " (finished) " finished"
            @if failed > 0 { ", " strong { (failed) " failed" } }
            @if open > 0 { ", " (open) " not finished yet" }
            "."
            @if let Some(sweep) = &study.sweep { " Every arm trains " (sweep.budget) "." }
            @if let (Some(least), Some(most)) = (least, most) {
                " Measured on "
                @if least < most { (least) " to " }
                (count(most, "example"))
                @if runs().any(|run| run.draw.fold.is_some()) { ", as many as the fold holds out" }
                "."
            }
        }
    }
}

/// What can be said, and what cannot.
fn conclusions(study: &Study, ranking: &[Ranked]) -> Markup {
    let Some(baseline) = ranking.iter().find(|one| one.arm == study.baseline) else { return html! {} };
    let Some(own) = baseline.mean else {
        return html! { p { "The baseline " b { (baseline.name) } " has not finished a run, so nothing is compared yet." } };
    };
    let judged = || {
        ranking.iter().filter_map(|one| {
            let difference = one.difference?;
            Some((one, difference, difference.interval?))
        })
    };
    let better = judged().filter(|(_, _, interval)| interval.low > 0.0).collect::<Vec<_>>();
    let worse = judged().filter(|(_, _, interval)| interval.high < 0.0).collect::<Vec<_>>();
    let unclear = judged().filter(|(_, _, interval)| interval.contains(0.0)).count();
    let names = |list: &[(&Ranked, super::Difference, super::Interval)]| {
        html! {
            @for (place, (one, difference, _)) in list.iter().enumerate() {
                @if place > 0 { ", " }
                b { (one.name) } " (" (points(difference.mean)) " points)"
            }
        }
    };
    html! {
        section.box {
            p {
                "The baseline " b { (baseline.name) } " reaches " (percent(own)) "."
                @if let Some(first) = ranking.first().filter(|first| first.arm != baseline.arm) {
                    @if let (Some(mean), false) = (first.mean, shared(study).is_empty()) { " The highest mean is that of " b { (first.name) } ", " (percent(mean)) "." }
                }
            }
            ul {
                @if !better.is_empty() { li { "Better than the baseline, beyond what chance explains: " (names(&better)) "." } }
                @if !worse.is_empty() { li { "Worse, beyond what chance explains: " (names(&worse)) "." } }
                @if unclear > 0 { li { "Inside the noise: " (count(unclear, "arm")) " whose interval contains 0." } }
                @if better.is_empty() && worse.is_empty() && unclear == 0 {
                    li { "No arm can be held against the baseline yet: that takes finished runs of the same seeds (and folds)." }
                }
            }
        }
    }
}

/// What was paired, in words.
pub(super) fn basis(ranking: &[Ranked]) -> Markup {
    let has =
        |basis: Basis| ranking.iter().any(|one| one.difference.is_some_and(|found| found.basis == basis));
    let pairs = ranking.iter().filter_map(|one| Some(one.difference?.pairs)).min().unwrap_or(0);
    html! {
        @if has(Basis::SeedsAndExamples) {
            p {
                "Paired by seed and by test example: runs of the same seed saw the same examples in the same order, and their \
                 answers to each test example are compared one by one. The bootstrap draws seeds and test examples anew, so \
                 the interval allows for both."
            }
        }
        @if has(Basis::Examples) {
            p {
                "Paired by test example, for a single seed: the interval allows for the choice of test examples, but "
                b { "not" } " for what another seed would have changed. Add seeds before you believe a small difference."
            }
        }
        @if has(Basis::FoldsAndExamples) {
            p {
                "Paired within each fold by seed and by test example: within a fold all runs answered the same ones. The bootstrap \
                 draws folds anew, and within each fold seeds (if there are several) and test examples: the interval covers the \
                 choice of folds, of seeds and of test examples."
            }
        }
        @if has(Basis::ExamplesWithinFolds) {
            p {
                "Paired within each fold by seed and by test example: within a fold all runs answered the same ones. The bootstrap \
                 draws seeds (if there are several) and test examples within each fold: the interval covers their choice, but "
                b { "not" } " what other folds would have changed, for which there are too few."
            }
        }
        @if has(Basis::Seeds) {
            p {
                "Paired by seed, and by fold where there are folds, but not by test example, since not all runs answered the same \
                 ones: the bootstrap draws runs, and \
                 the interval does not allow for the choice of test examples."
            }
        }
        @if has(Basis::Nothing) {
            p { "Some arms have one seed and no answers to the same test examples: for them there is no interval." }
        }
        @if (2..5).contains(&pairs) && (has(Basis::Seeds) || has(Basis::SeedsAndExamples)) {
            p { "With " (pairs) " runs of an arm, intervals come out somewhat too narrow; five or more are better." }
        }
    }
}
