//! Which files a data set is made of, without reading them: splits and classes from folders, zips and lists.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use ophidian_core::{Error, Result, files::entries, rng};

use crate::{
    config::{Data, Format},
    formats::{self, Archive, ENDINGS, Kind, Shape},
};

/// Deepest folders that are looked into.
const MAX_DEPTH: usize = 16;

/// Largest list of files.
const MAX_LIST: u64 = 1 << 28;

/// A file.
#[derive(Clone)]
pub struct Listed {
    /// For messages and tables of predictions.
    pub name: String,
    /// Index of its class; 0 where there are none.
    pub class: u32,
    place: Place,
}

#[derive(Clone)]
enum Place {
    File(PathBuf),
    Packed(Arc<Archive>, String),
}

impl Listed {
    /// What it holds.
    ///
    /// # Errors
    /// [`Error::File`] naming it.
    pub fn read(&self) -> Result<Shape> {
        match &self.place {
            Place::File(path) => formats::read(path),
            Place::Packed(archive, name) => {
                let bytes = archive.read(name)?;
                formats::parse(name, &bytes).map_err(|reason| self.wrong(reason))
            }
        }
    }

    /// An error about it.
    pub fn wrong(&self, reason: impl ToString) -> Error {
        match &self.place {
            Place::File(path) => Error::file(path, reason),
            Place::Packed(archive, name) => Error::file(archive.path().join(name), reason),
        }
    }
}

/// Where files to evaluate on come from, if nothing else is said.
const SPLIT: &str = "the split of the data set";

/// The files of a data set.
pub struct Found {
    /// Class names, in the order of their labels.
    pub classes: Vec<String>,
    /// To train on, or all where there is no split.
    pub train: Vec<Listed>,
    /// To evaluate on: validation if there is one, else test.
    pub eval: Vec<Listed>,
    /// Where those come from, in words.
    pub eval_from: &'static str,
}

/// What a folder is for, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Role {
    Train,
    Validation,
    Test,
}

impl Role {
    fn of(name: &str) -> Option<Role> {
        match name.to_ascii_lowercase().as_str() {
            "train" | "training" => Some(Role::Train),
            "val" | "valid" | "validation" | "eval" | "dev" => Some(Role::Validation),
            "test" | "testing" => Some(Role::Test),
            _ => None,
        }
    }
}

/// The files of a resolved or unresolved `data` with both splits.
///
/// # Errors
/// [`Error::File`] naming what is missing or wrong, [`Error::Config`] naming the key.
pub fn find(data: &Data) -> Result<Found> {
    let path = data.path.as_deref().ok_or_else(|| Error::Config("missing key `data.path`".to_owned()))?;
    let mut found = look(data, path, &data.class_names)?;
    if let Some(eval_path) = &data.eval_path {
        let other = look(data, eval_path, &found.classes)?;
        found.eval = if other.eval.is_empty() { other.train } else { other.eval };
        found.eval_from = "`eval_path`";
    } else if found.eval.is_empty() {
        (found.train, found.eval) = hold_out(found.train, data.val_fraction, path, &found.classes)?;
        found.eval_from = "held out of the training files by name";
    }
    for (split, files) in [("training", &found.train), ("evaluation", &found.eval)] {
        if files.is_empty() {
            return Err(Error::file(path, format!("holds no files of its {split} split")));
        }
    }
    Ok(found)
}

/// What lies at `path`. The labels are those of `classes`, or all that are found if it is empty.
fn look(data: &Data, path: &Path, classes: &[String]) -> Result<Found> {
    if !path.exists() {
        return Err(Error::file(path, "does not exist; expected the folder, .zip or list of a data set"));
    }
    if data.format() == Format::List {
        return list(path, classes);
    }
    let files = walk(path)?;
    if files.is_empty() {
        return Err(Error::file(path, format!("holds no files that are known; expected {ENDINGS}")));
    }
    let mut placed = Vec::new();
    for (parts, file) in files {
        let [folders @ .., _] = &parts[..] else { continue };
        let role = folders.iter().find_map(|folder| Role::of(folder));
        // The folder nearest to the file that is no split.
        let Some(class) = folders.iter().rev().find(|folder| Role::of(folder).is_none()) else {
            return Err(file.wrong(
                "lies in no folder of a class, so it has no label; expected class/file, split/class/file or \
                 class/split/file",
            ));
        };
        placed.push((role, class.clone(), file));
    }
    let splits: BTreeSet<Option<Role>> = placed.iter().map(|(role, ..)| *role).collect();
    if splits.len() > 1
        && let Some((_, _, stray)) = placed.iter().find(|(role, ..)| role.is_none())
    {
        return Err(stray.wrong("lies in neither the training nor an evaluation split, but others do"));
    }
    let classes = numbered(placed.iter().map(|(_, class, _)| class), classes);
    let (mut train, mut validation, mut test) = (Vec::new(), Vec::new(), Vec::new());
    for (role, class, mut file) in placed {
        file.class = classes.get(&class).copied().ok_or_else(|| unknown(&file, &class, &classes))?;
        match role {
            Some(Role::Validation) => validation.push(file),
            Some(Role::Test) => test.push(file),
            Some(Role::Train) | None => train.push(file),
        }
    }
    let eval = if validation.is_empty() { test } else { validation };
    Ok(Found { classes: in_order(classes), train, eval, eval_from: SPLIT })
}

/// Numbers of the class names: those of `given`, or of all found in alphabetical order.
fn numbered<'a>(found: impl Iterator<Item = &'a String>, given: &[String]) -> BTreeMap<String, u32> {
    if given.is_empty() {
        let all: BTreeSet<&String> = found.collect();
        all.into_iter().cloned().zip(0..).collect()
    } else {
        given.iter().cloned().zip(0..).collect()
    }
}

fn in_order(classes: BTreeMap<String, u32>) -> Vec<String> {
    let mut names: Vec<(u32, String)> = classes.into_iter().map(|(name, at)| (at, name)).collect();
    names.sort();
    names.into_iter().map(|(_, name)| name).collect()
}

fn unknown(file: &Listed, class: &str, classes: &BTreeMap<String, u32>) -> Error {
    file.wrong(format!("is of class `{class}`, which is none of the {} known ones", classes.len()))
}

/// Every file of a known format below `path` with the parts of its name from there on, in alphabetical order.
fn walk(path: &Path) -> Result<Vec<(Vec<String>, Listed)>> {
    let is_zip = |path: &Path| path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
    let (mut files, mut zips) = (Vec::new(), Vec::new());
    if path.is_dir() {
        descend(path, 0, &mut |file| {
            if is_zip(&file) {
                zips.push(file);
            } else if Kind::of(&file.to_string_lossy()).is_some() {
                files.push(file);
            }
        })?;
    } else if is_zip(path) {
        zips.push(path.to_path_buf());
    } else {
        return Err(Error::file(path, "is neither a folder nor a .zip"));
    }
    files.sort();
    let parts =
        |name: &Path| name.components().map(|part| part.as_os_str().to_string_lossy().into_owned()).collect();
    let mut all: Vec<(Vec<String>, Listed)> = Vec::new();
    for file in files {
        let name = file.strip_prefix(path).unwrap_or(&file);
        let listed = Listed { name: name.display().to_string(), class: 0, place: Place::File(file.clone()) };
        all.push((parts(name), listed));
    }
    zips.sort();
    for zip in zips {
        let archive = Arc::new(Archive::open(&zip)?);
        for name in archive.names()?.into_iter().filter(|name| Kind::of(name).is_some()) {
            // Resource forks of another system's archiver.
            if name.starts_with("__MACOSX/") {
                continue;
            }
            let place = Place::Packed(archive.clone(), name.clone());
            all.push((parts(Path::new(&name)), Listed { name, class: 0, place }));
        }
    }
    Ok(all)
}

fn descend(folder: &Path, depth: usize, hear: &mut dyn FnMut(PathBuf)) -> Result<()> {
    if depth > MAX_DEPTH {
        return Err(Error::file(folder, format!("lies deeper than {MAX_DEPTH} folders")));
    }
    for entry in entries(folder)? {
        let path = entry.map_err(|error| Error::file(folder, error))?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if hidden {
            continue;
        }
        if path.is_dir() {
            descend(&path, depth + 1, hear)?;
        } else {
            hear(path);
        }
    }
    Ok(())
}

/// The files that a list names: a name and a class in each line, parted by blanks or a comma. Names start at the list's
/// folder.
fn list(path: &Path, classes: &[String]) -> Result<Found> {
    let size = std::fs::metadata(path).map_err(|error| Error::file(path, error))?;
    if !size.is_file() || size.len() > MAX_LIST {
        return Err(Error::file(
            path,
            format!("is no list: expected a text file of at most {MAX_LIST} bytes"),
        ));
    }
    let text = std::fs::read_to_string(path).map_err(|error| Error::file(path, error))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut lines = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        // The class is the last word: names may hold blanks.
        let parted = line.rsplit_once([',', '\t']).or_else(|| line.rsplit_once(char::is_whitespace));
        let Some((name, class)) =
            parted.map(|(name, class)| (name.trim(), class.trim())).filter(|(_, c)| !c.is_empty())
        else {
            return Err(Error::file(
                path,
                format!("line {number} has no label; expected a file and its class"),
            ));
        };
        lines.push((number, name, class.to_owned()));
    }
    let numbers = numbered(lines.iter().map(|(_, _, class)| class), classes);
    let mut train = Vec::new();
    for (number, name, class) in &lines {
        let file = folder.join(name);
        let wrong = |reason: String| Err(Error::file(path, format!("line {number}: {reason}")));
        if Kind::of(name).is_none() {
            return wrong(format!("`{name}` ends in no format that is known; expected {ENDINGS}"));
        }
        if !file.is_file() {
            return wrong(format!("there is no file {}", file.display()));
        }
        let Some(class) = numbers.get(class) else {
            return wrong(format!("`{class}` is none of the {} known classes", numbers.len()));
        };
        train.push(Listed { name: (*name).to_owned(), class: *class, place: Place::File(file) });
    }
    Ok(Found { classes: in_order(numbers), train, eval: Vec::new(), eval_from: SPLIT })
}

/// Holds out `fraction` of each class, at least one file, chosen by the hash of their names.
fn hold_out(
    all: Vec<Listed>,
    fraction: f64,
    path: &Path,
    classes: &[String],
) -> Result<(Vec<Listed>, Vec<Listed>)> {
    let mut by_class: BTreeMap<u32, Vec<(u64, Listed)>> = BTreeMap::new();
    for file in all {
        by_class.entry(file.class).or_default().push((hash_name(&file.name), file));
    }
    let (mut train, mut eval) = (Vec::new(), Vec::new());
    for (class, mut members) in by_class {
        members.sort_by(|a, b| (a.0, &a.1.name).cmp(&(b.0, &b.1.name)));
        let held = ((members.len() as f64 * fraction).round() as usize).clamp(1, members.len());
        if held == members.len() {
            let name = classes.get(class as usize).map_or("?", String::as_str);
            let reason = format!(
                "has {} file(s) of class `{name}`, too few to hold out {fraction} of them; give `data.eval_path` or a split",
                members.len()
            );
            return Err(Error::file(path, reason));
        }
        let rest = members.split_off(held);
        eval.extend(members.into_iter().map(|(_, file)| file));
        train.extend(rest.into_iter().map(|(_, file)| file));
    }
    for split in [&mut train, &mut eval] {
        split.sort_by(|a, b| a.name.cmp(&b.name));
    }
    Ok((train, eval))
}

/// A number that follows from a name.
pub fn hash_name(name: &str) -> u64 {
    let words: Vec<u64> = name.bytes().map(u64::from).collect();
    rng::hash(&words)
}

/// The files at `inputs`, without classes.
///
/// # Errors
/// [`Error::File`] naming one that is not there or holds nothing.
pub fn inputs(inputs: &[&Path]) -> Result<Vec<Listed>> {
    let mut all = Vec::new();
    for input in inputs {
        if !input.exists() {
            return Err(Error::file(input, "does not exist"));
        }
        let zip = input.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("zip"));
        if input.is_dir() || zip {
            let files = walk(input)?;
            if files.is_empty() {
                return Err(Error::file(input, format!("holds no files that are known; expected {ENDINGS}")));
            }
            all.extend(files.into_iter().map(|(_, file)| match &file.place {
                Place::File(path) => Listed { name: path.display().to_string(), ..file },
                Place::Packed(..) => Listed { name: input.join(&file.name).display().to_string(), ..file },
            }));
        } else {
            let place = Place::File(input.to_path_buf());
            all.push(Listed { name: input.display().to_string(), class: 0, place });
        }
    }
    Ok(all)
}
