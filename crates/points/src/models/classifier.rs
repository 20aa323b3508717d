//! The model that a [`ModelConfig`] describes.

use std::sync::Arc;

use ophidian_core::{
    Error, Result,
    adapter::{Model, Planner},
    backbone::Backbone,
    block::{Block, BlockConfig},
    init::{Init, no_weight_decay},
    layers::{BatchNorm, Linear},
    ops::Orders,
    tape::{self, Ground},
};
use tch::{Device, Kind, Tensor, nn};

use super::{
    Input, ModelConfig, Pool,
    encoder::Encoder,
    walks::{Layout, Walks},
};

/// Groups become tokens, blocks, pooling, head.
pub struct Classifier {
    config: ModelConfig,
    input: Input,
    encoder: Encoder,
    /// Two linear maps with GELU between.
    position: (Linear, Linear),
    /// Scale and shift of each order (K, d_model), if the directions are one sequence.
    indicator: Option<(Tensor, Tensor)>,
    /// (1, 1, d_model), and its position.
    class_token: Option<(Tensor, Tensor)>,
    backbone: Backbone,
    head: Head,
    walks: Arc<Walks>,
    /// Of each scan.
    directions: Vec<i64>,
}

impl Classifier {
    /// The model for `input` and `classes` classes. Values come from libtorch's generator.
    ///
    /// # Errors
    /// [`Error::Config`] if the config is wrong or a scan does not suit the input.
    pub fn new(vs: &nn::Path, config: &ModelConfig, input: Input, classes: i64) -> Result<Classifier> {
        config.check()?;
        let d = config.d_model;
        let layout = Layout { join: config.join, class_token: config.class_token };
        let walks = Walks::new(&config.scan, input, layout);
        let directions = directions(config, input)?;
        let init = config.init.linear();
        let time = i64::from(input.frames.is_some());
        let embed = vs / "pos_embed";
        let single = directions.first().copied().unwrap_or(1);
        let layers = vs / "layers";
        let block = |i: i64| {
            let directions = directions.get(i as usize % directions.len().max(1)).copied().unwrap_or(1);
            let mixer = config.mixer(if config.join { 1 } else { directions });
            let vs = &layers / i;
            Ok(Block::new(&vs, &block_config(config, i), mixer.build(&(&vs / "mixer"))?))
        };
        let blocks = (0..config.depth).map(block).collect::<Result<Vec<_>>>()?;
        let vector = |name: &str| Init::Normal(0.02).parameter(vs, name, &[1, 1, d]);
        let order = vs / "order";
        Ok(Classifier {
            input,
            encoder: Encoder::new(&(vs / "encoder"), input.channels, config.encoder, d, init),
            position: (
                Linear::new(&(&embed / 0), 3 + time, config.position, true, init),
                Linear::new(&(&embed / 2), config.position, d, true, init),
            ),
            indicator: config.join.then(|| {
                // Around 1 and 0, as the authors start them.
                let noise = |name: &str| Init::Normal(0.02).parameter(&order, name, &[single, d]);
                let gamma = noise("gamma");
                tch::no_grad(|| {
                    let _ = gamma.shallow_clone().g_add_scalar_(1.0);
                });
                (gamma, noise("beta"))
            }),
            class_token: config.class_token.then(|| (vector("cls_token"), vector("cls_pos"))),
            backbone: Backbone::new(vs, blocks, false, config.norm, d, config.norm_eps),
            head: Head::new(&(vs / "head"), config, classes),
            walks: Arc::new(walks),
            config: config.clone(),
            directions,
        })
    }

    /// How many directions each scan has.
    pub(super) fn directions(&self) -> &[i64] {
        &self.directions
    }

    /// The orders of a batch, made here and not by a loader: one entry for each pattern. `seed=sample` draws the same
    /// for every sample.
    fn orders(&self, input: &Tensor) -> Result<Vec<Orders>> {
        let values = input.to_device(Device::Cpu).to_kind(Kind::Float).contiguous();
        let values = Vec::<f32>::try_from(values.f_flatten(0, -1)?)?;
        let sample = self.input.shape().iter().product::<i64>().max(1) as usize;
        let mut all: Vec<Vec<ophidian_scan::Plan>> = vec![Vec::new(); self.config.scan.texts().len()];
        for sample in values.chunks_exact(sample) {
            let plans = self.walks.of(sample, || 0)?;
            all.iter_mut().zip(plans).for_each(|(all, plan)| all.push(plan));
        }
        all.iter().map(|plans| Orders::per_sample(plans)).collect()
    }

    /// Tokens (B, L, d_model) of groups (B, L, M, channels), without positions.
    ///
    /// # Errors
    /// Another number of channels.
    pub(super) fn tokens(&self, groups: &Tensor, train: bool) -> Result<Tensor> {
        let (b, l) = (groups.size()[0], groups.size()[1]);
        self.encoder.forward(&groups.f_flatten(0, 1)?, train)?.f_unflatten(0, [b, l]).map_err(Error::from)
    }

    /// Position embeddings (B, L, d_model) of centres (B, L, 3 or 4).
    fn positions(&self, centres: &Tensor) -> Result<Tensor> {
        let (first, second) = &self.position;
        second.forward(&first.forward(centres)?.f_gelu("none")?)
    }

    /// Logits of tokens (B, L, d_model) at centres (B, L, 3 or 4) along `orders`, one entry for each pattern.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub(super) fn logits(
        &self,
        tokens: &Tensor,
        centres: &Tensor,
        orders: &[Orders],
        train: bool,
    ) -> Result<Tensor> {
        let position = self.positions(centres)?;
        let mut tokens = match &self.indicator {
            Some((gamma, beta)) => {
                // (B, 1, L, d) by (K, 1, d): the tokens of the first order, then those of the second.
                let scaled =
                    tokens.f_unsqueeze(1)?.f_mul(&gamma.f_unsqueeze(1)?)?.f_add(&beta.f_unsqueeze(1)?)?;
                scaled.f_add(&position.f_unsqueeze(1)?)?.f_flatten(1, 2)? // (B, K L, d)
            }
            None => tokens.f_add(&position)?,
        };
        if let Some((token, position)) = &self.class_token {
            let class = token.f_add(position)?.f_expand([tokens.size()[0], 1, -1], false)?;
            tokens = Tensor::f_cat(&[tokens, class], 1)?;
        }
        tape::lay(|| {
            let ground = Ground::Loose { places: centres.size().get(1).copied().unwrap_or(0) };
            let last = tokens.size().get(1).copied().unwrap_or(0) - 1;
            tape::Layout { ground, class_tokens: self.class_token.iter().map(|_| last).collect() }
        });
        let per_block: Vec<Orders> = (0..self.config.depth as usize)
            .filter_map(|i| orders.get(i % orders.len().max(1)).cloned())
            .collect();
        let tokens = self.backbone.forward(&tokens, &per_block, None, train)?;
        let mean = || tokens.f_mean_dim(1, false, Kind::Float);
        let max = || tokens.f_amax(1, false);
        let mut parts = match self.config.pool {
            Pool::Mean => vec![mean()?],
            Pool::Max => vec![max()?],
            Pool::Both => vec![mean()?, max()?],
            Pool::Last => vec![tokens.f_select(1, self.tokens_last())?],
        };
        if self.class_token.is_some() {
            parts.insert(0, tokens.f_select(1, -1)?);
        }
        self.head.forward(&Tensor::f_cat(&parts, 1)?, train)
    }

    /// Number of the last token that is no class token.
    fn tokens_last(&self) -> i64 {
        if self.config.class_token { -2 } else { -1 }
    }

    /// Groups (B, L, M, channels) and centres (B, L, 3, or 4 with time) of a batch of inputs.
    fn parts(&self, input: &Tensor) -> Result<(Tensor, Tensor)> {
        let shape = self.input.shape();
        if input.size().split_first().is_none_or(|(_, rest)| rest != shape) {
            return Err(Error::invalid(format!(
                "clouds have shape {:?}, expected a batch of {shape:?}",
                input.size()
            )));
        }
        let batch = input.size()[0];
        let rows = input.f_reshape([batch, self.input.tokens(), 1 + self.input.size, self.input.channels])?;
        let groups = rows.f_narrow(2, 1, self.input.size)?;
        let centres = rows.f_select(2, 0)?.f_narrow(2, 0, 3)?;
        let Some(frames) = self.input.frames else { return Ok((groups, centres)) };
        // Time from -1 to 1, as the coordinates of a normalised cloud.
        let time = Tensor::f_linspace(-1.0, 1.0, frames, (Kind::Float, input.device()))?;
        let time = time.f_repeat_interleave_self_int(self.input.groups, 0, None)?.f_view([1, -1, 1])?;
        let time = time.f_expand([batch, -1, 1], false)?;
        Ok((groups, Tensor::f_cat(&[centres, time], 2)?))
    }
}

/// Directions of each scan over `input`, found on a cloud of no shape in particular.
fn directions(config: &ModelConfig, input: Input) -> Result<Vec<i64>> {
    let layout = Layout { join: false, class_token: false };
    let sample: i64 = input.shape().iter().product();
    // Golden ratio steps: spread out and all different.
    let value = |at: i64| ((at as f64 * 0.618_033_988_749_895).fract() * 2.0 - 1.0) as f32;
    let cloud: Vec<f32> = (0..sample).map(value).collect();
    let plans = Walks::new(&config.scan, input, layout).of(&cloud, || 0).map_err(|error| match error {
        Error::Scan(error) => Error::Config(format!("`scan`: {error}")),
        other => other,
    })?;
    let found: Vec<i64> = plans.iter().map(|plan| plan.directions() as i64).collect();
    if config.join && found.windows(2).any(|pair| pair[0] != pair[1]) {
        return Err(Error::Config(format!(
            "`join` needs scans of the same number of directions, but they have {found:?}"
        )));
    }
    Ok(found)
}

fn block_config(config: &ModelConfig, i: i64) -> BlockConfig {
    BlockConfig {
        d_model: config.d_model,
        norm: config.norm,
        norm_eps: config.norm_eps,
        drop_path: config.drop_path * i as f64 / (config.depth - 1).max(1) as f64,
        layer_scale: config.layer_scale,
        mlp: (config.mlp_ratio * config.d_model as f64) as i64,
        mlp_kind: config.mlp,
        start: config.init,
        residuals: config.residuals(),
        ..BlockConfig::default()
    }
}

/// Hidden layers with batch norm, ReLU and dropout, then a linear map.
struct Head {
    hidden: Vec<(Linear, BatchNorm)>,
    last: Linear,
    dropout: f64,
}

impl Head {
    /// Layers are numbered as in the authors' sequence: linear 4 i, batch norm 4 i + 1.
    fn new(vs: &nn::Path, config: &ModelConfig, classes: i64) -> Head {
        let (mut inputs, mut hidden) = (config.head_inputs(), Vec::new());
        for (i, width) in (0i64..).zip(&config.head) {
            let linear = Linear::new(&(vs / (4 * i)), inputs, *width, true, config.init.linear());
            hidden.push((linear, BatchNorm::new(&(vs / (4 * i + 1)), *width)));
            inputs = *width;
        }
        let last = Linear::new(&(vs / (4 * hidden.len() as i64)), inputs, classes, true, Init::Normal(0.02));
        Head { hidden, last, dropout: config.head_dropout }
    }

    /// (B, inputs) to logits (B, classes), f32.
    fn forward(&self, features: &Tensor, train: bool) -> Result<Tensor> {
        let mut x = features.shallow_clone();
        for (linear, norm) in &self.hidden {
            // One sample has no deviation: it is normalised by the running statistics, and leaves them alone.
            let batch = train && x.size()[0] > 1;
            x = norm.forward(&linear.forward(&x)?, batch)?.f_relu()?.f_dropout(self.dropout, train)?;
        }
        Ok(self.last.forward(&x)?.to_kind(Kind::Float))
    }
}

impl Model for Classifier {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        self.forward_along(input, &[], train)
    }

    fn planner(&self) -> Option<Arc<dyn Planner>> {
        Some(self.walks.clone())
    }

    fn forward_along(&self, input: &Tensor, orders: &[Orders], train: bool) -> Result<Tensor> {
        let (groups, centres) = self.parts(input)?;
        let own;
        let orders = if orders.is_empty() {
            own = self.orders(input)?;
            &own
        } else {
            orders
        };
        let expected = self.config.scan.texts().len();
        if orders.len() != expected {
            return Err(Error::invalid(format!(
                "{} plans were made for each sample, expected {expected}",
                orders.len()
            )));
        }
        self.logits(&self.tokens(&groups, train)?, &centres, orders, train)
    }

    /// As [`no_weight_decay`], and the indicators of orders, which start at 1 and 0 as a norm does.
    fn no_weight_decay(&self, name: &str) -> bool {
        no_weight_decay(name) || name.starts_with("order.") || name == "cls_pos"
    }
}

impl ModelConfig {
    /// Checks that the scans suit `input`.
    ///
    /// # Errors
    /// [`Error::Config`] of one that does not.
    pub fn check_input(&self, input: Input) -> Result<()> {
        directions(self, input).map(drop)
    }
}
