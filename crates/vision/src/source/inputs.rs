//! Images without labels, for prediction: files, folders, archives and IDX files in any mixture.

use std::path::{Path, PathBuf};

use ophidian_core::{Error, Result};

use super::{Choose, Source, Visit, archive, folder, idx, no_image};
use crate::pixels::{self, Pixels};

/// Several sources, one after the other.
pub struct Chain {
    /// (index of its first image, source).
    parts: Vec<(usize, Box<dyn Source>)>,
    len: usize,
}

impl Chain {
    /// No sources yet.
    pub(crate) fn new() -> Self {
        Chain { parts: Vec::new(), len: 0 }
    }

    pub(crate) fn push(&mut self, source: Box<dyn Source>) {
        if !source.is_empty() {
            let first = self.len;
            self.len += source.len();
            self.parts.push((first, source));
        }
    }

    fn part(&self, index: usize) -> Option<(usize, &dyn Source)> {
        let at = self.parts.partition_point(|(first, _)| *first <= index).checked_sub(1)?;
        self.parts.get(at).map(|(first, source)| (index - first, source.as_ref()))
    }
}

impl Source for Chain {
    fn len(&self) -> usize {
        self.len
    }

    fn pixels(&self, index: usize) -> Result<Pixels> {
        let (index, source) = self.part(index).ok_or_else(|| no_image(index, self.len))?;
        source.pixels(index)
    }

    fn clip(&self, index: usize, choose: &mut Choose<'_>, visit: &mut Visit<'_>) -> Result<()> {
        let (index, source) = self.part(index).ok_or_else(|| no_image(index, self.len))?;
        source.clip(index, choose, visit)
    }

    fn name_of(&self, index: usize) -> String {
        self.part(index).map_or_else(|| format!("#{index}"), |(index, source)| source.name_of(index))
    }
}

/// Opens `inputs`: image files, folders (all images below them), archives, IDX images.
///
/// # Errors
/// An input does not exist or is none of these; a folder or archive holds no images.
pub fn open(inputs: &[&Path]) -> Result<Chain> {
    let mut chain = Chain::new();
    let mut files: Vec<PathBuf> = Vec::new();
    for input in inputs {
        let name = input.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if !input.exists() {
            return Err(Error::file(input, "does not exist"));
        } else if input.is_dir() {
            let found = folder::walk(input)?;
            if found.is_empty() {
                return Err(Error::file(
                    input,
                    format!("holds no images ({})", pixels::EXTENSIONS.join(", ")),
                ));
            }
            files.extend(found.into_iter().map(|(_, path)| path));
        } else if pixels::is_image_name(&name) {
            files.push(input.to_path_buf());
        } else {
            // Keeps the order in which the inputs were given.
            chain.push(Box::new(folder::Files::new(std::mem::take(&mut files))));
            if archive::is_archive_name(input) {
                let images = archive::Archive::open(vec![input.to_path_buf()])?;
                if images.is_empty() {
                    return Err(Error::file(input, "holds no images"));
                }
                chain.push(Box::new(images));
            } else if name.contains("idx3-ubyte") {
                chain.push(Box::new(idx::read_images(input)?));
            } else {
                let reason = format!(
                    "is no image ({}), archive (tar, tar.gz, tgz, zip) or IDX file by its name",
                    pixels::EXTENSIONS.join(", ")
                );
                return Err(Error::file(input, reason));
            }
        }
    }
    chain.push(Box::new(folder::Files::new(files)));
    Ok(chain)
}
