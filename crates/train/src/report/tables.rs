//! The report as tables and as JSON.

use serde_json::{Value, json};

use super::{Ranked, Run, Study, study::Arm};

type Row = Vec<String>;

/// Names and contents of the tables. What depends on the speed of the machine is in `costs.csv` alone: the others are the
/// same, to the byte, however often the sweep was interrupted.
pub(super) fn csv(study: &Study, ranking: &[Ranked]) -> Vec<(&'static str, String)> {
    let tables = [
        ("ranking.csv", ranked(study, ranking)),
        ("runs.csv", runs(study)),
        ("curves.csv", curves(study)),
        ("classes.csv", classes(study, ranking)),
        ("costs.csv", costs(study)),
    ];
    tables.into_iter().map(|(name, rows)| (name, text(rows))).collect()
}

/// Everything in one object.
pub(super) fn json(study: &Study, ranking: &[Ranked], warnings: &[String]) -> String {
    let arms: Vec<Value> = study.arms.iter().map(arm).collect();
    let value = json!({
        "title": study.title,
        "baseline": study.arms.get(study.baseline).map(|arm| &arm.name),
        "sweep": study.sweep,
        "warnings": warnings,
        "ranking": ranking,
        "classes": class_names(study),
        "arms": arms,
    });
    format!("{value:#}\n")
}

/// Names of the classes, from whichever run has them.
pub(super) fn class_names(study: &Study) -> &[String] {
    let found = study.arms.iter().flat_map(|arm| &arm.runs).find_map(|run| run.evaluation.as_ref());
    found.map_or(&[], |evaluation| &evaluation.classes)
}

fn arm(arm: &Arm) -> Value {
    let run = |run: &Run| {
        json!({
            "seed": run.draw.seed,
            "fold": run.draw.fold,
            "folder": run.folder,
            "status": run.status,
            "error": run.error,
            "accuracy": run.accuracy(),
            "curve": run.curve,
            "summary": run.summary,
            "samples_per_second": run.samples_per_second,
            "peak_memory_mib": run.peak_memory_mib,
        })
    };
    let settings: serde_json::Map<String, Value> =
        arm.settings.iter().map(|(key, value)| (key.clone(), json!(value))).collect();
    let scans: Vec<&String> = arm.description.scans.iter().map(|walk| &walk.name).collect();
    let runs: Vec<Value> = arm.runs.iter().map(run).collect();
    json!({"name": arm.name, "settings": settings, "scans": scans, "runs": runs})
}

fn row(cells: &[&str]) -> Row {
    cells.iter().map(|cell| (*cell).to_owned()).collect()
}

fn some(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn each(study: &Study) -> impl Iterator<Item = (&Arm, &Run)> {
    study.arms.iter().flat_map(|arm| arm.runs.iter().map(move |run| (arm, run)))
}

fn ranked(study: &Study, ranking: &[Ranked]) -> Vec<Row> {
    let mut rows = vec![row(&[
        "rank",
        "arm",
        "runs",
        "accuracy_mean",
        "accuracy_standard_deviation",
        "best_accuracy_mean",
        "difference_to_baseline",
        "interval_low",
        "interval_high",
        "paired_by",
        "paired_runs",
        "parameters",
        "flops",
        "steps",
    ])];
    for (place, one) in ranking.iter().enumerate() {
        let difference = one.difference.as_ref();
        let interval = difference.and_then(|difference| difference.interval);
        let basis = difference.and_then(|found| serde_json::to_value(found.basis).ok());
        let basis = match basis {
            Some(Value::String(basis)) => basis,
            _ if one.arm == study.baseline => "baseline".to_owned(),
            _ => String::new(),
        };
        rows.push(vec![
            (place + 1).to_string(),
            one.name.clone(),
            one.runs.to_string(),
            some(one.mean),
            some(one.deviation),
            some(one.best),
            some(difference.map(|difference| difference.mean)),
            some(interval.map(|interval| interval.low)),
            some(interval.map(|interval| interval.high)),
            basis,
            some(difference.map(|difference| difference.pairs)),
            some(one.parameters),
            some(one.flops),
            some(one.steps),
        ]);
    }
    rows
}

fn runs(study: &Study) -> Vec<Row> {
    let keys: Vec<&str> =
        study.arms.first().into_iter().flat_map(|arm| &arm.settings).map(|(key, _)| key.as_str()).collect();
    let mut rows =
        vec![row(&["arm", "seed", "fold", "status", "accuracy", "loss", "best_accuracy", "epochs", "steps"])];
    rows[0].extend(keys.iter().map(|key| (*key).to_owned()));
    rows[0].push("error".to_owned());
    for (arm, run) in each(study) {
        let summary = run.summary.as_ref();
        let status =
            serde_json::to_value(run.status).ok().and_then(|status| Some(status.as_str()?.to_owned()));
        let last = run.curve.last().filter(|_| run.accuracy().is_some());
        let mut cells = vec![
            arm.name.clone(),
            run.draw.seed.to_string(),
            some(run.draw.fold.as_ref()),
            some(status),
            some(run.accuracy()),
            some(last.map(|point| point.loss)),
            some(summary.and_then(|summary| summary.best_accuracy)),
            some(summary.map(|summary| summary.epochs)),
            some(summary.map(|summary| summary.step)),
        ];
        let value =
            |key: &&str| arm.settings.iter().find(|(known, _)| known == key).map(|(_, value)| value.clone());
        cells.extend(keys.iter().map(|key| some(value(key))));
        cells.push(some(run.error.as_ref()));
        rows.push(cells);
    }
    rows
}

fn curves(study: &Study) -> Vec<Row> {
    let mut rows = vec![row(&["arm", "seed", "fold", "epoch", "loss", "accuracy"])];
    for (arm, run) in each(study) {
        rows.extend(run.curve.iter().map(|point| {
            vec![
                arm.name.clone(),
                run.draw.seed.to_string(),
                some(run.draw.fold.as_ref()),
                point.epoch.to_string(),
                point.loss.to_string(),
                point.accuracy.to_string(),
            ]
        }));
    }
    rows
}

fn classes(study: &Study, ranking: &[Ranked]) -> Vec<Row> {
    let mut rows = vec![row(&["arm", "class", "recall", "difference_to_baseline"])];
    let baseline = ranking.iter().find(|one| one.arm == study.baseline);
    for one in ranking {
        for (number, (class, recall)) in class_names(study).iter().zip(&one.recall).enumerate() {
            let other = baseline.and_then(|baseline| baseline.recall.get(number));
            rows.push(vec![
                one.name.clone(),
                class.clone(),
                recall.to_string(),
                some(other.map(|other| recall - other)),
            ]);
        }
    }
    rows
}

fn costs(study: &Study) -> Vec<Row> {
    let mut rows = vec![row(&[
        "arm",
        "seed",
        "fold",
        "seconds",
        "training_seconds",
        "samples_per_second",
        "samples_per_second_lowest",
        "samples_per_second_highest",
        "peak_memory_mib",
    ])];
    for (arm, run) in each(study) {
        rows.push(vec![
            arm.name.clone(),
            run.draw.seed.to_string(),
            some(run.draw.fold.as_ref()),
            some(run.summary.as_ref().map(|summary| summary.seconds)),
            some(run.summary.as_ref().and_then(|summary| summary.training_seconds)),
            some(run.samples_per_second),
            some(run.speeds.first()),
            some(run.speeds.last()),
            some(run.peak_memory_mib),
        ]);
    }
    rows
}

/// Into memory, which does not fail.
fn text(rows: Vec<Row>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for row in rows {
        let _ = writer.write_record(&row);
    }
    writer.into_inner().ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default()
}
