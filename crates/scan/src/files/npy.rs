//! Plans as npy: one array (K, T). Written out here because the format is small and its header is not to be trusted.

use super::Raw;
use crate::{Blank, Order, Plan};

const MAGIC: &[u8] = b"\x93NUMPY";

pub(super) fn encode(plan: &Plan) -> Result<Vec<u8>, String> {
    const INSTEAD: &str = "; write .json or .safetensors instead";
    let steps = plan.orders()[0].len();
    if let Some(k) = plan.orders().iter().position(|order| order.len() != steps) {
        let other = plan.orders()[k].len();
        return Err(format!(
            "npy holds one (K, T) array, but order.0 has {steps} steps and order.{k} has {other}{INSTEAD}"
        ));
    }
    if let Some(k) = plan.orders().iter().position(|order| order.resets().contains(&true)) {
        return Err(format!("npy cannot say where the state of order.{k} starts afresh{INSTEAD}"));
    }
    if let Some(k) = plan.orders().iter().position(|order| order.silent().contains(&true)) {
        return Err(format!("npy cannot say which steps of order.{k} are silent{INSTEAD}"));
    }
    let skips = |order: &Order| order.blank() == Blank::Skip && order.blanks() > 0;
    if let Some(k) = plan.orders().iter().position(skips) {
        return Err(format!("npy cannot say that the blank steps of order.{k} are skipped{INSTEAD}"));
    }
    let shape = format!("({}, {steps})", plan.directions());
    let mut header = format!("{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}");
    // Magic, version, length and header end on a multiple of 64 with a line break.
    let padded = (10 + header.len() + 1).next_multiple_of(64);
    header.push_str(&" ".repeat(padded - 10 - header.len() - 1));
    header.push('\n');
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(&[1, 0]);
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    for order in plan.orders() {
        bytes.extend(order.index().iter().flat_map(|&i| i64::from(i).to_le_bytes()));
    }
    Ok(bytes)
}

pub(super) fn decode(bytes: &[u8]) -> Result<Raw, String> {
    let Array { descr, shape, columns_first, data } = Array::of(bytes)?;
    let size = match descr {
        "<i8" => 8,
        "<i4" => 4,
        _ => return Err(format!("its entries are `{descr}`, expected int64 (`<i8`) or int32 (`<i4`)")),
    };
    let (directions, steps) = match shape[..] {
        [steps] => (1, steps),
        [directions, steps] => (directions, steps),
        _ => return Err(format!("its shape is {shape:?}, expected (T,) or (K, T)")),
    };
    let expected = directions.checked_mul(steps).and_then(|n| n.checked_mul(size));
    if expected != Some(data.len()) {
        return Err(format!("its shape {shape:?} does not fit its {} bytes of entries", data.len()));
    }
    let entry = |i: usize| {
        let entry = &data[i * size..(i + 1) * size];
        match entry.try_into() {
            Ok(eight) => i64::from_le_bytes(eight),
            Err(_) => i64::from(i32::from_le_bytes(entry.try_into().unwrap_or_default())),
        }
    };
    let at = |k: usize, t: usize| if columns_first { k + t * directions } else { k * steps + t };
    let order = |k: usize| (0..steps).map(|t| entry(at(k, t))).collect();
    if data.is_empty() {
        return Err(format!("its shape is {shape:?}: no entries"));
    }
    Ok(Raw::of_orders((0..directions).map(order).collect()))
}

/// A npy file taken apart; the shape is what it says, whether or not its entries fit.
pub(super) struct Array<'a> {
    pub(super) descr: &'a str,
    pub(super) shape: Vec<usize>,
    pub(super) columns_first: bool,
    pub(super) data: &'a [u8],
}

impl Array<'_> {
    pub(super) fn of(bytes: &[u8]) -> Result<Array<'_>, String> {
        let (header, data) = split(bytes).ok_or("is not a npy file, or ends within its header")?;
        let field = |key: &str| {
            let at = header.find(&format!("'{key}':"))? + key.len() + 3;
            Some(header[at..].trim_start())
        };
        let missing = |key: &str| format!("its header names no {key}: {}", header.trim_end());
        let descr = field("descr").ok_or_else(|| missing("descr"))?;
        let descr = descr.strip_prefix('\'').and_then(|rest| rest.split('\'').next()).unwrap_or(descr);
        let columns_first =
            field("fortran_order").ok_or_else(|| missing("fortran_order"))?.starts_with("True");
        let shape = field("shape").ok_or_else(|| missing("shape"))?;
        let shape = shape.strip_prefix('(').and_then(|rest| rest.split(')').next()).unwrap_or("?");
        let sizes = shape.split(',').map(str::trim).filter(|s| !s.is_empty()).map(|s| s.parse().ok());
        let shape = sizes.collect::<Option<_>>().ok_or_else(|| format!("its shape is ({shape})"))?;
        Ok(Array { descr, shape, columns_first, data })
    }
}

/// Header text and entries.
fn split(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let rest = bytes.strip_prefix(MAGIC)?;
    let (length, rest) = match rest.first()? {
        1 => (u16::from_le_bytes(rest.get(2..4)?.try_into().ok()?) as usize, &rest[4..]),
        2 | 3 => (u32::from_le_bytes(rest.get(2..6)?.try_into().ok()?) as usize, &rest[6..]),
        _ => return None,
    };
    let (header, data) = rest.split_at_checked(length)?;
    Some((std::str::from_utf8(header).ok()?, data))
}
