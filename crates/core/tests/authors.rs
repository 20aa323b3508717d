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
    let scan_refuses = |name: &str, shape: &[i64], options: &[(&str, &str)], expected: &str| {
        refused("selective_scan", &change(name, shape), options, expected);
    };
    scan_refuses("z", &[5], &[], "`in.z` has shape [5], expected [2, 3, 5] (B, D, L) by `in.u`");
    scan_refuses("delta", &[2, 5, 3], &[], "`in.delta` has shape [2, 5, 3], expected [2, 3, 5] (B, D, L)");
    scan_refuses("A", &[4, 3], &[], "`in.A` has shape [4, 3], expected [3, N] (D, N) by `in.u`");
    let expected = "`in.B` has shape [2, 4, 6], expected [2, 4, 5] (B, N, L) by `in.A`, `in.u`";
    scan_refuses("B", &[2, 4, 6], &[], expected);
    scan_refuses("C", &[2, 1, 4, 6], &[], "expected [2, G, 4, 5] (B, G, N, L)");
    scan_refuses(
        "C",
        &[2, 2, 4, 5],
        &[],
        "`in.C` [2, 2, 4, 5] has 2 groups, which do not divide the 3 of D in `in.u`",
    );
    scan_refuses("C", &[2, 0, 4, 5], &[], "has 0 groups");
    scan_refuses(
        "B",
        &[3, 4],
        &[("B", "var")],
        "`in.B` has shape [3, 4], expected [2, 4, 5] (B, N, L) or [2, G, 4, 5]",
    );
    scan_refuses("A", &[3, 4, 3], &[], "`in.A` has shape [3, 4, 3], expected [3, N, 2] (D, N, 2)");
    scan_refuses(
        "A",
        &[3, 4, 2],
        &[],
        "`in.B` has shape [2, 4, 5], expected [2, 4, 10] (B, N, 2L) or [3, 4, 2] (D, N, 2)",
    );
    scan_refuses("q", &[1], &[], "not known [\"q\"]");
    refused("selective_scan", &file(&scan[1..]), &[], "missing [\"u\"]");
    let mut whole = file(scan);
    whole.insert("in.u".into(), tensor(&[2, 3, 5], Kind::Int64));
    refused("selective_scan", &whole, &[], "`in.u` has dtype Int64, expected floats");
    let mut cotangent = file(scan);
    cotangent.insert("ct.y".into(), tensor(&[2, 5, 3], Kind::Float));
    refused(
        "selective_scan",
        &cotangent,
        &[],
        "`ct.y` has shape [2, 5, 3], expected that of the output, [2, 3, 5]",
    );
    let conv: &[(&str, &[i64])] = &[("x", &[2, 3, 5]), ("weight", &[3, 4]), ("initial_states", &[])];
    refused(
        "causal_conv1d",
        &file(conv),
        &[],
        "`in.initial_states` has shape [], expected [2, 3, 3] (B, D, W-1)",
    );
    let mut packed = file(&[("x", &[0, 3])]);
    packed.insert("in.cu_seqlens".into(), Tensor::from_slice(&[0i64]));
    refused("causal_conv1d_varlen_states", &packed, &[("state_len", "3")], "must rise from 0 to 0");
    refused("causal_conv1d_varlen_states", &packed, &[("state_len", "1000000000000000")], "state_len");
    packed.insert("in.cu_seqlens".into(), Tensor::zeros([1 << 20], (Kind::Int64, Device::Cpu)));
    refused(
        "causal_conv1d_varlen_states",
        &packed,
        &[("state_len", "1048576")],
        "more than 2147483648 values",
    );
    let step: &[(&str, &[i64])] = &[
        ("state", &[2, 4, 3, 5]),
        ("x", &[2, 4, 3]),
        ("dt", &[2, 4, 3]),
        ("A", &[4, 3, 5]),
        ("B", &[2, 3, 5]),
        ("C", &[2, 5]),
    ];
    refused(
        "selective_state_update",
        &file(step),
        &[],
        "`in.B` [2, 3, 5] has 3 groups, which do not divide the 4 of H in `in.state`",
    );
    let mut cached = file(&[("x", &[2, 3]), ("conv_state", &[5, 3, 4]), ("weight", &[3, 4])]);
    refused(
        "causal_conv1d_update",
        &cached,
        &[],
        "`in.conv_state` has shape [5, 3, 4], expected [2, 3, S] (B, D, S)",
    );
    cached.insert("in.conv_state_indices".into(), Tensor::from_slice(&[3i64, 3]));
    refused("causal_conv1d_update", &cached, &[], "gives row 3 of `in.conv_state` to two samples");
}

#[test]
fn options_that_contradict_the_tensors_are_refused() {
    let scan: &[(&str, &[i64])] = &[
        ("u", &[2, 4, 5]),
        ("delta", &[2, 4, 5]),
        ("A", &[4, 3]),
        ("B", &[2, 2, 3, 5]),
        ("C", &[2, 3, 5]),
        ("D", &[4]),
    ];
    let scan = file(scan);
    for (key, value, expected) in [
        ("groups", "7", "groups = 7, but B and C have 2"),
        ("has_z", "true", "has_z = true, but `in.z` is missing"),
        ("has_D", "false", "has_D = false, but `in.D` is in the file"),
        ("complex_A", "True", "complex_A = True, but the tensors are `in.A` [4, 3]"),
        ("delta_softplus", "maybe", "delta_softplus = maybe, expected true or false"),
        ("length", "4", "length = 4, but the tensors say 5"),
        ("dtype", "float64", "dtype = float64, but the tensors are float32"),
        ("B", "const", "`in.B` has shape [2, 2, 3, 5], expected [4, 3] (D, N)"),
        ("C", "group4", "`in.C` has shape [2, 3, 5], expected [2, 2, 3, 5] (B, G, N, L)"),
        ("C", "vague", "C = vague, expected const, var, var3 or group4"),
        ("width", "4", "selective_scan has no option `width`"),
        ("delta_sofplus", "true", "did you mean `delta_softplus`?"),
    ] {
        refused("selective_scan", &scan, &[(key, value)], expected);
    }
    let said = [("groups", "2"), ("has_D", "True"), ("complex_A", "false"), ("return_last_state", "false")];
    let said: Options = said.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect();
    let found = run("selective_scan", &scan, &said).unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["out.y"], "the state was not wanted");
    let conv = file(&[("x", &[2, 3, 5]), ("weight", &[3, 4])]);
    refused("causal_conv1d", &conv, &[("width", "3")], "width = 3, but the tensors say 4");
    refused(
        "causal_conv1d",
        &conv,
        &[("activation", "gelu")],
        "activation = gelu, expected silu, swish or none",
    );
    let one =
        file(&[("u", &[2, 4, 5]), ("delta", &[2, 4, 5]), ("A", &[4, 3]), ("B", &[2, 3, 5]), ("C", &[4, 3])]);
    for groups in ["1", "2", "4"] {
        let options = Options::from([("groups".to_string(), groups.to_string())]);
        assert!(run("selective_scan", &one, &options).is_ok(), "one group serves {groups}");
    }
    refused("selective_scan", &one, &[("groups", "7")], "the 4 channels do not divide into that many");
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
