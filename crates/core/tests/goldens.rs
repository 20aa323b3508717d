//! The ops against vectors made by the authors' own code, where those are at hand. On the CPU, or on the device that
//! `OPHIDIAN_TEST_DEVICE` names: `benches/gpu/run.py` carries this test to a GPU.

#[path = "support/goldens.rs"]
mod goldens;

use ophidian_core::{
    device::{Place, send},
    torch::register_cuda,
};
use tch::Device;

/// Where the ops run.
fn device() -> Device {
    let Ok(named) = std::env::var("OPHIDIAN_TEST_DEVICE") else { return Device::Cpu };
    let place: Place = named.parse().unwrap_or_else(|error| panic!("OPHIDIAN_TEST_DEVICE: {error}"));
    register_cuda();
    // Asked for, so that none is a failure.
    place.open().unwrap_or_else(|error| panic!("{error}"))
}

fn check(op: &str, out: f64, grad: f64) {
    let device = device();
    // A GPU sums in another order, and its tensor cores cut off where a processor rounds.
    let times = if device.is_cuda() { 5.0 } else { 1.0 };
    goldens::check(
        op,
        [times * out, times * grad],
        |tensor| send(tensor, device).unwrap_or_else(|error| panic!("{error}")),
        |run| run(),
    );
}

#[test]
fn selective_scan() {
    check("selective_scan", 1e-5, 3e-5);
}

#[test]
fn selective_state_update() {
    check("selective_state_update", 1e-5, 3e-5);
}

#[test]
fn vmamba_selective_scan() {
    check("vmamba_selective_scan", 1e-5, 3e-5);
}

#[test]
fn causal_conv1d() {
    check("causal_conv1d", 1e-5, 3e-5);
}

#[test]
fn causal_conv1d_update() {
    check("causal_conv1d_update", 1e-5, 3e-5);
}

#[test]
fn causal_conv1d_varlen_states() {
    check("causal_conv1d_varlen_states", 0.0, 0.0);
}

#[test]
fn mamba_inner() {
    check("mamba_inner", 1e-5, 3e-5);
}

#[test]
fn ssd_combined() {
    check("ssd_combined", 1e-5, 3e-5);
}

#[test]
fn ssd_chunk_scan_ref() {
    check("ssd_chunk_scan_ref", 1e-5, 3e-5);
}

#[test]
fn ssd_minimal_discrete() {
    check("ssd_minimal_discrete", 1e-5, 3e-5);
}

#[test]
fn rmsnorm_gated() {
    check("rmsnorm_gated", 1e-5, 3e-5);
}

#[test]
fn mamba2_split_conv1d_scan() {
    check("mamba2_split_conv1d_scan", 1e-5, 3e-5);
}
