//! From pixels to tokens.

use ophidian_core::{Error, Result, init::Init};
use ophidian_scan::Geometry;
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::config::{ModelConfig, Start};

/// Where the class token stands, or how tokens are pooled without one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// A class token before the patches is read.
    Head,
    /// A class token in the middle, before patch M / 2 of M, is read.
    #[default]
    Middle,
    /// A class token behind the patches is read.
    End,
    /// The mean of two class tokens, at both ends.
    Both,
    /// No class token: the mean of all tokens.
    Mean,
    /// No class token: the last token.
    Last,
    /// No class token: each class by the token that is surest of it.
    Max,
    /// No class token: logits of every token.
    All,
}

impl Pool {
    /// Where class tokens stand among the tokens, if there are `patches` patches.
    pub fn class_tokens(self, patches: i64) -> Vec<i64> {
        match self {
            Pool::Head => vec![0],
            Pool::Middle => vec![patches / 2],
            Pool::End => vec![patches],
            Pool::Both => vec![0, patches + 1],
            Pool::Mean | Pool::Last | Pool::Max | Pool::All => vec![],
        }
    }
}

/// Patches per column and row: the convolution is not padded, so pixels that no patch reaches are left out.
pub fn grid(image: [i64; 2], patch: [i64; 2], stride: i64) -> [i64; 2] {
    [0, 1].map(|axis| if image[axis] < patch[axis] { 0 } else { (image[axis] - patch[axis]) / stride + 1 })
}

/// What a model reads, and the grid of patches that it is cut into.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Shape {
    pub channels: i64,
    /// None for images.
    pub frames: Option<i64>,
    pub image: [i64; 2],
    /// Groups of `tubelet` frames, if there are frames.
    pub times: Option<i64>,
    pub grid: [i64; 2],
}

impl Shape {
    /// Of inputs (channels, height, width) or (channels, frames, height, width).
    ///
    /// # Errors
    /// [`Error::Config`] if they are neither, or hold no patch.
    pub fn new(input: &[i64], patch: [i64; 2], stride: i64, tubelet: i64) -> Result<Shape> {
        let (channels, frames, image) = match *input {
            [channels, height, width] => (channels, None, [height, width]),
            [channels, frames, height, width] => (channels, Some(frames), [height, width]),
            _ => {
                return Err(Error::Config(format!(
                    "inputs have shape {input:?}, expected images (channels, height, width) or clips (channels, \
                     frames, height, width)"
                )));
            }
        };
        if frames.is_none() && tubelet != 1 {
            return Err(Error::Config(format!(
                "`tubelet` is {tubelet}, but the inputs are images; expected 1, or clips of frames"
            )));
        }
        let times = frames.map(|frames| frames / tubelet.max(1));
        let shape = Shape { channels, frames, image, times, grid: grid(image, patch, stride) };
        if shape.patches() < 1 || channels < 1 {
            let [height, width] = image;
            let (what, depth) = match frames {
                Some(frames) => {
                    (format!("clips of {channels}x{frames}x{height}x{width}"), format!("{tubelet}x"))
                }
                None => (format!("images of {channels}x{height}x{width}"), String::new()),
            };
            return Err(Error::Config(format!(
                "{what} hold no patch of {depth}{}x{} pixels",
                patch[0], patch[1]
            )));
        }
        Ok(shape)
    }

    /// M.
    pub fn patches(&self) -> i64 {
        self.times.unwrap_or(1) * self.grid[0] * self.grid[1]
    }

    /// Where the patches lie, numbered frame by frame and row by row.
    pub fn geometry(&self) -> Geometry {
        let [height, width] = self.grid.map(|side| side as usize);
        match self.times {
            Some(times) => Geometry::Grid3 { frames: times as usize, height, width },
            None => Geometry::Grid2 { height, width },
        }
    }

    /// Whether inputs of `shape` are batches of it.
    ///
    /// # Errors
    /// They are not.
    pub fn check(&self, shape: &[i64]) -> Result<()> {
        let [h, w] = self.image;
        let fits = match (self.frames, shape) {
            (None, [_, rest @ ..]) => rest == [self.channels, h, w],
            (Some(frames), [_, rest @ ..]) => rest == [self.channels, frames, h, w],
            _ => false,
        };
        if fits {
            return Ok(());
        }
        let (what, c) = (if self.frames.is_some() { "clips" } else { "images" }, self.channels);
        let frames = self.frames.map_or(String::new(), |frames| format!("{frames}, "));
        Err(Error::invalid(format!("{what} have shape {shape:?}, expected (batch, {c}, {frames}{h}, {w})")))
    }
}

/// Patch, class token and position embedding.
pub(super) struct Embedding {
    /// (d_model, channels, rows, columns), for clips (d_model, channels, tubelet, rows, columns).
    weight: Tensor,
    bias: Tensor,
    /// One for each axis of a patch.
    strides: Vec<i64>,
    /// One of (1, 1, d_model) for each class token, and where it stands.
    class_tokens: Vec<(i64, Tensor)>,
    positions: Option<Positions>,
}

impl Embedding {
    pub fn new(vs: &nn::Path, config: &ModelConfig, shape: &Shape) -> Embedding {
        let (d_model, patch, normal) =
            (config.d_model, config.patch_size.sides(), config.init == Start::Normal);
        let proj = vs / "patch_embed" / "proj";
        let at = config.pool.class_tokens(shape.patches());
        let names: &[&str] =
            if at.len() == 2 { &["cls_token_head", "cls_token_tail"] } else { &["cls_token"] };
        let mut kernel = vec![d_model, shape.channels, patch[0], patch[1]];
        let mut strides = vec![config.stride; 2];
        if shape.frames.is_some() {
            kernel.insert(2, config.tubelet);
            strides.insert(0, config.tubelet);
        }
        let uniform = Init::Uniform((kernel.iter().skip(1).product::<i64>().max(1) as f64).powf(-0.5));
        let [weight, bias, token] = match normal {
            true => [uniform, uniform, Init::Constant(0.0)],
            false => [Init::LecunNormal, Init::Constant(0.0), Init::Normal(0.02)],
        };
        let token = |name: &str| token.parameter(vs, name, &[1, 1, d_model]);
        Embedding {
            weight: weight.parameter(&proj, "weight", &kernel),
            bias: bias.parameter(&proj, "bias", &[d_model]),
            strides,
            positions: config.pos_embed.then(|| Positions::new(vs, config, shape)),
            class_tokens: at.into_iter().zip(names.iter().map(|name| token(name))).collect(),
        }
    }

    /// Images (B, channels, H, W) or clips (B, channels, T, H, W) to tokens (B, L, d_model).
    pub fn forward(&self, inputs: &Tensor) -> Result<Tensor> {
        let (weight, bias) = (&self.weight, Some(&self.bias));
        let map = match self.strides[..] {
            [_, _] => inputs.f_conv2d(weight, bias, &self.strides[..], 0, 1, 1)?, // (B, d_model, h, w)
            _ => inputs.f_conv3d(weight, bias, &self.strides[..], 0, 1, 1)?,      // (B, d_model, t, h, w)
        };
        let patches = map.flatten(2, -1).transpose(1, 2); // (B, M, d_model)
        let (b, d) = (patches.size()[0], patches.size()[2]);
        let (mut pieces, mut from) = (Vec::new(), 0);
        for (i, (at, token)) in self.class_tokens.iter().enumerate() {
            let upto = at - i as i64;
            pieces.push(patches.f_narrow(1, from, upto - from)?);
            pieces.push(token.f_expand([b, 1, d], false)?.to_kind(patches.kind()));
            from = upto;
        }
        pieces.push(patches.f_narrow(1, from, patches.size()[1] - from)?);
        // One copy, which also makes a token's channels contiguous.
        let tokens = if pieces.len() == 1 { patches.contiguous() } else { Tensor::f_cat(&pieces, 1)? };
        Ok(match &self.positions {
            Some(positions) => tokens.f_add(&positions.forward()?)?,
            None => tokens,
        })
    }
}

/// Learned position embeddings: one for each place in an image, and for clips one for each time, of which a token has
/// the sum (VideoMamba, arXiv 2403.06977, section 3.2).
struct Positions {
    /// (1, places and class tokens, d_model).
    places: Tensor,
    /// Of clips: (1, times, d_model), and the rows of both that make up the tokens.
    times: Option<(Tensor, Rows)>,
}

/// The rows of the two tables that the L tokens take, (L) each. A class token has no time.
struct Rows {
    place: Tensor,
    time: Tensor,
}

impl Positions {
    fn new(vs: &nn::Path, config: &ModelConfig, shape: &Shape) -> Positions {
        let (d_model, [rows, columns]) = (config.d_model, shape.grid);
        let (area, all) = (rows * columns, shape.patches());
        let (within, among) = (config.pool.class_tokens(area), config.pool.class_tokens(all));
        let places = Init::Normal(0.02).parameter(vs, "pos_embed", &[1, area + within.len() as i64, d_model]);
        let times = shape.times.map(|times| {
            let free: Vec<i64> =
                (0..area + within.len() as i64).filter(|row| !within.contains(row)).collect();
            let mut patches = (0..all).map(|patch| (free[(patch % area) as usize], patch / area));
            let token = |at: i64| match among.iter().position(|token| *token == at) {
                Some(token) => (within[token], times),
                None => patches.next().unwrap_or((0, times)),
            };
            let (place, time): (Vec<i64>, Vec<i64>) = (0..all + among.len() as i64).map(token).unzip();
            let [place, time] = [place, time].map(|rows| Tensor::from_slice(&rows).to_device(vs.device()));
            let table = Init::Constant(0.0).parameter(&(vs / "temporal"), "pos_embed", &[1, times, d_model]);
            (table, Rows { place, time })
        });
        Positions { places, times }
    }

    /// (1, L, d_model).
    fn forward(&self) -> Result<Tensor> {
        let Some((times, rows)) = &self.times else { return Ok(self.places.shallow_clone()) };
        let none = times.f_zeros_like()?.f_narrow(1, 0, 1)?;
        let times = Tensor::f_cat(&[times, &none], 1)?.f_index_select(1, &rows.time)?;
        Ok(self.places.f_index_select(1, &rows.place)?.f_add(&times)?)
    }
}

/// A learned position embedding (1, L, d_model) for another grid: bicubic between the patches' entries,
/// class tokens' entries as they are. `class_tokens` says where those stand in the old and in the new
/// sequence.
///
/// # Errors
/// The embedding does not have the old grid's number of tokens.
pub fn resize_positions(
    positions: &Tensor,
    from: [i64; 2],
    to: [i64; 2],
    class_tokens: (&[i64], &[i64]),
) -> Result<Tensor> {
    let (shape, patches) = (positions.size(), from[0] * from[1]);
    let [1, tokens, d] = shape[..] else {
        return Err(Error::invalid(format!(
            "a position embedding has shape {shape:?}, expected (1, L, d_model)"
        )));
    };
    let (old, new) = class_tokens;
    if tokens != patches + old.len() as i64 || old.len() != new.len() {
        return Err(Error::invalid(format!(
            "a position embedding has {tokens} tokens, expected {}x{} patches and {} class tokens",
            from[0],
            from[1],
            old.len()
        )));
    }
    let at = |i: &i64| positions.f_narrow(1, *i, 1);
    let pieces = (0..tokens)
        .filter(|i| !old.contains(i))
        .map(|i| at(&i))
        .collect::<std::result::Result<Vec<_>, _>>()?;
    let map = Tensor::f_cat(&pieces, 1)?.transpose(1, 2).reshape([1, d, from[0], from[1]]);
    let map = map.f_upsample_bicubic2d(to, false, None::<f64>, None::<f64>)?.flatten(2, 3).transpose(1, 2);
    let mut rest = (0..to[0] * to[1]).map(|i| map.f_narrow(1, i, 1));
    let pieces = (0..to[0] * to[1] + new.len() as i64)
        .filter_map(|i| match new.iter().position(|n| *n == i) {
            Some(k) => Some(at(&old[k])),
            None => rest.next(),
        })
        .collect::<std::result::Result<Vec<_>, _>>()?;
    Ok(Tensor::f_cat(&pieces, 1)?.to_kind(Kind::Float))
}
