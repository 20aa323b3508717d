//! What a model reads.

use std::fmt;

use ophidian_scan::Geometry;

use crate::{Error, Result};

/// Images, or clips of frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Input {
    /// Channels.
    pub channels: i64,
    /// Frames of a clip; none for images.
    pub frames: Option<i64>,
    /// Rows and columns of pixels.
    pub image: [i64; 2],
}

impl From<[i64; 3]> for Input {
    /// Images of (channels, height, width).
    fn from([channels, height, width]: [i64; 3]) -> Input {
        Input { channels, frames: None, image: [height, width] }
    }
}

impl From<[i64; 4]> for Input {
    /// Clips of (channels, frames, height, width).
    fn from([channels, frames, height, width]: [i64; 4]) -> Input {
        Input { channels, frames: Some(frames), image: [height, width] }
    }
}

impl TryFrom<&[i64]> for Input {
    type Error = Error;

    fn try_from(shape: &[i64]) -> Result<Input> {
        match *shape {
            [channels, height, width] => Ok([channels, height, width].into()),
            [channels, frames, height, width] => Ok([channels, frames, height, width].into()),
            _ => Err(Error::Config(format!(
                "inputs have shape {shape:?}, expected images (channels, height, width) or clips (channels, frames, \
                 height, width)"
            ))),
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sizes: Vec<String> = self.sizes().iter().map(i64::to_string).collect();
        f.write_str(&sizes.join("x"))
    }
}

impl Input {
    /// (channels, height, width), or (channels, frames, height, width).
    pub fn sizes(&self) -> Vec<i64> {
        let mut sizes = vec![self.channels, self.image[0], self.image[1]];
        if let Some(frames) = self.frames {
            sizes.insert(1, frames);
        }
        sizes
    }

    /// "images" or "clips".
    pub fn unit(&self) -> &'static str {
        if self.frames.is_some() { "clips" } else { "images" }
    }

    /// Whether `shape` is that of a batch.
    ///
    /// # Errors
    /// It is not.
    pub fn check(&self, shape: &[i64]) -> Result<()> {
        let sizes = self.sizes();
        if shape.split_first().is_some_and(|(_, rest)| rest == sizes) {
            return Ok(());
        }
        let sizes: Vec<String> = sizes.iter().map(i64::to_string).collect();
        Err(Error::invalid(format!(
            "{} have shape {shape:?}, expected (batch, {})",
            self.unit(),
            sizes.join(", ")
        )))
    }

    /// How many groups of `tubelet` frames there are; none for images.
    pub fn times(&self, tubelet: i64) -> Option<i64> {
        self.frames.map(|frames| frames / tubelet.max(1))
    }
}

/// Where patches lie: on `grid`, at each of `times` if there are any.
pub fn geometry(times: Option<i64>, grid: [i64; 2]) -> Geometry {
    let [height, width] = grid.map(|side| usize::try_from(side).unwrap_or(0));
    match times {
        Some(times) => Geometry::Grid3 { frames: usize::try_from(times).unwrap_or(0), height, width },
        None => Geometry::Grid2 { height, width },
    }
}
