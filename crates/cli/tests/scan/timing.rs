//! `ophidian bench scans`: what it times, and for how long.

use std::process::{Command, Output};

use serde_json::Value;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_ophidian")).args(["bench", "scans"]).args(arguments).output().unwrap()
}

/// The rows of a run that must succeed, and what it notes.
fn timed(arguments: &[&str]) -> (Vec<Value>, String) {
    let run = bench(&[arguments, &["--json"]].concat());
    let notes = String::from_utf8(run.stderr).unwrap();
    assert_eq!(run.status.code(), Some(0), "{notes}");
    let rows = String::from_utf8(run.stdout).unwrap();
    (rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect(), notes)
}

#[test]
fn every_published_scan_is_timed() {
    let sizes = ["--batch", "1", "--channels", "3", "--states", "1", "--points", "24"];
    let shapes = ["--shape", "4x4", "--shape", "3x4x4", "--shape", "12", "--shape", "2x4x4"];
    let once = ["--runs", "1", "--passes", "1", "--most-passes", "1"];
    let (rows, notes) = timed(&[&sizes[..], &shapes, &once].concat());
    assert!(!notes.contains("left out"), "{notes}");
    let named: Vec<&str> = rows.iter().map(|row| row["pattern"].as_str().unwrap()).collect();
    assert_eq!(named.len(), ophidian_scan::published().len());
    for name in ["grootv/treescan", "grootl/block", "defmamba/deform_path", "mambairv2/semantic_sort"] {
        assert!(named.contains(&name), "{name}");
    }
}

#[test]
fn a_scan_is_timed_until_its_ratio_is_known() {
    // Rounds of a few microseconds are never known to a millionth, and always to a hundredfold.
    for (passes, rounds) in [(["2", "1e-6", "5"], 10), (["3", "100", "5"], 6), (["3", "1e-6", "1"], 6)] {
        let [least, precision, most] = passes;
        let passes = ["--passes", least, "--precision", precision, "--most-passes", most];
        let (rows, _) = timed(&[&["row", "column", "--shape", "3x4", "--runs", "2"][..], &passes].concat());
        assert_eq!(rows.iter().map(|row| &row["pattern"]).collect::<Vec<_>>(), ["row", "column"]);
        for row in rows {
            assert_eq!(row["rounds"], rounds, "{passes:?}");
            for ratio in [&row["forward_ratio"], &row["both_ratio"]] {
                let [low, median, high] = [0, 1, 2].map(|at| ratio[at].as_f64().unwrap());
                assert!(low <= median && median <= high, "{ratio}");
                let error = 0.929 * (high - low) / median / f64::from(rounds).sqrt();
                assert!(row["error"].as_f64().unwrap() >= error, "{row}");
            }
        }
    }
}

#[test]
fn a_precision_that_nothing_meets_is_refused() {
    for precision in ["0", "-1", "NaN"] {
        let run = bench(&["row", &format!("--precision={precision}")]);
        assert_eq!(run.status.code(), Some(2));
        assert!(String::from_utf8_lossy(&run.stderr).contains("expected a share above 0"));
    }
}
