//! What Vim (Zhu et al., arXiv 2401.09417) and the models that others made of its `VisionMamba` have in common: arguments
//! of the constructor and names of tensors.

use serde::{Deserialize, de::DeserializeOwned};
use toml::Table;

use super::{
    ModelConfig, Pool, Rope, Scans,
    bimamba::{Bimamba, FinalPool, MixerConfig},
};
use crate::{
    Error, Result, config, documented,
    keymap::Key,
    layers::NormKind,
    mixer::{Merge, StepSizes},
};

documented! {
/// The arguments that descendants kept as they were in Vim, with its defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VisionMamba {
    /// Blocks.
    pub depth: i64,
    /// Channels of a token.
    pub embed_dim: i64,
    /// Channels of an input.
    pub channels: i64,
    /// Classes, 0 for features alone.
    pub num_classes: i64,
    /// Further arguments of the mixer.
    pub ssm_cfg: MixerConfig,
    /// Of stochastic depth.
    pub drop_path_rate: f64,
    /// Added to the variance in a norm.
    pub norm_epsilon: f64,
    /// The norms have no bias and leave the mean.
    pub rms_norm: bool,
    /// What is read without a class token.
    pub final_pool_type: FinalPool,
    /// A learned position embedding.
    pub if_abs_pos_embed: bool,
    /// A rotary one.
    pub if_rope: bool,
    /// It turns the stream too.
    pub if_rope_residual: bool,
    /// How often sequences are flipped at random.
    pub flip_img_sequences_ratio: f64,
    /// Layers 2i and 2i+1 read the same tokens, the second from the end.
    pub if_bidirectional: bool,
    /// The same as `bimamba_type = "v1"`.
    pub if_bimamba: bool,
    /// What a mixer has for a backward direction.
    pub bimamba_type: Bimamba,
    /// There are class tokens.
    pub if_cls_token: bool,
    /// Start of a learned scale per channel on every mixer's output.
    pub init_layer_scale: Option<f64>,
    /// One class token at each end.
    pub use_double_cls_token: bool,
    /// The class token stands in the middle.
    pub use_middle_cls_token: bool,
    /// Changes no number of a forward pass in f32, as what follows.
    pub drop_rate: f64,
    /// Norm and sum in one kernel.
    pub fused_add_norm: bool,
    /// The stream's dtype.
    pub residual_in_fp32: bool,
    /// How weights start.
    pub initializer_cfg: Option<Table>,
    /// Where the model lies.
    pub device: Option<String>,
    /// Its dtype.
    pub dtype: Option<String>,
}
}

impl Default for VisionMamba {
    fn default() -> Self {
        VisionMamba {
            depth: 24,
            embed_dim: 192,
            channels: 3,
            num_classes: 1000,
            ssm_cfg: MixerConfig::default(),
            drop_path_rate: 0.1,
            norm_epsilon: 1e-5,
            rms_norm: true,
            final_pool_type: FinalPool::None,
            if_abs_pos_embed: true,
            if_rope: false,
            if_rope_residual: false,
            flip_img_sequences_ratio: -1.0,
            if_bidirectional: false,
            if_bimamba: false,
            bimamba_type: Bimamba::V2,
            if_cls_token: true,
            init_layer_scale: None,
            use_double_cls_token: false,
            use_middle_cls_token: true,
            drop_rate: 0.0,
            fused_add_norm: true,
            residual_in_fp32: true,
            initializer_cfg: None,
            device: None,
            dtype: None,
        }
    }
}

impl VisionMamba {
    /// The arguments of a model, and those that it alone has.
    ///
    /// # Errors
    /// Those of [`config::from_table`].
    pub fn read<Own: DeserializeOwned>(table: Table) -> Result<(VisionMamba, Own)> {
        config::from_shared(table, "", &config::names(VisionMamba::DOCS))
    }

    /// What a mixer has for a backward direction.
    pub fn bimamba(&self) -> Bimamba {
        if self.if_bimamba { Bimamba::V1 } else { self.bimamba_type }
    }

    /// The model in our words, but for its patches and mixers; `divide_out` halves the sum of two directions.
    ///
    /// # Errors
    /// [`Error::Config`] for sequences that are flipped at random.
    pub fn model(&self, divide_out: bool) -> Result<ModelConfig> {
        if self.flip_img_sequences_ratio > 0.0 {
            return Err(Error::Config(format!(
                "`flip_img_sequences_ratio` is {}, which flips sequences at random even outside training: not \
                 supported, expected a number of at most 0",
                self.flip_img_sequences_ratio
            )));
        }
        let bimamba = self.bimamba();
        let directions = bimamba.scan();
        Ok(ModelConfig {
            d_model: self.embed_dim.into(),
            depth: self.depth.into(),
            step_sizes: StepSizes::FirstLogUniform,
            scan: if self.if_bidirectional {
                Scans::Each(vec![directions.into(), format!("{directions} | reverse")])
            } else {
                Scans::One(directions.into())
            },
            parameters: bimamba.parameters(),
            merge: if bimamba == Bimamba::V2 && divide_out { Merge::Mean } else { Merge::Sum },
            layer_pairs: self.if_bidirectional,
            norm: if self.rms_norm { NormKind::Rms } else { NormKind::Layer },
            norm_eps: self.norm_epsilon,
            layer_scale: self.init_layer_scale,
            drop_path: self.drop_path_rate,
            // A class token is read whatever final_pool_type says.
            pool: match (self.if_cls_token, self.use_double_cls_token, self.use_middle_cls_token) {
                (false, ..) => self.final_pool_type.ours(),
                (true, true, _) => Pool::Both,
                (true, false, true) => Pool::Middle,
                (true, false, false) => Pool::Head,
            },
            pos_embed: self.if_abs_pos_embed,
            rope: match (self.if_rope, self.if_rope_residual) {
                (false, _) => Rope::None,
                (true, false) => Rope::Hidden,
                (true, true) => Rope::Residual,
            },
            ..ModelConfig::default()
        })
    }

    /// Adds the tensors that have the same names in all of them: class tokens, a rotary embedding of `patches` patches and
    /// those of [`trunk_keys`].
    pub fn keys(&self, keys: &mut Vec<Key>, ours: &ModelConfig, patches: i64) {
        let d = self.embed_dim;
        let mut same = |name: String, shape: &[i64]| keys.push(Key::new(name.clone(), name, shape));
        match ours.pool.class_tokens(patches).len() {
            1 => same("cls_token".into(), &[1, 1, d]),
            2 => ["head", "tail"].iter().for_each(|end| same(format!("cls_token_{end}"), &[1, 1, d])),
            _ => {}
        }
        if self.if_rope {
            ["cos", "sin"].iter().for_each(|table| same(format!("rope.freqs_{table}"), &[patches, d]));
        }
        trunk_keys(keys, ours, self.num_classes);
    }
}

/// Adds the bias of the patch embedding, the head and the norms, which have our names.
pub fn trunk_keys(keys: &mut Vec<Key>, ours: &ModelConfig, classes: i64) {
    let d = ours.last_width();
    let mut same = |name: String, shape: &[i64]| keys.push(Key::new(name.clone(), name, shape));
    same("patch_embed.proj.bias".into(), &[d]);
    if classes > 0 {
        same("head.weight".into(), &[classes, d]);
        same("head.bias".into(), &[classes]);
    }
    let parts: &[&str] = if ours.norm == NormKind::Rms { &["weight"] } else { &["weight", "bias"] };
    for part in parts {
        same(format!("norm_f.{part}"), &[d]);
        (0..ours.blocks()).for_each(|i| same(format!("layers.{i}.norm.{part}"), &[d]));
    }
}
