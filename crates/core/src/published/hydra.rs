//! Hydra (Hwang et al. 2024, arXiv 2407.09941) as its authors publish it: the mixer alone, `Hydra` of their
//! `hydra/modules/hydra.py`. Their repository holds no image or language model with weights.

use ophidian_scan::{Order, Plan};
use serde::Deserialize;
use tch::{Device, Kind, nn::VarStore};

use super::{Family, Published, Run};
use crate::{
    Error, Result, config,
    keymap::Key,
    mixer::{Hydra, HydraConfig, Mixer},
    ops::Orders,
    tensors::Tensors,
};

/// The family.
pub struct HydraFamily;

/// The arguments of the authors' `Hydra`, with their defaults.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Arguments {
    d_model: i64,
    #[serde(default = "default::d_state")]
    d_state: i64,
    #[serde(default = "default::d_conv")]
    d_conv: i64,
    #[serde(default = "default::expand")]
    expand: i64,
    #[serde(default = "default::headdim")]
    headdim: i64,
    #[serde(default = "default::ngroups")]
    ngroups: i64,
    #[serde(default)]
    bias: bool,
    #[serde(default = "default::conv_bias")]
    conv_bias: bool,
    #[serde(default = "default::activation")]
    activation: String,
    #[serde(default)]
    learnable_init_states: bool,
    dt_limit: Option<[f64; 2]>,
    // Of fresh weights, or of the speed alone.
    #[serde(default, rename = "conv_init")]
    _conv_init: Option<f64>,
    #[serde(default, rename = "dt_min")]
    _dt_min: Option<f64>,
    #[serde(default, rename = "dt_max")]
    _dt_max: Option<f64>,
    #[serde(default, rename = "dt_init_floor")]
    _dt_init_floor: Option<f64>,
    #[serde(default, rename = "chunk_size")]
    _chunk_size: Option<i64>,
    #[serde(default, rename = "use_mem_eff_path")]
    _use_mem_eff_path: Option<bool>,
    #[serde(default, rename = "layer_idx")]
    _layer_idx: Option<i64>,
}

/// What the authors take where an argument is left out; our own config has the same.
mod default {
    use crate::mixer::HydraConfig;

    pub fn d_state() -> i64 {
        HydraConfig::default().d_state
    }
    pub fn d_conv() -> i64 {
        HydraConfig::default().d_conv
    }
    pub fn expand() -> i64 {
        HydraConfig::default().expand
    }
    pub fn headdim() -> i64 {
        HydraConfig::default().headdim
    }
    pub fn ngroups() -> i64 {
        HydraConfig::default().ngroups
    }
    pub fn conv_bias() -> bool {
        HydraConfig::default().conv_bias
    }
    pub fn activation() -> String {
        "swish".into()
    }
}

impl Family for HydraFamily {
    fn name(&self) -> &'static str {
        "hydra"
    }

    fn about(&self) -> &'static str {
        "Hydra's mixer (arXiv 2407.09941): in.x tokens (batch, length, d_model), in.ct a cotangent of out.y"
    }

    fn build(&self, table: toml::Table) -> Result<Published> {
        let theirs: Arguments = config::from_table(table, "")?;
        if !["swish", "silu"].contains(&theirs.activation.as_str()) {
            let found = theirs.activation;
            return Err(Error::Config(format!(
                "`activation` is \"{found}\", expected \"swish\" or \"silu\""
            )));
        }
        if theirs.learnable_init_states || theirs.dt_limit.is_some_and(|limit| limit != [0.0, f64::INFINITY])
        {
            return Err(Error::Config(
                "`learnable_init_states` or `dt_limit` is set, which is not supported; leave them out".into(),
            ));
        }
        let Arguments { d_model, d_state, d_conv, expand, headdim, ngroups, bias, conv_bias, .. } = theirs;
        let config = HydraConfig {
            d_model,
            d_state,
            d_conv,
            expand,
            headdim,
            ngroups,
            bias,
            conv_bias,
            ..HydraConfig::default()
        };
        let variables = VarStore::new(Device::Cpu);
        let mixer = Hydra::new(&variables.root(), &config)?;
        // Both name them alike.
        let named = variables.variables();
        let mut keys: Vec<Key> =
            named.iter().map(|(name, tensor)| Key::new(name.clone(), name.clone(), &tensor.size())).collect();
        keys.sort_by(|a, b| a.theirs.cmp(&b.theirs));
        Ok(Published { variables, keys, model: Box::new(Module { mixer, d_model }) })
    }
}

/// The mixer as a function of `x` and, if gradients are wanted, `ct`.
struct Module {
    mixer: Hydra,
    d_model: i64,
}

impl Run for Module {
    fn has_loss(&self, inputs: &Tensors) -> bool {
        inputs.contains_key("ct")
    }

    /// `y` (B, L, d_model), and `loss`, the sum of y times `ct`.
    fn run(&self, inputs: &Tensors) -> Result<Tensors> {
        if let Some(name) = inputs.keys().find(|name| !["x", "ct"].contains(&name.as_str())) {
            let text = format!("`in.{name}` is no input; expected `in.x` and maybe `in.ct`");
            return Err(Error::invalid(text));
        }
        let d_model = self.d_model;
        let Some(x) = inputs.get("x") else {
            return Err(Error::invalid(format!(
                "`in.x` is missing, expected tokens (batch, length, {d_model})"
            )));
        };
        let shape = x.size();
        if shape.len() != 3 || shape[2] != d_model || x.numel() == 0 || !x.is_floating_point() {
            return Err(Error::invalid(format!(
                "`in.x` has shape {shape:?} and dtype {:?}, expected floats (batch, length, {d_model}), none of them 0",
                x.kind()
            )));
        }
        let row = Order::identity(shape[1] as usize)?;
        let orders = Orders::new(&Plan::new(vec![row.clone(), row.reversed()])?);
        let y = self.mixer.forward(&x.to_kind(Kind::Float), &orders)?;
        let mut outputs = Tensors::new();
        if let Some(ct) = inputs.get("ct") {
            if ct.size() != y.size() {
                let (found, expected) = (ct.size(), y.size());
                return Err(Error::invalid(format!("`in.ct` has shape {found:?}, expected {expected:?}")));
            }
            outputs.insert("loss".into(), (&y * ct.to_kind(Kind::Float)).f_sum(Kind::Float)?.f_view([1])?);
        }
        outputs.insert("y".into(), y);
        Ok(outputs)
    }
}
