//! PlainMamba (Yang et al., arXiv 2403.17695) as its authors publish it: their config and parameter names.

use ophidian_core::{
    Error, Result, config,
    grid::{
        Classifiers, ModelConfig, Pool, Report, Scans, Size, StemKind, Translated,
        family::{batch_norm, layer, without_counters},
    },
    init::Start,
    keymap::Key,
    layers::NormKind,
    mixer::{Compat, ConvPlace, DtInit, DtRank, Merge, Parameters},
};
use serde::Deserialize;

/// The family.
pub const PLAINMAMBA: Classifiers = Classifiers {
    name: "plainmamba",
    about: "PlainMamba (arXiv 2403.17695): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs = config::from_table::<Config>(table, "")?.with_arch()?;
        let [height, width] = theirs.img_size.sides();
        let input = [theirs.in_channels, height, width];
        let report = Report { tokens: true, any_size: true, ..Report::default() };
        Ok(Translated::new(theirs.ours()?, input, theirs.num_classes, report, |ours| theirs.keys(ours)))
    },
    words: &[
        ("d_model", "embed_dims"),
        ("depth", "num_layers"),
        ("drop_path", "drop_path_rate"),
        ("d_conv", "layer_cfgs.mamba_cfg.conv_size"),
        ("d_state", "layer_cfgs.mamba_cfg.d_state"),
        ("stem_convs", "num_convs_patch_embed"),
        ("local_conv", "layers_with_dwconv"),
        ("channels", "in_channels"),
    ],
    adapt: without_counters,
};

/// Four continuous walks: rows there and back, columns there and back, and both from the end.
const CONTINUOUS: &str =
    "[serpentine, serpentine | reverse, serpentine | transpose, serpentine | transpose | reverse]";

/// The arguments of the authors' `PlainMamba`, with their defaults, and `num_classes` of its head.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    img_size: Size,
    in_channels: i64,
    arch: Option<Arch>,
    patch_size: i64,
    embed_dims: i64,
    num_layers: i64,
    num_convs_patch_embed: i64,
    with_pos_embed: bool,
    drop_path_rate: f64,
    norm_cfg: NormConfig,
    final_norm: bool,
    interpolate_mode: String,
    layer_cfgs: LayerConfig,
    layers_with_dwconv: Vec<i64>,
    num_classes: i64,
    // What follows changes no number of a forward pass in f32.
    drop_rate: f64,
    out_indices: Option<toml::Value>,
    init_cfg: Option<toml::Value>,
    test_cfg: Option<toml::Value>,
    convert_syncbn: bool,
    freeze_patch_embed: bool,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            img_size: Size::Square(224),
            in_channels: 3,
            arch: None,
            patch_size: 16,
            embed_dims: 192,
            num_layers: 20,
            num_convs_patch_embed: 1,
            with_pos_embed: true,
            drop_path_rate: 0.0,
            norm_cfg: NormConfig::default(),
            final_norm: true,
            interpolate_mode: "bicubic".into(),
            layer_cfgs: LayerConfig::default(),
            layers_with_dwconv: Vec::new(),
            num_classes: 1000,
            drop_rate: 0.0,
            out_indices: None,
            init_cfg: None,
            test_cfg: None,
            convert_syncbn: false,
            freeze_patch_embed: false,
        }
    }
}

/// The sizes that the authors name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Arch {
    L1,
    L2,
    L3,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct NormConfig {
    #[serde(rename = "type")]
    kind: String,
    eps: f64,
}

impl Default for NormConfig {
    fn default() -> Self {
        NormConfig { kind: "LN".into(), eps: 1e-6 }
    }
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct LayerConfig {
    use_rms_norm: bool,
    mamba_cfg: MixerConfig,
}

/// The arguments of the authors' `PlainMamba2D`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct MixerConfig {
    d_state: i64,
    expand: f64,
    dt_rank: DtRank,
    dt_min: f64,
    dt_max: f64,
    dt_init: DtInit,
    dt_scale: f64,
    dt_init_floor: f64,
    conv_size: i64,
    conv_bias: bool,
    bias: bool,
    init_layer_scale: Option<f64>,
    /// Only the grid that their tables are made for in advance.
    default_hw_shape: Option<[i64; 2]>,
}

impl Default for MixerConfig {
    fn default() -> Self {
        MixerConfig {
            d_state: 16,
            expand: 2.0,
            dt_rank: DtRank::Auto,
            dt_min: 1e-3,
            dt_max: 0.1,
            dt_init: DtInit::Random,
            dt_scale: 1.0,
            dt_init_floor: 1e-4,
            conv_size: 7,
            conv_bias: true,
            bias: false,
            init_layer_scale: None,
            default_hw_shape: None,
        }
    }
}

impl Config {
    /// `arch` replaces what it stands for.
    fn with_arch(self) -> Result<Config> {
        let Some(arch) = self.arch else { return Ok(self) };
        let (embed_dims, num_layers, convs, local): (i64, i64, i64, &[i64]) = match arch {
            Arch::L1 => (192, 24, 1, &[0]),
            Arch::L2 => (384, 24, 2, &[]),
            Arch::L3 => (448, 36, 2, &[]),
        };
        let mamba_cfg = MixerConfig { bias: true, ..MixerConfig::default() };
        Ok(Config {
            patch_size: 16,
            embed_dims,
            num_layers,
            num_convs_patch_embed: convs,
            layers_with_dwconv: local.to_vec(),
            layer_cfgs: LayerConfig { use_rms_norm: false, mamba_cfg },
            ..self
        })
    }

    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        if self.norm_cfg.kind != "LN" || !self.final_norm {
            return Err(Error::Config(format!(
                "`norm_cfg.type` is \"{}\" and `final_norm` {}: not supported, expected \"LN\" and true",
                self.norm_cfg.kind, self.final_norm
            )));
        }
        if self.interpolate_mode != "bicubic" {
            return Err(Error::Config(format!(
                "`interpolate_mode` is \"{}\": not supported, expected \"bicubic\"",
                self.interpolate_mode
            )));
        }
        if self.with_pos_embed && self.img_size.sides().iter().any(|side| side % 2 != 0) {
            return Err(Error::Config(format!(
                "`img_size` is {:?}: not supported, expected even numbers of pixels",
                self.img_size.sides()
            )));
        }
        let mixer = &self.layer_cfgs.mamba_cfg;
        Ok(ModelConfig {
            patch_size: Size::Square(self.patch_size),
            stride: self.patch_size.into(),
            stem: StemKind::Conv,
            stem_convs: self.num_convs_patch_embed.max(0),
            d_model: self.embed_dims.into(),
            depth: self.num_layers.into(),
            d_state: mixer.d_state,
            d_conv: mixer.conv_size,
            conv: ConvPlace::Grid,
            expand: mixer.expand,
            dt_rank: mixer.dt_rank,
            dt_min: mixer.dt_min,
            dt_max: mixer.dt_max,
            dt_floor: mixer.dt_init_floor,
            dt_init: mixer.dt_init,
            dt_scale: mixer.dt_scale,
            conv_bias: mixer.conv_bias,
            bias: mixer.bias,
            scan: Scans::One(CONTINUOUS.into()),
            parameters: Parameters::Shared,
            merge: Merge::Sum,
            step_embedding: true,
            local_conv: self.layers_with_dwconv.clone(),
            norm: if self.layer_cfgs.use_rms_norm { NormKind::Rms } else { NormKind::Layer },
            final_norm: self.layer_cfgs.use_rms_norm.then_some(NormKind::Layer),
            final_norm_eps: Some(self.norm_cfg.eps),
            layer_scale: mixer.init_layer_scale,
            drop_path: self.drop_path_rate,
            pool: Pool::Mean,
            pos_embed: self.with_pos_embed,
            init: Start::Normal,
            // What the released weights were trained with.
            compat: Compat { unordered_coefficients: true, double_dt_bias: true, ..Compat::default() },
            ..ModelConfig::default()
        })
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (mut keys, d, half) = (Vec::new(), self.embed_dims, self.patch_size / 2);
        if self.with_pos_embed {
            let grid = ours.grids(self.img_size.sides())[0];
            keys.push(Key::new("backbone.pos_embed", "pos_embed", &[1, grid[0] * grid[1], d]));
        }
        let stem = "backbone.patch_embed.stem";
        keys.push(Key::new(
            format!("{stem}.0.weight"),
            "patch_embed.stem.conv.weight",
            &[64, self.in_channels, 7, 7],
        ));
        batch_norm(&mut keys, &format!("{stem}.1"), "patch_embed.stem.norm", 64);
        for i in 0..ours.stem_convs {
            let (theirs, convs) = ("backbone.patch_embed.convs", format!("patch_embed.convs.{i}"));
            let weight = format!("{theirs}.{}.weight", 3 * i);
            keys.push(Key::new(weight, format!("{convs}.conv.weight"), &[64, 64, 3, 3]));
            batch_norm(&mut keys, &format!("{theirs}.{}", 3 * i + 1), &format!("{convs}.norm"), 64);
        }
        let proj = [d, 64, half, half];
        layer(&mut keys, "backbone.patch_embed.projection", "patch_embed.proj", &proj, true);
        for i in 0..self.num_layers {
            self.block_keys(ours, i, &mut keys);
        }
        layer(&mut keys, "backbone.ln1", "norm_f", &[d], true);
        if self.num_classes > 0 {
            layer(&mut keys, "head.fc", "head", &[self.num_classes, d], true);
        }
        keys
    }

    fn block_keys(&self, ours: &ModelConfig, i: i64, keys: &mut Vec<Key>) {
        let mixer = ours.mamba(self.embed_dims, 4);
        let (width, d, n, r, w) =
            (self.embed_dims, mixer.d_inner(), mixer.d_state, mixer.rank(), mixer.d_conv);
        let (theirs, block) = (format!("backbone.layers.{i}"), format!("layers.{i}"));
        layer(
            keys,
            &format!("{theirs}.norm"),
            &format!("{block}.norm"),
            &[width],
            !self.layer_cfgs.use_rms_norm,
        );
        if self.layers_with_dwconv.contains(&i) {
            let weight = format!("{theirs}.dw.0.weight");
            keys.push(Key::new(weight, format!("{block}.local.conv.weight"), &[width, 1, 3, 3]));
            batch_norm(keys, &format!("{theirs}.dw.1"), &format!("{block}.local.norm"), width);
        }
        let (theirs, mix) = (format!("{theirs}.mamba"), format!("{block}.mixer"));
        if ours.layer_scale.is_some() {
            keys.push(Key::new(format!("{theirs}.gamma"), format!("{block}.gamma"), &[width]));
        }
        for (name, shape) in [("A_log", &[d, n][..]), ("D", &[d])] {
            keys.push(Key::new(format!("{theirs}.{name}"), format!("{mix}.{name}"), shape));
        }
        keys.push(Key::new(format!("{theirs}.direction_Bs"), format!("{mix}.step_embedding"), &[5, n]));
        for (name, weight, bias) in [
            ("in_proj", &[2 * d, width][..], mixer.bias),
            ("conv2d", &[d, 1, w, w], mixer.conv_bias),
            ("x_proj", &[r + 2 * n, d], false),
            ("dt_proj", &[d, r], true),
            ("out_proj", &[width, d], mixer.bias),
        ] {
            layer(keys, &format!("{theirs}.{name}"), &format!("{mix}.{name}"), weight, bias);
        }
    }
}
