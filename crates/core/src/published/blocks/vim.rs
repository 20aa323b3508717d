//! The Vim family: Mamba's own parameter names, with a suffix per direction.

use ophidian_scan::Geometry;

use super::{Author, Recipe, along, on_frames, on_grid, plan, size, summed};
use crate::{
    Error, Result,
    keymap::Key,
    mixer::{Channels, Compat, DtRank, Mamba1Config, Merge, Parameters},
    ops::Orders,
};

/// A mixer whose directions are called `suffixes`, A of direction k `decays[k]`.
fn vim(
    author: &Author,
    suffixes: &[&str],
    decays: &[&str],
    config: Mamba1Config,
    orders: Orders,
) -> Result<Recipe> {
    let each = |layer: &str, part: &str, axis: usize| {
        let named = suffixes.iter().map(|suffix| (format!("{layer}{suffix}{part}"), axis));
        named.collect::<Vec<_>>()
    };
    let d_model = author.d_model(&[("out_proj.weight", 0), ("in_proj.weight", 1)]);
    let mut inner = each("D", "", 0);
    inner.extend([("out_proj.weight".to_owned(), 1)]);
    inner.extend(each("conv1d", ".bias", 0));
    inner.extend(each("dt_proj", ".bias", 0));
    inner.extend(each("dt_proj", ".weight", 0));
    inner.extend(each("x_proj", ".weight", 1));
    let d_inner = author.axis(&inner);
    let mut keys = author.same(&["in_proj.weight", "out_proj.weight"]);
    for (k, decay) in decays.iter().enumerate() {
        keys.push(author.row(decay, "A_log", k));
    }
    for (k, suffix) in suffixes.iter().enumerate() {
        keys.push(author.row(&format!("D{suffix}"), "D", k));
        for (layer, part) in [
            ("conv1d", "weight"),
            ("conv1d", "bias"),
            ("x_proj", "weight"),
            ("dt_proj", "weight"),
            ("dt_proj", "bias"),
        ] {
            keys.push(author.row(&format!("{layer}{suffix}.{part}"), &format!("{layer}.{part}"), k));
        }
    }
    let config = Mamba1Config {
        d_model,
        directions: orders.directions(),
        d_state: author.axis(&decays.iter().map(|decay| (decay, 1)).collect::<Vec<_>>()),
        d_conv: author.axis(&each("conv1d", ".weight", 2)),
        expand: d_inner as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis(&each("dt_proj", ".weight", 1))),
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

pub(super) fn vim_v1(author: &Author) -> Result<Recipe> {
    let config = Mamba1Config { parameters: Parameters::Decay, ..summed() };
    vim(author, &[""], TWO[1], config, along("bidirectional", author.length())?)
}

pub(super) fn vim_v2(author: &Author) -> Result<Recipe> {
    vim(author, TWO[0], TWO[1], summed(), along("bidirectional", author.length())?)
}

pub(super) fn vim_v2_mean(author: &Author) -> Result<Recipe> {
    vim(author, TWO[0], TWO[1], Mamba1Config::default(), along("bidirectional", author.length())?)
}

pub(super) fn mamba3d(author: &Author) -> Result<Recipe> {
    let compat = Compat { mirrored_channels: true, ..Compat::default() };
    vim(
        author,
        TWO[0],
        TWO[1],
        Mamba1Config { compat, ..summed() },
        along("row | repeat(2)", author.length())?,
    )
}

pub(super) fn vivim(author: &Author) -> Result<Recipe> {
    tri(author, "nframes", Mamba1Config::default())
}

pub(super) fn segmamba(author: &Author) -> Result<Recipe> {
    tri(author, "nslices", summed())
}

/// Forward, backward and frame by frame, `frames` being what the frames are called.
fn tri(author: &Author, frames: &str, config: Mamba1Config) -> Result<Recipe> {
    let (name, frames) = (frames, author.int(frames, 1)?);
    let within = author.length() / frames;
    author.laid_out(&format!("`{name}` by tokens of one"), &[frames, within])?;
    let orders = on_frames("[row, row | reverse, row | axes(hwt)]", [frames, 1, within])?;
    vim(author, THREE[0], THREE[1], config, orders)
}

pub(super) fn dbm(author: &Author) -> Result<Recipe> {
    let config = Mamba1Config {
        parameters: Parameters::Shared,
        channels: Channels::Split,
        merge: Merge::Concat,
        ..Mamba1Config::default()
    };
    mamba(author, config, along("bidirectional", author.length())?)
}

pub(super) fn zigzag(author: &Author) -> Result<Recipe> {
    let (n, layer) = (author.int("N", 1)?, author.int("layer_idx", 0)?);
    author.laid_out("N by N", &[n, n])?;
    mamba(author, summed(), on_grid(&format!("zigzag({})", layer.rem_euclid(8)), [n, n])?)
}

/// T frames of N by N tokens, and the layer.
fn clip(author: &Author) -> Result<([i64; 2], i64)> {
    let [frames, n] = [author.int("T", 1)?, author.int("N", 1)?];
    author.laid_out("T by N by N", &[frames, n, n])?;
    Ok(([frames, n], author.int("layer", 0)?))
}

/// Layers within frames, along time in every third one: the s-th of the former follows zigzag s.
pub(super) fn zigma_space(author: &Author) -> Result<Recipe> {
    let ([frames, n], layer) = clip(author)?;
    let walk = format!("zigzag({}) | frames(reset=true)", (layer - layer / 3).rem_euclid(8));
    mamba(author, summed(), on_frames(&walk, [frames, n, n])?)
}

/// The line of each pixel, forwards and backwards in turn. As released: what a line makes comes back in reversed time.
pub(super) fn zigma_time(author: &Author) -> Result<Recipe> {
    let ([frames, n], layer) = clip(author)?;
    let line = |turn: bool| {
        let turn = if turn { " | mirror(frames)" } else { "" };
        on_frames(&format!("row | axes(hwt){turn} | segment(pixel)"), [frames, n, n])
    };
    let backwards = layer / 3 % 2 == 1;
    mamba(author, summed(), line(backwards)?.written_as(&line(!backwards)?)?)
}

pub(super) fn multimamba(author: &Author) -> Result<Recipe> {
    let words = author.option("directions").and_then(toml::Value::as_array);
    let words: Vec<&str> = words.into_iter().flatten().filter_map(toml::Value::as_str).collect();
    if words.is_empty() {
        return Err(author.wrong("directions", author.option("directions"), "a list of directions"));
    }
    let patterns = words.iter().map(|word| local_direction(word)).collect::<Result<Vec<_>>>()?;
    let grid = match *author.sizes {
        [_] => [author.int("H", 1)?, author.int("W", 1)?],
        _ => author.grid()?,
    };
    let classed = author.holds(&grid, 1);
    if !classed {
        author.laid_out("H by W", &grid)?;
    }
    let [rows, columns] = grid;
    let geometry = Geometry::Grid2 { height: size(rows), width: size(columns) };
    let mut found = plan(&format!("[{}]", patterns.join(", ")), &geometry)?;
    if classed {
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
    recipe.keys.extend(channel_gate(author));
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
pub fn channel_gate(author: &Author) -> Vec<Key> {
    let mut keys = Vec::new();
    for (theirs, ours) in [("norm", "norm"), ("global_reduce", "reduce"), ("channel_select", "select")] {
        for part in ["weight", "bias"] {
            keys.push(author.key(&format!("attn.{theirs}.{part}"), &format!("{ours}.{part}")));
        }
    }
    keys
}
