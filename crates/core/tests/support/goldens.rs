//! Vectors made by the authors' own code (`golden/ops`), through the ops on tensors of any device. Included by path.

use std::{collections::BTreeMap, path::PathBuf};

use ophidian_core::{
    Result,
    authors::{self, Options},
};
use tch::{Device, Kind, Tensor};

type Tensors = BTreeMap<String, Tensor>;

fn shared() -> PathBuf {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared");
    std::env::var("OPHIDIAN_SHARED").map_or_else(|_| beside.into(), PathBuf::from)
}

/// Checks every case of a family, to train and for inference; `out` and `grad` are tolerances relative to the largest value
/// of the tensor. `place` brings tensors to the device, and `within` runs the op there: what it refuses as a matter of the
/// CPU only is passed over.
pub fn check(
    op: &str,
    tolerances: [f64; 2],
    place: impl Fn(&Tensor) -> Tensor,
    within: impl Fn(&dyn Fn() -> Result<Tensors>) -> Result<Tensors>,
) {
    let folder = shared().join("golden/ops").join(op);
    let Ok(index) = std::fs::read(folder.join("index.json")) else {
        let _ = std::io::Write::write_fmt(
            &mut std::io::stderr(),
            format_args!("SKIPPED: no goldens at {}\n", folder.display()),
        );
        return;
    };
    let index: serde_json::Value = serde_json::from_slice(&index).unwrap();
    let (mut compared, mut refused) = (0, 0);
    for case in index["cases"].as_array().unwrap() {
        let file = case["file"].as_str().unwrap();
        let tensors: Tensors = Tensor::read_safetensors(folder.join(file)).unwrap().into_iter().collect();
        let options: Options = case["options"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(k, v)| (k.clone(), v.as_str().map_or_else(|| v.to_string(), str::to_string)))
            .collect();
        for prefixes in [&["in.", "ct."][..], &["in."]] {
            let given = tensors.iter().filter(|(name, _)| prefixes.iter().any(|it| name.starts_with(it)));
            let placed: Tensors = given.map(|(name, tensor)| (name.clone(), place(tensor))).collect();
            match within(&|| authors::run(op, &placed, &options)) {
                Ok(found) => compared += compare(&format!("{op}/{file}"), case, &found, &tensors, tolerances),
                Err(error) if error.to_string().contains("on the CPU only") => refused += 1,
                Err(error) => panic!("{op}/{file}: {error}"),
            }
        }
    }
    assert!(compared > 0, "{op}: nothing compared, {refused} refused");
}

/// How many tensors were compared.
fn compare(
    case: &str,
    told: &serde_json::Value,
    found: &Tensors,
    tensors: &Tensors,
    [out, grad]: [f64; 2],
) -> usize {
    let mut compared = 0;
    for (name, want) in tensors {
        let (key, tolerance) = match (name.strip_prefix("out64."), name.strip_prefix("grad64.")) {
            (Some(name), _) => (format!("out.{name}"), out),
            (_, Some(name)) => (format!("grad.{name}"), grad),
            _ => continue,
        };
        // Without cotangents there are none.
        let got = match found.get(&key) {
            None if key.starts_with("grad.") && !found.keys().any(|key| key.starts_with("grad.")) => continue,
            got => got.unwrap_or_else(|| panic!("{case}: there is no {key}")),
        };
        assert_eq!(got.size(), want.size(), "{case} {name}");
        if want.numel() == 0 {
            continue;
        }
        let got = got.to_device(Device::Cpu).to_kind(Kind::Double);
        let error = (got - want).abs().max().double_value(&[]);
        let scale = want.abs().max().double_value(&[]).max(1e-6);
        // Where numbers cancel, as far as the authors' own code in f32 is from itself in f64.
        let own = told["err32_vs_64"][key.as_str()]["max_abs"].as_f64().unwrap_or(0.0);
        let allowed = (tolerance * scale).max(2.0 * own);
        assert!(error <= allowed, "{case} {name}: {error:.2e} of {scale:.2e}");
        compared += 1;
    }
    compared
}
