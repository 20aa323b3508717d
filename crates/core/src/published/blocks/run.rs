//! A published block on tensors from a file.

use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{Author, BLOCKS, find};
use crate::{
    Error, Result,
    config::nearest,
    keymap,
    mixer::{Choice, Mamba1, MixerConfig, QuadMamba},
    tensors::Tensors,
};

/// What a file holds beside parameters.
const OTHERS: [&str; 5] = ["x", "y", "ct.y", "keep", "seq"];

/// The argument that says whether channels come before the grid.
const LAYOUT: &str = "channel_first";

/// Runs the block called `name` on `x` of `file` with the parameters `param.<author's name>` (or, if no name begins so, every
/// other tensor), for the author's keyword arguments `options`. x is (batch, length, channels), (batch, rows, columns, channels), or (batch, channels, rows,
/// columns) where the author has channels first. Returns `y` of the same layout and, if the file holds its cotangent
/// `ct.y`, `grad.x` and `grad.<author's name>`. QuadMamba's quadrants are taken from `keep` if the file has it. Also
/// returns, in words, the arguments that the block does not read: authors have many that say nothing of the result.
///
/// # Errors
/// A name that is not in the table (the nearest is named), a tensor or an option that is missing or wrong, parameters
/// that do not fit (all listed).
pub fn run(name: &str, file: &Tensors, options: &toml::Table) -> Result<(Tensors, Vec<String>)> {
    let Some(block) = find(name) else {
        let names = BLOCKS.iter().map(|block| block.name);
        let hint =
            nearest(name, names.clone()).map_or(String::new(), |near| format!("did you mean `{near}`? "));
        let known = names.collect::<Vec<_>>().join(", ");
        return Err(Error::Config(format!("there is no block `{name}`; {hint}known: {known}")));
    };
    let needed = |name: &str, expected: &str| {
        let tensor = file.get(name);
        tensor.ok_or_else(|| Error::invalid(format!("the tensor `{name}` is missing, expected {expected}")))
    };
    let x = needed("x", "the block's input")?;
    if !(3..=4).contains(&x.dim()) || !x.is_floating_point() || x.numel() == 0 {
        let (shape, kind) = (x.size(), x.kind());
        return Err(Error::invalid(format!(
            "`x` has shape {shape:?} and dtype {kind:?}, expected floats (batch, length, channels) or (batch, rows, \
             columns, channels), none of them 0"
        )));
    }
    // ES2D's golden is of the scan alone, between the projections.
    let core = block.name == "efficientvmamba/es2d_ssm";
    let named = file.keys().any(|name| name.starts_with("param."));
    let parameter = |name: &str| match name.strip_prefix("param.") {
        Some(name) => Some(name.to_owned()),
        None if named || OTHERS.contains(&name) => None,
        None => Some(name.to_owned()),
    };
    let parameters: Tensors =
        file.iter().filter_map(|(name, t)| Some((parameter(name)?, t.shallow_clone()))).collect();
    let mut author = Author::new(options, &parameters, &[]);
    let said = author.flag_or(LAYOUT, false)?;
    let first = core || block.name == "quadmamba/block" || said;
    let last = |t: &Tensor| if first && t.dim() == 4 { t.permute([0, 2, 3, 1]) } else { t.shallow_clone() };
    let x = x.detach().to_kind(Kind::Float).set_requires_grad(true);
    let shape = last(&x).size();
    author.sizes = &shape[1..shape.len() - 1];
    author.channels = shape.last().copied();
    let recipe = block.recipe(&author)?;
    let unread = author.unread()?;
    let vs = VarStore::new(Device::Cpu);
    let load = || {
        let variables = vs.variables();
        let keys = keymap::fitted(&recipe.keys, &variables)?;
        let mut wrong = block.misfits(&author, &keys);
        let (found, expected) = (shape.last().copied().unwrap_or(0), recipe.config.d_model());
        if found != expected {
            wrong.push(format!("`x` has {found} channels, expected {expected}"));
        }
        keymap::refuse(&wrong, keys.len())?;
        keymap::load(&keys, &parameters, &variables)
    };
    let tokens = last(&x).flatten(1, -2).contiguous();
    let y = match &recipe.config {
        MixerConfig::Mamba1(config) if core => {
            let mixer = Mamba1::new(&vs.root(), config)?;
            load()?;
            mixer.core(&tokens.unsqueeze(2), None, &recipe.orders)?.squeeze_dim(2)
        }
        MixerConfig::QuadMamba(config) if file.contains_key("keep") => {
            let chosen = chosen(needed("keep", "the chosen quadrants")?, shape[0])?;
            let mixer = QuadMamba::new(&vs.root(), config)?;
            load()?;
            mixer.forward_choosing(&tokens, &recipe.orders, &mut Choice::Given(&chosen))?
        }
        _ => {
            let mixer = recipe.mixer(&vs.root())?;
            load()?;
            mixer.forward(&tokens, &recipe.orders)?
        }
    };
    let mut full = shape.clone();
    full[shape.len() - 1] = y.size().last().copied().unwrap_or(0);
    let y = y.f_reshape(&full)?;
    let y = if first && full.len() == 4 && !core { y.permute([0, 3, 1, 2]) } else { y };
    let mut results = Tensors::new();
    if let Some(cotangent) = file.get("ct.y") {
        if cotangent.size() != y.size() {
            let (found, expected) = (cotangent.size(), y.size());
            return Err(Error::invalid(format!("`ct.y` has shape {found:?}, expected {expected:?}")));
        }
        (&y * cotangent.to_kind(Kind::Float)).f_sum(Kind::Float)?.f_backward()?;
        results = keymap::gradients(&recipe.keys, &vs.variables())?;
        results.insert("grad.x".into(), x.grad());
    }
    results.insert("y".into(), y.detach().contiguous());
    Ok((results, unread))
}

/// The quadrant of each sample that `keep` (batch, 4) has a 1 for.
fn chosen(keep: &Tensor, batch: i64) -> Result<Tensor> {
    let keep = keep.to_kind(Kind::Double);
    let fits = keep.size() == [batch, 4];
    if !fits || (0..batch).any(|b| Vec::<f64>::try_from(keep.get(b)).is_ok_and(|row| !one_hot(&row))) {
        return Err(Error::invalid(format!(
            "`keep` has shape {:?}, expected [{batch}, 4]: a 1 for the quadrant of each sample, and zeros",
            keep.size()
        )));
    }
    Ok(keep.argmax(1, false))
}

fn one_hot(row: &[f64]) -> bool {
    row.iter().filter(|value| **value == 1.0).count() == 1
        && row.iter().all(|value| [0.0, 1.0].contains(value))
}
