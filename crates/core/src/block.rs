//! One block: norm, mixer, residual (and, if asked for, norm, MLP, residual).

use tch::{Kind, Tensor, nn};

use crate::{
    Result,
    init::{Init, Start},
    layers::{Conv2d, DropPath, Kernel, Mlp, MlpKind, Norm, NormKind, to_map, to_tokens},
    mixer::{Mixer, map_of},
    ops::Orders,
};

/// Where a block's first norm acts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum NormPlace {
    /// On what the mixer reads.
    #[default]
    Before,
    /// On what the mixer makes.
    After,
    /// Nowhere: the mixer has norms of its own.
    None,
}

/// What stands around a block's mixer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// Which normalisation.
    pub norm: NormKind,
    /// Added to the variance in a normalisation.
    pub norm_eps: f64,
    /// Where the mixer's norm acts; that of the MLP acts on what it reads.
    pub norm_place: NormPlace,
    /// The mixer's branch is added to the normalised tokens that it read, not to the stream (Mamba-ND as released).
    pub carry_normed: bool,
    /// In front of each norm a depthwise 3x3 convolution over the map is added to the stream (Spatial-Mamba).
    pub position_conv: bool,
    /// Probability of dropping the block's branches for a sample while training.
    pub drop_path: f64,
    /// Start of a learned scale per channel on the mixer's output (arXiv 2103.17239); none if absent.
    pub layer_scale: Option<f64>,
    /// Channels inside the MLP; 0 for none.
    pub mlp: i64,
    /// Which MLP.
    pub mlp_kind: MlpKind,
    /// The tokens lie on the frames of a clip, which a convolution in the MLP runs over too.
    pub clip: bool,
    /// Where the MLP's weights start from.
    pub start: Start,
    /// Branches that add up in the whole model.
    pub residuals: i64,
}

impl Default for BlockConfig {
    fn default() -> Self {
        BlockConfig {
            d_model: 128,
            norm: NormKind::Rms,
            norm_eps: 1e-5,
            norm_place: NormPlace::Before,
            carry_normed: false,
            position_conv: false,
            drop_path: 0.0,
            layer_scale: None,
            mlp: 0,
            mlp_kind: MlpKind::Gelu,
            clip: false,
            start: Start::FanIn,
            residuals: 1,
        }
    }
}

/// A pre-norm residual block over a stream that is kept in f32.
///
/// As in the authors' code the sum is taken at the start of the next block, so that a position rotation can
/// be put between: a block reads (hidden, residual) and returns (branch, residual + hidden).
///
/// `norm` (none if it acts nowhere), `mixer.*`, `gamma` of a layer scale, `norm2` and `mlp` of an MLP, `position` and
/// `position2` of position convolutions.
pub struct Block {
    norm: Option<Norm>,
    place: NormPlace,
    carry_normed: bool,
    mixer: Box<dyn Mixer>,
    gamma: Option<Tensor>,
    mlp: Option<(Norm, Mlp)>,
    positions: Option<[Conv2d; 2]>,
    drop_path: DropPath,
}

impl Block {
    /// A block around `mixer`, whose parameters are under `mixer` of the same path.
    pub fn new(vs: &nn::Path, config: &BlockConfig, mixer: Box<dyn Mixer>) -> Block {
        let norm = (config.norm_place != NormPlace::None)
            .then(|| Norm::new(&(vs / "norm"), config.norm, config.d_model, config.norm_eps));
        Block::with_norm(vs, config, mixer, norm)
    }

    /// As [`new`](Block::new), with a norm that other blocks have too.
    pub fn with_norm(
        vs: &nn::Path,
        config: &BlockConfig,
        mixer: Box<dyn Mixer>,
        norm: Option<Norm>,
    ) -> Block {
        let BlockConfig { d_model, mlp, mlp_kind, residuals, start, .. } = *config;
        let second = || {
            let norm = Norm::new(&(vs / "norm2"), config.norm, d_model, config.norm_eps);
            (norm, Mlp::new(&(vs / "mlp"), mlp_kind, [d_model, mlp], config.clip, residuals, start))
        };
        let position = |name: &str| Conv2d::new(&(vs / name), &Kernel::depthwise(d_model, 3, 1), true, None);
        Block {
            norm,
            place: config.norm_place,
            carry_normed: config.carry_normed,
            mixer,
            gamma: config.layer_scale.map(|start| Init::Constant(start).parameter(vs, "gamma", &[d_model])),
            mlp: (mlp > 0).then(second),
            positions: config.position_conv.then(|| ["position", "position2"].map(position)),
            drop_path: DropPath::new(config.drop_path),
        }
    }

    /// `hidden` (B, L, d_model) and the stream it adds to, none at the start; returns the branch and the
    /// stream.
    ///
    /// # Errors
    /// Those of the mixer, or shapes that do not fit.
    pub fn forward(
        &self,
        hidden: &Tensor,
        residual: Option<&Tensor>,
        orders: &Orders,
        train: bool,
    ) -> Result<(Tensor, Tensor)> {
        let [position, position2] = match &self.positions {
            Some([first, second]) => [Some(first), Some(second)],
            None => [None, None],
        };
        let (mut branch, residual) = match (&self.norm, self.place) {
            (Some(norm), NormPlace::Before) => {
                let [normed, stream] = normed(norm, hidden, residual, position, orders)?;
                let branch = self.mixer.forward_t(&normed, orders, train)?;
                (branch, if self.carry_normed { normed.to_kind(Kind::Float) } else { stream })
            }
            (norm, _) => {
                let stream = positioned(add(hidden, residual)?, position, orders)?;
                let branch = self.mixer.forward_t(&stream, orders, train)?;
                let after = norm.as_ref().filter(|_| self.place == NormPlace::After);
                (after.map_or(Ok(branch.shallow_clone()), |norm| norm.forward(&branch))?, stream)
            }
        };
        if let Some(gamma) = &self.gamma {
            branch = branch.f_mul(gamma)?;
        }
        let branch = self.drop_path.forward(branch, train);
        let Some((norm, mlp)) = &self.mlp else {
            return Ok((branch, residual));
        };
        let [normed, residual] = normed(norm, &branch, Some(&residual), position2, orders)?;
        let grid = if mlp.needs_grid() { orders.plane()? } else { &[] };
        let branch = mlp.forward(&normed, grid)?;
        Ok((self.drop_path.forward(branch, train), residual))
    }
}

/// `hidden` onto the stream, in f32.
pub(crate) fn add(hidden: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    Ok(match residual {
        // bf16 + f32 is f32.
        Some(residual) => residual.f_add(hidden)?,
        None => hidden.to_kind(Kind::Float),
    })
}

/// The norm of the stream that `hidden` is added to, and that stream.
fn normed(
    norm: &Norm,
    hidden: &Tensor,
    residual: Option<&Tensor>,
    conv: Option<&Conv2d>,
    orders: &Orders,
) -> Result<[Tensor; 2]> {
    if let (Some(residual), None) = (residual, conv) {
        return norm.add(hidden, residual);
    }
    let stream = positioned(add(hidden, residual)?, conv, orders)?;
    Ok([norm.forward(&stream)?, stream])
}

/// The stream, and what a convolution over its map makes of it.
fn positioned(stream: Tensor, conv: Option<&Conv2d>, orders: &Orders) -> Result<Tensor> {
    let Some(conv) = conv else { return Ok(stream) };
    let added = conv.forward(&to_map(&stream, map_of(orders)?)?)?;
    Ok(stream.f_add(&to_tokens(&added)?)?)
}
