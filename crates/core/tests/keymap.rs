//! Authors' checkpoints into our parameters and back.

use ophidian_core::{
    keymap::{Key, export, gradients, load},
    tensors::Tensors,
};
use tch::{
    Device, Kind, Tensor,
    nn::{Init, VarStore},
};

const F32: (Kind, Device) = (Kind::Float, Device::Cpu);

fn store() -> (VarStore, Vec<Key>) {
    let vs = VarStore::new(Device::Cpu);
    let _ = vs.root().var("stacked", &[2, 6], Init::Const(0.0));
    let _ = vs.root().var("plain", &[2, 3], Init::Const(0.0));
    let _ = vs.root().zeros_no_train("table", &[2]);
    let keys = vec![
        Key::row("a.first", "stacked", 0, &[3, 1, 2]),
        Key::row("a.second", "stacked", 1, &[3, 1, 2]),
        Key::new("b", "plain", &[2, 3]),
        Key::new("c", "table", &[2]),
    ];
    (vs, keys)
}

fn file() -> Tensors {
    let count = |from: i64, shape: &[i64]| {
        let n: i64 = shape.iter().product();
        Tensor::arange_start(from, from + n, F32).reshape(shape)
    };
    [
        ("a.first", count(0, &[3, 1, 2])),
        ("a.second", count(6, &[3, 1, 2]).to_kind(Kind::BFloat16)),
        ("b", count(12, &[2, 3]).to_kind(Kind::Double)),
        ("c", count(18, &[2])),
    ]
    .map(|(name, tensor)| (name.to_owned(), tensor))
    .into()
}

#[test]
fn rows_shapes_and_dtypes_are_mapped() {
    let (vs, keys) = store();
    load(&keys, &file(), &vs.variables()).unwrap();
    let variables = vs.variables();
    assert!(variables["stacked"].equal(&Tensor::arange(12, F32).reshape([2, 6])));
    assert!(variables["plain"].equal(&Tensor::arange_start(12, 18, F32).reshape([2, 3])));
    assert!(variables["table"].equal(&Tensor::arange_start(18, 20, F32)));

    let back = export(&keys, &variables).unwrap();
    assert!(back.iter().all(|(name, tensor)| tensor.equal(&file()[name].to_kind(Kind::Float))));

    variables["stacked"].square().sum(Kind::Float).backward();
    let found = gradients(&keys, &variables).unwrap();
    let names: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(names, ["grad.a.first", "grad.a.second", "grad.b"], "tables are not trained");
    assert!(found["grad.a.second"].equal(&(Tensor::arange_start(6, 12, F32).reshape([3, 1, 2]) * 2.0)));
    assert!(found["grad.b"].equal(&Tensor::zeros([2, 3], F32)), "no gradient arrived");
}

#[test]
fn every_misfit_is_listed_at_once_and_nothing_is_copied() {
    let (vs, keys) = store();
    let mut file = file();
    file.remove("a.second");
    file.insert("b".into(), Tensor::zeros([3, 2], F32));
    file.insert("c".into(), Tensor::zeros([2], (Kind::Int64, Device::Cpu)));
    file.insert("stray".into(), Tensor::zeros([1], F32));
    let error = load(&keys, &file, &vs.variables()).unwrap_err().to_string();
    for part in [
        "`a.second` [3, 1, 2] is missing",
        "`b` has shape [3, 2], expected [2, 3]",
        "`c` has dtype Int64, expected a floating dtype",
        "`stray` [1] is not known to this model",
    ] {
        assert!(error.contains(part), "{part} in {error}");
    }
    assert_eq!(vs.variables()["stacked"].abs().max().double_value(&[]), 0.0);
}
