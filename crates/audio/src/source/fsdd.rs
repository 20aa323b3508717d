//! The Free Spoken Digit Dataset in its own format: `recordings/{digit}_{speaker}_{index}.wav`.

use std::path::{Path, PathBuf};

use ophidian_core::{Error, Result, files::entries};

use super::{Entry, Found, Role, is_wav, split};

/// Takes of each digit and speaker that the authors test on: those numbered below this.
const TEST_TAKES: u32 = 5;

/// The digits.
pub fn classes() -> Vec<String> {
    (0..10).map(|digit: u32| digit.to_string()).collect()
}

/// A recording, by its name.
struct Take {
    file: PathBuf,
    digit: String,
    speaker: String,
    index: u32,
}

/// The folder of the recordings at or in `path`, if one of them is there.
pub fn find(path: &Path) -> Option<PathBuf> {
    [path.join("recordings"), path.to_path_buf()].into_iter().find(|folder| {
        std::fs::read_dir(folder).is_ok_and(|mut entries| {
            entries.any(|entry| entry.is_ok_and(|entry| take(&entry.path()).is_some()))
        })
    })
}

/// The data set at `path`: its authors' split, or, if a speaker is named, all of that speaker to evaluate on and all
/// others to train on.
///
/// # Errors
/// No recordings, one whose name says neither digit nor speaker, or a speaker who is not there.
pub fn open(path: &Path, speaker: Option<&str>) -> Result<Found> {
    let expected = "expected recordings named like `recordings/7_jackson_32.wav`";
    let Some(folder) = find(path) else {
        return Err(Error::file(path, format!("holds no spoken digits; {expected}")));
    };
    let mut takes = Vec::new();
    for entry in entries(&folder)? {
        let file = entry.map_err(|error| Error::file(&folder, error))?.path();
        if !is_wav(&file) {
            continue;
        }
        match take(&file) {
            Some(take) => takes.push(take),
            None => return Err(Error::file(&file, format!("has no label: {expected}"))),
        }
    }
    takes.sort_unstable_by(|a, b| (&a.digit, &a.speaker, a.index).cmp(&(&b.digit, &b.speaker, b.index)));
    if let Some(speaker) = speaker
        && !takes.iter().any(|take| take.speaker == speaker)
    {
        let mut known: Vec<&str> = takes.iter().map(|take| take.speaker.as_str()).collect();
        known.sort_unstable();
        known.dedup();
        return Err(Error::Config(format!(
            "`data.speaker` is \"{speaker}\", who is not in {}; expected one of {}",
            folder.display(),
            known.join(", ")
        )));
    }
    let entry = |take: Take| {
        let test = match speaker {
            Some(speaker) => take.speaker == speaker,
            None => take.index < TEST_TAKES,
        };
        Entry { file: take.file, class: take.digit, role: Some(if test { Role::Test } else { Role::Train }) }
    };
    split(&folder, takes.into_iter().map(entry).collect(), &classes())
}

/// What the name of `file` says.
fn take(file: &Path) -> Option<Take> {
    if !is_wav(file) {
        return None;
    }
    let name = file.file_stem()?.to_str()?;
    let mut parts = name.split('_');
    let (digit, speaker, index) = (parts.next()?, parts.next()?, parts.next()?);
    let known = digit.len() == 1 && digit.bytes().all(|byte| byte.is_ascii_digit());
    if !known || speaker.is_empty() || parts.next().is_some() {
        return None;
    }
    let index = index.parse().ok()?;
    Some(Take { file: file.to_path_buf(), digit: digit.to_owned(), speaker: speaker.to_owned(), index })
}
