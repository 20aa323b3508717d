//! The VMamba family: a convolution on the grid, the directions stacked in one tensor.

use super::{Author, Recipe, on_grid, summed};
use crate::{
    Error, Result,
    keymap::Key,
    layers::NormKind,
    mixer::{Channels, Coarse, Compat, ConvPlace, DtRank, Mamba1Config, Merge, Parameters},
};

/// The recurrence of SS2D, its parameters called `prefix` and the usual names.
fn stacked(author: &Author) -> (Mamba1Config, Vec<Key>) {
    let mut keys = Vec::new();
    for (theirs, ours) in [
        ("x_proj_weight", "x_proj.weight"),
        ("dt_projs_weight", "dt_proj.weight"),
        ("dt_projs_bias", "dt_proj.bias"),
        ("A_logs", "A_log"),
        ("Ds", "D"),
    ] {
        keys.push(author.key(theirs, ours));
    }
    let config = Mamba1Config {
        directions: author.axis(&[("x_proj_weight", 0), ("dt_projs_weight", 0), ("dt_projs_bias", 0)]),
        d_state: author.axis(&[("A_logs", 1)]),
        dt_rank: DtRank::Rank(author.axis(&[("dt_projs_weight", 2)])),
        conv: ConvPlace::Grid,
        out_norm: Some(NormKind::Layer),
        ..summed()
    };
    (config, keys)
}

/// SS2D with its projections.
fn vmamba(author: &Author) -> (Mamba1Config, Vec<Key>) {
    let (config, mut keys) = stacked(author);
    keys.extend(author.same(&[
        "in_proj.weight",
        "conv2d.weight",
        "conv2d.bias",
        "out_norm.weight",
        "out_norm.bias",
        "out_proj.weight",
    ]));
    let d_model = author.d_model(&[("out_proj.weight", 0), ("in_proj.weight", 1)]);
    let d_inner = author.axis(&[("out_proj.weight", 1), ("conv2d.weight", 0), ("out_norm.weight", 0)]);
    let config = Mamba1Config {
        d_model,
        expand: d_inner as f64 / d_model as f64,
        d_conv: author.axis(&[("conv2d.weight", 2), ("conv2d.weight", 3)]),
        gate: author.axis(&[("in_proj.weight", 0)]) == 2 * d_inner,
        ..config
    };
    (config, keys)
}

pub(super) fn ss2d(author: &Author) -> Result<Recipe> {
    let grid = author.grid()?;
    let (mut config, keys) = vmamba(author);
    let orders = match author.word("forward_type")?.trim_end_matches("_noz") {
        "v05" => on_grid("cross", grid)?,
        "v051d" => on_grid("row | repeat(4)", grid)?,
        "v052d" => on_grid("[row, row, row | reverse, row | reverse]", grid)?,
        "v052dc" => {
            config.stages = 2;
            let read = "[row | segment(row), row | reverse | segment(row), column | segment(column), \
                        column | reverse | segment(column)]";
            // As released: what a line makes from its end to its start is not turned back.
            let written = "[row, row | mirror(rows), column, column | mirror(columns)]";
            on_grid(read, grid)?.written_as(&on_grid(written, grid)?)?
        }
        other => {
            return Err(Error::Config(format!(
                "`forward_type` is \"{other}\", expected v05, v051d, v052d or v052dc, with or without _noz"
            )));
        }
    };
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

/// The part of ES2D behind its convolution: [`Mamba1::core`](crate::mixer::Mamba1::core).
pub(super) fn es2d(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = stacked(author);
    keys.push(author.key("ln_weight", "out_norm.weight"));
    keys.push(author.key("ln_bias", "out_norm.bias"));
    let d_model = author.d_model(&[("ln_weight", 0), ("x_proj_weight", 2), ("dt_projs_weight", 1)]);
    let config = Mamba1Config { d_model, expand: 1.0, d_conv: 3, ..config };
    let step = author.int("step_size", 1)?;
    let orders = on_grid(&format!("row | atrous({step})"), author.grid()?)?;
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

pub(super) fn msvmamba(author: &Author) -> Result<Recipe> {
    let (config, mut keys) = vmamba(author);
    keys.push(author.key("conv2d_b1.weight", "coarse.weight"));
    keys.push(author.key("conv2d_b1.bias", "coarse.bias"));
    let grid = author.grid()?;
    let coarse = Coarse { directions: 3, taps: author.axis(&[("conv2d_b1.weight", 2)]), stride: 2 };
    let config = Mamba1Config { directions: 1, norm_each: true, coarse: Some(coarse), ..config };
    let low = grid.map(|n| (n + 1) / 2);
    let orders =
        on_grid("row", grid)?.with_coarse(on_grid("[row | reverse, column, column | reverse]", low)?);
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}

pub(super) fn groupmamba(author: &Author) -> Result<Recipe> {
    let d_model = author.d_model(&[("proj.weight", 0), ("norm.weight", 0), ("fc2.weight", 0)]);
    let number = |name: &String| name.strip_prefix("mamba_g")?.split('.').next()?.parse::<usize>().ok();
    let groups = author.parameters.keys().filter_map(number).max().unwrap_or(1);
    let groups = groups.clamp(1, author.parameters.len().max(1));
    let mut keys = author.same(&[
        "skip_scale",
        "fc1.weight",
        "fc1.bias",
        "fc2.weight",
        "fc2.bias",
        "norm.weight",
        "norm.bias",
        "proj.weight",
        "proj.bias",
    ]);
    for k in 0..groups {
        let theirs = |name: &str| format!("mamba_g{}.{name}", k + 1);
        for (name, ours) in [
            ("x_proj_weight", "x_proj.weight"),
            ("dt_projs_weight", "dt_proj.weight"),
            ("dt_projs_bias", "dt_proj.bias"),
            ("A_logs", "A_log"),
            ("Ds", "D"),
            ("in_proj.weight", "in_proj.weight"),
            ("conv2d.weight", "conv2d.weight"),
            ("conv2d.bias", "conv2d.bias"),
            ("out_norm.weight", "out_norm.weight"),
            ("out_norm.bias", "out_norm.bias"),
            ("out_proj.weight", "out_proj.weight"),
        ] {
            keys.push(author.row(&theirs(name), ours, k));
        }
    }
    let each = |name: &str, axis: usize| {
        author.axis(&(1..=groups).map(|k| (format!("mamba_g{k}.{name}"), axis)).collect::<Vec<_>>())
    };
    let d_inner = each("Ds", 0);
    let config = Mamba1Config {
        d_model,
        directions: groups as i64,
        d_state: each("A_logs", 1),
        d_conv: each("conv2d.weight", 2),
        expand: (d_inner * groups as i64) as f64 / d_model as f64,
        dt_rank: DtRank::Rank(each("dt_projs_weight", 2)),
        conv: ConvPlace::Grid,
        channels: Channels::Grouped,
        merge: Merge::Concat,
        out_norm: Some(NormKind::Layer),
        ..Mamba1Config::default()
    };
    let affinity = Some(author.axis(&[("fc1.weight", 0), ("fc2.weight", 1), ("fc1.bias", 0)]));
    Ok(Recipe { config: config.into(), affinity, orders: on_grid("cross", author.grid()?)?, keys })
}

pub(super) fn plainmamba(author: &Author) -> Result<Recipe> {
    let d_model = author.d_model(&[("out_proj.weight", 0), ("in_proj.weight", 1)]);
    let d_inner = author.axis(&[("D", 0), ("out_proj.weight", 1), ("conv2d.bias", 0)]);
    let orders = on_grid(
        "[serpentine, serpentine | reverse, serpentine | transpose, serpentine | transpose | reverse]",
        author.grid()?,
    )?;
    let mut keys = author.same(&["in_proj.weight", "out_proj.weight", "conv2d.weight", "conv2d.bias"]);
    for name in ["A_log", "D", "x_proj.weight", "dt_proj.weight", "dt_proj.bias"] {
        keys.push(author.row(name, name, 0));
    }
    keys.push(author.key("direction_Bs", "step_embedding"));
    let config = Mamba1Config {
        d_model,
        directions: 4,
        d_state: author.axis(&[("A_log", 1)]),
        d_conv: author.axis(&[("conv2d.weight", 2)]),
        conv: ConvPlace::Grid,
        expand: d_inner as f64 / d_model as f64,
        dt_rank: DtRank::Rank(author.axis(&[("dt_proj.weight", 1)])),
        parameters: Parameters::Shared,
        step_embedding: true,
        compat: Compat { unordered_coefficients: true, double_dt_bias: true, ..Compat::default() },
        ..summed()
    };
    Ok(Recipe { config: config.into(), affinity: None, orders, keys })
}
