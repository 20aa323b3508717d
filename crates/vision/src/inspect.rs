//! What is in a data set: counts, sizes, statistics, corrupt files.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use ophidian_core::{
    Result,
    inspect::{Progress, Report, Split, Sums},
};
use rayon::prelude::*;

use crate::{
    config::Data,
    open::{self, Opened},
    pixels::Pixels,
    source::{Labelled, Source},
};

/// Without a full check, about this many image files of a split are read, spread over it.
const LOOK: usize = 1000;

/// Looks into the data set of `[data]`, which need not be resolved. With `check`, every image is read. `progress` is
/// called with the number of images read so far and the number to read, from any thread.
///
/// # Errors
/// The data set cannot be opened. Images that cannot be read are problems in the report.
pub fn inspect(data: Data, check: bool, progress: &Progress<'_>) -> Result<Report> {
    let data = open::resolve(data)?;
    let Opened { train, eval, eval_from, set_aside } = open::open(&data)?;
    let picked = [&train, &eval].map(|set| pick(set, check));
    let total = picked.iter().map(Vec::len).sum();
    let done = AtomicUsize::new(0);
    let tick = || progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
    let channels = data.input_channels()?;
    let (train, sums) = split("train", &train, &picked[0], &data, channels, check, &tick);
    let (eval, _) = split("eval", &eval, &picked[1], &data, channels, check, &tick);
    Ok(Report {
        format: data.format.name().to_owned(),
        unit: if data.format.is_video() { "clips" } else { "images" },
        sizes_are: "height x width x channels",
        classes: data.class_names.clone(),
        splits: vec![train, eval],
        eval_from,
        set_aside,
        mean: sums.iter().map(Sums::mean).collect(),
        std: sums.iter().map(Sums::std).collect(),
    })
}

/// The images to read: all with `check` or where reading is cheap, else some.
fn pick(set: &Labelled, check: bool) -> Vec<u32> {
    let len = set.items.len();
    let cheap = set.source.fixed_size().is_some();
    let step = if check || cheap { 1 } else { len.div_ceil(LOOK).max(1) };
    set.items.iter().step_by(step).map(|(at, _)| *at).collect()
}

fn split(
    name: &'static str,
    set: &Labelled,
    picked: &[u32],
    data: &Data,
    channels: usize,
    check: bool,
    tick: &(dyn Fn() + Sync),
) -> (Split, Vec<Sums>) {
    let mut per_class = vec![0; data.class_names.len()];
    for (_, class) in &set.items {
        per_class[*class as usize] += 1;
    }
    let read = |at: &u32| {
        let seen = look(&*set.source, *at as usize, data.format.is_video(), check, channels);
        tick();
        seen.map_err(|error| error.to_string())
    };
    let seen: Vec<std::result::Result<(String, Vec<Sums>), String>> = picked.par_iter().map(read).collect();
    let (mut sizes, mut problems, mut total) =
        (BTreeMap::<String, usize>::new(), Vec::new(), vec![Sums::default(); channels]);
    for image in seen {
        match image {
            Ok((size, sums)) => {
                *sizes.entry(size).or_default() += 1;
                add(&mut total, &sums);
            }
            Err(problem) => problems.push(problem),
        }
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let split = Split {
        name,
        examples: set.items.len(),
        per_class,
        read: picked.len(),
        sizes,
        notes: Vec::new(),
        problems,
    };
    (split, total)
}

/// The size of an example and the sums of its channels. Of a clip one frame is read, or all with `check`.
fn look(
    source: &dyn Source,
    at: usize,
    clip: bool,
    check: bool,
    channels: usize,
) -> Result<(String, Vec<Sums>)> {
    let (mut count, mut size, mut total) = (0, String::new(), vec![Sums::default(); channels]);
    let mut choose = |len: usize| {
        count = len;
        Ok(if check { (0..len).collect() } else { vec![len / 2] })
    };
    source.clip(at, &mut choose, &mut |image| {
        if size.is_empty() {
            size = format!("{}x{}x{}", image.height, image.width, image.channels);
        }
        add(&mut total, &sums(&image.with_channels(channels)));
        Ok(())
    })?;
    Ok((if clip { format!("{count} frames of {size}") } else { size }, total))
}

fn add(total: &mut [Sums], more: &[Sums]) {
    for (total, more) in total.iter_mut().zip(more) {
        total.add(more);
    }
}

fn sums(image: &Pixels) -> Vec<Sums> {
    let mut sums = vec![Sums::default(); image.channels];
    for (at, value) in image.data.iter().enumerate() {
        sums[at % image.channels].push(f64::from(*value) / 255.0);
    }
    sums
}
