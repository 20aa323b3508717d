//! Orders many random points and prints how long it takes:
//! `cargo run --release -p ophidian-scan --example order_points [POINTS]`, a million unless told otherwise.

#![allow(clippy::print_stdout)]

use std::sync::Arc;
use std::time::Instant;

use cpu_time::ProcessTime;
use ophidian_scan::{Error, Geometry, Pattern, Points};

fn main() -> Result<(), Error> {
    let count = std::env::args().nth(1).and_then(|count| count.parse().ok()).unwrap_or(1_000_000);
    // Uniform in a cube of 2: at a grid of 0.0005 it is 4096 cells a side, so that few points share a cell.
    let mut state = 1u64;
    let mut uniform = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    let xyz = (0..count).map(|_| [uniform(), uniform(), uniform()]).collect();
    let geometry = Geometry::Points(Arc::new(Points::new(xyz)?));
    for curve in ["hilbert", "z", "xyz"] {
        let pattern: Pattern = format!("serialize({curve}, grid=0.0005)").parse()?;
        let (mut fastest, mut busy) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..5 {
            let (start, processor) = (Instant::now(), ProcessTime::now());
            let plan = pattern.plan(&geometry)?;
            fastest = fastest.min(start.elapsed().as_secs_f64());
            busy = busy.min(processor.elapsed().as_secs_f64());
            assert_eq!(plan.tokens(), count);
        }
        println!(
            "{pattern}: {count} points in {fastest:.3} s, {busy:.3} s on all cores together (least of 5)"
        );
    }
    Ok(())
}
