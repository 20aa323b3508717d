//! The sections of the page.

use base64::{Engine, engine::general_purpose::STANDARD};
use maud::{Markup, html};
use ophidian_core::adapter::Walk;
use ophidian_scan::{
    Geometry,
    draw::{View, svg},
};

use super::{
    Ranked, Spread, Study, charts,
    page::{basis, percent, points, signed},
    study::{Point, Run, Status},
    tables::class_names,
};
use crate::progress::{count, duration};

/// Most classes that the table of classes shows.
const CLASSES: usize = 30;
/// Most steps of a scan that is drawn, and most scans: a page of many megabytes opens slowly.
const STEPS: usize = 1 << 13;
const SCANS: usize = 60;

/// Missing numbers.
const NONE: &str = "–";

fn or_none(value: Option<String>) -> String {
    value.unwrap_or_else(|| NONE.to_owned())
}

/// 1234567 as "1.23 M".
fn short(value: f64) -> String {
    let units = [(1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")];
    match units.into_iter().find(|(unit, _)| value.abs() >= *unit) {
        Some((unit, name)) => format!("{}{name}", three(value / unit)),
        None => three(value),
    }
}

/// About three digits.
fn three(value: f64) -> String {
    let digits = if value.abs() < 10.0 { 2 } else { usize::from(value.abs() < 100.0) };
    let text = format!("{value:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

/// "3.1 s (2.9 to 3.4)", without what is in brackets where all are the same.
fn range(spread: Spread, unit: &str) -> String {
    let (low, mean, high) = (three(spread.low), three(spread.mean), three(spread.high));
    if low == high { format!("{mean}{unit}") } else { format!("{mean}{unit} ({low} to {high})") }
}

pub(super) fn ranking(study: &Study, ranking: &[Ranked]) -> Markup {
    let intervals = ranking.iter().filter_map(|one| one.difference);
    let ends = intervals.flat_map(|found| {
        let (low, high) =
            found.interval.map_or((found.mean, found.mean), |interval| (interval.low, interval.high));
        [low.abs(), high.abs(), found.mean.abs()]
    });
    let reach = ends.fold(1e-4, f64::max);
    let compared =
        ranking.iter().filter(|one| one.difference.is_some_and(|found| found.interval.is_some())).count();
    html! {
        section {
            h2 { "Ranking" }
            div.wide {
                table.ranking {
                    thead { tr {
                        th.number { "#" } th { "arm" } th.number { "accuracy" } th { "against the baseline, 95% interval" }
                    } }
                    tbody {
                        @for (place, one) in ranking.iter().enumerate() {
                            tr.baseline[one.arm == study.baseline] {
                                td.number { (place + 1) }
                                td.name { (one.name) }
                                td.number {
                                    (or_none(one.mean.map(percent)))
                                    @if let Some(deviation) = one.deviation { span.aside { " ± " (format!("{:.2}", 100.0 * deviation)) } }
                                    span.aside.block { (count(one.runs, "run")) }
                                }
                                td {
                                    @if one.arm == study.baseline { span.aside { "the baseline" } }
                                    @else if let Some(found) = one.difference {
                                        (points(found.mean)) " points"
                                        @if let Some(interval) = found.interval {
                                            span.aside { " (" (points(interval.low)) " to " (points(interval.high)) ")" }
                                        }
                                        (charts::interval(found.mean, found.interval, reach))
                                    } @else { (NONE) }
                                }
                            }
                        }
                    }
                }
            }
            p.aside {
                "Accuracy is that after the last epoch, the mean over seeds (and folds) ± the standard deviation between runs. (The best \
                 epoch's would be higher, but it was picked by the examples that it is measured on.)"
            }
            details open {
                summary { "How to read the intervals" }
                p {
                    "An interval says where the true difference to the baseline plausibly lies: 95% of such intervals hold it. "
                    b { "An interval that contains 0 means that these runs do not tell the arm and the baseline apart" }
                    ": the difference that was seen may well be chance, and could as well have the other sign. It does not mean \
                     that the two are equal; more seeds or more test examples would narrow it. An interval on one side of 0 \
                     means that chance is an unlikely explanation."
                }
                @if compared > 1 {
                    p {
                        "About one interval in twenty misses the truth by chance alone. There are " (compared) " here, so do not \
                         make much of a single one that only just excludes 0."
                    }
                }
                (basis(ranking))
            }
        }
    }
}

pub(super) fn curves(study: &Study, ranking: &[Ranked]) -> Markup {
    let all: Vec<&[Point]> = study
        .arms
        .iter()
        .flat_map(|arm| &arm.runs)
        .map(|run| run.curve.as_slice())
        .filter(|c| !c.is_empty())
        .collect();
    if all.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Learning curves" }
            p.aside { "Accuracy on the eval split over epochs: each arm's runs over those of all arms." }
            div.panels {
                @for (place, one) in ranking.iter().enumerate() {
                    @let own: Vec<&[Point]> = study.arms.get(one.arm).into_iter().flat_map(|arm| &arm.runs)
                        .map(|run| run.curve.as_slice()).collect();
                    figure {
                        figcaption { (place + 1) " · " b { (one.name) } }
                        (charts::curves(&own, &all))
                    }
                }
            }
        }
    }
}

pub(super) fn costs(study: &Study, ranking: &[Ranked]) -> Markup {
    let dots = |cost: &dyn Fn(&Ranked) -> Option<f64>| -> Vec<charts::Dot> {
        let dot = |(place, one): (usize, &Ranked)| {
            Some(charts::Dot {
                rank: place + 1,
                name: one.name.clone(),
                x: cost(one)?,
                accuracy: one.mean?,
                deviation: one.deviation.unwrap_or(0.0),
                baseline: one.arm == study.baseline,
            })
        };
        ranking.iter().enumerate().filter_map(dot).collect()
    };
    let charts = [
        ("training examples per second", dots(&|one| one.samples_per_second)),
        ("operations of a forward pass", dots(&|one| one.flops)),
        ("most memory (MiB)", dots(&|one| one.peak_memory_mib)),
    ];
    // A cost that all share says nothing.
    let varies = |dots: &[charts::Dot]| dots.windows(2).any(|pair| pair[0].x != pair[1].x);
    html! {
        section {
            h2 { "Accuracy and cost" }
            div.charts {
                @for (what, dots) in charts.iter().filter(|(_, dots)| varies(dots)) {
                    figure { (charts::scatter(dots, what, &short)) }
                }
            }
            p.aside {
                "Numbers are ranks; the bar through a dot is the standard deviation between runs. Speed and memory are those of \
                 this machine, with what else it did at the time."
            }
            div.wide {
                table {
                    thead { tr {
                        th.number { "#" } th { "arm" } th.number { "parameters" } th.number { "FLOPs" } th.number { "steps" } th.number { "training" }
                        th.number { "examples/s" } th.number { "memory" }
                    } }
                    tbody {
                        @for (place, one) in ranking.iter().enumerate() {
                            tr.baseline[one.arm == study.baseline] {
                                td.number { (place + 1) }
                                td.name { (one.name) }
                                td.number { (or_none(one.parameters.map(|count| short(count as f64)))) }
                                td.number { (or_none(one.flops.map(short))) }
                                td.number { (or_none(one.steps.map(|steps| steps.to_string()))) }
                                td.number { (or_none(one.training_seconds.map(|spread| range(spread, " s")))) }
                                td.number {
                                    (or_none(one.samples_per_second.map(short)))
                                    @if let Some(speed) = one.speed.filter(|speed| speed.low < speed.high) {
                                        span.aside.block { (short(speed.low)) " to " (short(speed.high)) }
                                    }
                                }
                                td.number { (or_none(one.peak_memory_mib.map(|mib| format!("{mib:.0} MiB")))) }
                            }
                        }
                    }
                }
            }
            p.aside {
                "FLOPs: operations of a forward pass over one input, a multiply-add being two. A training step takes about three \
                 times that for each example. Training: seconds of a run in training steps, without measuring and saving; the \
                 mean over runs, and the least and most of them. Examples/s: the mean over runs of the median epoch, and below it \
                 the slowest and the fastest epoch of any run: arms whose spans overlap are not told apart in speed."
            }
        }
    }
}

pub(super) fn scans(study: &Study) -> Markup {
    let mut found: Vec<(&Walk, Vec<&str>)> = Vec::new();
    for arm in &study.arms {
        for walk in &arm.description.scans {
            // As many tokens may lie elsewhere: 5x16 are 1x80, in the same order.
            let same = |other: &Walk| {
                other.name == walk.name && other.plan == walk.plan && other.geometry == walk.geometry
            };
            match found.iter_mut().find(|(other, _)| same(other)) {
                Some((_, arms)) if arms.last() == Some(&arm.name.as_str()) => {}
                Some((_, arms)) => arms.push(&arm.name),
                None => found.push((walk, vec![&arm.name])),
            }
        }
    }
    if found.is_empty() {
        return html! {};
    }
    html! {
        section {
            h2 { "Scans" }
            p.aside {
                "The order in which tokens are visited, from blue to orange; a thin line is a jump, a ring a state that starts \
                 afresh."
                @if found.iter().any(|(walk, _)| matches!(walk.geometry, Geometry::Points(_))) {
                    " Orders of points depend on the input: these are of made-up clouds, the same for all arms, with time steps \
                     side by side."
                }
            }
            div.scans {
                @for (walk, arms) in found.iter().take(SCANS) {
                    figure.long[walk.plan.directions() > 2] {
                        @match picture(walk) {
                            Some(source) => img src=(source) alt={ "the scan " (walk.name) } {},
                            None => p.aside { "too large to draw here" },
                        }
                        figcaption {
                            code { (walk.name) }
                            @if arms.len() > 1 || arms.first() != Some(&walk.name.as_str()) {
                                span.aside.block { (arms.join(" · ")) }
                            }
                        }
                    }
                }
            }
            @if found.len() > SCANS { p.aside { (found.len() - SCANS) " more are not drawn." } }
        }
    }
}

/// As an address that holds the picture itself: its ids and styles stay its own.
fn picture(walk: &Walk) -> Option<String> {
    let steps: usize = walk.plan.orders().iter().map(|order| order.len()).sum();
    if steps > STEPS {
        return None;
    }
    let drawing = svg(&walk.plan, &walk.geometry, View::default(), &walk.name).ok()?;
    Some(format!("data:image/svg+xml;base64,{}", STANDARD.encode(drawing)))
}

pub(super) fn classes(study: &Study, ranking: &[Ranked]) -> Markup {
    let names = class_names(study);
    let Some(baseline) = ranking.iter().find(|one| one.arm == study.baseline) else { return html! {} };
    let shown: Vec<&Ranked> = ranking.iter().filter(|one| one.recall.len() == names.len()).collect();
    if names.is_empty() || baseline.recall.len() != names.len() || shown.len() < 2 {
        return html! {};
    }
    let gap = |one: &Ranked, class: usize| one.recall[class] - baseline.recall[class];
    let spread = |class: usize| shown.iter().map(|one| gap(one, class).abs()).fold(0.0, f64::max);
    let mut order: Vec<usize> = (0..names.len()).collect();
    order.sort_by(|a, b| spread(*b).total_cmp(&spread(*a)));
    order.truncate(CLASSES);
    if names.len() <= CLASSES {
        order.sort_unstable();
    }
    let most = order.iter().map(|class| spread(*class)).fold(1e-9, f64::max);
    let shade = |gap: f64| {
        let colour = if gap > 0.0 { "better" } else { "worse" };
        format!(
            "background: color-mix(in srgb, var(--{colour}) {:.0}%, transparent)",
            55.0 * gap.abs() / most
        )
    };
    html! {
        section {
            h2 { "Classes" }
            p.aside {
                "Share of each class that is recognised: for the baseline in per cent, for the others the difference to it in \
                 points, the mean over runs."
                @if names.len() > CLASSES { " Shown are the " (CLASSES) " classes of " (names.len()) " that differ most." }
            }
            div.wide {
                table.classes {
                    thead { tr { th { "arm" } @for class in &order { th.number { (names[*class]) } } } }
                    tbody {
                        tr.baseline {
                            td.name { (baseline.name) }
                            @for class in &order { td.number { (format!("{:.1}%", 100.0 * baseline.recall[*class])) } }
                        }
                        @for one in shown.iter().filter(|one| one.arm != baseline.arm) {
                            tr {
                                td.name { (one.name) }
                                @for class in &order {
                                    td.number style=(shade(gap(one, *class))) { (signed(100.0 * gap(one, *class), 1)) }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn runs(study: &Study) -> Markup {
    let status = |run: &Run| match run.status {
        Status::Finished => "finished",
        Status::Unfinished => "not finished",
        Status::Failed => "failed",
    };
    let folds = study.arms.iter().flat_map(|arm| &arm.runs).any(|run| run.draw.fold.is_some());
    html! {
        section {
            h2 { "Runs" }
            div.wide {
                table {
                    thead { tr {
                        th { "arm" } th.number { "seed" @if folds { ", fold" } } th { "status" } th.number { "accuracy" } th.number { "loss" } th.number { "time" }
                    } }
                    tbody {
                        @for arm in &study.arms {
                            @for run in &arm.runs {
                                tr {
                                    td.name { (arm.name) }
                                    td.number { (run.draw.seed) @if let Some(fold) = &run.draw.fold { ", " (fold) } }
                                    td.failed[run.status == Status::Failed] { (status(run)) }
                                    td.number { (or_none(run.accuracy().map(percent))) }
                                    td.number { (or_none(run.curve.last().map(|point| format!("{:.4}", point.loss)))) }
                                    td.number { (or_none(run.summary.as_ref().map(|summary| duration(summary.seconds)))) }
                                }
                                @if let Some(error) = &run.error { tr { td.error colspan="6" { div { (error) } } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn commands(study: &Study) -> Markup {
    let quoted = |path: &std::path::Path| {
        let text = path.display().to_string();
        if text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c)) {
            text
        } else {
            format!("'{}'", text.replace('\'', r"'\''"))
        }
    };
    let threads =
        study.sweep.as_ref().map(|sweep| format!("OMP_NUM_THREADS={} ", sweep.threads)).unwrap_or_default();
    let by_clock = study
        .arms
        .iter()
        .flat_map(|arm| &arm.runs)
        .any(|run| run.summary.as_ref().is_some_and(|summary| summary.max_seconds.is_some()));
    let lines: Vec<String> = study
        .arms
        .iter()
        .flat_map(|arm| &arm.runs)
        .map(|run| {
            format!("{threads}ophidian train {} --output NEW", quoted(&run.folder.join("config.toml")))
        })
        .collect();
    html! {
        section {
            h2 { "Commands" }
            @if let Some(sweep) = &study.sweep {
                p { "The whole sweep, or what is left of it:" }
                pre { (sweep.command) }
            }
            p {
                "Each run by itself, from its resolved config"
                @if by_clock { " (how many steps fit in the time depends on the machine, so other weights come out)" }
                @else if study.sweep.is_some() { " (on the CPU, with as many threads, the weights are equal to the bit)" }
                ":"
            }
            pre { (lines.join("\n")) }
        }
    }
}
