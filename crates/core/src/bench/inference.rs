//! What it costs to run a published model: time and memory of its forward.

use std::time::Instant;

use serde::Serialize;
use tch::{Device, Kind, Tensor, nn::VarStore};

use super::{Effort, extra_memory, wait};
use crate::{
    Error, Result,
    adapter::Model,
    device::move_to,
    grid::{Classifier, Input, Official},
    torch::{autocast, peak_of_gpu},
};

/// The most values of a batch of inputs.
const MAX_VALUES: i64 = 1 << 32;

/// What [`infer`] times.
pub struct InferenceCase {
    /// The model; its weights are drawn, as no time depends on them.
    pub official: Official,
    /// Height and width of its inputs, if not those of the model.
    pub side: Option<i64>,
    /// Inputs of a batch.
    pub batch: i64,
    /// Under autocast to bf16, or in f32.
    pub bf16: bool,
    /// Where it runs.
    pub device: Device,
}

/// What [`infer`] measured, as one JSON line.
#[derive(Debug, Clone, Serialize)]
pub struct InferenceRow {
    /// Its name.
    pub model: String,
    /// Shape of a batch.
    pub shape: Vec<i64>,
    /// `f32` or `bf16`.
    pub dtype: &'static str,
    /// `cpu` or `cuda`.
    pub device: &'static str,
    /// Median seconds of a forward.
    pub median_s: f64,
    /// The fastest.
    pub min_s: f64,
    /// Inputs a second, of the median.
    pub per_second: f64,
    /// The most bytes that tensors took during a forward, weights and inputs among them; none where that is not told.
    pub peak_bytes: Option<u64>,
}

/// Times forwards of a model without gradients.
///
/// # Errors
/// Inputs that do not suit the model or are too large, or no memory.
pub fn infer(case: &InferenceCase, effort: Effort) -> Result<InferenceRow> {
    let &InferenceCase { ref official, side, batch, bf16, device } = case;
    let image = side.map_or(official.input.image, |side| [side, side]);
    let input = Input { channels: official.input.channels, frames: official.input.frames, image };
    let sizes = [batch, input.channels];
    let shape: Vec<i64> = sizes.into_iter().chain(input.frames).chain(image).collect();
    let values = shape.iter().fold(1i64, |all, size| all.saturating_mul(*size));
    if shape.iter().any(|size| *size < 1) || values > MAX_VALUES {
        return Err(Error::Config(format!(
            "inputs of {shape:?} cannot be timed: sizes are at least 1, and together at most {MAX_VALUES} values"
        )));
    }
    tch::manual_seed(0);
    let mut vs = VarStore::new(Device::Cpu);
    let model = Classifier::new(&vs.root(), &official.model, input, official.classes)?;
    move_to(&mut vs, device)?;
    let images = Tensor::f_rand(&shape, (Kind::Float, device))?;
    let forward = || -> Result<()> {
        let logits = tch::no_grad(|| autocast(bf16, || model.forward(&images, false)))?;
        wait(device);
        if logits.size().first() == Some(&batch) {
            return Ok(());
        }
        Err(Error::invalid(format!("{} gave {:?} for {shape:?}", official.name, logits.size())))
    };
    // Kernels are compiled and workspaces taken.
    for _ in 0..effort.warmup.max(1) {
        forward()?;
    }
    let peak_bytes = match device {
        Device::Cuda(index) => {
            let (ran, peak) = peak_of_gpu(index, forward);
            ran.map(|()| peak)?
        }
        _ => {
            let size = |tensor: &Tensor| (tensor.numel() * tensor.kind().elt_size_in_bytes()) as u64;
            let before: u64 = vs.variables().values().map(size).sum::<u64>() + size(&images);
            extra_memory(forward)?.map(|more| before + more)
        }
    };
    let mut times = Vec::new();
    for _ in 0..effort.runs.max(1) {
        let start = Instant::now();
        forward()?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.sort_by(f64::total_cmp);
    let median_s = times[times.len() / 2];
    Ok(InferenceRow {
        model: official.name.to_string(),
        shape,
        dtype: if bf16 { "bf16" } else { "f32" },
        device: if device.is_cuda() { "cuda" } else { "cpu" },
        median_s,
        min_s: times[0],
        per_second: batch as f64 / median_s,
        peak_bytes,
    })
}
