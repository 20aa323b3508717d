//! A modality small enough for tests: noisy patterns on an 6x6 grid, classified by a small network with dropout.
#![allow(dead_code, missing_docs)]

use std::{
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
};

use ophidian_core::{
    Error, Result,
    adapter::{Adapter, Model, Splits},
    config::from_table,
    data::{Dataset, Sample},
    rng::{Rng, stream},
};
use ophidian_train::{Config, Mode, Outcome, Progress, Request, train};
use rand::RngExt;
use tch::{Tensor, nn};
use toml::Table;

const SIDE: i64 = 6;

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Data {
    train: usize,
    eval: usize,
    classes: usize,
    noise: f32,
    /// Training examples that cannot be read.
    corrupt: Vec<usize>,
    /// Training examples that hold a NaN.
    poison: Vec<usize>,
    mix: bool,
}

impl Default for Data {
    fn default() -> Self {
        Data { train: 96, eval: 48, classes: 3, noise: 0.5, corrupt: vec![], poison: vec![], mix: false }
    }
}

#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Shape {
    hidden: i64,
    dropout: f64,
}

impl Default for Shape {
    fn default() -> Self {
        Shape { hidden: 16, dropout: 0.1 }
    }
}

pub struct Blobs;

struct Split {
    data: Data,
    len: usize,
    eval: bool,
    classes: Vec<String>,
}

impl Split {
    fn new(data: Data, eval: bool) -> Arc<Self> {
        let len = if eval { data.eval } else { data.train };
        let classes = (0..data.classes).map(|class| format!("class-{class}")).collect();
        Arc::new(Split { data, len, eval, classes })
    }
}

impl Dataset for Split {
    fn len(&self) -> usize {
        self.len
    }
    fn input_shape(&self) -> Vec<i64> {
        vec![1, SIDE, SIDE]
    }
    fn classes(&self) -> &[String] {
        &self.classes
    }
    fn sample(&self, index: usize, augment: Option<&mut Rng>) -> Result<Sample> {
        if !self.eval && self.data.corrupt.contains(&index) {
            return Err(Error::file(self.name_of(index), "is corrupt"));
        }
        let label = index % self.data.classes;
        let mut random = stream(&[u64::from(self.eval), index as u64]);
        let shift = augment.map_or(0.0, |rng| rng.random::<f32>() * 0.1);
        let mut input: Vec<f32> = (0..SIDE * SIDE)
            .map(|at| {
                let pattern = f32::from(u8::from(at % (label as i64 + 2) == 0));
                pattern + shift + self.data.noise * (random.random::<f32>() * 2.0 - 1.0)
            })
            .collect();
        if !self.eval && self.data.poison.contains(&index) {
            input[3] = f32::NAN;
        }
        Ok(Sample { input, label: label as i64 })
    }
    fn name_of(&self, index: usize) -> String {
        format!("{} #{index}", if self.eval { "eval" } else { "train" })
    }
}

struct Net {
    layers: [nn::Linear; 3],
    dropout: f64,
}

impl Model for Net {
    fn forward(&self, input: &Tensor, train: bool) -> Result<Tensor> {
        if train && CRASH.fetch_sub(1, Ordering::SeqCst) == 1 {
            return Err(Error::invalid("crashed as told"));
        }
        let x = input.f_flatten(1, -1)?;
        let x = x.apply(&self.layers[0]).f_relu()?.f_dropout(self.dropout, train)?;
        let x = x.apply(&self.layers[1]).f_relu()?;
        Ok(x.apply(&self.layers[2]))
    }
    fn no_weight_decay(&self, name: &str) -> bool {
        name.ends_with("bias")
    }
}

impl Adapter for Blobs {
    fn name(&self) -> &'static str {
        "blobs"
    }
    fn resolve_data(&self, data: Table) -> Result<Table> {
        Ok(Table::try_from(from_table::<Data>(data, "data")?).unwrap())
    }
    fn resolve_model(&self, model: Table) -> Result<Table> {
        Ok(Table::try_from(from_table::<Shape>(model, "model")?).unwrap())
    }
    fn open(&self, data: &Table) -> Result<Splits> {
        let data: Data = from_table(data.clone(), "data")?;
        Ok(Splits { train: Split::new(data.clone(), false), eval: Split::new(data, true) })
    }
    fn open_inputs(&self, data: &Table, _: &[&Path]) -> Result<Arc<dyn Dataset>> {
        Ok(self.open(data)?.eval)
    }
    fn model(&self, model: &Table, input: &[i64], classes: i64, vs: nn::Path) -> Result<Box<dyn Model>> {
        let shape: Shape = from_table(model.clone(), "model")?;
        let linear = |name: &str, from, to| nn::linear(&vs / name, from, to, Default::default());
        let layers = [
            linear("first", input.iter().product(), shape.hidden),
            linear("second", shape.hidden, shape.hidden),
            linear("head", shape.hidden, classes),
        ];
        Ok(Box::new(Net { layers, dropout: shape.dropout }))
    }
    fn mix(&self, data: &Table, input: Tensor, target: Tensor, rng: &mut Rng) -> Result<(Tensor, Tensor)> {
        if data["mix"].as_bool() != Some(true) {
            return Ok((input, target));
        }
        let share = rng.random::<f64>() * 0.5;
        let mixed = |x: &Tensor| x * (1.0 - share) + x.flip([0]) * share;
        Ok((mixed(&input), mixed(&target)))
    }
    fn picture(&self, _: &Table, input: &[f32], _: &[i64]) -> Option<(u32, u32, Vec<u8>)> {
        let gray = input.iter().map(|value| (value.clamp(0.0, 1.0) * 255.0) as u8);
        Some((SIDE as u32, SIDE as u32, gray.flat_map(|value| [value; 3]).collect()))
    }
}

/// The config in `text` with every default.
pub fn config(text: &str) -> Config {
    let table = format!("adapter = 'blobs'\n{text}").parse().unwrap();
    Config::resolve(table, &[&Blobs]).unwrap().0
}

/// Number of the training batch that fails; 0 or less for none.
static CRASH: AtomicI64 = AtomicI64::new(0);

/// As [`run`], but batch `forward` (counted from 1) fails, which leaves what a crash would leave.
pub fn run_crashing(config: &Config, output: &Path, forward: i64) -> ophidian_train::Result<Outcome> {
    let _turn = turn();
    CRASH.store(forward, Ordering::SeqCst);
    let request = Request { config: config.clone(), adapter: &Blobs, output, mode: Mode::New, program: &[] };
    let outcome = train(request, Progress::silent());
    CRASH.store(0, Ordering::SeqCst);
    outcome
}

/// Trains in `output`. libtorch's generator is one for the process, so tests take turns.
pub fn run(config: &Config, output: &Path, mode: Mode) -> ophidian_train::Result<Outcome> {
    let _turn = turn();
    let request = Request { config: config.clone(), adapter: &Blobs, output, mode, program: &[] };
    train(request, Progress::silent())
}

pub fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    // So little work is not worth sharing.
    tch::set_num_threads(1);
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes of every tensor of a checkpoint, by name.
pub fn tensors(path: &Path) -> std::collections::BTreeMap<String, Vec<u8>> {
    let tensors = ophidian_core::tensors::read(path).unwrap();
    tensors
        .into_iter()
        .map(|(name, tensor)| {
            let mut bytes = vec![0; tensor.numel() * 4];
            tensor.copy_data_u8(&mut bytes, tensor.numel());
            (name, bytes)
        })
        .collect()
}

/// The lines of metrics.jsonl without what depends on the clock or the machine.
pub fn metrics(root: &Path) -> Vec<serde_json::Value> {
    let text = std::fs::read_to_string(root.join("metrics.jsonl")).unwrap();
    text.lines()
        .map(|line| {
            let mut line: serde_json::Value = serde_json::from_str(line).unwrap();
            for key in ["seconds", "training_seconds", "peak_memory_mib", "samples_per_second", "data_wait"] {
                line.as_object_mut().unwrap().remove(key);
            }
            line
        })
        .collect()
}
