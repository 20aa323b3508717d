//! Audio Mamba (Erol et al., arXiv 2406.03344) as its authors publish it: their config and parameter names.
//!
//! It is Vim on a spectrogram of frequencies x times, whose tokens go frequency by frequency, or time by time
//! (`transpose_token_sequence`): then it is Vim on the spectrogram laid on its side. Their table of positions has the class
//! tokens in front, wherever they stand among the tokens.

use ophidian_core::{
    Error, Result, config,
    grid::{
        Classifiers, ModelConfig, PerStage, Pool, Report, Rope, Scans, Size, StemKind, Translated,
        bimamba::{Bimamba, FinalPool, MixerConfig, mixer_keys},
    },
    keymap::{Key, Layout},
    layers::NormKind,
    mixer::{Merge, StepSizes},
};
use serde::Deserialize;
use tch::Tensor;

/// The family.
pub const AUM: Classifiers = Classifiers {
    name: "aum",
    about: "Audio Mamba (arXiv 2406.03344): in.x spectrograms (batch, frames, mels), in.labels (batch)",
    read: |table| {
        let theirs: Config = config::from_table(table, "")?;
        let ours = theirs.ours()?;
        let [rows, columns] = theirs.laid(theirs.spectrogram_size);
        // A config that is refused has no keys worth the room.
        let keys = if ours.check().is_ok() { theirs.keys(&ours) } else { Vec::new() };
        Ok(Translated {
            input: [theirs.channels, rows, columns].into(),
            classes: theirs.num_classes,
            model: ours,
            keys,
            report: Report {
                features: true,
                any_size: !theirs.if_abs_pos_embed && !theirs.if_rope,
                prepare: Some(if theirs.transpose_token_sequence { time_major } else { frequency_major }),
                ..Report::default()
            },
        })
    },
    words: &[
        ("d_model", "embed_dim"),
        ("d_state", "ssm_cfg.d_state"),
        ("norm_eps", "norm_epsilon"),
        ("drop_path", "drop_path_rate"),
        ("layer_scale", "init_layer_scale"),
        ("rope", "if_rope"),
        ("stride", "strides"),
        ("img_size", "spectrogram_size"),
        ("dt_floor", "dt_init_floor"),
    ],
    adapt: |_, weights| Ok(weights),
};

/// The arguments of the authors' `AudioMamba`, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    /// (mels, frames).
    spectrogram_size: Size,
    patch_size: Size,
    strides: Size,
    depth: i64,
    embed_dim: i64,
    channels: i64,
    num_classes: i64,
    ssm_cfg: MixerConfig,
    drop_path_rate: f64,
    norm_epsilon: f64,
    rms_norm: bool,
    final_pool_type: FinalPool,
    if_abs_pos_embed: bool,
    if_rope: bool,
    if_rope_residual: bool,
    if_cls_token: bool,
    flip_img_sequences_ratio: f64,
    if_bidirectional: bool,
    if_bimamba: bool,
    bimamba_type: Bimamba,
    if_devide_out: bool,
    init_layer_scale: Option<f64>,
    use_double_cls_token: bool,
    use_middle_cls_token: bool,
    use_end_cls_token: bool,
    transpose_token_sequence: bool,
    must_square: bool,
    abs_pos_patch_grid_size: Option<Size>,
    #[serde(rename = "weird__target_size")]
    weird_target_size: Option<Size>,
    // What follows changes no number of a forward pass in f32: the tables of a rotary embedding are among the weights.
    drop_rate: f64,
    fused_add_norm: bool,
    residual_in_fp32: bool,
    initializer_cfg: Option<toml::Table>,
    ft_seq_len: Option<Size>,
    pt_hw_seq_len: Option<Size>,
    bilinear_rope: bool,
    imagenet_pretrain: bool,
    aum_pretrain: bool,
    flexible_patch_sizes: Option<Vec<i64>>,
    device: Option<String>,
    dtype: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            spectrogram_size: Size::Sides([128, 1024]),
            patch_size: Size::Square(16),
            strides: Size::Square(16),
            depth: 24,
            embed_dim: 768,
            channels: 1,
            num_classes: 527,
            ssm_cfg: MixerConfig::default(),
            drop_path_rate: 0.0,
            norm_epsilon: 1e-5,
            rms_norm: true,
            final_pool_type: FinalPool::Mean,
            if_abs_pos_embed: true,
            if_rope: false,
            if_rope_residual: false,
            if_cls_token: true,
            flip_img_sequences_ratio: -1.0,
            if_bidirectional: false,
            if_bimamba: false,
            bimamba_type: Bimamba::V2,
            if_devide_out: true,
            init_layer_scale: None,
            use_double_cls_token: false,
            use_middle_cls_token: true,
            use_end_cls_token: false,
            transpose_token_sequence: false,
            must_square: false,
            abs_pos_patch_grid_size: None,
            weird_target_size: None,
            drop_rate: 0.0,
            fused_add_norm: true,
            residual_in_fp32: true,
            initializer_cfg: None,
            ft_seq_len: None,
            pt_hw_seq_len: None,
            bilinear_rope: false,
            imagenet_pretrain: false,
            aum_pretrain: false,
            flexible_patch_sizes: None,
            device: None,
            dtype: None,
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
            (true, _) if self.use_end_cls_token => Pool::End,
            (true, _) => Pool::Head,
            (false, pool) => pool.ours(),
        }
    }

    /// (mels, frames) as the rows and columns that the model sees.
    fn laid(&self, size: Size) -> [i64; 2] {
        let [mels, frames] = size.sides();
        if self.transpose_token_sequence { [frames, mels] } else { [mels, frames] }
    }

    /// Patches by frequency and by time.
    fn grid(&self) -> [i64; 2] {
        StemKind::Patch.grid(self.spectrogram_size.sides(), self.patch_size.sides(), self.strides.sides())
    }

    fn refuse(&self) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
        if self.flip_img_sequences_ratio > 0.0 {
            return fail(format!(
                "`flip_img_sequences_ratio` is {}, which flips sequences at random even outside training: not supported, \
                 expected a number of at most 0",
                self.flip_img_sequences_ratio
            ));
        }
        if self.must_square {
            return fail("`must_square` is true: not supported".to_owned());
        }
        for (key, set) in [
            ("abs_pos_patch_grid_size", self.abs_pos_patch_grid_size.is_some()),
            ("weird__target_size", self.weird_target_size.is_some()),
        ] {
            if set {
                return fail(format!(
                    "`{key}` is set, which resizes the position embedding: not supported; leave it out"
                ));
            }
        }
        if self.channels != 1 {
            return fail(format!("`channels` is {}, expected 1: a spectrogram has one", self.channels));
        }
        let ([mels, frames], [rows, columns]) = (self.spectrogram_size.sides(), self.patch_size.sides());
        if rows < 1 || columns < 1 || self.strides.sides().iter().any(|step| *step < 1) {
            let (patch, strides) = (self.patch_size, self.strides);
            return fail(format!(
                "`patch_size` is {patch} and `strides` {strides}, expected numbers above 0"
            ));
        }
        if self.transpose_token_sequence && self.grid() != [mels / rows, frames / columns] {
            return fail(format!(
                "`transpose_token_sequence` is for patches that do not overlap: `strides` is {}, expected the patch's {}",
                self.strides, self.patch_size
            ));
        }
        if self.if_rope && (!self.if_cls_token || self.use_double_cls_token) {
            return fail(
                "`if_rope` leaves one token alone, the class token; expected one class token".to_owned(),
            );
        }
        Ok(())
    }

    /// Their config in our words.
    fn ours(&self) -> Result<ModelConfig> {
        self.refuse()?;
        let directions = self.bimamba().scan();
        let scan = if self.if_bidirectional {
            Scans::Each(vec![directions.into(), format!("{directions} | reverse")])
        } else {
            Scans::One(directions.into())
        };
        let mean = self.bimamba() == Bimamba::V2 && self.if_devide_out;
        let model = ModelConfig {
            patch_size: Size::Sides(self.laid(self.patch_size)),
            stride: Size::Sides(self.laid(self.strides)),
            d_model: self.embed_dim.into(),
            depth: self.depth.into(),
            step_sizes: StepSizes::FirstLogUniform,
            scan,
            parameters: self.bimamba().parameters(),
            merge: if mean { Merge::Mean } else { Merge::Sum },
            layer_pairs: self.if_bidirectional,
            norm: if self.rms_norm { NormKind::Rms } else { NormKind::Layer },
            norm_eps: self.norm_epsilon,
            layer_scale: self.init_layer_scale,
            drop_path: self.drop_path_rate,
            mlp_ratio: PerStage::One(0.0),
            pool: self.pool(),
            pos_embed: self.if_abs_pos_embed,
            rope: match (self.if_rope, self.if_rope_residual) {
                (false, _) => Rope::None,
                (true, false) => Rope::Hidden,
                (true, true) => Rope::Residual,
            },
            ..ModelConfig::default()
        };
        self.ssm_cfg.apply(self.bimamba() != Bimamba::None, model)
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, ours: &ModelConfig) -> Vec<Key> {
        let (d, [mels, frames], patch) = (self.embed_dim, self.grid(), self.patch_size.sides());
        let patches = mels * frames;
        let class_tokens = ours.pool.class_tokens(patches);
        let mut keys = Vec::new();
        let mut same = |name: String, shape: &[i64]| keys.push(Key::new(name.clone(), name, shape));
        match class_tokens.len() {
            1 => same("cls_token".into(), &[1, 1, d]),
            2 => ["head", "tail"].iter().for_each(|end| same(format!("cls_token_{end}"), &[1, 1, d])),
            _ => {}
        }
        if self.if_rope {
            ["cos", "sin"].iter().for_each(|table| same(format!("rope.freqs_{table}"), &[patches, d]));
        }
        same("patch_embed.proj.bias".into(), &[d]);
        if self.num_classes > 0 {
            same("head.weight".into(), &[self.num_classes, d]);
            same("head.bias".into(), &[self.num_classes]);
        }
        let norms: &[&str] = if self.rms_norm { &["weight"] } else { &["weight", "bias"] };
        norms.iter().for_each(|part| same(format!("norm_f.{part}"), &[d]));
        for i in 0..self.depth {
            norms.iter().for_each(|part| same(format!("layers.{i}.norm.{part}"), &[d]));
        }
        let weight = "patch_embed.proj.weight";
        let layout = if self.transpose_token_sequence { Layout::Transposed(2, 3) } else { Layout::Same };
        keys.push(Key { layout, ..Key::new(weight, weight, &[d, self.channels, patch[0], patch[1]]) });
        if self.if_abs_pos_embed {
            let shape = [1, patches + class_tokens.len() as i64, d];
            let order = self.positions(&class_tokens, [mels, frames]);
            keys.push(Key { order, ..Key::new("pos_embed.pos_embed", "pos_embed", &shape) });
        }
        (0..self.depth).for_each(|i| mixer_keys(ours, self.bimamba(), &format!("layers.{i}"), &mut keys));
        keys
    }

    /// The number among our tokens of each entry of their table: class tokens, then patches frequency by frequency.
    fn positions(&self, class_tokens: &[i64], [mels, frames]: [i64; 2]) -> Vec<i64> {
        let among = |patch: i64| {
            // Class tokens that stand before it push it back.
            class_tokens.iter().fold(patch, |at, token| at + i64::from(*token <= at))
        };
        let patch = |mel: i64, frame: i64| {
            if self.transpose_token_sequence { frame * mels + mel } else { mel * frames + frame }
        };
        let patches = (0..mels).flat_map(|mel| (0..frames).map(move |frame| among(patch(mel, frame))));
        class_tokens.iter().copied().chain(patches).collect()
    }
}

/// (B, frames, mels) to (B, 1, mels, frames).
fn frequency_major(spectrograms: Tensor) -> Result<Tensor> {
    Ok(time_major(spectrograms)?.f_transpose(2, 3)?)
}

/// (B, frames, mels) to (B, 1, frames, mels).
fn time_major(spectrograms: Tensor) -> Result<Tensor> {
    if spectrograms.dim() != 3 {
        return Err(Error::invalid(format!(
            "`in.x` has shape {:?}, expected spectrograms (batch, frames, mels)",
            spectrograms.size()
        )));
    }
    Ok(spectrograms.f_unsqueeze(1)?)
}
