//! The model that a [`ModelConfig`] describes.

use ophidian_core::{
    Error, Result,
    adapter::Model,
    backbone::{Backbone, Between, Stage},
    block::{Block, BlockConfig},
    init::{Init, no_weight_decay},
    layers::{Downsample, Linear, LocalConv, Norm},
    mixer::Mamba1,
    ops::Orders,
};
use tch::{Kind, Tensor, nn};

use super::{
    ModelConfig,
    embed::{Embedding, Pool},
    rope::{Rope, Rotary},
};

/// Patches and class tokens, blocks in stages, pooling, head.
pub struct Classifier {
    config: ModelConfig,
    input: [i64; 3],
    embedding: Embedding,
    rotary: Option<Rotary>,
    backbone: Backbone,
    layout: Layout,
    /// None reads features out as they are.
    head: Option<Linear>,
}

/// Where the tokens of an image lie and how they are visited.
struct Layout {
    grid: [i64; 2],
    class_tokens: Vec<i64>,
    /// One entry for each block.
    orders: Vec<Orders>,
}

impl Layout {
    /// For patches on `grid`.
    fn new(config: &ModelConfig, grid: [i64; 2]) -> Result<Layout> {
        let class_tokens = config.pool.class_tokens(grid[0] * grid[1]);
        let (mut orders, mut at) = (Vec::new(), grid);
        for (stage, depth) in config.depths().iter().enumerate() {
            if stage > 0 {
                at = config.downsample.grid(at);
            }
            if at[0] * at[1] < 1 {
                return Err(Error::Config(format!(
                    "a grid of {}x{} patches leaves no token for stage {stage}",
                    grid[0], grid[1]
                )));
            }
            let plans = config.scan.plans(at, &class_tokens)?;
            // A class token does not lie on the grid.
            let placed = |orders: Orders| if class_tokens.is_empty() { orders.on_grid(at) } else { orders };
            let distinct: Vec<Orders> = plans.iter().map(|plan| placed(Orders::new(plan))).collect();
            let first = orders.len();
            orders
                .extend((first..first + *depth as usize).map(|i| distinct[i % distinct.len()].clone()));
        }
        Ok(Layout { grid, class_tokens, orders })
    }
}

/// A point of the way from images to features, at which the tokens can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// Patches, before class tokens and positions.
    Patches,
    /// Behind this stage, the step to the next included.
    Stage(usize),
    /// Behind the last norm.
    Tokens,
}

/// Hears of the tokens (B, L, C) at each [`Point`] and the grid they lie on.
pub(super) type Watch<'a> = dyn FnMut(Point, &Tensor, [i64; 2]) + 'a;

impl Classifier {
    /// The model for images of `input` = (channels, height, width) and `classes` classes, 0 for features
    /// alone. Values come from libtorch's generator.
    ///
    /// # Errors
    /// [`Error::Config`] if the config is wrong or does not fit the images.
    pub fn new(vs: &nn::Path, config: &ModelConfig, input: [i64; 3], classes: i64) -> Result<Classifier> {
        config.check()?;
        let [channels, height, width] = input;
        let patch = config.patch_size.sides();
        let grid = config.stem.grid([height, width], patch, config.stride);
        let patches = grid[0] * grid[1];
        if patches < 1 || channels < 1 || classes < 0 {
            return Err(Error::Config(format!(
                "images of {channels}x{height}x{width} hold no patch of {}x{} pixels",
                patch[0], patch[1]
            )));
        }
        let layout = Layout::new(config, grid)?;
        let embedding = Embedding::new(vs, config, channels, grid);
        let rotary = (config.rope != Rope::None)
            .then(|| {
                let residual = config.rope == Rope::Residual;
                let (rope, width) = (vs / "rope", config.widths()[0]);
                let rotary = Rotary::new(&rope, grid, config.rope_grid, width, residual)?;
                rotary.check(patches + layout.class_tokens.len() as i64)?;
                Ok::<_, Error>(rotary)
            })
            .transpose()?;
        let d_model = config.last_width();
        Ok(Classifier {
            input,
            embedding,
            rotary,
            backbone: backbone(vs, config, &layout.orders)?,
            layout,
            head: (classes > 0)
                .then(|| Linear::new(&(vs / "head"), d_model, classes, true, Init::Normal(0.02))),
            config: config.clone(),
        })
    }

    /// What the head reads: (batch, d_model), or (batch, tokens, d_model) where every token is read.
    ///
    /// # Errors
    /// Images of another shape.
    pub fn features(&self, images: &Tensor, train: bool) -> Result<Tensor> {
        let shape = images.size();
        if shape.len() != 4 || shape[1..] != self.input {
            let [c, h, w] = self.input;
            return Err(Error::invalid(format!(
                "images have shape {shape:?}, expected (batch, {c}, {h}, {w})"
            )));
        }
        self.features_of_any_size(images, train, &mut |_, _, _| {})
    }

    /// As [`features`](Classifier::features), for images of any size that holds a patch: plans are made anew and a
    /// position embedding is interpolated.
    ///
    /// # Errors
    /// Images of other channels, or too small.
    pub(super) fn features_of_any_size(
        &self,
        images: &Tensor,
        train: bool,
        watch: &mut Watch<'_>,
    ) -> Result<Tensor> {
        let shape = images.size();
        let patch = self.config.patch_size.sides();
        let [_, channels, height, width] = shape[..] else {
            return Err(Error::invalid(format!(
                "images have shape {shape:?}, expected (batch, channels, height, width)"
            )));
        };
        let grid = self.config.stem.grid([height, width], patch, self.config.stride);
        if channels != self.input[0] || grid[0] * grid[1] < 1 {
            return Err(Error::invalid(format!(
                "images have shape {shape:?}, expected (batch, {}, height, width), of at least {}x{} pixels",
                self.input[0], patch[0], patch[1]
            )));
        }
        let other = if grid == self.layout.grid { None } else { Some(Layout::new(&self.config, grid)?) };
        let layout = other.as_ref().unwrap_or(&self.layout);
        let embedded = self.embedding.forward(images, train)?;
        watch(Point::Patches, &embedded.patches, grid);
        let between = self.rotary.as_ref().map(|rotary| rotary as &dyn Between);
        let mut last = grid;
        let mut tap = |stage: usize, tokens: &Tensor, grid: [i64; 2]| {
            last = grid;
            watch(Point::Stage(stage), tokens, grid);
        };
        let (tokens, orders) = (&embedded.tokens, &layout.orders);
        let tokens = self.backbone.forward_on(tokens, grid, orders, between, train, &mut tap)?;
        watch(Point::Tokens, &tokens, last);
        let at = |i: i64| tokens.f_select(1, i);
        Ok(match (self.config.pool, &layout.class_tokens[..]) {
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
        Ok(if self.config.pool == Pool::Max { logits.f_amax(1, false)? } else { logits })
    }
}

/// The stages of `config`, blocks under `layers`, steps between stages under `downsample`.
fn backbone(vs: &nn::Path, config: &ModelConfig, orders: &[Orders]) -> Result<Backbone> {
    let (layers, widths) = (vs / "layers", config.widths());
    let (mut stages, mut number) = (Vec::new(), 0);
    for (s, (width, depth)) in widths.iter().zip(config.depths()).enumerate() {
        let mut stage = Stage::default();
        for i in 0..*depth as usize {
            let vs = &layers / number;
            let mixer = Mamba1::new(&(&vs / "mixer"), &config.mixer(*width, orders[number].directions()))?;
            let block = block_config(config, *width, number);
            stage.blocks.push(Block::new(&vs, &block, Box::new(mixer)));
            if config.local_conv.contains(&(number as i64)) {
                stage.local.insert(i, LocalConv::new(&(&vs / "local"), *width));
            }
            number += 1;
        }
        stage.downsample = widths.get(s + 1).map(|next| {
            let (vs, eps) = (vs / "downsample" / s, config.norm_eps);
            Downsample::new(&vs, config.downsample, *width, *next, config.norm, eps, config.init)
        });
        stages.push(stage);
    }
    let (kind, eps) =
        (config.final_norm.unwrap_or(config.norm), config.final_norm_eps.unwrap_or(config.norm_eps));
    let norm = Norm::new(&(vs / "norm_f"), kind, config.last_width(), eps);
    Ok(Backbone::staged(stages, config.layer_pairs, norm))
}

/// Of block `i` of all stages.
fn block_config(config: &ModelConfig, d_model: i64, i: usize) -> BlockConfig {
    BlockConfig {
        d_model,
        norm: config.norm,
        norm_eps: config.norm_eps,
        drop_path: config.drop_path * i as f64 / (config.blocks() - 1).max(1) as f64,
        layer_scale: config.layer_scale,
        mlp: (config.mlp_ratio * d_model as f64) as i64,
        mlp_kind: config.mlp,
        start: config.init,
        residuals: config.residuals(),
    }
}

impl Model for Classifier {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        self.logits(&self.features(input, train)?)
    }

    fn no_weight_decay(&self, name: &str) -> bool {
        no_weight_decay(name)
    }
}
