//! Clips in files: folders of frames and animations, `[split/]class/clip/frame`, in a folder or in archives.
//!
//! A folder that holds image files is a clip, its files sorted as people read numbers. If they are animations (GIF, WebP
//! or files that end in `.apng`), each of them is a clip instead. So is an archive of frames in the place of a clip:
//! `class/clip.tar`.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::Arc,
};

use ophidian_core::{Error, Result};

use super::{Video, animation, list, natural};
use crate::{
    pixels::{self, Pixels},
    source::{
        Choose, Encoded, Found, Labelled, Role, Source, Visit, archive,
        folder::{self, Files},
        inputs::Chain,
        layout::layout,
        no_image,
    },
};

/// Clips in image files.
pub struct Clips {
    files: Box<dyn Encoded>,
    clips: Vec<Clip>,
}

/// One clip.
pub(super) struct Clip {
    /// Its path within the folder or archive.
    pub path: String,
    /// The split that its archive's name tells.
    role: Option<Role>,
    /// The file or folder, for messages.
    name: String,
    frames: Frames,
}

enum Frames {
    /// A file each.
    Files(Vec<u32>),
    /// All in one file.
    Animation(u32),
}

/// Where an image file lies.
struct Place {
    archive: usize,
    role: Option<Role>,
    path: String,
}

impl Clips {
    /// All clips of a folder, or of an archive, a folder of archives, or folders with an archive for each clip.
    ///
    /// # Errors
    /// Nothing is there, it cannot be read, or it or the folder of a clip holds no image file.
    pub fn open(root: &Path) -> Result<Clips> {
        if !root.exists() {
            return Err(Error::file(root, "does not exist; expected a folder or archive of clips"));
        }
        let files = if root.is_dir() { folder::walk(root)? } else { Vec::new() };
        let clips = if files.is_empty() {
            let packed = archive::find(root)?;
            if let Some(other) = packed.iter().find(|file| !archive::is_archive_name(file)) {
                let reason = "is no folder and no archive (.tar, .tar.gz, .tgz or .zip) of clips by its name";
                return Err(Error::file(other, reason));
            }
            let each = if packed.is_empty() { archives(root)? } else { Vec::new() };
            if !each.is_empty() {
                return Clips::of_archives(each);
            }
            let files = archive::Archive::open(packed)?;
            let place = |(archive, role, path): (usize, Option<Role>, &str)| Place {
                archive,
                role,
                path: path.trim_start_matches("./").to_owned(),
            };
            let places: Vec<Place> = files.paths().map(place).collect();
            Clips::gather(Box::new(files), places)?
        } else {
            if let Some(empty) = empty(root, 0)? {
                return Err(Error::file(empty, "is a folder without a file in the place of a clip"));
            }
            let (names, paths): (Vec<String>, Vec<PathBuf>) = files.into_iter().unzip();
            let places = names.into_iter().map(|path| Place { archive: 0, role: None, path }).collect();
            Clips::gather(Box::new(Files::new(paths)), places)?
        };
        if clips.clips.is_empty() {
            let reason = format!(
                "holds no clips: expected folders of frames ({}) or animations, CLASS/CLIP/FRAME",
                pixels::EXTENSIONS.join(", ")
            );
            return Err(Error::file(root, reason));
        }
        Ok(clips)
    }

    /// A clip of each archive, or several where it holds folders of frames.
    fn of_archives(each: Vec<(String, PathBuf)>) -> Result<Clips> {
        let (names, paths): (Vec<String>, Vec<PathBuf>) = each.into_iter().unzip();
        let files = archive::Archive::open(paths)?;
        let mut folders: Vec<BTreeSet<&str>> = vec![BTreeSet::new(); names.len()];
        let folder = |path: &str| path.rsplit_once('/').map_or(0, |(folder, _)| folder.len() + 1);
        for (archive, _, path) in files.paths() {
            folders[archive].insert(&path[..folder(path)]);
        }
        if let Some((name, _)) = names.iter().zip(&folders).find(|(_, folders)| folders.is_empty()) {
            return Err(Error::file(name, "is an archive without frames in the place of a clip"));
        }
        let place = |(archive, _, path): (usize, Option<Role>, &str)| {
            let name = &names[archive];
            let stem = name.len() - archive::ending(name).map_or(0, str::len);
            // The one folder of a clip may be named as it likes.
            let within = if folders[archive].len() == 1 { &path[folder(path)..] } else { path };
            Place { archive, role: None, path: format!("{}/{within}", &name[..stem]) }
        };
        let places = files.paths().map(place).collect();
        Clips::gather(Box::new(files), places)
    }

    /// Makes clips of files that lie at `places`.
    fn gather(files: Box<dyn Encoded>, places: Vec<Place>) -> Result<Clips> {
        if u32::try_from(places.len()).is_err() {
            return Err(Error::invalid(format!("{} frames are more than can be numbered", places.len())));
        }
        let mut folders: BTreeMap<(usize, &str), Vec<u32>> = BTreeMap::new();
        for (at, place) in (0u32..).zip(&places) {
            let folder = place.path.rsplit_once('/').map_or("", |(folder, _)| folder);
            folders.entry((place.archive, folder)).or_default().push(at);
        }
        let path = |at: &u32| places.get(*at as usize).map_or("", |place| place.path.as_str());
        let role = |at: &u32| places.get(*at as usize).and_then(|place| place.role);
        let mut clips = Vec::new();
        for ((_, folder), mut frames) in folders {
            frames.sort_by(|a, b| natural(path(a), path(b)));
            let Some(first) = frames.first().copied() else { continue };
            // One look tells what the whole folder holds. What cannot be read is found out when it is asked for.
            let animated = animation::may_be(path(&first))
                && files.bytes(first as usize).is_ok_and(|bytes| animation::is_one(&bytes));
            if animated {
                clips.extend(frames.iter().map(|at| Clip {
                    path: path(at).to_owned(),
                    role: role(at),
                    name: files.name_of(*at as usize),
                    frames: Frames::Animation(*at),
                }));
            } else {
                let name = files.name_of(first as usize);
                clips.push(Clip {
                    path: folder.to_owned(),
                    role: role(&first),
                    name: name.rsplit_once('/').map_or(name.clone(), |(folder, _)| folder.to_owned()),
                    frames: Frames::Files(frames),
                });
            }
        }
        clips.sort_by(|a, b| natural(&a.path, &b.path));
        Ok(Clips { files, clips })
    }

    pub(super) fn clips(&self) -> &[Clip] {
        &self.clips
    }
}

/// All archives below `root`, as [`folder::files`] has them.
fn archives(root: &Path) -> Result<Vec<(String, PathBuf)>> {
    folder::files(root, &|name| archive::ending(name).is_some())
}

/// A folder without any entry where clips lie: below a class.
fn empty(folder: &Path, depth: usize) -> Result<Option<PathBuf>> {
    let mut entries = 0;
    for entry in std::fs::read_dir(folder).map_err(|error| Error::file(folder, error))? {
        let path = entry.map_err(|error| Error::file(folder, error))?.path();
        entries += 1;
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if path.is_dir()
            && !hidden
            && let Some(found) = empty(&path, depth + 1)?
        {
            return Ok(Some(found));
        }
    }
    Ok((entries == 0 && depth > 1).then(|| folder.to_path_buf()))
}

/// Opens labelled clips: classes from lists if `video` names them, else from folders. `names` are the classes, if they
/// are known.
///
/// # Errors
/// As [`Clips::open`]; a clip lies in no class folder; a list is wrong.
pub fn open(root: &Path, video: &Video, names: &[String]) -> Result<Found> {
    let clips = Clips::open(root)?;
    if let Some(train) = &video.train_list {
        return list::open(root, clips, train, video.eval_list.as_deref(), names);
    }
    if let Some(Clip { name, .. }) = clips.clips.iter().find(|clip| clip.path.is_empty()) {
        let reason = "holds frames itself; expected CLASS/CLIP/FRAME, or clips of classes that `data.video.train_list` \
                      tells";
        return Err(Error::file(name, reason));
    }
    let paths: Vec<_> = clips.clips.iter().map(|clip| (clip.role, clip.path.as_str())).collect();
    let found = layout(&paths, names, "CLIP").map_err(|reason| Error::file(root, reason))?;
    let source: Arc<dyn Source> = Arc::new(clips);
    let labelled = |items| Labelled { source: source.clone(), items };
    Ok(Found {
        classes: found.classes,
        train: found.train.map(labelled),
        eval: found.eval.map(labelled),
        set_aside: found.set_aside,
    })
}

/// Opens clips without labels: folders (all clips below them), archives, animations.
///
/// # Errors
/// An input does not exist or is none of these.
pub fn inputs(inputs: &[&Path]) -> Result<Chain> {
    let mut chain = Chain::new();
    for input in inputs {
        let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if input.is_file() && animation::may_be(&name) {
            let files = Box::new(Files::new(vec![input.to_path_buf()]));
            let clip = Clip { path: name.clone(), role: None, name, frames: Frames::Animation(0) };
            chain.push(Box::new(Clips { files, clips: vec![clip] }));
        } else {
            chain.push(Box::new(Clips::open(input)?));
        }
    }
    Ok(chain)
}

impl Source for Clips {
    fn len(&self) -> usize {
        self.clips.len()
    }

    /// The frame in the middle.
    fn pixels(&self, index: usize) -> Result<Pixels> {
        let mut middle = None;
        self.clip(index, &mut |len| Ok(vec![len / 2]), &mut |frame| {
            middle = Some(frame);
            Ok(())
        })?;
        middle.ok_or_else(|| Error::file(self.name_of(index), "has no frame"))
    }

    fn clip(&self, index: usize, choose: &mut Choose<'_>, visit: &mut Visit<'_>) -> Result<()> {
        let clip = self.clips.get(index).ok_or_else(|| no_image(index, self.len()))?;
        let named = |error: Error| match error {
            Error::Invalid(reason) => Error::file(&clip.name, reason),
            other => other,
        };
        let absent = |at: usize, len: usize| Error::file(&clip.name, format!("has no frame {at} of {len}"));
        match &clip.frames {
            Frames::Animation(file) => {
                let bytes = self.files.bytes(*file as usize)?;
                let frames = animation::decode(&bytes).map_err(|reason| Error::file(&clip.name, reason))?;
                for at in choose(frames.len()).map_err(named)? {
                    visit(frames.get(at).ok_or_else(|| absent(at, frames.len()))?.clone())?;
                }
            }
            Frames::Files(files) => {
                // A frame that is asked for again is not decoded again.
                let mut last: Option<(usize, Pixels)> = None;
                let mut first: Option<(String, usize, usize)> = None;
                for at in choose(files.len()).map_err(named)? {
                    let again = last.as_ref().filter(|(last, _)| *last == at).map(|(_, frame)| frame.clone());
                    let frame = match again {
                        Some(frame) => frame,
                        None => {
                            let file = *files.get(at).ok_or_else(|| absent(at, files.len()))? as usize;
                            let frame = self.files.pixels(file)?;
                            let name = self.files.name_of(file);
                            let (name_0, height, width) =
                                first.get_or_insert_with(|| (name.clone(), frame.height, frame.width));
                            if (frame.height, frame.width) != (*height, *width) {
                                let reason = format!(
                                    "is a frame of {}x{} (height x width), but {name_0} of the same clip has {height}x{width}",
                                    frame.height, frame.width
                                );
                                return Err(Error::file(name, reason));
                            }
                            frame
                        }
                    };
                    last = Some((at, frame.clone()));
                    visit(frame)?;
                }
            }
        }
        Ok(())
    }

    fn name_of(&self, index: usize) -> String {
        self.clips.get(index).map_or_else(|| format!("#{index}"), |clip| clip.name.clone())
    }
}
