//! What a model costs: parameters by part, and operations of a forward pass.

use std::hash::{DefaultHasher, Hash, Hasher};

use ophidian_scan::Geometry;
use tch::{Device, nn::VarStore};

use super::{Classifier, Input, MixerKind, ModelConfig, Pool, StemKind, input::geometry, pattern, reseeded};
use crate::{
    Result,
    adapter::{self, Description},
    init::without_values,
    mixer::{ConvPlace, Merge, Parameters},
};

/// Weights of a block that every token is multiplied with.
const MULTIPLIED: [&str; 20] = [
    "in_proj",
    "x_proj",
    "dt_proj",
    "conv1d",
    "conv2d",
    "out_proj",
    "fc1",
    "fc2",
    "conv",
    "dwconv",
    "position",
    "position2",
    "expand",
    "depthwise",
    "project",
    "pointwise",
    "proj",
    "fc_D",
    "state_fusion",
    "fuse",
];

/// Parameters and operations of a model for one image.
///
/// Counted are matrix products and convolutions, a multiply-add being two operations, and the scans: 9 L D N for D
/// channels and N states over L steps, as the counter of VMamba's authors has it, D L for the skip and D L for the gate.
/// Norms, activations and sums are not counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Summary {
    /// Trained numbers.
    pub parameters: i64,
    /// The same by part.
    pub parts: Vec<Part>,
    /// The stages.
    pub stages: Vec<StageCount>,
    /// Multiply-adds of matrix products and convolutions.
    pub multiply_adds: f64,
    /// Operations of the scans.
    pub scan: f64,
}

impl Summary {
    /// Operations, a multiply-add being two.
    pub fn flops(&self) -> f64 {
        2.0 * self.multiply_adds + self.scan
    }

    /// Operations as most papers print them, a multiply-add being one.
    pub fn flops_of_papers(&self) -> f64 {
        self.multiply_adds + self.scan
    }
}

/// A part of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// What it is.
    pub name: String,
    /// Trained numbers.
    pub parameters: i64,
}

/// A stage of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageCount {
    /// Groups of frames, of a clip.
    pub times: Option<i64>,
    /// Rows and columns of patches.
    pub grid: [i64; 2],
    /// Tokens, class tokens included.
    pub tokens: i64,
    /// Channels of a token.
    pub channels: i64,
    /// Blocks.
    pub blocks: i64,
}

/// Where a parameter belongs.
enum Place {
    Embedding,
    Positions,
    /// Of this block of this stage.
    Block(usize, usize),
    /// Of the blocks of attention of this stage.
    Within(usize),
    /// Behind this stage.
    Downsample(usize),
    Norm,
    /// A block that the mean passes.
    Class,
    Head,
}

/// The scan of a block.
struct Walk {
    kind: MixerKind,
    width: i64,
    tokens: f64,
    directions: f64,
    /// Of all directions.
    steps: f64,
}

impl ModelConfig {
    /// Counts what the model of this config costs for an image of `input` = (channels, height, width), or a clip.
    ///
    /// # Errors
    /// [`crate::Error::Config`] if the config is wrong or does not fit the images.
    pub fn count(&self, input: impl Into<Input>, classes: i64) -> Result<Summary> {
        let input = input.into();
        let vs = VarStore::new(Device::Cpu);
        without_values(|| Classifier::new(&vs.root(), self, input, classes))?;
        let stages = self.stage_counts(&input);
        let walks = self.walks(&input, &stages)?;
        let mut shapes: Vec<(String, Vec<i64>)> = vs
            .variables()
            .into_iter()
            .filter(|(_, tensor)| tensor.requires_grad())
            .map(|(name, tensor)| (name, tensor.size()))
            .collect();
        shapes.sort();
        let mut parts: Vec<Part> = Vec::new();
        let mut add = |name: String, parameters: i64| match parts.iter_mut().find(|part| part.name == name) {
            Some(part) => part.parameters += parameters,
            None => parts.push(Part { name, parameters }),
        };
        for name in self.part_names() {
            add(name, 0);
        }
        let (mut parameters, mut multiply_adds) = (0, 0.0);
        for (name, shape) in &shapes {
            let (place, size) = (self.place(name), shape.iter().product::<i64>());
            parameters += size;
            multiply_adds += size as f64 * self.uses(name, &place, input, &stages, &walks);
            add(part_name(&place), size);
        }
        parts.retain(|part| part.parameters > 0);
        multiply_adds += stages.iter().enumerate().map(|(s, stage)| self.seen(s, stage)).sum::<f64>();
        let scan = walks.iter().map(|walk| self.scan_flops(walk)).sum();
        Ok(Summary { parameters, parts, stages, multiply_adds, scan })
    }

    fn stage_counts(&self, input: &Input) -> Vec<StageCount> {
        let (grids, widths) = (self.grids(input.image), self.widths());
        let stage = |((grid, channels), blocks): (([i64; 2], i64), i64)| {
            let times = input.times(self.tubelet);
            let patches = times.unwrap_or(1) * grid[0] * grid[1];
            let tokens = patches + self.pool.class_tokens(patches).len() as i64;
            StageCount { times, grid, tokens, channels, blocks }
        };
        grids.into_iter().zip(widths).zip(self.depths().iter().copied()).map(stage).collect()
    }

    /// One entry for each block.
    fn walks(&self, input: &Input, stages: &[StageCount]) -> Result<Vec<Walk>> {
        let mut walks = Vec::new();
        for (number, stage) in stages.iter().enumerate() {
            let times = input.times(self.tubelet);
            let class_tokens = self.pool.class_tokens(times.unwrap_or(1) * stage.grid[0] * stage.grid[1]);
            let (over, map) = self.scanned(number, times, stage.grid);
            let plans = self.scan.plans(&geometry(over, map), self.walked(&class_tokens))?;
            for _ in 0..stage.blocks {
                let plan = &plans[walks.len() % plans.len()];
                let steps: usize = plan.orders().iter().map(|order| order.len()).sum();
                walks.push(Walk {
                    kind: self.kind(number),
                    width: stage.channels,
                    tokens: stage.tokens as f64,
                    directions: plan.directions() as f64,
                    steps: steps as f64,
                });
            }
        }
        Ok(walks)
    }

    /// Scan, skip and gate of a block.
    fn scan_flops(&self, walk: &Walk) -> f64 {
        let directions = match walk.kind {
            MixerKind::Inverted => return 0.0,
            MixerKind::DefMamba => 3,
            MixerKind::QuadMamba => 2,
            _ => walk.directions as i64,
        };
        let mixer = self.mamba(walk.width, directions);
        // Of those that take orders, a walk is as long as the tokens.
        let steps = match walk.kind {
            MixerKind::DefMamba | MixerKind::QuadMamba | MixerKind::GrootL => {
                walk.tokens * directions.max(2) as f64
            }
            // Up and down a tree.
            MixerKind::GrootV => 2.0 * walk.tokens,
            _ => walk.steps,
        };
        // Two maps of both images, and one of half as many tokens.
        let maps = if walk.kind == MixerKind::ChangeMamba { 2.5 } else { 1.0 };
        let (d, n) = (maps * mixer.d_inner() as f64, mixer.d_state as f64);
        let coarse = mixer.coarse.map_or(0.0, |coarse| {
            coarse.directions as f64 * walk.tokens / (coarse.stride * coarse.stride).max(1) as f64
        });
        let results = if mixer.merge == Merge::Concat { walk.directions } else { 1.0 };
        let gate = if mixer.gate { walk.tokens * d * results } else { 0.0 };
        (steps + coarse) * d * (walk.kind.operations_per_state() * n + 1.0) + gate
    }

    /// Products of queries with keys, and of what comes of them with values, of a stage's blocks of attention.
    fn seen(&self, number: usize, stage: &StageCount) -> f64 {
        let tokens = (stage.grid[0] * stage.grid[1]) as f64;
        let within = self.within(number) as f64 * tokens * self.keys_of_frame(number, stage);
        let divided = match self.kind(number) {
            // With the class token, if there is one.
            MixerKind::Divided => {
                let seen = tokens + f64::from(u8::from(self.pool_is_token()));
                stage.blocks as f64 * seen * seen
            }
            _ => 0.0,
        };
        2.0 * stage.times.unwrap_or(1) as f64 * (within + divided) * stage.channels as f64
    }

    /// Keys of a frame in a stage's blocks of attention.
    fn keys_of_frame(&self, number: usize, stage: &StageCount) -> f64 {
        let reduction = self.attention.as_ref().and_then(|attention| attention.reduction.of(number));
        stage.grid.map(|side| (side / reduction.unwrap_or(1).max(1)) as f64).iter().product()
    }

    fn part_names(&self) -> Vec<String> {
        let mut places = vec![Place::Embedding, Place::Positions];
        for stage in 0..self.stages() {
            places.extend([Place::Block(stage, 0), Place::Downsample(stage)]);
        }
        places.extend([Place::Class, Place::Norm, Place::Head]);
        places.iter().map(part_name).collect()
    }

    fn place(&self, name: &str) -> Place {
        let mut parts = name.split('.');
        let (first, number) = (parts.next().unwrap_or(""), parts.next().and_then(|n| n.parse::<i64>().ok()));
        match (first, number) {
            ("patch_embed", _) => Place::Embedding,
            ("layers", Some(block)) => {
                let mut behind = 0;
                let stage = self.depths().iter().position(|depth| {
                    behind += depth;
                    block < behind
                });
                Place::Block(stage.unwrap_or(0), block as usize)
            }
            ("within", Some(block)) => {
                let mut behind = 0;
                let stage = (0..self.stages()).find(|stage| {
                    behind += self.within(*stage);
                    block < behind
                });
                Place::Within(stage.unwrap_or(0))
            }
            ("downsample", Some(stage)) => Place::Downsample(stage as usize),
            ("stage_norm", Some(stage)) => Place::Downsample(stage as usize),
            ("class_layers", _) => Place::Class,
            ("norm_f" | "pool_norm" | "shared_norm", _) => Place::Norm,
            ("head" | "second_head" | "head_map", _) => Place::Head,
            _ => Place::Positions,
        }
    }

    /// How often every number of the tensor `name` is multiplied for one image.
    fn uses(&self, name: &str, place: &Place, input: Input, stages: &[StageCount], walks: &[Walk]) -> f64 {
        let area = |[h, w]: [i64; 2]| (h * w) as f64;
        let weight = |layers: &[&str]| layers.iter().any(|layer| name.ends_with(&format!(".{layer}.weight")));
        let frames = stages[0].times.unwrap_or(1) as f64;
        match place {
            Place::Embedding if weight(&["proj"]) => frames * area(stages[0].grid),
            Place::Embedding if weight(&["expand.conv"]) => area(stages[0].grid),
            Place::Embedding if weight(&["conv"]) => {
                let between = self.stem.between(input.image, self.patch_size.sides());
                if self.stem == StemKind::Patch { 0.0 } else { area(between) }
            }
            Place::Block(stage, block) => {
                let tokens = stages[*stage].tokens as f64;
                // One set of parameters, but inputs that differ by direction.
                let each = self.parameters == Parameters::Shared && self.conv == ConvPlace::Along;
                if self.affinity.is_some() && (name.contains(".mixer.fc1.") || name.contains(".mixer.fc2.")) {
                    // Of the mean.
                    f64::from(u8::from(weight(&["fc1", "fc2"])))
                } else if weight(&["x_proj", "dt_proj", "conv1d"]) && each {
                    tokens * walks.get(*block).map_or(1.0, |walk| walk.directions)
                } else if name.contains(".mixer.stacked.") || name.contains(".mixer.fuse.") {
                    // One token for the two of a place.
                    if weight(&MULTIPLIED) { tokens / 2.0 } else { 0.0 }
                } else if weight(&MULTIPLIED) || weight(&["query", "key", "value", "out"]) {
                    tokens
                } else {
                    0.0
                }
            }
            Place::Within(stage) if weight(&["key", "value", "reduce"]) => {
                frames * self.keys_of_frame(*stage, &stages[*stage])
            }
            Place::Within(stage) if weight(&["query", "out", "fc1", "fc2", "dwconv"]) => {
                stages[*stage].tokens as f64
            }
            Place::Class if weight(&MULTIPLIED) => 1.0,
            Place::Downsample(stage) if weight(&["expand"]) => frames * area(stages[*stage].grid),
            Place::Downsample(stage) if weight(&["conv", "reduction", "project"]) => {
                stages.get(stage + 1).map_or(0.0, |next| frames * area(next.grid))
            }
            Place::Head if name == "head_map.weight" => stages.last().map_or(1.0, |last| last.tokens as f64),
            Place::Head if ["head.weight", "second_head.weight"].contains(&name) => match self.pool {
                Pool::All | Pool::Max => stages.last().map_or(1.0, |last| last.tokens as f64),
                _ => 1.0,
            },
            _ => 0.0,
        }
    }
}

fn part_name(place: &Place) -> String {
    match place {
        Place::Embedding => "patch embedding".into(),
        Place::Positions => "class tokens and positions".into(),
        Place::Block(stage, _) | Place::Within(stage) => format!("stage {stage}"),
        Place::Downsample(stage) => format!("step behind stage {stage}"),
        Place::Class => "blocks on the mean".into(),
        Place::Norm => "last norm".into(),
        Place::Head => "head".into(),
    }
}

/// A resolved `[model]` table whose `scan` holds, for each block, what it comes to over the patches that the block sees:
/// a digest of the plan, or the pattern in its shortest form if it is drawn for each sample. `coarse_scan` likewise is in
/// its shortest form.
///
/// # Errors
/// As [`build`](super::build).
pub fn canonical(table: &toml::Table, input_shape: &[i64], classes: i64) -> Result<toml::Table> {
    let config = ModelConfig::read(table.clone())?;
    let counted = config.count(Input::try_from(input_shape)?, classes)?;
    let texts = config.scan.texts();
    let mut blocks = Vec::new();
    for (number, (stage, depth)) in counted.stages.iter().zip(config.depths()).enumerate() {
        let (times, grid) = config.scanned(number, stage.times, stage.grid);
        let geometry = geometry(times, grid);
        let over = [geometry];
        let spelt = texts.iter().map(|text| spelt(text, &over)).collect::<Result<Vec<String>>>()?;
        let first = blocks.len();
        blocks.extend((first..first + *depth as usize).map(|i| spelt[i % spelt.len()].clone()));
    }
    let mut table = table.clone();
    if let Some(coarse) = &config.coarse_scan {
        table.insert("coarse_scan".into(), shortest(coarse)?.into());
    }
    table.insert("scan".into(), blocks.into());
    // A list of one is what stands in it, and a square's side is that of both.
    for (key, value) in &mut table {
        let square = matches!(key.as_str(), "patch_size" | "stride");
        if let Some((first, rest)) = value.as_array().and_then(|list| list.split_first())
            && rest.iter().all(|other| square && other == first)
        {
            *value = first.clone();
        }
    }
    Ok(table)
}

/// What the pattern `text` comes to over all of `geometries`, as a digest of its plans; in its shortest form if it is drawn
/// for each sample.
///
/// # Errors
/// A text that is no pattern, or none for these geometries.
pub fn spelt(text: &str, geometries: &[Geometry]) -> Result<String> {
    if reseeded(text, 0).is_some() {
        return shortest(text);
    }
    let pattern = pattern(text, 0)?;
    let plans = geometries.iter().map(|geometry| pattern.plan(geometry));
    let plans = plans.collect::<ophidian_scan::Result<Vec<_>>>()?;
    let mut digest = DefaultHasher::new();
    format!("{plans:?}").hash(&mut digest);
    Ok(format!("{:016x}", digest.finish()))
}

/// The pattern `text` in its shortest form.
///
/// # Errors
/// [`crate::Error::Config`] of a text that is no pattern.
pub fn shortest(text: &str) -> Result<String> {
    // A seed that is the sample's cannot be parsed; any other stands for it, if it stands for nothing else.
    let drawn = |seed: u64| Ok::<String, crate::Error>(pattern(text, seed)?.simplified().to_string());
    Ok(if reseeded(text, 0).is_some() { format!("{} {}", drawn(0)?, drawn(u64::MAX)?) } else { drawn(0)? })
}

/// What the model of a resolved `[model]` table costs for one input of `input_shape`, and its scans over the patches of
/// the first stage, class tokens left out.
///
/// # Errors
/// As [`build`](super::build).
pub fn describe(table: &toml::Table, input_shape: &[i64], classes: i64) -> Result<Description> {
    let config = ModelConfig::read(table.clone())?;
    let input = Input::try_from(input_shape)?;
    let counted = config.count(input, classes)?;
    let Some(stage) = counted.stages.first() else { return Ok(Description::default()) };
    let (times, grid) = config.scanned(0, stage.times, stage.grid);
    let geometry = geometry(times, grid);
    let plans = config.scan.plans(&geometry, &[])?;
    let walk =
        |(name, plan): (&String, _)| adapter::Walk { name: name.clone(), plan, geometry: geometry.clone() };
    let scans = config.scan.texts().iter().zip(plans).map(walk).collect();
    Ok(Description { flops: Some(counted.flops()), scans })
}
