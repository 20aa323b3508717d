//! The ops at the shapes of published models, through the code of `ophidian bench op`.
#![allow(missing_docs)]

use criterion::{Criterion, criterion_group, criterion_main};
use ophidian_core::bench::{Case, Op, Prepared};
use tch::{Device, Kind};

fn ops(criterion: &mut Criterion) {
    let cases = [
        ("mamba-130m", Op::SelectiveScan, "B1,D1536,L512,N16", "row"),
        ("vim", Op::SelectiveScan, "B64,D384,L197,N16", "bidirectional"),
        ("vmamba", Op::SelectiveScan, "B8,D192,L56x56,N16", "cross"),
        ("vim", Op::CausalConv1d, "B64,D384,L197,W4", "bidirectional"),
    ];
    for (model, op, shape, pattern) in cases {
        let case = Case {
            op,
            shape: shape.parse().expect("a shape"),
            pattern: pattern.parse().expect("a pattern"),
            kind: Kind::Float,
            device: Device::Cpu,
        };
        let prepared = Prepared::new(&case).expect("a case");
        let mut group = criterion.benchmark_group(format!("{op:?}"));
        group.sample_size(10);
        group.bench_function(format!("{model}/forward"), |bencher| {
            bencher.iter(|| tch::no_grad(|| prepared.forward().expect("the op")));
        });
        group.bench_function(format!("{model}/forward+backward"), |bencher| {
            bencher.iter(|| prepared.forward_backward().expect("the op"));
        });
    }
}

criterion_group!(benches, ops);
criterion_main!(benches);
