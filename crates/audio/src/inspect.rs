//! What is in a data set: counts, formats, lengths, statistics, files that cannot be read.

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
    dataset::Prepare,
    open::{self, Opened},
    source::{Labelled, Source},
    wav,
};

/// Without a full check, about this many clips of a split are read, spread over it.
const LOOK: usize = 1000;

/// What was seen of a clip.
struct Seen {
    format: String,
    seconds: f64,
    sums: Sums,
}

/// Looks into the data set of `[data]`, which need not be resolved. With `check`, every clip is read. Mean and standard
/// deviation are those of the features before normalisation, of what clips there are and not of what stands behind them.
///
/// # Errors
/// The data set cannot be opened. Clips that cannot be read are problems in the report.
pub fn inspect(data: Data, check: bool, progress: &Progress<'_>) -> Result<Report> {
    let data = open::resolve(data)?;
    let prepare = Prepare::new(&data)?;
    let Opened { train, eval, eval_from, set_aside } = open::splits(&data)?;
    let pick = |set: &Labelled| -> Vec<u32> {
        let step = if check { 1 } else { set.items.len().div_ceil(LOOK).max(1) };
        set.items.iter().step_by(step).map(|(at, _)| *at).collect()
    };
    let picked = [pick(&train), pick(&eval)];
    let total = picked.iter().map(Vec::len).sum();
    let done = AtomicUsize::new(0);
    let look = |source: &Source, at: u32| {
        let seen = look(source, at as usize, &prepare).map_err(|error| error.to_string());
        progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        seen
    };
    let (train, sums) = split("train", &train, &picked[0], &data, look);
    let (eval, _) = split("eval", &eval, &picked[1], &data, look);
    Ok(Report {
        format: data.format.name().to_owned(),
        unit: "clips",
        sizes_are: "samples a second, channels, bits",
        classes: data.class_names.clone(),
        splits: vec![train, eval],
        eval_from,
        set_aside,
        mean: vec![sums.mean()],
        std: vec![sums.std()],
    })
}

fn split(
    name: &'static str,
    set: &Labelled,
    picked: &[u32],
    data: &Data,
    look: impl Fn(&Source, u32) -> std::result::Result<Seen, String> + Sync,
) -> (Split, Sums) {
    let mut per_class = vec![0; data.class_names.len()];
    for (_, class) in &set.items {
        if let Some(count) = per_class.get_mut(*class as usize) {
            *count += 1;
        }
    }
    // In the order of the clips: sums do not depend on the threads.
    let seen: Vec<std::result::Result<Seen, String>> =
        picked.par_iter().map(|at| look(&set.source, *at)).collect();
    let (mut sizes, mut problems, mut sums) = (BTreeMap::<String, usize>::new(), Vec::new(), Sums::default());
    let (mut lengths, mut least, mut most) = (Sums::default(), f64::MAX, 0f64);
    for clip in seen {
        match clip {
            Ok(clip) => {
                *sizes.entry(clip.format).or_default() += 1;
                sums.add(&clip.sums);
                lengths.push(clip.seconds);
                (least, most) = (least.min(clip.seconds), most.max(clip.seconds));
            }
            Err(problem) => problems.push(problem),
        }
    }
    let mut sizes: Vec<_> = sizes.into_iter().collect();
    sizes.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let length = format!("{least:.2} to {most:.2} seconds, {:.2} on average", lengths.mean());
    let notes = if sizes.is_empty() { Vec::new() } else { vec![length] };
    let examples = set.items.len();
    (Split { name, examples, per_class, read: picked.len(), sizes, notes, problems }, sums)
}

fn look(source: &Source, at: usize, prepare: &Prepare) -> Result<Seen> {
    let wave = source.wave(at)?;
    let (rate, channels) = (wave.rate, wave.channels.len());
    let seconds = wave.channels.first().map_or(0, Vec::len) as f64 / f64::from(rate);
    let bits = match source {
        Source::Files(files) => match files.get(at).map(|file| wav::header(file)).transpose()? {
            Some(header) if header.float => format!("{} bits of float", header.bits),
            Some(header) => format!("{} bits", header.bits),
            None => String::new(),
        },
        Source::Tones(_) => "generated".to_owned(),
    };
    let (values, _) = prepare.features(wave, &source.name_of(at), None)?;
    let mut sums = Sums::default();
    values.iter().for_each(|value| sums.push(f64::from(*value)));
    Ok(Seen { format: format!("{rate} Hz, {channels}, {bits}"), seconds, sums })
}
