//! Plans as safetensors.

use std::collections::{BTreeMap, HashMap};

use safetensors::tensor::{Dtype, SafeTensors, TensorView};

use super::{Key, Raw, marked};
use crate::{Blank, Plan};

pub(super) fn encode(plan: &Plan) -> Result<Vec<u8>, String> {
    let mut tensors: BTreeMap<String, Vec<i64>> = BTreeMap::new();
    let mut metadata = HashMap::from([("tokens".to_string(), plan.tokens().to_string())]);
    for (k, order) in plan.orders().iter().enumerate() {
        tensors.insert(format!("order.{k}"), order.index().iter().copied().map(i64::from).collect());
        for (name, marks) in [("resets", order.resets()), ("silent", order.silent())] {
            let steps = marked(marks);
            if !steps.is_empty() {
                tensors.insert(format!("{name}.{k}"), steps);
            }
        }
        if order.blank() == Blank::Skip {
            metadata.insert(format!("blank.{k}"), "skip".to_string());
        }
    }
    let bytes: BTreeMap<&String, (usize, Vec<u8>)> = tensors
        .iter()
        .map(|(name, values)| (name, (values.len(), values.iter().flat_map(|v| v.to_le_bytes()).collect())))
        .collect();
    let views = bytes.iter().map(|(name, (len, bytes))| {
        TensorView::new(Dtype::I64, vec![*len], bytes).map(|view| (name.as_str(), view))
    });
    let views = views.collect::<Result<Vec<_>, _>>().map_err(|error| error.to_string())?;
    safetensors::serialize(views, Some(metadata)).map_err(|error| error.to_string())
}

pub(super) fn decode(bytes: &[u8]) -> Result<Raw, String> {
    let wrong = |error| format!("is not a whole safetensors file: {error}");
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(wrong)?;
    let file = SafeTensors::deserialize(bytes).map_err(wrong)?;
    let mut raw = Raw::default();
    for (name, view) in file.iter() {
        match Key::of(name)? {
            Key::Order(k) => drop(raw.orders.insert(k, integers(name, &view)?)),
            Key::Resets(k) => drop(raw.resets.insert(k, integers(name, &view)?)),
            Key::Silent(k) => drop(raw.silent.insert(k, integers(name, &view)?)),
            Key::Tokens | Key::Blank(_) => return Err(format!("`{name}` is metadata, not a tensor")),
        }
    }
    for (key, text) in header.metadata().iter().flatten() {
        // Whoever wrote the file may have left notes of their own.
        match Key::of(key) {
            Ok(Key::Tokens) => {
                let tokens =
                    text.parse().map_err(|_| format!("metadata tokens is `{text}`, not a number"))?;
                raw.tokens = Some(tokens);
            }
            Ok(Key::Blank(k)) => {
                let blank = match text.as_str() {
                    "zero" => Blank::Zero,
                    "skip" => Blank::Skip,
                    _ => return Err(format!("metadata {key} is `{text}`, expected zero or skip")),
                };
                raw.blanks.insert(k, blank);
            }
            _ => {}
        }
    }
    Ok(raw)
}

fn integers(name: &str, view: &TensorView<'_>) -> Result<Vec<i64>, String> {
    if view.shape().len() != 1 || view.dtype() != Dtype::I64 {
        return Err(format!(
            "tensor {name} is {:?} of shape {:?}, expected I64 of one dimension",
            view.dtype(),
            view.shape()
        ));
    }
    Ok(view
        .data()
        .chunks_exact(8)
        .map(|chunk| i64::from_le_bytes(chunk.try_into().unwrap_or_default()))
        .collect())
}
