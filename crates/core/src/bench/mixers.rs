//! What a step of training costs a mixer: Mamba-1 beside Mamba-2 of the same size, by the number of states.

use std::time::Instant;

use ophidian_scan::{Geometry, Pattern};
use serde::Serialize;
use tch::{
    Device, Kind, Tensor,
    nn::{AdamW, OptimizerConfig, VarStore},
};

use super::{Effort, wait};
use crate::{
    Result,
    backbone::Backbone,
    block::{Block, BlockConfig},
    device::move_to,
    layers::NormKind,
    mixer::{Mamba1Config, Mamba2Config, Mamba2Options, MixerConfig},
    ops::Orders,
};

/// What [`compare_mixers`] times.
#[derive(Debug, Clone)]
pub struct MixerCase {
    /// Samples.
    pub batch: i64,
    /// Channels of a token.
    pub d_model: i64,
    /// Blocks of a backbone (root mean square norm, mixer, residual) that is trained for a step: forward, backward and AdamW.
    /// Absent: the mixer alone, forward and backward.
    pub layers: Option<i64>,
    /// Where the tokens lie.
    pub geometry: Geometry,
    /// How many directions, and in which orders.
    pub pattern: Pattern,
    /// Where all of it runs.
    pub device: Device,
}

/// What [`compare_mixers`] measured for a number of states, as one JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct MixerRow {
    /// N.
    pub d_state: i64,
    /// Median seconds with Mamba-1's mixer, f32.
    pub mamba1_s: f64,
    /// The same with Mamba-2's.
    pub mamba2_s: f64,
    /// The median of their quotients, round by round.
    pub ratio: f64,
}

/// Times `case` with either mixer, in turns.
///
/// # Errors
/// A pattern that does not fit the geometry, or sizes that do not fit a mixer.
pub fn compare_mixers(case: &MixerCase, d_state: i64, effort: Effort) -> Result<MixerRow> {
    let &MixerCase { batch, d_model, layers, device, .. } = case;
    let orders = [Orders::new(&case.pattern.plan(&case.geometry)?)];
    let base =
        Mamba1Config { d_model, directions: orders[0].directions(), d_state, ..Mamba1Config::default() };
    let configs: [MixerConfig; 2] =
        [base.clone().into(), Mamba2Config::like(&base, Mamba2Options::default()).into()];
    tch::manual_seed(0);
    let tokens = Tensor::randn([batch, orders[0].tokens(), d_model], (Kind::Float, Device::Cpu));
    let tokens = tokens.to_device(device).set_requires_grad(true);
    let mut stores = [VarStore::new(Device::Cpu), VarStore::new(Device::Cpu)];
    let mut steps: Vec<Box<dyn FnMut() -> Result<()>>> = Vec::new();
    for (config, vs) in configs.iter().zip(&mut stores) {
        let (tokens, orders) = (&tokens, &orders);
        match layers {
            None => {
                let mixer = config.build(&vs.root())?;
                move_to(vs, device)?;
                let inputs: Vec<Tensor> =
                    vs.trainable_variables().into_iter().chain([tokens.shallow_clone()]).collect();
                steps.push(Box::new(move || {
                    let loss = mixer.forward(tokens, &orders[0])?.f_sum(Kind::Float)?;
                    Tensor::f_run_backward(&[loss], &inputs, false, false)?;
                    Ok(())
                }));
            }
            Some(layers) => {
                let block = BlockConfig { d_model, residuals: layers, ..BlockConfig::default() };
                let root = vs.root();
                let blocks = (0..layers).map(|layer| {
                    let path = &root / "layers" / layer;
                    Ok(Block::new(&path, &block, config.build(&(&path / "mixer"))?))
                });
                let blocks = blocks.collect::<Result<Vec<Block>>>()?;
                let backbone = Backbone::new(&root, blocks, false, NormKind::Rms, d_model, 1e-5);
                move_to(vs, device)?;
                let mut optimizer = AdamW::default().build(vs, 1e-4)?;
                steps.push(Box::new(move || {
                    let loss = backbone.forward(tokens, orders, None, true)?.f_sum(Kind::Float)?;
                    optimizer.zero_grad();
                    loss.f_backward()?;
                    optimizer.step();
                    Ok(())
                }));
            }
        }
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..effort.warmup + effort.runs.max(1) {
        for (times, step) in times.iter_mut().zip(&mut steps) {
            let start = Instant::now();
            step()?;
            wait(device);
            if round >= effort.warmup {
                times.push(start.elapsed().as_secs_f64());
            }
        }
    }
    let median = |mut values: Vec<f64>| {
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let ratio = median(times[0].iter().zip(&times[1]).map(|(first, second)| first / second).collect());
    let [mamba1_s, mamba2_s] = times.map(median);
    Ok(MixerRow { d_state, mamba1_s, mamba2_s, ratio })
}
