//! From a `[data]` table to clouds in memory. Every file is read and checked here, before any training starts.

use ophidian_core::{Error, Result, rng};
use rand::seq::index;
use rayon::prelude::*;

use crate::{
    cloud::Cloud,
    config::{Choose, Data, Format, Sequence, Short},
    formats::Shape,
    list::{self, Listed, hash_name},
    solids::{self, Stream},
};

/// Where the streams of pools start.
const POOL: u64 = 0x706f_6f6c;

/// Labelled clouds.
pub enum Source {
    /// Made up as they are asked for.
    Solids {
        /// How many.
        len: usize,
        /// Of the generator.
        seed: u64,
        /// Which of its clouds.
        stream: Stream,
    },
    /// One cloud an example.
    Clouds(Vec<Labelled<Cloud>>),
    /// Windows of recordings.
    Windows {
        /// The recordings, frame by frame.
        recordings: Vec<Labelled<Vec<Cloud>>>,
        /// Recording and first frame of each example.
        windows: Vec<(usize, usize)>,
    },
}

/// What a file holds, with its class.
pub struct Labelled<T> {
    /// The file.
    pub name: String,
    /// Its class.
    pub class: u32,
    /// What it holds.
    pub data: T,
}

impl Source {
    /// How many examples.
    pub fn examples(&self) -> usize {
        match self {
            Source::Solids { len, .. } => *len,
            Source::Clouds(clouds) => clouds.len(),
            Source::Windows { windows, .. } => windows.len(),
        }
    }
}

/// Fills in every default. Folders are looked at only where the class names depend on them.
///
/// # Errors
/// [`Error::Config`] naming the key, [`Error::File`] naming the file.
pub fn resolve(mut data: Data) -> Result<Data> {
    if data.format() == Format::Solids {
        let own = solids::CLASSES.map(str::to_owned).to_vec();
        if !data.class_names.is_empty() && data.class_names != own {
            return Err(Error::Config(format!(
                "`data.class_names`: format \"solids\" has its own names ({}); leave the key out",
                own.join(", ")
            )));
        }
        data.class_names = own;
    } else if data.class_names.is_empty() {
        data.class_names = list::find(&data)?.classes;
    }
    Ok(data)
}

/// The splits of a data set.
pub struct Opened {
    /// Trained on.
    pub train: Source,
    /// Measured on.
    pub eval: Source,
    /// Where those come from, in words.
    pub eval_from: &'static str,
}

/// Opens the training and evaluation split of a resolved `data`.
///
/// # Errors
/// [`Error::File`] naming the first file that cannot be read, holds no data of its format, or too little of it.
pub fn open(data: &Data) -> Result<Opened> {
    if data.format() == Format::Solids {
        let set = |len, stream| Source::Solids { len, seed: data.seed, stream };
        let (train, eval) = (set(data.train, Stream::Train), set(data.eval, Stream::Eval));
        return Ok(Opened { train, eval, eval_from: "the generator" });
    }
    let found = list::find(data)?;
    let (train, eval) = (load(data, &found.train)?, load(data, &found.eval)?);
    Ok(Opened { train, eval, eval_from: found.eval_from })
}

/// Reads `files`, as a split of `data`.
///
/// # Errors
/// As [`open`].
pub fn load(data: &Data, files: &[Listed]) -> Result<Source> {
    fn all<T: Send>(
        files: &[Listed],
        read: impl Fn(&Listed) -> Result<T> + Sync,
    ) -> Result<Vec<Labelled<T>>> {
        let one = |file: &Listed| {
            let data = read(file)?;
            Ok(Labelled { name: file.name.clone(), class: file.class, data })
        };
        // Of several errors always the first.
        files.par_iter().map(one).collect::<Vec<Result<_>>>().into_iter().collect()
    }
    let Some(sequence) = &data.sequence else {
        return Ok(Source::Clouds(all(files, |file| cloud(data, file))?));
    };
    let recordings = all(files, |file| frames(data, sequence, file))?;
    let windows = recordings.iter().enumerate().flat_map(|(at, recording)| {
        let last = recording.data.len() - sequence.span();
        (0..=last).step_by(sequence.stride).map(move |start| (at, start))
    });
    Ok(Source::Windows { windows: windows.collect(), recordings })
}

/// The points of a file: at least as many as an example takes, at most `pool`.
fn cloud(data: &Data, file: &Listed) -> Result<Cloud> {
    let mut random = rng::stream(&[data.seed, POOL, hash_name(&file.name)]);
    let cloud = match file.read()? {
        Shape::Mesh(_) if !data.features.is_empty() => {
            return Err(file.wrong(
                "is a mesh, from which points alone are drawn; expected `data.features` to be empty",
            ));
        }
        Shape::Mesh(mesh) => return Ok(mesh.draw(data.pool, &mut random)),
        Shape::Cloud(cloud) => cloud,
        Shape::Frames(_) => {
            return Err(file.wrong(
                "is a recording of frames; expected a mesh or a cloud, or `data.format` = \"frames\"",
            ));
        }
    };
    enough(data, cloud.len(), "").map_err(|reason| file.wrong(reason))?;
    let cloud = cloud.with_columns(&data.features).map_err(|reason| file.wrong(reason))?;
    if cloud.len() <= data.pool {
        return Ok(cloud);
    }
    if data.choose == Choose::First {
        return Ok(cloud.pick(&(0..data.pool).collect::<Vec<_>>()));
    }
    let mut picks = index::sample(&mut random, cloud.len(), data.pool).into_vec();
    picks.sort_unstable();
    Ok(cloud.pick(&picks))
}

fn enough(data: &Data, points: usize, place: &str) -> std::result::Result<(), String> {
    if points >= data.points || data.short == Some(Short::Repeat) {
        return Ok(());
    }
    Err(format!(
        "has {points} points{place}, expected at least {} (`data.points`); take fewer, or set `data.short` to \"repeat\"",
        data.points
    ))
}

/// The frames of a recording, long enough for a window.
fn frames(data: &Data, sequence: &Sequence, file: &Listed) -> Result<Vec<Cloud>> {
    let Shape::Frames(frames) = file.read()? else {
        return Err(file.wrong("is no recording of frames; expected records of `point_id`, `x`, `y`, `z` …"));
    };
    if frames.len() < sequence.span() {
        return Err(file.wrong(format!(
            "has {} frames, expected at least {} (`data.sequence`: {} steps of {})",
            frames.len(),
            sequence.span(),
            sequence.frames,
            sequence.merge
        )));
    }
    for (at, step) in frames.windows(sequence.merge).enumerate() {
        let points = step.iter().map(Cloud::len).sum();
        enough(data, points, &format!(" in the frames from {at} on")).map_err(|reason| file.wrong(reason))?;
    }
    let columns = |frame: Cloud| frame.with_columns(&data.features).map_err(|reason| file.wrong(reason));
    frames.into_iter().map(columns).collect()
}
