//! Video: clips of frames as examples. Which frames of a clip the model sees, where clips come from, and a generator.

mod animation;
pub mod clips;
mod list;
pub mod motions;

use std::{cmp::Ordering, path::PathBuf};

use ophidian_core::{Error, Result, documented, rng::Rng};
use rand::RngExt;
use serde::{Deserialize, Serialize};

/// Most frames that a model is given at once, and most from one to the next.
const MAX_FRAMES: usize = 1024;

documented! {
/// The table `[data.video]`: which frames of a clip the model sees. For the formats "video" and "motions".
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Video {
    /// Frames that the model is given.
    pub frames: usize,
    /// 0 spreads them over the whole clip: one of each of `frames` equal segments, the middle one in evaluation and a
    /// random one in training (TSN, arXiv 1608.00859). 1 and more takes every `stride`-th frame of a stretch, from the
    /// middle of the clip in evaluation and from a random place in training.
    pub stride: usize,
    /// What becomes of a clip that has fewer frames than that takes: "repeat" shows frames more than once (the nearest
    /// ones of a spread, the last one of a stretch), "error" treats the clip as corrupt.
    pub short: Short,
    /// A list of the clips to train on, one `path,class` a line, instead of the folders' names. Paths start at
    /// `data.path`; a class is a name or a number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub train_list: Option<PathBuf>,
    /// The same of the clips to evaluate on. Without it, some of `train_list` are held out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_list: Option<PathBuf>,
}
}

/// What is done with a clip that is too short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Short {
    /// Frames are repeated.
    #[default]
    Repeat,
    /// It counts as corrupt.
    Error,
}

impl Default for Video {
    fn default() -> Self {
        Video { frames: 8, stride: 0, short: Short::Repeat, train_list: None, eval_list: None }
    }
}

impl Video {
    /// # Errors
    /// [`Error::Config`] naming the key whose value is out of range.
    pub fn validate(&self) -> Result<()> {
        if !(1..=MAX_FRAMES).contains(&self.frames) {
            return Err(Error::Config(format!(
                "`data.video.frames` is {}, expected 1 to {MAX_FRAMES}",
                self.frames
            )));
        }
        if self.stride > MAX_FRAMES {
            return Err(Error::Config(format!(
                "`data.video.stride` is {}, expected 0 (spread over the clip) to {MAX_FRAMES}",
                self.stride
            )));
        }
        if self.eval_list.is_some() && self.train_list.is_none() {
            return Err(Error::Config(
                "`data.video.eval_list` needs a `data.video.train_list` too".to_owned(),
            ));
        }
        Ok(())
    }

    /// How many frames a clip must have for no frame to be repeated.
    pub fn span(&self) -> usize {
        if self.stride == 0 { self.frames } else { (self.frames - 1) * self.stride + 1 }
    }

    /// The frames of a clip of `len` that the model sees, ascending; random ones if a stream is given.
    ///
    /// # Errors
    /// The clip has no frame, or too few where that is an error.
    pub fn choose(&self, len: usize, random: Option<&mut Rng>) -> Result<Vec<usize>> {
        if len == 0 {
            return Err(Error::invalid("the clip has no frame"));
        }
        if len < self.span() && self.short == Short::Error {
            return Err(Error::invalid(format!(
                "the clip has {len} frame(s), expected at least {} (`data.video.short` is \"error\")",
                self.span()
            )));
        }
        if self.stride == 0 {
            return Ok(self.spread(len, random));
        }
        let room = len.saturating_sub(self.span());
        let start = random.map_or(room / 2, |random| random.random_range(0..=room));
        Ok((0..self.frames).map(|i| (start + i * self.stride).min(len - 1)).collect())
    }

    fn spread(&self, len: usize, mut random: Option<&mut Rng>) -> Vec<usize> {
        let pick = |i: usize| match &mut random {
            None => (2 * i + 1) * len / (2 * self.frames),
            Some(random) => {
                let (first, end) = (i * len / self.frames, (i + 1) * len / self.frames);
                random.random_range(first..end.max(first + 1))
            }
        };
        (0..self.frames).map(pick).collect()
    }
}

/// The order of names as people read them: `frame_2` before `frame_10`.
pub fn natural(a: &str, b: &str) -> Ordering {
    let (mut rest_a, mut rest_b) = (a, b);
    loop {
        let (run_a, run_b) = (run(rest_a), run(rest_b));
        if run_a.is_empty() || run_b.is_empty() {
            // Names such as `1` and `01` are the same number.
            return rest_a.len().cmp(&rest_b.len()).then_with(|| a.cmp(b));
        }
        let digits = |run: &str| run.starts_with(|c: char| c.is_ascii_digit());
        let order = if digits(run_a) && digits(run_b) {
            let (a, b) = (run_a.trim_start_matches('0'), run_b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            run_a.cmp(run_b)
        };
        if order != Ordering::Equal {
            return order;
        }
        (rest_a, rest_b) = (&rest_a[run_a.len()..], &rest_b[run_b.len()..]);
    }
}

/// The digits at the start of `text`, or what comes before the first.
fn run(text: &str) -> &str {
    let number = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != number).unwrap_or(text.len());
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use ophidian_core::rng;

    #[test]
    fn names_sort_as_people_read_them() {
        let mut names = ["f10.png", "f9.png", "f1.png", "f010.png", "f", "a20", "f1a", "10", "9", ""];
        names.sort_by(|a, b| natural(a, b));
        assert_eq!(names, ["", "9", "10", "a20", "f", "f1.png", "f1a", "f9.png", "f010.png", "f10.png"]);
        let long = format!("f{}", "9".repeat(100));
        assert_eq!(natural("f1", &long), Ordering::Less);
    }

    #[test]
    fn a_spread_takes_one_of_each_segment() {
        let video = Video { frames: 4, ..Video::default() };
        assert_eq!(video.choose(16, None).unwrap(), [2, 6, 10, 14]);
        assert_eq!(video.choose(4, None).unwrap(), [0, 1, 2, 3]);
        assert_eq!(video.choose(2, None).unwrap(), [0, 0, 1, 1]);
        let mut random = rng::stream(&[1]);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..400 {
            let chosen = video.choose(10, Some(&mut random)).unwrap();
            for (i, at) in chosen.iter().enumerate() {
                assert!((i * 10 / 4..(i + 1) * 10 / 4).contains(at), "{chosen:?}");
            }
            seen.extend(chosen);
        }
        assert_eq!(seen.len(), 10);
    }

    #[test]
    fn a_stretch_is_even_and_repeats_the_last_frame_of_a_short_clip() {
        let video = Video { frames: 3, stride: 2, ..Video::default() };
        assert_eq!(video.choose(9, None).unwrap(), [2, 4, 6]);
        assert_eq!(video.choose(4, None).unwrap(), [0, 2, 3]);
        assert_eq!(video.choose(1, None).unwrap(), [0, 0, 0]);
        let mut random = rng::stream(&[1]);
        let starts: std::collections::BTreeSet<usize> =
            (0..200).map(|_| video.choose(9, Some(&mut random)).unwrap()[0]).collect();
        assert_eq!(starts, (0..=4).collect());
        let strict = Video { short: Short::Error, ..video };
        assert!(strict.choose(5, None).is_ok());
        let error = strict.choose(4, None).unwrap_err().to_string();
        assert!(error.contains("4 frame(s), expected at least 5"), "{error}");
        assert!(strict.choose(0, None).is_err());
    }
}
