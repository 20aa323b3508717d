//! Ops by name, on files that are not what they should be: an error that names the tensor, never a panic.
#![allow(missing_docs)]

use ophidian_core::authors::{Options, run};
use tch::{Device, Kind, Tensor};

type Tensors = std::collections::BTreeMap<String, Tensor>;

fn tensor(shape: &[i64], kind: Kind) -> Tensor {
    Tensor::ones(shape, (kind, Device::Cpu))
}

fn file(tensors: &[(&str, &[i64])]) -> Tensors {
    tensors.iter().map(|(name, shape)| (format!("in.{name}"), tensor(shape, Kind::Float))).collect()
}

fn refused(op: &str, file: &Tensors, options: &[(&str, &str)], expected: &str) {
    let options: Options = options.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let error = run(op, file, &options).unwrap_err().to_string();
    assert!(error.contains(expected) && !error.contains('\n'), "{op}: {error}");
}

#[test]
fn misshaped_inputs_are_named() {
    let scan: &[(&str, &[i64])] =
        &[("u", &[2, 3, 5]), ("delta", &[2, 3, 5]), ("A", &[3, 4]), ("B", &[2, 4, 5]), ("C", &[2, 4, 5])];
    assert!(run("selective_scan", &file(scan), &Options::new()).is_ok());
    let change = |name: &str, shape: &[i64]| {
        let mut file = file(scan);
        file.insert(format!("in.{name}"), tensor(shape, Kind::Float));
        file
    };
    refused("selective_scan", &change("z", &[5]), &[], "`in.z` has shape [5], expected [3] axes");
    refused("selective_scan", &change("B", &[3, 4]), &[("B", "var")], "`in.B` has shape [3, 4]");
    refused(
        "selective_scan",
        &change("A", &[3, 4, 3]),
        &[],
        "`in.A` has shape [3, 4, 3], expected a last axis of 2",
    );
    refused(
        "selective_scan",
        &change("A", &[3, 4, 2]),
        &[],
        "`in.B` has shape [2, 4, 5], expected 10 values",
    );
    refused("selective_scan", &change("q", &[1]), &[], "not known [\"q\"]");
    refused("selective_scan", &file(&scan[1..]), &[], "missing [\"u\"]");
    let conv: &[(&str, &[i64])] = &[("x", &[2, 3, 5]), ("weight", &[3, 4]), ("initial_states", &[])];
    refused("causal_conv1d", &file(conv), &[], "`in.initial_states` has shape []");
    let mut packed = file(&[("x", &[0, 3])]);
    packed.insert("in.cu_seqlens".into(), Tensor::from_slice(&[0i64]));
    refused("causal_conv1d_varlen_states", &packed, &[("state_len", "3")], "must rise from 0 to 0");
    refused("causal_conv1d_varlen_states", &packed, &[("state_len", "1000000000000000")], "state_len");
}

#[test]
fn narrow_complex_pairs_are_widened() {
    let mut narrow: Tensors = file(&[("u", &[1, 3, 2]), ("delta", &[1, 3, 2]), ("A", &[3, 4, 2])]);
    for name in ["in.B", "in.C"] {
        narrow.insert(name.into(), tensor(&[1, 4, 4], Kind::BFloat16));
    }
    assert_eq!(run("selective_scan", &narrow, &Options::new()).unwrap()["out.y"].size(), [1, 3, 2]);
}

#[test]
fn the_caller_s_tensors_are_left_alone() {
    let mut file = file(&[
        ("u", &[1, 3, 2]),
        ("delta", &[1, 3, 2]),
        ("A", &[3, 4]),
        ("B", &[1, 4, 2]),
        ("C", &[1, 4, 2]),
    ]);
    file.insert("ct.y".into(), tensor(&[1, 3, 2], Kind::Float));
    let first = run("selective_scan", &file, &Options::new()).unwrap();
    let second = run("selective_scan", &file, &Options::new()).unwrap();
    assert_eq!(first["grad.u"], second["grad.u"]);
    assert!(!file["in.u"].requires_grad());
}

#[test]
fn complex_and_real_do_not_mix() {
    use ophidian_core::ops::{Merge, Orders, ScanInput, selective_scan};
    let real = |shape: &[i64]| tensor(shape, Kind::Float);
    let complex = |shape: &[i64]| tensor(shape, Kind::ComplexFloat);
    let orders = Orders::identity(2, 1);
    let run = |u: &Tensor, a: &Tensor, b: &Tensor| {
        let delta = &real(&[1, 2, 3]);
        let input = ScanInput {
            u,
            delta,
            a,
            b,
            c: b,
            d: None,
            z: None,
            delta_bias: None,
            delta_softplus: false,
            initial_state: None,
            orders: &orders,
            merge: Merge::Sum,
        };
        selective_scan(&input).map(|_| ()).map_err(|error| error.to_string())
    };
    let (u, a, b) = ([1, 2, 3], [3, 4], [1, 2, 4]);
    assert_eq!(run(&real(&u), &complex(&a), &complex(&b)), Ok(()));
    for (u, a, b, named) in [
        (complex(&u), real(&a), real(&b), "`u`"),
        (real(&u), real(&a), complex(&b), "`B`"),
        (real(&u), complex(&a), real(&b), "`B`"),
        (complex(&u), complex(&a), complex(&b), "`u`"),
    ] {
        let error = run(&u, &a, &b).unwrap_err();
        assert!(error.contains(named), "{error}");
    }
}
