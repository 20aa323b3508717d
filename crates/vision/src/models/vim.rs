//! Vim (Zhu et al., arXiv 2401.09417) as its authors publish it: their config and parameter names.

use ophidian_core::{
    Error, Result, config,
    grid::{
        Classifiers, ModelConfig, Pool, Report, Rope, Scans, Size, StemKind, Translated,
        bimamba::{Bimamba, FinalPool, MixerConfig, mixer_keys},
        geometry,
    },
    keymap::Key,
    layers::NormKind,
    mixer::{Merge, StepSizes},
};
use ophidian_scan::Plan;
use serde::Deserialize;

use super::localmamba;

/// The family.
pub const VIM: Classifiers = Classifiers {
    name: "vim",
    about: "Vision Mamba (arXiv 2401.09417): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        let ours = theirs.ours()?;
        let [height, width] = theirs.img_size.sides();
        // A config that is refused has no keys worth the room.
        let keys = if ours.check().is_ok() { theirs.keys(&ours) } else { Vec::new() };
        Ok(Translated {
            input: [theirs.channels, height, width].into(),
            classes: theirs.num_classes,
            model: ours,
            keys,
            report: Report { features: true, ..Report::default() },
        })
    },
    words: &[
        ("d_model", "embed_dim"),
        ("norm_eps", "norm_epsilon"),
        ("drop_path", "drop_path_rate"),
        ("layer_scale", "init_layer_scale"),
        ("rope", "if_rope"),
        ("rope_grid", "pt_hw_seq_len"),
        ("dt_floor", "dt_init_floor"),
    ],
    adapt: |_, weights| Ok(weights),
};

/// LocalVim (Huang et al., arXiv 2403.09338): Vim's arguments and `directions`, one list for each layer.
pub const LOCALVIM: Classifiers = Classifiers {
    name: "localvim",
    about: "LocalVim (arXiv 2403.09338): in.x images (batch, channels, height, width), in.labels (batch)",
    read: |table| {
        if !table.contains_key("directions") {
            let text =
                "missing key `directions`: a list of directions (\"h\", \"v_flip\", \"w7\" …) for each layer";
            return Err(Error::Config(text.into()));
        }
        (VIM.read)(table)
    },
    words: VIM.words,
    adapt: VIM.adapt,
};

/// The arguments of the authors' `VisionMamba`, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    img_size: Size,
    patch_size: Size,
    stride: i64,
    depth: i64,
    embed_dim: i64,
    d_state: i64,
    channels: i64,
    num_classes: i64,
    ssm_cfg: MixerConfig,
    drop_path_rate: f64,
    norm_epsilon: f64,
    rms_norm: bool,
    pt_hw_seq_len: i64,
    if_bidirectional: bool,
    final_pool_type: FinalPool,
    if_abs_pos_embed: bool,
    if_rope: bool,
    if_rope_residual: bool,
    flip_img_sequences_ratio: f64,
    if_bimamba: bool,
    bimamba_type: Bimamba,
    if_cls_token: bool,
    if_divide_out: bool,
    init_layer_scale: Option<f64>,
    use_double_cls_token: bool,
    use_middle_cls_token: bool,
    /// LocalVim's.
    directions: Option<Vec<Vec<String>>>,
    // What follows changes no number of a forward pass in f32.
    drop_rate: f64,
    fused_add_norm: bool,
    residual_in_fp32: bool,
    initializer_cfg: Option<toml::Table>,
    ft_seq_len: Option<i64>,
    device: Option<String>,
    dtype: Option<String>,
    drop_block_rate: Option<f64>,
    /// A misspelling of the base model's factory, which the constructor swallows.
    if_devide_out: Option<bool>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            img_size: Size::Square(224),
            patch_size: Size::Square(16),
            stride: 16,
            depth: 24,
            embed_dim: 192,
            d_state: 16,
            channels: 3,
            num_classes: 1000,
            ssm_cfg: MixerConfig::default(),
            drop_path_rate: 0.1,
            norm_epsilon: 1e-5,
            rms_norm: true,
            pt_hw_seq_len: 14,
            if_bidirectional: false,
            final_pool_type: FinalPool::None,
            if_abs_pos_embed: true,
            if_rope: false,
            if_rope_residual: false,
            flip_img_sequences_ratio: -1.0,
            if_bimamba: false,
            bimamba_type: Bimamba::V2,
            if_cls_token: true,
            if_divide_out: true,
            init_layer_scale: None,
            directions: None,
            use_double_cls_token: false,
            use_middle_cls_token: true,
            drop_rate: 0.0,
            fused_add_norm: true,
            residual_in_fp32: true,
            initializer_cfg: None,
            ft_seq_len: None,
            device: None,
            dtype: None,
            drop_block_rate: None,
            if_devide_out: None,
        }
    }
}

impl Config {
    fn bimamba(&self) -> Bimamba {
        if self.if_bimamba { Bimamba::V1 } else { self.bimamba_type }
    }

    fn pool(&self) -> Pool {
        // A class token is read whatever final_pool_type says.
        match (self.if_cls_token, self.final_pool_type) {
            (true, _) if self.use_double_cls_token => Pool::Both,
            (true, _) if self.use_middle_cls_token => Pool::Middle,
            (true, _) => Pool::Head,
            (false, pool) => pool.ours(),
        }
    }

    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        if self.flip_img_sequences_ratio > 0.0 {
            return Err(Error::Config(format!(
                "`flip_img_sequences_ratio` is {}, which flips sequences at random even outside training: not \
                 supported, expected a number of at most 0",
                self.flip_img_sequences_ratio
            )));
        }
        if let Some(states) = self.ssm_cfg.d_state {
            return Err(Error::Config(format!(
                "unknown key `ssm_cfg.d_state`; expected `d_state = {states}` beside `ssm_cfg`"
            )));
        }
        let directions = self.bimamba().scan();
        let scan = if self.if_bidirectional {
            Scans::Each(vec![directions.into(), format!("{directions} | reverse")])
        } else {
            Scans::One(directions.into())
        };
        let mean = self.bimamba() == Bimamba::V2 && self.if_divide_out;
        let model = ModelConfig {
            patch_size: self.patch_size,
            stride: self.stride.into(),
            d_model: self.embed_dim.into(),
            depth: self.depth.into(),
            d_state: self.d_state,
            step_sizes: StepSizes::FirstLogUniform,
            scan,
            parameters: self.bimamba().parameters(),
            merge: if mean { Merge::Mean } else { Merge::Sum },
            layer_pairs: self.if_bidirectional,
            norm: if self.rms_norm { NormKind::Rms } else { NormKind::Layer },
            norm_eps: self.norm_epsilon,
            layer_scale: self.init_layer_scale,
            drop_path: self.drop_path_rate,
            mlp_ratio: 0.0.into(),
            pool: self.pool(),
            pos_embed: self.if_abs_pos_embed,
            rope: match (self.if_rope, self.if_rope_residual) {
                (false, _) => Rope::None,
                (true, false) => Rope::Hidden,
                (true, true) => Rope::Residual,
            },
            rope_grid: self.pt_hw_seq_len,
            ..ModelConfig::default()
        };
        let model = match &self.directions {
            Some(directions) => ModelConfig {
                scan: localmamba::scans(directions)?,
                merge: Merge::ChannelGate,
                step_sizes: StepSizes::LogUniform,
                ..model
            },
            None => model,
        };
        self.check_class_token(&model)?;
        self.ssm_cfg.apply(self.bimamba() != Bimamba::None, model)
    }

    /// LocalVim has its class token as far into every walk as into the tokens, we between the same neighbours: checks that
    /// this is one, as on even grids that windows tile.
    fn check_class_token(&self, model: &ModelConfig) -> Result<()> {
        // A config that is wrong otherwise is refused later.
        if self.directions.is_none() || !model.pool_is_token() || model.check().is_err() {
            return Ok(());
        }
        let grid = model.patch_grid(self.img_size.sides());
        let middle = grid[0] * grid[1] / 2;
        let same = |plan: &Plan| {
            plan.orders().iter().all(|order| order.index().get(middle as usize) == Some(&(middle as i32)))
        };
        if model.pool == Pool::Middle && model.scan.plans(&geometry(None, grid), &[middle])?.iter().all(same)
        {
            return Ok(());
        }
        Err(Error::Config(format!(
            "`if_cls_token` with `directions` on {}x{} patches: not supported, expected `use_middle_cls_token` and even \
             numbers of patches that every window divides",
            grid[0], grid[1]
        )))
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let d = self.embed_dim;
        let patch = self.patch_size.sides();
        let grid = StemKind::Patch.grid(self.img_size.sides(), patch, [self.stride; 2]);
        let patches = grid[0] * grid[1];
        let class_tokens = ours.pool.class_tokens(patches);
        let mut keys = Vec::new();
        let mut same = |name: String, shape: &[i64]| keys.push(Key::new(name.clone(), name, shape));
        match class_tokens.len() {
            1 => same("cls_token".into(), &[1, 1, d]),
            2 => ["head", "tail"].iter().for_each(|end| same(format!("cls_token_{end}"), &[1, 1, d])),
            _ => {}
        }
        if self.if_abs_pos_embed {
            same("pos_embed".into(), &[1, patches + class_tokens.len() as i64, d]);
        }
        same("patch_embed.proj.weight".into(), &[d, self.channels, patch[0], patch[1]]);
        same("patch_embed.proj.bias".into(), &[d]);
        if self.if_rope {
            ["cos", "sin"].iter().for_each(|table| same(format!("rope.freqs_{table}"), &[patches, d]));
        }
        if self.num_classes > 0 {
            same("head.weight".into(), &[self.num_classes, d]);
            same("head.bias".into(), &[self.num_classes]);
        }
        let norms: &[&str] = if self.rms_norm { &["weight"] } else { &["weight", "bias"] };
        norms.iter().for_each(|part| same(format!("norm_f.{part}"), &[d]));
        for i in 0..self.depth {
            norms.iter().for_each(|part| same(format!("layers.{i}.norm.{part}"), &[d]));
        }
        if let Some(directions) = &self.directions {
            for (i, names) in (0..self.depth).zip(directions.iter().cycle()) {
                local_keys(ours, names.len(), &format!("layers.{i}"), &mut keys);
            }
            return keys;
        }
        (0..self.depth).for_each(|i| mixer_keys(ours, self.bimamba(), &format!("layers.{i}"), &mut keys));
        keys
    }
}

/// The tensors of LocalVim's mixer, whose directions are numbered.
fn local_keys(ours: &ModelConfig, directions: usize, layer: &str, keys: &mut Vec<Key>) {
    let mixer = ours.mamba(ours.last_width(), 1);
    let (width, inner, n, w, rank) =
        (mixer.d_model, mixer.d_inner(), mixer.d_state, mixer.d_conv, mixer.rank());
    let name = |name: &str| format!("{layer}.mixer.{name}");
    for (projection, rows, columns) in
        [("in_proj.weight", 2 * inner, width), ("out_proj.weight", width, inner)]
    {
        keys.push(Key::new(name(projection), name(projection), &[rows, columns]));
    }
    for row in 0..directions {
        for (part, rest, shape) in [
            ("A_log", "", &[inner, n][..]),
            ("D", "", &[inner]),
            ("conv1d", ".weight", &[inner, 1, w]),
            ("conv1d", ".bias", &[inner]),
            ("x_proj", ".weight", &[rank + 2 * n, inner]),
            ("dt_proj", ".weight", &[inner, rank]),
            ("dt_proj", ".bias", &[inner]),
        ] {
            let (theirs, ours) = (format!("{part}_{row}{rest}"), format!("{part}{rest}"));
            keys.push(Key::row(name(&theirs), name(&ours), row as i64, shape));
        }
    }
    localmamba::gate_keys(keys, &name("attn"), &name("").replace("mixer.", "mixer"), inner);
}
