//! Recordings of a radar as text, as RadHAR has them (Singh et al., mmNets 2019): records of `key: value` lines parted by
//! `---`, one for each point. A point numbered 0 starts a frame.

use super::{lines, number, shown};
use crate::cloud::Cloud;

/// What a record tells of its point beside its place.
const COLUMNS: [&str; 5] = ["range", "velocity", "doppler_bin", "bearing", "intensity"];

/// Bytes that are looked at to tell a recording from a plain list of points.
const LOOK: usize = 1024;

/// Whether `bytes` are such a recording.
pub(super) fn is_radar(bytes: &[u8]) -> bool {
    let start = bytes.get(..LOOK).unwrap_or(bytes);
    start.trim_ascii_start().starts_with(b"header:")
        || start.split(|b| *b == b'\n').any(|l| l.starts_with(b"point_id:"))
}

/// A record so far.
#[derive(Default)]
struct Record {
    /// Line of its first key; 0 before that.
    line: usize,
    point: Option<u64>,
    xyz: [Option<f32>; 3],
    columns: [Option<f32>; COLUMNS.len()],
}

pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Cloud>, String> {
    let (mut frames, mut record) = (Vec::new(), Record::default());
    for line in lines(bytes) {
        let (at, line) = line?;
        if line == "---" {
            std::mem::take(&mut record).finish(&mut frames)?;
            continue;
        }
        let Some((key, value)) = line.split_once(':') else {
            if line.is_empty() {
                continue;
            }
            return Err(format!("line {at} is {}, expected `key: value` or `---`", shown(line)));
        };
        if record.line == 0 {
            record.line = at;
        }
        let value = value.trim();
        let wrong = |error| format!("line {at}: {error}");
        match key {
            "point_id" => {
                let id = value.parse().map_err(|_| {
                    format!(
                        "line {at}: `point_id` is {}, expected a whole number of at least 0",
                        shown(value)
                    )
                })?;
                record.point = Some(id);
            }
            "x" => record.xyz[0] = Some(number(value, key).map_err(wrong)?),
            "y" => record.xyz[1] = Some(number(value, key).map_err(wrong)?),
            "z" => record.xyz[2] = Some(number(value, key).map_err(wrong)?),
            _ => {
                if let Some(column) = COLUMNS.iter().position(|column| *column == key) {
                    record.columns[column] = Some(number(value, key).map_err(wrong)?);
                }
            }
        }
    }
    if record.line > 0 {
        record.finish(&mut frames)?;
    }
    if frames.is_empty() {
        return Err("holds no points".into());
    }
    Ok(frames)
}

impl Record {
    /// Puts the point into its frame.
    fn finish(self, frames: &mut Vec<Cloud>) -> Result<(), String> {
        if self.line == 0 {
            return Ok(());
        }
        let missing = |key: &str| {
            format!("the record that starts in line {} has no `{key}`; is the file cut off?", self.line)
        };
        let id = self.point.ok_or_else(|| missing("point_id"))?;
        let [x, y, z] = self.xyz;
        let xyz =
            [x.ok_or_else(|| missing("x"))?, y.ok_or_else(|| missing("y"))?, z.ok_or_else(|| missing("z"))?];
        if id == 0 || frames.is_empty() {
            frames.push(Cloud { columns: COLUMNS.map(str::to_owned).to_vec(), ..Cloud::default() });
        }
        let Some(frame) = frames.last_mut() else { return Ok(()) };
        frame.xyz.push(xyz);
        for (name, value) in COLUMNS.iter().zip(self.columns) {
            frame.values.push(value.ok_or_else(|| missing(name))?);
        }
        Ok(())
    }
}
