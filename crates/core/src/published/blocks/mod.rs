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
use tch::{Device, Kind, Tensor, nn};

use crate::{
    Error, Result,
    config::nearest,
    init::without_values,
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
    /// Channels of the input, if there is one.
    channels: Option<i64>,
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
            let recipe = recipe?;
            let made = without_values(|| recipe.mixer(&nn::VarStore::new(Device::Cpu).root()));
            return match made {
                Ok(_) => Ok(recipe),
                Err(error) => Err(self.unmade(author, error)),
            };
        }
        let certain = self.certain(author).map(|keys| (keymap::misfits(&keys, author.parameters), keys));
        let certain = certain.or_else(|| self.without_one(author).map(|found| (found.wrong, found.keys)));
        let (mut wrong, keys) = match (certain, recipe) {
            (Some(found), _) => found,
            (None, Ok(recipe)) => (keymap::misfits(&recipe.keys, author.parameters), recipe.keys),
            (None, Err(_)) => (Vec::new(), Vec::new()),
        };
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

    /// What is wrong where the parameters' sizes make no block, as `error` says: the one without which the others do,
    /// beside all that is missing, unknown and misshaped; the error itself where there is no such one.
    fn unmade(&self, author: &Author, error: Error) -> Error {
        let Some(mut found) = self.without_one(author) else { return error };
        if let Some(last) = found.wrong.last_mut().filter(|_| !found.named) {
            last.push_str(&format!(": {error}"));
        }
        keymap::refuse(&found.wrong, found.keys.len()).err().unwrap_or(error)
    }

    /// All parameters that do not fit `keys`, or the fewer that do not fit the block that is made without one of them: where
    /// two say how large it is, either may be the one that is wrong.
    fn misfits(&self, author: &Author, keys: &[Key]) -> Vec<String> {
        let wrong = keymap::misfits(keys, author.parameters);
        if wrong.len() < 2 {
            return wrong;
        }
        let other = self.without_one(author).filter(|other| other.named && other.wrong.len() < wrong.len());
        other.map_or(wrong, |other| other.wrong)
    }

    /// The block that the parameters make but for one whose shape is not looked at: the one that leaves the least wrong.
    fn without_one(&self, author: &Author) -> Option<Without> {
        let without = |name: &String| {
            let shapeless = |(other, tensor): (&String, &Tensor)| {
                // Of as many axes.
                let empty = || Tensor::zeros(vec![0; tensor.dim()], (Kind::Float, Device::Cpu));
                (other.clone(), if other == name { empty() } else { tensor.shallow_clone() })
            };
            let parameters = author.parameters.iter().map(shapeless).collect();
            let Author { options, sizes, channels, .. } = *author;
            let mut keys = self.certain(&Author { channels, ..Author::new(options, &parameters, sizes) })?;
            if let Some(key) = keys.iter_mut().find(|key| key.theirs == *name) {
                key.shape = with_ones_of(&key.shape, &author.shape(name));
            }
            let mut wrong = keymap::misfits(&keys, author.parameters);
            let named = wrong.iter().any(|line| line.starts_with(&format!("`{name}` ")));
            if !named {
                let shape = author.shape(name);
                wrong.push(format!("`{name}` has shape {shape:?}, of which no block can be made"));
            }
            Some(Without { keys, wrong, named })
        };
        author.parameters.keys().filter_map(without).min_by_key(|found| found.wrong.len())
    }

    /// The keys with [`keymap::ANY`] for each axis whose length hangs on what the parameters do not say.
    fn certain(&self, author: &Author) -> Option<Vec<Key>> {
        let keys = |stand_in: i64| {
            let Author { options, parameters, sizes, channels, .. } = *author;
            let author = Author { stand_in, channels, ..Author::new(options, parameters, sizes) };
            let recipe = (self.build)(&author)?;
            let vs = nn::VarStore::new(Device::Cpu);
            without_values(|| recipe.mixer(&vs.root()))?;
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

/// `shape` with its axes of 1 where `other` has its own, if it has as many: authors differ in where these stand.
fn with_ones_of(shape: &[i64], other: &[i64]) -> Vec<i64> {
    let mut rest = shape.iter().copied().filter(|&n| n != 1);
    let moved = other.iter().map(|&n| if n == 1 { Some(1) } else { rest.next() }).collect::<Option<Vec<_>>>();
    let whole = rest.next().is_none() && shape.len() == other.len();
    moved.filter(|_| whole).unwrap_or(shape.to_vec())
}

/// A block without the shape of one parameter.
struct Without {
    /// As [`Block::certain`] gives them.
    keys: Vec<Key>,
    /// What does not fit them, and at the end the parameter itself if it fits.
    wrong: Vec<String>,
    /// Whether it does not.
    named: bool,
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
            channels: None,
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

    /// The keyword arguments that were given and that nothing asked for.
    ///
    /// # Errors
    /// One that is nearly what was asked for; authors' sizes of one letter are all near each other.
    fn unread(&self) -> Result<Vec<String>> {
        let read = self.read.take();
        let given = self.options.keys().filter(|key| !read.contains(*key));
        let said = given.map(|key| match nearest(key, read.iter().map(String::as_str)) {
            Some(near) if key.len().min(near.len()) > 3 => {
                Err(Error::Config(format!("unknown key `{key}`; did you mean `{near}`?")))
            }
            _ => Ok(format!("`{key}` is not read by this block")),
        });
        said.collect()
    }

    /// A whole number among the arguments, at least `least`.
    fn int(&self, key: &str, least: i64) -> Result<i64> {
        match self.option(key) {
            Some(toml::Value::Integer(n)) if *n >= least => Ok(*n),
            other => Err(self.wrong(key, other, &format!("a whole number from {least} on"))),
        }
    }

    /// A whole number among the arguments, or what it is if it is not said.
    fn int_or(&self, key: &str, least: i64, default: i64) -> Result<i64> {
        if self.option(key).is_some() { self.int(key, least) } else { Ok(default) }
    }

    /// Whether an argument says so, or what it is if it is not said.
    fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.option(key) {
            None => Ok(default),
            Some(toml::Value::Boolean(said)) => Ok(*said),
            other => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A word among the arguments.
    fn word(&self, key: &str) -> Result<&str> {
        let found = self.option(key);
        found.and_then(toml::Value::as_str).ok_or_else(|| self.wrong(key, found, "text"))
    }

    fn wrong(&self, key: &str, found: Option<&toml::Value>, expected: &str) -> Error {
        Error::Config(match found {
            Some(found) => format!("`{key}` is {found}, expected {expected}"),
            None => {
                let near =
                    nearest(key, self.options.keys().map(String::as_str).filter(|near| near.len() > 3));
                let near = near.map_or(String::new(), |near| format!("; `{near}` is not it"));
                format!("missing key `{key}`, expected {expected}{near}")
            }
        })
    }

    /// The length that most of `sources` give, which are axes of parameters that should agree (the first of those that do
    /// not); a stand-in where none is there.
    fn axis(&self, sources: &[(impl AsRef<str>, usize)]) -> i64 {
        self.agreed(None, sources)
    }

    /// d_model: [`axis`](Author::axis), with the input's channels as one more that gives it.
    fn d_model(&self, sources: &[(impl AsRef<str>, usize)]) -> i64 {
        self.agreed(self.channels, sources)
    }

    fn agreed(&self, beside: Option<i64>, sources: &[(impl AsRef<str>, usize)]) -> i64 {
        let length = |(name, axis): &(_, usize)| {
            let shape = self.parameters.get(AsRef::<str>::as_ref(name))?.size();
            shape.get(*axis).copied().filter(|&length| length > 0)
        };
        let lengths: Vec<i64> = sources.iter().filter_map(length).collect();
        let votes = |length: &i64| lengths.iter().chain(&beside).filter(|other| *other == length).count();
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

    /// [rows, columns]: the axes of the input, or the arguments H and W, which lay out its tokens.
    fn grid(&self) -> Result<[i64; 2]> {
        let axes = <[i64; 2]>::try_from(self.sizes).ok();
        let side = |key, axis: usize| match axes {
            Some(axes) => self.int_or(key, 1, axes[axis]),
            None => self.int(key, 1),
        };
        let grid = [side("H", 0)?, side("W", 1)?];
        if axes.is_some_and(|axes| axes != grid) {
            return Err(self.misfit("H by W", &grid));
        }
        self.laid_out("H by W", &grid)?;
        Ok(grid)
    }

    /// Refuses sizes, called `names`, that do not hold the input's tokens.
    fn laid_out(&self, names: &str, sizes: &[i64]) -> Result<()> {
        if self.holds(sizes, 0) { Ok(()) } else { Err(self.misfit(names, sizes)) }
    }

    /// Whether sizes hold the input's tokens but for so many `beside` them.
    fn holds(&self, sizes: &[i64], beside: i64) -> bool {
        let tokens = sizes.iter().try_fold(1i64, |all, n| all.checked_mul(*n));
        tokens == Some(self.length() - beside)
    }

    fn misfit(&self, names: &str, sizes: &[i64]) -> Error {
        let by = |sizes: &[i64]| sizes.iter().map(i64::to_string).collect::<Vec<_>>().join(" by ");
        let found = match self.sizes {
            [length] => format!("{length} tokens"),
            axes => format!("a map of {}", by(axes)),
        };
        Error::Config(format!("{names} is {}, but `x` has {found}", by(sizes)))
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
