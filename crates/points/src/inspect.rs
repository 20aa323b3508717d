//! What is in a data set: counts, sizes, statistics of features.

use ophidian_core::{
    Result,
    inspect::{Report, Split},
};

use crate::{
    cloud::Cloud,
    config::Data,
    open::{self, Labelled, Opened, Source},
    solids,
};

/// Reads the data set of `[data]`, which need not be resolved: every file, so that one that is wrong is an error.
///
/// # Errors
/// As [`open::open`].
pub fn inspect(data: Data) -> Result<Report> {
    let data = open::resolve(data)?;
    let Opened { train, eval, eval_from } = open::open(&data)?;
    let (mean, std) = statistics(&clouds(&train), data.features.len());
    let classes = data.class_names.len();
    Ok(Report {
        format: data.format().name().to_owned(),
        unit: "examples",
        sizes_are: "points",
        splits: vec![split("train", &train, classes, &data), split("eval", &eval, classes, &data)],
        classes: data.class_names,
        eval_from,
        set_aside: 0,
        mean,
        std,
    })
}

/// Every cloud or frame of a split.
fn clouds(source: &Source) -> Vec<&Cloud> {
    match source {
        Source::Solids { .. } => Vec::new(),
        Source::Clouds(clouds) => clouds.iter().map(|cloud| &cloud.data).collect(),
        Source::Windows { recordings, .. } => {
            recordings.iter().flat_map(|recording| &recording.data).collect()
        }
    }
}

fn split(name: &'static str, source: &Source, classes: usize, data: &Data) -> Split {
    let mut per_class = vec![0; classes];
    let mut count = |class: u32| {
        if let Some(count) = per_class.get_mut(class as usize) {
            *count += 1;
        }
    };
    let class = |labelled: Option<&Labelled<Vec<Cloud>>>| labelled.map_or(0, |recording| recording.class);
    let files = match source {
        Source::Solids { len, .. } => {
            (0..*len).for_each(|index| count(solids::label(index)));
            0
        }
        Source::Clouds(clouds) => {
            clouds.iter().for_each(|cloud| count(cloud.class));
            clouds.len()
        }
        Source::Windows { recordings, windows } => {
            windows.iter().for_each(|(at, _)| count(class(recordings.get(*at))));
            recordings.len()
        }
    };
    let sizes = clouds(source).into_iter().map(Cloud::len);
    let own = data.points;
    let [least, most] = [sizes.clone().min().unwrap_or(own), sizes.max().unwrap_or(own)];
    let notes = if files > 0 {
        vec![format!("of {files} files, {least} to {most} points")]
    } else {
        vec![format!("of {own} points")]
    };
    let examples = source.examples();
    Split { name, examples, per_class, read: examples, sizes: Vec::new(), notes, problems: Vec::new() }
}

/// Mean and standard deviation of `width` features.
fn statistics(clouds: &[&Cloud], width: usize) -> (Vec<f64>, Vec<f64>) {
    let (mut count, mut sums) = (0.0, vec![[0.0; 2]; width]);
    for cloud in clouds {
        count += cloud.len() as f64;
        for (at, value) in cloud.values.iter().enumerate() {
            if let Some([sum, squares]) = sums.get_mut(at % width.max(1)) {
                *sum += f64::from(*value);
                *squares += f64::from(*value).powi(2);
            }
        }
    }
    let count = f64::max(count, 1.0);
    let deviation = |[sum, squares]: &[f64; 2]| (squares / count - (sum / count).powi(2)).max(0.0).sqrt();
    (sums.iter().map(|[sum, _]| sum / count).collect(), sums.iter().map(deviation).collect())
}
