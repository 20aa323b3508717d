//! The ops against vectors made by the authors' own code, where those are at hand.

use std::{collections::BTreeMap, path::PathBuf};

use ophidian_core::authors::{self, Options};
use tch::{Kind, Tensor};

fn shared() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from)
}

/// Checks every case of a family; `out` and `grad` are tolerances relative to the largest value of the tensor.
fn check(op: &str, out: f64, grad: f64) {
    let folder = shared().join("golden/ops").join(op);
    let Ok(index) = std::fs::read(folder.join("index.json")) else {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no goldens at {}\n", folder.display()),
        );
        return;
    };
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let cases = index["cases"].as_array().unwrap();
    let mut compared = 0;
    for case in cases {
        let file = case["file"].as_str().unwrap();
        let tensors: BTreeMap<String, Tensor> =
            Tensor::read_safetensors(folder.join(file)).unwrap().into_iter().collect();
        let options: Options = case["options"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_string)))
            .collect();
        let found = authors::run(op, &tensors, &options).unwrap_or_else(|e| panic!("{op}/{file}: {e}"));
        for (name, want) in &tensors {
            let (got, tolerance) = if let Some(name) = name.strip_prefix("out64.") {
                (&found[&format!("out.{name}")], out)
            } else if let Some(name) = name.strip_prefix("grad64.") {
                (&found[&format!("grad.{name}")], grad)
            } else {
                continue;
            };
            assert_eq!(got.size(), want.size(), "{op}/{file} {name}");
            if want.numel() == 0 {
                continue;
            }
            let error = (got.to_kind(Kind::Double) - want).abs().max().double_value(&[]);
            let scale = want.abs().max().double_value(&[]).max(1e-6);
            // Where numbers cancel, as far as the authors' own code in f32 is from itself in f64.
            let key = name.replacen("64.", ".", 1);
            let own = case["err32_vs_64"][key.as_str()]["max_abs"].as_f64().unwrap_or(0.0);
            let allowed = (tolerance * scale).max(2.0 * own);
            assert!(error <= allowed, "{op}/{file} {name}: {error:.2e} of {scale:.2e}");
            compared += 1;
        }
    }
    assert!(compared > 0, "{op}: nothing compared");
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
