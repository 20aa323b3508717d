//! Vectors made by the authors' own code through the ops as they run on a GPU: whole functions, of which the kernels' own
//! tests have the parts.

use ophidian_core::ops::cuda::emulated;

use crate::{emulator::Emulated, goldens};

fn check(op: &str, kernels: &[&str]) {
    let emulator = Emulated::new(4, 2);
    goldens::check(op, [1e-5, 3e-5], |tensor| emulator.copy(tensor), |run| emulated(emulator.clone(), run));
    for kernel in kernels {
        assert!(emulator.tensors() == 0 || emulator.ran(kernel), "{op} did without {kernel}");
    }
}

#[test]
fn selective_state_update() {
    check("selective_state_update", &["selective_scan_step"]);
}

#[test]
fn causal_conv1d_update() {
    check("causal_conv1d_update", &[]);
}

#[test]
fn mamba_inner() {
    check("mamba_inner", &["causal_conv1d_forward", "selective_scan_backward"]);
}

#[test]
fn mamba2_split_conv1d_scan() {
    check("mamba2_split_conv1d_scan", &["causal_conv1d_backward", "ssd_backward", "gated_rms_norm_backward"]);
}
