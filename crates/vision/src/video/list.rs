//! Lists of clips and their classes, as the large video data sets come with: one `path,class` a line.

use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::Path,
    sync::Arc,
};

use ophidian_core::{Error, Result, config};

use super::clips::Clips;
use crate::source::{Found, Labelled, Source};

/// The largest list that is read, in bytes.
const MAX_LIST: u64 = 256 << 20;

/// The largest class number.
const MAX_CLASS: u32 = 1 << 20;

/// A line of a list.
struct Line {
    number: usize,
    clip: u32,
    class: String,
}

/// The clips of `train` and `eval` with their classes. `names` are the classes, if they are known; else they are the
/// numbers up to the largest, if all are numbers, or the names in order.
///
/// # Errors
/// A list cannot be read, or a line of it is wrong, names a clip that is not there, or one twice.
pub fn open(root: &Path, clips: Clips, train: &Path, eval: Option<&Path>, names: &[String]) -> Result<Found> {
    let lists = [Some(train), eval].into_iter().flatten();
    let read = lists.map(|list| Ok((list, lines(list, root, &clips)?))).collect::<Result<Vec<_>>>()?;
    let found: BTreeSet<&str> =
        read.iter().flat_map(|(_, lines)| lines).map(|line| line.class.as_str()).collect();
    let numbers: Option<Vec<u32>> =
        found.iter().map(|class| class.parse().ok().filter(|class| *class <= MAX_CLASS)).collect();
    let classes: Vec<String> = match (names, numbers) {
        ([], Some(numbers)) => {
            (0..=numbers.into_iter().max().unwrap_or(0)).map(|class| class.to_string()).collect()
        }
        ([], None) => found.into_iter().map(str::to_owned).collect(),
        (names, _) => names.to_vec(),
    };
    let places: HashMap<&str, u32> = classes.iter().map(String::as_str).zip(0..).collect();
    let class = |text: &str| {
        let number = || text.parse::<u32>().ok().filter(|class| (*class as usize) < classes.len());
        places.get(text).copied().or_else(number)
    };
    let items = read.iter().map(|(list, lines)| {
        let item = |line: &Line| {
            let reason = || {
                let near = config::nearest(&line.class, classes.iter().map(String::as_str));
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                format!(
                    "line {}: class `{}` is none of the {} in `class_names`{hint}",
                    line.number,
                    line.class,
                    classes.len()
                )
            };
            Ok((line.clip, class(&line.class).ok_or_else(|| Error::file(list, reason()))?))
        };
        lines.iter().map(item).collect::<Result<Vec<_>>>()
    });
    let mut items = items.collect::<Result<Vec<_>>>()?.into_iter();
    let source: Arc<dyn Source> = Arc::new(clips);
    let mut labelled = || Some(Labelled { source: source.clone(), items: items.next()? });
    let (train, eval) = (labelled(), labelled());
    Ok(Found { classes, train, eval, set_aside: 0 })
}

/// Reads a list.
fn lines(list: &Path, root: &Path, clips: &Clips) -> Result<Vec<Line>> {
    let size = fs::metadata(list).map_err(|error| Error::file(list, error))?.len();
    if size > MAX_LIST {
        let reason = format!("has {size} bytes; lists of at most {MAX_LIST} bytes are read");
        return Err(Error::file(list, reason));
    }
    let text = fs::read_to_string(list).map_err(|error| Error::file(list, error))?;
    let places: HashMap<&str, u32> = clips.clips().iter().map(|clip| clip.path.as_str()).zip(0..).collect();
    let (mut found, mut seen) = (Vec::new(), HashMap::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        let wrong = |reason: String| Error::file(list, format!("line {number}: {reason}"));
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let separator = [',', ';', '\t'].into_iter().find(|separator| line.contains(*separator));
        let split = match separator {
            Some(separator) => line.rsplit_once(separator),
            None => line.rsplit_once(' '),
        };
        let Some((path, class)) = split.map(|(path, class)| (path.trim(), class.trim())) else {
            return Err(wrong(format!("`{line}` has no class; expected `path,class`")));
        };
        // A table may have a head.
        if found.is_empty() && matches!(class, "class" | "label") {
            continue;
        }
        if path.is_empty() || class.is_empty() {
            return Err(wrong(format!("`{line}` lacks a path or a class; expected `path,class`")));
        }
        let clip =
            places.get(path.trim_start_matches("./").trim_end_matches('/')).copied().ok_or_else(|| {
                let near = config::nearest(path, places.keys().copied());
                let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                wrong(format!("`{path}` is none of the {} clips in {}{hint}", places.len(), root.display()))
            })?;
        if let Some(first) = seen.insert(clip, number) {
            return Err(wrong(format!("`{path}` was already on line {first}")));
        }
        found.push(Line { number, clip, class: class.to_owned() });
    }
    if found.is_empty() {
        return Err(Error::file(list, "lists no clips, expected one `path,class` a line"));
    }
    Ok(found)
}
