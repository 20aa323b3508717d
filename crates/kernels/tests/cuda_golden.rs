//! The CUDA kernels, executed by the emulator, against vectors made by the authors' own code, where those are at hand.
#![allow(missing_docs)]

mod common;
mod cuda;
mod device;

use common::Compared;
use cuda::SCHEDULES;
use device::{
    Device,
    golden::{OPS, cases, folder},
};

fn check(op: &str) {
    let op = OPS.iter().find(|known| known.name == op).unwrap();
    let folder = folder(op.name);
    let Some(cases) = cases(&folder) else {
        let told = format_args!("SKIPPED: no goldens at {}\n", folder.display());
        let _ = std::io::Write::write_fmt(&mut std::io::stderr(), told);
        return;
    };
    let compared: Vec<_> = cases.iter().filter_map(|case| case.compared(op, Device(SCHEDULES[2]))).collect();
    compared.iter().flatten().for_each(Compared::check);
    assert!(compared.len() >= op.least, "{}: {} cases compared", op.name, compared.len());
}

macro_rules! ops {
    ($($op:ident)*) => { $(
        #[test]
        fn $op() {
            check(stringify!($op));
        }
    )* };
}

ops! {
    selective_scan vmamba_selective_scan causal_conv1d rmsnorm_gated ssd_combined ssd_chunk_scan_ref
    ssd_minimal_discrete
}
