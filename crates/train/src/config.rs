//! The config of a run: what is trained, on what, and how.

use ophidian_core::{
    adapter::Adapter,
    config::{self, KeyDoc},
    device::Place,
};
use sha2::{Digest, Sha256};
use toml::Table;

use crate::{Error, Result};

/// Declares a config table once: its fields with defaults and documentation, serde, `Default`, and `KEYS` with the
/// documentation as text for `ophidian config`.
macro_rules! settings {
    ($(#[$meta:meta])* pub struct $name:ident { $( $(#[doc = $doc:literal])+ $field:ident: $type:ty = $default:expr, )+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $( $(#[doc = $doc])+ pub $field: $type, )+ }

        impl Default for $name {
            fn default() -> Self {
                $name { $( $field: $default, )+ }
            }
        }

        impl $name {
            /// Every key with what it means.
            pub const KEYS: &'static [(&'static str, &'static str)] =
                &[ $( (stringify!($field), concat!($($doc),+)), )+ ];
        }
    };
}

/// In what precision the forward pass runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// Single precision throughout.
    F32,
    /// libtorch's autocast: matrix products and convolutions in bfloat16; weights, loss and optimiser in f32.
    Bf16,
}

/// What to do about a loss or gradient that is NaN or infinite.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnNonFinite {
    /// Stop with a message that names the step and the likely cause.
    Stop,
    /// Leave the parameters as they are, count the step and go on.
    Skip,
}

/// What to do about an example that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnCorrupt {
    /// Stop with a message that names the file.
    Fail,
    /// Leave it out of its batch and count it.
    Skip,
}

settings! {
    /// `[train]`: how the model is trained.
    pub struct TrainConfig {
        /// Passes over the training data.
        epochs: u64 = 10,
        /// Stop after this many steps instead of after `epochs`; 0 = `epochs` decides.
        max_steps: u64 = 0,
        /// Stop after this many seconds in training steps (measuring and saving do not count) instead of after `epochs`;
        /// 0 = `epochs` decides. The learning rate then follows the share of them that is spent, so such a run is not
        /// repeatable to the bit.
        max_seconds: f64 = 0.0,
        /// Examples in a batch.
        batch_size: usize = 64,
        /// Examples in a batch while measuring; changes memory and speed only.
        eval_batch_size: usize = 256,
        /// Batches whose gradients are averaged into one step of the optimiser.
        accumulate: usize = 1,
        /// Peak learning rate of AdamW.
        learning_rate: f64 = 1e-3,
        /// Learning rate at the end of the cosine.
        min_learning_rate: f64 = 1e-5,
        /// Epochs (a fraction is fine) over which the learning rate climbs linearly from 0 to its peak.
        warmup_epochs: f64 = 1.0,
        /// Decoupled weight decay, on weight matrices only (the model names the exemptions).
        weight_decay: f64 = 0.05,
        /// Decay rates of AdamW's two moments.
        betas: [f64; 2] = [0.9, 0.999],
        /// Added to AdamW's denominator.
        eps: f64 = 1e-8,
        /// Gradients are scaled down to this global norm if theirs is larger; 0 = never.
        clip_grad_norm: f64 = 1.0,
        /// Share of each target spread evenly over all classes.
        label_smoothing: f64 = 0.1,
        /// Where the model runs: "cpu", "cuda" (the first GPU) or "cuda:N".
        device: Place = Place::Cpu,
        /// Decay per step of the moving average of the weights, for example 0.999; 0 = no average.
        /// With an average, it is what `best` is chosen by and what `eval` and `predict` use.
        ema_decay: f64 = 0.0,
        /// "f32", or "bf16" for libtorch's autocast (weights, loss and optimiser stay in f32).
        precision: Precision = Precision::F32,
        /// Stop if accuracy has not risen for this many epochs; 0 = never.
        early_stop_epochs: u64 = 0,
        /// "stop" or "skip" a step whose loss or gradient is NaN or infinite.
        on_non_finite: OnNonFinite = OnNonFinite::Stop,
        /// "fail" on an example that cannot be read, or "skip" and count it.
        on_corrupt: OnCorrupt = OnCorrupt::Fail,
        /// Threads that read and augment examples; 0 = a quarter of the cores, at least one.
        workers: usize = 0,
        /// Batches that may wait, ready, for the trainer.
        prefetch: usize = 4,
        /// Steps between two lines of metrics.jsonl.
        log_every_steps: u64 = 20,
        /// Epochs between two measurements on the eval split; the last epoch is always measured.
        eval_every_epochs: u64 = 1,
        /// Steps between two checkpoints; 0 = one after every epoch. One is always written after an epoch.
        checkpoint_every_steps: u64 = 0,
        /// Epochs between two checkpoints that are kept for good as `epoch-NNNN.safetensors`; 0 = none.
        keep_every_epochs: u64 = 0,
    }
}

/// Keys of `[train]` that may change between interruption and resumption: they do not enter the arithmetic.
const FREE_KEYS: [&str; 7] = [
    // Nothing but rounding depends on it, and a checkpoint is of none.
    "device",
    "workers",
    "prefetch",
    "checkpoint_every_steps",
    "keep_every_epochs",
    "early_stop_epochs",
    "eval_batch_size",
];

/// A whole config with every default filled in.
#[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The modality, for example "vision".
    pub adapter: String,
    /// Every random choice of the run follows from this number.
    #[serde(default)]
    pub seed: u64,
    /// How the model is trained.
    #[serde(default)]
    pub train: TrainConfig,
    /// What it is trained on; the adapter knows the keys.
    #[serde(default)]
    pub data: Table,
    /// What is trained; the adapter knows the keys.
    #[serde(default)]
    pub model: Table,
}

impl Config {
    /// The keys of the root with what they mean.
    pub const KEYS: &'static [(&'static str, &'static str)] = &[
        ("adapter", " The modality, for example \"vision\"."),
        ("seed", " Every random choice of the run follows from this number."),
    ];

    /// Checks `table` and fills in every default, with the help of the adapter that it names.
    ///
    /// # Errors
    /// [`ophidian_core::Error::Config`] naming the key that is unknown (with the nearest known one), missing or wrong.
    pub fn resolve<'a>(table: Table, adapters: &[&'a dyn Adapter]) -> Result<(Self, &'a dyn Adapter)> {
        let mut config = Config::resolved(table)?;
        let adapter = find(adapters, &config.adapter)?;
        config.data = adapter.resolve_data(config.data)?;
        config.model = adapter.resolve_model(config.model)?;
        adapter.check(&config.data, &config.model)?;
        Ok((config, adapter))
    }

    /// Reads a config whose `[data]` and `[model]` are resolved already, as a checkpoint keeps it.
    ///
    /// # Errors
    /// As [`Config::resolve`], except for those two tables.
    pub fn resolved(table: Table) -> Result<Self> {
        let config: Config = config::from_table(table, "")?;
        config.train.check()?;
        if config.seed > i64::MAX as u64 {
            return Err(Error::config(format!("`seed` is {}, expected at most {}", config.seed, i64::MAX)));
        }
        Ok(config)
    }

    /// The config as TOML.
    pub fn to_toml(&self) -> String {
        // Only maps with keys that are not text cannot be written, and there are none.
        toml::to_string(self).unwrap_or_default()
    }

    /// Every key of a config for `adapter`, with its default and what it means.
    pub fn keys(adapter: &dyn Adapter) -> Vec<KeyDoc> {
        let root = Self::KEYS.iter().map(|(key, meaning)| KeyDoc {
            key: (*key).to_owned(),
            default: None,
            meaning: meaning.trim().to_owned(),
        });
        root.chain(KeyDoc::within("train", KeyDoc::of(&TrainConfig::default(), TrainConfig::KEYS)))
            .chain(KeyDoc::within("data", adapter.data_keys()))
            .chain(KeyDoc::within("model", adapter.model_keys()))
            .collect()
    }

    /// The config as TOML, with the meaning of each key above it.
    pub fn to_documented_toml(&self, adapter: &dyn Adapter) -> String {
        let keys = Self::keys(adapter);
        let (mut text, mut table) = (String::new(), String::new());
        for line in self.to_toml().lines() {
            if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
                table = format!("{name}.");
            }
            let key = format!("{table}{}", line.split(" = ").next().unwrap_or_default());
            if let Some(found) = keys.iter().find(|known| known.key == key) {
                text.push_str(&format!("# {}\n", found.meaning));
            }
            text.push_str(line);
            text.push('\n');
        }
        text
    }

    /// A number of 64 hexadecimal digits that two configs share only if they lead to the same run: SHA-256 of all keys but
    /// those that do not enter the arithmetic.
    pub fn fingerprint(&self) -> String {
        let mut table = Table::try_from(self).unwrap_or_default();
        if let Some(toml::Value::Table(train)) = table.get_mut("train") {
            // When a run stops early is no arithmetic, but it is another run.
            train.retain(|key, _| !FREE_KEYS.contains(&key) || key == "early_stop_epochs");
            // Runs of before there was this key are the same runs.
            if self.train.max_seconds == 0.0 {
                train.remove("max_seconds");
            }
        }
        let text = toml::to_string(&table).unwrap_or_default();
        Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The keys whose values differ between `self` (the run) and `other` (the request) and enter the arithmetic,
    /// each as "key: run's value, request's value".
    pub fn differences(&self, other: &Config) -> Vec<String> {
        let [run, request] = [self, other].map(|config| Table::try_from(config).unwrap_or_default());
        differences(&run, &request)
    }
}

/// The same of configs as tables, resolved or not.
pub(crate) fn differences(run: &Table, request: &Table) -> Vec<String> {
    let mut differences = Vec::new();
    compare("", run, request, &mut differences);
    differences
}

/// The adapter called `name`.
pub fn find<'a>(adapters: &[&'a dyn Adapter], name: &str) -> Result<&'a dyn Adapter> {
    adapters.iter().find(|adapter| adapter.name() == name).copied().ok_or_else(|| {
        let known = || adapters.iter().map(|adapter| adapter.name());
        let hint = config::nearest(name, known()).map(|near| format!("; did you mean \"{near}\"?"));
        let list = || format!("; known adapters: {}", known().collect::<Vec<_>>().join(", "));
        Error::config(format!("`adapter` is \"{name}\", which is unknown{}", hint.unwrap_or_else(list)))
    })
}

fn compare(prefix: &str, run: &Table, request: &Table, differences: &mut Vec<String>) {
    let keys: std::collections::BTreeSet<&String> = run.keys().chain(request.keys()).collect();
    for key in keys {
        let path = if prefix.is_empty() { key.clone() } else { format!("{prefix}.{key}") };
        if FREE_KEYS.iter().any(|free| path == format!("train.{free}")) {
            continue;
        }
        match (run.get(key), request.get(key)) {
            (Some(toml::Value::Table(run)), Some(toml::Value::Table(request))) => {
                compare(&path, run, request, differences);
            }
            (run, request) if run != request => {
                let show = |value: Option<&toml::Value>| {
                    value.map_or_else(|| "not set".to_owned(), ToString::to_string)
                };
                differences.push(format!("`{path}`: the run has {}, asked for {}", show(run), show(request)));
            }
            _ => {}
        }
    }
}

impl TrainConfig {
    /// Threads that read examples.
    pub fn worker_threads(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get());
        if self.workers == 0 { (cores / 4).max(1) } else { self.workers }
    }

    /// Refuses values that no run can use.
    fn check(&self) -> Result<()> {
        let wrong = |key: &str, found: &dyn std::fmt::Display, expected: &str| {
            Err(Error::config(format!("`train.{key}` is {found}, expected {expected}")))
        };
        for (key, found, most) in [
            ("epochs", self.epochs, 1_000_000),
            ("batch_size", self.batch_size as u64, 1 << 20),
            ("eval_batch_size", self.eval_batch_size as u64, 1 << 20),
            ("accumulate", self.accumulate as u64, 1 << 20),
            ("prefetch", self.prefetch as u64, 1024),
            ("log_every_steps", self.log_every_steps, u64::MAX),
            ("eval_every_epochs", self.eval_every_epochs, u64::MAX),
        ] {
            if found == 0 || found > most {
                let range = if most == u64::MAX { "at least 1".to_owned() } else { format!("1 to {most}") };
                return wrong(key, &found, &range);
            }
        }
        if self.max_steps > 1 << 40 {
            return wrong("max_steps", &self.max_steps, &format!("at most {}", 1u64 << 40));
        }
        if self.max_steps > 0 && self.max_seconds > 0.0 {
            return Err(Error::config(
                "`train.max_steps` and `train.max_seconds` are both set; only one can end the run",
            ));
        }
        if self.workers > 256 {
            return wrong("workers", &self.workers, "at most 256");
        }
        for (key, found, least, most) in [
            ("learning_rate", self.learning_rate, f64::MIN_POSITIVE, 1e3),
            ("min_learning_rate", self.min_learning_rate, 0.0, self.learning_rate),
            ("max_seconds", self.max_seconds, 0.0, 1e9),
            ("warmup_epochs", self.warmup_epochs, 0.0, 1e6),
            ("weight_decay", self.weight_decay, 0.0, 1e3),
            ("eps", self.eps, f64::MIN_POSITIVE, 1.0),
            ("clip_grad_norm", self.clip_grad_norm, 0.0, f64::MAX),
            ("label_smoothing", self.label_smoothing, 0.0, 0.999),
            ("ema_decay", self.ema_decay, 0.0, 0.999_999),
            ("betas", self.betas[0], 0.0, 0.999_999),
            ("betas", self.betas[1], 0.0, 0.999_999),
        ] {
            if !(least..=most).contains(&found) {
                let range = match (key, least == f64::MIN_POSITIVE) {
                    ("min_learning_rate", _) => format!("0 to `train.learning_rate` ({most})"),
                    ("clip_grad_norm", _) => "a number from 0".to_owned(),
                    (_, true) => format!("a number above 0, at most {most}"),
                    (_, false) => format!("{least} to {most}"),
                };
                return wrong(key, &found, &range);
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> String {
        let config: TrainConfig = config::from_table(text.parse().unwrap(), "train").unwrap();
        config.check().err().map_or_else(String::new, |error| error.to_string())
    }

    #[test]
    fn values_out_of_range_name_the_key() {
        assert_eq!(check(""), "");
        assert_eq!(check("batch_size = 0"), "`train.batch_size` is 0, expected 1 to 1048576");
        assert_eq!(
            check("learning_rate = -1.0"),
            "`train.learning_rate` is -1, expected a number above 0, at most 1000"
        );
        assert_eq!(
            check("learning_rate = nan"),
            "`train.learning_rate` is NaN, expected a number above 0, at most 1000"
        );
        assert!(check("min_learning_rate = 1.0").contains("0 to `train.learning_rate` (0.001)"));
        assert!(check("betas = [0.9, 1.0]").contains("`train.betas` is 1"));
        assert!(check("max_seconds = -1.0").contains("`train.max_seconds` is -1, expected 0 to 1000000000"));
        assert!(check("max_seconds = 1.0\nmax_steps = 1").contains("only one can end the run"));
        assert!(check("label_smoothing = 1.0").contains("`train.label_smoothing`"));
    }

    #[test]
    fn every_key_is_documented() {
        let table = Table::try_from(TrainConfig::default()).unwrap();
        let documented: Vec<&str> = TrainConfig::KEYS.iter().map(|(key, _)| *key).collect();
        assert_eq!(table.len(), documented.len());
        for (key, meaning) in TrainConfig::KEYS {
            assert!(table.contains_key(*key), "{key}");
            assert!(meaning.len() > 10, "{key}");
        }
    }

    #[test]
    fn differences_leave_out_what_does_not_enter_the_arithmetic() {
        let config = |text: &str| config::from_table::<Config>(text.parse().unwrap(), "").unwrap();
        let run = config("adapter = 'a'\n[train]\nworkers = 1\nepochs = 3\n[data]\nsize = 1");
        let same = config("adapter = 'a'\n[train]\nworkers = 2\nepochs = 3\n[data]\nsize = 1");
        let other = config("adapter = 'a'\nseed = 1\n[train]\nepochs = 3\n[data]\nsize = 2\nmore = true");
        assert_eq!(run.differences(&same), Vec::<String>::new());
        assert_eq!(
            run.differences(&other),
            [
                "`data.more`: the run has not set, asked for true",
                "`data.size`: the run has 1, asked for 2",
                "`seed`: the run has 0, asked for 1"
            ]
        );
    }
}
