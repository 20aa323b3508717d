//! Published blocks: each a config of our mixer, a scan and a key map.

mod beyond;
mod run;
mod vim;
mod vmamba;

use std::{cell::RefCell, collections::BTreeSet};

use ophidian_scan::{Geometry, Pattern, Plan};
use tch::{Tensor, nn};

use crate::{
    Error, Result,
    keymap::{self, Key},
    mixer::{ChannelAffinity, Mamba1Config, Merge, Mixer, MixerConfig},
    ops::Orders,
    tensors::Tensors,
};

pub use beyond::{deformable_path, state_fusion};
pub use run::run;
pub use vim::{channel_gate, local_direction};

/// A block as its authors publish it.
pub struct Block {
    /// `system/pattern`.
    pub name: &'static str,
    /// One line about it.
    pub about: &'static str,
    build: fn(&Author) -> Result<Recipe>,
}

/// What an author says of a block.
pub struct Author<'a> {
    /// Keyword arguments.
    pub options: &'a toml::Table,
    /// Parameters by the author's names: their shapes say how large the block is.
    pub parameters: &'a Tensors,
    /// Sizes of the token axes of the input: `[length]` or `[rows, columns]`.
    pub sizes: &'a [i64],
    /// Parameters that say too little of how large the block is, in words.
    unclear: RefCell<BTreeSet<String>>,
}

/// The block in our words.
pub struct Recipe {
    /// The mixer.
    pub config: MixerConfig,
    /// Channels inside GroupMamba's gate, if it stands around the mixer.
    pub affinity: Option<i64>,
    /// Along which it runs, and on which grid.
    pub orders: Orders,
    /// Which of the author's parameters is which of ours.
    pub keys: Vec<Key>,
}

impl Block {
    /// The block for an author's arguments, parameters and input.
    ///
    /// # Errors
    /// An argument that is missing or wrong, or an input that the scan does not fit, is named. Where a parameter that says
    /// how large the block is is missing or has too few axes, all parameters that are missing or unknown are listed.
    pub fn recipe(&self, author: &Author) -> Result<Recipe> {
        let recipe = (self.build)(author);
        let mut wrong = author.unclear.take();
        if wrong.is_empty() {
            return recipe;
        }
        let keys = recipe.map_or(Vec::new(), |recipe| recipe.keys);
        if !keys.is_empty() {
            wrong.extend(keymap::misfits(&keys, author.parameters));
        }
        let count = keys.len().max(wrong.len());
        keymap::refuse(&wrong.into_iter().collect::<Vec<_>>(), count)?;
        Err(Error::invalid("internal error: nothing is wrong with a block's parameters"))
    }
}

impl Recipe {
    /// The block's mixer, fresh.
    ///
    /// # Errors
    /// As [`MixerConfig::build`].
    pub fn mixer(&self, vs: &nn::Path) -> Result<Box<dyn Mixer>> {
        let mixer = self.config.build(vs)?;
        Ok(match self.affinity {
            Some(inner) => Box::new(ChannelAffinity::new(vs, mixer, self.config.d_model(), inner)),
            None => mixer,
        })
    }
}

/// The block called `name`.
pub fn find(name: &str) -> Option<&'static Block> {
    BLOCKS.iter().find(|block| block.name == name)
}

/// All of them.
pub const BLOCKS: &[Block] = &[
    Block {
        name: "vim/bimambav1",
        about: "Vim's first mixer: the directions differ in A alone",
        build: vim::vim_v1,
    },
    Block { name: "vim/bimambav2", about: "Vim (arXiv 2401.09417)", build: vim::vim_v2 },
    Block { name: "vim/bimambav2div2", about: "Vim, the mean of both directions", build: vim::vim_v2_mean },
    Block { name: "vmamba/ss2d_v05", about: "VMamba's SS2D (arXiv 2401.10166)", build: vmamba::ss2d },
    Block { name: "vmamba/ss2d_v05noz", about: "VMamba's SS2D without the gate", build: vmamba::ss2d },
    Block {
        name: "vmamba/ss2d_v051d",
        about: "VMamba's SS2D, one direction four times",
        build: vmamba::ss2d,
    },
    Block { name: "vmamba/ss2d_v052d", about: "VMamba's SS2D, two directions twice", build: vmamba::ss2d },
    Block {
        name: "vmamba/ss2d_v052dc",
        about: "VMamba's cascade of rows and columns, as released",
        build: vmamba::ss2d,
    },
    Block {
        name: "plainmamba/block",
        about: "PlainMamba (arXiv 2403.17695), as released",
        build: vmamba::plainmamba,
    },
    Block { name: "localmamba/multimamba", about: "LocalVim (arXiv 2403.09338)", build: vim::multimamba },
    Block { name: "localmamba/multimamba_cls", about: "LocalVim with a class token", build: vim::multimamba },
    Block {
        name: "efficientvmamba/es2d_ssm",
        about: "EfficientVMamba's ES2D (arXiv 2403.09977)",
        build: vmamba::es2d,
    },
    Block { name: "vivim/tri_block", about: "Vivim (arXiv 2401.14168)", build: vim::vivim },
    Block { name: "segmamba/tri_block", about: "SegMamba (arXiv 2401.13560)", build: vim::segmamba },
    Block {
        name: "videomambasuite/dbm",
        about: "Video Mamba Suite's DBM (arXiv 2403.09626)",
        build: vim::dbm,
    },
    Block { name: "groupmamba/layer", about: "GroupMamba (arXiv 2407.13772)", build: vmamba::groupmamba },
    Block { name: "zigma/zigzagN8_block", about: "ZigMa (arXiv 2403.13802)", build: vim::zigzag },
    Block { name: "zigma/video_sst_s", about: "ZigMa's layers within frames", build: vim::zigma_space },
    Block {
        name: "zigma/video_sst_t",
        about: "ZigMa's layers along time, as released",
        build: vim::zigma_time,
    },
    Block { name: "mamba3d/bissm_v4", about: "Mamba3D (arXiv 2404.14966), as released", build: vim::mamba3d },
    Block {
        name: "msvmamba/multiscale_block",
        about: "MSVMamba (arXiv 2405.14174)",
        build: vmamba::msvmamba,
    },
    Block { name: "grootv/block", about: "GrootV (arXiv 2406.02395)", build: beyond::grootv },
    Block { name: "grootl/block", about: "GrootL (arXiv 2406.02395)", build: beyond::grootl },
    Block {
        name: "spatialmamba/block",
        about: "Spatial-Mamba (arXiv 2410.15091)",
        build: beyond::spatialmamba,
    },
    Block { name: "hydra/block", about: "Hydra (arXiv 2407.09941)", build: beyond::hydra },
    Block {
        name: "defmamba/block",
        about: "DefMamba (arXiv 2504.05794), as released",
        build: beyond::defmamba,
    },
    Block {
        name: "quadmamba/block",
        about: "QuadMamba (arXiv 2410.06806), as released",
        build: beyond::quadmamba,
    },
];

impl<'a> Author<'a> {
    /// An author's keyword arguments, parameters and token axes.
    pub fn new(options: &'a toml::Table, parameters: &'a Tensors, sizes: &'a [i64]) -> Author<'a> {
        Author { options, parameters, sizes, unclear: RefCell::default() }
    }

    /// A whole number among the arguments.
    fn int(&self, key: &str) -> Result<i64> {
        match self.options.get(key) {
            Some(toml::Value::Integer(n)) => Ok(*n),
            other => Err(wrong(key, other, "a whole number")),
        }
    }

    /// A whole number among the arguments, or what it is if it is not said.
    fn int_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.options.contains_key(key) { self.int(key) } else { Ok(default) }
    }

    /// A word among the arguments.
    fn word(&self, key: &str) -> Result<&str> {
        let found = self.options.get(key);
        found.and_then(toml::Value::as_str).ok_or_else(|| wrong(key, found, "text"))
    }

    /// The length of an axis of a parameter; 1, and a note of it, where the parameter does not say.
    fn axis(&self, name: &str, axis: usize) -> i64 {
        let unclear = match self.parameters.get(name).map(Tensor::size) {
            None => format!(
                "`{name}` is missing, which says how large the others are: their shapes are not known yet"
            ),
            Some(shape) => match shape.get(axis) {
                Some(&length) if length > 0 => return length,
                _ => format!(
                    "`{name}` has shape {shape:?}, expected at least {} axes, none of them 0",
                    axis + 1
                ),
            },
        };
        self.unclear.borrow_mut().insert(unclear);
        1
    }

    /// The shape of a parameter; none where it is missing, which loading finds out.
    fn shape(&self, name: &str) -> Vec<i64> {
        self.parameters.get(name).map_or(Vec::new(), Tensor::size)
    }

    /// [rows, columns]: the arguments H and W, or the axes of the input.
    fn grid(&self) -> Result<[i64; 2]> {
        if let [rows, columns] = *self.sizes {
            return Ok([rows, columns]);
        }
        Ok([self.int("H")?, self.int("W")?])
    }

    fn length(&self) -> i64 {
        self.sizes.iter().product()
    }

    /// A key of the author that is ours by another name.
    fn key(&self, theirs: &str, ours: &str) -> Key {
        Key::new(theirs, ours, &self.shape(theirs))
    }

    /// A key of the author that is a row of ours.
    fn row(&self, theirs: &str, ours: &str, row: usize) -> Key {
        Key::row(theirs, ours, row as i64, &self.shape(theirs))
    }

    /// Keys by the same name.
    fn same(&self, names: &[&str]) -> Vec<Key> {
        names.iter().map(|name| self.key(name, name)).collect()
    }
}

fn wrong(key: &str, found: Option<&toml::Value>, expected: &str) -> Error {
    Error::Config(match found {
        Some(found) => format!("`{key}` is {found}, expected {expected}"),
        None => format!("missing key `{key}`, expected {expected}"),
    })
}

fn size(n: i64) -> usize {
    usize::try_from(n).unwrap_or(0)
}

fn plan(pattern: &str, geometry: &Geometry) -> Result<Plan> {
    let failed = |error: ophidian_scan::Error| Error::invalid(format!("the scan `{pattern}`: {error}"));
    pattern.parse::<Pattern>().and_then(|pattern| pattern.plan(geometry)).map_err(failed)
}

fn on_grid(pattern: &str, [rows, columns]: [i64; 2]) -> Result<Orders> {
    let geometry = Geometry::Grid2 { height: size(rows), width: size(columns) };
    Ok(Orders::new(&plan(pattern, &geometry)?).on_grid([rows, columns]))
}

fn on_frames(pattern: &str, [frames, rows, columns]: [i64; 3]) -> Result<Orders> {
    let geometry = Geometry::Grid3 { frames: size(frames), height: size(rows), width: size(columns) };
    Ok(Orders::new(&plan(pattern, &geometry)?).on_grid([frames, rows, columns]))
}

fn along(pattern: &str, length: i64) -> Result<Orders> {
    Ok(Orders::new(&plan(pattern, &Geometry::Sequence { len: size(length) })?))
}

fn summed() -> Mamba1Config {
    Mamba1Config { merge: Merge::Sum, ..Mamba1Config::default() }
}
