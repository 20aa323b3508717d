//! npy: an array (N, 3 or more) of f32 or f64 in either byte order.

use crate::cloud::Cloud;

/// Bytes before the header's text: magic, version, its length in 2 bytes (version 1) or 4.
const MAGIC: &[u8] = b"\x93NUMPY";

pub(super) fn parse(bytes: &[u8]) -> Result<Cloud, String> {
    let rest = bytes.strip_prefix(MAGIC).ok_or("does not start as an npy file does")?;
    let short = || "ends within its header".to_owned();
    let (len, rest) = match rest {
        [1, _, a, b, rest @ ..] => (usize::from(u16::from_le_bytes([*a, *b])), rest),
        [2 | 3, _, a, b, c, d, rest @ ..] => (u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest),
        [version, _, ..] => return Err(format!("is npy of version {version}, expected 1, 2 or 3")),
        _ => return Err(short()),
    };
    let (header, data) = rest.split_at_checked(len).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text".to_owned())?;
    let value = |key: &str| {
        let behind = header.split_once(&format!("'{key}':")).map(|(_, behind)| behind.trim_start());
        behind.ok_or_else(|| format!("its header has no `{key}`"))
    };
    if !value("fortran_order")?.starts_with("False") {
        return Err("is stored column by column (`fortran_order`), expected row by row".into());
    }
    let descr =
        value("descr")?.strip_prefix('\'').and_then(|text| text.split('\'').next()).unwrap_or_default();
    let number: fn(&[u8]) -> f32 = match descr {
        "<f4" => |b| b.try_into().map_or(f32::NAN, f32::from_le_bytes),
        ">f4" => |b| b.try_into().map_or(f32::NAN, f32::from_be_bytes),
        "<f8" => |b| b.try_into().map_or(f32::NAN, |b| f64::from_le_bytes(b) as f32),
        ">f8" => |b| b.try_into().map_or(f32::NAN, |b| f64::from_be_bytes(b) as f32),
        other => {
            return Err(format!(
                "has entries of type {other:?}, expected \"<f4\", \"<f8\" or their big-endian twins"
            ));
        }
    };
    let size = if descr.ends_with('8') { 8 } else { 4 };
    let shape =
        value("shape")?.strip_prefix('(').and_then(|text| text.split_once(')')).map_or("", |(text, _)| text);
    let sizes: Vec<Option<usize>> = shape
        .split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(|text| text.parse().ok())
        .collect();
    let [Some(points), Some(columns @ 3..)] = sizes[..] else {
        return Err(format!("has shape ({shape}), expected (points, 3 or more columns)"));
    };
    if points == 0 {
        return Err("holds no points".into());
    }
    if points.checked_mul(columns).and_then(|n| n.checked_mul(size)) != Some(data.len()) {
        return Err(format!(
            "promises {points} points of {columns} numbers of {size} bytes, but {} bytes follow",
            data.len()
        ));
    }
    let mut cloud =
        Cloud { columns: (4..=columns).map(|column| column.to_string()).collect(), ..Cloud::default() };
    for (at, row) in data.chunks_exact(columns * size).enumerate() {
        let mut numbers = row.chunks_exact(size).map(number);
        let mut next = || {
            let number = numbers.next()?;
            number.is_finite().then_some(number)
        };
        let wrong = || format!("point {at} holds a number that is not finite");
        cloud.xyz.push([next().ok_or_else(wrong)?, next().ok_or_else(wrong)?, next().ok_or_else(wrong)?]);
        for _ in 3..columns {
            cloud.values.push(next().ok_or_else(wrong)?);
        }
    }
    Ok(cloud)
}
