//! Points in space.

use crate::{Error, Result};

/// Points in space, of one sample or of several that are packed one after another.
#[derive(Debug, Clone, PartialEq)]
pub struct Points {
    xyz: Vec<[f32; 3]>,
    /// Where each sample starts, and the end.
    starts: Vec<usize>,
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
        if let Some(i) = xyz.iter().position(|point| point.iter().any(|x| !x.is_finite())) {
            return Err(Error::Plan(format!("point {i} is {:?}, expected finite coordinates", xyz[i])));
        }
        let ascends = starts.windows(2).all(|pair| pair[0] < pair[1]);
        if starts.first() != Some(&0) || starts.last() != Some(&xyz.len()) || !ascends {
            return Err(Error::Plan(format!("the samples of {} points start at {starts:?}", xyz.len())));
        }
        Ok(Points { xyz, starts })
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

    /// The points of each sample.
    pub fn samples(&self) -> impl Iterator<Item = std::ops::Range<usize>> {
        self.starts.windows(2).map(|pair| pair[0]..pair[1])
    }
}
