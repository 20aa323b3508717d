//! Vim (Zhu et al., arXiv 2401.09417) as its authors publish it: their config and parameter names.

use ophidian_core::{
    Error, Result,
    grid::{
        Classifiers, ModelConfig, Pool, Report, Size, Translated,
        bimamba::{Bimamba, mixer_keys},
        geometry,
        visionmamba::VisionMamba,
    },
    keymap::Key,
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
        let (vim, own) = VisionMamba::read::<Own>(table)?;
        let [height, width] = own.img_size.sides();
        let (input, report) = ([vim.channels, height, width], Report { features: true, ..Report::default() });
        Ok(Translated::new(own.ours(&vim)?, input, vim.num_classes, report, |ours| own.keys(&vim, ours)))
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

/// What the authors' `VisionMamba` takes beside what its descendants take too, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Own {
    img_size: Size,
    patch_size: Size,
    stride: i64,
    d_state: i64,
    pt_hw_seq_len: i64,
    if_divide_out: bool,
    /// LocalVim's.
    directions: Option<Vec<Vec<String>>>,
    // What follows changes no number of a forward pass in f32.
    ft_seq_len: Option<i64>,
    drop_block_rate: Option<f64>,
    /// A misspelling of the base model's factory, which the constructor swallows.
    if_devide_out: Option<bool>,
}

impl Default for Own {
    fn default() -> Self {
        Own {
            img_size: Size::Square(224),
            patch_size: Size::Square(16),
            stride: 16,
            d_state: 16,
            pt_hw_seq_len: 14,
            if_divide_out: true,
            directions: None,
            ft_seq_len: None,
            drop_block_rate: None,
            if_devide_out: None,
        }
    }
}

impl Own {
    /// Their config in our words.
    fn ours(&self, vim: &VisionMamba) -> Result<ModelConfig> {
        if let Some(states) = vim.ssm_cfg.d_state {
            return Err(Error::Config(format!(
                "unknown key `ssm_cfg.d_state`; expected `d_state = {states}` beside `ssm_cfg`"
            )));
        }
        let model = ModelConfig {
            patch_size: self.patch_size,
            stride: self.stride.into(),
            d_state: self.d_state,
            rope_grid: self.pt_hw_seq_len,
            ..vim.model(self.if_divide_out)?
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
        vim.ssm_cfg.apply(vim.bimamba() != Bimamba::None, model)
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
    fn keys(&self, vim: &VisionMamba, ours: &ModelConfig) -> Vec<Key> {
        let (d, [rows, columns]) = (vim.embed_dim, self.patch_size.sides());
        let grid = ours.patch_grid(self.img_size.sides());
        let patches = grid[0] * grid[1];
        let mut keys = Vec::new();
        let mut same = |name: &str, shape: &[i64]| keys.push(Key::new(name, name, shape));
        if vim.if_abs_pos_embed {
            let class_tokens = ours.pool.class_tokens(patches).len() as i64;
            same("pos_embed", &[1, patches + class_tokens, d]);
        }
        same("patch_embed.proj.weight", &[d, vim.channels, rows, columns]);
        vim.keys(&mut keys, ours, patches);
        match &self.directions {
            Some(directions) => {
                for (i, names) in (0..vim.depth).zip(directions.iter().cycle()) {
                    local_keys(ours, names.len(), &format!("layers.{i}"), &mut keys);
                }
            }
            None => (0..vim.depth)
                .for_each(|i| mixer_keys(ours, vim.bimamba(), &format!("layers.{i}"), &mut keys)),
        }
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
