//! Choosing one of several classes so that gradients still reach their scores (Jang et al., arXiv 1611.01144).

use rand::RngExt;
use tch::{Kind, Tensor};

use crate::{Error, Result, rng::Rng};

/// How a class is chosen.
pub enum Choice<'a> {
    /// The one with the highest score.
    Likeliest,
    /// By Gumbel noise from this generator: each with the probability that its score says.
    Sampled(&'a mut Rng),
    /// These: class numbers (int64), one for each row of scores.
    Given(&'a Tensor),
}

impl Choice<'_> {
    /// Chooses for rows of unnormalised log probabilities (…, classes): class numbers (…), and their one-hot form
    /// (…, classes) whose gradient is that of the softmax (straight-through).
    ///
    /// # Errors
    /// Given classes of another shape, or that do not exist.
    pub fn choose(&mut self, scores: &Tensor) -> Result<(Tensor, Tensor)> {
        let scores = scores.to_kind(Kind::Float);
        let shape = scores.size();
        let Some((classes, rows)) = shape.split_last() else {
            return Err(Error::invalid("a choice needs scores of at least one axis"));
        };
        let noisy = match self {
            Choice::Sampled(rng) => {
                let noise: Vec<f32> = (0..scores.numel()).map(|_| gumbel(rng)).collect();
                scores.f_add(&Tensor::from_slice(&noise).to_device(scores.device()).f_view(&shape[..])?)?
            }
            _ => scores,
        };
        let chosen = match self {
            Choice::Given(chosen) => {
                let outside = |chosen: &Tensor| -> Result<bool> {
                    let wrong = chosen.f_lt(0)?.f_logical_or(&chosen.f_ge(*classes)?)?;
                    Ok(wrong.f_any()?.f_int64_value(&[])? != 0)
                };
                if chosen.size() != rows || chosen.kind() != Kind::Int64 || outside(chosen)? {
                    return Err(Error::invalid(format!(
                        "the chosen classes have shape {:?} and dtype {:?}, expected {rows:?} int64 of 0 to {}",
                        chosen.size(),
                        chosen.kind(),
                        classes - 1
                    )));
                }
                chosen.shallow_clone()
            }
            _ => noisy.f_argmax(-1, false)?,
        };
        let soft = noisy.f_softmax(-1, Kind::Float)?;
        let hard = soft.f_zeros_like()?.f_scatter_value(-1, &chosen.f_unsqueeze(-1)?, 1.0)?;
        if !soft.requires_grad() {
            return Ok((chosen, hard));
        }
        Ok((chosen, hard.f_add(&soft.f_sub(&soft.f_detach()?)?)?))
    }
}

/// A standard Gumbel number.
fn gumbel(rng: &mut Rng) -> f32 {
    // In (0, 1), both ends left out.
    let uniform = (f64::from(rng.random::<u32>()) + 0.5) / 4_294_967_296.0;
    -(-uniform.ln()).ln() as f32
}

/// As [`Choice::choose`]; if nothing is said, sampled where gradients are recorded or `always` asks for it, by a
/// generator that one number of libtorch's seeds, else the likeliest.
pub(super) fn choose(choice: Option<&mut Choice>, scores: &Tensor, always: bool) -> Result<(Tensor, Tensor)> {
    match choice {
        Some(choice) => choice.choose(scores),
        None if always || scores.requires_grad() => {
            let seed = Tensor::f_randint(i64::from(u32::MAX), [1], (Kind::Int64, tch::Device::Cpu))?;
            let mut rng = crate::rng::stream(&[seed.f_int64_value(&[0])? as u64]);
            Choice::Sampled(&mut rng).choose(scores)
        }
        None => Choice::Likeliest.choose(scores),
    }
}
