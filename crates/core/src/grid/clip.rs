//! From clips to tokens (VideoMamba, arXiv 2403.06977, section 3.2): patches of a few frames, and a position embedding
//! that is the sum of one for the place and one for the time.

use tch::{Tensor, nn};

use super::{ModelConfig, Pool, input::Input};
use crate::{
    Result,
    init::{Init, Start},
    layers::Norm,
};

/// Patches of `tubelet` frames, one convolution whose stride is its kernel in time, and maybe a norm.
pub(super) struct Tubelets {
    /// (d_model, channels, tubelet, rows, columns).
    weight: Tensor,
    bias: Tensor,
    strides: [i64; 3],
    padding: [i64; 3],
    norm: Option<Norm>,
}

impl Tubelets {
    /// Under `patch_embed.proj` and `patch_embed.norm` of `vs`.
    pub fn new(vs: &nn::Path, config: &ModelConfig, channels: i64) -> Tubelets {
        let (norm, vs) = (vs / "patch_embed" / "norm", vs / "patch_embed" / "proj");
        let ([rows, columns], d_model) = (config.patch_size.sides(), config.widths()[0]);
        let [down, across] = config.stride.sides();
        let shape = [d_model, channels, config.tubelet, rows, columns];
        let uniform = Init::convolution(shape.iter().skip(1).product());
        let [weight, bias] = match config.init {
            Start::FanIn => [Init::LecunNormal, Init::Constant(0.0)],
            Start::Normal | Start::NormalInputs => [uniform, uniform],
        };
        Tubelets {
            weight: weight.parameter(&vs, "weight", &shape),
            bias: bias.parameter(&vs, "bias", &[d_model]),
            strides: [config.tubelet, down, across],
            padding: [0, config.patch_padding, config.patch_padding],
            norm: config.patch_norm.then(|| Norm::new(&norm, config.norm, d_model, config.patch_eps())),
        }
    }

    /// Clips (B, channels, T, H, W) to patches (B, M, d_model), frame by frame and row by row.
    ///
    /// # Errors
    /// Clips of other channels, or smaller than a patch.
    pub fn forward(&self, clips: &Tensor) -> Result<Tensor> {
        let map = clips.f_conv3d(&self.weight, Some(&self.bias), self.strides, self.padding, 1, 1)?; // (B, d_model, t, h, w)
        let patches = map.f_flatten(2, -1)?.f_transpose(1, 2)?.f_contiguous()?;
        self.norm.as_ref().map_or(Ok(patches.shallow_clone()), |norm| norm.forward(&patches))
    }
}

/// Learned position embeddings of clips.
pub(super) struct Positions {
    /// (1, places of a frame and class tokens, d_model).
    places: Tensor,
    /// (1, times, d_model).
    times: Tensor,
    /// The rows of the two tables that the L tokens take, (L) each. A class token has no time: a row more.
    rows: [Tensor; 2],
}

impl Positions {
    /// For patches on `grid` at each of `times`, under `pos_embed` and `temporal.pos_embed` of `vs`.
    pub fn new(vs: &nn::Path, pool: Pool, d_model: i64, times: i64, grid: [i64; 2]) -> Positions {
        let (area, all) = (grid[0] * grid[1], grid[0] * grid[1] * times);
        let (within, among) = (pool.class_tokens(area), pool.class_tokens(all));
        let places = area + within.len() as i64;
        let free: Vec<i64> = (0..places).filter(|row| !within.contains(row)).collect();
        let mut patches = (0..times).flat_map(|time| free.iter().map(move |place| (*place, time)));
        let token = |at: i64| match among.iter().position(|token| *token == at) {
            Some(token) => (within[token], times),
            None => patches.next().unwrap_or((0, times)),
        };
        let (place, time): (Vec<i64>, Vec<i64>) = (0..all + among.len() as i64).map(token).unzip();
        Positions {
            places: Init::Normal(0.02).parameter(vs, "pos_embed", &[1, places, d_model]),
            times: Init::Constant(0.0).parameter(&(vs / "temporal"), "pos_embed", &[1, times, d_model]),
            rows: [place, time].map(|rows| Tensor::from_slice(&rows)),
        }
    }

    /// (1, L, d_model).
    ///
    /// # Errors
    /// None but libtorch's.
    pub fn forward(&self) -> Result<Tensor> {
        let none = self.times.f_zeros_like()?.f_narrow(1, 0, 1)?;
        let [places, moments] = self.rows.each_ref().map(|rows| rows.to_device(none.device()));
        let times = Tensor::f_cat(&[&self.times, &none], 1)?.f_index_select(1, &moments)?;
        Ok(self.places.f_index_select(1, &places)?.f_add(&times)?)
    }
}

/// The same of an input's sizes, if it is a clip.
pub(super) fn positions(
    vs: &nn::Path,
    config: &ModelConfig,
    input: &Input,
    grid: [i64; 2],
) -> Option<Positions> {
    let times = input.times(config.tubelet).filter(|_| config.pos_embed)?;
    Some(Positions::new(vs, config.pool, config.widths()[0], times, grid))
}
