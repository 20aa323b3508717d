//! What a step of training costs a mixer: Mamba-1 beside Mamba-2 of the same size, by the number of states.

use std::time::Instant;

use ophidian_scan::{Geometry, Pattern};
use serde::Serialize;
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{Effort, wait};
use crate::{
    Result,
    device::move_to,
    mixer::{Mamba1Config, Mamba2Config, Mamba2Options, MixerConfig},
    ops::Orders,
};

/// What [`compare_mixers`] measured for a number of states, as one JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct MixerRow {
    /// N.
    pub d_state: i64,
    /// Median seconds of a forward and backward of Mamba-1's mixer, f32.
    pub mamba1_s: f64,
    /// The same of Mamba-2's.
    pub mamba2_s: f64,
    /// The median of their quotients, round by round.
    pub ratio: f64,
}

/// Times a forward and backward of both mixers in turns, on `device`, for `batch` samples of `d_model` channels along `pattern` over
/// `geometry`.
///
/// # Errors
/// A pattern that does not fit the geometry, or sizes that do not fit a mixer.
pub fn compare_mixers(
    [batch, d_model]: [i64; 2],
    geometry: &Geometry,
    pattern: &Pattern,
    d_state: i64,
    effort: Effort,
    device: Device,
) -> Result<MixerRow> {
    let orders = Orders::new(&pattern.plan(geometry)?);
    let base = Mamba1Config { d_model, directions: orders.directions(), d_state, ..Mamba1Config::default() };
    let configs: [MixerConfig; 2] =
        [base.clone().into(), Mamba2Config::like(&base, Mamba2Options::default()).into()];
    tch::manual_seed(0);
    let tokens = Tensor::randn([batch, orders.tokens(), d_model], (Kind::Float, Device::Cpu));
    let tokens = tokens.to_device(device).set_requires_grad(true);
    let mut stores = [VarStore::new(Device::Cpu), VarStore::new(Device::Cpu)];
    let mut steps = Vec::new();
    for (config, vs) in configs.iter().zip(&mut stores) {
        let mixer = config.build(&vs.root())?;
        move_to(vs, device)?;
        let inputs: Vec<Tensor> =
            vs.trainable_variables().into_iter().chain([tokens.shallow_clone()]).collect();
        let (tokens, orders) = (&tokens, &orders);
        steps.push(move || -> Result<f64> {
            let start = Instant::now();
            let loss = mixer.forward(tokens, orders)?.f_sum(Kind::Float)?;
            Tensor::f_run_backward(&[loss], &inputs, false, false)?;
            wait(device);
            Ok(start.elapsed().as_secs_f64())
        });
    }
    let mut times = [Vec::new(), Vec::new()];
    for round in 0..effort.warmup + effort.runs.max(1) {
        for (times, step) in times.iter_mut().zip(&steps) {
            let seconds = step()?;
            if round >= effort.warmup {
                times.push(seconds);
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
