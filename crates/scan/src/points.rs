//! Points in space.

use std::fmt;

use rayon::prelude::*;

use crate::geometry::{MAX_STEPS, too_many};
use crate::{Error, Result, key_bits};

/// Points in space, of one sample or of several that are packed one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    xyz: Vec<[f32; 3]>,
    /// Where each sample starts, and the end.
    starts: Vec<usize>,
    /// True if the coordinates are whole numbers that name cells of a grid.
    voxels: bool,
}

impl Points {
    /// The points of one sample.
    ///
    /// # Errors
    /// No point, or a coordinate that is not finite; the first is named.
    pub fn new(xyz: Vec<[f32; 3]>) -> Result<Points> {
        let starts = vec![0, xyz.len()];
        Points::packed(xyz, starts)
    }

    /// Several samples: sample i is the points from `starts[i]` to `starts[i + 1]`.
    ///
    /// # Errors
    /// As [`Points::new`], or bounds that do not ascend from 0 to the number of points.
    pub fn packed(xyz: Vec<[f32; 3]>, starts: Vec<usize>) -> Result<Points> {
        if xyz.is_empty() {
            return Err(Error::Plan("there is no point".into()));
        }
        if xyz.len() > MAX_STEPS {
            return Err(too_many(format!("a set of {} points", xyz.len())));
        }
        if let Some(i) = xyz.par_iter().position_first(|point| point.iter().any(|x| !x.is_finite())) {
            return Err(Error::Plan(format!("point {i} is {:?}, expected finite coordinates", xyz[i])));
        }
        if let Some(i) = starts.windows(2).position(|pair| pair[0] >= pair[1]) {
            return Err(Error::Plan(format!(
                "sample {i} goes from point {} to point {}, expected at least one",
                starts[i],
                starts[i + 1]
            )));
        }
        if starts.first() != Some(&0) || starts.last() != Some(&xyz.len()) {
            return Err(Error::Plan(format!(
                "the samples go from point {:?} to point {:?}, expected 0 to {}",
                starts.first(),
                starts.last(),
                xyz.len()
            )));
        }
        Ok(Points { xyz, starts, voxels: false })
    }

    /// Cells (x, y, z) of a grid, packed as in [`Points::packed`]. Curves take these cells as they are instead of laying
    /// a grid through the points.
    ///
    /// # Errors
    /// As [`Points::packed`], or a cell outside 0..2^21, which is as much as a key holds.
    pub fn voxels(cells: &[[i64; 3]], starts: Vec<usize>) -> Result<Points> {
        let side = 1i64 << key_bits::<3>();
        let outside = |cell: &[i64; 3]| cell.iter().any(|x| !(0..side).contains(x));
        if let Some(i) = cells.par_iter().position_first(outside) {
            let [x, y, z] = cells[i];
            let message =
                format!("voxel {i} is at x {x}, y {y}, z {z}, expected coordinates from 0 to {}", side - 1);
            return Err(Error::Plan(message));
        }
        let xyz = cells.par_iter().map(|cell| cell.map(|x| x as f32)).collect();
        Ok(Points { voxels: true, ..Points::packed(xyz, starts)? })
    }

    /// How many points (L).
    #[allow(clippy::len_without_is_empty)] // there is at least one
    pub fn len(&self) -> usize {
        self.xyz.len()
    }

    /// Coordinates: (L, 3).
    pub fn xyz(&self) -> &[[f32; 3]] {
        &self.xyz
    }

    /// True if the points are cells of a grid; their coordinates are whole numbers of at least 0.
    pub fn are_voxels(&self) -> bool {
        self.voxels
    }

    /// The points of each sample.
    pub fn samples(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }

    /// Where each sample starts, and the end.
    pub fn starts(&self) -> &[usize] {
        &self.starts
    }

    /// Where point `at` lies, as a key: -0 and 0 are one place.
    pub(crate) fn place(&self, at: usize) -> [u32; 3] {
        self.xyz[at].map(|x| (x + 0.0).to_bits())
    }

    /// What the set holds, in numbers; its `Display` says it in words.
    pub fn summary(&self) -> PointsSummary {
        let repeated = self.samples().map(|sample| {
            let mut places: Vec<_> = sample.map(|at| self.place(at)).collect();
            places.par_sort_unstable();
            places.windows(2).filter(|pair| pair[0] == pair[1]).count()
        });
        PointsSummary {
            points: self.len(),
            samples: self.starts.len() - 1,
            repeated: repeated.sum(),
            voxels: self.voxels,
        }
    }
}

/// What a set of points holds: see [`Points::summary`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PointsSummary {
    /// Points (L).
    pub points: usize,
    /// Samples.
    pub samples: usize,
    /// Points at the place of an earlier point of their sample: an order by place keeps these in their numbering.
    pub repeated: usize,
    /// True if the points are cells of a grid.
    pub voxels: bool,
}

impl fmt::Display for PointsSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = if self.voxels { "voxel" } else { "point" };
        write!(f, "{} {what}{}", self.points, if self.points == 1 { "" } else { "s" })?;
        if self.samples > 1 {
            write!(f, " in {} samples", self.samples)?;
        }
        if self.repeated > 0 {
            write!(f, ", {} at the place of an earlier one", self.repeated)?;
        }
        Ok(())
    }
}
