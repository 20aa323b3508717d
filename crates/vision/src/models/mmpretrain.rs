//! Two models that their authors publish as backbones of MMPretrain: RSMamba (Chen et al., arXiv 2403.19654) and Mamba-ND
//! (Li et al., arXiv 2402.05892).

use ophidian_core::{
    Error, Result, config, documented,
    grid::{
        Classifiers, ModelConfig, PerStage, Pool, Report, Scans, Size, Translated,
        family::{layer, without_counters},
    },
    keymap::Key,
    layers::{DownsampleKind, NormKind},
    mixer::{Merge, Parameters},
};
use serde::Deserialize;
use toml::Value;

/// RSMamba.
pub const RSMAMBA: Classifiers = Classifiers {
    name: "rsmamba",
    about: "RSMamba (arXiv 2403.19654): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let (trunk, own) = config::from_shared::<Trunk, RsMamba>(table, "", &config::names(Trunk::DOCS))?;
        own.read(trunk)
    },
    words: &[("d_model", "embed_dims"), ("depth", "num_layers"), ("stride", "patch_cfg.stride")],
    adapt: without_counters,
};

/// Mamba-ND's image models.
pub const MAMBAND: Classifiers = Classifiers {
    name: "mamband",
    about: "Mamba-ND (arXiv 2402.05892): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let (table, shared) = (config::with_defaults(table, nd_defaults()), config::names(Trunk::DOCS));
        let (trunk, own) = config::from_shared::<Trunk, MambaNd>(table, "", &shared)?;
        own.read(trunk)
    },
    words: &[("d_model", "embed_dims"), ("depth", "num_layers"), ("drop_path", "drop_path_rate")],
    adapt: without_counters,
};

documented! {
/// What both take, with RSMamba's defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Trunk {
    /// Sizes by name.
    pub arch: Option<String>,
    /// Channels of a token.
    pub embed_dims: i64,
    /// Layers, or pairs of them.
    pub num_layers: i64,
    /// Pixels of an image.
    pub img_size: Size,
    /// Pixels per side of a patch.
    pub patch_size: i64,
    /// Channels of an image.
    pub in_channels: i64,
    /// Classes of the head.
    pub num_classes: i64,
}
}

impl Default for Trunk {
    fn default() -> Self {
        Trunk {
            arch: None,
            embed_dims: 192,
            num_layers: 24,
            img_size: Size::Square(224),
            patch_size: 16,
            in_channels: 3,
            num_classes: 1000,
        }
    }
}

impl Trunk {
    /// What both models have in common in our words.
    fn model(&self) -> ModelConfig {
        ModelConfig {
            patch_size: Size::Square(self.patch_size),
            stride: Size::Square(self.patch_size),
            norm: NormKind::Layer,
            pool: Pool::Mean,
            pool_norm: true,
            ..ModelConfig::default()
        }
    }

    /// `model`, whose blocks have the tensors that `blocks` adds.
    fn translated(&self, model: ModelConfig, blocks: impl FnOnce(&ModelConfig, &mut Vec<Key>)) -> Translated {
        let [height, width] = self.img_size.sides();
        let report = Report { any_size: true, ..Report::default() };
        let input = [self.in_channels, height, width];
        Translated::new(model, input, self.num_classes, report, |ours| {
            let (mut keys, d, patch) = (Vec::new(), self.embed_dims, self.patch_size);
            let [rows, columns] = ours.patch_grid(self.img_size.sides());
            keys.push(Key::new("backbone.pos_embed", "pos_embed", &[1, rows * columns, d]));
            let (theirs, weight) = ("backbone.patch_embed.projection", [d, self.in_channels, patch, patch]);
            layer(&mut keys, theirs, "patch_embed.proj", &weight, ours.patch_bias);
            blocks(ours, &mut keys);
            layer(&mut keys, "backbone.ln1", "norm_f", &[d], true);
            layer(&mut keys, "backbone.ln2", "pool_norm", &[d], true);
            if self.num_classes > 0 {
                layer(&mut keys, "head.fc", "head", &[self.num_classes, d], true);
            }
            keys
        })
    }
}

/// What the authors' `RSMamba` takes beside that, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct RsMamba {
    patch_cfg: PatchConfig,
    path_type: PathType,
}

/// `patch_cfg`: further arguments of the patch embedding.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct PatchConfig {
    stride: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PathType {
    Forward,
    ForwardReverseMean,
    ForwardReverseGate,
    ForwardReverseShuffleGate,
    ForwardReverseShuffleMean,
}

impl Default for RsMamba {
    fn default() -> Self {
        RsMamba { patch_cfg: PatchConfig::default(), path_type: PathType::ForwardReverseShuffleGate }
    }
}

/// The tensors of a Mamba of one set of parameters, `theirs` and ours by the same names.
fn mamba_keys(keys: &mut Vec<Key>, ours: &ModelConfig, theirs: &str, mix: &str) {
    let mixer = ours.mamba(ours.last_width(), 1);
    let (width, d, n, r, w) = (mixer.d_model, mixer.d_inner(), mixer.d_state, mixer.rank(), mixer.d_conv);
    for (name, shape) in [
        ("in_proj.weight", &[2 * d, width][..]),
        ("conv1d.weight", &[d, 1, w]),
        ("conv1d.bias", &[d]),
        ("x_proj.weight", &[r + 2 * n, d]),
        ("dt_proj.weight", &[d, r]),
        ("dt_proj.bias", &[d]),
        ("A_log", &[d, n]),
        ("D", &[d]),
        ("out_proj.weight", &[width, d]),
    ] {
        keys.push(Key::new(format!("{theirs}.{name}"), format!("{mix}.{name}"), shape));
    }
}

impl RsMamba {
    fn read(self, mut trunk: Trunk) -> Result<Translated> {
        if let Some(arch) = &trunk.arch {
            (trunk.embed_dims, trunk.num_layers) = match arch.to_lowercase().as_str() {
                "s" | "small" => (192, 16),
                "b" | "base" => (192, 24),
                "l" | "large" => (256, 36),
                "h" | "huge" => (320, 48),
                _ => {
                    let text = format!("`arch` is \"{arch}\", expected \"s\", \"b\", \"l\" or \"h\"");
                    return Err(Error::Config(text));
                }
            };
        }
        let (paths, merge) = match self.path_type {
            PathType::Forward => ("row", Merge::Sum),
            PathType::ForwardReverseMean => ("row | bidirectional", Merge::Mean),
            PathType::ForwardReverseGate => ("row | bidirectional", Merge::Gated),
            PathType::ForwardReverseShuffleMean => ("[row, row | reverse, random(seed=sample)]", Merge::Mean),
            PathType::ForwardReverseShuffleGate => {
                ("[row, row | reverse, random(seed=sample)]", Merge::Gated)
            }
        };
        let model = ModelConfig {
            stride: Size::Square(self.patch_cfg.stride.unwrap_or(trunk.patch_size)),
            patch_bias: false,
            patch_pad: true,
            d_model: trunk.embed_dims.into(),
            depth: trunk.num_layers.into(),
            scan: Scans::One(paths.into()),
            parameters: Parameters::Shared,
            merge,
            shared_norm: true,
            norm_eps: 1e-6,
            ..trunk.model()
        };
        Ok(trunk.translated(model, |ours, keys| self.keys(ours, keys)))
    }

    fn keys(&self, ours: &ModelConfig, keys: &mut Vec<Key>) {
        let d = ours.last_width();
        let paths = match self.path_type {
            PathType::ForwardReverseGate => 2,
            PathType::ForwardReverseShuffleGate => 3,
            _ => 0,
        };
        for i in 0..ours.blocks() {
            let mix = format!("layers.{i}.mixer");
            mamba_keys(keys, ours, &format!("backbone.layers.{i}"), &mix);
            if paths > 0 {
                let gate = format!("backbone.gate_layers.{i}.0");
                layer(keys, &gate, &format!("{mix}.gate"), &[paths, paths * d], false);
            }
        }
        layer(keys, "backbone.pre_norm", "shared_norm", &[d], true);
    }
}

/// What the authors' `Mamba2DModel` takes beside that, as their image models set it.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MambaNd {
    drop_path_rate: f64,
    d_state: i64,
    /// The layer behind which tokens are merged; one at most.
    downsample: Vec<i64>,
}

impl Default for MambaNd {
    fn default() -> Self {
        MambaNd { drop_path_rate: 0.0, d_state: 16, downsample: vec![9] }
    }
}

/// Its defaults of what both take, where they are others.
fn nd_defaults() -> [(&'static str, Value); 3] {
    [("embed_dims", 768.into()), ("num_layers", 12.into()), ("patch_size", 8.into())]
}

impl MambaNd {
    fn read(self, mut trunk: Trunk) -> Result<Translated> {
        match trunk.arch.as_deref() {
            None => {}
            Some("small") => trunk.embed_dims = 384,
            Some("base") => trunk.embed_dims = 768,
            Some(other) => {
                let text = format!("`arch` is \"{other}\", expected \"small\" or \"base\"");
                return Err(Error::Config(text));
            }
        }
        // Pairs of layers.
        let layers = trunk.num_layers.saturating_mul(2);
        let depths = match self.downsample[..] {
            [] => vec![layers],
            [behind] if (0..layers - 1).contains(&behind) => vec![behind + 1, layers - behind - 1],
            _ => {
                return Err(Error::Config(format!(
                    "`downsample` is {:?}, expected no layer, or one from 0 to {}",
                    self.downsample,
                    layers - 2
                )));
            }
        };
        let model = ModelConfig {
            d_model: PerStage::Each(vec![trunk.embed_dims; depths.len()]),
            depth: PerStage::Each(depths),
            downsample: DownsampleKind::Merge,
            d_state: self.d_state,
            scan: Scans::Each(
                ["row", "row | reverse", "column", "column | reverse"].map(String::from).into(),
            ),
            carry_normed: true,
            final_norm_eps: Some(1e-6),
            drop_path: self.drop_path_rate,
            ..trunk.model()
        };
        Ok(trunk.translated(model, |ours, keys| self.keys(ours, keys)))
    }

    fn keys(&self, ours: &ModelConfig, keys: &mut Vec<Key>) {
        let d = ours.last_width();
        for i in 0..ours.blocks() {
            let theirs = format!("backbone.layers.{i}");
            mamba_keys(keys, ours, &format!("{theirs}.mixer"), &format!("layers.{i}.mixer"));
            layer(keys, &format!("{theirs}.norm"), &format!("layers.{i}.norm"), &[d], true);
        }
        for behind in &self.downsample {
            let theirs = format!("backbone.layers.{behind}.down_sample_layer");
            for (name, shape) in
                [("norm.weight", &[4 * d][..]), ("norm.bias", &[4 * d]), ("reduction.weight", &[d, 4 * d])]
            {
                keys.push(Key::squares(format!("{theirs}.{name}"), format!("downsample.0.{name}"), shape));
            }
        }
    }
}
