//! VideoMamba (Li et al., arXiv 2403.06977) as its authors publish it: their config and parameter names.
//!
//! It is Vim on clips: patches of a few frames, a class token in front, one position embedding for places and one for
//! times, two directions that are added. Its image models have no frames at all.

use ophidian_core::{
    Error, Result, config,
    grid::{
        Classifiers, Input, ModelConfig, Pool, Report, Scans, Size, StemKind, Translated,
        bimamba::{Bimamba, MixerConfig, mixer_keys},
        visionmamba::trunk_keys,
    },
    init::Start,
    keymap::Key,
    layers::NormKind,
    mixer::{Merge, Parameters},
    tensors::Tensors,
};
use serde::Deserialize;
use tch::{Device, Kind, Tensor};

/// The family.
pub const VIDEOMAMBA: Classifiers = Classifiers {
    name: "videomamba",
    about: "VideoMamba (arXiv 2403.06977): in.x clips (batch, channels, frames, height, width) or images (batch, channels, \
            height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        let (input, report) = (theirs.input(), Report { features: true, ..Report::default() });
        Ok(Translated::new(theirs.ours()?, input, theirs.num_classes, report, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "embed_dim"),
        ("norm_eps", "norm_epsilon"),
        ("drop_path", "drop_path_rate"),
        ("dt_floor", "dt_init_floor"),
        ("d_state", "ssm_cfg.d_state"),
        ("tubelet", "kernel_size"),
    ],
    adapt,
};

/// The arguments of the authors' `VisionMamba`, with their defaults. It is the one of their video models if it names
/// `num_frames` or `kernel_size`, else that of their image models.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    img_size: Size,
    patch_size: Size,
    /// Of images alone: 16.
    stride: Option<i64>,
    depth: i64,
    embed_dim: i64,
    channels: i64,
    num_classes: i64,
    ssm_cfg: MixerConfig,
    drop_path_rate: f64,
    norm_epsilon: f64,
    rms_norm: bool,
    bimamba: bool,
    /// Frames of a patch: 1.
    kernel_size: Option<i64>,
    /// Frames of a clip: 8.
    num_frames: Option<i64>,
    /// What the weights of an image model become in the patches of several frames; none takes a video model's weights
    /// alone.
    inflate: Option<Inflate>,
    // What follows changes no number of a forward pass in f32.
    drop_rate: f64,
    fc_drop_rate: f64,
    fused_add_norm: bool,
    residual_in_fp32: bool,
    initializer_cfg: Option<toml::Table>,
    use_checkpoint: bool,
    checkpoint_num: i64,
    device: Option<String>,
    dtype: Option<String>,
}

/// How the patches of an image model become patches of several frames (I3D, arXiv 1705.07750, section 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Inflate {
    /// The middle frame is seen as the image was, the others not at all: what VideoMamba does.
    Center,
    /// Every frame counts the same.
    Average,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            img_size: Size::Square(224),
            patch_size: Size::Square(16),
            stride: None,
            depth: 24,
            embed_dim: 192,
            channels: 3,
            num_classes: 1000,
            ssm_cfg: MixerConfig::default(),
            drop_path_rate: 0.1,
            norm_epsilon: 1e-5,
            rms_norm: true,
            bimamba: true,
            kernel_size: None,
            num_frames: None,
            inflate: None,
            drop_rate: 0.0,
            fc_drop_rate: 0.0,
            fused_add_norm: true,
            residual_in_fp32: true,
            initializer_cfg: None,
            use_checkpoint: false,
            checkpoint_num: 0,
            device: None,
            dtype: None,
        }
    }
}

impl Config {
    /// (frames of a clip, frames of a patch) of a video model.
    fn frames(&self) -> Option<(i64, i64)> {
        (self.num_frames.is_some() || self.kernel_size.is_some())
            .then(|| (self.num_frames.unwrap_or(8), self.kernel_size.unwrap_or(1)))
    }

    fn stride(&self) -> i64 {
        // Patches of a clip are a convolution whose stride is its kernel.
        if self.frames().is_some() { self.patch_size.sides()[0] } else { self.stride.unwrap_or(16) }
    }

    fn input(&self) -> Input {
        let frames = self.frames().map(|(frames, _)| frames);
        Input { channels: self.channels, frames, image: self.img_size.sides() }
    }

    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        let video = self.frames();
        if video.is_some() && self.stride.is_some() {
            let text = "`stride` is for image models, but `num_frames` or `kernel_size` makes this a video model, whose \
                        patches do not overlap; leave it out";
            return Err(Error::Config(text.into()));
        }
        if video.is_none() && self.inflate.is_some() {
            let text = "`inflate` turns an image model's weights into a video model's; name `num_frames` too";
            return Err(Error::Config(text.into()));
        }
        let [rows, columns] = self.patch_size.sides();
        if video.is_some() && rows != columns {
            return Err(Error::Config(format!(
                "`patch_size` is {rows}x{columns}, expected a square patch in a video model"
            )));
        }
        let model = ModelConfig {
            patch_size: self.patch_size,
            stride: self.stride().into(),
            tubelet: video.map_or(1, |(_, tubelet)| tubelet),
            d_model: self.embed_dim.into(),
            depth: self.depth.into(),
            d_state: 16,
            scan: Scans::One(if self.bimamba { "row | bidirectional" } else { "row" }.into()),
            parameters: Parameters::Own,
            merge: Merge::Sum,
            norm: if self.rms_norm { NormKind::Rms } else { NormKind::Layer },
            norm_eps: self.norm_epsilon,
            drop_path: self.drop_path_rate,
            pool: Pool::Head,
            init: Start::NormalInputs,
            ..ModelConfig::default()
        };
        self.ssm_cfg.apply(self.bimamba, model)
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (d, patch) = (self.embed_dim, self.patch_size.sides());
        let grid = StemKind::Patch.grid(self.img_size.sides(), patch, [self.stride(); 2]);
        let mut keys = Vec::new();
        let mut same = |name: String, shape: &[i64]| keys.push(Key::new(name.clone(), name, shape));
        same("cls_token".into(), &[1, 1, d]);
        same("pos_embed".into(), &[1, 1 + grid[0] * grid[1], d]);
        let mut kernel = vec![d, self.channels, patch[0], patch[1]];
        if let Some((_, tubelet)) = self.frames() {
            kernel.insert(2, tubelet);
        }
        same("patch_embed.proj.weight".into(), &kernel);
        trunk_keys(&mut keys, ours, self.num_classes);
        if let Some((frames, tubelet)) = self.frames() {
            let shape = [1, frames / tubelet.max(1), d];
            keys.push(Key::new("temporal_pos_embedding", "temporal.pos_embed", &shape));
        }
        let directions = if self.bimamba { Bimamba::V2 } else { Bimamba::None };
        (0..self.depth).for_each(|i| mixer_keys(ours, directions, &format!("layers.{i}"), &mut keys));
        keys
    }
}

/// With `inflate`, an image model's weights for a video model.
fn adapt(table: &toml::Table, mut weights: Tensors) -> Result<Tensors> {
    let theirs: Config = config::from_table(table.clone(), "")?;
    let (Some(inflate), Some((frames, tubelet))) = (theirs.inflate, theirs.frames()) else {
        return Ok(weights);
    };
    let name = "patch_embed.proj.weight";
    if let Some(weight) = weights.get(name).filter(|weight| weight.dim() == 4) {
        let weight = weight.f_to_kind(Kind::Float)?.f_unsqueeze(2)?; // (d, channels, 1, rows, columns)
        let inflated = match inflate {
            Inflate::Average => weight.f_repeat([1, 1, tubelet, 1, 1])? / tubelet as f64,
            Inflate::Center => {
                let before = tubelet / 2;
                weight.f_constant_pad_nd([0, 0, 0, 0, before, tubelet - 1 - before])?
            }
        };
        weights.insert(name.into(), inflated);
    }
    if !weights.contains_key("temporal_pos_embedding") {
        let none =
            Tensor::f_zeros([1, frames / tubelet.max(1), theirs.embed_dim], (Kind::Float, Device::Cpu))?;
        weights.insert("temporal_pos_embedding".into(), none);
    }
    Ok(weights)
}
