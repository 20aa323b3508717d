//! One block: norm, mixer, residual (and, if asked for, norm, MLP, residual).

use tch::{Tensor, nn};

use crate::{
    Result,
    init::{Init, Start},
    layers::{DropPath, Mlp, MlpKind, Norm, NormKind},
    mixer::Mixer,
    ops::Orders,
};

/// What stands around a block's mixer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BlockConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// Which normalisation.
    pub norm: NormKind,
    /// Added to the variance in a normalisation.
    pub norm_eps: f64,
    /// Probability of dropping the block's branches for a sample while training.
    pub drop_path: f64,
    /// Start of a learned scale per channel on the mixer's output (arXiv 2103.17239); none if absent.
    pub layer_scale: Option<f64>,
    /// Channels inside the MLP; 0 for none.
    pub mlp: i64,
    /// Which MLP.
    pub mlp_kind: MlpKind,
    /// Where the MLP's weights start from.
    pub start: Start,
    /// Branches that add up in the whole model.
    pub residuals: i64,
}

/// A pre-norm residual block over a stream that is kept in f32.
///
/// As in the authors' code the sum is taken at the start of the next block, so that a position rotation can
/// be put between: a block reads (hidden, residual) and returns (branch, residual + hidden).
pub struct Block {
    norm: Norm,
    mixer: Box<dyn Mixer>,
    gamma: Option<Tensor>,
    mlp: Option<(Norm, Mlp)>,
    drop_path: DropPath,
}

impl Block {
    /// A block around `mixer`, whose parameters are under `mixer` of the same path.
    pub fn new(vs: &nn::Path, config: &BlockConfig, mixer: Box<dyn Mixer>) -> Block {
        let norm = |name: &str| Norm::new(&(vs / name), config.norm, config.d_model, config.norm_eps);
        let mlp = || {
            let BlockConfig { d_model, mlp, mlp_kind, residuals, start, .. } = *config;
            (norm("norm2"), Mlp::new(&(vs / "mlp"), mlp_kind, d_model, mlp, residuals, start))
        };
        Block {
            norm: norm("norm"),
            mixer,
            gamma: config
                .layer_scale
                .map(|start| Init::Constant(start).parameter(vs, "gamma", &[config.d_model])),
            mlp: (config.mlp > 0).then(mlp),
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
        let residual = add(hidden, residual)?;
        let mut branch = self.mixer.forward(&self.norm.forward(&residual)?, orders)?;
        if let Some(gamma) = &self.gamma {
            branch = branch.f_mul(gamma)?;
        }
        let branch = self.drop_path.forward(branch, train);
        let Some((norm, mlp)) = &self.mlp else {
            return Ok((branch, residual));
        };
        let residual = add(&branch, Some(&residual))?;
        let branch = mlp.forward(&norm.forward(&residual)?)?;
        Ok((self.drop_path.forward(branch, train), residual))
    }
}

/// `hidden` onto the stream, in f32.
pub(crate) fn add(hidden: &Tensor, residual: Option<&Tensor>) -> Result<Tensor> {
    Ok(match residual {
        // bf16 + f32 is f32.
        Some(residual) => residual.f_add(hidden)?,
        None => hidden.to_kind(tch::Kind::Float),
    })
}
