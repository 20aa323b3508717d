//! `ophidian op` and `ophidian block`, as a user types them, on files that are not what they should be.
#![allow(missing_docs)]

use std::{path::Path, process::Command};

use ophidian_core::tensors::{self, Tensors};
use tch::{Device, Kind, Tensor};

fn ones(list: &[(&str, &[i64])]) -> Tensors {
    list.iter()
        .map(|(name, shape)| (name.to_string(), Tensor::ones(*shape, (Kind::Float, Device::Cpu))))
        .collect()
}

/// Exit code and what was said of `ophidian COMMAND… --input IN --output OUT`.
fn run(command: &[&str], input: &Path, output: &Path) -> (Option<i32>, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_ophidian"));
    let run = program.args(command).arg("--input").arg(input).arg("--output").arg(output).output().unwrap();
    (run.status.code(), String::from_utf8_lossy(&run.stderr).into_owned())
}

#[test]
fn mistakes_are_told_and_nothing_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.safetensors"), dir.path().join("out.safetensors"));
    let scan: &[(&str, &[i64])] = &[
        ("in.u", &[1, 2, 3]),
        ("in.delta", &[1, 2, 3]),
        ("in.A", &[2, 4]),
        ("in.B", &[1, 4, 3]),
        ("in.C", &[1, 4, 3]),
    ];
    tensors::write(&input, &ones(scan)).unwrap();
    let fails = |command: &[&str], input: &Path, output: &Path, code: i32, parts: &[&str]| {
        let (found, said) = run(command, input, output);
        assert_eq!(found, Some(code), "{command:?}: {said}");
        assert!(said.starts_with("error: ") && parts.iter().all(|part| said.contains(part)), "{said}");
        assert!(!output.is_file());
    };
    let op = ["op", "selective_scan"];
    fails(&["op", "selective_scn"], &input, &output, 2, &["did you mean `selective_scan`?"]);
    fails(
        &["op", "selective_scan", "--set", "groups=7"],
        &input,
        &output,
        2,
        &["groups = 7, but the 2 channels"],
    );
    fails(&["op", "selective_scan", "--set", "groups"], &input, &output, 2, &["expected KEY=VALUE"]);
    fails(&op, dir.path(), &output, 1, &["is not a regular file"]);
    fails(&op, &dir.path().join("no.safetensors"), &output, 1, &["no.safetensors", "No such file"]);
    fails(&op, &input, &dir.path().join("no/out.safetensors"), 1, &["there is no folder"]);
    let folder = dir.path().join("folder.safetensors");
    std::fs::create_dir(&folder).unwrap();
    fails(&op, &input, &folder, 1, &["is not a regular file; expected the name of one"]);
    fails(&op, &input, &dir.path().join("out.npy"), 2, &["expected a file that ends in .safetensors"]);
    let wrong = dir.path().join("wrong.safetensors");
    tensors::write(&wrong, &ones(&[("in.x", &[1, 2, 3]), ("in.weight", &[2, 0])])).unwrap();
    let parts = ["wrong.safetensors: ", "`in.weight` has shape [2, 0]", "at least one tap"];
    fails(&["op", "causal_conv1d"], &wrong, &output, 1, &parts);
    fails(&["block", "vmamba/ss2d_v05"], &wrong, &output, 1, &["wrong.safetensors: "]);
    fails(&["block", "vmamba/ss2d"], &wrong, &output, 2, &["there is no block `vmamba/ss2d`"]);
    // Mamba-2's fused function: parts that do not go together. P 2, H 2, N 3, one group: z and x 4, C 10, dt 2.
    let fused: &[(&str, &[i64])] = &[
        ("in.zxbcdt", &[1, 5, 16]),
        ("in.conv1d_weight", &[10, 3]),
        ("in.dt_bias", &[2]),
        ("in.A", &[2]),
        ("in.D", &[2]),
        ("in.rmsnorm_weight", &[4]),
        ("in.outproj_weight", &[7, 4]),
    ];
    let command = ["op", "mamba2_split_conv1d_scan", "--set", "headdim=2"];
    tensors::write(&wrong, &ones(fused)).unwrap();
    let (code, told) = run(&command, &wrong, &dir.path().join("right.safetensors"));
    assert_eq!(code, Some(0), "{told}");
    let with = |name: &str, shape: &[i64]| {
        let mut file = ones(fused);
        file.insert(name.into(), Tensor::ones(shape, (Kind::Float, Device::Cpu)));
        tensors::write(&wrong, &file).unwrap();
    };
    with("in.rmsnorm_weight", &[3]);
    fails(&command, &wrong, &output, 1, &["axis 0 of `in.rmsnorm_weight` is 3, expected 4"]);
    with("in.outproj_weight", &[3, 7]);
    fails(&command, &wrong, &output, 1, &["axis 1 of `in.outproj_weight` is 7, expected 4"]);
    with("in.conv1d_weight", &[4, 3]); // no states
    fails(&command, &wrong, &output, 1, &["do not go with 2 heads of 2 channels"]);
    std::fs::write(&wrong, b"PK\x03\x04").unwrap();
    fails(&op, &wrong, &output, 1, &["wrong.safetensors: is no checkpoint of PyTorch"]);
}

#[test]
fn empty_tensors_and_values_that_are_no_numbers_pass_through() {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("in.safetensors"), dir.path().join("out.safetensors"));
    for [b, d, l, n] in [[0, 2, 3, 4], [1, 0, 3, 4], [1, 2, 0, 4], [1, 2, 3, 0], [1, 1, 1, 1]] {
        let mut file = ones(&[
            ("in.u", &[b, d, l]),
            ("in.delta", &[b, d, l]),
            ("in.A", &[d, n]),
            ("in.B", &[b, n, l]),
            ("in.C", &[b, n, l]),
            ("ct.y", &[b, d, l]),
        ]);
        tensors::write(&input, &file).unwrap();
        let (code, said) = run(&["op", "selective_scan"], &input, &output);
        assert_eq!((code, said.as_str()), (Some(0), ""), "{b} {d} {l} {n}");
        assert_eq!(tensors::read(&output).unwrap()["out.y"].size(), [b, d, l]);
        let nan = Tensor::full([b, d, l], f64::NAN, (Kind::Float, Device::Cpu));
        file.insert("in.u".into(), nan);
        tensors::write(&input, &file).unwrap();
        let (code, said) = run(&["op", "selective_scan"], &input, &output);
        assert_eq!((code, said.contains("warning: out.y holds")), (Some(0), b * d * l > 0), "{said}");
    }
}
