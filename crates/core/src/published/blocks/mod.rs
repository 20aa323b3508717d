//! Published blocks: each a config of our mixer, a scan and a key map.

mod beyond;
mod run;
mod vim;
mod vmamba;

use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
};

use ophidian_scan::{Geometry, Pattern, Plan};
use tch::{Device, Tensor, nn};

use crate::{
    Error, Result,
    config::nearest,
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
    /// The length of an axis that the parameters do not say.
    stand_in: i64,
    /// Parameters that do not say how large the block is, although they should, each with the axis that would.
    unclear: RefCell<BTreeMap<String, usize>>,
    /// Keyword arguments that were looked for.
    read: RefCell<BTreeSet<String>>,
}

/// What axes may be taken to be whose lengths the parameters do not say: two that make a block tell which shapes hang on
/// them.
const STAND_INS: [i64; 6] = [1, 3, 5, 16, 48, 96];

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
    /// how large the block is is missing or has too few axes, all parameters that are missing, unknown or, as far as can
    /// be told, misshaped are listed.
    pub fn recipe(&self, author: &Author) -> Result<Recipe> {
        let recipe = (self.build)(author);
        let unclear = author.unclear.take();
        if unclear.is_empty() {
            return recipe;
        }
        let keys = self.certain(author).unwrap_or(recipe.map_or(Vec::new(), |recipe| recipe.keys));
        let mut wrong = if keys.is_empty() { Vec::new() } else { keymap::misfits(&keys, author.parameters) };
        for (name, axis) in unclear {
            if !wrong.iter().any(|line| line.starts_with(&format!("`{name}` "))) {
                let found = author.parameters.get(&name).map(Tensor::size);
                let found = found.map_or("is missing".into(), |shape| format!("has shape {shape:?}"));
                wrong.push(format!("`{name}` {found}, expected at least {} axes, none of them 0", axis + 1));
            }
        }
        keymap::refuse(&wrong, keys.len().max(wrong.len()))?;
        Err(Error::invalid("internal error: nothing is wrong with a block's parameters"))
    }

    /// The keys with [`keymap::ANY`] for each axis whose length hangs on what the parameters do not say.
    fn certain(&self, author: &Author) -> Option<Vec<Key>> {
        let keys = |stand_in: i64| {
            let author = Author { stand_in, ..Author::new(author.options, author.parameters, author.sizes) };
            let recipe = (self.build)(&author)?;
            let vs = nn::VarStore::new(Device::Cpu);
            recipe.mixer(&vs.root())?;
            keymap::fitted(&recipe.keys, &vs.variables())
        };
        let mut guesses = STAND_INS.into_iter().filter_map(|stand_in| keys(stand_in).ok());
        let mut certain = guesses.next()?;
        // Where one alone makes a block, it is the only one that could be meant.
        for (key, other) in certain.iter_mut().zip(&guesses.next().unwrap_or_default()) {
            if key.shape.len() == other.shape.len() {
                let axes = key.shape.iter_mut().zip(&other.shape);
                axes.filter(|(axis, other)| axis != other).for_each(|(axis, _)| *axis = keymap::ANY);
            } else {
                key.shape = vec![keymap::ANY; author.shape(&key.theirs).len()];
            }
        }
        Some(certain)
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
        Author {
            options,
            parameters,
            sizes,
            stand_in: 1,
            unclear: RefCell::default(),
            read: RefCell::default(),
        }
    }

    /// A keyword argument.
    fn option(&self, key: &str) -> Option<&'a toml::Value> {
        self.read.borrow_mut().insert(key.to_owned());
        self.options.get(key)
    }

    /// The keyword arguments that were given and that nothing but `beside` asked for, each with the nearest name of those
    /// that were asked for.
    fn unread(&self, beside: &str) -> Vec<String> {
        let mut read = self.read.take();
        read.insert(beside.to_owned());
        let given = self.options.keys().filter(|key| !read.contains(*key));
        let said = given.map(|key| match nearest(key, read.iter().map(String::as_str)) {
            Some(near) => format!("`{key}` is not read by this block; did you mean `{near}`?"),
            None => format!("`{key}` is not read by this block"),
        });
        said.collect()
    }

    /// A whole number among the arguments.
    fn int(&self, key: &str) -> Result<i64> {
        match self.option(key) {
            Some(toml::Value::Integer(n)) => Ok(*n),
            other => Err(wrong(key, other, "a whole number")),
        }
    }

    /// A whole number among the arguments, or what it is if it is not said.
    fn int_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.option(key).is_some() { self.int(key) } else { Ok(default) }
    }

    /// A word among the arguments.
    fn word(&self, key: &str) -> Result<&str> {
        let found = self.option(key);
        found.and_then(toml::Value::as_str).ok_or_else(|| wrong(key, found, "text"))
    }

    /// The length that most of `sources` give, which are axes of parameters that should agree (the first of those that do
    /// not); a stand-in where none is there.
    fn axis(&self, sources: &[(impl AsRef<str>, usize)]) -> i64 {
        let length = |(name, axis): &(_, usize)| {
            let shape = self.parameters.get(AsRef::<str>::as_ref(name))?.size();
            shape.get(*axis).copied().filter(|&length| length > 0)
        };
        let lengths: Vec<i64> = sources.iter().filter_map(length).collect();
        let votes = |length: &i64| lengths.iter().filter(|other| *other == length).count();
        // The last of equals is the greatest to `max_by_key`.
        let most = lengths.iter().rev().max_by_key(|length| votes(length));
        most.copied().unwrap_or_else(|| {
            self.unclear
                .borrow_mut()
                .extend(sources.iter().map(|(name, axis)| (name.as_ref().to_owned(), *axis)));
            self.stand_in
        })
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
