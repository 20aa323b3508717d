//! Clouds as the model sees them: groups of points around centres, normalised.

use ophidian_core::{
    Error, Result,
    data::{Dataset, Sample},
    rng::{self, Rng},
};
use rand::{RngExt, seq::index};

use crate::{
    cloud::Cloud,
    config::{Choose, Data},
    open::Source,
    sample::Columns,
    solids,
};

/// Where the streams of evaluation start.
const EVAL: u64 = 0x6576_616c;

/// A labelled data set of clouds or sequences of clouds.
pub struct PointSet {
    source: Source,
    data: Data,
}

impl PointSet {
    /// The examples of `source`, prepared as the resolved `data` says.
    pub fn new(source: Source, data: Data) -> PointSet {
        PointSet { source, data }
    }

    /// The frames of example `index` and its class.
    fn frames(&self, index: usize) -> Result<(Vec<Cloud>, u32)> {
        let missing = || Error::invalid(format!("there is no example {index} among {}", self.len()));
        match &self.source {
            Source::Solids { len, seed, stream } => {
                if index >= *len {
                    return Err(missing());
                }
                let points = solids::cloud(index, self.data.points, *seed, *stream);
                Ok((vec![Cloud::of(points)], solids::label(index)))
            }
            Source::Clouds(clouds) => {
                let cloud = clouds.get(index).ok_or_else(missing)?;
                Ok((vec![cloud.data.clone()], cloud.class))
            }
            Source::Windows { recordings, windows } => {
                let sequence = self.data.sequence.clone().unwrap_or_default();
                let (at, start) = *windows.get(index).ok_or_else(missing)?;
                let recording = recordings.get(at).ok_or_else(missing)?;
                let window = recording.data.get(start..start + sequence.span()).ok_or_else(missing)?;
                let together = |step: &[Cloud]| {
                    let mut cloud = Cloud::default();
                    step.iter().for_each(|frame| cloud.append(frame));
                    cloud
                };
                Ok((window.chunks(sequence.merge).map(together).collect(), recording.class))
            }
        }
    }

    /// Which points of a cloud are taken.
    fn choose(&self, cloud: &Cloud, random: &mut Rng) -> Vec<usize> {
        let (have, want) = (cloud.len(), self.data.points);
        if have == 0 {
            return Vec::new();
        }
        if have <= want {
            let more = match self.data.choose {
                Choose::Random => (have..want).map(|_| random.random_range(0..have)).collect(),
                _ => (have..want).map(|at| at % have).collect::<Vec<_>>(),
            };
            return (0..have).chain(more).collect();
        }
        match self.data.choose {
            Choose::Random => index::sample(random, have, want).into_vec(),
            Choose::Farthest => Columns::new(&cloud.xyz).farthest(want, 0),
            Choose::First => (0..want).collect(),
        }
    }
}

impl Dataset for PointSet {
    fn len(&self) -> usize {
        self.source.examples()
    }

    fn input_shape(&self) -> Vec<i64> {
        self.data.shape().into_iter().map(|side| side as i64).collect()
    }

    fn classes(&self) -> &[String] {
        &self.data.class_names
    }

    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> Result<Sample> {
        let (clouds, class) = self.frames(index)?;
        let data = &self.data;
        // What evaluation draws, it draws the same way every time.
        let mut own = rng::stream(&[data.seed, EVAL, index as u64]);
        let training = augment.is_some();
        let random = augment.unwrap_or(&mut own);
        let width = data.features.len();
        let (mut frames, mut all) = (Vec::new(), Vec::new());
        for cloud in &clouds {
            let cloud = cloud.pick(&self.choose(cloud, random));
            all.extend_from_slice(&cloud.xyz);
            let mut values = cloud.values;
            for (at, value) in values.iter_mut().enumerate() {
                let of = |list: &[f64], default| list.get(at % width.max(1)).copied().unwrap_or(default);
                let normal = (f64::from(*value) - of(&data.feature_mean, 0.0)) / of(&data.feature_std, 1.0);
                *value = normal as f32;
            }
            frames.push((cloud.xyz, values));
        }
        data.normalise.apply(&mut all);
        let mut rest = &all[..];
        for (points, _) in &mut frames {
            let (mine, others) = rest.split_at(points.len().min(rest.len()));
            points.copy_from_slice(mine);
            rest = others;
        }
        if training {
            data.augment.apply(&mut frames, width, random);
        }
        let mut input = Vec::with_capacity(data.shape().iter().product());
        for (points, values) in &frames {
            group(points, values, width, [data.groups, data.group_size], &mut input);
        }
        if let Some(value) = input.iter().find(|value| !value.is_finite()) {
            return Err(Error::invalid(format!(
                "{}: an input value is {value}; its numbers are too large, expected \"sphere\" for `data.normalise` or \
                 smaller ones",
                self.name_of(index)
            )));
        }
        Ok(Sample { input, label: i64::from(class) })
    }

    fn name_of(&self, index: usize) -> String {
        let name = match &self.source {
            Source::Solids { .. } => Some(format!("solids #{index}")),
            Source::Clouds(clouds) => clouds.get(index).map(|cloud| cloud.name.clone()),
            Source::Windows { recordings, windows } => windows.get(index).and_then(|(at, start)| {
                let span = self.data.sequence.as_ref().map_or(0, |sequence| sequence.span());
                Some(format!("{} frames {start} to {}", recordings.get(*at)?.name, start + span - 1))
            }),
        };
        name.unwrap_or_else(|| format!("#{index}"))
    }
}

/// Appends `groups` groups of `size` points and their centres to `input`: for each the centre as it is, then its points,
/// nearest first, relative to it; behind each point its `width` features.
pub fn group(
    points: &[[f32; 3]],
    values: &[f32],
    width: usize,
    [groups, size]: [usize; 2],
    input: &mut Vec<f32>,
) {
    let mut columns = Columns::new(points);
    let mut found = Vec::with_capacity(size + 1);
    let feature = |at: usize| values.get(at * width..(at + 1) * width).unwrap_or_default();
    for centre in columns.farthest(groups, 0) {
        let Some(&[x, y, z]) = points.get(centre) else { continue };
        input.extend([x, y, z]);
        input.extend(feature(centre));
        columns.nearest([x, y, z], size, &mut found);
        for (_, at) in &found {
            let point = points.get(*at).copied().unwrap_or([x, y, z]);
            input.extend([point[0] - x, point[1] - y, point[2] - z]);
            input.extend(feature(*at));
        }
    }
}
