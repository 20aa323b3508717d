//! Where images come from: files of many kinds behind one trait, read as bytes, before any preparation.

pub mod archive;
pub mod cifar;
pub mod folder;
pub mod idx;
pub mod inputs;
pub(crate) mod layout;

use std::sync::Arc;

use ophidian_core::Result;

pub use layout::Role;

use crate::pixels::Pixels;

/// Images that can be read at any index from any thread.
pub trait Source: Send + Sync {
    /// Number of images.
    fn len(&self) -> usize;

    /// True if there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Image `index` as stored.
    ///
    /// # Errors
    /// The file behind it is corrupt; the error names it.
    fn pixels(&self, index: usize) -> Result<Pixels>;

    /// Where image `index` comes from.
    fn name_of(&self, index: usize) -> String;

    /// Hands the frames of example `index` to `visit`, those that `choose` names (ascending) when it hears how many there
    /// are. An image is a clip of one frame.
    ///
    /// # Errors
    /// A file behind it is corrupt (the error names it), or that of `choose` or `visit`.
    fn clip(&self, index: usize, choose: &mut Choose<'_>, visit: &mut Visit<'_>) -> Result<()> {
        choose(1)?;
        visit(self.pixels(index)?)
    }

    /// The size all images are known to have (height, width, channels), if it is known without reading them.
    fn fixed_size(&self) -> Option<(usize, usize, usize)> {
        None
    }
}

/// Names frames of a clip of as many as it is told.
pub type Choose<'a> = dyn FnMut(usize) -> Result<Vec<usize>> + 'a;

/// Takes frames one by one.
pub type Visit<'a> = dyn FnMut(Pixels) -> Result<()> + 'a;

/// Image files as they are stored.
pub trait Encoded: Source {
    /// The bytes of file `index`.
    ///
    /// # Errors
    /// It cannot be read; the error names it.
    fn bytes(&self, index: usize) -> Result<Vec<u8>>;
}

/// Some images of a source with their classes.
#[derive(Clone)]
pub struct Labelled {
    /// The images.
    pub source: Arc<dyn Source>,
    /// (index into the source, class) of each example.
    pub items: Vec<(u32, u32)>,
}

/// What was found at a path.
pub struct Found {
    /// Class names; labels index into them.
    pub classes: Vec<String>,
    /// Images to train on, or all of them where there is no split.
    pub train: Option<Labelled>,
    /// Images to evaluate on, if they are told apart.
    pub eval: Option<Labelled>,
    /// Images of a test split that lies beside a validation split, and is left alone.
    pub set_aside: usize,
}

/// Images of one size in memory.
pub struct Memory {
    height: usize,
    width: usize,
    channels: usize,
    data: Vec<u8>,
    /// (index of its first image, name) of each file.
    files: Vec<(usize, String)>,
}

impl Memory {
    /// No images yet, of `height` x `width` x `channels`.
    pub fn new(height: usize, width: usize, channels: usize) -> Self {
        Memory { height, width, channels, data: Vec::new(), files: Vec::new() }
    }

    /// Appends the images of one file, (image, height, width, channels) in order.
    pub fn push(&mut self, file: String, data: Vec<u8>) {
        self.files.push((self.len(), file));
        if self.data.is_empty() {
            self.data = data;
        } else {
            self.data.extend_from_slice(&data);
        }
    }

    fn stride(&self) -> usize {
        self.height * self.width * self.channels
    }
}

impl Source for Memory {
    fn len(&self) -> usize {
        self.data.len().checked_div(self.stride()).unwrap_or(0)
    }

    fn pixels(&self, index: usize) -> Result<Pixels> {
        let stride = self.stride();
        let data =
            self.data.get(index * stride..(index + 1) * stride).ok_or_else(|| no_image(index, self.len()))?;
        Ok(Pixels { height: self.height, width: self.width, channels: self.channels, data: data.to_vec() })
    }

    fn name_of(&self, index: usize) -> String {
        let file = self.files.partition_point(|(first, _)| *first <= index);
        match file.checked_sub(1).and_then(|file| self.files.get(file)) {
            Some((first, name)) => format!("{name} #{}", index - first),
            None => format!("#{index}"),
        }
    }

    fn fixed_size(&self) -> Option<(usize, usize, usize)> {
        Some((self.height, self.width, self.channels))
    }
}

/// An index beyond the last image.
pub(crate) fn no_image(index: usize, len: usize) -> ophidian_core::Error {
    ophidian_core::Error::invalid(format!("there is no image {index}; the data set has {len}"))
}
