//! MambaIRv2's attentive mixer (Guo et al. 2024, arXiv 2411.15269): one scan over the tokens sorted by a learned class,
//! whose prompt is added to C, so that a token reads what its class asks for.

use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor, nn};

use super::{
    Choice, ConvPlace, DtRank, Mamba1Config, Mixer,
    choice::choose,
    mamba1::ssm::{Ssm, first_steps},
    shell::{as_map, as_tokens, inverse_of, map_of, orders_of},
};
use crate::{
    Error, Result,
    init::Init,
    layers::{Linear, Norm, NormKind},
    ops::Orders,
};

/// What the released code does differently from the paper: needed to run its weights, off otherwise.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SemanticCompat {
    /// The tokens are sorted but not their prompts: step t adds the prompt of token t to the C of the token it visits.
    pub unsorted_prompts: bool,
    /// Chooses classes at random at inference too.
    pub random_inference: bool,
}

/// A MambaIRv2 mixer.
#[derive(Debug, Clone, PartialEq)]
pub struct SemanticConfig {
    /// Channels of a token.
    pub d_model: i64,
    /// States per channel (N).
    pub d_state: i64,
    /// d_inner / d_model.
    pub expand: f64,
    /// Rank of the projection to step sizes; of d_inner if automatic.
    pub dt_rank: DtRank,
    /// Classes.
    pub classes: i64,
    /// Rank of the prompts.
    pub rank: i64,
    /// Released quirks.
    pub compat: SemanticCompat,
}

impl Default for SemanticConfig {
    fn default() -> Self {
        SemanticConfig {
            d_model: 128,
            d_state: 16,
            expand: 2.0,
            dt_rank: DtRank::Auto,
            classes: 64,
            rank: 32,
            compat: SemanticCompat::default(),
        }
    }
}

impl SemanticConfig {
    /// The recurrence as a mixer of its own.
    fn mamba(&self) -> Mamba1Config {
        Mamba1Config {
            d_model: (self.expand * self.d_model as f64) as i64,
            d_state: self.d_state,
            expand: 1.0,
            dt_rank: self.dt_rank,
            conv: ConvPlace::None,
            gate: false,
            ..Mamba1Config::default()
        }
    }
}

/// The mixer: `in_proj` (D, d_model), a positional gate `position.weight` (D, 1, 3, 3) and `position.bias`, the
/// recurrence's parameters as in [`Mamba1`](super::Mamba1), `route.hidden` (d_model / 3, d_model) and `route.out`
/// (classes, d_model / 3), `prompt.classes` (classes, rank) and `prompt.states` (rank, N), `out_norm` (D), `out_proj`.
/// The orders tell the map alone.
///
/// A token's class is the likeliest; while gradients are recorded, with Gumbel noise seeded by libtorch's generator.
/// They reach the scores straight-through, by the prompt. Tokens of a class keep their order.
#[derive(Debug)]
pub struct Semantic {
    config: SemanticConfig,
    in_proj: Linear,
    position_weight: Tensor,
    position_bias: Tensor,
    ssm: Ssm,
    route: [Linear; 2],
    prompt_classes: Tensor,
    prompt_states: Tensor,
    out_norm: Norm,
    out_proj: Linear,
}

impl Semantic {
    /// A fresh mixer; the values come from libtorch's generator.
    ///
    /// # Errors
    /// A size that is not one, with its value and what it may be.
    pub fn new(vs: &nn::Path, config: &SemanticConfig) -> Result<Semantic> {
        let mamba = config.mamba();
        mamba.check()?;
        for (key, size) in [("d_model", config.d_model), ("classes", config.classes), ("rank", config.rank)] {
            if !(1..=1 << 20).contains(&size) {
                return Err(Error::Config(format!("`{key}` is {size}, expected 1 to {}", 1 << 20)));
            }
        }
        let SemanticConfig { d_model, d_state: n, classes, rank, .. } = *config;
        let (d, hidden) = (mamba.d_inner(), (d_model / 3).max(1));
        let (position, prompt, route) = (vs / "position", vs / "prompt", vs / "route");
        let taps = Init::Uniform(1.0 / 3.0);
        Ok(Semantic {
            config: config.clone(),
            in_proj: Linear::new(&(vs / "in_proj"), d_model, d, true, Init::Kaiming),
            position_weight: taps.parameter(&position, "weight", &[d, 1, 3, 3]),
            position_bias: taps.parameter(&position, "bias", &[d]),
            ssm: Ssm::new(vs, &mamba, first_steps(vs, &mamba)),
            route: [
                Linear::new(&(&route / "hidden"), d_model, hidden, true, Init::Kaiming),
                Linear::new(&(&route / "out"), hidden, classes, true, Init::Kaiming),
            ],
            prompt_classes: Init::Uniform(1.0 / classes as f64).parameter(
                &prompt,
                "classes",
                &[classes, rank],
            ),
            prompt_states: Init::Uniform(1.0 / rank as f64).parameter(&prompt, "states", &[rank, n]),
            out_norm: Norm::new(&(vs / "out_norm"), NormKind::Layer, d, 1e-5),
            out_proj: Linear::new(&(vs / "out_proj"), d, d_model, true, Init::Kaiming),
        })
    }

    /// As [`Mixer::forward`], with the class of each token (B, L) chosen as `choice` says.
    ///
    /// # Errors
    /// As there, or given classes that are none.
    pub fn forward_choosing(&self, tokens: &Tensor, orders: &Orders, choice: &mut Choice) -> Result<Tensor> {
        self.run(tokens, orders, Some(choice))
    }

    fn run(&self, tokens: &Tensor, orders: &Orders, choice: Option<&mut Choice>) -> Result<Tensor> {
        let map = map_of(orders)?;
        let shape = tokens.size();
        if shape.len() != 3 || shape[1] != orders.tokens() {
            return Err(Error::invalid(format!(
                "a mixer was given a tensor of shape {shape:?}, expected (batch, {}, {})",
                orders.tokens(),
                self.config.d_model
            )));
        }
        let [hidden, out] = &self.route;
        let scores = out.forward(&hidden.forward(tokens)?.f_gelu("none")?)?.f_log_softmax(2, Kind::Float)?;
        let random = self.config.compat.random_inference;
        let (classes, weights) = choose(choice, &scores, random)?; // (B, L), (B, L, classes)
        let mut prompt = weights.f_matmul(&self.prompt_classes.f_matmul(&self.prompt_states)?)?; // (B, L, N)
        let index = sorted_by_class(&classes)?;
        if self.config.compat.unsorted_prompts {
            prompt = prompt.f_gather(1, &inverse_of(&index)?.f_unsqueeze(2)?.f_expand_as(&prompt)?, false)?;
        }
        let x = self.in_proj.forward(tokens)?;
        let d = x.size()[2];
        let bias = Some(&self.position_bias);
        let near = as_map(&x, map)?.f_conv2d(&self.position_weight, bias, [1; 2], [1; 2], [1; 2], d)?;
        let u = x.f_mul(&as_tokens(&near)?.f_sigmoid()?)?;
        let mut coefficients = self.ssm.coefficients(&u.f_unsqueeze(2)?)?;
        coefficients.c = coefficients.c.f_add(&prompt.f_unsqueeze(2)?)?;
        let y = self.ssm.scan(&u, &coefficients, None, &orders_of(&index)?, false)?;
        self.out_proj.forward(&self.out_norm.forward(&y)?)
    }
}

impl Mixer for Semantic {
    fn forward(&self, tokens: &Tensor, orders: &Orders) -> Result<Tensor> {
        self.run(tokens, orders, None)
    }
}

/// The tokens of each sample by class, those of a class in their own order: (B, L) classes to (B, L), the token that
/// each step visits.
///
/// # Errors
/// Another shape.
pub fn sorted_by_class(classes: &Tensor) -> Result<Tensor> {
    Ok(classes.f_detach()?.f_argsort_stable(true, 1, false)?)
}
