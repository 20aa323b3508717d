//! From pixels to tokens.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{
    Input, ModelConfig,
    clip::{self, Tubelets},
    stem::Stem,
};
use crate::{
    Error, Result,
    init::{Init, Start},
};

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

/// Patches, class tokens and position embedding.
pub(super) struct Embedding {
    patches: Patches,
    pool: Pool,
    /// One of (1, 1, d_model) for each class token.
    class_tokens: Vec<Tensor>,
    /// (1, L, d_model), and the grid it is for.
    positions: Option<(Tensor, [i64; 2])>,
    /// Those of clips.
    clip: Option<clip::Positions>,
}

/// From pixels to patches.
enum Patches {
    Images(Stem),
    /// On this grid.
    Clips(Tubelets, [i64; 2]),
}

/// What an [`Embedding`] makes of images.
pub(super) struct Embedded {
    /// (B, L, d_model), class tokens and positions included.
    pub tokens: Tensor,
    /// (B, M, d_model), neither included.
    pub patches: Tensor,
}

impl Embedding {
    /// For inputs that make patches on `grid`, at every time of a clip.
    pub fn new(vs: &nn::Path, config: &ModelConfig, input: &Input, grid: [i64; 2]) -> Embedding {
        let (pool, d_model, times) = (config.pool, config.widths()[0], input.times(config.tubelet));
        let at = pool.class_tokens(times.unwrap_or(1) * grid[0] * grid[1]);
        let names: &[&str] =
            if at.len() == 2 { &["cls_token_head", "cls_token_tail"] } else { &["cls_token"] };
        let token = if config.init == Start::NormalInputs { 0.0 } else { 0.02 };
        let token = |name: &&str| Init::Normal(token).parameter(vs, name, &[1, 1, d_model]);
        let tokens = grid[0] * grid[1] + at.len() as i64;
        Embedding {
            patches: match times {
                Some(_) => Patches::Clips(Tubelets::new(vs, config, input.channels), grid),
                None => Patches::Images(Stem::new(vs, config, input.channels)),
            },
            pool,
            class_tokens: names.iter().take(at.len()).map(token).collect(),
            clip: clip::positions(vs, config, input, grid),
            positions: (config.pos_embed && times.is_none())
                .then(|| (Init::Normal(0.02).parameter(vs, "pos_embed", &[1, tokens, d_model]), grid)),
        }
    }

    /// Images (B, channels, H, W) or clips (B, channels, T, H, W) to tokens. A position embedding for another grid is interpolated.
    pub fn forward(&self, images: &Tensor, train: bool) -> Result<Embedded> {
        let (patches, grid) = match &self.patches {
            Patches::Images(stem) => stem.forward(images, train)?,
            Patches::Clips(tubelets, grid) => (tubelets.forward(images)?, *grid),
        }; // (B, M, d_model)
        let [b, m, d] = patches.size()[..] else {
            return Err(Error::invalid("internal error: patches have no three axes"));
        };
        let at = self.pool.class_tokens(m);
        let (mut pieces, mut from) = (Vec::new(), 0);
        for (i, (at, token)) in at.iter().zip(&self.class_tokens).enumerate() {
            let upto = at - i as i64;
            pieces.push(patches.f_narrow(1, from, upto - from)?);
            pieces.push(token.f_expand([b, 1, d], false)?.to_kind(patches.kind()));
            from = upto;
        }
        pieces.push(patches.f_narrow(1, from, m - from)?);
        let tokens = if pieces.len() == 1 { patches.shallow_clone() } else { Tensor::f_cat(&pieces, 1)? };
        let tokens = match &self.positions {
            Some((positions, own)) if *own == grid => tokens.f_add(positions)?,
            Some((positions, own)) => {
                let old = self.pool.class_tokens(own[0] * own[1]);
                tokens.f_add(&resize_positions(positions, *own, grid, (&old, &at))?)?
            }
            None => tokens,
        };
        let tokens = match &self.clip {
            Some(positions) => tokens.f_add(&positions.forward()?)?,
            None => tokens,
        };
        Ok(Embedded { tokens, patches })
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
