//! The published blocks whose scan is more than an order.

use super::{Author, Recipe, along, on_grid, summed};
use crate::{
    Result,
    keymap::Key,
    layers::NormKind,
    mixer::{
        ConvPlace, DefMambaConfig, DeformCompat, DtRank, GrootLConfig, HydraConfig, Mamba1Config, Merge,
        MixerConfig, QuadCompat, QuadMambaConfig,
    },
};

/// What stands around the core of an SS2D, with or without a norm and a gate.
fn around(author: &Author, directions: i64) -> (Mamba1Config, Vec<Key>) {
    let mut keys = author.same(&["in_proj.weight", "conv2d.weight", "conv2d.bias", "out_proj.weight"]);
    for (theirs, ours) in [
        ("x_proj_weight", "x_proj.weight"),
        ("dt_projs_weight", "dt_proj.weight"),
        ("dt_projs_bias", "dt_proj.bias"),
        ("A_logs", "A_log"),
        ("Ds", "D"),
    ] {
        keys.push(author.key(theirs, ours));
    }
    let normed =
        ["out_norm.weight", "out_norm.bias"].iter().any(|name| author.parameters.contains_key(*name));
    if normed {
        keys.extend(author.same(&["out_norm.weight", "out_norm.bias"]));
    }
    let d_model = author.d_model(&[("out_proj.weight", 0), ("in_proj.weight", 1)]);
    let d_inner = author.axis(&[("out_proj.weight", 1), ("conv2d.weight", 0), ("conv2d.bias", 0)]);
    let rank = author.shape("dt_projs_weight").len().max(1) - 1; // one direction is no axis of Spatial-Mamba's
    let config = Mamba1Config {
        d_model,
        directions,
        d_state: author.axis(&[("A_logs", 1)]),
        d_conv: author.axis(&[("conv2d.weight", 2), ("conv2d.weight", 3)]),
        conv: ConvPlace::Grid,
        expand: d_inner as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis(&[("dt_projs_weight", rank)])),
        out_norm: normed.then_some(NormKind::Layer),
        gate: author.axis(&[("in_proj.weight", 0)]) == 2 * d_inner,
        ..summed()
    };
    (config, keys)
}

pub(super) fn grootv(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = around(author, 1);
    keys.extend(author.same(&["h_norm.weight", "h_norm.bias"]));
    let orders = on_grid("row", author.grid()?)?;
    Ok(Recipe { config: MixerConfig::GrootV(config), affinity: None, orders, keys })
}

pub(super) fn grootl(author: &Author) -> Result<Recipe> {
    let keys = author.same(&[
        "in_proj.weight",
        "conv1d.weight",
        "conv1d.bias",
        "x_proj.weight",
        "dt_proj.weight",
        "dt_proj.bias",
        "A_log",
        "D",
        "out_proj.weight",
    ]);
    let d_model = author.d_model(&[("out_proj.weight", 0), ("in_proj.weight", 1)]);
    let d_inner = author.axis(&[("D", 0), ("out_proj.weight", 1), ("conv1d.bias", 0)]);
    let mamba = Mamba1Config {
        d_model,
        d_state: author.axis(&[("A_log", 1)]),
        d_conv: author.axis(&[("conv1d.weight", 2)]),
        expand: d_inner as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis(&[("dt_proj.weight", 1)])),
        ..Mamba1Config::default()
    };
    let config = GrootLConfig { mamba, context: author.int("context_len", 1)?, ..GrootLConfig::default() };
    let orders = along("row", author.length())?;
    Ok(Recipe { config: MixerConfig::GrootL(config), affinity: None, orders, keys })
}

pub(super) fn spatialmamba(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = around(author, 1);
    keys.extend(state_fusion(author, "state_fusion."));
    let orders = on_grid("row", author.grid()?)?;
    Ok(Recipe { config: MixerConfig::SpatialMamba(config), affinity: None, orders, keys })
}

/// Spatial-Mamba's state fusion, its parameters below `prefix`.
pub fn state_fusion(author: &Author, prefix: &str) -> Vec<Key> {
    let mut keys = vec![author.key(&format!("{prefix}alpha"), &format!("{prefix}alpha"))];
    for (i, kernel) in ["kernel_3", "kernel_3_1", "kernel_3_2"].into_iter().enumerate() {
        keys.push(author.row(&format!("{prefix}{kernel}"), &format!("{prefix}weight"), i));
    }
    keys
}

pub(super) fn hydra(author: &Author) -> Result<Recipe> {
    let mut keys = author.same(&[
        "in_proj.weight",
        "conv1d.weight",
        "dt_bias",
        "A_log",
        "D",
        "fc_D.weight",
        "norm.weight",
        "out_proj.weight",
    ]);
    let has = |name: &str| author.parameters.contains_key(name);
    let bias = author.flag_or("bias", has("in_proj.bias") || has("out_proj.bias"))?;
    let conv_bias = author.flag_or("conv_bias", true)?;
    for (name, there) in [("in_proj.bias", bias), ("conv1d.bias", conv_bias), ("out_proj.bias", bias)] {
        if there {
            keys.push(author.key(name, name));
        }
    }
    let d_model = author.d_model(&[("out_proj.weight", 0), ("in_proj.weight", 1)]);
    let d_inner = author.axis(&[("out_proj.weight", 1), ("norm.weight", 0), ("fc_D.weight", 1)]);
    let heads = author.axis(&[("A_log", 0), ("D", 0), ("fc_D.weight", 0)]);
    let ngroups = author.int_or("ngroups", 1, 1)?;
    let config = HydraConfig {
        d_model,
        d_state: (author.axis(&[("conv1d.weight", 0), ("conv1d.bias", 0)]) - d_inner) / 4 / ngroups,
        d_conv: author.axis(&[("conv1d.weight", 2)]),
        expand: d_inner / d_model,
        headdim: d_inner / heads,
        ngroups,
        bias,
        conv_bias,
        ..HydraConfig::default()
    };
    let orders = along("bidirectional", author.length())?;
    Ok(Recipe { config: MixerConfig::Hydra(config), affinity: None, orders, keys })
}

pub(super) fn defmamba(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = around(author, 3);
    keys.extend(deformable_path(author, "DS.", "deform."));
    let config = DefMambaConfig {
        mamba: Mamba1Config { merge: Merge::Mean, ..config },
        taps: author.axis(&[("DS.conv_offset.conv1.weight", 2)]),
        compat: DeformCompat { half_cell: true },
    };
    let orders = on_grid("bidirectional", author.grid()?)?;
    Ok(Recipe { config: MixerConfig::DefMamba(config), affinity: None, orders, keys })
}

/// DefMamba's deformable path, its parameters below `theirs` and ours below `ours`.
pub fn deformable_path(author: &Author, theirs: &str, ours: &str) -> Vec<Key> {
    let names = [
        ("rpe_table", "rpe_table"),
        ("conv_offset.conv1.weight", "conv.weight"),
        ("conv_offset.conv1.bias", "conv.bias"),
        ("conv_offset.ca.0.weight", "reduce.weight"),
        ("conv_offset.ca.0.bias", "reduce.bias"),
        ("conv_offset.ca.2.weight", "expand.weight"),
        ("conv_offset.ca.2.bias", "expand.bias"),
        ("conv_offset.ln.weight", "norm.weight"),
        ("conv_offset.ln.bias", "norm.bias"),
        ("conv_offset.conv2.weight", "offset.weight"),
    ];
    names
        .iter()
        .map(|(author_s, name)| author.key(&format!("{theirs}{author_s}"), &format!("{ours}{name}")))
        .collect()
}

pub(super) fn quadmamba(author: &Author) -> Result<Recipe> {
    let (mamba, mut keys) = around(author, 2);
    for (theirs, ours) in [
        ("in_conv.0", "norm"),
        ("in_conv.1", "embed"),
        ("out_conv.0", "hidden"),
        ("out_conv.2", "reduce"),
        ("out_conv.4", "out"),
    ] {
        for part in ["weight", "bias"] {
            keys.push(
                author.key(&format!("score_predictor.{theirs}.{part}"), &format!("score.{ours}.{part}")),
            );
        }
    }
    let config = QuadMambaConfig {
        mamba,
        block: author.int_or("depth_num", 0, 0)?,
        compat: QuadCompat { colliding_windows: true, random_inference: true },
    };
    let orders = on_grid("row", author.grid()?)?;
    Ok(Recipe { config: MixerConfig::QuadMamba(config), affinity: None, orders, keys })
}
