//! The model that a [`ModelConfig`] describes.

use std::sync::Arc;

use ophidian_scan::Plan;
use tch::{Kind, Tensor, nn};

use super::{
    Input, MixerKind, ModelConfig,
    config::plan,
    drawn::Drawn,
    embed::{Embedding, Pool},
    input::geometry,
    rope::{Rope, Rotary},
};
use crate::{
    Error, Result,
    adapter::{Model, Planner},
    backbone::{Backbone, Behind, Between, Stage},
    block::{Block, BlockConfig, NormPlace},
    init::{Init, Start, draw_for, no_weight_decay, values_wanted},
    layers::{BatchNorm, Downsample, DownsampleConfig, Kernel, Linear, LocalConv, MlpKind, Norm},
    mixer::{Attention, AttentionConfig, ChannelAffinity, LocalBranch, Mixer},
    ops::Orders,
    tape::{self, Ground},
};

/// Patches and class tokens, blocks in stages, pooling, head.
pub struct Classifier {
    config: ModelConfig,
    input: Input,
    embedding: Embedding,
    rotary: Option<Rotary>,
    backbone: Backbone,
    layout: Layout,
    /// Scans that are drawn anew for every sample.
    drawn: Option<Arc<Drawn>>,
    /// On each token, in front of pooling.
    head_map: Option<(Linear, BatchNorm)>,
    pool_norm: Option<Norm>,
    /// None reads features out as they are; the logits of two are averaged.
    heads: Vec<Linear>,
}

/// Where the tokens of an image or a clip lie and how they are visited.
struct Layout {
    /// Of a clip.
    times: Option<i64>,
    grid: [i64; 2],
    class_tokens: Vec<i64>,
    /// One entry for each block, those that the mean passes included.
    orders: Vec<Orders>,
    /// The plans that they were made of.
    plans: Vec<Arc<Plan>>,
}

impl Layout {
    /// For patches on `grid`, at each of `times`.
    fn new(config: &ModelConfig, times: Option<i64>, grid: [i64; 2]) -> Result<Layout> {
        let class_tokens = config.pool.class_tokens(times.unwrap_or(1) * grid[0] * grid[1]);
        let (mut orders, mut all_plans, mut at) = (Vec::new(), Vec::new(), grid);
        let class = (config.class_blocks > 0).then_some(&config.class_blocks);
        for (stage, depth) in config.depths().iter().chain(class).enumerate() {
            if stage == config.stages() {
                at = [1, 1];
            } else if stage > 0 {
                at = config.downsample.grid(at);
            }
            if at[0] * at[1] < 1 {
                return Err(Error::Config(format!(
                    "a grid of {}x{} patches leaves no token for stage {stage}",
                    grid[0], grid[1]
                )));
            }
            let (over, map) = config.scanned(stage, times, at);
            let plans = config.scan.plans(&geometry(over, map), config.walked(&class_tokens))?;
            let coarse = coarse(config, stage, times, at)?;
            let written = config.written_as.iter().map(|text| plan(text, 0, &geometry(times, at), &[]));
            let written = written.map(|plan| Ok(Orders::new(&plan?))).collect::<Result<Vec<_>>>()?;
            let placed = |(i, plan): (usize, &Plan)| {
                let orders = placed(Orders::new(plan), over, map, config.walked(&class_tokens));
                let orders = written.iter().try_fold(orders, |orders, other| orders.written_as(other))?;
                let coarse = coarse.iter().cycle().nth(i);
                Ok(coarse.into_iter().fold(orders, |orders, coarse| orders.with_coarse(coarse.clone())))
            };
            let distinct = plans.iter().enumerate().map(placed).collect::<Result<Vec<Orders>>>()?;
            let plans: Vec<Arc<Plan>> = plans.into_iter().map(Arc::new).collect();
            for i in (orders.len()..).take(*depth as usize) {
                orders.push(distinct[i % distinct.len()].clone());
                all_plans.push(plans[i % plans.len()].clone());
            }
        }
        Ok(Layout { times, grid, class_tokens, orders, plans: all_plans })
    }
}

/// The orders of the second map that a stage's mixers read, if they do, one for each plan or for all of them: of a coarser
/// one, or of one image of two.
fn coarse(config: &ModelConfig, stage: usize, times: Option<i64>, grid: [i64; 2]) -> Result<Vec<Orders>> {
    if config.kind(stage) == MixerKind::ChangeMamba {
        let plans = config.scan.plans(&geometry(None, grid), &[])?;
        return Ok(plans.iter().map(|plan| placed(Orders::new(plan), None, grid, &[])).collect());
    }
    let (Some(coarse), Some(text)) = (config.coarse, &config.coarse_scan) else { return Ok(Vec::new()) };
    let low = Kernel::around(1, 1, coarse.taps, coarse.stride).output(grid);
    let plan = plan(text, 0, &geometry(times, low), &[])?;
    Ok(vec![placed(Orders::new(&plan), times, low, &[])])
}

/// Orders that know where their tokens lie, unless there are class tokens, which lie nowhere.
pub(super) fn placed(orders: Orders, times: Option<i64>, grid: [i64; 2], class_tokens: &[i64]) -> Orders {
    match times {
        _ if !class_tokens.is_empty() => orders,
        Some(times) => orders.on_grid([times, grid[0], grid[1]]),
        None => orders.on_grid(grid),
    }
}

/// A point of the way from images to features, at which the tokens can be looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Point {
    /// Patches, before class tokens and positions.
    Patches,
    /// Within the backbone.
    Behind(Behind),
    /// Behind the last norm.
    Tokens,
}

/// Hears of the tokens (B, L, C) at each [`Point`] and what they lie on: [frames, rows, columns].
pub(super) type Watch<'a> = dyn FnMut(Point, &Tensor, [i64; 3]) + 'a;

impl Classifier {
    /// The model for images of `input` = (channels, height, width) or clips of (channels, frames, height, width), and
    /// `classes` classes, 0 for features alone. Values come from libtorch's generator.
    ///
    /// # Errors
    /// [`Error::Config`] if the config is wrong or does not fit the inputs.
    pub fn new(
        vs: &nn::Path,
        config: &ModelConfig,
        input: impl Into<Input>,
        classes: i64,
    ) -> Result<Classifier> {
        let input = input.into();
        config.check()?;
        config.check_frames(&input)?;
        let (patch, times) = (config.patch_size.sides(), input.times(config.tubelet));
        let grid = config.patch_grid(input.image);
        let patches = times.unwrap_or(1) * grid[0] * grid[1];
        if patches < 1 || input.channels < 1 || classes < 0 {
            let depth = times.map_or(String::new(), |_| format!("{}x", config.tubelet));
            return Err(Error::Config(format!(
                "{} of {input} hold no patch of {depth}{}x{} pixels",
                input.unit(),
                patch[0],
                patch[1]
            )));
        }
        let layout = Layout::new(config, times, grid)?;
        let embedding = Embedding::new(vs, config, &input, grid);
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
        let heads = ["head", "second_head"];
        let features = match config.head_width {
            0.0 => d_model,
            ratio => ((ratio * d_model as f64) as i64).max(1),
        };
        let backbone = backbone(vs, config, times.is_some(), &layout.plans)?;
        if config.init == Start::NormalInputs && values_wanted() {
            start_normal(vs, config.blocks());
        }
        Ok(Classifier {
            input,
            embedding,
            rotary,
            backbone,
            drawn: Drawn::new(config, times, grid, config.walked(&layout.class_tokens)).map(Arc::new),
            layout,
            head_map: (config.head_width > 0.0).then(|| {
                let linear = Linear::new(&(vs / "head_map"), d_model, features, false, Init::Kaiming);
                (linear, BatchNorm::new(&(vs / "head_map" / "norm"), features))
            }),
            pool_norm: config.pool_norm.then(|| norm(&(vs / "pool_norm"), config, features)),
            heads: heads
                .iter()
                .take(if classes > 0 { 1 + usize::from(config.second_head) } else { 0 })
                .map(|name| Linear::new(&(vs / *name), features, classes, true, Init::Normal(0.02)))
                .collect(),
            config: config.clone(),
        })
    }

    /// What it was made for.
    pub fn input(&self) -> Input {
        self.input
    }

    /// What the head reads: (batch, d_model), or (batch, tokens, d_model) where every token is read.
    ///
    /// # Errors
    /// Inputs of another shape.
    pub fn features(&self, inputs: &Tensor, train: bool) -> Result<Tensor> {
        self.input.check(&inputs.size())?;
        self.features_of_any_size(inputs, train, &mut |_, _, _| {})
    }

    /// As [`features`](Classifier::features), for images of any size that holds a patch: plans are made anew and a
    /// position embedding is interpolated.
    ///
    /// # Errors
    /// Images of other channels, or too small; clips of another shape.
    pub(super) fn features_of_any_size(
        &self,
        inputs: &Tensor,
        train: bool,
        watch: &mut Watch<'_>,
    ) -> Result<Tensor> {
        let grid = self.grid_of(&inputs.size())?;
        if grid == self.layout.grid {
            return self.walk(inputs, &self.layout, &self.layout.orders, train, watch);
        }
        let layout = Layout::new(&self.config, None, grid)?;
        self.walk(inputs, &layout, &layout.orders, train, watch)
    }

    /// The grid of patches of inputs of `shape`.
    fn grid_of(&self, shape: &[i64]) -> Result<[i64; 2]> {
        if self.input.frames.is_some() {
            self.input.check(shape)?;
            return Ok(self.layout.grid);
        }
        let patch = self.config.patch_size.sides();
        let [_, channels, height, width] = *shape else {
            return Err(Error::invalid(format!(
                "images have shape {shape:?}, expected (batch, channels, height, width)"
            )));
        };
        let grid = self.config.patch_grid([height, width]);
        if channels != self.input.channels || grid[0] * grid[1] < 1 {
            return Err(Error::invalid(format!(
                "images have shape {shape:?}, expected (batch, {}, height, width), of at least {}x{} pixels",
                self.input.channels, patch[0], patch[1]
            )));
        }
        Ok(grid)
    }

    /// The features along `orders`, one for each block, of inputs that lie as `layout` says.
    fn walk(
        &self,
        inputs: &Tensor,
        layout: &Layout,
        orders: &[Orders],
        train: bool,
        watch: &mut Watch<'_>,
    ) -> Result<Tensor> {
        let place = [layout.times.unwrap_or(1), layout.grid[0], layout.grid[1]];
        let ground = Ground::Grid { frames: layout.times };
        tape::lay(|| tape::Layout { ground, class_tokens: layout.class_tokens.clone() });
        let embedded = self.embedding.forward(inputs, train)?;
        watch(Point::Patches, &embedded.patches, place);
        let between = self.rotary.as_ref().map(|rotary| rotary as &dyn Between);
        let mut last = place;
        let mut tap = |behind: Behind, tokens: &Tensor, place: [i64; 3]| {
            last = place;
            watch(Point::Behind(behind), tokens, place);
        };
        let tokens = &embedded.tokens;
        let tokens = self.backbone.forward_on(tokens, place, orders, between, train, &mut tap)?;
        watch(Point::Tokens, &tokens, last);
        let tokens = self.mapped(tokens, train)?;
        let at = |i: i64| tokens.f_select(1, i);
        let features = match (self.config.pool, &layout.class_tokens[..]) {
            (_, [at_one]) => at(*at_one)?,
            (_, [first, second]) => (at(*first)? + at(*second)?) / 2.0,
            (Pool::Mean, _) => tokens.f_mean_dim(1, false, Kind::Float)?,
            (Pool::Last, _) => at(-1)?,
            _ => tokens,
        };
        match &self.pool_norm {
            Some(norm) => norm.forward(&features),
            None => Ok(features),
        }
    }

    /// The tokens as the head reads them, before pooling.
    fn mapped(&self, tokens: Tensor, train: bool) -> Result<Tensor> {
        let Some((linear, norm)) = &self.head_map else { return Ok(tokens) };
        let channels = linear.forward(&tokens)?.f_transpose(1, 2)?; // (B, channels, L)
        Ok(norm.forward(&channels, train)?.f_gelu("none")?.f_transpose(1, 2)?)
    }

    /// Logits of [`features`](Classifier::features): (batch, classes), or (batch, tokens, classes) with
    /// `pool = "all"`.
    ///
    /// # Errors
    /// Features of another width.
    pub fn logits(&self, features: &Tensor) -> Result<Tensor> {
        let logits = match &self.heads[..] {
            [] => features.shallow_clone(),
            [head] => head.forward(features)?.to_kind(Kind::Float),
            heads => {
                let all = heads.iter().map(|head| head.forward(features)).collect::<Result<Vec<_>>>()?;
                Tensor::f_stack(&all, 0)?.f_mean_dim(0, false, Kind::Float)?
            }
        };
        Ok(if self.config.pool == Pool::Max { logits.f_amax(1, false)? } else { logits })
    }
}

/// Builds the model of a resolved `[model]` table for inputs of `input_shape` = (channels, height, width), or clips of
/// (channels, frames, height, width).
///
/// # Errors
/// [`Error::Config`] if the table is wrong, or the patch does not divide the inputs.
pub fn build(table: &toml::Table, input_shape: &[i64], classes: i64, vs: nn::Path) -> Result<Box<dyn Model>> {
    let config = ModelConfig::read(table.clone())?;
    let input = Input::try_from(input_shape)?;
    if config.pool == Pool::All {
        let text = "`model.pool` is \"all\", which gives logits for every token; to classify images choose a class \
                    token (\"middle\", \"head\", \"end\", \"both\") or \"mean\", \"last\" or \"max\"";
        return Err(Error::Config(text.into()));
    }
    config.tile(input.image)?;
    input.frames.map_or(Ok(()), |frames| config.tile_frames(frames))?;
    Ok(Box::new(Classifier::new(&vs, &config, input, classes)?))
}

/// The norm behind the blocks, or another as it.
fn norm(vs: &nn::Path, config: &ModelConfig, channels: i64) -> Norm {
    let kind = config.final_norm.unwrap_or(config.norm);
    Norm::new(vs, kind, channels, config.final_norm_eps.unwrap_or(config.norm_eps))
}

/// The stages of `config`, blocks under `layers`, those of attention under `within`, steps between stages under `downsample`,
/// blocks that the mean passes under `class_layers`.
fn backbone(vs: &nn::Path, config: &ModelConfig, clip: bool, plans: &[Arc<Plan>]) -> Result<Backbone> {
    let (layers, widths, mut ahead) = (vs / "layers", config.widths(), 0);
    let shared = config
        .shared_norm
        .then(|| Norm::new(&(vs / "shared_norm"), config.norm, config.last_width(), config.norm_eps));
    let (mut stages, mut number) = (Vec::new(), 0);
    for (s, (width, depth)) in widths.iter().zip(config.depths()).enumerate() {
        let mut stage = Stage::default();
        for _ in 0..config.within(s) {
            stage.within.push(attention(&(vs / "within" / ahead), config, s, *width)?);
            ahead += 1;
        }
        for i in 0..*depth as usize {
            let vs = &layers / number;
            let mixer = mixer(&(&vs / "mixer"), config, [s, number], *width, &plans[number])?;
            let block = BlockConfig { clip, ..block_config(config, s, *width, number) };
            stage.blocks.push(match &shared {
                Some(norm) => Block::with_norm(&vs, &block, mixer, Some(norm.shared())),
                None => Block::new(&vs, &block, mixer),
            });
            if config.local_conv.contains(&(number as i64)) {
                stage.local.insert(i, LocalConv::new(&(&vs / "local"), *width));
            }
            number += 1;
        }
        if let Some(next) = widths.get(s + 1) {
            stage.norm = config
                .stage_norm
                .then(|| Norm::new(&(vs / "stage_norm" / s), config.norm, *width, config.norm_eps));
            let step = DownsampleConfig {
                kind: config.downsample,
                channels: [*width, *next],
                norm: config.norm,
                eps: config.patch_eps(),
                bias: config.downsample_bias,
                start: config.init,
            };
            stage.downsample = Some(Downsample::new(&(vs / "downsample" / s), &step));
        } else if config.class_blocks > 0 {
            stage.downsample = Some(Downsample::Mean);
        }
        stages.push(stage);
    }
    if config.class_blocks > 0 {
        let (mut stage, last, width) = (Stage::default(), config.stages() - 1, config.last_width());
        for i in 0..config.class_blocks {
            let vs = vs / "class_layers" / i;
            let mixer = mixer(&(&vs / "mixer"), config, [last, number], width, &plans[number])?;
            let block = BlockConfig {
                norm_place: NormPlace::After,
                drop_path: 0.0,
                position_conv: false,
                // One token has no neighbours.
                mlp_kind: if config.mlp.needs_grid() { MlpKind::Gelu } else { config.mlp },
                ..block_config(config, last, width, 0)
            };
            stage.blocks.push(Block::new(&vs, &block, mixer));
            number += 1;
        }
        stages.push(stage);
    }
    let norm = norm(&(vs / "norm_f"), config, config.last_width());
    Ok(Backbone::staged(stages, config.layer_pairs, norm))
}

/// A block of attention of a stage, which frames pass by themselves.
fn attention(vs: &nn::Path, config: &ModelConfig, stage: usize, width: i64) -> Result<Block> {
    let options = config.attention.clone().unwrap_or_default();
    let attention = AttentionConfig {
        d_model: width,
        heads: options.heads.of(stage).unwrap_or(1),
        reduction: options.reduction.of(stage).unwrap_or(1),
        start: config.init,
    };
    let block = BlockConfig { drop_path: 0.0, ..block_config(config, stage, width, 0) };
    Ok(Block::new(vs, &block, Box::new(Attention::new(&(vs / "mixer"), &attention)?)))
}

/// The mixer of a block of [stage, number] with what stands around it.
fn mixer(
    vs: &nn::Path,
    config: &ModelConfig,
    [stage, number]: [usize; 2],
    width: i64,
    plan: &Plan,
) -> Result<Box<dyn Mixer>> {
    // Mamba-2's norm and the affinity's have one name.
    let within = match config.affinity {
        Some(_) if config.kind(stage) == MixerKind::Mamba2 => vs / "inner",
        _ => vs.clone(),
    };
    let mixer = config.mixer_of(stage, number, width, plan)?.build(&within)?;
    Ok(match config.affinity {
        Some(affinity) => Box::new(ChannelAffinity::new(vs, mixer, width, (width / affinity).max(1))),
        None if config.conv_branch && config.kind(stage) != MixerKind::Inverted => {
            Box::new(LocalBranch::new(vs, mixer, width, config.init))
        }
        None => mixer,
    })
}

/// Of block `i` of all stages, in stage `stage`.
fn block_config(config: &ModelConfig, stage: usize, d_model: i64, i: usize) -> BlockConfig {
    let own_norm =
        config.affinity.is_some() || matches!(config.kind(stage), MixerKind::Inverted | MixerKind::Divided);
    BlockConfig {
        d_model,
        norm: config.norm,
        norm_eps: config.norm_eps,
        norm_place: if own_norm { NormPlace::None } else { NormPlace::Before },
        carry_normed: config.carry_normed,
        position_conv: config.position_conv,
        drop_path: config.drop_path * i as f64 / (config.blocks() - 1).max(1) as f64,
        layer_scale: config.layer_scale,
        mlp: config.mlp_width(stage),
        mlp_kind: config.mlp,
        clip: false,
        start: config.init,
        residuals: config.residuals(),
    }
}

/// Starts the linear maps of the blocks, but for the mixers' last, as [`Start::NormalInputs`] says.
fn start_normal(vs: &nn::Path, blocks: i64) {
    let layers = vs / "layers";
    tch::no_grad(|| {
        for i in 0..blocks {
            let block = &layers / i;
            for (part, linear) in
                [("mixer", "in_proj"), ("mixer", "x_proj"), ("mixer", "dt_proj"), ("mlp", "fc1")]
            {
                let linear = &block / part / linear;
                if let Some(mut weight) = linear.get("weight") {
                    draw_for(&linear, "weight");
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
        if orders.is_empty() {
            return self.forward(input, train);
        }
        let count = self.drawn.as_ref().map_or(0, |drawn| drawn.len());
        let Some(drawn) = self.drawn.as_ref().filter(|_| orders.len() == count) else {
            return Err(Error::invalid(format!(
                "{} plans were made for each sample, expected {count}",
                orders.len()
            )));
        };
        self.input.check(&input.size())?;
        let orders = drawn.replace(&self.layout.orders, orders);
        self.logits(&self.walk(input, &self.layout, &orders, train, &mut |_, _, _| {})?)
    }

    fn no_weight_decay(&self, name: &str) -> bool {
        no_weight_decay(name)
    }
}
