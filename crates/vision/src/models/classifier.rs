//! The model that a [`ModelConfig`] describes.

use std::sync::Arc;

use ophidian_core::{
    Error, Result,
    adapter::{Model, Planner},
    backbone::{Backbone, Between},
    block::{Block, BlockConfig},
    data::Sample,
    init::{Init, no_weight_decay},
    layers::Linear,
    mixer::Mamba1,
    ops::Orders,
    rng::Rng,
};
use ophidian_scan::{Geometry, Plan};
use rand::Rng as _;
use tch::{Kind, Tensor, nn};

use super::{
    ModelConfig, Start,
    config::{plan, reseeded},
    embed::{Embedding, Pool, Shape},
    rope::{Rope, Rotary},
};

/// Patches and class tokens, blocks, pooling, head.
pub struct Classifier {
    shape: Shape,
    embedding: Embedding,
    rotary: Option<Rotary>,
    backbone: Backbone,
    /// One entry for each block.
    orders: Vec<Orders>,
    /// Which of the plans that are drawn for each sample a block takes, if any.
    places: Vec<Option<usize>>,
    drawn: Option<Arc<Drawn>>,
    pool: Pool,
    class_tokens: Vec<i64>,
    /// None reads features out as they are.
    head: Option<Linear>,
}

impl Classifier {
    /// The model for images of `input` = (channels, height, width) or clips of (channels, frames, height, width), and
    /// `classes` classes, 0 for features alone. Values come from libtorch's generator.
    ///
    /// # Errors
    /// [`Error::Config`] if the config is wrong or does not fit the inputs.
    pub fn new(vs: &nn::Path, config: &ModelConfig, input: &[i64], classes: i64) -> Result<Classifier> {
        config.check()?;
        if classes < 0 {
            return Err(Error::Config(format!("there are {classes} classes, expected at least 0")));
        }
        let shape = Shape::new(input, config.patch_size.sides(), config.stride, config.tubelet)?;
        let (patches, d_model) = (shape.patches(), config.d_model);
        let class_tokens = config.pool.class_tokens(patches);
        let embedding = Embedding::new(vs, config, &shape);
        let rotary = (config.rope != Rope::None)
            .then(|| {
                if shape.frames.is_some() {
                    let text =
                        "`rope` rotates by row and column and knows no time: expected \"none\" for clips";
                    return Err(Error::Config(text.into()));
                }
                let residual = config.rope == Rope::Residual;
                let rotary = Rotary::new(&(vs / "rope"), shape.grid, config.rope_grid, d_model, residual)?;
                rotary.check(patches + class_tokens.len() as i64)?;
                Ok::<_, Error>(rotary)
            })
            .transpose()?;
        let (texts, geometry) = (config.scan.texts(), shape.geometry());
        let of = |text: &String| Ok(Orders::new(&plan(text, 0, &geometry, &class_tokens)?));
        let distinct: Vec<Orders> = texts.iter().map(of).collect::<Result<_>>()?;
        let drawn: Vec<String> = texts.iter().filter(|text| reseeded(text, 0).is_some()).cloned().collect();
        let places: Vec<Option<usize>> =
            texts.iter().map(|text| drawn.iter().position(|other| other == text)).collect();
        let orders: Vec<Orders> =
            (0..config.depth as usize).map(|i| distinct[i % distinct.len()].clone()).collect();
        let layers = vs / "layers";
        let block = |(i, orders): (usize, &Orders)| {
            let vs = &layers / i;
            let mixer = Mamba1::new(&(&vs / "mixer"), &config.mixer(orders.directions()))?;
            Ok(Block::new(&vs, &block_config(config, i as i64), Box::new(mixer)))
        };
        let blocks = orders.iter().enumerate().map(block).collect::<Result<Vec<_>>>()?;
        if config.init == Start::Normal {
            start_normal(vs, config.depth);
        }
        Ok(Classifier {
            shape,
            embedding,
            rotary,
            backbone: Backbone::new(vs, blocks, config.layer_pairs, config.norm, d_model, config.norm_eps),
            places: (0..orders.len()).map(|i| places[i % places.len()]).collect(),
            orders,
            drawn: (!drawn.is_empty())
                .then(|| Arc::new(Drawn { texts: drawn, geometry, class_tokens: class_tokens.clone() })),
            pool: config.pool,
            class_tokens,
            head: (classes > 0)
                .then(|| Linear::new(&(vs / "head"), d_model, classes, true, Init::Normal(0.02))),
        })
    }

    /// What the head reads: (batch, d_model), or (batch, tokens, d_model) where every token is read.
    ///
    /// # Errors
    /// Inputs of another shape.
    pub fn features(&self, inputs: &Tensor, train: bool) -> Result<Tensor> {
        self.read(inputs, &self.orders, train)
    }

    /// The features along `orders`, one for each block.
    fn read(&self, inputs: &Tensor, orders: &[Orders], train: bool) -> Result<Tensor> {
        self.shape.check(&inputs.size())?;
        let tokens = self.embedding.forward(inputs)?; // (B, L, d_model)
        let between = self.rotary.as_ref().map(|rotary| rotary as &dyn Between);
        let tokens = self.backbone.forward(&tokens, orders, between, train)?;
        let at = |i: i64| tokens.f_select(1, i);
        Ok(match (self.pool, &self.class_tokens[..]) {
            (_, [at_one]) => at(*at_one)?,
            (_, [first, second]) => (at(*first)? + at(*second)?) / 2.0,
            (Pool::Mean, _) => tokens.f_mean_dim(1, false, Kind::Float)?,
            (Pool::Last, _) => at(-1)?,
            _ => tokens,
        })
    }

    /// Logits of [`features`](Classifier::features): (batch, classes), or (batch, tokens, classes) with
    /// `pool = "all"`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor> {
        let logits = match &self.head {
            Some(head) => head.forward(features)?.to_kind(Kind::Float),
            None => features.shallow_clone(),
        };
        Ok(if self.pool == Pool::Max { logits.f_amax(1, false)? } else { logits })
    }
}

fn block_config(config: &ModelConfig, i: i64) -> BlockConfig {
    BlockConfig {
        d_model: config.d_model,
        norm: config.norm,
        norm_eps: config.norm_eps,
        drop_path: config.drop_path * i as f64 / (config.depth - 1).max(1) as f64,
        layer_scale: config.layer_scale,
        mlp: (config.mlp_ratio * config.d_model as f64) as i64,
        residuals: config.mixer(1).residuals,
    }
}

/// Starts the linear maps of the blocks, but for the mixers' last, as vision transformers do ([`Start::Normal`]).
fn start_normal(vs: &nn::Path, depth: i64) {
    let layers = vs / "layers";
    tch::no_grad(|| {
        for i in 0..depth {
            let block = &layers / i;
            for (part, linear) in [
                ("mixer", "in_proj"),
                ("mixer", "x_proj"),
                ("mixer", "dt_proj"),
                ("mlp", "fc1"),
                ("mlp", "fc2"),
            ] {
                let linear = &block / part / linear;
                if let Some(mut weight) = linear.get("weight") {
                    let _ = weight.normal_(0.0, 0.02);
                }
                if let Some(mut bias) = linear.get("bias") {
                    let _ = bias.zero_();
                }
            }
        }
    });
}

impl Model for Classifier {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        self.logits(&self.features(input, train)?)
    }

    fn planner(&self) -> Option<Arc<dyn Planner>> {
        self.drawn.clone().map(|drawn| drawn as Arc<dyn Planner>)
    }

    fn forward_along(&self, input: &Tensor, orders: &[Orders], train: bool) -> Result<Tensor> {
        let count = self.drawn.as_ref().map_or(0, |drawn| drawn.texts.len());
        if orders.is_empty() {
            return self.forward(input, train);
        }
        if orders.len() != count {
            return Err(Error::invalid(format!(
                "{} plans were made for each sample, expected {count}",
                orders.len()
            )));
        }
        let of = |(place, own): (&Option<usize>, &Orders)| {
            place.and_then(|place| orders.get(place)).unwrap_or(own).clone()
        };
        let orders: Vec<Orders> = self.places.iter().zip(&self.orders).map(of).collect();
        self.logits(&self.read(input, &orders, train)?)
    }

    fn no_weight_decay(&self, name: &str) -> bool {
        no_weight_decay(name)
    }
}

/// Scans that are drawn anew for every sample.
struct Drawn {
    texts: Vec<String>,
    geometry: Geometry,
    class_tokens: Vec<i64>,
}

impl Planner for Drawn {
    fn plans(&self, _: &Sample, random: &mut Rng) -> Result<Vec<Plan>> {
        let draw = |text: &String| plan(text, random.next_u64(), &self.geometry, &self.class_tokens);
        self.texts.iter().map(draw).collect()
    }
}
