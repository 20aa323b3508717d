//! Audio Mamba (Erol et al., arXiv 2406.03344) as its authors publish it: their config and parameter names.
//!
//! It is Vim on a spectrogram of frequencies x times, whose tokens go frequency by frequency, or time by time
//! (`transpose_token_sequence`): then it is Vim on the spectrogram laid on its side. Their table of positions has the class
//! tokens in front, wherever they stand among the tokens.

use ophidian_core::{
    Error, Result, config,
    grid::{
        Classifiers, ModelConfig, Pool, Report, Size, StemKind, Translated,
        bimamba::{Bimamba, mixer_keys},
        visionmamba::VisionMamba,
    },
    keymap::{Key, Layout},
};
use serde::Deserialize;
use tch::Tensor;
use toml::Value;

/// The family.
pub const AUM: Classifiers = Classifiers {
    name: "aum",
    about: "Audio Mamba (arXiv 2406.03344): in.x spectrograms (batch, frames, mels), in.labels (batch)",
    read: |table| {
        let (vim, own) = VisionMamba::read::<Own>(config::with_defaults(table, defaults()))?;
        let [rows, columns] = own.laid(own.spectrogram_size);
        let report = Report {
            features: true,
            any_size: !vim.if_abs_pos_embed && !vim.if_rope,
            prepare: Some(if own.transpose_token_sequence { time_major } else { frequency_major }),
            ..Report::default()
        };
        let input = [vim.channels, rows, columns];
        Ok(Translated::new(own.ours(&vim)?, input, vim.num_classes, report, |ours| own.keys(&vim, ours)))
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

/// What the authors' `AudioMamba` takes beside what it has of Vim, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    /// (mels, frames).
    spectrogram_size: Size,
    patch_size: Size,
    strides: Size,
    if_devide_out: bool,
    use_end_cls_token: bool,
    transpose_token_sequence: bool,
    must_square: bool,
    abs_pos_patch_grid_size: Option<Size>,
    #[serde(rename = "weird__target_size")]
    weird_target_size: Option<Size>,
    // What follows changes no number of a forward pass in f32: the tables of a rotary embedding are among the weights.
    ft_seq_len: Option<Size>,
    pt_hw_seq_len: Option<Size>,
    bilinear_rope: bool,
    imagenet_pretrain: bool,
    aum_pretrain: bool,
    flexible_patch_sizes: Option<Vec<i64>>,
}

impl Default for Own {
    fn default() -> Self {
        Own {
            spectrogram_size: Size::Sides([128, 1024]),
            patch_size: Size::Square(16),
            strides: Size::Square(16),
            if_devide_out: true,
            use_end_cls_token: false,
            transpose_token_sequence: false,
            must_square: false,
            abs_pos_patch_grid_size: None,
            weird_target_size: None,
            ft_seq_len: None,
            pt_hw_seq_len: None,
            bilinear_rope: false,
            imagenet_pretrain: false,
            aum_pretrain: false,
            flexible_patch_sizes: None,
        }
    }
}

/// Defaults of what it has of Vim that are others here.
fn defaults() -> [(&'static str, Value); 5] {
    [
        ("embed_dim", 768.into()),
        ("channels", 1.into()),
        ("num_classes", 527.into()),
        ("drop_path_rate", 0.0.into()),
        ("final_pool_type", "mean".into()),
    ]
}

impl Own {
    /// (mels, frames) as the rows and columns that the model sees.
    fn laid(&self, size: Size) -> [i64; 2] {
        let [mels, frames] = size.sides();
        if self.transpose_token_sequence { [frames, mels] } else { [mels, frames] }
    }

    /// Patches by frequency and by time.
    fn grid(&self) -> [i64; 2] {
        StemKind::Patch.grid(self.spectrogram_size.sides(), self.patch_size.sides(), self.strides.sides())
    }

    fn refuse(&self, vim: &VisionMamba) -> Result<()> {
        let fail = |text: String| Err(Error::Config(text));
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
        if vim.channels != 1 {
            return fail(format!("`channels` is {}, expected 1: a spectrogram has one", vim.channels));
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
        if vim.if_rope && (!vim.if_cls_token || vim.use_double_cls_token) {
            return fail(
                "`if_rope` leaves one token alone, the class token; expected one class token".to_owned(),
            );
        }
        Ok(())
    }

    /// Their config in our words.
    fn ours(&self, vim: &VisionMamba) -> Result<ModelConfig> {
        let model = vim.model(self.if_devide_out)?;
        self.refuse(vim)?;
        let model = ModelConfig {
            patch_size: Size::Sides(self.laid(self.patch_size)),
            stride: Size::Sides(self.laid(self.strides)),
            pool: if model.pool == Pool::Head && self.use_end_cls_token { Pool::End } else { model.pool },
            ..model
        };
        vim.ssm_cfg.apply(vim.bimamba() != Bimamba::None, model)
    }

    /// Which of their tensors is which of ours.
    fn keys(&self, vim: &VisionMamba, ours: &ModelConfig) -> Vec<Key> {
        let (d, [mels, frames], [rows, columns]) = (vim.embed_dim, self.grid(), self.patch_size.sides());
        let patches = mels * frames;
        let mut keys = Vec::new();
        vim.keys(&mut keys, ours, patches);
        let weight = "patch_embed.proj.weight";
        let layout = if self.transpose_token_sequence { Layout::Transposed(2, 3) } else { Layout::Same };
        keys.push(Key { layout, ..Key::new(weight, weight, &[d, vim.channels, rows, columns]) });
        if vim.if_abs_pos_embed {
            let class_tokens = ours.pool.class_tokens(patches);
            let shape = [1, patches + class_tokens.len() as i64, d];
            let order = self.positions(&class_tokens, [mels, frames]);
            keys.push(Key { order, ..Key::new("pos_embed.pos_embed", "pos_embed", &shape) });
        }
        (0..vim.depth).for_each(|i| mixer_keys(ours, vim.bimamba(), &format!("layers.{i}"), &mut keys));
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
