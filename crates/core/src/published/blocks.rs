//! Published blocks: each a config of our mixer, a scan and a key map.

use ophidian_scan::{Geometry, Pattern, Plan};
use tch::nn;

use super::beyond;
use crate::{
    Error, Result,
    keymap::Key,
    layers::NormKind,
    mixer::{
        ChannelAffinity, Channels, Coarse, Compat, ConvPlace, DtRank, Mamba1Config, Merge, Mixer,
        MixerConfig, Parameters,
    },
    ops::Orders,
    tensors::Tensors,
};

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
    /// An argument or a parameter that is missing or wrong, or an input that the scan does not fit; named.
    pub fn recipe(&self, author: &Author) -> Result<Recipe> {
        (self.build)(author)
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
        build: vim_v1,
    },
    Block { name: "vim/bimambav2", about: "Vim (arXiv 2401.09417)", build: vim_v2 },
    Block { name: "vim/bimambav2div2", about: "Vim, the mean of both directions", build: vim_v2_mean },
    Block { name: "vmamba/ss2d_v05", about: "VMamba's SS2D (arXiv 2401.10166)", build: ss2d },
    Block { name: "vmamba/ss2d_v05noz", about: "VMamba's SS2D without the gate", build: ss2d },
    Block { name: "vmamba/ss2d_v051d", about: "VMamba's SS2D, one direction four times", build: ss2d },
    Block { name: "vmamba/ss2d_v052d", about: "VMamba's SS2D, two directions twice", build: ss2d },
    Block {
        name: "vmamba/ss2d_v052dc",
        about: "VMamba's cascade of rows and columns, as released",
        build: ss2d,
    },
    Block {
        name: "plainmamba/block",
        about: "PlainMamba (arXiv 2403.17695), as released",
        build: plainmamba,
    },
    Block { name: "localmamba/multimamba", about: "LocalVim (arXiv 2403.09338)", build: multimamba },
    Block { name: "localmamba/multimamba_cls", about: "LocalVim with a class token", build: multimamba },
    Block {
        name: "efficientvmamba/es2d_ssm",
        about: "EfficientVMamba's ES2D (arXiv 2403.09977)",
        build: es2d,
    },
    Block { name: "vivim/tri_block", about: "Vivim (arXiv 2401.14168)", build: vivim },
    Block { name: "segmamba/tri_block", about: "SegMamba (arXiv 2401.13560)", build: segmamba },
    Block { name: "videomambasuite/dbm", about: "Video Mamba Suite's DBM (arXiv 2403.09626)", build: dbm },
    Block { name: "groupmamba/layer", about: "GroupMamba (arXiv 2407.13772)", build: groupmamba },
    Block { name: "zigma/zigzagN8_block", about: "ZigMa (arXiv 2403.13802)", build: zigzag },
    Block { name: "zigma/video_sst_s", about: "ZigMa's layers within frames", build: zigma_space },
    Block { name: "zigma/video_sst_t", about: "ZigMa's layers along time, as released", build: zigma_time },
    Block { name: "mamba3d/bissm_v4", about: "Mamba3D (arXiv 2404.14966), as released", build: mamba3d },
    Block { name: "msvmamba/multiscale_block", about: "MSVMamba (arXiv 2405.14174)", build: msvmamba },
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

impl Author<'_> {
    /// A whole number among the arguments.
    pub(super) fn int(&self, key: &str) -> Result<i64> {
        match self.options.get(key) {
            Some(toml::Value::Integer(n)) => Ok(*n),
            other => Err(wrong(key, other, "a whole number")),
        }
    }

    /// A whole number among the arguments, or what it is if it is not said.
    pub(super) fn int_or(&self, key: &str, default: i64) -> Result<i64> {
        if self.options.contains_key(key) { self.int(key) } else { Ok(default) }
    }

    /// A word among the arguments.
    fn word(&self, key: &str) -> Result<&str> {
        let found = self.options.get(key);
        found.and_then(toml::Value::as_str).ok_or_else(|| wrong(key, found, "text"))
    }

    /// The length of an axis of a parameter.
    pub(super) fn axis(&self, name: &str, axis: usize) -> Result<i64> {
        let shape = self.shape(name)?;
        shape.get(axis).copied().ok_or_else(|| {
            Error::invalid(format!("`{name}` has shape {shape:?}, expected at least {} axes", axis + 1))
        })
    }

    pub(super) fn shape(&self, name: &str) -> Result<Vec<i64>> {
        let tensor = self.parameters.get(name);
        Ok(tensor.ok_or_else(|| Error::invalid(format!("the parameter `{name}` is missing")))?.size())
    }

    /// [rows, columns]: the arguments H and W, or the axes of the input.
    pub(super) fn grid(&self) -> Result<[i64; 2]> {
        if let [rows, columns] = *self.sizes {
            return Ok([rows, columns]);
        }
        Ok([self.int("H")?, self.int("W")?])
    }

    pub(super) fn length(&self) -> i64 {
        self.sizes.iter().product()
    }

    /// A key of the author that is ours by another name.
    pub(super) fn key(&self, theirs: &str, ours: &str) -> Result<Key> {
        Ok(Key::new(theirs, ours, &self.shape(theirs)?))
    }

    /// A key of the author that is a row of ours.
    pub(super) fn row(&self, theirs: &str, ours: &str, row: usize) -> Result<Key> {
        Ok(Key::row(theirs, ours, row as i64, &self.shape(theirs)?))
    }

    /// Keys by the same name.
    pub(super) fn same(&self, names: &[&str]) -> Result<Vec<Key>> {
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

pub(super) fn on_grid(pattern: &str, [rows, columns]: [i64; 2]) -> Result<Orders> {
    let geometry = Geometry::Grid2 { height: size(rows), width: size(columns) };
    Ok(Orders::new(&plan(pattern, &geometry)?).on_grid([rows, columns]))
}

fn on_frames(pattern: &str, [frames, rows, columns]: [i64; 3]) -> Result<Orders> {
    let geometry = Geometry::Grid3 { frames: size(frames), height: size(rows), width: size(columns) };
    Ok(Orders::new(&plan(pattern, &geometry)?).on_grid([frames, rows, columns]))
}

pub(super) fn along(pattern: &str, length: i64) -> Result<Orders> {
    Ok(Orders::new(&plan(pattern, &Geometry::Sequence { len: size(length) })?))
}

// The Vim family: the names of Mamba's parameters with a suffix per direction.

/// A mixer whose directions are called `suffixes`, A of direction k `decays[k]`.
fn vim(
    author: &Author,
    suffixes: &[&str],
    decays: &[&str],
    config: Mamba1Config,
    orders: Orders,
) -> Result<Recipe> {
    let first = suffixes.first().copied().unwrap_or("");
    let (d_model, d_inner) = (author.axis("out_proj.weight", 0)?, author.axis(&format!("D{first}"), 0)?);
    let mut keys = author.same(&["in_proj.weight", "out_proj.weight"])?;
    for (k, decay) in decays.iter().enumerate() {
        keys.push(author.row(decay, "A_log", k)?);
    }
    for (k, suffix) in suffixes.iter().enumerate() {
        keys.push(author.row(&format!("D{suffix}"), "D", k)?);
        for (layer, part) in [
            ("conv1d", "weight"),
            ("conv1d", "bias"),
            ("x_proj", "weight"),
            ("dt_proj", "weight"),
            ("dt_proj", "bias"),
        ] {
            keys.push(author.row(&format!("{layer}{suffix}.{part}"), &format!("{layer}.{part}"), k)?);
        }
    }
    let config = Mamba1Config {
        d_model,
        directions: orders.directions(),
        d_state: author.axis(decays.first().copied().unwrap_or("A_log"), 1)?,
        d_conv: author.axis(&format!("conv1d{first}.weight"), 2)?,
        expand: d_inner as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis(&format!("dt_proj{first}.weight"), 1)?),
        ..config
    };
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

/// One direction by Mamba's own names.
fn mamba(author: &Author, config: Mamba1Config, orders: Orders) -> Result<Recipe> {
    vim(author, &[""], &["A_log"], config, orders)
}

const TWO: [&[&str]; 2] = [&["", "_b"], &["A_log", "A_b_log"]];
const THREE: [&[&str]; 2] = [&["", "_b", "_s"], &["A_log", "A_b_log", "A_s_log"]];

fn summed() -> Mamba1Config {
    Mamba1Config { merge: Merge::Sum, ..Mamba1Config::default() }
}

fn vim_v1(author: &Author) -> Result<Recipe> {
    let config = Mamba1Config { parameters: Parameters::Decay, ..summed() };
    vim(author, &[""], TWO[1], config, along("bidirectional", author.length())?)
}

fn vim_v2(author: &Author) -> Result<Recipe> {
    vim(author, TWO[0], TWO[1], summed(), along("bidirectional", author.length())?)
}

fn vim_v2_mean(author: &Author) -> Result<Recipe> {
    vim(author, TWO[0], TWO[1], Mamba1Config::default(), along("bidirectional", author.length())?)
}

fn mamba3d(author: &Author) -> Result<Recipe> {
    let compat = Compat { mirrored_channels: true, ..Compat::default() };
    vim(
        author,
        TWO[0],
        TWO[1],
        Mamba1Config { compat, ..summed() },
        along("row | repeat(2)", author.length())?,
    )
}

fn vivim(author: &Author) -> Result<Recipe> {
    tri(author, "nframes", Mamba1Config::default())
}

fn segmamba(author: &Author) -> Result<Recipe> {
    tri(author, "nslices", summed())
}

/// Forward, backward and frame by frame, `frames` being what the frames are called.
fn tri(author: &Author, frames: &str, config: Mamba1Config) -> Result<Recipe> {
    let frames = author.int(frames)?;
    let orders =
        on_frames("[row, row | reverse, row | axes(hwt)]", [frames, 1, author.length() / frames.max(1)])?;
    vim(author, THREE[0], THREE[1], config, orders)
}

fn dbm(author: &Author) -> Result<Recipe> {
    let config = Mamba1Config {
        parameters: Parameters::Shared,
        channels: Channels::Split,
        merge: Merge::Concat,
        ..Mamba1Config::default()
    };
    mamba(author, config, along("bidirectional", author.length())?)
}

fn zigzag(author: &Author) -> Result<Recipe> {
    let (n, layer) = (author.int("N")?, author.int("layer_idx")?);
    mamba(author, summed(), on_grid(&format!("zigzag({})", layer.rem_euclid(8)), [n, n])?)
}

/// Layers within frames, along time in every third one: the s-th of the former follows zigzag s.
fn zigma_space(author: &Author) -> Result<Recipe> {
    let (frames, n, layer) = (author.int("T")?, author.int("N")?, author.int("layer")?);
    let walk = format!("zigzag({}) | frames(reset=true)", (layer - layer / 3).rem_euclid(8));
    mamba(author, summed(), on_frames(&walk, [frames, n, n])?)
}

/// The line of each pixel, forwards and backwards in turn. As released: what a line makes comes back in reversed time.
fn zigma_time(author: &Author) -> Result<Recipe> {
    let (frames, n, layer) = (author.int("T")?, author.int("N")?, author.int("layer")?);
    let line = |turn: bool| {
        let turn = if turn { " | mirror(frames)" } else { "" };
        on_frames(&format!("row | axes(hwt){turn} | segment(pixel)"), [frames, n, n])
    };
    let backwards = layer / 3 % 2 == 1;
    mamba(author, summed(), line(backwards)?.written_as(&line(!backwards)?)?)
}

fn plainmamba(author: &Author) -> Result<Recipe> {
    let (d_model, d_inner) = (author.axis("out_proj.weight", 0)?, author.axis("D", 0)?);
    let orders = on_grid(
        "[serpentine, serpentine | reverse, serpentine | transpose, serpentine | transpose | reverse]",
        author.grid()?,
    )?;
    let mut keys = author.same(&["in_proj.weight", "out_proj.weight", "conv2d.weight", "conv2d.bias"])?;
    for name in ["A_log", "D", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"] {
        keys.push(author.row(name, name, 0)?);
    }
    keys.push(author.key("direction_Bs", "step_embedding")?);
    let config = Mamba1Config {
        d_model,
        directions: 4,
        d_state: author.axis("A_log", 1)?,
        d_conv: author.axis("conv2d.weight", 2)?,
        conv: ConvPlace::Grid,
        expand: d_inner as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis("dt_proj.weight", 1)?),
        parameters: Parameters::Shared,
        step_embedding: true,
        compat: Compat { unordered_coefficients: true, double_dt_bias: true, ..Compat::default() },
        ..summed()
    };
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

fn multimamba(author: &Author) -> Result<Recipe> {
    let words = author.options.get("directions").and_then(toml::Value::as_array);
    let words: Vec<&str> = words.into_iter().flatten().filter_map(toml::Value::as_str).collect();
    if words.is_empty() {
        return Err(wrong("directions", author.options.get("directions"), "a list of directions"));
    }
    let patterns = words.iter().map(|word| local_direction(word)).collect::<Result<Vec<_>>>()?;
    let [rows, columns] = author.grid()?;
    let geometry = Geometry::Grid2 { height: size(rows), width: size(columns) };
    let mut found = plan(&format!("[{}]", patterns.join(", ")), &geometry)?;
    if author.length() == rows * columns + 1 {
        // The class token, in the middle of the tokens, is as far into every walk, blank steps counted.
        let middle = size(rows * columns) / 2;
        found = found.with_token(middle, |_| middle).map_err(|error| Error::invalid(error.to_string()))?;
    }
    let suffixes: Vec<String> = (0..words.len()).map(|k| format!("_{k}")).collect();
    let suffixes: Vec<&str> = suffixes.iter().map(String::as_str).collect();
    let decays: Vec<String> = (0..words.len()).map(|k| format!("A_log_{k}")).collect();
    let decays: Vec<&str> = decays.iter().map(String::as_str).collect();
    let config = Mamba1Config { merge: Merge::ChannelGate, ..Mamba1Config::default() };
    let mut recipe = vim(author, &suffixes, &decays, config, Orders::new(&found))?;
    recipe.keys.extend(channel_gate(author)?);
    Ok(recipe)
}

/// A direction of LocalMamba as a pattern.
///
/// # Errors
/// A word that is not one of theirs.
pub fn local_direction(word: &str) -> Result<String> {
    let (walk, flip) = word.strip_suffix("_flip").map_or((word, ""), |walk| (walk, " | reverse"));
    let walk = match walk {
        "h" => "row".to_owned(),
        "v" => "column".to_owned(),
        _ => match walk.strip_prefix('w').map(str::parse::<u32>) {
            Some(Ok(side)) if side > 0 => format!("row | window({side})"),
            _ => {
                return Err(Error::Config(format!(
                    "`directions` has \"{word}\", expected h, v or w and a number, with or without _flip"
                )));
            }
        },
    };
    Ok(format!("{walk}{flip}"))
}

/// LocalMamba's gate.
///
/// # Errors
/// A parameter of it that is missing.
pub fn channel_gate(author: &Author) -> Result<Vec<Key>> {
    let mut keys = Vec::new();
    for (theirs, ours) in [("norm", "norm"), ("global_reduce", "reduce"), ("channel_select", "select")] {
        for part in ["weight", "bias"] {
            keys.push(author.key(&format!("attn.{theirs}.{part}"), &format!("{ours}.{part}"))?);
        }
    }
    Ok(keys)
}

// The VMamba family: the directions stacked in one tensor.

/// The recurrence of SS2D, its parameters called `prefix` and the usual names.
fn stacked(author: &Author) -> Result<(Mamba1Config, Vec<Key>)> {
    let mut keys = Vec::new();
    for (theirs, ours) in [
        ("x_proj_weight", "x_proj.weight"),
        ("dt_projs_weight", "dt_proj.weight"),
        ("dt_projs_bias", "dt_proj.bias"),
        ("A_logs", "A_log"),
        ("Ds", "D"),
    ] {
        keys.push(author.key(theirs, ours)?);
    }
    let config = Mamba1Config {
        directions: author.axis("x_proj_weight", 0)?,
        d_state: author.axis("A_logs", 1)?,
        dt_rank: DtRank::Rank(author.axis("dt_projs_weight", 2)?),
        conv: ConvPlace::Grid,
        out_norm: Some(NormKind::Layer),
        ..summed()
    };
    Ok((config, keys))
}

/// SS2D with its projections.
fn vmamba(author: &Author) -> Result<(Mamba1Config, Vec<Key>)> {
    let (config, mut keys) = stacked(author)?;
    keys.extend(author.same(&[
        "in_proj.weight",
        "conv2d.weight",
        "conv2d.bias",
        "out_norm.weight",
        "out_norm.bias",
        "out_proj.weight",
    ])?);
    let (d_model, d_inner) = (author.axis("out_proj.weight", 0)?, author.axis("out_proj.weight", 1)?);
    let config = Mamba1Config {
        d_model,
        expand: d_inner as f64 / d_model as f64,
        d_conv: author.axis("conv2d.weight", 2)?,
        gate: author.axis("in_proj.weight", 0)? == 2 * d_inner,
        ..config
    };
    Ok((config, keys))
}

fn ss2d(author: &Author) -> Result<Recipe> {
    let grid = author.grid()?;
    let (mut config, keys) = vmamba(author)?;
    let orders = match author.word("forward_type")?.trim_end_matches("_noz") {
        "v05" => on_grid("cross", grid)?,
        "v051d" => on_grid("row | repeat(4)", grid)?,
        "v052d" => on_grid("[row, row, row | reverse, row | reverse]", grid)?,
        "v052dc" => {
            config.stages = 2;
            let read = "[row | segment(row), row | reverse | segment(row), column | segment(column), \
                        column | reverse | segment(column)]";
            // As released: what a line makes from its end to its start is not turned back.
            let written = "[row, row | mirror(rows), column, column | mirror(columns)]";
            on_grid(read, grid)?.written_as(&on_grid(written, grid)?)?
        }
        other => {
            return Err(Error::Config(format!(
                "`forward_type` is \"{other}\", expected v05, v051d, v052d or v052dc, with or without _noz"
            )));
        }
    };
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

/// The part of ES2D behind its convolution: [`Mamba1::core`](crate::mixer::Mamba1::core).
fn es2d(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = stacked(author)?;
    keys.push(author.key("ln_weight", "out_norm.weight")?);
    keys.push(author.key("ln_bias", "out_norm.bias")?);
    let d_model = author.axis("ln_weight", 0)?;
    let config = Mamba1Config { d_model, expand: 1.0, d_conv: 3, ..config };
    let step = author.int("step_size")?;
    let orders = on_grid(&format!("row | atrous({step})"), author.grid()?)?;
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

fn msvmamba(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = vmamba(author)?;
    keys.push(author.key("conv2d_b1.weight", "coarse.weight")?);
    keys.push(author.key("conv2d_b1.bias", "coarse.bias")?);
    let grid = author.grid()?;
    let coarse = Coarse { directions: 3, taps: author.axis("conv2d_b1.weight", 2)?, stride: 2 };
    let config = Mamba1Config { directions: 1, norm_each: true, coarse: Some(coarse), ..config };
    let low = grid.map(|n| (n + 1) / 2);
    let orders =
        on_grid("row", grid)?.with_coarse(on_grid("[row | reverse, column, column | reverse]", low)?);
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

fn groupmamba(author: &Author) -> Result<Recipe> {
    let first = |name: &str| format!("mamba_g1.{name}");
    let d_model = author.axis("proj.weight", 0)?;
    let groups = author.parameters.keys().filter(|name| name.ends_with(".A_logs")).count();
    let mut keys = author.same(&[
        "skip_scale",
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
        "norm.weight",
        "norm.bias",
        "proj.weight",
        "proj.bias",
    ])?;
    for k in 0..groups {
        let theirs = |name: &str| format!("mamba_g{}.{name}", k + 1);
        for (name, ours) in [
            ("x_proj_weight", "x_proj.weight"),
            ("dt_projs_weight", "dt_proj.weight"),
            ("dt_projs_bias", "dt_proj.bias"),
            ("A_logs", "A_log"),
            ("Ds", "D"),
            ("in_proj.weight", "in_proj.weight"),
            ("conv2d.weight", "conv2d.weight"),
            ("conv2d.bias", "conv2d.bias"),
            ("out_norm.weight", "out_norm.weight"),
            ("out_norm.bias", "out_norm.bias"),
            ("out_proj.weight", "out_proj.weight"),
        ] {
            keys.push(author.row(&theirs(name), ours, k)?);
        }
    }
    let d_inner = author.axis(&first("Ds"), 0)?;
    let config = Mamba1Config {
        d_model,
        directions: groups as i64,
        d_state: author.axis(&first("A_logs"), 1)?,
        d_conv: author.axis(&first("conv2d.weight"), 2)?,
        expand: (d_inner * groups as i64) as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis(&first("dt_projs_weight"), 2)?),
        conv: ConvPlace::Grid,
        channels: Channels::Grouped,
        merge: Merge::Concat,
        out_norm: Some(NormKind::Layer),
        ..Mamba1Config::default()
    };
    let affinity = Some(author.axis("fc1.weight", 0)?);
    Ok(Recipe { config: config.into(), affinity, orders: on_grid("cross", author.grid()?)?, keys })
}
