//! The options of an op: those it reads, and those that say what its tensors say too.

use super::{Call, Options, shapes::Sizes};
use crate::{Error, Result, config::nearest, tensors::Tensors};

/// An option by its authors' name.
pub(super) type Setting = (&'static str, Means);

/// What an option means.
#[derive(Clone, Copy)]
pub(super) enum Means {
    /// The op reads it: true or false.
    Flag,
    /// The op reads it: silu, swish or none.
    Activation,
    /// The op reads it: a number of rows.
    Rows,
    /// The op reads it: a number.
    Number,
    /// The op reads it: two numbers that do not fall.
    Limits,
    /// How long the authors' chunks are, which results do not depend on.
    Chunk,
    /// What `in.D` is: h (per head), hp (per channel) or null (absent).
    Skip,
    /// Whether this output is wanted; it is, unless the option says no.
    Wants(&'static str),
    /// Whether this input is there.
    Has(&'static str),
    /// How long an axis is; 1 if no tensor has it.
    Size(&'static str),
    /// Into how many groups the channels divide; one group for all of them serves any number.
    Groups,
    /// Which kind of coefficient the input of the same name is: const, var, var3 or group4.
    Coefficient,
    /// Whether the op's other shapes are those in use (complex numbers, heads).
    Second,
    /// Type of the first input, as PyTorch calls it.
    Dtype,
}

/// Whether a coefficient of kind `kind` may have this shape.
pub(super) fn coefficient_may_be(kind: &str, shape: &str) -> bool {
    let axes = shape.split(' ').filter(|axis| *axis != "2").count();
    match kind {
        "const" => shape.starts_with('D'),
        "var3" => axes == 3,
        "group4" => axes == 4,
        _ => !shape.starts_with('D'),
    }
}

/// Refuses options that the op does not have, and values that are none of theirs.
pub(super) fn known(op: &str, settings: &[Setting], options: &Options) -> Result<()> {
    for (key, value) in options {
        let Some((_, means)) = settings.iter().find(|(name, _)| name == key) else {
            let names: Vec<&str> = settings.iter().map(|(name, _)| *name).collect();
            let hint = nearest(key, names.iter().copied());
            let hint = hint.map_or(String::new(), |name| format!("; did you mean `{name}`?"));
            let names = names.join(", ");
            return Err(Error::Config(format!("{op} has no option `{key}`; it has {names}{hint}")));
        };
        let value = text(value);
        let (fits, expected) = match means {
            Means::Flag | Means::Wants(_) | Means::Has(_) | Means::Second => {
                (boolean(value).is_some(), "true or false")
            }
            Means::Activation => (activation(value).is_some(), "silu, swish or none"),
            Means::Number => (value.parse::<f64>().is_ok_and(f64::is_finite), "a number"),
            Means::Limits => (limits(value).is_some(), "two numbers that do not fall, as in [0, inf]"),
            Means::Chunk => (value.parse::<u32>().is_ok_and(|n| n > 0), "a number of at least 1"),
            Means::Skip => (["h", "hp", "null"].contains(&value), "h, hp or null"),
            Means::Rows if value == "null" => (true, ""),
            Means::Rows => (value.parse::<u32>().is_ok_and(|n| n <= MAX_ROWS), "a number up to 1048576"),
            Means::Size(_) | Means::Groups => (value.parse::<i64>().is_ok(), "a number"),
            Means::Coefficient => {
                (["const", "var", "var3", "group4"].contains(&value), "const, var, var3 or group4")
            }
            Means::Dtype => (!value.is_empty(), "a type"),
        };
        if !fits {
            return Err(Error::Config(format!("{op}: {key} = {value}, expected {expected}")));
        }
    }
    Ok(())
}

/// Most rows of a state.
const MAX_ROWS: u32 = 1 << 20;

/// Refuses options that say something else than the tensors.
pub(super) fn agree(
    op: &str,
    settings: &[Setting],
    options: &Options,
    tensors: &Tensors,
    sizes: &Sizes,
    second: bool,
) -> Result<()> {
    for (key, value) in options {
        let Some((_, means)) = settings.iter().find(|(name, _)| name == key) else { continue };
        let value = text(value);
        let flag = boolean(value);
        let contradiction = match *means {
            Means::Has(name) => {
                let there = tensors.contains_key(name);
                let is = if there { "is in the file" } else { "is missing" };
                (flag != Some(there)).then(|| format!("`in.{name}` {is}"))
            }
            Means::Second => (flag != Some(second)).then(|| {
                let found = tensors.iter().map(|(name, t)| format!("`in.{name}` {:?}", t.size()));
                format!("the tensors are {}", found.collect::<Vec<_>>().join(", "))
            }),
            Means::Skip => {
                let found = match tensors.get("D").map(tch::Tensor::dim) {
                    None => "null",
                    Some(1) => "h",
                    Some(_) => "hp",
                };
                (value != found).then(|| format!("the tensors say {found}"))
            }
            Means::Size(letter) => {
                let size = sizes.get(letter).unwrap_or(1);
                (value.parse() != Ok(size)).then(|| format!("the tensors say {size}"))
            }
            Means::Groups => {
                let (channels, groups) = (sizes.get("D").unwrap_or(1), sizes.get("G").unwrap_or(1));
                let fits = |n: i64| n == groups || groups == 1 && n > 0 && channels % n == 0;
                let said = if groups > 1 {
                    format!("B and C have {groups}")
                } else {
                    format!("the {channels} channels do not divide into that many")
                };
                (!value.parse().is_ok_and(fits)).then_some(said)
            }
            Means::Dtype => {
                let known = [
                    ("Float", "float32"),
                    ("Double", "float64"),
                    ("Half", "float16"),
                    ("BFloat16", "bfloat16"),
                ];
                let found = tensors.get("u").or_else(|| tensors.get("x")).map(|t| format!("{:?}", t.kind()));
                let found =
                    known.iter().find(|(kind, _)| Some(*kind) == found.as_deref()).map(|(_, name)| *name);
                found
                    .filter(|name| value.trim_start_matches("torch.") != *name)
                    .map(|name| format!("the tensors are {name}"))
            }
            Means::Flag
            | Means::Activation
            | Means::Rows
            | Means::Number
            | Means::Limits
            | Means::Chunk
            | Means::Wants(_)
            | Means::Coefficient => None,
        };
        if let Some(contradiction) = contradiction {
            return Err(Error::Config(format!("{op}: {key} = {value}, but {contradiction}")));
        }
    }
    Ok(())
}

/// A value as it may stand in JSON.
fn text(value: &str) -> &str {
    value.trim_matches('"')
}

/// What a flag says, if it is one.
pub(super) fn boolean(value: &str) -> Option<bool> {
    match text(value) {
        "true" | "True" | "1" => Some(true),
        "false" | "False" | "0" => Some(false),
        _ => None,
    }
}

/// What limits say, if they are some: `[0, inf]`.
fn limits(value: &str) -> Option<(f64, f64)> {
    let inner = value.trim().strip_prefix(['[', '('])?.strip_suffix([']', ')'])?;
    let (low, high) = inner.split_once(',')?;
    let number = |value: &str| text(value.trim()).parse::<f64>().ok();
    let (low, high) = (number(low)?, number(high)?);
    (low <= high).then_some((low, high))
}

/// Whether SiLU follows.
fn activation(value: &str) -> Option<bool> {
    match value {
        "silu" | "swish" => Some(true),
        "null" | "none" | "None" | "identity" | "" => Some(false),
        _ => None,
    }
}

impl Call<'_> {
    pub(super) fn flag(&self, name: &str, default: bool) -> bool {
        self.options.get(name).and_then(|value| boolean(value)).unwrap_or(default)
    }

    pub(super) fn silu(&self) -> bool {
        self.options.get("activation").and_then(|value| activation(text(value))).unwrap_or(false)
    }

    pub(super) fn number(&self, name: &str, default: f64) -> f64 {
        self.options.get(name).and_then(|value| text(value).parse().ok()).unwrap_or(default)
    }

    /// Limits; (0, inf) if nothing is said.
    pub(super) fn limits(&self, name: &str) -> (f64, f64) {
        self.options.get(name).and_then(|value| limits(text(value))).unwrap_or((0.0, f64::INFINITY))
    }

    pub(super) fn rows(&self, name: &str) -> Option<i64> {
        self.options.get(name).and_then(|value| text(value).parse().ok())
    }
}

/// The kind of coefficient that input `name` is said to be.
pub(super) fn coefficient<'a>(settings: &[Setting], options: &'a Options, name: &str) -> Option<&'a str> {
    let known = settings.iter().any(|(key, means)| *key == name && matches!(means, Means::Coefficient));
    options.get(name).filter(|_| known).map(|value| text(value))
}
