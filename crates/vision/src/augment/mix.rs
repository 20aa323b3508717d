//! Mixup (Zhang et al., 2017) and cutmix (Yun et al., 2019): batches blended with themselves in another order.

use ophidian_core::{Error, Result, rng::Rng};
use rand::{RngExt, seq::SliceRandom};
use rand_distr::{Beta, Distribution};
use tch::Tensor;

use super::Augment;

/// Mixes a batch: images (batch, channels, height, width) or clips (batch, channels, frames, height, width) and targets
/// (batch, classes) in, the same out. All frames of a clip are mixed alike.
///
/// # Errors
/// [`Error::Invalid`] if the shapes are others; libtorch's errors.
pub fn mix(augment: &Augment, input: Tensor, target: Tensor, rng: &mut Rng) -> Result<(Tensor, Tensor)> {
    let alpha = match (augment.mixup > 0.0, augment.cutmix > 0.0) {
        (false, false) => return Ok((input, target)),
        (mixup, cutmix) => {
            // Both draws are made whatever the settings, so that one setting does not shift the rest of the stream.
            let (on, first) = (rng.random_bool(augment.mix_probability), rng.random_bool(0.5));
            if !on {
                return Ok((input, target));
            }
            if mixup && (!cutmix || first) { Mix::Blend(augment.mixup) } else { Mix::Cut(augment.cutmix) }
        }
    };
    let (batch, height, width) = match input.size()[..] {
        [batch, _, height, width] | [batch, _, _, height, width] => (batch, height, width),
        ref other => {
            return Err(Error::invalid(format!(
                "mixup and cutmix take images (batch, channels, height, width) or clips of them, found {other:?}"
            )));
        }
    };
    if target.size().len() != 2 || target.size()[0] != batch {
        return Err(Error::invalid(format!("targets are {:?}, expected ({batch}, classes)", target.size())));
    }
    let mut order: Vec<i64> = (0..batch).collect();
    order.shuffle(rng);
    let order = Tensor::from_slice(&order).to_device(input.device());
    let other = input.f_index_select(0, &order)?;
    let (input, keep) = match alpha {
        Mix::Blend(alpha) => {
            let keep = share(alpha, rng)?;
            (input.f_mul_scalar(keep)?.f_add(&other.f_mul_scalar(1.0 - keep)?)?, keep)
        }
        Mix::Cut(alpha) => {
            let side = (1.0 - share(alpha, rng)?).sqrt();
            let (top, h) = span(height, side, rng);
            let (left, w) = span(width, side, rng);
            let mut mixed = input.f_zeros_like()?;
            mixed.f_copy_(&input)?;
            if h > 0 && w > 0 {
                let part = |image: &Tensor| image.f_narrow(-2, top, h)?.f_narrow(-1, left, w);
                part(&mixed)?.f_copy_(&part(&other)?)?;
            }
            (mixed, 1.0 - (h * w) as f64 / (height * width) as f64)
        }
    };
    let other = target.f_index_select(0, &order)?;
    let target = target.f_mul_scalar(keep)?.f_add(&other.f_mul_scalar(1.0 - keep)?)?;
    Ok((input, target))
}

enum Mix {
    Blend(f64),
    Cut(f64),
}

/// A share from Beta(alpha, alpha).
fn share(alpha: f64, rng: &mut Rng) -> Result<f64> {
    let beta = Beta::new(alpha, alpha)
        .map_err(|error| Error::Config(format!("`data.augment.mixup` or `cutmix` is {alpha}: {error}")))?;
    Ok(beta.sample(rng))
}

/// A stretch of about `share` of `length` about a random place, cut at the ends: (first, length).
fn span(length: i64, share: f64, rng: &mut Rng) -> (i64, i64) {
    let half = (length as f64 * share / 2.0) as i64;
    let centre = rng.random_range(0..length);
    let (first, last) = ((centre - half).max(0), (centre + half).min(length));
    (first, (last - first).max(0))
}
