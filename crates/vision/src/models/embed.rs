//! From pixels to tokens.

use ophidian_core::{Error, Result, init::Init};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

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

/// Patch, class token and position embedding.
pub(super) struct Embedding {
    weight: Tensor,
    bias: Tensor,
    stride: i64,
    /// One of (1, 1, d_model) for each class token, and where it stands.
    class_tokens: Vec<(i64, Tensor)>,
    positions: Option<Tensor>,
}

impl Embedding {
    pub fn new(
        vs: &nn::Path,
        channels: i64,
        patch: [i64; 2],
        stride: i64,
        d_model: i64,
        patches: i64,
        pool: Pool,
        positions: bool,
    ) -> Embedding {
        let proj = vs / "patch_embed" / "proj";
        let at = pool.class_tokens(patches);
        let names: &[&str] =
            if at.len() == 2 { &["cls_token_head", "cls_token_tail"] } else { &["cls_token"] };
        let token = |name: &str| Init::Normal(0.02).parameter(vs, name, &[1, 1, d_model]);
        let tokens = patches + at.len() as i64;
        Embedding {
            weight: Init::LecunNormal.parameter(&proj, "weight", &[d_model, channels, patch[0], patch[1]]),
            bias: Init::Constant(0.0).parameter(&proj, "bias", &[d_model]),
            stride,
            class_tokens: at.into_iter().zip(names.iter().map(|name| token(name))).collect(),
            positions: positions
                .then(|| Init::Normal(0.02).parameter(vs, "pos_embed", &[1, tokens, d_model])),
        }
    }

    /// Images (B, channels, H, W) to tokens (B, L, d_model).
    pub fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let map = images.f_conv2d(&self.weight, Some(&self.bias), self.stride, 0, 1, 1)?; // (B, d_model, h, w)
        let patches = map.flatten(2, 3).transpose(1, 2); // (B, M, d_model)
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
            Some(positions) => tokens.f_add(positions)?,
            None => tokens,
        })
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
